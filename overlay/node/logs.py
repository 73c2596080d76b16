"""The node's log: structured, on standard error or in a file, and without secrets.

The core reports bytes: ids and the like. A peer id is written as people know it, any other bytes
as a short prefix, and a field that is named like a secret is not written at all.
"""

import contextlib
import errno
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
from overlay.names import plain, titled
from overlay.node import terminal
from overlay.node.config import LogSection
from overlay.node.hiding import hidden

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
FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS})
"""What a disk says that may have room again."""
LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}

Logger = structlog.typing.FilteringBoundLogger


class Names:
    """What peers call themselves, in a log for people; who runs the node says whom to ask."""

    def __init__(self) -> None:
        self.of: Callable[[PeerId], str] = lambda _: ""

    def beside_ids(
        self, _logger: Any, _method: str, fields: MutableMapping[str, Any]
    ) -> MutableMapping[str, Any]:
        """A name and a short id in place of each id."""
        for name, value in list(fields.items()):
            if is_peer(name, value):
                peer = PeerId(value)
                fields[name] = titled(peer_id_text(peer), self.of(peer))
        return fields


@dataclass(frozen=True, slots=True)
class Log:
    """The node's logger, and the way to let go of what it held back."""

    logger: Logger
    names: Names
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
            names = Names()
            logger = make_logger(section, cast(TextIO, stream), names)
            with _bridged(logger, section):
                yield Log(logger, names, stream.release)
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


def make_logger(section: LogSection, stream: TextIO, names: Names) -> Logger:
    """A logger of the configured level and format on `stream`."""
    for_programs: list[structlog.typing.Processor] = [
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        plain_fields,
        structlog.processors.ExceptionRenderer(),
        structlog.processors.JSONRenderer(),
    ]
    for_people: list[structlog.typing.Processor] = [
        structlog.processors.TimeStamper(
            fmt="%H:%M:%S" if stream.isatty() else "%Y-%m-%d %H:%M:%S", utc=False
        ),
        names.beside_ids,
        plain_fields,
        structlog.processors.ExceptionRenderer(),
        Line(has_colours=terminal.colours(stream)),
    ]
    logger: Logger = structlog.wrap_logger(
        structlog.PrintLogger(stream),
        processors=[
            structlog.processors.add_log_level,
            *(for_programs if section.format == "json" else for_people),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[section.level]),
    )
    return logger


class Line:
    """An event as a line for people; the traceback of a fault of ours follows below it."""

    def __init__(self, *, has_colours: bool) -> None:
        self._styles = STYLES if has_colours else {}

    def __call__(self, _logger: Any, _method: str, fields: MutableMapping[str, Any]) -> str:
        """When, how important, what, and about whom; what is unknown is left out."""
        level, exception = fields.pop("level"), fields.pop("exception", None)
        said = [
            fields.pop("timestamp"),
            self._styled(level, level),
            self._styled("event", fields.pop("event")),
        ]
        said += [f"{name}={quoted(value)}" for name, value in fields.items() if value is not None]
        return " ".join(said) + (f"\n{exception}" if exception else "")

    def _styled(self, style: str, text: str) -> str:
        return f"{self._styles[style]}{text}\x1b[0m" if style in self._styles else text


STYLES = {"event": "\x1b[1m", "warning": "\x1b[33m", "error": "\x1b[31m", "critical": "\x1b[31m"}
"""Bold, yellow and red (ECMA-48 §8.3.117)."""


def quoted(value: Any) -> str:
    """As it is, unless it could be taken for another field."""
    shown = str(value)
    return repr(shown) if "=" in shown or not shown else shown


@contextlib.contextmanager
def _open_stream(path: str) -> Iterator["Background"]:
    if not path:
        yield Background(sys.stderr)
        return
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigError(f"log.file: {path} cannot be written: {error.strerror}") from None
    try:
        yield Background(LogFile(descriptor, path))
    finally:
        with contextlib.suppress(OSError):  # a network's disk may say only now that it is full
            os.close(descriptor)


class LogFile(io.TextIOBase):
    """A file without a buffer: what the disk does not take is lost, and does not come later."""

    def __init__(self, descriptor: int, path: str) -> None:
        self._descriptor = descriptor
        self._path = path
        self._whole = True
        self._said = False

    def write(self, text: str) -> int:
        """Append it; OSError when the disk takes none of it, or not all."""
        data = text.encode(errors="replace")
        if not self._whole:
            data = b"\n" + data
        try:
            while data:
                written = os.write(self._descriptor, data)
                data = data[written:]
                self._whole = not data
        except OSError as error:
            self._say(error)
            raise
        return len(text)

    def _say(self, error: OSError) -> None:
        """Tell on standard error, once: the log itself cannot."""
        if not self._said:
            self._said = True
            text = f"warning: log.file: {self._path} cannot be written: {error.strerror}"
            with contextlib.suppress(OSError, ValueError):
                sys.stderr.write(f"{text}: the node goes on, and its log when there is room\n")
                sys.stderr.flush()


class Background(io.TextIOBase):
    """A text stream whose writes never wait: a thread of its own does the waiting.

    A terminal that is held or a pipe that nobody reads would stop the node otherwise. Past
    `MAX_WAITING` lines it drops what comes and says how many when it can, as it does after a disk
    was full. Nothing is written before `release` or `finish`.
    """

    def __init__(self, stream: TextIO | LogFile) -> None:
        self._stream = stream
        self._waiting: queue.Queue[str | Callable[[], None] | None] = queue.Queue(MAX_WAITING)
        self._missed = 0
        self._unwritten = 0
        self._released = threading.Event()
        self._dropped = False
        self._thread = threading.Thread(target=self._work, name="output", daemon=True)
        self._thread.start()

    def write(self, text: str) -> int:
        """Queue it."""
        try:
            if self._missed:
                self._waiting.put_nowait(_missed(self._missed))
                self._missed = 0
            self._waiting.put_nowait(text)
        except queue.Full:
            self._missed += 1
        return len(text)

    def afterwards(self, then: Callable[[], None]) -> None:
        """Call this once all that was written so far is out, or nobody reads it."""
        try:
            self._waiting.put_nowait(then)
        except queue.Full:
            then()

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
        is_read = True
        while not self._dropped and (waiting := self._waiting.get()) is not None:
            if not isinstance(waiting, str):
                waiting()
            elif is_read:
                is_read = self._written(waiting)

    def _written(self, text: str) -> bool:
        """Whether there is somebody left to tell."""
        try:
            self._write(text)
        except OSError as error:
            if error.errno not in FULL:
                return False
            self._unwritten += 1
        except ValueError:
            return False
        return True

    def _write(self, text: str) -> None:
        if self._unwritten:
            self._stream.write(_missed(self._unwritten))
            self._unwritten = 0
        self._stream.write(text)
        self._stream.flush()


def _missed(count: int) -> str:
    return f"({count} lines missed)\n"


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
            fields[name] = plain(hidden(value))
    return fields


def is_peer(name: str, value: Any) -> bool:
    """Whether a field names a peer."""
    return name in PEERS and isinstance(value, bytes) and len(value) == 32


def _readable(name: str, value: bytes) -> str:
    if is_peer(name, value):
        return peer_id_text(PeerId(value))
    return value[:4].hex() + ("…" if len(value) > 4 else "")
