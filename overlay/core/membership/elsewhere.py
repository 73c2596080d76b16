"""Whether another node lives under our identity: somebody has copied our data directory.

Of two processes with one identity, the mesh knows the one with the newer boot and refuses the
other. Both are told: the older by the Goodbye of whoever refuses it, the newer by the record that
the older showed there. (docs/decisions/0034-one-identity-two-nodes.md)
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import assert_never

from overlay.core.context import Context
from overlay.core.membership.records import RecordBook
from overlay.core.timers import Timers

ELSEWHERE_FOR = 300.0
"""Seconds (guess) after its last sign of life for which we believe that the other one lives: it
comes back every minute or so, because its calls go on."""
RECORD_TICK = 1.0
"""Seconds: records say when they were signed in whole ones. One that is signed so much after the
other node has displaced us is later than its start; one that is signed at once may not be."""
ELSEWHERE = "identity_elsewhere"
"""The report on it, when it begins and when it is over."""
TEXT = (
    "another node runs with this node's identity, on a copy of its data directory: "
    "stop one of the two, and give it a new --data-dir"
)


class Due(StrEnum):
    """What falls due."""

    OVER = "over"  # nothing more has been heard of the other one


@dataclass(slots=True)
class Elsewhere:
    """What we know of another node under our identity."""

    context: Context
    book: RecordBook
    _timers: Timers[Due] = field(init=False)
    _started_at: float | None = None

    def __post_init__(self) -> None:
        self._timers = Timers(self.context.agenda)

    def on_clock(self, now: float) -> None:
        """The host has said what time it is; it does so first of all."""
        if self._started_at is None:
            self._started_at = now

    @property
    def is_so(self) -> bool:
        """Whether another node lives under our identity, as far as we know."""
        return Due.OVER in self._timers

    def on_told(self, now: float) -> None:
        """A peer has preferred the other one to us."""
        if not self.is_so:
            self.context.report("warning", ELSEWHERE, text=TEXT)
        self._timers.set(Due.OVER, now + ELSEWHERE_FOR)

    def on_own_record(self, data: bytes, ours: range, now: float) -> None:
        """A record of ours has come; it tells something if we did not sign it in this life.

        `ours`: the sequence numbers of this life. A later one is of a newer boot. An earlier one
        may be of a life before; but none of those has signed anything since we started.
        """
        wall = self.context.wall(now)
        record = self.book.read(data)
        if record is None or record.sequence in ours or self.book.refusal(data, wall) is not None:
            return
        started_at = now if self._started_at is None else self._started_at
        since_start = record.issued_at > int(self.context.wall(started_at))
        if record.sequence >= ours.stop or since_start:
            self.on_told(now)

    def on_time(self, now: float) -> None:
        """Nothing has been heard of it for long: it is over."""
        for timer in self._timers.pop_due(now):
            match timer:
                case Due.OVER:
                    text = "no other node has been seen with this node's identity for 5 minutes"
                    self.context.report("info", ELSEWHERE, text=text)
                case _:
                    assert_never(timer)
