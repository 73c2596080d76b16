"""Named deadlines, earliest first: the whole notion of time that the core has."""

import heapq
from collections.abc import Hashable
from typing import Any, Generic, TypeVar

Name = TypeVar("Name", bound=Hashable)
NEVER = float("inf")


class Agenda:
    """One heap for all timers of a node: when the first of them falls due.

    `earliest` is never too late; after a `stop` it may be too early, until `settle`.
    """

    __slots__ = ("_count", "_heap", "_live", "earliest", "turn")

    def __init__(self) -> None:
        self.earliest = NEVER
        self.turn: float | None = None
        """The last instant at which all timers have had their turn, once."""
        self._heap: list[tuple[float, int, Timers[Any], Any]] = []
        self._count = 0
        self._live = 0

    def settle(self) -> float:
        """When something falls due, exactly."""
        heap = self._heap
        while heap and heap[0][2].deadlines.get(heap[0][3]) != heap[0][0]:
            heapq.heappop(heap)
        self.earliest = heap[0][0] if heap else NEVER
        return self.earliest

    def begin_turn(self, now: float) -> None:
        """Each of its timers has its turn now, once: hand over what is due, once for all of them.

        What they set meanwhile, for this instant or an earlier one, has the next turn: handed to
        one whose turn is over, it would be forgotten until something else falls due.
        """
        self.turn = now
        self.advance(now)

    def advance(self, now: float) -> None:
        """Hand what is due to the timers that it belongs to."""
        heap = self._heap
        while self.settle() <= now:
            at, _, timers, name = heapq.heappop(heap)
            timers.due.append((at, name))

    def add(self, at: float, timers: "Timers[Any]", name: Any, *, new: bool) -> None:
        """A deadline has been set, of a `new` name or of one that had another."""
        self._count += 1
        self._live += new
        heapq.heappush(self._heap, (at, self._count, timers, name))
        if at < self.earliest:
            self.earliest = at
        if len(self._heap) > 2 * self._live + 16:
            self._heap = [each for each in self._heap if each[2].deadlines.get(each[3]) == each[0]]
            heapq.heapify(self._heap)

    def drop(self) -> None:
        """A name has no deadline any more."""
        self._live -= 1


class Timers(Generic[Name]):
    """At most one deadline a name; setting again moves it. Several may share an agenda."""

    __slots__ = ("_agenda", "deadlines", "due")

    def __init__(self, agenda: Agenda | None = None) -> None:
        self._agenda = Agenda() if agenda is None else agenda
        self.deadlines: dict[Name, float] = {}
        # What the agenda has handed over; `stop` and `set` may have overtaken it.
        self.due: list[tuple[float, Name]] = []

    def __len__(self) -> int:
        return len(self.deadlines)

    def __contains__(self, name: Name) -> bool:
        return name in self.deadlines

    def set(self, name: Name, at: float) -> None:
        """Let `name` fall due at `at` (and not when it was due before)."""
        before = self.deadlines.get(name)
        self.deadlines[name] = at
        self._agenda.add(at, self, name, new=before is None)

    def stop(self, name: Name) -> None:
        """Forget `name`, set or not."""
        if self.deadlines.pop(name, None) is not None:
            self._agenda.drop()

    def next_deadline(self) -> float | None:
        """When `pop_due` next has something, or None; of an agenda's only timers."""
        earliest = self._agenda.settle()
        return None if earliest == NEVER else earliest

    def pop_due(self, now: float) -> list[Name]:
        """Every name due at `now`, earliest first; ties in the order in which they were set."""
        agenda = self._agenda
        if agenda.earliest <= now and agenda.turn != now:
            agenda.advance(now)
        if not self.due:
            return []
        popped: list[Name] = []
        for at, name in self.due:
            if self.deadlines.get(name) == at:
                del self.deadlines[name]
                agenda.drop()
                popped.append(name)
        self.due = []
        return popped
