"""What the demonstrations share: a cast of node processes, a live board, a closing table.

Each node is a process that is driven by the command line alone, as a user would.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from tests.lab.nodes import Crew, Failed, Json, Node, Process, heard

T = TypeVar("T")
TOPIC = "demo"
NODES = 8
"""As many as link to everybody (``links.full_mesh``)."""
HEARING_TIMEOUT = 10.0
"""Seconds for a message to arrive everywhere (guess: far above the milliseconds it takes)."""


class Stage:
    """The cast, and the board that shows how far each of them is."""

    def __init__(self, crew: Crew, live: Live) -> None:
        self.crew = crew
        self.cast: list[Node] = []
        self._live = live
        self._started = time.monotonic()
        self._state: dict[str, str] = {}
        self._steps: list[str] = []
        self._closing: list[Table] = []

    @property
    def elapsed(self) -> float:
        """Seconds since the curtain rose."""
        return time.monotonic() - self._started

    def step(self, text: str) -> None:
        """Say what happens now."""
        self._steps.append(f"{self.elapsed:5.1f} s  {text}")
        self._draw()

    def show(self, node: Node, state: str) -> None:
        """Say how far one node is."""
        self._state[node.name] = state
        self._draw()

    def _draw(self) -> None:
        board = Table.grid(padding=(0, 2))
        for name, state in self._state.items():
            board.add_row(Text(f"  {name}", style="bold"), state)
        self._live.update(Group(*self._steps, board, *self._closing))

    def close(self, table: Table) -> None:
        """The last thing to see."""
        self._closing.append(table)
        self._draw()

    def each(self, nodes: Sequence[Node], do: Callable[[Node], T]) -> list[T]:
        """Do something with all nodes at once; the results in their order."""
        with ThreadPoolExecutor(len(nodes)) as pool:
            return list(pool.map(do, nodes))

    def settle(self) -> None:
        """Wait until everyone is linked to everyone."""
        others = len(self.cast) - 1

        def wait(node: Node) -> None:
            node.wait_peers(others)
            self.show(node, f"linked to all {others}")

        self.each(self.cast, wait)

    def links(self) -> list["Link"]:
        """Every link once, told by both of its ends alike."""
        lines = self.each(self.cast, Node.peers)
        by_id = {node.peer_id: node for node in self.cast}
        ends = {
            (node.name, by_id[line["peer_id"]].name): line
            for node, told in zip(self.cast, lines, strict=True)
            for line in told
        }
        links = []
        for a, b in [pair for pair in ends if pair[0] < pair[1]]:
            one, other = ends[a, b], ends.get((b, a))
            require(other is not None, f"{a} is linked to {b}, but {b} not to {a}")
            assert other is not None
            require(
                one["negotiated"] == other["negotiated"],
                f"{a} and {b} disagree: {one['negotiated']}, {other['negotiated']}",
            )
            via = by_id[one["via"]].name if one["via"] else "–"
            links.append(Link(a, b, one, via))
        return links

    def listen(self) -> dict[str, Process]:
        """Subscribe everywhere, and return once a first message has reached everybody."""
        ears = {node.name: node.subscribe(TOPIC) for node in self.cast}
        deadline = time.monotonic() + 20.0
        deaf = dict(ears)
        for attempt in range(10):
            text = f"is everybody there? {attempt}"
            self.cast[0].ok("publish", TOPIC, text)
            deaf = {name: ear for name, ear in deaf.items() if not hears(ear, text, 2.0)}
            if not deaf:
                return ears
            require(time.monotonic() < deadline, f"never subscribed: {', '.join(deaf)}")
        raise Failed(f"never subscribed: {', '.join(deaf)}")

    def announce(self, speaker: Node, ears: dict[str, Process], survivors: Sequence[Node]) -> None:
        """One message by `speaker`, which every survivor has to hear."""
        text = f"we go on {os.urandom(4).hex()}"
        speaker.ok("publish", TOPIC, text)
        for node in survivors:
            require(hears(ears[node.name], text, HEARING_TIMEOUT), f"{node.name} heard nothing")
            self.show(node, f"heard {speaker.name} say {text!r}")

    def no_internal_errors(self, nodes: Sequence[Node]) -> None:
        """Every one of them must have got here without a single fault of its own."""
        for node, status in zip(nodes, self.each(nodes, lambda n: n.json("status")), strict=True):
            errors = status["internal_errors"]
            require(errors == 0, f"{node.name} counts {errors} internal errors")


class Link:
    """One link as its two ends tell it."""

    def __init__(self, a: str, b: str, facts: Json, via: str) -> None:
        self.a, self.b, self.facts, self.via = a, b, facts, via

    @property
    def negotiated(self) -> str:
        """``invite``, ``direct``, ``mesh``, ``cache`` or ``manual``."""
        return str(self.facts["negotiated"])


def require(condition: bool, text: str) -> None:
    """End the demonstration unless this holds."""
    if not condition:
        raise Failed(text)


def hears(ear: Process, text: str, timeout: float) -> bool:
    """Whether this text arrives in time at a subscription that is still running."""
    try:
        heard(ear, text, timeout)
    except (TimeoutError, EOFError):
        return False
    return True


def table_of(links: Sequence[Link]) -> Table:
    """Who is linked to whom, and how that came about."""
    table = Table(title=f"{len(links)} links")
    for column in ("link", "negotiated", "via", "hops", "path", "since", "rtt"):
        table.add_column(column, justify="right" if column in {"hops", "since", "rtt"} else "left")
    begun = min((link.facts["since"] for link in links), default=0.0)
    for link in sorted(links, key=lambda link: float(link.facts["since"])):
        rtt = link.facts["rtt"]
        table.add_row(
            f"{link.a} – {link.b}",
            link.negotiated,
            link.via,
            str(link.facts["hops"]),
            link.facts["path"],
            f"+{link.facts['since'] - begun:.2f} s",
            "–" if rtt is None else f"{rtt * 1000:.1f} ms",
        )
    return table


def arguments(text: str | None) -> argparse.ArgumentParser:
    """What both demonstrations can be told."""
    parser = argparse.ArgumentParser(description=text)
    parser.add_argument("--nodes", type=int, default=NODES, help="how many play (default: 8)")
    return parser


@contextmanager
def curtain() -> Iterator[Stage]:
    """A stage in a temporary directory; what fails on it is one line and exit 1."""
    console = Console()
    try:
        with tempfile.TemporaryDirectory(prefix="demo-") as directory:
            with Crew(Path(directory)) as crew, Live(console=console) as live:
                yield Stage(crew, live)
    except Failed as failure:
        console.print(f"it did not hold: {failure}", style="bold red", markup=False)
        sys.exit(1)
