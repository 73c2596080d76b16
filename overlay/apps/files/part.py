"""The unfinished file of a receiver: NAME.part in its directory, until it is whole and verified.

What is written lies under NAME.part alone, which no symbolic link can lead elsewhere, and which
one receiver at a time holds (a lock). A NAME.part that lies there already is kept: its hash tells
the sender whether it is the beginning of the same file. A whole file is written down to the disk
before it gets its name, and it never replaces another: beside ``report.pdf`` it is called
``report (1).pdf``.

Everything here blocks: it is called in threads.
"""

import fcntl
import hashlib
import os
import stat

from overlay.apps.files.names import PART, numbered
from overlay.apps.files.wire import HASH_BYTES

CHUNK = 1 << 20
"""Bytes that are hashed or copied at once."""
NUMBERS = range(1, 1000)
TRIES = 3
"""Times that the file is opened again when it is gone between two calls (guess)."""


class Taken(Exception):
    """Somebody else is writing this file."""


class Unsafe(Exception):
    """What lies at a name is not a file of ours: the text says what it is."""


def hasher() -> "hashlib.blake2b":
    """BLAKE2b-256 (RFC 7693), of nothing yet."""
    return hashlib.blake2b(digest_size=HASH_BYTES)


class Part:
    """One unfinished file, from `open` to `close`."""

    def __init__(self, directory: int, name: str, descriptor: int) -> None:
        self.name = name
        self.size = 0
        """Bytes of the file that are known to be here, and hashed."""
        self._directory = directory
        self._file = descriptor
        self._held = os.fstat(descriptor).st_size
        self._hash = hasher()
        self._is_whole = False

    @classmethod
    def open(cls, directory: int, name: str) -> "Part":
        """The part of the file `name` in an open directory, made if there is none; it is ours.

        Taken, Unsafe, OSError: it cannot be had.
        """
        for _ in range(TRIES):
            descriptor = _open(directory, name + PART)
            try:
                _lock(descriptor, name + PART)
                if _is_at(directory, name + PART, descriptor):
                    return cls(directory, name, descriptor)
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)  # it was finished, or taken away, before we had it
        raise Taken(name)

    def hash_more(self, most: int) -> bool:
        """Hash up to so many bytes more of what lies here; whether that is all of it."""
        end = min(self._held, self.size + most)
        while self.size < end:
            data = os.pread(self._file, min(CHUNK, end - self.size), self.size)
            if not data:  # somebody makes it shorter
                self._held = end = self.size
            self._hash.update(data)
            self.size += len(data)
        return self.size >= self._held

    @property
    def held(self) -> int:
        """Bytes that lie here."""
        return self._held

    @property
    def digest(self) -> bytes:
        """The hash of the first `size` bytes."""
        return self._hash.digest()

    def go_on(self, offset: int) -> None:
        """Write from here on: from `size`, or from 0, and then nothing is left of what was here."""
        if offset != self.size:
            self.size, self._hash = 0, hasher()
        os.ftruncate(self._file, self.size)

    def write(self, data: memoryview) -> None:
        """Append; OSError."""
        self._hash.update(data)
        while data:
            written = os.pwrite(self._file, data, self.size)
            self.size += written
            data = data[written:]

    def settle(self) -> None:
        """Have the disk take what was written so far."""
        os.fdatasync(self._file)

    def finish(self) -> str:
        """Give the whole file its name, or a numbered one where that is taken; which it was."""
        os.fsync(self._file)
        if not _is_at(self._directory, self.name + PART, self._file):
            raise Unsafe(f"{self.name}{PART} has been replaced meanwhile")
        for name in (self.name, *(numbered(self.name, number) for number in NUMBERS)):
            try:
                _reserve(self._directory, name)
            except FileExistsError:
                continue
            try:
                os.rename(
                    self.name + PART,
                    name,
                    src_dir_fd=self._directory,
                    dst_dir_fd=self._directory,
                )
            except BaseException:
                os.unlink(name, dir_fd=self._directory)
                raise
            self._is_whole = True
            os.fsync(self._directory)
            return name
        raise Unsafe(f"{self.name} and {NUMBERS.stop - 1} numbered names are taken")

    def discard(self) -> None:
        """Nothing of it can be used."""
        os.ftruncate(self._file, 0)

    def close(self) -> int:
        """Let go of it; an empty one is taken away. How many bytes are kept for the next time."""
        kept = 0 if self._is_whole else os.fstat(self._file).st_size
        try:
            is_ours = not self._is_whole and _is_at(self._directory, self.name + PART, self._file)
            if is_ours and not kept:
                os.unlink(self.name + PART, dir_fd=self._directory)
        finally:
            os.close(self._file)
        return kept


def _open(directory: int, name: str) -> int:
    # NONBLOCK: a pipe of that name would wait for its other end.
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        return os.open(name, flags | os.O_CREAT | os.O_EXCL, 0o666, dir_fd=directory)
    except FileExistsError:
        kind = os.stat(name, dir_fd=directory, follow_symlinks=False)
    if not stat.S_ISREG(kind.st_mode):
        raise Unsafe(f"{name} is there and is no regular file: move it away")
    if kind.st_nlink != 1:
        raise Unsafe(f"{name} is there and has another name as well: move it away")
    return os.open(name, flags, dir_fd=directory)


def _lock(descriptor: int, name: str) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Taken(name) from None


def _is_at(directory: int, name: str, descriptor: int) -> bool:
    """Whether a name still stands for the file that we have open."""
    try:
        there = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return os.path.samestat(there, os.fstat(descriptor))


def _reserve(directory: int, name: str) -> None:
    """Take a name that nobody has: a rename alone would replace what has it."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    os.close(os.open(name, flags, 0o666, dir_fd=directory))
