"""One idea: every message that crosses a link, wire version 1.

A control message is a MessagePack array ``[kind, field, …]``. Unknown kinds and further fields
are ignored, so that later versions can add; a malformed message ends the link.
"""

import msgspec

WIRE_MIN = WIRE_VERSION = 1
"""The oldest version that we still speak, and the newest."""
MAX_MESSAGE_BYTES = 65_536
"""A control message beyond this ends the link."""


class Hello(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=1):
    """The first message on every link, from both ends at once; it names no identity."""

    wire_min: int
    wire_max: int
    nonce: bytes
    clock: int
    """The sender's wall time, Unix seconds: clocks far apart are refused with a reason."""


class Proof(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=2):
    """Who the sender is, signed together with this DTLS session; the dialler proves first."""

    peer_id: bytes
    boot: int
    network: bytes
    negotiated: str
    admission: bytes
    """The dialler's encoded `Admission`, empty from the listener."""
    signature: bytes
    record: bytes
    """The sender's own signed record."""
    resumes: bytes = b""
    """The attempt of another link between the two, which is to go on over the path of this one."""


class Goodbye(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=3):
    """The last message on a link: a code for programs, a line for people."""

    code: str
    text: str


class Ping(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=4):
    """Asks for a `Pong` with the same token."""

    token: int


class Pong(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=5):
    """Answers a `Ping`."""

    token: int


class Neighbours(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=6):
    """The peers that the sender is linked to, sent whenever that changes."""

    peers: list[bytes]


class Records(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=7):
    """Signed records of members, the sender's own among them when it changed."""

    records: list[bytes]
    some: bool = False
    """True in a mesh too large for everybody to hold all records: these are a selection."""


class Offer(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=8):
    """A sealed offer on its way to `target`; the nodes between can read these fields only."""

    target: bytes
    request: bytes
    """16 random bytes; each node passes a request on once and remembers the way back."""
    ttl: int
    prekey: int
    """Which prekey of the target opens the seal."""
    sealed: bytes
    hops: int = 0
    """How many nodes have passed it on; the TTL also falls with each attempt that fails."""
    vain: tuple[int, ...] = ()
    """Places on the ring not to try again: of nodes that it has passed or found silent."""


class Answer(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=9):
    """A sealed answer on its way back along the offer's path."""

    request: bytes
    prekey: int
    sealed: bytes


class SignalAck(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=10):
    """The next hop has taken the request and will pass it on or send a `Bounce`."""

    request: bytes
    answer: bool
    """Always false; earlier versions acknowledged answers, too."""


class Bounce(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=11):
    """The sender could not pass the request on; the receiver tries its next best neighbour."""

    request: bytes
    code: str
    left: int = 0
    """What is left of the TTL that came with the request."""
    vain: tuple[int, ...] = ()
    """Those of the request, and those that the nodes beyond the sender have found."""


class Gossip(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=12):
    """A published message, signed by its origin."""

    message_id: bytes
    """16 random bytes."""
    origin: bytes
    topic: str
    data: bytes
    text: bool
    """Whether `data` was published as text (UTF-8)."""
    hops: int
    signature: bytes


class GossipPart(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=27):
    """A part of a published message that is too large for one piece, signed by its origin."""

    message_id: bytes
    """A hash of origin and publication, then `part`: `overlay.core.gossip.parts.part_id`."""
    origin: bytes
    topic: str
    data: bytes
    text: bool
    """Whether the whole was published as text (UTF-8)."""
    hops: int
    publication: bytes
    """16 random bytes that name the whole."""
    part: int
    """From 0."""
    parts: int
    signature: bytes


Published = Gossip | GossipPart
"""What Plumtree pushes along its tree."""


class TokenRequest(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=13):
    """Asks a neighbour for a dial token that an invite will carry."""

    request: int
    kind: int
    token_id: bytes
    expires_at: int


class TokenGrant(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=14):
    """The token asked for, and where its issuer can be dialled."""

    request: int
    token: bytes


class Trace(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=25):
    """Routed as an offer is; each node that passes it on adds its id to `path`."""

    target: bytes
    request: bytes
    ttl: int
    path: list[bytes]
    vain: tuple[int, ...] = ()


class TraceReply(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=26):
    """The nodes that a `Trace` passed through, the target last; it goes back the same way."""

    request: bytes
    path: list[bytes]


class JoinView(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=15):
    """HyParView's Join: a newcomer asks its contact for neighbours (DSN 2007, §4.2)."""


class ForwardJoin(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=16):
    """HyParView's ForwardJoin: a newcomer's Join on a random walk through the active views."""

    newcomer: bytes
    ttl: int
    record: bytes
    """The newcomer's signed record: the node at which the walk ends dials by it."""


class NeighbourAsk(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=17):
    """HyParView's Neighbor: take the sender into your active view, with high priority always."""

    high: bool


class NeighbourReply(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=18):
    """Whether a `NeighbourAsk` was granted."""

    accepted: bool


class Disconnect(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=19):
    """HyParView's Disconnect: the sender has no room for the receiver; the link may stay."""


class Shuffle(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=20):
    """Retired: `RecordShuffle` has replaced it. It is read and ignored."""

    walk: bytes
    """8 random bytes: hops remember them, to hand the reply back."""
    ttl: int
    peers: list[bytes]


class ShuffleReply(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=21):
    """Retired: `RecordShuffleReply` has replaced it. It is read and ignored."""

    walk: bytes
    peers: list[bytes]


class RecordShuffle(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=33):
    """HyParView's Shuffle: a sample of a node's views on a random walk, as signed records."""

    walk: bytes
    """8 random bytes: hops remember them, to hand the reply back."""
    ttl: int
    records: list[bytes]


class RecordShuffleReply(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=34):
    """HyParView's ShuffleReply: as many records in return; it goes back along the walk."""

    walk: bytes
    records: list[bytes]


class Announcement(msgspec.Struct, array_like=True, frozen=True):
    """A message that the announcer holds, and the hops over which it would have come from there."""

    message_id: bytes
    hops: int


class IHave(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=22):
    """Plumtree's lazy push: ids of messages that the receiver may ask for by `Graft`."""

    announcements: list[Announcement]


class Graft(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=23):
    """Plumtree's Graft: send this message, and push every later one to the sender.

    An id of all zeros asks for no message, only for the later ones. An id of all ones asks only for
    an `IHave` of every message that the receiver holds; it answers each neighbour once.
    """

    message_id: bytes


class Prune(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=24):
    """Plumtree's Prune: the sender gets messages sooner from another; only announce them to it."""


class Locate(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=30):
    """Routed as an offer is, to the node nearest to a place on the ring."""

    place: int
    """From 0 to 2^64 - 1; the node whose place is exactly this is left out."""
    request: bytes
    ttl: int
    vain: tuple[int, ...] = ()


class Located(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=31):
    """The peers nearest to the place that its nearest node knows; it goes back the same way."""

    request: bytes
    peers: list[bytes]


class LinkUse(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=32):
    """What the sender uses the link for; the receiver keeps a link that is in use."""

    uses: int
    """The sum of 2 (ring), 4 (long link), 8 (a command asked for it), 16 (circuits run over it)."""


class ViewExchange(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=35):
    """BASALT's push: the sender's whole view, routed to a member of it as an offer is."""

    target: bytes
    request: bytes
    ttl: int
    peers: list[bytes]
    """The sender first."""
    vain: tuple[int, ...] = ()


class ViewExchanged(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=36):
    """BASALT's pull: the target's whole view in return; it goes back the same way."""

    request: bytes
    peers: list[bytes]
    """Its sender first."""


class RecordPull(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=37):
    """Asks for the records of some peers that the target has named."""

    target: bytes
    request: bytes
    ttl: int
    peers: list[bytes]
    vain: tuple[int, ...] = ()


class RecordPulled(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=38):
    """The records that the target of a `RecordPull` holds; it goes back the same way."""

    request: bytes
    records: list[bytes]


class Seek(msgspec.Struct, array_like=True, frozen=True, tag=39):
    """Asks who is this peer or is linked to it; every node passes it on once."""

    target: bytes
    request: bytes
    """The id of the request that is sent along the way that this finds."""
    ttl: int


class Sought(msgspec.Struct, array_like=True, frozen=True, tag=40):
    """The sender is, or leads to, the target of a `Seek`; it goes back the same way."""

    request: bytes


class CircuitAsk(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=41):
    """Asks a neighbour to relay between the sender and another peer that it is linked to."""

    request: bytes
    """8 random bytes."""
    peer: bytes
    ticket: bytes
    """The sender's signed `Ticket` for this relay."""
    other: bytes
    """The peer's, if an offer or an answer has brought it; the relay need not ask the peer then."""


class CircuitOffer(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=42):
    """The sender would relay between the receiver and `peer`, who has asked for it."""

    circuit: bytes
    """8 random bytes, the first from 64 to 79: each datagram of the circuit begins with them."""
    peer: bytes
    ticket: bytes
    """The ticket of `peer`."""


class CircuitAccept(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=43):
    """The sender takes the circuit, and from now on datagrams over it."""

    circuit: bytes
    ticket: bytes
    """The sender's own."""


class CircuitReady(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=44):
    """The circuit stands: datagrams that begin with its id reach `peer`, and come from there."""

    request: bytes
    """Of the `CircuitAsk`, or zeros where the other end has asked."""
    circuit: bytes
    peer: bytes
    ticket: bytes
    """The ticket of `peer`."""
    record: bytes
    """The signed record of `peer`, which says how to dial it."""


class CircuitRefuse(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=45):
    """There will be no such circuit: to a `CircuitAsk` or a `CircuitOffer`."""

    name: bytes
    """The request of the one, the circuit of the other."""
    code: str


class CircuitClose(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=46):
    """The circuit is over, for whichever of the three says so."""

    circuit: bytes
    code: str


class KnockAsk(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=47):
    """Asks a neighbour that strangers reach to send the sender a packet from another port."""

    request: bytes
    """12 random bytes: the transaction id of the packets that are to come."""
    own: bool
    """At the address over which the two are linked; else at the one from which a Binding request
    with this transaction id comes to the receiver's port."""
    after: int = 0
    """If not 0: one packet from the receiver's own port after so many seconds of silence."""


class KnockPass(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=48):
    """Asks a neighbour to knock as well, at somebody to whom it is a stranger."""

    attestation: bytes
    """The sender's signed `Attestation`."""


class Knocked(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=49):
    """The sender has knocked, or a stranger whom it has asked."""

    request: bytes
    port: int
    """From this port; 0 for the port that it is linked over."""
    stranger: bool = False


class KnockRefuse(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=50):
    """Nobody will knock: to a `KnockAsk`."""

    request: bytes
    code: str


class SightAsk(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=51):
    """Asks a neighbour at which address it sees another peer that it is linked to."""

    peer: bytes


class Sight(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=52):
    """The sender sees the peer here, by the verified path of their link; to a `SightAsk`."""

    peer: bytes
    host: str
    """Empty: it does not, or will not say."""
    port: int


class Foretell(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=53):
    """The sender's fresh socket probably has one of these ports towards the receiver.

    In a link that runs over a relay, while both ends look for a direct path by prediction.
    """

    attempt: bytes
    """The request of the offer that has begun it."""
    round: int
    ports: list[int]
    """In the order in which the sender's NAT gives them."""


PunchMessage = SightAsk | Sight | Foretell
KnockMessage = KnockAsk | KnockPass | Knocked | KnockRefuse
CircuitMessage = (
    CircuitAsk | CircuitOffer | CircuitAccept | CircuitReady | CircuitRefuse | CircuitClose
)
NeighbourMessage = (
    JoinView
    | ForwardJoin
    | NeighbourAsk
    | NeighbourReply
    | Disconnect
    | RecordShuffle
    | RecordShuffleReply
    | LinkUse
)
Retired = Shuffle | ShuffleReply
TreeMessage = IHave | Graft | Prune
"""Plumtree's messages but for what it pushes."""

Message = (
    Hello
    | Proof
    | Goodbye
    | Ping
    | Pong
    | Neighbours
    | Records
    | Offer
    | Answer
    | SignalAck
    | Bounce
    | Gossip
    | GossipPart
    | TokenRequest
    | TokenGrant
    | Trace
    | TraceReply
    | Locate
    | Located
    | ViewExchange
    | ViewExchanged
    | RecordPull
    | RecordPulled
    | Seek
    | Sought
    | NeighbourMessage
    | TreeMessage
    | CircuitMessage
    | KnockMessage
    | PunchMessage
    | Retired
)
