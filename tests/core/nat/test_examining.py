"""Worlds with NAT boxes: what a node finds out is what its box was built to be."""

import random
from typing import Any

import pytest

from overlay.core.context import Context, Settings
from overlay.core.events import Examine, OpenPort, PortHeard, Resolved
from overlay.core.ice import stun
from overlay.core.nat.behaviour import Behaviour, Dependence, Findings, Ports
from overlay.core.nat.examining import FIRST_AFTER, Examining
from overlay.core.nat.knocking import Neighbour
from overlay.core.nat.measuring import OPENING_TIMEOUT
from overlay.core.nat.reflexive import Reflexive
from overlay.core.types import Address, LinkId, PeerId, RequestId
from overlay.sim.crypto import Ledger, StandInCrypto
from overlay.sim.network.conditions import Conditions
from overlay.sim.network.ice import IceNetwork
from overlay.sim.node import SimNode
from overlay.sim.world import World
from tests.core.nat.boxes import ADDRESS, ADDRESS_PORT, INDEPENDENT, Box, Boxes

STEADY = Conditions(latency=(0.02, 0.02), jitter=0.0)
HOME, WAN = "192.168.1.10", "11.9.0.10"
KINDS: dict[str, dict[str, Any]] = {
    "full cone": {"filtering": INDEPENDENT},
    "address-restricted": {"filtering": ADDRESS},
    "port-restricted": {},
    "port-restricted, never preserving": {"ports": Ports.RANDOM},
    "address-mapped": {"mapping": ADDRESS, "ports": Ports.RANDOM},
    "symmetric, sequential": {"mapping": ADDRESS_PORT, "ports": Ports.SEQUENTIAL},
    "symmetric, random": {"mapping": ADDRESS_PORT, "ports": Ports.RANDOM},
    "symmetric, but open": {
        "mapping": ADDRESS_PORT, "filtering": INDEPENDENT, "ports": Ports.RANDOM,
    },
}  # fmt: skip


def mesh(
    publics: int, *, seed: int = 3, conditions: Conditions = STEADY, **settings: Any
) -> tuple[World, Boxes]:
    """Nodes that anybody can dial, each in a network of its own, all linked."""
    world = World(seed, conditions, checked=True, fidelity="ice")
    boxes = Boxes(world)
    first = world.spawn(host="11.1.0.10", **settings)
    for number in range(2, publics + 1):
        world.join(world.spawn(host=f"11.{number}.0.10", **settings), world.invite(first))
    return world, boxes


def home(world: World, boxes: Boxes, *, host: str = HOME, outer: str = WAN, **kind: Any) -> SimNode:
    node = world.spawn(host=host)
    boxes.put(node, Box(outer, **kind))
    world.join(node, world.invite(world.nodes[0]))
    return node


def examined(world: World, node: SimNode, *, within: float = 30.0) -> Behaviour:
    """What the node knows once a user has asked."""
    request = RequestId(9_000 + len(node.results))
    world.feed(node, Examine(request))
    world.run_until(lambda: request in node.results, within=within)
    assert node.results[request] == Resolved(request, None)
    return node.core.behaviour()


def expected(kind: dict[str, Any]) -> list[str]:
    return [
        kind.get("mapping", INDEPENDENT),
        kind.get("filtering", ADDRESS_PORT),
        kind.get("ports", Ports.PRESERVED),
    ]


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("publics", [2, 3])
def test_a_box_is_found_to_be_what_it_was_built_to_be(name: str, publics: int) -> None:
    """Also where the node is linked to all that could knock, as in every small mesh."""
    world, boxes = mesh(publics)
    node = home(world, boxes, **KINDS[name])
    world.run_for(12.0)
    assert len(node.neighbours()) == publics
    known = examined(world, node)
    assert known.words == expected(KINDS[name])
    assert len(known.observers) == publics
    assert known.hairpin in (False, None)
    is_open = known.mapping == known.filtering == Dependence.INDEPENDENT
    assert known.reachable is is_open


@pytest.mark.parametrize("seed", range(4))
def test_early_packets_of_neighbours_do_not_make_it_another_nat(seed: int) -> None:
    """Found in the laboratory: its router gives the usual port away to whoever comes too early."""
    world, boxes = mesh(3, seed=seed)
    node = world.spawn(host=HOME)
    box = boxes.put(node, Box(WAN, accepts=True))
    for public in world.nodes[:3]:
        box.early[public.address, Address(WAN, node.address.port)] = None
    world.join(node, world.invite(world.nodes[0]))
    world.run_for(12.0)
    known = examined(world, node)
    assert known.differs, "no two see it at the same address"
    assert known.words == expected({})


def test_what_one_helper_shows_of_a_mapping_is_asked_another_as_soon_as_there_is_one() -> None:
    """Found in the laboratory: the second host was linked, but not yet known to be reachable."""
    world, boxes = mesh(1)
    observer = world.spawn(host="11.7.0.10", examine=False)
    world.join(observer, world.invite(world.nodes[0]))
    node = world.spawn(host=HOME)
    box = boxes.put(node, Box(WAN, accepts=True))
    ours = Address(WAN, node.address.port)
    for each in (world.nodes[0], observer):
        box.early[each.address, ours] = None
    world.join(node, world.invite(world.nodes[0]))
    world.run_until(lambda: len(node.core.peers()) == 2, 12.0)
    world.run_for(20.0)
    assert node.core.behaviour().differs, "no two see it at the same address"
    assert node.core.behaviour().mapping == ADDRESS_PORT, "it cannot know better"
    late = world.spawn(host="11.2.0.10")
    box.early[late.address, ours] = None
    world.join(late, world.invite(world.nodes[0]))
    world.run_for(60.0)
    assert node.core.behaviour().words == expected({})


def test_a_strangers_knock_that_comes_late_is_no_strangers_any_more() -> None:
    """The second host may be the stranger's: once a packet has gone there, its filter is open."""
    world, boxes = mesh(3)
    node = home(world, boxes, filtering=ADDRESS)
    world.run_for(12.0)
    examining = node.core._nat._examining
    examining.findings.clear()
    world.feed(node, Examine(RequestId(9_000)))
    world.run_until(lambda: examining._current is not None and bool(examining._current.second), 9.0)
    current = examining._current
    assert current is not None
    assert current.second is not None
    assert current.found.strange is False
    late = stun.encode(stun.binding_indication(current.request), None)
    world.feed(node, PortHeard(current.port, late, Address(current.second.host, 999)))
    world.run_until(lambda: examining._current is None, 9.0)
    assert node.core.behaviour().filtering == ADDRESS


@pytest.mark.parametrize("name", KINDS)
def test_with_one_observer_nothing_is_known(name: str) -> None:
    world, boxes = mesh(1)
    node = home(world, boxes, **KINDS[name])
    world.run_for(12.0)
    known = examined(world, node)
    assert known.words == ["unknown"] * 3
    assert not known.reachable


@pytest.mark.parametrize("seed", range(4))
def test_loss_does_not_make_a_nat_another(seed: int) -> None:
    conditions = Conditions(latency=(0.02, 0.05), jitter=0.01, loss=0.1)
    world, boxes = mesh(3, seed=seed, conditions=conditions)
    nodes = {}
    for index, name in enumerate(("full cone", "address-restricted", "symmetric, random")):
        where = {"host": f"192.168.{index}.10", "outer": f"11.{60 + index}.0.10"}
        nodes[name] = home(world, boxes, **where, **KINDS[name])
    world.run_for(90.0)
    for name, node in nodes.items():
        assert node.core.behaviour().words == expected(KINDS[name])


def test_a_user_who_asks_again_and_again_does_not_wear_out_the_helpers() -> None:
    """Found with real nodes: each question began an examination, until nobody knocked any more."""
    world, boxes = mesh(1)
    node = home(world, boxes)
    for _ in range(60):
        examined(world, node)
        world.run_for(0.5)
    for number in (2, 3):
        world.join(world.spawn(host=f"11.{number}.0.10"), world.invite(world.nodes[0]))
    world.run_for(60.0)
    assert examined(world, node).words == expected({})
    assert sum(world.nodes[0].core._nat._knocking.refused.values()) == 0


def test_where_nobody_knocks_the_filtering_is_unknown() -> None:
    """The counter-test: all that was found above was found by knocks."""
    world, boxes = mesh(3, knock=False)
    node = home(world, boxes, filtering=INDEPENDENT)
    world.run_for(30.0)
    known = examined(world, node)
    assert known.words == ["independent", "unknown", "preserved"]
    assert (known.reachable, known.lifetime, claims(world, node)) == (False, None, [])


def test_who_is_told_not_to_asks_nobody() -> None:
    world, boxes = mesh(3)
    node = world.spawn(host=HOME, examine=False)
    boxes.put(node, Box(WAN, filtering=INDEPENDENT))
    world.join(node, world.invite(world.nodes[0]))
    world.run_for(30.0)
    known = examined(world, node)
    assert known.words == ["independent", "unknown", "preserved"], (
        "what observers say costs nothing"
    )
    assert not known.reachable


# --- claims --------------------------------------------------------------------------------------


def claims(world: World, node: SimNode) -> list[str]:
    """Which mapped addresses of a node its record says to be proven, as another member reads it."""
    known = [record for record in world.nodes[0].core.known() if record.peer_id == node.peer_id]
    return [entry.host for record in known for entry in record.addresses if entry.proven]


def test_a_record_claims_only_what_was_knocked() -> None:
    for kind, claimed in (
        ({"filtering": INDEPENDENT}, [WAN]),
        ({"filtering": ADDRESS}, []),
        ({}, []),
        ({"forwarded": frozenset([4000])}, [WAN]),
    ):
        world, boxes = mesh(3)
        node = home(world, boxes, **kind)
        world.run_for(30.0)
        assert claims(world, node) == claimed, kind


def test_a_helper_that_says_what_it_has_not_done_opens_nothing() -> None:
    """It knocks at the node's own port, and only says that it has at the other one.

    Behind an address-restricted NAT that looks like a port that somebody has forwarded.
    """
    world, boxes = mesh(3)
    arriving = boxes.arriving

    def swallow(source: Address, target: Address) -> tuple[Address, Address] | None:
        lied = source.host == "11.1.0.10" and source.port >= 40_000
        return None if lied and boxes.inner_port(target) >= 40_000 else arriving(source, target)

    assert isinstance(world.network, IceNetwork)
    world.network.arriving = swallow
    node = home(world, boxes, filtering=ADDRESS)
    for _ in range(6):
        world.run_for(20.0)
        assert claims(world, node) == []
    assert node.core.behaviour().filtering is Dependence.ADDRESS


def test_a_claim_ends_when_the_port_is_closed_and_comes_back_with_it() -> None:
    world, boxes = mesh(3)
    node = home(world, boxes, filtering=INDEPENDENT)
    world.run_for(30.0)
    assert claims(world, node) == [WAN]
    boxes.behind[HOME].filtering = ADDRESS_PORT
    world.run_for(1_300.0)
    assert claims(world, node) == []
    boxes.behind[HOME].filtering = INDEPENDENT
    world.run_for(1_300.0)
    assert claims(world, node) == [WAN]


def test_what_was_found_in_one_network_says_nothing_in_another() -> None:
    world, boxes = mesh(3)
    node = home(world, boxes, filtering=INDEPENDENT)
    world.run_for(30.0)
    assert node.core.behaviour().reachable
    node.core._nat._examining.on_moved(world.now)
    assert node.core.behaviour().filtering is Dependence.UNKNOWN


# --- a firewall without a NAT --------------------------------------------------------------------


def test_a_host_with_a_global_address_behind_a_firewall_says_so() -> None:
    world, boxes = mesh(3)
    node = home(world, boxes, host="11.9.1.10", outer="11.9.1.10")
    world.run_for(20.0)
    known = examined(world, node)
    assert known.words == ["independent", "address-port", "preserved"]
    assert (known.reachable, known.hairpin) == (False, None)


def test_who_is_dialled_by_strangers_needs_nobodys_help() -> None:
    world, _ = mesh(3)
    world.run_for(20.0)
    known = examined(world, world.nodes[0], within=1.0)
    assert known.words == ["independent", "independent", "preserved"]
    assert known.reachable


def test_public_nodes_that_nobody_has_dialled_prove_each_other() -> None:
    """All but the first have dialled themselves; then they can be strangers to others."""
    world, _ = mesh(3)
    world.run_for(30.0)
    for node in world.nodes:
        assert node.core.behaviour().reachable
        record = node.core._book.read(node.core._membership.own)
        assert record is not None
        assert [entry.proven for entry in record.addresses] == [True]


# --- hairpin, lifetimes --------------------------------------------------------------------------


@pytest.mark.parametrize("hairpin", [False, True])
def test_whether_the_box_turns_packets_round(hairpin: bool) -> None:
    world, boxes = mesh(3)
    node = home(world, boxes, filtering=INDEPENDENT, hairpin=hairpin)
    world.run_for(20.0)
    assert examined(world, node).hairpin is hairpin


@pytest.mark.parametrize(
    ("lifetime", "known"), [(3.0, 2.0), (30.0, 25.0), (60.0, 55.0), (600.0, 115.0)]
)
def test_how_long_an_idle_mapping_lives(lifetime: float, known: float) -> None:
    world, boxes = mesh(2)
    node = home(world, boxes, lifetime=lifetime)
    world.run_for(600.0)
    assert node.core.behaviour().lifetime == known


def test_a_helper_that_is_too_busy_does_not_shorten_a_lifetime() -> None:
    """Found with real nodes: who is refused is answered by plain STUN all the same."""
    world, boxes = mesh(1)
    nodes = [
        home(world, boxes, host=f"192.168.{n}.10", outer=f"11.{20 + n}.0.10", lifetime=60.0)
        for n in range(12)
    ]
    world.run_for(300.0)
    for node in nodes:
        assert node.core.behaviour().lifetime in (None, 55.0)
    refused = world.nodes[0].core._nat._knocking.refused
    assert refused.get("busy"), "nobody was refused, so this shows nothing"


def test_a_lifetime_is_measured_behind_a_symmetric_nat_and_not_without_any() -> None:
    world, boxes = mesh(3)
    node = home(world, boxes, lifetime=30.0, **KINDS["symmetric, random"])
    world.run_for(400.0)
    assert node.core.behaviour().lifetime == 25.0
    assert world.nodes[2].core.behaviour().lifetime is None


@pytest.mark.parametrize("lifetime", [3.0, 30.0])
def test_links_outlive_short_mappings(lifetime: float) -> None:
    world, boxes = mesh(2)
    node = home(world, boxes, lifetime=lifetime, ports=Ports.RANDOM)
    world.run_for(5.0)
    first = {view.link for view in node.core.peers()}
    mapped = [each.mapped for each in node.core.behaviour().observers]
    for _ in range(60):
        world.run_for(1.0)
        assert {str(view.state) for view in node.core.peers()} == {"up"}
    assert {view.link for view in node.core.peers()} == first
    assert [each.mapped for each in node.core.behaviour().observers] == mapped


def test_a_mapping_that_dies_sooner_than_links_are_asked_changes_all_the_time() -> None:
    """The counter-test: what keeps mappings of 3 s is the question every 2 s."""
    world, boxes = mesh(2)
    node = home(world, boxes, lifetime=1.0, ports=Ports.RANDOM)
    world.run_for(10.0)
    before = [each.mapped for each in node.core.behaviour().observers]
    world.run_for(30.0)
    assert [each.mapped for each in node.core.behaviour().observers] != before


# --- both families --------------------------------------------------------------------------------


class Host:
    """Of both families, with neighbours over IPv6 alone that have examined it there."""

    def __init__(self) -> None:
        crypto = StandInCrypto(Ledger(), random.Random(0))
        settings = Settings(bytes(32), "n", boot=1, name="host", dial_key=bytes(32))
        self.context = Context(settings, crypto, random.Random(1))
        self.reflexive = Reflexive()
        self.reflexive.listen((Address("2a00:9::10", 4000), Address("11.9.0.10", 4000)), ())
        self.neighbours: list[Neighbour] = []
        self.examining = Examining(
            self.context, self.reflexive, lambda: self.neighbours, lambda peer, message: None
        )
        for number in (1, 2):
            self.observer(number, ipv6=True)
        before = Findings(ipv6=True, helper=self.neighbours[0].peer, near=True, strange=True)
        self.examining.findings = [before]
        self.examining.consider(0.0)
        self.examining.on_time(FIRST_AFTER)
        self.examining.on_time(FIRST_AFTER + OPENING_TIMEOUT)
        assert self.opened() == ["2a00:9::10"]

    def observer(self, number: int, *, ipv6: bool = False) -> None:
        """One more neighbour, which strangers reach, and which sees us where we are."""
        remote = Address(f"2a01:{number}::10" if ipv6 else f"11.{number}.0.10", 4000)
        own = next(each for each in self.reflexive.listening if (":" in each.host) == ipv6)
        peer = PeerId(number.to_bytes(32, "big"))
        self.neighbours.append(Neighbour(peer, LinkId(number), remote, own, is_public=True))
        self.reflexive.vote(peer, own, remote, own)

    def opened(self) -> list[str]:
        """From where it wants to be examined now."""
        return [each.host for each in self.context.drain() if isinstance(each, OpenPort)]


def test_who_can_help_over_the_other_family_is_asked_at_once() -> None:
    """Told is IPv4, as soon as two say where they see us: and nobody has examined that."""
    host = Host()
    host.observer(3)
    host.observer(4)
    assert host.examining.behaviour().filtering is Dependence.UNKNOWN
    host.examining.consider(10.0)
    host.examining.on_time(10.0 + FIRST_AFTER)
    assert host.opened() == ["11.9.0.10"]


def test_nobody_new_over_that_family_is_nothing_to_hurry_for() -> None:
    host = Host()
    host.observer(3, ipv6=True)
    host.examining.consider(10.0)
    host.examining.on_time(10.0 + FIRST_AFTER)
    assert host.opened() == []


# --- paths ---------------------------------------------------------------------------------------


def test_peers_say_who_relays() -> None:
    """Two symmetric homes; the counter-test: to the public node itself nobody relays."""
    world, boxes = mesh(1)
    kind = KINDS["symmetric, random"]
    one = home(world, boxes, **kind)
    other = home(world, boxes, host="192.168.2.10", outer="11.10.0.10", **kind)
    world.run_for(10.0)
    request = world.connect(one, other)
    world.run_until(lambda: request in one.results, within=15.0)
    views = {view.peer: view for view in one.core.peers()}
    public = world.nodes[0].peer_id
    assert (views[other.peer_id].facts.path, views[other.peer_id].relay) == ("relayed", public)
    assert views[public].relay is None
