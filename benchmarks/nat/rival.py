"""Stock aiortc in homes of the laboratory: its processes, and one try of a pair."""

import itertools
import json
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any

from tests.lab.nat.laboratory import Home
from tests.lab.nat.mesh import SIZE, Mesh, Try
from tests.lab.nodes import ROOT, die_with_parent, environment

PATIENCE = 10.0
"""Seconds for a try (guess): the slowest that works takes half a second here, and aioice gives up
after 63.6 s."""
ANSWER_TIMEOUT = 60.0
_numbers = itertools.count()


class Rival:
    """The process in one home; commands may be under way several at once."""

    def __init__(self, home: Home, server: str) -> None:
        self.home = home
        self._waiting: dict[int, SimpleQueue[dict[str, Any]]] = {}

        def enter() -> None:
            die_with_parent()
            home.host.enter()

        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.nat.stock", server],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # what aioice says of checks that fail
            text=True,
            cwd=ROOT,
            env=environment(),
            preexec_fn=enter,  # noqa: PLW1509 (it takes no lock)
        )
        threading.Thread(target=self._read, daemon=True).start()

    def ask(self, what: str, **fields: Any) -> dict[str, Any]:
        """One command and its answer; RuntimeError for an error."""
        ticket = next(_numbers)
        answers = self._waiting[ticket] = SimpleQueue()
        stdin = self._process.stdin
        assert stdin is not None
        stdin.write(json.dumps({"do": what, "ticket": ticket, **fields}) + "\n")
        stdin.flush()
        answer = answers.get(timeout=ANSWER_TIMEOUT)
        if "error" in answer:
            raise RuntimeError(f"{what}: {answer['error']}")
        return answer

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            answer = json.loads(line)
            self._waiting.pop(answer.pop("ticket")).put(answer)

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()


def tries(mesh: Mesh, a: Rival, b: Rival, count: int) -> list[Try]:
    """So many tries of a pair, twice as many if one fails.

    From then on they are made all at once: each has ports of its own.
    """
    done = list[Try]()
    while len(done) < count:
        a.home.forget()
        b.home.forget()
        done.append(attempt(mesh, a, b))
        if not done[-1].connected:
            rest = 2 * count - len(done)
            with ThreadPoolExecutor(rest) as pool:
                made = [pool.submit(attempt, mesh, a, b, counted=False) for _ in range(rest)]
            return done + [each.result() for each in made]
    return done


def attempt(mesh: Mesh, a: Rival, b: Rival, *, counted: bool = True) -> Try:
    """One try; `counted`: with bytes that show which way they take."""
    kinds, number = (a.home.kind.name, b.home.kind.name), next(_numbers)
    try:
        offer = a.ask("offer", number=number)["sdp"]
        answer = b.ask("answer", number=number, sdp=offer)["sdp"]
        accepted = a.ask("accept", number=number, sdp=answer, patience=PATIENCE)
        if (seconds := accepted["seconds"]) is None:
            return Try(*kinds, PATIENCE, why=f"not within {PATIENCE:g} s")
        between = through = 0
        if counted:
            mesh.laboratory.reset_counters()
            a.ask("send", number=number, size=SIZE)
            _wait_for_bytes(b, number)
            between = mesh.laboratory.bytes_between(a.home, b.home)
            through = mesh.through(a.home, b.home)
        return Try(*kinds, seconds, path="reflexive", between=between, through=through)
    finally:
        for rival in (a, b):
            rival.ask("close", number=number)


def _wait_for_bytes(rival: Rival, number: int) -> None:
    deadline = time.monotonic() + 20.0
    while rival.ask("arrived", number=number)["bytes"] < SIZE and time.monotonic() < deadline:
        time.sleep(0.02)
