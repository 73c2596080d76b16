"""What the acceptance tests see of a program: its exit, its lines, its events, its memory."""

import ast
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

from tests.lab.nodes import ROOT, Enter, Json, Node, Process, environment

QUIET = ("--set", "links.auto=false", "--set", "links.direct=false")
"""No links but those that are asked for."""
LINKS_MOST = 14
"""Links that a node keeps as shipped: ``links.max``, and two more for others' long links."""


def make(*words: str) -> tuple[str, ...]:
    """A command to make, with this interpreter's environment as it is: nothing is installed."""
    old = ("pyproject.toml", "constraints.txt")
    return ("make", *(f"--old-file={name}" for name in old), f"VENV={sys.prefix}", *words)


def sh(
    *argv: str, timeout: float = 120.0, cwd: Path = ROOT, enter: Enter | None = None
) -> subprocess.CompletedProcess[str]:
    """An external command to its end."""
    return subprocess.run(
        argv,
        capture_output=True,
        text=True,
        timeout=timeout,
        cwd=cwd,
        env=environment(),
        preexec_fn=enter,
        check=False,
    )


def suite(path: str, words: str) -> None:
    """The project's own tests of that name: there is at least one, and the run that this test is
    part of runs them all: none is skipped, awaited or left to ``make soak``.

    Whether they pass, they say themselves: to run them once more here would say it twice.
    """
    named = tests_named(path, words)
    assert named, f"no test in {path} is named {words}"
    for name, marks in named.items():
        left_out = [mark for mark in marks if re.match(rf"\[?pytest\.mark\.({LEFT_OUT})\b", mark)]
        assert not left_out, f"{name} proves nothing here: {left_out}"


LEFT_OUT = "skip|skipif|xfail|soak"
"""Marks of tests that do not run, that may fail, or that run elsewhere."""


def tests_named(path: str, words: str) -> dict[str, list[str]]:
    """Tests in a file, or below a directory, as ``pytest PATH -k WORDS`` has them: their marks."""
    root = ROOT / path
    found = {}
    for file in sorted(root.rglob("test_*.py")) if root.is_dir() else [root]:
        body = ast.parse(file.read_text()).body
        of_all = [
            ast.unparse(each.value)
            for each in body
            if isinstance(each, ast.Assign) and ast.unparse(each.targets[0]) == "pytestmark"
        ]
        for function in body:
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                name = f"{file.relative_to(ROOT)}::{function.name}"
                if function.name.startswith("test_") and is_meant(words, name):
                    found[name] = [*of_all, *map(ast.unparse, function.decorator_list)]
    return found


def is_meant(words: str, name: str) -> bool:
    """Whether an expression of words with and, or, not and brackets names this test."""

    def held(word: re.Match[str]) -> str:
        text = word.group()
        return text if text in {"and", "or", "not"} else str(text in name)

    return bool(eval(re.sub(r"\w+", held, words)))


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
