"""Routers that remember an early packet: bare sockets and real nodes on both sides of them."""

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.nat.kinds import KINDS
from tests.lab.nat.laboratory import Home, Laboratory
from tests.lab.nat.mesh import ASKED, Mesh, Try, row_of
from tests.lab.nat.wire import Impairment
from tests.lab.nodes import Crew, Node

pytestmark = [pytest.mark.slow, pytest.mark.netns]
OPEN, STRICT = "open_input", "port_restricted"
HEARD_WITHIN = 0.3


@pytest.fixture
def crew(tmp_path: Path) -> Iterator[Crew]:
    with Crew(tmp_path) as crew:
        yield crew


def bound(home: Home) -> socket.socket:
    sock = home.host.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    sock.bind((home.host.address, 0))
    sock.settimeout(HEARD_WITHIN)
    return sock


def hears(sock: socket.socket) -> bool:
    try:
        return bool(sock.recv(64))
    except TimeoutError:
        return False


def crosses(first: Home, second: Home, ttl: int | None) -> bool:
    """Whether the two hear each other when the first packet of all leaves with this TTL.

    Both kinds of router keep a host's port, so each knows where the other is seen.
    """
    assert {KINDS[OPEN].ports, KINDS[STRICT].ports} == {"preserved"}
    with bound(first) as one, bound(second) as other:
        ways = [
            (one, (second.wan_address, other.getsockname()[1])),
            (other, (first.wan_address, one.getsockname()[1])),
        ]
        if ttl is not None:
            one.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, ttl)
        one.sendto(b"first", ways[0][1])
        one.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 64)
        time.sleep(0.02)
        for sock, to in (*ways[::-1], ways[0]):
            sock.sendto(b"then", to)
            time.sleep(0.005)
        return hears(one) and hears(other)


@pytest.mark.parametrize("kinds", [(OPEN, OPEN), (STRICT, OPEN)], ids="-".join)
def test_with_one_router_a_side_a_ttl_of_4_gets_through_and_5_is_one_too_many(
    laboratory: Laboratory, kinds: tuple[str, str]
) -> None:
    """Its own two routers, the core, the peer's plain one: the fifth is the one that remembers."""
    homes = [laboratory.standing(kind, nth, routers=1) for nth, kind in enumerate(kinds)]
    came = {ttl: crosses(homes[0], homes[1], ttl) for ttl in (2, 3, 4, 5, 6, None)}
    assert came == {2: True, 3: True, 4: True, 5: False, 6: False, None: False}


def test_it_is_the_first_packet_alone_that_needs_it(laboratory: Laboratory) -> None:
    """Where the one who answers first is behind a router that drops, it needs nothing."""
    homes = [laboratory.standing(kind, routers=1) for kind in (OPEN, STRICT)]
    assert crosses(homes[0], homes[1], None)
    assert not crosses(homes[1], homes[0], None)


# --- real nodes ----------------------------------------------------------------------------------


def techniques(a: Node, b: Node) -> tuple[str | None, str | None]:
    """What both ends say."""
    return row_of(a, b).get("technique"), row_of(b, a).get("technique")


def mesh_of(laboratory: Laboratory, crew: Crew, latency: float = 0.0) -> Mesh:
    """Two public nodes, so many seconds away from everybody."""
    mesh = Mesh(laboratory, crew)
    for _ in range(2):
        home = laboratory.standing("public", len(mesh.publics), impairment=_late(latency))
        mesh.public(host=home.host)
    return mesh


def _late(latency: float) -> Impairment | None:
    return Impairment(latency=latency) if latency else None


@pytest.mark.parametrize("latency", [0.0, 0.2], ids=["early", "late"])
def test_routers_with_an_open_input_chain_are_passed(
    laboratory: Laboratory, crew: Crew, latency: float
) -> None:
    """Both, the offerer's and the answerer's; late, an answer takes 400 ms and the path nothing."""
    mesh = mesh_of(laboratory, crew, latency)
    both, other, strict = mesh.members(
        [laboratory.standing(*each) for each in ((OPEN,), (OPEN, 1), (STRICT,))], *ASKED
    )
    pairs = [(both, other), (both, strict), (strict, other)]
    for a, b in pairs:
        tried = mesh.attempt(a, b)
        told = [tried, *(node.json("doctor") for node in (a, b)), a.run("doctor", b.peer_id).stdout]
        assert (tried.way, techniques(a, b)) == ("direct", ("low-ttl", "low-ttl")), told


def test_too_high_a_ttl_and_none_leave_the_pair_relayed(laboratory: Laboratory, crew: Crew) -> None:
    """Of three who answer, with one router a side; who asks makes no second try (decision 0040)."""
    mesh = mesh_of(laboratory, crew)
    without = *ASKED, "--set", "nat.low_ttl=0"
    asker = mesh.start(laboratory.standing(OPEN, routers=1), *without)
    answerers = {
        ttl: mesh.start(
            laboratory.standing(OPEN, ttl + 1, routers=1), *ASKED, "--set", f"nat.low_ttl={ttl}"
        )
        for ttl in (4, 5, 0)
    }
    mesh.ready([asker, *answerers.values()])
    tries: dict[int, Try] = {
        ttl: mesh.attempt(asker, node, patience=3.0) for ttl, node in answerers.items()
    }
    assert {ttl: tried.way for ttl, tried in tries.items()} == {
        4: "direct",
        5: "relayed",
        0: "relayed",
    }, tries
    for ttl, technique in ((4, "low-ttl"), (5, None), (0, None)):
        assert techniques(asker, answerers[ttl]) == (technique, technique)
