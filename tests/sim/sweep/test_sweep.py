"""Sweeps without their workers: what is planned, what is kept, what it comes to."""

import copy
import json
import os
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest

from overlay.errors import ConfigError, UsageError
from overlay.sim.report import plots
from overlay.sim.sweep import summary
from overlay.sim.sweep.results_file import Result, Results
from overlay.sim.sweep.sweep import Cell, Sweep, SweepFile, load
from overlay.tables import keys

ROOT = Path(__file__).resolve().parents[3]
SMALL = """
nodes = 6
duration = 40.0
[[requests]]
start = 10.0
stop = 20.0
[bands]
degree = [1.0, 5.0]
[[published]]
name = "others"
source = "Somebody 2008"
measures = ["degree"]
along = "network.loss"
x = [0.0, 0.5]
values = [5.0, 2.0]
"""
LOSSES = """
about = "what loss costs"
scenario = "small.toml"
seeds = [1, 2]
[set]
nodes = 8
[sweep]
"network.loss" = [0.0, 0.1]
profile = ["product", "paper"]
"""


@pytest.fixture
def losses(tmp_path: Path) -> Path:
    (tmp_path / "small.toml").write_text(SMALL)
    path = tmp_path / "losses.toml"
    path.write_text(LOSSES)
    return path


def result(cell: Cell, **changes: Any) -> Result:
    measures = {"degree": {"value": 4.0 + cell.scenario.seed}, "success": {"value": None}}
    about = {"seed": cell.scenario.seed, "ok": True, "failure": None}
    return {**about, "measures": measures, "events": 7, "trace_hash": "ab", **changes}


def everything(sweep: Sweep) -> dict[str, Result]:
    return {cell.key: result(cell) for cell in sweep.cells}


# --- what is planned -----------------------------------------------------------------------------


def test_every_combination_runs_with_every_seed_in_the_order_of_the_file(losses: Path) -> None:
    sweep = load(losses, "1.0")
    cells = [(*(value for _, value in cell.axes), cell.scenario.seed) for cell in sweep.cells]
    assert cells == [
        (loss, profile, seed)
        for loss in (0.0, 0.1)
        for profile in ("product", "paper")
        for seed in (1, 2)
    ]
    for cell in sweep.cells:
        assert cell.scenario.nodes == 8
        assert dict(cell.axes) == {
            "network.loss": cell.scenario.network.loss,
            "profile": cell.scenario.profile,
        }
    assert (sweep.name, sweep.base, sweep.full_size) == ("losses", "small", 6)
    assert sweep.measures == ["degree"], "what has a band"


def test_dotted_keys_reach_every_table_quoted_or_not(losses: Path) -> None:
    losses.write_text('scenario = "first-mesh"\n[sweep]\nfaults.0.share = [0.1, 0.2]\n')
    shares = [cell.scenario.faults[0].share for cell in load(losses, "1.0").cells]
    assert shares == [0.1, 0.2]


def test_a_scenario_may_stand_in_the_file_itself(losses: Path) -> None:
    losses.write_text("seeds = [5]\n[scenario]\nnodes = 3\nduration = 20.0\n")
    (cell,) = load(losses, "1.0").cells
    assert (cell.scenario.nodes, cell.scenario.seed, cell.axes) == (3, 5, ())
    assert cell.command == ""


def test_a_cell_has_the_same_key_as_long_as_it_would_come_to_the_same(losses: Path) -> None:
    def found() -> list[str]:
        return [cell.key for cell in load(losses, "1.0").cells]

    before = found()
    assert len(set(before)) == 8
    small = losses.parent / "small.toml"
    small.write_text(f'about = "told otherwise"\n{SMALL}')
    assert found() == before
    small.write_text(SMALL.replace("20.0", "21.0"))
    assert not set(found()) & set(before)
    small.write_text(SMALL)
    assert not {cell.key for cell in load(losses, "1.1").cells} & set(before), "another overlay"
    losses.write_text(LOSSES.replace("0.1]", "0.1, 0.2]"))
    assert found()[:8] == before, "more values: what there was stays"


def test_the_command_of_a_cell_runs_the_same_scenario(losses: Path) -> None:
    from overlay.sim.scenario.reading import assignments
    from overlay.sim.scenario.reading import load as load_scenario

    for cell in load(losses, "1.0").cells:
        _, _, _, path, _, seed, *settings = shlex.split(cell.command)
        texts = [text for text in settings if text != "--set"]
        chosen = {**assignments(texts), "seed": ("--seed", int(seed))}
        assert load_scenario(Path(path), chosen) == cell.scenario


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("[set]", "[sett]", "losses.toml: sett: no such key (did you mean set?)"),
        ("small.toml", "smal.toml", "losses.toml: scenario: "),
        ("small.toml", "first-mess", "no scenario is named first-mess (did you mean first-mesh?)"),
        ('"small.toml"', "3", "losses.toml: scenario: expected a name, a FILE.toml, or a table"),
        ("[1, 2]", "[1, -2]", "losses.toml: seeds: expected whole numbers from 0"),
        ("[1, 2]", "[1, 1]", "losses.toml: seeds: expected each value once, not 1 twice"),
        ("[1, 2]", "3", "losses.toml: seeds: expected whole numbers from 0, not 3"),
        ("network.loss", "network.los", "losses.toml: sweep: network.los: no such key"),
        ("0.1]", "-0.1]", "losses.toml: sweep: network.loss: expected a number from 0 to 0.9"),
        ("0.1]", "0.0]", "losses.toml: sweep.network.loss: expected each value once, not 0.0"),
        ("[0.0, 0.1]", "[]", "losses.toml: sweep.network.loss: expected a list of one value"),
        ("[0.0, 0.1]", "0.1", "losses.toml: sweep.network.loss: expected a list of one value"),
        ('"paper"', '"fast"', "losses.toml: sweep: profile: expected product or paper"),
        ("profile =", "nodes =", "losses.toml: sweep.nodes: is in [set] too"),
        ("profile =", "seed =", "losses.toml: sweep.seed: expected the seeds under `seeds`"),
        ("nodes = 8", "seed = 8", "losses.toml: set.seed: expected the seeds under `seeds`"),
        ("nodes = 8", "nodes = 0", "losses.toml: set: nodes: expected a whole number"),
        ("nodes = 8", "nodes = 800", "losses.toml: with nodes = 800, network.loss = 0.0, "),
        ("[set]", 'measures = ["degre"]\n[set]', "measures: no such measure: degre"),
        ("[set]", "[set", "losses.toml: is not valid TOML"),
    ],
)
def test_a_mistake_is_one_line_that_names_file_and_key(
    losses: Path, old: str, new: str, said: str
) -> None:
    assert old in LOSSES
    losses.write_text(LOSSES.replace(old, new))
    with pytest.raises(ConfigError) as caught:
        load(losses, "1.0")
    text = str(caught.value)
    assert said in text
    assert "\n" not in text
    assert text.startswith(str(losses))


def test_a_mistake_in_the_scenario_names_the_scenario(losses: Path) -> None:
    (losses.parent / "small.toml").write_text(SMALL.replace("duration", "durations"))
    with pytest.raises(ConfigError, match=r"small\.toml: durations: no such key"):
        load(losses, "1.0")


def test_a_sweep_of_a_slipped_finger_is_not_begun(losses: Path) -> None:
    axes = "\n".join(f'"network.{key}" = {list(range(400))}' for key in ("jitter", "bandwidth"))
    losses.write_text(LOSSES.replace("[sweep]", f"[sweep]\n{axes}"))
    with pytest.raises(ConfigError, match="sweep: 1280000 cells, expected at most 100000"):
        load(losses, "1.0")


def test_the_sweep_of_the_documentation_can_be_read(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "simulation.md").read_text()
    blocks = re.findall(r"^```toml\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    (block,) = [block for block in blocks if "[sweep]" in block]
    (tmp_path / "losses.toml").write_text(block)
    assert len(load(tmp_path / "losses.toml", "1.0").cells) == 6
    assert tomllib.loads(block)["scenario"] == "first-mesh"


def test_every_key_of_a_sweep_says_what_it_is_for() -> None:
    for row in keys(SweepFile):
        assert row.about.endswith("."), row
        assert row.allowed, row
        assert row.written, row


# --- what is kept --------------------------------------------------------------------------------


def test_what_was_added_is_there_again(tmp_path: Path) -> None:
    path = tmp_path / "cells.jsonl"
    with Results(path) as results:
        results.add("b", {"ok": True})
        results.add("a", {"ok": False})
    with Results(path) as results:
        assert list(results.of(["a", "b", "c"])) == ["a", "b"]
        results.add("c", {"ok": True})
    lines = [json.loads(line)["cell"] for line in path.read_text().splitlines()]
    assert lines == ["b", "a", "c"]


def test_who_is_interrupted_while_it_keeps_a_result_knows_what_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(file: int) -> None:
        raise KeyboardInterrupt

    path = tmp_path / "cells.jsonl"
    with Results(path) as results:
        results.add("a", {"ok": True})
        monkeypatch.setattr(os, "fsync", interrupted)
        with pytest.raises(KeyboardInterrupt):
            results.add("b", {"ok": True})
        lines = [json.loads(line)["cell"] for line in path.read_text().splitlines()]
        assert list(results.of(["a", "b"])) == lines == ["a", "b"]


@pytest.mark.parametrize("cut", range(1, 24))
def test_a_line_that_was_being_written_is_cut_off_wherever_it_broke(
    tmp_path: Path, cut: int
) -> None:
    path = tmp_path / "cells.jsonl"
    with Results(path) as results:
        results.add("a", {"ok": True})
        results.add("b", {"ok": True})
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    with Results(path) as results:
        assert list(results.of(["a", "b"])) == ["a"]
        results.add("b", {"ok": True})
    assert [json.loads(line)["cell"] for line in path.read_text().splitlines()] == ["a", "b"]


def test_something_else_is_not_written_to(tmp_path: Path) -> None:
    path = tmp_path / "cells.jsonl"
    for content in ('{"cell":"a"}\nmine\n', "[]\n", "{}\n", '{"cell":[]}\n', "\xff\n"):
        path.write_text(content, encoding="latin-1")
        with pytest.raises(ConfigError, match=r"line [12] is no result .*--fresh"):
            Results(path)
        assert path.read_text(encoding="latin-1") == content
    with Results(path, fresh=True) as results:
        assert results.of(["a"]) == {}
    assert path.read_bytes() == b""


def test_one_sweep_at_a_time_writes(tmp_path: Path) -> None:
    path = tmp_path / "cells.jsonl"
    with Results(path) as results:
        results.add("a", {"ok": True})
        with pytest.raises(UsageError, match="another sweep is writing to it"):
            Results(path, fresh=True)
        assert list(results.of(["a"])) == ["a"]
    with Results(path) as results:
        assert list(results.of(["a"])) == ["a"]


def test_a_file_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be written"):
        Results(tmp_path / "no" / "cells.jsonl")


# --- what it comes to ----------------------------------------------------------------------------


def test_a_point_is_the_mean_over_its_seeds_with_the_least_and_the_most(losses: Path) -> None:
    sweep = load(losses, "1.0")
    results = everything(sweep)
    results[sweep.cells[0].key]["ok"] = False
    first, *others = summary.points(sweep, results)
    assert (first.values, first.runs, first.good) == ((0.0, "product"), 2, 1)
    spread = first.measures["degree"]
    assert spread is not None
    assert (spread.mean, spread.least, spread.most) == (5.5, 5.0, 6.0)
    assert [point.good for point in others] == [2, 2, 2]
    assert list(summary.rows(sweep, [first])) == [
        ["network.loss (share)", "profile", "ok", "degree (peers)"],
        ["0.0", "product", "1/2", "5.5 (5 to 6)"],
    ]


def test_what_has_not_run_is_not_in_the_table(losses: Path) -> None:
    sweep = load(losses, "1.0")
    results = {cell.key: result(cell) for cell in sweep.cells[2:3]}
    (point,) = summary.points(sweep, results)
    assert (point.values, point.runs) == ((0.0, "paper"), 1)
    assert len(summary.as_csv(sweep, results).splitlines()) == 2
    assert summary.points(sweep, {}) == []


def test_the_csv_has_a_line_for_each_cell_and_every_measure(losses: Path) -> None:
    sweep = load(losses, "1.0")
    results = everything(sweep)
    results[sweep.cells[1].key] = result(sweep.cells[1], ok=False, failure='lost, "all"')
    lines = summary.as_csv(sweep, results).splitlines()
    heads = "network.loss,profile,seed,ok,degree,success,events,trace_hash,failure"
    assert lines[:3] == [
        heads,
        "0.0,product,1,true,5.0,,7,ab,",
        '0.0,product,2,false,6.0,,7,ab,"lost, ""all"""',
    ]
    assert len(lines) == 9


def test_a_measure_that_no_run_has_is_empty_and_drawn_without_points(losses: Path) -> None:
    losses.write_text(LOSSES.replace("[set]", 'measures = ["success"]\n[set]'))
    sweep = load(losses, "1.0")
    (point, *_) = summary.points(sweep, everything(sweep))
    assert point.measures == {"success": None}
    assert [picture.name for picture in summary.pictures(sweep, everything(sweep))] == ["success"]


@pytest.mark.parametrize(
    "axes",
    [
        '"network.loss" = [0.0, 0.1]',
        'profile = ["product", "paper"]',
        '"network.latency" = [[0.0, 0.1], [0.1, 0.2]]\n"network.loss" = [0.0, 0.1]',
        "",
    ],
    ids=["numbers", "words", "both", "seeds alone"],
)
def test_every_measure_has_a_plot_whatever_was_swept(losses: Path, axes: str) -> None:
    losses.write_text(f"{LOSSES.partition('[sweep]')[0]}[sweep]\n{axes}\n")
    sweep = load(losses, "1.0")
    results = everything(sweep)
    drawn = summary.pictures(sweep, results)
    assert [picture.name for picture in drawn] == ["degree"]
    assert drawn == summary.pictures(sweep, copy.deepcopy(results))
    text = summary.html(sweep, summary.points(sweep, results), drawn, ["<i>wrong</i>"])
    assert "what loss costs" in text
    assert "&lt;i&gt;wrong" in text
    assert text.count("<img ") == 1


def test_a_sweep_of_which_nothing_has_run_has_no_empty_table(losses: Path) -> None:
    sweep = load(losses, "1.0")
    text = summary.html(sweep, [], [], [])
    assert "<table>" not in text
    assert "No cell has run" in text


def test_published_curves_along_the_axis_are_drawn_beside(
    losses: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, list[str], list[str]]] = []

    def of_curves(name: str, title: str, x_label: str, ours: Any, others: Any) -> Any:
        seen.append((x_label, [each.label for each in ours], [each.label for each in others]))

    monkeypatch.setattr(plots, "of_curves", of_curves)
    sweep = load(losses, "1.0")
    summary.pictures(sweep, everything(sweep))
    losses.write_text(LOSSES.replace("network.loss", "network.jitter"))
    sweep = load(losses, "1.0")
    summary.pictures(sweep, everything(sweep))
    profiles = ["profile = product", "profile = paper"]
    loss, jitter = "network.loss (share)", "network.jitter (s)"
    assert seen == [(loss, profiles, ["others"]), (jitter, profiles, [])]
