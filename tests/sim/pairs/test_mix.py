"""The mix is as published, and what comes of pairs drawn from it is what arithmetic says."""

from collections import Counter
from dataclasses import replace

import pytest

from overlay.sim.network.nat.kinds import KINDS
from overlay.sim.pairs.mix import MEMBERS, MIX, counts, draw, outcomes, share
from overlay.sim.pairs.pair import Path, Why
from overlay.sim.pairs.reach import by_all_means, by_ice
from tests.lab.nat import mesh
from tests.lab.nat.mesh import MATRIX

PAIRS = 30


def test_the_mix_is_of_a_hundred_homes() -> None:
    assert sum(MIX.values()) == 100
    assert len({kind.name for kind in MIX}) == len(MIX)
    behind = sum(n for kind, n in MIX.items() if kind.name.startswith(("fixed", "mobile")))
    assert behind == 28


def test_by_arithmetic_ice_reaches_five_sixths_and_nothing_more_than_94_percent() -> None:
    assert share(by_ice) == pytest.approx(0.8324)
    assert share(by_all_means) == pytest.approx(0.9369)
    assert share(lambda a, b: a.udp and b.udp) == pytest.approx(0.97**2)


def test_the_arithmetic_knows_what_the_laboratory_expects() -> None:
    for a in MATRIX:
        for b in MATRIX:
            kinds = KINDS[a], KINDS[b]
            assert by_ice(*kinds) == mesh.by_ice(a, b), (a, b)
            assert by_all_means(*kinds) == (mesh.expected(a, b) == "direct"), (a, b)


def test_homes_are_drawn_as_often_as_they_are() -> None:
    drawn = Counter(kind.name for pair in draw(5000, 3) for kind in pair)
    for kind, percent in MIX.items():
        assert drawn[kind.name] == pytest.approx(100 * percent, abs=6 * (100 * percent) ** 0.5)
    assert list(draw(50, 3)) == list(draw(50, 3)) != list(draw(50, 4))


@pytest.mark.parametrize("seed", [1, 2])
def test_pairs_of_the_mix_come_to_what_arithmetic_says(seed: int) -> None:
    """One by one, not only as a sum: who is direct, who relayed, who has no UDP."""
    found = list(outcomes(range(PAIRS), seed))
    for (a, b), each in zip(draw(PAIRS, seed), found, strict=True):
        assert (each.a, each.b) == (a.name, b.name)
        if not (a.udp and b.udp):
            assert each.why is Why.NO_UDP
        else:
            assert each.path is (Path.DIRECT if by_all_means(a, b) else Path.RELAYED), each
    told = counts(found)
    assert told.pairs == told.direct + told.relayed + told.unreachable + told.no_udp == PAIRS
    assert told.unreachable == 0
    assert sum(told.techniques.values()) <= told.direct
    assert told.share == told.direct / PAIRS


def test_with_nothing_beyond_ice_each_pair_comes_to_what_ice_reaches() -> None:
    """The control of `nat-mix`: how far its share is from that of all pairs is the draw's doing."""
    alone = {"low_ttl": 0, "prediction": False, "birthday": False}
    found = list(outcomes(range(PAIRS), 1, replace(MEMBERS, settings=alone)))
    for (a, b), each in zip(draw(PAIRS, 1), found, strict=True):
        if a.udp and b.udp:
            assert each.path is (Path.DIRECT if by_ice(a, b) else Path.RELAYED), each
    assert set(counts(found).techniques) <= {"ice"}


def test_any_part_of_the_mix_can_be_tried_by_itself() -> None:
    whole = list(outcomes(range(4), 1))
    assert list(outcomes(range(2, 4), 1)) == whole[2:]
    assert [world.seconds for world in outcomes(range(2), 2)] != [whole[0].seconds] * 2
