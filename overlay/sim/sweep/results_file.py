"""The results of a sweep on disk: a line of JSON for each cell, written the moment it is finished.

Whatever ends the sweep, what was computed stays; a line that was being written then is cut off by
the next one.
"""

import fcntl
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from overlay.errors import ConfigError, UsageError

Result = dict[str, Any]


class Results:
    """The file; one sweep at a time has it."""

    def __init__(self, path: Path, *, fresh: bool = False) -> None:
        """UsageError when another sweep writes to it, ConfigError when it is something else.

        `fresh`: forget what is in it.
        """
        self.path = path
        self._kept: dict[str, Result] = {}
        try:
            self._file = path.open("a+b")
        except OSError as error:
            raise UsageError(f"{path}: cannot be written: {error.strerror or error}") from None
        try:
            self._take_over(fresh)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with suppress(OSError):  # a full disk: it has said so before
            self._file.close()

    def of(self, keys: Iterable[str]) -> dict[str, Result]:
        """What there is of these cells, in their order."""
        return {key: self._kept[key] for key in keys if key in self._kept}

    def add(self, key: str, result: Result) -> None:
        """Keep one more; it is on the disk when this returns."""
        line = msgspec.json.encode({"cell": key, **result}) + b"\n"
        try:
            self._file.write(line)
            self._file.flush()
            os.fsync(self._file.fileno())
            self._kept[key] = msgspec.json.decode(line)
        except KeyboardInterrupt:  # it may be on the disk, or not
            self._file.flush()
            self._read_all()
            raise

    def _take_over(self, fresh: bool) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(f"{self.path}: another sweep is writing to it") from None
        if fresh:
            self._file.truncate(0)
        self._read_all()

    def _read_all(self) -> None:
        self._file.seek(0)
        whole = 0
        for number, line in enumerate(self._file, 1):
            if not line.endswith(b"\n"):  # its writer was killed
                self._file.truncate(whole)
                break
            self._read(number, line)
            whole += len(line)

    def _read(self, number: int, line: bytes) -> None:
        try:
            result = msgspec.json.decode(line)
            self._kept[result["cell"]] = result
        except (msgspec.DecodeError, UnicodeDecodeError, KeyError, TypeError):
            text = f"line {number} is no result of a sweep (--fresh starts anew)"
            raise ConfigError(f"{self.path}: {text}") from None
