"""Recall in whole nodes: old friends are called until one answers, and the user hears of it."""

import dataclasses
import random
from typing import Any

import pytest

from overlay.core.events import Listening, Report
from overlay.core.membership import recall
from overlay.core.membership.recall import RECALLING, REST_MAX
from overlay.core.overlay import Overlay
from overlay.core.timers import NEVER
from overlay.sim.node import SimNode
from overlay.sim.world import World
from tests.core.worlds import chain

MONTH = 30 * 86_400.0


def reports(world: World, node: SimNode) -> list[dict[str, Any]]:
    """What it says on its calls from now on."""
    said: list[dict[str, Any]] = []

    def look(at: SimNode, effect: object) -> None:
        if at is node and isinstance(effect, Report) and effect.event == RECALLING:
            said.append({"level": effect.level, **effect.fields})

    world.observe(look)
    return said


def apart(seed: int, size: int = 2) -> tuple[World, SimNode, list[SimNode]]:
    """A node that has met the others; all of them are down."""
    world = World(seed)
    nodes = chain(world, size)
    world.run_for(5.0)
    for node in nodes:
        world.crash(node)
    return world, nodes[0], nodes[1:]


def back(world: World, node: SimNode) -> None:
    """The node starts again and knows nobody, so that it has to be found."""
    node.cache.clear()
    world.restart(node)


def is_linked(node: SimNode) -> bool:
    return bool(node.neighbours())


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("away", [3.0, 40.0, 400.0])
def test_recall_goes_on_until_a_friend_is_there(seed: int, away: float) -> None:
    world, alone, (friend,) = apart(seed)
    world.restart(alone)
    world.run_for(away)
    assert not is_linked(alone)
    back(world, friend)
    world.run_until(lambda: is_linked(alone), within=1.25 * REST_MAX + 10.0)
    assert alone.core.status().recalling == ""


@pytest.mark.parametrize("seed", range(5))
def test_recall_takes_records_from_the_future_once_the_clock_is_right(seed: int) -> None:
    world, alone, (friend,) = apart(seed)
    back(world, friend)
    said = reports(world, alone)
    alone.clock_offset = -MONTH
    world.restart(alone)
    world.run_for(40.0)
    assert not is_linked(alone)
    assert "is this machine's clock right?" in alone.core.status().recalling
    assert said[0]["level"] == "warning"
    assert said[0]["future"] == 1
    world.step_clock(alone, MONTH)
    world.run_until(lambda: is_linked(alone), within=2.0)
    assert len(said) <= 6


def test_recall_without_its_timer_has_one_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    """The counter-test: what is refused at the start is never looked at again."""
    monkeypatch.setattr(recall.Recalling, "on_surroundings", lambda *_: None)
    monkeypatch.setattr(recall, "REST_FIRST", NEVER)
    monkeypatch.setattr(recall, "REST_MAX", NEVER)
    world, alone, (friend,) = apart(1)
    back(world, friend)
    alone.clock_offset = -MONTH
    world.restart(alone)
    world.run_for(1.0)
    world.step_clock(alone, MONTH)
    world.run_for(120.0)
    assert not is_linked(alone)


@pytest.mark.parametrize("seed", range(3))
def test_recall_says_that_nobody_answers_and_what_would_help(seed: int) -> None:
    world, alone, friends = apart(seed, size=4)
    said = reports(world, alone)
    world.restart(alone)
    world.run_for(600.0)
    assert "calling the 3 members" in said[0]["text"]
    assert all("ask one of them for a new invite" in each["text"] for each in said)
    assert [each["level"] for each in said] == ["info"] + ["warning"] * (len(said) - 1)
    assert "all 3 members met before are silent" in said[1]["text"]
    assert 3 <= len(said) <= 6, "more and more rarely"
    assert "all 3 members met before are silent" in alone.core.status().recalling
    back(world, friends[1])
    world.run_until(lambda: is_linked(alone), within=1.25 * REST_MAX + 10.0)


def test_recall_begins_anew_when_an_address_comes() -> None:
    """A node that starts before the network is there: its calls go nowhere until then."""
    world, alone, (friend,) = apart(3)
    back(world, friend)
    friend.group = 1
    world.restart(alone)
    world.run_for(300.0)
    assert not is_linked(alone)
    friend.group = 0
    world.feed(alone, Listening((alone.address,)))
    world.run_until(lambda: is_linked(alone), within=2.0)


def test_recall_begins_when_the_last_link_has_gone() -> None:
    world = World(5)
    alone, friend = chain(world, 2)
    world.run_for(5.0)
    world.crash(friend)
    world.run_for(90.0)
    assert "ask one of them for a new invite" in alone.core.status().recalling
    back(world, friend)
    world.run_until(lambda: is_linked(alone), within=1.25 * REST_MAX + 10.0)
    assert alone.core.status().recalling == ""


def test_recall_leaves_alone_who_wants_no_links_but_those_it_asks_for() -> None:
    world, alone, (friend,) = apart(6)
    alone.settings = dataclasses.replace(alone.settings, auto=False)
    back(world, friend)
    world.restart(alone)
    world.run_for(100.0)
    assert not is_linked(alone)
    assert alone.core.status().recalling == ""


def test_recall_calls_everybody_in_turn() -> None:
    world, alone, friends = apart(7, size=7)
    world.restart(alone)
    recalling = alone.core._recalling
    rounds = [recalling.call(world.now) for _ in range(4)]
    assert {len(each) for each in rounds} <= {1, 5}
    first = [*rounds[0], *rounds[1]]
    everybody = {friend.peer_id for friend in friends}
    assert set(rounds[0]) | set(rounds[1]) | set(rounds[2]) == everybody
    assert len(first) == len(set(first))


def test_recall_of_garbage_keeps_nothing() -> None:
    world = World(8)
    node = world.spawn()
    core = Overlay(node.settings, node.crypto, random.Random(1))
    core._recalling.remember(node.peer_id, b"garbage")
    assert core._recalling.unread(0.0) == []
    assert core._recalling._met == {}
