"""Swarm testing: every option of a world, and every fault in it, is drawn from one seed.

The plan is drawn first and printed with any failure; then the world runs under watch, the faults
end, and liveness is demanded.
"""

from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Any

from overlay.sim.network.conditions import Conditions
from overlay.sim.node import SimNode
from overlay.sim.scenario import liveness
from overlay.sim.world import World

FAULTS_MAX = 4
PUBLISH_INTERVAL = 1.0


@dataclass(slots=True)
class Plan:
    """What was drawn."""

    size: int
    conditions: Conditions
    firewalled: float
    joins_over: float
    settings: dict[str, Any]
    faults: list[tuple[float, str, float]] = field(default_factory=list)
    """Virtual second, kind, and how long or how much of it."""


def draw(seed: int) -> Plan:
    """A plan with anything between no fault and four."""
    random = Random(f"plan {seed}")
    low = random.choice([0.001, 0.005, 0.02])
    conditions = Conditions(
        latency=(low, low * random.choice([1, 3, 10])),
        jitter=random.choice([0.0, 0.002, 0.02]),
        loss=random.choice([0.0, 0.0, 0.01, 0.05, 0.1]),
        reordering=random.choice([0.0, 0.0, 0.05, 0.2]),
        bandwidth=random.choice([0.0, 0.0, 0.0, 100_000.0, 1_000_000.0]),
    )
    settings = random.choice([{}, {}, {"mesh_size": 0}, {"links_max": 8, "mesh_size": 5}])
    plan = Plan(
        size=random.randint(8, 24),
        conditions=conditions,
        firewalled=random.choice([0.0, 0.0, 0.3, 0.6]),
        joins_over=random.choice([0.5, 5.0, 20.0]),
        settings=settings,
    )
    kinds = ["crash", "restart", "freeze", "leave", "partition", "clock", "burst", "split"]
    enabled = random.sample(kinds, random.randint(1, len(kinds)))
    at = plan.joins_over
    for _ in range(random.randint(0, FAULTS_MAX)):
        at += random.uniform(0.0, 25.0)
        plan.faults.append((at, random.choice(enabled), random.random()))
    return plan


class Run:
    """One world under one plan."""

    def __init__(self, seed: int, replay: str = "", fidelity: str = "links") -> None:
        self.plan = plan = draw(seed)
        replay = f"{replay} {plan}"
        self.world = World(seed, plan.conditions, checked=True, replay=replay, fidelity=fidelity)

    def run(self) -> World:
        """Join, fail, heal, demand. Raises Violated."""
        world, plan = self.world, self.plan
        first = world.spawn(**plan.settings)
        world.burst(
            plan.size - 1, first, plan.joins_over, firewalled=plan.firewalled, **plan.settings
        )
        for at, kind, much in plan.faults:
            world.at(at, partial(getattr(self, "_" + kind), much))
        end = max([at for at, _, _ in plan.faults], default=plan.joins_over) + 20.0
        for tick in range(int(end / PUBLISH_INTERVAL)):
            world.at(tick * PUBLISH_INTERVAL, self._publish)
        world.run_for(end)
        liveness.calm(world)
        world.run_for(5.0)
        self._rejoin()
        liveness.demand(world)
        return world

    def _rejoin(self) -> None:
        """Who never got in (its contact was dead or away) tries again, as its user would."""
        live = self.world.up()
        inside = [node for node in live if node.core.peers()]
        for node in live:
            if not node.core.known() and inside:
                contact = next((each for each in inside if not each.firewalled), None)
                if contact is not None:
                    self.world.join(node, self.world.invite(contact))

    def _publish(self) -> None:
        live = self.world.up()
        if live:
            self.world.publish(self.world.rng.choice(live), self.world.rng.randbytes(12))

    def _some(self, much: float) -> list[SimNode]:
        """Up to a third of those that are up; half of those that can be dialled stay."""
        world, live = self.world, self.world.up()
        open_doors = [node for node in live if not node.firewalled]
        spared = world.rng.sample(open_doors, (len(open_doors) + 1) // 2)
        rest = [node for node in live if node not in spared]
        return world.rng.sample(rest, min(len(rest), 1 + int(much * len(live) / 3)))

    def _crash(self, much: float) -> None:
        for node in self._some(much):
            self.world.crash(node)

    def _restart(self, much: float) -> None:
        for node in self._some(much):
            self.world.crash(node)
            self.world.after(much * 70, partial(self._boot, node))

    def _boot(self, node: SimNode) -> None:
        if not node.alive:
            self.world.restart(node)

    def _freeze(self, much: float) -> None:
        for node in self._some(much):
            self.world.freeze(node)
            self.world.after(much * much * 90, partial(self._thaw, node))

    def _thaw(self, node: SimNode) -> None:
        if node.alive and node.frozen:
            self.world.thaw(node)

    def _leave(self, much: float) -> None:
        for node in self._some(much / 2):
            self.world.leave(node)

    def _partition(self, much: float) -> None:
        """A third of the nodes on their own."""
        nodes = self.world.nodes
        self.world.partition([self.world.rng.sample(nodes, len(nodes) // 3)])
        self.world.after(1.0 + much * 120, self.world.heal)

    def _split(self, much: float) -> None:
        """Three parts."""
        parts: list[list[SimNode]] = [[], [], []]
        for node in self.world.nodes:
            self.world.rng.choice(parts).append(node)
        self.world.partition(parts)
        self.world.after(1.0 + much * 40, self.world.heal)

    def _clock(self, much: float) -> None:
        for node in self._some(much):
            if abs(node.clock_offset) < 50:
                self.world.step_clock(node, self.world.rng.uniform(-90.0, 90.0))

    def _burst(self, much: float) -> None:
        contacts = [n for n in self.world.up() if n.core.peers() and not n.firewalled]
        if contacts:
            contact = self.world.rng.choice(contacts)
            self.world.burst(
                1 + int(much * 10), contact, 2.0, firewalled=self.plan.firewalled,
                **self.plan.settings,
            )  # fmt: skip
