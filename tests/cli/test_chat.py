"""`overlay chat` as people and programs use it: terminals, pipes, JSON, Ctrl-C."""

import contextlib
import json
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import pytest

from tests.lab.nodes import OVERLAY, ROOT, Crew, Lines, Node, environment, wait_for
from tests.lab.terminal import Terminal, on_terminal

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


def test_who_has_nothing_to_say_has_left_at_once(pair: list[Node]) -> None:
    """`: | overlay chat`, as any program that reads its input to the end."""
    for options in ((), ("--json",)):
        done = pair[0].run("chat", "silence", *options, stdin="")
        assert done.returncode == 0, done.stderr
        assert "error" not in done.stderr


def test_who_only_listens_does_so_until_interrupted(pair: list[Node]) -> None:
    a, b = pair
    with chatting(a) as ada:
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
        one.wait_for(lambda line: line == f"* x ({second.peer_id[8:16]}) is here\n")


def at_a_terminal(node: Node, topic: str, **env: str) -> AbstractContextManager[Terminal]:
    """`overlay chat` as a person uses it."""
    return on_terminal([*OVERLAY, "chat", topic, "--data-dir", str(node.directory)], env=env)


def test_a_terminal_keeps_what_is_being_typed(pair: list[Node]) -> None:
    a, b = pair
    with at_a_terminal(a, "tty") as screen:
        screen.wait_for("> ")
        with chatting(b, "tty") as bob:
            screen.wait_for(r"\* b is here")
            screen.type("half a li")
            screen.wait_for("half a li")
            bob.say("interrupting")
            screen.wait_for("b: interrupting\r\n> half a li")
            screen.type("ne\r")
            bob.wait_for(lambda line: line == "a: half a line\n")
        screen.type("/help\r")
        screen.wait_for("/who")
        screen.type("\x03")
        assert screen.wait_end() == 0
        assert "a: half a line" not in screen.text, "our own words are on the screen already"


SAID = 60


def test_the_prompt_is_never_doubled(pair: list[Node]) -> None:
    """Bob says line after line while Ada types and presses Return, each whenever it comes."""
    a, b = pair
    with at_a_terminal(a, "flood") as screen, chatting(b, "flood") as bob:
        screen.wait_for(r"\* b is here")
        for number in range(SAID):
            bob.say(f"line {number}.")
            screen.type(f"typed {number}" + "\r" * (number % 3))
        screen.type("\r")
        screen.wait_for(rf"b: line {SAID - 1}\.")
        bob.wait_for(lambda line: f"typed {SAID - 1}" in line)
        screen.wait_for(r"> \Z")
        screen.type("\x03")
        assert screen.wait_end() == 0
        rows = screen.screen()
        assert [row for row in rows if re.search("> .*> ", row)] == [], "two prompts in a row"
        said = [row for row in rows if re.fullmatch(r"b: line \d+\.", row)]
        assert sorted(said) == sorted(f"b: line {n}." for n in range(SAID)), "each whole, in a row"


def test_a_long_line_that_is_being_typed_is_wiped_away_whole(pair: list[Node]) -> None:
    a, b = pair
    with at_a_terminal(a, "long") as screen, chatting(b, "long") as bob:
        screen.wait_for(r"\* b is here")
        screen.type("#" * 170)
        wait_for(lambda: screen.screen()[-1].endswith("#" * 12), PATIENCE, "three rows of it")
        bob.say("interrupting")
        screen.wait_for("b: interrupting")
        wait_for(lambda: screen.screen()[-1].endswith("#" * 12), PATIENCE, "they are back")
        assert "".join(screen.screen()).count("#") == 170


def test_a_dumb_terminal_gets_lines_and_nothing_else(pair: list[Node]) -> None:
    a, b = pair
    with at_a_terminal(a, "dumb", TERM="dumb") as screen, chatting(b, "dumb") as bob:
        screen.wait_for(r"\* b is here")
        screen.type("hello\n")
        bob.wait_for(lambda line: line == "a: hello\n")
        bob.say("good day")
        screen.wait_for("^b: good day")
        screen.type("\x04")
        assert screen.wait_end() == 0
        assert "\x1b" not in screen.text
        assert "a: hello" not in screen.text, "it is on the screen already"
