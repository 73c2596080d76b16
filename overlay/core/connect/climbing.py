"""The steps of the ladder in order: direct dial, an offer through the mesh, a dial as last resort.

`Ladder` knows how each step is taken, this machine which comes next; it also answers others'
offers. Its methods return the peers towards whom nothing is left to try for now.
"""

from dataclasses import dataclass, field
from typing import assert_never

from overlay.core.connect.ladder import Climb, Ladder, Target
from overlay.core.connect.responding import Responder
from overlay.core.connect.steps import STEPS, Outcome, Step
from overlay.core.context import Context
from overlay.core.link.links import Links
from overlay.core.membership.link_uses import GUESTS_MAX
from overlay.core.membership.membership import Membership
from overlay.core.membership.records import RecordBook
from overlay.core.nat.reflexive import Reflexive
from overlay.core.routing.lookups import Tracing
from overlay.core.routing.routing import (
    ReplyArrived,
    RequestArrived,
    Routing,
    RoutingFact,
    Undeliverable,
)
from overlay.core.types import LinkId, Negotiated, PeerId
from overlay.core.wire.messages import Answer, Offer, Trace, TraceReply


@dataclass(slots=True)
class Climbing:
    """Decides what is tried next towards each peer."""

    context: Context
    links: Links
    ladder: Ladder
    routing: Routing
    responder: Responder
    book: RecordBook
    reflexive: Reflexive
    membership: Membership
    tracing: Tracing
    met: dict[PeerId, None] = field(default_factory=dict)
    """Peers whom an invite or the cache named: they may be dialled even if others may not."""

    def start(self, peer: PeerId, now: float) -> list[PeerId]:
        """Take the first step that there is."""
        climb = self.ladder.climb(peer)
        if climb.busy or peer in self.links.by_peer:
            return []
        begin = Outcome.BEGIN_BY_OFFER if climb.failures % 2 else Outcome.BEGIN
        climb.step = STEPS[Step.REST][begin]
        return self._take(climb, now)

    def on_attempt_failed(self, link: LinkId, code: str, text: str, now: float) -> list[PeerId]:
        """A dial or a negotiation has come to nothing."""
        peer = self.ladder.on_attempt_failed(link, code, text, now)
        if peer is None or code == "duplicate":
            return []
        return self._next_step(peer, now)

    def on_time(self, now: float) -> list[PeerId]:
        """Time out what takes too long; try again for the commands that wait."""
        retry, failed = self.ladder.on_time(now)
        stuck = [peer for each in failed for peer in self._next_step(each, now)]
        for peer in retry:
            climb = self.ladder.climbs.get(peer)
            if climb is not None and climb.waiting:
                stuck += self.start(peer, now)
        return stuck

    def _next_step(self, peer: PeerId, now: float) -> list[PeerId]:
        """A step has failed with nothing else under way: take the next one at once."""
        climb = self.ladder.climbs.get(peer)
        if climb is None or peer in self.links.by_peer:
            return []
        if climb.step is Step.DIAL and not self.routing.neighbours:
            climb.step = Step.OFFER  # that nobody could pass on
        return self._after_failure(climb, now)

    def _after_failure(self, climb: Climb, now: float) -> list[PeerId]:
        unreachable = climb.last[0] == "unreachable"
        climb.step = STEPS[climb.step][Outcome.UNREACHABLE if unreachable else Outcome.FAILED]
        return self._take(climb, now)

    def _take(self, climb: Climb, now: float) -> list[PeerId]:
        """Take the step that the climb is at, or the first that can be taken after it."""
        match climb.step:
            case Step.REST:
                return [climb.peer]
            case Step.OFFER if self.context.settings.offers:
                return self._offer(climb, now)
            case Step.OFFER:
                return self._after_failure(climb, now)
            case Step.DIAL | Step.LAST_RESORT:
                target = self._target(climb.peer, claimed=climb.step is Step.LAST_RESORT)
                taken = self.ladder.dial_record(climb, target)
                return [] if taken else self._after_failure(climb, now)
            case _:
                assert_never(climb.step)

    def _offer(self, climb: Climb, now: float) -> list[PeerId]:
        offer = self.ladder.offer(climb, self._target(climb.peer), now)
        if offer is not None:
            facts = self.routing.send(offer, now, walk=bool(climb.waiting))
            return [peer for fact in facts for peer in self.on_routing(fact, now)]
        stuck = self._after_failure(climb, now)
        if stuck:
            self.ladder.stuck(climb, now)
        return stuck

    # --- signalling ----------------------------------------------------------------------------

    def on_routing(self, fact: RoutingFact, now: float) -> list[PeerId]:
        """What came of our own offers and traces, and those that end here."""
        failed: PeerId | None = None
        match fact:
            case RequestArrived(Trace() as trace):
                path = [*trace.path, bytes(self.context.peer_id)]
                self.routing.reply(TraceReply(trace.request, path))
            case RequestArrived(Offer() as offer, via):
                self._on_offer(offer, via, now)
            case ReplyArrived(TraceReply() as reply):
                self.tracing.on_reply(reply, now)
            case ReplyArrived(Answer() as answer, via):
                failed = self.ladder.on_answer(answer, via, now)
            case Undeliverable(request, code):
                self.tracing.on_undeliverable(request, code)
                failed = self.ladder.on_undeliverable(request, code, now)
        return self._next_step(failed, now) if failed is not None else []

    def _on_offer(self, offer: Offer, via: PeerId, now: float) -> None:
        opened = self.responder.check(offer, via, now)
        if opened is None:
            return
        sender = PeerId(opened.body.sender)
        self.membership.add(opened.body.record, via, now)
        record = self.book.get(sender)
        if record is not None:
            full = len(self.links.by_peer) >= self.context.settings.links_max + GUESTS_MAX
            hops = offer.hops + 1
            self.responder.respond(opened, via, hops, self._target(sender), record, full, now)

    def _target(self, peer: PeerId, *, claimed: bool = False) -> Target:
        """What is known of a peer at this moment."""
        record = self.book.get(peer)
        met = peer in self.met
        addresses = []
        if record is not None and (met or self.context.settings.direct):
            everything = claimed or met or not self.routing.neighbours
            addresses = self.reflexive.dialable(record.addresses, claimed=everything)
        return Target(
            record=record,
            addresses=addresses,
            negotiated=Negotiated.CACHE if met else Negotiated.DIRECT,
            candidates=self.reflexive.candidates(),
            own_record=self.membership.own,
        )
