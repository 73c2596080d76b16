"""The published experiments: what is kept of a run, and how its line reads."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from benchmarks import curves, simulations
from benchmarks.report import END
from benchmarks.simulations import (
    BEGIN,
    CURVES,
    CYCLES,
    PAGE,
    PRODUCT,
    RESULTS,
    SCENARIOS,
    Experiment,
    alike,
    as_shipped,
    line_of,
    main,
    merged,
    rows_in,
)
from overlay.errors import ConfigError
from overlay.sim.scenario.profiles import setting
from overlay.sim.scenario.reading import find, load
from overlay.sim.scenario.running import run
from overlay.sim.scenario.scenario import Scenario

MEASURES = {
    "hops": {"value": 9.5, "band": [8, 10], "ok": True},
    "path": {"value": 7.0, "band": [6.3, 6.45], "ok": False},
    "joined": {"value": 1.0, "band": None, "ok": None},
}


def row(name: str, *, ok: bool = True, bands_apply: bool = True, **more: Any) -> simulations.Row:
    told = {"scenario": name, "profile": "paper", "nodes": 10_000, "measures": MEASURES, "ok": ok}
    return {**told, "seconds": 1234, "bands_apply": bands_apply, **more}


def test_a_line_shows_what_has_a_band_and_names_a_miss() -> None:
    line = line_of(row("plumtree-hops", ok=False))
    assert line.startswith(
        "| `plumtree-hops` | paper | 10,000 | hops 9.5 links (8 to 10); **path 7 links (6.3"
    )
    assert line.endswith("| 1,234 s | **no** |")
    assert "joined" not in line


def test_bands_of_a_paper_say_nothing_of_what_ships() -> None:
    line = line_of(row("plumtree-hops", ok=False, bands_apply=False))
    assert "hops 9.5 links; path 7 links |" in line
    assert "**" not in line


def test_a_newer_run_takes_the_place_of_the_older() -> None:
    old = [row("join-burst"), row("plumtree-hops", bands_apply=False), row("plumtree-hops")]
    rows = merged(old, row("join-burst", seconds=5))
    assert [(each["scenario"], each["bands_apply"]) for each in rows] == [
        ("plumtree-hops", True),
        ("plumtree-hops", False),
        ("join-burst", True),
    ]
    assert rows[-1]["seconds"] == 5


SMALL = """
nodes = 6
duration = 30.0
liveness = 0.0
profile = "paper"
cycle = 100.0

[join]
every = 0.5

[[publish]]
start = 20.0
stop = 25.0
within = 2.0

[bands]
reliability = [LOW, 1.0]
"""


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two scenarios that begin alike, the second one with a band that it misses; the results."""
    page, results = tmp_path / "page.md", tmp_path / "results.json"
    page.write_text(f"{BEGIN}\n{END}\n{CURVES}\n{END}\n")
    for name, low in (("hyparview-table1", "1.0"), ("plumtree-table1", "1.1")):
        text = SMALL.replace("LOW, 1.0", f"{low}, 1.2")
        (tmp_path / f"{name}.toml").write_text(text)
    monkeypatch.setattr(simulations, "find", lambda name: tmp_path / f"{name}.toml")
    monkeypatch.setattr(simulations, "PAGE", page)
    monkeypatch.setattr(simulations, "RESULTS", results)
    return results


def test_each_run_is_kept_when_it_is_done(small: Path) -> None:
    assert main(["hyparview-table1", "--paper-only"]) == 0
    assert main(["plumtree-table1", "--paper-only"]) == 1, "a missed band"
    (small.parent / "join-burst.toml").write_text(SMALL.replace("nodes = 6", "nodes = 7"))
    with pytest.raises(ConfigError):
        main(["join-burst", "--paper-only"])
    assert [each["scenario"] for each in rows_in(small)] == ["hyparview-table1", "plumtree-table1"]
    assert "| `plumtree-table1` | paper |" in simulations.PAGE.read_text()


def test_those_that_begin_alike_grow_once_and_end_as_alone(small: Path) -> None:
    names = ["hyparview-table1", "plumtree-table1"]
    assert (
        len(alike([Experiment(name, load(small.parent / f"{name}.toml")) for name in names])) == 1
    )
    assert main([*names, "--paper-only"]) == 1, "one of them misses its band"
    together = {row["scenario"]: row["trace_hash"] for row in rows_in(small)}
    for name in names:
        main([name, "--paper-only"])
    assert {row["scenario"]: row["trace_hash"] for row in rows_in(small)} == together


@pytest.mark.parametrize("name", PRODUCT)
def test_what_ships_gets_as_many_cycles_of_its_own(name: str) -> None:
    paper, shipped = load(find(name)), as_shipped(name).scenario
    cycle = setting(shipped, "shuffle_interval")
    assert (shipped.profile, cycle) == (
        "product",
        setting(Scenario(nodes=1, duration=1), "shuffle_interval"),
    )
    joined = paper.nodes * paper.join.every
    assert paper.cycle is not None
    for one, other in zip(paper.publish, shipped.publish, strict=True):
        assert other.start - joined - CYCLES * cycle == one.start - joined - CYCLES * paper.cycle
    assert shipped.duration < paper.duration


def test_what_ships_runs_with_as_many_nodes_as_one_says() -> None:
    assert as_shipped("hyparview-table1", 7).scenario.nodes == 7


def test_a_run_with_fewer_nodes_says_so(small: Path) -> None:
    few = msgspec.structs.replace(load(small.parent / "hyparview-table1.toml"), nodes=3)
    row = json.loads(simulations._measured(Experiment("hyparview-table1", few), run, 0.0))
    assert (row["nodes"], row["full_size"]) == (3, False)


def test_a_name_that_is_none_of_them_is_refused() -> None:
    with pytest.raises(SystemExit) as ended:
        main(["join-bursts"])
    assert ended.value.code == 2


def test_the_page_shows_the_runs_that_lie_beside_it() -> None:
    rows = rows_in(RESULTS)
    assert {each["scenario"] for each in rows} <= set(SCENARIOS)
    assert f"{BEGIN}\n{simulations.table(rows)}\n{END}" in PAGE.read_text()
    for picture in curves.pictures(rows):
        assert f"(curves/{picture.name}.png)" in PAGE.read_text()
        assert (PAGE.parent / "curves" / f"{picture.name}.png").exists()
