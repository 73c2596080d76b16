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

The other end of an offer is here, too: what it accepts is one more attempt to reach the offerer.
An offer has us send checks to addresses that somebody else has named, so `offers` checks it before
anything is sent anywhere, and each peer has at most one that we answer.
"""

from dataclasses import dataclass, field
from typing import assert_never

from overlay.core.connect.attempts import STEPS, Attempts, Due, Offering, Step, StepEvent
from overlay.core.connect.offers import (
    OFFER_LIFE,
    Declined,
    OfferReader,
    OpenedOffer,
    Refused,
    new_credentials,
    open_answer,
    seal_answer,
    seal_offer,
    to_candidates,
    to_entries,
)
from overlay.core.context import Context
from overlay.core.events import Dial, Hangup, Negotiate, Prepare, Rejected, Resolved, Restart
from overlay.core.limits import BoundedDict
from overlay.core.link.links import GLARE_WINDOW, Expected, Link, Links, LinkState
from overlay.core.membership.link_uses import GUESTS_MAX
from overlay.core.membership.membership import Membership
from overlay.core.membership.prekeys import sealing_key
from overlay.core.membership.records import RecordBook
from overlay.core.nat.reflexive import Reflexive
from overlay.core.routing.next_hop import OFFER_TTL
from overlay.core.routing.requests import Undeliverable, base_of, new_request
from overlay.core.routing.routing import Routing
from overlay.core.timers import Timers
from overlay.core.types import (
    Address,
    Candidate,
    EndReason,
    GoodbyeCode,
    IceCredentials,
    LinkId,
    Negotiated,
    PeerId,
    RequestId,
)
from overlay.core.wire import dial_tokens as dial
from overlay.core.wire.documents import AnswerBody, InviteBody, OfferBody, Record
from overlay.core.wire.messages import Answer, Offer
from overlay.errors import Failure

DIAL_TIMEOUT = 5.0
"""Seconds (guess) that a dial gets, whichever of its addresses answers."""
STAGGER = 0.25
"""Seconds from a dial to the offer beside it: the Connection Attempt Delay that RFC 8305 §5
recommends. A dial that works is then mostly done, and costs the mesh nothing."""
STAGGER_COMMAND = 0.05
"""The same when a user waits (guess): longer than a dial within a LAN takes, and what it may cost
an offer that is needed is not noticed."""
STAGGER_CLIMB = 0.5
"""Seconds (guess) by which the end that was dialled seeks another path later than its dialler, so
that the two seldom do the same at once."""
CLIMB_INTERVAL = 10.0
"""Seconds (guess) between two rounds beside one link: one that flaps costs no more."""
CLIMB_TTL = 2
"""Messages that an offer to restart ICE may cost: to a neighbour that says it is linked to the
peer, and from there. When a quarter of a mesh dies at once, each of its neighbours sends one
(measured: with 16, the survivors sent twice as many messages in the first 15 s)."""
RESTART_INTERVAL = 1.0
"""Seconds between two restarts that one peer may ask of us (guess)."""
ATTEMPT_TIMEOUT = 6.0
"""Seconds (guess) from an offer to its answer, and from there to its open link."""
WALKING_TIMEOUT = 11.0
"""The same (guess) for an offer that is worth walks and a seek: two tries of 2.5 s, four seconds of
walks, two for the seek (`overlay.core.routing.routing`)."""
ICE_TIMEOUT = 10.0
"""Seconds (guess) after which ICE must have failed: RFC 8445 leaves it open."""
COMMAND_TIMEOUT = 12.0
"""Seconds (guess) that a command to connect keeps trying."""
COMMAND_RETRY = 2.0
"""Seconds (guess) of rest at most while a command waits."""
BACKOFF_FIRST, BACKOFF_MAX = 2.0, 300.0
"""Seconds (guess) of rest after the first round in vain, twice as many after each other one, at
most: who has died draws ten rounds from a node in its first ten minutes, whoever wants it."""
DOUBLINGS_MAX = 8
CUT_OFF_MAX = 15.0
"""The longest rest (guess) while more peers cannot be reached than are linked: then it is likelier
that we are cut off than that they are dead, and one of them is enough to find all others again."""
FORGIVE_AFTER = 3
"""Rounds in vain after which word from a peer means that a partition is over (guess)."""
FORGIVE_INTERVAL = 60.0
"""Seconds (guess) between two times that everybody's rest ends early for that."""
ADDRESSES_MAX = 8
"""Addresses that one dial goes to: as many as an offer has candidates."""
PEERS_MAX = 1024
"""Peers of whose attempts we know; beyond it one that nothing is under way to is forgotten."""
ANSWERING_MAX = 64
"""Offers that we are answering at once; more are declined as busy."""
ATTEMPT_FAILED = "attempt_failed"
"""The report on each round that came to nothing; programs hear of it, too."""


@dataclass(slots=True)
class Connecting:
    """The attempts of one node to reach its peers.

    Methods return the peers towards whom nothing is left to try for now.
    """

    context: Context
    links: Links
    routing: Routing
    book: RecordBook
    reflexive: Reflexive
    membership: Membership
    by_peer: dict[PeerId, Attempts] = field(default_factory=dict)
    # Peers whom an invite or the cache named: they may be dialled even if others may not.
    _met: BoundedDict[PeerId, None] = field(default_factory=lambda: BoundedDict(PEERS_MAX))
    _by_request: dict[bytes, PeerId] = field(default_factory=dict)
    # When a round beside each link began, and when each peer last had us restart ICE.
    _climbed: BoundedDict[PeerId, float] = field(default_factory=lambda: BoundedDict(PEERS_MAX))
    _restarted: BoundedDict[PeerId, float] = field(default_factory=lambda: BoundedDict(PEERS_MAX))
    _forgiven_at: float = float("-inf")
    _offers: OfferReader = field(init=False)
    _timers: Timers[tuple[Due, PeerId]] = field(init=False)

    def __post_init__(self) -> None:
        self._offers = OfferReader(self.context)
        self._timers = Timers(self.context.agenda)

    def on_met(self, peers: list[PeerId]) -> None:
        """An invite or the cache has named these."""
        for peer in peers:
            self._met.put(peer, None)

    def wait(self, peer: PeerId, request: RequestId, now: float) -> None:
        """A command waits for a link to this peer; it gives up after 12 s."""
        attempts = self._attempts(peer)
        attempts.waiting.append((request, now + COMMAND_TIMEOUT))
        self._timers.set((Due.GIVE_UP, peer), attempts.waiting[0][1])

    def start(self, peer: PeerId, now: float) -> list[PeerId]:
        """Begin a round, unless one is under way or the peer rests; a command need not wait."""
        if self.links.is_up(peer):
            return []
        attempts = self._attempts(peer)
        if attempts.busy:
            return []
        if now < attempts.retry_at and not attempts.waiting:
            return [peer]
        return self._begin(attempts, now)

    def climb(self, link: Link, now: float) -> list[PeerId]:
        """A link is suspect or silent: look for another path beside it, its dialler at once."""
        peer = link.peer
        assert peer is not None
        if now < self._climbed.get(peer, -CLIMB_INTERVAL) + CLIMB_INTERVAL:
            return []
        attempts = self._attempts(peer)
        if attempts.busy:
            return []
        if link.inbound:
            self._timers.set((Due.CLIMB, peer), now + STAGGER_CLIMB)
            return []
        return self._climb(attempts, now)

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
        return self._take(attempts, now)

    def _attempts(self, peer: PeerId) -> Attempts:
        """The peer's attempts, new or old; of too many, the longest idle are forgotten."""
        known = self.by_peer.get(peer)
        if known is None:
            if len(self.by_peer) >= PEERS_MAX:
                idle = [each for each, a in self.by_peer.items() if not a.busy and not a.waiting]
                if idle:
                    self._discard(idle[0])
            known = self.by_peer[peer] = Attempts(peer)
        return known

    # --- which step comes next -----------------------------------------------------------------

    def _next_step(self, attempts: Attempts, now: float) -> list[PeerId]:
        """A step has failed with nothing else under way: take the next one at once."""
        if self.links.is_up(attempts.peer):
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
                self._rest(attempts, now)
                return [attempts.peer]
            case Step.OFFER if self.context.settings.offers and self._may_offer(attempts, now):
                return self._offer(attempts, now)
            case Step.OFFER:
                return self._after_failure(attempts, now)
            case Step.DIAL | Step.LAST_RESORT:
                claimed = attempts.step is Step.LAST_RESORT
                if not self._dial_record(attempts, claimed=claimed):
                    return self._after_failure(attempts, now)
                if not claimed:
                    stagger = STAGGER_COMMAND if attempts.waiting else STAGGER
                    self._timers.set((Due.BESIDE, attempts.peer), now + stagger)
                return []
            case _:
                assert_never(attempts.step)

    # --- dials -----------------------------------------------------------------------------------

    def _dial_record(self, attempts: Attempts, *, claimed: bool) -> bool:
        """Dial a peer where its record says; returns whether there was anything to dial.

        `claimed`: even where nobody has seen it.
        """
        peer = attempts.peer
        record, met = self.book.get(peer), peer in self._met
        if record is None or record.token is None or not (met or self.context.settings.direct):
            return False
        # Whom we are linked to has been at these addresses lately.
        linked = peer in self.links.by_peer
        everything = claimed or met or linked or not self.routing.neighbours
        dialable = self.reflexive.dialable(record.addresses, claimed=everything)
        addresses = [address for address in dialable if address not in attempts.tried]
        if not addresses:
            return False
        attempts.tried += tuple(addresses)
        token = record.token
        claim = (token.kind, token.token_id, token.expires_at)
        expected = Expected(peer, Negotiated.CACHE if met else Negotiated.DIRECT, inbound=False)
        link = self._dial(addresses, record.fingerprint, token.token, claim, expected)
        attempts.dials[link] = None
        return True

    def dial_invite(self, body: InviteBody, grant: tuple[bytes, int]) -> dict[LinkId, PeerId]:
        """Dial every member that an invite names at all its addresses, all at once."""
        invite_id, expires_at = grant
        links: dict[LinkId, PeerId] = {}
        for member in body.members:
            peer = PeerId(member.peer_id)
            addresses = [Address(entry.host, entry.port) for entry in member.addresses]
            if not addresses:
                continue
            expected = Expected(peer, Negotiated.INVITE, inbound=False, invite=body)
            claim = (dial.INVITE, invite_id, expires_at)
            link = self._dial(addresses, member.fingerprint, member.token, claim, expected)
            self._attempts(peer).dials[link] = None
            links[link] = peer
        return links

    def _dial(
        self,
        addresses: list[Address],
        fingerprint: bytes,
        token: bytes,
        claim: tuple[int, bytes, int],
        expected: Expected,
    ) -> LinkId:
        attempt = self.context.crypto.token(16)
        remote = dial.listener_credentials(token, dial.Claim(*claim, attempt))
        local = new_credentials(self.context)
        link = self.links.new_id()
        self.links.expect(link, expected)
        targets = tuple(addresses[:ADDRESSES_MAX])
        self.context.emit(Dial(link, targets, fingerprint, remote, local, attempt, DIAL_TIMEOUT))
        return link

    # --- offers of ours --------------------------------------------------------------------------

    def _offer(self, attempts: Attempts, now: float) -> list[PeerId]:
        suspended = self.links.by_peer.get(attempts.peer)
        offer = self._make_offer(attempts, suspended.facts.attempt if suspended else b"", now)
        walk = bool(attempts.waiting)
        timeout = WALKING_TIMEOUT if walk else ATTEMPT_TIMEOUT
        self._timers.set((Due.OFFER, attempts.peer), now + timeout)
        facts = self.routing.send(offer, now, walk=walk, beside=suspended is not None)
        return [
            peer
            for fact in facts
            if isinstance(fact, Undeliverable)
            for peer in self.on_undeliverable(fact.request, fact.code, now)
        ]

    def _may_offer(self, attempts: Attempts, now: float) -> bool:
        """Whether an offer is worth its price: beside a link only if a neighbour knows the way."""
        if attempts.waiting or attempts.peer not in self.links.by_peer:
            return True
        return self.routing.is_near(attempts.peer, now)

    def _make_offer(self, attempts: Attempts, restarts: bytes, now: float) -> Offer:
        """`restarts`: the attempt of the association that the peer may still know, or nothing."""
        peer, crypto, wall = attempts.peer, self.context.crypto, self.context.wall(now)
        prekey = sealing_key(peer, self.book.get(peer), wall, crypto)
        request, attempt = new_request(crypto), crypto.token(16)
        local, candidates = new_credentials(self.context), self.reflexive.candidates()
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
        )
        offer, digest = seal_offer(self.context, body, prekey)
        link = self.links.new_id()
        offering = Offering(link, request, attempt, local, candidates, digest, restarts)
        attempts.offering = offering
        self._by_request[request] = peer
        if restarts:
            offering.known = False  # Nobody can say yet which association these credentials are of.
        else:
            self.context.emit(Prepare(link, local, attempt, candidates))
        return offer

    def on_answer(self, answer: Answer, via: PeerId, now: float) -> list[PeerId]:
        """The answer to an offer of ours has come: start ICE, or take the next step."""
        attempts = self._of_request(base_of(answer.request))
        if attempts is None or attempts.offering is None or attempts.offering.answered:
            return []
        try:
            body = open_answer(self.context, answer, attempts.peer, attempts.offering.digest)
        except Refused as refused:
            self.context.report(
                "warning", "answer_refused", reason=refused.text, peer=attempts.peer
            )
            return []
        if body.accepted:
            self._timers.set((Due.OFFER, attempts.peer), now + ATTEMPT_TIMEOUT)
            return self._on_accepted(attempts, attempts.offering, body, via, now)
        self._abandon(attempts)
        text = f"the peer declined: {body.reason[:80]}"
        return self._failed(attempts, Failure.REFUSED, text, now)

    def _on_accepted(
        self, attempts: Attempts, offering: Offering, body: AnswerBody, via: PeerId, now: float
    ) -> list[PeerId]:
        """The peer has restarted the association, or does not know it and wants another."""
        offering.answered = True
        link = self.links.by_peer.get(attempts.peer)
        if not body.restarted:
            self._start_ice(attempts.peer, offering, body, via)
        elif link is None or link.facts.attempt != offering.restarts:
            self._abandon(attempts)
            text = "the link was lost before it could be restarted"
            return self._failed(attempts, Failure.TIMEOUT, text, now)
        else:
            self.context.emit(
                Restart(
                    link=link.id,
                    controlling=True,
                    local=offering.local,
                    remote=IceCredentials(body.ufrag, body.password),
                    candidates=offering.candidates,
                    remote_candidates=to_candidates(body.candidates),
                    timeout=ICE_TIMEOUT,
                )
            )
        return []

    def _start_ice(self, peer: PeerId, offering: Offering, body: AnswerBody, via: PeerId) -> None:
        offering.known = True
        expected = Expected(peer, Negotiated.MESH, inbound=False, via=via, hops=body.hops)
        self.links.expect(offering.link, expected)
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
            )
        )

    def on_undeliverable(self, request: bytes, code: str, now: float) -> list[PeerId]:
        """Nobody could pass an offer of ours on."""
        attempts = self._of_request(request)
        if attempts is None:
            return []
        self._abandon(attempts)
        attempts.undeliverable = True
        text = f"no neighbour could pass it on ({code})"
        return self._failed(attempts, Failure.UNREACHABLE, text, now)

    def _of_request(self, request: bytes) -> Attempts | None:
        """The attempts that an offer of ours by this name is the current one of."""
        peer = self._by_request.get(request)
        attempts = self.by_peer.get(peer) if peer is not None else None
        if attempts is None or attempts.offering is None:
            return None
        return attempts if attempts.offering.request == request else None

    # --- offers of others ------------------------------------------------------------------------

    def on_offer(self, offer: Offer, via: PeerId, now: float) -> None:
        """An offer for us: if it holds, take in its sender's record, and answer."""
        try:
            opened = self._offers.open(offer, now)
        except Refused as refused:
            self.routing.count_dropped()
            self.context.report("warning", "offer_refused", reason=refused.text, peer=via)
            return
        sender = PeerId(opened.body.sender)
        self.membership.add(opened.body.record, via, now)
        record = self.book.get(sender)
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
        attempts = self._attempts(peer)
        self.forgive(peer, now)
        self._abandon(attempts)
        link = self.links.by_peer.get(peer)
        known = link if link is not None and link.facts.attempt == body.restarts else None
        declined = self._why_declined(peer, known, now)
        local, candidates = IceCredentials("", ""), self.reflexive.candidates()
        if declined is None and known is not None:
            local = self._restart(known, body, candidates, now)
        elif declined is None:
            local = self._accept(attempts, body, candidates, via, hops)
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
            restarted=declined is None and known is not None,
        )
        self.routing.reply(seal_answer(self.context, answer, prekey, opened.request))

    def _is_late(self, body: OfferBody, now: float) -> bool:
        """Whether a dial has overtaken this offer: the link to its sender has just come up."""
        link = self.links.by_peer.get(PeerId(body.sender))
        if link is None or link.state is not LinkState.UP or body.restarts:
            return False
        return link.boot == body.boot and now - link.opened_at < GLARE_WINDOW

    def _why_declined(self, peer: PeerId, known: Link | None, now: float) -> Declined | None:
        """Why no more offers can be accepted now, if so; `known`: of the link to be restarted."""
        if known is not None:
            recent = now < self._restarted.get(peer, -RESTART_INTERVAL) + RESTART_INTERVAL
            return Declined.BUSY if recent else None
        if len(self.links.by_peer) >= self.context.settings.links_max + GUESTS_MAX:
            return Declined.FULL
        answering = sum(1 for each in self.by_peer.values() if each.answering is not None)
        return Declined.BUSY if answering >= ANSWERING_MAX else None

    def _restart(
        self, link: Link, body: OfferBody, candidates: tuple[Candidate, ...], now: float
    ) -> IceCredentials:
        """Restart ICE as the answerer; returns our credentials for the answer."""
        self._restarted.put(PeerId(body.sender), now)
        local = new_credentials(self.context)
        self.context.emit(
            Restart(
                link=link.id,
                controlling=False,
                local=local,
                remote=IceCredentials(body.ufrag, body.password),
                candidates=candidates,
                remote_candidates=to_candidates(body.candidates),
                timeout=ICE_TIMEOUT,
            )
        )
        return local

    def _accept(
        self,
        attempts: Attempts,
        body: OfferBody,
        candidates: tuple[Candidate, ...],
        via: PeerId,
        hops: int,
    ) -> IceCredentials:
        """Start ICE as the answerer; returns our credentials for the answer."""
        if attempts.answering is not None and attempts.answering not in self.links.by_id:
            # Superseded; one that is open is judged by its hello.
            self._hangup(attempts.answering, EndReason.SUPERSEDED)
        link, local = self.links.new_id(), new_credentials(self.context)
        attempts.answering = link
        expected = Expected(attempts.peer, Negotiated.MESH, inbound=True, via=via, hops=hops)
        self.links.expect(link, expected)
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
            )
        )
        return local

    def _wins_glare(self, peer: PeerId, attempt: bytes) -> bool:
        """Whether an offer of ours to this peer stands against its own: the lower attempt wins.

        One whose link is open stands: the peer may have verified it, and taken its own offer back.
        """
        attempts = self.by_peer.get(peer)
        if attempts is None or attempts.offering is None:
            return False
        return attempts.offering.link in self.links.by_id or attempts.offering.attempt < attempt

    # --- ends ------------------------------------------------------------------------------------

    def on_up(self, peer: PeerId, link: LinkId, now: float) -> None:
        """The link is up: whatever else was under way is called off, who waits is told."""
        attempts = self.by_peer.get(peer)
        if attempts is None:
            return
        self.forgive(peer, now)
        for other in [*attempts.dials, attempts.answering]:
            if other is not None and other != link and other not in self.links.by_id:
                self._hangup(other, EndReason.CANCELLED)
        offering = attempts.offering
        if offering is not None and offering.link == link:
            self._by_request.pop(offering.request, None)
            attempts.offering = None
        elif offering is not None and offering.link not in self.links.by_id:
            self._abandon(attempts)
        for request, _ in attempts.waiting:
            self.context.emit(Resolved(request, None))
        self._discard(peer)

    def on_attempt_failed(self, link: LinkId, code: str, text: str, now: float) -> list[PeerId]:
        """A dial or a negotiation has come to nothing."""
        overtaken = code in (GoodbyeCode.DUPLICATE, EndReason.GLARE)
        for attempts in self.by_peer.values():
            offering = attempts.offering
            if link in attempts.dials:
                del attempts.dials[link]
                # Another dial may be on its way to the same address, to whatever peer.
                overtaken = code == GoodbyeCode.DUPLICATE
            elif attempts.answering == link:
                attempts.answering = None
            elif offering is not None and offering.link == link:
                self._by_request.pop(offering.request, None)
                attempts.offering = None
            else:
                continue
            if not overtaken:
                return self._failed(attempts, code, text, now)
            # No failure: the link that it doubles stands, or soon will. If not, others are chosen.
            if not attempts.busy:
                self._timers.set((Due.RETRY, attempts.peer), now + COMMAND_RETRY)
            return []
        return []

    def call_off(self, peer: PeerId, link: LinkId) -> None:
        """A dial is not needed any more; one that has found its listener goes on."""
        attempts = self.by_peer.get(peer)
        if attempts is not None and link in attempts.dials and link not in self.links.by_id:
            del attempts.dials[link]
            self._hangup(link, EndReason.CANCELLED)

    def _abandon(self, attempts: Attempts) -> None:
        """Call off our own offer."""
        offering = attempts.offering
        if offering is not None:
            self._by_request.pop(offering.request, None)
            self.routing.call_off(offering.request)
            attempts.offering = None
            if offering.known:
                self._hangup(offering.link, EndReason.CANCELLED)

    def _failed(self, attempts: Attempts, code: str, text: str, now: float) -> list[PeerId]:
        """An attempt has come to nothing: take the next step, unless another is under way."""
        attempts.last = (code, text)
        return [] if attempts.busy else self._next_step(attempts, now)

    def _rest(self, attempts: Attempts, now: float) -> None:
        """A round has come to nothing: rest longer than after the last one."""
        code, text = attempts.last
        if attempts.peer not in self.links.by_peer:  # Else the fate of its link says more.
            self.context.report("debug", ATTEMPT_FAILED, peer=attempts.peer, code=code, text=text)
        # Who is forgotten is not missing.
        failing = sum(
            1 for peer, each in self.by_peer.items() if each.failures and peer in self.book
        )
        longest = CUT_OFF_MAX if failing > len(self.links.alive()) else BACKOFF_MAX
        delay = min(longest, BACKOFF_FIRST * 2**attempts.failures)
        delay *= self.context.random.uniform(0.75, 1.25)
        attempts.failures = min(attempts.failures + 1, DOUBLINGS_MAX)
        attempts.retry_at, attempts.undeliverable = now + delay, False
        if attempts.waiting:
            self._timers.set((Due.RETRY, attempts.peer), now + min(delay, COMMAND_RETRY))

    def forgive(self, peer: PeerId, now: float) -> None:
        """Word of a peer has come from itself: it need not rest; maybe a partition is over."""
        attempts = self.by_peer.get(peer)
        if attempts is None:
            return
        if attempts.failures >= FORGIVE_AFTER and now >= self._forgiven_at + FORGIVE_INTERVAL:
            self.forgive_all(now)
        attempts.failures, attempts.retry_at = 0, 0.0

    def on_recalled(self, peers: list[PeerId]) -> None:
        """Nobody is linked, and these are called; recall rests by itself."""
        self.on_met(peers)
        for attempts in filter(None, map(self.by_peer.get, peers)):
            attempts.retry_at = 0.0

    def forgive_all(self, now: float) -> None:
        """Our surroundings have changed, or a partition is over: nobody need rest any longer."""
        self._forgiven_at = now
        for attempts in self.by_peer.values():
            attempts.retry_at = 0.0

    def _hangup(self, link: LinkId, reason: EndReason) -> None:
        self.links.forget(link)
        self.context.emit(Hangup(link, reason))

    def _discard(self, peer: PeerId) -> None:
        self.by_peer.pop(peer, None)
        for due in Due:
            self._timers.stop((due, peer))

    # --- time ------------------------------------------------------------------------------------

    def on_time(self, now: float) -> list[PeerId]:
        """Time out what takes too long; try again for the commands that wait."""
        retry: list[PeerId] = []
        failed: list[Attempts] = []
        beside: list[Attempts] = []
        climbing: list[Attempts] = []
        for due, peer in self._timers.pop_due(now):
            attempts = self.by_peer[peer]
            match due:
                case Due.RETRY:
                    retry.append(peer)
                case Due.BESIDE:
                    beside.append(attempts)
                case Due.CLIMB:
                    climbing.append(attempts)
                case Due.GIVE_UP:
                    self._give_up(attempts, now)
                case Due.OFFER:
                    if self._is_overdue(attempts):
                        failed.append(attempts)
                case _:
                    assert_never(due)
        stuck = [peer for each in failed for peer in self._next_step(each, now)]
        stuck += [peer for each in beside for peer in self._offer_beside(each, now)]
        stuck += [peer for each in climbing for peer in self._climb(each, now)]
        for peer in retry:
            rested = self.by_peer.get(peer)
            if rested is not None and rested.waiting:
                stuck += self.start(peer, now)
            elif rested is not None and not rested.busy and not self.links.is_up(peer):
                stuck.append(peer)
        return stuck

    def _offer_beside(self, attempts: Attempts, now: float) -> list[PeerId]:
        """The dial has not been answered in a moment: the offer need not wait for its end."""
        if not attempts.dials or attempts.step is not Step.DIAL or not self._is_heard():
            return []
        if not self.context.settings.offers or not self._may_offer(attempts, now):
            return []
        attempts.step = STEPS[Step.DIAL][StepEvent.SLOW]
        return self._take(attempts, now)

    def _is_overdue(self, attempts: Attempts) -> bool:
        """Call off an offer that came to nothing in time; whether nothing else is under way."""
        offering = attempts.offering
        if offering is None or offering.link in self.links.by_id:
            return False
        self._abandon(attempts)
        text = "no path between the two worked" if offering.answered else "no answer came back"
        attempts.last = (Failure.TIMEOUT, text)
        return not attempts.busy

    def _give_up(self, attempts: Attempts, now: float) -> None:
        for request, at in attempts.waiting:
            if at <= now:
                self.context.emit(Rejected(request, *attempts.last))
        attempts.waiting = [(request, at) for request, at in attempts.waiting if at > now]
        if attempts.waiting:
            self._timers.set((Due.GIVE_UP, attempts.peer), attempts.waiting[0][1])
