"""The part of `make bench-nat` that needs no laboratory: what it finds, and what it says of it."""

import copy
from typing import Any

import pytest

from benchmarks.nat import mix


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    return mix.measure(24, seed=3, workers=1)


def test_every_pair_is_counted_once_and_the_control_is_of_the_same(found: dict[str, Any]) -> None:
    for told in (found["ours"], found["control"]):
        assert told["pairs"] == 24
        ways = ("direct", "relayed", "unreachable", "no_udp")
        assert sum(told[way] for way in ways) == 24
        assert told["share"] == pytest.approx(told["direct"] / 24, abs=1e-4)
    assert found["ours"]["no_udp"] == found["control"]["no_udp"]
    assert found["ours"]["direct"] >= found["control"]["direct"]


def test_several_processes_find_the_same(found: dict[str, Any]) -> None:
    assert mix.measure(24, seed=3, workers=2) == found


def test_the_page_tells_shares_rivals_and_what_arithmetic_says(found: dict[str, Any]) -> None:
    text = mix.page(found)
    for word in (
        "DCUtR",
        "70 ± 7.1 %",
        "iroh",
        "Tailscale",
        "83.2 %",
        "93.7 %",
        "port restricted 52",
    ):
        assert word in text, word
    assert f"{100 * found['ours']['share']:.1f} %" in text
    assert "DCUtR" not in mix.page({})


def test_what_is_not_as_it_must_be_is_named(found: dict[str, Any]) -> None:
    good = copy.deepcopy(found)
    good["ours"] |= {"share": 0.93, "unreachable": 0}
    good["control"] |= {"share": 0.83, "unreachable": 0}
    assert mix.missed(good) == []
    for name, key, value, word in (
        ("ours", "share", 0.9, "90.0 %"),
        ("control", "share", 0.79, "79.0 %"),
        ("control", "share", 0.87, "87.0 %"),
        ("ours", "unreachable", 2, "2 pairs"),
    ):
        bad = copy.deepcopy(good)
        bad[name][key] = value
        (said,) = mix.missed(bad)
        assert word in said
