"""The papers' experiments at a size for every day: the scenarios that ship, with fewer nodes.

Bands are those of the theory at that size, as wide as chance makes them there.
"""

import functools
import math
import random
import tomllib
from pathlib import Path
from typing import Any

import pytest

from overlay.core.types import PeerId
from overlay.sim.scenario import forking, graphs
from overlay.sim.scenario.controls.cyclon import VIEW, Cyclon
from overlay.sim.scenario.reading import assignments, read
from overlay.sim.scenario.running import Grown, Outcome, run
from overlay.sim.scenario.scenario import Scenario

SIMULATIONS = Path(__file__).resolve().parents[3] / "simulations"
NODES = 200
pytestmark = pytest.mark.slow
SETTLED_AT = 1000.0
"""Virtual seconds after which the workload begins: a few cycles are enough for so few nodes."""


def small(name: str, *settings: str) -> Scenario:
    """A scenario that ships, with few nodes and cycles; its bands are for its size."""
    content = tomllib.loads((SIMULATIONS / f"{name}.toml").read_text())
    content |= {"bands": {}, "published": []}
    sooner = min(phase["start"] for phase in content["publish"]) - SETTLED_AT
    for table, key in (
        (content, "duration"),
        *((table, "at") for table in (content.get("branches", {}), *content.get("faults", ()))),
        *((phase, key) for phase in content["publish"] for key in ("start", "stop")),
    ):
        if key in table:
            table[key] = round(table[key] - sooner, 3)
    return read(content, name, assignments([f"nodes={NODES}", *settings]))


@functools.cache
def killed() -> Outcome:
    """One run that several tests look at: nobody has noticed the deaths yet."""
    return run(small("hyparview-first-message", "cycle=100", "branches.shares=[0.3, 0.6]"))


def giant(share: float) -> float:
    """The audience of a flood over views of five after this share has died."""
    p, u = 1.0 - share, 0.0
    for _ in range(10_000):
        u = 1 - p + p * u**4
    return 1.0 - u**5


# --- HyParView -----------------------------------------------------------------------------------


def test_views_are_full_and_as_random_as_those_of_a_regular_graph() -> None:
    measures = killed().measures
    degree_full, clustering, path = (
        measures[name] for name in ("degree_full", "clustering", "path")
    )
    assert degree_full is not None
    assert clustering is not None
    assert path is not None
    assert (measures["joined"], measures["connected"]) == (1.0, 1.0)
    assert degree_full >= 0.97
    assert clustering < 1.5 * 4 / NODES, "neighbours of a random graph know each other with 4 / N"
    assert abs(path - math.log(NODES * 3 / 5) / math.log(4)) < 0.6


def test_floods_before_any_detection_reach_what_percolation_says() -> None:
    """Of 140 and of 80 survivors; the spread is that of several seeds at this size."""
    measures = killed().measures
    for share, spread in ((0.3, 0.03), (0.6, 0.25)):
        reached = measures[f"reliability_median_{share * 100:g}"]
        assert reached is not None
        assert abs(reached - giant(share)) < spread, share
    assert measures["reliability_60"] != 1.0, "nothing was lost: have the dead died?"


def test_survivors_who_have_replaced_their_neighbours_all_hear_a_flood() -> None:
    settings = ("cycle=200", "branches.shares=[0.7]", "publish.0.rate=0.3")
    measures = run(small("hyparview-failures", *settings)).measures
    assert measures["reliability_70"] == 1.0
    assert measures["connected_70"] == 1.0


def test_without_repair_they_do_not() -> None:
    settings = ("cycle=200", "branches.shares=[0.7]", "links.auto=false", "publish.0.rate=0.3")
    reached = run(small("hyparview-failures", *settings)).measures["reliability_70"]
    assert reached is not None
    assert reached < 0.9


def test_a_mesh_has_healed_within_two_cycles() -> None:
    settings = (
        "cycle=200",
        "branches.shares=[0.8]",
        "publish.0.rate=0.01",
        "publish.0.stop=1500",
        "duration=1600",
    )
    healed = run(small("hyparview-healing", *settings)).measures["cycles_to_heal_80"]
    assert healed in {0, 1, 2}


# --- Plumtree ------------------------------------------------------------------------------------


def test_a_tree_carries_every_message_once_and_its_announcements_elsewhere() -> None:
    measures = run(small("plumtree-table1", "cycle=200")).measures
    assert measures["payloads"] == NODES - 1
    assert measures["rmr"] == 0.0
    assert measures["announcements_ratio"] == pytest.approx(1.0, abs=0.005)
    settled = measures["rmr_settled"]
    assert settled is not None
    assert settled <= 2


def test_a_flood_sends_a_copy_over_every_link_and_announces_nothing() -> None:
    flood = small("plumtree-table1", "cycle=200", "dissemination=flood", "publish.0.stop=1005")
    measures = run(flood).measures
    rmr = measures["rmr"]
    assert rmr is not None
    assert rmr > 2.5
    assert measures["announcements"] == 0


# --- Cyclon --------------------------------------------------------------------------------------


def test_the_control_comes_out_where_its_theory_says() -> None:
    measures = run(small("cyclon-failures", "nodes=600")).measures
    for share in (0.1, 0.5, 0.7):
        p, dies, audience = 1.0 - share, 0.0, 1.0
        for _ in range(1000):
            dies = (1 - p + p * dies) ** 4
            audience = 1 - math.exp(-4 * p * audience)
        reached = measures[f"reliability_{share * 100:g}"]
        assert reached == pytest.approx((1 - dies) * audience, abs=0.08), share


def test_a_shuffle_keeps_views_full_and_without_their_owner() -> None:
    cyclon = Cyclon(random.Random(1))
    for _ in range(100):
        cyclon.join()
    for _ in range(5):
        cyclon.cycle()
    assert all(len(view) == VIEW for view in cyclon.views)
    assert all(node not in view for node, view in enumerate(cyclon.views))


# --- the measuring -------------------------------------------------------------------------------


def ring(count: int) -> dict[PeerId, list[PeerId]]:
    peers = [PeerId(bytes([number])) for number in range(count)]
    return {peer: [peers[at - 1], peers[(at + 1) % count]] for at, peer in enumerate(peers)}


def test_the_numbers_of_a_ring_and_of_a_full_mesh_are_the_known_ones() -> None:
    measured = graphs.measures(ring(10), 2)
    assert (measured["degree"], measured["degree_full"], measured["connected"]) == (2.0, 1.0, 1.0)
    assert (measured["clustering"], measured["path_max"]) == (0.0, 5)
    assert measured["path"] == pytest.approx(25 / 9)
    full = {peer: [other for other in ring(6) if other != peer] for peer in ring(6)}
    measured = graphs.measures(full, 5)
    assert (measured["clustering"], measured["path"], measured["degree_full"]) == (1.0, 1.0, 1.0)
    assert graphs.measures(full, 6)["degree_full"] == 0.0
    assert set(graphs.measures({}, 5).values()) == {None}


def test_the_dead_in_a_view_are_no_way_anywhere() -> None:
    views = ring(10)
    gone = list(views)[3]
    del views[gone]
    measured = graphs.measures(views, 2)
    assert (measured["connected"], measured["path_max"]) == (1.0, 8)


# --- branches ------------------------------------------------------------------------------------

SPLIT: dict[str, Any] = {
    "nodes": 12,
    "duration": 40.0,
    "liveness": 0.0,
    "join": {"every": 0.3},
    "faults": [{"at": 20.0, "do": "crash", "share": 0.25}],
    "publish": [{"start": 30.0, "stop": 33.0, "within": 0.5}],
}


def split(*shares: float) -> tuple[Outcome, list[bytes]]:
    lines: list[bytes] = []
    content = {**SPLIT, "branches": {"at": 15.0, "shares": list(shares)}} if shares else SPLIT
    return run(read(content, "split.toml"), write=lines.append), lines


def test_a_branch_goes_as_a_run_of_its_own_would() -> None:
    whole, lines = split()
    branched, all_lines = split(0.5, 0.25)
    assert branched.measures["reliability_25"] == whole.measures["reliability"]
    assert branched.measures["degree_25"] == whole.measures["degree"]
    assert branched.measures["degree_50"] != whole.measures["degree"]
    marks = [at for at, line in enumerate(all_lines) if b'"branch"' in line]
    assert len(marks) == 2
    assert all_lines[: marks[0]] + all_lines[marks[1] + 1 :] == lines
    assert split(0.5, 0.25)[0] == branched


def test_scenarios_that_share_their_beginning_go_on_as_alone() -> None:
    """Nobody can tell a mesh that grew for several from one that grew for it alone."""
    failing = small("hyparview-failures", "nodes=40", "cycle=200", "branches.shares=[0.5]")
    scenarios = [small("hyparview-table1", "nodes=40", "cycle=200"), failing]
    grown = Grown(scenarios)
    for scenario in scenarios:

        def going_on(scenario: Scenario = scenario) -> bytes:
            return grown.run(scenario).trace_hash.encode()

        assert forking.forked(going_on).decode() == run(scenario).trace_hash


def test_work_in_a_copy_leaves_the_original_alone_and_its_failure_is_told() -> None:
    seen: list[int] = []

    def work() -> bytes:
        seen.append(1)
        return b"done"

    assert forking.forked(work) == b"done"
    assert seen == []

    def fail() -> bytes:
        raise ValueError("of the copy")

    with pytest.raises(RuntimeError, match="ValueError: of the copy"):
        forking.forked(fail)
