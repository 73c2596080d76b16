"""Ours: whole nodes in one process, composed as the daemon composes them, with a stop watch.

``python -m benchmarks.node`` carries out commands that come as lines of JSON on its input. A
process may hold many nodes; commands name one by the order in which it started.
"""

import gc
import json
import random
import resource
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import trio

from benchmarks import traffic
from benchmarks.tally import Tally
from overlay.core.context import Settings
from overlay.core.events import (
    Connect,
    Effect,
    Event,
    Join,
    Leave,
    Listening,
    MakeInvite,
    Received,
    Transmit,
)
from overlay.core.overlay import Overlay
from overlay.core.types import Address, LinkId, PeerId
from overlay.core.wire import invite
from overlay.core.wire.messages import Answer
from overlay.identity import Identity, Keys, MemoryPrekeys, ephemeral
from overlay.node.driver import Driver, LinkChange
from overlay.transport.udp.transport import UdpTransport

LISTEN = Address("::", 0)
"""Both families and a free port, as a node does unless told otherwise."""
NETWORK = bytes(32)
INVITE_LIFETIME = 3600.0
LINES_MAX = 65_536
LEAVE_TIMEOUT = 3.0
HIGH_WATER = 65_536
"""The sender waits while more than this is queued."""
ENVELOPE = 23
"""Bytes of an encoded `Answer` around up to 255 sealed ones."""


def message_of(size: int) -> Answer:
    """A control message of exactly `size` bytes that the core ignores: it answers no offer."""
    return Answer(bytes(16), 0, bytes(size - ENVELOPE))


def size_of(message: Answer) -> int:
    """How many bytes such a message has, encoded."""
    return len(message.sealed) + ENVELOPE


class BenchNode:
    """One node, its links with the moments at which they were admitted, and what it received."""

    def __init__(self, number: int, **settings: Any) -> None:
        identity = Identity.generate()
        keys = Keys(identity, MemoryPrekeys())
        born = Settings(
            network=NETWORK,
            network_name="bench",
            name=f"bench-{number}",
            boot=int(time.time()),
            dial_key=identity.dial_key,
            **settings,
        )
        self.peer_id = identity.peer_id
        self.core = Overlay(born, keys, random.Random(number))
        self.transport = UdpTransport(
            LISTEN,
            dial_key=identity.dial_key,
            certificate=identity.certificate,
            random=random.Random(number),
        )
        self.driver = Driver(
            self,
            self.transport,
            remember=lambda peer, record: None,
            report=lambda report: None,
            changed=self._on_change,
        )
        self.admitted: dict[PeerId, float] = {}
        """When each linked peer was admitted, on the system's monotone clock."""
        self.tally = Tally()
        self.publications = traffic.Publications(self.driver)
        self.streams = traffic.Streams(self.transport)
        self.listening = trio.Event()
        self._scope = trio.CancelScope()

    async def run(self) -> None:
        """Be a node until `leave`; `listening` says when it can be dialled."""
        with self._scope:
            async with trio.open_nursery() as nursery:
                self.streams.nursery = nursery
                await nursery.start(self.driver.run)
                on_stream = self.streams.on_stream
                nursery.start_soon(partial(self.transport.run, self._emit, on_stream=on_stream))

    async def invite(self) -> str:
        """A link that any number of joiners may use."""
        body = await self.driver.call(lambda request: MakeInvite(request, INVITE_LIFETIME, 1))
        return invite.encode(body)

    async def join(self, link: str) -> float:
        """Seconds from the command to the first authenticated link."""
        body = invite.decode(link, ephemeral())
        started = time.monotonic()
        await self.driver.call(lambda request: Join(request, body))
        return min(self.admitted.values()) - started

    async def connect(self, peer: PeerId) -> float:
        """Seconds from the command to the authenticated link to this peer."""
        started = time.monotonic()
        await self.driver.call(lambda request: Connect(request, peer))
        return self.admitted[peer] - started

    async def send(self, peer: PeerId, size: int, seconds: float) -> int:
        """Hand the link messages of `size` bytes for as long as it takes them."""
        link = self.link_to(peer)
        message = message_of(size)
        sent = 0
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            room = (HIGH_WATER - self._queued(link)) // size
            for _ in range(room):
                self.transport.perform(Transmit(link, message))
            sent += max(room, 0)
            await trio.sleep(0.001)
        return sent

    def link_to(self, peer: PeerId) -> LinkId:
        """The link to a linked peer."""
        return next(view.link for view in self.core.peers() if view.peer == peer)

    def _queued(self, link: LinkId) -> int:
        statistics = self.transport.statistics(link)
        if statistics is None:
            raise RuntimeError("the link has ended")
        return statistics.queued

    async def leave(self) -> None:
        """Say goodbye on every link, let that get out, and end."""
        links = [view.link for view in self.core.peers()]
        await self.driver.call(Leave)
        with trio.move_on_after(LEAVE_TIMEOUT):
            # What we hang up ends without an event.
            while any(self.transport.statistics(link) for link in links):  # noqa: ASYNC110
                await trio.sleep(0.01)
        self._scope.cancel()

    # --- between the transport, the loop and the core --------------------------------------------

    def handle(self, event: Event, now: float) -> list[Effect]:
        """The core's entry, with a counter behind it: what it has dealt with has arrived."""
        effects = self.core.handle(event, now)
        if isinstance(event, Received) and isinstance(event.message, Answer):
            self.tally.delivered(size_of(event.message))
        return effects

    def next_deadline(self) -> float | None:
        """The core's."""
        return self.core.next_deadline()

    def _emit(self, event: Event) -> None:
        if isinstance(event, Listening):
            self.listening.set()
        self.driver.emit(event)

    def _on_change(self, change: LinkChange) -> None:
        if change.up:
            self.admitted[change.peer] = time.monotonic()
        else:
            self.admitted.pop(change.peer, None)


class Commands:
    """What the parent can ask for."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._nodes: list[BenchNode] = []

    async def start(self, **settings: Any) -> dict[str, Any]:
        """Start one more node."""
        node = BenchNode(len(self._nodes), **settings)
        self._nodes.append(node)
        self._nursery.start_soon(node.run)
        await node.listening.wait()
        return {"peer": node.peer_id.hex()}

    async def invite(self, node: int = 0) -> dict[str, Any]:
        """An invite of this node."""
        return {"link": await self._nodes[node].invite()}

    async def join(self, link: str, node: int = 0) -> dict[str, Any]:
        """Join by an invite."""
        return {"seconds": await self._nodes[node].join(link)}

    async def acquainted(self, peers: int) -> dict[str, Any]:
        """Return once every node here is linked and has the records of so many others."""
        for node in self._nodes:
            await node.driver.wait_until(partial(_knows, node.core, peers))
        return {}

    async def knows(self, peer: str, node: int = 0) -> dict[str, Any]:
        """Return once the node has the peer's record."""
        wanted, core = bytes.fromhex(peer), self._nodes[node].core
        await self._nodes[node].driver.wait_until(
            lambda: any(record.peer_id == wanted for record in core.known())
        )
        return {}

    async def connect(self, peer: str, node: int = 0) -> dict[str, Any]:
        """Connect to a peer; how the link was negotiated is in the answer."""
        target = PeerId(bytes.fromhex(peer))
        seconds = await self._nodes[node].connect(target)
        (view,) = (view for view in self._nodes[node].core.peers() if view.peer == target)
        return {"seconds": seconds, "negotiated": view.negotiated.value}

    async def wait(self, links: int, node: int = 0) -> dict[str, Any]:
        """Return once the node has exactly so many links."""
        admitted = self._nodes[node].admitted
        await self._nodes[node].driver.wait_until(lambda: len(admitted) == links)
        return {}

    async def send(self, peer: str, size: int, seconds: float, node: int = 0) -> dict[str, Any]:
        """Send messages of `size` bytes for some seconds."""
        target = PeerId(bytes.fromhex(peer))
        return {"sent": await self._nodes[node].send(target, size, seconds)}

    async def arrived(self, node: int = 0) -> dict[str, Any]:
        """What the node has received of such messages."""
        return dict(self._nodes[node].tally.figures())

    async def publish(
        self, size: int, rate: float, seconds: float, node: int = 0
    ) -> dict[str, Any]:
        """Publish evenly for some seconds."""
        return {"sent": await self._nodes[node].publications.publish(size, rate, seconds)}

    async def subscribe(self) -> dict[str, Any]:
        """Let every node here hear publications from now on."""
        for node in self._nodes:
            await self._nursery.start(node.publications.subscribe)
        return {}

    async def heard(self, count: int) -> dict[str, Any]:
        """The age in seconds of every publication at every node, once each has `count`."""
        return {"delays": [await node.publications.heard(count) for node in self._nodes]}

    async def fill(self, peer: str, streams: int, size: int, node: int = 0) -> dict[str, Any]:
        """Open streams to a peer and fill them from now on."""
        this = self._nodes[node]
        await this.streams.fill(this.link_to(PeerId(bytes.fromhex(peer))), streams, size)
        return {}

    async def streamed(self, node: int = 0) -> dict[str, Any]:
        """How many bytes have come over streams, and when that was."""
        return {"bytes": self._nodes[node].streams.bytes, "at": time.monotonic()}

    async def ping(self, peer: str, times: int, interval: float, node: int = 0) -> dict[str, Any]:
        """Round trips to a linked peer, one after the other."""
        target = PeerId(bytes.fromhex(peer))
        return {"seconds": await self._nodes[node].publications.pings(target, times, interval)}

    async def leave(self, node: int = 0) -> dict[str, Any]:
        """End one node."""
        await self._nodes[node].leave()
        return {}

    async def settle(self) -> dict[str, Any]:
        """Collect garbage, so that what is left is what the links hold."""
        gc.collect()
        return {}


def _knows(core: Overlay, peers: int) -> bool:
    return bool(core.peers()) and len(core.known()) >= peers


async def serve(make: Callable[[trio.Nursery], object] = Commands) -> None:
    """Carry out commands until the input ends; `make` makes what has them as methods."""
    buffer = b""
    async with trio.open_nursery() as nursery, trio.lowlevel.FdStream(sys.stdin.fileno()) as lines:
        commands = make(nursery)
        while chunk := await lines.receive_some(LINES_MAX):
            *whole, buffer = (buffer + chunk).split(b"\n")
            for line in whole:
                command = json.loads(line)
                try:
                    answer = await getattr(commands, command.pop("do"))(**command)
                except Exception as error:  # noqa: BLE001 (the parent is told)
                    answer = {"error": f"{type(error).__name__}: {error}"}
                print(json.dumps(answer), flush=True)
        nursery.cancel_scope.cancel()


def main() -> None:
    """Run nodes; a crowd of them needs many sockets."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    trio.run(serve)


if __name__ == "__main__":
    main()
