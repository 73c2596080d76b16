"""What simulated nodes cost: events a second and bytes a node, size by size.

    python -m benchmarks.world_cost 1000 3000 10000

Each size gets a process of its own: nodes join one after another through random members, rest,
publish and ask for links. One JSON object a line; `pace` is a bare `heapq` loop on the same machine
at the same time, so that figures of different machines can be compared.
"""

import heapq
import json
import random
import resource
import subprocess
import sys
import time
from typing import Any

from overlay.core.events import Resolved
from overlay.sim.world import SimNode, World

JOIN_SECONDS = 60.0
REST_SECONDS = 60.0
BROADCASTS = 10
REQUESTS = 1000


def pace() -> float:
    """Pushes and pops a second of a bare heap of 10,000 entries."""
    heap = [(each, each) for each in range(10_000)]
    started = time.process_time()
    for count in range(200_000):
        heapq.heappushpop(heap, (heap[0][0] + 10_000, count))
    return 200_000 / (time.process_time() - started)


def grow(world: World, size: int, rng: random.Random) -> list[SimNode]:
    """Nodes that joined through random members, at an even rate."""
    nodes = [world.spawn()]
    invites = {nodes[0]: world.invite(nodes[0], expires_in=1e6)}

    def another() -> None:
        contact = rng.choice(nodes)
        contact = contact if contact.core.peers() else nodes[0]
        if contact not in invites:
            invites[contact] = world.invite(contact, expires_in=1e6)
        node = world.spawn()
        world.join(node, invites[contact])
        nodes.append(node)

    for number in range(1, size):
        world.at(number * JOIN_SECONDS / size, another)
    world.run_for(JOIN_SECONDS)
    return nodes


def measure(size: int) -> dict[str, Any]:
    """One world of this size."""
    rng, world = random.Random(1), World(1)
    before = _resident()
    rates: dict[str, float] = {}
    began = time.process_time()

    def lap(name: str) -> None:
        events, cpu = world.events - sum(counts), time.process_time() - began - sum(spent)
        counts.append(events)
        spent.append(cpu)
        rates[name] = round(events / cpu)

    counts: list[int] = []
    spent: list[float] = []
    nodes = grow(world, size, rng)
    lap("joins")
    world.run_for(REST_SECONDS)
    lap("rest")
    for number in range(BROADCASTS):
        world.publish(rng.choice(nodes), b"%d" % number)
        world.run_for(2.0)
    lap("broadcasts")
    asked = []
    for _ in range(REQUESTS):
        node, peer = rng.sample(nodes, 2)
        asked.append((node, world.connect(node, peer)))
        world.run_for(0.02)
    world.run_for(10.0)
    lap("requests")
    return {
        "nodes": size,
        "joined": sum(bool(node.core.peers()) for node in nodes),
        "heard": sum(len(node.delivered) for node in nodes) / (BROADCASTS * size),
        "answered": sum(isinstance(node.results.get(each), Resolved) for node, each in asked),
        "events": world.events,
        "seconds": round(sum(spent), 1),
        "events_per_second": round(world.events / sum(spent)),
        "by_phase": rates,
        "bytes_per_node": (_resident() - before) // size,
        "pace": round(pace()),
    }


def _resident() -> int:
    """Bytes that the process has had at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    sizes = [int(each) for each in sys.argv[1:]]
    if len(sizes) == 1:
        print(json.dumps(measure(sizes[0])), flush=True)
    else:
        for each in sizes:
            command = [sys.executable, "-m", "benchmarks.world_cost", str(each)]
            subprocess.run(command, check=True)
