"""What a world costs is measured size by size, and kept where programs and people look."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import report, world_cost
from benchmarks.cases import table, world

MEASURED: dict[str, Any] = {
    "nodes": 100_000,
    "joined": 100_000,
    "heard": 1.0,
    "answered": 999,
    "events": 50_000_000,
    "seconds": 1700.0,
    "cpu_seconds": 1600.0,
    "events_per_second": 31_250,
    "bytes_per_node": 80_000,
    "mib": 9000,
}


def test_a_small_world_is_measured_and_all_of_it_joins() -> None:
    measured = world_cost.measure(12)
    assert (measured["joined"], measured["heard"], measured["answered"]) == (12, 1.0, 1000)
    assert measured["events_per_second"] > 0
    assert set(measured["by_phase"]) == {"joins", "rest", "broadcasts", "requests"}
    assert world_cost.rows(measured) == [], "its size has no bar"


def test_a_world_that_takes_more_than_it_may_ends(capsys: pytest.CaptureFixture[str]) -> None:
    assert world_cost.main(["12", "--limit", "1"]) == 1
    assert "12 nodes: more than 1 MiB" in capsys.readouterr().err


def test_what_was_measured_is_kept_beside_the_other_sizes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = {"RESULTS": "results.json", "PAGE": "benchmarks.md", "CURVE": "simulation.md"}
    for name, file in kept.items():
        monkeypatch.setattr(world_cost, name, tmp_path / file)
    (tmp_path / "benchmarks.md").write_text(f"{report.BEGIN}\n{report.END}\n")
    page = f"before\n{world_cost.BEGIN}\n| nodes |\n|---|\n| 1,000 | as it was |\n{report.END}\n"
    (tmp_path / "simulation.md").write_text(page)
    world_cost.keep(MEASURED)
    lines = (tmp_path / "simulation.md").read_text().splitlines()
    assert lines[4] == "| 1,000 | as it was |"
    assert lines[5].startswith("| 100,000 | 31,250 | 500 | 1,600 | 80,000 | 9,000 |")
    rows = {row["name"]: row for row in json.loads((tmp_path / "results.json").read_text())}
    assert rows[world.SECONDS.name]["ok"]
    assert not rows[world.MEMORY.name]["ok"], "9,000 MiB are too many"
    world_cost.keep({**MEASURED, "nodes": 10_000})
    rows = {row["name"]: row for row in json.loads((tmp_path / "results.json").read_text())}
    assert list(rows) == [world.EVENTS.name, world.SECONDS.name, world.MEMORY.name]
    assert not rows[world.EVENTS.name]["ok"]


def test_the_rows_are_in_the_table_and_no_quick_run_measures_them() -> None:
    assert set(world.MEASURES) <= set(table.MEASURES)
    assert not set(world.MEASURES) & {each for case in table.CASES for each in case.measures}
