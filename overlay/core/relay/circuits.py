"""One idea: the circuits that this node is an end of: asked for, taken, kept in reserve, given up.

A circuit is a path to a peer over the links that a third node, its relay, has to both
(`overlay.core.relay.serving`). To ICE it is an address like any other (`circuit_address`); what is
dialled over it becomes a link in the ordinary way. Two relays are asked at once, if there are two:
the first circuit to stand is used, the other one kept. Nobody checks that one over and over: its
relay checks the links that it runs over, and says when one of them is gone.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from overlay.core.addresses import circuit_of
from overlay.core.context import Context
from overlay.core.events import DropCircuit, Transmit, UseCircuit
from overlay.core.limits import BoundedDict
from overlay.core.link.links import Link, Links, LinkState
from overlay.core.membership.records import RecordBook
from overlay.core.relay.serving import UNASKED
from overlay.core.relay.tickets import TICKET_LIFE, CircuitCode, make_ticket, read_ticket
from overlay.core.routing.ring import place_of
from overlay.core.routing.routing import Routing
from overlay.core.timers import Timers
from overlay.core.types import Address, CircuitId, PathKind, PeerId
from overlay.core.wire.documents import RelayEntry, Ticket, TokenEntry
from overlay.core.wire.messages import (
    CircuitAccept,
    CircuitAsk,
    CircuitClose,
    CircuitMessage,
    CircuitOffer,
    CircuitReady,
    CircuitRefuse,
)

ASKED_AT_ONCE = 2
"""Relays that are asked for a circuit to one peer: one to use, one in reserve."""
CIRCUITS_MAX = 64
"""Circuits that we are an end of."""
PER_PEER_MAX = 4
"""Of them to one peer: two that each of the two has asked for."""
ASK_TIMEOUT = 4.0
"""Seconds that a relay gets, which has to ask the other end."""
REFUSED_FOR = 30.0
"""Seconds for which a relay that has refused is not asked again (guess)."""
LINGER = 60.0
"""Seconds that circuits stay once the link to their peer has a better path, or is gone (guess): as
long as a link whose path has fallen silent."""
RELAYS_OFFERED = 3
"""Relays that an offer or an answer names."""
GIVEN_MAX = 256


class Due(StrEnum):
    """What falls due."""

    ASK = "ask"  # a relay has not answered
    LINGER = "linger"  # circuits to a peer have not been needed for a while


class Stands(NamedTuple):
    """A circuit to a peer that we have asked for, or offered the relay of, can be used."""

    peer: PeerId
    circuit: CircuitId


class Failed(NamedTuple):
    """Nobody relays to this peer, for the reason that the last one gave."""

    peer: PeerId
    code: str


class Closed(NamedTuple):
    """A circuit that stood is over."""

    peer: PeerId
    circuit: CircuitId


class RelayUsed(NamedTuple):
    """The first circuit over this relay has come, or the last has gone."""

    relay: PeerId
    used: bool


CircuitFact = Stands | Failed | Closed | RelayUsed


@dataclass(slots=True)
class Circuit:
    """One that we are an end of."""

    peer: PeerId
    relay: PeerId
    token: TokenEntry | None
    """What a dial over it needs, if the peer's record has none."""
    stands: bool = True
    """Its relay has said that datagrams pass; until then we only take them."""


@dataclass(slots=True)
class _Ask:
    peer: PeerId
    relay: PeerId


@dataclass(slots=True)
class Circuits:
    """All circuits that this node is an end of, and those that it has asked for."""

    context: Context
    links: Links
    routing: Routing
    book: RecordBook
    by_id: dict[CircuitId, Circuit] = field(default_factory=dict)
    _asks: dict[bytes, _Ask] = field(default_factory=dict)
    # When each relay may be asked again, and why it has refused.
    _refused: BoundedDict[PeerId, tuple[float, str]] = field(
        default_factory=lambda: BoundedDict(GIVEN_MAX)
    )
    # Tickets that offers and answers of ours have taken along, by relay and peer: until when.
    _given: BoundedDict[tuple[PeerId, PeerId], float] = field(
        default_factory=lambda: BoundedDict(GIVEN_MAX)
    )
    _timers: Timers[tuple[Due, bytes]] = field(init=False)

    def __post_init__(self) -> None:
        self._timers = Timers(self.context.agenda)

    # --- what others ask -------------------------------------------------------------------------

    def to(self, peer: PeerId) -> list[CircuitId]:
        """The circuits to this peer that stand, and whose relay nobody doubts: the oldest first."""
        return [
            name
            for name, each in self.by_id.items()
            if each.peer == peer and each.stands and self.links.is_up(each.relay)
        ]

    def relay_of(self, remote: Address) -> PeerId | None:
        """Who relays what goes to this address, if it is a circuit's."""
        circuit = circuit_of(remote)
        found = self.by_id.get(circuit) if circuit is not None else None
        return None if found is None else found.relay

    def token_of(self, circuit: CircuitId) -> TokenEntry | None:
        """What its peer has given for dials over it, if its record has nothing for that."""
        return self.by_id[circuit].token

    def is_asking(self, peer: PeerId) -> bool:
        """Whether a relay has not answered yet."""
        return any(ask.peer == peer for ask in self._asks.values())

    def relays_to(self, peer: PeerId, now: float) -> list[PeerId]:
        """Neighbours that say they are linked to this peer, and may relay: the best first.

        Those that strangers can reach come first, since nothing but they themselves need be up; of
        them the nearest.
        """
        place, neighbours = place_of(peer), self.routing.neighbours
        found = [
            each
            for each, known in neighbours.items()
            if each != peer and place in known.places and self._may_relay(each, now)
        ]
        return sorted(found, key=lambda each: (not self._is_proven(each), neighbours[each].srtt))

    def refusal(self, peer: PeerId) -> str | None:
        """Why a neighbour that is linked to this peer has refused lately, if one has."""
        place, neighbours = place_of(peer), self.routing.neighbours
        codes = [
            code
            for each, (_, code) in self._refused.items()
            if each in neighbours and place in neighbours[each].places
        ]
        return codes[-1] if codes else None

    def _may_relay(self, relay: PeerId, now: float) -> bool:
        link = self.links.by_peer.get(relay)
        if link is None or link.state is not LinkState.UP or link.facts.path is PathKind.RELAYED:
            return False
        record = self.book.get(relay)
        if record is not None and record.token is None:
            return False  # It is hidden, and relays for nobody.
        return now >= self._refused.get(relay, (now, ""))[0]

    def _is_proven(self, peer: PeerId) -> bool:
        record = self.book.get(peer)
        return record is not None and any(entry.proven for entry in record.addresses)

    def entries(self, peer: PeerId, now: float) -> list[RelayEntry]:
        """Relays of ours that this peer may dial, as an offer or an answer to it names them."""
        able = [
            each
            for each in self.routing.neighbours
            if each != peer and self._is_proven(each) and self._may_relay(each, now)
        ]
        able.sort(key=lambda each: self.routing.neighbours[each].srtt)
        entries = []
        for relay in able[:RELAYS_OFFERED]:
            record = self.book.bytes_of(relay)
            if record is not None:
                self._given.put((relay, peer), now + TICKET_LIFE)
                entries.append(RelayEntry(record, make_ticket(self.context, relay, peer, now)))
        return entries

    # --- asking ----------------------------------------------------------------------------------

    def ask(self, peer: PeerId, now: float) -> bool:
        """Ask the best relays that have made no circuit to this peer yet; whether there is any."""
        taken = {each.relay for each in self._to(peer)}
        taken |= {each.relay for each in self._asks_for(peer)}
        relays = [each for each in self.relays_to(peer, now) if each not in taken]
        for relay in relays[: max(0, ASKED_AT_ONCE - len(taken))]:
            self.ask_relay(relay, peer, b"", now)
        return self.is_asking(peer)

    def ask_relay(self, relay: PeerId, peer: PeerId, other: bytes, now: float) -> None:
        """Ask this neighbour; `other`: the peer's ticket, if it has sent us one."""
        request = self.context.crypto.token(8)
        self._asks[request] = _Ask(peer, relay)
        self._timers.set((Due.ASK, request), now + ASK_TIMEOUT)
        ticket = make_ticket(self.context, relay, peer, now)
        self._tell(relay, CircuitAsk(request, peer, ticket, other))

    # --- what relays say -------------------------------------------------------------------------

    def on_offer(self, relay: PeerId, message: CircuitOffer, now: float) -> list[CircuitFact]:
        """A neighbour would relay between us and a peer that has asked for it: take it."""
        peer, circuit = PeerId(message.peer), CircuitId(message.circuit)
        theirs = self._read(message.ticket, relay, peer, now)
        if theirs is None or not self._has_room(peer, circuit):
            self._tell(relay, CircuitRefuse(circuit, CircuitCode.DECLINED))
            return []
        facts = self._use(circuit, Circuit(peer, relay, theirs.token, stands=False), now)
        ticket = make_ticket(self.context, relay, peer, now)
        self._tell(relay, CircuitAccept(circuit, ticket))
        return facts

    def on_ready(self, relay: PeerId, message: CircuitReady, now: float) -> list[CircuitFact]:
        """A circuit stands: one that we have asked for, taken, or sent our ticket for."""
        peer, circuit = PeerId(message.peer), CircuitId(message.circuit)
        taken = self.by_id.get(circuit)
        if message.request == UNASKED and taken is not None:
            taken.stands = taken.stands or (taken.peer, taken.relay) == (peer, relay)
            return []
        ask = self._asks.get(message.request)
        if ask is not None and (ask.peer, ask.relay) == (peer, relay):
            self._forget_ask(message.request)
        elif now > self._given.get((relay, peer), float("-inf")):
            self._tell(relay, CircuitClose(circuit, CircuitCode.UNNEEDED))
            return []
        theirs = self._read(message.ticket, relay, peer, now)
        if theirs is None or not self._has_room(peer, circuit):
            self._tell(relay, CircuitClose(circuit, CircuitCode.TICKET))
            return self._fail(peer, CircuitCode.TICKET)
        facts = self._use(circuit, Circuit(peer, relay, theirs.token), now)
        return [*facts, Stands(peer, circuit)]

    def on_refuse(self, relay: PeerId, message: CircuitRefuse, now: float) -> list[CircuitFact]:
        """A relay will not, or its other end will not."""
        ask = self._asks.get(message.name)
        if ask is None or ask.relay != relay:
            return []
        self._forget_ask(message.name)
        if message.code in (CircuitCode.OFF, CircuitCode.FULL, CircuitCode.SPENT):
            self._refused.put(relay, (now + REFUSED_FOR, message.code))
        return self._fail(ask.peer, message.code)

    def on_close(self, relay: PeerId, message: CircuitClose) -> list[CircuitFact]:
        """A circuit is over."""
        circuit = CircuitId(message.circuit)
        found = self.by_id.get(circuit)
        return self._drop(circuit) if found is not None and found.relay == relay else []

    # --- what becomes of the links ---------------------------------------------------------------

    def on_link(self, relay: PeerId) -> list[CircuitFact]:
        """A neighbour's link is another one, has another path, or is gone."""
        link = self.links.by_peer.get(relay)
        usable = link is not None and link.facts.path is not PathKind.RELAYED
        facts: list[CircuitFact] = []
        for circuit in [name for name, each in self.by_id.items() if each.relay == relay]:
            if link is not None and usable:
                self.context.emit(UseCircuit(circuit, link.id))
            else:
                facts += self._drop(circuit)
        if not usable:
            for request in [name for name, ask in self._asks.items() if ask.relay == relay]:
                peer = self._asks[request].peer
                self._forget_ask(request)
                facts += self._fail(peer, CircuitCode.UNLINKED)
        return facts

    def on_path(self, peer: PeerId, now: float) -> None:
        """The link to a peer has come, has another path, or has ended: are its circuits needed?"""
        due, link = (Due.LINGER, bytes(peer)), self.links.by_peer.get(peer)
        if link is not None and link.facts.path is PathKind.RELAYED:
            self._timers.stop(due)
        elif due not in self._timers and any(self._to(peer)):
            self._timers.set(due, now + LINGER)

    def on_time(self, now: float) -> list[CircuitFact]:
        """Relays that do not answer, circuits that nobody needs."""
        facts: list[CircuitFact] = []
        for due, name in self._timers.pop_due(now):
            if due is Due.ASK:
                ask = self._asks.pop(name)
                facts += self._fail(ask.peer, CircuitCode.TIMEOUT)
            else:
                for circuit in [each for each, c in self.by_id.items() if c.peer == name]:
                    self._tell(
                        self.by_id[circuit].relay, CircuitClose(circuit, CircuitCode.UNNEEDED)
                    )
                    facts += self._drop(circuit)
        return facts

    # --- the table -------------------------------------------------------------------------------

    def _to(self, peer: PeerId) -> Iterator[Circuit]:
        return (each for each in self.by_id.values() if each.peer == peer)

    def _asks_for(self, peer: PeerId) -> Iterator[_Ask]:
        return (each for each in self._asks.values() if each.peer == peer)

    def _has_room(self, peer: PeerId, circuit: CircuitId) -> bool:
        if circuit in self.by_id or peer == self.context.peer_id:
            return False
        return len(self.by_id) < CIRCUITS_MAX and sum(1 for _ in self._to(peer)) < PER_PEER_MAX

    def _read(self, ticket: bytes, relay: PeerId, peer: PeerId, now: float) -> Ticket | None:
        """The other end's consent, if the relay is linked to us by its own path."""
        link, ours = self.links.by_peer.get(relay), self.context.peer_id
        if link is None or link.facts.path is PathKind.RELAYED:
            return None
        return read_ticket(self.context, ticket, relay=relay, holder=peer, peer=ours, now=now)

    def _use(self, circuit: CircuitId, taken: Circuit, now: float) -> list[CircuitFact]:
        first = not self._uses(taken.relay)
        self.by_id[circuit] = taken
        self.context.emit(UseCircuit(circuit, self.links.by_peer[taken.relay].id))
        self.on_path(taken.peer, now)
        return [RelayUsed(taken.relay, used=True)] if first else []

    def _drop(self, circuit: CircuitId) -> list[CircuitFact]:
        dropped = self.by_id.pop(circuit)
        self.context.emit(DropCircuit(circuit))
        if not any(self._to(dropped.peer)):
            self._timers.stop((Due.LINGER, bytes(dropped.peer)))
        facts: list[CircuitFact] = [Closed(dropped.peer, circuit)] if dropped.stands else []
        if not self._uses(dropped.relay):
            facts.append(RelayUsed(dropped.relay, used=False))
        return facts

    def _uses(self, relay: PeerId) -> bool:
        return any(each.relay == relay for each in self.by_id.values())

    def _forget_ask(self, request: bytes) -> None:
        del self._asks[request]
        self._timers.stop((Due.ASK, request))

    def _fail(self, peer: PeerId, code: str) -> list[CircuitFact]:
        """One relay less: a failure only if it was the last, and none has come to stand."""
        return [] if self.is_asking(peer) or self.to(peer) else [Failed(peer, code)]

    def _tell(self, peer: PeerId, message: CircuitMessage) -> None:
        link: Link | None = self.links.by_peer.get(peer)
        if link is not None:
            self.context.emit(Transmit(link.id, message))
