"""`overlay chat` as people and programs use it: terminals, pipes, JSON, Ctrl-C."""

import contextlib
import json
import os
import pty
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.lab.nodes import OVERLAY, ROOT, Crew, Lines, Node, environment, wait_for

pytestmark = pytest.mark.slow

PATIENCE = 30.0


class Chat:
    """`overlay chat` with pipes at both ends."""

    def __init__(self, node: Node, *args: str) -> None:
        self.popen = subprocess.Popen(
            [*OVERLAY, "chat", *args, "--data-dir", str(node.directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=environment(),
        )
        assert self.popen.stdout is not None
        assert self.popen.stderr is not None
        self.out, self.err = Lines(self.popen.stdout), Lines(self.popen.stderr)

    def say(self, line: str) -> None:
        assert self.popen.stdin is not None
        self.popen.stdin.write(line + "\n")
        self.popen.stdin.flush()

    def wait_for(self, shown: Callable[[str], bool]) -> str:
        """The first line of output that is as wanted."""
        return wait_for(
            lambda: next((line for line in self.out.all if shown(line)), ""), PATIENCE, "a line"
        )

    def wait_row(self, **wanted: Any) -> dict[str, Any]:
        """The first JSON row that has all of these."""
        line = self.wait_for(lambda line: wanted.items() <= json.loads(line).items())
        row: dict[str, Any] = json.loads(line)
        return row

    def end(self) -> int:
        """Ctrl-C."""
        self.popen.send_signal(signal.SIGINT)
        return self.popen.wait(PATIENCE)


@contextlib.contextmanager
def chatting(node: Node, *args: str) -> Iterator[Chat]:
    chat = Chat(node, *args)
    try:
        yield chat
    finally:
        chat.popen.kill()
        chat.popen.wait()
        assert chat.popen.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            chat.popen.stdin.close()  # harmless when closed
        chat.out.finish()
        chat.err.finish()


def test_two_people_see_each_other_come_talk_and_go(pair: list[Node]) -> None:
    a, b = pair
    with chatting(a) as ada, chatting(b) as bob:
        ada.wait_for(lambda line: line == "* b is here\n")
        bob.wait_for(lambda line: line == "* a is here\n")
        bob.say("grüße\x1b[2J")
        assert "\x1b" not in ada.wait_for(lambda line: line.startswith("b: grüße"))
        bob.wait_for(lambda line: line.startswith("b: grüße"))
        ada.say("/who")
        ada.wait_for(lambda line: line == "* here: a, b\n")
        assert "in lobby as a; Ctrl-C leaves" in ada.err.all[0]
        assert bob.end() == 0
        ada.wait_for(lambda line: line == "* b left\n")
        ada.say("/quit")
        assert ada.popen.wait(PATIENCE) == 0
    for node in pair:  # the chat is over, the nodes are not
        assert node.json("status")["internal_errors"] == 0


def test_programs_get_a_row_for_all_that_happens(pair: list[Node]) -> None:
    a, b = pair
    with chatting(a, "den", "--json") as ada:
        entered = ada.wait_row(event="entered")
        assert entered == {"event": "entered", "topic": "den", "peer_id": a.peer_id, "name": "a"}
        with chatting(b, "den", "--json") as bob:
            assert ada.wait_row(event="here")["peer_id"] == b.peer_id
            bob.say("hello")
            said = ada.wait_row(event="said")
            assert set(said) == {"event", "peer_id", "name", "text", "at"}
            assert (said["peer_id"], said["name"], said["text"]) == (b.peer_id, "b", "hello")
            assert bob.end() == 0
        assert ada.wait_row(event="gone")["why"] == "left"


def test_a_pipe_is_said_line_by_line_and_its_end_leaves(pair: list[Node]) -> None:
    a, b = pair
    subscription = b.subscribe("lobby")
    wait_for(lambda: "subscribed" in subscription.log, PATIENCE, "the subscription")
    done = a.run("chat", stdin="one\n\ntwo\n")
    assert (done.returncode, done.stdout) == (0, "a: one\na: two\n")
    heard = [
        json.loads(line)["data"]
        for line in (subscription.out.next(PATIENCE) for _ in range(3))
        if "data" in json.loads(line)
    ]
    assert heard == ["one", "two"]


def test_who_has_nothing_to_say_listens_until_interrupted(pair: list[Node]) -> None:
    a, b = pair
    with chatting(a) as ada:
        assert ada.popen.stdin is not None
        ada.popen.stdin.close()
        b.ok("publish", "lobby", "by hand")
        with pytest.raises(subprocess.TimeoutExpired):
            ada.popen.wait(0.2)
        while not any("by hand" in line for line in ada.out.all):
            b.ok("publish", "lobby", "by hand")
        assert ada.end() == 0


def test_a_chat_that_outlives_its_node_fails_at_once(crew: Crew) -> None:
    node = crew.node("a").up()
    with chatting(node) as chat:
        wait_for(lambda: "in lobby" in "".join(chat.err.all), PATIENCE, "the room")
        node.ok("leave")
        assert chat.popen.wait(PATIENCE) == 1
        chat.err.finish()
        assert "leaving" in chat.err.all[-1]


def test_two_of_one_name_are_told_apart(crew: Crew) -> None:
    first = crew.node("x").up()
    second = crew.node("y").up("--name", "x", join=first.invite())
    first.wait_peers(1)
    with chatting(first) as one, chatting(second):
        one.wait_for(lambda line: line == f"* x ({second.peer_id[:16]}) is here\n")


def test_a_terminal_keeps_what_is_being_typed(pair: list[Node]) -> None:
    a, b = pair
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(ROOT)
        argv = [*OVERLAY, "chat", "tty", "--data-dir", str(a.directory)]
        os.execve(argv[0], argv, {**environment(), "TERM": "xterm"})
    try:
        screen = Screen(terminal)
        screen.wait_for("> ")
        with chatting(b, "tty") as bob:
            screen.wait_for("* b is here")
            os.write(terminal, b"half a li")
            screen.wait_for("half a li")
            bob.say("interrupting")
            screen.wait_for("b: interrupting\r\n> half a li")
            os.write(terminal, b"ne\r")
            bob.wait_for(lambda line: line == "a: half a line\n")
        os.write(terminal, b"/help\r")
        screen.wait_for("/who")
        os.write(terminal, b"\x03")
        screen.wait_end()
        _, status = os.waitpid(pid, 0)
        pid = 0
        assert os.waitstatus_to_exitcode(status) == 0
        assert "a: half a line" not in screen.text, "our own words are on the screen already"
    finally:
        if pid:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        os.close(terminal)


class Screen:
    """What a terminal has shown so far."""

    def __init__(self, terminal: int) -> None:
        self.text = ""
        self._terminal = terminal
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        with contextlib.suppress(OSError):  # EIO: the program has ended
            while data := os.read(self._terminal, 4096):
                self.text += data.decode(errors="replace")

    def wait_for(self, shown: str) -> None:
        """Return once it shows this."""
        wait_for(lambda: shown in self.text, PATIENCE, f"{shown!r} on the screen")

    def wait_end(self) -> None:
        """Return once the program has ended."""
        self._thread.join(PATIENCE)
