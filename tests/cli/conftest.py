"""What the tests of the command line share: real processes, gone when their test ends."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.nodes import Crew, Node, settled


@pytest.fixture
def crew(tmp_path: Path) -> Iterator[Crew]:
    with Crew(tmp_path) as crew:
        yield crew


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Node]]:
    """Two linked nodes, `a` and `b`, for all tests of a module that only ask."""
    with Crew(tmp_path_factory.mktemp("pair")) as crew:
        first = crew.node("a").up()
        second = crew.node("b").up(join=first.invite())
        settled([first, second])
        yield [first, second]
