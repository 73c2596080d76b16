"""What the acceptance tests see of a program: its exit, its lines, its events, its memory."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

from tests.lab.nodes import ROOT, Json, Node, Process, environment

QUIET = ("--set", "links.auto=false", "--set", "links.direct=false")
"""No links but those that are asked for."""
LINKS_MOST = 14
"""Links that a node keeps as shipped: ``links.max``, and two more for others' long links."""


def sh(*argv: str, timeout: float = 120.0, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """An external command to its end."""
    return subprocess.run(
        argv,
        capture_output=True,
        text=True,
        timeout=timeout,
        cwd=cwd,
        env=environment(),
        check=False,
    )


def suite(path: str, words: str) -> None:
    """The project's own tests of that name: at least one, all passed, none skipped."""
    done = sh(sys.executable, "-m", "pytest", "-q", "-x", "--no-header", "-p", "no:cacheprovider",
              path, "-k", words, timeout=300)  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    summary = done.stdout.strip().splitlines()[-1]
    assert re.search(r"\b[1-9]\d* passed", summary), summary
    assert "skipped" not in summary, summary
    assert "xfailed" not in summary, summary


def one_line_error(done: subprocess.CompletedProcess[str], *words: str, code: int = 2) -> str:
    """That a command failed as a user should see it fail; the line."""
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    assert len(lines) == 1, done.stderr
    assert "Traceback" not in done.stderr
    for word in words:
        assert re.search(word, lines[0], re.IGNORECASE), (word, lines[0])
    return lines[0]


def failed_up(node: Node, *args: str, **keywords: str | None) -> str:
    """Run an `up` that must not come up; its one line of error."""
    process = node.start(*args, **keywords)
    code = process.popen.wait(30)
    process.out.finish()
    process.err.finish()
    done = subprocess.CompletedProcess([], code, "".join(process.out.all), process.log)
    return one_line_error(done)


def next_event(process: Process, event: str, timeout: float) -> Json:
    """The next event of this name that `up --json` prints."""
    deadline = time.monotonic() + timeout
    while True:
        line: Json = json.loads(process.out.next(max(0.0, deadline - time.monotonic())))
        if line["event"] == event:
            return line


def resident(node: Node) -> int:
    """Resident bytes of the running process (proc(5), statm)."""
    assert node.process is not None
    pages = Path(f"/proc/{node.process.popen.pid}/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")
