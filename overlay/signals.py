"""What SIGINT, SIGTERM and SIGHUP do to the command `overlay`, from its first line to its last.

A handler that raises is not always heard: Python drops what is raised in the callback of a weak
reference or while an object is destroyed, prints it, and goes on. So a process that has not begun
its work, or is starting a node, is ended by the handler itself (`ending`); a node is told, and says
goodbye (`taken`); files are made whole first (`held`). Other commands are interrupted as Python
does it (`interrupting`), so that their files, workers and terminals are put in order; where that
is dropped, or takes too long, they end anyhow (docs/decisions/0044-signals.md).

This is imported before anything else, and imports only what the interpreter has loaded already:
`_signal` is what `signal` is made of.
"""

import _signal as signals  # type: ignore[import-not-found, unused-ignore]
import _thread
import os
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

PATIENCE = 1.5
"""Seconds that an interrupted command has to put things in order (guess)."""


class _Process:
    """What has come, and who takes what comes."""

    id = 0
    number = 0
    """The first signal that came, or 0."""
    waiting = 0
    """The last one that nobody has acted upon yet, or 0."""
    settled: "int | None" = None
    """The exit status, where no signal decides it any more."""
    taker: "Callable[[int], None]"


_us = _Process()


def install() -> None:
    """Take the three from now on. A SIGHUP that is ignored stays so: nohup(1) asked for it."""
    _us.id, _us.taker = os.getpid(), _end
    for number in (signals.SIGINT, signals.SIGTERM):
        signals.signal(number, _on_signal)
    if signals.getsignal(signals.SIGHUP) != signals.SIG_IGN:
        signals.signal(signals.SIGHUP, _on_signal)
    sys.unraisablehook = _on_dropped


def came() -> bool:
    """Whether there was a signal."""
    return _us.number != 0


def status() -> int:
    """The exit status of this process if a signal ends it now: 130 or 143, unless settled."""
    if _us.settled is not None:
        return _us.settled
    ended = _us.number in (signals.SIGTERM, signals.SIGHUP)
    return 128 + int(signals.SIGTERM if ended else signals.SIGINT)


def settle(code: int) -> None:
    """From now on a signal is a good way to end, with this status."""
    _us.settled = code


def code_of(result: int) -> int:
    """The exit status of a command that has ended with `result`; Ctrl-C may be how it ends."""
    return result or (status() if _us.number not in (0, signals.SIGINT) else 0)


def end_within(seconds: float, put_in_order: "Callable[[], object] | None" = None) -> None:
    """End after so many seconds, however stuck we may be; `put_in_order` runs just before.

    A handler may call it at any moment, so it takes no lock.
    """

    def end() -> None:
        time.sleep(seconds)
        try:
            if put_in_order is not None:
                put_in_order()
        finally:
            os._exit(status())

    _thread.start_new_thread(end, ())


# --- who takes a signal --------------------------------------------------------------------------


class _Taken:
    """For as long as it is entered, one takes the signals."""

    def __init__(self, taker: "Callable[[int], None]") -> None:
        self._taker = taker

    def __enter__(self) -> None:
        self._before, _us.taker = _us.taker, self._taker

    def __exit__(self, *_: object) -> None:
        _us.taker = self._before
        waiting, _us.waiting = _us.waiting, 0
        if waiting:
            _us.taker(waiting)


def taken(taker: "Callable[[int], None]") -> _Taken:
    """Within it, `taker` is called with the number of each signal.

    It runs between any two instructions of the main thread: it must not wait, and not raise.
    """
    return _Taken(taker)


def ending() -> _Taken:
    """Within it, a signal ends the process there and then."""
    return _Taken(_end)


def held() -> _Taken:
    """Within it, a signal waits for the end of the block; a second one does not."""
    return _Taken(_hold)


def interrupting(patience: float = PATIENCE) -> _Taken:
    """Within it, a signal raises KeyboardInterrupt; the process ends after `patience` seconds."""

    def interrupt(_: int) -> None:
        end_within(patience)
        raise KeyboardInterrupt

    return _Taken(interrupt)


def _on_signal(number: int, _: object) -> None:
    if os.getpid() != _us.id:  # a copy of us (fork), which has nothing to put in order
        os._exit(128 + number)
    _us.number = _us.number or number
    _us.taker(number)


def _end(_: int) -> None:
    os._exit(status())


def _hold(number: int) -> None:
    if _us.waiting:
        _end(number)
    _us.waiting = number


_us.taker = _end


def _on_dropped(dropped: "Any") -> None:
    """An exception was raised where nobody can catch it: an interrupt ends the process anyhow."""
    if issubclass(dropped.exc_type, KeyboardInterrupt):
        _end(0)
    sys.__unraisablehook__(dropped)
