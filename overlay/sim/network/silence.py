"""When the checks of a link would notice that nobody answers, and that somebody does again.

An end holds the other for suspect 3.5 s after its last check that was answered (as the controlling
side does; the controlled one a second later), for silent after 6 s and for lost after 60 s. Where
in the two seconds between checks the silence falls is drawn for each end.
"""

from collections.abc import Callable
from random import Random

from overlay.core.events import LinkAlive, LinkSilent, LinkSuspect
from overlay.core.types import EndReason
from overlay.sim.clock import MICROSECOND
from overlay.sim.network.ends import LinkEnd
from overlay.sim.node import Environment

SUSPECT_AFTER, SILENT_AFTER, LOST_AFTER = 3.5, 6.0, 60.0
CHECK_INTERVAL = 2.0
"""Seconds between two checks of an idle link, and of a silent one."""

Notice = tuple[int, type[LinkSuspect | LinkSilent] | None]
"""The epoch of the silence that is noticed, and as what; None: as the end of the link."""


class Silence:
    """Watches every end of every link for whether the other answers: both ways have to work."""

    def __init__(
        self,
        environment: Environment,
        lose: Callable[[LinkEnd, EndReason], None],
        release: Callable[[LinkEnd], None],
    ) -> None:
        """`lose` ends a link as an end sees it; `release` is told that its path is back."""
        self._clock, self._rng = environment.clock, environment.rng
        self._feed, self._lose, self._release = environment.feed, lose, release

    def begin(self, end: LinkEnd) -> None:
        """A link has opened."""

    def look(self, end: LinkEnd, *, anew: bool = False, within: float = 0.0) -> None:
        """See whether the other end still answers this one; `anew`: its node has just thawed.

        `within`: seconds until the next check, at most, that finds the path to be back.
        """
        if end.gone or end.node.frozen:
            return
        answers = _answers(end)
        if answers == end.answered and not anew:
            return
        end.answered = answers
        end.epoch += 1
        if answers:
            wait = self._rng.random() * within
            self._clock.schedule_in(end.latency + wait, self._revive, end, end.epoch)
            return
        phase = self._rng.random() * CHECK_INTERVAL
        self._clock.schedule_in(SUSPECT_AFTER - phase, self._notice, end, (end.epoch, LinkSuspect))
        self._clock.schedule_in(SILENT_AFTER - phase, self._notice, end, (end.epoch, LinkSilent))
        self._clock.schedule_in(LOST_AFTER - phase, self._notice, end, (end.epoch, None))

    def _notice(self, end: LinkEnd, notice: Notice) -> None:
        epoch, fact = notice
        if end.gone or end.epoch != epoch:
            return
        if fact is None:
            self._lose(end, EndReason.BROKEN)
            return
        end.told = True
        self._feed(end.node, fact(end.link))

    def _revive(self, end: LinkEnd, epoch: int) -> None:
        if end.gone or end.epoch != epoch:
            return
        if end.told:
            end.told = False
            self._feed(end.node, LinkAlive(end.link))
        self._release(end)


class Checks(Silence):
    """The same with every check simulated, to compare `Silence` with."""

    def __init__(
        self,
        environment: Environment,
        lose: Callable[[LinkEnd, EndReason], None],
        release: Callable[[LinkEnd], None],
    ) -> None:
        """See `Silence`."""
        super().__init__(environment, lose, release)
        self._rng = Random(f"checks {environment.seed}")
        self._heard: dict[LinkEnd, int] = {}
        """Microsecond of the last check that was answered."""

    def begin(self, end: LinkEnd) -> None:
        """A link has opened: the first check comes within the interval."""
        self._heard[end] = self._clock.now_us
        self._clock.schedule_in(self._rng.random() * CHECK_INTERVAL, self._check, end)

    def look(self, end: LinkEnd, *, anew: bool = False, within: float = 0.0) -> None:
        """The next check will notice."""

    def _check(self, end: LinkEnd, _: object) -> None:
        if end.gone:
            self._heard.pop(end, None)
            return
        self._clock.schedule_in(CHECK_INTERVAL, self._check, end)
        if end.node.frozen:
            return
        if _answers(end):
            self._heard[end] = self._clock.now_us
            if not end.answered or end.held:
                end.answered = True
                end.epoch += 1
                self._clock.schedule_in(end.latency, self._revive, end, end.epoch)
        elif end.answered:
            end.answered = False
            end.epoch += 1
            since = (self._clock.now_us - self._heard[end]) / MICROSECOND
            self._clock.schedule_in(
                SUSPECT_AFTER - since, self._notice, end, (end.epoch, LinkSuspect)
            )
            self._clock.schedule_in(
                SILENT_AFTER - since, self._notice, end, (end.epoch, LinkSilent)
            )
            self._clock.schedule_in(LOST_AFTER - since, self._notice, end, (end.epoch, None))


def _answers(end: LinkEnd) -> bool:
    """Whether this end's questions reach the other, and its answers this end."""
    other = end.other
    if other.gone or not other.node.alive or other.node.frozen:
        return False
    return end.reaches() and other.reaches()
