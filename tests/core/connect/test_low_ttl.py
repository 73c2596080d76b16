"""Low TTL in a world of whole nodes: who begins so, what both ends know of it, and how long it
keeps them apart when it has come too late."""

from itertools import pairwise
from typing import Any

import msgspec
import pytest

from overlay.core.connect import low_ttl
from overlay.core.connect.history import Outcome, Rung
from overlay.core.connect.low_ttl import POISONED_FOR, Signalling, targets
from overlay.core.connect.offering import OwnOffers
from overlay.core.connect.punching import Punching
from overlay.core.events import Effect, Negotiate, Resolved, Restart
from overlay.core.types import Address, LowTtl, PeerId, Technique
from overlay.core.wire.documents import AnswerBody, CandidateEntry
from overlay.sim.network.conditions import Conditions
from overlay.sim.network.ice import IceNetwork
from overlay.sim.node import SimNode
from overlay.sim.world import World
from tests.core.nat.boxes import ADDRESS_PORT, INDEPENDENT, Box, Boxes

STEADY = Conditions(latency=(0.002, 0.005), jitter=0.0)
PUBLIC = "198.51.0.1", "5.2.0.1"


class Homes:
    """Two homes behind NATs, linked to two public nodes each and not to each other."""

    def __init__(self, seed: int, filtering: Any = ADDRESS_PORT, **settings: Any) -> None:
        self.world = World(seed, STEADY, checked=True, fidelity="ice")
        self.boxes = Boxes(self.world)
        self.apart = False
        self.begun: list[tuple[SimNode, Negotiate | Restart]] = []
        self.world.observe(self._note)
        public = [self.world.spawn(host=host, auto=False) for host in PUBLIC]
        self.world.join(public[1], self.world.invite(public[0]))
        self.world.run_for(2.0)
        self.ends = []
        for number in (1, 2):
            node = self.world.spawn(host=f"192.168.{number}.2", auto=False, **settings)
            self.boxes.put(node, Box(f"203.0.{110 + number}.1", filtering=filtering))
            self.ends.append(node)
            for each in public:
                self.world.join(node, self.world.invite(each))
                self.world.run_for(2.0)
        network = self.world.network
        assert isinstance(network, IceNetwork)
        leaving = network.leaving
        network.leaving = lambda source, target: (
            None if self.apart and self._is_between(source, target) else leaving(source, target)
        )

    def _is_between(self, source: Address, target: Address) -> bool:
        return source.host.startswith("192.168.") and target.host.startswith("203.0.")

    def _note(self, node: SimNode, effect: Effect) -> None:
        if isinstance(effect, Negotiate | Restart):
            self.begun.append((node, effect))

    def connect(self, within: float = 20.0) -> None:
        one, other = self.ends
        request = self.world.connect(one, other)
        self.world.run_until(lambda: request in one.results, within=within)
        assert isinstance(one.results[request], Resolved), one.results[request]
        self.world.run_for(1.0)

    def plans(self) -> tuple[LowTtl | None, LowTtl | None]:
        """How the offerer and the answerer have begun, the last time."""
        offered = [each.low_ttl for _, each in self.begun if each.controlling]
        answered = [each.low_ttl for _, each in self.begun if not each.controlling]
        return offered[-1], answered[-1]

    def techniques(self) -> list[Technique | None]:
        one, other = self.ends
        return [
            view.facts.technique
            for node, peer in ((one, other), (other, one))
            for view in node.core.peers()
            if view.peer == peer.peer_id
        ]


def test_the_answerer_begins_low_and_both_ends_say_so() -> None:
    homes = Homes(1)
    homes.connect()
    offerers, answerers = homes.plans()
    one = homes.ends[0]
    mapped = Address("203.0.111.1", one.address.port)
    assert offerers == LowTtl((mapped,))
    assert answerers is not None
    assert (answerers.addresses, answerers.ttl) == ((mapped,), 4)
    assert answerers.seconds == pytest.approx(low_ttl.MARGIN + 2 * low_ttl.HOP)
    assert homes.techniques() == [Technique.LOW_TTL] * 2
    (tried,) = [each for each in one.core.tried(homes.ends[1].peer_id)[0] if each.technique]
    assert (tried.rung, tried.outcome) == (Rung.OFFER, Outcome.LINKED)
    assert tried.technique is Technique.LOW_TTL


@pytest.mark.parametrize(
    "told", [{"low_ttl": 0}, {"filtering": INDEPENDENT}], ids=["off", "of no use"]
)
def test_counter_else_it_is_plain_ice(told: dict[str, Any]) -> None:
    homes = Homes(1, **told)
    homes.connect()
    if homes.begun:  # Whoever is proven to be reachable is dialled.
        assert homes.plans() == (None, None)
    assert set(homes.techniques()) <= {Technique.ICE, None}


def test_a_restart_begins_low_too_and_a_relayed_link_comes_to_be_direct_by_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Punching, "may_refresh", lambda *_: False)  # between the same two ports
    homes = Homes(2)
    homes.apart = True
    homes.connect()
    homes.world.run_for(8.0)  # in which offer and answer come to nothing
    assert homes.techniques() == [None, None], "a relayed link has none"
    homes.apart = False
    homes.begun.clear()
    homes.world.run_for(60.0)
    assert {type(each) for _, each in homes.begun} == {Restart}
    offerers, answerers = homes.plans()
    assert offerers is not None
    assert answerers is not None
    assert offerers.addresses == answerers.addresses
    assert homes.techniques() == [Technique.LOW_TTL] * 2


def offers_after_failures(homes: Homes, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds between offers of a relayed pair that cannot be joined."""
    sent = list[float]()
    send = OwnOffers.send

    def spy(self: OwnOffers, attempts: Any, now: float) -> Any:
        sent.append(now)
        return send(self, attempts, now)

    monkeypatch.setattr(OwnOffers, "send", spy)
    homes.apart = True
    homes.connect()
    homes.world.run_for(100.0)
    return [late - early for early, late in pairwise(sent)]


def test_a_poisoned_pair_is_left_alone_until_routers_have_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An answer came later than its low TTL lasted; the next one is told how long it took."""
    usual = offers_after_failures(Homes(3), monkeypatch)
    assert usual[0] < 15.0, "without that it is tried again soon"
    monkeypatch.setattr(low_ttl, "MARGIN", 0.0)
    monkeypatch.setattr(low_ttl, "HOP", 0.0)
    homes = Homes(3)
    monkeypatch.setattr(low_ttl, "LONGEST", 0.001)
    late = offers_after_failures(homes, monkeypatch)
    assert late[0] < 6.0, "at once, from a fresh socket, of which no router remembers anything"
    assert late[1:]
    assert min(late[1:]) >= POISONED_FOR
    one, other = homes.ends
    whys = [each.why for each in one.core.tried(other.peer_id)[0] if each.technique]
    assert any("too early" in why and "35 s" in why for why in whys), whys
    assert one.core._connecting.table.signalling.round_trip_to(other.peer_id) > 0


PEER = PeerId(b"p" * 32)


def answer(low: int, low_for: int) -> AnswerBody:
    """Of an answer only this counts here."""
    fields: dict[str, Any] = {each.name: None for each in msgspec.structs.fields(AnswerBody)}
    return AnswerBody(**{**fields, "low_ttl": low, "low_for": low_for})


@pytest.mark.parametrize(
    ("seconds", "low", "poisons"), [(0.5, 4, True), (0.3, 4, False), (0.5, 0, False)]
)
def test_what_counts_as_too_late(seconds: float, low: int, poisons: bool) -> None:
    signalling = Signalling()
    assert signalling.round_trip_to(PEER) == 0
    signalling.on_answer(PEER, seconds, answer(low, 400))
    assert signalling.round_trip_to(PEER) == round(1000 * seconds)
    assert signalling.poisoned_until(PEER) < 0.0, "not before it has failed"
    signalling.on_failed(PEER, 10.0)
    assert (signalling.poisoned_until(PEER) == 10.0 + POISONED_FOR) is poisons
    signalling.forget()
    assert signalling.poisoned_until(PEER) < 0.0


def test_two_reflexive_addresses_of_an_offer_at_most() -> None:
    hosts = [CandidateEntry("host", "192.168.0.2", 1, 9)]
    reflexive = [CandidateEntry("srflx", f"203.0.113.{each}", each, 5) for each in (1, 2, 3)]
    expected = (Address("203.0.113.1", 1), Address("203.0.113.2", 2))
    assert targets([*hosts, *reflexive]) == expected
    assert targets(hosts) == ()
