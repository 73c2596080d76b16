"""Real processes: what a hidden node (``links.relay_only``) sends, packet by packet."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.lab.nat.capture import Capture
from tests.lab.nat.laboratory import Home, Laboratory
from tests.lab.nodes import Crew, Node, heard, subscribed, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.netns]
HIDDEN = ("--set", "links.relay_only=true")
LIFE = 10.0
"""Seconds for which the packets of a home are collected at least."""


@dataclass
class Member:
    """A node in a home, all of whose packets are collected."""

    node: Node
    home: Home
    capture: Capture

    @property
    def destinations(self) -> set[str]:
        """Where it has sent; IPv6's own multicast is the kernel's."""
        kinds = ("udp", "tcp", "icmp")
        return {each.destination for each in self.capture.sent if each.protocol in kinds}


@pytest.fixture
def crew(tmp_path: Path) -> Iterator[Crew]:
    with Crew(tmp_path) as crew:
        yield crew


def test_every_packet_of_a_hidden_node_goes_to_its_invites_members(
    laboratory: Laboratory, crew: Crew
) -> None:
    """Beside it a node that is not hidden does the same, and sends to others, too."""
    hosts = [laboratory.public_host() for _ in range(2)]
    publics = [crew.node(f"public{n}", enter=host.enter) for n, host in enumerate(hosts)]
    publics[0].up(listen=f"{hosts[0].address}:4000")
    publics[1].up(listen=f"{hosts[1].address}:4000", join=publics[0].invite())
    publics[0].wait_peers(1)
    invite = publics[0].invite()
    homes = {
        name: laboratory.standing("full_cone", nth) for nth, name in enumerate(("hidden", "open"))
    }
    homes["peer"] = laboratory.standing("port_restricted")
    began = time.monotonic()
    with Capture(homes["hidden"].host) as of_hidden, Capture(homes["open"].host) as of_open:
        nodes = {name: crew.node(name, enter=home.host.enter) for name, home in homes.items()}
        for name, node in nodes.items():
            node.start(*(HIDDEN if name == "hidden" else ()), join=invite, listen=None)
        for node in nodes.values():
            node.wait_ready()
        hidden = Member(nodes["hidden"], homes["hidden"], of_hidden)
        visible = Member(nodes["open"], homes["open"], of_open)
        talk(hidden, nodes["peer"], relayed=True)
        talk(visible, nodes["peer"], relayed=False)
        time.sleep(max(0.0, began + LIFE - time.monotonic()))
    relays = {host.address for host in hosts}
    assert hidden.destinations
    assert hidden.destinations <= relays
    assert homes["peer"].wan_address in visible.destinations


def path(one: Node, other: Node) -> str:
    rows = one.ask("GET", "/peers")["peers"]
    return str(next(row["path"] for row in rows if row["peer_id"] == other.peer_id))


def talk(member: Member, peer: Node, *, relayed: bool) -> None:
    """Connect, ping both ways, publish both ways; look at what the peer knows of it."""
    node, wan = member.node, member.home.wan_address
    peer.ask("POST", "/connect", {"peer": node.peer_id})
    if relayed:
        assert path(peer, node) == path(node, peer) == "relayed"
    else:
        wait_for(lambda: path(peer, node) != "relayed", 20.0, "a direct path")
    for one, other in ((node, peer), (peer, node)):
        one.ask("POST", "/ping", {"peer": other.peer_id})
        (listens,) = subscribed([other], f"from {one.name}")
        one.ok("publish", f"from {one.name}", "hello")
        heard(listens, "hello")
        listens.kill()
    told = peer.ok("peers", "--all", "--json") + peer.ok("peers", "--sdp", node.peer_id)
    assert (wan in told) != relayed
