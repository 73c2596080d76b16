"""Peers in processes of their own, and what arrives at them."""

import os
import subprocess
import sys

import pytest

from benchmarks import tally
from benchmarks.peer import ROOT, Peer, PeerFailed, cpu_seconds, descriptors, resident_bytes
from benchmarks.tally import Tally

ECHO = "tests.benchmarks.echo"


def test_answers_come_in_the_order_of_the_commands() -> None:
    with Peer(ECHO) as peer:
        peer.tell("echo", number=1)
        peer.tell("echo", number=2)
        assert [peer.answer()["number"], peer.answer()["number"]] == [1, 2]


@pytest.mark.parametrize(
    ("command", "why"), [("fail", "as asked"), ("end", "has ended"), ("hush", "said nothing")]
)
def test_a_peer_that_misbehaves_is_named(command: str, why: str) -> None:
    with Peer(ECHO) as peer, pytest.raises(PeerFailed, match=why):
        peer.ask(command, timeout=60.0 if command != "hush" else 0.01)


def test_a_peer_ends_with_its_owner() -> None:
    with Peer(ECHO) as peer:
        peer.ask("echo")
    with pytest.raises(ProcessLookupError):
        os.kill(peer.pid, 0)


def test_the_kernel_tells_memory_descriptors_and_time() -> None:
    with Peer(ECHO) as peer:
        peer.ask("echo")
        assert resident_bytes(peer.pid) > 1 << 20
        assert descriptors(peer.pid) >= 3
        assert cpu_seconds(peer.pid) > 0


def test_a_tally_finds_the_longest_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([1.0, 1.5, 1.75, 3.0])
    monkeypatch.setattr(tally, "perf_counter", lambda: next(times))
    arrived = Tally()
    for _ in range(4):
        arrived.delivered(100)
    assert arrived.figures() == {"count": 4, "bytes": 400, "rate": 1.5, "gap": 1.25}


def test_an_empty_tally_has_no_rate() -> None:
    assert Tally().figures() == {"count": 0, "bytes": 0, "rate": 0.0, "gap": 0.0}


def python(code: str) -> "subprocess.CompletedProcess[str]":
    argv = [sys.executable, "-c", code]
    return subprocess.run(argv, check=False, cwd=ROOT, capture_output=True, text=True)


def test_the_rival_runs_without_trio_asyncio() -> None:
    code = "import sys, benchmarks.stock; sys.exit('trio_asyncio' in sys.modules)"
    assert python(code).returncode == 0


def test_the_rival_refuses_a_patched_asyncio() -> None:
    code = "import trio_asyncio, benchmarks.stock; benchmarks.stock.main()"
    done = python(code)
    assert done.returncode == 1
    assert "must run on plain asyncio" in done.stderr
