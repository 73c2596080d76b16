"""A node's life: up, ready, joined, left, back again."""

import base64
import json
import re
import signal
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from overlay.errors import OverlayError
from overlay.node.client import Client
from tests.cli.complaints import failed_start, leave
from tests.lab.nodes import OVERLAY, Crew, Node, Process, overlay, settled, wait_for
from tests.lab.terminal import on_terminal

pytestmark = pytest.mark.slow


def gone(node: Node) -> bool:
    """Whether a node left nothing behind but its memory."""
    names = {file.name for file in node.directory.iterdir()}
    return names == {"certificate.pem", "dial.key", "identity.key", "lock", "overlay.db"}


def welcome(crew: Crew, *options: str) -> str:
    """What `up` prints into a pipe before people read on in the log."""
    argv = [*OVERLAY, "up", "--data-dir", str(crew.directory / "a"), "--name", "kitchen"]
    process = Process([*argv, "--listen", "127.0.0.1:0", *options])
    try:
        wait_for(lambda: "Ctrl-C" in "".join(process.out.all), 60.0, "the welcome")
        text = "".join(process.out.all)
        assert "kitchen" in text
        assert re.search(r"12D3KooW\w{44}", text)
        assert re.search(r"127\.0\.0\.1:\d+", text)
        return text
    finally:
        assert process.end() == 0


def test_who_asks_for_it_gets_the_link_once_and_a_code_in_a_pipe_too(crew: Crew) -> None:
    text = welcome(crew, "--print-invite")
    (command,) = re.findall(r"^ +(\S.*overlay join \S+)$", text, re.MULTILINE)
    assert text.lower().count("overlay:") == 1
    assert command.lower().count("overlay:") == 1
    assert any(block in text for block in "█▀▄")


def test_a_pipe_gets_no_secret_that_nobody_asked_for(crew: Crew) -> None:
    text = welcome(crew)
    assert "overlay:" not in text.lower()
    assert not any(block in text for block in "█▀▄"), "nor as a code"
    (command,) = re.findall(r"^ +(\S.*overlay invite .*)$", text, re.MULTILINE)
    assert f"--data-dir {crew.directory / 'a'}" in command


@pytest.mark.parametrize(("columns", "lines", "is_whole"), [(80, 24, False), (200, 100, True)])
def test_a_terminal_shows_the_link_once_and_a_whole_code_or_its_size(
    crew: Crew, columns: int, lines: int, is_whole: bool
) -> None:
    argv = [*OVERLAY, "up", "--data-dir", str(crew.directory / "a"), "--listen", "127.0.0.1:0"]
    with on_terminal([*argv, "--name", "kitchen"], columns=columns, lines=lines) as screen:
        screen.wait_for("Ctrl-C leaves")
        rows = screen.screen()
        code = [row for row in rows if set(row) & set("█▀▄")]
        assert screen.text.lower().count("overlay:") == 1
        screen.wait_for(r"overlay join overlay:")
        assert len({len(row) for row in code}) == int(is_whole), screen.text
        said = re.search(r"QR code needs (\d+) columns and (\d+) lines", screen.text)
        assert (said is None) == is_whole
        if said is not None:
            assert int(said[1]) > columns or int(said[2]) > lines, "it has no room"
            assert all(len(row) <= columns for row in rows)
            assert rows.index("Ctrl-C leaves.") < lines, "all of it is on the screen"
        screen.type("\x03")
        assert screen.wait_end() == 0


def test_the_users_own_settings_need_no_option(crew: Crew) -> None:
    """And an option, or OVERLAY_CONFIG, has others read in their place."""
    home = crew.directory / "home"
    own = home / "overlay" / "config.toml"
    own.parent.mkdir(parents=True)
    own.write_text('name = "own"\n')
    other = crew.directory / "other.toml"
    other.write_text('name = "other"\n')
    given = {"XDG_CONFIG_HOME": str(home), "OVERLAY_CONFIG": ""}
    cases = [(given, [], "own"), (given, ["--config", str(other)], "other"),
             ({**given, "OVERLAY_CONFIG": str(other)}, [], "other")]  # fmt: skip
    for number, (env, options, name) in enumerate(cases):
        node = crew.node(f"n{number}", env=env)
        argv = [*OVERLAY, "up", "--json", "--listen", "127.0.0.1:0", *options]
        node.process = Process([*argv, "--data-dir", str(node.directory)], env=env)
        assert node.wait_ready().ready["name"] == name
    own.write_text("[links\n")
    assert str(own) in failed_start(crew.node("broken", env=given))


def test_the_printed_command_works_as_it_is(crew: Crew) -> None:
    first = Process([*OVERLAY, "up", "--print-invite", "--data-dir", str(crew.directory / "a")])
    try:
        printed = wait_for(
            lambda: re.search(r"^ +(\S.*overlay join \S+)$", "".join(first.out.all), re.MULTILINE),
            60.0,
            "the command",
        )
        assert printed is not None
        env = {"OVERLAY_DATA_DIR": str(crew.directory / "b"), "OVERLAY_NAME": "second"}
        second = Process(["sh", "-c", f"exec {printed[1]} --json"], env=env)
        try:
            assert json.loads(second.out.next(60.0))["name"] == "second"
            told = overlay("peers", "--json", env=env).stdout.splitlines()
            assert len(told) == 1
        finally:
            assert second.end() == 0
    finally:
        assert first.end() == 0


def test_for_programs_ready_is_the_first_line_and_then_a_line_an_event(crew: Crew) -> None:
    first = crew.node("a").up()
    second = crew.node("b").up(join=first.ready["invite"])
    second.wait_peers(1)
    leave(second)
    assert first.process is not None
    assert second.process is not None
    events = [json.loads(line) for line in second.process.out.all]
    assert [event["event"] for event in events[:2]] == ["ready", "linked"]
    assert events[-1] == {"event": "left"}
    heard = [json.loads(first.process.out.next(10.0)) for _ in range(2)]
    assert [(event["event"], event["peer_id"]) for event in heard] == [
        ("linked", second.peer_id),
        ("unlinked", second.peer_id),
    ]


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, "leave"])
def test_a_graceful_end_says_goodbye_and_leaves_nothing_behind(
    crew: Crew, how: signal.Signals | str
) -> None:
    stays = crew.node("stays").up()
    goes = crew.node("goes").up(join=stays.invite())
    stays.wait_peers(1)
    assert goes.process is not None
    if isinstance(how, signal.Signals):
        goes.process.signal(how)
    else:
        goes.ok(how)
        assert gone(goes), "leave returns when the node has gone"
    assert goes.process.popen.wait(30) == 0
    assert gone(goes)
    wait_for(lambda: stays.peers() == [], 3.0, "a goodbye is heard at once")
    stays.logs("leave")


def test_up_again_right_after_leave_is_no_race(crew: Crew) -> None:
    node = crew.node("a").up()
    identity = node.peer_id
    for _ in range(3):
        leave(node)
        node.up()
        assert node.peer_id == identity


def test_a_killed_node_comes_back_by_its_memory_alone(crew: Crew) -> None:
    first = crew.node("a").up()
    second = crew.node("b").up(join=first.invite())
    settled([first, second])
    port = second.ready["listen"]
    second.kill()
    second.up()
    assert second.ready["listen"] == port, "a random port is kept"
    settled([second, first])
    peer = second.peer(first)
    assert peer is not None
    assert peer["negotiated"] == "cache"
    assert second.json("status")["network_id"] == first.json("status")["network_id"]


def test_a_kept_port_that_is_taken_is_no_reason_to_stay_down(crew: Crew) -> None:
    node = crew.node("a").up()
    address = node.ready["listen"][0]
    leave(node)
    crew.node("thief").up(listen=address)
    node.up()
    assert node.ready["listen"][0] != address
    wait_for(lambda: "port_taken" in node.log, 10.0, "the log")


def test_the_data_directory_is_private(crew: Crew) -> None:
    node = crew.node("a").up()
    assert stat.S_IMODE(node.directory.stat().st_mode) == 0o700
    for file in node.directory.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) & 0o077 == 0, file


def test_a_data_directory_may_lie_very_deep(tmp_path: Path) -> None:
    with Crew(tmp_path / ("deep" * 40) / ("deeper" * 30)) as crew:
        node = crew.node("a").up()
        assert node.json("status")["peer_id"] == node.peer_id
        leave(node)


def test_a_link_may_come_as_an_argument_or_wrapped_by_mail(crew: Crew) -> None:
    first = crew.node("a").up()
    link = first.invite()
    wrapped = "\n".join(link[at : at + 60] for at in range(0, len(link), 60))
    crew.node("mail").up(join="\n  " + wrapped + "\n\n")
    argument = crew.node("argument")
    argument.process = Process(
        [*OVERLAY, "join", link, "--json", "--data-dir", str(argument.directory)]
    )
    argument.wait_ready()
    first.wait_peers(2)


def test_a_stopped_reader_of_a_subscription_does_not_hold_the_node(crew: Crew) -> None:
    node = crew.node("a").up()
    subscription = node.subscribe("news")
    wait_for(lambda: "subscribed" in subscription.log, 30.0, "the subscription")
    subscription.signal(signal.SIGSTOP)
    for _ in range(12):
        node.ask("POST", "/publish", {"topic": "news", "data": 30_000 * "x"})
    node.ok("leave", timeout=40.0)
    assert node.process is not None
    assert node.process.popen.wait(30) == 0


CRASHING = """
from overlay.core.events import Publish
from overlay.core.overlay import Overlay
from overlay.cli.main import main

whole = Overlay.handle

def handle(self, event, now):
    assert not isinstance(event, Publish), "a bug of ours"
    return whole(self, event, now)

Overlay.handle = handle
main()
"""


def test_a_bug_in_the_core_ends_the_node_and_says_why(crew: Crew) -> None:
    node = crew.node("a", argv=[sys.executable, "-c", CRASHING]).up()
    with pytest.raises(OverlayError):
        Client(node.directory).post("/publish", {"topic": "t", "data": "x"})
    assert node.process is not None
    assert node.process.popen.wait(30) == 70
    node.process.err.finish()
    assert "crashed" in node.log
    assert "AssertionError: a bug of ours" in node.log
    node.argv = OVERLAY
    node.up()


def test_the_fullest_log_holds_no_secret(crew: Crew) -> None:
    debug = ("--set", "log.level=debug")
    first = crew.node("a").up(*debug)
    link = first.invite()
    second = crew.node("b").up(*debug, join=link)
    settled([first, second])
    leave(second)
    leave(first)
    secrets = [link, *(word for node in (first, second) for word in key_forms(node))]
    for node in (first, second):
        node.logs("peer_up")  # the counter-test: it is a log
        for secret in secrets:
            assert secret not in node.log


def key_forms(node: Node) -> Iterator[str]:
    """Each key of a node as a log might show it."""
    for name in ("identity.key", "dial.key"):
        key = (node.directory / name).read_bytes()
        yield from (key.hex(), base64.b64encode(key).decode().rstrip("="), repr(key))
