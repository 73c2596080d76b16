"""Runs of scenarios: what is measured, what is missed, and that it can all be had again."""

import functools
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from overlay.sim.node import SimNode
from overlay.sim.report.report import Report
from overlay.sim.scenario import running
from overlay.sim.scenario.faults import Faults
from overlay.sim.scenario.measures import names_for
from overlay.sim.scenario.reading import assignments, load, read
from overlay.sim.scenario.running import Outcome, run
from overlay.sim.scenario.scenario import Fault, Scenario
from overlay.sim.scenario.tracing import KINDS, Comparison, header
from overlay.sim.world import World
from tests.sim.scenario import recompute

ROOT = Path(__file__).resolve().parents[3]
SMALL = 100
"""Nodes: larger scenarios are run at their full size by the benchmarks, and smaller by tests."""
BUSY: dict[str, Any] = {
    "nodes": 12,
    "duration": 50.0,
    "liveness": 0.0,
    "join": {"every": 0.3},
    "network": {"loss": 0.1, "jitter": 0.01},
    "faults": [{"at": 20.0, "do": "crash", "count": 3}, {"at": 30.0, "do": "restart"}],
    "publish": [
        {"start": 10.0, "stop": 25.0, "rate": 2.0, "senders": 3},
        {"start": 30.0, "stop": 40.0, "name": "late", "within": 5.0},
    ],
    "requests": [{"start": 10.0, "stop": 35.0, "rate": 2.0}],
}
"""Joins, losses, crashes and restarts under a load, so that no measure is at its ideal."""


def of(**changes: Any) -> Scenario:
    return read({**BUSY, **changes}, "busy.toml")


def reported(scenario: Scenario, outcome: Outcome, full_size: int | None = None) -> Report:
    return Report("busy", scenario, full_size or scenario.nodes, outcome, 1.0, 1)


@functools.cache
def busy() -> tuple[Outcome, list[bytes]]:
    """One run that several tests look at."""
    return traced(of())


def traced(scenario: Scenario) -> tuple[Outcome, list[bytes]]:
    lines: list[bytes] = []
    return run(scenario, write=lines.append), lines


# --- the same again ------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_lines_and_another_seed_others() -> None:
    (one, lines), (two, again) = busy(), traced(of())
    assert lines == again
    assert one == two
    other, different = traced(of(seed=2))
    assert different != lines
    assert other.trace_hash != one.trace_hash


def test_the_hash_is_the_same_under_any_hash_seed_of_python(tmp_path: Path) -> None:
    (tmp_path / "busy.json").write_text(json.dumps(BUSY))
    script = (
        "import json, sys; from overlay.sim.scenario.reading import read; "
        "from overlay.sim.scenario.running import run; "
        "print(run(read(json.load(open(sys.argv[1])), 'busy')).trace_hash)"
    )
    hashes = set()
    for seed in ("0", "1", "4711"):
        done = subprocess.run(
            [sys.executable, "-c", script, str(tmp_path / "busy.json")],
            env={**os.environ, "PYTHONHASHSEED": seed},
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=100,
            check=True,
        )
        hashes.add(done.stdout)
    assert hashes == {busy()[0].trace_hash + "\n"}


def test_a_trace_says_all_that_it_takes_to_run_it_again() -> None:
    scenario = of()
    first = json.loads(header("busy", scenario, "1.2.3"))
    assert (first["kind"], first["id"], first["seed"]) == ("scenario", "busy", scenario.seed)
    assert read(first["scenario"], "trace") == scenario


def test_a_replay_finds_the_first_line_that_differs() -> None:
    _, lines = busy()
    for wrong, at, differs in (
        (lines, len(lines), None),
        ([*lines[:7], b"{}\n", *lines[8:]], 7, ("{}", lines[7].decode().strip())),
        (lines[:9], 9, ("", lines[9].decode().strip())),
        ([*lines, b"more\n"], len(lines), ("more", "")),
    ):
        comparison = Comparison(iter(wrong))
        for line in lines:
            comparison.line(line)
        comparison.finish()
        assert (comparison.lines, comparison.differs) == (at, differs)


# --- measures ------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_script_without_overlay_gets_the_same_numbers_from_the_trace(
    seed: int, tmp_path: Path
) -> None:
    loss = 0.6 if seed == 2 else 0.3
    scenario = of(seed=seed, network={"loss": loss}, links={"auto": seed != 2, "full_mesh": 0})
    outcome, lines = traced(scenario)
    path = tmp_path / "trace.jsonl"
    path.write_bytes(header("busy", scenario, "1") + b"".join(lines))
    measured = {name: outcome.measures[name] for name in ("reliability", "hops", "success")}
    assert recompute.main(str(path)) == measured
    assert None not in measured.values()
    if seed == 2:
        assert measured["reliability"] != 1.0, "an ideal would hide a wrong way to count"


def test_every_line_is_of_a_kind_that_is_documented_and_all_kinds_come() -> None:
    page = (ROOT / "docs" / "simulation.md").read_text()
    events = [json.loads(line) for line in busy()[1]]
    assert {event["kind"] for event in events} == set(KINDS)
    assert all({"t", "kind", "node", "id"} <= set(event) for event in events)
    assert [event["t"] for event in events] == sorted(event["t"] for event in events)
    for kind in KINDS:
        assert f"`{kind}`" in page


def test_measures_are_those_that_the_scenario_can_have() -> None:
    scenario = of()
    measures = busy()[0].measures
    assert list(measures) == names_for(scenario)
    assert "reliability_late" in measures
    silent = of(publish=[], requests=[])
    assert "reliability" not in run(silent).measures
    assert None not in measures.values()


def test_whoever_goes_down_in_time_does_not_count_and_who_hears_late_has_not_heard() -> None:
    publish = [{"start": 10.0, "stop": 10.1}]
    crash = [{"at": 10.5, "do": "crash", "count": 11}]
    alone = run(of(publish=publish, requests=[], faults=crash)).measures
    assert alone["reliability"] in {1.0, None}
    slow = {"latency": [0.3, 0.3], "jitter": 0.0}
    publish = [{"start": 40.0, "stop": 41.0, "within": 0.2}]
    late = run(of(network=slow, publish=publish, requests=[], faults=[])).measures
    assert late["joined"] == 1.0
    assert late["reliability"] == pytest.approx(1 / 12), "its publisher alone"


def test_bands_say_nothing_at_another_size() -> None:
    scenario = of(bands={"joined": [2.0, 3.0]})
    outcome = run(scenario)
    full = reported(scenario, outcome)
    assert not full.ok
    assert full.verdicts()["joined"].ok is False
    other = reported(scenario, outcome, full_size=99)
    assert other.ok
    assert other.verdicts()["joined"].ok is None
    assert other.as_json()["full_size"] is False


def test_a_band_on_what_could_not_be_measured_is_missed() -> None:
    everybody = [{"at": 9.0, "do": "crash", "share": 1.0}]
    scenario = of(faults=everybody, bands={"reliability": [0.0, 1.0]})
    outcome = run(scenario)
    assert outcome.measures["reliability"] is None
    said = reported(scenario, outcome).failure("again")
    assert said is not None
    assert "reliability is not measured, outside its band 0 to 1" in said


def test_the_object_for_programs_has_all_that_it_promises() -> None:
    scenario = of(bands={"joined": [1.0, 1.0]}, profile="paper")
    answer = reported(scenario, run(scenario)).as_json()
    assert set(answer) == {
        *("scenario", "profile", "nodes", "seed", "full_size", "config_diff", "measures", "ok"),
        *("events", "events_per_second", "peak_rss", "trace_hash"),
    }
    assert answer["measures"]["joined"] == {"value": 1.0, "band": (1.0, 1.0), "ok": True}
    assert answer["measures"]["degree"]["band"] is None
    assert answer["config_diff"]["links.full_mesh"] == 0
    assert answer["ok"] is True
    json.dumps(answer)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "path",
    [
        pytest.param(
            path, marks=pytest.mark.soak if path.stem == "partition-heal" else (), id=path.stem
        )
        for path in sorted((ROOT / "simulations").glob("*.toml"))
        if load(path).nodes <= SMALL
    ],
)
def test_every_small_scenario_that_ships_holds_its_bands(path: Path) -> None:
    scenario = load(path)
    report = reported(scenario, run(scenario, replay="again"))
    assert report.failure("again") is None


# --- what breaks ---------------------------------------------------------------------------------


def test_without_repair_the_bands_are_missed() -> None:
    """The scenario that ships can fail: a mesh that opens no links of its own does not heal."""
    path = ROOT / "simulations" / "first-mesh.toml"
    scenario = load(path, assignments(["links.auto=false"]))
    report = reported(scenario, run(scenario, replay="again"))
    assert not report.ok
    verdicts = report.verdicts()
    assert [name for name, each in verdicts.items() if each.ok is False]
    said = report.failure("again")
    assert said is not None
    assert re.fullmatch(r"busy, seed 1, at [\d.]+ s: .* outside its band .*; replay: again", said)


def test_a_broken_invariant_ends_the_run_with_what_was_measured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A node that delivers twice, from 15 s on."""
    perform = World.feed

    def feed(world: World, node: SimNode, event: Any) -> None:
        if world.now > 15.0 and node.name == "n3":
            raise world.violated("n3 does what no node does")
        perform(world, node, event)

    monkeypatch.setattr(World, "feed", feed)
    scenario = of()
    outcome = run(scenario, replay="this command")
    assert outcome.violation is not None
    assert 15.0 < outcome.at < 50.0
    assert outcome.measures["joined"] == 1.0
    report = reported(scenario, outcome)
    assert not report.ok
    said = report.failure("this command")
    assert said == (
        f"busy, seed 1, at {outcome.at:.6f} s: n3 does what no node does; replay: this command"
    )


def test_a_mesh_that_does_not_come_together_again_breaks_its_promise() -> None:
    """Nobody opens a link unasked, so that whoever lost its only neighbour stays alone."""
    crash = [{"at": 20.0, "do": "crash", "count": 9}]
    links = {"auto": False, "full_mesh": 0}
    world = {"links": links, "faults": crash, "publish": [], "requests": [], "liveness": 10.0}
    outcomes = [run(of(seed=seed, **world)) for seed in range(4)]
    violated = [outcome for outcome in outcomes if outcome.violation is not None]
    assert violated, "no seed crashes the contact, whom all of them know"
    assert all(outcome.at >= 60.0 for outcome in violated)
    calm = of(faults=[], liveness=60.0)
    assert run(calm).violation is None


# --- faults --------------------------------------------------------------------------------------


class Timeline:
    """A world of twelve, and faults that strike it one after the other."""

    def __init__(self) -> None:
        self.world = World(1)
        self.nodes = [self.world.spawn() for _ in range(12)]
        self.gone: list[str] = []
        self._faults = Faults(self.world, self.world.rng, lambda node: self.gone.append(node.name))

    def strike(self, do: str, **more: Any) -> None:
        self._faults.strike(Fault(at=1.0, do=do, **more))


def test_each_fault_hits_as_many_as_it_says() -> None:
    timeline = Timeline()
    timeline.strike("crash", share=0.25)
    assert len(timeline.gone) == 3
    assert sum(not node.alive for node in timeline.nodes) == 3
    timeline.strike("leave", count=2)
    assert len(timeline.gone) == 5
    timeline.strike("freeze", count=4)
    assert sum(node.frozen for node in timeline.nodes) == 4
    timeline.strike("thaw", count=1)
    assert sum(node.frozen for node in timeline.nodes) == 3
    timeline.strike("thaw")
    assert not any(node.frozen for node in timeline.nodes)
    timeline.strike("restart")
    assert sum(not node.alive for node in timeline.nodes) == 2, "who left stays away"
    timeline.strike("clock", count=3, by=-60.0)
    assert sorted(node.clock_offset for node in timeline.nodes) == [-60.0] * 3 + [0.0] * 9
    timeline.strike("freeze", count=99)
    assert len(timeline.world.up()) == 0


def test_a_partition_has_parts_of_the_sizes_that_it_says_and_a_heal_ends_it() -> None:
    timeline = Timeline()
    for parts, sizes in (((0.5, 0.5), [6, 6]), ((0.25, 0.25, 0.5), [3, 3, 6]), (None, [6, 6])):
        timeline.strike("partition", parts=parts)
        groups = [node.group for node in timeline.nodes]
        assert [groups.count(group) for group in sorted(set(groups))] == sizes
    timeline.strike("heal")
    assert len({node.group for node in timeline.nodes}) == 1


def test_newcomers_during_a_partition_come_into_the_part_of_their_contact() -> None:
    faults = [{"at": 5.5, "do": "partition"}, {"at": 40.0, "do": "heal"}]
    scenario = of(faults=faults, publish=[], requests=[], join={"every": 2.0})
    assert run(scenario).measures["joined"] == 1.0


@pytest.mark.parametrize(
    "join",
    [
        {"how": "burst", "within": 3.0},
        {"how": "burst", "within": 3.0, "firewalled": 0.5},
        {"every": 0.3, "through": "random"},
    ],
)
def test_all_come_in_however_they_join(join: dict[str, Any]) -> None:
    assert run(of(join=join, faults=[])).measures["joined"] == 1.0


def test_when_the_contact_is_gone_the_next_one_is_asked() -> None:
    faults = [{"at": 4.9, "do": "crash", "count": 1}]
    quiet = {"publish": [], "requests": [], "faults": faults, "join": {"every": 1.0}}
    for seed in range(40):
        events = [json.loads(line) for line in traced(of(seed=seed, **quiet))[1]]
        if any(event["kind"] == "crash" and event["node"] == "n0" for event in events):
            joined = {event["node"] for event in events if event["kind"] == "join"}
            assert {f"n{number}" for number in range(5, 12)} <= joined
            return
    raise AssertionError("no seed crashes the contact")


def test_progress_is_told_until_the_end() -> None:
    told: list[float] = []
    run(of(), progress=told.append)
    assert told == sorted(told)
    assert told[-1] == 50.0
    assert len(told) >= 50.0 / running.STEP


def test_who_leaves_is_gone_from_the_trace_too() -> None:
    faults = [{"at": 20.0, "do": "leave", "count": 2}]
    events = [json.loads(line) for line in traced(of(faults=faults))[1]]
    gone = {event["node"] for event in events if event["kind"] == "crash"}
    assert len(gone) == 2
