"""What happened in a world, as JSON lines: for scripts, for a hash, for comparing a replay.

The first line describes the scenario; each other one is an event with the virtual second, its kind,
the node and an id: the peer at the other end of a link, the publication, or the request.
"""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from overlay.errors import ConfigError
from overlay.sim.scenario.scenario import Scenario

KINDS = (
    *("join", "crash", "publish", "deliver"),
    *("link_up", "link_down", "request", "answered"),
)


BRANCH = "branch"
"""The kind of a line between branches: those after it continue what was before the first."""


class Event(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line of a trace."""

    t: float
    kind: str
    """``join``: the node has its first link since it started (the first node: it has started).
    ``crash``: it is gone, with a goodbye or without."""
    node: str
    id: str
    hops: int | None = None
    """Of a ``deliver``, and of what answered a trace."""
    to: str | None = None
    """Of a ``request``: whom it was for."""
    attempt: int | None = None
    """Of what answered a trace: which try it was, from 0."""
    messages: int | None = None
    """Of a link that was asked for: offer and answer, each link that they passed; 0 if none was."""


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """The first line: an event of the kind ``scenario``, and all that it takes to run it again."""

    t: float = 0.0
    kind: str = "scenario"
    node: str = ""
    id: str
    seed: int
    version: str
    """Of overlay: another version may do something else with the same seed."""
    scenario: dict[str, Any]


Line = Callable[[bytes], None]


class Tracer:
    """Writes events down, hashes them, and hands them to whoever measures."""

    def __init__(self, measure: Callable[[Event], None], write: Line | None = None) -> None:
        self._measure = measure
        self._write = write
        self._hash = hashlib.sha256()
        self._encoder = msgspec.json.Encoder()

    def event(self, event: Event) -> None:
        """Take in one event."""
        line = self._encoder.encode(event) + b"\n"
        self._hash.update(line)
        if self._write is not None:
            self._write(line)
        self._measure(event)

    def lines(self, lines: list[bytes]) -> None:
        """Take in the lines of a branch, which somebody else has measured."""
        for line in lines:
            self._hash.update(line)
            if self._write is not None:
                self._write(line)

    def aside(self) -> list[bytes]:
        """From now on the lines go into this list, too."""
        lines: list[bytes] = []
        self._write = lines.append
        return lines

    @property
    def digest(self) -> str:
        """SHA-256 over all lines of events so far, in hexadecimal."""
        return self._hash.hexdigest()


def header(name: str, scenario: Scenario, version: str) -> bytes:
    """The first line of a trace."""
    content = msgspec.to_builtins(scenario)
    first = Header(id=name, seed=scenario.seed, version=version, scenario=content)
    return msgspec.json.encode(first) + b"\n"


def opened(path: Path) -> tuple[Header, Iterator[bytes]]:
    """The first line of a trace, and the lines of its events; ConfigError when it is none."""
    try:
        stream = path.open("rb")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from None
    try:
        first = msgspec.json.decode(stream.readline(), type=Header)
        if first.kind != "scenario":
            raise msgspec.ValidationError(first.kind)
    except (msgspec.DecodeError, OSError, UnicodeDecodeError):
        stream.close()
        text = "is no trace: expected what `overlay sim run NAME --trace FILE` writes"
        raise ConfigError(f"{path}: {text}") from None
    return first, iter(stream)


class Comparison:
    """Lines of a run beside those of an earlier one."""

    def __init__(self, recorded: Iterator[bytes]) -> None:
        self._recorded = recorded
        self.lines = 0
        """Lines that were the same."""
        self.differs: tuple[str, str] | None = None
        """The first pair that is not the same: recorded, and now. Empty where there is none."""

    def line(self, now: bytes) -> None:
        """One more line of the new run."""
        if self.differs is None:
            self._compare(next(self._recorded, b""), now)

    def finish(self) -> None:
        """The new run is over: the earlier one has to be, too."""
        if self.differs is None and (rest := next(self._recorded, b"")):
            self._compare(rest, b"")

    def _compare(self, recorded: bytes, now: bytes) -> None:
        if recorded == now:
            self.lines += 1
        else:
            self.differs = (recorded.decode(errors="replace").strip(), now.decode().strip())
