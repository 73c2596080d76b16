"""A UDP forwarder between two nodes that loses datagrams or moves to another port when told to."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from random import Random

import trio
from trio.socket import SOCK_DGRAM, SocketType, socket

from overlay.core.types import Address


class Relay:
    """`address` stands for `target`, like a NAT or a bad net on the way to it."""

    def __init__(self, target: Address, seed: int) -> None:
        self.loss = 0.0
        self._target = target
        self._random = Random(seed)
        self._nursery: trio.Nursery
        self._client: tuple[str, int] | None = None
        self._sockets: list[SocketType] = []
        self._front: SocketType
        self._back: SocketType | None = None

    async def start(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._front = await self._bound()
        host, port = self._front.getsockname()
        self.address = Address(host, port)
        self._nursery.start_soon(self._forward)
        await self.move()

    async def move(self) -> None:
        """A NAT rebinding: the target sees the client at another port; the old one is dead."""
        old, self._back = self._back, await self._bound()
        if old is not None:
            old.close()
        self._nursery.start_soon(self._backward, self._back)

    @property
    def seen_at(self) -> Address:
        """Where the target sees the client."""
        assert self._back is not None
        host, port = self._back.getsockname()
        return Address(host, port)

    async def _forward(self) -> None:
        while True:
            data, self._client = await self._front.recvfrom(65_536)
            assert self._back is not None
            if self._random.random() >= self.loss:
                await self._back.sendto(data, self._target)

    async def _backward(self, back: SocketType) -> None:
        while True:
            try:
                data = await back.recv(65_536)
            except (trio.ClosedResourceError, OSError):
                return  # closed while it waited, or just before
            if self._client is not None and self._random.random() >= self.loss:
                await self._front.sendto(data, self._client)

    async def _bound(self) -> SocketType:
        made = socket(type=SOCK_DGRAM)
        self._sockets.append(made)
        await made.bind(("127.0.0.1", 0))
        return made

    def close(self) -> None:
        for each in self._sockets:
            each.close()


@asynccontextmanager
async def relay_to(target: Address, seed: int = 1) -> AsyncGenerator[Relay, None]:
    """A running relay."""
    relay = Relay(target, seed)
    try:
        async with trio.open_nursery() as nursery:
            await relay.start(nursery)
            yield relay
            nursery.cancel_scope.cancel()
    finally:
        relay.close()
