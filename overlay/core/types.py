"""The vocabulary that all machines of the core share: ids, addresses, the crypto port."""

import random
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, NewType, Protocol

PeerId = NewType("PeerId", bytes)
"""A node's raw Ed25519 public key, 32 bytes; its text form (``12D3KooW…``) is made elsewhere."""

LinkId = NewType("LinkId", int)
"""Names one link within one process. The core counts 0, 2, 4, …; the transport 1, 3, 5, …"""


CircuitId = NewType("CircuitId", bytes)
"""Names a circuit at its relay and at both of its ends: 8 random bytes, the first from 64 to 79
(RFC 7983 §7), with which each of its datagrams begins."""


PortId = NewType("PortId", int)
"""Names one of our UDP ports within one process: `MAIN`, or one that was opened for a while."""
MAIN = PortId(0)
"""The port that all links share."""


def is_chosen_by_core(link: LinkId) -> bool:
    """Whether the core has named this link, and so waits to hear what becomes of the attempt."""
    return link % 2 == 0


RequestId = NewType("RequestId", int)
"""Pairs a command of the user with its `Resolved` or `Rejected`."""


class Address(NamedTuple):
    """An IP address in text form (no zone, no brackets) and a UDP port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Negotiated(StrEnum):
    """How a link came about: the same word at both ends."""

    INVITE = "invite"
    DIRECT = "direct"
    MESH = "mesh"
    CACHE = "cache"
    MANUAL = "manual"


class PathKind(StrEnum):
    """What kind of path carries a link."""

    HOST = "host"
    REFLEXIVE = "reflexive"
    RELAYED = "relayed"


class Technique(StrEnum):
    """How offer and answer have found a direct path past two NATs: the same word at both ends.

    A direct dial and a circuit need none of them.
    """

    ICE = "ice"
    """The checks of RFC 8445, nothing else."""
    LOW_TTL = "low-ttl"
    """The answerer's first checks towards what became the path had a low TTL (decision 0039), or
    those of a fresh socket (decision 0040)."""
    PREDICTION = "prediction"
    """A fresh socket's next port was told by those that a NAT had numbered just before."""
    BIRTHDAY = "birthday"
    """One of many sockets was met by one of many probes to ports drawn by chance."""


class PunchRole(StrEnum):
    """What an end does in a technique beyond ICE (decision 0040)."""

    OPENS = "opens"
    """Its NAT gives it another port for every peer: it sends from fresh sockets of its own."""
    PROBES = "probes"
    """It is where its observers see it, and sends to ports that the other end may have."""
    BOTH = "both"
    """Each end opens, and probes at the ports that the other end foretells."""


class PunchEnd(StrEnum):
    """Why a technique has come to nothing."""

    UNANSWERED = "unanswered"  # it had its time, or its rounds
    SOCKETS = "sockets"  # there were none for it
    UNSAMPLED = "unsampled"  # no neighbour said which port a fresh socket got


class EndReason(StrEnum):
    """Why a dial came to nothing (`DialFailed`) or an open link ended (`LinkLost`)."""

    TIMEOUT = "timeout"  # nobody answered in time
    GLARE = "glare"  # both ends dialled at once, and the attempt with the lower id goes on
    CERTIFICATE = "certificate"  # who answered has another certificate than was promised
    CANCELLED = "cancelled"  # we did not want it any more
    SUPERSEDED = "superseded"  # the peer has made another offer
    BUSY = "busy"  # too many hellos are under way
    PROTOCOL = "protocol"  # the peer sent what no correct peer sends
    CLOSED = "closed"  # the peer ended it
    BROKEN = "broken"  # nothing came through for too long
    GONE = "gone"  # nothing comes, and its host says that nobody is at its port any more
    STALLED = "stalled"  # checks are answered, but no data gets through, whatever its size
    OVERFLOW = "overflow"  # more waited than may wait
    ERROR = "error"  # a fault of ours; it is in the log


class GoodbyeCode(StrEnum):
    """Why an end says goodbye (`overlay.core.wire.messages.Goodbye`); a peer may send others."""

    LEAVE = "leave"  # the whole node says goodbye
    UNNEEDED = "unneeded"  # the link serves no purpose any more
    DUPLICATE = "duplicate"  # another link to this peer stands
    ELSEWHERE = "elsewhere"  # another node with the peer's identity, of a newer boot, is here
    FULL = "full"  # the node has no room for a guest
    PROTOCOL = "protocol"  # the peer sent what no correct peer sends
    VERSION = "version"  # the two have no wire version in common
    CLOCK = "clock"  # the two clocks are so far apart that expiries mean nothing
    NETWORK = "network"  # the peer belongs to another network
    SELF = "self"  # the link leads back to the node itself
    REFUSED = "refused"  # a proof, or an invite, does not hold
    EXPIRED = "expired"  # the invite has expired
    TIMEOUT = "timeout"  # the hello took too long


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why somebody is not let in: a code for programs, a line for people."""

    code: GoodbyeCode
    text: str


@dataclass(frozen=True, slots=True)
class IceCredentials:
    """One side's ICE user fragment (4–256 ice-chars) and password (22–256), RFC 8445 §5.3."""

    ufrag: str
    password: str


@dataclass(frozen=True, slots=True)
class Candidate:
    """An ICE candidate of component 1 over UDP (RFC 8445 §5.1)."""

    kind: str
    """``host``, ``srflx``, ``prflx`` or ``relay``."""
    address: Address
    priority: int
    foundation: str = "1"
    base: Address | None = None
    """The local address that it was learnt from; None for a host candidate."""


@dataclass(frozen=True, slots=True)
class LowTtl:
    """How the answerer of an offer begins: both ends know it (decision 0039)."""

    addresses: tuple[Address, ...]
    """The offerer's, as its NAT shows them: packets of the answerer go there with a low TTL."""
    ttl: int | None = None
    """That TTL at the answerer; None at the offerer, whose own packets have the kernel's."""
    seconds: float = 0.0
    """For so long at most, unless the offerer is heard from there."""


@dataclass(frozen=True, slots=True)
class LinkFacts:
    """What the transport knows of a link once DTLS and SCTP stand; the hello signs most of it."""

    remote: Address
    local: Address
    path: PathKind
    dtls_role: str
    """Ours: ``client`` or ``server``."""
    remote_fingerprint: bytes
    """SHA-256 of the peer's DTLS certificate, 32 bytes."""
    exporter: bytes
    """RFC 5705 keying material of this DTLS session, 32 bytes; the same at both ends."""
    attempt: bytes
    """16 bytes, chosen by the dialler, the same at both ends."""
    token_kind: int | None = None
    """For an inbound direct dial: the kind of dial token that opened it
    (`overlay.core.wire.dial_tokens`)."""
    token_id: bytes = b""
    technique: Technique | None = None
    """How offer and answer found the path; None: it was dialled, or a relay's. Unsigned."""


IDENTITY = 2**63 - 1
"""In place of a prekey's id: sealed to the recipient's identity, since no record of it is known."""


class Crypto(Protocol):
    """The node's keys, and the only source of secrets and nonces for the core.

    libsodium and HPKE in production; in the world a tagged stand-in that refuses forgeries.
    """

    peer_id: PeerId
    fingerprint: bytes
    """SHA-256 of our DTLS certificate, 32 bytes."""

    def token(self, size: int) -> bytes:
        """Fresh random bytes."""
        ...

    def sign(self, data: bytes) -> bytes:
        """Our Ed25519 signature, 64 bytes."""
        ...

    def verify(self, signer: PeerId, data: bytes, signature: bytes) -> bool:
        """Whether `signer` signed exactly `data`. Never raises."""
        ...

    def sign_with(self, seed: bytes, data: bytes) -> bytes:
        """The signature of the key with this 32-byte seed (an invite key)."""
        ...

    def public_of(self, seed: bytes) -> PeerId:
        """The public key of the key with this 32-byte seed."""
        ...

    def new_prekey(self, prekey_id: int) -> bytes:
        """Make and keep an X25519 key; return its public half, 32 bytes. Same id, same key."""
        ...

    def forget_prekey(self, prekey_id: int) -> None:
        """Destroy a prekey: what was sealed to it can no longer be opened."""
        ...

    def sealing_key(self, peer: PeerId) -> bytes:
        """The X25519 key to which only the holder of this peer id can open, 32 bytes."""
        ...

    def seal(self, public: bytes, info: bytes, plaintext: bytes) -> bytes:
        """HPKE base mode (RFC 9180) to a peer's prekey."""
        ...

    def open(self, prekey_id: int, info: bytes, sealed: bytes) -> bytes | None:
        """The plaintext, or None when the key is gone or the seal broken. Never raises.

        `IDENTITY` as the id stands for the key that our peer id itself gives.
        """
        ...


Random = random.Random
"""Injected everywhere: what is random without being secret is drawn from here."""
