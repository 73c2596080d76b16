"""Deadlines with callbacks: all timers of one transport in one heap, run by one task."""

import heapq
from collections.abc import Callable


class Alarm:
    """One pending call; `cancel` makes it never happen."""

    __slots__ = ("at", "order", "ring")

    def __init__(self, at: float, order: int, ring: Callable[[], None] | None) -> None:
        self.at = at
        self.order = order
        self.ring = ring

    def __lt__(self, other: "Alarm") -> bool:
        return (self.at, self.order) < (other.at, other.order)

    def cancel(self) -> None:
        """Forget the call; harmless when it has been made already."""
        self.ring = None


class Alarms:
    """A heap of alarms, ties in the order in which they were set. Time is `clock`'s, in seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._heap: list[Alarm] = []
        self._count = 0

    def call_later(self, delay: float, ring: Callable[[], None]) -> Alarm:
        """Call `ring` once, `delay` seconds from now."""
        self._count += 1
        alarm = Alarm(self._clock() + delay, self._count, ring)
        heapq.heappush(self._heap, alarm)
        return alarm

    def next_deadline(self) -> float | None:
        """When `run_due` next has something to do, or None."""
        heap = self._heap
        while heap and heap[0].ring is None:
            heapq.heappop(heap)
        return heap[0].at if heap else None

    def run_due(self, now: float) -> None:
        """Make every call that is due at `now`; what they set for now waits for the next run."""
        due: list[Alarm] = []
        while self._heap and self._heap[0].at <= now:
            due.append(heapq.heappop(self._heap))
        for alarm in due:
            if alarm.ring is not None:  # an earlier one may have cancelled it
                alarm.ring()
