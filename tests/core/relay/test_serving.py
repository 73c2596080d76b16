"""What a relay lets stand, and what it refuses and counts."""

import dataclasses
from collections.abc import Callable

import pytest
from msgspec.structs import replace

from overlay.core.context import Context
from overlay.core.events import (
    CircuitCarried,
    DropCircuit,
    Effect,
    LinkLost,
    PathMoved,
    Received,
    RelayCircuit,
)
from overlay.core.relay import serving
from overlay.core.relay.circuits import Circuits
from overlay.core.relay.tickets import TICKET_LIFE, CircuitCode, make_ticket
from overlay.core.types import CircuitId, EndReason, PathKind, PeerId
from overlay.core.wire import messages as m
from overlay.core.wire import signing
from overlay.core.wire.documents import Ticket
from overlay.sim.node import SimNode
from overlay.sim.world import World
from tests.core.worlds import line


class Trio:
    """Two ends and the relay between them, whose circuits a test asks for word by word."""

    def __init__(self) -> None:
        self.world = World(0, checked=True)
        self.one, self.relay, self.other = line(self.world)
        self.stranger = self.world.spawn(auto=False, direct=False)
        self.seen: list[Effect] = []
        self.world.observe(self._note)

    def _note(self, node: SimNode, effect: Effect) -> None:
        if node is self.relay and isinstance(effect, RelayCircuit | DropCircuit):
            self.seen.append(effect)

    def says(self, end: SimNode, message: m.Message) -> None:
        """The relay hears this on its link to the end."""
        (link,) = [v.link for v in self.relay.core.peers() if v.peer == end.peer_id]
        self.world.feed(self.relay, Received(link, message))

    def ticket(self, holder: SimNode, peer: SimNode, relay: SimNode | None = None) -> bytes:
        named = (relay or self.relay).peer_id
        return make_ticket(context(holder), named, peer.peer_id, self.world.now)

    def ask(self, **changes: bytes) -> None:
        """The first end asks for a circuit to the other, both tickets at hand."""
        asked = m.CircuitAsk(
            bytes(8),
            self.other.peer_id,
            self.ticket(self.one, self.other),
            self.ticket(self.other, self.one),
        )
        self.says(self.one, replace(asked, **changes))

    @property
    def refused(self) -> dict[str, int]:
        return self.relay.core._relaying.serving.refused

    @property
    def stand(self) -> int:
        return len(self.relay.core._relaying.serving)

    def opened(self) -> CircuitId:
        (circuit,) = [each.circuit for each in self.seen if isinstance(each, RelayCircuit)]
        return circuit


def context(node: SimNode) -> Context:
    return node.core._context


def test_both_consents_at_hand_open_a_circuit_at_once() -> None:
    trio = Trio()
    trio.ask()
    (relayed,) = trio.seen
    assert isinstance(relayed, RelayCircuit)
    links = {view.peer: view.link for view in trio.relay.core.peers()}
    assert (relayed.one, relayed.other) == (links[trio.one.peer_id], links[trio.other.peer_id])
    assert 64 <= relayed.circuit[0] < 80
    assert relayed.rate == trio.relay.settings.relay_rate


Spoil = Callable[[Trio], dict[str, bytes]]
BAD: dict[str, Spoil] = {
    "for another relay": lambda t: {"ticket": t.ticket(t.one, t.other, relay=t.stranger)},
    "for another peer": lambda t: {"ticket": t.ticket(t.one, t.stranger)},
    "of another holder": lambda t: {"ticket": t.ticket(t.stranger, t.other)},
    "the other's own is for another": lambda t: {"other": t.ticket(t.other, t.stranger)},
    "the other has not signed": lambda t: {"other": forged(t)},
    "no ticket at all": lambda t: {"ticket": b"\x90"},
    "too old": lambda t: {"ticket": aged(t, -400)},
    "for longer than any": lambda t: {"ticket": aged(t, TICKET_LIFE + 400)},
}


def forged(trio: Trio) -> bytes:
    """The other end's ticket as somebody else would sign it."""
    good = signing.opened(trio.ticket(trio.other, trio.one), Ticket, context(trio.relay).crypto)
    assert isinstance(good, Ticket)
    signed = signing.sign(good, context(trio.stranger).crypto)
    return signing.pack(signed)


def aged(trio: Trio, seconds: int) -> bytes:
    """The first end's ticket that expires so many seconds from now."""
    good = signing.opened(trio.ticket(trio.one, trio.other), Ticket, context(trio.relay).crypto)
    assert isinstance(good, Ticket)
    at = int(context(trio.one).wall(trio.world.now)) + seconds
    return signing.pack(signing.sign(replace(good, expires_at=at), context(trio.one).crypto))


@pytest.mark.parametrize("spoil", BAD.values(), ids=BAD)
def test_a_ticket_that_does_not_hold_is_refused_and_counted(spoil: Spoil) -> None:
    trio = Trio()
    trio.ask(**spoil(trio))
    assert not trio.seen
    assert trio.refused == {CircuitCode.TICKET: 1}


def test_a_ticket_is_taken_once() -> None:
    trio = Trio()
    used = trio.ticket(trio.one, trio.other)
    trio.ask(ticket=used)
    trio.ask(ticket=used)
    assert trio.stand == 1
    assert trio.refused == {CircuitCode.TICKET: 1}


def test_whoever_is_not_linked_to_the_relay_gets_no_circuit() -> None:
    trio = Trio()
    trio.ask(peer=trio.stranger.peer_id)
    trio.ask(peer=trio.one.peer_id)
    assert not trio.seen
    assert trio.refused == {CircuitCode.UNLINKED: 2}


def test_a_relayed_link_carries_no_circuit() -> None:
    """Depth one: no circuit within a circuit, and so no ring of relays."""
    trio = Trio()
    trio.ask()
    move(trio, trio.one, PathKind.RELAYED)
    assert trio.stand == 0, "what stood has ended"
    trio.ask()
    assert trio.stand == 0
    assert trio.refused == {CircuitCode.UNLINKED: 1}


def move(trio: Trio, end: SimNode, kind: PathKind) -> None:
    """The relay's link to this end has another path."""
    (view,) = [each for each in trio.relay.core.peers() if each.peer == end.peer_id]
    facts = dataclasses.replace(view.facts, path=kind)
    trio.world.feed(trio.relay, PathMoved(view.link, facts))


def test_a_peer_that_asks_for_a_thousand_gets_eight() -> None:
    trio = Trio()
    for _ in range(1000):
        trio.ask()
    assert trio.stand == serving.PER_PEER_MAX
    assert trio.refused == {CircuitCode.FULL: 1000 - serving.PER_PEER_MAX}


def test_no_more_peers_are_served_than_leave_room_for_guests(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(serving, "PEERS_MAX", 3)
    trio = Trio()
    more = [trio.world.spawn(auto=False, direct=False) for _ in range(2)]
    for each in more:
        trio.world.join(each, trio.world.invite(trio.relay))
        trio.world.run_for(2.0)
    trio.ask()
    for each in more:
        trio.ask(
            peer=each.peer_id,
            ticket=trio.ticket(trio.one, each),
            other=trio.ticket(each, trio.one),
        )
    assert trio.stand == 2
    assert trio.refused == {CircuitCode.FULL: 1}


def test_a_node_that_serves_nobody_says_so() -> None:
    trio = Trio()
    context(trio.relay).settings = dataclasses.replace(trio.relay.settings, relay=False)
    trio.ask()
    assert trio.refused == {CircuitCode.OFF: 1}


def test_what_has_been_carried_in_a_day_is_bounded() -> None:
    trio = Trio()
    trio.ask()
    most = trio.relay.settings.relay_bytes_per_day
    trio.world.feed(trio.relay, CircuitCarried(trio.opened(), most - 1))
    assert trio.stand == 1
    trio.world.feed(trio.relay, CircuitCarried(trio.opened(), 1))
    assert trio.stand == 0
    trio.ask()
    assert trio.refused == {CircuitCode.SPENT: 1}
    trio.world.run_for(serving.DAY + 1.0)
    trio.ask()
    assert trio.stand == 1


def test_only_who_was_offered_a_circuit_can_accept_it_and_only_an_end_close_it() -> None:
    trio = Trio()
    trio.world.join(trio.stranger, trio.world.invite(trio.relay))
    trio.world.run_for(2.0)
    trio.ask()
    circuit = trio.opened()
    trio.says(trio.stranger, m.CircuitClose(circuit, "unneeded"))
    trio.says(trio.stranger, m.CircuitAccept(circuit, trio.ticket(trio.stranger, trio.one)))
    trio.says(trio.stranger, m.CircuitRefuse(circuit, "declined"))
    assert trio.stand == 1
    trio.says(trio.other, m.CircuitClose(circuit, "unneeded"))
    assert trio.seen[-1] == DropCircuit(circuit)


def test_a_circuit_ends_with_either_of_its_links() -> None:
    trio = Trio()
    trio.ask()
    (link,) = [v.link for v in trio.relay.core.peers() if v.peer == trio.other.peer_id]
    trio.world.feed(trio.relay, LinkLost(link, EndReason.BROKEN))
    assert trio.seen[-1] == DropCircuit(trio.opened())
    assert trio.stand == 0


def test_a_circuit_that_nobody_uses_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    # The ends would leave it at once: nobody there has asked for it.
    monkeypatch.setattr(Circuits, "on_ready", lambda *_: [])
    trio = Trio()
    trio.ask()
    circuit = trio.opened()
    trio.world.run_for(serving.IDLE_TIMEOUT - 1.0)
    trio.world.feed(trio.relay, CircuitCarried(circuit, 100))
    trio.world.run_for(serving.IDLE_TIMEOUT - 1.0)
    assert trio.stand == 1
    trio.world.run_for(2.0)
    assert trio.stand == 0


def test_a_peer_id_is_not_enough_to_be_relayed_to() -> None:
    """An end that is offered a circuit by a ticket that is not its asker's declines."""
    trio = Trio()
    (link,) = [v.link for v in trio.other.core.peers() if v.peer == trio.relay.peer_id]
    circuit = bytes([64]) + bytes(7)
    bad = trio.ticket(trio.stranger, trio.other)
    offer = m.CircuitOffer(circuit, PeerId(trio.one.peer_id), bad)
    trio.world.feed(trio.other, Received(link, offer))
    assert not trio.other.core._relaying.circuits.by_id
