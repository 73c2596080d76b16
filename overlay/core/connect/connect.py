"""One idea: how a node comes from a peer id to a link that is up, one round after another.

A peer is dialled where its record says. A moment later an offer goes to it through the mesh, and
both ends check paths to each other (ICE, RFC 8445): dial and offer race, as connections do in RFC
8305. When both have failed, even addresses are dialled that nobody has seen to be the peer's own.
`STEPS` says what follows what. A step that cannot be taken (nothing to dial, nobody who could pass
an offer on) counts as failed, for the reason that the last one failed for. Whatever makes the link
to the peer a link that is up ends the round, and calls off all that it had begun.

A round that has come to nothing is followed by a rest, twice as long each time, whoever asks for
the peer; only a user's command may begin one sooner. Word from the peer itself (a newer record, an
offer, a link) ends the rest, and so does a change of our own surroundings.

A link that is suspect or silent is no link that is up: a round begins beside it at once. Its
offer asks to restart ICE on the association that is there (RFC 8445 §9), and a dial that succeeds
hands its path over to that association (`overlay.core.link.links`), so that streams go on.

Each way is a machine of its own: `dialling`, `offering` with `answering` at the other end, and the
detour over a circuit (`detour`), for peers that users talk to. What they share is the `table`.
"""

from collections.abc import Callable, Iterable
from typing import assert_never

from overlay.core.connect.answering import Answering
from overlay.core.connect.attempts import STEPS, Attempts, Detour, Due, Step, StepEvent
from overlay.core.connect.detour import Detours
from overlay.core.connect.dialling import DIAL_TIMEOUT, Dialling
from overlay.core.connect.history import Outcome, Rung
from overlay.core.connect.offering import OwnOffers
from overlay.core.connect.punching import ICE_SHARE, UNSEEN, Punching
from overlay.core.connect.table import COMMAND_RETRY, PEERS_MAX, Failed, Table
from overlay.core.context import Context
from overlay.core.events import Foretold, PunchOver, Rejected, Resolved
from overlay.core.limits import BoundedDict
from overlay.core.link.links import Link, Links, LinkState
from overlay.core.membership.membership import Membership
from overlay.core.membership.records import RecordBook
from overlay.core.nat.knocking import Neighbour
from overlay.core.nat.pairs import cause
from overlay.core.nat.reflexive import Reflexive
from overlay.core.relay.circuits import Circuits
from overlay.core.routing.requests import base_of
from overlay.core.routing.routing import Routing
from overlay.core.types import (
    CircuitId,
    EndReason,
    GoodbyeCode,
    LinkId,
    PathKind,
    PeerId,
    RequestId,
)
from overlay.core.wire.documents import InviteBody
from overlay.core.wire.messages import Answer, Foretell, Offer, Sight
from overlay.errors import Failure

STAGGER = 0.25
"""Seconds from a dial to the offer beside it: the Connection Attempt Delay that RFC 8305 §5
recommends. A dial that works is then mostly done, and costs the mesh nothing."""
STAGGER_COMMAND = 0.05
"""The same when a user waits (guess): longer than a dial within a LAN takes, and what it may cost
an offer that is needed is not noticed."""
UPGRADE_FIRST, UPGRADE_MAX = 5.0, 3600.0
"""Seconds (guess) from the last search in vain for a relayed link's own path to the next: twice as
many each time, at most; and at once when a network has changed."""
BEYOND_FIRST = 60.0
"""The same (guess) where a technique beyond ICE was in vain: thousands of packets, and as long as
both networks are what they were, hardly anything that was not tried."""
SEARCHES_MAX = 16
"""Searches in vain that are counted: by then the pause has been the longest for long."""
STAGGER_CLIMB = 0.5
"""Seconds (guess) by which the end that was dialled seeks another path later than its dialler, so
that the two seldom do the same at once."""
CLIMB_INTERVAL = 10.0
"""Seconds (guess) from one round beside a link that is suspect to the next: one that flaps costs no
more."""
CLIMB_SILENT = 2.0
"""The same when the link is silent (guess): the round may have begun before its peer was back."""
NOT_DIALABLE = "no address of the peer is proven to be reachable"
COMMAND_TIMEOUT = 12.0
"""Seconds (guess) that a command to connect keeps trying."""
GIVE_UP_LATER = 0.25
"""Seconds (guess) until the next look whether a dial over a circuit is over, for which it waits."""
IN_TIME = "no relay has led there in time"


class Connecting:
    """The attempts of one node to reach its peers.

    Methods return the peers towards whom nothing is left to try for now.
    """

    def __init__(
        self,
        context: Context,
        links: Links,
        routing: Routing,
        book: RecordBook,
        reflexive: Reflexive,
        membership: Membership,
        circuits: Circuits,
        nat: Callable[[], list[str]],
        neighbours: Callable[[], list[Neighbour]],
    ) -> None:
        """`nat`: what is known of our NAT, in the words of offers; empty: nothing."""
        self.context, self.links, self.routing = context, links, routing
        self.table = table = Table(context, links, routing, book, reflexive, nat)
        self._dialling = dialling = Dialling(context, table, reflexive, circuits)
        self._detours = detours = Detours(context, table, dialling, circuits, membership)
        self._punching = punching = Punching(context, table, neighbours)
        self._offers = OwnOffers(context, table, reflexive, membership, detours, punching)
        self._answering = Answering(context, table, reflexive, membership, detours, punching)
        self._words: list[str] = []  # what was last known of our NAT
        # When a round beside each link began.
        self._climbed: BoundedDict[PeerId, float] = BoundedDict(PEERS_MAX)

    def on_met(self, names: Iterable[bytes]) -> None:
        """An invite or the cache has named these: they may be dialled even if others may not."""
        self._dialling.on_met(names)

    def dial_invite(
        self, body: InviteBody, grant: tuple[bytes, int]
    ) -> dict[LinkId, PeerId | None]:
        """Dial every member that an invite names at all its addresses, all at once."""
        return self._dialling.invite(body, grant)

    def forgive(self, peer: PeerId, now: float) -> None:
        """Word of a peer has come from itself: it need not rest; maybe a partition is over."""
        self.table.forgive(peer, now)

    def forgive_all(self, now: float) -> None:
        """Our surroundings have changed: nobody need rest any longer."""
        self.table.forgive_all(now)

    def wait(self, peer: PeerId, request: RequestId, now: float) -> None:
        """A command waits for a link to this peer; it gives up after 12 s."""
        self._detours.on_wanted(peer)
        attempts = self.table.of(peer)
        if attempts.busy and not attempts.waiting:
            self._join(attempts, now)
        attempts.waiting.append((request, now + COMMAND_TIMEOUT))
        self.table.timers.set((Due.GIVE_UP, peer), attempts.waiting[0][1])

    def start(self, peer: PeerId, now: float) -> list[PeerId]:
        """Begin a round, unless one is under way or the peer rests; a command need not wait."""
        if self.links.is_up(peer):
            return []
        attempts = self.table.of(peer)
        if attempts.busy:
            return []
        if now < attempts.retry_at and not attempts.waiting:
            return [peer]
        return self._begin(attempts, now)

    def climb(self, link: Link, now: float) -> list[PeerId]:
        """A link is suspect or silent: look for another path beside it, its dialler at once."""
        peer = link.peer
        assert peer is not None
        interval = CLIMB_INTERVAL if link.state is LinkState.SUSPECT else CLIMB_SILENT
        soonest = self._climbed.get(peer, -CLIMB_INTERVAL) + interval
        attempts = self.table.of(peer)
        if now < soonest:
            self.table.timers.set((Due.CLIMB, peer), soonest)
            return []
        if attempts.busy:
            self._join(attempts, now)
            return []
        if link.inbound:
            self.table.timers.set((Due.CLIMB, peer), now + STAGGER_CLIMB)
            return []
        return self._climb(attempts, now)

    def _join(self, attempts: Attempts, now: float) -> None:
        """A round is under way that a circuit may now be worth in: it joins the others."""
        if attempts.detour is Detour.OFF:
            self._detours.begin_soon(attempts, now)

    def _climb(self, attempts: Attempts, now: float) -> list[PeerId]:
        if attempts.busy or self.links.is_up(attempts.peer):
            return []
        self._climbed.put(attempts.peer, now)
        return self._begin(attempts, now)

    def climb_again(self, now: float) -> list[PeerId]:
        """A link is up again: others that are not may have a way through it."""
        doubtful = [link for link in self.links.by_peer.values() if link.state is not LinkState.UP]
        return [peer for link in doubtful for peer in self.climb(link, now)]

    def _begin(self, attempts: Attempts, now: float) -> list[PeerId]:
        attempts.step = STEPS[Step.REST][StepEvent.BEGIN]
        attempts.tried, attempts.undeliverable = (), False
        attempts.answered = False
        attempts.before, attempts.reasons = attempts.reasons, {}
        self._detours.begin_soon(attempts, now)
        return self._take(attempts, now)

    # --- which step comes next -----------------------------------------------------------------

    def _next_step(self, attempts: Attempts, now: float) -> list[PeerId]:
        """A step has failed with nothing else under way: take the next one at once."""
        if self.links.is_up(attempts.peer):
            attempts.searches = min(attempts.searches + 1, SEARCHES_MAX)
            self._upgrade_later(attempts, now)
            return []
        if attempts.step is Step.DIAL and not self._is_heard():
            attempts.step = Step.OFFER  # Nobody could pass it on: it counts as tried.
        return self._after_failure(attempts, now)

    def _is_heard(self) -> bool:
        """Whether there is a neighbour, not in doubt, that could pass an offer on."""
        return len(self.routing.neighbours) > len(self.routing.lookahead.doubted)

    def _after_failure(self, attempts: Attempts, now: float) -> list[PeerId]:
        unreachable = attempts.undeliverable or attempts.last[0] == Failure.UNREACHABLE
        event = StepEvent.UNREACHABLE if unreachable else StepEvent.FAILED
        attempts.step = STEPS[attempts.step][event]
        return self._take(attempts, now)

    def _take(self, attempts: Attempts, now: float) -> list[PeerId]:
        """Take the step that it is at, or the first that can be taken after it."""
        match attempts.step:
            case Step.REST:
                self.table.rest(attempts, now)
                if attempts.peer in self.links.by_peer:  # A link in doubt: again after the rest.
                    self.table.timers.set((Due.CLIMB, attempts.peer), attempts.retry_at)
                repeats = attempts.answered and attempts.last[0] != EndReason.GLARE
                if repeats and not self.context.settings.circuits:
                    self._reject(attempts)  # Another round would come to the same.
                return [attempts.peer]
            case Step.OFFER if self.context.settings.offers and self._offers.may_send(
                attempts, now
            ):
                return self._offer(attempts, now)
            case Step.OFFER:
                return self._after_failure(attempts, now)
            case Step.DIAL | Step.LAST_RESORT:
                claimed = attempts.step is Step.LAST_RESORT
                if not self._dialling.record(attempts, now, claimed=claimed):
                    if attempts.waiting and not claimed:
                        self.table.skipped(attempts, Rung.DIAL, NOT_DIALABLE)
                    return self._after_failure(attempts, now)
                if not claimed:
                    stagger = STAGGER_COMMAND if attempts.waiting else STAGGER
                    self.table.timers.set((Due.BESIDE, attempts.peer), now + stagger)
                return []
            case _:
                assert_never(attempts.step)

    def _offer(self, attempts: Attempts, now: float) -> list[PeerId]:
        return [peer for each in self._offers.send(attempts, now) for peer in self._fail(each, now)]

    # --- what the ways come to -------------------------------------------------------------------

    def on_offer(self, offer: Offer, via: PeerId, now: float) -> None:
        """An offer for us: if it holds, take in its sender's record, and answer."""
        self._answering.on_offer(offer, via, now)

    def on_answer(self, answer: Answer, via: PeerId, now: float) -> list[PeerId]:
        """The answer to an offer of ours has come: start ICE, or take the next step."""
        attempts = self.table.of_request(base_of(answer.request))
        stuck = self._fail(self._offers.on_answer(answer, via, now), now)
        if attempts is not None and attempts.detour is Detour.SOON:
            # It may have said what leaves no other way than a circuit.
            stuck += self._detour(attempts, now) if self.table.is_hopeless(attempts.peer) else []
        if attempts is not None:
            self._beyond_soon(attempts, now)
        return stuck

    def on_undeliverable(self, request: bytes, code: str, now: float) -> list[PeerId]:
        """Nobody could pass an offer of ours on."""
        return self._fail(self._offers.on_undeliverable(request, code), now)

    def on_circuit(self, peer: PeerId, now: float) -> list[PeerId]:
        """A circuit to this peer has come to stand: use it, unless it is one in reserve."""
        attempts = self._detours.awaits(peer)
        return [] if attempts is None else self._detour(attempts, now)

    def on_no_circuit(self, peer: PeerId, code: str, now: float) -> list[PeerId]:
        """No relay will, or can."""
        return self._fail(self._detours.on_no_circuit(peer, code), now)

    def on_circuit_closed(self, peer: PeerId, circuit: CircuitId, now: float) -> list[PeerId]:
        """A circuit is over, and a dial over it with it."""
        return self._fail(self._detours.on_closed(peer, circuit), now)

    def _detour(self, attempts: Attempts, now: float) -> list[PeerId]:
        """Go over a circuit; if there is none, that way has failed."""
        if self._detours.take(attempts, now) or attempts.busy:
            return []
        return self._next_step(attempts, now)

    def _fail(self, failed: Failed | None, now: float) -> list[PeerId]:
        """A way has come to nothing: take the next step, unless another is under way."""
        if failed is None:
            return []
        attempts = failed.attempts
        attempts.last = (failed.code, failed.text)
        attempts.reasons[failed.rung] = failed.text
        if failed.rung is Rung.OFFER:
            self.table.signalling.on_failed(attempts.peer, now)
            if attempts.answered and failed.code == Failure.TIMEOUT:
                self._punching.on_in_vain(attempts.peer)
        self.table.over(attempts, failed.rung, Outcome.FAILED, failed.text, now)
        if attempts.detour is Detour.SOON and not attempts.is_direct_busy:
            return self._detour(attempts, now)  # Nothing else is left to wait for.
        return [] if attempts.busy else self._next_step(attempts, now)

    # --- better paths ------------------------------------------------------------------------

    def _upgrade_later(self, attempts: Attempts, now: float) -> None:
        """The link is up and nothing is under way: if it is relayed, look for better again later.

        What was in vain just now will be for a while: the pause doubles, until a network changes.
        """
        link = self.links.by_peer.get(attempts.peer)
        if link is None or link.facts.path is not PathKind.RELAYED or link.inbound:
            return
        if self._punching.is_forbidden(attempts.peer) or self.table.is_hidden(attempts.peer):
            return  # until either network is another one, or for ever
        soonest = max(now, self.table.signalling.poisoned_until(attempts.peer))
        if not attempts.asked and self._punching.may_refresh(attempts.peer):
            soonest = now  # Fresh sockets need not wait until routers have forgotten.
        self.table.timers.set(
            (Due.UPGRADE, attempts.peer), max(soonest, now + self._pause(attempts))
        )

    def _pause(self, attempts: Attempts) -> float:
        """Seconds until a relayed link looks for a path of its own again."""
        in_vain, peer = attempts.searches, attempts.peer
        pause = UPGRADE_FIRST * 2.0**in_vain
        if not attempts.asked and self._punching.has_more(peer):
            pause = 0.0
        elif attempts.asked and in_vain:
            first = UPGRADE_FIRST if attempts.postponed else BEYOND_FIRST
            pause = first * 2.0 ** (in_vain - 1)
        return min(UPGRADE_MAX, pause)

    def upgrade_soon(self, now: float) -> None:
        """Our network is another one: what was in vain may work now."""
        self.table.history.forget()
        self.table.signalling.forget()
        punched = self.table.by_peer.get(self._punching.on_surroundings() or PeerId(b""))
        if punched is not None:
            self.table.abandon(punched)
        for peer in self.links.by_peer:
            self._search_soon(peer, now)

    def _search_soon(self, peer: PeerId, now: float) -> None:
        """A network is another one; either end of a relayed link begins, its dialler first."""
        link = self.links.by_peer[peer]
        if link.facts.path is PathKind.RELAYED:
            self.table.of(peer).on_moved()
            stagger = STAGGER + (STAGGER_CLIMB if link.inbound else 0.0)
            self.table.timers.set((Due.UPGRADE, peer), now + stagger)

    def on_record(self, peer: PeerId, now: float) -> None:
        """A peer has signed a newer record: its network may be another one."""
        self.table.forgive(peer, now)
        link = self.links.by_peer.get(peer)
        if link is not None and link.facts.path is PathKind.RELAYED and not link.inbound:
            self.table.history.on_moved(peer)
            attempts = self.table.of(peer)
            attempts.on_moved()
            if not attempts.beyond:
                self.table.timers.set((Due.UPGRADE, peer), now + UPGRADE_FIRST)

    def _upgrade(self, attempts: Attempts, now: float) -> list[PeerId]:
        """Look for a path without a relay: the offer goes over the link itself (RFC 8445 §9)."""
        if not attempts.busy and not self.table.is_relayed(attempts.peer):
            self.table.discard(attempts.peer)
            return []
        if self._punching.has_more(attempts.peer) and not self._punching.is_free(
            attempts.peer, now
        ):
            self.table.timers.set((Due.UPGRADE, attempts.peer), now + UPGRADE_FIRST)
            return []  # What may help has to wait, and without it there is little to be found.
        if self._has_had_its_moment(attempts):
            self.table.abandon(attempts)
        attempts.beyond = False
        offers = self.context.settings.offers and not self.table.is_hidden(attempts.peer)
        return self._offer(attempts, now) if offers and not attempts.busy else []

    def _beyond_soon(self, attempts: Attempts, now: float) -> None:
        """ICE is under way for a link that already runs over a circuit: it has a moment."""
        link, offering = self.links.by_peer.get(attempts.peer), attempts.offering
        if link is None or link.inbound or link.facts.path is not PathKind.RELAYED:
            return
        if offering is None or offering.restarts:
            return  # nothing is under way, or it is that already
        if self._punching.may_help(attempts.peer):
            attempts.beyond = True
            self.table.timers.set((Due.UPGRADE, attempts.peer), now + ICE_SHARE)

    def on_nat(self, now: float) -> None:
        """Perhaps more is known of our NAT: for relayed links that says what is worth trying.

        Offer and answer tell each end of the other's, so either end begins.
        """
        words = self.table.nat()
        if words == self._words:
            return
        self._words = words
        for peer in self.links.by_peer:
            if not self.table.history.nat_of(peer) or self._punching.may_help(peer):
                self._search_soon(peer, now)

    def _has_had_its_moment(self, attempts: Attempts) -> bool:
        """Whether ICE for another link goes on while one stands over a circuit, to be restarted."""
        offering = attempts.offering
        if offering is None or not offering.answered or offering.restarts:
            return False
        return attempts.beyond and offering.link not in self.links.by_id

    # --- beyond ICE ------------------------------------------------------------------------------

    def on_punch(
        self, fact: Foretold | PunchOver | Sight | Foretell, peer: PeerId | None, now: float
    ) -> list[PeerId]:
        """What our port says of a technique under way, or this neighbour."""
        over = None
        match fact:
            case Foretold():
                self._punching.on_foretold(fact)
            case PunchOver():
                over = self._punching.on_over(fact)
            case Sight() if peer is not None:
                over = self._punching.on_sight(peer, fact)
            case Foretell() if peer is not None:
                self._punching.on_foretell(peer, fact)
            case _:
                pass
        return self._on_punch_over(over, now)

    def _on_punch_over(self, over: tuple[PeerId, str] | None, now: float) -> list[PeerId]:
        """A technique has come to nothing: so has the offer that it was part of, if it was ours."""
        attempts = self.table.by_peer.get(over[0]) if over is not None else None
        if over is None or attempts is None or attempts.offering is None:
            return []
        if not attempts.offering.answered or not attempts.offering.restarts:
            return []
        self.table.abandon(attempts)
        attempts.postponed = over[1] == UNSEEN
        stuck = self._fail(Failed(attempts, Rung.OFFER, Failure.TIMEOUT, over[1]), now)
        self._punching.on_tried(attempts.peer)
        return stuck

    # --- ends ------------------------------------------------------------------------------------

    def on_up(self, peer: PeerId, link: LinkId, now: float) -> None:
        """The link is up: whatever else was under way is called off, who waits is told."""
        self._detours.on_linked(peer, now)
        attempts = self.table.by_peer.get(peer)
        if attempts is None:
            return
        self.table.forgive(peer, now)
        for request, _ in attempts.waiting:
            self.context.emit(Resolved(request, None))
        attempts.waiting.clear()
        self._note_linked(attempts, link, now)
        if self.links.by_peer[peer].facts.path is PathKind.RELAYED:
            self._detours.on_up(attempts, link)
            if not attempts.busy:
                self._upgrade_later(attempts, now)
            else:
                self._beyond_soon(attempts, now)
        else:
            self._call_off(attempts, link, now)

    def _note_linked(self, attempts: Attempts, link: LinkId, now: float) -> None:
        """One way has led there."""
        if self.table.is_relayed(attempts.peer):
            rung = Rung.CIRCUIT
        elif link in attempts.dials or Rung.OFFER not in attempts.since:
            rung = Rung.DIAL
        else:
            rung, attempts.technique = Rung.OFFER, self.links.by_id[link].facts.technique
        self.table.over(attempts, rung, Outcome.LINKED, "", now)

    def _call_off(self, attempts: Attempts, link: LinkId, now: float) -> None:
        """The link is up, and nothing better is to be had."""
        for rung in list(attempts.since):
            self.table.over(attempts, rung, Outcome.CANCELLED, "another way was faster", now)
        for other in [*attempts.dials, attempts.answering]:
            if other is not None and other != link and other not in self.links.by_id:
                self.table.hangup(other, EndReason.CANCELLED)
        offering = attempts.offering
        if offering is not None and offering.link == link:
            self.table.by_request.pop(offering.request, None)
            attempts.offering = None
        elif offering is not None and offering.link not in self.links.by_id:
            self.table.abandon(attempts)
        self.table.discard(attempts.peer)

    def on_path(self, link: Link, now: float) -> None:
        """A link has another path: a search that it has made needless ends.

        Should that path fail, too, the next search begins at once; and if it is a relay's, the
        search for a better one goes on, or begins anew later.
        """
        if link.peer is None:
            return
        self._climbed.pop(link.peer, None)
        self._punching.on_path(link.id)
        if link.facts.path is PathKind.RELAYED:
            attempts = self.table.of(link.peer)
            if not attempts.busy:
                self._upgrade_later(attempts, now)
        elif link.peer in self.table.by_peer and self.links.is_up(link.peer):
            attempts = self.table.by_peer[link.peer]
            attempts.technique = link.facts.technique
            self.table.over(attempts, Rung.OFFER, Outcome.LINKED, "the link has moved there", now)
            self._call_off(attempts, link.id, now)

    def on_attempt_failed(self, link: LinkId, code: str, text: str, now: float) -> list[PeerId]:
        """A dial or a negotiation has come to nothing."""
        overtaken = code in (GoodbyeCode.DUPLICATE, EndReason.GLARE)
        for attempts in self.table.by_peer.values():
            offering = attempts.offering
            rung = Rung.OFFER
            if link in attempts.dials:
                # Another dial may be on its way to the same address, to whatever peer.
                overtaken = code == GoodbyeCode.DUPLICATE
                rung = Rung.DIAL if attempts.dials.pop(link) is None else Rung.CIRCUIT
            elif attempts.answering == link:
                attempts.answering = None
            elif offering is not None and offering.link == link:
                self.table.by_request.pop(offering.request, None)
                attempts.offering = None
            else:
                continue
            told = f"over a relay {text}" if rung is Rung.CIRCUIT else text
            failed = Failed(attempts, rung, code, told)
            if rung is Rung.CIRCUIT and not overtaken:
                return self._fail(self._detours.on_dial_failed(failed), now)
            if not overtaken:
                return self._fail(failed, now)
            # No failure: the link that it doubles stands, or soon will. If not, others are chosen.
            if self.table.is_relayed(attempts.peer):
                self.table.timers.set((Due.UPGRADE, attempts.peer), now + STAGGER)
            elif not attempts.busy:
                self.table.timers.set((Due.RETRY, attempts.peer), now + COMMAND_RETRY)
            return []
        return []

    def call_off(self, peer: PeerId | None, link: LinkId) -> None:
        """A dial is not needed any more; one that has found its listener goes on."""
        if peer is None:
            if link not in self.links.by_id:
                self.table.hangup(link, EndReason.CANCELLED)
            return
        attempts = self.table.by_peer.get(peer)
        if attempts is not None and link in attempts.dials and link not in self.links.by_id:
            del attempts.dials[link]
            self.table.hangup(link, EndReason.CANCELLED)

    def on_recalled(self, peers: list[PeerId]) -> None:
        """Nobody is linked, and these are called; recall rests by itself."""
        self._dialling.on_met(peers)
        for attempts in filter(None, map(self.table.by_peer.get, peers)):
            attempts.retry_at = 0.0

    # --- time ------------------------------------------------------------------------------------

    def on_time(self, now: float) -> list[PeerId]:
        """Time out what takes too long; try again for the commands that wait."""
        retry: list[PeerId] = []
        failed: list[Failed | None] = []
        beside: list[Attempts] = []
        climbing: list[Attempts] = []
        relaying: list[Attempts] = []
        upgrading: list[Attempts] = []
        for due, peer in self.table.timers.pop_due(now):
            attempts = self.table.by_peer[peer]
            match due:
                case Due.RETRY:
                    retry.append(peer)
                case Due.BESIDE:
                    beside.append(attempts)
                case Due.CLIMB:
                    climbing.append(attempts)
                case Due.MEET:
                    self._detours.meet(attempts, now)
                case Due.CIRCUIT:
                    relaying.append(attempts)
                case Due.UPGRADE:
                    upgrading.append(attempts)
                case Due.GIVE_UP:
                    self._give_up(attempts, now)
                case Due.OFFER:
                    failed.append(self._offers.on_overdue(attempts))
                case _:
                    assert_never(due)
        stuck = [peer for each in failed for peer in self._fail(each, now)]
        stuck += self._on_punch_over(self._punching.on_time(now), now)
        stuck += [peer for each in beside for peer in self._offer_beside(each, now)]
        stuck += [peer for each in climbing for peer in self._climb(each, now)]
        for each in relaying:
            if each.detour is Detour.SOON:
                stuck += self._detour(each, now)
            elif each.detour is Detour.DIALLING:
                self._detours.dial_reserve(each, now)
            elif each.waiting:
                self._detours.take(each, now)  # A neighbour of both may have come meanwhile.
        stuck += [peer for each in upgrading for peer in self._upgrade(each, now)]
        for peer in retry:
            rested = self.table.by_peer.get(peer)
            if rested is not None and rested.waiting:
                stuck += self.start(peer, now)
            elif rested is not None and not rested.busy and not self.links.is_up(peer):
                stuck.append(peer)
        return stuck

    def _offer_beside(self, attempts: Attempts, now: float) -> list[PeerId]:
        """The dial has not been answered in a moment: the offer need not wait for its end."""
        if not attempts.dials or attempts.step is not Step.DIAL or not self._is_heard():
            return []
        if not self.context.settings.offers or not self._offers.may_send(attempts, now):
            return []
        attempts.step = STEPS[Step.DIAL][StepEvent.SLOW]
        return self._take(attempts, now)

    def _reject(self, attempts: Attempts) -> None:
        """Commands need not wait until their time is up: nothing else can be tried."""
        for request, _ in attempts.waiting:
            self.context.emit(Rejected(request, *self._told(attempts)))
        attempts.waiting.clear()
        self.table.timers.stop((Due.GIVE_UP, attempts.peer))

    def _told(self, attempts: Attempts) -> tuple[str, str]:
        """Why it has all been in vain: what failed last, why no relay helped, the two NATs."""
        code, text = attempts.last
        why = cause(self.table.nat(), self.table.history.nat_of(attempts.peer))
        # A round that has just begun has not come as far as the one before it.
        no_relay = attempts.reasons.get(Rung.CIRCUIT) or attempts.before.get(Rung.CIRCUIT, "")
        if not no_relay and Rung.CIRCUIT in attempts.since:
            no_relay = IN_TIME
        parts = [text, no_relay, why]
        return code, "; ".join(dict.fromkeys(filter(None, parts)))

    def _give_up(self, attempts: Attempts, now: float) -> None:
        late = any(at + DIAL_TIMEOUT <= now for _, at in attempts.waiting)
        if attempts.detour is Detour.DIALLING and attempts.waiting and not late:
            # The peer has agreed to the circuit that it is dialled over.
            self.table.timers.set((Due.GIVE_UP, attempts.peer), now + GIVE_UP_LATER)
            return
        for request, at in attempts.waiting:
            if at <= now:
                self.context.emit(Rejected(request, *self._told(attempts)))
        attempts.waiting = [(request, at) for request, at in attempts.waiting if at > now]
        if attempts.waiting:
            self.table.timers.set((Due.GIVE_UP, attempts.peer), attempts.waiting[0][1])
