"""When the checks of a link would notice that nothing comes in, and that something does again.

A link is suspect 3.5 s after the last check that was answered, silent after 6 s and lost after
60 s; where in the two seconds between checks the silence falls is drawn for each end.
"""

from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING, Any

from overlay.core.events import LinkAlive, LinkSilent, LinkSuspect

if TYPE_CHECKING:
    from overlay.sim.network.links import End
    from overlay.sim.world import World

SUSPECT_AFTER, SILENT_AFTER, LOST_AFTER = 3.5, 6.0, 60.0
CHECK_INTERVAL = 2.0
"""Seconds between two checks of an idle link, and of a silent one."""
MICROSECOND = 1_000_000

Notice = tuple[int, type[LinkSuspect | LinkSilent] | None]
"""The epoch of the silence that is noticed, and as what; None: as the end of the link."""


class Silence:
    """Watches every end of every link for whether it hears the other."""

    def __init__(self, world: "World") -> None:
        self._world = world

    def begin(self, end: "End") -> None:
        """A link has opened."""

    def look(self, end: "End", *, anew: bool = False, within: float = 0.0) -> None:
        """Something has changed for this end; `anew`: its node has just thawed.

        `within`: seconds until the next check, at most, that finds the path to be back.
        """
        if end.gone or end.node.frozen:
            return
        hears = _hears(end)
        if hears == end.hears and not anew:
            return
        end.hears = hears
        end.epoch += 1
        if hears:
            wait = self._world.rng.random() * within
            self._schedule(end.latency + wait, self._revive, end, end.epoch)
            return
        phase = self._world.rng.random() * CHECK_INTERVAL
        self._schedule(SUSPECT_AFTER - phase, self._notice, end, (end.epoch, LinkSuspect))
        self._schedule(SILENT_AFTER - phase, self._notice, end, (end.epoch, LinkSilent))
        self._schedule(LOST_AFTER - phase, self._notice, end, (end.epoch, None))

    def _notice(self, end: "End", notice: Notice) -> None:
        epoch, fact = notice
        if end.gone or end.epoch != epoch:
            return
        if fact is None:
            self._world.network.lose(end, "broken")
            return
        end.told = True
        self._world.feed(end.node, fact(end.link))

    def _revive(self, end: "End", epoch: int) -> None:
        if end.gone or end.epoch != epoch:
            return
        if end.told:
            end.told = False
            self._world.feed(end.node, LinkAlive(end.link))
        self._world.network.release(end)

    def _schedule(
        self, delay: float, call: Callable[["End", Any], None], end: "End", what: int | Notice
    ) -> None:
        when = self._world.now_us + round(delay * MICROSECOND)
        self._world.schedule(when, call, end, what)


class Checks(Silence):
    """The same with every check simulated: what `Silence` leaves out, to be compared with it."""

    def __init__(self, world: "World") -> None:
        super().__init__(world)
        self._rng = Random(f"checks {world.seed}")
        self._heard: dict[End, int] = {}
        """Microsecond of the last check that was answered."""

    def begin(self, end: "End") -> None:
        """A link has opened: the first check comes within the interval."""
        self._heard[end] = self._world.now_us
        self._schedule(self._rng.random() * CHECK_INTERVAL, self._check, end, 0)

    def look(self, end: "End", *, anew: bool = False, within: float = 0.0) -> None:
        """The next check will notice."""

    def _check(self, end: "End", _: object) -> None:
        if end.gone:
            self._heard.pop(end, None)
            return
        self._schedule(CHECK_INTERVAL, self._check, end, 0)
        if end.node.frozen:
            return
        if _hears(end):
            self._heard[end] = self._world.now_us
            if not end.hears or end.held:
                end.hears = True
                end.epoch += 1
                self._schedule(end.latency, self._revive, end, end.epoch)
        elif end.hears:
            end.hears = False
            end.epoch += 1
            since = (self._world.now_us - self._heard[end]) / MICROSECOND
            self._schedule(SUSPECT_AFTER - since, self._notice, end, (end.epoch, LinkSuspect))
            self._schedule(SILENT_AFTER - since, self._notice, end, (end.epoch, LinkSilent))
            self._schedule(LOST_AFTER - since, self._notice, end, (end.epoch, None))


def _hears(end: "End") -> bool:
    other = end.other
    if other.gone or not other.node.alive or other.node.frozen:
        return False
    return end.node.group == other.node.group
