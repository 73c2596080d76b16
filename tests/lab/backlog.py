"""How far behind a UDP socket's reader is: so that a flood is read, not dropped by the kernel."""

import time
from pathlib import Path

HIGH_WATER = 512 * 1024
"""Bytes waiting in the socket above which a sender pauses; receive buffers here hold 4 MiB."""
LONGEST_PAUSE = 10.0


def backlog(port: int) -> tuple[int, int]:
    """Bytes waiting at the IPv4 UDP sockets on this port, and datagrams dropped there (proc(5))."""
    waiting = dropped = 0
    for line in Path("/proc/self/net/udp").read_text().splitlines()[1:]:
        fields = line.split()
        if int(fields[1].rsplit(":", 1)[1], 16) == port:
            waiting += int(fields[4].split(":")[1], 16)
            dropped += int(fields[12])
    return waiting, dropped


class Pace:
    """Lets a sender go on while the reader at `port` keeps up."""

    def __init__(self, port: int) -> None:
        self._port = port

    def wait(self) -> None:
        """Return once little is waiting, or after ten seconds whatever is waiting."""
        deadline = time.monotonic() + LONGEST_PAUSE
        while backlog(self._port)[0] > HIGH_WATER and time.monotonic() < deadline:
            time.sleep(0.002)
