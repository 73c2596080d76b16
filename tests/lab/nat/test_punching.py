"""Techniques beyond ICE between real nodes: from both ends at once, poisoned, in vain."""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from overlay.core.punch.birthday import RATE, SECONDS, SOCKETS
from tests.acceptance.in_laboratory import cut, doctor, doctor_of, pair_in
from tests.lab.nat.capture import Capture
from tests.lab.nat.laboratory import Laboratory
from tests.lab.nat.mesh import ASKED, CARRIER, Mesh, connect, path_of, row_of, technique
from tests.lab.nodes import Crew, Json, Node, wait_for

pytestmark = [pytest.mark.netns, pytest.mark.slow, pytest.mark.needs("ip", "nft")]
PAIRS = [("symmetric_sequential", "port_restricted"), ("symmetric_random", "port_restricted")]


@pytest.fixture
def mesh(laboratory: Laboratory, tmp_path: Path) -> Iterator[Mesh]:
    """Two public nodes."""
    with Crew(tmp_path) as crew:
        mesh = Mesh(laboratory, crew)
        mesh.public()
        mesh.public()
        yield mesh


def known(*nodes: Node) -> None:
    """Wait until each knows its NAT."""
    for node in nodes:
        doctor(node, lambda told: "unknown" not in (told["mapping"], told["filtering"]))


def said(a: Node, b: Node) -> set[str | None]:
    return {row_of(one, other).get("technique") for one, other in ((a, b), (b, a))}


def comes_to_be_direct(a: Node, b: Node, by: str | None, within: float) -> None:
    """Both ends say so, and a ping is answered."""
    wait_for(lambda: said(a, b) == {by}, within, f"a direct path by {by}")
    assert path_of(a, b) == path_of(b, a) == "reflexive"
    wait_for(lambda: a.run("ping", b.peer_id).returncode == 0, 20.0, "an answer over it")


def test_both_begin_at_once(mesh: Mesh) -> None:
    homes = [
        mesh.laboratory.standing(kind, nth) for nth, kinds in enumerate(PAIRS) for kind in kinds
    ]
    nodes = mesh.members(homes, *ASKED)
    known(*nodes)
    for kinds, a, b in zip(PAIRS, nodes[::2], nodes[1::2], strict=True):
        threads = [threading.Thread(target=connect, args=ends) for ends in ((a, b), (b, a))]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        comes_to_be_direct(a, b, technique(*kinds), 10.0)


def test_an_attempt_in_vain_keeps_to_the_rules(mesh: Mesh) -> None:
    """The way between the two homes is cut: all is sent that ever is, to one host, and paced."""
    kinds = "symmetric_random", "port_restricted"
    a, b = pair_in(mesh, kinds)
    known(a, b)
    one, other = (mesh.homes[node.name] for node in (a, b))
    cut(mesh.laboratory, (one.wan_address, other.wan_address))
    try:
        with Capture(one.host) as opens, Capture(other.host) as probes:
            connect(a, b)
            wait_for(lambda: bool(failed(a, b)), 20.0, "the end of an attempt")
            time.sleep(0.5)
    finally:
        cut(mesh.laboratory)
    opened = [each for each in opens.sent if each.destination == other.wan_address]
    probed = [each for each in probes.sent if each.destination == one.wan_address]
    assert SOCKETS <= len({each.source_port for each in opened}) <= SOCKETS + 1
    assert len(opened) <= 3 * SOCKETS + 50
    assert RATE * SECONDS / 2 <= len(probed) <= RATE * SECONDS + 50
    assert len({each.source_port for each in probed}) == 1
    assert max(Counter(each.destination_port for each in probed).values()) <= 50
    (rung,) = failed(a, b)
    assert rung["technique"] == "birthday"
    assert SECONDS <= rung["seconds"] <= SECONDS + 2.0
    assert rung["why"]


def failed(a: Node, b: Node) -> list[Json]:
    rungs = doctor_of(a, b)["rungs"]
    return [each for each in rungs if each["technique"] and each["outcome"] == "failed"]


def test_a_poisoned_pair_recovers_by_a_fresh_socket(mesh: Mesh) -> None:
    """The answerer sends too early, and the asker's router remembers that against both ports.

    The counter-test: an asker without low TTLs makes no second try of that sort.
    """
    without = *ASKED, "--set", "nat.low_ttl=0"
    askers, answerers = (
        [mesh.laboratory.standing(kind, nth) for nth in range(2)]
        for kind in ("open_input", "port_restricted")
    )
    a, c = mesh.start(askers[0], *ASKED), mesh.start(askers[1], *without)
    b, d = (mesh.start(home, *without) for home in answerers)
    mesh.ready([a, b, c, d])
    known(a, b, c, d)
    for one, other in ((a, b), (c, d)):
        assert connect(one, other)["path"] == "relayed"
    comes_to_be_direct(a, b, "low-ttl", 20.0)
    time.sleep(9.0)
    assert path_of(c, d) == "relayed"


def test_with_64_descriptors_birthday_is_left_out_and_a_node_says_so(mesh: Mesh) -> None:
    """The link stays relayed, and the node lives."""
    homes = [mesh.laboratory.standing(kind) for kind in PAIRS[1]]
    few = mesh.start(homes[0], *ASKED, argv=("prlimit", "--nofile=64", *CARRIER))
    other = mesh.start(homes[1], *ASKED)
    mesh.ready([few, other])
    known(few, other)
    connect(few, other)
    time.sleep(6.0)
    assert path_of(few, other) == "relayed"
    assert any("birthday" in line for line in few.json("doctor")["advice"])
    assert not any("birthday is left out" in line for line in other.json("doctor")["advice"])
    few.logs("few_descriptors")


def test_an_address_that_changes_in_the_middle_of_an_attempt(mesh: Mesh) -> None:
    """Either end's router has another address while the two are at it: they find each other."""
    kinds = "symmetric_random", "port_restricted"
    homes = [mesh.laboratory.home(kind) for _ in range(2) for kind in kinds]
    nodes = mesh.members(homes, *ASKED)
    known(*nodes)
    pairs = list(zip(nodes[::2], nodes[1::2], strict=True))
    for (a, b), moves in zip(pairs, (homes[0], homes[3]), strict=True):
        connect(a, b)
        time.sleep(0.2)
        moves.change_address()
    for a, b in pairs:
        comes_to_be_direct(a, b, "birthday", 60.0)
