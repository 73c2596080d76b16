"""Sixty processes on this machine become a mesh that is no full mesh; half of them die at once.

Each node keeps a dozen links: random neighbours to gossip with, its neighbours on the ring and a
few far away to route by. That is enough for a trace from anybody to anybody. Half of the nodes,
their creator among them, are killed with SIGKILL at one moment: a message published in the next
still reaches every survivor, and the survivors mend what is left until all of it holds again.
"""

import argparse
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median

if __package__ in {None, ""}:  # run as a script: the repository is not on the path yet
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rich.table import Table
from rich.text import Text

from demos.links import Pair, distances, full_mesh, linked_pairs
from demos.stage import Stage, curtain, require
from tests.lab.nodes import Failed, Json, Node, Process

NODES = 60
AT_ONCE = 4
"""Processes that start, and traces under way, at a time: two cores have no more to give (guess)."""
TRACES = 100
LINKS_MAX = 12
"""The budget of a node (``links.max``); what is above it on average are guests of the beginning."""
LINKS_MIN = 4
"""A node with fewer has not been repaired: the ring alone asks for so many."""
PATIENCE = 180.0
"""Seconds that each step may take (guess: it waits for conditions, and machines differ)."""
TOPIC = "demo"
SETTINGS = ("--set", "links.direct=false")
"""Nobody dials whom no invite named: all other links are negotiated through the mesh."""
ALONE = ("--set", "links.auto=false")
MARKS = {"starting": ("○", "dim"), "up": ("●", "green"), "heard": ("●", "bold cyan"),
         "killed": ("✕", "red")}  # fmt: skip
ROW = 20


class Field(Stage):
    """A stage for many: each node is a mark."""

    patience = PATIENCE
    random = random.Random(1)

    def board(self) -> Table:
        """A mark a node, twenty in a row."""
        marks = [MARKS[state] for state in self.state.values()]
        board = Table.grid()
        for start in range(0, len(marks), ROW):
            row = (part for mark in marks[start : start + ROW] for part in (" ", mark))
            board.add_row(Text.assemble("       ", *row))
        return board

    def until(self, holds: Callable[[], bool], what: Callable[[], str]) -> float:
        """Wait for what has to come about; the seconds that it took."""
        begun = time.monotonic()
        while not holds():
            require(
                time.monotonic() < begun + self.patience,
                f"not within {self.patience:g} s: {what()}",
            )
            time.sleep(0.5)
        return time.monotonic() - begun

    def ask(self, node: Node, method: str, path: str, body: Json | None = None) -> Json:
        """What a node answers over its control socket, as it does to the commands."""
        try:
            return node.ask(method, path, body)
        except OSError as error:
            raise Failed(f"{node.name} does not answer: {error}") from None

    def some(self, nodes: Sequence[Node], count: int) -> list[tuple[Node, Node]]:
        """So many pairs drawn at random."""
        pairs = [self.random.sample(nodes, 2) for _ in range(count)]
        return [(one, other) for one, other in pairs]


@dataclass(frozen=True, slots=True)
class Shape:
    """The mesh at one moment."""

    names: list[str]
    pairs: list[Pair]

    @property
    def degrees(self) -> list[int]:
        """How many links each node has."""
        counts = Counter(name for pair in self.pairs for name in pair)
        return [counts[name] for name in self.names]

    @property
    def components(self) -> int:
        """Into how many parts it falls."""
        left, parts = dict.fromkeys(self.names), 0
        while left:
            parts += 1
            for name in distances(next(iter(left)), self.pairs):
                left.pop(name, None)
        return parts

    def as_json(self) -> Json:
        """What ``--json`` prints of it."""
        degrees = self.degrees
        return {
            "nodes": len(self.names),
            "links": len(self.pairs),
            "full_mesh": full_mesh(len(self.names)),
            "degree": {"min": min(degrees), "mean": fmean(degrees), "max": max(degrees)},
            "components": self.components,
        }


def shape_of(nodes: Sequence[Node]) -> Shape:
    """Who is linked to whom at this moment."""
    return Shape([node.name for node in nodes], linked_pairs(nodes))


# --- the acts ----------------------------------------------------------------------------------


def assemble(stage: Field, count: int, settings: Sequence[str]) -> None:
    """Start the nodes, a few at a time, each with the invite of somebody who is there already."""
    stage.step(f"{count} processes, each joining by the invite of another that is drawn at random")
    while len(stage.cast) < count:
        first = not stage.cast
        some = 1 if first else min(AT_ONCE, count - len(stage.cast))
        fresh = [stage.crew.node(f"n{len(stage.cast) + number + 1}") for number in range(some)]
        for node in fresh:
            host = None if first else stage.random.choice(stage.cast)
            stage.show(node, "starting")
            node.start(*settings, join=host.ready["invite"] if host else None)
        for node in fresh:
            node.wait_ready(stage.patience)
            stage.show(node, "up")
        stage.cast += fresh


def settle(stage: Field) -> Shape:
    """Wait for a mesh that is connected, in which all have their links and guests have left."""
    budget = len(stage.cast) * LINKS_MAX / 2
    least = min(LINKS_MIN, len(stage.cast) - 1)

    def is_settled() -> bool:
        shape = shape_of(stage.cast)
        is_whole = shape.components == 1 and min(shape.degrees) >= least
        return is_whole and len(shape.pairs) <= budget

    def what() -> str:
        shape = shape_of(stage.cast)
        parts, fewest = shape.components, min(shape.degrees)
        return (
            f"one mesh ({parts} parts), {least} links each (one has {fewest}), "
            f"at most {budget:g} in all ({len(shape.pairs)})"
        )

    stage.until(is_settled, what)
    shape = shape_of(stage.cast)
    told = shape.as_json()
    stage.step(f"one mesh of {told['links']} links; a full mesh would have {told['full_mesh']}")
    require(told["links"] < told["full_mesh"], "everybody is linked to everybody")
    return shape


def trace(stage: Field, nodes: Sequence[Node]) -> Json:
    """Trace the way between random pairs; every trace has to arrive."""

    def ask(pair: tuple[Node, Node]) -> Json | str:
        one, other = pair
        try:
            return stage.ask(one, "POST", "/trace", {"peer": other.peer_id})
        except Failed as failure:
            return f"{one.name} → {other.name}: {failure}"

    with ThreadPoolExecutor(AT_ONCE) as pool:
        answers = list(pool.map(ask, stage.some(nodes, TRACES)))
    failures = [answer for answer in answers if isinstance(answer, str)]
    require(not failures, f"{len(failures)} of {TRACES} traces failed, {failures[:1]}")
    found = [answer for answer in answers if not isinstance(answer, str)]
    hops = [len(answer["hops"]) for answer in found]
    rtts = [answer["rtt"] for answer in found]
    stage.step(
        f"{len(found)} of {TRACES} traces between random pairs arrive: "
        f"{fmean(hops):.2f} hops on average, {max(hops)} at most"
    )
    return {
        "asked": TRACES,
        "answered": len(found),
        "hops": {"mean": fmean(hops), "max": max(hops)},
        "rtt": {"median": median(rtts), "max": max(rtts)},
    }


def listen(stage: Field) -> None:
    """Subscribe everywhere, and return once a first message has reached everybody."""
    for start in range(0, len(stage.cast), AT_ONCE):
        for node in stage.cast[start : start + AT_ONCE]:
            stage.ears[node.name] = node.subscribe(TOPIC)
        for node in stage.cast[start : start + AT_ONCE]:
            _hear_itself(stage, node)


def _hear_itself(stage: Field, node: Node) -> None:
    """A subscription is alive when it hears what its own node publishes."""
    probe = f"probe {node.name} {os.urandom(4).hex()}"

    def hears() -> bool:
        stage.ask(node, "POST", "/publish", {"topic": TOPIC, "data": probe})
        time.sleep(0.2)
        return has_heard(stage.ears[node.name], probe)

    stage.until(hears, lambda: f"{node.name} never subscribed")


def has_heard(ear: Process, text: str) -> bool:
    """Whether a subscription has printed this text."""
    return any(text in line for line in list(ear.out.all))


def announce(stage: Field, speaker: Node, ears: Sequence[Node], what: str) -> float:
    """One message by `speaker`, that all of `ears` have to hear; the seconds until then."""
    text = f"{what} {os.urandom(4).hex()}"
    deaf = {node.name: node for node in ears}
    begun = time.monotonic()
    stage.ask(speaker, "POST", "/publish", {"topic": TOPIC, "data": text})
    while deaf:
        for name in [name for name in deaf if has_heard(stage.ears[name], text)]:
            stage.show(deaf.pop(name), "heard")
        names = " ".join(deaf)
        require(time.monotonic() < begun + stage.patience, f"{names} never heard {what!r}")
        time.sleep(0.05)
    seconds = time.monotonic() - begun
    stage.step(f"{speaker.name} publishes {what!r}: all {len(ears)} hear it within {seconds:.1f} s")
    return seconds


def kill_half(stage: Field) -> list[Node]:
    """SIGKILL to half of them at one moment, the creator among them; the survivors."""
    creator, *others = stage.cast
    doomed = [creator, *stage.random.sample(others, len(stage.cast) // 2 - 1)]
    for node in doomed:
        assert node.process is not None
        node.process.signal(signal.SIGKILL)
    for node in doomed:
        stage.show(node, "killed")
    return [node for node in stage.cast if node not in doomed]


def bury(stage: Field, survivors: Sequence[Node]) -> None:
    """Collect what is left of the others."""
    for node in stage.cast:
        if node not in survivors:
            node.close()


def repaired(stage: Field, survivors: Sequence[Node], killed_at: float) -> Shape:
    """Wait until the survivors are one mesh, each with links enough and none to the dead."""
    living = {node.peer_id for node in survivors}
    least = min(LINKS_MIN, len(survivors) - 1)

    def is_repaired() -> bool:
        shape = shape_of(survivors)
        if shape.components > 1 or min(shape.degrees) < least:
            return False
        told = [stage.ask(node, "GET", "/peers")["peers"] for node in survivors]
        return all(peer["peer_id"] in living for peers in told for peer in peers)

    def what() -> str:
        shape = shape_of(survivors)
        return f"survivors in one mesh ({shape.components} parts), each with {least} links"

    stage.until(is_repaired, what)
    shape, seconds = shape_of(survivors), time.monotonic() - killed_at
    stage.step(f"{seconds:.0f} s after: one mesh of {len(shape.pairs)} links, none to the dead")
    for node in survivors:
        errors = stage.ask(node, "GET", "/status")["internal_errors"]
        require(errors == 0, f"{node.name} counts {errors} internal errors")
    return shape


def play(stage: Field, options: argparse.Namespace) -> None:
    """The whole demonstration; raises `Failed` at the first thing that does not hold."""
    assemble(stage, options.nodes, ALONE if options.no_links else SETTINGS)
    before = settle(stage).as_json() | {"traces": trace(stage, stage.cast)}
    listen(stage)
    announce(stage, stage.cast[-1], stage.cast, "all are here")
    survivors = kill_half(stage)
    killed_at = time.monotonic()
    if options.freeze_one:
        survivors[0].freeze()
    stage.step(f"half of them die at one moment: {len(survivors)} are left")
    heard_after = announce(stage, survivors[-1], survivors, "we go on")
    bury(stage, survivors)
    if options.freeze_later:
        survivors[0].freeze()
    after = repaired(stage, survivors, killed_at).as_json()
    repaired_after = time.monotonic() - killed_at
    after |= {"traces": trace(stage, survivors)}
    announce(stage, survivors[0], survivors, "all is well")
    killed = len(stage.cast) - len(survivors)
    stage.told = {**before, "killed": killed, "heard": len(survivors), "after": after}
    stage.told |= {"heard_after": heard_after, "repaired_after": repaired_after}
    stage.close(table_of({"before": before, "after": after}))


def table_of(moments: dict[str, Json]) -> Table:
    """Both meshes side by side."""
    table = Table(show_edge=False)
    for column in ("", "nodes", "links", "full mesh", "links a node", "hops", "trace"):
        table.add_column(column, justify="left" if not column else "right")
    for name, told in moments.items():
        degree, hops, rtt = told["degree"], told["traces"]["hops"], told["traces"]["rtt"]
        table.add_row(
            name,
            str(told["nodes"]),
            str(told["links"]),
            str(told["full_mesh"]),
            f"{degree['min']} … {degree['mean']:.1f} … {degree['max']}",
            f"{hops['mean']:.2f}, at most {hops['max']}",
            f"{1000 * rtt['median']:.1f} ms",
        )
    return table


def options_of(text: str | None) -> argparse.Namespace:
    """What it can be told."""
    parser = argparse.ArgumentParser(description=text)
    parser.add_argument("--nodes", type=int, default=NODES, help="how many play (default: 60)")
    parser.add_argument("--seed", type=int, default=1, help="who invites, asks and dies (1)")
    parser.add_argument(
        "--patience", type=float, default=PATIENCE, help="seconds that a step may take (180)"
    )
    parser.add_argument(
        "--json", action="store_true", help="print what was seen as JSON, the board on stderr"
    )
    parser.add_argument(
        "--freeze-one",
        action="store_true",
        help="stop one survivor before the message: the demonstration has to fail",
    )
    parser.add_argument(
        "--freeze-later",
        action="store_true",
        help="stop one survivor after the message: nobody can mend that, it has to fail",
    )
    parser.add_argument(
        "--no-links",
        action="store_true",
        help="have nobody open links of its own: the demonstration has to fail",
    )
    options = parser.parse_args()
    if options.nodes < 4:
        parser.error("--nodes must be at least 4")
    return options


def main() -> None:
    """Play it; exit 0 only if all of it held."""
    options = options_of(__doc__)
    with curtain(options, Field) as stage:
        stage.patience, stage.random = options.patience, random.Random(options.seed)
        play(stage, options)


if __name__ == "__main__":
    main()
