"""Techniques beyond ICE in pair worlds: what they reach, and what of them may arrive where.

Whatever a peer says, only its own host is aimed at, and with no more than one attempt sends.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import pytest

from overlay.core.events import Effect, Event, Punch, Received, Restart
from overlay.core.nat.knocking import Neighbour
from overlay.core.nat.reflexive import Reflexive
from overlay.core.punch.birthday import RATE, SECONDS, SOCKETS
from overlay.core.punch.prediction import REPEATS, ROUNDS
from overlay.core.punch.sights import ASKED_MAX
from overlay.core.types import Address, Candidate, PeerId
from overlay.core.wire.bounds import FORETOLD_MAX
from overlay.core.wire.messages import Foretell, Message, Sight
from overlay.sim.network.ice import IceNetwork
from overlay.sim.node import SimNode
from overlay.sim.pairs.pair import Options, PairWorld, Path, outcome

KNOWN = Options(acquainted=8.0, patience=12.0)
VICTIM = Address("11.99.0.10", 4000)
ICE_CHECKS = 150
"""More than an attempt of ICE sends to unverified addresses in as long a time."""
DRAWS = ["address-port", "address-port", "random"]
NUMBERS = ["address-port", "address-port", "sequential"]


@dataclass
class Sent:
    """What a node sends where, from when it is looked at."""

    pair: PairWorld
    node: SimNode
    to: Counter[str] = field(default_factory=Counter)
    by_second: Counter[tuple[str, int]] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        network = self.pair.world.network
        assert isinstance(network, IceNetwork)
        leave = network._leave

        def counted(
            node: SimNode, source: Address, data: bytes, target: Address, ttl: int | None
        ) -> None:
            if node is self.node:
                self.to[target.host] += 1
                self.by_second[target.host, int(self.pair.world.now)] += 1
            leave(node, source, data, target, ttl)

        network._leave = counted  # type: ignore[method-assign]


def gathered(a: str, b: str, options: Options = KNOWN, seed: int = 1) -> PairWorld:
    pair = PairWorld(a, b, seed, options)
    assert pair.gather() is None
    return pair


def says(node: SimNode, words: list[str]) -> None:
    """This is what it says of its NAT from now on, whatever that is."""
    node.core._connecting.table.nat = lambda: words


def deaf(pair: PairWorld, node: SimNode, kinds: tuple[type, ...]) -> None:
    """Its transport performs no effect of these kinds."""
    network = pair.world.network
    assert isinstance(network, IceNetwork)
    perform = network.perform

    def performs(one: SimNode, effect: Effect) -> None:
        if one is not node or not isinstance(effect, kinds):
            perform(one, effect)

    network.perform = performs  # type: ignore[assignment,method-assign]


def hears(
    pair: PairWorld, node: SimNode, change: Callable[[PeerId, Message], list[Message]]
) -> None:
    """What comes to a node from each peer is this instead."""
    feed = pair.world.network.feed

    def fed(one: SimNode, event: Event) -> None:
        link = one.core._links.by_id.get(event.link) if isinstance(event, Received) else None
        if one is not node or link is None or link.peer is None:
            feed(one, event)
            return
        assert isinstance(event, Received)
        for message in change(link.peer, event.message):
            feed(one, Received(event.link, message))

    pair.world.network.feed = fed


def counters(pair: PairWorld, node: SimNode) -> Counter[str]:
    network = pair.world.network
    assert isinstance(network, IceNetwork)
    return network.port(node).endpoint.counters


# --- abuse ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [DRAWS, NUMBERS])
def test_a_peer_that_lies_about_its_nat_gets_no_more_than_one_attempt_sends(
    words: list[str],
) -> None:
    """It is its own host that they come to; here a port-restricted NAT lets none in."""
    pair = gathered("port_restricted", "port_restricted")
    says(pair.b, words)
    sent = Sent(pair, pair.a)
    deaf(pair, pair.b, (Punch, Restart))
    found = pair.connect()
    assert sent.to[pair.at[1].outer] <= RATE * SECONDS + ICE_CHECKS
    assert found.path is not Path.NONE


def test_probes_towards_a_third_party_are_not_sent_at_a_peers_word(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its candidates name a victim: that gets what ICE sends to a candidate, and no probe."""
    pair = gathered("port_restricted", "symmetric_random")
    victim = Candidate("srflx", VICTIM, 100 << 24, "s0", pair.b.address)
    candidates, liar = Reflexive.candidates, pair.b.core._reflexive
    monkeypatch.setattr(
        Reflexive, "candidates", lambda self: (victim,) if self is liar else candidates(self)
    )
    sent = Sent(pair, pair.a)
    assert pair.connect().path is Path.DIRECT
    assert counters(pair, pair.a)["probes"] > 0
    assert sent.to[VICTIM.host] <= ICE_CHECKS


@pytest.mark.parametrize(("liars", "aimed"), [(1, False), (2, True)])
def test_towards_a_third_party_it_takes_more_neighbours_that_lie_than_honest_ones(
    liars: int, aimed: bool
) -> None:
    """Of three observers; with two the counter-test: their word counts, and one attempt is all."""
    pair = gathered("port_restricted", "symmetric_random")
    lying = [public.peer_id for public in pair.publics[:liars]]

    def told(neighbour: PeerId, message: Message) -> list[Message]:
        lies = isinstance(message, Sight) and neighbour in lying
        return [Sight(pair.b.peer_id, VICTIM.host, VICTIM.port)] if lies else [message]

    hears(pair, pair.a, told)
    sent = Sent(pair, pair.a)
    found = pair.connect()
    assert (sent.to[VICTIM.host] > 0) == aimed
    assert sent.to[VICTIM.host] <= RATE * SECONDS
    assert found.path is (Path.RELAYED if aimed else Path.DIRECT)


@pytest.mark.parametrize("b", ["symmetric_random", "symmetric_sequential"])
def test_a_peer_that_never_answers_ends_an_attempt(b: str) -> None:
    """It takes the offer, foretells nothing, opens nothing, answers no check."""
    pair = gathered("port_restricted", b)
    deaf(pair, pair.b, (Punch, Restart))
    sent = Sent(pair, pair.a)
    assert pair.connect().path is Path.RELAYED
    attempts = [each for each in pair.a.core.tried(pair.b.peer_id)[0] if each.technique]
    assert attempts
    assert all(each.outcome == "failed" and each.why for each in attempts)
    assert sent.to[pair.at[1].outer] <= len(attempts) * RATE * SECONDS + ICE_CHECKS
    assert max(sent.by_second.values()) <= RATE + 50
    sent.to.clear()
    pair.world.run_for(120.0)
    assert sent.to[pair.at[1].outer] <= 5 * (RATE * SECONDS + ICE_CHECKS), "it does so seldom"


def test_a_peer_that_foretells_what_it_likes_gets_so_many_probes() -> None:
    pair = gathered("port_restricted", "symmetric_sequential")
    sent = Sent(pair, pair.a)

    def flooded(_: PeerId, message: Message) -> list[Message]:
        if not isinstance(message, Foretell):
            return [message]
        ports = range(1024, 1024 + FORETOLD_MAX)
        return [Foretell(message.attempt, number, list(ports)) for number in range(100)]

    hears(pair, pair.a, flooded)
    pair.connect()
    most = ROUNDS * len(REPEATS) * FORETOLD_MAX
    assert 0 < counters(pair, pair.a)["probes"] <= 3 * most
    assert sent.to[pair.at[1].outer] <= 3 * most + ICE_CHECKS


def test_among_many_neighbours_those_are_asked_who_are_linked_to_the_peer() -> None:
    pair = gathered("port_restricted", "symmetric_random")
    for number in range(ASKED_MAX + 2):
        other = pair.world.spawn(host=f"5.{20 + number}.0.10", advertised=True, auto=False)
        for node, through in ((other, pair.publics[0]), (pair.a, other)):
            assert pair._join([node], through) is None
    pair.world.run_for(10.0)
    punching = pair.a.core._connecting._punching
    neighbours = punching.neighbours
    punching.neighbours = lambda: neighbours()[::-1]  # the strangers to it come first
    assert pair.connect().path is Path.DIRECT


def test_one_attempt_at_a_time_a_node() -> None:
    """Two peers at once: the second one's turn comes, and each has its path."""
    pair = gathered("port_restricted", "symmetric_random")
    third = pair.homes.home("symmetric_random")
    other = pair.world.spawn(host=third.new_host(), auto=False)
    for public in pair.publics:
        assert pair._join([other], public) is None
    pair.world.run_for(10.0)
    network = pair.world.network
    assert isinstance(network, IceNetwork)
    requests = [pair.world.connect(pair.a, each) for each in (pair.b, other)]
    pair.world.run_for(60.0)
    assert all(request in pair.a.results for request in requests)
    told = {view.peer: view.facts.technique for view in pair.a.core.peers()}
    assert told[pair.b.peer_id] == told[other.peer_id] == "birthday"
    assert sorted(each.name for each in network._sockets.values()) == [pair.b.name, other.name]


# --- faults --------------------------------------------------------------------------------------


ENDS = [("symmetric_random", "port_restricted"), ("symmetric_sequential", "port_restricted")]


@pytest.mark.parametrize("ends", ENDS)
@pytest.mark.parametrize("signalling", [0.0, 0.2])
def test_both_ends_begin_at_once(ends: tuple[str, str], signalling: float) -> None:
    pair = gathered(*ends, Options(acquainted=8.0, signalling=signalling))
    requests = [
        (pair.a, pair.world.connect(pair.a, pair.b)),
        (pair.b, pair.world.connect(pair.b, pair.a)),
    ]
    assert pair._all(requests) is None
    pair.world.run_for(8.0)
    views = [
        next(view for view in one.core.peers() if view.peer == other.peer_id)
        for one, other in ((pair.a, pair.b), (pair.b, pair.a))
    ]
    technique = "birthday" if "random" in ends[0] else "prediction"
    assert {view.facts.technique for view in views} == {technique}


@pytest.mark.parametrize("end", [0, 1])
@pytest.mark.parametrize("ends", ENDS)
@pytest.mark.parametrize("after", [0.3, 0.6])
def test_an_address_that_changes_in_the_middle_of_an_attempt(
    ends: tuple[str, str], end: int, after: float
) -> None:
    """The NAT of either end has another address, and no mapping, while the two are at it."""
    pair = gathered(*ends)
    pair.world.after(after, pair.at[end].move)
    assert pair.connect().path is not Path.NONE
    pair.world.run_for(90.0)
    view = pair.view()
    assert view is not None
    assert view.facts.path != "relayed"
    assert pair.is_direct()


@pytest.mark.parametrize("ends", ENDS)
def test_sockets_that_nothing_runs_over_are_closed(ends: tuple[str, str]) -> None:
    """The one that won stays for as long as its link."""
    pair = gathered(*ends)
    network = pair.world.network
    assert isinstance(network, IceNetwork)
    assert pair.connect().path is Path.DIRECT
    pair.world.run_for(10.0)
    assert list(network._sockets.values()) == [pair.a]
    view = pair.view()
    assert view is not None
    assert view.facts.local in network._sockets
    pair.world.run_for(300.0)
    assert pair.is_direct(), "it is kept warm"
    link = pair.a.core._links.by_peer[pair.b.peer_id].id
    network.port(pair.a).close(link)
    pair.world.run_for(1.0)
    assert not network._sockets


def test_openers_and_probes_are_counted() -> None:
    pair = gathered("symmetric_random", "port_restricted")
    assert pair.connect().path is Path.DIRECT
    assert 0 < counters(pair, pair.a)["openers"] <= 3 * SOCKETS
    assert 0 < counters(pair, pair.b)["probes"] <= RATE * SECONDS


# --- what may come between -----------------------------------------------------------------------


NUMBERED = "symmetric_sequential", "symmetric_sequential"


@pytest.mark.parametrize("seed", range(6))
def test_other_hosts_flows_through_both_nats_come_between_and_do_not_matter(seed: int) -> None:
    """Ten a second at either end; the counter-test is that of equal steps (`test_machines`)."""
    found = outcome(*NUMBERED, seed, Options(acquainted=8.0, foreign=10.0))
    assert (found.path, found.technique) == (Path.DIRECT, "prediction")
    assert found.direct_after is not None
    assert found.direct_after < 2.0


@pytest.mark.parametrize("end", [0, 1])
@pytest.mark.parametrize("late", [0.5, 0.95, 1.4, 2.2])
@pytest.mark.parametrize("ends", [NUMBERED, ("symmetric_sequential", "port_restricted")])
def test_a_neighbour_that_is_slow_to_say_where_it_sees_the_peer_delays_and_spoils_nothing(
    ends: tuple[str, str], late: float, end: int
) -> None:
    """The two ends so begin at different times."""
    pair = gathered(*ends)
    slow = pair.publics[0]
    feed = pair.world.network.feed
    asker = (pair.a, pair.b)[end]

    def fed(one: SimNode, event: Event) -> None:
        link = one.core._links.by_id.get(event.link) if isinstance(event, Received) else None
        sight = isinstance(event, Received) and isinstance(event.message, Sight)
        if one is asker and sight and link is not None and link.peer == slow.peer_id:
            pair.world.after(late, partial(feed, one, event))
        else:
            feed(one, event)

    # Of three, two others agree; with two observers both have to be heard.
    asker.core._connecting._punching.neighbours = partial(
        _without, asker.core._connecting._punching.neighbours, pair.publics[2].peer_id
    )
    pair.world.network.feed = fed  # type: ignore[method-assign, unused-ignore]
    found = pair.connect()
    assert (found.path, found.technique) == (Path.DIRECT, "prediction")
    assert found.direct_after is not None
    assert found.direct_after < late + 1.5


def _without(neighbours: Callable[[], list[Neighbour]], peer: PeerId) -> list[Neighbour]:
    return [each for each in neighbours() if each.peer != peer]
