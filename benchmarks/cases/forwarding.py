"""What it costs to pass other people's messages on, now and before that was made cheaper."""

import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks.measure import Bar, Case, Measure
from benchmarks.peer import ROOT, Peer, cpu_seconds

NODE = "benchmarks.node"
LINKS = 10
SIZE, RATE = 200, 100.0
WARM_SECONDS, SECONDS = 0.5, 4.0
EVERYBODY = {"auto": False, "mesh_size": LINKS + 2}
"""All ten are neighbours: each message that comes from one goes on to the nine others."""
BEFORE = "d2782da"
"""The commit that the cost is compared with."""
DRIVER = "71616d8"
"""The commit whose peers drive it: the last that called the library's modules what it does."""

FORWARDING = Measure(
    "forwarding-cpu",
    f"node with {LINKS} links forwarding {RATE:g} messages/s of {SIZE} bytes; rival: at {BEFORE}",
    "% of a core",
    Bar(0.5, of_ratio=True),
)


def forwarding(root: Path = ROOT) -> dict[str, float]:
    """The share of a core of the node in the middle; every message must get through."""
    with Peer(NODE, root=root) as tested, Peer(NODE, root=root) as crowd:
        tested.ask("start", **EVERYBODY)
        link = tested.ask("invite")["link"]
        for node in range(LINKS):
            crowd.ask("start", **EVERYBODY)
            crowd.ask("join", node=node, link=link)
        tested.ask("wait", links=LINKS)
        crowd.ask("subscribe")
        warm = crowd.ask("publish", size=SIZE, rate=RATE, seconds=WARM_SECONDS)["sent"]
        crowd.ask("heard", count=warm)
        started, used = time.monotonic(), cpu_seconds(tested.pid)
        sent = crowd.ask("publish", size=SIZE, rate=RATE, seconds=SECONDS)["sent"]
        used = cpu_seconds(tested.pid) - used
        elapsed = time.monotonic() - started
        for delays in crowd.ask("heard", count=warm + sent)["delays"]:
            assert len(delays) == warm + sent, "not each message once"
    return {FORWARDING.name: 100 * used / elapsed}


def before() -> dict[str, float]:
    """The same with the library as it was, from the repository's history, and peers that fit it.

    RuntimeError: this copy of the repository has no such history.
    """
    with tree_of(BEFORE) as root:
        return forwarding(root)


@contextmanager
def tree_of(commit: str) -> Iterator[Path]:
    """A directory with the library as of a commit, and the benchmarks that know its names."""
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for then, part in ((commit, "overlay"), (DRIVER, "benchmarks")):
            command = ["git", "archive", "--output", str(root / "tree.tar"), then, part]
            done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
            if done.returncode:
                raise RuntimeError(f"no commit {then} to compare with: {done.stderr.strip()}")
            shutil.unpack_archive(root / "tree.tar", root)
        yield root


CASES = (Case("forwarding", (FORWARDING,), forwarding, before),)
