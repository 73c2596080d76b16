"""The data directory of one node: private, locked while the node runs, home of its socket."""

import contextlib
import errno
import fcntl
import os
import re
import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from overlay.errors import ConfigError

LOCK = "lock"
SOCKET = "control.sock"
OURS = frozenset({LOCK, SOCKET, "identity.key"})
"""Any of these marks a directory as a node's."""
MAX_SOCKET_PATH = 100
"""Bytes: the kernel takes 107 (unix(7)), other systems fewer."""
DESCRIPTORS = Path("/proc/self/fd")
"""Where Linux gives an open directory a short name (proc(5))."""
NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})
NO_SOCKETS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS})
"""What a file system says that knows no Unix sockets (vfat(5): EPERM)."""
PROCESSES = Path("/proc")
"""Where Linux says what its processes do (proc(5))."""
STATE = re.compile(r"^\d+ \(.*\) (\S)", re.DOTALL)
WORKING, STOPPED = frozenset("RD"), frozenset("Tt")
"""States of a thread that wants the processor or the disk, and of one that a signal stopped."""
LOCK_PATIENCE = 1.0
"""Seconds to wait for a lock that a node on its way out still holds (guess)."""


def default_path() -> Path:
    """Where a node lives unless told otherwise; `~` is left in where nothing says what it means.

    A service's own directory comes first (systemd.exec(5), StateDirectory=).
    """
    import platformdirs

    given = [path for path in os.environ.get("STATE_DIRECTORY", "").split(":") if path]
    if given:
        return Path(given[0])
    try:
        return Path(platformdirs.user_data_dir("overlay", appauthor=False))
    except RuntimeError:  # there is no home: who needs this directory says so (`absolute`)
        return Path("~/.local/share/overlay")


def absolute(path: Path) -> Path:
    """The same from the root; ConfigError where there is no home, or no place to begin at."""
    try:
        return path.expanduser().absolute()
    except RuntimeError:
        why = "HOME is not set, and this user has no entry in passwd"
    except OSError as error:
        why = f"the current directory is gone ({error.strerror})"
    raise ConfigError(
        f"the data directory {path} cannot be found: {why}: name another with --data-dir"
    )


class DataDirectory:
    """A directory that this process holds for itself, from `open` to `close`."""

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self._lock = lock
        self._is_ours = True

    @classmethod
    def open(cls, path: Path) -> Self:
        """Make it if need be and lock it; ConfigError when it is taken or no place for a node."""
        path = absolute(path)
        try:
            _make_private(path)
            lock = os.open(path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ConfigError(
                f"the data directory {path} cannot be used: {error.strerror or error}: "
                f"{advice(error)}"
            ) from None
        try:
            _acquire(path, lock)
        except BaseException:
            os.close(lock)
            raise
        return cls(path, lock)

    def listen(self) -> socket.socket:
        """The control socket, bound and listening, for this user alone; a stale one is replaced.

        ConfigError: there can be none.
        """
        control = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            (self.path / SOCKET).unlink(missing_ok=True)
            with socket_address(self.path) as address:
                before = os.umask(0o177)
                try:
                    control.bind(address)
                finally:
                    os.umask(before)
            control.listen(64)
        except OSError as error:
            control.close()
            raise self._no_socket(error) from None
        return control

    def _no_socket(self, error: OSError) -> ConfigError:
        path = self.path / SOCKET
        if path.is_dir():
            return ConfigError(
                f"{path} is a directory, and has to be the control socket: remove it"
            )
        what = advice(error)
        if error.errno in NO_SOCKETS:
            what = "its file system has no sockets: choose another directory with --data-dir"
        return ConfigError(
            f"the control socket {path} cannot be made: {error.strerror or error}: {what}"
        )

    def close(self) -> None:
        """Take the socket away and let the next node in."""
        self.forget_socket()
        self._is_ours = False
        os.close(self._lock)

    def forget_socket(self) -> None:
        """Take it away, if that can be done: one that stays is no node; the next replaces it."""
        if self._is_ours:
            with contextlib.suppress(OSError):
                (self.path / SOCKET).unlink()


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
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise ConfigError(
            f"{path} stays open to others whatever is asked for: its file system keeps no modes, "
            "and a node has secrets: choose another directory with --data-dir"
        )


def advice(error: OSError) -> str:
    """What a user can do about a place that nothing can be written to."""
    if error.errno in NO_SPACE:
        return "make room, or choose another directory with --data-dir"
    return "choose another with --data-dir"


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
            raise ConfigError(
                f"a node is already running on {path} (process {_written(lock)}), and a data "
                "directory has room for one, in one network: stop it with `overlay leave`, or "
                "choose another --data-dir"
            )
        time.sleep(0.05)
    with contextlib.suppress(OSError):  # a full disk: who is refused is told less
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


def _written(lock: int) -> str:
    """The process that a lock file names."""
    return os.pread(lock, 32, 0).decode(errors="replace").strip() or "unknown"


def holder(path: Path) -> str:
    """The process id of the node on this data directory, as its lock names it; or ``unknown``."""
    try:
        lock = os.open(path / LOCK, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return "unknown"
    try:
        return _written(lock)
    finally:
        os.close(lock)


def states_of(process: str) -> set[str]:
    """The letters for what the threads of a process do (proc(5)); none where the system is silent.

    All count: one that waits for another of them is asleep, though the process has work to do.
    """
    states = set()
    for said in (PROCESSES / process / "task").glob("*/stat"):
        with contextlib.suppress(OSError):  # the thread has ended
            if found := STATE.match(said.read_text(errors="replace")):
                states.add(found[1])
    return states


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
    import tempfile

    with tempfile.TemporaryDirectory(prefix="overlay-") as short:
        link = os.path.join(short, "d")
        os.symlink(directory, link)
        yield os.path.join(link, SOCKET)
