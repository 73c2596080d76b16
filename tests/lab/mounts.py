"""A view of the file system that only some processes have: small disks, read-only files.

As network namespaces (`tests.lab.namespaces`), it lives as long as something holds it, and nobody
has to unmount anything (mount_namespaces(7)).
"""

import contextlib
import ctypes
import os
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

_CLONE_FS, _CLONE_NEWNS = 0x200, 0x20000
_MS_RDONLY, _MS_REMOUNT, _MS_BIND, _MS_REC, _MS_PRIVATE = 1, 32, 4096, 16384, 1 << 18
"""mount(2)."""
ROOT = Path(__file__).resolve().parents[2]
_libc = ctypes.CDLL(None, use_errno=True)


def _checked(result: int) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _mount(source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
    _checked(
        _libc.mount(
            source.encode(), target.encode(), kind.encode() or None, flags, data.encode() or None
        )
    )


class Mounts:
    """A mount namespace: what is mounted in it is seen by those who enter it."""

    def __init__(self) -> None:
        self.fd = -1
        self._in_thread(self._unshare)

    def disk(self, path: Path, size: int) -> None:
        """Mount an empty disk of so many bytes (tmpfs(5))."""
        self.call(lambda: _mount("tmpfs", str(path), "tmpfs", 0, f"size={size},mode=0700"))

    def read_only(self, path: Path) -> None:
        """Let nobody write to a file or directory, root neither."""

        def mount() -> None:
            _mount(str(path), str(path), flags=_MS_BIND)
            _mount("none", str(path), flags=_MS_BIND | _MS_REMOUNT | _MS_RDONLY)

        self.call(mount)

    def without_users(self) -> None:
        """Let nobody have an entry in passwd, nor one that is made up (nss-systemd(8))."""
        for path in ("/etc/passwd", "/etc/nsswitch.conf"):
            if os.path.exists(path):
                self.call(partial(_mount, os.devnull, path, flags=_MS_BIND))

    def enter(self) -> None:
        """For a child between fork and exec; it goes on in the root of the repository."""
        _checked(_libc.setns(self.fd, _CLONE_NEWNS))
        os.chdir(ROOT)

    def call(self, function: Callable[[], object]) -> None:
        """Call it inside."""

        def inside() -> None:
            _checked(_libc.unshare(_CLONE_FS))
            _checked(_libc.setns(self.fd, _CLONE_NEWNS))
            function()

        self._in_thread(inside)

    def _unshare(self) -> None:
        _checked(_libc.unshare(_CLONE_NEWNS))
        _mount("none", "/", flags=_MS_REC | _MS_PRIVATE)
        self.fd = os.open("/proc/thread-self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)

    def _in_thread(self, function: Callable[[], object]) -> None:
        errors: list[OSError] = []

        def body() -> None:
            try:
                function()
            except OSError as error:
                errors.append(error)

        thread = threading.Thread(target=body)
        thread.start()
        thread.join()
        if errors:
            raise errors[0]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self.fd)


def fill(path: Path) -> None:
    """Let a file grow until its disk takes no more, not a single byte."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        for size in (65_536, 4096, 1):
            with contextlib.suppress(OSError):
                while True:
                    os.write(descriptor, bytes(size))
    finally:
        os.close(descriptor)
