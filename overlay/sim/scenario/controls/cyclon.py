"""The control of `cyclon-failures`: Cyclon, and gossip to random peers of its views.

S. Voulgaris, D. Gavidia, M. van Steen, "CYCLON: inexpensive membership management for unstructured
P2P overlays", J. Network and Systems Management 13, 2005; with the parameters that the HyParView
paper compares itself to (§5.1). It runs in cycles, without a network: a message arrives unless its
receiver is dead. Gossip has a fanout of 4 and no repair, so that after a share 1 - p has died the
audience r solves r = 1 - exp(-4 p r), and a message dies out with the probability q that solves
q = (1 - p + p q)^4: what is measured has to come out near (1 - q) r.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import fmean

from overlay.core.types import Random
from overlay.sim.scenario.measures import branch_name
from overlay.sim.scenario.profiles import setting
from overlay.sim.scenario.scenario import Scenario

VIEW, SHUFFLE, FANOUT = 35, 14, 4
WALK = 5
"""Links that a newcomer's walks pass (HyParView §5.1)."""


@dataclass(slots=True)
class Cyclon:
    """Nodes by number, each with the ages of its neighbours by their number."""

    rng: Random
    views: list[dict[int, int]] = field(default_factory=list)
    messages: int = 0

    def join(self) -> None:
        """One more node, through the first: each of its walks trades a place where it ends (§4)."""
        newcomer, view = len(self.views), dict[int, int]()
        self.views.append(view)
        if not newcomer:
            return
        for _ in range(VIEW):
            end = 0
            for _ in range(WALK):
                end = self._neighbour(end) if self.views[end] else end
            self.messages += WALK
            other = self.views[end]
            if newcomer in other:
                continue
            if len(other) >= VIEW:
                given = self._neighbour(end)
                age = other.pop(given)
                view[given] = age
            other[newcomer] = 0
            view.setdefault(end, 0)
            while len(view) > VIEW:
                del view[next(iter(view))]

    def cycle(self) -> None:
        """Every node shuffles once with its oldest neighbour (§3.2)."""
        for node in self.rng.sample(range(len(self.views)), len(self.views)):
            if self.views[node]:
                self._shuffle(node)

    def _shuffle(self, node: int) -> None:
        view = self.views[node]
        for each in view:
            view[each] += 1
        oldest = max(view, key=view.__getitem__)
        del view[oldest]
        sent = self._sample(view, SHUFFLE - 1)
        answer = self._sample(self.views[oldest], SHUFFLE)
        self._take(oldest, {**sent, node: 0}, answer)
        self._take(node, answer, sent)
        self.messages += 2

    def _take(self, node: int, came: dict[int, int], sent: dict[int, int]) -> None:
        """Into the empty places first, then in the place of what was sent."""
        view, disposable = self.views[node], [each for each in sent if each in self.views[node]]
        for each, age in came.items():
            if each == node or each in view:
                continue
            if len(view) >= VIEW:
                if not disposable:
                    return
                del view[disposable.pop()]
            view[each] = age

    def broadcast(self, dead: set[int]) -> float:
        """The share of the living that a message of a random one of them reaches."""
        living = [node for node in range(len(self.views)) if node not in dead]
        source = self.rng.choice(living)
        reached, frontier = {source}, [source]
        while frontier:
            onward = []
            for node in frontier:
                for peer in self._sample(self.views[node], FANOUT):
                    self.messages += 1
                    if peer not in dead and peer not in reached:
                        reached.add(peer)
                        onward.append(peer)
            frontier = onward
        return len(reached) / len(living)

    def _neighbour(self, node: int) -> int:
        return self.rng.choice(list(self.views[node]))

    def _sample(self, view: dict[int, int], count: int) -> dict[int, int]:
        chosen = self.rng.sample(list(view), min(count, len(view)))
        return {each: view[each] for each in chosen}


def measure(
    scenario: Scenario, progress: Callable[[float], None]
) -> tuple[dict[str, float | None], int]:
    """What the scenario's measures come to with Cyclon, and how many messages that took.

    All nodes join, cycles pass until the branches; then, for each share of dead, the messages of
    the workload.
    """
    cyclon = Cyclon(random.Random(f"cyclon {scenario.seed}"))
    for _ in range(scenario.nodes):
        cyclon.join()
    joined = scenario.join.every * scenario.nodes
    cycle: float = setting(scenario, "shuffle_interval")
    for number in range(int((scenario.branches.at - joined) / cycle)):
        cyclon.cycle()
        progress(joined + number * cycle)
    count = sum(round((phase.stop - phase.start) * phase.rate) for phase in scenario.publish)
    measures: dict[str, float | None] = {}
    for share in scenario.branches.shares:
        dead = set(cyclon.rng.sample(range(scenario.nodes), round(share * scenario.nodes)))
        reached = [cyclon.broadcast(dead) for _ in range(count)]
        measures[branch_name("reliability", share)] = fmean(reached)
        measures[branch_name("reliability_min", share)] = min(reached)
    return measures, cyclon.messages
