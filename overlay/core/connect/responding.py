"""The other end of an offer: check it, accept or decline, answer.

An offer is probing on behalf of another, so it is checked before anything is sent anywhere: sealed
to us, signed by its sender, fresh, not a replay, at most one live offer a peer (DESIGN, the door).
"""

from dataclasses import dataclass, field

from overlay.core.connect.ladder import Ladder, Target
from overlay.core.connect.offers import (
    OFFER_LIFE,
    OpenedOffer,
    Refused,
    open_offer,
    seal_answer,
    to_entries,
)
from overlay.core.context import Context
from overlay.core.link.hello import MAX_CLOCK_SKEW
from overlay.core.membership.prekeys import sealing_key
from overlay.core.routing.routing import Routing
from overlay.core.types import IceCredentials, PeerId
from overlay.core.wire.documents import AnswerBody, Record
from overlay.core.wire.messages import Offer

INBOUND_MAX = 64
"""Offers that we are answering at once; more are declined as busy."""
SEEN_MAX = 4096


@dataclass(slots=True)
class Responder:
    """Answers offers."""

    context: Context
    ladder: Ladder
    routing: Routing
    _seen: dict[bytes, float] = field(default_factory=dict)
    """Requests accepted, and until when a replay could still pass as fresh."""

    def check(self, offer: Offer, via: PeerId, now: float) -> OpenedOffer | None:
        """Open an offer; what does not hold is refused, counted and named in the log."""
        try:
            opened = open_offer(self.context, offer, now)
            if opened.body.attempt in self._seen:
                raise Refused("replay")
        except Refused as refused:
            self.routing.counters.dropped += 1
            self.ladder.refuse("offer_refused", str(refused), via)
            return None
        self._remember(opened.body.attempt, now)
        return opened

    def respond(
        self,
        opened: OpenedOffer,
        via: PeerId,
        hops: int,
        target: Target,
        sender: Record,
        full: bool,
        now: float,
    ) -> None:
        """Accept and start ICE, or decline; say nothing when our own offer stands (glare)."""
        peer, body = PeerId(opened.body.sender), opened.body
        prekey = sealing_key(peer, sender, self.context.wall(now), self.context.crypto)
        if self.ladder.wins_glare(peer, body.attempt):
            return
        climb = self.ladder.climb(peer)
        self.ladder.abandon(climb)
        reason = ""
        if full:
            reason = "full"
        elif self.ladder.answering() >= INBOUND_MAX:
            reason = "busy"
        local = IceCredentials("", "")
        if not reason:
            local = self.ladder.accept(opened, target, via, hops)
        answer = AnswerBody(
            network=self.context.settings.network,
            sender=self.context.peer_id,
            recipient=peer,
            request=body.request,
            offer_hash=opened.digest,
            boot=self.context.settings.boot,
            accepted=not reason,
            reason=reason,
            hops=hops,
            fingerprint=self.context.crypto.fingerprint,
            ufrag=local.ufrag,
            password=local.password,
            candidates=to_entries(target.candidates) if not reason else [],
        )
        sealed = seal_answer(self.context, answer, prekey, opened.request)
        self.routing.reply(sealed)

    def _remember(self, attempt: bytes, now: float) -> None:
        until = now + OFFER_LIFE + 2 * MAX_CLOCK_SKEW
        while self._seen and (len(self._seen) >= SEEN_MAX or next(iter(self._seen.values())) < now):
            del self._seen[next(iter(self._seen))]
        self._seen[attempt] = until
