"""What comes out of the endpoint: work for its shell, and facts in the core's own words.

The shell performs `Send`, `Confirm`, `Secure`, `Record` and `Move`; all else is an event for the
core. Datagrams to a circuit's address leave as `Circuits.way` says. `Move` is not the core's
`PathMoved` for two reasons: a handshake's datagrams move too, before the core has heard of the
link, and a `PathMoved` carries what only DTLS knows (`Secure.facts`).
"""

from dataclasses import dataclass

from overlay.core.events import (
    CircuitCarried,
    DialFailed,
    Foretold,
    LinkAlive,
    LinkLost,
    LinkSilent,
    LinkSuspect,
    Mapped,
    PunchOver,
    Seen,
)
from overlay.core.types import (
    Address,
    Candidate,
    IceCredentials,
    LinkFacts,
    LinkId,
    PathKind,
    Technique,
)
from overlay.core.wire.dial_tokens import Claim


@dataclass(frozen=True, slots=True)
class Send:
    """Send this datagram: STUN, or a HelloVerifyRequest."""

    data: bytes
    remote: Address
    local: Address | None
    """The local address to send from; None: whichever the routing table chooses."""
    ttl: int | None = None
    """The TTL, or hop limit; None: the kernel's."""


@dataclass(frozen=True, slots=True)
class Confirm:
    """Send an SCTP HEARTBEAT with this nonce, encrypted, to this address, beside the path.

    It is neither queued nor sent again. `Endpoint.confirmed` is called when its ACK comes.
    """

    link: LinkId
    nonce: bytes
    remote: Address
    local: Address | None


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
    """`DialFailed` follows at this instant unless `Endpoint.established` was called."""
    technique: Technique | None = None
    """How offer and answer have found the path, if they have."""

    def facts(
        self,
        remote: Address,
        local: Address,
        path: PathKind,
        technique: Technique | None,
        *,
        remote_fingerprint: bytes,
        exporter: bytes,
    ) -> LinkFacts:
        """What the hello signs of the link: where it runs now, and what its handshake has shown."""
        return LinkFacts(
            remote=remote,
            local=local,
            path=path,
            dtls_role=self.dtls_role,
            remote_fingerprint=remote_fingerprint,
            exporter=exporter,
            attempt=self.attempt,
            token_kind=self.claim.kind if self.claim else None,
            token_id=self.claim.token_id if self.claim else b"",
            technique=technique,
        )


@dataclass(frozen=True, slots=True)
class Record:
    """A DTLS record: feed the first link, and the next only if that one made nothing of it."""

    links: tuple[LinkId, ...]
    data: bytes
    remote: Address
    local: Address | None


@dataclass(frozen=True, slots=True)
class Move:
    """Send the link's datagrams here from now on."""

    link: LinkId
    remote: Address
    local: Address | None
    path: PathKind
    technique: Technique | None = None


@dataclass(frozen=True, slots=True)
class OpenSockets:
    """Open so many sockets at this address of ours, and call `Endpoint.opened`: with fewer, if
    there cannot be so many. What comes in at them is as what comes in at the node's own."""

    link: LinkId
    host: str
    count: int


@dataclass(frozen=True, slots=True)
class CloseSockets:
    """Close these: nothing runs over them any more."""

    sockets: tuple[Address, ...]


Ended = DialFailed | LinkLost
"""The link is gone, and its id with it. The core has not heard of an inbound direct dial (ids that
are odd) before it is open: its `DialFailed` is for the shell alone."""

EndpointOutput = (
    Send
    | Confirm
    | Secure
    | Record
    | Move
    | Mapped
    | Seen
    | LinkSuspect
    | LinkAlive
    | LinkSilent
    | CircuitCarried
    | OpenSockets
    | CloseSockets
    | Foretold
    | PunchOver
    | Ended
)

Description = tuple[
    IceCredentials, IceCredentials | None, tuple[Candidate, ...], tuple[Candidate, ...]
]
"""Of one link: local and remote credentials, local and remote candidates."""
