"""Pair worlds come to what real homes of the same kinds come to."""

from collections import Counter

import pytest

from overlay.sim.network.nat.kinds import KINDS
from overlay.sim.pairs.pair import Path, Why, outcome
from tests.lab.nat import kinds as laboratory
from tests.lab.nat.mesh import PAIRS, expected


def test_the_kinds_are_the_laboratorys() -> None:
    assert list(KINDS) == list(laboratory.KINDS)
    for name, kind in KINDS.items():
        real = laboratory.KINDS[name]
        for term in ("mapping", "filtering", "ports", "is_nat", "accepts", "udp"):
            assert getattr(kind, term) == getattr(real, term), (name, term)
        assert (kind.carrier is not None) == bool(real.carriers)
        assert kind.timeout == laboratory.TIMEOUT


def agrees(a: str, b: str, seeds: range) -> None:
    """In so many worlds, whoever of the two asks for the other."""
    found = Counter(outcome(a, b, seed).path.value for seed in seeds[::2])
    found += Counter(outcome(b, a, seed).path.value for seed in seeds[1::2])
    if expected(a, b) == "either":
        assert found.keys() <= {"direct", "relayed"}
    else:
        assert found == {expected(a, b): len(seeds)}


@pytest.mark.parametrize(("a", "b"), PAIRS, ids="-".join)
def test_a_pair_comes_to_what_it_comes_to_in_the_laboratory(a: str, b: str) -> None:
    agrees(a, b, range(2))


def test_a_home_without_udp_is_nobodys_peer() -> None:
    found = outcome("no_udp", "public")
    assert (found.path, found.why) == (Path.NONE, Why.NO_UDP)
