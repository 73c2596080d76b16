"""Streams and requests between whole nodes in memory; what a bad peer costs, and whom."""

import pytest
import trio

import overlay
from overlay import api
from overlay.core.stream.frames import CANCELLED, REFUSED
from overlay.errors import CommandFailed
from overlay.node import streaming
from overlay.testing import Mesh
from overlay.transport.streams import StreamReset

BULK = bytes(range(256)) * 1024


async def upper(peer: str, data: bytes) -> bytes:
    """The handler of most tests."""
    return data.upper()


async def drained(stream: api.Stream) -> None:
    """Read to the end."""
    async for _ in stream:
        pass


async def failing(code: str, call: object) -> str:
    """The text of the CommandFailed with this code that the call ends in."""
    with pytest.raises(CommandFailed) as caught:
        await call  # type: ignore[misc]
    assert caught.value.code == code, caught.value
    return caught.value.text


async def test_a_stream_carries_bytes_both_ways_and_its_ends_one_by_one(mesh: Mesh) -> None:
    a, b = await mesh.nodes(2)
    async with b.accept_streams("bulk") as arriving, trio.open_nursery() as nursery:
        near = await a.open_stream("n2", "bulk")
        assert (near.peer_id, near.protocol) == (b.peer_id, "bulk")
        nursery.start_soon(near.send_all, BULK)
        far = await anext(arriving)
        assert (far.peer_id, far.protocol) == (a.peer_id, "bulk")
        data = b""
        while len(data) < len(BULK):
            data += await far.receive_some()
        assert data == BULK
        await near.send_eof()
        assert await far.receive_some() == b""
        await far.send_all(b"after your end")
        await far.aclose()
        assert await near.receive_some() == b"after your end"
        assert await near.receive_some() == b""
        await near.aclose()


async def test_a_close_that_is_cancelled_does_not_look_like_the_end(mesh: Mesh) -> None:
    """(The counter-test: the same close, not cancelled, does.)"""
    a, b = await mesh.nodes(2)
    async with b.accept_streams("bulk") as arriving:
        for is_cancelled in (True, False):
            with trio.CancelScope() as scope:
                async with await a.open_stream("n2", "bulk") as near:
                    await near.send_all(b"half of it")
                    far = await anext(arriving)
                    assert await far.receive_some() == b"half of it"
                    if is_cancelled:
                        scope.cancel()
            if is_cancelled:
                with pytest.raises(StreamReset) as caught:
                    await far.receive_some()
                assert caught.value.code == CANCELLED
            else:
                assert await far.receive_some() == b""


async def test_a_peer_without_a_link_is_connected_first(mesh: Mesh) -> None:
    quiet = {"links.auto": False}
    b = await mesh.node("b", settings=quiet)
    a = await mesh.node("a", join=b, settings=quiet)
    c = await mesh.node("c", join=b, settings=quiet)
    await trio.sleep(5)  # its record comes by gossip
    assert [peer.name for peer in a.peers()] == ["b"]
    async with trio.open_nursery() as nursery:
        await nursery.start(c.serve, "upper", upper)
        assert await a.request("c", "upper", b"hello") == b"HELLO"
        nursery.cancel_scope.cancel()
    assert {peer.name for peer in a.peers()} == {"b", "c"}


async def test_what_nobody_serves_is_refused_and_what_nobody_is_called_unknown(mesh: Mesh) -> None:
    a, _ = await mesh.nodes(2)
    stream = await a.open_stream("n2", "nothing")
    with pytest.raises(StreamReset) as caught:
        await stream.receive_some()
    assert caught.value.code == REFUSED
    assert "does not serve" in await failing("refused", a.request("n2", "nothing", b""))
    await failing("unknown_peer", a.request("n9", "nothing", b""))
    await failing("self", a.request("n1", "nothing", b""))
    await failing("usage", a.request("n2", "", b""))
    await failing("usage", a.request("n2", "x" * 65, b""))


async def test_requests_are_answered_side_by_side_and_in_full(mesh: Mesh) -> None:
    a, b, c = await mesh.nodes(3)
    answers: dict[str, bytes] = {}

    async def ask(node: api.Node, data: bytes) -> None:
        answers[node.name] = await node.request(b.name, "echo", data)

    async def echo(peer: str, data: bytes) -> bytes:
        await trio.sleep(5)
        return peer.encode() + data

    async with trio.open_nursery() as nursery:
        await nursery.start(b.serve, "echo", echo)
        started = trio.current_time()
        async with trio.open_nursery() as asking:
            asking.start_soon(ask, a, b"")
            asking.start_soon(ask, c, BULK)
        assert trio.current_time() - started < 10
        nursery.cancel_scope.cancel()
    assert answers == {"n1": a.peer_id.encode(), "n3": c.peer_id.encode() + BULK}
    await failing("refused", a.request("n2", "echo", b"it is over"))


async def test_a_handlers_refusal_is_raised_where_the_request_was_made(mesh: Mesh) -> None:
    a, b = await mesh.nodes(2)

    async def refuse(peer: str, data: bytes) -> bytes:
        raise CommandFailed("no_such_file", "there is no such file")

    async with trio.open_nursery() as nursery:
        await nursery.start(b.serve, "files", refuse)
        assert await failing("no_such_file", a.request("n2", "files", b"")) == (
            "there is no such file"
        )
        with pytest.raises(CommandFailed, match="accepted already"):
            await b.serve("files", refuse)
        nursery.cancel_scope.cancel()


async def test_a_bug_in_a_handler_comes_out_where_it_was_started(mesh: Mesh) -> None:
    a, b = await mesh.nodes(2)

    async def broken(peer: str, data: bytes) -> bytes:
        raise ZeroDivisionError("a bug")

    with pytest.RaisesGroup(ZeroDivisionError, flatten_subgroups=True):
        async with trio.open_nursery() as nursery:
            await nursery.start(b.serve, "broken", broken)
            await failing("failed", a.request("n2", "broken", b""))
    await a.ping("n2")


async def test_requests_and_replies_have_a_size_and_a_time(
    mesh: Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = await mesh.nodes(2)
    large = bytes(streaming.MAX_REQUEST + 1)

    async def answer(peer: str, data: bytes) -> bytes:
        if data == b"sleep":
            await trio.sleep(100)
        return large

    async with trio.open_nursery() as nursery:
        await nursery.start(b.serve, "s", answer)
        await failing("too_large", a.request("n2", "s", large))
        await failing("too_large", a.request("n2", "s", b"reply"))
        await failing("timeout", a.request("n2", "s", b"sleep", timeout=1.0))
        stream = await a.open_stream("n2", "s")
        with pytest.raises(trio.BrokenResourceError):
            await stream.send_all(100 * BULK)
        nursery.cancel_scope.cancel()


async def test_half_requests_cost_their_sender_and_nobody_else(mesh: Mesh) -> None:
    a, b, c = await mesh.nodes(3)
    async with trio.open_nursery() as nursery:
        await nursery.start(b.serve, "upper", upper)
        halves = [await a.open_stream("n2", "upper") for _ in range(100)]
        for stream in halves:
            await stream.send_all(b"half")
        await trio.sleep(1)
        assert "too much to do" in await failing("busy", a.request("n2", "upper", b"more"))
        assert await c.request("n2", "upper", b"mine") == b"MINE"
        await trio.sleep(streaming.REQUEST_TIMEOUT + 1)
        assert await a.request("n2", "upper", b"again") == b"AGAIN"
        nursery.cancel_scope.cancel()


async def test_a_reply_that_nobody_takes_is_given_up(mesh: Mesh) -> None:
    a, b = await mesh.nodes(2)

    async def bulk(peer: str, data: bytes) -> bytes:
        return 4 * BULK

    async with trio.open_nursery() as nursery:
        await nursery.start(b.serve, "bulk", bulk)
        stream = await a.open_stream("n2", "bulk")
        await stream.send_eof()
        await trio.sleep(2 * streaming.REQUEST_TIMEOUT + 10)
        with pytest.raises(StreamReset):
            await drained(stream)
        nursery.cancel_scope.cancel()


async def test_streams_that_nobody_accepts_wait_up_to_a_limit_and_end_with_it(mesh: Mesh) -> None:
    a, b = await mesh.nodes(2)
    arriving = b.accept_streams("slow")
    streams = [await a.open_stream("n2", "slow") for _ in range(streaming.MAX_ARRIVALS + 1)]
    with pytest.raises(StreamReset, match="too many"):
        await streams[-1].receive_some()
    arriving.close()
    with pytest.raises(StreamReset, match="does not serve"):
        await streams[0].receive_some()


async def test_a_node_that_leaves_ends_what_it_serves_and_what_is_asked_of_it(mesh: Mesh) -> None:
    a, b = await mesh.nodes(2)

    async def never(peer: str, data: bytes) -> bytes:
        await trio.sleep_forever()
        raise AssertionError

    async with trio.open_nursery() as nursery:
        await nursery.start(b.serve, "never", never)
        nursery.start_soon(failing, "failed", a.request("n2", "never", b""))
        await trio.sleep(1)
        async with b.accept_streams("other") as others:
            await b.leave()
            assert [stream async for stream in others] == []
    with pytest.raises(CommandFailed):
        b.accept_streams("late")


@pytest.mark.parametrize(
    "reply",
    [b"", b"\x02", b"\x01", b"\x01[]", b"\x01{", b"\x01" + b"[" * 5000, b'\x01{"code": 1}'],
    ids=repr,
)
async def test_a_reply_of_any_bytes_is_an_answer_or_a_failure(mesh: Mesh, reply: bytes) -> None:
    a, b = await mesh.nodes(2)

    async def ask() -> None:
        await failing("protocol", a.request("n2", "odd", b""))

    async with b.accept_streams("odd") as arriving, trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        stream = await anext(arriving)
        await stream.send_all(reply)
        await stream.aclose()


async def test_over_sockets_it_is_the_same() -> None:
    async with (
        overlay.open_node(name="ada", listen="127.0.0.1:0") as ada,
        overlay.open_node(name="bob", listen="127.0.0.1:0") as bob,
        trio.open_nursery() as nursery,
    ):
        await nursery.start(ada.serve, "upper", upper)
        await bob.join((await ada.invite()).link)
        assert await bob.request("ada", "upper", b"x" * len(BULK)) == b"X" * len(BULK)
        nursery.cancel_scope.cancel()
