"""The chat room, in a mesh in memory: who comes, who goes, who only falls silent."""

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from overlay import api
from overlay.apps import chat
from overlay.testing import Mesh


class Reader:
    """Reads a room and keeps what it tells."""

    def __init__(self, rows: AsyncIterator[dict[str, Any]]) -> None:
        self._rows = rows
        self.told: list[dict[str, Any]] = []

    async def run(self) -> None:
        async for row in self._rows:
            self.told.append(row)

    async def next_of(self, event: str, already: int = 0) -> dict[str, Any]:
        """The row of this kind after the first `already` ones."""
        with trio.fail_after(300):
            while True:
                found = [row for row in self.told if row["event"] == event]
                if len(found) > already:
                    return found[already]
                await trio.sleep(0.05)


@asynccontextmanager
async def rooms(*nodes: api.Node) -> AsyncIterator[list[Reader]]:
    """A room of the topic `lobby` at each node, read all the time."""
    async with AsyncExitStack() as stack, trio.open_nursery() as nursery:
        readers = []
        for node in nodes:
            readers.append(Reader(await stack.enter_async_context(chat.rows(node, "lobby"))))
            nursery.start_soon(readers[-1].run)
        yield readers
        nursery.cancel_scope.cancel()


async def test_everybody_learns_who_is_there_whoever_came_first(mesh: Mesh) -> None:
    nodes = await mesh.nodes(3)
    names = {node.name for node in nodes}
    async with rooms(*nodes) as readers:
        for node, reader in zip(nodes, readers, strict=True):
            entered = await reader.next_of("entered")
            assert (entered["topic"], entered["name"]) == ("lobby", node.name)
            others = {(await reader.next_of("here", n))["name"] for n in range(2)}
            assert others == names - {node.name}


async def test_what_is_said_reaches_all_with_its_name_and_plain_publications_too(
    mesh: Mesh,
) -> None:
    a, b, c = await mesh.nodes(3)
    async with rooms(a, b) as (at_a, at_b):
        await c.publish("lobby", "from outside")
        for reader in (at_a, at_b):
            row = await reader.next_of("said")
            assert (row["name"], row["peer_id"], row["text"]) == ("n3", c.peer_id, "from outside")
        await a.publish("lobby", "own words")
        assert (await at_a.next_of("said", 1))["name"] == "n1"
        async with b.subscribe("lobby") as plain:
            await a.publish("lobby", "heard by subscribers")
            while (await anext(plain)).text != "heard by subscribers":
                pass


async def test_who_leaves_is_gone_at_once_and_who_crashes_after_a_while(mesh: Mesh) -> None:
    a, b, c = await mesh.nodes(3)
    async with rooms(a, c) as (at_a, _):
        async with rooms(b):
            await at_a.next_of("here", 1)
        left = await at_a.next_of("gone")
        assert (left["peer_id"], left["name"], left["why"]) == (b.peer_id, "n2", "left")
        await trio.sleep(3.0)  # c's greeting of b has come, by a graft at the latest
        crashed_at = trio.current_time()
        mesh.crash(c)
        quiet = await at_a.next_of("gone", 1)
        assert (quiet["peer_id"], quiet["why"]) == (c.peer_id, "quiet")
        waited = trio.current_time() - crashed_at
        assert chat.QUIET_AFTER - chat.HERE_INTERVAL <= waited <= chat.QUIET_AFTER + 1


async def test_who_stays_silent_but_present_never_goes(mesh: Mesh) -> None:
    a, b = await mesh.nodes(2)
    async with rooms(a, b) as (at_a, _):
        await trio.sleep(600)
        assert [row["event"] for row in at_a.told] == ["entered", "here"]


async def test_two_terminals_of_one_node_are_one_person(mesh: Mesh) -> None:
    a, b = await mesh.nodes(2)
    async with rooms(a) as (at_a,), rooms(b):
        await at_a.next_of("here")
        async with rooms(b):
            await trio.sleep(5)
        await trio.sleep(5)
        assert [row["event"] for row in at_a.told] == ["entered", "here"]


async def test_a_room_ends_with_its_node(mesh: Mesh) -> None:
    a, b = await mesh.nodes(2)
    async with rooms(a) as (at_a,):
        async with chat.rows(b, "lobby") as room:
            assert (await anext(room))["event"] == "entered"
            await at_a.next_of("here")
            await b.leave()
            assert [row async for row in room if row["event"] != "here"] == []


def test_a_room_shows_no_more_people_than_it_has_room_for() -> None:
    presence = chat.Presence()
    for number in range(chat.PRESENT_MAX + 10):
        for session in range(20):
            presence.hear(f"peer {number}", chat.Notice(f"{session}", here=True), 0.0)
    assert len(presence.heard) == chat.PRESENT_MAX
    assert max(len(sessions) for sessions in presence.heard.values()) == chat.GREETING_ROOM
    assert len(presence.sweep(chat.QUIET_AFTER)) == chat.PRESENT_MAX
    assert not presence.names


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff",
        b"[]",
        b"[" * 100_000,
        b'{"chat": 2, "session": "s", "here": true}',
        b'{"chat": 1, "session": 1, "here": true}',
        b'{"chat": 1, "session": "s", "here": 1}',
        b'{"chat": 1, "session": "", "here": true}',
        json.dumps({"chat": 1, "session": 33 * "s", "here": True}).encode(),
    ],
)
def test_bytes_that_are_no_notice_are_none(data: bytes) -> None:
    assert chat.decode(data) is None


@given(st.binary(max_size=200))
def test_any_bytes_are_read_without_complaint(data: bytes) -> None:
    chat.decode(data)


def test_a_notice_is_read_as_it_was_written_and_a_bad_name_is_none() -> None:
    notice = chat.Notice("s", here=True, name="ada", is_new=True)
    assert chat.decode(chat.encode(notice)) == notice
    for name in (100 * "x", "a\u202eb", "\x1b[2J", " "):
        bad = chat.decode(chat.encode(chat.Notice("s", here=False, name=name)))
        assert bad == chat.Notice("s", here=False, name="")
