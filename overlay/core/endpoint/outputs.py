"""What comes out of the door: datagrams to send, and facts about links for the shell."""

from dataclasses import dataclass

from overlay.core.types import Address, Candidate, IceCredentials, LinkId, PathKind
from overlay.core.wire.dial_tokens import Claim


@dataclass(frozen=True, slots=True)
class Send:
    """A datagram of ours: STUN, or a HelloVerifyRequest."""

    data: bytes
    remote: Address
    local: Address | None
    """The local address to send from; None: whichever the routing table chooses."""


@dataclass(frozen=True, slots=True)
class Secure:
    """The path stands: make the DTLS association.

    With `cookie_exchanged` the ClientHello that carries the valid cookie follows as the first
    `Record`. Its message_seq is 1, which OpenSSL takes only after a HelloVerifyRequest of its
    own: give it to ``DTLSv1_listen`` with a cookie callback that says yes, then go on.
    """

    link: LinkId
    inbound: bool
    dtls_role: str
    """Ours: ``client`` or ``server``."""
    remote: Address
    local: Address | None
    path: PathKind
    attempt: bytes
    fingerprint: bytes | None
    """The peer's certificate must have this SHA-256; None: any (a dialler proves itself later)."""
    claim: Claim | None
    """What opened an inbound direct dial."""
    cookie_exchanged: bool
    deadline: float
    """`Lost` follows at this instant unless `Door.established` was called."""


@dataclass(frozen=True, slots=True)
class Record:
    """A DTLS record: feed the first link, and the next only if that one made nothing of it."""

    links: tuple[LinkId, ...]
    data: bytes
    remote: Address
    local: Address | None


@dataclass(frozen=True, slots=True)
class Selected:
    """The link's datagrams go here from now on."""

    link: LinkId
    remote: Address
    local: Address | None
    path: PathKind


@dataclass(frozen=True, slots=True)
class Suspect:
    """The link is quieter than it should be."""

    link: LinkId


@dataclass(frozen=True, slots=True)
class Alive:
    """A suspect or silent link has been heard again."""

    link: LinkId


@dataclass(frozen=True, slots=True)
class Silent:
    """Nothing heard for so long that the link counts as down; it may come back."""

    link: LinkId


@dataclass(frozen=True, slots=True)
class Observed:
    """The peer sees us at this address."""

    link: LinkId
    address: Address


@dataclass(frozen=True, slots=True)
class Lost:
    """The link is gone, and its id with it.

    Reasons: ``timeout``, ``glare`` (another attempt on the same addresses won), ``conflict``,
    ``silent`` (nothing heard for a minute).
    """

    link: LinkId
    reason: str


DoorOutput = Send | Secure | Record | Selected | Suspect | Alive | Silent | Observed | Lost

Description = tuple[
    IceCredentials, IceCredentials | None, tuple[Candidate, ...], tuple[Candidate, ...]
]
"""Of one link: local and remote credentials, local and remote candidates."""
