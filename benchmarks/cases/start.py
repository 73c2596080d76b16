"""How long a person waits: from ``overlay join`` to the first link, and the import alone."""

import json
import os
import subprocess
import sys
import tempfile
import time

from benchmarks.measure import Bar, Case, Measure
from benchmarks.peer import ROOT, Peer

NODE = "benchmarks.node"
OVERLAY = (sys.executable, "-m", "overlay")
JOIN = Measure("join-start", "`overlay join` from process start to first link", "s", Bar(1.5))
WORDS = Measure("words", "`overlay --version` and `--help`, the slower of the two", "s", Bar(0.15))
IMPORT = Measure("import", "`import overlay`", "s", Bar(0.4))
NO_BYTECODE = "PYTHONDONTWRITEBYTECODE"
"""What keeps Python from keeping what it has compiled, as on some machines that test."""
_IMPORT = """
from time import perf_counter
started = perf_counter()
import overlay
print(perf_counter() - started)
"""


def join() -> dict[str, float]:
    """The command itself, on an empty data directory; the invite goes in by stdin.

    It says ``ready`` once it has joined, which is a little after the first link stands.
    """
    with Peer(NODE) as listener, tempfile.TemporaryDirectory() as directory:
        listener.ask("start")
        link = listener.ask("invite")["link"]
        environment = {k: v for k, v in os.environ.items() if not k.startswith("OVERLAY_")}
        command = [*OVERLAY, "join", "-", "--json", "--data-dir", directory]
        started = time.monotonic()
        joiner = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        with joiner:
            assert joiner.stdin is not None
            assert joiner.stdout is not None
            joiner.stdin.write(link.encode() + b"\n")
            joiner.stdin.close()
            ready = json.loads(joiner.stdout.readline())
            taken = time.monotonic() - started
            listener.ask("wait", links=1)
            joiner.terminate()
    assert ready["event"] == "ready", ready
    return {JOIN.name: taken}


def words() -> dict[str, float]:
    """What every command costs before it does anything: the process, Python and all.

    Each is run a second time: the first compiles what it imports, once after an installation.
    """
    kept = {key: text for key, text in os.environ.items() if key != NO_BYTECODE}
    slowest = 0.0
    with tempfile.TemporaryDirectory() as cache:
        environment = {**kept, "PYTHONPYCACHEPREFIX": cache}
        for word in ("--version", "--help"):
            for _ in range(2):
                started = time.monotonic()
                subprocess.run(
                    [*OVERLAY, word], cwd=ROOT, env=environment, check=True, capture_output=True
                )
                taken = time.monotonic() - started
            slowest = max(slowest, taken)
    return {WORDS.name: slowest}


def import_package() -> dict[str, float]:
    """The import alone, in a fresh interpreter."""
    command = [sys.executable, "-c", _IMPORT]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return {IMPORT.name: json.loads(done.stdout)}


CASES = (
    Case("join", (JOIN,), join),
    Case("words", (WORDS,), words),
    Case("import", (IMPORT,), import_package),
)
