"""The check list: pairs, their order, and what happens when there is no room."""

import pytest

from overlay.core.addresses import candidate_priority
from overlay.core.ice.checklist import (
    MAX_BASES,
    MAX_PAIRS,
    MAX_REFLEXIVE,
    SPARE_UNTIL,
    CheckList,
    pair_priority,
    unicast,
)
from overlay.core.ice.states import PairState
from overlay.core.types import Address, Candidate, PathKind

OURS = Address("10.0.0.1", 5000)
SECOND = Address("10.0.0.9", 5000)
THEIRS = Address("10.0.0.2", 5000)


def host(address: Address, preference: int = 65_535) -> Candidate:
    return Candidate("host", address, candidate_priority("host", 65_535 - preference))


def listing(*candidates: Candidate, controlling: bool = True) -> CheckList:
    return CheckList(controlling, candidates)


def test_priorities_are_those_of_rfc_8445() -> None:
    assert candidate_priority("host") == 126 * 2**24 + 65_535 * 2**8 + 255
    assert candidate_priority("relay", 65_534) == 2**8 + 255
    assert pair_priority(5, 3) == 3 * 2**32 + 2 * 5 + 1
    assert pair_priority(3, 5) == 3 * 2**32 + 2 * 5


def test_both_sides_order_the_pairs_alike() -> None:
    a, b = [host(OURS, 9), host(SECOND, 1)], [host(THEIRS, 7), host(Address("10.0.0.3", 1), 3)]
    ours, theirs = listing(*a), listing(*b, controlling=False)
    for candidate in b:
        ours.add_remote(candidate)
    for candidate in a:
        theirs.add_remote(candidate)
    at_a = sorted(ours, key=lambda pair: pair.priority)
    at_b = sorted(theirs, key=lambda pair: pair.priority)
    assert [(p.local, p.remote, p.priority) for p in at_a] == [
        (p.remote, p.local, p.priority) for p in at_b
    ]
    ours.set_role(False)
    theirs.set_role(True)
    assert sorted(p.priority for p in ours) == sorted(p.priority for p in theirs)


def test_candidates_that_share_a_base_make_one_pair() -> None:
    mapped = Candidate("srflx", Address("198.51.100.1", 9), candidate_priority("srflx"), "s", OURS)
    check_list = listing(mapped, host(OURS))
    check_list.add_remote(host(THEIRS))
    check_list.add_remote(host(THEIRS, 3))
    (pair,) = check_list
    assert (pair.local, pair.local_priority) == (OURS, candidate_priority("host"))
    assert pair.prflx_priority >> 24 == 110
    assert pair.prflx_priority & 0xFFFFFF == candidate_priority("host") & 0xFFFFFF


def test_our_bases_are_bounded() -> None:
    many = [host(Address("10.0.0.1", port), port) for port in range(1, 100)]
    check_list = listing(*many)
    assert [base.priority for base in check_list.bases] == [
        candidate.priority for candidate in many[::-1][:MAX_BASES]
    ]


def test_a_candidate_learnt_from_a_check_becomes_what_it_is_signalled_as() -> None:
    check_list = listing(host(OURS))
    pair = check_list.learn(OURS, THEIRS, 77)
    assert pair is not None
    assert (pair.remote_candidate.kind, pair.remote_candidate.priority) == ("prflx", 77)
    before = pair.priority
    check_list.add_remote(host(THEIRS))
    assert list(check_list) == [pair]
    assert pair.remote_candidate.kind == "host"
    assert pair.priority > before
    assert check_list.learn(OURS, THEIRS, 78) is pair


def test_addresses_learnt_from_checks_make_room_for_each_other() -> None:
    check_list = listing(host(OURS))
    sources = [Address("203.0.113.1", port) for port in range(1, MAX_REFLEXIVE + 5)]
    first = check_list.learn(OURS, sources[0], 5)
    assert first is not None
    first.state = PairState.SUCCEEDED
    for source in sources[1:]:
        assert check_list.learn(OURS, source, 5) is not None
    kept = [pair.remote for pair in check_list]
    assert len(kept) == MAX_REFLEXIVE
    assert kept[0] == sources[0], "what works is not pushed out"
    assert kept[1:] == sources[-MAX_REFLEXIVE + 1 :], "the oldest of the others are"
    for pair in check_list:
        pair.state = PairState.SUCCEEDED
    assert check_list.learn(OURS, THEIRS, 5) is None


def test_each_remote_candidate_has_a_check_before_any_has_a_second() -> None:
    check_list = listing(*(host(Address("10.0.0.1", 5000 + n), n + 1) for n in range(MAX_BASES)))
    remotes = [host(Address("10.0.1.1", 1 + n), 100 + n) for n in range(7)]
    mapped = Candidate("srflx", Address("203.0.113.1", 9), candidate_priority("srflx"))
    for candidate in [*remotes, mapped]:
        check_list.add_remote(candidate)
    assert len(check_list) == MAX_PAIRS
    checked = list[Address]()
    while (pair := check_list.next_waiting()) is not None:
        checked.append(pair.remote)
        pair.state = PairState.IN_PROGRESS
    best_first = [each.address for each in sorted(remotes, key=lambda each: -each.priority)]
    assert checked[:8] == [*best_first, mapped.address]
    assert checked[8:16] == checked[:8]


def test_addresses_on_one_link_are_spared_for_when_the_best_of_them_comes_to_nothing() -> None:
    """Through a router that keeps ports two of them would get different ones (hard cases)."""
    ours = [Address(f"192.168.1.{n}", 5000) for n in (10, 11, 12)]
    elsewhere = Address("10.7.0.1", 5000)
    check_list = listing(*(host(each, 200 - n) for n, each in enumerate([*ours, elsewhere])))
    check_list.add_remote(host(THEIRS))
    first, *_ = check_list.waiting()
    assert [pair.local for pair in check_list.waiting()] == [ours[0], elsewhere]
    first.state, first.sends = PairState.IN_PROGRESS, SPARE_UNTIL - 1
    assert [pair.local for pair in check_list.waiting()] == [elsewhere]
    first.sends += 1
    assert [pair.local for pair in check_list.waiting()] == [*ours[1:], elsewhere]
    first.state = PairState.SUCCEEDED
    assert [pair.local for pair in check_list.waiting()] == [elsewhere]


def test_nobody_waits_for_what_is_kept_back() -> None:
    ours = [Address(f"192.168.1.{n}", 5000) for n in (10, 11)]
    remotes = Address("10.0.0.2", 5000), Address("203.0.113.1", 5000)
    check_list = listing(*(host(each, 200 - n) for n, each in enumerate(ours)))
    for n, remote in enumerate(remotes):
        check_list.add_remote(host(remote, 100 - n))
    first, second = check_list.waiting()
    first.state, second.state = PairState.IN_PROGRESS, PairState.SUCCEEDED
    first.checked_at = 3.0
    assert check_list.better_asked_at(second, now=5.0) == 3.0
    first.state = PairState.FAILED
    assert [(pair.local, pair.remote) for pair in check_list.waiting()] == [(ours[1], remotes[0])]


def test_on_their_own_link_all_our_addresses_are_checked() -> None:
    ours = [Address(f"192.168.1.{n}", 5000) for n in (10, 11)]
    check_list = listing(*(host(each, 200 - n) for n, each in enumerate(ours)))
    check_list.add_remote(host(Address("192.168.1.99", 5000)))
    assert [pair.local for pair in check_list.waiting()] == ours


def test_a_full_list_drops_its_worst_idle_pair_for_a_better_one() -> None:
    bases = [host(Address("10.0.0.1", 5000 + n)) for n in range(8)]
    check_list = listing(*bases)
    for n in range(8):
        check_list.add_remote(host(Address("10.0.1.1", 1 + n), 100 + n))
    ways = [(base.address, Address("203.0.113.1", 1 + n)) for n in range(8) for base in bases]
    for local, remote in ways[: MAX_PAIRS - 64]:
        assert check_list.learn(local, remote, 50) is not None
    assert len(check_list) == MAX_PAIRS
    local, remote = ways[-1]
    assert check_list.learn(local, remote, 50) is None, "it is no better than the worst"
    signalled = host(Address("10.0.1.1", 1), 100)
    worst = max(check_list, key=lambda pair: pair.order)
    assert check_list.learn(Address("10.0.0.77", 1), signalled.address, 1) is not None
    assert len(check_list) == MAX_PAIRS
    assert worst not in list(check_list)
    for pair in check_list:
        pair.state = PairState.IN_PROGRESS
    late = Address("10.0.0.78", 1)
    assert check_list.learn(late, signalled.address, 1) is None, "nothing under way is dropped"


def test_a_datagram_finds_its_pair_with_and_without_a_local_address() -> None:
    check_list = listing(host(OURS), host(SECOND))
    check_list.add_remote(host(THEIRS))
    first, second = check_list
    assert check_list.find(OURS, THEIRS) is first
    assert check_list.find(SECOND, THEIRS) is second
    assert check_list.find(None, THEIRS) is first
    assert check_list.find(OURS, OURS) is None
    assert check_list.find(Address("10.0.0.77", 1), THEIRS) is None
    # An interface that came up after the candidates were gathered.
    late = check_list.learn(Address("10.0.0.77", 1), THEIRS, 1)
    assert late is not None
    assert late.local == Address("10.0.0.77", 1)


def test_the_ways_around_a_dead_path_are_our_other_bases_and_the_kernels_choice() -> None:
    check_list = listing(host(OURS), host(SECOND), host(Address("::1", 5)))
    check_list.add_remote(host(THEIRS))
    selected = next(iter(check_list))
    check_list.keep_only(selected)
    others = check_list.alternatives_to(selected)
    assert [pair.local for pair in others] == [SECOND, None]
    assert {pair.remote for pair in others} == {THEIRS}
    assert check_list.alternatives_to(selected) == others, "and no more of them each time"


def test_many_addresses_do_not_put_the_kernels_choice_off() -> None:
    check_list = listing(*(host(Address("10.0.0.1", 5000 + n)) for n in range(MAX_BASES)))
    check_list.add_remote(host(THEIRS))
    selected = next(iter(check_list))
    check_list.keep_only(selected)
    others = check_list.alternatives_to(selected)
    assert len(others) == MAX_BASES
    assert others[1].local is None


@pytest.mark.parametrize(
    ("kind", "mapped", "path"),
    [
        ("host", OURS, PathKind.HOST),
        ("host", SECOND, PathKind.HOST),
        ("host", Address("198.51.100.1", 7), PathKind.REFLEXIVE),
        ("prflx", OURS, PathKind.REFLEXIVE),
        ("srflx", OURS, PathKind.REFLEXIVE),
        ("relay", OURS, PathKind.RELAYED),
    ],
)
def test_a_path_is_what_both_its_ends_are(kind: str, mapped: Address, path: PathKind) -> None:
    check_list = listing(host(OURS), host(SECOND))
    check_list.add_remote(Candidate(kind, THEIRS, 5))
    pair = next(iter(check_list))
    pair.mapped = mapped
    assert check_list.kind_of(pair) is path


@pytest.mark.parametrize(
    ("given", "canonical"),
    [
        (("2001:DB8:0::1", 5), ("2001:db8::1", 5)),
        (("10.0.0.1", 65_535), ("10.0.0.1", 65_535)),
        (("10.0.0.01", 5), None),
        (("10.0.0.1", 0), None),
        (("10.0.0.1", 65_536), None),
        (("239.1.2.3", 5), None),
        (("255.255.255.255", 5), None),
        (("fe80::1%eth0", 5), None),
        (("localhost", 5), None),
        (("", 5), None),
    ],
)
def test_only_unicast_addresses_are_checked(
    given: tuple[str, int], canonical: tuple[str, int] | None
) -> None:
    assert unicast(Address(*given)) == (None if canonical is None else Address(*canonical))
