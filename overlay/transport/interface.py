"""What the node needs of a transport: UDP in production, memory in tests, the same to the core."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import trio

from overlay.core.events import (
    Admit,
    Adopt,
    Aim,
    Await,
    Dial,
    DropCircuit,
    Event,
    Hangup,
    Negotiate,
    OpenPort,
    Prepare,
    Punch,
    RelayCircuit,
    Restart,
    SendFrom,
    Transmit,
    UseCircuit,
)
from overlay.core.types import Address, Candidate, IceCredentials, LinkId, PathKind
from overlay.transport.streams import MeshStream, OnStream

LinkEffect = Dial | Prepare | Negotiate | Restart | Adopt | Transmit | Admit | Hangup
PunchEffect = Punch | Aim
CircuitEffect = UseCircuit | RelayCircuit | DropCircuit
PortEffect = OpenPort | SendFrom | Await
TransportEffect = LinkEffect | CircuitEffect | PortEffect | PunchEffect
"""The effects of the core that a transport performs."""


@dataclass(frozen=True, slots=True)
class LinkStatistics:
    """An open link as its transport sees it, at one moment."""

    bytes_in: int
    """Bytes of messages received, without any header."""
    bytes_out: int
    """Bytes of messages that the application handed over."""
    queued: int
    """Bytes handed over that have not been sent for the first time yet."""
    rtt: float | None
    """Smoothed round trip in seconds, None until one was measured."""
    remote: Address
    local: Address
    path: PathKind


@dataclass(frozen=True, slots=True)
class LinkDescription:
    """What a session description of a link says: enough to write both sides' SDP."""

    local: IceCredentials
    remote: IceCredentials | None
    """None when nothing of the dialler was needed: it dialled us directly."""
    local_candidates: tuple[Candidate, ...]
    remote_candidates: tuple[Candidate, ...]
    dtls_role: str
    """Ours: ``client`` or ``server``."""
    local_fingerprint: bytes
    remote_fingerprint: bytes


Starting = Any
"""``trio.TaskStatus[None]``: the stubs of an older trio, which libp2p brings, lack the name."""


class Transport(Protocol):
    """Opens, feeds and ends links; every fact about them leaves through `emit`."""

    listen: tuple[Address, ...]
    """Where it is bound, ports filled in; empty before `run` has started."""
    internal_errors: int
    """Our own faults so far: each cost one link or one datagram and is in the log."""

    @property
    def heard(self) -> bool:
        """Whether anything has come from another machine so far."""
        ...

    async def run(
        self,
        emit: Callable[[Event], None],
        *,
        on_stream: OnStream | None = None,
        task_status: Starting = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Bind, emit `Listening`, and serve until cancelled; then end every link without events.

        `emit` never blocks and may call `perform`. `on_stream` is handed every stream that a peer
        opens; without it they are refused. ConfigError: cannot listen there.
        """
        ...

    def perform(self, effect: TransportEffect) -> None:
        """Do it; never awaits, never raises for an unknown or ended link."""
        ...

    async def open_stream(self, link: LinkId, protocol: str, priority: int = 0) -> MeshStream:
        """A stream to the peer of an admitted link; waits while 256 of ours are open on it.

        `priority` is from -4 to 4: each step up doubles the stream's share of the link. The
        stream lives on this link: it breaks with it, also when the link is given up for another
        one to the same peer. LinkClosed: no such link, not admitted, or it has ended meanwhile.
        """
        ...

    def clock_set(self, wall: float) -> None:
        """The wall clock reads `wall` (Unix seconds) now."""
        ...

    def statistics(self, link: LinkId) -> LinkStatistics | None:
        """None unless the link is open."""
        ...

    def description(self, link: LinkId) -> LinkDescription | None:
        """None unless the link is open."""
        ...
