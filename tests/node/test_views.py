"""The settings of the views reach the views: how many links a node of a larger mesh keeps."""

from typing import Any

import trio

from overlay import api
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
