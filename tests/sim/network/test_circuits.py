"""Links over circuits in worlds of both fidelities: who relays, what passes, what becomes of it.

The cores of these worlds know nothing of the links that are looked at: the test performs for them.
"""

from typing import Any

import pytest

from overlay.core.addresses import candidate_priority, circuit_address
from overlay.core.events import (
    Adopt,
    Dial,
    DialFailed,
    Event,
    LinkAlive,
    LinkLost,
    LinkOpened,
    LinkSilent,
    LinkSuspect,
    Mapped,
    PathMoved,
    Received,
    RelayCircuit,
    Restart,
    Transmit,
    UseCircuit,
)
from overlay.core.types import Address, Candidate, CircuitId, IceCredentials, LinkId, PathKind
from overlay.core.wire import dial_tokens as dial
from overlay.core.wire.messages import Ping
from overlay.sim.clock import EPOCH
from overlay.sim.network.conditions import Conditions
from overlay.sim.node import SimNode
from overlay.sim.world import World

STEADY = Conditions(latency=(0.02, 0.02), jitter=0.0)
FIRST, SECOND = CircuitId(b"@circuit"), CircuitId(b"Acircuit")
OURS = LinkId(1_000_000)


class Driven(World):
    """Two ends that hear nothing of each other, two relays, and links of the test's own."""

    def __init__(self, fidelity: str) -> None:
        self.own: dict[tuple[SimNode, LinkId], list[tuple[float, Event]]] = {}
        super().__init__(1, STEADY, fidelity=fidelity)
        self.relay, self.a, self.b, self.spare = (self.spawn() for _ in range(4))
        self.deafen(self.a, self.b)
        self.deafen(self.b, self.a)
        for each in (self.a, self.b, self.spare):
            self.join(each, self.invite(self.relay))
        self.run_for(10.0)
        for end in (self.a, self.b):
            if self.spare.peer_id not in end.neighbours():
                self.join(end, self.invite(self.spare))
        self.run_for(10.0)
        assert self.a.neighbours() == self.b.neighbours()
        assert len(self.a.neighbours()) == 2

    def feed(self, node: SimNode, event: Event) -> None:
        """What is of the test's links is the test's."""
        link = getattr(event, "link", None)
        if isinstance(event, LinkOpened) and event.facts.attempt.startswith(b"test"):
            self.own.setdefault((node, event.link), [])
        if link is not None and (noted := self.own.get((node, link))) is not None:
            noted.append((self.now, event))
        else:
            super().feed(node, event)

    def begin(self, relay: SimNode, circuit: CircuitId) -> None:
        """Let `relay` relay between the two ends, and these use it."""
        self.network.perform(
            relay,
            RelayCircuit(circuit, self._link(relay, self.a), self._link(relay, self.b), 1e6),
        )
        for end in (self.a, self.b):
            self.network.perform(end, UseCircuit(circuit, self._link(end, relay)))

    @staticmethod
    def _link(node: SimNode, peer: SimNode) -> LinkId:
        return next(view.link for view in node.core.peers() if view.peer == peer.peer_id)

    def dial(self, link: LinkId, address: Address) -> None:
        """Dial b from a at this address."""
        self.own[self.a, link] = []
        attempt = b"test%012d" % link
        claim = dial.Claim(dial.MEMBER, b"token id", int(EPOCH + self.now) + 3600, attempt)
        key = self.b.settings.dial_key
        token = dial.make_token(key, claim.kind, claim.token_id, claim.expires_at)
        effect = Dial(
            link=link,
            addresses=(address,),
            fingerprint=self.b.crypto.fingerprint,
            remote=dial.listener_credentials(token, claim),
            local=IceCredentials(f"dialler{link}", "p" * 24),
            attempt=attempt,
            timeout=5.0,
        )
        self.network.perform(self.a, effect)

    def theirs(self, number: int = 0) -> LinkId:
        """The id of the test's links at b, in the order in which they opened."""
        return [link for node, link in self.own if node is self.b][number]

    def said(self, node: SimNode, link: LinkId, kind: type[Any]) -> list[Any]:
        """What a node was told of a link."""
        return [event for _, event in self.own[node, link] if isinstance(event, kind)]

    def pings(self, node: SimNode, link: LinkId) -> list[int]:
        """What has arrived there."""
        return [event.message.token for event in self.said(node, link, Received)]


@pytest.fixture(params=["links", "ice"])
def world(request: pytest.FixtureRequest) -> Driven:
    return Driven(request.param)


def relayed(world: Driven) -> None:
    world.begin(world.relay, FIRST)
    world.dial(OURS, circuit_address(FIRST))
    world.run_for(3.0)
    assert world.said(world.a, OURS, LinkOpened)


def test_a_dial_over_a_circuit_opens_a_relayed_link(world: Driven) -> None:
    relayed(world)
    for node, link in ((world.a, OURS), (world.b, world.theirs())):
        (opened,) = world.said(node, link, LinkOpened)
        assert opened.facts.path is PathKind.RELAYED
        assert opened.facts.remote == circuit_address(FIRST)
        assert not world.said(node, link, Mapped)


def test_a_message_takes_the_time_of_both_legs(world: Driven) -> None:
    relayed(world)
    sent_at = world.now
    world.network.perform(world.a, Transmit(OURS, Ping(1)))
    world.network.perform(world.b, Transmit(world.theirs(), Ping(2)))
    world.run_for(1.0)
    for node, link in ((world.a, OURS), (world.b, world.theirs())):
        at = [at for at, event in world.own[node, link] if isinstance(event, Received)]
        assert at == [pytest.approx(sent_at + 0.04, abs=0.001)]


def test_without_a_relay_the_dial_comes_to_nothing(world: Driven) -> None:
    world.network.perform(world.a, UseCircuit(FIRST, Driven._link(world.a, world.relay)))
    world.dial(OURS, circuit_address(FIRST))
    world.run_for(6.0)
    assert world.said(world.a, OURS, DialFailed)


def test_a_circuit_that_the_other_end_does_not_use_leads_nowhere(world: Driven) -> None:
    ends = (Driven._link(world.relay, world.a), Driven._link(world.relay, world.b))
    world.network.perform(world.relay, RelayCircuit(FIRST, *ends, 1e6))
    world.network.perform(world.a, UseCircuit(FIRST, Driven._link(world.a, world.relay)))
    world.dial(OURS, circuit_address(FIRST))
    world.run_for(6.0)
    assert world.said(world.a, OURS, DialFailed)


def test_an_idle_relayed_link_stays_up_and_falls_silent_with_its_relay(world: Driven) -> None:
    relayed(world)
    world.run_for(30.0)
    ends = ((world.a, OURS), (world.b, world.theirs()))
    for node, link in ends:
        assert not world.said(node, link, LinkSuspect)
    world.crash(world.relay)
    world.network.perform(world.a, Transmit(OURS, Ping(1)))
    world.run_for(9.0)
    for node, link in ends:
        assert world.said(node, link, LinkSuspect)
        assert world.said(node, link, LinkSilent)
        assert not world.said(node, link, LinkLost)
    assert not world.pings(world.b, world.theirs())
    world.run_for(60.0)
    for node, link in ends:
        assert world.said(node, link, LinkLost)


def test_while_a_message_waits_a_dead_relay_is_suspected_soon() -> None:
    world = Driven("ice")
    relayed(world)
    world.crash(world.relay)
    sent_at = world.now
    world.network.perform(world.a, Transmit(OURS, Ping(1)))
    world.run_for(2.0)
    (at,) = [at for at, event in world.own[world.a, OURS] if isinstance(event, LinkSuspect)]
    assert at - sent_at == pytest.approx(1.2, abs=0.1)


def test_what_waits_arrives_when_the_leg_is_back(world: Driven) -> None:
    relayed(world)
    world.deafen(world.b, world.a, world.relay)
    world.network.perform(world.a, Transmit(OURS, Ping(1)))
    world.run_for(8.0)
    assert world.said(world.a, OURS, LinkSilent)
    assert not world.pings(world.b, world.theirs())
    world.deafen(world.b, world.a)
    world.run_for(5.0)
    assert world.said(world.a, OURS, LinkAlive)
    assert world.pings(world.b, world.theirs()) == [1]


def test_a_link_goes_on_over_a_second_relay(world: Driven) -> None:
    relayed(world)
    world.crash(world.relay)
    world.network.perform(world.a, Transmit(OURS, Ping(1)))
    world.run_for(7.0)
    world.begin(world.spare, SECOND)
    world.dial(LinkId(OURS + 2), circuit_address(SECOND))
    world.run_for(2.0)
    world.network.perform(world.b, Adopt(world.theirs(), world.theirs(1)))
    world.network.perform(world.a, Adopt(OURS, LinkId(OURS + 2)))
    world.run_for(2.0)
    for node, link in ((world.a, OURS), (world.b, world.theirs())):
        (moved,) = world.said(node, link, PathMoved)
        assert moved.facts.remote == circuit_address(SECOND)
        assert moved.facts.path is PathKind.RELAYED
        assert world.said(node, link, LinkAlive)
    assert world.pings(world.b, world.theirs()) == [1]


def test_a_restart_lets_a_relayed_link_go_directly(world: Driven) -> None:
    relayed(world)
    world.deafen(world.a)
    world.deafen(world.b)
    one, other = (IceCredentials(f"restart{n}", f"{n}" * 24) for n in (1, 2))
    sides = ((world.a, OURS, one, other), (world.b, world.theirs(), other, one))
    for node, link, local, remote in sides:
        peer = world.b if node is world.a else world.a
        ours, theirs = (
            (Candidate("host", each.address, candidate_priority("host")),) for each in (node, peer)
        )
        effect = Restart(link, node is world.a, local, remote, ours, theirs, 5.0)
        world.network.perform(node, effect)
    world.run_for(2.0)
    world.crash(world.relay)
    sent_at = world.now
    world.network.perform(world.a, Transmit(OURS, Ping(1)))
    world.run_for(5.0)
    for node, link, *_ in sides:
        assert world.said(node, link, PathMoved)[-1].facts.path is PathKind.HOST
        assert not world.said(node, link, LinkSuspect)
    at = [at for at, event in world.own[world.b, world.theirs()] if isinstance(event, Received)]
    assert at == [pytest.approx(sent_at + 0.02, abs=0.001)]
