"""What a node says of its own addresses, and which of another's are worth a dial."""

import pytest

from overlay.core.nat.reflexive import Reflexive
from overlay.core.types import Address, PeerId
from overlay.core.wire.documents import AddressEntry

LAN = Address("192.168.1.5", 4000)
MAPPED = Address("198.51.100.7", 61000)
OTHER = Address("203.0.113.9", 4000)


def peer(index: int) -> PeerId:
    return PeerId(bytes([index]) * 32)


def at(*listening: Address, advertised: tuple[Address, ...] = ()) -> Reflexive:
    reflexive = Reflexive()
    reflexive.listen(listening, advertised)
    return reflexive


def test_one_voice_makes_a_candidate_but_not_a_record() -> None:
    reflexive = at(LAN)
    assert not reflexive.vote(peer(1), MAPPED)
    assert [c.address for c in reflexive.candidates()] == [LAN, MAPPED]
    assert [entry.host for entry in reflexive.entries()] == [LAN.host]


def test_two_voices_that_agree_make_a_record() -> None:
    reflexive = at(LAN)
    reflexive.vote(peer(1), MAPPED)
    assert not reflexive.vote(peer(1), MAPPED), "one peer voted twice"
    assert reflexive.vote(peer(2), MAPPED)
    assert AddressEntry(MAPPED.host, MAPPED.port, proven=False) in reflexive.entries()
    reflexive.forget(peer(1))
    assert [entry.host for entry in reflexive.entries()] == [LAN.host]


@pytest.mark.parametrize("host", ["0.0.0.0", "224.0.0.1", "255.255.255.255", "nowhere", "::"])
def test_a_neighbour_cannot_make_us_say_what_nobody_would_accept(host: str) -> None:
    """Found by Hypothesis: such a word went into our record, and signing it raised."""
    reflexive = at(LAN)
    for index in range(3):
        assert not reflexive.vote(peer(index), Address(host, 4000))
    assert [candidate.address for candidate in reflexive.candidates()] == [LAN]


def test_an_address_is_proven_by_a_stranger_who_came_in_there() -> None:
    reflexive = at(LAN, OTHER)
    assert reflexive.prove(OTHER)
    assert not reflexive.prove(OTHER)
    assert not reflexive.prove(MAPPED), "not an address of ours"
    first, second = reflexive.entries()
    assert (first.host, first.proven, second.proven) == (OTHER.host, True, False)


def test_host_candidates_come_before_reflexive_ones_and_there_are_at_most_eight() -> None:
    addresses = [Address(f"192.168.1.{n}", 4000) for n in range(1, 20)]
    reflexive = at(*addresses, advertised=(OTHER,))
    for n in range(5):
        reflexive.vote(peer(n), Address(MAPPED.host, 61000 + n))
    candidates = reflexive.candidates()
    assert len(candidates) == 8
    priorities = [candidate.priority for candidate in candidates]
    assert priorities == sorted(priorities, reverse=True)
    assert [candidate.kind for candidate in candidates] == ["host"] * 6 + ["srflx"] * 2


def test_only_addresses_that_can_answer_are_dialled() -> None:
    proven = AddressEntry(OTHER.host, OTHER.port, proven=True)
    claimed = AddressEntry(LAN.host, LAN.port, proven=False)
    loopback = AddressEntry("127.0.0.1", 4000, proven=True)
    entries = [proven, claimed, loopback]
    assert at(LAN).dialable(entries, claimed=False) == [OTHER]
    assert at(LAN).dialable(entries, claimed=True) == [OTHER, LAN]
    here = at(Address("127.0.0.1", 5000))
    assert here.dialable(entries, claimed=False) == [OTHER, Address("127.0.0.1", 4000)]
