"""What has to come true once the faults are over: one mesh, in which all hear and reach each other.

Asked of a world in which nothing fails any more; each demand has its own virtual time.
"""

from overlay.core.events import Resolved
from overlay.sim.node import SimNode
from overlay.sim.scenario.graphs import components
from overlay.sim.world import World

SETTLED_WITHIN = 180.0
"""Virtual seconds (guess) that views get to become one connected, symmetric mesh."""
HEARD_WITHIN = 30.0
CONNECTED_WITHIN = 30.0
"""Virtual seconds (guess): a command to connect gives up after 12 s; it may be given again."""
LOOK_INTERVAL = 1.0


def calm(world: World) -> None:
    """End every fault but death: what is frozen thaws, what is divided heals."""
    for node in world.nodes:
        if node.alive and node.frozen:
            world.thaw(node)
    world.heal()


def demand(world: World, *, pairs: int = 5, within: float = SETTLED_WITHIN) -> None:
    """Let the world settle; raises Violated when a promise of liveness is not kept in time."""
    _wait_until_settled(world, within)
    live = world.up()
    publisher = world.rng.choice(live)
    _demand_broadcast(world, publisher)
    for _ in range(pairs if len(live) > 1 else 0):
        _demand_link(world, *world.rng.sample(live, 2))
    if world.invariants is not None:
        for node in live:
            world.invariants.look(node)


def _wait_until_settled(world: World, within: float) -> None:
    end = world.now + within
    while (trouble := unsettled(world)) is not None:
        if world.now >= end:
            raise world.violated(f"not settled {within:g} s after the last fault: {trouble}")
        world.run_for(LOOK_INTERVAL)


def _demand_broadcast(world: World, publisher: SimNode) -> None:
    live, data = world.up(), b"all " + world.rng.randbytes(8)
    end = world.now + HEARD_WITHIN
    world.publish(publisher, data)
    while missing := [node.name for node in live if not _has_heard(node, data)]:
        if world.now >= end:
            names = ", ".join(missing)
            what = f"{HEARD_WITHIN:g} s after {publisher.name} published, not heard by {names}"
            raise world.violated(what)
        world.run_for(LOOK_INTERVAL)


def _has_heard(node: SimNode, data: bytes) -> bool:
    return any(each.data == data for each in node.delivered)


def _demand_link(world: World, one: SimNode, other: SimNode) -> None:
    end = world.now + CONNECTED_WITHIN
    request = world.connect(one, other)
    while not isinstance(result := one.results.get(request), Resolved):
        if world.now >= end:
            why = f"{result.code}: {result.text}" if result is not None else "no answer yet"
            raise world.violated(f"{one.name} does not reach {other.name}: {why}")
        if result is not None:
            request = world.connect(one, other)
        world.run_for(LOOK_INTERVAL)


def unsettled(world: World) -> str | None:
    """What is missing for one connected mesh of symmetric, non-empty views; None: nothing."""
    live = {node.peer_id: node for node in world.up()}
    if len(live) < 2:
        return None
    views = {peer: node.core.active_view() for peer, node in live.items()}
    for peer, view in views.items():
        name = live[peer].name
        if not view:
            return f"{name} has no active neighbour"
        for each in view:
            if each not in live:
                return f"{name} has a neighbour that is not there"
            if peer not in views[each]:
                return f"{name} has {live[each].name} in its view, not the other way round"
    parts = components(views)
    if len(parts) > 1:
        sizes = ", ".join(str(len(part)) for part in parts)
        return f"the mesh is in {len(parts)} parts of {sizes}"
    return None
