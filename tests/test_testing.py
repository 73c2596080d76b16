"""The mesh for other people's tests, used as they would: whole nodes, a clock that jumps."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import trio

from overlay import api
from overlay.core.events import Deliver
from overlay.errors import CommandFailed, InviteError
from overlay.testing import Mesh, Violated, World, open_mesh
from tests.docs import sessions

ROOT = Path(__file__).resolve().parents[1]


async def test_a_small_mesh_is_full_and_a_publication_reaches_everybody(mesh: Mesh) -> None:
    nodes = await mesh.nodes(4)
    assert [node.name for node in nodes] == ["n1", "n2", "n3", "n4"]
    for node in nodes:
        assert len(node.peers()) == 3
    feeds = [node.subscribe("news") for node in nodes]
    await nodes[0].publish("news", "hello")
    for feed in feeds:
        message = await anext(feed)
        assert (message.text, message.origin, message.is_text) == ("hello", nodes[0].peer_id, True)


async def test_a_mesh_past_the_full_one_is_connected_and_hears_everything(mesh: Mesh) -> None:
    nodes = await mesh.nodes(14)
    assert min(len(node.peers()) for node in nodes) < 13, "not full"
    feeds = [node.subscribe("news") for node in nodes]
    await nodes[-1].publish("news", b"\xff")
    for feed in feeds:
        assert (await anext(feed)).data == b"\xff"


async def test_an_hour_takes_no_time(mesh: Mesh) -> None:
    a, b = await mesh.nodes(2)
    started, virtual = time.monotonic(), trio.current_time()
    await trio.sleep(600)
    assert trio.current_time() - virtual >= 600 > time.monotonic() - started
    assert await a.ping(b.peer_id) == pytest.approx(0.02)


async def test_a_crashed_node_is_silent_and_one_that_leaves_says_so(mesh: Mesh) -> None:
    a, b, c = await mesh.nodes(3)
    async with a.events() as events:
        await b.leave()
        assert await anext(events) == api.LinkDown(b.peer_id, "n2", "closed")
        before = trio.current_time()
        mesh.crash(c)
        while not isinstance(event := await anext(events), api.LinkDown):
            pass
        assert event.peer_id == c.peer_id
        assert trio.current_time() - before >= 6
    assert a.peers() == []


async def test_a_failed_dial_is_an_event_that_names_the_peer(mesh: Mesh) -> None:
    quiet = {"links.auto": False}
    b = await mesh.node("b", settings=quiet)
    a = await mesh.node("a", join=b, settings=quiet)
    c = await mesh.node("c", join=b, settings=quiet)
    await trio.sleep(5)  # the record comes by gossip
    mesh.unplug(c)
    async with a.events() as events:
        with pytest.raises(CommandFailed):
            await a.connect("c")
        failed = await anext(events)
    assert isinstance(failed, api.DialFailed)
    assert (failed.peer_id, failed.name) == (c.peer_id, "c")
    assert failed.code
    assert failed.text


async def test_a_trace_names_who_it_passes(mesh: Mesh) -> None:
    quiet = {"links.auto": False}
    b = await mesh.node("b", settings=quiet)
    a = await mesh.node("a", join=b, settings=quiet)
    c = await mesh.node("c", join=b, settings=quiet)
    await trio.sleep(5)  # the record comes by gossip
    traced = await a.trace("c")
    assert traced.hops == (b.peer_id, c.peer_id)
    assert traced.rtt == pytest.approx(0.04)
    with pytest.raises(CommandFailed, match="itself"):
        await a.trace("a")


async def test_an_unplugged_node_is_back_when_it_is_plugged_in_again(mesh: Mesh) -> None:
    a, b, _ = await mesh.nodes(3)
    mesh.unplug(b)
    await trio.sleep(10)
    assert [peer.name for peer in a.peers()] == ["n3"]
    assert b.peers() == []
    mesh.replug(b)
    await a.wait(2)
    await a.ping("n2")


async def test_a_cut_link_is_no_cut_mesh(mesh: Mesh) -> None:
    a, b, c = await mesh.nodes(3)
    mesh.cut(a, b)
    await trio.sleep(10)
    assert [peer.name for peer in a.peers()] == ["n3"]
    async with b.subscribe("news") as news:
        await a.publish("news", "around")
        assert (await anext(news)).text == "around"
    mesh.heal(a, b)
    await mesh.settled(a, b, c)


async def test_nodes_of_different_networks_do_not_settle(mesh: Mesh) -> None:
    a, b = await mesh.node(), await mesh.node("stranger")
    with pytest.raises(trio.TooSlowError):
        await mesh.settled(a, b)
    await a.invite()
    with pytest.raises(InviteError, match="belongs to the network"):
        await a.join((await b.invite()).link)


async def test_what_waits_for_a_node_that_leaves_is_told(mesh: Mesh) -> None:
    a, b = await mesh.nodes(2)
    feed = a.subscribe("news")
    await a.leave()
    assert [message async for message in feed] == []
    for call in (a.publish("news", "late"), a.ping(b.peer_id), a.invite(), a.wait(1)):
        with pytest.raises(CommandFailed) as caught:
            await call
        assert caught.value.code == "closed"
    with pytest.raises(CommandFailed):
        a.events()


def test_the_block_may_be_used_without_pytest_and_its_error_comes_out_alone() -> None:
    async def main() -> None:
        async with open_mesh() as mesh:
            await mesh.nodes(2)
            raise LookupError("theirs")

    with pytest.raises(LookupError, match="theirs"):
        trio.run(main)


def test_an_internal_error_fails_the_mesh() -> None:
    async def main() -> None:
        async with open_mesh() as mesh:
            (node,) = await mesh.nodes(1)
            node.internal_errors = 1  # type: ignore[attr-defined]

    with pytest.raises(AssertionError, match="internal errors in n1"):
        trio.run(main)


def run_pytest(directory: Path, source: str, *more: str) -> str:
    """What pytest says of a test file in a project of its own, without `trio_mode`."""
    (directory / "test_theirs.py").write_text(source)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *more],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.stdout + done.stderr


@pytest.mark.slow
def test_the_pages_tests_pass_in_a_project_of_their_own(tmp_path: Path) -> None:
    blocks = sessions.blocks((ROOT / "docs" / "testing.md").read_text(), "python")
    source = "\n".join(body for info, body in blocks if info == "test")
    assert source.count("async def test_") >= 3
    assert source.count("(world)") == 2
    said = run_pytest(tmp_path, source)
    assert re.search(rf"^{source.count('def test_') + 2} passed", said, re.MULTILINE), said
    assert "1 failed" in run_pytest(tmp_path, "async def test_it(mesh):\n    assert not mesh\n")


@pytest.mark.slow
def test_a_world_needs_pytest_alone_and_its_test_can_fail(tmp_path: Path) -> None:
    blocks = sessions.blocks((ROOT / "docs" / "testing.md").read_text(), "python")
    (program,) = [body for _, body in blocks if "(world)" in body and "parametrize" not in body]
    assert len(program.splitlines()) <= 15
    assert "1 passed" in run_pytest(tmp_path, program, "-p", "no:trio")
    wrong = program.replace("world.run_for(10)", "world.run_for(0)")
    assert "1 failed" in run_pytest(tmp_path, wrong, "-p", "no:trio")


def of_a_world(world: World) -> tuple[int, list[list[bytes]]]:
    """What came of a few nodes: who is linked to whom."""
    first = world.spawn()
    world.burst(12, through=first, over=5)
    world.run_for(20)
    return world.events, [sorted(node.neighbours()) for node in world.nodes]


def test_a_world_of_the_same_seed_is_the_same(world: World) -> None:
    assert of_a_world(world) == of_a_world(World(1))


@pytest.mark.parametrize("world", [2], indirect=True)
def test_a_world_of_another_seed_is_another(world: World) -> None:
    assert of_a_world(world) == of_a_world(World(2)) != of_a_world(World(1))


def test_the_promises_of_nodes_are_watched_in_a_world(world: World) -> None:
    node = world.spawn()
    forged = Deliver("t", node.peer_id, b"never published", text=False, hops=1)
    node.core.handle = lambda event, now: [forged]  # type: ignore[method-assign]
    with pytest.raises(Violated, match=r"seed 1, at 0\.0+ s: n0 delivers what nobody"):
        world.publish(node, b"something else")


@pytest.mark.slow
def test_a_project_with_a_mesh_of_its_own_keeps_it(tmp_path: Path) -> None:
    source = """
import pytest

@pytest.fixture
def mesh():
    return "theirs"

def test_it(mesh):
    assert mesh == "theirs"
"""
    assert "1 passed" in run_pytest(tmp_path, source)


@pytest.mark.slow
def test_without_pytest_trio_the_fixture_says_what_is_missing(tmp_path: Path) -> None:
    said = run_pytest(tmp_path, "async def test_it(mesh):\n    pass\n", "-p", "no:trio")
    assert "needs pytest-trio" in said
