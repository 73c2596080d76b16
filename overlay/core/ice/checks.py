"""Checks under way: retransmission and pace (RFC 8445 §14), which pair is nominated (§8.1.1)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import inf

from overlay.core.ice.checklist import CandidatePair, CheckList
from overlay.core.limits import BoundedDict
from overlay.core.types import Address

TA = 0.02
"""Seconds between ordinary checks (guess).

Deviation: RFC 8445 §14.2 says 50 ms by default, and allows no less than 5 ms.
"""
UNVERIFIED_BURST = 10
"""Checks that may leave at that pace to addresses that never answered (guess)."""
UNVERIFIED_RATE = 10.0
"""Checks a second to them from then on: the peer may have named victims (RFC 8445 §19.5.1; guess).
"""
RTO = 0.25
"""Seconds until the first retransmission (guess).

Deviation: RFC 8445 §14.3 says at least 500 ms. Ours are paced as a whole, and open NATs sooner.
"""
RTO_MAX = 1.0
"""Seconds at which doubling (RFC 8489 §6.2.1) stops (guess)."""
MAX_TRANSACTIONS = 128
"""Checks that await their answer; the oldest is given up for the newest (guess)."""
ANSWER_TIMEOUT = 6.0
"""Seconds after which a check sent only once is forgotten (guess)."""


@dataclass(slots=True, eq=False)
class Transaction:
    """A Binding request of ours that awaits its answer."""

    transaction_id: bytes
    pair: CandidatePair
    data: bytes
    key: bytes
    """The remote password it was made with: the answer's integrity uses the same."""
    controlling: bool
    """The role that it claimed."""
    nominate: bool
    rescue: bool
    """Asks from another of our addresses whether our own end has moved."""
    sends_left: int
    sent_at: float
    rto: float
    sends: int = 1
    resend_at: float = inf

    @property
    def urgency(self) -> tuple[bool, bool, float]:
        """The less, the sooner it is sent again."""
        return not self.pair.heard, self.pair.turn > 0, self.resend_at


class Transactions:
    """At most `MAX_TRANSACTIONS`, the oldest given up for the newest."""

    def __init__(self) -> None:
        self._by_id: BoundedDict[bytes, Transaction] = BoundedDict(MAX_TRANSACTIONS)

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[Transaction]:
        return iter(self._by_id.values())

    def __contains__(self, transaction_id: bytes) -> bool:
        return transaction_id in self._by_id

    def get(self, transaction_id: bytes) -> Transaction | None:
        """The transaction of this id."""
        return self._by_id.get(transaction_id)

    def add(self, new: Transaction, now: float) -> None:
        """The new one is its pair's only one that is sent again; older answers still count."""
        if len(self._by_id) >= 8:
            self._drop_stale(now)
        for old in self:
            if old.pair is new.pair:
                old.resend_at = inf
        if new.sends_left:
            new.resend_at = now + new.rto
        self._by_id.put(new.transaction_id, new)

    def sent_again(self, transaction: Transaction, now: float) -> None:
        """Arm the next retransmission, or the giving up."""
        transaction.sends += 1
        transaction.sends_left -= 1
        transaction.rto = max(transaction.rto, min(2 * transaction.rto, RTO_MAX))
        transaction.resend_at = now + transaction.rto

    def hasten(self, remotes: Sequence[Address], now: float) -> None:
        """What is to be sent to these again is due now."""
        for each in self:
            if each.pair.remote in remotes and each.resend_at != inf:
                each.resend_at = now

    def remove(self, transaction: Transaction) -> None:
        """Forget it: answered, or given up."""
        self._by_id.pop(transaction.transaction_id, None)

    def keep_only(self, pair: CandidatePair) -> None:
        """Forget all but one pair's, and send even those no more."""
        for each in list(self):
            if each.pair is pair:
                each.resend_at = inf
            else:
                self.remove(each)

    def clear(self) -> None:
        """Forget all."""
        self._by_id.clear()

    def next_resend(self) -> Transaction | None:
        """The one that is to be sent again, or given up, first."""
        first = min(self, key=lambda each: each.resend_at, default=None)
        return None if first is None or first.resend_at == inf else first

    def next_due(self, now: float) -> Transaction | None:
        """The one to be sent again, or given up, at once, if any.

        Where the peer has been heard first, then from our best address.
        """
        due = (each for each in self if each.resend_at <= now)
        return min(due, key=lambda each: each.urgency, default=None)

    def _drop_stale(self, now: float) -> None:
        for each in list(self):
            if each.resend_at == inf and each.sent_at <= now - ANSWER_TIMEOUT:
                self.remove(each)


class Pacer:
    """When the next ordinary check or retransmission may leave."""

    def __init__(self, now: float) -> None:
        self.at = now
        self.sent_again = False
        """The last that left was a retransmission."""
        self._tokens = float(UNVERIFIED_BURST)
        self._filled_at = now

    def sent(self, now: float, *, verified: bool, again: bool = False) -> None:
        """A check has left, `again` or not; `verified` when its target had answered one before."""
        self.sent_again = again
        filled = self._tokens + (now - self._filled_at) * UNVERIFIED_RATE
        self._tokens = min(filled, float(UNVERIFIED_BURST)) - (not verified)
        self._filled_at = now
        self.at = now + max(TA, (1 - self._tokens) / UNVERIFIED_RATE)


NOMINATION_GRACE = 0.1
"""Seconds from its last check, and at most the RTT of the valid pair, that a better one may take to
answer before that is nominated (guess)."""


class Nomination:
    """What the controlling agent nominates (RFC 8445 §8.1.1): one pair, the best valid, soon."""

    def __init__(self) -> None:
        # When the best valid pair is nominated even if a better one may still come up.
        self.grace_at: float | None = None
        self._under_way = False

    def choose(self, check_list: CheckList, rtt: float | None, now: float) -> CandidatePair | None:
        """The pair to nominate now, if any; from then on none, until it is withdrawn."""
        pair = check_list.best_valid()
        if self._under_way or pair is None:
            self.grace_at = None
            return None
        if self.grace_at is None:
            # A better path as quick as this one answers within its round trip.
            patience = min(NOMINATION_GRACE, (rtt or 0.0) + TA)
            self.grace_at = check_list.better_asked_at(pair, now) + patience
        if now < self.grace_at and check_list.may_improve_on(pair):
            return None
        self.grace_at, self._under_way = None, True
        return pair

    def withdraw(self) -> None:
        """Done, or come to nothing: another may be chosen."""
        self.grace_at, self._under_way = None, False
