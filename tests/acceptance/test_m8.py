"""One idea: M8 as a newcomer meets it: the first hour, any medium, a first file.

By the command line and JSON alone; what is long by nature is in `make soak`.
"""

import contextlib
import hashlib
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from overlay.node.directory import socket_address
from tests.acceptance.black_box import failed_up, make, next_event, one_line_error, sh, suite
from tests.cli.complaints import leave
from tests.lab.lan import Host, Lan
from tests.lab.moments import endings
from tests.lab.mounts import Mounts, fill
from tests.lab.nat.laboratory import Laboratory
from tests.lab.nat.stun import Responder
from tests.lab.nodes import (
    OVERLAY,
    ROOT,
    START_TIMEOUT,
    Crew,
    Json,
    Node,
    Process,
    environment,
    heard,
    overlay,
    settled,
    wait_for,
)
from tests.lab.terminal import on_terminal

pytestmark = [pytest.mark.slow]
netns = pytest.mark.netns


# --- 1. signals -------------------------------------------------------------------------------


def test_1_signals(tmp_path: Path) -> None:
    """An early signal ends the node by its number, a later one with a goodbye."""
    suite("tests/cli/test_signals.py", "lost or hangup")
    numbers = [signal.SIGINT, signal.SIGTERM] * 3
    seen = list(endings(tmp_path, numbers, seed=8))
    assert [(each, each.fault()) for each in seen if each.fault()] == []


# --- 2. no home -------------------------------------------------------------------------------


@pytest.mark.netns
def test_2_no_home(tmp_path: Path) -> None:
    """Without HOME and passwd entry, one line names --data-dir."""
    with Mounts() as mounts:
        mounts.without_users()
        homeless = ("env", "-u", "HOME", "-u", "XDG_DATA_HOME")

        def run(*args: str) -> "subprocess.CompletedProcess[str]":
            return sh(*homeless, *args, enter=mounts.enter)

        for command in ("status", "up"):  # in this order: nothing is made in a home that is there
            one_line_error(run(*OVERLAY, command), "HOME", "--data-dir")
        one_line_error(run(*OVERLAY, "up", "--data-dir", ""), "--data-dir", "empty")
        assert run(*OVERLAY, "sim", "list").returncode == 0
        state = f"STATE_DIRECTORY={tmp_path / 'a'}"
        process = Process([*homeless, state, *OVERLAY, "up", "--json"], enter=mounts.enter)
        try:
            assert next_event(process, "ready", 60.0)["data_dir"] == str(tmp_path / "a")
        finally:
            assert process.end() == 0


# --- 3. environment ---------------------------------------------------------------------------


def test_3_environment(tmp_path: Path) -> None:
    """Unknown OVERLAY_ variables warn and never refuse."""
    env = {
        "OVERLAY_PORT": "tcp://10.0.0.1:80",
        "OVERLAY_PORT_80_TCP": "tcp://10.0.0.1:80",
        "OVERLAY_SERVICE_HOST": "10.0.0.1",
        "OVERLAY_LINK_MAX": "9",
    }
    with Crew(tmp_path) as crew:
        node = crew.node("a", env=env).up()
        warned = [line for line in node.log.splitlines() if "OVERLAY_" in line]
        assert len(warned) == 1
        assert "did you mean OVERLAY_LINKS_MAX?" in warned[0]
        assert all(name in warned[0] for name in env)
        bad = crew.node("b", env={"OVERLAY_LINKS_MAX": "many"})
        assert "OVERLAY_LINKS_MAX" in failed_up(bad)


# --- 4. disks ---------------------------------------------------------------------------------


@pytest.mark.netns
def test_4_disks(tmp_path: Path) -> None:
    """Full and odd file systems: one line with path and cause; the identity stays."""
    suite("tests/cli/test_places.py", "full_disk or may_write or socket or modes or anew")
    disk = tmp_path / "disk"
    disk.mkdir()
    with Mounts() as mounts, Crew(tmp_path) as crew:
        mounts.disk(disk, 1 << 20)
        node = Node(disk / "a", enter=mounts.enter)
        crew.nodes.append(node)
        node.up()
        identity = node.peer_id
        mounts.call(lambda: fill(disk / "filler"))
        other = crew.node("b").up(join=node.invite())
        other.wait_peers(1)
        leave(node)
        mounts.call(lambda: fill(disk / "filler"))
        assert re.search(f"{node.directory}.*(No space|full)", failed_up(node))
        mounts.call((disk / "filler").unlink)
        node.up()
        assert node.peer_id == identity
        leave(node)
        socket = other.directory / "control.sock"
        other.kill()
        socket.unlink()
        socket.mkdir()
        assert f"{socket} is a directory" in failed_up(other)


# --- 5. control -------------------------------------------------------------------------------


ASKING = ("status", "peers", "ping x", "connect x", "publish t d", "wait", "chat", "invite")
"""Commands of every kind that asks a node."""


def test_5_control(crew: Crew) -> None:
    """Idle control connections are bounded; a stopped node is reported in 3 s.

    Thirty-two descriptors are fewer than half of the idle connections. The limit of a stopped
    node's commands is what a loaded machine needs; before, they were silent for 90 s.
    """
    few = ["sh", "-c", 'ulimit -n 32; exec "$@"', "sh", *OVERLAY]
    node = crew.node("a", argv=few).up()
    with contextlib.ExitStack() as idle, socket_address(node.directory) as address:
        for _ in range(80):
            idle.enter_context(socket.socket(socket.AF_UNIX)).connect(address)
        for _ in range(3):
            assert node.json("status")["internal_errors"] == 0
    node.freeze()
    asking = [*OVERLAY, "--data-dir", str(node.directory)]
    commands = [Process([*OVERLAY, *words.split(), *asking[-2:]]) for words in ASKING]
    try:
        for words, command in zip(ASKING, commands, strict=True):
            code = command.popen.wait(40.0)
            command.err.finish()
            done = subprocess.CompletedProcess([], code, "", command.log)
            assert "kill -CONT" in one_line_error(done, "does not answer"), words
    finally:
        for command in commands:
            command.kill()
    node.thaw()
    assert node.json("status")["name"] == "a"
    assert node.process is not None
    assert node.process.end() == 0
    node.process.err.finish()
    assert "Traceback" not in node.log


# --- 6. waiting -------------------------------------------------------------------------------


def test_6_waiting(crew: Crew) -> None:
    """Wait, the remembered name, another network's directory, --reset-network."""
    here, there = crew.node("a"), crew.node("b").up()
    one_line_error(here.run("wait", "--timeout", "0.2"), "overlay up", code=3)
    at = ("--data-dir", str(here.directory))
    early = Process([*OVERLAY, "wait", "--peers", "0", "--timeout", "120", "--json", *at])
    wait_for(lambda: "waiting for" in early.log, 60.0, "a command that waits for the node")
    here.up()
    assert json.loads(early.out.next(60.0)) == {"links": 0}
    assert early.popen.wait(30.0) == 0
    one_line_error(here.run("up", "--reset-network", "--yes"), "already running")
    identity, ours = here.peer_id, here.json("status")["network_id"]
    here.kill()

    theirs = there.json("status")["network_id"]
    line = failed_up(here, join=there.ready["invite"])
    for word in (f"({ours[:8]})", f"({theirs[:8]})", "overlay up --reset-network"):
        assert word in line
    line = failed_up(here, "--reset-network", join=there.ready["invite"])
    assert ours[:8] in line
    assert "--yes" in line

    with on_terminal([*OVERLAY, "up", "--reset-network", *at]) as terminal:
        assert ours[:8] in terminal.wait_for(r"This forgets .*").group()
        terminal.wait_for("Begin afresh")
        terminal.type("n\n")
        assert terminal.wait_end() == 1
    assert "(" + ours[:8] in failed_up(here, join=there.ready["invite"]), "nothing was forgotten"
    here.process = Process(
        [*OVERLAY, "join", "-", "--reset-network", "--yes", "--json", *at],
        stdin=there.ready["invite"] + "\n",
    )
    here.wait_ready()
    assert (here.peer_id, here.ready["name"]) == (identity, "a"), "as in its first life"
    assert here.json("status")["network_id"] == theirs


# --- 7. api -----------------------------------------------------------------------------------

PROGRAM = """
import math, overlay, trio

async def main():
    async with overlay.open_node(name="ada", listen="127.0.0.1:0") as node:
        calls = [
            lambda: node.publish("t", None),
            lambda: node.publish(None, "x"),
            lambda: node.invite(expires=math.nan),
            lambda: node.invite(members=True),
            lambda: node.ping(b"ada"),
            lambda: node.wait(1, timeout=-1),
            lambda: node.request("ada", "p", "text"),
            lambda: node.serve("p", None),
            lambda: node.open_stream("ada", 64 * "pp"),
            lambda: node.connect("\\ud800"),
        ]
        for number, call in enumerate(calls):
            try:
                await call()
            except (TypeError, ValueError) as error:
                print(number, "refused")
        for handed in (None, 7, "a\\nb"):
            try:
                node.subscribe(handed)
            except (TypeError, ValueError):
                print("refused")
        async with node.subscribe("t") as feed:
            await node.publish("t", "alive")
            print((await anext(feed)).text, node.status()["internal_errors"])

trio.run(main)
"""


def test_7_api() -> None:
    """Wrong types and bounds are refused at the call, and the node lives."""
    done = sh(sys.executable, "-c", PROGRAM)
    told = [*(f"{number} refused" for number in range(10)), *(3 * ["refused"]), "alive 0"]
    assert done.stdout.splitlines() == told, done.stderr
    suite("tests/node/test_arguments.py", "takes_no_wrong_type or harms_a_node")


# --- 8. links ---------------------------------------------------------------------------------


WRAPS = 48
"""Characters of a line that a chat window breaks a link into."""
OLD_LINKS = ROOT / "tests" / "vectors" / "wire-1.json"


def pieces(link: str) -> list[str]:
    """The link as a narrow window would wrap it."""
    return textwrap.wrap(link, WRAPS)


def explained(data: bytes, code: int = 0) -> str:
    """What `overlay invite show` says of a file's bytes."""
    argv = [*OVERLAY, "invite", "show", "-"]
    done = subprocess.run(
        argv, input=data, capture_output=True, cwd=ROOT, env=environment(), timeout=60, check=False
    )
    assert done.returncode == code, done.stderr
    return (done.stdout if code == 0 else done.stderr).decode()


def test_8_links(crew: Crew) -> None:
    """Links survive chat, mail and shells, or the cause is named."""
    hub = crew.node("hub").up("--advertise", "[2001:db8:1:2:3:4:5:6]:4433")
    link = hub.invite("--members", "1")
    word, secret = link[:8], link[8:]
    assert len(link) <= 340
    assert set(secret) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567")

    quoted = "\u200b\n> ".join(pieces(f"Here is the link: “{word}\u00ad{secret.lower()}”."))
    command = f"overlay join <{link.replace(':', '%3A')}> (a week)\n\n-- \nAlice"
    printable = "=\r\n".join(textwrap.wrap(command, WRAPS, replace_whitespace=False))
    for decorated in (quoted.encode("utf-16"), b"\xef\xbb\xbf" + printable.encode()):
        assert hub.peer_id in explained(decorated)
    old = next(each["link"] for each in json.loads(OLD_LINKS.read_text()) if "link" in each)
    assert "192.0.2.1" in explained(old.encode())
    assert "truncated" in explained(link[:-40].encode(), 2)
    assert "mistyped" in explained((link[:-9] + "A7A7A7A7A").encode(), 2)

    wrapped = overlay("up", "--join", *pieces(link), "--data-dir", str(crew.directory / "none"))
    assert wrapped.returncode == 2
    assert not [piece for piece in pieces(link) if piece in wrapped.stderr]
    paste(crew, hub, link)


def paste(crew: Crew, hub: Node, link: str) -> None:
    """At the prompt of a shell: nothing is shown, and nothing is left for the shell to run."""
    command = " ".join(
        map(shlex.quote, [*OVERLAY, "join", "--data-dir", str(crew.directory / "b")])
    )
    with on_terminal(["/bin/sh", "-i"]) as terminal:
        terminal.type(f"{command} —listen 127.0.0.1:0\n")
        terminal.wait_for("Paste the invite link")
        terminal.type("\n".join(pieces(link)) + "\nrm -r everything\nand no end")
        hub.wait_peers(1, 60.0)
        terminal.wait_for("Ctrl-C leaves")
        terminal.type("\x03")
        wait_for(lambda: not hub.peers(), 60.0, "the guest has left")
        terminal.type("echo $((6 * 7))-and-$((6 * 9))\n")
        terminal.wait_for("42-and-54")
    own_invite = terminal.text.index("On the second machine")
    assert "everything" not in terminal.text
    assert "and no end" not in terminal.text
    assert not [piece for piece in pieces(link) if piece in terminal.text[:own_invite]]


# --- 9. names ---------------------------------------------------------------------------------

TURNED, FOX, CREW = "ada\u202egpj", "\U0001f98a", "\U0001f469\u200d\U0001f680"
HOSTILE = "\x1b[2J\u202emallory"
BAD_NAMES = {
    TURNED: "U+202E RIGHT-TO-LEFT OVERRIDE",
    "a\nb": "U+000A LINE FEED",
    "\x1b[31mred": "U+001B ESCAPE",
    "ad\u200ba": "U+200B ZERO WIDTH SPACE",
    "   ": "only spaces",
    70 * "n": "64",
}


@pytest.fixture(scope="module")
def company(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Node]]:
    """Two nodes of one name, one called by an emoji, and one whose name is an attack."""
    with Crew(tmp_path_factory.mktemp("m8")) as crew:
        hostile = [sys.executable, "-m", "tests.builds.hostile_name"]
        nodes = [crew.node(name) for name in ("ada", "twin", "crew")]
        nodes.append(crew.node("mallory", argv=hostile))
        for node, name in zip(nodes, ("ada", "ada", CREW, HOSTILE), strict=True):
            node.name = name
        link = nodes[0].up().invite()
        for node in nodes[1:]:
            node.start(join=link)
        for node in nodes[1:]:
            node.wait_ready()
        settled(nodes)
        # Mallory has none that can be shown.
        wait_for(lambda: sum(bool(row["name"]) for row in nodes[0].peers()) == 2, 60.0, "names")
        yield nodes


def unseen(text: str) -> set[str]:
    """What of the hostile characters got through."""
    return set(text) & {"\x1b", "\u202e"}


@pytest.mark.parametrize("name", BAD_NAMES, ids=ascii)
def test_9_names(tmp_path: Path, name: str) -> None:
    """Unprintable names are refused with the character named, wherever they come in."""
    file = tmp_path / "node.toml"
    file.write_text(f"name = {json.dumps(name)}\n")
    ways: list[tuple[list[str], Json]] = [(["--name", name], {}), (["--config", str(file)], {})]
    if name.strip():  # --set and the environment take the spaces off
        ways += [([], {"OVERLAY_NAME": name}), (["--set", f"network.name=x{name}"], {})]
    for arguments, env in ways:
        done = overlay("up", "--data-dir", str(tmp_path / "d"), *arguments, env=env)
        assert (done.returncode, done.stdout) == (2, "")
        (line,) = done.stderr.splitlines()
        assert BAD_NAMES[name] in line
        assert not unseen(line)
        assert name not in line or name.isspace()
    assert not (tmp_path / "d").exists()


def test_9_a_peers_bad_name_is_never_shown_and_an_emoji_is(company: list[Node]) -> None:
    ada, _, crew, mallory = company
    for command in (["peers"], ["peers", "--all", "--wide"], ["ping", mallory.peer_id], ["status"]):
        assert not unseen(ada.ok(*command))
    rows = {row["peer_id"]: row["name"] for row in ada.peers()}
    assert rows[crew.peer_id] == CREW
    assert rows[mallory.peer_id] == ""
    assert CREW in ada.ok("peers")
    ada.ok("ping", CREW)
    assert not unseen(ada.log)


def test_9_of_two_nodes_of_one_name_the_list_marks_this_one(company: list[Node]) -> None:
    ada, twin, *_ = company
    for here, there in ((ada, twin), (twin, ada)):
        rows = {line.split()[1]: line for line in here.ok("peers").splitlines() if "ada" in line}
        assert "this node" in rows.pop(short(here))
        assert list(rows) == [short(there)]
    done = ada.run("ping", "ada")
    assert done.returncode == 2
    assert f"{short(ada)} (ada, this node)" in done.stderr
    assert f"{short(twin)} (ada)" in done.stderr


# --- 10. peers --------------------------------------------------------------------------------


def short(node: Node) -> str:
    """What a table calls a node."""
    return node.peer_id.removeprefix("12D3KooW")[:8]


def shown(node: Node, *args: str, columns: int = 80) -> list[str]:
    """The lines of `overlay peers` in a terminal of this width."""
    argv = ["peers", *args, "--data-dir", str(node.directory)]
    done = overlay(*argv, env={"COLUMNS": str(columns)})
    assert done.returncode == 0
    return done.stdout.splitlines()


def test_10_peers(company: list[Node]) -> None:
    """Peers at 80 columns: whole words, short ids."""
    ada, *others = company
    head, *rows = shown(ada)
    assert head.split()[:7] == ["name", "peer", "id", "state", "path", "negotiated", "rtt"]
    assert len(rows) == len(others) + 1  # its own, since another has its name
    told = {row["peer_id"]: row for row in ada.peers()}
    for other in others:
        (line,) = [row for row in rows if short(other) in row]
        row = told[other.peer_id]
        for word in (row["name"] or "-", row["state"], row["path"], row["negotiated"]):
            assert word in line
        assert re.search(r"\d ms", line)
    assert all(len(row.rstrip()) <= 80 and "\u2026" not in row for row in rows)
    narrow, wide = shown(ada, columns=20), shown(ada, "--wide", columns=20)
    assert narrow[0].split()[-1] == "rtt"
    assert "\u2026" not in "".join(narrow)
    assert wide[0].split()[-1] == "out"


def test_10_every_command_takes_a_short_id(company: list[Node]) -> None:
    ada, twin, *_ = company
    for text in (short(twin), short(twin)[:5]):
        for command in ("connect", "ping"):
            assert ada.json(command, text)["peer_id"] == twin.peer_id
    assert ada.json("trace", short(twin))["hops"][-1] == twin.peer_id
    assert ada.json("peers", "--sdp", short(twin))["peer_id"] == twin.peer_id
    assert ada.run("doctor", short(twin)).returncode == 0
    assert ada.run("ping", short(twin)[:3]).returncode == 2


@pytest.mark.timeout(180)
def test_10_the_dead_are_marked_at_once(company: list[Node]) -> None:
    """Last of these tests: one of the nodes stands still from here on."""
    ada, _, crew, _ = company

    def state() -> str:
        rows = ada.ask("GET", "/peers/all")["peers"]
        return next(str(row["state"]) for row in rows if row["peer_id"] == crew.peer_id)

    crew.freeze()
    assert wait_for(lambda: state() != "up" and state(), 60.0, "doubt") in {"suspect", "silent"}
    wait_for(lambda: state() == "silent", 60.0, "silence")
    (line,) = [row for row in shown(ada) if short(crew) in row]
    assert "silent" in line.split()
    assert ada.json("status")["silent"] == 1
    assert "1 more silent" in ada.ok("status")
    done = ada.run("ping", short(crew))
    assert done.returncode == 1
    assert "nothing has been heard" in done.stderr


# --- 11. start screen -------------------------------------------------------------------------


COLOUR = r"\x1b\[[\d;]*m"
"""Select graphic rendition (ECMA-48 §8.3.117): what NO_COLOR forbids."""


def test_11_start_screen(crew: Crew) -> None:
    """The start screen at 80 x 24, and no secret in pipes."""
    a, b = crew.node("a"), crew.node("b")
    argv = [*OVERLAY, "up", "--data-dir", str(a.directory), "--listen", "127.0.0.1:0"]
    with on_terminal([*argv, "--name", "a"], env={"NO_COLOR": "1"}) as screen:
        link = screen.wait_for(r"overlay join (\S+)\r")[1]
        screen.wait_for("Ctrl-C leaves")
        rows = screen.screen()
        assert screen.text.count(link) == 1
        code = [row for row in rows if set(row) & set("█▀▄")]
        if not code:
            screen.wait_for(r"QR code needs \d+ columns and \d+ lines")
        assert len({len(row) for row in code}) <= 1
        assert rows.index("Ctrl-C leaves.") < 24
        b.up(join=link)
        screen.wait_for(rf"^\d\d:\d\d:\d\d info peer_up peer=b \({short(b)}\)[^\n]*\r$")
        for env in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
            with on_terminal([*OVERLAY, "peers", "--data-dir", str(a.directory)], env=env) as peers:
                assert peers.wait_end() == 0
                assert not re.search(COLOUR if "NO_COLOR" in env else "\x1b", peers.text)
        screen.type("\x03")
        assert screen.wait_end() == 0
        assert not re.search(COLOUR, screen.text)
    b.kill()
    for options, links in (((), 0), (("--print-invite",), 1)):
        piped = Process([*argv, *options])
        try:
            wait_for(lambda p=piped: "Ctrl-C leaves.\n" in p.out.all, 60.0, "the welcome")  # type: ignore[misc]
            text = "".join(piped.out.all)
            assert text.lower().count("overlay:") == links
            assert bool(set(text) & set("█▀▄")) == bool(links)
        finally:
            assert piped.end() == 0
    assert "overlay up --print-invite" in sh(*make("-n", "run")).stdout


# --- 12. silence ------------------------------------------------------------------------------


def test_12_silence(crew: Crew) -> None:
    """Silence is filled after a second."""
    a = crew.node("a").up()
    at = ("--data-dir", str(a.directory))
    lone = a.run("publish", "t", "unheard", "--timeout", "2")
    assert lone.returncode == 1
    assert re.search("waiting for the first.*\nerror: nothing is published", lone.stderr)
    ear = a.subscribe("t")
    wait_for(lambda: "subscribed" in ear.log, 60.0, "a subscription")
    waits = Process([*OVERLAY, "wait", *at])
    patient = Process([*OVERLAY, "publish", "t", "at last", "--timeout", "120", *at])
    wait_for(
        lambda: all("waiting for" in each.log for each in (waits, patient)),
        60.0,
        "what they wait for",
    )
    gone = crew.node("gone").up(join=a.invite())
    for command in (waits, patient):
        assert command.popen.wait(60.0) == 0
        command.out.finish()
        assert command.out.all == [], "what scripts read is as before"
    heard(ear, "at last")
    assert not any("unheard" in line for line in ear.out.all)

    with on_terminal([*OVERLAY, "publish", "t", *at]) as terminal:
        terminal.wait_for("type lines, end with Ctrl-D")
        terminal.type("by hand\n\x04")
        assert terminal.wait_end() == 0
    heard(ear, "by hand\n")

    link = gone.invite("--members", "1")
    gone.ok("leave")
    with on_terminal([*OVERLAY, "connect", gone.peer_id, *at]) as terminal:
        terminal.wait_for("connecting to " + gone.peer_id[:20])
    joining = ["sh", "-c", 'printf %s "$LINK" | "$@"', "sh", *OVERLAY, "join", "-", "--timeout"]
    where = ("4", "--data-dir", str(crew.directory / "late"))
    with on_terminal([shutil.which("sh") or "sh", *joining[1:], *where], env={"LINK": link}) as it:
        it.wait_for(r"joining .*, 4 s at most")
        assert it.wait_end() == 2
        assert not any("joining" in row for row in it.screen()), "it is gone when it is over"
        assert link[20:60] not in it.text

    done = sh(*make("install"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.rstrip().endswith("overlay up")


# --- 13. commands -----------------------------------------------------------------------------


def test_13_commands(crew: Crew) -> None:
    """Ping -c, names, chat's end, -V, completion, default configuration."""
    a = crew.node("a").up()
    b = crew.node("b").up(join=a.invite())
    a.wait_peers(1)
    here = ("--data-dir", str(a.directory))
    title = rf"b \({short(b)}\)"
    assert re.fullmatch(rf"{title}: .* ms.*\n", a.ok("ping", "b")), "once in a pipe"
    assert "2 sent, 2 answered" in a.ok("ping", "b", "-c", "2")
    with on_terminal([*OVERLAY, "ping", "b", *here]) as screen:
        screen.wait_for(rf"(?s){title}: .*{title}: ")
        screen.type("\x03")
        assert screen.wait_end() == 0
        screen.wait_for(r"sent, \d+ answered, \d+ % lost; least/mean/most")
    assert re.match(f"linked to {title} at ", a.ok("connect", "b"))
    heard = Process([*OVERLAY, "subscribe", "t", "--count", "1", *here])
    wait_for(lambda: "subscribed" in heard.log, 30.0, "the subscription")
    b.ok("publish", "t", "hello")
    assert heard.popen.wait(60) == 0
    heard.out.finish()
    assert re.fullmatch(rf"{title}: hello\n", "".join(heard.out.all))
    assert a.run("chat", stdin="").returncode == 0, "the end of its input is its own"
    chat_with_one_prompt(a, b)
    assert overlay("-V").stdout == overlay("--version").stdout
    _, _, summaries = overlay("--help", env={"COLUMNS": "80"}).stdout.partition("Commands:")
    assert "ping" in summaries
    assert "..." not in summaries
    completing = {"_OVERLAY_COMPLETE": "bash_complete", "COMP_CWORD": "4"}
    completing["COMP_WORDS"] = f"overlay ping --data-dir {a.directory} "
    assert overlay(env=completing).stdout == "plain,b\n"
    for shell in ("bash", "zsh", "fish"):
        assert "overlay" in overlay("completion", shell).stdout
    own = crew.directory / "overlay" / "config.toml"
    own.parent.mkdir()
    own.write_text("listen = 7")
    env = {"XDG_CONFIG_HOME": str(crew.directory), "OVERLAY_CONFIG": ""}
    assert str(own) in failed_up(crew.node("c", env=env))


def chat_with_one_prompt(ours: Node, theirs: Node) -> None:
    """Lines come while others are typed, and a prompt stands below them all."""
    argv = [*OVERLAY, "chat", "room", "--data-dir", str(ours.directory)]
    with on_terminal(argv) as screen:
        screen.wait_for("> ")
        said = "".join(f"line {number}\n" for number in range(20))
        speaker = Process(
            [*OVERLAY, "chat", "room", "--data-dir", str(theirs.directory)], stdin=said
        )
        for _ in range(20):
            screen.type("x\r")
        assert speaker.popen.wait(60) == 0
        screen.wait_for(r"line 19(?s:.*)> \Z")
        screen.type("\x03")
        assert screen.wait_end() == 0
        assert not any(re.search("> .*> ", row) for row in screen.screen())


# --- 14. docs ---------------------------------------------------------------------------------


BUSY = """
nodes = 8
duration = 60.0
liveness = 0.0
[join]
every = 0.5
[churn]
start = 20.0
stop = 40.0
[[faults]]
at = 20.0
do = "crash"
count = 1
[[adversaries]]
share = 0.2
do = ["flood"]
[[publish]]
start = 15.0
stop = 45.0
rate = 0.09
[[requests]]
start = 15.0
stop = 40.0
[[requests]]
start = 15.0
stop = 40.0
kind = "connect"
"""
"""Whatever a scenario can measure."""


def test_14_extras_that_install_nothing_are_not_offered() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    readme = (ROOT / "README.md").read_text()
    for name, brings in extras.items():
        offered = f"| `{name}` |" in readme
        assert offered == (bool(brings) and name not in {"dev", "interop", "test"}), name
    assert "git clone" in readme
    assert "make install-sim" in readme
    for system in ("Linux", "macOS", "Windows", "WSL"):
        assert system in readme, system


def test_14_every_word_of_a_simulation_is_documented_with_its_unit(tmp_path: Path) -> None:
    """The measures of a run that has all of them; the words of a sweep, as it prints them."""
    page = (ROOT / "docs" / "simulation.md").read_text()
    page = page.partition("## Every measure")[2].partition("\n## ")[0]
    units = dict(re.findall(r"^\| `(\w+)` \| ([\w ]+) \|", page, re.MULTILINE))
    (tmp_path / "busy.toml").write_text(BUSY)
    run = overlay("sim", "run", str(tmp_path / "busy.toml"), timeout=120)
    rows = [re.split(r"\s{2,}", line.strip()) for line in run.stdout.splitlines()]
    told = {row[0]: row[2] for row in rows if len(row) > 2 and row[0] in units}
    assert told == units, "each measure, and its unit"
    suite("tests/cli/test_sweep.py", "whose_words_are_documented")


def test_14_what_signalling_counts_is_said(crew: Crew) -> None:
    told = (ROOT / "docs" / "howto" / "look-around.md").read_text()
    for word in crew.node("a").up().json("status")["signalling"]:
        assert f"`{word}`" in told, word


def test_14_sessions_leave_nothing_in_the_clone() -> None:
    """Each page's sessions run in a clone of which git is asked afterwards."""
    suite("tests/docs/test_docs.py", "sessions_run_as_shown or leaves_something_in_the_clone")


def test_14_reports_have_units_and_no_empty_tables() -> None:
    suite("tests/sim/report/test_report.py", "units_and_nothing_empty")
    suite("tests/sim/sweep/test_sweep.py", "no_empty_table")


# --- 15. first contact ------------------------------------------------------------------------


@netns
def test_15_first_contact(crew: Crew, laboratory: Laboratory) -> None:
    """Offer, answer, accept: two strangers by any medium; without a responder, the error."""
    meet_by_hand(crew, laboratory, minutes=1 / 3)


@netns
@pytest.mark.soak
def test_15_first_contact_after_minutes(crew: Crew, laboratory: Laboratory) -> None:
    """The same, with three minutes between the steps and mappings that live half a minute."""
    meet_by_hand(crew, laboratory, minutes=3)


def meet_by_hand(crew: Crew, laboratory: Laboratory, minutes: float) -> None:
    """Two homes behind port-restricted NATs, one plain STUN responder, nobody else."""
    kinds = "port_restricted", "port_restricted_hashed"
    homes = [laboratory.standing(kind, "by hand", timeout=30) for kind in kinds]
    a, b, c = (
        crew.node(name, enter=home.host.enter)
        for name, home in zip("abc", (*homes, homes[0]), strict=True)
    )
    assert "nat.stun" in alone(c.up(listen=None))
    passphrase = crew.directory / "passphrase"
    passphrase.write_text("correct horse battery staple\n")
    sealed = "--seal", str(passphrase)
    with Responder(laboratory.public_host(2)) as responder:
        asks = "--set", f"nat.stun={responder.address[0]}:{responder.address[1]}"
        a.up(*asks, listen=None)
        b.up(*asks, listen=None)
        offer = a.ok("offer", *sealed)
        assert set("".join(offer.split())) <= set("overlay:ABCDEFGHIJKLMNOPQRSTUVWXYZ234567")
        assert "passphrase" in b.run("answer", stdin=offer).stderr
        time.sleep(60 * minutes)
        answer = b.ok("answer", *sealed, stdin="> " + offer.replace("\n", "\n> "))
        time.sleep(60 * minutes)
        reply = f"{answer}\nBen\n\n> {offer}"
        met = json.loads(a.ok("accept", "--json", *sealed, stdin=reply, timeout=120.0))
        assert met["peer_id"] == b.peer_id
        assert met["negotiated"] == "manual"
        wait_for(lambda: a.peer(b) and b.peer(a), 30.0, "both have met")
    assert a.json("status")["network_id"] == b.json("status")["network_id"]
    assert "met others" in b.run("answer", stdin=c_offer(crew, laboratory)).stderr


def alone(node: Node) -> str:
    """What `overlay offer` says at a node that nobody tells where it is."""
    done = node.run("offer")
    assert done.returncode == 1
    return done.stderr


def c_offer(crew: Crew, laboratory: Laboratory) -> str:
    """An offer of a node of another network, on the internet itself."""
    host = laboratory.public_host()
    return crew.node("public", enter=host.enter).up(listen=None).ok("offer")


# --- 16. files --------------------------------------------------------------------------------


def test_16_files(pair: list[Node], tmp_path: Path) -> None:
    """Send and receive: consented, verified, resumed, nothing overwritten, either side killed."""
    a, b = pair
    into = tmp_path / "into"
    into.mkdir()
    file = tmp_path / "report.bin"
    file.write_bytes(os.urandom(1 << 20) * 64)
    part = into / "report.bin.part"
    one_line_error(a.run("send", "b", str(file)), "not receiving", "overlay receive", code=1)
    one_line_error(a.run("send", "b", str(tmp_path)), "is a directory", "tar", code=2)

    def receiver(*words: str) -> Process:
        argv = [*OVERLAY, "receive", str(into), *words, "--json", "--data-dir", str(b.directory)]
        process = Process(argv)
        assert next_event(process, "ready", 60.0)["directory"] == str(into)
        return process

    alone = receiver()  # no terminal, nobody named: nobody consents
    try:
        one_line_error(a.run("send", "b", str(file)), "nobody is at b", "--from", code=1)
        assert next_event(alone, "refused", 60.0)["peer_id"] == a.peer_id
    finally:
        alone.kill()
    argv = [*OVERLAY, "send", "b", str(file), "--json", "--data-dir", str(a.directory)]
    taking = receiver("--from", "a")
    try:
        part.write_bytes(b"tampered" + file.read_bytes()[8:4096])
        sending = Process(argv)
        assert next_event(sending, "started", 60.0)["offset"] == 0
        wait_for(lambda: part.stat().st_size >= 1 << 20, 60.0, "a beginning")
        sending.kill()
        failed = next_event(taking, "failed", 60.0)
        assert (failed["file"], failed["kept"]) == ("report.bin", part.stat().st_size)
        again = Process(argv)
        assert next_event(again, "started", 60.0)["offset"] == failed["kept"]
        sent = next_event(again, "sent", 60.0)
        assert again.popen.wait(60.0) == 0
        received = next_event(taking, "received", 60.0)
        assert received["path"] == str(into / "report.bin")
        digest = hashlib.blake2b(file.read_bytes(), digest_size=32).hexdigest()
        assert sent["digest"] == received["digest"] == digest
        file.write_bytes(b"another one")
        a.ok("send", "b", str(file))
        assert next_event(taking, "received", 60.0)["path"] == str(into / "report (1).bin")
    finally:
        taking.kill()
    assert sorted(path.name for path in into.iterdir()) == ["report (1).bin", "report.bin"]
    assert (into / "report (1).bin").read_bytes() == file.read_bytes()
    suite("tests/apps/test_files.py", "full_disk or names or leads or damaged")
    suite("tests/cli/test_files.py", "killed and goes_on")


# --- 17. captures -----------------------------------------------------------------------------


@pytest.mark.timeout(300)
def test_17_every_capture_is_what_the_script_makes() -> None:
    """`python -m docs.captures --check` runs all of them again, in terminals of 80 x 24."""
    done = sh(sys.executable, "-m", "docs.captures", "--check", timeout=280.0)
    assert done.returncode == 0, done.stdout + done.stderr
    suite("tests/docs/test_captures.py", "no_wider or is_found_out")


# --- 18. first hour ---------------------------------------------------------------------------


@pytest.mark.parametrize("word", ["--version", "--help"])
def test_18_the_first_words_import_nothing_that_takes_long(word: str) -> None:
    """How long they take is a row of the benchmarks; here, that nothing heavy is in it."""
    done = sh(sys.executable, "-X", "importtime", *OVERLAY[1:], word)
    found = set(re.findall(r"\| +([\w.]+)$", done.stderr, re.MULTILINE))
    assert "click" in found
    heavy = {"aiortc", "cryptography", "email", "http.client", "msgspec", "nacl", "rich", "ssl"}
    assert not found & {*heavy, "asyncio", "hypercorn", "segno", "sqlite3", "structlog", "trio"}


@pytest.mark.netns
def test_18_two_commands_link_two_machines(short_path: Path) -> None:
    """README's `make run` and `make join`, on two machines of one LAN; nothing else is typed."""
    readme = (ROOT / "README.md").read_text()
    assert re.search(r"^make run$", readme, re.MULTILINE)
    assert re.search(r"^make join$", readme, re.MULTILINE)
    with Lan() as lan, contextlib.ExitStack() as stack:
        here, there = lan.host(firewall=None), lan.host()
        first = Process(make("run"), enter=here.enter, env=home(short_path / "here"))
        stack.callback(first.kill)
        link = wait_for(
            lambda: re.search(r"overlay join (\S+)", "".join(first.out.all)),
            START_TIMEOUT,
            f"the invite in {first.out.all} {first.err.all}",
        )
        assert link is not None
        second = Process(
            make("join"), enter=there.enter, env=home(short_path / "there"), stdin=f"{link[1]}\n"
        )
        stack.callback(second.kill)
        done = wait_for(lambda: linked(there, short_path / "there"), START_TIMEOUT, "a first link")
        assert done is not None
        assert done["negotiated"] == "invite"
        assert here.address in done["remote"]


def home(directory: Path) -> dict[str, str]:
    """The environment of somebody who has just come, on a machine of their own."""
    return {"HOME": str(directory), "XDG_DATA_HOME": str(directory / "data")}


def linked(machine: Host, directory: Path) -> Json | None:
    """The first link of the node of a machine, once there is one."""
    done = overlay("peers", "--json", enter=machine.enter, env=home(directory))
    return json.loads(done.stdout.splitlines()[0]) if done.stdout else None
