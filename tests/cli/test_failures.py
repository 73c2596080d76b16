"""What can go wrong around a command: no node, a dying one, odd streams, signals, secrets.

One table for all commands; one that is new fails here until it has its line.
"""

import os
import re
import shlex
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from overlay.cli.main import overlay as group
from overlay.names import short_id
from tests.cli.complaints import complaint
from tests.lab.nodes import OVERLAY, ROOT, Crew, Node, Process, environment, overlay, wait_for

pytestmark = pytest.mark.slow

ANY_FILE = str(ROOT / "README.md")
ASKING = {
    "chat": ["chat"],
    "connect": ["connect", "b"],
    "doctor": ["doctor"],
    "doctor PEER": ["doctor", "b"],
    "accept": ["accept", ANY_FILE],
    "answer": ["answer", ANY_FILE],
    "invite": ["invite"],
    "leave": ["leave"],
    "offer": ["offer"],
    "peers": ["peers"],
    "peers --all": ["peers", "--all"],
    "peers --sdp": ["peers", "--sdp", "b"],
    "ping": ["ping", "b"],
    "publish": ["publish", "t", "d"],
    "receive": ["receive"],
    "send": ["send", "b", ANY_FILE],
    "status": ["status"],
    "subscribe": ["subscribe", "t"],
    "trace": ["trace", "b"],
    "wait": ["wait", "--peers", "9", "--timeout", "0.2"],
}
"""A line for each command that asks a node."""
NEED_NO_NODE = {"up", "join", "sim", "completion"}
"""Tested in test_up, test_complaints, test_sim, test_completion."""
NAMING_A_PEER = [["connect"], ["doctor"], ["peers", "--sdp"], ["ping"], ["trace"]]
NAMING_A_TOPIC = [["chat"], ["publish"], ["subscribe", "--timeout", "5"]]
GOING_ON = [["chat"], ["subscribe", "t"], ["wait", "--peers", "9"]]


def shell(
    node: Node, line: str, stdin: int = subprocess.DEVNULL
) -> subprocess.CompletedProcess[str]:
    """A line of shell in which $OVERLAY is the command, asking this node."""
    command = " ".join(map(shlex.quote, OVERLAY))
    return subprocess.run(
        ["bash", "-c", line.replace("$OVERLAY", command)],
        env=environment({"OVERLAY_DATA_DIR": str(node.directory)}),
        stdin=stdin,
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=90,
        check=False,
    )


def test_every_command_has_its_line_in_the_table() -> None:
    assert {name.partition(" ")[0] for name in ASKING} | NEED_NO_NODE == set(group.commands)


# --- no node, a dead node, something else --------------------------------------------------------


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A node that was killed: its control socket and its lock are still there."""
    with Crew(tmp_path_factory.mktemp("killed")) as crew:
        node = crew.node("a").up()
        node.kill()
        yield node


@pytest.mark.parametrize("command", ASKING)
def test_a_socket_that_a_killed_node_left_is_no_node(killed: Node, command: str) -> None:
    line = complaint(killed.run(*ASKING[command]), code=3)
    assert "overlay up" in line
    assert str(killed.directory) in line


def test_a_node_starts_where_another_was_killed(crew: Crew) -> None:
    node = crew.node("a").up()
    node.kill()
    node.up()
    node.ok("status")


@contextmanager
def listening(directory: Path, answer: bytes) -> Iterator[None]:
    """Something that takes one question on the control socket, says this, and hangs up."""
    from overlay.node.directory import DataDirectory

    held = DataDirectory.open(directory)
    control = held.listen()

    def serve() -> None:
        connection, _ = control.accept()
        with connection:
            connection.recv(65_536)
            connection.sendall(answer)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield
        thread.join(30)
    finally:
        control.close()
        held.close()


def response(status: str, body: bytes) -> bytes:
    """An HTTP response."""
    return b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status.encode(), len(body), body)


ODD_ANSWERS = {
    "nothing": (b"", "has ended"),
    "half a head": (b"HTTP/1.1 200 OK\r\nContent-Le", "no node|has ended"),
    "half a body": (response("200 OK", b'{"a": 1}')[:-3], "has ended"),
    "no HTTP": (b"hello\r\n", "has ended"),
    "no JSON": (response("200 OK", b"hello"), "no node of overlay"),
    "no error": (response("502 Bad Gateway", b"[1]"), "no node of overlay"),
    "another error": (response("400 Bad Request", b'{"detail": 1}'), "no node of overlay"),
}


@pytest.mark.parametrize("what", ODD_ANSWERS)
def test_an_answer_that_is_none_is_named(tmp_path: Path, what: str) -> None:
    answer, says = ODD_ANSWERS[what]
    with listening(tmp_path / "d", answer):
        line = complaint(overlay("status", "--json", "--data-dir", str(tmp_path / "d")), code=1)
    assert re.search(says, line)


def test_a_request_that_the_node_does_not_know_says_why(pair: list[Node]) -> None:
    from overlay.errors import UsageError
    from overlay.node.client import Client

    with pytest.raises(UsageError, match="another version"):
        Client(pair[0].directory).get("/dance")


# --- the node dies meanwhile ---------------------------------------------------------------------


@contextmanager
def begun(node: Node, command: list[str]) -> Iterator[Process]:
    """A command that is under way: its connection is seen to be open."""
    argv = [*OVERLAY, *command, "--data-dir", str(node.directory)]
    process = Process(argv, is_open=True)
    said = {"chat": "in lobby", "subscribe": "subscribed"}.get(command[0])
    try:
        if said:
            wait_for(lambda: said in process.log, 30.0, f"{command[0]} is under way")
        else:
            wait_for(lambda: has_socket(process.popen.pid), 30.0, "the question has been put")
        yield process
    finally:
        process.kill()


def has_socket(pid: int) -> bool:
    """Whether this process has opened a connection, which it does as it asks its question."""
    for file in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # it has been closed since
            if os.readlink(file).startswith("socket:"):
                return True
    return False


@pytest.mark.parametrize("command", GOING_ON, ids=" ".join)
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM], ids=lambda how: how.name)
def test_a_command_under_way_says_that_its_node_has_ended(
    crew: Crew, command: list[str], how: signal.Signals
) -> None:
    node = crew.node("a").up()
    with begun(node, command) as process:
        assert node.process is not None
        node.process.signal(how)
        assert process.popen.wait(60) == 1
        process.err.finish()
        errors = [line for line in process.err.all if line.startswith("error: ")]
        assert len(errors) == 1, process.log
        assert re.search("ended|leaving", errors[0])
        assert "Traceback" not in process.log


@pytest.mark.parametrize("command", GOING_ON, ids=" ".join)
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM], ids=lambda how: how.name)
def test_an_interrupted_command_ends_in_silence_and_leaves_the_node_alone(
    pair: list[Node], command: list[str], how: signal.Signals
) -> None:
    with begun(pair[0], command) as process:
        process.signal(how)
        code = process.popen.wait(30)
        assert code in ({0, 130} if how == signal.SIGINT else {143})
        process.err.finish()
        assert "Traceback" not in process.log
        assert "error" not in process.log
        pair[0].ok("status")


# --- what a command reads and prints -------------------------------------------------------------


@pytest.mark.parametrize("command", ["status", "peers", "invite --qr", "status --json"])
def test_a_full_disk_is_a_failure_of_one_line(pair: list[Node], command: str) -> None:
    done = shell(pair[0], f"$OVERLAY {command} > /dev/full")
    assert "cannot be written" in complaint(done, code=1)


@pytest.mark.parametrize("command", ["status", "publish t -", "peers --json", "wait"])
def test_closed_streams_are_as_good_as_empty_ones(pair: list[Node], command: str) -> None:
    done = shell(pair[0], f"$OVERLAY {command} <&- >&-")
    assert (done.returncode, done.stderr) == (0, "")


def test_an_error_that_nobody_can_read_is_still_an_exit_code(killed: Node) -> None:
    assert shell(killed, "$OVERLAY status >&- 2>&-").returncode == 3
    assert shell(killed, "$OVERLAY status 2>/dev/full").returncode == 3


@pytest.mark.parametrize("command", ["status", "peers", "invite --qr", "peers --all"])
def test_a_terminal_without_our_characters_shows_others(pair: list[Node], command: str) -> None:
    done = shell(pair[0], f"PYTHONIOENCODING=ascii $OVERLAY {command}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.isascii()


def test_a_chat_takes_whatever_bytes_come(pair: list[Node]) -> None:
    done = shell(pair[0], r"printf '\xff one\n' | $OVERLAY chat")
    assert done.returncode == 0, done.stderr
    assert "� one" in done.stdout


@pytest.mark.parametrize("command", ["subscribe t", "chat t"])
def test_who_reads_only_the_first_line_ends_the_command_in_silence(
    pair: list[Node], command: str
) -> None:
    """It notices at the next line; the messages come from `publish` beside it."""
    nobody_types, open_end = os.pipe()
    try:
        done = shell(
            pair[0],
            f"exec 3<&0; (set -o pipefail; $OVERLAY {command} | head -1) <&3 & reader=$!; "
            "for i in $(seq 200); do "
            "$OVERLAY publish t $i; kill -0 $reader 2>/dev/null || break; done; wait $reader",
            stdin=nobody_types,
        )
    finally:
        os.close(nobody_types)
        os.close(open_end)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 1
    assert "Traceback" not in done.stderr
    assert "error" not in done.stderr


# --- words -------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", NAMING_A_PEER, ids=" ".join)
def test_a_peer_that_is_none_is_a_line_that_says_so(pair: list[Node], command: list[str]) -> None:
    a, b = pair
    assert "overlay peers" in complaint(a.run(*command, "nobody"))
    assert "overlay peers" in complaint(a.run(*command, ""))
    line = complaint(a.run(*command, "12D3KooW"))
    assert short_id(a.peer_id) in line
    assert short_id(b.peer_id) in line
    assert "UTF-8" in complaint(shell(a, f"$OVERLAY {' '.join(command)} $'\\xff'"))


@pytest.mark.parametrize("command", NAMING_A_TOPIC, ids=" ".join)
@pytest.mark.parametrize("topic", ["", 257 * "x", "two\nlines", "\x1b[2J"], ids=repr)
def test_a_topic_that_is_none_is_a_line_that_says_so(
    pair: list[Node], command: list[str], topic: str
) -> None:
    assert "printable" in complaint(pair[0].run(*command, topic, stdin=""))


@pytest.mark.parametrize("limit", ["nan", "inf", "-1", "1e99", "soon"])
def test_a_time_limit_that_no_clock_knows_is_refused(pair: list[Node], limit: str) -> None:
    for command in (["wait"], ["subscribe", "t"]):
        assert "--timeout" in complaint(pair[0].run(*command, "--timeout", limit))


@pytest.mark.parametrize(
    "arguments",
    [
        ["{link}"], ["up", "{link}"], ["join", "{link}", "{link}"], ["invite", "{link}"],
        ["up", "--listen", "{link}"], ["up", "--set", "{link}"], ["up", "--set", "name={link}"],
        ["up", "--set", "{link}=1"], ["up", "--join={link}x"], ["status", "{link}"],
        ["ping", "{link}"], ["wait", "--timeout", "{link}"], ["up", "--config", "{link}"],
        ["invite", "show", "{link}", "{link}"], ["invite", "--expires", "{link}"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_a_link_in_the_wrong_place_is_not_repeated(pair: list[Node], arguments: list[str]) -> None:
    """It is a secret, and an error is what people paste into forums."""
    link = pair[0].invite()
    done = pair[0].run(*(argument.format(link=link) for argument in arguments))
    line = complaint(done)
    assert link[10:40] not in line
    assert link[-40:] not in line


def test_two_nodes_want_one_socket(crew: Crew) -> None:
    """Somebody else's socket in our place is not taken away from it."""
    from overlay.node.directory import DataDirectory

    node = crew.node("a")
    held = DataDirectory.open(node.directory)
    try:
        with socket.socket(socket.AF_UNIX):
            assert "already running" in complaint(node.run("up"))
    finally:
        held.close()
