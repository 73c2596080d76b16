"""``python -m benchmarks`` as `make bench` and a developer use it."""

import pytest

from benchmarks import __main__ as command
from benchmarks import network
from benchmarks.cases import table
from benchmarks.measure import Bar, Case, Measure


def fake(name: str, value: float) -> Case:
    measure = Measure(name, name, "s", Bar(1.0))
    return Case(name, (measure,), lambda: {name: value})


def broken() -> Case:
    def ours() -> dict[str, float]:
        raise RuntimeError("nothing works")

    return Case("broken", (Measure("broken", "broken", "s", Bar(1.0)),), ours)


def run(monkeypatch: pytest.MonkeyPatch, *cases: Case) -> int:
    monkeypatch.setattr(table, "CASES", cases)
    monkeypatch.setattr(table, "MEASURES", [m for case in cases for m in case.measures])
    monkeypatch.setattr(network, "inside", lambda: True)
    return command.main(["--dry", "--runs", "1"])


def test_every_bar_met_is_success(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(monkeypatch, fake("one", 0.5), fake("two", 1.0)) == 0


def test_one_miss_is_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(monkeypatch, fake("one", 0.5), fake("two", 1.1)) == 1


def test_a_row_that_breaks_is_a_miss_and_the_rest_still_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, broken(), fake("two", 0.5)) == 1
    assert "| `two` | two | 0.5 s |" in capsys.readouterr().out


def test_an_unknown_row_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--only", "nonesuch"]) == 2
    assert "--list" in capsys.readouterr().out


def test_rows_are_found_by_case_and_by_measure() -> None:
    assert command.main(["--list"]) == 0
    for case in table.CASES:
        for name in (case.name, *(measure.name for measure in case.measures)):
            assert case in command._chosen([name])


def test_every_row_has_its_own_name() -> None:
    names = [measure.name for measure in table.MEASURES]
    assert len(names) == len(set(names))
