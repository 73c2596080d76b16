"""Invites: the link that people paste, and the admission that a joiner shows."""

import base64
import hashlib
import textwrap
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overlay.core.types import Address, Refusal
from overlay.core.wire import compact, invite
from overlay.core.wire import signing as documents
from overlay.core.wire.armour import armour, text_of
from overlay.core.wire.documents import AddressEntry, Grant, InviteBody, InviteMember, Signed
from overlay.errors import InviteError
from overlay.identity import Keys
from tests.keys import NETWORK, WALL, keys_of, seeded

ALICE, BOB, MALLORY = keys_of("alice"), keys_of("bob"), keys_of("mallory")
SEED = seeded("invite")
SESSION = seeded("session")
LIFE = 7 * 86_400


def grant_of(issuer: Keys = ALICE, **changes: object) -> Signed:
    grant = Grant(
        network=NETWORK,
        invite_id=b"invite-1",
        invite_key=ALICE.public_of(SEED),
        issuer=issuer.peer_id,
        role="member",
        uses=0,
        expires_at=int(WALL) + LIFE,
    )
    return invite.make_grant(msgspec.structs.replace(grant, **changes), issuer)


def body_of(grant: Signed | None = None) -> InviteBody:
    addresses = [
        AddressEntry("192.0.2.1", 4433, proven=True),
        AddressEntry("2001:db8::1", 4433, proven=False),
    ]
    member = InviteMember(ALICE.peer_id, ALICE.fingerprint, seeded("token")[:16], addresses)
    return InviteBody(grant or grant_of(), SEED, [member], "garden")


LINK = invite.encode(body_of())


def fresh(
    *members: InviteMember, name: str = "garden", issuer: Keys = ALICE, **changes: object
) -> InviteBody:
    """An invite as nodes make them: what follows from something else does."""
    network, expires_at = compact.network_id(b"network"), int(WALL) + LIFE
    token, others = members[0].token, [m for m in members if m.peer_id != issuer.peer_id]
    invite_id = compact.invite_id(b"inv", network, issuer.peer_id, expires_at)
    seed = compact.invite_seed(token)
    made = {
        "network": network,
        "invite_id": invite_id,
        "invite_key": issuer.public_of(seed),
        "expires_at": expires_at,
    }
    return InviteBody(grant_of(issuer, **made, **changes), seed, [members[0], *others], name)


def member_of(keys: Keys, *hosts: str, port: int = 4433) -> InviteMember:
    token = seeded(f"token of {keys.peer_id.hex()}")[:16]
    addresses = [AddressEntry(host, port, proven=host < "2") for host in hosts]
    return InviteMember(keys.peer_id, keys.fingerprint, token, addresses)


def known(body: InviteBody) -> InviteBody:
    """What a link says of it: who the issuer is, and of other members the fingerprints."""
    issuer = invite.grant_of(body).issuer
    members = [
        msgspec.structs.replace(m, peer_id=m.peer_id if m.peer_id == issuer else b"")
        for m in body.members
    ]
    return msgspec.structs.replace(body, members=members)


FRESH = fresh(member_of(ALICE, "192.0.2.1", "2001:db8::1"), member_of(BOB, "198.51.100.7"))
NEW = invite.encode(FRESH)


def complaint(text: str) -> str:
    """What the user reads; it has to be one line, and show nothing of the secret."""
    with pytest.raises(InviteError) as caught:
        invite.decode(text, BOB)
    line = str(caught.value)
    assert len(line.splitlines()) == 1
    return line


def old_link(body: InviteBody) -> str:
    """A link of version 1, as earlier nodes made them."""
    return old_link_of(b"\x01" + msgspec.msgpack.encode(body))


def old_link_of(payload: bytes) -> str:
    """Such a link with a right checksum around anything."""
    packed = payload + hashlib.sha256(payload).digest()[:4]
    return "overlay:" + base64.urlsafe_b64encode(packed).decode().rstrip("=")


OLD = old_link(body_of())


# --- the link ----------------------------------------------------------------------------------


def test_a_link_carries_its_invite() -> None:
    for body in (body_of(), FRESH):
        link = invite.encode(body)
        assert invite.decode(link, BOB) == known(body)
        assert link.startswith("overlay:")
        assert not set(link[8:]) - set("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567")


@pytest.mark.parametrize(
    "hosts",
    [
        ("192.168.1.20", "203.0.113.9"),
        ("192.168.1.20", "2001:db8::1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:7:8:9:a:b:c"),
    ],
)
def test_a_link_of_one_member_with_two_addresses_is_short(hosts: tuple[str, str]) -> None:
    assert len(invite.encode(fresh(member_of(ALICE, *hosts)))) <= 340


def test_a_link_of_four_members_with_both_families_is_short() -> None:
    members = [
        member_of(keys_of(name), f"203.0.113.{at}", f"2001:db8::{at}", port=5000 + at)
        for at, name in enumerate(("alice", "bob", "carol", "dave"))
    ]
    assert len(invite.encode(fresh(*members))) <= 720


def test_fingerprints_and_signatures_are_whole() -> None:
    read = invite.decode(NEW, BOB)
    assert [len(member.fingerprint) for member in read.members] == [32, 32]
    assert invite.check(read, WALL, BOB) == invite.grant_of(FRESH)


def test_an_invite_of_another_role_and_use_count_is_carried_whole() -> None:
    body = fresh(member_of(ALICE, "192.0.2.1"), role="relay", uses=3, name="ü" * 64)
    assert invite.decode(invite.encode(body), BOB) == body


def test_members_with_many_and_with_no_addresses_are_carried() -> None:
    hosts = [f"192.0.2.{at}" for at in range(20)] + [f"2001:db8::{at}" for at in range(1, 13)]
    body = fresh(member_of(ALICE), member_of(BOB, *hosts), member_of(MALLORY, *hosts[:3]))
    assert invite.decode(invite.encode(body), BOB) == known(body)


def test_old_links_are_still_read() -> None:
    assert invite.decode(OLD, BOB) == body_of()


WRAPPED: dict[str, Callable[[str], str]] = {
    "spaces": lambda link: f"  {link}\n",
    "wrapped": lambda link: "\n".join(textwrap.wrap(link, 72)),
    "indented": lambda link: "\r\n  ".join(textwrap.wrap(link, 60)) + "\r\n",
    "angled": lambda link: f"<{link}>",
    "quoted": lambda link: f'"{link}"',
    "smart quotes": lambda link: f"“{link}”",
    "capital": lambda link: link.replace("overlay:", "Overlay: "),
    "sentence": lambda link: f"Here is the link: {link}. See you there!\n\nMallory: don't",
    "command": lambda link: f"overlay join {link} —name bob",
    "after the network's name": lambda link: f"Join my overlay: {link}",
    "bracketed": lambda link: f"[{link}]({link})",
    "mark": lambda link: f"\ufeff{link}",
    "percent": lambda link: link.replace(":", "%3A"),
    "wide colon": lambda link: link.replace(":", "\uff1a"),
    "zero width": lambda link: "\u200b".join(textwrap.wrap(link, 10)),
    "soft hyphens": lambda link: "\u00ad\n".join(textwrap.wrap(link, 40)),
    "quoted-printable": lambda link: "=\r\n".join(textwrap.wrap(link, 75)) + "=20\r\n",
    "equals": lambda link: link.replace(":", "=3A"),
    "reply": lambda link: "\n".join("> > " + line for line in textwrap.wrap(link, 50)),
    "escaped": lambda link: link.replace("_", "\\_"),
}


@pytest.mark.parametrize("how", WRAPPED)
def test_what_chat_and_mail_do_to_a_link_does_no_harm(how: str) -> None:
    for link, body in ((NEW, known(FRESH)), (OLD, body_of())):
        assert invite.decode(WRAPPED[how](link), BOB) == body, link[8:10]


def test_a_padded_old_link_is_read() -> None:
    assert invite.decode(OLD + "==", BOB) == body_of()


CASES = st.sampled_from([str.lower, str.upper, str.title, str.swapcase])
HARMLESS = st.sampled_from(["\u200b", "\u00ad", "\u2060", "\ufeff", "\n", " ", "\r\n> ", "\t"])
AROUND = st.text(st.sampled_from(" <>\"'`“”‘’«».,;!?()[]{}*_~\n—-\u200e"), max_size=4)


@settings(max_examples=50)
@given(
    CASES,
    st.lists(st.tuples(st.integers(0, len(NEW) - 9), HARMLESS), max_size=8),
    AROUND,
    AROUND,
    st.sampled_from(["", "Here is the link: ", "overlay join ", "> "]),
    st.sampled_from(["", "\nRegards", " (good for a week)", "\n-- \nAlice, +49 30 1234567"]),
)
def test_no_decoration_does_harm(
    case: Callable[[str], str],
    inserted: list[tuple[int, str]],
    left: str,
    right: str,
    before: str,
    after: str,
) -> None:
    secret = case(NEW[8:])
    for at, what in sorted(inserted, reverse=True):
        secret = secret[:at] + what + secret[at:]
    text = f"{before}{left}{case('overlay')}:{secret}{right}{after}"
    assert invite.decode(text, BOB) == known(FRESH)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_a_file_may_be_in_any_encoding(encoding: str) -> None:
    text = text_of(f"{NEW}\r\n".encode(encoding))
    assert invite.decode(text, BOB) == known(FRESH)


@pytest.mark.parametrize("text", ["", "hello", "https://example.org/", LINK[8:], "x" * 100_000])
def test_what_is_no_link_is_called_that(text: str) -> None:
    assert "no invite link" in complaint(text)


@pytest.mark.parametrize("link", [NEW, LINK, OLD], ids=["new", "whole", "old"])
def test_a_truncated_link_is_called_that(link: str) -> None:
    for length in [*range(9, len(link), 7), *range(len(link) - 8, len(link))]:
        assert "truncated" in complaint(link[:length]), length


def test_any_mistyped_character_is_noticed() -> None:
    """Whether it is then called mistyped or, where a length was hit, truncated."""
    for link in (NEW, OLD):
        called = []
        for at in range(8, len(link) - 1, 3):
            typed = "b" if link[at].lower() != "b" else "c"
            line = complaint(link[:at] + typed + link[at + 1 :])
            called.append("mistyped" in line)
            assert "mistyped" in line or "truncated" in line or "malformed" in line
        assert sum(called) > 0.8 * len(called)


def test_a_mistyped_link_is_called_that() -> None:
    middle = len(NEW) // 2
    at = next(each for each in range(middle, len(NEW)) if NEW[each] != NEW[each + 1])
    swapped = NEW[:at] + NEW[at + 1] + NEW[at] + NEW[at + 2 :]
    assert "mistyped" in complaint(swapped)
    assert "shortened" in complaint(NEW[:middle] + "…" + NEW[-4:])
    assert "'9'" in complaint(NEW[:middle] + "9" + NEW[middle + 1 :])
    assert "'ü'" in complaint(OLD[:middle] + "ü" + OLD[middle:])
    assert "mistyped" in complaint("overlay:AZA"), "all of some MessagePack, but no invite"


def test_digits_that_no_link_has_are_read_as_the_letters_that_they_look_like() -> None:
    assert invite.decode(NEW[:8] + NEW[8:].replace("O", "0").replace("L", "1"), BOB) == known(FRESH)


def test_an_old_link_that_lost_its_underscores_or_its_case_is_told_so() -> None:
    bodies = (fresh(member_of(ALICE, f"192.0.2.{at}")) for at in range(1, 200))
    old = next(link for link in map(old_link, bodies) if link.count("_") > 3)
    assert "underscores" in complaint(old.replace("_", ""))
    assert "case" in complaint(old.lower())
    assert "case" in complaint(old.upper())


def test_of_several_links_in_a_text_the_one_that_holds_is_read() -> None:
    assert invite.decode(f"{NEW[:60]}\n\n{NEW}\n", BOB) == known(FRESH)


def test_a_link_of_a_newer_version_names_both_versions() -> None:
    for link in (armour(b"\x31whatever comes then"), old_link_of(b"\x03whatever comes then")):
        line = complaint(link)
        assert "version 3" in line
        assert "version 2" in line


def test_a_link_with_a_right_checksum_around_nonsense_is_malformed() -> None:
    assert "malformed" in complaint(old_link_of(b"\x01\x94"))
    assert "malformed" in complaint(old_link_of(b"\x01\x94\xc1"))
    nobody = msgspec.structs.replace(body_of(), grant=Signed(b"\x90", bytes(64)))
    assert "malformed" in complaint(old_link(nobody))
    assert "malformed" in complaint(armour(b"\x21\x00"))
    payload = compact.write(FRESH, invite.grant_of(FRESH))
    assert "malformed" in complaint(armour(payload + b"x"))
    long = msgspec.structs.replace(FRESH, network_name=65 * "n")
    assert "malformed" in complaint(invite.encode(long))


@given(st.text(max_size=200), st.booleans())
def test_no_text_makes_decoding_raise_anything_else(text: str, prefixed: bool) -> None:
    with pytest.raises(InviteError):
        invite.decode("overlay:" + text if prefixed else text, BOB)


@given(st.binary(max_size=100), st.sampled_from([b"", b"\x01\x94", b"\x21", b"\x22\x81"]))
def test_no_payload_makes_decoding_raise_anything_else(payload: bytes, head: bytes) -> None:
    for link in (armour(head + payload), old_link_of(head + payload)):
        with pytest.raises(InviteError):
            invite.decode(link, BOB)


@settings(max_examples=50)
@given(st.data())
def test_a_link_with_any_byte_changed_is_no_other_good_link(data: st.DataObject) -> None:
    """With a checksum made anew, too: what is derived is as good as signed."""
    payload = bytearray(compact.write(FRESH, invite.grant_of(FRESH)))
    payload[data.draw(st.integers(0, 6 + 32 + 64 + 9))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(InviteError):
        invite.check(invite.decode(armour(bytes(payload)), BOB), WALL, BOB)


def test_a_later_version_may_add_fields() -> None:
    fields = msgspec.to_builtins(body_of(), builtin_types=[bytes])
    longer = b"\x01" + msgspec.msgpack.encode([*fields, {"chain": []}])
    assert invite.decode(old_link_of(longer), BOB) == body_of()
    payload = bytearray(compact.write(FRESH, invite.grant_of(FRESH)))
    payload[1] |= 32
    chain = b"\x01\x00" + bytes(256)
    assert invite.decode(armour(bytes(payload) + chain), BOB) == known(FRESH)


# --- what a link is worth ----------------------------------------------------------------------


def test_a_link_is_good_until_it_expires() -> None:
    assert invite.check(body_of(), WALL + LIFE - 1, BOB).invite_id == b"invite-1"
    with pytest.raises(InviteError, match="expired 3 hours ago"):
        invite.check(body_of(), WALL + LIFE + 3 * 3600, BOB)
    for late in (1, 600, 86_400 * 400):
        with pytest.raises(InviteError, match="expired"):
            invite.check(body_of(), WALL + LIFE + late, BOB)


def test_a_link_that_its_issuer_did_not_sign_is_a_forgery() -> None:
    forged = documents.sign(invite.grant_of(body_of()), MALLORY)
    with pytest.raises(InviteError, match="not made by"):
        invite.check(body_of(forged), WALL, BOB)


def test_a_link_whose_seed_is_of_another_invite_is_a_forgery() -> None:
    swapped = msgspec.structs.replace(body_of(), seed=seeded("another"))
    with pytest.raises(InviteError, match="not made by"):
        invite.check(swapped, WALL, BOB)


def test_explaining_a_link_tells_all_but_its_secrets() -> None:
    explained = invite.explain(body_of(), WALL)
    assert explained.network == NETWORK
    assert explained.network_name == "garden"
    assert explained.issuer == ALICE.peer_id
    assert explained.expires_at == int(WALL) + LIFE
    assert not explained.expired
    (member,) = explained.members
    assert member.peer == ALICE.peer_id
    assert member.addresses == (
        (Address("192.0.2.1", 4433), True),
        (Address("2001:db8::1", 4433), False),
    )
    for secret in (SEED, seeded("token")[:16]):
        assert repr(secret)[2:-1] not in repr(explained)
    assert invite.explain(body_of(), WALL + LIFE).expired


# --- admission ---------------------------------------------------------------------------------


def admitted(data: bytes, **changes: object) -> Grant | Refusal:
    arguments = {
        "session": SESSION,
        "peer": BOB.peer_id,
        "network": NETWORK,
        "wall": WALL,
        "crypto": ALICE,
    }
    return invite.check_admission(data, **{**arguments, **changes})  # type: ignore[arg-type]


def refused(data: bytes, **changes: object) -> Refusal:
    result = admitted(data, **changes)
    assert isinstance(result, Refusal)
    return result


def test_the_holder_of_an_invite_is_admitted_by_any_member() -> None:
    data = invite.make_admission(grant_of(), SEED, SESSION, BOB)
    for member in (ALICE, MALLORY):
        grant = admitted(data, crypto=member)
        assert isinstance(grant, Grant)
        assert grant.invite_id == b"invite-1"


def test_an_admission_is_good_for_one_peer_one_session_and_one_network() -> None:
    data = invite.make_admission(grant_of(), SEED, SESSION, BOB)
    assert "for this link" in refused(data, peer=MALLORY.peer_id).text
    assert "for this link" in refused(data, session=seeded("another session")).text
    assert "another network" in refused(data, network=bytes(32)).text


def test_an_expired_invite_admits_nobody() -> None:
    data = invite.make_admission(grant_of(), SEED, SESSION, BOB)
    assert isinstance(admitted(data, wall=WALL + LIFE - 1), Grant)
    late = refused(data, wall=WALL + LIFE)
    assert late.code == "expired"
    assert "expired" in late.text


def test_who_has_no_seed_is_not_admitted() -> None:
    data = invite.make_admission(grant_of(), seeded("guessed"), SESSION, BOB)
    assert "invite's key" in refused(data).text


def test_a_grant_that_its_issuer_did_not_sign_admits_nobody() -> None:
    forged = documents.sign(invite.grant_of(body_of()), MALLORY)
    result = refused(invite.make_admission(forged, SEED, SESSION, BOB))
    assert result.code == "refused"
    assert "does not hold" in result.text


@given(st.binary(max_size=300))
def test_no_bytes_make_the_check_raise(data: bytes) -> None:
    assert refused(data).code == "refused"


@given(st.data())
def test_an_admission_with_any_byte_changed_admits_nobody(data: st.DataObject) -> None:
    packed = bytearray(invite.make_admission(grant_of(), SEED, SESSION, BOB))
    packed[data.draw(st.integers(0, len(packed) - 1))] ^= data.draw(st.integers(1, 255))
    assert refused(bytes(packed)).code == "refused"


def test_nobody_grants_for_others() -> None:
    with pytest.raises(AssertionError):
        invite.make_grant(invite.grant_of(body_of()), BOB)
