"""One idea: how a node comes from a peer id to a link, one step after another.

A peer is dialled where its record says; else an offer goes to it through the mesh, and both ends
check paths to each other (ICE, RFC 8445); else even addresses are dialled that nobody has seen to
be the peer's own. `STEPS` says which step follows when one has failed. A step that cannot be taken
(nothing to dial, nobody who could pass an offer on) counts as failed, for the reason that the last
one failed for. A link to the peer ends all attempts at once, whoever made it.

The other end of an offer is here, too: what it accepts is one more attempt to reach the offerer.
An offer has us send checks to addresses that somebody else has named, so `offers` checks it before
anything is sent anywhere, and each peer has at most one that we answer.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import assert_never

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
from overlay.core.events import Dial, Hangup, Negotiate, Prepare, Rejected, Resolved
from overlay.core.link.links import Expected, Links
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
ATTEMPT_TIMEOUT = 6.0
"""Seconds (guess) from an offer to its open link before it counts as failed."""
ICE_TIMEOUT = 10.0
"""Seconds (guess) after which ICE must have failed: RFC 8445 leaves it open."""
COMMAND_TIMEOUT = 12.0
"""Seconds (guess) that a command to connect keeps trying."""
COMMAND_RETRY = 2.0
"""Seconds (guess) of rest at most while a command waits."""
BACKOFF_FIRST, BACKOFF_MAX = 1.0, 60.0
"""Seconds (guess) of rest after the first failure, twice as many after each other one, at most."""
DOUBLINGS_MAX = 8
ADDRESSES_MAX = 8
"""Addresses that one dial goes to: as many as an offer has candidates."""
PEERS_MAX = 1024
"""Peers of whose attempts we know; beyond it one that nothing is under way to is forgotten."""
ANSWERING_MAX = 64
"""Offers that we are answering at once; more are declined as busy."""
ATTEMPT_FAILED = "attempt_failed"
"""The report on each attempt that came to nothing; programs hear of it, too."""


class Step(StrEnum):
    """What is being tried."""

    REST = "rest"
    """Nothing; a command that waits, or the need for neighbours, begins anew after a while."""
    DIAL = "dial"
    """The addresses in the peer's record that somebody has seen to be its own."""
    OFFER = "offer"
    """An offer through the mesh, and the checks of both ends that its answer begins."""
    LAST_RESORT = "last resort"
    """Even the addresses that the peer's record merely claims."""


class StepEvent(StrEnum):
    """What leads from one step to the next."""

    BEGIN = "begin, after an even number of failures"
    BEGIN_BY_OFFER = "begin, after an odd number"
    UNREACHABLE = "unreachable"
    FAILED = "failed otherwise"


STEPS: dict[Step, dict[StepEvent, Step]] = {
    Step.REST: {
        StepEvent.BEGIN: Step.DIAL,
        StepEvent.BEGIN_BY_OFFER: Step.OFFER,
        # An attempt of the peer's own, or by an invite, has come to nothing.
        StepEvent.UNREACHABLE: Step.LAST_RESORT,
        StepEvent.FAILED: Step.REST,
    },
    Step.DIAL: {
        StepEvent.UNREACHABLE: Step.OFFER,
        StepEvent.FAILED: Step.OFFER,
    },
    Step.OFFER: {
        StepEvent.UNREACHABLE: Step.LAST_RESORT,
        StepEvent.FAILED: Step.REST,
    },
    Step.LAST_RESORT: {
        StepEvent.UNREACHABLE: Step.REST,
        StepEvent.FAILED: Step.REST,
    },
}


class Due(StrEnum):
    """What falls due towards a peer."""

    GIVE_UP = "give up"  # a command has waited long enough
    OFFER = "offer"  # our offer should have become a link
    RETRY = "retry"  # the rest is over


@dataclass(slots=True)
class Offering:
    """An offer of ours that waits for its answer, or for its link to open."""

    link: LinkId
    request: bytes
    attempt: bytes
    local: IceCredentials
    candidates: tuple[Candidate, ...]
    digest: bytes
    answered: bool = False


@dataclass(slots=True)
class Attempts:
    """All that is under way towards one peer."""

    peer: PeerId
    waiting: list[tuple[RequestId, float]] = field(default_factory=list)
    """Commands and when each gives up."""
    dials: dict[LinkId, None] = field(default_factory=dict)
    answering: LinkId | None = None
    """ICE started as the answerer of the peer's offer."""
    offering: Offering | None = None
    failures: int = 0
    last: tuple[str, str] = (Failure.UNREACHABLE, "no way to this peer is known")
    """The code and the text of the latest failure."""
    step: Step = Step.REST

    @property
    def busy(self) -> bool:
        """Whether anything is under way."""
        return bool(self.dials) or self.offering is not None or self.answering is not None


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
    _met: dict[PeerId, None] = field(default_factory=dict)
    _by_request: dict[bytes, PeerId] = field(default_factory=dict)
    _offers: OfferReader = field(init=False)
    _timers: Timers[tuple[Due, PeerId]] = field(init=False)

    def __post_init__(self) -> None:
        self._offers = OfferReader(self.context)
        self._timers = Timers(self.context.agenda)

    def on_met(self, peers: list[PeerId]) -> None:
        """An invite or the cache has named these."""
        self._met.update(dict.fromkeys(peers))

    def wait(self, peer: PeerId, request: RequestId, now: float) -> None:
        """A command waits for a link to this peer; it gives up after 12 s."""
        attempts = self._attempts(peer)
        attempts.waiting.append((request, now + COMMAND_TIMEOUT))
        self._timers.set((Due.GIVE_UP, peer), attempts.waiting[0][1])

    def start(self, peer: PeerId, now: float) -> list[PeerId]:
        """Take the first step that can be taken, unless something is under way."""
        attempts = self._attempts(peer)
        if attempts.busy or peer in self.links.by_peer:
            return []
        begin = StepEvent.BEGIN_BY_OFFER if attempts.failures % 2 else StepEvent.BEGIN
        attempts.step = STEPS[Step.REST][begin]
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
        if attempts.peer in self.links.by_peer:
            return []
        if attempts.step is Step.DIAL and not self.routing.neighbours:
            attempts.step = Step.OFFER  # Nobody could pass it on: it counts as tried.
        return self._after_failure(attempts, now)

    def _after_failure(self, attempts: Attempts, now: float) -> list[PeerId]:
        unreachable = attempts.last[0] == Failure.UNREACHABLE
        event = StepEvent.UNREACHABLE if unreachable else StepEvent.FAILED
        attempts.step = STEPS[attempts.step][event]
        return self._take(attempts, now)

    def _take(self, attempts: Attempts, now: float) -> list[PeerId]:
        """Take the step that it is at, or the first that can be taken after it."""
        match attempts.step:
            case Step.REST:
                return [attempts.peer]
            case Step.OFFER if self.context.settings.offers:
                return self._offer(attempts, now)
            case Step.OFFER:
                return self._after_failure(attempts, now)
            case Step.DIAL | Step.LAST_RESORT:
                taken = self._dial_record(attempts, claimed=attempts.step is Step.LAST_RESORT)
                return [] if taken else self._after_failure(attempts, now)
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
        everything = claimed or met or not self.routing.neighbours
        addresses = self.reflexive.dialable(record.addresses, claimed=everything)
        if not addresses:
            return False
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
        offer = self._make_offer(attempts, now)
        facts = self.routing.send(offer, now, walk=bool(attempts.waiting))
        return [
            peer
            for fact in facts
            if isinstance(fact, Undeliverable)
            for peer in self.on_undeliverable(fact.request, fact.code, now)
        ]

    def _make_offer(self, attempts: Attempts, now: float) -> Offer:
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
            ttl=OFFER_TTL,
            fingerprint=crypto.fingerprint,
            ufrag=local.ufrag,
            password=local.password,
            candidates=to_entries(candidates),
            record=self.membership.own,
        )
        offer, digest = seal_offer(self.context, body, prekey)
        link = self.links.new_id()
        attempts.offering = Offering(link, request, attempt, local, candidates, digest)
        self._by_request[request] = peer
        self._timers.set((Due.OFFER, peer), now + ATTEMPT_TIMEOUT)
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
            self._start_ice(attempts.peer, attempts.offering, body, via)
            return []
        self._abandon(attempts)
        text = f"the peer declined: {body.reason[:80]}"
        return self._failed(attempts, Failure.REFUSED, text, now)

    def _start_ice(self, peer: PeerId, offering: Offering, body: AnswerBody, via: PeerId) -> None:
        offering.answered = True
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
        """Accept and start ICE, or decline; say nothing when our own offer stands (glare)."""
        peer, body = PeerId(opened.body.sender), opened.body
        prekey = sealing_key(peer, sender, self.context.wall(now), self.context.crypto)
        if self._wins_glare(peer, body.attempt):
            return
        attempts = self._attempts(peer)
        self._abandon(attempts)
        declined = self._why_declined()
        local, candidates = IceCredentials("", ""), self.reflexive.candidates()
        if declined is None:
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
        )
        self.routing.reply(seal_answer(self.context, answer, prekey, opened.request))

    def _why_declined(self) -> Declined | None:
        """Why no more offers can be accepted now, if so."""
        if len(self.links.by_peer) >= self.context.settings.links_max + GUESTS_MAX:
            return Declined.FULL
        answering = sum(1 for each in self.by_peer.values() if each.answering is not None)
        return Declined.BUSY if answering >= ANSWERING_MAX else None

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
        """Whether an offer of ours to this peer stands against its own: the lower attempt wins."""
        attempts = self.by_peer.get(peer)
        if attempts is None or attempts.offering is None:
            return False
        return attempts.offering.attempt < attempt

    # --- ends ------------------------------------------------------------------------------------

    def on_up(self, peer: PeerId, link: LinkId) -> None:
        """The peer is linked: whatever else was under way is called off, who waits is told."""
        attempts = self.by_peer.get(peer)
        if attempts is None:
            return
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
        for attempts in self.by_peer.values():
            offering = attempts.offering
            if link in attempts.dials:
                del attempts.dials[link]
            elif attempts.answering == link:
                attempts.answering = None
            elif offering is not None and offering.link == link:
                self._by_request.pop(offering.request, None)
                attempts.offering = None
            else:
                continue
            return self._failed(attempts, code, text, now)
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
            attempts.offering = None
            self._hangup(offering.link, EndReason.CANCELLED)

    def _failed(self, attempts: Attempts, code: str, text: str, now: float) -> list[PeerId]:
        """An attempt has come to nothing: take the next step, unless another is under way."""
        rests = self._rests(attempts, code, text, now)
        # A duplicate is no failure: the link that it doubles stands, or is about to.
        return self._next_step(attempts, now) if rests and code != GoodbyeCode.DUPLICATE else []

    def _rests(self, attempts: Attempts, code: str, text: str, now: float) -> bool:
        """Note a failure; with nothing else under way, whether so, rest longer than last time."""
        attempts.last = (code, text)
        self.context.report("debug", ATTEMPT_FAILED, peer=attempts.peer, code=code, text=text)
        if attempts.busy:
            return False
        delay = min(BACKOFF_MAX, BACKOFF_FIRST * 2**attempts.failures)
        attempts.failures = min(attempts.failures + 1, DOUBLINGS_MAX)
        if attempts.waiting:
            delay = min(delay, COMMAND_RETRY)
        at = now + delay * self.context.random.uniform(0.75, 1.25)
        self._timers.set((Due.RETRY, attempts.peer), at)
        return True

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
        for due, peer in self._timers.pop_due(now):
            attempts = self.by_peer[peer]
            match due:
                case Due.RETRY:
                    retry.append(peer)
                case Due.GIVE_UP:
                    self._give_up(attempts, now)
                case Due.OFFER:
                    if self._is_overdue(attempts, now):
                        failed.append(attempts)
                case _:
                    assert_never(due)
        stuck = [peer for each in failed for peer in self._next_step(each, now)]
        for peer in retry:
            waits = self.by_peer.get(peer)
            if waits is not None and waits.waiting:
                stuck += self.start(peer, now)
        return stuck

    def _is_overdue(self, attempts: Attempts, now: float) -> bool:
        """Call off an offer that has not become a link; whether nothing else is under way."""
        offering = attempts.offering
        if offering is None or offering.link in self.links.by_id:
            return False
        self._abandon(attempts)
        text = "no path between the two worked" if offering.answered else "no answer came back"
        return self._rests(attempts, Failure.TIMEOUT, text, now)

    def _give_up(self, attempts: Attempts, now: float) -> None:
        for request, at in attempts.waiting:
            if at <= now:
                self.context.emit(Rejected(request, *attempts.last))
        attempts.waiting = [(request, at) for request, at in attempts.waiting if at > now]
        if attempts.waiting:
            self._timers.set((Due.GIVE_UP, attempts.peer), attempts.waiting[0][1])
