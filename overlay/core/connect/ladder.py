"""How A reaches C: already linked, dialled directly, or by an offer through the mesh.

One `Climb` a peer: it holds the commands that wait, what is under way, and when to try again.
(Ladder steps 4 and 5 of DESIGN follow in later orders.)
"""

from dataclasses import dataclass, field

from overlay.core.connect.offers import (
    OFFER_LIFE,
    OpenedOffer,
    Refused,
    new_credentials,
    open_answer,
    seal_offer,
    to_candidates,
    to_entries,
)
from overlay.core.connect.steps import Step
from overlay.core.context import Context
from overlay.core.events import Dial, Hangup, Negotiate, Prepare, Rejected, Resolved
from overlay.core.link.links import Expected, Links
from overlay.core.membership.records import sealing_key
from overlay.core.routing.requests import base_of, new_request
from overlay.core.routing.routing import OFFER_TTL
from overlay.core.timers import Timers
from overlay.core.types import (
    Address,
    Candidate,
    IceCredentials,
    LinkId,
    Negotiated,
    PeerId,
    RequestId,
)
from overlay.core.wire import dial_tokens as dial
from overlay.core.wire.documents import AnswerBody, InviteBody, OfferBody, Record
from overlay.core.wire.messages import Answer, Offer

DIAL_TIMEOUT = 5.0
"""Seconds an address gets (issue: 5 s each)."""
ATTEMPT_TIMEOUT = 6.0
"""Seconds (guess) from an offer to its open link before it counts as failed."""
ICE_TIMEOUT = 10.0
"""Seconds after which ICE must have failed (RFC 8445 leaves it open; ours)."""
COMMAND_TIMEOUT = 12.0
"""Seconds (guess) that a command to connect keeps trying."""
BACKOFF_FIRST, BACKOFF_MAX = 1.0, 60.0
ADDRESSES_MAX = 8
"""Addresses that one dial goes to (DESIGN: candidates an offer)."""
CLIMBS_MAX = 1024
ATTEMPT_FAILED = "attempt_failed"
"""The report on each attempt that came to nothing; programs hear of it, too."""


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
class Climb:
    """What is under way towards one peer."""

    peer: PeerId
    waiting: list[tuple[RequestId, float]] = field(default_factory=list)
    """Commands and when each gives up."""
    dials: dict[LinkId, None] = field(default_factory=dict)
    inbound: LinkId | None = None
    """ICE started as the answerer of the peer's offer."""
    offering: Offering | None = None
    failures: int = 0
    retry_at: float = 0.0
    last: tuple[str, str] = ("unreachable", "no way to this peer is known")
    step: Step = Step.REST
    """`overlay.core.connect.climbing` decides it."""

    @property
    def busy(self) -> bool:
        """Whether anything is under way."""
        return bool(self.dials) or self.offering is not None or self.inbound is not None


@dataclass(slots=True)
class Target:
    """What a climb needs to know of its peer at this moment; the composed node looks it up."""

    record: Record | None
    addresses: list[Address]
    """Worth dialling directly, best first."""
    negotiated: Negotiated
    """What a direct dial would be called."""
    candidates: tuple[Candidate, ...]
    """Ours."""
    own_record: bytes


@dataclass(slots=True)
class Ladder:
    """All climbs of a node."""

    context: Context
    links: Links
    climbs: dict[PeerId, Climb] = field(default_factory=dict)
    _by_request: dict[bytes, PeerId] = field(default_factory=dict)
    _timers: Timers[tuple[str, PeerId]] = field(init=False)

    def __post_init__(self) -> None:
        self._timers = Timers(self.context.agenda)

    def climb(self, peer: PeerId) -> Climb:
        """The peer's climb, new or old; of too many, the longest idle goes."""
        known = self.climbs.get(peer)
        if known is None:
            if len(self.climbs) >= CLIMBS_MAX:
                idle = [each for each, c in self.climbs.items() if not c.busy and not c.waiting]
                if idle:
                    self._discard(idle[0])
            known = self.climbs[peer] = Climb(peer)
        return known

    def wait(self, peer: PeerId, request: RequestId, now: float) -> Climb:
        """A command waits for a link to this peer; it gives up after 12 s."""
        climb = self.climb(peer)
        climb.waiting.append((request, now + COMMAND_TIMEOUT))
        self._timers.set(("give up", peer), climb.waiting[0][1])
        return climb

    # --- step 2: direct dial -----------------------------------------------------------------

    def dial_record(self, climb: Climb, target: Target) -> bool:
        """Dial a peer where its record says; returns whether there was anything to dial."""
        record = target.record
        if record is None or record.token is None or not target.addresses:
            return False
        token = record.token
        claim = (token.kind, token.token_id, token.expires_at)
        expected = Expected(climb.peer, target.negotiated, inbound=False)
        link = self._dial(target.addresses, record.fingerprint, token.token, claim, expected)
        climb.dials[link] = None
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
            self.climb(peer).dials[link] = None
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

    # --- step 3: an offer through the mesh ---------------------------------------------------

    def offer(self, climb: Climb, target: Target, now: float) -> Offer | None:
        """Make the offer; None while another one is under way."""
        crypto, wall = self.context.crypto, self.context.wall(now)
        if climb.offering is not None:
            return None
        prekey = sealing_key(climb.peer, target.record, wall, crypto)
        request, attempt = new_request(crypto), crypto.token(16)
        local = new_credentials(self.context)
        body = OfferBody(
            network=self.context.settings.network,
            sender=self.context.peer_id,
            recipient=climb.peer,
            request=request,
            attempt=attempt,
            boot=self.context.settings.boot,
            expires_at=int(wall + OFFER_LIFE),
            ttl=OFFER_TTL,
            fingerprint=crypto.fingerprint,
            ufrag=local.ufrag,
            password=local.password,
            candidates=to_entries(target.candidates),
            record=target.own_record,
        )
        offer, digest = seal_offer(self.context, body, prekey)
        link = self.links.new_id()
        climb.offering = Offering(link, request, attempt, local, target.candidates, digest)
        self._by_request[request] = climb.peer
        self._timers.set(("attempt", climb.peer), now + ATTEMPT_TIMEOUT)
        self.context.emit(Prepare(link, local, attempt, target.candidates))
        return offer

    def on_answer(self, answer: Answer, via: PeerId, now: float) -> PeerId | None:
        """The answer to an offer: start ICE. Returns the peer if the attempt has failed."""
        request = base_of(answer.request)
        peer = self._by_request.get(request)
        climb = self.climbs.get(peer) if peer is not None else None
        if climb is None or climb.offering is None or climb.offering.answered:
            return None
        offering = climb.offering
        if offering.request != request:
            return None
        try:
            body = open_answer(self.context, answer, climb.peer, offering.digest)
        except Refused as refused:
            self.refuse("answer_refused", str(refused), climb.peer)
            return None
        if not body.accepted:
            self.abandon(climb)
            return self._failed(climb, "refused", f"the peer declined: {body.reason[:80]}", now)
        self._start_ice(climb, offering, body, via)
        return None

    def _start_ice(self, climb: Climb, offering: Offering, body: AnswerBody, via: PeerId) -> None:
        offering.answered = True
        expected = Expected(climb.peer, Negotiated.MESH, inbound=False, via=via, hops=body.hops)
        self.links.expect(offering.link, expected)
        self.context.emit(
            Negotiate(
                link=offering.link,
                controlling=True,
                local=offering.local,
                remote=IceCredentials(body.ufrag, body.password),
                fingerprint=body.fingerprint,
                attempt=offering.attempt,
                candidates=offering.candidates,
                remote_candidates=to_candidates(body.candidates),
                timeout=ICE_TIMEOUT,
            )
        )

    def accept(self, opened: OpenedOffer, target: Target, via: PeerId, hops: int) -> IceCredentials:
        """Start ICE as the answerer of a checked offer; returns our credentials for the answer."""
        body = opened.body
        climb = self.climb(PeerId(body.sender))
        if climb.inbound is not None and climb.inbound not in self.links.by_id:
            self._hangup(climb.inbound, "superseded")  # one that is open is judged by its hello
        link, local = self.links.new_id(), new_credentials(self.context)
        climb.inbound = link
        peer = climb.peer
        self.links.expect(link, Expected(peer, Negotiated.MESH, inbound=True, via=via, hops=hops))
        self.context.emit(
            Negotiate(
                link=link,
                controlling=False,
                local=local,
                remote=IceCredentials(body.ufrag, body.password),
                fingerprint=body.fingerprint,
                attempt=body.attempt,
                candidates=target.candidates,
                remote_candidates=to_candidates(body.candidates),
                timeout=ICE_TIMEOUT,
            )
        )
        return local

    def wins_glare(self, peer: PeerId, attempt: bytes) -> bool:
        """Whether an offer of ours to this peer stands against its own: the lower attempt wins."""
        climb = self.climbs.get(peer)
        return climb is not None and climb.offering is not None and (
            climb.offering.attempt < attempt
        )  # fmt: skip

    # --- ends --------------------------------------------------------------------------------

    def on_up(self, peer: PeerId, link: LinkId) -> None:
        """The peer is linked: whatever else was under way is called off, who waits is told."""
        climb = self.climbs.get(peer)
        if climb is None:
            return
        for other in [*climb.dials, climb.inbound]:
            if other is not None and other != link and other not in self.links.by_id:
                self._hangup(other, "cancelled")
        if climb.offering is not None and climb.offering.link == link:
            self._by_request.pop(climb.offering.request, None)
            climb.offering = None
        elif climb.offering is not None and climb.offering.link not in self.links.by_id:
            self.abandon(climb)
        for request, _ in climb.waiting:
            self.context.emit(Resolved(request, None))
        self._discard(peer)

    def on_attempt_failed(self, link: LinkId, code: str, text: str, now: float) -> PeerId | None:
        """An attempt came to nothing; returns the peer when nothing else is under way."""
        for climb in self.climbs.values():
            offering = climb.offering
            if link in climb.dials:
                del climb.dials[link]
            elif climb.inbound == link:
                climb.inbound = None
            elif offering is not None and offering.link == link:
                self._by_request.pop(offering.request, None)
                climb.offering = None
            else:
                continue
            return self._failed(climb, code, text, now)
        return None

    def on_undeliverable(self, request: bytes, code: str, now: float) -> PeerId | None:
        """Nobody could pass our offer on."""
        peer = self._by_request.get(request)
        climb = self.climbs.get(peer) if peer is not None else None
        if climb is None or climb.offering is None or climb.offering.request != request:
            return None
        self.abandon(climb)
        return self._failed(climb, "unreachable", f"no neighbour could pass it on ({code})", now)

    def call_off(self, peer: PeerId, link: LinkId) -> None:
        """A dial is not needed any more; one that has found its listener goes on."""
        climb = self.climbs.get(peer)
        if climb is not None and link in climb.dials and link not in self.links.by_id:
            del climb.dials[link]
            self._hangup(link, "cancelled")

    def abandon(self, climb: Climb) -> None:
        """Call off our own offer."""
        offering = climb.offering
        if offering is not None:
            self._by_request.pop(offering.request, None)
            climb.offering = None
            self._hangup(offering.link, "cancelled")

    def _failed(self, climb: Climb, code: str, text: str, now: float) -> PeerId | None:
        climb.last = (code, text)
        self.context.report("debug", ATTEMPT_FAILED, peer=climb.peer, code=code, text=text)
        return None if climb.busy else self._rest(climb, now)

    def _rest(self, climb: Climb, now: float) -> PeerId:
        """Leave the peer alone for a while, longer each time."""
        delay = min(BACKOFF_MAX, BACKOFF_FIRST * 2**climb.failures)
        climb.failures = min(climb.failures + 1, 8)
        if climb.waiting:
            delay = min(delay, 2.0)
        climb.retry_at = now + delay * self.context.random.uniform(0.75, 1.25)
        self._timers.set(("retry", climb.peer), climb.retry_at)
        return climb.peer

    def stuck(self, climb: Climb, now: float) -> None:
        """There is no step to take now: fail, and try again later."""
        if not climb.busy:
            self._rest(climb, now)

    def answering(self) -> int:
        """How many offers of others are being answered."""
        return sum(1 for climb in self.climbs.values() if climb.inbound is not None)

    def refuse(self, event: str, reason: str, peer: PeerId | None) -> None:
        """Have the log name what was refused, and from whom."""
        self.context.report("warning", event, reason=reason, peer=peer)

    def _hangup(self, link: LinkId, reason: str) -> None:
        self.links.forget(link)
        self.context.emit(Hangup(link, reason))

    def _discard(self, peer: PeerId) -> None:
        self.climbs.pop(peer, None)
        for kind in ("give up", "attempt", "retry"):
            self._timers.stop((kind, peer))

    def on_time(self, now: float) -> tuple[list[PeerId], list[PeerId]]:
        """Time out what takes too long; returns peers to try again, and peers not reached."""
        retry: list[PeerId] = []
        failed: list[PeerId] = []
        for kind, peer in self._timers.pop_due(now):
            climb = self.climbs[peer]
            if kind == "retry":
                retry.append(peer)
            elif kind == "give up":
                self._give_up(climb, now)
            elif climb.offering is not None and climb.offering.link not in self.links.by_id:
                unanswered = not climb.offering.answered
                self.abandon(climb)
                text = "no answer came back" if unanswered else "no path between the two worked"
                if self._failed(climb, "timeout", text, now) is not None:
                    failed.append(peer)
        return retry, failed

    def _give_up(self, climb: Climb, now: float) -> None:
        for request, at in climb.waiting:
            if at <= now:
                self.context.emit(Rejected(request, *climb.last))
        climb.waiting = [(request, at) for request, at in climb.waiting if at > now]
        if climb.waiting:
            self._timers.set(("give up", climb.peer), climb.waiting[0][1])
