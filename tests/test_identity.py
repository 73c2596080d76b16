"""Keys: kept as secrets, told apart from damaged ones, and what they sign and seal holds."""

import datetime as dt
import hashlib
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from overlay.core.types import Crypto, PeerId
from overlay.errors import ConfigError, UsageError
from overlay.identity import (
    CERTIFICATE_FILE,
    DIAL_FILE,
    IDENTITY_FILE,
    Identity,
    Keys,
    MemoryPrekeys,
    load_or_create,
    parse_peer_id,
    peer_id_text,
)
from tests.keys import keys_of, seeded

FILES = (IDENTITY_FILE, CERTIFICATE_FILE, DIAL_FILE)
ALICE, BOB = keys_of("alice"), keys_of("bob")


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def complaint(directory: Path) -> str:
    """What the user reads; it has to be one line."""
    with pytest.raises(ConfigError) as caught:
        load_or_create(directory)
    line = str(caught.value)
    assert len(line.splitlines()) == 1
    return line


# --- the files ---------------------------------------------------------------------------------


def test_an_identity_lasts(tmp_path: Path) -> None:
    first = load_or_create(tmp_path / "node")
    second = load_or_create(tmp_path / "node")
    for name in Identity.__slots__:
        assert getattr(first, name) == getattr(second, name), name
    assert load_or_create(tmp_path / "other").peer_id != first.peer_id


def test_secrets_are_the_owner_s_alone(tmp_path: Path) -> None:
    directory = tmp_path / "a" / "node"
    load_or_create(directory)
    assert mode_of(directory) == 0o700
    assert {path.name: mode_of(path) for path in directory.iterdir()} == dict.fromkeys(FILES, 0o600)


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_others_can_read_is_refused(tmp_path: Path, name: str) -> None:
    load_or_create(tmp_path)
    (tmp_path / name).chmod(0o640)
    line = complaint(tmp_path)
    assert name in line
    assert "chmod 600" in line
    (tmp_path / name).chmod(0o600)
    load_or_create(tmp_path)


def test_a_directory_that_others_can_write_is_refused(tmp_path: Path) -> None:
    directory = tmp_path / "shared"
    directory.mkdir()
    directory.chmod(0o777)
    assert "chmod 700" in complaint(directory)
    assert list(directory.iterdir()) == [], "and nothing was put there"
    directory.chmod(0o755)
    load_or_create(directory)


@pytest.mark.parametrize("name", FILES)
def test_a_truncated_file_is_called_damaged(tmp_path: Path, name: str) -> None:
    load_or_create(tmp_path)
    data = (tmp_path / name).read_bytes()
    for cut in (0, 1, len(data) // 2, len(data) - 1):
        (tmp_path / name).write_bytes(data[:cut])
        if name == CERTIFICATE_FILE and cut == len(data) - 1:
            load_or_create(tmp_path)  # the last byte of a PEM file is only a line end
        else:
            line = complaint(tmp_path)
            assert name in line
            assert "damaged" in line


@pytest.mark.parametrize("name", [CERTIFICATE_FILE, DIAL_FILE])
def test_a_lost_file_is_not_replaced_behind_the_user_s_back(tmp_path: Path, name: str) -> None:
    load_or_create(tmp_path)
    (tmp_path / name).unlink()
    line = complaint(tmp_path)
    assert name in line
    assert "missing" in line


@pytest.mark.parametrize("name", FILES)
def test_an_unreadable_file_is_named(tmp_path: Path, name: str) -> None:
    load_or_create(tmp_path)
    (tmp_path / name).unlink()
    (tmp_path / name).mkdir()
    line = complaint(tmp_path)
    assert name in line
    assert "cannot be read" in line


def test_a_directory_that_cannot_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "--data-dir" in complaint(tmp_path / "file")
    assert "--data-dir" in complaint(tmp_path / "file" / "below")


def test_a_certificate_with_somebody_else_s_key_is_damaged(tmp_path: Path) -> None:
    load_or_create(tmp_path)
    ours, theirs = (Identity.generate().certificate for _ in range(2))
    end = b"-----END PRIVATE KEY-----\n"
    mixed = ours.partition(end)[0] + end + theirs.partition(end)[2]
    (tmp_path / CERTIFICATE_FILE).write_bytes(mixed)
    assert "damaged" in complaint(tmp_path)


@pytest.mark.parametrize("survivors", [(), (DIAL_FILE,), (DIAL_FILE, CERTIFICATE_FILE)], ids=str)
def test_a_first_start_that_crashed_midway_is_finished(
    tmp_path: Path, survivors: tuple[str, ...]
) -> None:
    load_or_create(tmp_path)
    for name in set(FILES) - set(survivors):
        (tmp_path / name).unlink()
    kept = {name: (tmp_path / name).read_bytes() for name in survivors}
    load_or_create(tmp_path)
    assert {name: (tmp_path / name).read_bytes() for name in survivors} == kept
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(FILES)


def test_a_file_appears_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    assert "No space left" in complaint(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_no_secret_shows(tmp_path: Path) -> None:
    identity = load_or_create(tmp_path)
    keys = Keys(identity, MemoryPrekeys())
    for shown in (repr(identity), str(identity), repr(keys), str(keys), f"{keys}"):
        assert peer_id_text(identity.peer_id) in shown
        assert len(shown) < 80
    assert "0x" not in repr(keys)
    damaged = tmp_path / IDENTITY_FILE
    damaged.write_bytes(b"half a secret")
    assert "half" not in complaint(tmp_path)


# --- the certificate ---------------------------------------------------------------------------


def test_the_certificate_is_a_long_lived_ecdsa_one() -> None:
    identity = Identity.generate()
    certificate = x509.load_pem_x509_certificate(identity.certificate)
    key = certificate.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert isinstance(key.curve, ec.SECP256R1)
    certificate.verify_directly_issued_by(certificate)
    assert certificate.not_valid_before_utc < dt.datetime(2021, 1, 1, tzinfo=dt.UTC)
    life = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    assert life > dt.timedelta(days=20 * 365)
    der = certificate.public_bytes(serialization.Encoding.DER)
    assert identity.fingerprint == hashlib.sha256(der).digest()
    assert identity.fingerprint != Identity.generate().fingerprint


# --- PeerIds -----------------------------------------------------------------------------------


@given(st.binary(min_size=32, max_size=32))
def test_peer_ids_read_as_they_are_written(key: bytes) -> None:
    text = peer_id_text(PeerId(key))
    assert text.startswith("12D3KooW")
    assert len(text) == 52
    assert parse_peer_id(text) == key


def test_peer_ids_are_those_of_libp2p() -> None:
    ed25519 = pytest.importorskip("libp2p.crypto.ed25519")
    peer_id = pytest.importorskip("libp2p.peer.id")
    for name in ("alice", "bob", "carol"):
        key = keys_of(name).peer_id
        theirs = peer_id.ID.from_pubkey(ed25519.Ed25519PublicKey.from_bytes(key))
        assert peer_id_text(key) == str(theirs)
        pair = ed25519.create_new_key_pair(seeded(name))
        assert pair.public_key.to_bytes() == key, "the same seed makes the same key there"


@given(st.text(max_size=60))
def test_what_is_no_peer_id_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_peer_id(text)
    assert len(str(caught.value).splitlines()) == 1


def test_a_peer_id_of_another_key_type_or_with_a_slip_is_refused() -> None:
    text = peer_id_text(ALICE.peer_id)
    for wrong in (text[:-1], text + "1", "Qm" + text[2:], text[:5] + "0" + text[6:], "z" * 52):
        with pytest.raises(UsageError, match="no peer id"):
            parse_peer_id(wrong)


# --- signatures --------------------------------------------------------------------------------


def test_keys_are_the_core_s_crypto_port() -> None:
    port: Crypto = ALICE
    assert len(port.token(16)) == 16
    assert port.token(16) != port.token(16)


def test_a_signature_is_its_signer_s_over_these_bytes() -> None:
    signature = ALICE.sign(b"data")
    assert BOB.verify(ALICE.peer_id, b"data", signature)
    assert not BOB.verify(BOB.peer_id, b"data", signature)
    assert not BOB.verify(ALICE.peer_id, b"Data", signature)
    assert ALICE.sign_with(seeded("alice"), b"data") == signature
    assert ALICE.public_of(seeded("bob")) == BOB.peer_id


@given(st.binary(max_size=40), st.binary(max_size=8), st.binary(max_size=70))
def test_no_bytes_make_verify_raise(signer: bytes, data: bytes, signature: bytes) -> None:
    assert not ALICE.verify(PeerId(signer), data, signature)


# --- seals (HPKE) ------------------------------------------------------------------------------


def test_a_seal_is_opened_by_its_prekey_alone() -> None:
    keys = keys_of("carol")
    public = keys.new_prekey(7)
    sealed = BOB.seal(public, b"info", b"hello")
    assert keys.open(7, b"info", sealed) == b"hello"
    assert keys.open(7, b"other", sealed) is None
    assert keys.open(8, b"info", sealed) is None
    keys.new_prekey(8)
    assert keys.open(8, b"info", sealed) is None
    assert BOB.seal(public, b"info", b"hello") != sealed, "each has a key of its own"


def test_a_prekey_is_the_same_until_it_is_forgotten() -> None:
    keys = keys_of("carol")
    public = keys.new_prekey(7)
    assert keys.new_prekey(7) == public
    sealed = BOB.seal(public, b"", b"hello")
    keys.forget_prekey(7)
    keys.forget_prekey(7)
    assert keys.open(7, b"", sealed) is None
    assert keys.new_prekey(7) != public


@given(st.binary(max_size=100))
def test_no_bytes_make_open_raise(sealed: bytes) -> None:
    keys = keys_of("carol")
    keys.new_prekey(7)
    assert keys.open(7, b"", sealed) is None
    assert keys.open(7, b"", bytes(32) + sealed) is None, "a key of low order"


@given(st.data())
def test_a_seal_with_any_byte_changed_stays_shut(data: st.DataObject) -> None:
    keys = keys_of("carol")
    sealed = bytearray(BOB.seal(keys.new_prekey(7), b"", b"hello"))
    sealed[data.draw(st.integers(0, len(sealed) - 1))] ^= data.draw(st.integers(1, 255))
    assert keys.open(7, b"", bytes(sealed)) is None


@pytest.mark.parametrize("public", [bytes(32), b"\1" + bytes(31), b"", bytes(33)], ids=len)
def test_a_peer_s_useless_prekey_does_us_no_harm(public: bytes) -> None:
    assert len(BOB.seal(public, b"", b"hello")) == 48 + 5


# RFC 9180, appendix A.1.1: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-128-GCM, base mode.
RFC_INFO = bytes.fromhex("4f6465206f6e2061204772656369616e2055726e")
RFC_ENC = bytes.fromhex("37fda3567bdbd628e88668c3c8d7e97d1d1253b6d4ea6d44c150f741f1bf4431")
RFC_PRIVATE = bytes.fromhex("4612c550263fc8ad58375df3f557aac531d26850903e55a9f23f21d8534e8ac8")
RFC_PUBLIC = bytes.fromhex("3948cfe0ad1ddb695d780e59077195da6c56506b027329794ab02bca80815c4d")
RFC_KEY = bytes.fromhex("4531685d41d65f03dc48f6b8302c05b0")
RFC_NONCE = bytes.fromhex("56d890e5accaaf011cff4b7d")
RFC_PLAINTEXT = bytes.fromhex("4265617574792069732074727574682c20747275746820626561757479")
RFC_AAD = b"Count-0"
RFC_CIPHERTEXT = bytes.fromhex(
    "f938558b5d72f1a23810b4be2ab4f84331acc02fc97babc53a52ae8218a355a96d8770ac83d07bea87e13c512a"
)


def rfc_recipient() -> Keys:
    prekeys = MemoryPrekeys()
    prekeys.save(1, RFC_PRIVATE)
    return Keys(Identity.generate(), prekeys)


def test_the_rfc_s_private_key_has_the_rfc_s_public_key() -> None:
    assert rfc_recipient().new_prekey(1) == RFC_PUBLIC


def test_a_seal_with_the_rfc_s_key_schedule_opens() -> None:
    """A.1.1 by way of its key and base nonce.

    The vector's ciphertexts have associated data, which our seals do not and the library's API
    does not offer; nor can a sender's ephemeral key be given to it. So: the vector's key, nonce
    and data make the vector's ciphertext (they are what the RFC says), and what they make without
    associated data is opened from the encapsulated key, private key and info alone.
    """
    cipher = AESGCM(RFC_KEY)
    assert cipher.encrypt(RFC_NONCE, RFC_PLAINTEXT, RFC_AAD) == RFC_CIPHERTEXT
    sealed = RFC_ENC + cipher.encrypt(RFC_NONCE, RFC_PLAINTEXT, None)
    assert rfc_recipient().open(1, RFC_INFO, sealed) == RFC_PLAINTEXT
    assert rfc_recipient().open(1, RFC_INFO + b"!", sealed) is None
    assert rfc_recipient().open(1, RFC_INFO, RFC_ENC + RFC_CIPHERTEXT) is None


def test_the_rfc_s_own_ciphertext_opens_with_its_associated_data() -> None:
    """The whole of A.1.1, sequence number 0, through the library's own test hook."""
    hpke = pytest.importorskip("cryptography.hazmat.bindings._rust").openssl.hpke
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    from overlay.identity import _SUITE

    private = X25519PrivateKey.from_private_bytes(RFC_PRIVATE)
    opened = hpke._decrypt_with_aad(_SUITE, RFC_ENC + RFC_CIPHERTEXT, private, RFC_INFO, RFC_AAD)
    assert opened == RFC_PLAINTEXT


# --- what importing costs ----------------------------------------------------------------------


def test_importing_overlay_loads_no_cryptography() -> None:
    program = (
        "import sys, overlay; sys.exit(any(m in sys.modules for m in ('cryptography', 'nacl')))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
    guilty = program.replace("overlay;", "overlay.identity;")
    assert subprocess.run([sys.executable, "-c", guilty], check=False).returncode == 1
