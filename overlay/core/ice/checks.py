"""Checks under way: retransmission and pace (RFC 8445 §14), which pair is nominated (§8.1.1)."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import inf

from overlay.core.ice.checklist import CheckList, Pair

TA = 0.02
"""Seconds between ordinary checks. `guess`; RFC 8445 §14.2 says 50 ms, and not below 5."""
UNVERIFIED_BURST = 10
"""Checks that may leave at that pace to addresses that never answered. `guess`"""
UNVERIFIED_RATE = 10.0
"""Checks a second to them from then on: the peer may have named victims (DESIGN, the door)."""
RTO = 0.25
"""The first retransmission follows after this. `guess`

Deviation: RFC 8445 §14.3 says at least 500 ms; ours punch holes, and are paced as a whole.
"""
RTO_MAX = 1.0
"""Doubling stops here. `guess`"""
MAX_TRANSACTIONS = 128
ANSWER_TIMEOUT = 6.0
"""A question asked once is forgotten after this."""


@dataclass(slots=True, eq=False)
class Transaction:
    """A Binding request of ours that awaits its answer."""

    transaction_id: bytes
    pair: Pair
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


class Transactions:
    """At most `MAX_TRANSACTIONS`, the oldest given up for the newest."""

    def __init__(self) -> None:
        self._by_id: dict[bytes, Transaction] = {}

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
        if len(self._by_id) >= MAX_TRANSACTIONS:
            del self._by_id[next(iter(self._by_id))]
        for old in self:
            if old.pair is new.pair:
                old.resend_at = inf
        if new.sends_left:
            new.resend_at = now + new.rto
        self._by_id[new.transaction_id] = new

    def sent_again(self, transaction: Transaction, now: float) -> None:
        """Arm the next retransmission, or the giving up."""
        transaction.sends += 1
        transaction.sends_left -= 1
        transaction.rto = max(transaction.rto, min(2 * transaction.rto, RTO_MAX))
        transaction.resend_at = now + transaction.rto

    def remove(self, transaction: Transaction) -> None:
        """Forget it: answered, or given up."""
        self._by_id.pop(transaction.transaction_id, None)

    def keep_only(self, pair: Pair) -> None:
        """Forget all but one pair's, and send even those no more."""
        self._by_id = {key: each for key, each in self._by_id.items() if each.pair is pair}
        for each in self:
            each.resend_at = inf

    def clear(self) -> None:
        """Forget all."""
        self._by_id.clear()

    def next_resend(self) -> Transaction | None:
        """The one that is to be sent again, or given up, first."""
        first = min(self, key=lambda each: each.resend_at, default=None)
        return None if first is None or first.resend_at == inf else first

    def _drop_stale(self, now: float) -> None:
        self._by_id = {
            key: each
            for key, each in self._by_id.items()
            if each.resend_at < inf or each.sent_at > now - ANSWER_TIMEOUT
        }


class Pacer:
    """When the next ordinary check or retransmission may leave."""

    def __init__(self, now: float) -> None:
        self.at = now
        self._tokens = float(UNVERIFIED_BURST)
        self._filled_at = now

    def sent(self, now: float, *, verified: bool) -> None:
        """A check has left; `verified` when its target had answered one before."""
        filled = self._tokens + (now - self._filled_at) * UNVERIFIED_RATE
        self._tokens = min(filled, float(UNVERIFIED_BURST)) - (not verified)
        self._filled_at = now
        self.at = now + max(TA, (1 - self._tokens) / UNVERIFIED_RATE)


NOMINATION_GRACE = 0.1
"""At most so long, and no longer than its RTT, a valid pair waits for a better one. `guess`"""


class Nomination:
    """Regular nomination: one pair, the best that is valid, soon."""

    def __init__(self) -> None:
        self.grace_at: float | None = None
        """When the best valid pair is nominated even if a better one may still come up."""
        self._under_way = False

    def choose(self, check_list: CheckList, rtt: float | None, now: float) -> Pair | None:
        """The pair to nominate now, if any; from then on none, until it is withdrawn."""
        pair = check_list.best_valid()
        over = self.grace_at is not None and now >= self.grace_at
        if self._under_way or pair is None:
            self.grace_at = None
        elif over or not check_list.may_improve_on(pair):
            self.grace_at, self._under_way = None, True
            return pair
        elif self.grace_at is None:
            # A better path as quick as this one answers within its round trip.
            self.grace_at = now + min(NOMINATION_GRACE, (rtt or 0.0) + TA)
        return None

    def withdraw(self) -> None:
        """Done, or come to nothing: another may be chosen."""
        self.grace_at, self._under_way = None, False
