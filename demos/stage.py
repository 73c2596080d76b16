"""What the demonstrations share: a cast of node processes, and a live board of how they fare.

Each node is a process that is driven by the command line alone, as a user would.
"""

import argparse
import json
import subprocess
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

from demos.links import Link, Pair, linked_pairs, neighbours, read_links
from tests.lab.nodes import Crew, Failed, Json, Node, Process

T = TypeVar("T")
S = TypeVar("S", bound="Stage")
NODES = 16
"""Twice as many as link to everybody (``links.full_mesh``)."""
SETTINGS = (
    *("--set", "links.direct=false"),
    *("--set", "links.guests=5s"),
    *("--set", "invite.members=1"),
)
"""Nobody dials whom no invite named, and an invite names only its issuer: all other links are
negotiated through the mesh. The links of the beginning that gossip has no use for end after 5 s and
not after 30 s, which would be too long for a demonstration."""
SHOWN_MAX = 800
"""Characters of a failure that are shown: it may quote a log, whose end says most."""


class Stage:
    """The cast, and the board that shows how far each of them is."""

    def __init__(self, crew: Crew, live: Live) -> None:
        self.crew = crew
        self.cast: list[Node] = []
        self.ears: dict[str, Process] = {}
        self.told: Json = {}
        """What ``--json`` prints."""
        self._live = live
        self._started = time.monotonic()
        self.state: dict[str, str] = {}
        """How far each of the cast is."""
        self._neighbours: dict[str, str] = {}
        self._steps: list[Text] = []
        self._closing: list[Table] = []

    @property
    def elapsed(self) -> float:
        """Seconds since the curtain rose."""
        return time.monotonic() - self._started

    # --- the board -----------------------------------------------------------------------------

    def step(self, text: str) -> None:
        """Say what happens now: on the board, or in a pipe as a line."""
        line = Text.assemble((f"{self.elapsed:5.1f} s  ", "dim"), text)
        if self._live.console.is_terminal:
            self._steps.append(line)
            self._draw()
        else:
            self._live.console.print(line, soft_wrap=True)

    def show(self, node: Node, state: str) -> None:
        """Say how far one node is."""
        self.state[node.name] = state
        self._draw()

    def kill(self, node: Node) -> None:
        """End it without a goodbye."""
        node.kill()
        self._neighbours[node.name] = ""
        self.show(node, "killed")

    def pairs(self, nodes: Sequence[Node]) -> list[Pair]:
        """Who of these is linked to whom now; the board shows it."""
        pairs = linked_pairs(nodes)
        for node in nodes:
            names = sorted(neighbours(node.name, pairs), key=lambda name: (len(name), name))
            self._neighbours[node.name] = f"{len(names):2} links  {' '.join(names)}"
        self._draw()
        return pairs

    def close(self, table: Table) -> None:
        """The last thing to see."""
        self._closing.append(table)
        self._draw()

    def board(self) -> Table:
        """How each of the cast fares: a line a node."""
        board = Table.grid(padding=(0, 2))
        for name, state in self.state.items():
            board.add_row(Text(f"{name:>5}", style="bold"), self._neighbours.get(name, ""), state)
        return board

    def _draw(self) -> None:
        self._live.update(Group(*self._steps, "", self.board(), *self._closing))

    # --- the cast ------------------------------------------------------------------------------

    def each(self, nodes: Sequence[Node], do: Callable[[Node], T]) -> list[T]:
        """Do something with all nodes at once; the results in their order."""
        with ThreadPoolExecutor(len(nodes)) as pool:
            return list(pool.map(do, nodes))

    def links(self, nodes: Sequence[Node]) -> list[Link]:
        """Every link between these nodes, once its two ends tell it alike."""
        for _ in range(10):
            links = read_links(nodes, self.each(nodes, Node.peers))
            if links is not None:
                return links
        raise Failed("the two ends of a link never told the same of it")

    def node(self, name: str) -> Node:
        """The node of this name."""
        return next(node for node in self.cast if node.name == name)

    def name_of(self, peer_id: str) -> str:
        """Which of the cast this is."""
        return next(node.name for node in self.cast if node.peer_id == peer_id)


def require(condition: bool, text: str) -> None:
    """End the demonstration unless this holds."""
    if not condition:
        raise Failed(text)


def arguments(text: str | None) -> argparse.ArgumentParser:
    """What both demonstrations can be told."""
    parser = argparse.ArgumentParser(description=text)
    parser.add_argument("--nodes", type=int, default=NODES, help="how many play (default: 16)")
    parser.add_argument(
        "--json", action="store_true", help="print what was seen as JSON, the board on stderr"
    )
    parser.add_argument(
        "--stop-others",
        action="store_true",
        help="stop all others while two nodes connect: the demonstration has to fail",
    )
    return parser


@contextmanager
def curtain(options: argparse.Namespace, kind: type[S]) -> Iterator[S]:
    """A stage of this kind in a temporary directory; what fails on it is one line and exit 1."""
    console = Console(stderr=options.json)
    try:
        with tempfile.TemporaryDirectory(prefix="demo-") as directory:
            with _ended_line(console), Crew(Path(directory)) as crew, Live(console=console) as live:
                stage = kind(crew, live)
                yield stage
        if options.json:
            print(json.dumps({**stage.told, "seconds": stage.elapsed}))
    except (Failed, subprocess.TimeoutExpired) as failure:
        text = " ".join(str(failure).split())
        text = text if len(text) <= SHOWN_MAX else f"{text[:80]} … {text[80 - SHOWN_MAX :]}"
        console.print(f"it did not hold: {text}", style="bold red", markup=False)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


@contextmanager
def _ended_line(console: Console) -> Iterator[None]:
    """In a pipe the board ends without an end of line."""
    try:
        yield
    finally:
        if not console.is_terminal:
            console.print()
