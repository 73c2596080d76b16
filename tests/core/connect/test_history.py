"""What was tried towards a peer is kept, in order, and never too much of it."""

import pytest

from overlay.core.connect.history import ATTEMPTS_MAX, PEERS_MAX, History, Outcome, Rung, Tried
from overlay.core.types import PeerId


def peer(index: int) -> PeerId:
    return PeerId(index.to_bytes(32, "big"))


def test_attempts_are_told_in_the_order_in_which_they_ended() -> None:
    history = History()
    history.note(peer(1), "dial", "failed", 1.5, "nobody answered")
    history.note(peer(1), Rung.OFFER, Outcome.LINKED, 0.2, "")
    assert history.tried(peer(1)) == (
        Tried(Rung.DIAL, Outcome.FAILED, 1.5, "nobody answered"),
        Tried(Rung.OFFER, Outcome.LINKED, 0.2, ""),
    )
    assert history.tried(peer(2)) == ()


def test_what_a_peer_says_of_its_nat_is_kept_until_it_says_something_else() -> None:
    history = History()
    assert history.nat_of(peer(1)) == ()
    history.nat(peer(1), ["address-port", "address-port", "random"])
    history.nat(peer(1), [])
    assert history.nat_of(peer(1)) == ("address-port", "address-port", "random")


def test_history_is_bounded_for_each_peer_and_for_all() -> None:
    history = History()
    for index in range(2 * ATTEMPTS_MAX):
        history.note(peer(0), Rung.DIAL, Outcome.FAILED, index, "")
    assert [tried.seconds for tried in history.tried(peer(0))] == list(
        range(ATTEMPTS_MAX, 2 * ATTEMPTS_MAX)
    )
    for index in range(1, PEERS_MAX + 1):
        history.nat(peer(index), ["unknown"])
    assert history.tried(peer(0)) == (), "the peer tried longest ago is forgotten"


def test_a_rung_that_nobody_knows_is_our_bug() -> None:
    with pytest.raises(ValueError, match="pigeon"):
        History().note(peer(1), "carrier pigeon", Outcome.FAILED, 1.0, "")
