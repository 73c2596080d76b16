"""What simulated nodes cost: events a second and bytes a node, size by size.

    python -m benchmarks.world_cost --keep 1000 3000 10000 100000

Each size gets a process of its own, which says what every phase has cost as soon as it is over, and
ends itself at `--limit` MiB: nodes join one after another through random members, rest, publish and
ask for links. One JSON object a line; `pace` is a bare `heapq` loop on the same machine at the same
time, so that figures of different machines can be compared. `--keep` writes the rows with bars
(10,000 and 100,000 nodes) into the results and the curve into the docs.
"""

import argparse
import gc
import heapq
import json
import random
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.__main__ import PAGE, RESULTS
from benchmarks.cases import table, world
from benchmarks.measure import Case, Result, Runs, results
from overlay.core.events import Resolved
from overlay.sim.node import SimNode
from overlay.sim.world import World

JOIN_SECONDS = 60.0
REST_SECONDS = 10.0
BROADCASTS = 10
REQUESTS = 1000
MIB = 1 << 20
LIMIT = 8192
"""MiB after which a size is given up."""
CURVE = PAGE.with_name("simulation.md")
BEGIN = "<!-- curve: written by `python -m benchmarks.world_cost --keep` -->"


class TooLarge(Exception):
    """The process has more memory than it may have."""


def pace() -> float:
    """Pushes and pops a second of a bare heap of 10,000 entries."""
    heap = [(each, each) for each in range(10_000)]
    started = time.process_time()
    for count in range(200_000):
        heapq.heappushpop(heap, (heap[0][0] + 10_000, count))
    return 200_000 / (time.process_time() - started)


def grow(world: World, size: int, rng: random.Random) -> list[SimNode]:
    """Nodes that joined through random members, at an even rate."""
    nodes = begin(world, size, rng)
    world.run_for(JOIN_SECONDS)
    return nodes


def begin(world: World, size: int, rng: random.Random) -> list[SimNode]:
    """The same, of which the first is there and the others are about to come."""
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
        if len(nodes) < size:
            world.at(len(nodes) * JOIN_SECONDS / size, another)

    if size > 1:
        world.at(JOIN_SECONDS / size, another)
    return nodes


class Meter:
    """Events, processor seconds and memory, phase by phase."""

    def __init__(self, world: World, size: int, limit: int) -> None:
        self._world, self._size, self._limit = world, size, limit * MIB
        self._before = resident()
        self._events, self._began = 0, time.process_time()
        self._spent, self._started = self._began, time.perf_counter()
        self.rates: dict[str, int] = {}
        self.peak = self._before

    @property
    def seconds(self) -> float:
        """Since the beginning, by the clock on the wall."""
        return time.perf_counter() - self._started

    @property
    def cpu(self) -> float:
        """Of the processor, since the beginning."""
        return time.process_time() - self._began

    @property
    def bytes_per_node(self) -> int:
        """At the most so far."""
        return (self.peak - self._before) // self._size

    def run_for(self, seconds: float) -> None:
        """Let virtual time pass, a second at a time. Raises TooLarge."""
        end = self._world.now + seconds
        while self._world.now < end - 1e-6:
            self._world.run_for(min(1.0, end - self._world.now))
            self.peak = max(self.peak, resident())
            if self.peak > self._limit:
                raise TooLarge(f"{self._size:,} nodes: more than {self._limit // MIB:,} MiB")

    def lap(self, name: str) -> None:
        """A phase is over: say what it has cost."""
        events, spent = self._world.events - self._events, time.process_time() - self._spent
        self._events, self._spent = self._world.events, time.process_time()
        self.rates[name] = round(events / spent)
        line = f"{self._size:,} nodes, {name}: {events / self._size:,.0f} events a node, "
        line += f"{self.rates[name]:,} events/s, {self.seconds:,.0f} s, {self.peak // MIB:,} MiB"
        print(line, file=sys.stderr, flush=True)


def measure(size: int, limit: int = LIMIT) -> dict[str, Any]:
    """One world of this size."""
    gc.disable()  # a world makes no cycles, and has millions of objects
    rng, mesh = random.Random(1), World(1)
    meter = Meter(mesh, size, limit)
    nodes = begin(mesh, size, rng)
    meter.run_for(JOIN_SECONDS)
    meter.lap("joins")
    meter.run_for(REST_SECONDS)
    meter.lap("rest")
    for number in range(BROADCASTS):
        mesh.publish(rng.choice(nodes), b"%d" % number)
        meter.run_for(2.0)
    meter.lap("broadcasts")
    asked = []
    for _ in range(REQUESTS):
        node, peer = rng.sample(nodes, 2)
        asked.append((node, mesh.connect(node, peer)))
        meter.run_for(0.02)
    meter.run_for(10.0)
    meter.lap("requests")
    return {
        "nodes": size,
        "joined": sum(bool(node.core.peers()) for node in nodes),
        "heard": sum(len(node.delivered) for node in nodes) / (BROADCASTS * size),
        "answered": sum(isinstance(node.results.get(each), Resolved) for node, each in asked),
        "events": mesh.events,
        "seconds": round(meter.seconds, 1),
        "cpu_seconds": round(meter.cpu, 1),
        "events_per_second": round(mesh.events / meter.cpu),
        "by_phase": meter.rates,
        "bytes_per_node": meter.bytes_per_node,
        "mib": meter.peak // MIB,
        "pace": round(pace()),
    }


def resident() -> int:
    """Bytes that the process has now."""
    pages = Path("/proc/self/statm").read_text().split()[1]
    return int(pages) * 4096


# --- what is kept --------------------------------------------------------------------------------


def rows(measured: Mapping[str, Any]) -> list[Result]:
    """The rows with bars that this size fills."""
    if measured["nodes"] == 10_000:
        figures = {world.EVENTS.name: measured["events_per_second"]}
    elif measured["nodes"] == 100_000:
        figures = {world.SECONDS.name: measured["seconds"], world.MEMORY.name: measured["mib"]}
    else:
        return []
    case = Case("world", tuple(each for each in world.MEASURES if each.name in figures), dict)
    return results(case, Runs([figures]))


def curve_line(measured: Mapping[str, Any]) -> str:
    """One line of the table in the docs."""
    size = measured["nodes"]
    used = f"{measured['joined']:,}, {measured['heard']:.4f}, {measured['answered']:,}"
    rate = f"{measured['events_per_second']:,} | {measured['events'] / size:,.0f}"
    kept = f"{measured['bytes_per_node']:,} | {measured['mib']:,}"
    return f"| {size:,} | {rate} | {measured['cpu_seconds']:,.0f} | {kept} | {used} |"


def keep(measured: Mapping[str, Any]) -> None:
    """Write what was measured where programs and people look for it."""
    order = [each.name for each in table.MEASURES]
    outcome = report.merge(report.read_results(RESULTS), rows(measured), order)
    report.write_results(RESULTS, outcome)
    report.write_table(PAGE, report.table(outcome, table.MEASURES))
    lines = CURVE.read_text().partition(BEGIN)[2].partition(report.END)[0].strip().splitlines()
    by_size = {int(line.split("|")[1].replace(",", "")): line for line in lines[2:]}
    by_size[measured["nodes"]] = curve_line(measured)
    kept = [*lines[:2], *(by_size[size] for size in sorted(by_size))]
    report.write_table(CURVE, "\n".join(kept), BEGIN)


def main(arguments: list[str]) -> int:
    """0 when every size was measured."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.world_cost")
    parser.add_argument("sizes", nargs="+", type=int, metavar="NODES")
    parser.add_argument("--limit", type=int, default=LIMIT, help="MiB that a size may take (8192)")
    parser.add_argument("--keep", action="store_true", help="write the results and the curve")
    options = parser.parse_args(arguments)
    sizes: list[int] = options.sizes
    if len(sizes) == 1:
        try:
            measured = measure(sizes[0], options.limit)
        except TooLarge as error:
            print(f"world_cost: {error}", file=sys.stderr)
            return 1
        print(json.dumps(measured), flush=True)
        if options.keep:
            keep(measured)
        return 0
    command = [sys.executable, "-m", "benchmarks.world_cost", f"--limit={options.limit}"]
    command += ["--keep"] if options.keep else []
    return max(subprocess.run([*command, str(size)], check=False).returncode for size in sizes)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
