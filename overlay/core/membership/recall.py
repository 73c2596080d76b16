"""Recall: who has no links calls the members that it met before, again and again.

A node starts where the network is not up yet, or with a clock that is a month behind (the records
that it kept are then from the future, and refused); it loses all links when its machine moves or
sleeps. So one round of calls follows another, after a rest that grows, for as long as nobody is
linked. A clock that jumps, an address that comes and a process that stood still begin it anew.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import assert_never

from overlay.core.context import Context
from overlay.core.limits import BoundedDict
from overlay.core.link.links import Links, LinkState
from overlay.core.membership.records import RecordBook, Refusal
from overlay.core.timers import Timers
from overlay.core.types import PeerId

MET_MAX = 1024
"""Members met whose records are kept here; of more, whoever was met longest ago is forgotten."""
CALLED_AT_ONCE = 5
"""Members called in one round (guess): as many as HyParView's active view has."""
REST_FIRST, REST_MAX = 6.0, 60.0
"""Seconds (guess) between two rounds: a dial takes 5; twice as many after each round that has been
through all, at most. A minute is what who comes home waits for, and costs next to nothing."""
RECALLING = "recalling"
"""The report on calls, for who wonders why nobody is linked."""


class Due(StrEnum):
    """What falls due."""

    CALL = "call"  # the next round


@dataclass(slots=True)
class Recalling:
    """Whom to call when nobody is linked, and when."""

    context: Context
    links: Links
    book: RecordBook
    _met: BoundedDict[PeerId, bytes] = field(default_factory=lambda: BoundedDict(MET_MAX))
    _called: dict[PeerId, None] = field(default_factory=dict)  # since all have last been called
    _rounds: int = 0  # since it was begun anew
    _passes: int = 0  # how often all have been called in vain
    _future: int = 0  # records that were last refused as from the future
    _timers: Timers[Due] = field(init=False)

    def __post_init__(self) -> None:
        self._timers = Timers(self.context.agenda)

    # --- whom --------------------------------------------------------------------------------

    def remember(self, peer: PeerId, record: bytes) -> None:
        """This member is met, or was in an earlier life."""
        self._met.put(peer, record)

    def unread(self, now: float) -> list[bytes]:
        """The records of those met that the book lacks, and may take now.

        Those from the future stay for the day when the clock is right; what never will hold is
        forgotten.
        """
        wall, found = self.context.wall(now), []
        self._future = 0
        for peer, data in list(self._met.items()):
            if peer in self.book:
                continue
            refusal = self.book.refusal(data, wall)
            if refusal is None:
                found.append(data)
            elif refusal is Refusal.FUTURE:
                self._future += 1
            else:
                self._met.pop(peer)
        return found

    # --- when --------------------------------------------------------------------------------

    def call(self, now: float) -> list[PeerId]:
        """Whom to call in the round that begins now: everybody in turn, who was met last first."""
        met = dict.fromkeys([*reversed(self._met), *self._heard_of()])
        known = [peer for peer in met if peer in self.book]
        fresh = [peer for peer in known if peer not in self._called]
        if known and not fresh:
            self._called.clear()
            self._passes += 1
            fresh = known
        chosen = fresh[:CALLED_AT_ONCE]
        self._called.update(dict.fromkeys(chosen))
        self._rounds += 1
        self._rest(now)
        return chosen

    def _rest(self, now: float) -> None:
        if self._is_needed():
            rest = min(REST_MAX, REST_FIRST * 2.0 ** min(self._passes, 8))
            self._timers.set(Due.CALL, now + rest * self.context.random.uniform(0.75, 1.25))
            if self._rounds & (self._rounds - 1) == 0:  # more and more rarely
                self._report()

    def _is_needed(self) -> bool:
        """Whether nobody is linked, and somebody could be."""
        anybody = bool(self._met or self._heard_of()) and self.context.settings.auto
        return anybody and self._is_alone()

    def _is_alone(self) -> bool:
        return all(link.state is LinkState.SILENT for link in self.links.by_peer.values())

    def on_links(self, now: float) -> None:
        """Links have come, gone or fallen silent: without any, call soon."""
        if not self._is_alone():
            self._rounds = 0
            self._timers.stop(Due.CALL)
        elif Due.CALL not in self._timers:
            self._begin(now + self.context.random.uniform(0.0, 1.0))

    def on_surroundings(self, now: float) -> None:
        """The time or our addresses are other ones, or our process stood still: begin anew."""
        if self._rounds:
            self._begin(now)

    def _begin(self, at: float) -> None:
        if self._is_needed():
            self._rounds = self._passes = 0
            self._called.clear()
            self._timers.set(Due.CALL, at)

    def on_time(self, now: float) -> bool:
        """Whether a round is due."""
        due = False
        for timer in self._timers.pop_due(now):
            match timer:
                case Due.CALL:
                    due = self._is_needed()
                case _:
                    assert_never(timer)
        return due

    # --- what to say -------------------------------------------------------------------------

    def _report(self) -> None:
        self.context.report(
            "warning" if self._passes or self._future else "info", RECALLING,
            round=self._rounds, members=self._members(), future=self._future,
            text=self.text(),
        )  # fmt: skip

    def _members(self) -> int:
        return len({**self._met, **dict.fromkeys(self._heard_of())}) - self._future

    def _heard_of(self) -> list[PeerId]:
        """Members whose records have come by gossip, if those may be dialled."""
        return list(self.book.peers()) if self.context.settings.direct else []

    def text(self) -> str:
        """What is being tried and what would help; empty when somebody is linked."""
        if not self._rounds or not self._is_needed():
            return ""
        members, clock = self._members(), ""
        if self._future:
            clock = (
                f"{self._future} records of members met before are from the future: "
                "is this machine's clock right?"
            )
        if not members:
            return clock
        if self._passes:
            called = (
                f"all {members} members met before are silent at their last addresses: "
                "ask one of them for a new invite"
            )
        else:
            called = (
                f"calling the {members} members met before at their last addresses; "
                "if none answers, ask one of them for a new invite"
            )
        return f"{called} ({clock})" if clock else called
