"""Is the peer still there, and does it still consent to what we send it (RFC 7675)?

Both sides ask for themselves: by checks, or by SCTP HEARTBEAT who cannot check (ICE-lite). Only an
answer to such a question counts, or an encrypted packet that acknowledges something of ours. What
the peer asks or sends shows that we hear it, not that it hears us.

A side of an idle path asks every two or three seconds. A question unanswered for 1.5 s makes the
peer *suspect*, six seconds without an answer make it *silent*, and a minute makes it *dead*. Where
an answer takes longer than a third of a second, so does suspicion: three questions have had theirs.

A path in use can be judged sooner: when data has been under way for longer than an acknowledgement
takes, whoever knows that says so, and two questions at once, each unanswered for as long as an
answer takes, make the peer suspect. That is done where another path is at hand: over relays.

Deviation: RFC 7675 §5.1 checks every 5 s and ends consent after 30 s. A silent path is asked for
a minute: the association above it waits for a peer that has changed its network or slept.
Deviation: for RFC 7675 §5.1 only the answer to a check renews consent. An acknowledgement says as
much, since nobody else can encrypt it, and a path in use needs no checks.
"""

from overlay.core.ice.states import LIVELINESS, Liveliness, Sign
from overlay.core.timers import NEVER

IDLE_INTERVAL = 2.0
"""Seconds without an answer after which the controlling side asks (guess)."""
IDLE_INTERVAL_CONTROLLED = 3.0
"""And the controlled one: an idle link costs five questions in six seconds, where three would do
if one side asked for both; six that are lost in a row silence it (guess)."""
SUSPECT_TIMEOUT = 1.5
"""Seconds that a question may stay unanswered (guess), on a path whose round trip is short."""
PROBE_INTERVAL = 0.5
"""Seconds between questions while one is unanswered: one lost packet accuses nobody (guess)."""
SILENT_TIMEOUT = 6.0
"""Seconds from the last answer (guess)."""
SLACK_MAX = 3.0
"""Seconds by which suspicion and silence come later at most, where answers take long (guess)."""
SILENT_PROBE_INTERVAL = 2.0
"""Seconds between questions on a silent path (guess)."""
ASK_BACK_INTERVAL = 0.1
"""Seconds between questions to a peer in doubt that asks us: its path may just be back (guess)."""
HASTY_PATIENCE = 0.35
"""Seconds at least that each of two questions has, when data is not acknowledged: with the half
second before them a relay that has died is noticed after 1.2 s (guess)."""
DEAD_TIMEOUT = 60.0
"""Seconds from the last answer (guess)."""
LATENESS = 1.0
"""Seconds: a timeout later than this says that our process slept, not the peer (guess)."""


def slack_for(round_trip: float) -> float:
    """Of a path with this round trip in seconds: none below a third of a second."""
    return min(SLACK_MAX, max(0.0, 2 * PROBE_INTERVAL + 1.5 * round_trip - SUSPECT_TIMEOUT))


class Liveness:
    """The clock of one path: when to ask, and what to think of no answer."""

    def __init__(self, now: float) -> None:
        self.state = Liveliness.ALIVE
        self.slack = 0.0
        """Seconds more than the ordinary that the peer has before it is suspect or silent."""
        self._answered_at = now
        self._asked_at: float | None = None  # when the first question since then went out
        self._probed_at = now  # when the last question went out
        # Data is not acknowledged: since when it is asked hastily, and what each question has.
        self._hasty_at: float | None = None
        self._patience = HASTY_PATIENCE

    def answered(self, now: float) -> bool:
        """The peer has heard us, and we it. True when it was suspect or silent before."""
        self._answered_at = now
        self._asked_at = self._hasty_at = None
        return self._on(Sign.ANSWER)

    def hasten(self, patience: float, now: float) -> bool:
        """Data is not acknowledged: whether to ask at once; it counts as sent.

        `patience`: seconds in which an answer comes, if one does.
        """
        if self.state is not Liveliness.ALIVE or self._hasty_at is not None:
            return False
        self._hasty_at = now
        self._patience = max(HASTY_PATIENCE, patience)
        self._asked(now)
        return True

    def due(self, controlling: bool, now: float) -> bool:
        """Whether a question is due now; it counts as sent."""
        if self.state is Liveliness.DEAD or now < self._probe_at(controlling):
            return False
        self._asked(now)
        return True

    def asks_back(self, now: float) -> bool:
        """A peer in doubt has asked us: whether to ask it at once; that counts as sent."""
        doubtful = self.state in (Liveliness.SUSPECT, Liveliness.SILENT)
        if not doubtful or now < self._probed_at + ASK_BACK_INTERVAL:
            return False
        self._asked(now)
        return True

    def _asked(self, now: float) -> None:
        if self._asked_at is None:
            self._asked_at = now
        self._probed_at = now

    def judge(self, now: float) -> Liveliness | None:
        """The new state when it has changed for the worse, else None."""
        # Sums as in `next_deadline`, never differences: a deadline must find its verdict due.
        if now >= self._answered_at + DEAD_TIMEOUT:
            sign = Sign.LONG_QUIET
        elif now >= self._silent_at():
            sign = Sign.QUIET
        elif now >= self._suspect_at():
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
            return min(deadline, self._answered_at + DEAD_TIMEOUT)
        if self.state is Liveliness.ALIVE:
            deadline = min(deadline, self._suspect_at())
        return min(deadline, self._silent_at())

    def forgive(self, lateness: float, now: float) -> None:
        """Our own process stood still for `lateness` seconds: those were not the peer's silence.

        Without this, a laptop that wakes up would find all its peers dead before it has asked one.
        """
        self._answered_at = min(self._answered_at + lateness, now)
        self._probed_at = min(self._probed_at + lateness, now)
        if self._asked_at is not None:
            self._asked_at = min(self._asked_at + lateness, now)
        if self._hasty_at is not None:
            self._hasty_at = min(self._hasty_at + lateness, now)

    def _suspect_at(self) -> float:
        """When no answer makes the peer suspect."""
        patience = SUSPECT_TIMEOUT + self.slack
        ordinary = NEVER if self._asked_at is None else self._asked_at + patience
        return ordinary if self._hasty_at is None else self._hasty_at + 2 * self._patience

    def _silent_at(self) -> float:
        """When no answer makes the peer silent."""
        return self._answered_at + (SILENT_TIMEOUT + self.slack)

    def _probe_at(self, controlling: bool) -> float:
        if self.state is Liveliness.SILENT:
            return self._probed_at + SILENT_PROBE_INTERVAL
        if self._hasty_at is not None and self.state is Liveliness.ALIVE:
            return self._probed_at + self._patience
        if self._asked_at is not None:
            return self._probed_at + PROBE_INTERVAL
        return self._answered_at + (IDLE_INTERVAL if controlling else IDLE_INTERVAL_CONTROLLED)
