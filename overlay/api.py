"""The public interface: what a program can do with a node of its own.

`overlay.open_node` opens one. Everything here is a protocol or a plain value; the node
(`overlay.node.node`) implements it, applications (`overlay.apps`) and programs rely on it alone.

PEER is what the commands take, too: a peer id (``12D3KooW…``), the short one that they show, a
unique prefix of either, or a unique name. Whatever cannot be done raises
`overlay.errors.CommandFailed`, with a code for programs and a text for people. Every argument is
looked at when the method is called: a wrong type is a TypeError, a value out of bounds a
`overlay.errors.WrongArgument`, which is a ValueError and a CommandFailed ``usage``; the node lives.
Durations are seconds, instants Unix seconds, addresses "IP:PORT".
"""

from abc import abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Generic, Protocol, Self, TypeVar

import trio

T_co = TypeVar("T_co", covariant=True)

# --- values ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Link:
    """The link to a peer, at one moment."""

    direction: str
    """``out``: we dialled or offered; ``in``."""
    negotiated: str
    """How it came about: ``invite``, ``direct``, ``mesh``, ``cache``, ``manual``."""
    via: str | None
    """The neighbour that handed us the offer or answer."""
    hops: int
    path: str
    """``host``, ``reflexive`` or ``relayed``."""
    local: str
    remote: str
    since: float
    rtt: float | None
    """Seconds; None until one was measured."""
    bytes_in: int
    bytes_out: int
    state: str
    """``up``, ``suspect`` (a check went unanswered) or ``silent`` (nothing heard for 6 s)."""
    relay: str | None = None
    """The peer that relays the path; None: none does."""
    technique: str | None = None
    """How offer and answer passed the NATs: ``ice``, ``low-ttl``, ``prediction`` or ``birthday``;
    None: the path was dialled, or is a relay's."""


@dataclass(frozen=True, slots=True)
class Peer:
    """A member of the mesh as this node sees it, at one moment."""

    peer_id: str
    name: str
    """What it calls itself; empty until its record has come, and if that is no name."""
    link: Link | None
    """None: known by its record alone."""


@dataclass(frozen=True, slots=True)
class Trace:
    """Which way an offer to a peer takes through the mesh now."""

    hops: tuple[str, ...]
    """The peers that it passes, the target last."""
    rtt: float
    """Seconds there and back."""


@dataclass(frozen=True, slots=True)
class Invite:
    """Whoever has the link can join until it expires."""

    link: str = field(repr=False)
    """A secret."""
    expires_at: float


@dataclass(frozen=True, slots=True)
class Message:
    """What somebody published on a topic; its origin is proven by a signature."""

    topic: str
    origin: str
    """The publisher's peer id."""
    data: bytes
    is_text: bool
    """Whether it was published as text."""
    received_at: float

    @property
    def text(self) -> str:
        """The data as text; what is not UTF-8 is replaced."""
        return self.data.decode(errors="replace")


@dataclass(frozen=True, slots=True)
class LinkUp:
    """A link to this peer stands, where there was none."""

    peer_id: str
    name: str


@dataclass(frozen=True, slots=True)
class LinkDown:
    """There is no link to this peer any more."""

    peer_id: str
    name: str
    reason: str
    """``closed`` and ``leave`` (on purpose), ``broken``, ``protocol``, ``overflow`` and others."""


@dataclass(frozen=True, slots=True)
class DialFailed:
    """All that was tried to reach a peer came to nothing; more may follow."""

    peer_id: str
    name: str
    code: str
    """``timeout``, ``unreachable``, ``refused``, ``certificate``, ``glare`` and others."""
    text: str


Event = LinkUp | LinkDown | DialFailed
"""What `Node.events` tells."""

# --- behaviour ---------------------------------------------------------------------------------


class Feed(Protocol, Generic[T_co]):
    """What happens from now on, to be read with ``async for``; ends with the node.

    At most 1,024 items wait. A reader that falls behind further loses none silently: what waited is
    still delivered, then CommandFailed ``overflow`` ends the feed. Leave its ``async with``, or
    `close` it, when it is not read any more.
    """

    def __aiter__(self) -> AsyncIterator[T_co]: ...
    async def __anext__(self) -> T_co: ...
    async def __aenter__(self) -> Self: ...
    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...
    def close(self) -> None:
        """Hear nothing more; may be called again."""
        ...


class Stream(trio.abc.HalfCloseableStream):
    """A reliable stream of bytes in both directions to a peer: a trio stream.

    Flow control goes end to end: `send_all` waits for a peer that does not read, and nobody else
    notices. The stream lives on one link and breaks with it (trio.BrokenResourceError, whose
    text says why). While the link is silent, a minute at most, the stream waits.
    """

    peer_id: str
    """Who is at the other end: proven."""
    protocol: str

    @abstractmethod
    def reset(self, code: int | None = None) -> None:
        """Give both directions up at once; the other end reads `code` (16 and above are yours)."""


class Node(Protocol):
    """A running member of a mesh."""

    @property
    def peer_id(self) -> str:
        """Who this node is: ``12D3KooW…``."""
        ...

    @property
    def name(self) -> str:
        """What it calls itself."""
        ...

    @property
    def network(self) -> str:
        """What people call the network that it is in."""
        ...

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where others on our own networks reach it now, best first; none without a network."""
        ...

    def status(self) -> Mapping[str, Any]:
        """What ``overlay status --json`` prints."""
        ...

    def peers(self, *, everybody: bool = False) -> list[Peer]:
        """The peers with a link that is not silent; with `everybody`, all that are known."""
        ...

    async def invite(self, *, expires: float | None = None, members: int | None = None) -> Invite:
        """A link that lets others in for `expires` seconds and names up to `members` members.

        CommandFailed ``no_address``: the node has none that a link could name.
        """
        ...

    async def join(self, link: str, *, timeout: float = 30.0) -> None:
        """Enter the network of an invite; returns once a member's link stands.

        While nobody answers it goes on for `timeout` seconds.

        A node belongs to one network: a new one enters the first that it is invited to, and from
        then on, or once it has made an invite itself, an invite to another is an InviteError.
        """
        ...

    async def connect(self, peer: str) -> Peer:
        """A link to `peer`, opened by whatever way reaches it if there is none."""
        ...

    async def ping(self, peer: str) -> float:
        """The round trip to a linked peer, in seconds.

        CommandFailed ``silent``, at once: nothing has been heard of it for 6 s.
        """
        ...

    async def trace(self, peer: str) -> Trace:
        """The way to `peer`, linked or not, that signalling takes through the mesh."""
        ...

    async def wait(self, peers: int, timeout: float | None = None) -> None:
        """Return once at least `peers` links are up; CommandFailed ``timeout``."""
        ...

    async def publish(self, topic: str, data: bytes | str) -> str:
        """Send to every subscriber in the mesh, ours too; the message's id.

        At most 1 MiB (CommandFailed ``too_large``; more is for a stream); returns when it has been
        handed to the neighbours. ``busy``: 16 MiB of earlier messages have still to go out, or
        more than 200 a second (1,000 at once) are published here.
        """
        ...

    def subscribe(self, topic: str) -> Feed[Message]:
        """What is published on `topic` from now on."""
        ...

    def events(self) -> Feed[Event]:
        """Links that come and go, and attempts that fail, from now on."""
        ...

    async def open_stream(self, peer: str, protocol: str, *, priority: int = 0) -> Stream:
        """A stream to `peer`, which is connected first if need be.

        `protocol` says what it is for (1 to 64 characters); who does not serve it resets it. Each
        step of `priority`, from -4 to 4, doubles the stream's share of the link.
        """
        ...

    def accept_streams(self, protocol: str) -> Feed[Stream]:
        """The streams that peers open for `protocol` from now on; close each of them.

        One place accepts a protocol. Up to 64 wait; beyond it they are refused.
        """
        ...

    async def request(
        self, peer: str, protocol: str, data: bytes, *, timeout: float = 30.0
    ) -> bytes:
        """The peer's answer to `data`, each at most 1 MiB; the peer is connected first.

        CommandFailed: ``refused`` (nobody serves this), ``timeout``, ``broken``, ``busy``,
        ``too_large``, or whatever the other end's handler raised as one.
        """
        ...

    async def serve(
        self,
        protocol: str,
        handler: Callable[[str, bytes], Awaitable[bytes]],
        *,
        task_status: Any = ...,
    ) -> None:
        """Answer requests until cancelled or the node leaves; start it in a nursery.

        `handler` gets the asking peer's id and the data. A CommandFailed that it raises is raised
        where the request was made; anything else is a bug and comes out here.
        """
        ...

    async def leave(self) -> None:
        """Say goodbye to all peers and end; what waits for this node fails with ``closed``."""
        ...
