"""A long, lossy path for UDP: everything takes its time, and some of it gets lost.

``python -m benchmarks.proxy``: two sockets, one facing each peer. What comes in at one leaves,
later, through the other for the peer there, who is known by its first datagram, or was named.
"""

import heapq
import json
import random
import selectors
import socket
import sys
import time
from typing import Any

from benchmarks.network import ADDRESS

DATAGRAM_BYTES = 2048
QUEUE_BYTES = 1 << 18
"""What may be under way in one direction; a router's queue drops what is beyond."""


class Side:
    """The socket that one peer talks to."""

    def __init__(self, peer: tuple[str, int] | None) -> None:
        self.peer = peer
        self.queued = 0
        """Bytes on their way to this peer."""
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self.socket.bind((ADDRESS, 0))
        self.socket.settimeout(0)
        self.port: int = self.socket.getsockname()[1]


class Path:
    """Two sides and what is under way between them."""

    def __init__(self, delay: float, loss: float, seed: int, peer: tuple[str, int] | None) -> None:
        """`delay`: seconds one way. `loss`: probability. `peer`: who is on the right, if known."""
        self.left, self.right = Side(None), Side(peer)
        self._delay, self._loss = delay, loss
        self._random = random.Random(seed)
        self._under_way: list[tuple[float, int, Side, bytes]] = []
        self._count = 0

    def read(self, side: Side) -> None:
        """Take in what has come at one side."""
        other = self.right if side is self.left else self.left
        while True:
            try:
                data, sender = side.socket.recvfrom(DATAGRAM_BYTES)
            except BlockingIOError:
                return
            except OSError:
                continue  # an ICMP error for something sent earlier
            side.peer = side.peer or sender
            if self._random.random() < self._loss or other.queued + len(data) > QUEUE_BYTES:
                continue
            other.queued += len(data)
            self._count += 1
            heapq.heappush(
                self._under_way, (time.monotonic() + self._delay, self._count, other, data)
            )

    def deliver(self) -> float | None:
        """Send on what has arrived; seconds until there is more, None for nothing under way."""
        while self._under_way:
            at, _, side, data = self._under_way[0]
            wait = at - time.monotonic()
            if wait > 0:
                return wait
            heapq.heappop(self._under_way)
            side.queued -= len(data)
            if side.peer is not None:
                try:
                    side.socket.sendto(data, side.peer)
                except OSError:
                    pass  # the peer has ended, or the kernel is full: lost
        return None


def main(delay: float, loss: float, seed: int, peer: tuple[str, int] | None) -> None:
    """Say where the two sides are, then carry datagrams until the input ends."""
    path = Path(delay, loss, seed, peer)
    told: dict[str, Any] = {"left": path.left.port, "right": path.right.port}
    print(json.dumps(told), flush=True)
    with selectors.DefaultSelector() as selector:
        selector.register(sys.stdin, selectors.EVENT_READ, None)
        for side in (path.left, path.right):
            selector.register(side.socket, selectors.EVENT_READ, side)
        while True:
            for key, _ in selector.select(path.deliver()):
                if key.data is None:
                    return
                path.read(key.data)


if __name__ == "__main__":
    host, port = sys.argv[4:6] if len(sys.argv) > 4 else ("", "0")
    named = (host, int(port)) if host else None
    main(float(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]), named)
