"""Named deadlines, earliest first: the whole notion of time that the core has."""

import heapq
from collections.abc import Hashable, Iterator
from typing import Generic, Protocol, TypeVar

Name = TypeVar("Name", bound=Hashable)
NEVER = float("inf")


class Timed(Protocol):
    """Whatever has deadlines."""

    def next_deadline(self) -> float | None:
        """The first of them, or None."""
        ...


class Agenda:
    """What several timers have in common: when the first of them falls due.

    `earliest` is never too late; after a `stop` it may be too early, until `settle`.
    """

    __slots__ = ("_timers", "earliest")

    def __init__(self) -> None:
        self.earliest = NEVER
        self._timers: list[Timed] = []

    def enlist(self, timers: "Timed") -> None:
        """From now on these timers count; they `note` what falls due."""
        self._timers.append(timers)

    def note(self, at: float | None) -> None:
        """Something falls due then."""
        if at is not None and at < self.earliest:
            self.earliest = at

    def settle(self) -> None:
        """Look at all timers again."""
        deadlines = [timers.next_deadline() for timers in self._timers]
        self.earliest = min((each for each in deadlines if each is not None), default=NEVER)


class Timers(Generic[Name]):
    """At most one deadline a name; setting again moves it. An agenda hears of each."""

    __slots__ = ("_agenda", "_count", "_deadlines", "_heap")

    def __init__(self, agenda: Agenda | None = None) -> None:
        self._agenda = agenda or Agenda()
        self._agenda.enlist(self)
        self._deadlines: dict[Name, float] = {}
        self._heap: list[tuple[float, int, Name]] = []
        self._count = 0

    def __len__(self) -> int:
        return len(self._deadlines)

    def __contains__(self, name: Name) -> bool:
        return name in self._deadlines

    def set(self, name: Name, at: float) -> None:
        """Let `name` fall due at `at` (and not when it was due before)."""
        self._deadlines[name] = at
        self._agenda.note(at)
        self._count += 1
        heapq.heappush(self._heap, (at, self._count, name))
        if len(self._heap) > 2 * len(self._deadlines) + 64:
            self._compact()

    def stop(self, name: Name) -> None:
        """Forget `name`, set or not."""
        self._deadlines.pop(name, None)

    def next_deadline(self) -> float | None:
        """When `pop_due` next has something, or None."""
        self._drop_stale()
        return self._heap[0][0] if self._heap else None

    def pop_due(self, now: float) -> Iterator[Name]:
        """Every name due at `now`, earliest first; ties in the order in which they were set."""
        while True:
            self._drop_stale()
            if not self._heap or self._heap[0][0] > now:
                return
            _, _, name = heapq.heappop(self._heap)
            del self._deadlines[name]
            yield name

    def _drop_stale(self) -> None:
        heap = self._heap
        while heap and self._deadlines.get(heap[0][2]) != heap[0][0]:
            heapq.heappop(heap)

    def _compact(self) -> None:
        self._heap = [entry for entry in self._heap if self._deadlines.get(entry[2]) == entry[0]]
        heapq.heapify(self._heap)
