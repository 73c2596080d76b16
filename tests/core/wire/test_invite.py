"""Invites: the link that people paste, and the admission that a joiner shows."""

import base64
import hashlib
import textwrap

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.core.types import Address, Refusal
from overlay.core.wire import invite
from overlay.core.wire import signing as documents
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


def complaint(text: str) -> str:
    """What the user reads; it has to be one line."""
    with pytest.raises(InviteError) as caught:
        invite.decode(text)
    line = str(caught.value)
    assert len(line.splitlines()) == 1
    return line


def link_of(payload: bytes) -> str:
    """A link with a right checksum around anything."""
    packed = payload + hashlib.sha256(payload).digest()[:4]
    return "overlay:" + base64.urlsafe_b64encode(packed).decode().rstrip("=")


# --- the link ----------------------------------------------------------------------------------


def test_a_link_carries_its_invite() -> None:
    assert invite.decode(LINK) == body_of()
    assert LINK.startswith("overlay:")
    assert not set(LINK[8:]) - set(
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    )


@pytest.mark.parametrize(
    "mangled",
    [
        f"  {LINK}\n",
        "\n".join(textwrap.wrap(LINK, 72)),
        "\r\n  ".join(textwrap.wrap(LINK, 60)) + "\r\n",
        f"<{LINK}>",
        f'"{LINK}"',
        LINK.replace("overlay:", "Overlay: "),
        LINK + "==",
    ],
    ids=["spaces", "wrapped", "indented", "angled", "quoted", "capital", "padded"],
)
def test_what_mail_programs_do_to_a_link_does_no_harm(mangled: str) -> None:
    assert invite.decode(mangled) == body_of()


@pytest.mark.parametrize("text", ["", "hello", "https://example.org/", LINK[8:], "x" * 100_000])
def test_what_is_no_link_is_called_that(text: str) -> None:
    assert "no invite link" in complaint(text)


@pytest.mark.parametrize("length", range(9, len(LINK), 7))
def test_a_truncated_link_is_called_that(length: int) -> None:
    assert "truncated" in complaint(LINK[:length])


@pytest.mark.parametrize("missing", [1, 2, 3, 4, 5, 6, 7, 8])
def test_a_link_that_lacks_only_its_end_is_truncated(missing: int) -> None:
    assert "truncated" in complaint(LINK[:-missing])


def test_any_mistyped_character_is_noticed() -> None:
    """Whether it is then called mistyped or, where a length was hit, truncated."""
    called = []
    for at in range(8, len(LINK) - 1):
        typed = "B" if LINK[at] != "B" else "C"
        line = complaint(LINK[:at] + typed + LINK[at + 1 :])
        called.append("mistyped" in line)
        assert "mistyped" in line or "truncated" in line or "version" in line
    assert sum(called) > 0.8 * len(called)


def test_a_mistyped_link_is_called_that() -> None:
    middle = len(LINK) // 2
    swapped = LINK[:middle] + LINK[middle + 1] + LINK[middle] + LINK[middle + 2 :]
    assert swapped != LINK
    assert "mistyped" in complaint(swapped)
    assert "mistyped" in complaint(LINK[:middle] + "!" + LINK[middle:])
    assert "mistyped" in complaint(LINK[:middle] + "ü" + LINK[middle:])
    assert "mistyped" in complaint("overlay:AZA"), "all of some MessagePack, but no invite"


def test_a_link_of_a_newer_version_names_both_versions() -> None:
    line = complaint(link_of(b"\x02whatever comes then"))
    assert "version 2" in line
    assert "version 1" in line


def test_a_link_with_a_right_checksum_around_nonsense_is_malformed() -> None:
    assert "malformed" in complaint(link_of(b"\x01"))
    assert "malformed" in complaint(link_of(b"\x01\xc1"))
    nobody = msgspec.structs.replace(body_of(), grant=Signed(b"\x90", bytes(64)))
    assert "malformed" in complaint(link_of(b"\x01" + msgspec.msgpack.encode(nobody)))


@given(st.text(max_size=200), st.booleans())
def test_no_text_makes_decoding_raise_anything_else(text: str, prefixed: bool) -> None:
    with pytest.raises(InviteError):
        invite.decode("overlay:" + text if prefixed else text)


@given(st.binary(max_size=100))
def test_no_payload_makes_decoding_raise_anything_else(payload: bytes) -> None:
    with pytest.raises(InviteError):
        invite.decode(link_of(payload))


def test_a_later_version_may_add_fields() -> None:
    fields = msgspec.to_builtins(body_of(), builtin_types=[bytes])
    longer = b"\x01" + msgspec.msgpack.encode([*fields, {"chain": []}])
    assert invite.decode(link_of(longer)) == body_of()


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
