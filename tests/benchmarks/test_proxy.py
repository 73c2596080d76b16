"""The lossy path: what it delays, what it drops, and whom it carries for."""

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from benchmarks import proxy


@contextmanager
def path(monkeypatch: pytest.MonkeyPatch, delay: float, loss: float) -> Iterator[proxy.Path]:
    monkeypatch.setattr(proxy, "ADDRESS", "127.0.0.1")
    made = proxy.Path(delay, loss, 1, None)
    try:
        yield made
    finally:
        made.left.socket.close()
        made.right.socket.close()


def peer() -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.bind(("127.0.0.1", 0))
    made.settimeout(30.0)
    return made


def carry(made: proxy.Path) -> None:
    """Until nothing is under way."""
    while (wait := made.deliver()) is not None:
        time.sleep(wait)


def test_each_peer_is_known_by_its_first_datagram(monkeypatch: pytest.MonkeyPatch) -> None:
    with path(monkeypatch, 0.0, 0.0) as made, peer() as left, peer() as right:
        right.sendto(b"here", ("127.0.0.1", made.right.port))
        made.read(made.right)
        carry(made)
        left.sendto(b"hello", ("127.0.0.1", made.left.port))
        made.read(made.left)
        carry(made)
        assert right.recvfrom(100) == (b"hello", ("127.0.0.1", made.right.port))


def test_everything_takes_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    with path(monkeypatch, 60.0, 0.0) as made, peer() as left:
        left.sendto(b"hello", ("127.0.0.1", made.left.port))
        made.read(made.left)
        wait = made.deliver()
        assert wait is not None
        assert 30 < wait <= 60


@pytest.mark.parametrize(("loss", "least", "most"), [(0.0, 300, 300), (0.5, 100, 200), (1.0, 0, 0)])
def test_some_gets_lost(
    monkeypatch: pytest.MonkeyPatch, loss: float, least: int, most: int
) -> None:
    with path(monkeypatch, 60.0, loss) as made, peer() as left:
        for _ in range(300):
            left.sendto(b"x", ("127.0.0.1", made.left.port))
            made.read(made.left)
        assert least <= made.right.queued <= most


def test_a_full_queue_drops(monkeypatch: pytest.MonkeyPatch) -> None:
    with path(monkeypatch, 60.0, 0.0) as made, peer() as left:
        for _ in range(2 * proxy.QUEUE_BYTES // 1000):
            left.sendto(bytes(1000), ("127.0.0.1", made.left.port))
            made.read(made.left)
        assert made.right.queued <= proxy.QUEUE_BYTES
