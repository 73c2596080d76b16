"""The trace hashes that three runs must have, and the command that writes them down anew.

A change that is meant to change nothing leaves them as they are. One that changes what nodes do or
draw changes them, on purpose: ``python -m tests.sim.scenario.golden`` renews the file, and its diff
says so.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

FILE = Path(__file__).with_name("golden.json")
RUNS: Mapping[str, str] = {
    "links that fail, crashes and a partition": "first-mesh --nodes 30",
    "a paper's experiment, with branches": "hyparview-first-message --nodes 60",
    "requests under churn": "signalling-churn --nodes 40 --set duration=170 "
    "--set churn.stop=170 --set requests.0.stop=165",
}
"""What each run is there for, and what follows `overlay sim run`."""


def golden() -> dict[str, str]:
    """The hashes as they were written down, by what follows `overlay sim run`."""
    hashes: dict[str, str] = json.loads(FILE.read_text())
    return hashes


def hash_of(run: str, hash_seed: str) -> str:
    """The trace hash of a run in a process of its own, under this PYTHONHASHSEED."""
    argv = [sys.executable, "-m", "overlay", "sim", "run", *run.split(), "--json"]
    env = {**os.environ, "PYTHONHASHSEED": hash_seed}
    done = subprocess.run(argv, capture_output=True, text=True, timeout=300, check=False, env=env)
    assert done.returncode == 0, done.stderr
    trace_hash: str = json.loads(done.stdout)["trace_hash"]
    return trace_hash


if __name__ == "__main__":
    renewed = {run: hash_of(run, "0") for run in RUNS.values()}
    FILE.write_text(json.dumps(renewed, indent=2) + "\n")
    print(FILE.read_text(), end="")
