"""What a node says of its own addresses, and which of another's are worth a dial."""

import pytest

from overlay.core.connect.offers import to_entries
from overlay.core.ice.checklist import CheckList
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


def test_a_nat_has_moved_when_most_see_another_host_than_before_whatever_the_port() -> None:
    reflexive = at(LAN)

    def sees(number: int, host: str, port: int) -> bool:
        remote = Address(f"20.{number}.0.1", 4000)
        reflexive.vote(peer(number), Address(host, port), remote, LAN)
        return reflexive.has_moved()

    ports = iter(range(20_000, 20_100))
    assert not any(sees(number, MAPPED.host, next(ports)) for number in (1, 2, 3))
    assert not any(sees(1, OTHER.host, next(ports)) for _ in range(5)), "one voice"
    assert sees(2, OTHER.host, next(ports))
    assert not sees(3, OTHER.host, next(ports)), "it is said once"
    assert not sees(1, OTHER.host, next(ports)), "another port is no other network"
    for number in (2, 3):
        reflexive.forget(peer(number))
    assert not sees(1, MAPPED.host, next(ports))


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


def test_eight_candidates_are_offered_and_from_all_other_addresses_checks_leave() -> None:
    addresses = [Address(f"192.168.1.{n}", 4000) for n in range(1, 20)]
    reflexive = at(*addresses, advertised=(OTHER,))
    for n in range(5):
        reflexive.vote(peer(n), Address(MAPPED.host, 61000 + n))
    candidates = reflexive.candidates()
    offered, others = candidates[:8], candidates[8:]
    priorities = [candidate.priority for candidate in offered]
    assert priorities == sorted(priorities, reverse=True)
    assert [candidate.kind for candidate in offered] == ["host"] * 6 + ["srflx"] * 2
    assert [candidate.address for candidate in offered[:6]] == addresses[:6], "the best first"
    assert [candidate.address for candidate in others] == addresses[6:]
    entries = to_entries(candidates)
    assert [entry.host for entry in entries] == [each.address.host for each in offered]
    assert len(CheckList(controlling=True, candidates=candidates).bases) == len(addresses)


def test_without_mapped_addresses_eight_of_our_own_are_offered() -> None:
    addresses = [Address(f"192.168.1.{n}", 4000) for n in range(1, 20)]
    assert [each.address for each in at(*addresses).candidates()] == addresses


def test_the_default_routes_addresses_are_named_whatever_else_has_been_proven() -> None:
    """Eight bridges whose guests have dialled us do not push out where everybody else is."""
    routed = (Address("2001:db8::5", 4000), LAN)
    bridges = tuple(Address(f"172.{17 + n}.0.1", 4000) for n in range(8))
    reflexive = at(*routed, *bridges)
    for each in bridges:
        assert reflexive.prove(each)
    for n in (1, 2):
        reflexive.vote(peer(n), MAPPED)
    entries = reflexive.entries()
    assert len(entries) == 8
    assert {each.host for each in routed} < {entry.host for entry in entries}
    assert [entry.proven for entry in entries] == sorted((e.proven for e in entries), reverse=True)
    assert entries[-1].host == MAPPED.host, "nor what only those outside can tell"


def test_what_the_user_advertises_leaves_room_for_the_default_routes() -> None:
    advertised = tuple(Address(f"203.0.113.{n}", 4000) for n in range(1, 7))
    bridges = [Address(f"172.{17 + n}.0.1", 4000) for n in range(8)]
    reflexive = at(LAN, Address("2001:db8::5", 4000), *bridges, advertised=advertised)
    hosts = [entry.host for entry in reflexive.entries()]
    assert hosts == [*(each.host for each in advertised), LAN.host, "2001:db8::5"]


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "::ffff:127.0.0.1", "fe80::7"])
def test_how_a_neighbour_on_this_machine_or_link_sees_us_helps_nobody_else(host: str) -> None:
    reflexive = at(LAN)
    for index in range(3):
        assert not reflexive.vote(peer(index), Address(host, 4000))
    assert [entry.host for entry in reflexive.entries()] == [LAN.host]
    assert [candidate.address for candidate in reflexive.candidates()] == [LAN]


PROVEN = AddressEntry(OTHER.host, OTHER.port, proven=True)
CLAIMED = AddressEntry(LAN.host, LAN.port, proven=False)
LOOPBACK = AddressEntry("127.0.0.1", 4000, proven=True)
HERE = Address("127.0.0.1", 5000)


def test_only_addresses_that_can_answer_are_dialled() -> None:
    near = at(Address("192.168.1.77", 4000))
    assert near.dialable([PROVEN, CLAIMED, LOOPBACK], claimed=False, mapped=False) == [OTHER]
    assert near.dialable([PROVEN, CLAIMED, LOOPBACK], claimed=True, mapped=True) == [OTHER, LAN]


def test_loopback_is_dialled_by_who_shares_an_address_with_the_peer() -> None:
    """Stated: whoever listened on loopback, too, dialled itself for five seconds."""
    there = [CLAIMED, AddressEntry("::1", 4000, proven=False)]
    listens_there_too = at(Address("192.168.1.77", 4000), Address("::1", 5000))
    assert listens_there_too.dialable(there, claimed=True, mapped=True) == [LAN]
    same_host = at(Address(LAN.host, 5000))
    assert same_host.dialable(there, claimed=False, mapped=False) == [Address("::1", 4000)]
    assert at(HERE).dialable([LOOPBACK], claimed=False, mapped=False) == [
        Address("127.0.0.1", 4000)
    ]
    assert at(LAN).dialable([LOOPBACK], claimed=True, mapped=True) == []


def test_nobody_dials_itself() -> None:
    """Two hosts with the same bridge and port: the peer's address there is our own."""
    bridge = Address("172.17.0.1", 4000)
    entries = [AddressEntry(*bridge, proven=True), PROVEN]
    assert at(LAN, bridge).dialable(entries, claimed=True, mapped=True) == [OTHER]


def test_an_invite_names_a_neighbour_by_what_its_reader_can_use() -> None:
    entries = [PROVEN, CLAIMED, LOOPBACK]
    assert at(LAN).worth_naming(entries) == [PROVEN]
    assert at(LAN, HERE).worth_naming([CLAIMED, LOOPBACK]) == [], "never by loopback alone"
    assert at(HERE, advertised=(OTHER,)).worth_naming([LOOPBACK]) == []
    assert at(HERE).worth_naming([CLAIMED, LOOPBACK]) == [LOOPBACK], "who reads it is here"
