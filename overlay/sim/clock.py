"""Virtual time: a clock of microseconds, and what is due on it in the order of its instants.

A discrete-event simulation: time passes from one due call to the next, and stands still meanwhile.
Of two calls that are due at the same microsecond the one scheduled first comes first, so that a
world depends on its seed alone.
"""

import gc
import heapq
from collections.abc import Callable
from typing import Any

EPOCH = 1_800_000_000
"""Unix seconds at which every world begins."""
MICROSECOND = 1_000_000
"""Of them in a second."""

Entry = tuple[int, int, Callable[[Any, Any], None], Any, Any]
"""When, a count that breaks ties, and what is called with which two arguments."""


class Clock:
    """The time of one world, and what has yet to happen in it."""

    def __init__(self) -> None:
        self.now_us = 0
        """Virtual microseconds since the beginning."""
        self._queue: list[Entry] = []
        self._count = 0

    @property
    def now(self) -> float:
        """Virtual seconds since the beginning."""
        return self.now_us / MICROSECOND

    def schedule(self, when_us: int, call: Callable[[Any, Any], None], one: Any, two: Any) -> None:
        """Call something with two arguments at this microsecond, without a closure.

        At once if that is past.
        """
        self._count = count = self._count + 1
        heapq.heappush(self._queue, (when_us, count, call, one, two))

    def schedule_in(
        self, delay: float, call: Callable[[Any, Any], None], one: Any, two: Any = None
    ) -> None:
        """The same after `delay` virtual seconds."""
        self.schedule(self.now_us + round(delay * MICROSECOND), call, one, two)

    def at_us(self, when_us: int, action: Callable[[], Any]) -> None:
        """Do something at this microsecond."""
        self.schedule(when_us, _call, action, None)

    def run_to(self, end_us: int) -> None:
        """Let time pass until then, and make all calls that are due by then."""
        queue, pop = self._queue, heapq.heappop
        collects = gc.isenabled()
        gc.disable()  # a world makes no cycles, and has millions of objects
        try:
            while queue and queue[0][0] <= end_us:
                when, _, call, one, two = pop(queue)
                if when > self.now_us:
                    self.now_us = when
                call(one, two)
        finally:
            if collects:
                gc.enable()
        self.now_us = max(self.now_us, end_us)

    def step(self, end_us: int) -> bool:
        """Make the next call if it is due by then; whether there was one."""
        if not self._queue or self._queue[0][0] > end_us:
            return False
        when, _, call, one, two = heapq.heappop(self._queue)
        if when > self.now_us:
            self.now_us = when
        call(one, two)
        return True


def _call(action: Callable[[], Any], _: None) -> None:
    action()
