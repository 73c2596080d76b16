"""How runs become a verdict."""

from collections.abc import Callable

import pytest

from benchmarks.measure import Bar, Case, Figures, Measure, Runs, in_turn, results

AT_MOST_HALF = Bar(0.5, of_ratio=True)


def measure(bar: Bar, *, worst: bool = False) -> Measure:
    return Measure("dial", "a dial", "ms", bar, worst=worst)


def case(ours: Callable[[], Figures], rival: Callable[[], Figures] | None, bar: Bar) -> Case:
    return Case("dial", (measure(bar),), ours, rival)


def judged(ours: list[float], rival: list[float], bar: Bar, *, worst: bool = False) -> bool:
    runs = Runs([{"dial": each} for each in ours], [{"dial": each} for each in rival])
    only = Case("dial", (measure(bar, worst=worst),), dict, None)
    return results(only, runs)[0].ok


def test_ours_and_the_rivals_runs_take_turns() -> None:
    order: list[str] = []

    def run(who: str) -> Figures:
        order.append(who)
        return {"dial": 1.0}

    in_turn(case(lambda: run("ours"), lambda: run("rival"), AT_MOST_HALF), 3, lambda line: None)
    assert order == ["ours", "rival"] * 3


def test_a_slow_rival_that_no_bar_needs_runs_less_often() -> None:
    seldom = Case("dial", (measure(Bar(1.0)),), dict, dict, rival_runs=2)
    done = in_turn(seldom, 3, lambda line: None)
    assert (len(done.ours), len(done.rival)) == (3, 2)


def test_the_median_of_each_side_makes_the_ratio() -> None:
    runs = Runs([{"dial": x} for x in (1, 2, 90)], [{"dial": x} for x in (8, 10, 1000)])
    result = results(case(dict, dict, AT_MOST_HALF), runs)[0]
    assert (result.value, result.baseline, result.ratio, result.ok) == (2, 10, 0.2, True)


@pytest.mark.parametrize(
    ("ours", "rival", "bar", "ok"),
    [
        ([1.0], [2.0], AT_MOST_HALF, True),
        ([1.1], [2.0], AT_MOST_HALF, False),
        ([5.0], [4.0], Bar(1, at_most=False, of_ratio=True), True),
        ([3.9], [4.0], Bar(1, at_most=False, of_ratio=True), False),
        ([1.5], [], Bar(1.5), True),
        ([1.6], [], Bar(1.5), False),
        ([0.0], [0.0], Bar(0), True),
    ],
)
def test_a_bar_is_met_on_its_own_side_only(
    ours: list[float], rival: list[float], bar: Bar, ok: bool
) -> None:
    assert judged(ours, rival, bar) is ok


@pytest.mark.parametrize("bar", [Bar(1000), AT_MOST_HALF, Bar(0, at_most=False)])
def test_a_missing_figure_meets_no_bar(bar: Bar) -> None:
    assert judged([], [], bar) is False


def test_a_missing_rival_meets_no_bar_on_the_ratio() -> None:
    assert judged([0.0], [], AT_MOST_HALF) is False


def test_a_promise_about_every_run_is_judged_by_the_worst() -> None:
    gaps = [0.01, 0.01, 0.01, 0.01, 0.3]
    assert judged(gaps, [], Bar(0.2)) is True, "the median would hide it"
    assert judged(gaps, [], Bar(0.2), worst=True) is False
