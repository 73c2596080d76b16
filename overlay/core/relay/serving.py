"""One idea: a node that relays for others: which circuits it lets stand, and what they may cost it.

Two neighbours of ours who find no path to each other ask for a circuit: what comes from the one
with the circuit's id leaves to the other. Both have signed for it (`overlay.core.relay.tickets`).
We learn who talks to whom and how much, and can read nothing: the two make a DTLS association of
their own over it. Forwarding itself is the transport's (`RelayCircuit`).

A circuit is of depth one: both ends have to be linked to us by paths of their own. So circuits
neither nest nor go around in a ring.
"""

from collections import Counter
from dataclasses import dataclass, field

from overlay.core.context import Context
from overlay.core.events import DropCircuit, RelayCircuit, Transmit
from overlay.core.limits import BoundedDict
from overlay.core.link.links import Link, Links, LinkState
from overlay.core.membership.records import RecordBook
from overlay.core.relay.tickets import CircuitCode, read_ticket
from overlay.core.timers import Timers
from overlay.core.types import CircuitId, PathKind, PeerId
from overlay.core.wire.messages import (
    CircuitAccept,
    CircuitAsk,
    CircuitClose,
    CircuitMessage,
    CircuitOffer,
    CircuitReady,
    CircuitRefuse,
)

CIRCUITS_MAX = 256
"""Circuits that we relay at once, offered ones counted."""
PER_PEER_MAX = 8
"""Of them, those that one peer is an end of."""
PEERS_MAX = 64
"""Peers that are ends of them (guess): their links stay beyond `links.max`, and guests need room
beside them."""
OFFER_TIMEOUT = 3.0
"""Seconds that the other end gets to answer (guess)."""
IDLE_TIMEOUT = 180.0
"""Seconds without a datagram after which a circuit ends (guess): three times as long as a link
whose path has fallen silent is kept."""
DAY = 86_400.0
NONCES_MAX = 4096
"""Tickets remembered until they expire, so that none is shown twice (guess)."""
UNASKED = bytes(8)
"""The request in a `CircuitReady` to the end that has not asked."""


@dataclass(slots=True)
class Relayed:
    """A circuit that we have offered, or that stands."""

    asker: PeerId
    other: PeerId
    request: bytes
    asker_ticket: bytes
    stands: bool = False

    @property
    def ends(self) -> tuple[PeerId, PeerId]:
        """Both."""
        return self.asker, self.other

    def beyond(self, peer: PeerId) -> PeerId:
        """The end that this peer is not."""
        return self.other if peer == self.asker else self.asker


@dataclass(slots=True)
class Serving:
    """The circuits that this node relays."""

    context: Context
    links: Links
    book: RecordBook
    refused: dict[str, int] = field(default_factory=dict)
    """How often we have refused, by code."""
    carried: int = 0
    """Bytes relayed since the start."""
    _circuits: dict[CircuitId, Relayed] = field(default_factory=dict)
    _timers: Timers[CircuitId] = field(init=False)
    # When each ticket that was shown expires, by its holder and nonce.
    _nonces: BoundedDict[tuple[PeerId, bytes], None] = field(
        default_factory=lambda: BoundedDict(NONCES_MAX)
    )
    _today: tuple[float, int] = (0.0, 0)  # when the day began, and the bytes relayed since

    def __post_init__(self) -> None:
        self._timers = Timers(self.context.agenda)

    def __len__(self) -> int:
        return sum(each.stands for each in self._circuits.values())

    def serves(self, peer: PeerId) -> bool:
        """Whether this peer is an end of a circuit that stands."""
        return any(each.stands and peer in each.ends for each in self._circuits.values())

    # --- what the ends say -----------------------------------------------------------------------

    def on_ask(self, peer: PeerId, message: CircuitAsk, now: float) -> None:
        """A neighbour wants a circuit to another: offer it to that one, or open it at once.

        At once where the other end has consented already, in its offer or answer.
        """
        other = PeerId(message.peer)
        code = self._why_not(peer, other, now) or self._check(
            message.ticket, holder=peer, peer=other, now=now
        )
        if code is None and message.other:
            code = self._check(message.other, holder=other, peer=peer, now=now)
        if code is not None:
            self._refuse(peer, message.request, code)
            return
        circuit = self._new_id()
        relayed = Relayed(peer, other, message.request, message.ticket)
        self._circuits[circuit] = relayed
        if message.other:
            self._open(circuit, relayed, message.other, now)
        else:
            self._timers.set(circuit, now + OFFER_TIMEOUT)
            self._tell(other, CircuitOffer(circuit, peer, message.ticket))

    def on_accept(self, peer: PeerId, message: CircuitAccept, now: float) -> None:
        """The other end takes a circuit that we have offered to it."""
        circuit = CircuitId(message.circuit)
        relayed = self._circuits.get(circuit)
        if relayed is None or relayed.stands or relayed.other != peer:
            return
        code = self._check(message.ticket, holder=peer, peer=relayed.asker, now=now)
        if code is None and not all(map(self._is_near, relayed.ends)):
            code = CircuitCode.UNLINKED
        if code is None:
            self._open(circuit, relayed, message.ticket, now)
        else:
            self._end(circuit, code)

    def on_refuse(self, peer: PeerId, message: CircuitRefuse) -> bool:
        """The other end declines a circuit that we have offered; whether it is one of ours."""
        circuit = CircuitId(message.name)
        relayed = self._circuits.get(circuit)
        if relayed is None or relayed.stands or relayed.other != peer:
            return False
        self._forget(circuit)
        self._refuse(relayed.asker, relayed.request, CircuitCode.DECLINED)
        return True

    def on_close(self, peer: PeerId, message: CircuitClose) -> bool:
        """An end leaves a circuit: the other one hears of it; whether it is one of ours."""
        circuit = CircuitId(message.circuit)
        relayed = self._circuits.get(circuit)
        if relayed is None or peer not in relayed.ends:
            return False
        self._drop(circuit)
        self._tell(relayed.beyond(peer), message)
        return True

    # --- what becomes of the links ---------------------------------------------------------------

    def on_link(self, peer: PeerId) -> None:
        """A neighbour's link is another one, or has another path: its circuits move, or end."""
        for circuit, relayed in list(self._circuits.items()):
            if peer in relayed.ends and not self._is_near(peer):
                self._end(circuit, CircuitCode.UNLINKED)
            elif peer in relayed.ends and relayed.stands:
                self._relay(circuit, relayed)

    def on_carried(self, circuit: CircuitId, size: int, now: float) -> None:
        """So many bytes went over a circuit of late."""
        self.carried += size
        began_at, spent = self._today
        if now >= began_at + DAY:
            began_at, spent = now, 0
        self._today = began_at, spent + size
        if circuit in self._circuits:
            self._timers.set(circuit, now + IDLE_TIMEOUT)
        if self._is_spent(now):
            for each in list(self._circuits):
                self._end(each, CircuitCode.SPENT)

    def on_time(self, now: float) -> None:
        """Circuits that nobody has accepted, or used for long, end."""
        for circuit in self._timers.pop_due(now):
            stands = self._circuits[circuit].stands
            self._end(circuit, CircuitCode.IDLE if stands else CircuitCode.TIMEOUT)

    # --- decisions -------------------------------------------------------------------------------

    def _why_not(self, peer: PeerId, other: PeerId, now: float) -> CircuitCode | None:
        """Why these two get no circuit, if so."""
        if not self.context.settings.relay:
            return CircuitCode.OFF
        if other == peer or not (self._is_near(peer) and self._is_near(other)):
            return CircuitCode.UNLINKED
        counts = Counter(end for each in self._circuits.values() for end in each.ends)
        if len(self._circuits) >= CIRCUITS_MAX or max(counts[peer], counts[other]) >= PER_PEER_MAX:
            return CircuitCode.FULL
        if len(counts.keys() | {peer, other}) > PEERS_MAX:
            return CircuitCode.FULL
        return CircuitCode.SPENT if self._is_spent(now) else None

    def _check(
        self, ticket: bytes, *, holder: PeerId, peer: PeerId, now: float
    ) -> CircuitCode | None:
        """What is wrong with a ticket, if something is; a good one is used up."""
        ours = self.context.peer_id
        body = read_ticket(self.context, ticket, relay=ours, holder=holder, peer=peer, now=now)
        if body is None or (holder, body.nonce) in self._nonces:
            return CircuitCode.TICKET
        self._nonces.put((holder, body.nonce), None)
        return None

    def _is_near(self, peer: PeerId) -> bool:
        """Whether we are linked to it by a path of its own (depth one), and hear it."""
        link = self.links.by_peer.get(peer)
        if link is None or link.state is LinkState.SILENT:
            return False
        return link.facts.path is not PathKind.RELAYED

    def _is_spent(self, now: float) -> bool:
        limit, (began_at, spent) = self.context.settings.relay_bytes_per_day, self._today
        return now < began_at + DAY and spent >= limit

    def _new_id(self) -> CircuitId:
        """Unguessable; its first byte is of no other protocol on the port (RFC 7983 §7)."""
        while True:
            drawn = self.context.crypto.token(8)
            circuit = CircuitId(bytes([64 + drawn[0] % 16]) + drawn[1:])
            if circuit not in self._circuits:
                return circuit

    # --- deeds -----------------------------------------------------------------------------------

    def _open(self, circuit: CircuitId, relayed: Relayed, other_ticket: bytes, now: float) -> None:
        relayed.stands = True
        self._timers.set(circuit, now + IDLE_TIMEOUT)
        self._relay(circuit, relayed)
        self._ready(relayed.asker, relayed.request, circuit, relayed.other, other_ticket)
        self._ready(relayed.other, UNASKED, circuit, relayed.asker, relayed.asker_ticket)

    def _relay(self, circuit: CircuitId, relayed: Relayed) -> None:
        one, other = (self.links.by_peer[end] for end in relayed.ends)
        rate = self.context.settings.relay_rate
        self.context.emit(RelayCircuit(circuit, one.id, other.id, rate))

    def _ready(
        self, to: PeerId, request: bytes, circuit: CircuitId, peer: PeerId, ticket: bytes
    ) -> None:
        record = self.book.bytes_of(peer) or b""
        self._tell(to, CircuitReady(request, circuit, peer, ticket, record))

    def _refuse(self, peer: PeerId, name: bytes, code: CircuitCode) -> None:
        self.refused[code] = self.refused.get(code, 0) + 1
        self._tell(peer, CircuitRefuse(name, code))

    def _end(self, circuit: CircuitId, code: CircuitCode) -> None:
        """A circuit ends for a reason of ours: both ends hear of it."""
        relayed = self._circuits[circuit]
        self._drop(circuit)
        if not relayed.stands:
            self._refuse(relayed.asker, relayed.request, code)
            self._tell(relayed.other, CircuitClose(circuit, code))
            return
        for end in relayed.ends:
            self._tell(end, CircuitClose(circuit, code))

    def _drop(self, circuit: CircuitId) -> None:
        if self._circuits[circuit].stands:
            self.context.emit(DropCircuit(circuit))
        self._forget(circuit)

    def _forget(self, circuit: CircuitId) -> None:
        del self._circuits[circuit]
        self._timers.stop(circuit)

    def _tell(self, peer: PeerId, message: CircuitMessage) -> None:
        link: Link | None = self.links.by_peer.get(peer)
        if link is not None:
            self.context.emit(Transmit(link.id, message))
