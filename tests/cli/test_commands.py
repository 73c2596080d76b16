"""The commands that ask a running node, for people and for programs."""

import base64
import json
import re
import subprocess
import sys
import time

import pytest

from overlay import __version__
from overlay.names import short_id
from tests.cli.complaints import complaint, leave
from tests.lab.nodes import OVERLAY, ROOT, Crew, Node, environment, heard, overlay, wait_for

pytestmark = pytest.mark.slow

STATUS_KEYS = {
    "version", "wire", "peer_id", "name", "network", "listen", "links", "uptime",
    "internal_errors", "signalling",
}  # fmt: skip
PEER_KEYS = {
    "peer_id", "name", "direction", "negotiated", "via", "hops", "path", "local", "remote",
    "since", "rtt", "bytes_in", "bytes_out",
}  # fmt: skip


def test_status_is_one_object_and_a_table_for_people(pair: list[Node]) -> None:
    a, b = pair
    status = a.json("status")
    assert set(status) >= STATUS_KEYS
    assert status["version"] == __version__
    assert (status["wire"], status["name"], status["links"]) == (1, "a", 1)
    assert set(status["signalling"]) == {"sent", "forwarded", "delivered", "dropped"}
    assert status["network_id"] == b.json("status")["network_id"]
    text = a.ok("status")
    assert a.peer_id in text
    assert "\x1b" not in text, "no colours in a pipe"


def test_peers_is_a_line_each_and_a_table_for_people(pair: list[Node]) -> None:
    a, b = pair
    (row,) = a.peers()
    assert set(row) >= PEER_KEYS
    assert (row["peer_id"], row["name"], row["negotiated"]) == (b.peer_id, "b", "invite")
    assert row["remote"] == b.ready["listen"][0]
    lines = a.ok("peers").splitlines()
    assert len(lines) == 2
    assert lines[0].split()[0] == "name"
    assert lines[1].split()[0] == "b"


def test_a_node_alone_has_no_peers(crew: Crew) -> None:
    node = crew.node("alone").up()
    assert node.ok("peers", "--json") == ""
    assert node.ok("peers") == "no links\n"


def test_peers_sdp_shows_both_sides(pair: list[Node]) -> None:
    a, b = pair
    told = a.json("peers", "--sdp", "b")
    assert told["peer_id"] == b.peer_id
    assert told["local"].startswith("v=0\r\n")
    assert told["remote"].startswith("v=0\r\n")
    assert a.ok("peers", "--sdp", "b").count("webrtc-datachannel") == 2
    complaint(a.run("peers", "--sdp", a.peer_id), code=1)  # no link to itself


@pytest.mark.parametrize(
    "of", [lambda b: b.peer_id, lambda b: b.peer_id[:-4], lambda b: b.peer_id[8:16], lambda b: "b"]
)
def test_a_peer_goes_by_its_id_a_prefix_or_its_name(pair: list[Node], of: object) -> None:
    a, b = pair
    answer = a.json("ping", of(b))  # type: ignore[operator]
    assert answer["peer_id"] == b.peer_id
    assert 0 < answer["rtt"] < 30
    told = a.ok("ping", of(b))  # type: ignore[operator]
    assert re.fullmatch(rf"b \({short_id(b.peer_id)}\): \d+\.\d ms \(host\)\n", told)


def test_an_ambiguous_peer_lists_the_candidates(pair: list[Node]) -> None:
    a, b = pair
    for command in ("ping", "connect"):
        line = complaint(a.run(command, "12D3KooW"))
        assert f"{a.peer_id[8:16]} (a, this node)" in line
        assert f"{b.peer_id[8:16]} (b)" in line


def test_a_name_that_two_peers_share_is_ambiguous(crew: Crew) -> None:
    first = crew.node("one").up()
    twins = [crew.node(name) for name in ("x", "y")]
    for twin in twins:
        twin.name = "twin"
        twin.up(join=first.invite())
    first.wait_peers(2)
    wait_for(lambda: [peer["name"] for peer in first.peers()] == ["twin", "twin"], 20.0, "names")
    line = complaint(first.run("ping", "twin"))
    assert all(twin.peer_id[8:16] in line for twin in twins)
    first.ok("ping", twins[0].peer_id)


def test_a_peer_that_nobody_knows_is_a_usage_error(pair: list[Node]) -> None:
    a, _ = pair
    for command in ("ping", "connect"):
        assert "nobody" in complaint(a.run(command, "nobody"))
    stranger = "12D3KooWPjceQrSwdWXPyLLeABRXmuqt69Rg3sBYbU1Nft9HyQ6X"
    complaint(a.run("connect", stranger))
    assert "itself" in complaint(a.run("connect", a.peer_id))


def test_connect_to_a_neighbour_is_done_at_once(pair: list[Node]) -> None:
    a, b = pair
    assert a.json("connect", "b")["peer_id"] == b.peer_id
    assert a.ok("connect", b.peer_id).startswith(f"linked to b ({short_id(b.peer_id)}) at ")


def test_ping_without_a_link_fails(crew: Crew) -> None:
    """C is known to A by its record, and not linked."""
    quiet = ("--set", "links.auto=false")
    middle = crew.node("b").up(*quiet)
    link = middle.invite("--members", "1")
    a, c = (crew.node(name).up(*quiet, join=link) for name in ("a", "c"))
    middle.wait_peers(2)
    done = wait_for(
        lambda: d if (d := a.run("ping", c.peer_id)).returncode == 1 else None, 20.0, "the record"
    )
    assert done is not None
    assert "connect" in complaint(done, code=1)
    rows = {
        row["name"]: row for row in map(json.loads, a.ok("peers", "--all", "--json").splitlines())
    }
    assert (rows["c"]["state"], rows["c"]["remote"], rows["b"]["state"]) == ("known", None, "up")
    assert set(rows["c"]) == set(rows["b"])
    assert "no link" in a.ok("peers", "--all")
    traced = a.json("trace", "c")
    assert traced["hops"] == [middle.peer_id, c.peer_id]
    assert traced["rtt"] > 0
    assert f" 2  {c.peer_id[8:16]}\nthere and back in " in a.ok("trace", c.peer_id)
    assert "itself" in complaint(a.run("trace", "a"))
    complaint(a.run("trace", "nobody"))
    a.ok("connect", c.peer_id)
    a.ok("ping", c.peer_id)


def test_wait_returns_when_there_are_enough_peers_and_gives_up_in_time(pair: list[Node]) -> None:
    a, _ = pair
    assert a.json("wait") == {"links": 1}
    assert a.ok("wait", "--peers", "1", "--timeout", "5") == ""
    started = time.monotonic()
    assert "1 of 9" in complaint(a.run("wait", "--peers", "9", "--timeout", "0.3"), code=1)
    assert time.monotonic() - started > 0.3


def test_published_text_and_bytes_arrive_as_they_were(pair: list[Node]) -> None:
    a, b = pair
    subscription = b.subscribe("t")
    wait_for(lambda: "subscribed" in subscription.log, 30.0, "the subscription")
    a.ok("publish", "t", "grüße\n\x1b[2J")
    message = heard(subscription, "grüße\n\x1b[2J")
    assert set(message) == {"topic", "from", "data", "received_at"}
    assert (message["topic"], message["from"]) == ("t", a.peer_id)
    assert abs(message["received_at"] - time.time()) < 60
    a.ok("publish", "t", "-", stdin="from stdin")
    heard(subscription, "from stdin")
    raw = bytes(range(256))
    argv = [*OVERLAY, "publish", "t", "--data-dir", str(a.directory)]
    subprocess.run(argv, input=raw, env=environment(), cwd=ROOT, timeout=60, check=True)
    message = json.loads(subscription.out.next(20.0))
    assert set(message) == {"topic", "from", "data_b64", "received_at"}
    assert base64.b64decode(message["data_b64"]) == raw


def test_a_subscription_ends_after_its_count(pair: list[Node]) -> None:
    a, b = pair
    argv = [*OVERLAY, "subscribe", "n", "--count", "2", "--data-dir", str(b.directory)]
    with subprocess.Popen(
        argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(), cwd=ROOT
    ) as process:
        assert process.stderr is not None
        assert "subscribed" in process.stderr.readline()
        for data in ("one", "\x1b[2Jtwo", "three"):
            a.ok("publish", "n", data)
        out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert [line.partition(": ")[2] for line in out.splitlines()] == ["one", "�[2Jtwo"]
    assert all(line.startswith(f"a ({a.peer_id[8:16]}): ") for line in out.splitlines())


def test_a_subscription_ends_in_time(pair: list[Node]) -> None:
    a, _ = pair
    done = a.run("subscribe", "silence", "--timeout", "0.3")
    assert (done.returncode, done.stdout) == (0, "")
    done = a.run("subscribe", "silence", "--timeout", "0.3", "--count", "1")
    assert done.returncode == 1
    assert "only 0 of 1 messages" in done.stderr


def test_a_subscription_that_outlives_its_node_fails(crew: Crew) -> None:
    node = crew.node("a").up()
    subscription = node.subscribe("t")
    wait_for(lambda: "subscribed" in subscription.log, 30.0, "the subscription")
    leave(node)
    assert subscription.popen.wait(30) == 1
    subscription.err.finish()
    assert "leaving" in subscription.log


def test_an_interrupted_subscription_is_done(pair: list[Node]) -> None:
    subscription = pair[0].subscribe("t")
    wait_for(lambda: "subscribed" in subscription.log, 30.0, "the subscription")
    assert subscription.end() == 0


def test_a_message_that_is_too_large_is_refused(pair: list[Node]) -> None:
    a, _ = pair
    complaint(a.run("publish", "t", "-", stdin=1_048_577 * "x"))
    complaint(a.run("publish", "t", "-", stdin=2_000_000 * "x"))
    complaint(a.run("publish", "", "x"))


def test_an_invite_is_a_link_and_its_expiry(pair: list[Node]) -> None:
    a, _ = pair
    made = a.json("invite", "--expires", "90s")
    assert set(made) == {"link", "expires_at"}
    assert 0 < made["expires_at"] - time.time() < 91
    done = a.run("invite", "--qr")
    link, *code = done.stdout.splitlines()
    assert link.startswith("overlay:")
    assert len(code) > 20
    assert "good until" in done.stderr


@pytest.mark.parametrize(("members", "named"), [("1", 1), ("2", 2), ("4", 2)])
def test_an_invite_names_as_many_members_as_asked_for(
    pair: list[Node], members: str, named: int
) -> None:
    link = pair[0].invite("--members", members)
    told = json.loads(overlay("invite", "show", "-", "--json", stdin=link).stdout)
    assert told["members"][0]["peer_id"] == pair[0].peer_id
    assert len(told["members"]) == named


def test_invite_show_needs_no_node_and_tells_no_secret(crew: Crew) -> None:
    node = crew.node("a").up()
    link = node.invite()
    leave(node)
    text = overlay("invite", "show", "-", stdin=link).stdout
    told = json.loads(overlay("invite", "show", link, "--json").stdout)
    assert node.peer_id in text
    assert "expires" in text
    assert (told["issuer"], told["network"], told["expired"]) == (node.peer_id, "mesh", False)
    assert told["members"][0]["addresses"][0]["address"] == node.ready["listen"][0]
    for secret in secrets_of(link):
        assert secret.hex() not in text + json.dumps(told)
        assert base64.b64encode(secret).decode().rstrip("=") not in text + json.dumps(told)


def secrets_of(link: str) -> list[bytes]:
    """What a link must not show: the invite key's seed and the dial tokens."""
    from overlay.core.wire import invite
    from overlay.identity import ephemeral

    body = invite.decode(link, ephemeral())
    return [body.seed, *(member.token for member in body.members)]


def test_a_fabricated_answer_has_fresh_credentials_each_time(pair: list[Node]) -> None:
    link = pair[0].invite()
    answers = {overlay("invite", "show", "-", "--sdp", stdin=link).stdout for _ in range(3)}
    assert len(answers) == 3
    for answer in answers:
        assert answer.startswith("v=0\n")
        assert "a=setup:passive" in answer
    told = json.loads(overlay("invite", "show", "-", "--sdp", "--json", stdin=link).stdout)
    assert told["sdp"].startswith("v=0\r\n")


def test_version_and_help(pair: list[Node]) -> None:
    for option in ("--version", "-V"):
        assert overlay(option).stdout == f"overlay, version {__version__}\n"
    for command in ("up", "join", "invite", "status", "peers", "connect", "ping", "trace", "wait",
                    "publish", "subscribe", "chat", "leave"):  # fmt: skip
        done = overlay(command, "--help")
        assert done.returncode == 0
        assert "--data-dir" in done.stdout
        assert "--json" in done.stdout
        assert command in overlay("--help").stdout


@pytest.mark.parametrize("group", ["", "invite", "sim"])
def test_every_command_is_summed_up_in_a_whole_sentence(group: str) -> None:
    done = overlay(*group.split(), "--help", env={"COLUMNS": "80"})
    listed = done.stdout.partition("Commands:")[2]
    assert listed.strip(), "a list of commands"
    assert "..." not in listed
    assert all(len(line) <= 80 for line in done.stdout.splitlines())


HEAVY = ("aiortc", "av", "cryptography", "hypercorn", "msgspec", "nacl", "rich", "segno",
         "sqlite3", "starlette", "structlog", "trio")  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "allowed"),
    [
        (["--version"], set()),
        (["status"], set()),
        (["peers", "--json"], set()),
        (["peers"], {"rich"}),
        (["ping", "b"], set()),
        (["invite", "--json"], set()),
    ],
    ids=" ".join,
)
def test_a_command_imports_no_more_than_it_needs(
    pair: list[Node], arguments: list[str], allowed: set[str]
) -> None:
    """So that it starts fast. (The counter-test: `peers` for people does import rich.)"""
    program = (
        "import sys\nfrom overlay.cli.main import run\n"
        f"code = run({[*arguments]!r})\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)\n"
        "sys.exit(code)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment({"OVERLAY_DATA_DIR": str(pair[0].directory)}),
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == str(sorted(allowed))


def test_a_pipe_that_closes_early_is_no_error(pair: list[Node]) -> None:
    command = " ".join([*OVERLAY, "status", "--data-dir", str(pair[0].directory)])
    done = subprocess.run(
        ["sh", "-c", f"{command} | true"],
        env=environment(),
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
