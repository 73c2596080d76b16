"""Transports with the events that they have emitted, for tests to wait on."""

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from random import Random
from typing import Any, TypeVar

import trio

from overlay.core.addresses import candidate_priority
from overlay.core.events import Admit, Dial, Event, LinkOpened, Negotiate, Received, Transmit
from overlay.core.types import Address, Candidate, IceCredentials, LinkId, PeerId
from overlay.core.wire import dial_tokens as dial
from overlay.core.wire.messages import Message
from overlay.transport.interface import Transport
from overlay.transport.memory.transport import MemoryNetwork, MemoryTransport
from overlay.transport.streams import MeshStream
from overlay.transport.udp.transport import UdpTransport
from tests.transport.dtls.certificates import credentials, pem

Kind = TypeVar("Kind")
WALL = 1_800_000_000.0
PATIENCE = 30.0
"""Seconds before a condition that should hold soon counts as failed."""
LOOPBACK = Address("127.0.0.1", 0)


class Node:
    """A transport, its events, and what the core would do with it."""

    def __init__(self, name: str, transport: Transport) -> None:
        self.name = name
        self.transport = transport
        self.events: list[Event] = []
        self.on_event: Callable[[Event], None] | None = None
        self.streams: list[MeshStream] = []
        """What peers have opened."""
        self._changed = trio.Event()
        self._links = 0
        self.scope = trio.CancelScope()

    async def run(self, task_status: Any = trio.TASK_STATUS_IGNORED) -> None:
        """Run the transport until `stop`."""
        with self.scope:
            await self.transport.run(self.emit, on_stream=self._on_stream, task_status=task_status)

    def stop(self) -> None:
        self.scope.cancel()

    @property
    def dial_key(self) -> bytes:
        return dial_key(self.name)

    @property
    def fingerprint(self) -> bytes:
        return credentials(self.name).fingerprint

    @property
    def address(self) -> Address:
        return self.transport.listen[0]

    def emit(self, event: Event) -> None:
        self.events.append(event)
        if self.on_event is not None:
            self.on_event(event)
        self._changed.set()
        self._changed = trio.Event()

    def _on_stream(self, link: LinkId, protocol: str, stream: MeshStream) -> None:
        assert (stream.link, stream.protocol) == (link, protocol)
        self.streams.append(stream)
        self._changed.set()
        self._changed = trio.Event()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until the condition holds; it is looked at after each event."""
        with trio.fail_after(PATIENCE):
            while not condition():
                await self._changed.wait()

    def all_of(self, kind: type[Kind]) -> list[Kind]:
        return [event for event in self.events if isinstance(event, kind)]

    async def next_of(self, kind: type[Kind], already: int = 0) -> Kind:
        """The event of this kind that follows the first `already` ones."""
        await self.until(lambda: len(self.all_of(kind)) > already)
        return self.all_of(kind)[already]

    async def opened(self, link: LinkId | None = None) -> LinkOpened:
        def found() -> list[LinkOpened]:
            return [event for event in self.all_of(LinkOpened) if link in (None, event.link)]

        await self.until(lambda: bool(found()))
        return found()[0]

    def new_link(self) -> LinkId:
        self._links += 2
        return LinkId(self._links - 2)

    def send(self, link: LinkId, *messages: Message) -> None:
        for message in messages:
            self.transport.perform(Transmit(link, message))

    def received(self, link: LinkId | None = None) -> list[Message]:
        return [event.message for event in self.all_of(Received) if link in (None, event.link)]

    def dial(
        self,
        other: "Node",
        *,
        attempt: bytes = bytes(range(16)),
        fingerprint: bytes | None = None,
        address: Address | None = None,
        expires_at: int = int(WALL) + 3600,
        token: bytes | None = None,
        timeout: float = 10.0,
    ) -> LinkId:
        """Dial another node directly, as if an invite had named it."""
        link = self.new_link()
        claim = dial.Claim(dial.INVITE, b"invite 1", expires_at, attempt)
        made = dial.make_token(other.dial_key, claim.kind, claim.token_id, claim.expires_at)
        self.transport.perform(
            Dial(
                link=link,
                addresses=(address or other.address,),
                fingerprint=fingerprint or other.fingerprint,
                remote=dial.listener_credentials(token or made, claim),
                local=IceCredentials(f"{self.name}{link}dial", "p" * 24),
                attempt=attempt,
                timeout=timeout,
            )
        )
        return link

    def candidates(self) -> tuple[Candidate, ...]:
        priority = candidate_priority("host")
        return tuple(Candidate("host", address, priority) for address in self.transport.listen)

    def negotiate(
        self,
        remote: IceCredentials,
        candidates: Sequence[Candidate],
        fingerprint: bytes,
        *,
        controlling: bool,
        local: IceCredentials | None = None,
        attempt: bytes = bytes(16),
        timeout: float = 10.0,
        link: LinkId | None = None,
    ) -> LinkId:
        """Start full ICE with what an offer or answer said, on a prepared link or a new one."""
        link = self.new_link() if link is None else link
        self.transport.perform(
            Negotiate(
                link=link,
                controlling=controlling,
                local=local or self.credentials,
                remote=remote,
                fingerprint=fingerprint,
                attempt=attempt,
                candidates=self.candidates(),
                remote_candidates=tuple(candidates),
                timeout=timeout,
            )
        )
        return link

    @property
    def credentials(self) -> IceCredentials:
        return IceCredentials(f"{self.name}ufrag", f"{self.name}password".ljust(24, "x"))


async def linked(alice: Node, bob: Node) -> tuple[LinkId, LinkId]:
    """A direct dial from alice to bob: the link's id at each end."""
    link = alice.dial(bob)
    opened = await alice.opened(link)
    return opened.link, (await bob.opened()).link


async def admitted(alice: Node, bob: Node) -> tuple[LinkId, LinkId]:
    """The same, with the hello done: streams can be opened."""
    ours, theirs = await linked(alice, bob)
    alice.transport.perform(Admit(ours, PeerId(bytes(32))))
    bob.transport.perform(Admit(theirs, PeerId(bytes(32))))
    return ours, theirs


async def stream_between(
    alice: Node, ours: LinkId, bob: Node, protocol: str = "test", priority: int = 0
) -> tuple[MeshStream, MeshStream]:
    """A stream from alice to bob: both ends."""
    already = len(bob.streams)
    stream = await alice.transport.open_stream(ours, protocol, priority)
    await bob.until(lambda: len(bob.streams) > already)
    return stream, bob.streams[already]


def dial_key(name: str) -> bytes:
    return name.encode().ljust(32, b"k")


def make_udp(name: str, listen: Address) -> UdpTransport:
    return UdpTransport(listen, dial_key=dial_key(name), certificate=pem(name), random=Random(name))


@asynccontextmanager
async def udp_nodes(*names: str, listen: Address = LOOPBACK) -> AsyncGenerator[list[Node], None]:
    """Running UDP transports that end with the block."""
    nodes = [Node(name, make_udp(name, listen)) for name in names]
    async with running(nodes):
        yield nodes


@asynccontextmanager
async def memory_nodes(
    *names: str, network: MemoryNetwork | None = None
) -> AsyncGenerator[list[Node], None]:
    """The same within memory, at 10.0.0.1 and so on."""
    network = network or MemoryNetwork(Random(1))
    nodes = []
    for number, name in enumerate(names, 1):
        transport = MemoryTransport(
            network,
            Address(f"10.0.0.{number}", 4000),
            dial_key=dial_key(name),
            fingerprint=credentials(name).fingerprint,
        )
        nodes.append(Node(name, transport))
    async with running(nodes):
        yield nodes


@asynccontextmanager
async def running(nodes: list[Node]) -> AsyncGenerator[None, None]:
    """Run the transports; in the end none of them may have met an internal error."""
    async with trio.open_nursery() as nursery:
        for node in nodes:
            await nursery.start(node.run)
            node.transport.clock_set(WALL)
        yield
        nursery.cancel_scope.cancel()
    for node in nodes:
        assert node.transport.internal_errors == 0, node.name
