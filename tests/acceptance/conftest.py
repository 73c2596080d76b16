"""What the acceptance tests share: a crew of node processes that ends with its test."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.nodes import Crew, Node, settled


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A temporary directory with a short name: a Unix socket's path has at most 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="m1-") as directory:
        yield Path(directory)


@pytest.fixture
def crew(short_path: Path) -> Iterator[Crew]:
    with Crew(short_path) as crew:
        yield crew


@pytest.fixture
def pair(crew: Crew) -> list[Node]:
    """Two nodes, the second joined by the first's invite."""
    first = crew.node("a").up()
    second = crew.node("b").up(join=first.invite())
    settled([first, second])
    return [first, second]


@pytest.fixture
def line(crew: Crew) -> list[Node]:
    """A–B–C, linked only through B, and nobody opens a link that no command asked for."""
    quiet = ("--set", "links.auto=false", "--set", "links.direct=false")
    middle = crew.node("b").up(*quiet)
    link = middle.invite("--members", "1")
    ends = [crew.node(name).up(*quiet, join=link) for name in ("a", "c")]
    middle.wait_peers(2)
    return [ends[0], middle, ends[1]]
