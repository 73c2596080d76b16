"""Who finds no path to a peer is linked to it over a circuit, through a neighbour of both."""

from dataclasses import dataclass, field
from typing import Any

import pytest

from overlay.core.connect.history import Outcome, Rung
from overlay.core.events import Listening, Rejected, Resolved, Restart
from overlay.core.link.links import LinkState
from overlay.core.overlay import Overlay
from overlay.core.relay.circuits import Circuits
from overlay.core.types import Address, PathKind, PeerId
from overlay.core.wire.documents import RelayEntry
from overlay.sim.network.conditions import Conditions
from overlay.sim.network.ice import IceNetwork
from overlay.sim.node import SimNode
from overlay.sim.world import World

STEADY = Conditions(latency=(0.002, 0.005), jitter=0.0)


@dataclass
class Apart:
    """Pairs of nodes between which no datagram passes."""

    world: World
    pairs: set[frozenset[Address]] = field(default_factory=set)

    def __post_init__(self) -> None:
        network = self.world.network
        assert isinstance(network, IceNetwork)
        leaving = network.leaving

        def leave(source: Address, target: Address) -> tuple[Address, Address] | None:
            return None if frozenset((source, target)) in self.pairs else leaving(source, target)

        network.leaving = leave

    def keep(self, one: SimNode, other: SimNode) -> None:
        self.pairs.add(frozenset((one.address, other.address)))

    def join(self, one: SimNode, other: SimNode) -> None:
        self.pairs.discard(frozenset((one.address, other.address)))


def star(
    world: World, relays: int = 1, *, circuits: bool = True, **settings: Any
) -> tuple[Apart, SimNode, SimNode, list[SimNode]]:
    """Two nodes that are apart, both linked to each relay, and to nobody else.

    `settings`: the relays'.
    """
    apart = Apart(world)
    middle = [world.spawn(auto=False, **settings)]
    for _ in range(relays - 1):
        middle.append(world.spawn(auto=False, **settings))
        world.join(middle[-1], world.invite(middle[0]))
        world.run_for(2.0)
    ends = [world.spawn(auto=False, circuits=circuits) for _ in range(2)]
    apart.keep(*ends)
    for end in ends:
        for relay in middle:
            world.join(end, world.invite(relay))
            world.run_for(2.0)
    assert all(set(end.neighbours()) == {each.peer_id for each in middle} for end in ends)
    return apart, ends[0], ends[1], middle


def connect(world: World, one: SimNode, other: SimNode) -> Resolved | Rejected:
    request = world.connect(one, other)
    world.run_until(lambda: request in one.results, within=20.0)
    return one.results[request]


def path(one: SimNode, other: SimNode) -> tuple[PathKind, LinkState] | None:
    for view in one.core.peers():
        if view.peer == other.peer_id:
            return view.facts.path, view.state
    return None


@pytest.mark.parametrize("seed", range(4))
def test_a_pair_without_a_path_is_linked_over_its_common_neighbour(seed: int) -> None:
    world = World(seed, STEADY, checked=True, fidelity="ice")
    _, one, other, middle = star(world)
    began = world.now
    assert isinstance(connect(world, one, other), Resolved)
    assert world.now - began < 0.3 + 6 * 2 * 2 * 0.005
    (dialled,) = [view for view in one.core.peers() if view.peer == other.peer_id]
    assert (dialled.via, dialled.hops) == (middle[0].peer_id, 2)
    world.run_for(1.0)
    assert path(one, other) == path(other, one) == (PathKind.RELAYED, LinkState.UP)
    world.run_for(60.0)
    assert path(one, other) == path(other, one) == (PathKind.RELAYED, LinkState.UP)


def test_without_circuits_such_a_pair_stays_apart() -> None:
    world = World(0, STEADY, checked=True, fidelity="ice")
    _, one, other, _ = star(world, circuits=False)
    assert isinstance(connect(world, one, other), Rejected)


def test_whoever_gives_up_is_told_why_no_relay_helps() -> None:
    """At whatever moment: whether the last round has come that far or has just begun."""
    world = World(1, STEADY, checked=True, fidelity="ice")
    _, one, other, _ = star(world, relay_bytes_per_day=0)
    request = world.connect(one, other)
    connecting = one.core._connecting
    attempts = connecting.table.by_peer[other.peer_id]
    world.run_until(lambda: "today" in connecting._told(attempts)[1], within=4.0)
    rounds, told = 0, list[str]()
    while request not in one.results:
        rounds += not attempts.reasons
        told.append(connecting._told(attempts)[1])
        world.run_for(0.02)
    assert rounds > 0, "a round had just begun"
    assert all("relayed enough for today" in text for text in told)
    assert isinstance(one.results[request], Rejected)


def test_a_pair_with_a_path_of_its_own_needs_no_relay() -> None:
    world = World(0, STEADY, checked=True, fidelity="ice")
    apart, one, other, (relay,) = star(world)
    apart.join(one, other)
    assert isinstance(connect(world, one, other), Resolved)
    world.run_for(1.0)
    found = path(one, other)
    assert found is not None
    assert found[0] is not PathKind.RELAYED
    assert not len(relay.core._relaying.serving)


@pytest.mark.parametrize("seed", range(4))
def test_a_crowded_relay_keeps_the_links_that_its_circuits_run_over(seed: int) -> None:
    """It has room for three, and six count on it: whom it serves stay, others go."""
    world = World(seed, STEADY, checked=True, fidelity="ice")
    _, one, other, (relay,) = star(world, links_max=3, long_links=0, active_size=1, mesh_size=0)
    assert isinstance(connect(world, one, other), Resolved)
    others = [world.spawn(auto=not number) for number in range(4)]
    for each in others:
        world.join(each, world.invite(relay))
        world.run_for(2.0)
        world.connect(each, relay)
    world.run_for(3 * relay.settings.guest_stay)
    assert path(one, other) == path(other, one) == (PathKind.RELAYED, LinkState.UP)
    assert {one.peer_id, other.peer_id} < set(relay.neighbours())
    assert len(relay.neighbours()) < 6


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("after", [0.2, 2.0, 9.0])
def test_a_killed_relay_is_replaced_by_the_one_in_reserve(seed: int, after: float) -> None:
    """Whether a direct path is still looked for, or the search is over."""
    world = World(seed, STEADY, checked=True, fidelity="ice")
    _, one, other, relays = star(world, relays=2)
    assert isinstance(connect(world, one, other), Resolved)
    world.run_for(after)
    before = [link_of(one, other), link_of(other, one)]
    used = one.core._relaying.circuits.relay_of(remote_of(one, other))
    (relay,) = [each for each in relays if each.peer_id == used]
    world.crash(relay)
    world.run_for(4.5)
    assert [link_of(one, other), link_of(other, one)] == before, "the links go on"
    assert path(one, other) == path(other, one) == (PathKind.RELAYED, LinkState.UP)
    assert one.core._relaying.circuits.relay_of(remote_of(one, other)) not in (None, used)


@pytest.mark.parametrize("seed", range(4))
def test_a_relayed_link_takes_its_own_path_when_there_is_one(seed: int) -> None:
    world = World(seed, STEADY, checked=True, fidelity="ice")
    apart, one, other, (relay,) = star(world)
    assert isinstance(connect(world, one, other), Resolved)
    before = [link_of(one, other), link_of(other, one)]
    apart.join(one, other)
    world.run_for(50.0)
    assert [link_of(one, other), link_of(other, one)] == before, "the links go on"
    for here, there in ((one, other), (other, one)):
        found = path(here, there)
        assert found is not None
        assert found[0] is not PathKind.RELAYED
    world.run_for(90.0)
    assert not len(relay.core._relaying.serving), "nobody needs the circuit any more"


def strangers(world: World) -> tuple[SimNode, SimNode, list[SimNode]]:
    """Two that are apart, each linked to a relay of its own; the relays to each other."""
    apart, relays = Apart(world), [world.spawn(auto=False)]
    relays.append(world.spawn(auto=False))
    world.join(relays[1], world.invite(relays[0]))
    world.run_for(2.0)
    ends = [world.spawn(auto=False) for _ in range(2)]
    apart.keep(*ends)
    for end, relay in zip(ends, relays, strict=True):
        world.join(end, world.invite(relay))
    world.run_for(3.0)
    assert [end.neighbours() for end in ends] == [{relay.peer_id} for relay in relays]
    return ends[0], ends[1], relays


@pytest.mark.parametrize("seed", range(4))
def test_who_have_no_common_neighbour_name_their_relays(seed: int) -> None:
    world = World(seed, STEADY, checked=True, fidelity="ice")
    one, other, relays = strangers(world)
    assert isinstance(connect(world, one, other), Resolved)
    world.run_for(60.0)
    assert path(one, other) == path(other, one) == (PathKind.RELAYED, LinkState.UP)
    assert one.core._relaying.circuits.relay_of(remote_of(one, other)) == relays[0].peer_id


@pytest.mark.parametrize("seed", range(2))
def test_the_answer_names_relays_where_the_offer_has_none(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(seed, STEADY, checked=True, fidelity="ice")
    one, other, relays = strangers(world)
    named = Circuits.entries

    def entries(circuits: Circuits, peer: PeerId, now: float) -> list[RelayEntry]:
        return [] if circuits is one.core._relaying.circuits else named(circuits, peer, now)

    monkeypatch.setattr(Circuits, "entries", entries)
    assert isinstance(connect(world, one, other), Resolved)
    assert path(one, other) == (PathKind.RELAYED, LinkState.UP)
    assert one.core._relaying.circuits.relay_of(remote_of(one, other)) == relays[1].peer_id


def link_of(one: SimNode, other: SimNode) -> int:
    (link,) = [view.link for view in one.core.peers() if view.peer == other.peer_id]
    return link


def remote_of(one: SimNode, other: SimNode) -> Address:
    (remote,) = [view.facts.remote for view in one.core.peers() if view.peer == other.peer_id]
    return remote


# --- why, and for how long ---------------------------------------------------------------------


@pytest.fixture
def symmetric(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every node knows its NAT to be of the kind that leaves two of it no direct path."""
    words = ["address-port", "address-port", "random"]
    monkeypatch.setattr(Overlay, "_nat_words", lambda _: words)


def test_what_was_tried_and_what_came_of_it_can_be_asked() -> None:
    world = World(0, STEADY, checked=True, fidelity="ice")
    _, one, other, _ = star(world)
    connect(world, one, other)
    world.run_for(10.0)
    tried, _ = one.core.tried(other.peer_id)
    outcomes = {each.rung: each.outcome for each in tried}
    assert outcomes == {
        Rung.DIAL: Outcome.SKIPPED,
        Rung.CIRCUIT: Outcome.LINKED,
        Rung.OFFER: Outcome.FAILED,
    }
    assert all(each.why for each in tried if each.outcome is not Outcome.LINKED)


@pytest.mark.usefixtures("symmetric")
def test_a_pair_that_cannot_be_direct_is_not_tried_for_ever() -> None:
    world = World(0, STEADY, checked=True, fidelity="ice")
    _, one, other, _ = star(world)
    restarts = offers_of(world)
    connect(world, one, other)
    world.run_for(15.0)
    before = offered(one, other)
    assert before, "what the peer's NAT is like an answer has to say"
    world.run_for(600.0)
    assert offered(one, other) == before
    world.feed(one, Listening((one.address,)))
    world.run_for(10.0)
    assert offered(one, other) == [Outcome.FAILED], "its network is another one: it asks again"
    assert not restarts, "and the peer knows better than to check"


def test_a_pair_that_may_be_direct_is_tried_again_and_again() -> None:
    world = World(0, STEADY, checked=True, fidelity="ice")
    _, one, other, _ = star(world)
    connect(world, one, other)
    world.run_for(15.0)
    restarts = offers_of(world)
    world.run_for(600.0)
    assert 4 <= len(restarts) // 2 <= 8, "after 5, 10, 20 … seconds"


@pytest.mark.usefixtures("symmetric")
def test_a_command_that_nothing_can_help_fails_at_once_and_says_why() -> None:
    world = World(0, STEADY, checked=True, fidelity="ice")
    _, one, other, _ = star(world, circuits=False)
    connect(world, one, other)  # From the answer to its offer it learns of the other's NAT.
    began = world.now
    result = connect(world, one, other)
    assert isinstance(result, Rejected)
    assert world.now - began < 7.0
    assert "both NATs are the cause" in result.text


def offered(one: SimNode, other: SimNode) -> list[Outcome]:
    """What has come of each offer that one remembers."""
    return [each.outcome for each in one.core.tried(other.peer_id)[0] if each.rung is Rung.OFFER]


def offers_of(world: World) -> list[Restart]:
    """The restarts of ICE from now on: each offer brings about two."""
    noted: list[Restart] = []
    world.observe(lambda _, effect: noted.append(effect) if isinstance(effect, Restart) else None)
    return noted
