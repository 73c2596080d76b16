"""One idea: first contact by hand: two strangers, one message each way, by any medium.

The maker of an offer registers it and keeps its NAT's mapping; the answerer begins to check paths
to the offerer as soon as its answer is written, and the offerer when it has been handed that. Each
goes on until the offer expires, in rounds of ICE with a pause between, so that minutes or an hour
may pass in the mail. Whoever has the offer comes in as by an invite: the answerer dials, so to say,
controls ICE and shows its admission; the answer's MAC says that its author holds the offer.

Two ends behind NATs meet only at addresses that they know of themselves: a global IPv6 address, one
that a neighbour sees or the user names, or what a STUN server that the user has chosen says.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import assert_never

from overlay.core.addresses import candidate_priority, is_private
from overlay.core.context import Context
from overlay.core.events import (
    AcceptAnswer,
    AnswerOffer,
    Hangup,
    MakeOffer,
    Negotiate,
    Rejected,
    Resolved,
    Seen,
)
from overlay.core.limits import BoundedDict
from overlay.core.link.links import Expected, Links
from overlay.core.nat.reflexive import Reflexive
from overlay.core.nat.server import StunServer
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
    Refusal,
    RequestId,
)
from overlay.core.wire import by_hand, compact, invite
from overlay.core.wire import dial_tokens as dial
from overlay.core.wire.documents import AddressEntry, Grant, InviteBody, InviteMember
from overlay.errors import Failure

OFFERS_MAX = 16
"""Offers of ours that wait for answers (guess); of more, the oldest is forgotten."""
MEETINGS_MAX = 16
"""Answerers and offerers that we try to meet at once (guess)."""
NAMED_MAX = 4
"""Addresses that an offer or an answer names (guess): each is up to 32 characters more."""
SEEN_TIMEOUT = 5.0
"""Seconds (guess) that the STUN server gets to say where it sees us."""
ROUND = 15.0
"""Seconds (guess) that one round of checks lasts."""
REST = 2.0
"""Seconds (guess) between two rounds: with a round's own pauses, a handful of packets a second."""
NO_LINK = LinkId(-1)
"""The link of a meeting whose first round has not begun."""
HIDDEN = "this node names no address of its own (links.relay_only): nobody could meet it by hand"
FOR_GOOD = frozenset({GoodbyeCode.EXPIRED, GoodbyeCode.REFUSED, GoodbyeCode.NETWORK})
"""What ends a meeting that has been refused."""
NOWHERE = (
    "this node knows no address at which somebody elsewhere could meet it: it has no IPv6 address "
    "and no neighbour that sees it from outside. Name a STUN server that may tell it "
    "(`--set nat.stun=IP:PORT` at `overlay up`), or enable IPv6, or forward a UDP port and name "
    "that (`--advertise IP:PORT`)"
)


class Due(StrEnum):
    """What falls due."""

    MAPPED = "mapped"  # the STUN server has had its time
    ROUND = "round"  # a meeting has rested
    PATIENCE = "patience"  # whoever waits for a meeting is told that it goes on
    EXPIRED = "expired"  # an offer, and a meeting by it, is over


@dataclass(slots=True)
class _Offer:
    """An offer of ours that has been handed out."""

    body: InviteBody
    grant: Grant
    expires_at: float
    """In our own time."""


@dataclass(slots=True)
class _Meeting:
    """The other end of an offer and its answer, with whom we look for a path."""

    body: InviteBody
    peer: PeerId
    fingerprint: bytes
    controlling: bool
    local: IceCredentials
    remote: IceCredentials
    attempt: bytes
    addresses: list[AddressEntry]
    until: float
    link: LinkId = NO_LINK
    request: RequestId | None = None
    """Who waits for it."""


@dataclass(slots=True)
class ByHand:
    """The offers, the answers and the meetings of one node."""

    context: Context
    links: Links
    reflexive: Reflexive
    server: StunServer = field(init=False)
    _pending: dict[RequestId, MakeOffer | AnswerOffer] = field(default_factory=dict)
    _offers: BoundedDict[bytes, _Offer] = field(default_factory=lambda: BoundedDict(OFFERS_MAX))
    _meetings: dict[bytes, _Meeting] = field(default_factory=dict)
    _timers: Timers[tuple[Due, bytes | RequestId]] = field(init=False)

    def __post_init__(self) -> None:
        self.server = StunServer(self.context)
        self._timers = Timers(self.context.agenda)

    # --- commands ----------------------------------------------------------------------------

    def begin(self, command: MakeOffer | AnswerOffer, now: float) -> None:
        """Learn where we are, which may take a moment; then make the offer, or answer it."""
        if self.context.settings.relay_only:
            self.context.emit(Rejected(command.request, Failure.NO_ADDRESS, HIDDEN))
            return
        self._pending[command.request] = command
        until = now + SEEN_TIMEOUT
        self.server.want(until, now)
        if self.context.settings.stun is None or self.server.mapped is not None:
            self._go_on(command.request, now)
        else:
            self._timers.set((Due.MAPPED, command.request), until)

    def _go_on(self, request: RequestId, now: float) -> None:
        command = self._pending.pop(request)
        self._timers.stop((Due.MAPPED, request))
        addresses = self._addresses()
        if not any(map(self._may_be_met, addresses)):
            silent = f"the STUN server {self.context.settings.stun} (nat.stun) does not answer; "
            text = NOWHERE if self.context.settings.stun is None else silent + NOWHERE
            self.context.emit(Rejected(request, Failure.NO_ADDRESS, text))
        elif isinstance(command, MakeOffer):
            self._offer(command, addresses, now)
        else:
            self._answer(command, addresses, now)

    def _addresses(self) -> list[AddressEntry]:
        """Where we may be met: what others can use first, then those of our own network."""
        candidates = [each.address for each in self.reflexive.candidates()]
        mapped = [self.server.mapped] if self.server.mapped is not None else []
        found = dict.fromkeys([*self.reflexive.advertised, *mapped, *candidates])
        entries = [AddressEntry(each.host, each.port, proven=False) for each in found]
        return sorted(entries, key=lambda each: not self._may_be_met(each))[:NAMED_MAX]

    def _may_be_met(self, entry: AddressEntry) -> bool:
        """Whether somebody elsewhere may reach us there."""
        address = Address(entry.host, entry.port)
        return not is_private(entry.host) or address in self.reflexive.advertised

    def _offer(self, command: MakeOffer, addresses: list[AddressEntry], now: float) -> None:
        context, crypto = self.context, self.context.crypto
        expires_at = int(context.wall(now) + command.expires_in)
        network, nonce = context.settings.network, crypto.token(compact.NONCE_BYTES)
        invite_id = compact.invite_id(nonce, network, context.peer_id, expires_at)
        token = dial.make_token(context.settings.dial_key, dial.INVITE, invite_id, expires_at)
        seed = compact.invite_seed(token)
        key = crypto.public_of(seed)
        grant = Grant(network, invite_id, key, context.peer_id, "member", 0, expires_at)
        member = InviteMember(context.peer_id, crypto.fingerprint, token, addresses)
        name = context.settings.network_name
        body = InviteBody(invite.make_grant(grant, crypto), seed, [member], name)
        until = now + command.expires_in
        self._offers.put(invite_id, _Offer(body, grant, until))
        self._timers.set((Due.EXPIRED, invite_id), until)
        self.server.want(until, now)
        context.emit(Resolved(command.request, body))

    def _answer(self, command: AnswerOffer, addresses: list[AddressEntry], now: float) -> None:
        context, body = self.context, command.offer
        grant = invite.open_grant(body.grant, context.wall(now), context.crypto)
        if isinstance(grant, Refusal):
            context.emit(Rejected(command.request, grant.code, grant.text))
            return
        (offerer,) = body.members
        fingerprint = context.crypto.fingerprint
        terms = by_hand.terms(body.seed, fingerprint)
        until = now + max(0.0, grant.expires_at - context.wall(now))
        meeting = _Meeting(
            body=body,
            peer=PeerId(offerer.peer_id),
            fingerprint=offerer.fingerprint,
            controlling=True,
            local=terms.answerer,
            remote=terms.offerer,
            attempt=terms.attempt,
            addresses=offerer.addresses,
            until=until,
        )
        us = InviteMember(context.peer_id, fingerprint, b"", addresses)
        payload = by_hand.write_answer(grant.invite_id, us, body.seed)
        self.server.want(until, now)
        self._meet(meeting)
        context.emit(Resolved(command.request, payload))

    def accept(self, command: AcceptAnswer, now: float) -> None:
        """An answer has been carried back to us: look for a path; resolves once the link is up."""
        answer = command.answer
        offer = self._offers.get(answer.invite_id)
        if offer is None or offer.expires_at <= now:
            text = (
                "the answer is to no offer that this node still knows: it has expired, or the node "
                "was started anew since; make a new one with `overlay offer`"
            )
            self.context.emit(Rejected(command.request, Failure.REFUSED, text))
            return
        if not by_hand.is_answer_to(answer, offer.body.seed):
            text = "the answer was not made by somebody who holds the offer: ask for it again"
            self.context.emit(Rejected(command.request, Failure.REFUSED, text))
            return
        peer = PeerId(answer.member.peer_id)
        if peer == self.context.peer_id:
            text = "this is the node's own answer to its own offer"
            self.context.emit(Rejected(command.request, Failure.SELF, text))
            return
        if self.links.is_up(peer):
            self.context.emit(Resolved(command.request, peer))
            return
        terms = by_hand.terms(offer.body.seed, answer.member.fingerprint)
        meeting = _Meeting(
            body=offer.body,
            peer=peer,
            fingerprint=answer.member.fingerprint,
            controlling=False,
            local=terms.offerer,
            remote=terms.answerer,
            attempt=terms.attempt,
            addresses=answer.member.addresses,
            until=offer.expires_at,
            request=command.request,
        )
        self._timers.set((Due.PATIENCE, terms.attempt), now + command.timeout)
        self._meet(meeting)

    # --- meetings ----------------------------------------------------------------------------

    def _meet(self, meeting: _Meeting) -> None:
        """The first round; an earlier meeting by the same two messages gives way."""
        before = self._meetings.pop(meeting.attempt, None)
        if before is not None:
            self._call_off(before, Failure.CLOSED, "it was begun anew")
        while len(self._meetings) >= MEETINGS_MAX:
            _, oldest = next(iter(self._meetings.items()))
            self._end(oldest, Failure.BUSY, "too many others are to be met")
        self._meetings[meeting.attempt] = meeting
        self._timers.set((Due.EXPIRED, meeting.attempt), meeting.until)
        self._round(meeting)

    def _round(self, meeting: _Meeting) -> None:
        context = self.context
        meeting.link = self.links.new_id()
        expected = Expected(
            meeting.peer, Negotiated.MANUAL, inbound=not meeting.controlling, invite=meeting.body
        )
        self.links.expect(meeting.link, expected)
        addresses = [Address(each.host, each.port) for each in meeting.addresses]
        context.emit(
            Negotiate(
                link=meeting.link,
                controlling=meeting.controlling,
                local=meeting.local,
                remote=meeting.remote,
                fingerprint=meeting.fingerprint,
                attempt=meeting.attempt,
                candidates=self.reflexive.candidates(),
                remote_candidates=tuple(_candidates(addresses)),
                timeout=ROUND,
            )
        )

    def on_attempt_failed(self, link: LinkId, code: str, text: str, now: float) -> None:
        """A round has come to nothing: the next one follows, unless we were refused for good."""
        for meeting in list(self._meetings.values()):
            if meeting.link != link:
                continue
            if code in FOR_GOOD:
                self._end(meeting, code, text)
            else:
                at = now + REST * self.context.random.uniform(0.75, 1.25)
                self._timers.set((Due.ROUND, meeting.attempt), at)

    def on_up(self, link: LinkId, peer: PeerId) -> None:
        """A link is up: whoever was to be met by it has been."""
        for meeting in list(self._meetings.values()):
            if meeting.link == link or meeting.peer == peer:
                request, meeting.request = meeting.request, None
                if request is not None:
                    self.context.emit(Resolved(request, peer))
                self._end(meeting, Failure.CLOSED, "")

    def _end(self, meeting: _Meeting, code: str, text: str) -> None:
        self._meetings.pop(meeting.attempt, None)
        for due in (Due.ROUND, Due.PATIENCE, Due.EXPIRED):
            self._timers.stop((due, meeting.attempt))
        self._call_off(meeting, code, text)

    def _call_off(self, meeting: _Meeting, code: str, text: str) -> None:
        if meeting.request is not None:
            self.context.emit(Rejected(meeting.request, code, text))
        if meeting.link not in self.links.by_id:
            self.links.forget(meeting.link)
            self.context.emit(Hangup(meeting.link, EndReason.CANCELLED))

    # --- time --------------------------------------------------------------------------------

    def on_seen(self, seen: Seen, now: float) -> None:
        """The STUN server may have answered: who waited for that goes on."""
        if self.server.on_seen(seen, now):
            for request in list(self._pending):
                self._go_on(request, now)

    def on_time(self, now: float) -> None:
        """Go on without an answer of the server; begin rounds; forget what has expired."""
        self.server.on_time(now)
        for due, name in self._timers.pop_due(now):
            match due:
                case Due.MAPPED:
                    assert isinstance(name, int)
                    if name in self._pending:
                        self._go_on(name, now)
                case Due.ROUND | Due.PATIENCE | Due.EXPIRED:
                    assert isinstance(name, bytes)
                    self._on_due(due, name)
                case _:
                    assert_never(due)

    def _on_due(self, due: Due, name: bytes) -> None:
        meeting = self._meetings.get(name)
        if due is Due.EXPIRED:
            self._offers.pop(name, None)
            if meeting is not None:
                text = "the offer has expired before the two met: make a new one"
                self._end(meeting, GoodbyeCode.EXPIRED, text)
        elif meeting is not None and due is Due.ROUND:
            self._round(meeting)
        elif meeting is not None and meeting.request is not None:
            text = "no path has been found yet; this node goes on trying until the offer expires"
            self.context.emit(Rejected(meeting.request, Failure.TIMEOUT, text))
            meeting.request = None


def _candidates(addresses: list[Address]) -> Iterator[Candidate]:
    """What a message names, as candidates: the best first."""
    for rank, address in enumerate(addresses):
        yield Candidate("host", address, candidate_priority("host", rank), f"h{rank}")
