"""Pair worlds come to what real homes of the same kinds come to."""

from collections import Counter
from dataclasses import replace

import pytest

from overlay.core.types import Address
from overlay.sim.network.nat.kinds import KINDS
from overlay.sim.pairs.pair import Options, Outcome, PairWorld, Path, Why, outcome
from tests.lab.nat import kinds as laboratory
from tests.lab.nat.mesh import MATRIX, PAIRS, expected, technique

CHECKED = 4
"""So many of them with every claim of the core asserted at every step."""
IDS = [f"{a}-{b}" for a, b in PAIRS]
KNOWN = Options(acquainted=8.0)
SOON = 5.0
ICE_ALONE = {"low_ttl": 0, "prediction": False, "birthday": False}


def test_the_kinds_are_the_laboratorys() -> None:
    assert list(KINDS) == list(laboratory.KINDS)
    for name, kind in KINDS.items():
        real = laboratory.KINDS[name]
        for term in ("name", "mapping", "filtering", "ports", "is_nat", "accepts", "udp"):
            assert getattr(kind, term) == getattr(real, term), (name, term)
        assert (kind.carrier is not None) == bool(real.carriers)
        assert kind.timeout == laboratory.TIMEOUT
        if kind.carrier is not None:
            assert kind.carrier.timeout == laboratory.TIMEOUT


@pytest.mark.parametrize("name", MATRIX)
@pytest.mark.parametrize("hairpin", [False, True])
def test_a_node_finds_its_nat_to_be_of_the_kind_that_it_is(name: str, hairpin: bool) -> None:
    """As in the laboratory: the examination that ships is held against the construction."""
    kind = replace(KINDS[name], hairpin=hairpin)
    pair = PairWorld(kind, "public", 1, Options(acquainted=20.0))
    assert pair.gather() is None
    found = pair.a.core.behaviour()
    assert (found.mapping, found.filtering, found.ports) == (
        kind.mapping,
        kind.filtering,
        kind.ports,
    )
    # Who has another mapping for everybody has none of its own to send to; in front of a carrier's
    # NAT it is that one that would have to turn round.
    asked = kind.is_nat and kind.mapping is KINDS["public"].mapping
    assert found.hairpin == (hairpin and kind.carrier is None if asked else None)


@pytest.mark.parametrize("worlds", [4, pytest.param(20, marks=pytest.mark.soak)])
@pytest.mark.parametrize(("a", "b"), PAIRS, ids=IDS)
def test_twenty_worlds_of_a_pair_agree_with_the_laboratory(a: str, b: str, worlds: int) -> None:
    """By turns each of the two asks, as a stranger or with both NATs known; four worlds are all
    four ways."""
    found = list[Outcome]()
    for seed in range(worlds):
        ends = (a, b) if seed % 2 else (b, a)
        options = KNOWN if seed % 4 > 1 else Options(checked=seed < CHECKED)
        found.append(outcome(*ends, seed, options))
    told = Counter(each.path.value for each in found)
    assert told == {expected(a, b): worlds}, told
    if technique(a, b):
        assert {each.technique for each in found} == {technique(a, b)}
        assert max(each.direct_after or 0.0 for each in found) < SOON


# --- what decides --------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_a_symmetric_nat_is_what_keeps_a_pair_relayed(seed: int) -> None:
    """The counter-test: the same home with a mapping for everybody is direct."""
    symmetric = KINDS["symmetric_random"]
    cone = replace(symmetric, mapping=KINDS["port_restricted"].mapping)
    alone = Options(settings=ICE_ALONE)
    assert outcome("port_restricted", symmetric, seed, alone).path is Path.RELAYED
    assert outcome("port_restricted", cone, seed, alone).path is Path.DIRECT


@pytest.mark.parametrize("seed", range(3))
def test_who_comes_first_decides_where_a_router_takes_early_packets(seed: int) -> None:
    """The answerer sends first: into a filter that drops it, or a router that remembers it."""
    steady = Options(patience=3.0, settings=ICE_ALONE)
    assert outcome("port_restricted", "open_input", seed, steady).path is Path.DIRECT
    assert outcome("open_input", "port_restricted", seed, steady).path is Path.RELAYED
    shut = replace(KINDS["open_input"], accepts=False)
    assert outcome(shut, "port_restricted", seed, steady).path is Path.DIRECT


@pytest.mark.parametrize("hairpin", [False, True])
def test_two_homes_of_one_carrier_meet_only_if_it_turns_round(hairpin: bool) -> None:
    carrier = replace(KINDS["port_restricted"], hairpin=hairpin)
    found = outcome("port_restricted", "port_restricted", 0, Options(shared=carrier, patience=3.0))
    assert found.path is (Path.DIRECT if hairpin else Path.RELAYED)


@pytest.mark.parametrize("foreign", [0.0, 3.0])
def test_foreign_flows_take_the_numbers_of_a_sequential_nat(foreign: float) -> None:
    """Nothing else: the pair comes to the same."""
    pair = PairWorld("symmetric_sequential", "full_cone", 4, Options(foreign=foreign))
    assert pair.gather() is None
    assert pair.connect().path is Path.DIRECT
    pair.world.run_for(100.0)
    ports = list[int]()
    for number in (1, 2):
        way = pair.homes.outward(pair.a.address, Address("9.9.9.9", number), 64)
        assert way is not None
        ports.append(way[0].port)
        pair.world.run_for(1.0)
    assert (ports[1] - ports[0] == 1) == (not foreign)
    assert ports[1] - ports[0] < 5 * (1 + 10 * foreign)


def test_without_circuits_nothing_is_left_for_such_a_pair() -> None:
    options = replace(KNOWN, settings={"circuits": False})
    found = outcome("port_restricted", "symmetric_random", 0, options)
    assert (found.path, found.why) == (Path.NONE, Why.REJECTED)
    assert "both NATs" in found.text


@pytest.mark.parametrize("kinds", [("no_udp", "public"), ("port_restricted", "no_udp")])
def test_a_home_without_udp_is_nobodys_peer(kinds: tuple[str, str]) -> None:
    found = outcome(*kinds)
    assert (found.path, found.why, found.technique) == (Path.NONE, Why.NO_UDP, None)
    assert found.text


# --- what an outcome says ------------------------------------------------------------------------


def test_an_outcome_says_how_and_how_soon() -> None:
    found = outcome("full_cone", "port_restricted", 3)
    assert (found.a, found.b, found.path) == ("full_cone", "port_restricted", Path.DIRECT)
    assert found.technique in ("ice", "low-ttl")
    assert found.why is None
    assert found.direct_after is not None
    assert 0.02 < found.seconds <= found.direct_after < 1.0


def test_an_outcome_says_why_a_pair_is_relayed() -> None:
    """What both NATs are, once they are known; until then that it was tried."""
    ends = "symmetric_sequential", "port_restricted"
    options = (replace(each, settings=ICE_ALONE) for each in (KNOWN, Options()))
    known, strangers = (outcome(*ends, 3, each) for each in options)
    assert known.path is strangers.path is Path.RELAYED
    assert (known.why, strangers.why) == (Why.NATS, Why.SEARCHED)
    assert "the peer's" in known.text
    assert not strangers.text
    assert strangers.direct_after is None


def test_the_same_seed_gives_the_same_outcome() -> None:
    ends = "address_restricted", "symmetric_random"
    assert outcome(*ends, 5) == outcome(*ends, 5)
    assert outcome(*ends, 5).seconds != outcome(*ends, 6).seconds


def test_a_test_may_do_to_a_pair_world_what_it_likes() -> None:
    """Here the second home gets another address just after the first has asked for it."""
    pair = PairWorld("port_restricted", "port_restricted", 2)
    assert pair.gather() is None
    before = pair.at[1].outer
    pair.world.after(0.01, pair.at[1].move)
    assert pair.connect().path is not Path.NONE
    assert pair.at[1].outer != before
    mapped = Address(pair.at[1].outer, 4000)
    pair.world.run_for(60.0)
    view = pair.view()
    assert view is not None
    assert view.remote == mapped
