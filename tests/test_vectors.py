"""One idea: wire version 1, byte by byte: what is in ``wire-1.json`` is never changed.

``python -m tests.test_vectors`` appends the vectors of samples that have none yet.
"""

import hashlib
import json
import types
import typing
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from overlay.core.gossip.parts import part_id
from overlay.core.types import IDENTITY
from overlay.core.wire import bounds, codec, compact, invite, messages
from overlay.core.wire import dial_tokens as dial
from overlay.core.wire import documents as document_bodies
from overlay.core.wire import signing as documents
from overlay.core.wire.documents import (
    AddressEntry,
    Admission,
    AnswerBody,
    Attestation,
    CandidateEntry,
    Grant,
    InviteBody,
    InviteMember,
    OfferBody,
    PrekeyEntry,
    Record,
    RelayEntry,
    Signed,
    Ticket,
    TokenEntry,
)
from overlay.core.wire.messages import (
    Answer,
    Bounce,
    Goodbye,
    Gossip,
    GossipPart,
    Hello,
    Neighbours,
    Offer,
    Ping,
    Pong,
    Proof,
    Records,
    SignalAck,
    TokenGrant,
    TokenRequest,
)
from overlay.identity import peer_id_text
from tests.core.strategies import MESSAGE_KINDS
from tests.keys import keys_of, seeded

VECTORS = Path(__file__).parent / "vectors" / "wire-1.json"
DIGESTS = Path(__file__).parent / "vectors" / "wire-1.sha256"
"""One line an entry, ``digest  name``: lines are only ever added."""
Entry = dict[str, Any]

ALICE, BOB = keys_of("alice"), keys_of("bob")
NETWORK, REQUEST, ATTEMPT = seeded("network"), seeded("request")[:16], seeded("attempt")[:16]
FINGERPRINT, SESSION, SEED = seeded("fingerprint"), seeded("session"), seeded("invite key")
TOKEN_ID, TOKEN = seeded("invite id")[:8], seeded("token")[:16]
START = 1_800_000_000
NAT = ["address-port", "address", "random"]
ADDRESSES = [
    AddressEntry("192.0.2.1", 4433, proven=True),
    AddressEntry("2001:db8::1", 4433, proven=False),
]
CANDIDATES = [
    CandidateEntry("host", "192.0.2.1", 4433, 2130706431),
    CandidateEntry("srflx", "198.51.100.7", 61000, 1694498815),
]


# --- samples -----------------------------------------------------------------------------------


def record() -> Record:
    return Record(
        network=NETWORK,
        peer_id=ALICE.peer_id,
        sequence=1_800_000_000_000,
        issued_at=START,
        expires_at=START + 3 * 86_400,
        name="alice",
        fingerprint=FINGERPRINT,
        addresses=ADDRESSES,
        token=TokenEntry(dial.MEMBER, TOKEN_ID, START + 4 * 86_400, TOKEN),
        prekeys=[PrekeyEntry(20_833, 1, seeded("prekey"), START + 2 * 86_400)],
        wire_min=1,
        wire_max=1,
    )


def offer() -> OfferBody:
    return OfferBody(
        network=NETWORK,
        sender=ALICE.peer_id,
        recipient=BOB.peer_id,
        request=REQUEST,
        attempt=ATTEMPT,
        boot=3,
        expires_at=START + 20,
        ttl=8,
        fingerprint=FINGERPRINT,
        ufrag="0123456789abcdef0123456789abcdef",
        password="fedcba9876543210fedcba9876543210",
        candidates=CANDIDATES,
        record=signed(record()),
    )


def answer() -> AnswerBody:
    return AnswerBody(
        network=NETWORK,
        sender=BOB.peer_id,
        recipient=ALICE.peer_id,
        request=REQUEST,
        offer_hash=hashlib.sha256(signed(offer())).digest(),
        boot=2**62,
        accepted=True,
        reason="",
        hops=2,
        fingerprint=FINGERPRINT,
        ufrag="00112233445566778899aabbccddeeff",
        password="ffeeddccbbaa99887766554433221100",
        candidates=CANDIDATES[:1],
    )


def grant() -> Grant:
    return Grant(
        network=NETWORK,
        invite_id=TOKEN_ID,
        invite_key=ALICE.public_of(SEED),
        issuer=ALICE.peer_id,
        role="member",
        uses=0,
        expires_at=START + 7 * 86_400,
    )


def ticket() -> Ticket:
    nonce, relay = seeded("nonce")[:8], seeded("relay")
    return Ticket(NETWORK, relay, ALICE.peer_id, BOB.peer_id, nonce, START + 60)


def old_ticket() -> bytes:
    """A signed ticket without room for a token, as some were sent at first."""
    packed = msgspec.msgpack.encode(msgspec.structs.astuple(ticket())[:-1])
    label = documents.KINDS[Ticket].label
    return documents.pack(Signed(packed, ALICE.sign(documents.labelled(label, packed))))


def relays() -> list[RelayEntry]:
    return [RelayEntry(signed(record()), old_ticket())]


def invitation() -> InviteBody:
    members = [
        InviteMember(ALICE.peer_id, FINGERPRINT, TOKEN, ADDRESSES),
        InviteMember(BOB.peer_id, seeded("bob's fingerprint"), seeded("bob's token")[:16], []),
    ]
    return InviteBody(documents.sign(grant(), ALICE), SEED, members, "garden")


def short_invitation() -> InviteBody:
    """As nodes make them: ids and seed follow from what stands beside them."""
    network, expires_at = compact.network_id(b"\1\2\3\4\5\6\7"), START + 7 * 86_400
    named = compact.invite_id(b"abc", network, ALICE.peer_id, expires_at)
    seed = compact.invite_seed(TOKEN)
    key = ALICE.public_of(seed)
    terms = msgspec.structs.replace(
        grant(), network=network, invite_id=named, invite_key=key, expires_at=expires_at
    )
    stranger = InviteMember(b"", seeded("bob's fingerprint"), seeded("bob's token")[:16], ADDRESSES)
    members = [InviteMember(ALICE.peer_id, FINGERPRINT, TOKEN, ADDRESSES), stranger]
    return InviteBody(documents.sign(terms, ALICE), seed, members, "garden")


def admission() -> bytes:
    return invite.make_admission(documents.sign(grant(), ALICE), SEED, SESSION, BOB)


def signed(body: Any) -> bytes:
    """The document signed by its author."""
    author = getattr(body, documents.KINDS[type(body)].author)
    return documents.pack(documents.sign(body, ALICE if author == ALICE.peer_id else BOB))


BARE: dict[str, Any] = {
    "token": None,
    "prekeys": [],
    "addresses": [],
    "name": "",
    "sequence": 0,
}
"""A record that says as little as it may."""


def placed_samples(record: bytes) -> dict[str, msgspec.Struct]:
    """The messages of the ring and of link uses, and samples of records."""
    walk = seeded("walk")[:8]
    return {
        "look for a place past silent nodes": messages.Locate(2**64 - 1, REQUEST, 24, (1,)),
        "nearest to the place": messages.Located(REQUEST, [ALICE.peer_id, BOB.peer_id]),
        "nobody is nearest": messages.Located(REQUEST, []),
        "ring link that a command asked for, too": messages.LinkUse(2 | 8),
        "link of no use": messages.LinkUse(0),
        "shuffle of records": messages.RecordShuffle(walk, 6, [record]),
        "shuffle of records reply": messages.RecordShuffleReply(walk, []),
    }


def exchange_samples(record: bytes) -> dict[str, msgspec.Struct]:
    """The messages that BASALT exchanges."""
    alice, bob = ALICE.peer_id, BOB.peer_id
    return {
        "exchange past silent nodes": messages.ViewExchange(bob, REQUEST, 24, [alice, bob], (1,)),
        "view in exchange": messages.ViewExchanged(REQUEST, [bob]),
        "pull past silent nodes": messages.RecordPull(bob, REQUEST, 24, [alice], (1,)),
        "records pulled": messages.RecordPulled(REQUEST, [record]),
        "no records pulled": messages.RecordPulled(REQUEST, []),
    }


def gossip_samples(record: bytes) -> dict[str, msgspec.Struct]:
    """The messages of the views, the tree and traces."""
    walk, key = seeded("walk")[:8], ALICE.peer_id
    return {
        "join": messages.JoinView(),
        "forward join": messages.ForwardJoin(key, 6, record),
        "ask with high priority": messages.NeighbourAsk(high=True),
        "ask with low priority": messages.NeighbourAsk(high=False),
        "accepted": messages.NeighbourReply(accepted=True),
        "not accepted": messages.NeighbourReply(accepted=False),
        "disconnect": messages.Disconnect(),
        "shuffle": messages.Shuffle(walk, 6, [key, BOB.peer_id]),
        "shuffle reply": messages.ShuffleReply(walk, [BOB.peer_id]),
        "announcement": messages.Announcement(REQUEST, 3),
        "announcements": messages.IHave([messages.Announcement(REQUEST, 3)]),
        "graft": messages.Graft(REQUEST),
        "prune": messages.Prune(),
        "offer past silent nodes": Offer(
            BOB.peer_id, REQUEST, 8, 20_833, seeded("sealed offer") * 8, 3, (1, 2**64 - 1)
        ),
        "trace past silent nodes": messages.Trace(key, REQUEST, 7, [BOB.peer_id], (1,)),
        "bounce with what is left": Bounce(REQUEST, "no_route", 7, (2**63,)),
        "seek": messages.Seek(BOB.peer_id, REQUEST, 12),
        "sought": messages.Sought(REQUEST),
        "trace reply": messages.TraceReply(REQUEST, [BOB.peer_id, key]),
        **placed_samples(record),
        **exchange_samples(record),
        "part of a larger gossip": GossipPart(
            message_id=part_id(ALICE.peer_id, REQUEST, 63),
            origin=ALICE.peer_id,
            topic="news/örtlich",
            data=seeded("part"),
            text=False,
            hops=2,
            publication=REQUEST,
            part=63,
            parts=64,
            signature=seeded("p") * 2,
        ),
    }


def offer_samples() -> dict[str, msgspec.Struct]:
    """Offers and the answers to them, for a new link and for one that is there."""
    return {
        "offer body without techniques": offer(),
        "offer body with techniques": replace(
            offer(),
            restarts=ATTEMPT,
            circuit=True,
            relays=relays(),
            nat=NAT,
            round_trip=412,
            techniques=["prediction", "birthday"],
        ),
        "answer body without a technique": answer(),
        "answer body with a technique": replace(
            answer(),
            restarted=True,
            relays=relays(),
            nat=NAT,
            low_ttl=4,
            low_for=974,
            techniques=["birthday"],
        ),
    }


def attestation() -> Attestation:
    nonce = seeded("knock")[:12]
    host, port = "198.51.100.7", 61000
    return Attestation(NETWORK, ALICE.peer_id, BOB.peer_id, host, port, nonce, START + 10)


def knock_samples() -> dict[str, msgspec.Struct]:
    """Knocks, from the question to the end."""
    request = seeded("knock")[:12]
    return {
        "knock at another socket": messages.KnockAsk(request, own=False),
        "knock at the port that we are linked over": messages.KnockAsk(request, own=True),
        "knock after some silence": messages.KnockAsk(request, own=False, after=25),
        "knock as a stranger": messages.KnockPass(signed(attestation())),
        "knocked": messages.Knocked(request, 49_152),
        "a stranger has knocked": messages.Knocked(request, 49_153, stranger=True),
        "refused to knock": messages.KnockRefuse(request, "busy"),
        "attestation": attestation(),
        **punch_samples(),
    }


def punch_samples() -> dict[str, msgspec.Struct]:
    """Where neighbours see a peer, and where it will be."""
    return {
        "where do you see it": messages.SightAsk(BOB.peer_id),
        "it is seen here": messages.Sight(BOB.peer_id, "198.51.100.7", 61_000),
        "it is not seen": messages.Sight(BOB.peer_id, "", 0),
        "ports foretold": messages.Foretell(REQUEST, 1, [61_003, 61_004, 61_005]),
    }


def circuit_samples(record: bytes) -> dict[str, msgspec.Struct]:
    """Circuits, from the question to the end."""
    request, alice, bob = seeded("circuit request")[:8], ALICE.peer_id, BOB.peer_id
    circuit, consent = bytes([64]) + seeded("circuit")[:7], old_ticket()
    token = TokenEntry(dial.CIRCUIT, TOKEN_ID, START + 14 * 86_400, TOKEN)
    return {
        "ticket without a token": ticket(),
        "ticket with a token": replace(ticket(), token=token),
        "circuit ask": messages.CircuitAsk(request, bob, consent, b""),
        "circuit ask with both tickets": messages.CircuitAsk(request, bob, consent, consent),
        "circuit offer": messages.CircuitOffer(circuit, alice, consent),
        "circuit accept": messages.CircuitAccept(circuit, consent),
        "circuit ready": messages.CircuitReady(request, circuit, bob, consent, record),
        "circuit refuse": messages.CircuitRefuse(request, "full"),
        "circuit close": messages.CircuitClose(circuit, "unlinked"),
    }


def samples() -> dict[str, msgspec.Struct]:
    """At least one of everything; a name, once used, keeps its sample."""
    own = signed(record())
    refusal = {"ufrag": "", "password": "", "fingerprint": b"", "candidates": []}
    return {
        "hello": Hello(1, 1, seeded("nonce")[:16], START),
        "proof of a joiner that resumes nothing": Proof(
            BOB.peer_id, 1, NETWORK, "invite", admission(), seeded("s") * 2, own
        ),
        "proof of a listener that resumes a link": Proof(
            ALICE.peer_id, 2**62, NETWORK, "direct", b"", seeded("t") * 2, own, ATTEMPT
        ),
        "goodbye": Goodbye("leave", "the node is shutting down – until later"),
        "ping": Ping(0x0102030405060708),
        "pong": Pong(0),
        "neighbours": Neighbours([ALICE.peer_id, BOB.peer_id]),
        "no neighbours": Neighbours([]),
        "all records": Records([own]),
        "some records": Records([own], some=True),
        "offer to somebody's identity": Offer(
            BOB.peer_id, REQUEST, 24, IDENTITY, seeded("sealed offer")
        ),
        "answer": Answer(REQUEST, 20_833, seeded("sealed answer") * 8),
        "acknowledged offer": SignalAck(REQUEST, answer=False),
        "acknowledged answer": SignalAck(REQUEST, answer=True),
        "gossip of text": Gossip(
            message_id=REQUEST,
            origin=ALICE.peer_id,
            topic="news/örtlich",
            data="grüß dich".encode(),
            text=True,
            hops=1,
            signature=seeded("g") * 2,
        ),
        "gossip of bytes": Gossip(
            message_id=REQUEST,
            origin=ALICE.peer_id,
            topic="t",
            data=bytes(range(256)),
            text=False,
            hops=255,
            signature=seeded("h") * 2,
        ),
        "token request": TokenRequest(7, dial.INVITE, TOKEN_ID, START + 86_400),
        "token grant": TokenGrant(7, TOKEN),
        **gossip_samples(own),
        "record": record(),
        "bare record": replace(record(), **BARE),
        **knock_samples(),
        **offer_samples(),
        **circuit_samples(own),
        "answer body that says why not": replace(
            answer(), accepted=False, reason="links.auto is off", **refusal
        ),
        "grant": grant(),
        "limited grant": replace(grant(), role="relay", uses=5),
        "admission": msgspec.msgpack.decode(admission(), type=Admission),
        "signed grant": documents.sign(grant(), ALICE),
        **invite_samples(),
    }


def invite_samples() -> dict[str, msgspec.Struct]:
    """Invites, whole and derived."""
    nobody = msgspec.structs.replace(invitation().members[0], peer_id=b"")
    return {
        "invite": invitation(),
        "invite of which much is derived": short_invitation(),
        "invite of a certificate alone": msgspec.structs.replace(invitation(), members=[nobody]),
    }


def dial_entry() -> Entry:
    """How a dial token makes credentials: both ends derive them alike."""
    claim = dial.Claim(dial.INVITE, TOKEN_ID, START, ATTEMPT)
    token = dial.make_token(seeded("dial key"), claim.kind, claim.token_id, claim.expires_at)
    credentials = dial.listener_credentials(token, claim)
    return {
        "name": "dial token",
        "kind": "dial",
        "fields": {
            "dial_key": seeded("dial key").hex(),
            "token_kind": claim.kind,
            "token_id": claim.token_id.hex(),
            "expires_at": claim.expires_at,
            "attempt": claim.attempt.hex(),
        },
        "hex": token.hex(),
        "ufrag": credentials.ufrag,
        "password": credentials.password,
    }


# --- entries -----------------------------------------------------------------------------------


def entry_of(name: str, struct: msgspec.Struct) -> Entry:
    """What the file says of a sample."""
    kind = type(struct)
    entry = {
        "name": name,
        "kind": kind.__name__,
        "fields": plain(struct),
        "hex": encoded(struct).hex(),
    }
    if kind in documents.KINDS:
        author = getattr(struct, documents.KINDS[kind].author)
        entry |= {"author": peer_id_text(author), "signed": signed(struct).hex()}
    if isinstance(struct, InviteBody):
        entry["link"] = invite.encode(struct)
    return entry


def encoded(struct: msgspec.Struct) -> bytes:
    if type(struct) in MESSAGE_KINDS:
        return codec.encode(typing.cast(messages.Message, struct))
    return msgspec.msgpack.encode(struct)


def plain(value: Any) -> Any:
    """JSON by which a person can check it: structs as objects, bytes as hexadecimal."""
    if isinstance(value, msgspec.Struct):
        return {name: plain(getattr(value, name)) for name in value.__struct_fields__}
    if isinstance(value, bytes):
        return value.hex()
    return [plain(each) for each in value] if isinstance(value, list | tuple) else value


def struct_from(annotation: Any, value: Any) -> Any:
    """The reverse of `plain`, by the types that the fields are declared with."""
    if isinstance(annotation, types.UnionType):
        return None if value is None else struct_from(annotation.__args__[0], value)
    if typing.get_origin(annotation) is list:
        return [struct_from(typing.get_args(annotation)[0], each) for each in value]
    if typing.get_origin(annotation) is tuple:
        return tuple(struct_from(typing.get_args(annotation)[0], each) for each in value)
    if annotation is bytes:
        return bytes.fromhex(value)
    if isinstance(annotation, type) and issubclass(annotation, msgspec.Struct):
        fields = {f.name: f.type for f in msgspec.structs.fields(annotation)}
        return annotation(
            **{name: struct_from(fields[name], value[name]) for name in fields if name in value}
        )
    return value


def load() -> list[Entry]:
    entries: list[Entry] = json.loads(VECTORS.read_text()) if VECTORS.exists() else []
    return entries


def digest_of(entry: Entry) -> str:
    return hashlib.sha256(json.dumps(entry, sort_keys=True).encode()).hexdigest()


def changed(entries: list[Entry], digests: str) -> list[str]:
    """The names of entries that were altered, removed or never listed."""
    lines = (line.split("  ", 1) for line in digests.splitlines())
    listed = {name: digest for digest, name in lines}
    found = {entry["name"]: digest_of(entry) for entry in entries}
    return sorted(name for name in listed | found if listed.get(name) != found.get(name))


def append_missing() -> list[str]:
    """Write the vectors of new samples behind the old ones; their names."""
    entries = load()
    names = {entry["name"] for entry in entries}
    new = [entry_of(name, struct) for name, struct in samples().items() if name not in names]
    new += [dial_entry()] if "dial token" not in names else []
    text = json.dumps(entries + new, indent=1, ensure_ascii=False)
    VECTORS.write_text(text + "\n")
    with DIGESTS.open("a") as file:
        file.writelines(f"{digest_of(entry)}  {entry['name']}\n" for entry in new)
    return [entry["name"] for entry in new]


# --- the tests ---------------------------------------------------------------------------------

ONLY_READ = (
    *("offer", "offer sealed to an identity", "offer on its way", "offer to an identity"),
    *("proof of a joiner", "proof of a listener", "offer body"),
    *("answer body", "refusing answer body"),
    *("offer body of a new link", "offer body that restarts a link", "answer body of a new link"),
    *("answer body of a restarted link", "answer body that refuses"),
    *("offer body without relays", "offer body with relays", "answer body without relays"),
    *("answer body with relays", "answer body that declines", "answer body that says no"),
    *("offer body before any answer", "offer body with a round trip"),
    *("answer body with the usual TTL", "answer body with a low TTL"),
    *(
        "ticket",
        "records",
        "bounce",
        "trace",
        "look for a place",
        "exchange of views",
        "pull of records",
    ),
)
"""As they were sent before a field was added at the end."""
OLD_LINKS = ("invite",)
"""As links were written before version 2."""
ENTRIES = load()
STRUCTS = [entry for entry in ENTRIES if entry["kind"] != "dial"]


def kind_of(entry: Entry) -> type[msgspec.Struct]:
    module = messages if hasattr(messages, entry["kind"]) else document_bodies
    kind: type[msgspec.Struct] = getattr(module, entry["kind"])
    return kind


@pytest.mark.parametrize("entry", STRUCTS, ids=lambda entry: entry["name"])
def test_a_vector_is_what_we_send_and_what_we_read(entry: Entry) -> None:
    kind, data = kind_of(entry), bytes.fromhex(entry["hex"])
    struct = struct_from(kind, entry["fields"])
    assert bounds.violation(struct) is None
    assert (encoded(struct) == data) == (entry["name"] not in ONLY_READ)
    if kind in MESSAGE_KINDS:
        assert codec.decode(data) == struct
    else:
        assert codec.Reader(kind).read(data, bounds.SEALED_MAX) == struct


@pytest.mark.parametrize(
    "entry", [entry for entry in STRUCTS if "signed" in entry], ids=lambda entry: entry["name"]
)
def test_a_signed_vector_holds(entry: Entry) -> None:
    kind, data = kind_of(entry), bytes.fromhex(entry["signed"])
    struct = struct_from(kind, entry["fields"])
    assert documents.opened(data, kind, BOB) == struct  # type: ignore[type-var]
    assert peer_id_text(getattr(struct, documents.KINDS[kind].author)) == entry["author"]
    # Ed25519 has one signature a key and message (RFC 8032).
    assert (signed(struct) == data) == (entry["name"] not in ONLY_READ)


def test_the_admission_vector_admits_its_joiner() -> None:
    (entry,) = [entry for entry in STRUCTS if entry["kind"] == "Admission"]
    data = bytes.fromhex(entry["hex"])
    admitted = invite.check_admission(data, SESSION, BOB.peer_id, NETWORK, START, ALICE)
    assert admitted == grant()


def test_the_invite_vector_is_its_link() -> None:
    for entry in STRUCTS:
        if entry["kind"] == "InviteBody":
            body = struct_from(InviteBody, entry["fields"])
            assert invite.decode(entry["link"], BOB) == body
            assert (invite.encode(body) == entry["link"]) == (entry["name"] not in OLD_LINKS)
            assert invite.check(body, START, BOB) == invite.grant_of(body)


def test_the_dial_vector_is_what_both_ends_derive() -> None:
    (entry,) = [entry for entry in ENTRIES if entry["kind"] == "dial"]
    assert entry == dial_entry()
    claim = dial.parse_ufrag(entry["ufrag"])
    assert claim is not None
    assert claim.attempt.hex() == entry["fields"]["attempt"]
    assert dial.listener_password(bytes.fromhex(entry["hex"]), entry["ufrag"]) == entry["password"]


def test_every_message_and_every_document_has_a_vector() -> None:
    have = {entry["kind"] for entry in ENTRIES}
    shown: set[type] = {Signed, Admission, InviteBody, *documents.KINDS, *MESSAGE_KINDS}
    assert {kind.__name__ for kind in shown} - have == set()


def test_every_sample_has_its_vector() -> None:
    """If this fails for a new sample: run ``python -m tests.test_vectors``. Otherwise the wire
    has changed, and with it every node that is already out there.
    """
    have = {entry["name"]: entry for entry in ENTRIES}
    for name, struct in samples().items():
        entry = entry_of(name, struct)
        if name in OLD_LINKS:
            entry["link"] = have[name]["link"]
        assert have.get(name) == entry, name


def test_vectors_are_only_ever_added() -> None:
    assert changed(ENTRIES, DIGESTS.read_text()) == []
    assert len({entry["name"] for entry in ENTRIES}) == len(ENTRIES)


def test_a_changed_a_removed_and_an_unlisted_vector_are_noticed() -> None:
    digests = DIGESTS.read_text()
    first, *others = ENTRIES
    assert changed(others, digests) == [first["name"]]
    assert changed([{**first, "hex": "00"}, *others], digests) == [first["name"]]
    assert changed([*ENTRIES, {**first, "name": "new"}], digests) == ["new"]


if __name__ == "__main__":
    for appended in append_missing():
        print(f"appended: {appended}")
