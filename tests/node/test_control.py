"""The control API over its real socket, in front of a node whose core is scripted."""

import contextlib
import http.client
import json
import random
import socket
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from overlay import api
from overlay.core.events import (
    Connect,
    Deliver,
    PingPeer,
    Publish,
    Rejected,
    Resolved,
    Traced,
    TracePeer,
)
from overlay.core.overlay import Overlay
from overlay.core.types import PeerId
from overlay.errors import CommandFailed, NoNode, UsageError
from overlay.identity import Identity, peer_id_text
from overlay.node import client, control
from overlay.node.client import Client
from overlay.node.config import of_settings
from overlay.node.directory import DataDirectory, socket_address
from overlay.node.node import Dependencies, Node
from overlay.node.store import Forgetful
from overlay.transport.interface import TransportEffect

PEER = PeerId(b"p" * 32)


class IdleTransport:
    """Links nobody."""

    internal_errors = 0
    heard = True

    def perform(self, effect: TransportEffect) -> None: ...

    def clock_set(self, wall: float) -> None: ...

    async def open_stream(self, link: int, protocol: str, priority: int) -> Any:
        raise AssertionError("there are no links")

    def statistics(self, link: int) -> None:
        return None

    def description(self, link: int) -> None:
        return None


class ScriptedOverlay(Overlay):
    """A real core with nobody around, except for the commands that a test answers itself."""

    script: Callable[[Any], list[Any] | None] = staticmethod(lambda event: None)

    def handle(self, event: Any, now: float) -> list[Any]:
        answer = self.script(event)
        return super().handle(event, now) if answer is None else answer


class Served:
    """A node behind a control socket, and a client before it; calls go through threads."""

    def __init__(self, directory: DataDirectory) -> None:
        transport: Any = IdleTransport()
        config = of_settings({"name": "tester", "network.name": "home"})
        given = Dependencies(random=random.Random(1), make_core=ScriptedOverlay)
        self.node = Node(config, Identity.generate(), Forgetful(), transport, given)
        core: Any = self.node.core
        self.core: ScriptedOverlay = core
        self.directory = directory
        self.client = Client(directory.path)

    async def get(self, path: str) -> Any:
        return await trio.to_thread.run_sync(self.client.get, path)

    async def post(self, path: str, body: dict[str, Any]) -> Any:
        return await trio.to_thread.run_sync(self.client.post, path, body)

    async def raw(self, request: bytes) -> tuple[int, Any]:
        """Status and body of the answer to these very bytes."""

        def ask() -> tuple[int, Any]:
            with socket.socket(socket.AF_UNIX) as client, socket_address(self.directory.path) as at:
                client.settimeout(30.0)
                client.connect(at)
                client.sendall(request)
                response = http.client.HTTPResponse(client)
                response.begin()
                return response.status, json.loads(response.read())

        return await trio.to_thread.run_sync(ask)


@contextlib.asynccontextmanager
async def count(node: api.Node, topic: str) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
    """An application that counts as far as its topic says, and then fails."""

    async def rows() -> AsyncIterator[dict[str, Any]]:
        for number in range(int(topic)):
            yield {"number": number, "at": node.name}
        raise CommandFailed("tired", "no further")

    yield rows()


@contextlib.asynccontextmanager
async def serving(path: Path) -> AsyncIterator[Served]:
    with contextlib.closing(DataDirectory.open(path)) as directory:
        served = Served(directory)
        async with trio.open_nursery() as nursery:
            await nursery.start(served.node.driver.run)
            await nursery.start(control.serve, served.node, directory.listen(), {"count": count})
            yield served
            nursery.cancel_scope.cancel()


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    async with serving(tmp_path) as served:
        yield served


async def test_status_and_peers_answer_with_objects(served: Served) -> None:
    status = await served.get("/status")
    assert status["peer_id"] == served.node.peer_id
    assert (status["name"], status["network"], status["links"]) == ("tester", "home", 0)
    told = await served.get("/peers")
    assert told["peers"] == []
    assert told["self"] == {"peer_id": served.node.peer_id, "name": served.node.name}


async def test_a_command_that_the_core_rejects_keeps_its_code_and_text(served: Served) -> None:
    text = "nobody answers: is it running?"

    def script(event: Any) -> list[Any] | None:
        if isinstance(event, Connect | PingPeer):
            return [Rejected(event.request, "unreachable", text)]
        return None

    served.core.script = script
    with pytest.raises(CommandFailed, match=r"nobody answers") as caught:
        await served.post("/connect", {"peer": peer_id_text(PEER)})
    assert caught.value.code == "unreachable"


@pytest.mark.parametrize("peer", ["nobody", "", "12D3KooW", "\x1b[2J"])
async def test_a_peer_that_nobody_knows_is_a_usage_error(served: Served, peer: str) -> None:
    served.core.script = lambda event: None
    if peer == "12D3KooW":  # a prefix of our own id: that is this node itself
        with pytest.raises(UsageError, match="itself"):
            await served.post("/connect", {"peer": peer})
        return
    with pytest.raises(UsageError, match="no peer that this node knows") as caught:
        await served.post("/ping", {"peer": peer})
    assert "\x1b" not in str(caught.value)


async def test_a_trace_is_told_as_hops_and_a_round_trip(served: Served) -> None:
    way = (PeerId(b"h" * 32), PEER)

    def script(event: Any) -> list[Any] | None:
        return (
            [Resolved(event.request, Traced(way, 0.25))] if isinstance(event, TracePeer) else None
        )

    served.core.script = script
    assert await served.post("/trace", {"peer": peer_id_text(PEER)}) == {
        "hops": [peer_id_text(hop) for hop in way],
        "rtt": 0.25,
    }
    with pytest.raises(UsageError, match="itself"):
        await served.post("/trace", {"peer": "tester"})


async def test_publish_takes_text_or_bytes(served: Served) -> None:
    seen: list[Publish] = []

    def script(event: Any) -> list[Any] | None:
        if isinstance(event, Publish):
            seen.append(event)
            return [Resolved(event.request, b"\x01" * 16)]
        return None

    served.core.script = script
    assert await served.post("/publish", {"topic": "t", "data": "grüße"}) == {
        "message_id": "01" * 16
    }
    await served.post("/publish", {"topic": "t", "data_b64": "/wA="})
    assert [(event.data, event.text) for event in seen] == [
        ("grüße".encode(), True),
        (b"\xff\x00", False),
    ]
    for wrong in ({"topic": "t"}, {"topic": "t", "data": "", "data_b64": ""},
                  {"topic": "t", "data_b64": "!"}, {"data": "x"}):  # fmt: skip
        with pytest.raises(UsageError):
            await served.post("/publish", wrong)


@pytest.mark.parametrize(
    "request_",
    [
        b"GET /nowhere HTTP/1.1\r\nHost: node\r\n\r\n",
        b"DELETE /status HTTP/1.1\r\nHost: node\r\n\r\n",
        b"GET /subscribe HTTP/1.1\r\nHost: node\r\n\r\n",
        b"POST /connect HTTP/1.1\r\nHost: node\r\nContent-Length: 2\r\n\r\n{]",
        b"POST /connect HTTP/1.1\r\nHost: node\r\nContent-Length: 2\r\n\r\n{}",
        b'POST /wait HTTP/1.1\r\nHost: node\r\nContent-Length: 11\r\n\r\n{"peers":""}',
        b'POST /leave HTTP/1.1\r\nHost: node\r\nContent-Length: 13\r\n\r\n{"surely": 1}',
        b"POST /publish HTTP/1.1\r\nHost: node\r\nContent-Length: 1048577\r\n\r\n" + 1048577 * b"x",
    ],
    ids=lambda request: request.split(b"\r\n")[0].decode() + f", {len(request)}",
)
async def test_a_wrong_request_is_400_and_says_why(served: Served, request_: bytes) -> None:
    status, body = await served.raw(request_)
    assert status == 400
    assert body["error"]["code"] == "usage"
    assert body["error"]["text"]
    assert not served.node.leaving.is_set()


async def test_a_bug_in_an_answer_is_counted_and_the_node_lives_on(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> Any:
        raise AssertionError("a bug")

    whole, served.node.status = served.node.status, broken  # type: ignore[method-assign]
    with pytest.raises(CommandFailed, match="bug") as caught:
        await served.get("/status")
    assert caught.value.code == "internal"
    assert "internal error" in caplog.text
    served.node.status = whole  # type: ignore[method-assign]
    assert (await served.get("/status"))["internal_errors"] == 1


async def test_wait_times_out_with_what_there_is(served: Served) -> None:
    assert await served.post("/wait", {"peers": 0}) == {"links": 0}
    with pytest.raises(CommandFailed, match="only 0 of 1") as caught:
        await served.post("/wait", {"peers": 1, "timeout": 0.05})
    assert caught.value.code == "timeout"


async def test_without_a_link_a_publication_waits_for_one_if_told_to(served: Served) -> None:
    published: list[Publish] = []

    def script(event: Any) -> list[Any] | None:
        if isinstance(event, Publish):
            published.append(event)
            return [Resolved(event.request, b"\x01" * 16)]
        return None

    served.core.script = script
    with pytest.raises(CommandFailed, match="nothing is published") as caught:
        await served.post("/publish", {"topic": "t", "data": "x", "timeout": 0.05})
    assert caught.value.code == "not_linked"
    with pytest.raises(UsageError, match="printable"):
        await served.post("/publish", {"topic": "", "data": "x", "timeout": 1e6})
    assert published == []
    served.node.links = lambda: 1  # type: ignore[method-assign]
    await served.post("/publish", {"topic": "t", "data": "x", "timeout": 1e6})
    assert len(published) == 1


async def test_a_body_that_never_comes_whole_is_given_up(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "BODY_TIMEOUT", 0.05)
    half = b'POST /wait HTTP/1.1\r\nHost: node\r\nContent-Length: 11\r\n\r\n{"pe'
    status, body = await served.raw(half)
    assert status == 400
    assert "whole" in body["error"]["text"]


async def test_who_waits_for_long_hears_that_the_node_lives(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client takes a node for stopped that says nothing for as long as these wait."""
    monkeypatch.setattr(client, "SILENCE", 1.5)
    monkeypatch.setattr(client, "states_of", lambda _: {"S"})
    told: list[str] = []

    async def wait() -> None:
        with pytest.raises(CommandFailed, match="only 0 of 1"):
            await served.post("/wait", {"peers": 1, "timeout": 2.5})

    def listen() -> None:
        with served.client.stream("/subscribe?topic=news") as stream:
            assert list(stream.until(time.monotonic() + 2.5, told.append)) == []

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        nursery.start_soon(trio.to_thread.run_sync, listen)
    assert told == []


@pytest.mark.parametrize(
    "body", [{"expires": 0}, {"expires": -1}, {"expires": 1e9}, {"members": 0}, {"members": 5}]
)
async def test_an_invite_out_of_range_is_refused(served: Served, body: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        await served.post("/invite", body)


async def test_a_subscription_is_live_once_its_head_has_come(served: Served) -> None:
    message = Deliver("news", PEER, b"\xff", text=False, hops=1)
    served.core.script = lambda event: [message] if isinstance(event, Publish) else None
    heard: list[Any] = []
    subscribed = trio.Event()
    token = trio.lowlevel.current_trio_token()

    def listen() -> None:
        with served.client.stream("/subscribe?topic=news") as stream:
            token.run_sync_soon(subscribed.set)
            heard.append(next(stream.until(None)))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.to_thread.run_sync, listen)
        await subscribed.wait()
        served.node.driver.emit(Publish(0, "news", b"", text=True))  # type: ignore[arg-type]
    (line,) = heard
    assert set(line) == {"topic", "from", "data_b64", "received_at"}
    assert (line["topic"], line["from"], line["data_b64"]) == ("news", peer_id_text(PEER), "/w==")


async def test_a_subscription_ends_with_the_node_and_with_its_reader(served: Served) -> None:
    ended = trio.Event()
    token = trio.lowlevel.current_trio_token()

    def glance() -> None:
        with served.client.stream("/subscribe?topic=news"):
            assert len(served.node.driver._subscriptions) == 1

    def listen() -> None:
        with served.client.stream("/subscribe?topic=news") as stream:
            assert list(stream.until(None)) == []
        token.run_sync_soon(ended.set)

    async def until(count: int) -> None:
        with trio.fail_after(30):
            while len(served.node.driver._subscriptions) != count:  # noqa: ASYNC110 (a test may poll)
                await trio.sleep(0.01)

    await trio.to_thread.run_sync(glance)
    await until(0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.to_thread.run_sync, listen)
        await until(1)
        served.node.leaving.set()
        with trio.fail_after(30):
            await ended.wait()


async def test_an_application_is_reached_by_its_name_and_tells_row_by_row(served: Served) -> None:
    rows: list[Any] = []

    def listen() -> None:
        with served.client.stream("/count?topic=2") as stream:
            rows.extend(stream.until(None))

    with pytest.raises(CommandFailed) as failed:
        await trio.to_thread.run_sync(listen)
    first, second = rows
    assert (first, second["number"]) == ({"number": 0, "at": "tester"}, 1)
    assert (failed.value.code, failed.value.text) == ("tired", "no further")
    with pytest.raises(UsageError):
        await served.get("/count")


async def test_leave_is_answered_before_the_node_goes(served: Served) -> None:
    assert await served.post("/leave", {}) == {"leaving": True}
    assert served.node.leaving.is_set()


def test_without_a_node_the_client_says_so(tmp_path: Path) -> None:
    for directory in (tmp_path, tmp_path / "none"):
        with pytest.raises(NoNode, match="overlay up"):
            Client(directory).get("/status")


def test_a_stale_socket_is_no_node(tmp_path: Path) -> None:
    directory = DataDirectory.open(tmp_path)
    directory.listen().close()
    with pytest.raises(NoNode):
        Client(tmp_path).get("/status")
    directory.close()


def test_a_node_that_does_not_answer_is_a_failure_and_not_a_hang(tmp_path: Path) -> None:
    with contextlib.closing(DataDirectory.open(tmp_path)) as directory, directory.listen():
        with pytest.raises(CommandFailed, match="does not answer"):
            Client(tmp_path).get("/status", timeout=0.05)
