"""Network namespaces that nobody has to clean up.

A namespace lives as long as something holds it: here a file descriptor, and the processes that
were started inside. When the owner dies, however it dies, its descriptors close, its children get
SIGKILL (`nodes.die_with_parent`), and the kernel frees namespaces, links and rules together.
Making one needs CAP_SYS_ADMIN: root, or any user under ``unshare -Urn`` (user_namespaces(7)).
"""

import contextlib
import ctypes
import fcntl
import json
import os
import socket
import struct
import subprocess
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self, TypeVar

_CLONE_NEWNET = 0x40000000
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1
"""netdevice(7)."""
_libc = ctypes.CDLL(None, use_errno=True)
T = TypeVar("T")


def _checked(result: int) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _in_thread(function: Callable[[], T]) -> T:
    """Call in a thread of its own: a namespace is a property of the thread (setns(2))."""
    results: list[T] = []
    errors: list[BaseException] = []

    def body() -> None:
        try:
            results.append(function())
        except OSError as error:
            errors.append(error)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


def _unshared() -> int:
    """Leave for a new namespace, and return a descriptor that holds it."""
    _checked(_libc.unshare(_CLONE_NEWNET))
    for key in ("accept_dad", "dad_transmits", "accept_ra"):
        # Otherwise an IPv6 address is unusable for a second or two (RFC 4862 §5.4).
        path = f"/proc/sys/net/ipv6/conf/default/{key}"
        with contextlib.suppress(OSError), open(path, "w") as file:
            file.write("0")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        flags = fcntl.ioctl(any_socket, _SIOCGIFFLAGS, struct.pack("16sh14x", b"lo", 0))
        up = struct.unpack("16sh14x", flags)[1] | _IFF_UP
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", up))
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def why_unavailable() -> str | None:
    """Why this process cannot make namespaces, or None when it can."""
    try:
        os.close(_in_thread(_unshared))
    except OSError as error:
        return f"cannot make a network namespace ({error}): run as root or under unshare -Urn"
    return None


class Namespace:
    """One network namespace, its loopback up."""

    def __init__(self) -> None:
        self.fd = _in_thread(_unshared)

    def enter(self) -> None:
        """Move the calling thread in; a child calls it between fork and exec."""
        _checked(_libc.setns(self.fd, _CLONE_NEWNET))

    def call(self, function: Callable[[], T]) -> T:
        """The result of `function()` called inside, e.g. a socket that lives there."""

        def inside() -> T:
            self.enter()
            return function()

        return _in_thread(inside)

    def ip(self, *commands: str, passing: tuple[int, ...] = ()) -> None:
        """Run ip(8) commands inside, as one batch; `passing` descriptors keep their numbers."""
        self._tool(["ip", "-batch", "-"], "\n".join(commands) + "\n", passing)

    def nft(self, ruleset: str) -> None:
        """Load an nftables ruleset inside, all or nothing (nft(8))."""
        self._tool(["nft", "-f", "-"], ruleset, ())

    def nft_json(self, command: str) -> Any:
        """What an nftables command says, e.g. `list ruleset` (libnftables-json(5))."""
        return json.loads(self._tool(["nft", "-j", *command.split()], "", ()))["nftables"]

    def sysctl(self, key: str, value: int) -> None:
        """Set a kernel parameter of this namespace; one that the kernel lacks is passed over."""

        def write() -> None:
            with contextlib.suppress(FileNotFoundError):
                with open("/proc/sys/" + key.replace(".", "/"), "w") as file:
                    file.write(str(value))

        self.call(write)

    def _tool(self, argv: list[str], text: str, passing: tuple[int, ...]) -> str:
        done = subprocess.run(
            argv,
            input=text,
            text=True,
            capture_output=True,
            timeout=60,
            pass_fds=passing,
            preexec_fn=self.enter,
            check=False,
        )
        if done.returncode:
            raise OSError(f"{' '.join(argv)}: {done.stderr.strip()}\n{text}")
        return done.stdout

    def close(self) -> None:
        """Let go: the namespace ends once no process is left inside."""
        os.close(self.fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def join_veth(near: Namespace, near_name: str, far: Namespace, far_name: str) -> None:
    """A virtual cable (veth(4)) between two namespaces; both ends still down and unaddressed."""
    near.ip(
        f"link add {near_name} type veth peer name {far_name} netns /proc/self/fd/{far.fd}",
        passing=(far.fd,),
    )
