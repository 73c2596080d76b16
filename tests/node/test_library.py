"""`overlay.open_node`: a node in somebody's program, over real sockets and in real directories."""

import itertools
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import trio

import overlay
from overlay import api
from overlay.core.overlay import Overlay
from overlay.errors import CommandFailed, ConfigError, InviteError

LOOPBACK = "127.0.0.1:0"
PATIENCE = 30.0


def opened(name: str, **more: Any) -> Any:
    return overlay.open_node(name=name, listen=LOOPBACK, **more)


async def until_heard(node: api.Node, feed: api.Feed[api.Message], text: str) -> None:
    """Publish until it is heard: a link is up a moment before gossip flows over it."""
    for number in itertools.count():
        await node.publish("news", f"{text} {number}")
        with trio.move_on_after(0.1):
            while (await anext(feed)).text != f"{text} {number}":
                pass
            return


async def test_two_nodes_meet_by_an_invite_and_talk() -> None:
    async with opened("ada", settings={"network.name": "home"}) as ada, opened("bob") as bob:
        link = (await ada.invite(expires=60, members=1)).link
        async with ada.events() as events, bob.subscribe("news") as news:
            await bob.join(link)
            with trio.fail_after(PATIENCE):
                assert await anext(events) == api.LinkUp(bob.peer_id, "bob")
                await until_heard(ada, news, "first words")
                await ada.publish("news", "text")
                await ada.publish("news", b"\x00")
                told = [await anext(news), await anext(news)]
        assert [(each.data, each.is_text) for each in told] == [(b"text", True), (b"\x00", False)]
        (peer,) = bob.peers()
        assert (peer.peer_id, peer.name, bob.network) == (ada.peer_id, "ada", "home")
        assert peer.link is not None
        assert (peer.link.direction, peer.link.negotiated) == ("out", "invite")
        assert peer.link.remote in ada.addresses
        for who in ("bob", bob.peer_id, bob.peer_id[:20]):
            assert 0 < await ada.ping(who) < PATIENCE
            assert (await ada.connect(who)).peer_id == bob.peer_id
        with pytest.raises(CommandFailed, match="no peer that this node knows"):
            await ada.ping("nobody")
        assert ada.status()["internal_errors"] == bob.status()["internal_errors"] == 0


async def test_a_node_with_a_directory_is_the_same_next_time_and_finds_its_peers(
    tmp_path: Path,
) -> None:
    async with opened("ada", data_dir=tmp_path / "ada") as ada:
        link = (await ada.invite()).link
        async with opened("bob", data_dir=str(tmp_path / "bob"), join=link) as bob:
            first = bob.peer_id
        async with opened("bob", data_dir=tmp_path / "bob") as bob:
            assert (bob.peer_id, bob.network) == (first, ada.network)
            await bob.wait(1, timeout=PATIENCE)
            (peer,) = bob.peers()
            assert peer.link is not None
            assert peer.link.negotiated == "cache"


async def test_a_directory_has_room_for_one_node(tmp_path: Path) -> None:
    async with opened("ada", data_dir=tmp_path):
        with pytest.raises(ConfigError, match="already running"):
            async with opened("eve", data_dir=tmp_path):
                raise AssertionError("two nodes on one directory")


async def test_a_node_belongs_to_the_first_network_that_others_know_it_in() -> None:
    async with opened("ada") as ada, opened("bob") as bob, opened("cat") as cat:
        there, elsewhere = (await ada.invite()).link, (await cat.invite()).link
        await bob.join(there)
        await bob.join(there)
        for node, link in ((bob, elsewhere), (ada, elsewhere)):
            with pytest.raises(InviteError, match="belongs to the network"):
                await node.join(link)


@pytest.mark.parametrize(
    ("settings", "wrong"),
    [
        ({"no.such": 1}, "no such key"),
        ({"links.max": "many"}, "expected a whole number"),
        ({"links.auto": 1}, "expected true or false"),
        ({"listen": "here"}, "expected"),
    ],
)
async def test_a_setting_is_as_strict_as_in_the_file(settings: dict[str, Any], wrong: str) -> None:
    with pytest.raises(ConfigError, match=wrong):
        async with overlay.open_node(settings=settings):
            raise AssertionError("it has started")


async def test_the_environment_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVERLAY_NAME", "from the environment")
    async with opened("ada") as ada:
        assert ada.name == "ada"


async def test_what_is_wrong_comes_out_by_itself() -> None:
    with pytest.raises(InviteError, match="no invite link"):
        async with opened("ada", join="nonsense"):
            raise AssertionError("it has started")
    with pytest.raises(LookupError, match="mine"):
        async with opened("ada"):
            raise LookupError("mine")


async def test_a_cancelled_node_is_only_cancelled() -> None:
    with trio.CancelScope() as scope:
        async with opened("ada"):
            scope.cancel()
            await trio.sleep(PATIENCE)
    assert scope.cancelled_caught


async def test_a_bug_in_the_core_ends_the_program_that_it_runs_in(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(core: object) -> float | None:
        raise AssertionError("a bug")

    monkeypatch.setattr(Overlay, "next_deadline", broken)
    with pytest.raises(AssertionError, match="a bug"):
        async with opened("ada"):
            await trio.sleep_forever()


async def test_a_feed_of_events_that_nobody_reads_ends_and_says_so() -> None:
    async with opened("ada") as ada:
        feed = ada.events()
        told = api.LinkUp("x", "x")
        for _ in range(1025):
            ada._tell(told)
        assert [await anext(feed) for _ in range(1024)] == 1024 * [told]
        with pytest.raises(CommandFailed) as caught:
            await anext(feed)
        assert caught.value.code == "overflow"
        assert not ada._feeds


def test_import_overlay_imports_nothing_heavy() -> None:
    """(The counter-test: opening a node does.)"""
    program = (
        "import sys, overlay\n"
        "heavy = [name for name in ('aiortc', 'trio_asyncio', 'trio', 'nacl', 'msgspec')"
        " if name in sys.modules]\n"
        "overlay.open_node()\n"
        "print(heavy, 'aiortc' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "[] True\n"
