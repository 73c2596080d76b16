"""Meshes of whole nodes as tests of the composed core begin with them."""

from typing import Any

from overlay.core.events import (
    Rejected,
    Resolved,
)
from overlay.core.types import RequestId
from overlay.sim.network.conditions import Conditions
from overlay.sim.node import SimNode
from overlay.sim.world import World

LOSSY = Conditions(latency=(0.005, 0.150), jitter=0.02, loss=0.05)


def is_full_mesh(nodes: list[SimNode]) -> bool:
    """Whether everybody is linked to everybody."""
    return all(len(node.neighbours()) == len(nodes) - 1 for node in nodes)


def chain(world: World, size: int, **settings: Any) -> list[SimNode]:
    """Nodes of which each joins by the invite of the one before it."""
    nodes = [world.spawn(**settings)]
    for _ in range(size - 1):
        invite = world.invite(nodes[-1])
        nodes.append(world.spawn(**settings))
        request = world.join(nodes[-1], invite)
        world.run_until(lambda: request in nodes[-1].results, within=10.0)  # noqa: B023
        assert nodes[-1].results[request] == Resolved(request, None)
    return nodes


def behind_firewalls(world: World, size: int) -> list[SimNode]:
    """A mesh in which only the first node could have been dialled; returns it when full."""
    nodes = [world.spawn()]
    invite = world.invite(nodes[0])
    for _ in range(size - 1):
        nodes.append(world.spawn(firewalled=True))
        world.join(nodes[-1], invite)
    world.run_until(lambda: is_full_mesh(nodes), within=60.0)
    return nodes


def line(world: World, *, circuits: bool = True) -> tuple[SimNode, SimNode, SimNode]:
    """A–B–C, linked only through B, opening no link that nobody asked for."""
    middle = world.spawn(auto=False, direct=False)
    invite = world.invite(middle)
    ends = [world.spawn(auto=False, direct=False, circuits=circuits) for _ in range(2)]
    for end in ends:
        world.join(end, invite)
    world.run_until(lambda: len(middle.neighbours()) == 2, within=10.0)
    world.run_for(1.0)
    assert all(end.neighbours() == {middle.peer_id} for end in ends)
    return ends[0], middle, ends[1]


def rejected(world: World, node: SimNode, request: RequestId) -> Rejected:
    """How a command failed."""
    world.run_until(lambda: request in node.results, within=40.0)
    result = node.results[request]
    assert isinstance(result, Rejected)
    assert "\n" not in result.text
    return result
