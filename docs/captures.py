"""Run what the pages show in terminals of 80 × 24, and write it: ``python -m docs.captures``.

A page marks a capture with ``<!-- capture: NAME -->`` and ``<!-- end -->``. What differs from run
to run is made neutral: in place of ids and links stand others that belong to nobody, each the same
everywhere; ports, times and sizes become round ones of the same width.
"""

import difflib
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing
from pathlib import Path

from docs import answers
from docs.terminal import COLUMNS, Terminal

DOCS = Path(__file__).parent
ROOT = DOCS.parent
CAPTURE = re.compile(r"(<!-- capture: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
LIMIT = 270.0
"""Seconds for all of it (guess); on a quiet machine it takes some twenty."""
BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
BASE32 = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
HOME = "/var/home/you"
"""As long as a directory that is made in /tmp: what is wrapped is wrapped there, too."""
LINK = re.compile(r"overlay:[\w-]{40,}", re.IGNORECASE)
READY = r"Ctrl-C"
WITH_ROOM = re.compile(r"( age| 0s) +(?:hops|0)\b(?: +(?:dir|in|out)\b)? *$", re.MULTILINE)
"""The last columns of `overlay peers` have room or not, as the numbers before them are long."""
INTERRUPT = "\x03"


class Stage:
    """A home directory, the nodes that run in it, and the commands that a reader would type."""

    def __init__(self, home: Path, stack: ExitStack) -> None:
        self.home = home
        self.nodes: list[str] = []
        """Their peer ids."""
        self._stack = stack
        self._deadline = time.monotonic() + LIMIT
        (home / "bin").mkdir()
        command = home / "bin" / "overlay"
        command.write_text(f'#!/bin/sh\nexec {sys.executable} -m overlay "$@"\n')
        command.chmod(0o755)
        kept = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith(("OVERLAY", "XDG", "COVERAGE"))
            and key not in {"COLUMNS", "LINES"}
        }
        self.environment = kept | {
            "HOME": str(home),
            "XDG_RUNTIME_DIR": str(home),
            "PATH": f"{home / 'bin'}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
            "TZ": "UTC",
            "LC_ALL": "C.UTF-8",
            "OVERLAY_LISTEN": "127.0.0.1:0",
            "OVERLAY_LOG_LEVEL": "warning",  # the log comes when it comes
        }

    def begin(self, command: str, until: str = READY) -> Terminal:
        """What stays in the foreground, once it shows this."""
        terminal = self._terminal(command)
        terminal.read_until(until, self.patience())
        return terminal

    def shown(self, command: str, code: int = 0) -> str:
        """What a command that ends shows, under itself."""
        terminal = self._terminal(command)
        ended = terminal.read_to_end(self.patience())
        assert ended == code, f"exit {ended}: $ {command}\n{terminal.screen.text()}"
        return prompted(terminal)

    def asked(self, command: str) -> str:
        """What a command says to a program."""
        argv = ["bash", "-o", "pipefail", "-c", command]
        return subprocess.run(
            argv,
            cwd=self.home,
            env=self.environment,
            timeout=self.patience(),
            check=True,
            capture_output=True,
            text=True,
        ).stdout

    def meet(self, name: str) -> None:
        """Learn the peer id of a node, to be made neutral."""
        status = json.loads(self.asked(f"overlay status --json --data-dir ~/{name}"))
        self.nodes.append(status["peer_id"])

    def end(self, terminal: Terminal) -> None:
        """Ctrl-C, and wait for what comes of it."""
        terminal.type(INTERRUPT)
        terminal.read_to_end(self.patience())

    def patience(self) -> float:
        """Seconds that are left."""
        return max(0.0, self._deadline - time.monotonic())

    def _terminal(self, command: str) -> Terminal:
        return self._stack.enter_context(closing(Terminal(command, self.home, self.environment)))


def prompted(terminal: Terminal) -> str:
    """A command after its prompt, and all that its terminal shows."""
    return f"$ {terminal.command}\n{terminal.screen.text()}"


# --- what is shown -------------------------------------------------------------------------------


def play(stage: Stage) -> Iterator[tuple[str, str]]:
    """Every capture by its name, in the order of a first hour."""
    ada = stage.begin("overlay up --data-dir ~/ada --name ada")
    stage.meet("ada")
    yield "up", prompted(ada)
    stage.asked("overlay invite --data-dir ~/ada > ~/invite.txt")
    yield "invite-show", stage.shown("overlay invite show - < ~/invite.txt")
    enter = "overlay join - --data-dir ~/bob --name bob"
    bob = stage.begin(f"overlay invite --data-dir ~/ada | {enter}")
    stage.meet("bob")
    stage.asked("overlay wait --peers 1 --data-dir ~/ada")
    stage.asked("until overlay peers --json --data-dir ~/ada | grep '\"rtt\": [0-9]'; do :; done")
    yield "peers", stage.shown("overlay peers --data-dir ~/ada")
    yield "ping", stage.shown("overlay ping -c 3 bob --data-dir ~/ada")
    yield "status", stage.shown("overlay status --data-dir ~/ada")
    yield "chat", chat(stage)
    yield from alone(stage, ada, bob)
    yield "sim", stage.shown("overlay sim run first-mesh")
    for name, command in answers.COMMANDS.items():
        yield name, f"$ {command}\n" + answered(stage, name)


def chat(stage: Stage) -> str:
    """Ada sits in the room; bob says one thing through a pipe."""
    room = stage.begin("overlay chat --data-dir ~/ada", "in lobby")
    stage.asked('echo "hello from there" | overlay chat --data-dir ~/bob')
    room.read_until(r"\* bob left", stage.patience())
    room.type("nice to see you\n")
    room.read_until("nice to see you", stage.patience())
    shown = prompted(room)
    stage.end(room)
    return shown


def alone(stage: Stage, ada: Terminal, bob: Terminal) -> Iterator[tuple[str, str]]:
    """What is said when the other side has gone."""
    for node in (bob, ada):
        stage.end(node)
    yield "no-node", stage.shown("overlay peers --data-dir ~/ada", code=3)
    late = "overlay join - --data-dir ~/cat --timeout 2 < ~/invite.txt"
    yield "no-answer", stage.shown(late, code=2)


def answered(stage: Stage, name: str) -> str:
    """What a command prints of an answer that is kept in `docs.answers`."""
    shown = stage.shown(f"{sys.executable} -m docs.answers {name}")
    return shown.partition("\n")[2]


# --- what is made neutral ------------------------------------------------------------------------


def neutral(text: str, nodes: list[str], home: str) -> str:
    """The same without what only this run has; no row gets wider, and no id or link works."""
    text = _unwrapped(text)
    text = text.replace(home, HOME)
    text = LINK.sub(lambda link: _made_up(link[0]), text)
    text = _qr_described(text)
    for number, node in enumerate(nodes):
        text = _renamed(text, node, made_up_id(number))
    text = re.sub(r"\([0-9a-f]{16}…\)", "(5eed000000000000…)", text)
    text = re.sub(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d", "2026-12-01 10:00", text)
    text = re.sub(r"\b(127\.0\.0\.1):\d{4,5}\b", r"\1:41820", text)
    text = re.sub(r"\b[\d.]+/[\d.]+/[\d.]+ ms", "0.5/0.5/0.5 ms", text)
    text = re.sub(r"\b\d+\.\d ms", _as_wide("0.5 ms"), text)
    text = re.sub(r"\b\d+ a second\b", "9000 a second", text)
    text = re.sub(r"\b(?:\d+m )?\d+s\b", _as_wide("2s"), text)
    text = re.sub(r"\b\d+(?:\.\d)? (?:KiB|B)\b", _as_wide("9 KiB"), text)
    return "\n".join(_cut(row) for row in text.split("\n"))


def _as_wide(text: str) -> Callable[[re.Match[str]], str]:
    """This text in place of what was found, in a column as wide as that if it can be."""

    def instead(found: re.Match[str]) -> str:
        is_in_column = found.string[: found.start()].endswith("  ")
        return text.rjust(len(found[0])) if is_in_column else text

    return instead


def _unwrapped(text: str) -> str:
    """A link that the terminal has wrapped, in one piece again."""
    rows: list[str] = []
    for row in text.split("\n"):
        before = rows[-1].rpartition("\n")[2] if rows else ""
        if rows and "overlay:" in before.lower() and len(before) % COLUMNS == 0 and " " not in row:
            rows[-1] += row
        else:
            rows.append(row)
    return "\n".join(rows)


def _cut(row: str) -> str:
    """A row as the terminal shows it: a long one goes on below."""
    return "\n".join(row[at : at + COLUMNS] for at in range(0, max(1, len(row)), COLUMNS))


def _made_up(link: str) -> str:
    """A link of the same form and length that leads nowhere."""
    head, body = link[: len("overlay:")], link[len("overlay:") :]
    cases = {str.isupper: BASE32, str.islower: BASE32.lower()}
    alphabet = next((letters for is_of, letters in cases.items() if is_of(body)), BASE58)
    seed = hashlib.shake_256(b"a link").digest(len(body))
    return head + "".join(alphabet[byte % len(alphabet)] for byte in seed)


def made_up_id(number: int) -> str:
    """A peer id that is nobody's."""
    seed = hashlib.shake_256(b"peer %d" % number).digest(44)
    return "12D3KooW" + "".join(BASE58[byte % 58] for byte in seed)


def _renamed(text: str, real: str, made: str) -> str:
    """Any piece of an id, from six characters on, by the same piece of the other."""

    def piece(word: re.Match[str]) -> str:
        at = real.find(word[0])
        return word[0] if at < 0 else made[at : at + len(word[0])]

    return re.sub(rf"[{BASE58}]{{6,}}", piece, text)


def _qr_described(text: str) -> str:
    """A QR code is a secret like the link in it: its size is told in its place."""
    rows: list[str] = []
    code: list[str] = []
    for row in [*text.split("\n"), ""]:
        if len(row) > 20 and set(row) <= set(" █▀▄"):
            code.append(row)
            continue
        if code:
            width = max(map(len, code))
            rows.append(f"[here is the QR code, {width} columns wide and {len(code)} lines high]")
            code = []
        rows.append(row)
    return "\n".join(rows[:-1])


def shape(text: str) -> str:
    """What has to be the same each time: all but ids, numbers and the blanks between."""
    text = re.sub(r"[0-9A-Za-z]{16,}(?:\n[0-9A-Za-z]+(?=\n))*", "ID", text)
    text = re.sub(r"\d+(?:[.,]\d+)*", "0", text)
    text = WITH_ROOM.sub(r"\1", text)
    return " ".join(text.replace(" …", "…").split())


# --- what is written -----------------------------------------------------------------------------


def captures() -> dict[str, str]:
    """Everything, from nothing: the text of each block."""
    with (
        tempfile.TemporaryDirectory(prefix="", dir="/tmp") as directory,
        ExitStack() as stack,
    ):
        stage = Stage(Path(directory), stack)
        found = list(play(stage))
        return {name: neutral(text, stage.nodes, directory) for name, text in found}


def filled(text: str, found: Mapping[str, str]) -> str:
    """A page with its captures."""
    return CAPTURE.sub(lambda part: f"{part[1]}```text\n{found[part[2]]}\n```\n{part[3]}", text)


def pages() -> list[Path]:
    """Every page that shows a capture."""
    every = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
    return [page for page in every if CAPTURE.search(page.read_text())]


def differing(texts: Mapping[Path, str], found: Mapping[str, str]) -> Iterator[tuple[Path, str]]:
    """The pages that differ from what was captured by more than numbers, and how they should be."""
    for page, before in texts.items():
        after = filled(before, found)
        if shape(after) != shape(before):
            yield page, after


def _difference(before: str, after: str) -> Iterator[str]:
    return difflib.unified_diff(before.splitlines(keepends=True), after.splitlines(keepends=True))


def main(*, check: bool) -> int:
    """Write what differs and name it; with `check` only name it, and 1."""
    texts = {page: page.read_text() for page in pages()}
    wrong = dict(differing(texts, captures()))
    for page, text in wrong.items():
        sys.stdout.write(f"{'differs' if check else 'wrote'}: {page.relative_to(ROOT)}\n")
        if check:
            sys.stdout.writelines(_difference(texts[page], text))
        else:
            page.write_text(text)
    return int(check and bool(wrong))


if __name__ == "__main__":
    sys.exit(main(check=sys.argv[1:] == ["--check"]))
