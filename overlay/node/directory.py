"""The data directory of one node: private, locked while the node runs, home of its socket."""

import contextlib
import errno
import fcntl
import os
import socket
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import platformdirs

from overlay.errors import ConfigError

LOCK = "lock"
SOCKET = "control.sock"
OURS = frozenset({LOCK, SOCKET, "identity.key"})
"""Any of these marks a directory as a node's."""
MAX_SOCKET_PATH = 100
"""Bytes: the kernel takes 107 (unix(7)), other systems fewer."""
DESCRIPTORS = Path("/proc/self/fd")
"""Where Linux gives an open directory a short name (proc(5))."""
LOCK_PATIENCE = 1.0
"""Seconds to wait for a lock that a node on its way out still holds (guess)."""


def default_path() -> Path:
    """Where a node lives unless told otherwise."""
    return Path(platformdirs.user_data_dir("overlay", appauthor=False))


class DataDirectory:
    """A directory that this process holds for itself, from `open` to `close`."""

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self._lock = lock

    @classmethod
    def open(cls, path: Path) -> Self:
        """Make it if need be and lock it; ConfigError when it is taken or no place for a node."""
        path = path.expanduser().absolute()
        try:
            _make_private(path)
            lock = os.open(path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            why = error.strerror or str(error)
            raise ConfigError(
                f"the data directory {path} cannot be used: {why}: choose another with --data-dir"
            ) from None
        try:
            _acquire(path, lock)
        except BaseException:
            os.close(lock)
            raise
        return cls(path, lock)

    def listen(self) -> socket.socket:
        """The control socket, bound and listening, for this user alone; a stale one is replaced."""
        (self.path / SOCKET).unlink(missing_ok=True)
        control = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with socket_address(self.path) as address:
                before = os.umask(0o177)
                try:
                    control.bind(address)
                finally:
                    os.umask(before)
            control.listen(64)
        except BaseException:
            control.close()
            raise
        return control

    def close(self) -> None:
        """Take the socket away and let the next node in."""
        (self.path / SOCKET).unlink(missing_ok=True)
        os.close(self._lock)


def _make_private(path: Path) -> None:
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if stat.S_IMODE(path.stat().st_mode) & 0o077 == 0:
        return
    inside = set(os.listdir(path))
    if inside and not inside & OURS:
        raise ConfigError(
            f"{path} is open to others and holds files that are not overlay's: "
            "choose an empty or new directory with --data-dir"
        )
    path.chmod(0o700)


def _acquire(path: Path, lock: int) -> None:
    deadline = time.monotonic() + LOCK_PATIENCE
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except OSError as error:
            if error.errno not in {errno.EAGAIN, errno.EACCES}:
                raise ConfigError(
                    f"the data directory {path} cannot be locked: {error.strerror}"
                ) from None
        if time.monotonic() > deadline:
            holder = os.pread(lock, 32, 0).decode(errors="replace").strip() or "unknown"
            raise ConfigError(
                f"a node is already running on {path} (process {holder}), and a data directory "
                "has room for one, in one network: stop it with `overlay leave`, or choose another "
                "--data-dir"
            )
        time.sleep(0.05)
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)


def is_running(path: Path) -> bool:
    """Whether a process holds this data directory."""
    try:
        lock = os.open(path / LOCK, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    else:
        return False
    finally:
        os.close(lock)


@contextlib.contextmanager
def socket_address(directory: Path) -> Iterator[str]:
    """An address of the control socket short enough for the kernel, however deep it lies."""
    address = str(directory / SOCKET)
    if len(os.fsencode(address)) <= MAX_SOCKET_PATH:
        yield address
        return
    if DESCRIPTORS.is_dir():
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            yield str(DESCRIPTORS / str(descriptor) / SOCKET)
        finally:
            os.close(descriptor)
        return
    with tempfile.TemporaryDirectory(prefix="overlay-") as short:
        link = os.path.join(short, "d")
        os.symlink(directory, link)
        yield os.path.join(link, SOCKET)
