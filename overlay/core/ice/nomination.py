"""Which pair the controlling side nominates, and when (RFC 8445 §8.1.1)."""

from overlay.core.ice.checklist import CheckList, Pair
from overlay.core.ice.checks import TA

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
