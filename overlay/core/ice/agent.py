"""One idea: a full ICE agent (RFC 8445) of one component on one port, without socket or clock.

Each side knows the other's candidates, and the agent checks all candidate pairs at once. A check
from the peer triggers one back: two checks that cross are what opens NATs and firewalls. The
controlling agent nominates the best valid pair. The handshake need not wait for the answer to that
(§12.1); from the answer on the agent watches that path.

A restart (RFC 8445 §9) is another agent, which looks for a path while this one keeps its own.

Deviation: in RFC 8445 only a restart changes an established path (§9). Ours moves by one rule. Our
own end moves when a check from another of our addresses is answered. The peer's end moves when an
authenticated check has come from its new address, and then a nonce that we have sent there,
encrypted, comes back from there (`overlay.core.ice.confirming`).
"""

from collections.abc import Callable, Sequence
from random import Random

from overlay.core.addresses import candidate_priority
from overlay.core.ice import stun
from overlay.core.ice.checklist import CandidatePair, CheckList
from overlay.core.ice.checks import RTO, TA, Nomination, Pacer, Transaction, Transactions
from overlay.core.ice.confirming import Confirmations, Unproven
from overlay.core.ice.low_ttl import BURST, Lowered
from overlay.core.ice.outputs import Failed, Failure, IceOutput, Nominated, SendStun
from overlay.core.ice.path import Path, RoundTrip
from overlay.core.ice.session import Session
from overlay.core.ice.states import AGENT, AgentEvent, AgentState, PairEvent, PairState
from overlay.core.types import (
    Address,
    Candidate,
    IceCredentials,
    LowTtl,
    PathKind,
    Technique,
)

NOMINATION_SENDS = 4
"""Retransmissions of a nomination before the next best pair has its turn (guess)."""
LATE_SENDS = 3
"""Retransmissions of a check towards a new address of an established path (guess)."""
CHECK_SENDS = 1_000
"""Retransmissions of a check before the path stands: until the attempt's deadline.

Deviation: RFC 8489 §6.2.1 stops after 7. A pair may work late: the peer's NAT opens only when the
peer itself begins to check.
"""
MAX_EARLY_CHECKS = 16
"""Checks kept that came before the peer's candidates (RFC 8445 §7.3; guess)."""


class IceAgent:
    """One side of one attempt, and of the path that comes of it.

    `candidates` are ours; the bases of them are what checks leave from. A wildcard address
    stands for a base whose source the routing table chooses, none at all for one of each family.
    """

    def __init__(
        self,
        *,
        controlling: bool,
        local: IceCredentials,
        candidates: Sequence[Candidate],
        random: Random,
        now: float,
        timeout: float = 10.0,
        secured: bool = False,
    ) -> None:
        """`secured`: the association stands already, so encrypted nonces can prove addresses."""
        self.round_trip = RoundTrip()
        self._session = Session(controlling, local, random.getrandbits(64))
        self._random = random
        self._timeout = timeout
        self._check_list = CheckList(controlling, candidates)
        self._transactions = Transactions()
        self._pacer = Pacer(now)
        self._early: dict[tuple[Address, Address | None], tuple[int, bool]] = {}
        self._remote_lite = False
        self._state = AgentState.NEW
        self._deadline = now + timeout
        self._nomination = Nomination()
        self._rescues = 0
        self._outputs: list[IceOutput] = []
        self._path = Path(self._outputs, self.round_trip, secured=secured)
        self._confirmations = Confirmations(random)
        self._low_ttl = Lowered()
        # By which technique beyond ICE a pair was found, if by one (decision 0040).
        self._beyond: Callable[[CandidatePair], Technique | None] = _none

    def go_beyond(self, technique: Callable[[CandidatePair], Technique | None]) -> None:
        """Pairs are found by other means, too: `technique` says by which a pair was, if by one."""
        self._beyond = technique

    @property
    def controlling(self) -> bool:
        """Whether we nominate; a role conflict may change it."""
        return self._session.controlling

    @property
    def local(self) -> IceCredentials:
        """Ours."""
        return self._session.local

    @property
    def remote(self) -> IceCredentials | None:
        """The peer's; None before `start`."""
        return self._session.remote

    @property
    def has_valid_pair(self) -> bool:
        """Whether some pair works both ways, whichever becomes the path (RFC 8445 §7.2.5.3.2)."""
        return self._check_list.best_valid() is not None

    def _on(self, event: AgentEvent) -> None:
        self._state = AGENT[self._state][event]

    # --- commands -------------------------------------------------------------------------------

    def start(
        self,
        remote: IceCredentials,
        candidates: Sequence[Candidate],
        now: float,
        *,
        remote_lite: bool = False,
        low_ttl: LowTtl | None = None,
    ) -> None:
        """Begin checking: the peer's credentials and candidates are at hand.

        `remote_lite`: the peer is ICE-lite, so we control and nominate with the first check.
        `low_ttl`: what the answerer, we or the peer, sends first dies before it arrives.
        """
        assert self.remote is None, "started twice: a restart is another agent's"
        if self._state.is_failed:
            return
        self._remote_lite = remote_lite
        self._session.remote = remote
        self._on(AgentEvent.START)
        self._deadline = now + self._timeout
        self._low_ttl.begin(low_ttl, now)
        for candidate in candidates:
            self._check_list.add_remote(candidate)
        early, self._early = self._early, {}
        for (address, local), (priority, use_candidate) in early.items():
            self._on_check(address, local, priority, use_candidate, now)
        self._pacer.at = now
        self._open_own_nat(now)
        self._send_due(now)

    def add_remote_candidate(self, candidate: Candidate, now: float) -> None:
        """A further candidate of the peer's; of no use once the path stands."""
        if self._state.is_checking and not self._state.is_failed:
            self._check_list.add_remote(candidate)
            self._send_due(now)

    # --- facts ----------------------------------------------------------------------------------

    def receive(
        self, message: stun.Message, remote: Address, local: Address | None, now: float
    ) -> None:
        """A STUN message from `remote` to our address `local`. Never raises, whatever it says."""
        if self._state.is_failed or message.method != stun.BINDING:
            return
        if message.message_class is stun.MessageClass.REQUEST:
            self._on_request(message, remote, local, now)
        elif message.message_class is not stun.MessageClass.INDICATION:
            self._on_response(message, remote, local, now)

    def acknowledged(self, now: float) -> None:
        """An encrypted packet has acknowledged something of ours: the peer is alive."""
        if self._path.pair is not None and not self._state.is_failed:
            self._path.secured = True
            self._path.answered(now)

    def unacknowledged(self, now: float) -> None:
        """Data has been under way for longer than an acknowledgement takes: ask at once."""
        watch = self._path.watch
        if watch is not None and not self._state.is_failed and watch.hasten(now):
            self._probe(now)

    def confirmed(self, nonce: bytes, remote: Address, local: Address | None, now: float) -> bool:
        """A nonce has come back from there: if it was sent there, the path runs there now.

        Whether it was.
        """
        if self._confirmations.returned(nonce, (remote, local), now) is None:
            return False
        pair = self._check_list.learn(local, remote, 1)
        if pair is not None and self._state is AgentState.SELECTED:
            pair.seen_local = local or pair.seen_local
            self._move(pair, now)
            self._path.answered(now)
        return True

    def handle_timeout(self, now: float) -> None:
        """Do what is due at `now`."""
        if self._state.is_failed:
            return
        watch = self._path.watch
        if watch is not None:
            watch.forgive(self.next_deadline(), now)
        if self._state.is_checking and now >= self._deadline:
            self._end(Failure.TIMEOUT)
        grace_at = self._nomination.grace_at
        if grace_at is not None and now >= grace_at:
            self._consider_nomination(now)
        if self._low_ttl.until is not None and now >= self._low_ttl.until:
            self._transactions.hasten(self._low_ttl.end(), now)
        self._send_due(now)
        if watch is not None:
            if watch.question_due(now, controlling=self.controlling):
                self._probe(now)
            if not watch.judge(now):
                self._end(Failure.SILENT)

    def next_deadline(self) -> float | None:
        """When `handle_timeout` wants to be called; None: not before something else happens."""
        if self._state.is_failed:
            return None
        deadlines: list[float] = []
        if self._state.is_checking:
            deadlines.append(self._deadline)
            if self._nomination.grace_at is not None:
                deadlines.append(self._nomination.grace_at)
            if self._check_list.next_waiting() is not None:
                deadlines.append(self._pacer.at)
        resend = self._transactions.next_resend()
        if resend is not None:
            deadlines.append(max(resend.resend_at, self._pacer.at))
        if self._low_ttl.until is not None:
            deadlines.append(self._low_ttl.until)
        if self._path.watch is not None:
            deadlines.append(self._path.watch.next_deadline(controlling=self.controlling))
        return min(deadlines, default=None)

    def take(self) -> list[IceOutput]:
        """What there is to do and to know since the last call."""
        outputs = self._outputs.copy()
        self._outputs.clear()
        return outputs

    # --- the peer's checks ----------------------------------------------------------------------

    def _on_request(
        self, request: stun.Message, remote: Address, local: Address | None, now: float
    ) -> None:
        key = self._session.key_of(request)
        if key is None:
            # RFC 8489 §9.1.3. The answer has no integrity: we share no password with who asks.
            self._answer(stun.binding_error(request, 401), None, remote, local)
        elif request.unknown_required:  # RFC 8489 §6.3.1
            self._answer(stun.binding_error(request, 420), key, remote, local)
        elif request.priority is None:  # which every check carries (RFC 8445 §7.1.1)
            self._answer(stun.binding_error(request, 400), key, remote, local)
        elif self._session.keeps_role(request):  # RFC 8445 §7.3.1.1: the peer has to switch
            self._answer(stun.binding_error(request, 487), key, remote, local)
        elif self._session.conflicts(request) and not self._switch_role():
            pass  # that was the end
        else:
            self._low_ttl.heard(remote)
            # RFC 8445 §7.3.1.2: the answer names the address that the check came from.
            self._answer(stun.binding_success(request, remote), key, remote, local)
            self._on_check(remote, local, request.priority, request.use_candidate, now)

    def _answer(
        self, response: stun.Message, key: bytes | None, remote: Address, local: Address | None
    ) -> None:
        data, ttl = stun.encode(response, key), self._low_ttl.to(remote)
        self._outputs.append(SendStun(data, remote, local, ttl))

    def _on_check(
        self,
        remote: Address,
        local: Address | None,
        priority: int,
        use_candidate: bool,
        now: float,
    ) -> None:
        """An authentic check: check back, and follow a nomination."""
        if self.remote is None:
            # RFC 8445 §7.3: answer before the peer's candidates are known; check back afterwards.
            if (remote, local) in self._early or len(self._early) < MAX_EARLY_CHECKS:
                self._early[remote, local] = (priority, use_candidate)
            return
        pair = self._check_list.learn(local, remote, priority)
        if pair is None:
            return
        pair.heard = True
        # RFC 8445 §7.3.1.5: USE-CANDIDATE of the controlling peer nominates the pair.
        pair.nominated |= use_candidate and not self.controlling
        watch = self._path.watch
        if pair is self._path.pair:
            if watch is not None and watch.asks_back(now):
                self._check(pair, now, 0)
        elif self._path.secured and not self._state.is_checking:
            question = self._confirmations.ask_unproven((remote, local), Unproven.MOVED, now)
            if question is not None:
                self._outputs.append(question)
        elif pair.state is PairState.SUCCEEDED:
            self._follow(pair, now)
        else:
            self._trigger(pair, now)  # RFC 8445 §7.3.1.4

    def _trigger(self, pair: CandidatePair, now: float) -> None:
        """A triggered check (RFC 8445 §7.3.1.4), also while one is under way.

        That one may have died at the peer's firewall, which its own check has opened since. Not
        sooner than Ta after the last one, so that two agents cannot excite each other.

        Deviation: §6.1.4.2 queues triggered checks for the pacer's next turn; ours leave at once.
        """
        if pair.state is not PairState.IN_PROGRESS or now >= pair.checked_at + TA:
            self._check(pair, now, CHECK_SENDS if self._state.is_checking else LATE_SENDS)

    # --- our own checks -------------------------------------------------------------------------

    def _check(
        self,
        pair: CandidatePair,
        now: float,
        sends_left: int,
        *,
        nominate: bool = False,
        rescue: bool = False,
    ) -> None:
        """Send a Binding request on this pair (RFC 8445 §7.2.4)."""
        # A lite peer never checks, so every check may nominate: whichever is answered first is the
        # path. Deviation: RFC 8445 §8.1.1 nominates a pair in a check of its own.
        nominate = self.controlling and (
            nominate or (self._remote_lite and self._state.is_checking)
        )
        transaction_id = self._random.randbytes(12)
        data, key = self._session.check(transaction_id, pair.prflx_priority, nominate)
        transaction = Transaction(
            transaction_id=transaction_id,
            pair=pair,
            data=data,
            key=key,
            controlling=self.controlling,
            nominate=nominate,
            rescue=rescue,
            sends_left=sends_left,
            sent_at=now,
            rto=max(RTO, 1.5 * (self.round_trip.seconds or 0.0)),
        )
        self._transactions.add(transaction, now)
        pair.on(PairEvent.CHECKED)
        pair.checked_at, pair.sends = now, pair.sends + 1
        self._send(data, pair)

    def _send(self, data: bytes, pair: CandidatePair) -> None:
        ttl = self._low_ttl.to(pair.remote)
        self._outputs.append(SendStun(data, pair.remote, pair.local, ttl))

    def _open_own_nat(self, now: float) -> None:
        """Check with a low TTL wherever that is to be, not waiting for the pacer's turn."""
        if self._low_ttl.until is not None:
            waiting = self._check_list.waiting()
            low = [each for each in waiting if self._low_ttl.to(each.remote) is not None]
            for pair in sorted(low, key=lambda each: each.order)[:BURST]:
                self._check(pair, now, CHECK_SENDS)

    def _send_due(self, now: float) -> None:
        """Ordinary checks and retransmissions, one whenever the pacer allows (RFC 8445 §6.1.4).

        New pairs come first; those from our further addresses take turns with what is due again.
        What is due where the peer has been heard comes before all: one way works already.
        """
        while now >= self._pacer.at:
            waiting = self._check_list.next_waiting() if self._state.is_checking else None
            resend = self._transactions.next_due(now)
            takes_turns = waiting is not None and waiting.turn and not self._pacer.sent_again
            if waiting is not None and not (resend and (takes_turns or resend.pair.heard)):
                self._check(waiting, now, CHECK_SENDS)
                self._pacer.sent(now, verified=False)
            elif resend is not None:
                self._send_again(resend, now)
            else:
                return

    def _send_again(self, transaction: Transaction, now: float) -> None:
        """Retransmit (RFC 8489 §6.2.1), or give the check up when it has been sent often enough."""
        pair = transaction.pair
        if transaction.sends_left:
            self._transactions.sent_again(transaction, now)
            pair.checked_at, pair.sends = now, pair.sends + 1
            self._pacer.sent(now, verified=pair.state is PairState.SUCCEEDED, again=True)
            self._send(transaction.data, pair)
            return
        self._transactions.remove(transaction)
        self._on_failure(transaction, now)

    def _on_response(
        self, response: stun.Message, remote: Address, local: Address | None, now: float
    ) -> None:
        transaction = self._transactions.get(response.transaction_id)
        if transaction is None or not response.integrity_ok(transaction.key):
            return
        pair = transaction.pair
        # Deviation: RFC 8445 §7.2.5.2.1 fails a pair whose answer takes another way; we ask on.
        if remote != pair.remote or (None not in (local, pair.local) and local != pair.local):
            return
        error = response.message_class is stun.MessageClass.ERROR
        if not error and response.mapped_address is None:
            return
        self._transactions.remove(transaction)
        self._path.answered(now)
        if error:
            self._on_error(transaction, response.error_code, now)
        else:
            # RFC 8445 §7.2.5.3.1 makes a peer-reflexive local candidate of a new mapped address.
            # Ours has the base that the check left from, and bases are all that pairs are made of.
            pair.mapped, pair.seen_local = response.mapped_address, local or pair.seen_local
            self._on_success(transaction, now)

    def _on_error(self, transaction: Transaction, code: int | None, now: float) -> None:
        if code == 487:
            # RFC 8445 §7.2.5.1: change roles, unless that has happened since, and check again.
            if transaction.controlling is not self.controlling or self._switch_role():
                self._check(transaction.pair, now, CHECK_SENDS if self._state.is_checking else 0)
        elif transaction.pair is not self._path.pair:
            self._on_failure(transaction, now)

    def _on_failure(self, transaction: Transaction, now: float) -> None:
        """The pair does not work; the next best has its turn (RFC 8445 §7.2.5.2)."""
        transaction.pair.on(PairEvent.UNANSWERED)
        if transaction.nominate:
            self._nomination.withdraw()
        self._consider_nomination(now)
        if transaction.nominate and self._state.is_checking and not self.has_valid_pair:
            # Nothing else works, and this did: perhaps all that is amiss is that packets got lost.
            self._check(transaction.pair, now, CHECK_SENDS)

    def _on_success(self, transaction: Transaction, now: float) -> None:
        """The pair is valid: it works both ways (RFC 8445 §7.2.5.3)."""
        pair = transaction.pair
        pair.on(PairEvent.ANSWERED)
        pair.answered_at = now
        if transaction.sends == 1:  # RFC 6298 §3: nobody knows which of several was answered
            self.round_trip.measure(now - transaction.sent_at, now)
        else:
            self.round_trip.at_most = now - transaction.sent_at
        if pair is self._path.pair:
            self._path.announce(self._check_list.kind_of(pair))
        elif not self._state.is_checking:
            selected = self._path.pair
            if transaction.rescue and selected and selected.answered_at < transaction.sent_at:
                self._move(pair, now)
            else:
                self._follow(pair, now)
        elif transaction.nominate and self.controlling:
            self._select(pair, now)  # RFC 8445 §7.2.5.3.4: the nomination was heard
        elif self.controlling:
            self._consider_nomination(now)
        else:
            self._follow(pair, now)
        self._path.observe(pair)

    # --- nomination -----------------------------------------------------------------------------

    def _consider_nomination(self, now: float) -> None:
        """Nominate the best valid pair in a check of its own (RFC 8445 §8.1.1)."""
        if self.controlling and self._state.is_checking:
            pair = self._nomination.choose(self._check_list, self.round_trip.seconds, now)
            if pair is not None:
                self._check(pair, now, NOMINATION_SENDS, nominate=True)
                local, kind = pair.local or pair.seen_local, self._check_list.kind_of(pair)
                found = Nominated(pair.remote, local, kind, self._technique_of(pair, kind))
                self._outputs.append(found)

    def _technique_of(self, pair: CandidatePair, kind: PathKind) -> Technique | None:
        if self._remote_lite:
            return None
        return self._beyond(pair) or self._low_ttl.technique(pair, kind)

    def stray_check(self) -> bytes:
        """A check that belongs to no pair, to be sent from and to anywhere.

        Its answer is not awaited: the peer's own check, which follows it, makes a pair (§7.3.1.3).
        """
        priority = candidate_priority("prflx")
        return self._session.check(self._random.randbytes(12), priority, nominate=False)[0]

    def _follow(self, pair: CandidatePair, now: float) -> None:
        """The peer may have nominated this valid pair (RFC 8445 §8.1.1)."""
        # Once something encrypted was acknowledged a nomination alone moves nothing: a check's
        # integrity does not cover its source address, so a repeated one could come from anywhere.
        if (
            pair.nominated
            and not self.controlling
            and (self._state.is_checking or not self._path.secured)
        ):
            self._select(pair, now)

    def _move(self, pair: CandidatePair, now: float) -> None:
        """One end of the established path is elsewhere: go there, and ask there at once.

        The answer measures the new path, and our question is what shows the peer where we are.
        """
        self.round_trip.forget()
        self._confirmations.clear()
        self._select(pair, now)
        self._check(pair, now, 0)

    def _select(self, pair: CandidatePair, now: float) -> None:
        self._on(AgentEvent.SELECT)
        self._forget_others(pair)
        self._low_ttl.end()
        kind = self._check_list.kind_of(pair)
        if self._path.pair is None:
            self._path.technique = self._technique_of(pair, kind)
        self._path.select(pair, kind, now)

    def _forget_others(self, pair: CandidatePair) -> None:
        """The path is this one; what was tried beside it is forgotten (RFC 8445 §8.1.2, §8.3)."""
        self._nomination.withdraw()
        self._check_list.keep_only(pair)
        self._transactions.keep_only(pair)

    # --- roles, liveness, ends ------------------------------------------------------------------

    def _switch_role(self) -> bool:
        """Take the other role. False: the two of us cannot agree, and that was the end."""
        if self._session.switch_role():
            # RFC 8445 §7.2.5.1: priorities of pairs are computed anew.
            self._nomination.withdraw()
            self._check_list.set_role(self.controlling)
        elif self._path.pair is None:
            self._end(Failure.CONFLICT)
        return not self._state.is_failed

    def _probe(self, now: float) -> None:
        """A consent check (RFC 7675 §5.1) on the path; in doubt, one from elsewhere by turns."""
        selected = self._path.pair
        assert selected is not None
        self._check(selected, now, 0)
        watch = self._path.watch
        if self._state.is_checking or watch is None or not watch.is_doubtful():
            return
        others = self._check_list.alternatives_to(selected)
        if others:
            self._rescues += 1
            self._check(others[self._rescues % len(others)], now, 0, rescue=True)

    def _end(self, reason: Failure) -> None:
        self._on(AgentEvent.FAIL)
        self._transactions.clear()
        self._outputs.append(Failed(reason))


def _none(_: CandidatePair) -> None:
    return None
