"""What goes into the core and what comes out of it: facts and commands in, imperatives out."""

from dataclasses import dataclass
from typing import Any

from overlay.core.messages import GossipPart, InviteBody, Message
from overlay.core.types import (
    Address,
    Candidate,
    IceCredentials,
    LinkFacts,
    LinkId,
    PeerId,
    RequestId,
)

# --- facts -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ClockSet:
    """Wall time is `wall` (Unix seconds) now; said at the start and whenever it jumps."""

    wall: float


@dataclass(frozen=True, slots=True)
class Listening:
    """Our UDP port can be reached at these local addresses (wildcards resolved to interfaces)."""

    addresses: tuple[Address, ...]
    advertised: tuple[Address, ...] = ()
    """What the user says is reachable from outside."""


@dataclass(frozen=True, slots=True)
class LinkOpened:
    """DTLS, SCTP and the control channel stand; nobody has proven who they are yet."""

    link: LinkId
    inbound: bool
    facts: LinkFacts


@dataclass(frozen=True, slots=True)
class DialFailed:
    """A `Dial` or `Negotiate` came to nothing; the link id is gone."""

    link: LinkId
    reason: str
    """``timeout``, ``glare``, ``unreachable``, ``certificate``, ``protocol``, ``cancelled``."""


@dataclass(frozen=True, slots=True)
class LinkLost:
    """An open link has ended and its id is gone."""

    link: LinkId
    reason: str
    """``closed`` (by the peer), ``broken``, ``protocol`` (the peer's fault), ``error`` (ours),
    ``overflow``."""


@dataclass(frozen=True, slots=True)
class LinkSuspect:
    """A check has gone unanswered for 1.5 s."""

    link: LinkId


@dataclass(frozen=True, slots=True)
class LinkAlive:
    """A suspect or silent link has been heard again."""

    link: LinkId


@dataclass(frozen=True, slots=True)
class LinkSilent:
    """Nothing heard for 6 s. The association stays suspended: `LinkAlive` may follow for 60 s."""

    link: LinkId


@dataclass(frozen=True, slots=True)
class PathMoved:
    """The link now runs over another pair of addresses."""

    link: LinkId
    facts: LinkFacts


@dataclass(frozen=True, slots=True)
class Mapped:
    """The peer at the other end of `link` sees us at `address` (XOR-MAPPED-ADDRESS)."""

    link: LinkId
    address: Address


@dataclass(frozen=True, slots=True)
class Received:
    """A decoded control message has arrived."""

    link: LinkId
    message: Message


@dataclass(frozen=True, slots=True)
class Unsent:
    """A link was too far behind to queue a part of a publication, which was dropped."""

    link: LinkId
    message: GossipPart


@dataclass(frozen=True, slots=True)
class Malformed:
    """Bytes that are no control message have arrived."""

    link: LinkId
    why: str


@dataclass(frozen=True, slots=True)
class Wakeup:
    """The deadline that the core asked for has come."""


# --- commands ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Join:
    """Enter the network of an invite: dial all its members' addresses at once."""

    request: RequestId
    invite: InviteBody


@dataclass(frozen=True, slots=True)
class Recall:
    """Records of peers met in an earlier life (the cache), to be dialled again."""

    records: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class MakeInvite:
    """Make an invite; resolves to an `InviteBody`."""

    request: RequestId
    expires_in: float
    members: int
    role: str = "member"
    uses: int = 0


@dataclass(frozen=True, slots=True)
class Connect:
    """Open a link to a peer by whatever step of the ladder reaches it; resolves to None."""

    request: RequestId
    peer: PeerId


@dataclass(frozen=True, slots=True)
class PingPeer:
    """Measure the round trip to a linked peer; resolves to seconds (float)."""

    request: RequestId
    peer: PeerId


@dataclass(frozen=True, slots=True)
class TracePeer:
    """See which way an offer to this peer would take; resolves to `Traced`."""

    request: RequestId
    peer: PeerId


@dataclass(frozen=True, slots=True)
class Traced:
    """What a trace found."""

    hops: tuple[PeerId, ...]
    """The nodes it passed, the target last."""
    rtt: float
    """Seconds there and back."""


@dataclass(frozen=True, slots=True)
class Publish:
    """Send to every subscriber in the mesh; resolves to the message id."""

    request: RequestId
    topic: str
    data: bytes
    text: bool


@dataclass(frozen=True, slots=True)
class Leave:
    """Say goodbye on every link; resolves to None when done."""

    request: RequestId


Command = Join | Recall | MakeInvite | Connect | PingPeer | TracePeer | Publish | Leave
"""What users and programs ask for."""

Event = (
    ClockSet
    | Listening
    | LinkOpened
    | DialFailed
    | LinkLost
    | LinkSuspect
    | LinkAlive
    | LinkSilent
    | PathMoved
    | Mapped
    | Received
    | Malformed
    | Unsent
    | Wakeup
    | Command
)

# --- effects -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Dial:
    """Dial a listener directly: its answer is fabricated, nothing is signalled."""

    link: LinkId
    addresses: tuple[Address, ...]
    """Where it may be, best first: checks go to all of them at once, the first to answer wins."""
    fingerprint: bytes
    remote: IceCredentials
    """The listener's, made from its dial token (`overlay.core.dial`)."""
    local: IceCredentials
    attempt: bytes
    timeout: float


@dataclass(frozen=True, slots=True)
class Prepare:
    """Get ready for ICE with these credentials before an offer goes out; we shall control."""

    link: LinkId
    local: IceCredentials
    attempt: bytes
    candidates: tuple[Candidate, ...]


@dataclass(frozen=True, slots=True)
class Negotiate:
    """Start full ICE with a peer whose offer or answer is at hand."""

    link: LinkId
    controlling: bool
    """The offerer: ICE-controlling and DTLS client."""
    local: IceCredentials
    remote: IceCredentials
    fingerprint: bytes
    attempt: bytes
    candidates: tuple[Candidate, ...]
    """Ours, as offered or answered."""
    remote_candidates: tuple[Candidate, ...]
    timeout: float


@dataclass(frozen=True, slots=True)
class Transmit:
    """Send a control message; a link whose queue is full is aborted (`LinkLost`, ``overflow``)."""

    link: LinkId
    message: Message


@dataclass(frozen=True, slots=True)
class Admit:
    """The hello on this link has succeeded: it is now the link to `peer`."""

    link: LinkId
    peer: PeerId


@dataclass(frozen=True, slots=True)
class Hangup:
    """End a link or an attempt once what was transmitted on it has left; no event follows."""

    link: LinkId
    reason: str


@dataclass(frozen=True, slots=True)
class Deliver:
    """A published message for the local subscribers."""

    topic: str
    origin: PeerId
    data: bytes
    text: bool
    hops: int


@dataclass(frozen=True, slots=True)
class Resolved:
    """A command has succeeded."""

    request: RequestId
    value: Any


@dataclass(frozen=True, slots=True)
class Rejected:
    """A command has failed; `text` says what is wrong, why, and what to do."""

    request: RequestId
    code: str
    text: str


@dataclass(frozen=True, slots=True)
class Remember:
    """Keep this signed record in the cache of peers met: we are linked to its author."""

    peer: PeerId
    record: bytes


@dataclass(frozen=True, slots=True)
class Report:
    """Something that the log should name."""

    level: str
    """``debug``, ``info``, ``warning``."""
    event: str
    fields: dict[str, Any]


Effect = (
    Dial
    | Prepare
    | Negotiate
    | Transmit
    | Admit
    | Hangup
    | Deliver
    | Resolved
    | Rejected
    | Remember
    | Report
)
