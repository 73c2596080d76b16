"""Streams between programs in processes of their own, which are not linked before they talk."""

import json
import sys
from collections.abc import Iterator

import pytest

from overlay.core.stream.frames import CANCELLED
from tests.lab.nodes import Crew, Failed, Json, Node, Process
from tests.node.stream_programs import LARGE, PIECE, PINGS, SERVER

pytestmark = pytest.mark.slow

TIMEOUT = 120.0


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """The node that both programs know and talk past."""
    with Crew(tmp_path_factory.mktemp("hub")) as crew:
        quiet = ("--set", "links.auto=false", "--set", "links.direct=false")
        yield crew.node("hub").up(*quiet)


def program(role: str, name: str, hub: Node) -> Process:
    """One of the two programs, on its way into the mesh of the hub."""
    argv = [sys.executable, "-m", "tests.node.stream_programs", role, name]
    return Process(argv, stdin=hub.invite("--members", "1") + "\n")


def said(process: Process) -> Json:
    """The next line that it prints."""
    try:
        line: Json = json.loads(process.out.next(TIMEOUT))
    except (EOFError, TimeoutError) as error:
        process.err.finish(1.0)
        raise Failed(f"{error}\n{process.log}") from None
    return line


@pytest.fixture(scope="module")
def server(hub: Node) -> Iterator[Process]:
    process = program("serve", SERVER, hub)
    try:
        said(process)
        yield process
    finally:
        process.kill()


@pytest.fixture
def started(hub: Node, server: Process) -> Iterator[list[Process]]:
    """Processes that end with the test."""
    processes: list[Process] = []
    yield processes
    for process in processes:
        process.kill()


def test_a_stream_to_an_unlinked_process_carries_many_bytes_whole(
    hub: Node, started: list[Process]
) -> None:
    started.append(program("large", "writer", hub))
    told = said(started[0])
    assert told == {"before": ["hub"], "peer": SERVER, "negotiated": "mesh", "whole": True}
    assert started[0].popen.wait(30) == 0, started[0].log


def test_a_process_that_stops_reading_costs_its_stream_and_no_other_to_an_unlinked_one(
    hub: Node, started: list[Process]
) -> None:
    started.append(program("stalled", "patient", hub))
    told = said(started[0])
    assert 0 < told["stuck_at"] <= 1 << 20, "credit and buffers, however much there was to send"
    assert told["stuck_at"] < LARGE * len(PIECE) // 4
    assert told["other_whole"], "another stream of the same two went through meanwhile"
    assert told["pings"] == 2 * PINGS
    assert told["whole"], "nothing was lost, either"


def test_streams_that_a_process_gives_up_end_at_the_unlinked_other_with_its_reason(
    hub: Node, server: Process, started: list[Process]
) -> None:
    started.append(program("given-up", "fickle", hub))
    assert said(started[0]) == {"theirs": 18, "afterwards": True}
    assert [said(server)["reset"] for _ in range(2)] == [17, CANCELLED]
