"""Offers of ours through the mesh, and what their answers begin (RFC 8445 from both ends at once).

An offer to a peer that we are linked to asks to restart ICE on the association that is there.
"""

from dataclasses import dataclass

from overlay.core.connect.attempts import Attempts, Due, Offering
from overlay.core.connect.detour import Detours
from overlay.core.connect.history import Rung
from overlay.core.connect.low_ttl import POISONED_FOR, offerers
from overlay.core.connect.offers import (
    OFFER_LIFE,
    Declined,
    Refused,
    new_credentials,
    open_answer,
    seal_offer,
    to_candidates,
    to_entries,
)
from overlay.core.connect.punching import PUNCH_TIMEOUT, Punching, common
from overlay.core.connect.table import Failed, Table
from overlay.core.context import Context
from overlay.core.events import Negotiate, Prepare, Restart
from overlay.core.link.links import Expected
from overlay.core.membership.membership import Membership
from overlay.core.membership.prekeys import sealing_key
from overlay.core.nat.reflexive import Reflexive
from overlay.core.punch.plan import plan
from overlay.core.routing.next_hop import OFFER_TTL
from overlay.core.routing.requests import Undeliverable, base_of, new_request
from overlay.core.types import IceCredentials, LinkId, Negotiated, PeerId, Technique
from overlay.core.wire.documents import AnswerBody, OfferBody
from overlay.core.wire.messages import Answer, Offer
from overlay.errors import Failure

CLIMB_TTL = 2
"""Messages that an offer to restart ICE may cost: to a neighbour that says it is linked to the
peer, and from there. When a quarter of a mesh dies at once, each of its neighbours sends one
(measured: with 16, the survivors sent twice as many messages in the first 15 s)."""
ATTEMPT_TIMEOUT = 5.5
"""Seconds (guess) from an offer to its answer, and from there to its open link."""
ROUND_TRIPS, LONGEST = 8, 20.0
"""From its answer to its open link an attempt has as many times what the answer took, if that is
longer, and so many seconds at most (guess): a check, DTLS and SCTP take six round trips."""
WALKING_TIMEOUT = 11.0
"""The same (guess) for an offer that is worth walks and a seek: two tries of 2.5 s, four seconds of
walks, two for the seek (`overlay.core.routing.routing`)."""
HIDDEN = "one of the two names no address (links.relay_only), and no relay has led there in time"
TOO_LATE = (
    "; its answer came so late that a router may have got a packet too early: a wait of "
    f"{POISONED_FOR:.0f} s before the next offer has it forgotten"
)
ICE_TIMEOUT = 10.0
"""Seconds (guess) after which ICE must have failed: RFC 8445 leaves it open."""


DECLINED: dict[str, str] = {
    Declined.FULL: "the peer has no room for another link",
    Declined.BUSY: "the peer answers too many offers just now",
    Declined.NATS: "there is no direct path between the two NATs",
}
"""What to say of an offer that was not accepted."""


@dataclass(slots=True)
class OwnOffers:
    """The offers of one node."""

    context: Context
    table: Table
    reflexive: Reflexive
    membership: Membership
    detours: Detours
    punching: Punching

    def may_send(self, attempts: Attempts, now: float) -> bool:
        """Whether an offer is worth its price: beside a link only if a neighbour knows the way.

        One to or from a hidden node finds relays, and no path: who has a link has one.
        """
        if self.table.is_hidden(attempts.peer):
            return bool(attempts.waiting)
        if attempts.waiting or attempts.peer not in self.table.links.by_peer:
            return True
        return self.table.routing.is_near(attempts.peer, now)

    def send(self, attempts: Attempts, now: float) -> list[Failed]:
        """Send one; what comes to nothing at once is returned."""
        suspended = self.table.links.by_peer.get(attempts.peer)
        offer = self._make_offer(attempts, suspended.facts.attempt if suspended else b"", now)
        walk = bool(attempts.waiting)
        timeout = WALKING_TIMEOUT if walk else ATTEMPT_TIMEOUT
        self.table.timers.set((Due.OFFER, attempts.peer), now + timeout)
        facts = self.table.routing.send(offer, now, walk=walk, beside=suspended is not None)
        failed = [
            self.on_undeliverable(fact.request, fact.code)
            for fact in facts
            if isinstance(fact, Undeliverable)
        ]
        return [each for each in failed if each is not None]

    def _make_offer(self, attempts: Attempts, restarts: bytes, now: float) -> Offer:
        """`restarts`: the attempt of the association that the peer may still know, or nothing."""
        peer, crypto, wall = attempts.peer, self.context.crypto, self.context.wall(now)
        prekey = sealing_key(peer, self.table.book.get(peer), wall, crypto)
        request, attempt = new_request(crypto), crypto.token(16)
        hidden = self.table.is_hidden(peer)
        local = new_credentials(self.context)
        candidates = () if hidden else self.reflexive.candidates()
        body = OfferBody(
            network=self.context.settings.network,
            sender=self.context.peer_id,
            recipient=peer,
            request=request,
            attempt=attempt,
            boot=self.context.settings.boot,
            expires_at=int(wall + OFFER_LIFE),
            ttl=CLIMB_TTL if restarts and not attempts.waiting else OFFER_TTL,
            fingerprint=crypto.fingerprint,
            ufrag=local.ufrag,
            password=local.password,
            candidates=to_entries(candidates),
            record=self.membership.own,
            restarts=restarts,
            circuit=bool(attempts.waiting) and self.context.settings.circuits,
            relays=self.detours.named(peer, now) if attempts.waiting else [],
            nat=self.table.nat(),
            round_trip=self.table.signalling.round_trip_to(peer),
            techniques=self.punching.offered(peer, now) if restarts and not hidden else [],
        )
        offer, digest = seal_offer(self.context, body, prekey)
        link = self.table.links.new_id()
        offering = Offering(
            link, request, attempt, local, candidates, digest, now, body.nat, body.techniques,
            restarts,
        )  # fmt: skip
        attempts.offering = offering
        attempts.since[Rung.OFFER], attempts.technique = now, None
        attempts.postponed = False
        attempts.asked |= bool(body.techniques) and self.punching.has_more(peer)
        self.table.by_request[request] = peer
        if restarts or hidden:
            # Nobody can say yet which association these credentials are of, or they are of none.
            offering.known = False
        else:
            self.context.emit(Prepare(link, local, attempt, candidates))
        return offer

    def on_answer(self, answer: Answer, via: PeerId, now: float) -> Failed | None:
        """The answer to an offer of ours has come: start ICE, or take the next step."""
        attempts = self.table.of_request(base_of(answer.request))
        if attempts is None or attempts.offering is None or attempts.offering.answered:
            return None
        try:
            body = open_answer(self.context, answer, attempts.peer, attempts.offering.digest)
        except Refused as refused:
            self.context.report(
                "warning", "answer_refused", reason=refused.text, peer=attempts.peer
            )
            return None
        self.table.learn_nat(attempts.peer, body.nat, body.candidates)
        attempts.answered = True
        # What it says of its NAT may be news, and what is done now has regard to it.
        attempts.asked |= bool(attempts.offering.techniques) and self.punching.has_more(
            attempts.peer
        )
        self.table.signalling.on_answer(attempts.peer, now - attempts.offering.sent_at, body)
        if body.accepted:
            patience = max(ATTEMPT_TIMEOUT, ROUND_TRIPS * (now - attempts.offering.sent_at))
            self.table.timers.set((Due.OFFER, attempts.peer), now + min(patience, LONGEST))
            self.detours.meet_soon(attempts, body.relays, now)
            return self._on_accepted(attempts, attempts.offering, body, via, now)
        self.table.abandon(attempts)
        if body.reason == Declined.NATS:
            self.detours.meet_soon(attempts, body.relays, now)
        attempts.postponed = body.reason == Declined.BUSY
        text = DECLINED.get(body.reason, f"the peer declined: {body.reason[:80]}")
        return Failed(attempts, Rung.OFFER, Failure.REFUSED, text)

    def _on_accepted(
        self, attempts: Attempts, offering: Offering, body: AnswerBody, via: PeerId, now: float
    ) -> Failed | None:
        """The peer has restarted the association, or does not know it and wants another."""
        offering.answered = True
        if self.table.is_hidden(attempts.peer):
            return None  # What the two have told each other is which relays they are linked to.
        attempts.technique = Technique.LOW_TTL if body.low_ttl else Technique.ICE
        link = self.table.links.by_peer.get(attempts.peer)
        if not body.restarted:
            self._start_ice(attempts.peer, offering, body, via)
        elif link is None or link.facts.attempt != offering.restarts:
            self.table.abandon(attempts)
            text = "the link was lost before it could be restarted"
            return Failed(attempts, Rung.OFFER, Failure.TIMEOUT, text)
        else:
            self._restart(attempts, offering, link.id, body, now)
        return None

    def _restart(
        self, attempts: Attempts, offering: Offering, link: LinkId, body: AnswerBody, now: float
    ) -> None:
        """Look for another path of the link, by what the answer has chosen if ICE will not do."""
        self.punching.on_restart(link)
        able = common(offering.techniques, body.techniques)
        theirs = self.table.history.nat_of(attempts.peer)
        chosen = plan(offering.nat, theirs, able, offers=True)
        named = chosen is None or chosen.ice_first
        self.context.emit(
            Restart(
                link=link,
                controlling=True,
                local=offering.local,
                remote=IceCredentials(body.ufrag, body.password),
                candidates=offering.candidates,
                remote_candidates=to_candidates(body.candidates) if named else (),
                timeout=ICE_TIMEOUT if chosen is None else PUNCH_TIMEOUT,
                low_ttl=offerers(offering.candidates, body),
            )
        )
        if chosen is not None:
            attempts.technique = chosen.technique
            self.table.timers.set((Due.OFFER, attempts.peer), now + PUNCH_TIMEOUT)
            ufrag = offering.local.ufrag
            self.punching.begin(attempts.peer, link, offering.request, ufrag, chosen, now)

    def _start_ice(self, peer: PeerId, offering: Offering, body: AnswerBody, via: PeerId) -> None:
        offering.known = True
        expected = Expected(peer, Negotiated.MESH, inbound=False, via=via, hops=body.hops)
        self.table.links.expect(offering.link, expected)
        self.context.emit(
            Negotiate(
                link=offering.link,
                controlling=True,  # The one that begins controls (RFC 8445 §6.1.1).
                local=offering.local,
                remote=IceCredentials(body.ufrag, body.password),
                fingerprint=body.fingerprint,
                attempt=offering.attempt,
                candidates=offering.candidates,
                remote_candidates=to_candidates(body.candidates),
                timeout=ICE_TIMEOUT,
                low_ttl=offerers(offering.candidates, body),
            )
        )

    def on_undeliverable(self, request: bytes, code: str) -> Failed | None:
        """Nobody could pass an offer of ours on."""
        attempts = self.table.of_request(request)
        if attempts is None:
            return None
        self.table.abandon(attempts)
        attempts.undeliverable = True
        text = f"no neighbour could pass it on ({code})"
        return Failed(attempts, Rung.OFFER, Failure.UNREACHABLE, text)

    def on_overdue(self, attempts: Attempts) -> Failed | None:
        """An offer has had its time: call it off, unless its link is open."""
        offering = attempts.offering
        if offering is None or offering.link in self.table.links.by_id:
            return None
        self.table.abandon(attempts)
        text = "no path between the two worked" if offering.answered else "no answer came back"
        if offering.answered and self.table.is_hidden(attempts.peer):
            text = HIDDEN
        elif offering.answered and self.table.signalling.is_late(attempts.peer):
            text += TOO_LATE
        return Failed(attempts, Rung.OFFER, Failure.TIMEOUT, text)
