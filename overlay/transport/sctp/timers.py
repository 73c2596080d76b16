"""SCTP's timers: when to send again (RFC 9260 §6.3), and when to acknowledge at the latest (§6.2).

They are started and stopped with every packet, so that both mostly just move a number.
"""

from collections.abc import Callable
from typing import Protocol

from aiortc.rtcsctptransport import SCTP_RTO_ALPHA, SCTP_RTO_BETA

RTO_INITIAL = 1.0
"""Seconds. RFC 9260 §16."""
RTO_MIN = 0.4
"""Seconds. Deviation: RFC 9260 §16 says 1; twice the longest delay of a SACK is enough (guess)."""
RTO_MAX = 2.0
"""Seconds. Deviation: RFC 9260 §16 says 60; a path that comes back is used at once (guess)."""
RTO_MAX_UNMEASURED = 4.0
"""The same before anything has been measured (guess): what is sent again measures nothing (RFC 9260
§6.3.1 C5), and so on a path of two seconds nothing ever would."""
SACK_DELAY = 0.02
"""Seconds that a nearly full packet waits for its SACK: its sender may need the room (measured)."""
SACK_DELAY_SMALL = 0.2
"""Seconds that a smaller one waits, as RFC 9260 §6.2 allows (measured): a node that forwards small
messages to nine others spent a third of its time on their SACKs when all had 0.02."""


def smoothed(
    srtt: float | None, rttvar: float | None, measured: float
) -> tuple[float, float, float]:
    """SRTT, RTTVAR and RTO in seconds after one more measurement (RFC 9260 §6.3.1)."""
    if srtt is None or rttvar is None:
        srtt, rttvar = measured, measured / 2
    else:
        rttvar += SCTP_RTO_BETA * (abs(srtt - measured) - rttvar)
        srtt += SCTP_RTO_ALPHA * (measured - srtt)
    return srtt, rttvar, timeout(srtt, rttvar)


def timeout(srtt: float, rttvar: float) -> float:
    """The RTO in seconds.

    The longest delay of a SACK is added, as in QUIC (RFC 9002 §6.2.1): it is not measured.
    """
    return max(RTO_MIN, min(srtt + 4 * rttvar + SACK_DELAY_SMALL, longest(srtt)))


def longest(srtt: float | None) -> float:
    """The longest RTO in seconds: on a slow path it is well above the round trip all the same."""
    return RTO_MAX_UNMEASURED if srtt is None else max(RTO_MAX, 1.5 * srtt + SACK_DELAY_SMALL)


class Cancellable(Protocol):
    """A pending timer."""

    def cancel(self) -> None: ...


class Clock(Protocol):
    """What aiortc uses of an event loop; `now` is in seconds."""

    def now(self) -> float: ...

    def call_later(self, delay: float, ring: Callable[[], None], /) -> Cancellable: ...


class Timer:
    """Calls `ring` when it has run out. Its alarm outlives a stop: the next start uses it again."""

    __slots__ = ("_alarm", "_clock", "_due_at", "_ring", "_rings_at")

    def __init__(self, clock: Clock, ring: Callable[[], None]) -> None:
        self._clock = clock
        self._ring: Callable[[], None] | None = ring
        self._due_at: float | None = None
        self._rings_at = 0.0
        self._alarm: Cancellable | None = None

    def start(self, delay: float) -> None:
        """Run out `delay` seconds from now, and not when it would have before."""
        self._due_at = self._clock.now() + delay
        if self._alarm is None:
            self._arm(delay)
        elif self._due_at < self._rings_at:
            self._alarm.cancel()
            self._arm(delay)

    def ensure(self, delay: float) -> None:
        """Start unless it runs."""
        if self._due_at is None:
            self.start(delay)

    def hasten(self, delay: float) -> None:
        """Run out `delay` seconds from now at the latest."""
        if self._due_at is None or self._clock.now() + delay < self._due_at:
            self.start(delay)

    def stop(self) -> None:
        """Do not run out."""
        self._due_at = None

    def close(self) -> None:
        """Let go of everything: no cycle keeps the association."""
        self._due_at = self._ring = None
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    def _arm(self, delay: float) -> None:
        if self._ring is not None:
            self._rings_at = self._clock.now() + delay
            self._alarm = self._clock.call_later(delay, self._on_alarm)

    def _on_alarm(self) -> None:
        self._alarm = None
        if self._due_at is None or self._ring is None:
            return
        left = self._due_at - self._clock.now()
        if left > 0:
            self._arm(left)
        else:
            self._due_at = None
            self._ring()
