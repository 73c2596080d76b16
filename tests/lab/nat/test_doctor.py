"""Real nodes behind real NATs: what the doctor says is how the laboratory was built."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.complaints import complaint
from tests.lab.nat.kinds import KINDS
from tests.lab.nat.laboratory import Laboratory
from tests.lab.nodes import Crew, Node

pytestmark = pytest.mark.slow
PUBLICS = 3
WITH_UDP = [name for name, kind in KINDS.items() if kind.udp]


class Mesh:
    """Public nodes, and one node in each home that was asked for."""

    def __init__(self, laboratory: Laboratory, crew: Crew) -> None:
        self.homes: dict[str, Node] = {}
        hosts = [laboratory.public_host() for _ in range(PUBLICS)]
        self.publics = [
            crew.node(f"public{number}", enter=host.enter) for number, host in enumerate(hosts)
        ]
        # Over IPv4 alone, as the homes: of a host with both the doctor tells IPv4, which nobody
        # can examine whose only links to those that strangers reach run over IPv6.
        at = [f"{host.address}:4000" for host in hosts]
        self.publics[0].up(listen=at[0])
        self.invite = self.publics[0].invite()
        for node, address in zip(self.publics[1:], at[1:], strict=True):
            node.up(join=self.invite, listen=address)

        for kind in WITH_UDP:
            node = crew.node(kind, enter=laboratory.standing(kind).host.enter)
            node.start(join=self.invite, listen=None)
            self.homes[kind] = node

    def behind(self, kind: str) -> Node:
        return self.homes[kind].wait_ready()


@pytest.fixture(scope="module")
def mesh(laboratory: Laboratory, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    with Crew(tmp_path_factory.mktemp("doctor")) as crew:
        yield Mesh(laboratory, crew)


def told(node: Node, wanted: dict[str, Any], within: float = 90.0) -> dict[str, Any]:
    """What the doctor says of these, once it says that, or at last."""
    deadline = time.monotonic() + within
    while True:
        answer = node.json("doctor")
        said = {key: answer[key] for key in wanted}
        if said == wanted or time.monotonic() > deadline:
            return said
        time.sleep(0.5)


@pytest.mark.parametrize("kind", WITH_UDP)
def test_the_doctor_says_how_the_home_was_built(mesh: Mesh, kind: str) -> None:
    built = KINDS[kind]
    is_open = "independent" == built.mapping == built.filtering
    wanted = {
        "mapping": built.mapping,
        "filtering": built.filtering,
        "ports": built.ports,
        "reachable": is_open,
        "udp": True,
        "ipv6": "none",
    }
    assert told(mesh.behind(kind), wanted) == wanted


def test_a_home_without_udp_says_so_in_one_line(
    mesh: Mesh, laboratory: Laboratory, tmp_path: Path
) -> None:
    with Crew(tmp_path) as crew:
        node = crew.node("late", enter=laboratory.standing("no_udp").host.enter)
        text = complaint(node.run("join", mesh.invite, "--timeout", "3"))
        assert "no_udp" in text


def test_public_nodes_know_that_they_are(mesh: Mesh) -> None:
    for node in mesh.publics:
        wanted = {"reachable": True, "filtering": "independent", "mapping": "independent"}
        assert told(node, wanted) == wanted
