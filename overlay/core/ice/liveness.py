"""Is the peer still there, and does it still consent to what we send it (RFC 7675)?

An idle path is checked every two seconds. A check unanswered for 1.5 s makes the peer *suspect*,
six seconds without a sound make it *silent*, and a minute makes it *dead*. Any authenticated check,
any answer and any packet that decrypts counts as heard.

Deviation: RFC 7675 §5.1 checks every 5 s and ends consent after 30 s. A silent path is checked for
a minute: the association above it waits for a peer that has changed its network or slept.
"""

from overlay.core.ice.states import LIVELINESS, Liveliness, Sign

IDLE_INTERVAL = 2.0
"""Seconds without a sound after which the controlling side checks (guess)."""
IDLE_INTERVAL_CONTROLLED = 3.5
"""The controlled side relies on those checks and makes its own when they fail to come (guess)."""
SUSPECT_TIMEOUT = 1.5
"""Seconds that a check may stay unanswered (guess)."""
PROBE_INTERVAL = 0.5
"""Seconds between checks while one is unanswered: one lost packet accuses nobody (guess)."""
SILENT_TIMEOUT = 6.0
"""Seconds from the last sound (guess)."""
SILENT_PROBE_INTERVAL = 2.0
"""Seconds between checks of a silent path (guess)."""
DEAD_TIMEOUT = 60.0
"""Seconds from the last sound (guess)."""
LATENESS = 1.0
"""Seconds: a timeout later than this says that our process slept, not the peer (guess)."""


class Liveness:
    """The clock of one path: when to check it, and what to think of no answer."""

    def __init__(self, now: float) -> None:
        self.state = Liveliness.ALIVE
        self._heard_at = now
        self._asked_at: float | None = None  # when the first check since the last sound went out
        self._probed_at = now  # when the last check went out

    def heard(self, now: float) -> bool:
        """A sound of the peer. True when it was suspect or silent before."""
        self._heard_at = now
        self._asked_at = None
        return self._on(Sign.SOUND)

    def due(self, controlling: bool, now: float) -> bool:
        """Whether a check is due now; it counts as sent."""
        if self.state is Liveliness.DEAD or now < self._probe_at(controlling):
            return False
        if self._asked_at is None:
            self._asked_at = now
        self._probed_at = now
        return True

    def judge(self, now: float) -> Liveliness | None:
        """The new state when it has changed for the worse, else None."""
        # Sums as in `next_deadline`, never differences: a deadline must find its verdict due.
        if now >= self._heard_at + DEAD_TIMEOUT:
            sign = Sign.LONG_QUIET
        elif now >= self._heard_at + SILENT_TIMEOUT:
            sign = Sign.QUIET
        elif self._asked_at is not None and now >= self._asked_at + SUSPECT_TIMEOUT:
            sign = Sign.UNANSWERED
        else:
            return None
        return self.state if self._on(sign) else None

    def _on(self, sign: Sign) -> bool:
        """Take the transition that the table has for it, if any; whether it had one."""
        after = LIVELINESS[self.state].get(sign)
        self.state = after or self.state
        return after is not None

    def next_deadline(self, controlling: bool) -> float:
        """When `due` or `judge` has something to say."""
        deadline = self._probe_at(controlling)
        if self.state is Liveliness.SILENT:
            return min(deadline, self._heard_at + DEAD_TIMEOUT)
        if self.state is Liveliness.ALIVE and self._asked_at is not None:
            deadline = min(deadline, self._asked_at + SUSPECT_TIMEOUT)
        return min(deadline, self._heard_at + SILENT_TIMEOUT)

    def forgive(self, lateness: float, now: float) -> None:
        """Our own process stood still for `lateness` seconds: those were not the peer's silence.

        Without this, a laptop that wakes up would find all its peers dead before it has asked one.
        """
        self._heard_at = min(self._heard_at + lateness, now)
        self._probed_at = min(self._probed_at + lateness, now)
        if self._asked_at is not None:
            self._asked_at = min(self._asked_at + lateness, now)

    def _probe_at(self, controlling: bool) -> float:
        if self.state is Liveliness.SILENT:
            return self._probed_at + SILENT_PROBE_INTERVAL
        if self._asked_at is not None:
            return self._probed_at + PROBE_INTERVAL
        return self._heard_at + (IDLE_INTERVAL if controlling else IDLE_INTERVAL_CONTROLLED)
