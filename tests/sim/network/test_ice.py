"""Fidelity ``ice``: links open and live by checks, each one a datagram with a fate."""

import pytest
from msgspec.structs import replace

from overlay.core.events import (
    DialFailed,
    Effect,
    LinkAlive,
    LinkLost,
    LinkOpened,
    LinkSilent,
    LinkSuspect,
    Mapped,
    PathMoved,
    Received,
    Report,
    Resolved,
    Transmit,
)
from overlay.core.types import Address, Negotiated
from overlay.core.wire.messages import Ping
from overlay.sim.network.conditions import Conditions
from overlay.sim.network.ice import IceNetwork
from overlay.sim.network.nat.firewalls import Fate
from overlay.sim.node import SimNode
from overlay.sim.scenario import liveness
from overlay.sim.world import World
from tests.sim.scenario.golden import hash_of
from tests.sim.scenario.test_faults import Watched, ears, events_of, mesh

STEADY = Conditions(latency=(0.02, 0.02), jitter=0.0)


def network_of(world: World) -> IceNetwork:
    assert isinstance(world.network, IceNetwork)
    return world.network


def pair(world: World) -> tuple[SimNode, SimNode]:
    """Two nodes; the second one has dialled the first."""
    one, other = world.spawn(), world.spawn()
    world.join(other, world.invite(one))
    world.run_for(5.0)
    assert one.neighbours() == {other.peer_id}
    return one, other


def cut(world: World) -> Fate:
    """From now on nothing arrives anywhere; returns what was the rule before."""
    network = network_of(world)
    before, network.arriving = network.arriving, lambda *_: None
    return before


# --- meshes --------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("loss", [0.0, 0.05])
def test_a_mesh_of_thirty_joins_and_heals_a_crash(loss: float) -> None:
    world = World(4, Conditions(loss=loss), checked=True, fidelity="ice")
    first = world.spawn()
    nodes = [first, *world.burst(29, first, 5.0, firewalled=0.4)]
    world.run_for(15.0)
    late = [node for node in nodes if not node.neighbours()]
    assert len(late) <= 60 * loss
    for node in late:  # a dial that loses too much fails after 5 s: whoever joins tries again
        world.join(node, world.invite(first))
    world.run_for(25.0)
    assert liveness.unsettled(world) is None
    for node in nodes[::4]:
        world.crash(node)
    world.run_for(30.0)
    dead = {node.peer_id for node in nodes if not node.alive}
    assert not any(dead & node.neighbours() for node in world.up())
    world.publish(world.up()[0], b"survived")
    liveness.demand(world)
    assert ears(world, b"survived") == {node.name for node in world.up()}


def test_a_crashed_node_that_is_back_is_linked_again() -> None:
    world = World(5, checked=True, fidelity="ice")
    nodes = mesh(world, 8)
    world.crash(nodes[3])
    world.run_for(20.0)
    assert not any(nodes[3].peer_id in node.neighbours() for node in world.up())
    world.restart(nodes[3])
    world.run_for(30.0)
    assert liveness.unsettled(world) is None
    assert nodes[3].neighbours()


def test_a_goodbye_arrives_although_its_sender_is_gone_by_then() -> None:
    world = Watched(5, STEADY, checked=True, fidelity="ice")
    nodes = mesh(world, 6)
    noted = events_of(world, (LinkSuspect,))
    world.leave(nodes[2])
    world.run_for(1.0)
    assert not any(nodes[2].peer_id in node.neighbours() for node in world.up())
    assert not noted


def test_a_mesh_that_was_divided_grows_together() -> None:
    world = World(6, checked=True, fidelity="ice")
    nodes = mesh(world, 12)
    world.partition([nodes[:6]])
    world.run_for(30.0)
    world.publish(nodes[0], b"one")
    world.run_for(10.0)
    assert ears(world, b"one") == {node.name for node in nodes[:6]}
    world.heal()
    liveness.demand(world)


# --- firewalls -----------------------------------------------------------------------------------


def three(world: World) -> tuple[SimNode, SimNode, SimNode]:
    """A node that anybody can dial, and two behind firewalls that are linked to it alone."""
    common = world.spawn(auto=False)
    hidden = [world.spawn(firewalled=True, auto=False, circuits=False) for _ in range(2)]
    invite = world.invite(common)
    for node in hidden:
        world.join(node, invite)
    world.run_for(5.0)
    assert common.neighbours() == {node.peer_id for node in hidden}
    return common, hidden[0], hidden[1]


def test_two_firewalled_nodes_link_through_an_offer_by_a_common_neighbour() -> None:
    world = World(7, checked=True, fidelity="ice")
    common, one, other = three(world)
    request = world.connect(one, other)
    world.run_for(5.0)
    assert isinstance(one.results[request], Resolved)
    (view,) = [view for view in one.core.peers() if view.peer == other.peer_id]
    assert view.negotiated is Negotiated.MESH
    assert view.via == common.peer_id


@pytest.mark.parametrize("silenced", [0, 1])
def test_they_do_not_link_when_only_one_of_them_sends(silenced: int) -> None:
    """The counter-test: a hole is punched by both sides' checks."""
    world = Watched(7, checked=True, fidelity="ice")
    _, *hidden = three(world)
    mute, deaf = hidden[silenced].address, hidden[1 - silenced].address
    network = network_of(world)
    leaving = network.leaving
    network.leaving = lambda *way: None if way == (mute, deaf) else leaving(*way)
    failures = events_of(world, (DialFailed,))
    request = world.connect(hidden[0], hidden[1])
    world.run_for(20.0)
    assert not isinstance(hidden[0].results[request], Resolved)
    assert hidden[1].peer_id not in hidden[0].neighbours()
    assert {event.reason for _, _, event in failures} <= {"timeout"}  # type: ignore[union-attr]


def test_nobody_can_dial_a_firewalled_node() -> None:
    """Its invite leads nowhere; the counter-test: without the firewall it does."""
    for firewalled in (True, False):
        world = World(8, checked=True, fidelity="ice")
        node, stranger = world.spawn(firewalled=firewalled), world.spawn()
        world.join(stranger, world.invite(node))
        world.run_for(20.0)
        assert bool(stranger.neighbours()) is not firewalled


# --- boxes that translate ------------------------------------------------------------------------


class Nat:
    """A box before each of some nodes: it maps, and lets in whom its node has sent to.

    `symmetric`: another mapping for each target, as RFC 4787 calls address- and port-dependent.
    """

    def __init__(self, world: World, *nodes: SimNode, symmetric: bool = False) -> None:
        self._world, self._symmetric = world, symmetric
        self._outer: dict[SimNode, Address] = {}
        self._ports: dict[tuple[Address, Address], Address] = {}
        self._sent: set[tuple[Address, Address]] = set()
        network = network_of(world)
        network.leaving, network.arriving = self.leaving, self.arriving
        for number, node in enumerate(nodes, 1):
            self.move(node, Address(f"192.0.2.{number}", 5000))

    def move(self, node: SimNode, outer: Address) -> None:
        """From now on it maps this node to this address, and to no other."""
        self._outer[node] = outer
        self._world.by_address[outer] = node

    def outer(self, node: SimNode, target: Address) -> Address:
        """Where the target sees this node."""
        outer = self._outer[node]
        if not self._symmetric:
            return outer
        way = node.address, target
        mapped = self._ports.setdefault(way, Address(outer.host, 5000 + len(self._ports)))
        self._world.by_address[mapped] = node
        return mapped

    def leaving(self, source: Address, target: Address) -> tuple[Address, Address] | None:
        node = self._world.by_address[source]
        if node not in self._outer:
            return source, target
        outer = self.outer(node, target)
        self._sent.add((outer, target))
        return outer, target

    def arriving(self, source: Address, target: Address) -> tuple[Address, Address] | None:
        node = self._world.by_address[target]
        if node not in self._outer:
            return source, target
        known = target == self.outer(node, source) and (target, source) in self._sent
        return (source, node.address) if known else None


def test_behind_a_mapping_box_a_node_is_seen_at_the_mapped_address() -> None:
    world = Watched(9, STEADY, checked=True, fidelity="ice")
    one, other = world.spawn(), world.spawn()
    nat = Nat(world, other)
    opened, mapped = events_of(world, (LinkOpened,)), events_of(world, (Mapped,))
    world.join(other, world.invite(one))
    world.run_for(5.0)
    (seen,) = [event for _, name, event in opened if name == one.name]
    assert isinstance(seen, LinkOpened)
    outer = nat.outer(other, one.address)
    assert seen.facts.remote == outer
    said = [event for _, name, event in mapped if name == other.name]
    assert [event.address for event in said if isinstance(event, Mapped)] == [outer]


def test_a_link_follows_a_mapping_that_changes() -> None:
    world = Watched(9, STEADY, checked=True, fidelity="ice")
    one, other = world.spawn(), world.spawn()
    nat = Nat(world, other)
    world.join(other, world.invite(one))
    world.run_for(5.0)
    noted = events_of(world, (PathMoved, LinkSilent, LinkLost))
    nat.move(other, Address("192.0.2.1", 6000))
    world.run_for(10.0)
    moved = [event.facts.remote for _, name, event in noted if isinstance(event, PathMoved)]
    assert moved == [nat.outer(other, one.address)]
    assert len(noted) == 1
    world.publish(one, b"over there")
    world.run_for(1.0)
    assert ears(world, b"over there") == {one.name, other.name}


@pytest.mark.parametrize("symmetric", [False, True])
def test_two_nodes_behind_mappings_link_by_what_their_neighbours_see(symmetric: bool) -> None:
    """The counter-test: what one neighbour sees says nothing where each sees another port."""
    world = World(9, checked=True, fidelity="ice")
    common, one, other = (world.spawn(circuits=False) for _ in range(3))
    Nat(world, one, other, symmetric=symmetric)
    for node in (one, other):
        world.join(node, world.invite(common))
        world.run_for(5.0)
    request = world.connect(one, other)
    world.run_for(15.0)
    assert isinstance(one.results[request], Resolved) is not symmetric


# --- liveness ------------------------------------------------------------------------------------


def test_a_path_that_ends_is_suspect_then_silent_then_lost_as_real_agents_have_it() -> None:
    world = Watched(10, STEADY, checked=True, fidelity="ice")
    nodes = pair(world)
    world.run_for(60.0)  # at rest
    noted = events_of(world, (LinkSuspect, LinkSilent, LinkLost))
    cut(world)
    since = world.now
    world.run_for(70.0)
    for node in nodes:
        told = [(event, at - since) for at, name, event in noted if name == node.name]
        assert [type(event) for event, _ in told] == [LinkSuspect, LinkSilent, LinkLost]
        suspect, silent, lost = (after for _, after in told)
        assert 1.5 <= suspect <= 4.6
        assert 4.0 <= silent <= 6.1
        assert 58.0 <= lost <= 60.1


@pytest.mark.parametrize("seconds", [1.0, 20.0])
def test_a_path_that_comes_back_is_alive_and_has_lost_nothing(seconds: float) -> None:
    world = Watched(11, STEADY, checked=True, fidelity="ice")
    one, _ = pair(world)
    noted = events_of(world, (LinkSilent, LinkAlive, LinkLost, Received))
    arriving = cut(world)
    (view,) = one.core.peers()
    for number in range(8):
        world.network.perform(one, Transmit(view.link, Ping(number)))
    world.run_for(seconds)
    pings = [event for *_, event in noted if isinstance(event, Received)]
    assert not pings
    network_of(world).arriving = arriving
    world.run_for(6.0)
    received = [event.message for _, name, event in noted if isinstance(event, Received)]
    tokens = [each.token for each in received if isinstance(each, Ping) and each.token < 8]
    assert tokens == list(range(8))
    said = [type(event) for _, name, event in noted if name == one.name]
    assert (LinkSilent in said, LinkAlive in said) == (seconds > 6.0, seconds > 6.0)
    assert LinkLost not in said


@pytest.mark.parametrize("fidelity", ["ice", "links", "keepalives"])
@pytest.mark.parametrize("deaf", [0, 1])
@pytest.mark.parametrize("talks", [False, True])
def test_a_link_that_is_deaf_one_way_is_silent_at_both_ends(
    fidelity: str, deaf: int, talks: bool
) -> None:
    """What the deaf end says arrives all the same, and is no sign of life."""
    world = Watched(
        12,
        STEADY,
        checked=True,
        fidelity="ice" if fidelity == "ice" else "links",
        keepalives=fidelity == "keepalives",
    )
    nodes = pair(world)
    noted = events_of(world, (LinkSilent, LinkAlive, LinkLost))
    world.deafen(nodes[deaf], nodes[1 - deaf])
    if talks:
        for second in range(40):
            world.at(world.now + second, lambda: world.publish(nodes[deaf], b"hello?"))
    world.run_for(8.0)
    assert sorted((name, type(event)) for _, name, event in noted) == [
        (node.name, LinkSilent) for node in nodes
    ]
    assert not nodes[0].neighbours()
    assert not nodes[1].neighbours()
    world.run_for(32.0)
    assert len(noted) == 2
    world.deafen(nodes[deaf])
    world.run_for(5.0)
    assert sorted((name, type(event)) for _, name, event in noted[2:]) == [
        (node.name, LinkAlive) for node in nodes
    ]
    assert nodes[0].neighbours() == {nodes[1].peer_id}


@pytest.mark.parametrize("fidelity", ["ice", "links"])
@pytest.mark.parametrize("one_way", [True, False])
def test_a_link_that_is_silent_for_long_is_not_ended_as_a_guest(
    fidelity: str, one_way: bool
) -> None:
    """It serves nothing while it is silent; the minute in which it may come back is its own."""
    world = Watched(18, STEADY, checked=True, fidelity=fidelity)
    nodes = mesh(world, 5)
    world.run_for(10.0)
    downs: list[str] = []

    def note(node: SimNode, effect: Effect) -> None:
        if isinstance(effect, Report) and effect.event == "peer_down":
            downs.append(f"{node.name} {effect.fields}")

    world.observe(note)
    if one_way:
        world.deafen(nodes[1], nodes[0])
    else:
        world.partition([nodes[:2]])
    world.run_for(52.0)
    assert nodes[0].peer_id not in nodes[2 if not one_way else 1].neighbours()
    world.deafen(nodes[1])
    world.heal()
    world.run_for(5.0)
    assert downs == []
    for node in nodes:
        assert len(node.neighbours()) == 4


def test_a_peer_comes_up_only_after_it_was_down_or_silent() -> None:
    """A suspicion that was wrong is no news."""
    world = Watched(11, STEADY, checked=True, fidelity="ice")
    nodes = pair(world)
    (view,) = nodes[0].core.peers()
    log: list[tuple[str, str]] = []

    def note(node: SimNode, effect: Effect) -> None:
        if isinstance(effect, Report) and effect.event.startswith("peer_"):
            log.append((node.name, effect.event))

    world.observe(note)
    for _ in range(4):
        world.feed(nodes[0], LinkSuspect(view.link))
        world.run_for(0.5)
        world.feed(nodes[0], LinkAlive(view.link))
        world.run_for(0.5)
    assert log == []
    arriving = cut(world)
    world.run_for(20.0)
    network_of(world).arriving = arriving
    world.run_for(5.0)
    for node in nodes:
        assert [event for name, event in log if name == node.name] == ["peer_silent", "peer_up"]


def test_a_node_that_stood_still_does_not_blame_its_peers() -> None:
    world = Watched(12, STEADY, checked=True, fidelity="ice")
    one, other = pair(world)
    noted = events_of(world, (LinkSilent, LinkAlive, LinkLost))
    world.freeze(other)
    world.run_for(30.0)
    world.thaw(other)
    world.run_for(10.0)
    assert [(name, type(event)) for _, name, event in noted] == [
        (one.name, LinkSilent),
        (one.name, LinkAlive),
    ]
    assert other.neighbours() == {one.peer_id}


def test_both_ends_of_an_idle_link_ask_every_two_or_three_seconds() -> None:
    world = World(13, STEADY, checked=True, fidelity="ice")
    pair(world)
    world.run_for(60.0)
    network = network_of(world)
    before = network.datagrams
    world.run_for(100.0)
    # A question and its answer, 50 times and 33 times; messages save some.
    assert 120 <= network.datagrams - before <= 168


def test_checks_cost_nothing_where_they_are_not_simulated() -> None:
    """The counter-test: fidelity ``links`` has no ports at all."""
    world = World(13, STEADY, checked=True)
    pair(world)
    assert not isinstance(world.network, IceNetwork)


# --- handshakes ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("loss", "least", "most"), [(0.0, 20, 20), (0.1, 15, 20), (0.9, 0, 2)])
def test_what_handshakes_lose_they_send_again(loss: float, least: int, most: int) -> None:
    """A dial has five seconds; the counter-test: not when hardly anything arrives."""
    world = World(14, Conditions(loss=loss), checked=True, fidelity="ice")
    first = world.spawn(auto=False)
    world.burst(20, first, 10.0, auto=False)
    world.run_for(20.0)
    assert least <= len(first.neighbours()) <= most


def test_a_listener_with_another_certificate_is_refused() -> None:
    world = Watched(15, STEADY, checked=True, fidelity="ice")
    one, other = world.spawn(), world.spawn()
    invite = world.invite(one)
    members = [replace(invite.members[0], fingerprint=bytes(32))]
    failures = events_of(world, (DialFailed,))
    world.join(other, replace(invite, members=members))
    world.run_for(5.0)
    assert not other.neighbours()
    assert [event.reason for *_, event in failures] == ["certificate"]  # type: ignore[union-attr]


def test_both_ends_have_the_same_attempt_and_exporter_and_the_other_ones_certificate() -> None:
    world = Watched(16, STEADY, checked=True, fidelity="ice")
    noted = events_of(world, (LinkOpened,))
    one, other = pair(world)
    facts = {name: event.facts for _, name, event in noted if isinstance(event, LinkOpened)}
    here, there = facts[one.name], facts[other.name]
    assert (here.attempt, here.exporter) == (there.attempt, there.exporter)
    assert here.exporter != bytes(32)
    assert here.remote_fingerprint == other.crypto.fingerprint
    assert there.remote_fingerprint == one.crypto.fingerprint
    assert (here.dtls_role, there.dtls_role) == ("server", "client")


# --- the same again ------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_same_seed_gives_the_same_run_under_any_hash_seed() -> None:
    run = "first-mesh --nodes 8 --set fidelity=ice"
    first = hash_of(run, "0")
    assert first == hash_of(run, "4711")
    assert first != hash_of(f"{run} --seed 2", "0")
    assert first != hash_of("first-mesh --nodes 8", "0"), "the counter-test: it changes the world"


def test_a_socket_that_is_kept_outlives_ten_thousand_others_and_not_its_node() -> None:
    world = World(1, STEADY, fidelity="ice")
    one, _ = pair(world)
    network = network_of(world)
    (kept,) = network.open_sockets(one, 1)
    for _ in range(40):
        others = network.open_sockets(one, 256)
        assert kept not in others
        network.close_sockets(others)
    assert network._sockets == {kept: one}
    world.crash(one)
    assert not network._sockets
