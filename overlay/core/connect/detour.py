"""The third way to a peer, beside dial and offer: over a circuit, through a neighbour of both.

Only for peers that commands have asked for, and links that run over circuits already: for gossip
any neighbour is as good as another. It begins a moment after the others, and what it comes to is a
link like theirs, for which a better path is looked for.
"""

from dataclasses import dataclass, field

from overlay.core.connect.attempts import Attempts, Detour, Due
from overlay.core.connect.dialling import DIAL_TIMEOUT, Dialling
from overlay.core.connect.history import Outcome, Rung
from overlay.core.connect.table import PEERS_MAX, Failed, Table
from overlay.core.context import Context
from overlay.core.limits import BoundedDict
from overlay.core.membership.membership import Membership
from overlay.core.relay.circuits import Circuits
from overlay.core.relay.tickets import CircuitCode
from overlay.core.types import CircuitId, EndReason, LinkId, PeerId
from overlay.core.wire.documents import RelayEntry
from overlay.errors import Failure

STAGGER_CIRCUIT = 0.15
"""Seconds from the beginning of a round to the question for a circuit (guess): a link within a city
is up by then, and costs no relay anything."""
STAGGER_RESERVE = 1.0
"""Seconds from the dial over one circuit to that over another one beside it (guess): on a way that
loses one packet in five a handshake takes longer, and now and then as long as a dial may."""
ASK_AGAIN = 0.5
"""Seconds (guess) until the next look for a neighbour that could relay, or for a circuit."""
NO_RELAY: dict[str, tuple[str, str]] = {
    CircuitCode.OFF: (Failure.REFUSED, "no common neighbour relays for others (relay.serve)"),
    CircuitCode.FULL: (Failure.REFUSED, "the common neighbours relay as much as they may"),
    CircuitCode.SPENT: (Failure.REFUSED, "the common neighbours have relayed enough for today"),
    CircuitCode.UNLINKED: (Failure.UNREACHABLE, "no common neighbour could relay"),
    CircuitCode.TICKET: (
        Failure.REFUSED,
        "the consent to a relay did not hold: are the clocks right?",
    ),
    CircuitCode.DECLINED: (Failure.REFUSED, "the peer takes no relayed link now"),
    CircuitCode.TIMEOUT: (Failure.TIMEOUT, "no common neighbour answered"),
}
"""What to say when there is no circuit, by why."""


@dataclass(frozen=True, slots=True)
class Meeting:
    """Why a relay is dialled: to be asked for a circuit to this peer, whose ticket is at hand."""

    peer: PeerId
    ticket: bytes
    until: float


@dataclass(slots=True)
class Detours:
    """The ways of one node over circuits."""

    context: Context
    table: Table
    dialling: Dialling
    circuits: Circuits
    membership: Membership
    # Peers that commands have asked for: the link to one is worth a relay's.
    _talked_to: BoundedDict[PeerId, None] = field(default_factory=lambda: BoundedDict(PEERS_MAX))
    # Relays that are dialled, and for whom.
    _meeting: BoundedDict[PeerId, Meeting] = field(default_factory=lambda: BoundedDict(PEERS_MAX))

    def on_wanted(self, peer: PeerId) -> None:
        """A command has asked for this peer."""
        self._talked_to.put(peer, None)

    def begin_soon(self, attempts: Attempts, now: float) -> None:
        """A round goes on: if the peer is worth it, a circuit is the third way, in a moment.

        At once where circuits stand, because it is one of them that has failed, and where there is
        no other way: both NATs are known to leave none, or one of the two is hidden.
        """
        peer, relayed = attempts.peer, self.table.is_relayed(attempts.peer)
        if not (attempts.waiting or relayed or peer in self._talked_to):
            return
        if not self.context.settings.circuits:
            self.table.skipped(attempts, Rung.CIRCUIT, "circuits are switched off (links.circuits)")
            return
        attempts.detour = Detour.SOON
        at_once = relayed or self.table.is_hopeless(peer) or self.table.is_hidden(peer)
        self.table.timers.set((Due.CIRCUIT, peer), now + (0.0 if at_once else STAGGER_CIRCUIT))

    def take(self, attempts: Attempts, now: float) -> bool:
        """Dial over a circuit that stands, or ask for one; whether there is any prospect."""
        peer = attempts.peer
        self.table.timers.stop((Due.CIRCUIT, peer))
        attempts.detour = Detour.OFF
        if self.table.links.is_up(peer):
            return True
        attempts.since.setdefault(Rung.CIRCUIT, now)
        if self.dialling.over_circuit(attempts):
            self.table.timers.set((Due.CIRCUIT, peer), now + STAGGER_RESERVE)
            return True
        if not self.circuits.ask(peer, now):
            self._on_no_relay(attempts, now)
            return False
        attempts.detour = Detour.ASKING
        return True

    def dial_reserve(self, attempts: Attempts, now: float) -> None:
        """The dial over a circuit takes long: go over another one, too, once another stands."""
        if not self.table.links.is_up(attempts.peer) and not self.dialling.over_circuit(attempts):
            self.table.timers.set((Due.CIRCUIT, attempts.peer), now + ASK_AGAIN)

    def _on_no_relay(self, attempts: Attempts, now: float) -> None:
        """There is nobody to ask; for a command it is tried again in a moment."""
        code = self.circuits.refusal(attempts.peer)
        why = NO_RELAY[code][1] if code in NO_RELAY else "no neighbour is linked to both"
        if Rung.CIRCUIT not in attempts.reasons:
            self.table.over(attempts, Rung.CIRCUIT, Outcome.SKIPPED, why, now)
        attempts.since.pop(Rung.CIRCUIT, None)
        attempts.reasons[Rung.CIRCUIT] = why
        if attempts.waiting:
            self.table.timers.set((Due.CIRCUIT, attempts.peer), now + ASK_AGAIN)

    def awaits(self, peer: PeerId) -> Attempts | None:
        """The attempts that a circuit which has come to stand is for; None: it is in reserve.

        Also none where it is the peer that has begun this round. Where our offer has been declined
        since both NATs leave no direct path, the peer may have got us the circuit nonetheless.
        """
        attempts = self.table.by_peer.get(peer)
        if attempts is None or self.table.links.is_up(peer) or attempts.detour is Detour.DIALLING:
            return None
        begun = attempts.detour is not Detour.OFF or attempts.offering is not None
        return attempts if begun or attempts.waiting else None

    def on_no_circuit(self, peer: PeerId, code: str) -> Failed | None:
        """No relay will, or can."""
        attempts = self.table.by_peer.get(peer)
        if attempts is None or attempts.detour is not Detour.ASKING:
            return None
        attempts.detour = Detour.OFF
        return Failed(attempts, Rung.CIRCUIT, *NO_RELAY.get(code, NO_RELAY[CircuitCode.UNLINKED]))

    def on_closed(self, peer: PeerId, circuit: CircuitId) -> Failed | None:
        """A circuit is over, and a dial over it with it."""
        attempts = self.table.by_peer.get(peer)
        dials = attempts.dials.items() if attempts is not None else ()
        over = next((link for link, used in dials if used == circuit), None)
        if attempts is None or over is None:
            return None
        self.table.hangup(over, EndReason.CANCELLED)
        del attempts.dials[over]
        return self.on_dial_failed(Failed(attempts, Rung.CIRCUIT, *NO_RELAY[CircuitCode.UNLINKED]))

    def on_dial_failed(self, failed: Failed) -> Failed | None:
        """A dial over a circuit has come to nothing: another circuit may do."""
        if any(circuit is not None for circuit in failed.attempts.dials.values()):
            return None  # the one beside it goes on
        failed.attempts.detour = Detour.OFF
        peer = failed.attempts.peer
        if self.table.links.is_up(peer) or self.dialling.over_circuit(failed.attempts):
            return None
        return failed

    def on_up(self, attempts: Attempts, link: LinkId) -> None:
        """The link is up over a circuit: what looks for a better path goes on."""
        attempts.detour = Detour.OFF
        self.table.timers.stop((Due.CIRCUIT, attempts.peer))
        for other, circuit in list(attempts.dials.items()):
            if circuit is not None:
                del attempts.dials[other]
                if other != link and other not in self.table.links.by_id:
                    self.table.hangup(other, EndReason.CANCELLED)

    # --- relays that only one of the two is linked to ----------------------------------------

    def named(self, peer: PeerId, now: float) -> list[RelayEntry]:
        """Relays of ours for an offer or an answer: where no neighbour is linked to both."""
        if not self.context.settings.circuits or self.circuits.relays_to(peer, now):
            return []
        return self.circuits.entries(peer, now)

    def meet_soon(self, attempts: Attempts, relays: list[RelayEntry], now: float) -> None:
        """A peer names neighbours of its own that could relay: in a moment, if nothing else works.

        It is for us to get to them, and for the peer to dial us over the circuit.
        """
        attempts.relays = relays
        if relays and self.context.settings.circuits:
            self.table.timers.set((Due.MEET, attempts.peer), now + STAGGER_CIRCUIT)

    def meet(self, attempts: Attempts, now: float) -> None:
        """Ask the best relay that the peer has named for a circuit, linked to it or not.

        It is dialled only where it is proven to be reachable, by the record that it has signed.
        """
        peer, relays = attempts.peer, attempts.relays
        attempts.relays = []
        for entry in [] if self.table.links.is_up(peer) else relays:
            relay = self.table.book.owner(entry.record)
            if relay is None or relay in (peer, self.context.peer_id):
                continue
            self.membership.add(entry.record, peer, now)
            if self.table.links.is_up(relay):
                self.circuits.ask_relay(relay, peer, entry.ticket, now)
                return
            towards = self.table.of(relay)
            if relay in self.table.links.by_peer or towards.busy:
                continue
            if self.dialling.record(towards, now, claimed=False):
                self._meeting.put(relay, Meeting(peer, entry.ticket, now + DIAL_TIMEOUT))
                return

    def on_linked(self, relay: PeerId, now: float) -> None:
        """A link is up: if it is to a relay that was dialled for a circuit, ask for that."""
        meeting = self._meeting.pop(relay, None)
        if meeting is not None and now < meeting.until:
            self.circuits.ask_relay(relay, meeting.peer, meeting.ticket, now)
