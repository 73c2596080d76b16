"""The control socket's connections: few at once, the idle ones first to go, and signs of life."""

import contextlib
import json
import resource
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio

from overlay.errors import CommandFailed, NodeSilent
from overlay.node import client, connections, directory
from overlay.node.client import Client
from overlay.node.connections import SIGN, Connection, Connections, most_connections
from overlay.node.directory import SOCKET, DataDirectory

PATIENCE = 30.0
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


@dataclass
class Accepting:
    """Connections of a data directory's control socket, and clients that connect to it."""

    connections: Connections
    path: Path
    clients: contextlib.AsyncExitStack

    async def client(self, says: bytes = b"") -> trio.SocketStream:
        """A new client, which has said this."""
        stream = await trio.open_unix_socket(str(self.path / SOCKET))
        await self.clients.enter_async_context(stream)
        await stream.send_all(says)
        return stream


@contextlib.asynccontextmanager
async def accepting(path: Path) -> AsyncIterator[Accepting]:
    """Accept, and answer nobody yet."""
    with contextlib.closing(DataDirectory.open(path)) as held:
        accepted = Connections(held.listen())
        async with contextlib.AsyncExitStack() as clients, trio.open_nursery() as nursery:
            nursery.start_soon(accepted.run)
            yield Accepting(accepted, path, clients)
            nursery.cancel_scope.cancel()


async def heard(stream: trio.SocketStream, ending: bytes) -> bytes:
    """All that comes until it ends so, or the connection does."""
    data = b""
    with trio.fail_after(PATIENCE):
        while not data.endswith(ending) and (some := await stream.receive_some()):
            data += some
    return data


async def is_closed(stream: trio.SocketStream) -> bool:
    """Whether the other end has closed the connection and said nothing."""
    with trio.fail_after(PATIENCE):
        return await stream.receive_some() == b""


async def echo(connection: Connection) -> None:
    """Answers a request with itself, and is then idle."""
    while data := await connection.stream.receive_some():
        await connection.stream.send_all(data)


async def test_who_asks_before_there_is_a_server_hears_that_the_node_lives(tmp_path: Path) -> None:
    async with accepting(tmp_path) as here:
        client = await here.client(b"hello")
        assert await heard(client, 2 * SIGN) == 2 * SIGN
        here.connections.serve(echo)
        assert (await heard(client, b"hello")).replace(SIGN, b"") == b"hello"


async def test_no_sign_falls_into_an_answer_that_has_begun(tmp_path: Path) -> None:
    begun = trio.Event()

    async def slowly(connection: Connection) -> None:
        await connection.stream.receive_some()
        accepted.begin(connection)
        await begun.wait()
        accepted.answer(connection)
        await connection.stream.send_all(b"first ")
        await trio.sleep(2 * connections.SIGN_INTERVAL)  # the time in which signs would come
        await connection.stream.send_all(b"second")
        accepted.finish(connection)

    async with accepting(tmp_path) as here:
        accepted = here.connections
        accepted.serve(slowly)
        client = await here.client(b"hello")
        assert await heard(client, SIGN) == SIGN
        begun.set()
        signs, first, rest = (await heard(client, b"second")).partition(b"first ")
        assert signs.replace(SIGN, b"") == b""
        assert (first, rest) == (b"first ", b"second")


async def test_for_one_too_many_the_longest_idle_one_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "most_connections", lambda: 3)

    async def once(connection: Connection) -> None:
        data = await connection.stream.receive_some()
        accepted.begin(connection)
        if data == b"for ever":
            await trio.sleep_forever()
        accepted.answer(connection)
        await connection.stream.send_all(data)
        accepted.finish(connection)
        await trio.sleep_forever()

    async with accepting(tmp_path) as here:
        accepted = here.connections
        accepted.serve(once)
        busy = await here.client(b"for ever")
        assert await heard(busy, SIGN) == SIGN
        idle = [await here.client() for _ in range(8)]
        last = await here.client(b"hello")
        assert await heard(last, b"hello") == b"hello"
        assert all([await is_closed(each) for each in idle[:7]])
        assert await heard(busy, SIGN) == SIGN, "who waits for an answer is not closed"


async def test_where_all_are_at_work_the_next_one_hears_that_the_node_is_busy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "most_connections", lambda: 2)
    async with accepting(tmp_path) as here:
        for _ in range(2):
            assert await heard(await here.client(b"hello"), SIGN) == SIGN
        with pytest.raises(CommandFailed, match="2 commands are under way") as caught:
            await trio.to_thread.run_sync(Client(tmp_path).get, "/status")
        assert caught.value.code == "busy"


@pytest.mark.parametrize(
    ("allowed", "most"), [(32, 8), (8, 4), (1024, 128), (resource.RLIM_INFINITY, 128)]
)
def test_there_are_fewer_than_the_process_may_open(
    monkeypatch: pytest.MonkeyPatch, allowed: int, most: int
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (allowed, allowed))
    assert most_connections() == most


async def test_the_end_gives_answers_under_way_their_time_and_no_more(tmp_path: Path) -> None:
    async with accepting(tmp_path) as here:
        here.connections.serve(echo)
        client = await here.client(b"hello")
        assert await heard(client, b"hello") == b"hello"
        with trio.fail_after(PATIENCE):
            await here.connections.close(0.05)
        assert await is_closed(client)
        with pytest.raises(OSError, match="refused"):
            await here.client()


# --- the client's side -----------------------------------------------------------------------


@contextlib.contextmanager
def saying(path: Path, *parts: bytes, between: float) -> Iterator[None]:
    """A node of few words: these, with so many seconds between them."""
    with contextlib.closing(DataDirectory.open(path)) as held, held.listen() as control:
        over = threading.Event()

        def serve() -> None:
            with contextlib.suppress(OSError):
                talking, _ = control.accept()
                with talking:
                    for part in parts:
                        talking.sendall(part)
                        over.wait(between)
                    over.wait(PATIENCE)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            control.shutdown(socket.SHUT_RDWR)
            thread.join(PATIENCE)


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second of silence is long enough, and the system says that we are asleep."""
    monkeypatch.setattr(client, "SILENCE", 1.0)
    monkeypatch.setattr(client, "states_of", lambda _: {"S"})


@pytest.mark.usefixtures("brief")
def test_a_node_that_gives_signs_may_take_its_time(tmp_path: Path) -> None:
    with saying(tmp_path, *15 * [SIGN], ANSWER, between=0.1):
        assert Client(tmp_path).get("/status") == {}


@pytest.mark.usefixtures("brief")
def test_a_node_that_gives_none_is_silent(tmp_path: Path) -> None:
    with saying(tmp_path, SIGN, between=0.1), pytest.raises(NodeSilent, match="does not answer"):
        Client(tmp_path).get("/status")


@pytest.mark.usefixtures("brief")
def test_a_node_whose_backlog_is_full_is_silent(tmp_path: Path) -> None:
    with contextlib.closing(DataDirectory.open(tmp_path)) as held, held.listen() as control:
        control.listen(0)
        with socket.socket(socket.AF_UNIX) as first:
            first.connect(str(tmp_path / SOCKET))
            with pytest.raises(NodeSilent, match="does not answer"):
                Client(tmp_path).get("/status")


def test_a_node_that_waits_for_the_processor_is_not_silent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "SILENCE", 0.1)
    monkeypatch.setattr(client, "states_of", lambda _: {"S", "R"})
    with saying(tmp_path, b"", ANSWER, between=0.5):
        assert Client(tmp_path).get("/status") == {}


@pytest.mark.usefixtures("brief")
def test_a_stream_goes_on_after_a_silence_that_it_tells_of_once(tmp_path: Path) -> None:
    head = b"HTTP/1.1 200 OK\r\n\r\n"
    row = json.dumps({"n": 1}).encode() + b"\n"
    told: list[str] = []
    with saying(tmp_path, head + b"\n", row, between=2.2), Client(tmp_path).stream("/s") as stream:
        assert next(stream.until(None, told.append)) == {"n": 1}
    assert len(told) == 1
    assert "does not answer" in told[0]


def test_the_system_says_what_a_process_does() -> None:
    assert "R" in directory.states_of("self")
    assert directory.states_of("unknown") == set()
