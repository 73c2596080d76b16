"""Every message that crosses a link: wire version 1.

A control message is a MessagePack array ``[kind, field, …]``. Unknown kinds and further fields
are ignored, so that later versions can add; a malformed message ends the link.
"""

import msgspec

WIRE_MIN = WIRE_VERSION = 1
"""The oldest version that we still speak, and the newest."""
MAX_MESSAGE_BYTES = 65_536
"""A control message beyond this ends the link."""


class Hello(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=1):
    """First on every link, both ends at once: wire versions, nonce and clock; no identity yet."""

    wire_min: int
    wire_max: int
    nonce: bytes
    clock: int
    """The sender's wall time, Unix seconds: clocks far apart are refused with a reason."""


class Proof(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=2):
    """Who I am, and that this DTLS session is mine; first the dialler's, then the listener's."""

    peer_id: bytes
    boot: int
    network: bytes
    negotiated: str
    admission: bytes
    """What the dialler shows to be let in (an encoded `Admission`), empty from the listener."""
    signature: bytes
    record: bytes
    """The sender's own signed record."""


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
    """There are too many members for everybody to know them all: these are some."""


class Offer(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=8):
    """A sealed offer on its way to `target`: all that a hop sees."""

    target: bytes
    request: bytes
    """16 random bytes that name this request; hops de-duplicate on it and remember the way back."""
    ttl: int
    prekey: int
    """Which prekey of the target opens the seal."""
    sealed: bytes
    hops: int = 0
    """Nodes that have passed it on; the TTL also counts what was tried in vain."""
    vain: tuple[int, ...] = ()
    """Places that lead nowhere: nodes that it has passed, and those found silent on its way."""


class Answer(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=9):
    """A sealed answer on its way back along the offer's path."""

    request: bytes
    prekey: int
    sealed: bytes


class SignalAck(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=10):
    """The next hop has taken charge of a request; `answer` was once true for answers."""

    request: bytes
    answer: bool


class Bounce(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=11):
    """The sender of this could not pass the offer on; the receiver tries its next best."""

    request: bytes
    code: str
    left: int = 0
    """Of the TTL that came with the request."""
    vain: tuple[int, ...] = ()
    """As the request has them, and those that came to light behind the sender."""


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
    """Says whose part it is of what: `overlay.core.gossip.parts.part_id`."""
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
"""What travels along the tree."""


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
    """Finds its way as an offer does, and notes each node that passes it on."""

    target: bytes
    request: bytes
    ttl: int
    path: list[bytes]
    vain: tuple[int, ...] = ()


class TraceReply(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=26):
    """The nodes that a `Trace` passed through, the target last; goes back the same way."""

    request: bytes
    path: list[bytes]


class JoinView(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=15):
    """HyParView's Join: a newcomer asks its contact to take it in and send word of it."""


class ForwardJoin(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=16):
    """Word of a newcomer on a random walk."""

    newcomer: bytes
    ttl: int
    record: bytes
    """The newcomer's signed record, so that whoever the walk ends at can link to it."""


class NeighbourAsk(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=17):
    """HyParView's request: take me into your active view; high priority is always granted."""

    high: bool


class NeighbourReply(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=18):
    """Whether a `NeighbourAsk` was granted."""

    accepted: bool


class Disconnect(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=19):
    """You had to make room in my active view; the link may still serve."""


class Shuffle(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=20):
    """Retired: `RecordShuffle` took its place. Read, and ignored."""

    walk: bytes
    """8 random bytes: hops remember them, to hand the reply back."""
    ttl: int
    peers: list[bytes]


class ShuffleReply(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=21):
    """Retired: `RecordShuffleReply` took its place. Read, and ignored."""

    walk: bytes
    peers: list[bytes]


class RecordShuffle(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=33):
    """A sample of somebody's views on a random walk, as signed records."""

    walk: bytes
    """8 random bytes: hops remember them, to hand the reply back."""
    ttl: int
    records: list[bytes]


class RecordShuffleReply(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=34):
    """As many peers in return, going back along the walk."""

    walk: bytes
    records: list[bytes]


class Announcement(msgspec.Struct, array_like=True, frozen=True):
    """A message that its announcer holds, and how many hops it would have come by."""

    message_id: bytes
    hops: int


class IHave(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=22):
    """Plumtree's lazy push: messages that can be had."""

    announcements: list[Announcement]


class Graft(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=23):
    """Send me this message (none is named by zeros), and from now on all of them.

    Ones only ask what there is: `IHave` of all that can be had, once from each new neighbour.
    """

    message_id: bytes


class Prune(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=24):
    """Your messages come sooner from elsewhere: only announce them."""


class Locate(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=30):
    """Finds its way as an offer does, to whoever is nearest to a place on the ring."""

    place: int
    """From 0 to 2^64 - 1; a node that is exactly there is not meant."""
    request: bytes
    ttl: int
    vain: tuple[int, ...] = ()


class Located(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=31):
    """Those nearest to the place, as far as the node knows that is nearest; goes back."""

    request: bytes
    peers: list[bytes]


class LinkUse(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=32):
    """What the sender counts on this link for, so that the receiver keeps it, too."""

    uses: int
    """The sum of 2 (ring), 4 (long link), 8 (a command asked for it)."""


class ViewExchange(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=35):
    """BASALT's push: the sender's whole view, routed to a member of it as an offer would be."""

    target: bytes
    request: bytes
    ttl: int
    peers: list[bytes]
    """The sender first."""
    vain: tuple[int, ...] = ()


class ViewExchanged(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=36):
    """BASALT's pull: the whole view of the target in return; goes back the same way."""

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
    """Those records that the target of a `RecordPull` holds; goes back the same way."""

    request: bytes
    records: list[bytes]


class Seek(msgspec.Struct, array_like=True, frozen=True, tag=39):
    """Who is this peer, or is linked to it? Goes once to everybody."""

    target: bytes
    request: bytes
    """The request that is to follow, as of the attempt after the walks."""
    ttl: int


class Sought(msgspec.Struct, array_like=True, frozen=True, tag=40):
    """The sender leads to the target of a `Seek`; goes back as that came."""

    request: bytes


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
"""What the views and the tree say to each other: HyParView's and Plumtree's messages."""

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
    | Retired
)
