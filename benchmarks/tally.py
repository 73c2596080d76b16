"""What arrived, how fast, and the longest silence: alone, so that the rival can import it."""

from time import perf_counter


class Tally:
    """Counts deliveries; the same few lines run in our receiver and in the rival's."""

    def __init__(self) -> None:
        self.count = 0
        self.size = 0
        self.gap = 0.0
        self._first = 0.0
        self._last = 0.0

    def delivered(self, size: int) -> None:
        """A message of `size` bytes has reached the application now."""
        now = perf_counter()
        if self.count:
            self.gap = max(self.gap, now - self._last)
        else:
            self._first = now
        self._last = now
        self.count += 1
        self.size += size

    def figures(self) -> dict[str, float]:
        """Count, bytes, messages a second from first to last delivery, longest gap in seconds."""
        span = self._last - self._first
        rate = (self.count - 1) / span if span else 0.0
        return {"count": self.count, "bytes": self.size, "rate": rate, "gap": self.gap}
