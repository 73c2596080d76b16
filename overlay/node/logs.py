"""The node's log: structured, on standard error or in a file, and without secrets.

The core reports bytes: ids and the like. A peer id is written as people know it, any other bytes
as a short prefix, and a field that is named like a secret is not written at all.
"""

import contextlib
import io
import logging
import os
import queue
import sys
import threading
from collections.abc import Callable, Iterator, MutableMapping
from dataclasses import dataclass
from typing import Any, TextIO, cast

import structlog

from overlay.core.events import Report
from overlay.core.types import PeerId
from overlay.errors import ConfigError, UsageError
from overlay.identity import peer_id_text
from overlay.node.config import LogSection
from overlay.node.words import plain

SECRET = frozenset({"invite", "key", "link_text", "password", "private", "seed", "secret", "token"})
"""Fields that are never written."""
PEERS = frozenset(
    {
        "from",
        "issuer",
        "member",
        "neighbour",
        "origin",
        "peer",
        "peer_id",
        "sender",
        "target",
        "via",
    }
)
"""Fields whose 32 bytes are a peer id."""
MAX_WAITING = 10_000
"""Lines that may wait for a slow terminal or pipe (guess)."""
LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}

Logger = structlog.typing.FilteringBoundLogger


@dataclass(frozen=True, slots=True)
class Log:
    """The node's logger, and the way to let go of what it held back."""

    logger: Logger
    release: Callable[[], None]
    """Call it once the node is up: until then the log is held back, so that a node that cannot
    start as asked says one line and nothing else (unless the level is ``debug``)."""


@contextlib.contextmanager
def open_log(section: LogSection) -> Iterator[Log]:
    """The log that the configuration asks for; ConfigError when its file cannot be written."""
    with _open_stream(section.file) as stream:
        if section.level == "debug" or section.file:
            stream.release()
        try:
            logger = make_logger(section, cast(TextIO, stream))
            with _bridged(logger, section):
                yield Log(logger, stream.release)
        except UsageError:
            stream.drop()
            raise
        finally:
            stream.finish()


@contextlib.contextmanager
def _bridged(logger: Logger, section: LogSection) -> Iterator[None]:
    """Libraries, and our transport, log in the standard library's way: pass that on."""
    bridge, ours = _Bridge(logger), logging.getLogger("overlay")
    logging.root.addHandler(bridge)
    ours.setLevel(LEVELS[section.level])
    try:
        yield
    finally:
        ours.setLevel(logging.NOTSET)
        logging.root.removeHandler(bridge)


class _Bridge(logging.Handler):
    def __init__(self, logger: Logger) -> None:
        super().__init__()
        self._logger = logger

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        self._logger.log(record.levelno, message, by=record.name, exc_info=record.exc_info)


def make_logger(section: LogSection, stream: TextIO) -> Logger:
    """A logger of the configured level and format on `stream`."""
    rendering: list[structlog.typing.Processor] = [
        structlog.processors.JSONRenderer()
        if section.format == "json"
        else structlog.dev.ConsoleRenderer(colors=stream.isatty(), pad_event_to=0)
    ]
    logger: Logger = structlog.wrap_logger(
        structlog.PrintLogger(stream),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            plain_fields,
            structlog.processors.ExceptionRenderer(),
            *rendering,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[section.level]),
    )
    return logger


@contextlib.contextmanager
def _open_stream(path: str) -> Iterator["Background"]:
    if not path:
        yield Background(sys.stderr)
        return
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigError(f"log.file: {path} cannot be written: {error.strerror}") from None
    with open(descriptor, "a", encoding="utf-8") as file:
        yield Background(file)


class Background(io.TextIOBase):
    """A text stream whose writes never wait: a thread of its own does the waiting.

    A terminal that is held or a pipe that nobody reads would stop the node otherwise. Past
    `MAX_WAITING` lines it drops what comes and says how many when it can. Nothing is written
    before `release` or `finish`.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._waiting: queue.Queue[str | None] = queue.Queue(MAX_WAITING)
        self._missed = 0
        self._released = threading.Event()
        self._dropped = False
        self._thread = threading.Thread(target=self._work, name="output", daemon=True)
        self._thread.start()

    def write(self, text: str) -> int:
        """Queue it."""
        try:
            if self._missed:
                self._waiting.put_nowait(f"({self._missed} lines missed)\n")
                self._missed = 0
            self._waiting.put_nowait(text)
        except queue.Full:
            self._missed += 1
        return len(text)

    def isatty(self) -> bool:
        """Whether a person reads it."""
        return self._stream.isatty()

    def release(self) -> None:
        """Write what waits, and from now on what comes."""
        self._released.set()

    def drop(self) -> None:
        """Write nothing of what still waits."""
        self._dropped = not self._released.is_set()

    def finish(self, timeout: float = 2.0) -> None:
        """Give what waits a last chance to be written."""
        self.release()
        with contextlib.suppress(queue.Full):
            self._waiting.put(None, timeout=timeout)
            self._thread.join(timeout)

    def _work(self) -> None:
        self._released.wait()
        while not self._dropped and (text := self._waiting.get()) is not None:
            try:
                self._stream.write(text)
                self._stream.flush()
            except (OSError, ValueError):  # the reader has gone: nobody is left to tell
                return


@contextlib.contextmanager
def background(stream: TextIO) -> Iterator[Background]:
    """`stream` without the waiting."""
    writer = Background(stream)
    writer.release()
    try:
        yield writer
    finally:
        writer.finish()


def log_report(log: Logger, report: Report) -> None:
    """Write what the core reports."""
    log.log(LEVELS[report.level], report.event, **report.fields)


def plain_fields(
    _logger: Any, _method: str, fields: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Secrets out, bytes readable, nothing that a terminal would obey."""
    for name, value in list(fields.items()):
        if name in SECRET:
            fields[name] = "(secret)"
        elif isinstance(value, bytes):
            fields[name] = _readable(name, value)
        elif isinstance(value, str) and name != "exception":
            fields[name] = plain(value)
    return fields


def _readable(name: str, value: bytes) -> str:
    if name in PEERS and len(value) == 32:
        return peer_id_text(PeerId(value))
    return value[:4].hex() + ("…" if len(value) > 4 else "")
