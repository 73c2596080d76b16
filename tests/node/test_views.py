"""What a node shows of its peers: the views that settings give it, names, short ids, doubts."""

from typing import Any

import pytest
import trio

from overlay import api, names
from overlay.errors import CommandFailed
from overlay.names import short_id
from overlay.testing import Mesh

COUNT = 16
RING = 4
"""Ring neighbours, which a node keeps whatever its view; in a mesh of seven they and two others are
nearly everybody. One more may be a guest that has just come."""


async def links_after(mesh: Mesh, seconds: float, settings: dict[str, Any]) -> list[int]:
    """How many links each of `COUNT` nodes has, when so much time has gone by."""
    nodes: list[api.Node] = []
    for _ in range(COUNT):
        inviter = nodes[-1] if nodes else None
        nodes.append(await mesh.node(join=inviter, settings={"links.full_mesh": 0, **settings}))
    await trio.sleep(seconds)
    return [len(node.peers()) for node in nodes]


async def middle_of_three(mesh: Mesh, settings: dict[str, Any]) -> int:
    """The links of the middle of three meshes: rings fall out differently, by some ten links."""
    meshes = [await links_after(mesh, 20.0, settings) for _ in range(3)]
    assert min(map(min, meshes)) >= 1
    return sorted(map(sum, meshes))[1]


async def test_a_small_view_keeps_few_links_once_the_guests_are_gone(mesh: Mesh) -> None:
    few = await middle_of_three(mesh, {"links.active": 2, "links.guests": "1s"})
    assert few <= COUNT * (RING + 3)


async def test_a_large_view_keeps_many(mesh: Mesh) -> None:
    many = await middle_of_three(mesh, {"links.active": 6, "links.guests": "1s"})
    assert many > COUNT * (RING + 3)


async def test_guests_stay_as_long_as_they_may(mesh: Mesh) -> None:
    """The counter-test of the first: the same view, and nobody has had to go yet."""
    crowd = await middle_of_three(mesh, {"links.active": 2, "links.guests": "10m"})
    assert crowd > COUNT * (RING + 3)


# --- how peers are called ----------------------------------------------------------------------


async def test_a_short_id_and_a_beginning_of_it_are_the_peer(mesh: Mesh) -> None:
    a, b = await mesh.nodes(2)
    for text in (short_id(b.peer_id), short_id(b.peer_id)[:6], b.peer_id[:20]):
        assert (await a.connect(text)).peer_id == b.peer_id
    for text in (short_id(b.peer_id)[:3], "", short_id(b.peer_id).swapcase()):
        with pytest.raises(CommandFailed) as caught:
            await a.connect(text)
        assert caught.value.code in {"unknown_peer", "ambiguous"}


async def test_who_could_be_meant_is_named_and_this_node_marked(mesh: Mesh) -> None:
    a = await mesh.node("twin")
    b = await mesh.node("twin", join=a)
    await mesh.settled(a, b)
    await trio.sleep(5)
    with pytest.raises(CommandFailed) as caught:
        await a.ping("twin")
    assert caught.value.code == "ambiguous"
    assert f"{short_id(a.peer_id)} (twin, this node)" in caught.value.text
    assert f"{short_id(b.peer_id)} (twin)" in caught.value.text


async def test_a_name_that_is_a_short_id_takes_nobodys_place(mesh: Mesh) -> None:
    a, b = await mesh.nodes(2)
    thief = await mesh.node(short_id(b.peer_id), join=a)
    await mesh.settled(a, b, thief)
    await trio.sleep(5)
    with pytest.raises(CommandFailed) as caught:
        await a.ping(short_id(b.peer_id))
    assert caught.value.code == "ambiguous"
    assert short_id(thief.peer_id) in caught.value.text


async def test_a_bad_name_in_a_record_is_none(mesh: Mesh, monkeypatch: pytest.MonkeyPatch) -> None:
    """(The counter-test: with the rule off, it comes through.)"""
    bad = "\x1b[2J\u202emallory"
    a = await mesh.node()
    with monkeypatch.context() as patched:
        patched.setattr(names, "complaint", lambda _: "")
        mallory = await mesh.node(bad, join=a, settings={"network.name": bad})
        await trio.sleep(5)
        assert [peer.name for peer in a.peers()] == [bad]
    names.told.cache_clear()
    assert [peer.name for peer in a.peers(everybody=True)] == [""]
    with pytest.raises(CommandFailed, match="no peer"):
        await a.ping(bad)
    assert await a.ping(mallory.peer_id) > 0
    guest = await mesh.node(join=mallory)
    assert guest.network.isprintable()


# --- links in doubt ----------------------------------------------------------------------------


async def test_a_peer_that_falls_silent_is_so_in_status_and_ends_its_pings(mesh: Mesh) -> None:
    a, b = await mesh.nodes(2)
    await trio.sleep(5)
    mesh.unplug(b)
    before = trio.current_time()
    states: list[str] = []
    while not states or states[-1] != "silent":
        (peer,) = a.peers(everybody=True)
        assert peer.link is not None
        states += [peer.link.state] if peer.link.state not in states else []
        counts = [a.status()[each] for each in ("links", "suspect", "silent")]
        assert counts == {"up": [1, 0, 0], "suspect": [1, 1, 0], "silent": [0, 0, 1]}[states[-1]]
        if peer.link.state == "suspect" and states[-1] == "suspect":
            with pytest.raises(CommandFailed) as caught:
                await a.ping("n2")
            assert caught.value.code == "silent"
            assert trio.current_time() - before < 10, "sooner than its time is up"
        await trio.sleep(0.1)
    assert states == ["up", "suspect", "silent"]
    now = trio.current_time()
    with pytest.raises(CommandFailed) as caught:
        await a.ping("n2")
    assert (caught.value.code, trio.current_time()) == ("silent", now)
    mesh.replug(b)
    await trio.sleep(10)
    assert await a.ping("n2") > 0
