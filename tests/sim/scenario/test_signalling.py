"""Signalling in whole worlds: what it costs, stale links, churn, bursts of newcomers, two rings.

Sizes are reduced: BENCHMARKS has the bands for each; the scenarios' files run at full size.
"""

import json
import random
from collections import Counter
from functools import partial
from pathlib import Path

import pytest

from overlay.core.events import Effect, Report, Resolved
from overlay.core.membership import link_uses
from overlay.core.routing.next_hop import OFFER_TTL
from overlay.core.routing.requests import ATTEMPTS_MAX
from overlay.core.routing.ring import place_of
from overlay.core.routing.routing import Routing
from overlay.core.types import PeerId, RequestId
from overlay.core.wire.messages import Answer, Bounce, Offer
from overlay.sim.network.conditions import Conditions
from overlay.sim.network.ends import LinkEnd
from overlay.sim.node import SimNode
from overlay.sim.scenario.reading import read
from overlay.sim.scenario.running import run
from overlay.sim.world import World
from overlay.tables import content_of
from tests.sim import swarm
from tests.soak import everyday

SIMULATIONS = Path(__file__).parents[3] / "simulations"
LATENCY = Conditions(latency=(0.01, 0.05))


def mesh(size: int, seed: int = 1, settle: float = 40.0) -> World:
    """A world of nodes that joined one after the other, each through somebody."""
    world, rng = World(seed, LATENCY), random.Random(f"mesh {seed}")
    first = world.spawn()

    def join() -> None:
        inside = [node for node in world.up() if node.core.peers()] or [first]
        invite = world.invite(rng.choice(inside))
        world.join(world.spawn(), invite)

    for number in range(1, size):
        world.at(number * 0.2, join)
    world.run_for(size * 0.2 + settle)
    return world


def wrong_rings(world: World) -> list[str]:
    """Nodes that are not linked to the two nearest on either side."""
    live = sorted(world.up(), key=lambda node: place_of(node.peer_id))
    size = len(live)
    wrong = []
    for index, node in enumerate(live):
        right = {live[(index + step) % size].peer_id for step in (-2, -1, 1, 2)}
        if not right - {node.peer_id} <= node.neighbours():
            wrong.append(node.name)
    return wrong


def signalling(world: World) -> Counter[str]:
    """Counts offers, answers and bounces put on links from now on."""
    counts: Counter[str] = Counter()
    original = world.network._send

    def send(end: LinkEnd, message: object) -> None:
        if isinstance(message, Offer | Answer | Bounce):
            counts[type(message).__name__] += 1
        original(end, message)  # type: ignore[arg-type]

    world.network._send = send  # type: ignore[method-assign]
    return counts


@pytest.mark.slow
def test_every_ring_comes_right_and_links_stay_few() -> None:
    world = mesh(60)
    assert wrong_rings(world) == []
    degrees = [len(node.neighbours()) for node in world.up()]
    assert sum(degrees) / len(degrees) < 14


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_negotiated_link_costs_two_messages_a_hop_and_two_more() -> None:
    """BENCHMARKS, signalling-cost: offer and answer; no node can be dialled here."""
    world = mesh(60)
    ups: list[Report] = []

    def note(_: SimNode, effect: Effect) -> None:
        if isinstance(effect, Report) and effect.event == "peer_up":
            ups.append(effect)

    world.observe(note)
    for node in world.nodes:
        node.firewalled = True
    counts = signalling(world)
    rng = random.Random(1)
    requests: list[tuple[SimNode, RequestId]] = []
    while len(requests) < 30:
        one, other = rng.sample(world.up(), 2)
        if other.peer_id not in one.neighbours():
            requests.append((one, world.connect(one, other)))
            world.run_for(1.0)
    world.run_for(15.0)
    assert all(isinstance(one.results[request], Resolved) for one, request in requests)
    links = sum(report.fields["negotiated"] == "mesh" for report in ups) / 2
    assert links >= 30
    assert (counts["Offer"] + counts["Answer"]) / links <= 2 * 2.5 + 2


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_nodes_that_are_gone_cost_a_bounded_number_of_messages() -> None:
    """Members keep wanting the dead for a while; each offer stays within two attempts' TTL."""
    world = mesh(60)
    costs: Counter[bytes] = Counter()
    original = Routing._hand_over

    def hand_over(self: Routing, request: object, *rest: object) -> None:
        routed = request.routed  # type: ignore[attr-defined]
        if isinstance(routed, Offer):
            costs[routed.request[:15]] += 1
        original(self, request, *rest)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Routing, "_hand_over", hand_over)
        for node in random.Random(1).sample(world.nodes, 6):
            world.crash(node)
        world.run_for(60.0)
    assert costs
    assert max(costs.values()) <= 2 * OFFER_TTL < ATTEMPTS_MAX * OFFER_TTL
    assert wrong_rings(world) == []


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("share", [0.05, 0.2])
def test_requests_find_their_way_while_nobody_knows_of_the_dead(share: float) -> None:
    world, rng = mesh(60), random.Random(2)
    for node in rng.sample(world.nodes, round(share * 60)):
        world.crash(node)
    requests = []
    for _ in range(100):
        one, other = rng.sample(world.up(), 2)
        requests.append((one, world.trace(one, other)))
        world.run_for(0.01)
    world.run_for(5.0)
    answered = [isinstance(one.results.get(request), Resolved) for one, request in requests]
    assert sum(answered) >= 99


def halves(world: World) -> list[SimNode]:
    return random.Random("halves").sample(world.nodes, len(world.nodes) // 2)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_rings_become_one_within_two_shuffle_periods() -> None:
    world = mesh(40)
    half = halves(world)
    world.partition([half])
    world.run_for(120.0)
    inside = {node.peer_id for node in half}
    for node in world.up():
        strangers = [peer for peer in node.neighbours() if (peer in inside) != (node in half)]
        assert strangers == [], "the counter-test: there are two rings"
    world.heal()
    world.run_for(20.0)
    assert wrong_rings(world) == []
    requests = []
    for one in half:
        other = next(node for node in world.up() if node not in half)
        requests.append((one, world.trace(one, other)))
    world.run_for(5.0)
    assert all(isinstance(one.results.get(request), Resolved) for one, request in requests)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_newcomers_beyond_the_room_of_their_contact_all_get_in() -> None:
    """Nearly twenty a second for eight seconds: too many, if guests stayed for 30 s."""
    world, rng = World(3, LATENCY), random.Random(3)
    contact = world.spawn()
    invite = world.invite(contact)
    most = 0
    for number in range(149):
        world.at(rng.uniform(0.0, 8.0), partial(_join, world, invite, number % 3 == 0))
    for _ in range(40):
        world.run_for(1.0)
        most = max(most, len(contact.neighbours()))
    assert most <= contact.settings.links_max + 128 + 1
    assert [node.name for node in world.up() if len(node.neighbours()) < 5] == []
    assert wrong_rings(world) == []


def _join(world: World, invite: object, firewalled: bool) -> None:
    world.join(world.spawn(firewalled=firewalled), invite)  # type: ignore[arg-type]


NAMED: dict[str, dict[str, object]] = {
    "signalling-cost": {"nodes": 40, "join.every": 0.2, "network.latency": [0.01, 0.05]},
    "signalling-stale": {"nodes": 40, "join.every": 0.2},
    "signalling-churn": {"nodes": 40, "join.every": 0.2},
    "join-burst": {"nodes": 60, "join.within": 4.0},
    "partition-heal": {"nodes": 30},
    "iroh-scenarios": {"nodes": 20},
}
"""Reduced sizes: what a band says of shares and times is held to at these, too."""
SIZE_BOUND = {"degree_min", "links_max"}


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", NAMED)
def test_a_scenario_of_signalling_holds_its_bands_at_a_reduced_size(name: str) -> None:
    overrides = {key: ("--set", value) for key, value in NAMED[name].items()}
    scenario = read(content_of(SIMULATIONS / f"{name}.toml"), name, overrides)
    outcome = run(scenario)
    assert outcome.violation is None
    for measure, (low, high) in scenario.bands.items():
        value = outcome.measures[measure]
        assert measure in SIZE_BOUND or (value is not None and low <= value <= high), measure


def test_each_newcomer_is_asked_for_so_long_after_its_own_join() -> None:
    overrides = {key: ("--set", value) for key, value in NAMED["join-burst"].items()}
    overrides["nodes"] = ("--set", 12)
    lines: list[bytes] = []
    content = content_of(SIMULATIONS / "join-burst.toml")
    outcome = run(read(content, "join-burst", overrides), write=lines.append)
    events = [json.loads(line) for line in lines]
    joined = {each["node"]: each["t"] for each in events if each["kind"] == "join"}
    asked = {each["to"]: each["t"] for each in events if each["kind"] == "request"}
    assert asked == {node: pytest.approx(t + 30.0) for node, t in joined.items() if node != "n0"}
    assert outcome.measures["success_first"] == 1.0


def test_a_ring_neighbour_that_lies_costs_its_neighbours_nothing_but_tries() -> None:
    """It tells each of its neighbours of sixty peers that are nowhere.

    Liars that swallow requests, too, are in tests/core/routing/test_mesh.py.
    """
    world = mesh(30)
    rng = random.Random(4)
    liar, *others = sorted(world.up(), key=lambda node: place_of(node.peer_id))
    honest = [node for node in others if liar.peer_id in node.neighbours()]
    for node in honest:
        invented = [PeerId(rng.randbytes(32)) for _ in range(60)]
        node.core._routing.on_neighbours(liar.peer_id, invented)
        facts = node.core._neighbourhood.on_neighbours(invented, world.now)
        node.core._on_neighbours(facts, world.now)
    world.run_for(60.0)
    assert wrong_rings(world) == []


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", [15, 27])
def test_swarms_of_forty_of_whom_many_cannot_be_dialled_heal(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seeds whose pairs could not link within 30 s before routing had a ring."""
    plan = swarm.draw(seed)
    plan.size, plan.firewalled = 40, 0.3
    monkeypatch.setattr(swarm, "draw", lambda _: plan)
    swarm.Run(seed).run()


@pytest.mark.slow
@pytest.mark.parametrize("seed", everyday({1}, [1, 2, 3]))
def test_who_has_no_room_for_a_link_that_it_asked_for_ends_it_once(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its offer is over then, and is not ended a second time when its time is up."""
    monkeypatch.setattr(link_uses, "GUESTS_MAX", 8)
    world = World(seed, checked=True)
    world.burst(60, world.spawn(), 1.0)
    world.run_for(12.0)
    assert all(node.core.peers() for node in world.nodes)
