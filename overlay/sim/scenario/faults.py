"""What a scenario's timeline does to a world: which nodes are hit, and how."""

from collections.abc import Callable

from overlay.core.types import Random
from overlay.sim.node import SimNode
from overlay.sim.scenario.scenario import Fault
from overlay.sim.world import World


class Faults:
    """Strikes one world; who is hit is drawn from `rng`."""

    def __init__(self, world: World, rng: Random, gone: Callable[[SimNode], None]) -> None:
        """`gone` is called with every node that has crashed or left."""
        self._world = world
        self._rng = rng
        self._gone = gone
        self._crashed: dict[SimNode, None] = {}

    def strike(self, fault: Fault) -> None:
        """One line of the timeline, now."""
        world = self._world
        alive = [node for node in world.nodes if node.alive]
        match fault.do:
            case "crash":
                for node in self._drawn(fault, alive):
                    world.crash(node)
                    self._crashed[node] = None
                    self._gone(node)
            case "leave":
                for node in self._drawn(fault, world.up()):
                    world.leave(node)
                    self._gone(node)
            case "freeze":
                for node in self._drawn(fault, world.up()):
                    world.freeze(node)
            case "thaw":
                for node in self._drawn(fault, [node for node in alive if node.frozen]):
                    world.thaw(node)
            case "restart":
                for node in self._drawn(fault, list(self._crashed)):
                    del self._crashed[node]
                    world.restart(node)
            case "partition":
                world.partition(self._parts(fault.parts or (0.5, 0.5)))
            case "heal":
                world.heal()
            case "clock":
                for node in self._drawn(fault, alive):
                    world.step_clock(node, fault.by or 0.0)
            case _:
                raise AssertionError(fault.do)

    def _drawn(self, fault: Fault, candidates: list[SimNode]) -> list[SimNode]:
        count = fault.count
        if count is None:
            count = round((1.0 if fault.share is None else fault.share) * len(candidates))
        return self._rng.sample(candidates, min(count, len(candidates)))

    def _parts(self, shares: tuple[float, ...]) -> list[list[SimNode]]:
        """All nodes, the dead too (they may come back), in parts of these shares."""
        nodes = self._rng.sample(self._world.nodes, len(self._world.nodes))
        parts, start, total = [], 0, 0.0
        for share in shares:
            total += share
            end = round(total * len(nodes))
            parts.append(nodes[start:end])
            start = end
        return parts
