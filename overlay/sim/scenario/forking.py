"""Work in a copy of this process: what it does to a world leaves ours as it was."""

import os
import signal
import threading
import time
import traceback
from collections.abc import Callable

from overlay.errors import ConfigError

DONE, FAILED = b"+", b"-"
LOOK_INTERVAL = 0.5
"""Seconds between two looks of a copy at whether its original is still there (guess)."""


def forked(work: Callable[[], bytes]) -> bytes:
    """What `work` returns when it runs in a copy of this process.

    Raises ConfigError where processes cannot be copied, RuntimeError with the copy's traceback.
    """
    if not hasattr(os, "fork"):
        raise ConfigError("branches: this system cannot copy a process: run each share by itself")
    reading, writing = os.pipe()
    original = os.getpid()
    child = os.fork()
    if child == 0:
        os.close(reading)
        threading.Thread(target=_end_with, args=(original,), daemon=True).start()
        _in_the_copy(work, writing)
    os.close(writing)
    try:
        with os.fdopen(reading, "rb") as stream:
            data = stream.read()
    except BaseException:
        os.kill(child, signal.SIGKILL)
        raise
    finally:
        os.waitpid(child, 0)
    if data[:1] != DONE:
        text = data[1:].decode() or "a copy of this process has died without a word"
        raise RuntimeError(text)
    return data[1:]


def _end_with(original: int) -> None:
    """Nobody waits for a copy whose original is gone, not even one that was killed."""
    while os.getppid() == original:
        time.sleep(LOOK_INTERVAL)
    os._exit(1)


def _in_the_copy(work: Callable[[], bytes], writing: int) -> None:
    """Never returns: the copy ends here, and with it nothing of the original's."""
    data = FAILED
    try:
        try:
            data = DONE + work()
        finally:
            if data == FAILED:
                data += traceback.format_exc().encode()
            with os.fdopen(writing, "wb") as stream:
                stream.write(data)
    finally:
        os._exit(0)
