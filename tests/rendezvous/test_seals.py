"""Seals of what people carry: who can open them, and what the others are told."""

import pytest

from overlay.core.types import PeerId
from overlay.errors import InviteError
from overlay.rendezvous import seals
from tests.keys import keys_of, seeded

SECRET = b"\x40an offer"
PASSPHRASE = "correct horse battery staple"


def refusal(sealed: bytes, name: str = "bob", passphrase: str | None = None) -> str:
    with pytest.raises(InviteError) as caught:
        seals.opened(sealed, seeded(name), passphrase)
    return str(caught.value)


def test_a_passphrase_opens_what_it_has_sealed() -> None:
    sealed = seals.seal_with(PASSPHRASE, SECRET)
    assert seals.is_sealed(sealed)
    assert seals.opened(sealed, seeded("bob"), PASSPHRASE) == SECRET
    assert len(sealed) == len(SECRET) + 57
    assert "another passphrase" in refusal(sealed, passphrase="incorrect horse")
    assert "--seal" in refusal(sealed)
    assert "another passphrase" in refusal(sealed[:-1] + b"x", passphrase=PASSPHRASE)


def test_only_the_peer_opens_what_is_sealed_to_its_id() -> None:
    sealed = seals.seal_to(keys_of("bob").peer_id, SECRET)
    assert seals.opened(sealed, seeded("bob"), None) == SECRET
    assert len(sealed) == len(SECRET) + 49
    assert "another node" in refusal(sealed, "carol")
    with pytest.raises(InviteError):
        seals.seal_to(PeerId(b"\xff" * 32), SECRET)


@pytest.mark.parametrize("sealed", [b"\x60", b"\x61", b"\x60short", b"\x61short", b"\x6fnew way"])
def test_no_bytes_make_opening_raise_anything_else(sealed: bytes) -> None:
    assert refusal(sealed, passphrase=PASSPHRASE)


def test_what_is_not_sealed_is_as_it_is() -> None:
    assert seals.opened(SECRET, seeded("bob"), None) == SECRET
