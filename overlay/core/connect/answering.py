"""Offers of others: each that holds is one more attempt to reach its sender, or a restart.

An offer has us send checks to addresses that somebody else has named, so `offers` checks it before
anything is sent anywhere, and each peer has at most one that we answer.
"""

from dataclasses import dataclass, field

from overlay.core.connect.attempts import Attempts, Due
from overlay.core.connect.detour import Detours
from overlay.core.connect.history import Rung
from overlay.core.connect.low_ttl import answerers
from overlay.core.connect.offering import ICE_TIMEOUT
from overlay.core.connect.offers import (
    Declined,
    OfferReader,
    OpenedOffer,
    Refused,
    new_credentials,
    seal_answer,
    to_candidates,
    to_entries,
)
from overlay.core.connect.punching import PUNCH_TIMEOUT, Punching, common
from overlay.core.connect.table import PEERS_MAX, Table
from overlay.core.context import Context
from overlay.core.events import Negotiate, Restart
from overlay.core.limits import BoundedDict
from overlay.core.link.links import GLARE_WINDOW, Expected, Link, LinkState
from overlay.core.membership.link_uses import GUESTS_MAX
from overlay.core.membership.membership import Membership
from overlay.core.membership.prekeys import sealing_key
from overlay.core.nat.reflexive import Reflexive
from overlay.core.punch.plan import Plan, plan
from overlay.core.types import (
    Candidate,
    EndReason,
    IceCredentials,
    LowTtl,
    Negotiated,
    PathKind,
    PeerId,
    Technique,
)
from overlay.core.wire.documents import AnswerBody, OfferBody, Record, RelayEntry
from overlay.core.wire.messages import Offer

RESTART_INTERVAL = 1.0
"""Seconds between two restarts that one peer may ask of us (guess)."""
AFTER_THEIRS = 12.0
"""Seconds (guess) from a search for a better path that the peer has begun to our own: longer than
one takes."""
ANSWERING_MAX = 64
"""Offers that we are answering at once; more are declined as busy."""


@dataclass(slots=True)
class Answering:
    """The answers of one node."""

    context: Context
    table: Table
    reflexive: Reflexive
    membership: Membership
    detours: Detours
    punching: Punching
    _offers: OfferReader = field(init=False)
    # When each peer last had us restart ICE.
    _restarted: BoundedDict[PeerId, float] = field(default_factory=lambda: BoundedDict(PEERS_MAX))

    def __post_init__(self) -> None:
        self._offers = OfferReader(self.context)

    def on_offer(self, offer: Offer, via: PeerId, now: float) -> None:
        """An offer for us: if it holds, take in its sender's record, and answer."""
        try:
            opened = self._offers.open(offer, now)
        except Refused as refused:
            self.table.routing.count_dropped()
            self.context.report("warning", "offer_refused", reason=refused.text, peer=via)
            return
        sender = PeerId(opened.body.sender)
        self.membership.add(opened.body.record, via, now)
        record = self.table.book.get(sender)
        if record is not None:
            self._answer(opened, via, offer.hops + 1, record, now)

    def _answer(
        self, opened: OpenedOffer, via: PeerId, hops: int, sender: Record, now: float
    ) -> None:
        """Accept and start ICE, or decline; say nothing when it is late, or ours stands (glare)."""
        peer, body = PeerId(opened.body.sender), opened.body
        prekey = sealing_key(peer, sender, self.context.wall(now), self.context.crypto)
        if self._wins_glare(peer, body.attempt) or self._is_late(body, now):
            return
        attempts = self.table.of(peer)
        self.table.learn_nat(peer, body.nat, body.candidates)
        self.table.forgive(peer, now)
        self.table.abandon(attempts)
        link = self.table.links.by_peer.get(peer)
        known = link if link is not None and link.facts.attempt == body.restarts else None
        declined = self._why_declined(peer, known, now)
        hidden = self.table.is_hidden(peer)
        chosen = None
        if known is not None and declined is None and not hidden:
            chosen = self._plan(body, now)
        local, low_ttl = IceCredentials("", ""), None
        candidates = () if hidden else self.reflexive.candidates()
        if declined is None and hidden:
            local = new_credentials(self.context)  # Nothing is checked: a circuit is all there is.
        elif declined is None:
            low_ttl = self._low_ttl(body, via, hops)
            attempts.technique = Technique.LOW_TTL if low_ttl else Technique.ICE
            if known is not None:
                attempts.technique = chosen.technique if chosen else attempts.technique
                local = self._restart(known, body, candidates, low_ttl, chosen, now)
            else:
                attempts.since[Rung.OFFER] = now
                local = self._accept(attempts, body, candidates, low_ttl, via, hops)
        may_meet = declined in (None, Declined.NATS)
        answer = AnswerBody(
            network=self.context.settings.network,
            sender=self.context.peer_id,
            recipient=peer,
            request=body.request,
            offer_hash=opened.digest,
            boot=self.context.settings.boot,
            accepted=declined is None,
            reason=declined or "",
            hops=hops,
            fingerprint=self.context.crypto.fingerprint,
            ufrag=local.ufrag,
            password=local.password,
            candidates=to_entries(candidates) if declined is None else [],
            restarted=declined is None and known is not None and not hidden,
            nat=self.table.nat(),
            relays=self._relays(body, now) if may_meet else [],
            low_ttl=low_ttl.ttl or 0 if low_ttl else 0,
            low_for=round(1000 * low_ttl.seconds) if low_ttl else 0,
            techniques=[chosen.technique.value] if chosen else [],
        )
        self.table.routing.reply(seal_answer(self.context, answer, prekey, opened.request))
        if may_meet:
            self.detours.meet_soon(attempts, body.relays, now)
        self._tidy(attempts, link, now)

    def _tidy(self, attempts: Attempts, link: Link | None, now: float) -> None:
        """Our own search for a better path, which the peer's may have called off, goes on later."""
        peer, due = attempts.peer, (Due.UPGRADE, attempts.peer)
        relayed = link is not None and link.facts.path is PathKind.RELAYED and not link.inbound
        if relayed and not (self.punching.is_forbidden(peer) or self.table.is_hidden(peer)):
            meant = self.table.timers.deadlines.get(due, now) if attempts.searches else now
            self.table.timers.set(due, max(meant, now + AFTER_THEIRS))
        elif self.table.links.is_up(peer) and not attempts.busy:
            self.table.discard(peer)

    def _plan(self, body: OfferBody, now: float) -> Plan | None:
        """What to do beyond ICE for the link that is to be restarted."""
        peer = PeerId(body.sender)
        able = common(self.punching.answerable(peer, now), body.techniques)
        return plan(self.table.nat(), self.table.history.nat_of(peer), able)

    def _low_ttl(self, body: OfferBody, via: PeerId, hops: int) -> LowTtl | None:
        """Whether, and for how long, what we send first is to die before it arrives."""
        neighbour = self.table.routing.neighbours.get(via)
        srtt = neighbour.srtt if neighbour is not None else 0.0
        return answerers(self.context, body, self.table.nat(), hops, srtt)

    def _relays(self, body: OfferBody, now: float) -> list[RelayEntry]:
        """Which relays of ours the sender may get to.

        It is for one of the two to get to the other's. A hidden node gets to nobody's: whoever
        names one would see its address.
        """
        ours = not body.relays or self.context.settings.relay_only
        return self.detours.named(PeerId(body.sender), now) if body.circuit and ours else []

    def _is_late(self, body: OfferBody, now: float) -> bool:
        """Whether a dial has overtaken this offer: the link to its sender has just come up."""
        link = self.table.links.by_peer.get(PeerId(body.sender))
        if link is None or link.state is not LinkState.UP or body.restarts:
            return False
        if link.facts.path is PathKind.RELAYED:
            return False
        return link.boot == body.boot and now - link.opened_at < GLARE_WINDOW

    def _why_declined(self, peer: PeerId, known: Link | None, now: float) -> Declined | None:
        """Why the offer cannot be accepted now, if so; `known`: the link to be restarted."""
        if self.table.is_hopeless(peer) and (known is None or self.punching.is_forbidden(peer)):
            return Declined.NATS
        if known is not None:
            if self.table.is_hopeless(peer) and not self.punching.is_free(peer, now):
                return Declined.BUSY
            recent = now < self._restarted.get(peer, -RESTART_INTERVAL) + RESTART_INTERVAL
            return Declined.BUSY if recent else None
        if len(self.table.links.by_peer) >= self.context.settings.links_max + GUESTS_MAX:
            return Declined.FULL
        answering = sum(1 for each in self.table.by_peer.values() if each.answering is not None)
        return Declined.BUSY if answering >= ANSWERING_MAX else None

    def _restart(
        self,
        link: Link,
        body: OfferBody,
        candidates: tuple[Candidate, ...],
        low_ttl: LowTtl | None,
        chosen: Plan | None,
        now: float,
    ) -> IceCredentials:
        """Restart ICE as the answerer; returns our credentials for the answer."""
        peer = PeerId(body.sender)
        self._restarted.put(peer, now)
        self.punching.on_restart(link.id)
        local = new_credentials(self.context)
        named = chosen is None or chosen.ice_first
        self.context.emit(
            Restart(
                link=link.id,
                controlling=False,
                local=local,
                remote=IceCredentials(body.ufrag, body.password),
                candidates=candidates,
                remote_candidates=to_candidates(body.candidates) if named else (),
                timeout=ICE_TIMEOUT if chosen is None else PUNCH_TIMEOUT,
                low_ttl=low_ttl,
            )
        )
        if chosen is not None:
            self.punching.begin(peer, link.id, body.request, local.ufrag, chosen, now)
        return local

    def _accept(
        self,
        attempts: Attempts,
        body: OfferBody,
        candidates: tuple[Candidate, ...],
        low_ttl: LowTtl | None,
        via: PeerId,
        hops: int,
    ) -> IceCredentials:
        """Start ICE as the answerer; returns our credentials for the answer."""
        if attempts.answering is not None and attempts.answering not in self.table.links.by_id:
            # Superseded; one that is open is judged by its hello.
            self.table.hangup(attempts.answering, EndReason.SUPERSEDED)
        link, local = self.table.links.new_id(), new_credentials(self.context)
        attempts.answering = link
        expected = Expected(attempts.peer, Negotiated.MESH, inbound=True, via=via, hops=hops)
        self.table.links.expect(link, expected)
        self.context.emit(
            Negotiate(
                link=link,
                controlling=False,
                local=local,
                remote=IceCredentials(body.ufrag, body.password),
                fingerprint=body.fingerprint,
                attempt=body.attempt,
                candidates=candidates,
                remote_candidates=to_candidates(body.candidates),
                timeout=ICE_TIMEOUT,
                low_ttl=low_ttl,
            )
        )
        return local

    def _wins_glare(self, peer: PeerId, attempt: bytes) -> bool:
        """Whether an offer of ours to this peer stands against its own: the lower attempt wins.

        One whose link is open stands: the peer may have verified it, and taken its own offer back.
        """
        attempts = self.table.by_peer.get(peer)
        if attempts is None or attempts.offering is None:
            return False
        return (
            attempts.offering.link in self.table.links.by_id or attempts.offering.attempt < attempt
        )
