"""Every document that is signed or sealed, and the parts that they share: wire version 1."""

import msgspec


class Signed(msgspec.Struct, array_like=True, frozen=True):
    """A document and its author's signature over a label and these exact bytes."""

    body: bytes
    signature: bytes


class AddressEntry(msgspec.Struct, array_like=True, frozen=True):
    """One address of a node, as records and invites carry it."""

    host: str
    port: int
    proven: bool
    """Whether a stranger has dialled it with success; if not, the node only claims it."""


class TokenEntry(msgspec.Struct, array_like=True, frozen=True):
    """A dial token: lets its holder dial the node that made it, until it expires."""

    kind: int
    token_id: bytes
    expires_at: int
    token: bytes


class PrekeyEntry(msgspec.Struct, array_like=True, frozen=True):
    """A day's sealing key."""

    prekey_id: int
    suite: int
    """The HPKE suite; 1 is X25519, HKDF-SHA256, AES-128-GCM."""
    public: bytes
    expires_at: int


class Record(msgspec.Struct, array_like=True, frozen=True):
    """What a node says of itself, signed by it; of two, the higher sequence counts."""

    network: bytes
    peer_id: bytes
    sequence: int
    issued_at: int
    expires_at: int
    name: str
    fingerprint: bytes
    addresses: list[AddressEntry]
    token: TokenEntry | None
    prekeys: list[PrekeyEntry]
    wire_min: int
    wire_max: int


class CandidateEntry(msgspec.Struct, array_like=True, frozen=True):
    """An ICE candidate in an offer or answer."""

    kind: str
    host: str
    port: int
    priority: int


class Ticket(msgspec.Struct, array_like=True, frozen=True):
    """An end's consent that `relay` passes datagrams between it and `peer`, signed by it."""

    network: bytes
    relay: bytes
    holder: bytes
    """Its author."""
    peer: bytes
    nonce: bytes
    """8 random bytes: a relay takes a ticket once."""
    expires_at: int
    token: TokenEntry | None = None
    """For dials to the holder over this circuit, if its record has none."""


class RelayEntry(msgspec.Struct, array_like=True, frozen=True):
    """A relay that the sender of an offer or an answer is linked to, and that the peer may dial."""

    record: bytes
    """The relay's signed record: its addresses and its dial token."""
    ticket: bytes
    """The sender's signed `Ticket` for it."""


class Attestation(msgspec.Struct, array_like=True, frozen=True):
    """Where `helper` sees `asker`, who has asked for knocks there; signed by the helper."""

    network: bytes
    helper: bytes
    """Its author."""
    asker: bytes
    host: str
    port: int
    nonce: bytes
    """The request of the asker's `KnockAsk`; it counts once."""
    expires_at: int


class OfferBody(msgspec.Struct, array_like=True, frozen=True):
    """The content of an offer, signed by its sender and sealed to a prekey of its recipient."""

    network: bytes
    sender: bytes
    recipient: bytes
    request: bytes
    attempt: bytes
    boot: int
    expires_at: int
    ttl: int
    """The TTL with which it was sent."""
    fingerprint: bytes
    ufrag: str
    password: str
    candidates: list[CandidateEntry]
    record: bytes
    restarts: bytes = b""
    """The attempt of a link between the two on which ICE is to be restarted, if it is known."""
    circuit: bool = False
    """The sender would take a relayed link, too, and wants to hear of relays if it names none."""
    relays: list[RelayEntry] = []
    nat: list[str] = []
    """What the sender knows of its NAT: mapping, filtering, allocation of ports."""
    round_trip: int = 0
    """Milliseconds that the recipient's last answer took to come; 0: there was none lately."""
    techniques: list[str] = []
    """What the sender can do now, beyond ICE, to get a link off its relay (decision 0040)."""


class AnswerBody(msgspec.Struct, array_like=True, frozen=True):
    """The content of an answer, signed and sealed; `offer_hash` ties it to the offer."""

    network: bytes
    sender: bytes
    recipient: bytes
    request: bytes
    offer_hash: bytes
    boot: int
    accepted: bool
    reason: str
    hops: int
    fingerprint: bytes
    ufrag: str
    password: str
    candidates: list[CandidateEntry]
    restarted: bool = False
    """These credentials are for the link that the offer names; else they are for a new one."""
    relays: list[RelayEntry] = []
    nat: list[str] = []
    """What the sender knows of its NAT: mapping, filtering, allocation of ports."""
    low_ttl: int = 0
    """The TTL that its packets to the first two reflexive candidates of the offer have at first; 0:
    the usual one."""
    low_for: int = 0
    """Milliseconds for which they have it at most."""
    techniques: list[str] = []
    """What of the offer's both ends do now: one at most."""


class Grant(msgspec.Struct, array_like=True, frozen=True):
    """Whoever holds the invite key may join: signed by the issuer."""

    network: bytes
    invite_id: bytes
    """8 random bytes; also the id of the invite's dial tokens."""
    invite_key: bytes
    """The public half of the invite key."""
    issuer: bytes
    role: str
    uses: int
    """0 for any number."""
    expires_at: int


class Admission(msgspec.Struct, array_like=True, frozen=True):
    """What a joiner shows: the grant, and its key and this session signed with the invite key."""

    grant: Signed
    signature: bytes


class InviteMember(msgspec.Struct, array_like=True, frozen=True):
    """A member whom the holder of an invite can dial."""

    peer_id: bytes
    """Empty: not known before its hello; the fingerprint says whom one dials."""
    fingerprint: bytes
    token: bytes
    addresses: list[AddressEntry]


class InviteBody(msgspec.Struct, array_like=True, frozen=True):
    """All that an invite link carries."""

    grant: Signed
    seed: bytes
    """The invite key's seed: whoever reads it can join, so the link is a secret."""
    members: list[InviteMember]
    network_name: str
