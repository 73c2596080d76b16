"""Every invariant can break, and says so: where, when, and how to see it again."""

from typing import Any

import pytest

from overlay.core.events import Deliver, Hangup, Report, Transmit, Wakeup
from overlay.core.overlay import Overlay
from overlay.core.timers import Timers
from overlay.core.types import GoodbyeCode, LinkId, PeerId
from overlay.core.wire.messages import Ping
from overlay.sim.checks import bounds
from overlay.sim.checks import invariants as checks
from overlay.sim.checks.invariants import Violated
from overlay.sim.node import SimNode
from overlay.sim.world import World


def pair(world: World) -> tuple[SimNode, SimNode]:
    """Two linked nodes."""
    one = world.spawn()
    (other,) = world.burst(1, one, 0.0)
    world.run_for(3.0)
    return one, other


def broken_by(world: World, node: SimNode, effect: Any) -> str:
    """What is said when the node's core comes up with this effect."""
    handle = node.core.handle

    class Bad(Overlay):
        def __init__(self) -> None:
            pass

        def handle(self, event: Any, now: float) -> Any:
            return [*handle(event, now), effect]

    node.core = Bad()
    with pytest.raises(Violated) as caught:
        world.publish(node, b"provoke")
    return caught.value.what


@pytest.mark.parametrize(
    ("effect", "said"),
    [
        (Transmit(LinkId(998), Ping(1)), "n0 uses link 998, which is not open"),
        (Hangup(LinkId(998), GoodbyeCode.UNNEEDED), "n0 hangs up link 998"),
        (Deliver("t", PeerId(bytes(32)), b"lie", False, 1), "n0 delivers what nobody published"),  # noqa: FBT003
        (Report("error", "internal", {}), "n0 reports internal"),
    ],
)
def test_effects_that_no_core_may_have_are_noticed(effect: Any, said: str) -> None:
    world = World(1, checked=True)
    one, _ = pair(world)
    assert broken_by(world, one, effect).startswith(said)


def test_of_a_large_world_the_first_nodes_are_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "WATCHED_MAX", 1)
    world = World(1, checked=True)
    one, other = pair(world)
    world.publish(other, b"heard by the one that is watched")
    world.run_for(3.0)
    assert len(one.delivered) == 1
    assert world.invariants is not None
    world.invariants.after(other, Wakeup(), [Hangup(LinkId(998), GoodbyeCode.UNNEEDED)])
    with pytest.raises(Violated):
        world.invariants.after(one, Wakeup(), [Hangup(LinkId(998), GoodbyeCode.UNNEEDED)])


def test_a_second_delivery_of_one_publication_is_noticed() -> None:
    world = World(1, checked=True)
    one, _ = pair(world)
    twice = Deliver("t", one.peer_id, b"provoke", False, 0)  # noqa: FBT003
    assert "a publication twice" in broken_by(world, one, twice)


def test_a_violation_names_the_seed_the_time_and_the_replay() -> None:
    world = World(77, checked=True, replay="overlay sim run x.toml --seed 77")
    world.run_for(2.5)
    with pytest.raises(Violated) as caught:
        world.run_until(lambda: False, within=1.0, what="the impossible")
    assert str(caught.value) == (
        "seed 77, at 2.500000 s: the impossible: not within 1 virtual seconds; "
        "replay: overlay sim run x.toml --seed 77"
    )


def test_a_container_that_outgrows_its_limit_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(1, checked=True)
    one, _ = pair(world)
    assert bounds.oversized(one.core) is None
    monkeypatch.setitem(bounds.LIMITS, "RecordBook._records", 0)
    assert bounds.oversized(one.core) == "holds 1 items in RecordBook._records, at most 0"


def test_no_container_of_the_machines_escapes_the_watch() -> None:
    """By name: views, links, book, caches, timers; and whatever comes later."""
    core = World(1).spawn().core
    other = World(1).spawn(passive_policy="paper").core
    seen = {label for each in (core, other) for _, _, label, _ in bounds.containers(each)}
    assert seen >= {*bounds.LIMITS}, "a limit that names nothing"
    assert sum(label.endswith("timers") for label in seen) >= 8
    held = [getattr(each, name) for each, name, _, _ in bounds.containers(core)]
    assert any(isinstance(each, Timers) for each in held)


def test_views_beyond_their_size_are_noticed() -> None:
    world = World(1, checked=True)
    one, other = pair(world)
    assert world.invariants is not None
    world.invariants.look(one)
    one.core.active_view = lambda: (other.peer_id,) * 9  # type: ignore[method-assign]
    with pytest.raises(Violated, match="n0 has 9 active neighbours, at most 7"):
        world.invariants.look(one)
    one.core.active_view = lambda: (one.peer_id,)  # type: ignore[method-assign]
    with pytest.raises(Violated, match="n0 has an active neighbour without a link"):
        world.invariants.look(one)
