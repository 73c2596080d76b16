"""One idea: what goes into the core and what comes out: facts and commands in, imperatives out."""

from typing import Any

import msgspec

from overlay.core.types import (
    Address,
    Candidate,
    CircuitId,
    EndReason,
    GoodbyeCode,
    IceCredentials,
    LinkFacts,
    LinkId,
    LowTtl,
    PeerId,
    PortId,
    PunchEnd,
    PunchRole,
    RequestId,
    Technique,
)
from overlay.core.wire.by_hand import Answer as CarriedAnswer
from overlay.core.wire.documents import InviteBody
from overlay.core.wire.messages import GossipPart, Message

JOIN_TIMEOUT = 30.0
"""Seconds (guess) for which a join goes on while nobody answers, unless it is told otherwise."""

# --- facts -------------------------------------------------------------------------------------


class ClockSet(msgspec.Struct, frozen=True, gc=False):
    """Wall time is `wall` (Unix seconds) now.

    Said at the start, whenever it jumps, and when our process has stood still.
    """

    wall: float


class Listening(msgspec.Struct, frozen=True, gc=False):
    """Our UDP port can be reached at these local addresses (wildcards resolved to interfaces)."""

    addresses: tuple[Address, ...]
    advertised: tuple[Address, ...] = ()
    """What the user says is reachable from outside."""


class LinkOpened(msgspec.Struct, frozen=True, gc=False):
    """DTLS, SCTP and the control channel stand; nobody has proven who they are yet."""

    link: LinkId
    inbound: bool
    facts: LinkFacts


class DialFailed(msgspec.Struct, frozen=True, gc=False):
    """A `Dial` or `Negotiate` came to nothing; the link id is gone."""

    link: LinkId
    reason: EndReason


class LinkLost(msgspec.Struct, frozen=True, gc=False):
    """An open link has ended and its id is gone."""

    link: LinkId
    reason: EndReason


class LinkSuspect(msgspec.Struct, frozen=True, gc=False):
    """A check has gone unanswered for 1.5 s; over a relay, with data under way, two in .7 s."""

    link: LinkId


class LinkAlive(msgspec.Struct, frozen=True, gc=False):
    """A suspect or silent link has been heard again."""

    link: LinkId


class LinkSilent(msgspec.Struct, frozen=True, gc=False):
    """Nothing heard for 6 s. The association stays suspended: `LinkAlive` may follow for 60 s."""

    link: LinkId


class PathMoved(msgspec.Struct, frozen=True, gc=False):
    """The link now runs over another pair of addresses."""

    link: LinkId
    facts: LinkFacts


class Mapped(msgspec.Struct, frozen=True, gc=False):
    """The peer at the other end of `link` sees us at `address` (XOR-MAPPED-ADDRESS)."""

    link: LinkId
    address: Address


class PortOpened(msgspec.Struct, frozen=True, gc=False):
    """A port that we wanted for a while is open at this local address."""

    port: PortId
    local: Address


class PortHeard(msgspec.Struct, frozen=True, gc=False):
    """A datagram has come to such a port, from anybody."""

    port: PortId
    data: bytes
    remote: Address


class Seen(msgspec.Struct, frozen=True, gc=False):
    """STUN with a transaction id that we wait for has come to the node's own port.

    It is no check, and from whoever it pleases; a request has been answered.
    """

    transaction: bytes
    remote: Address
    mapped: Address | None = None
    """If it is an answer: where its sender sees us."""
    local: Address | None = None
    """Of an answer: to which of our addresses it has come."""


class Foretold(msgspec.Struct, frozen=True, gc=False):
    """A fresh socket of ours probably has one of these ports towards the peer of `link`: tell it.

    In the order in which our NAT gives them.
    """

    link: LinkId
    round: int
    ports: tuple[int, ...]


class PunchOver(msgspec.Struct, frozen=True, gc=False):
    """A `Punch` has come to nothing; what comes of one otherwise is `PathMoved`."""

    link: LinkId
    end: PunchEnd


class CircuitCarried(msgspec.Struct, frozen=True, gc=False):
    """We have relayed so many bytes over this circuit since the last report, 10 s ago or more."""

    circuit: CircuitId
    bytes: int


class Received(msgspec.Struct, frozen=True, gc=False):
    """A decoded control message has arrived."""

    link: LinkId
    message: Message


class Unsent(msgspec.Struct, frozen=True, gc=False):
    """A link was too far behind to queue a part of a publication, which was dropped."""

    link: LinkId
    message: GossipPart


class Malformed(msgspec.Struct, frozen=True, gc=False):
    """Bytes that are no control message have arrived."""

    link: LinkId
    why: str


class Wakeup(msgspec.Struct, frozen=True, gc=False):
    """The deadline that the core asked for has come."""


# --- commands ----------------------------------------------------------------------------------


class Join(msgspec.Struct, frozen=True, gc=False):
    """Enter the network of an invite: dial all its members' addresses at once, and again."""

    request: RequestId
    invite: InviteBody
    timeout: float = JOIN_TIMEOUT
    """Seconds for which it goes on while nobody answers."""


class Recall(msgspec.Struct, frozen=True, gc=False):
    """Records of peers met in an earlier life (the cache), to be dialled again."""

    records: tuple[bytes, ...]


class MakeInvite(msgspec.Struct, frozen=True, gc=False):
    """Make an invite; resolves to an `InviteBody`."""

    request: RequestId
    expires_in: float
    members: int
    role: str = "member"
    uses: int = 0


class MakeOffer(msgspec.Struct, frozen=True, gc=False):
    """Make an offer for people to carry (`overlay.core.wire.by_hand`), and be there to be met.

    Resolves to an `InviteBody` that names this node alone.
    """

    request: RequestId
    expires_in: float


class AnswerOffer(msgspec.Struct, frozen=True, gc=False):
    """Answer an offer that has been carried here; resolves to the answer's payload, bytes.

    Paths to the offerer are looked for until the offer expires.
    """

    request: RequestId
    offer: InviteBody


class AcceptAnswer(msgspec.Struct, frozen=True, gc=False):
    """Meet the author of an answer to an offer of ours; resolves to its peer id."""

    request: RequestId
    answer: CarriedAnswer
    timeout: float
    """Seconds after which the command is turned down; trying goes on until the offer expires."""


class Connect(msgspec.Struct, frozen=True, gc=False):
    """Open a link to a peer, by dialling it or by an offer through the mesh; resolves to None."""

    request: RequestId
    peer: PeerId


class PingPeer(msgspec.Struct, frozen=True, gc=False):
    """Measure the round trip to a linked peer; resolves to seconds (float)."""

    request: RequestId
    peer: PeerId


class TracePeer(msgspec.Struct, frozen=True, gc=False):
    """See which way an offer to this peer would take; resolves to `Traced`."""

    request: RequestId
    peer: PeerId


class Examine(msgspec.Struct, frozen=True, gc=False):
    """Find out what our NAT does; resolves to None when as much is known as can be."""

    request: RequestId


class Traced(msgspec.Struct, frozen=True, gc=False):
    """What a trace found."""

    hops: tuple[PeerId, ...]
    """The nodes it passed, the target last."""
    rtt: float
    """Seconds there and back."""
    attempt: int = 0
    """Which try was answered: 0 the first, 1 the one over another first link, then the walks."""


class Publish(msgspec.Struct, frozen=True, gc=False):
    """Send to every subscriber in the mesh; resolves to the message id."""

    request: RequestId
    topic: str
    data: bytes
    text: bool


class Leave(msgspec.Struct, frozen=True, gc=False):
    """Say goodbye on every link; resolves to None when done."""

    request: RequestId


ByHandCommand = MakeOffer | AnswerOffer | AcceptAnswer
Command = (
    Join
    | Recall
    | MakeInvite
    | ByHandCommand
    | Connect
    | PingPeer
    | TracePeer
    | Examine
    | Publish
    | Leave
)
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
    | CircuitCarried
    | Foretold
    | PunchOver
    | PortOpened
    | PortHeard
    | Seen
    | Wakeup
    | Command
)

# --- effects -----------------------------------------------------------------------------------


class Dial(msgspec.Struct, frozen=True, gc=False):
    """Dial a listener directly: its answer is fabricated, nothing is signalled."""

    link: LinkId
    addresses: tuple[Address, ...]
    """Where it may be, best first: checks go to all of them at once, the first to answer wins."""
    fingerprint: bytes
    remote: IceCredentials
    """The listener's, made from its dial token (`overlay.core.wire.dial_tokens`)."""
    local: IceCredentials
    attempt: bytes
    timeout: float


class Prepare(msgspec.Struct, frozen=True, gc=False):
    """Get ready for ICE with these credentials before an offer goes out; we shall control."""

    link: LinkId
    local: IceCredentials
    attempt: bytes
    candidates: tuple[Candidate, ...]


class Negotiate(msgspec.Struct, frozen=True, gc=False):
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
    low_ttl: LowTtl | None = None
    """What the answerer sends first dies before it arrives, if anything does."""


class Restart(msgspec.Struct, frozen=True, gc=False):
    """Restart ICE on the association of this link (RFC 8445 §9); DTLS, SCTP and streams go on.

    A new path is said by `PathMoved` and `LinkAlive`; without one the association stays as it is.
    """

    link: LinkId
    controlling: bool
    """The end that has asked for it."""
    local: IceCredentials
    remote: IceCredentials
    candidates: tuple[Candidate, ...]
    """Ours, as offered or answered."""
    remote_candidates: tuple[Candidate, ...]
    timeout: float
    low_ttl: LowTtl | None = None
    """As in `Negotiate`."""


class Punch(msgspec.Struct, frozen=True, gc=False):
    """Help a restart of ICE that is under way by a technique beyond ICE (decision 0040).

    `PathMoved` or `PunchOver` follows. A second one at a time is refused.
    """

    link: LinkId
    ufrag: str
    """Our credentials of that restart: if it is another by now, nothing happens."""
    technique: Technique
    role: PunchRole
    target: Address
    """Where our neighbours see the peer; of one that opens, the port means nothing."""
    host: str
    """Our address at which sockets are opened."""
    observers: tuple[Address, ...] = ()
    """Neighbours that tell our sockets their ports."""
    ttl: int | None = None
    """Of the packets that open our own NAT; None: the kernel's."""


class Aim(msgspec.Struct, frozen=True, gc=False):
    """The peer of a `Punch` foretells that it will have one of these ports in this round."""

    link: LinkId
    round: int
    ports: tuple[int, ...]


class Adopt(msgspec.Struct, frozen=True, gc=False):
    """Let the path of another link to the same peer, whose hello holds, carry this association.

    `LinkAlive` follows. The other link keeps its channel until it is hung up.
    """

    link: LinkId
    path: LinkId
    """The link whose path it is."""
    asked: bool = False
    """The peer has only been asked: hear there what it may send at once, and go on as before."""


class UseCircuit(msgspec.Struct, frozen=True, gc=False):
    """We are an end of this circuit: its datagrams go over the path of `link`, to its relay."""

    circuit: CircuitId
    link: LinkId


class RelayCircuit(msgspec.Struct, frozen=True, gc=False):
    """We relay: what comes with this id over the path of one link leaves by that of the other.

    What comes from anywhere else is dropped.
    """

    circuit: CircuitId
    one: LinkId
    other: LinkId
    rate: float
    """Bytes a second, both ways together; what is beyond it is dropped, but for one second's."""


class DropCircuit(msgspec.Struct, frozen=True, gc=False):
    """This circuit is over; without it, it is over when a link that it needs has ended."""

    circuit: CircuitId


class OpenPort(msgspec.Struct, frozen=True, gc=False):
    """Open another UDP port for some seconds; `PortOpened` follows, unless that cannot be done."""

    port: PortId
    host: str
    """The local address to open it at."""
    seconds: float


class SendFrom(msgspec.Struct, frozen=True, gc=False):
    """Send one datagram from one of our ports; nothing happens if it is not open any more."""

    port: PortId
    data: bytes
    remote: Address
    local: Address | None = None
    """From which of our addresses, if it is the node's own port and there are several."""


class Await(msgspec.Struct, frozen=True, gc=False):
    """Say when STUN with this transaction id comes to the node's own port (`Seen`)."""

    transaction: bytes


class Transmit(msgspec.Struct, frozen=True, gc=False):
    """Send a control message; a link whose queue is full is aborted (`LinkLost`, ``overflow``)."""

    link: LinkId
    message: Message


class Admit(msgspec.Struct, frozen=True, gc=False):
    """The hello on this link has succeeded: it is now the link to `peer`."""

    link: LinkId
    peer: PeerId


class Hangup(msgspec.Struct, frozen=True, gc=False):
    """End a link or an attempt once what was transmitted on it has left; no event follows."""

    link: LinkId
    reason: EndReason | GoodbyeCode


class Deliver(msgspec.Struct, frozen=True, gc=False):
    """A published message for the local subscribers."""

    topic: str
    origin: PeerId
    data: bytes
    text: bool
    hops: int


class Resolved(msgspec.Struct, frozen=True, gc=False):
    """A command has succeeded."""

    request: RequestId
    value: Any


class Rejected(msgspec.Struct, frozen=True, gc=False):
    """A command has failed; `text` says what is wrong, why, and what to do."""

    request: RequestId
    code: str
    text: str


class Remember(msgspec.Struct, frozen=True, gc=False):
    """Keep this signed record in the cache of peers met: we are linked to its author."""

    peer: PeerId
    record: bytes


class Report(msgspec.Struct, frozen=True, gc=False):
    """Something that the log should name."""

    level: str
    """``debug``, ``info``, ``warning``."""
    event: str
    fields: dict[str, Any]


Effect = (
    Dial
    | Prepare
    | Negotiate
    | Restart
    | Punch
    | Aim
    | Adopt
    | UseCircuit
    | RelayCircuit
    | DropCircuit
    | OpenPort
    | SendFrom
    | Await
    | Transmit
    | Admit
    | Hangup
    | Deliver
    | Resolved
    | Rejected
    | Remember
    | Report
)
