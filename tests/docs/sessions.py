"""Run the terminal sessions of a page, as a reader would type them, in a clone of their own.

A block ``console`` or ``console NAME`` belongs to the terminal of that name. ``$ `` starts a
command, ``^C`` interrupts the one in the foreground, and every other line has to appear in what
the terminal's command prints, in this order; ``…`` stands for anything. What stays in the
foreground (a node, a subscription) goes on while other terminals do their part; a later block of
its terminal may show what it has printed meanwhile. It is interrupted when the page ends.
"""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
STAYS = re.compile(r"\boverlay (?:up|join|subscribe|receive)\b[^|]*$|^overlay chat\b")
READY = re.compile(r"Ctrl-C (?:leaves|ends it)")
PATIENCE = 40.0
"""Seconds for any one command to end, or to print what the page shows (guess)."""


@dataclass
class Step:
    """A command of a page and what the page shows beneath; none: the one before has gone on."""

    terminal: str
    command: str = ""
    shown: list[str] = field(default_factory=list)


def blocks(text: str, *languages: str) -> list[tuple[str, str]]:
    """The fenced blocks in these languages: the rest of the info string, and the body."""
    return [(info.strip(), body) for name, info, body in BLOCK.findall(text) if name in languages]


def steps(text: str) -> list[Step]:
    """The commands of a page in the order in which it shows them."""
    found: list[Step] = []
    for terminal, body in blocks(text, "console"):
        found.append(Step(terminal))
        for line in body.replace("\\\n", " ").splitlines():
            if line.startswith("$ "):
                found.append(Step(terminal, line[2:]))
            elif line == "^C":
                found.append(Step(terminal, line))
            elif line.strip():
                found[-1].shown.append(line.rstrip())
    return [step for step in found if step.command or step.shown]


class Running:
    """One command line under bash, its output collected as it comes."""

    def __init__(self, step: Step, directory: Path) -> None:
        self.command = step.command
        self.lines: list[str] = []
        self._seen = 0
        self.process = subprocess.Popen(
            ["bash", "-o", "pipefail", "-c", self.command],
            cwd=clone_in(directory),
            env=environment(directory),
            stdin=subprocess.PIPE if STAYS.search(step.command) else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            self.lines.extend(line.rstrip("\n") for line in lines)

    def finish(self, shown: list[str]) -> None:
        """Wait for the end; it must be a good one and show what the page shows."""
        try:
            code = self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"still running: {self}") from None
        self._reader.join(5)
        assert code == 0, f"exit {code}: {self}"
        assert self._shows(shown), f"does not show what the page shows: {shown} {self}"

    def settle(self, shown: list[str]) -> None:
        """Wait until what stays in the foreground has printed what the page shows, or anything."""
        deadline = time.monotonic() + PATIENCE
        while not (self._is_up() and self._shows(shown)):
            assert self.process.poll() is None, f"has ended: {self}"
            assert time.monotonic() < deadline, f"does not show what the page shows: {shown} {self}"
            time.sleep(0.05)

    def _is_up(self) -> bool:
        """Whether it says how to end it: what stays does that once it is ready."""
        return any(READY.search(line) for line in self.lines)

    def interrupt(self) -> None:
        """Ctrl-C: everything in this terminal ends, and quietly."""
        os.killpg(self.process.pid, signal.SIGINT)
        code = self.process.wait(PATIENCE)
        assert code in {0, 130, -signal.SIGINT}, f"exit {code} on Ctrl-C: {self}"

    def kill(self) -> None:
        """End it whatever it does."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        if self.process.stdin is not None:
            self.process.stdin.close()

    def _shows(self, shown: list[str]) -> bool:
        """Whether these lines are among ours, in this order, behind those already found."""
        at = self._seen
        for pattern in shown:
            found = [n for n in range(at, len(self.lines)) if _matches(pattern, self.lines[n])]
            if not found:
                return False
            at = found[0] + 1
        self._seen = at
        return True

    def __str__(self) -> str:
        return f"$ {self.command}\n" + "\n".join(self.lines)


def _matches(shown: str, line: str) -> bool:
    pattern = ".*".join(re.escape(part) for part in re.sub(r"\s+", " ", shown).split("…"))
    return re.fullmatch(pattern, re.sub(r"\s+", " ", line).rstrip()) is not None


def environment(directory: Path) -> dict[str, str]:
    """A home of its own, this tree's `overlay` on the path, loopback alone."""
    kept = {
        key: value for key, value in os.environ.items() if not key.startswith(("OVERLAY", "XDG"))
    }
    return {
        **kept,
        "HOME": str(directory),
        "XDG_RUNTIME_DIR": str(directory),
        "PATH": f"{directory / 'bin'}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "PYTHONUNBUFFERED": "1",
        "COLUMNS": "80",
        "LINES": "24",
        "OVERLAY_LISTEN": "127.0.0.1:0",
    }


def play(text: str, directory: Path) -> None:
    """Run a page's sessions from first to last; nothing is left running, or lying in the clone."""
    _install(directory)
    subprocess.run(["git", "init", "--quiet", clone_in(directory)], check=True)
    foreground: dict[str, Running] = {}
    try:
        for step in steps(text):
            _take(step, foreground, directory)
        for running in reversed(foreground.values()):
            running.interrupt()
        left = left_behind(clone_in(directory))
        assert not left, f"left in the clone: {left}"
    finally:
        for running in foreground.values():
            running.kill()


def clone_in(directory: Path) -> Path:
    """Where a reader types: beside the home, not in it."""
    return directory / "clone"


def left_behind(clone: Path) -> list[str]:
    """What git sees there that it does not track, ignored or not, but for Python's caches."""
    argv = ["git", "-C", str(clone), "status", "--porcelain", "--ignored", "--untracked-files=all"]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    return [line for line in done.stdout.splitlines() if "__pycache__" not in line]


def _take(step: Step, foreground: dict[str, Running], directory: Path) -> None:
    if step.command == "^C":
        ended = foreground.pop(step.terminal)
        ended.interrupt()
        ended.kill()
    elif not step.command:
        foreground[step.terminal].settle(step.shown)
    else:
        assert step.terminal not in foreground, f"terminal busy: {step}"
        running = foreground[step.terminal] = Running(step, directory)
        if STAYS.search(step.command):
            running.settle(step.shown)
        else:
            running.finish(step.shown)
            del foreground[step.terminal]


def _install(directory: Path) -> None:
    """`overlay` and `python` of this very tree and interpreter."""
    (directory / "bin").mkdir()
    for name, arguments in (("overlay", "-m overlay"), ("python", "")):
        command = directory / "bin" / name
        command.write_text(f'#!/bin/sh\nexec {sys.executable} {arguments} "$@"\n')
        command.chmod(0o755)
