"""What adversaries cost a mesh of the shipped core: less than it has, whatever they do."""

import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import pytest

from overlay.core.overlay import Overlay
from overlay.core.routing.ring import place_of
from overlay.errors import ConfigError
from overlay.sim.node import SimNode
from overlay.sim.scenario.adversaries import Act, Adversaries, Byzantine, Conspiracy
from overlay.sim.scenario.controls.naive import byzantine_share
from overlay.sim.scenario.reading import load, read
from overlay.sim.scenario.running import Outcome, run
from overlay.sim.scenario.scenario import Adversary, Scenario
from overlay.sim.world import World

FLOOD = Path(__file__).parents[3] / "simulations" / "byzantine-flood.toml"


def of(do: list[str], share: float = 0.2, nodes: int = 40, **more: Any) -> Scenario:
    """A small mesh with adversaries, asked for publications and links once it stands."""
    content: dict[str, Any] = {
        "nodes": nodes,
        "duration": 160.0,
        "liveness": 0.0,
        "join": {"how": "burst", "within": 10.0},
        "publish": [{"start": 90.0, "stop": 120.0, "within": 30.0}],
        "requests": [{"start": 90.0, "stop": 130.0, "rate": 4.0, "within": 15.0}],
        "adversaries": [{"share": share, "do": do}],
    }
    return read({**content, **more}, "test")


def measured(do: list[str], **more: Any) -> dict[str, float]:
    outcome = run(of(do, **more))
    assert outcome.violation is None
    return {name: value for name, value in outcome.measures.items() if value is not None}


# --- flooding views ------------------------------------------------------------------------------


def flooded(factor: float, **more: Any) -> Outcome:
    """The scenario with 40 nodes, and so long that each of 15 slots has been seeded anew."""
    size = {
        "nodes": 40,
        "duration": 600.0,
        "links.passive": 15,
        "join.within": 10.0,
        "requests.0.start": 560.0,
        "requests.0.stop": 580.0,
        "adversaries.0.factor": factor,
        **more,
    }
    return run(load(FLOOD, {key: ("test", value) for key, value in size.items()}))


@pytest.mark.slow
def test_a_flood_of_views_does_not_fill_the_slots() -> None:
    """420 slots of 28 nodes: 0.30 is the adversaries' due, the share of 0.45 the published band."""
    outcome = flooded(10.0)
    assert outcome.violation is None
    view, samples = outcome.measures["byzantine_view"], outcome.measures["byzantine_samples"]
    assert view is not None
    assert samples is not None
    assert 0.15 < view <= 0.45
    assert 0.15 < samples <= 0.40  # some 400 samples: 0.35 and two standard deviations
    assert outcome.measures["isolated"] == 0
    assert outcome.measures["success"] == 1.0
    control = outcome.measures["byzantine_control"]
    assert control is not None
    assert control > view + 0.2, "the control does not fall"


def test_random_replacement_falls_to_adversaries_and_to_a_flood_at_once() -> None:
    """The control can tell: without adversaries nothing happens, with more pushes it is sooner."""
    rounds = {
        factor: byzantine_share(300, 90, 30, factor, 5, Random(1)) for factor in (0.0, 1.0, 10.0)
    }
    assert rounds[0.0] < 0.6 < rounds[1.0] < 0.8 < rounds[10.0]
    assert byzantine_share(300, 90, 30, 10.0, 100, Random(1)) > 0.95
    assert byzantine_share(300, 0, 30, 0.0, 5, Random(1)) == 0.0


def test_whoever_pushes_beyond_all_measure_loses_its_links() -> None:
    """Neighbours count what each of them brings, and pass on no more than an honest one needs."""
    world, ends, middle = chain(("flood",))
    passed = world.events
    for number in range(1200):
        world.after(number / 100, lambda: world.feed(middle, Act("flood")))  # type: ignore[arg-type]
    world.run_for(15.0)
    assert middle.neighbours() == set()
    assert world.events - passed < 4000
    refused = [report for node in ends for report in node.reports if report.event == MISBEHAVED]
    assert {report.fields["why"] for report in refused} == {"a flood of views"}


def test_ten_times_as_many_pushes_as_an_honest_node_needs_cost_no_link() -> None:
    world, _, middle = chain(("flood",))
    for number in range(10):
        world.after(number * 3.0, lambda: world.feed(middle, Act("flood")))  # type: ignore[arg-type]
    world.run_for(40.0)
    assert len(middle.neighbours()) == 2


# --- one between two others ----------------------------------------------------------------------

MISBEHAVED = "peer_misbehaved"


def chain(ways: tuple[str, ...]) -> tuple[World, tuple[SimNode, SimNode], SimNode]:
    """Two honest nodes, linked to nobody but the one in the middle, which has just turned."""
    world, conspiracy = World(5), Conspiracy(Random(1))
    liar = partial(Byzantine, Adversary(share=0.5, do=()), conspiracy)
    cores = (Overlay, liar if ways else Overlay, Overlay)
    one, middle, other = (world.spawn(core=core, auto=False, mesh_size=0) for core in cores)
    for newcomer, contact in ((middle, one), (other, middle)):
        world.join(newcomer, world.invite(contact))
        world.run_for(5.0)
    if ways:
        assert isinstance(middle.core, Byzantine)
        middle.core._ways = ways
        conspiracy.byzantine.append(middle.peer_id)
        conspiracy.honest.extend((one.peer_id, other.peer_id))
    assert len(middle.neighbours()) == 2
    return world, (one, other), middle


def outcome(ways: tuple[str, ...], acts: str = "") -> dict[str, Any]:
    """What the two at the ends can do through the one in the middle."""
    world, (one, other), middle = chain(ways)
    request = world.trace(one, other)
    world.publish(one, b"word")
    world.run_for(15.0)
    for _ in range(20 if acts else 0):
        world.feed(middle, Act(acts))  # type: ignore[arg-type]
        world.run_for(1.0)
    view = one.core._routing.neighbours.get(middle.peer_id)
    return {
        "traced": type(one.results[request]).__name__,
        "heard": sum(node is other for node in world.heard(b"word")),
        "links": len(middle.neighbours()),
        "believed": len({*view.places} - {view.place, place_of(one.peer_id)}) if view else 0,
    }


HONEST = {"traced": "Resolved", "heard": 1, "links": 2, "believed": 1}


@pytest.mark.parametrize(
    ("ways", "acts", "change"),
    [
        ((), "", {}),
        (("drop",), "", {"heard": 0}),
        (("swallow",), "", {"traced": "Rejected"}),
        (("replay",), "replay", {}),
        (("forge",), "forge", {"links": 0, "believed": 0}),
    ],
)
def test_what_each_of_them_does_to_those_who_have_nobody_else(
    ways: tuple[str, ...], acts: str, change: dict[str, Any]
) -> None:
    """With no way around it, an adversary can refuse; it can neither double nor invent a word."""
    assert outcome(ways, acts) == {**HONEST, **change}


@pytest.mark.parametrize("ways", [("lie",), ("drop",)])
def test_a_liar_is_believed_to_be_near_to_whom_it_names(ways: tuple[str, ...]) -> None:
    world, (one, other), middle = chain(ways)
    stranger, newcomer = (world.spawn(auto=False, mesh_size=0) for _ in range(2))
    core = middle.core
    assert isinstance(core, Byzantine)
    core._conspiracy.honest.append(stranger.peer_id)
    world.join(newcomer, world.invite(middle))
    world.run_for(5.0)
    named = newcomer.core._routing.neighbours[middle.peer_id].places
    assert {place_of(one.peer_id), place_of(other.peer_id)} <= {*named}
    assert (place_of(stranger.peer_id) in named) == ("lie" in ways)


# --- a mesh with a fifth of them -----------------------------------------------------------------


@pytest.mark.slow
def test_publications_pass_by_those_who_drop_them() -> None:
    values = measured(["drop"])
    assert values["reliability"] > 0.99
    assert values["success"] == 1.0


@pytest.mark.slow
def test_requests_get_around_black_holes_that_look_near_to_everything() -> None:
    values = measured(["lie", "swallow"], share=0.1)
    assert values["success"] > 0.95
    assert values["reliability"] == 1.0


@pytest.mark.slow
def test_what_is_forged_or_said_again_reaches_nobody_and_the_mesh_stands() -> None:
    """The world looks: nothing is delivered twice, or that its origin did not publish."""
    values = measured(["forge", "replay"])
    assert values["reliability"] == 1.0
    assert values["success"] == 1.0
    assert values["connected"] == 1.0


# --- who they are --------------------------------------------------------------------------------


def byzantine(seed: int, shares: list[float]) -> list[str]:
    """Those of forty nodes that turn."""
    world = World(seed)
    lines = tuple(Adversary(share=share, do=("drop",)) for share in shares)
    adversaries = Adversaries(world, lines, 40)
    nodes: list[SimNode] = []
    for _ in range(40):
        nodes.append(world.spawn(core=adversaries.next_core()))
        adversaries.enlist(nodes[-1])
    return [node.name for node in nodes if node in adversaries.members]


def test_as_many_as_said_turn_and_the_seed_says_who() -> None:
    drawn = [byzantine(seed, [0.25]) for seed in range(5)]
    assert [len(names) for names in drawn] == [10] * 5
    assert byzantine(0, [0.25]) == drawn[0]
    assert len({tuple(names) for names in drawn}) == 5
    assert all("n0" not in names for names in drawn)
    assert len(byzantine(0, [0.25, 0.1])) == 14, "no node is drawn twice"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ({"share": 0.2, "do": ["flod"]}, "adversaries.0.do: expected a list of flood, drop"),
        ({"share": 0.2, "do": []}, "adversaries.0.do: expected a list of flood, drop"),
        ({"share": 1.0, "do": ["drop"]}, "adversaries.0.share: expected a number above 0, below 1"),
        ({"share": -0.1, "do": ["drop"]}, "adversaries.0.share: expected a number above 0"),
        ({"do": ["drop"]}, "adversaries.0.share: is missing"),
        ({"share": 0.2, "do": ["drop"], "shar": 1}, "adversaries.0.shar: no such key"),
        ({"share": 0.2, "do": ["flood"], "factor": 0}, "adversaries.0.factor: expected a number"),
    ],
)
def test_what_is_wrong_with_a_line_is_said_in_one(line: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        read({"nodes": 9, "duration": 9.0, "adversaries": [line]}, "test")
    assert "\n" not in str(caught.value)


def test_adversaries_cannot_be_more_than_everybody() -> None:
    lines = [{"share": 0.6, "do": ["drop"]}, {"share": 0.5, "do": ["lie"]}]
    with pytest.raises(ConfigError, match=r"adversaries: the shares add up to 1\.1, expected less"):
        read({"nodes": 9, "duration": 9.0, "adversaries": lines}, "test")


def history() -> str:
    """A short run in which every kind of adversary acts."""
    everything = ["flood", "drop", "lie", "replay", "forge", "swallow"]
    quick: dict[str, Any] = {"duration": 60.0, "publish": [], "requests": []}
    outcome = run(of(everything, nodes=16, **quick))
    return f"{outcome.trace_hash} {outcome.events} {outcome.measures}"


def test_a_seed_makes_one_history_of_adversaries_under_any_hash_seed() -> None:
    code = "from tests.sim.scenario.test_byzantine import history; print(history())"
    histories = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for hash_seed in ("0", "4711")
    }
    assert histories == {history() + "\n"}
