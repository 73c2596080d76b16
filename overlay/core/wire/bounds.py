"""How large every field of the wire may be: what passes here, the rest of the core relies on.

One line a field, and a test that no field of `overlay.core.wire.messages` lacks one. The sizes of
ids, keys and signatures are exact; the others are generous guesses that keep state bounded.
"""

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol, get_type_hints

import msgspec

from overlay.core.wire import documents as d
from overlay.core.wire import messages as m
from overlay.names import NAME_MAX

LIST_MAX = 256
TOPIC_MAX = 256
"""Bytes of a topic in UTF-8."""
GOSSIP_MAX = 60 * 1024
"""Bytes of a published message in one piece: with its envelope it fits into a control message."""
PART_MAX = 16 * 1024
"""Bytes of one part of a larger one (guess): other messages need not wait long behind it."""
PARTS_MAX = 64
PUBLISHED_MAX = PART_MAX * PARTS_MAX
"""Bytes of one published message, 1 MiB: what is larger is a stream's business."""
SEALED_MAX = 16 * 1024
RECORD_MAX = 4000
"""Bytes of a signed record: sixteen fit into one message."""
ADMISSION_MAX = 1024
SAMPLE_MAX = 12
"""Records in a sample: of the largest, they fill most of a message."""
ADDRESSES_MAX = 32
CANDIDATES_MAX = 8
"""Candidates in an offer or answer (guess)."""
PREKEYS_MAX = 8
TICKET_MAX = 512
ATTESTATION_MAX = 512
RELAYS_MAX = 3
"""Relays that an offer or an answer names (guess)."""
FORETOLD_MAX = 16
"""Ports that a socket is foretold to have."""
VAIN_MAX = 128
"""Places that a request takes along as leading nowhere: twice the nodes that it can pass."""
MEMBERS_MAX = 16
"""Members in an invite; ours name up to four."""
ICE_CHARS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")
"""RFC 8839 §5.4."""


class Rule(Protocol):
    """Says whether a decoded value, already of the right type, is within bounds."""

    def holds(self, value: Any) -> bool:
        """Never raises."""
        ...


@dataclass(frozen=True, slots=True)
class Number:
    """An integer from `low` to `high`."""

    low: int
    high: int

    def holds(self, value: Any) -> bool:
        """Within the range, its ends included."""
        return bool(self.low <= value <= self.high)


class Bytes:
    """Bytes of one of these sizes."""

    def __init__(self, *sizes: int) -> None:
        self._sizes = frozenset(sizes)

    def holds(self, value: Any) -> bool:
        """Exactly as long as one of the sizes."""
        return len(value) in self._sizes


@dataclass(frozen=True, slots=True)
class Blob:
    """Bytes up to a size."""

    high: int
    low: int = 0

    def holds(self, value: Any) -> bool:
        """No longer, and no shorter, than allowed."""
        return self.low <= len(value) <= self.high


@dataclass(frozen=True, slots=True)
class Text:
    """Characters that a terminal can show without being steered by them: no controls."""

    high: int
    low: int = 0
    alphabet: frozenset[str] = field(default=frozenset())
    """Empty: all that is printable."""

    def holds(self, value: Any) -> bool:
        """As many characters as allowed, and of the allowed kind."""
        if not self.low <= len(value) <= self.high:
            return False
        return self.alphabet.issuperset(value) if self.alphabet else value.isprintable()


class Name:
    """What somebody calls a node or a network: whoever shows it judges it (decision 0046)."""

    def holds(self, value: Any) -> bool:
        """Short enough: what is a character depends on the Unicode that a Python knows."""
        return len(value) <= NAME_MAX


class Topic:
    """A topic: printable, at least one character, at most 256 bytes."""

    def holds(self, value: Any) -> bool:
        """Measured in UTF-8."""
        return value.isprintable() and 0 < len(value.encode("utf-8", "replace")) <= TOPIC_MAX


class Host:
    """An IP address in text form to which one host answers: no zone, name, group or wildcard."""

    def holds(self, value: Any) -> bool:
        """Whether a packet may be sent there at all."""
        if len(value) > 45 or "%" in value:
            return False
        try:
            address = ipaddress.ip_address(value)
        except ValueError:
            return False
        return not (address.is_multicast or address.is_unspecified or value == "255.255.255.255")


class CircuitName:
    """A circuit's id: 8 bytes, the first of which no other protocol of the port has (RFC 7983)."""

    def holds(self, value: Any) -> bool:
        """As long as it has to be, and beginning as it has to."""
        return len(value) == 8 and 64 <= value[0] < 80


class OneOf:
    """One of these texts."""

    def __init__(self, *texts: str) -> None:
        self._texts = frozenset(texts)

    def holds(self, value: Any) -> bool:
        """Known."""
        return value in self._texts


class Anything:
    """A field whose type says all: a truth value, or a struct that has bounds of its own."""

    def holds(self, value: Any) -> bool:
        """Its own bounds, if it has any."""
        return not isinstance(value, msgspec.Struct) or violation(value) is None


@dataclass(frozen=True, slots=True)
class Many:
    """A list of at most `high` items, each within its bounds."""

    high: int
    item: Rule

    def holds(self, value: Any) -> bool:
        """Short enough, and each item as it should be."""
        return len(value) <= self.high and all(map(self.item.holds, value))


_KEY = _NETWORK = _HASH = Bytes(32)
_REQUEST = _ATTEMPT = _TOKEN = Bytes(16)
_ATTEMPT_OR_NONE = Bytes(0, 16)
_SIGNATURE = Bytes(64)
_COUNTER = Number(0, 2**63 - 1)
_INSTANT = Number(0, 2**40)
_SMALL = Number(0, 255)
_WIRE = Number(0, 2**16 - 1)
_PORT = Number(1, 2**16 - 1)
_CODE = Text(32)
_LINE = Text(1024)
_UFRAG = Text(256, 4, ICE_CHARS)
_PASSWORD = Text(256, 22, ICE_CHARS)
_INSIDE = Anything()
_TRANSACTION = Bytes(12)
_CIRCUIT = CircuitName()
_TICKET = Blob(TICKET_MAX, 1)
_RELAYS = Many(RELAYS_MAX, _INSIDE)
_MILLISECONDS = Number(0, 2**16 - 1)
_NAT = Many(3, Text(16))
_TECHNIQUES = Many(8, Text(16))
_SAMPLE = Many(SAMPLE_MAX, Blob(RECORD_MAX))
_VAIN = Many(VAIN_MAX, Number(0, 2**64 - 1))
_STRUCTS = Many(LIST_MAX, _INSIDE)
_ADDRESSES = Many(ADDRESSES_MAX, _INSIDE)
_CANDIDATES = Many(CANDIDATES_MAX, _INSIDE)

BOUNDS: dict[type[msgspec.Struct], dict[str, Rule]] = {
    m.Hello: {"wire_min": _WIRE, "wire_max": _WIRE, "nonce": Bytes(16), "clock": _INSTANT},
    m.Proof: {
        "peer_id": _KEY,
        "boot": _COUNTER,
        "network": _NETWORK,
        "negotiated": _CODE,
        "admission": Blob(ADMISSION_MAX),
        "signature": _SIGNATURE,
        "record": Blob(RECORD_MAX),
        "resumes": _ATTEMPT_OR_NONE,
    },
    m.Goodbye: {"code": _CODE, "text": _LINE},
    m.Ping: {"token": _COUNTER},
    m.Pong: {"token": _COUNTER},
    m.Neighbours: {"peers": Many(LIST_MAX, _KEY)},
    m.Records: {"records": Many(LIST_MAX, Blob(RECORD_MAX)), "some": _INSIDE},
    m.Offer: {
        "target": _KEY,
        "request": _REQUEST,
        "ttl": _SMALL,
        "prekey": _COUNTER,
        "sealed": Blob(SEALED_MAX),
        "hops": _SMALL,
        "vain": _VAIN,
    },
    m.Answer: {"request": _REQUEST, "prekey": _COUNTER, "sealed": Blob(SEALED_MAX)},
    m.SignalAck: {"request": _REQUEST, "answer": _INSIDE},
    m.Bounce: {"request": _REQUEST, "code": _CODE, "left": _SMALL, "vain": _VAIN},
    m.Gossip: {
        "message_id": _REQUEST,
        "origin": _KEY,
        "topic": Topic(),
        "data": Blob(GOSSIP_MAX),
        "text": _INSIDE,
        "hops": _SMALL,
        "signature": _SIGNATURE,
    },
    m.GossipPart: {
        "message_id": _REQUEST,
        "origin": _KEY,
        "topic": Topic(),
        "data": Blob(PART_MAX, 1),
        "text": _INSIDE,
        "hops": _SMALL,
        "publication": _REQUEST,
        "part": Number(0, PARTS_MAX - 1),
        "parts": Number(2, PARTS_MAX),
        "signature": _SIGNATURE,
    },
    m.TokenRequest: {
        "request": _COUNTER,
        "kind": _SMALL,
        "token_id": Bytes(8),
        "expires_at": _INSTANT,
    },
    m.TokenGrant: {"request": _COUNTER, "token": Bytes(0, 16)},
    m.Trace: {
        "target": _KEY,
        "request": _REQUEST,
        "ttl": _SMALL,
        "path": Many(LIST_MAX, _KEY),
        "vain": _VAIN,
    },
    m.TraceReply: {"request": _REQUEST, "path": Many(LIST_MAX, _KEY)},
    m.Locate: {"place": Number(0, 2**64 - 1), "request": _REQUEST, "ttl": _SMALL, "vain": _VAIN},
    m.Located: {"request": _REQUEST, "peers": Many(LIST_MAX, _KEY)},
    m.LinkUse: {"uses": _SMALL},
    m.ViewExchange: {
        "target": _KEY,
        "request": _REQUEST,
        "ttl": _SMALL,
        "peers": Many(LIST_MAX, _KEY),
        "vain": _VAIN,
    },
    m.ViewExchanged: {"request": _REQUEST, "peers": Many(LIST_MAX, _KEY)},
    m.RecordPull: {
        "target": _KEY,
        "request": _REQUEST,
        "ttl": _SMALL,
        "peers": Many(SAMPLE_MAX, _KEY),
        "vain": _VAIN,
    },
    m.RecordPulled: {"request": _REQUEST, "records": _SAMPLE},
    m.Seek: {"target": _KEY, "request": _REQUEST, "ttl": _SMALL},
    m.Sought: {"request": _REQUEST},
    m.JoinView: {},
    m.ForwardJoin: {"newcomer": _KEY, "ttl": _SMALL, "record": Blob(RECORD_MAX)},
    m.NeighbourAsk: {"high": _INSIDE},
    m.NeighbourReply: {"accepted": _INSIDE},
    m.Disconnect: {},
    m.Shuffle: {"walk": Bytes(8), "ttl": _SMALL, "peers": Many(LIST_MAX, _KEY)},
    m.ShuffleReply: {"walk": Bytes(8), "peers": Many(LIST_MAX, _KEY)},
    m.RecordShuffle: {"walk": Bytes(8), "ttl": _SMALL, "records": _SAMPLE},
    m.RecordShuffleReply: {"walk": Bytes(8), "records": _SAMPLE},
    m.Announcement: {"message_id": _REQUEST, "hops": _SMALL},
    m.IHave: {"announcements": _STRUCTS},
    m.Graft: {"message_id": _REQUEST},
    m.Prune: {},
    m.CircuitAsk: {
        "request": Bytes(8),
        "peer": _KEY,
        "ticket": _TICKET,
        "other": Blob(TICKET_MAX),
    },
    m.CircuitOffer: {"circuit": _CIRCUIT, "peer": _KEY, "ticket": _TICKET},
    m.CircuitAccept: {"circuit": _CIRCUIT, "ticket": _TICKET},
    m.CircuitReady: {
        "request": Bytes(8),
        "circuit": _CIRCUIT,
        "peer": _KEY,
        "ticket": _TICKET,
        "record": Blob(RECORD_MAX),
    },
    m.CircuitRefuse: {"name": Bytes(8), "code": _CODE},
    m.CircuitClose: {"circuit": _CIRCUIT, "code": _CODE},
    m.KnockAsk: {"request": _TRANSACTION, "own": _INSIDE, "after": _SMALL},
    m.KnockPass: {"attestation": Blob(ATTESTATION_MAX, 1)},
    m.Knocked: {"request": _TRANSACTION, "port": _WIRE, "stranger": _INSIDE},
    m.KnockRefuse: {"request": _TRANSACTION, "code": _CODE},
    m.SightAsk: {"peer": _KEY},
    m.Sight: {"peer": _KEY, "host": Text(45), "port": _WIRE},
    m.Foretell: {"attempt": _REQUEST, "round": _SMALL, "ports": Many(FORETOLD_MAX, _PORT)},
    d.Signed: {"body": Blob(SEALED_MAX), "signature": _SIGNATURE},
    d.AddressEntry: {"host": Host(), "port": _PORT, "proven": _INSIDE},
    d.TokenEntry: {
        "kind": _SMALL,
        "token_id": Bytes(8),
        "expires_at": _INSTANT,
        "token": _TOKEN,
    },
    d.PrekeyEntry: {
        "prekey_id": _COUNTER,
        "suite": _SMALL,
        "public": Blob(2048, 32),  # room for a hybrid's key
        "expires_at": _INSTANT,
    },
    d.Record: {
        "network": _NETWORK,
        "peer_id": _KEY,
        "sequence": _COUNTER,
        "issued_at": _INSTANT,
        "expires_at": _INSTANT,
        "name": Name(),
        "fingerprint": _HASH,
        "addresses": _ADDRESSES,
        "token": _INSIDE,
        "prekeys": Many(PREKEYS_MAX, _INSIDE),
        "wire_min": _WIRE,
        "wire_max": _WIRE,
    },
    d.CandidateEntry: {
        "kind": OneOf("host", "srflx", "prflx", "relay"),
        "host": Host(),
        "port": _PORT,
        "priority": Number(1, 2**31 - 1),  # RFC 8445 §5.1.2
    },
    d.OfferBody: {
        "network": _NETWORK,
        "sender": _KEY,
        "recipient": _KEY,
        "request": _REQUEST,
        "attempt": _ATTEMPT,
        "boot": _COUNTER,
        "expires_at": _INSTANT,
        "ttl": _SMALL,
        "fingerprint": _HASH,
        "ufrag": _UFRAG,
        "password": _PASSWORD,
        "candidates": _CANDIDATES,
        "record": Blob(RECORD_MAX),
        "restarts": _ATTEMPT_OR_NONE,
        "circuit": _INSIDE,
        "relays": _RELAYS,
        "nat": _NAT,
        "round_trip": _MILLISECONDS,
        "techniques": _TECHNIQUES,
    },
    d.Ticket: {
        "network": _NETWORK,
        "relay": _KEY,
        "holder": _KEY,
        "peer": _KEY,
        "nonce": Bytes(8),
        "expires_at": _INSTANT,
        "token": _INSIDE,
    },
    d.Attestation: {
        "network": _NETWORK,
        "helper": _KEY,
        "asker": _KEY,
        "host": Host(),
        "port": _PORT,
        "nonce": _TRANSACTION,
        "expires_at": _INSTANT,
    },
    d.RelayEntry: {"record": Blob(RECORD_MAX), "ticket": _TICKET},
    d.AnswerBody: {  # a refusal has no credentials: `documents` looks at both cases
        "network": _NETWORK,
        "sender": _KEY,
        "recipient": _KEY,
        "request": _REQUEST,
        "offer_hash": _HASH,
        "boot": _COUNTER,
        "accepted": _INSIDE,
        "reason": _LINE,
        "hops": _SMALL,
        "fingerprint": Bytes(0, 32),
        "ufrag": Text(256, 0, ICE_CHARS),
        "password": Text(256, 0, ICE_CHARS),
        "candidates": _CANDIDATES,
        "restarted": _INSIDE,
        "relays": _RELAYS,
        "nat": _NAT,
        "low_ttl": Number(0, 255),
        "low_for": _MILLISECONDS,
        "techniques": _TECHNIQUES,
    },
    d.Grant: {
        "network": _NETWORK,
        "invite_id": Bytes(8),
        "invite_key": _KEY,
        "issuer": _KEY,
        "role": Text(32, 1),
        "uses": Number(0, 2**31 - 1),
        "expires_at": _INSTANT,
    },
    d.Admission: {"grant": _INSIDE, "signature": _SIGNATURE},
    d.InviteMember: {
        "peer_id": Bytes(0, 32),
        "fingerprint": _HASH,
        "token": _TOKEN,
        "addresses": _ADDRESSES,
    },
    d.InviteBody: {
        "grant": _INSIDE,
        "seed": _KEY,
        "members": Many(MEMBERS_MAX, _INSIDE),
        "network_name": Name(),
    },
}


def _checks(kind: type[msgspec.Struct]) -> tuple[tuple[str, Callable[[Any], bool]], ...]:
    """What of a kind has to be looked at: a field whose type says all needs no look."""
    hints = get_type_hints(kind)
    rules = BOUNDS[kind].items()
    return tuple((name, rule.holds) for name, rule in rules if hints[name] is not bool)


_CHECKS = {kind: _checks(kind) for kind in BOUNDS}


def violation(struct: msgspec.Struct) -> str | None:
    """The first field that is out of bounds, as ``Kind.field``, or None. Never raises."""
    kind = type(struct)
    for name, holds in _CHECKS[kind]:
        value = getattr(struct, name)
        if value is not None and not holds(value):
            return f"{kind.__name__}.{name}"
    return None
