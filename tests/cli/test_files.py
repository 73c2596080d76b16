"""`overlay send` and `overlay receive` as people use them: commands that are killed, terminals."""

import contextlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from overlay.names import short_id
from tests.lab.nodes import OVERLAY, Crew, Node, Process, settled, wait_for
from tests.lab.terminal import on_terminal

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

PATIENCE = 60.0
BIG = 200 << 20
"""Bytes: seconds on the way, and zeros, which take no room on the disk that they come from."""


class Rows(Process):
    """A command with ``--json``."""

    def row(self, event: str) -> dict[str, Any]:
        """The next row of this kind."""
        while True:
            row: dict[str, Any] = json.loads(self.out.next(PATIENCE))
            if row["event"] == event:
                return row


@contextlib.contextmanager
def command(node: Node, *words: str) -> Iterator[Rows]:
    rows = Rows([*OVERLAY, *words, "--json", "--data-dir", str(node.directory)])
    try:
        yield rows
    finally:
        rows.kill()


@contextlib.contextmanager
def receiving(node: Node, into: Path, *words: str) -> Iterator[Rows]:
    """`overlay receive --from a`, ready."""
    with command(node, "receive", str(into), "--from", "a", *words) as receiver:
        receiver.row("ready")
        yield receiver


def fails(sender: Rows, text: str) -> None:
    """The command ends with exit code 1 and this in its last line."""
    assert sender.popen.wait(PATIENCE) == 1
    sender.err.finish()
    assert text in sender.err.all[-1]


@pytest.fixture
def into(tmp_path: Path) -> Path:
    directory = tmp_path / "into"
    directory.mkdir()
    return directory


@pytest.fixture
def big(tmp_path: Path) -> Path:
    path = tmp_path / "big.bin"
    with path.open("wb") as out:
        out.write(os.urandom(1 << 20))
        out.truncate(BIG)
    return path


def test_whoever_is_killed_the_other_says_so_and_the_next_send_goes_on(
    crew: Crew, big: Path, into: Path
) -> None:
    """Each command and each node in turn, once something of the file has come."""
    a = crew.node("a").up()
    b = crew.node("b").up(join=a.invite())
    settled([a, b])
    part = into / "big.bin.part"

    def begun(sender: Rows, least: int) -> None:
        sender.row("started")
        wait_for(lambda: part.exists() and part.stat().st_size > least, PATIENCE, "some of it")

    with receiving(b, into) as receiver:
        with command(a, "send", "b", str(big)) as sender:
            begun(sender, 0)
            sender.kill()
        failed = receiver.row("failed")
        assert (failed["text"], failed["name"]) == ("the sender has stopped", "a")
        kept = part.stat().st_size
        assert failed["kept"] == kept > 0
        with command(a, "send", "b", str(big)) as sender:
            assert sender.row("started")["offset"] == kept
            begun_at = kept + (1 << 20)
            wait_for(lambda: part.stat().st_size > begun_at, PATIENCE, "more of it")
            receiver.kill()
            fails(sender, "b has stopped receiving big.bin")
    kept = part.stat().st_size
    with receiving(b, into) as receiver:
        with command(a, "send", "b", str(big)) as sender:
            assert sender.row("started")["offset"] == kept
            a.kill()
            fails(sender, "the node is leaving, or gone")
        a.up()  # whose newer boot ends the old link sooner than its silence would
        assert receiver.row("failed")["kept"] > 0
    settled([a, b])
    kept = part.stat().st_size
    with receiving(b, into) as receiver, command(a, "send", "b", str(big)) as sender:
        assert sender.row("started")["offset"] == kept
        b.kill()
        assert receiver.popen.wait(PATIENCE) == 1
        b.up()
        fails(sender, "has not got through to b")
    settled([a, b])
    kept = part.stat().st_size
    with receiving(b, into, "--count", "1") as receiver:
        with command(a, "send", "b", str(big)) as sender:
            assert sender.row("started")["offset"] == kept
            assert sender.row("sent")["size"] == BIG
            assert sender.popen.wait(PATIENCE) == 0
        assert receiver.popen.wait(PATIENCE) == 0
    assert not part.exists()
    assert (into / "big.bin").read_bytes() == big.read_bytes()
    for node in (a, b):
        assert node.json("status")["internal_errors"] == 0


def test_people_read_lines_and_mistakes_are_one(pair: list[Node], tmp_path: Path) -> None:
    a, b = pair
    (tmp_path / "into").mkdir()
    file = tmp_path / "a.txt"
    file.write_text("hello")
    argv = ("receive", str(tmp_path / "into"), "--count", "1")
    for words, text, code in (
        (("send", "b", str(file)), "b is not receiving files", 1),
        (("send", "b", str(tmp_path)), "is a directory: pack it first", 2),
        (("send", "nobody", str(file)), "'nobody'", 2),
        (("receive", str(tmp_path / "none")), "there is no directory", 2),
    ):
        done = a.run(*words)
        assert done.returncode == code, done.stderr
        assert done.stderr.count("\n") == 1
        assert done.stderr.startswith("error: ")
        assert text in done.stderr
    refusing = Process([*OVERLAY, *argv, "--data-dir", str(b.directory)])
    try:
        wait_for(lambda: "Ctrl-C ends it" in refusing.log, PATIENCE, "the receiver")
        done = a.run("send", "b", str(file))
        assert (done.returncode, done.stderr.count("\n")) == (1, 1)
        assert "nobody is at b to agree to a.txt" in done.stderr
        assert "no terminal to ask at" in refusing.out.next(PATIENCE)
        assert refusing.end() == 0
    finally:
        refusing.kill()
    taking = Process([*OVERLAY, *argv, "--from", "a", "--data-dir", str(b.directory)])
    try:
        wait_for(lambda: "Ctrl-C ends it" in taking.log, PATIENCE, "the receiver")
        lines = a.ok("send", "b", str(file)).splitlines()
        assert lines[0].startswith(f"offering a.txt (5 B) to b ({short_id(b.peer_id)})")
        assert lines[1] == "sending a.txt (5 B)"
        assert lines[-1].startswith("sent a.txt (5 B) ")
        assert taking.popen.wait(PATIENCE) == 0
        taking.out.finish()
        assert taking.out.all[-1].startswith(f"received {tmp_path}/into/a.txt (5 B) ")
    finally:
        taking.kill()


def test_a_terminal_is_asked_and_sees_one_line_of_progress(
    pair: list[Node], tmp_path: Path, big: Path, into: Path
) -> None:
    a, b = pair
    os.truncate(big, 40 << 20)
    argv = [*OVERLAY, "receive", str(into), "--count", "1", "--data-dir", str(b.directory)]
    with on_terminal(argv) as terminal:
        terminal.wait_for("Ctrl-C ends it")
        title = re.escape(f"a ({short_id(a.peer_id)})")
        with command(a, "send", "b", str(big)):
            terminal.wait_for(rf"{title} wants to send big.bin \(40.0 MiB\). Take it\?")
            terminal.type("n\r")
            terminal.wait_for("you have declined it")
        with command(a, "send", "b", str(big)) as sender:
            wait_for(lambda: terminal.text.count("Take it?") == 2, PATIENCE, "the second question")
            terminal.type("y\r")
            sender.row("sent")
        assert terminal.wait_end() == 0
        progress = [each for each in terminal.text.split("\r") if " left" in each]
        assert all("\n" not in each for each in progress)
        assert "\x1b" not in terminal.text
        assert "received " in terminal.text
    assert (into / "big.bin").stat().st_size == 40 << 20
