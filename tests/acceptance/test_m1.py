"""M1 as its user sees it: one black-box test for every line of the order.

The command line, JSON and external tools only.
"""

import base64
import contextlib
import hashlib
import http.client
import json
import os
import re
import shutil
import socket
import sqlite3
import stat
import struct
import subprocess
import sys
import threading
import time
import tomllib
from functools import partial
from pathlib import Path

import pytest

from tests.acceptance.black_box import (
    QUIET,
    failed_up,
    make,
    next_event,
    one_line_error,
    resident,
    sh,
    suite,
)
from tests.lab.backlog import backlog
from tests.lab.nodes import (
    OVERLAY,
    ROOT,
    Crew,
    Json,
    Node,
    Process,
    environment,
    heard,
    overlay,
    settled,
    subscribed,
    wait_for,
)
from tests.lab.storm import Strangers, may_forge, pipe_for_orders

NEGOTIATED = {"invite", "direct", "mesh", "cache", "manual"}
PATHS = {"host", "reflexive", "relayed"}
PEER_KEYS = {
    "peer_id", "name", "direction", "negotiated", "via", "hops", "path", "local", "remote",
    "since", "rtt", "bytes_in", "bytes_out",
}  # fmt: skip


def port_of(node: Node) -> tuple[str, int]:
    host, port = node.ready["listen"][0].rsplit(":", 1)
    return host, int(port)


def refusals(node: Node) -> int:
    """How many hellos and offers the node has refused, over all reasons."""
    status = node.json("status")
    return int(sum(status["refused"].values()) + status["signalling"]["dropped"])


# --- 1. the repository ---------------------------------------------------------------------------


def test_project_is_described_and_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["build-system"]["build-backend"] == "hatchling.build"
    about = project["project"]
    assert about["name"] == "overlay-mesh"
    assert about["requires-python"] == ">=3.11"
    assert "overlay" in about["scripts"]
    needs = " ".join(about["dependencies"])
    assert re.search(r"aiortc==\d", needs)
    assert re.search(r"aioice==\d", needs)
    assert {"libp2p", "lan", "portmap", "metrics", "sim", "sweep"} <= set(
        about["optional-dependencies"]
    )
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if line.strip() and not line.startswith("#")]
    assert pins
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!]+( *;.*)?", pin) for pin in pins)
    assert (ROOT / "overlay" / "py.typed").exists()
    assert "Apache License" in (ROOT / "LICENSE").read_text()
    assert (ROOT / "CHANGELOG.md").exists()
    assert (ROOT / "README.md").exists()


def test_documentation_has_its_six_parts() -> None:
    for name in ("tutorial", "how-to", "architecture", "protocol", "threats"):
        assert (ROOT / "docs" / f"{name}.md").stat().st_size > 500, name
    assert list((ROOT / "docs" / "decisions").glob("*.md"))


def test_make_check_passes_with_lint_types_and_arrows() -> None:
    """It is among what CI runs; a fresh clone passes it in `test_m4.py`."""
    plan = sh(*make("-n", "check")).stdout
    for tool in ("ruff", "mypy", "lint-imports", "tests/test_style.py", "tests/docs"):
        assert tool in plan
    assert "make check" in (ROOT / ".ci" / "run").read_text().splitlines()


def test_ci_runs_make_test_without_skips_and_tries_the_wheel() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    text = script.read_text()
    assert "set -euo pipefail" in text, "it ends at whatever fails"
    assert {"make wheel", "make test"} <= set(text.splitlines())
    assert ".ci/wheel.py" in sh(*make("-n", "wheel")).stdout
    assert "pytest" in sh(*make("-n", "test")).stdout


def test_every_shipped_configuration_starts_a_node(crew: Crew) -> None:
    files = sorted((ROOT / "configs").glob("*.toml"))
    assert files
    for file in files:
        node = crew.node(file.stem)
        node.up("--config", str(file), listen="127.0.0.1:0")
        assert "#" in file.read_text()
        node.close()


def test_database_is_versioned_and_a_newer_one_is_refused(crew: Crew) -> None:
    node = crew.node("a").up()
    assert node.process is not None
    node.process.end()
    files = [file for file in node.directory.iterdir() if file.is_file()]
    (file,) = [file for file in files if file.read_bytes()[:15] == b"SQLite format 3"]
    with contextlib.closing(sqlite3.connect(file)) as database:
        (version,) = database.execute("PRAGMA user_version").fetchone()
        assert version >= 1
        database.execute("PRAGMA user_version = 9999")
        database.commit()
    assert re.search(r"newer|9999", failed_up(node))


def test_wire_vectors_cover_everything_and_only_grow() -> None:
    path = "tests/vectors/wire-1.json"
    now = json.loads((ROOT / path).read_text())
    text = json.dumps(now)
    for word in ("Hello", "Proof", "Goodbye", "Ping", "Pong", "Neighbours", "Records", "Offer",
                 "Answer", "SignalAck", "Bounce", "Gossip", "TokenRequest", "TokenGrant",
                 "Record", "InviteBody"):  # fmt: skip
        assert word in text, word
    commits = sh("git", "log", "--format=%H", "--", path).stdout.split()
    assert commits
    for commit in commits:
        before = json.loads(sh("git", "show", f"{commit}:{path}").stdout)
        assert contains(now, before), f"a vector of {commit} has gone or changed"


def contains(now: object, before: object) -> bool:
    """Whether everything in `before` is still in `now` (dicts and lists may grow)."""
    if isinstance(before, dict) and isinstance(now, dict):
        return all(key in now and contains(now[key], value) for key, value in before.items())
    if isinstance(before, list) and isinstance(now, list):
        return all(entry in now for entry in before)
    return now == before


def fresh_clone(target: Path) -> Path:
    """What a newcomer gets: the committed files alone."""
    done = sh("git", "clone", "-q", "--no-hardlinks", str(ROOT), str(target))
    assert done.returncode == 0, done.stderr
    return target


@pytest.mark.slow
def test_make_run_and_the_command_it_prints_form_a_mesh(short_path: Path) -> None:
    """The README's `make run`, then the printed command in another terminal."""
    assert "make run" in (ROOT / "README.md").read_text()
    a_mesh_by_make_run(short_path, make("run"), Path(sys.prefix) / "bin", patience=60.0)


@pytest.mark.soak
@pytest.mark.timeout(480)
def test_make_run_in_a_fresh_clone_installs_what_it_needs(short_path: Path) -> None:
    clone = fresh_clone(short_path / "clone")
    run = ("make", "-C", str(clone), "run")
    a_mesh_by_make_run(short_path, run, clone / ".venv" / "bin", patience=400.0)


def a_mesh_by_make_run(
    short_path: Path, make_run: tuple[str, ...], commands: Path, patience: float
) -> None:
    home = {"HOME": str(short_path / "home"), "XDG_DATA_HOME": str(short_path / "data")}
    run = Process(make_run, env=home)
    try:
        printed = wait_for(
            lambda: re.search(r"^.*\boverlay join \S+.*$", "".join(run.out.all), re.MULTILINE),
            patience,
            f"the command for the second machine in {run.out.all} {run.err.all}",
        )
        assert any(block in "".join(run.out.all) for block in "█▀▄"), "no QR code"
        assert printed is not None
        command = printed.group().strip().lstrip("$ ")
        other = {**home, "OVERLAY_DATA_DIR": str(short_path / "second")}
        other["PATH"] = f"{commands}:{os.environ['PATH']}"
        second = Process(["sh", "-c", command], env=other)
        try:
            wait_for(
                lambda: len(overlay("peers", "--json", env=other).stdout.splitlines()) == 1,
                60.0,
                "the second node linked to the first",
            )
        finally:
            second.kill()
    finally:
        run.kill()


@pytest.mark.soak
@pytest.mark.timeout(480)
def test_wheel_alone_in_a_new_environment_joins(short_path: Path) -> None:
    """From a fresh clone; CI's `make wheel` does it with the tree that it tests."""
    clone = fresh_clone(short_path / "clone")
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "-q")
    done = sh(*pip, "wheel", "--no-deps", "-w", str(short_path), str(clone), timeout=300)
    assert done.returncode == 0, done.stderr
    (wheel,) = short_path.glob("*.whl")
    assert sh(sys.executable, "-m", "venv", str(short_path / "v")).returncode == 0
    constraints = str(ROOT / "constraints.txt")
    done = sh(str(short_path / "v/bin/pip"), "install", "-q", "-c", constraints, str(wheel),
              timeout=400)  # fmt: skip
    assert done.returncode == 0, done.stderr
    command = str(short_path / "v/bin/overlay")
    assert re.search(r"\d+\.\d+", sh(command, "--version", cwd=short_path).stdout)
    with Crew(short_path) as crew:
        first = crew.node("a", argv=[command]).up()
        crew.node("b", argv=[command]).up(join=first.invite())
        first.wait_peers(1)


def test_benchmarks_meet_every_bar_and_are_tabled() -> None:
    results = json.loads((ROOT / "benchmarks" / "results.json").read_text())
    table = (ROOT / "docs" / "benchmarks.md").read_text()
    assert len(results) >= 8
    for result in results:
        assert set(result) == {"name", "value", "unit", "baseline", "ratio", "bar", "ok"}
        assert result["name"] in table, result["name"]
        assert result["ok"] or result["name"].startswith("sim-"), result  # those are of M3
    assert sh(*make("-n", "bench")).returncode == 0


# --- 2. identity and records ---------------------------------------------------------------------


def test_keys_are_private_and_the_identity_lasts(crew: Crew) -> None:
    node = crew.node("a").up()
    first, port = node.peer_id, port_of(node)
    keys = [file for file in node.directory.rglob("*") if file.suffix in {".key", ".pem"}]
    assert keys
    for file in [*keys, *(f for f in node.directory.iterdir() if f.suffix == ".sock")]:
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
    assert node.process is not None
    assert node.process.end() == 0
    node.up(listen=None)
    assert node.peer_id == first
    assert port_of(node)[1] == port[1], "the port is part of the identity"


def test_peer_id_is_one_that_libp2p_reads(crew: Crew) -> None:
    text = crew.node("a").up().peer_id
    program = (
        "import sys\nfrom libp2p.peer.id import ID\n"
        "peer = ID.from_base58(sys.argv[1])\nassert peer.to_base58() == sys.argv[1]\n"
        "print(len(peer.extract_public_key().to_bytes()))"
    )
    done = sh(sys.executable, "-c", program, text)
    assert done.stdout.strip() == "32", done.stderr


def test_sealing_matches_rfc_9180() -> None:
    suite("tests/test_identity.py", "rfc or hpke")


def test_records_are_signed_sequenced_expiring_with_daily_prekeys() -> None:
    suite("tests/core/membership/test_records.py", "forged or sequence or expire or prekey")


# --- 3. STUN and ICE -----------------------------------------------------------------------------


def test_stun_matches_rfc_5769() -> None:
    suite("tests/core", "5769")


def test_the_node_port_answers_plain_stun(crew: Crew) -> None:
    node = crew.node("a").up()
    transaction = os.urandom(12)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.bind(("127.0.0.1", 0))
        client.settimeout(5.0)
        client.sendto(struct.pack("!HHI", 1, 0, 0x2112A442) + transaction, port_of(node))
        answer, source = client.recvfrom(2048)
        assert source == port_of(node)
        assert answer[:2] == b"\x01\x01"
        assert answer[8:20] == transaction
        mapped = answer.index(b"\x00\x20\x00\x08") + 6
        (port,) = struct.unpack_from("!H", answer, mapped)
        assert port ^ 0x2112 == client.getsockname()[1]


STOCK_DIAL = """
import asyncio, sys
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription

async def main():
    pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    channel = pc.createDataChannel("overlay", negotiated=True, id=0)
    opened = asyncio.Event()
    channel.on("open", opened.set)
    await pc.setLocalDescription(await pc.createOffer())
    await pc.setRemoteDescription(RTCSessionDescription(sys.stdin.read(), "answer"))
    await asyncio.wait_for(opened.wait(), float(sys.argv[1]))
    print("open")
    await pc.close()

asyncio.run(main())
"""


def test_a_stock_peer_connection_opens_with_the_fabricated_answer(crew: Crew) -> None:
    node = crew.node("a").up()
    answers = [node.ok("invite", "show", node.invite(), "--sdp") for _ in range(2)]
    assert answers[0] != answers[1], "credentials are fresh each time"
    assert "a=ice-lite" in answers[0]
    for answer, patience, opens in [
        (answers[0], 15, True),
        (broken_fingerprint(answers[1]), 4, False),
    ]:
        done = subprocess.run(
            [sys.executable, "-c", STOCK_DIAL, str(patience)],
            input=answer,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (done.stdout.strip() == "open") is opens, done.stderr


def broken_fingerprint(sdp: str) -> str:
    """The counter-test: the same answer naming another certificate."""
    found = re.search(r"a=fingerprint:sha-256 (\w\w)", sdp)
    assert found is not None
    other = "00" if found[1] != "00" else "FF"
    return sdp[: found.start(1)] + other + sdp[found.end(1) :]


def test_ice_interoperates_with_stock_aiortc_in_both_roles() -> None:
    suite("tests/transport/udp/test_stock_peer.py", "offer or answer")


def test_an_unreachable_peer_is_known_within_ten_seconds(line: list[Node]) -> None:
    """C's record is known at A, but C has just died: `connect` says so in time."""
    a, _, c = line
    c.kill()
    started = time.monotonic()
    one_line_error(a.run("connect", c.peer_id), code=1)
    assert time.monotonic() - started < 15.0


# --- 4. transport --------------------------------------------------------------------------------


def test_all_links_of_a_node_share_its_one_port(crew: Crew) -> None:
    nodes = mesh_of(crew, 4)
    hub = nodes[0]
    assert hub.process is not None
    assert {line["local"] for line in hub.peers()} == {hub.ready["listen"][0]}
    sockets = sh("ss", "-uanpH").stdout.splitlines()
    own = [line for line in sockets if f"pid={hub.process.popen.pid}," in line]
    assert len(own) == 1, own


def test_a_client_hello_without_cookie_costs_less_than_it_sent(crew: Crew) -> None:
    """The answer to a stranger is at most three times the question (naive: 14 times)."""
    suite("tests/transport", "cookie")


def test_half_open_handshakes_are_bounded() -> None:
    suite("tests/core/endpoint/test_limits.py", "test")


def test_the_memory_transport_has_the_same_interface() -> None:
    suite("tests/transport", "memory")


def mesh_of(crew: Crew, count: int, *args: str) -> list[Node]:
    """A full mesh, all joined by the first node's invite."""
    first = crew.node("n1").up(*args)
    link = first.invite()
    others = [crew.node(f"n{i}") for i in range(2, count + 1)]
    for node in others:
        node.start(*args, join=link)
    nodes = [first, *(node.wait_ready() for node in others)]
    settled(nodes)
    return nodes


# --- 5. invites ----------------------------------------------------------------------------------


def test_an_invite_has_an_expiry_members_and_a_code_to_scan(crew: Crew) -> None:
    nodes = mesh_of(crew, 3)
    before = time.time()
    short = nodes[0].json("invite", "--expires", "1h", "--members", "1")
    assert set(short) == {"link", "expires_at"}
    assert before + 3500 < short["expires_at"] < before + 3700
    told = json.loads(overlay("invite", "show", short["link"], "--json").stdout)
    assert [member["peer_id"] for member in told["members"]] == [nodes[0].peer_id]
    told = json.loads(overlay("invite", "show", nodes[0].invite(), "--json").stdout)
    assert len(told["members"]) == 3
    assert all(member["addresses"] for member in told["members"])
    assert any(block in nodes[0].ok("invite", "--qr") for block in "█▀▄")


def test_join_races_addresses_so_a_dead_one_does_not_matter(crew: Crew) -> None:
    """Three of the member's four addresses lead nowhere."""
    nowhere = [word for port in (7, 9, 13) for word in ("--advertise", f"127.0.0.1:{port}")]
    hub = crew.node("a").up(*nowhere)
    told = json.loads(overlay("invite", "show", hub.invite(), "--json").stdout)
    assert len(told["members"][0]["addresses"]) == 4
    crew.node("b").up(join=hub.invite())
    hub.wait_peers(1)


def test_invite_show_explains_a_link_without_using_it(crew: Crew) -> None:
    node = crew.node("a").up()
    link = node.invite()
    node.kill()
    told = overlay("invite", "show", "-", stdin=link + "\n")
    assert told.returncode == 0, told.stderr
    assert node.peer_id in told.stdout
    assert "expire" in told.stdout.lower()


def test_join_races_members_so_a_dead_one_does_not_matter(crew: Crew) -> None:
    """The creator is gone: its invite still opens, by the other members it names."""
    nodes = mesh_of(crew, 3)
    link = nodes[0].invite()
    nodes[0].kill()
    late = crew.node("late").up(join=link)
    late.wait_peers(2)
    assert {line["peer_id"] for line in late.peers()} == {n.peer_id for n in nodes[1:]}
    assert "invite" in {line["negotiated"] for line in late.peers()}


@pytest.mark.parametrize("kind", ["malformed", "truncated", "mistyped", "newer"])
def test_a_bad_link_is_refused_in_one_line(crew: Crew, kind: str) -> None:
    link = crew.node("a").up().invite()
    bad = {
        "malformed": "http://example.org/",
        "truncated": link[: len(link) // 2],
        "mistyped": link[:40] + ("A" if link[40] != "A" else "B") + link[41:],
        "newer": newer_version(link),
    }[kind]
    done = overlay("join", "-", "--data-dir", str(crew.directory / "b"), stdin=bad + "\n")
    line = one_line_error(done, "invite|link")
    assert bad not in line, "a link is a secret"
    one_line_error(overlay("invite", "show", "-", stdin=bad + "\n"))
    words = {"malformed": "not an|no ", "truncated": "cut|truncat|incomplete|short|mistyped",
             "mistyped": "typ|checksum", "newer": "newer|version"}  # fmt: skip
    assert re.search(words[kind], line, re.IGNORECASE), line


def newer_version(link: str) -> str:
    """The same link as a later version of the format: version byte and checksum changed."""
    packed = link.removeprefix("overlay:")
    payload = base64.urlsafe_b64decode(packed + "=" * (-len(packed) % 4))[:-4]
    later = bytes([payload[0] + 1]) + payload[1:]
    checked = later + hashlib.sha256(later).digest()[:4]
    return "overlay:" + base64.urlsafe_b64encode(checked).decode().rstrip("=")


def test_an_expired_invite_is_refused_in_one_line(crew: Crew) -> None:
    node = crew.node("a").up()
    invite = node.json("invite", "--expires", "1s")
    wait_for(lambda: time.time() > invite["expires_at"] + 0.5, 10.0, "the invite's expiry")
    done = overlay(
        "join", "-", "--data-dir", str(crew.directory / "b"), stdin=invite["link"] + "\n"
    )
    one_line_error(done, "expired")
    assert node.peers() == []


def test_an_invite_to_another_network_is_refused_in_one_line(crew: Crew) -> None:
    here, there = crew.node("a").up(), crew.node("b").up()
    link = there.invite()
    one_line_error(here.run("join", "-", stdin=link + "\n"), "network")
    here.kill()
    line = failed_up(here, join=link)
    assert re.search("network", line)


def test_an_unreachable_invite_is_refused_in_one_line(crew: Crew) -> None:
    node = crew.node("a").up()
    link = node.invite()
    node.kill()
    started = time.monotonic()
    given = ("--data-dir", str(crew.directory / "b"), "--timeout", "4")
    done = overlay("join", "-", *given, stdin=link + "\n")
    one_line_error(done, "reach|answer")
    assert time.monotonic() - started < 20.0


# --- 6. the core ---------------------------------------------------------------------------------


def test_eight_nodes_form_a_full_mesh_and_hear_each_message_once(crew: Crew) -> None:
    nodes = mesh_of(crew, 8)
    subscriptions = subscribed(nodes, "news")
    for node in nodes:
        node.ok("publish", "news", f"from {node.name}")
    for node, subscription in zip(nodes, subscriptions, strict=True):
        others = {other.name: other.peer_id for other in nodes}
        missing = set(others)
        while missing:
            message = json.loads(subscription.out.next(20.0))
            if message["data"].startswith("from "):
                name = message["data"].removeprefix("from ")
                assert message["from"] == others[name]
                missing.remove(name)  # KeyError: heard twice
        assert node.json("status")["links"] == 7


def test_handle_never_raises_and_stays_bounded_under_hypothesis() -> None:
    suite("tests/core", "(never_raises or bounded) and (overlay or core or handle)")


def test_a_seeded_world_drives_the_same_core() -> None:
    suite("tests/core/test_world.py", "seed or dies or frozen or killed")


# --- 7. the node and its commands ----------------------------------------------------------------


def test_json_of_up_status_invite_and_peers_is_as_promised(pair: list[Node]) -> None:
    a, b = pair
    assert set(a.ready) >= {"event", "peer_id", "listen", "invite"}
    assert re.fullmatch(r"127\.0\.0\.1:\d+", a.ready["listen"][0])
    status = a.json("status")
    assert set(status) >= {"version", "wire", "peer_id", "name", "network", "listen", "links",
                           "uptime", "internal_errors", "signalling"}  # fmt: skip
    assert set(status["signalling"]) == {"sent", "forwarded", "delivered", "dropped"}
    assert (status["links"], status["internal_errors"], status["name"]) == (1, 0, "a")
    assert set(a.json("invite")) == {"link", "expires_at"}
    ours, theirs = a.peer(b), b.peer(a)
    assert ours is not None
    assert theirs is not None
    assert set(ours) >= PEER_KEYS
    assert (ours["direction"], theirs["direction"]) == ("in", "out")
    assert ours["negotiated"] == theirs["negotiated"] == "invite"
    assert ours["path"] in PATHS
    assert ours["local"] == theirs["remote"]
    assert ours["via"] is None
    assert abs(ours["since"] - time.time()) < 120
    assert ours["bytes_in"] > 0
    assert ours["rtt"] is None or 0 < ours["rtt"] < 5


def test_subscribe_prints_text_and_binary_messages(pair: list[Node]) -> None:
    a, b = pair
    (subscription,) = subscribed([b], "t")
    a.ok("publish", "t", "grüße")
    message = heard(subscription, "grüße")
    assert set(message) == {"topic", "from", "data", "received_at"}
    assert (message["topic"], message["from"]) == ("t", a.peer_id)
    a.ok("publish", "t", "-", stdin="from stdin")
    assert heard(subscription, "from stdin")
    raw = subprocess.run(
        [*a.argv, "publish", "t", "-", "--data-dir", str(a.directory)],
        input=b"\xff\x00",
        env=environment(),
        cwd=ROOT,
        timeout=60,
        check=True,
    )
    assert raw.returncode == 0
    assert json.loads(subscription.out.next(20.0))["data_b64"] == "/wA="


def test_ping_connect_wait_leave_and_names_of_peers(crew: Crew) -> None:
    a, b, c = mesh_of(crew, 3)
    for name in (b.peer_id, b.name, b.peer_id[:-3]):
        a.ok("ping", name)
    a.ok("connect", b.name)
    one_line_error(a.run("ping", "12D3"), "ambiguous|matches|more than one")
    one_line_error(a.run("ping", "nobody"))
    a.ok("wait", "--peers", "2")
    c.ok("leave")
    assert a.process is not None
    assert c.process is not None
    assert c.process.popen.wait(10) == 0
    wait_for(lambda: a.peer(c) is None, 3.0, "a graceful leave is known at once")
    ended = next_event(a.process, "unlinked", 3.0)
    assert ended["peer_id"] == c.peer_id
    assert ended["reason"], "the end of a link says why"
    one_line_error(c.run("status"), code=3)


def test_peers_sdp_prints_both_descriptions_of_a_link(line: list[Node]) -> None:
    a, _, c = line
    a.ok("connect", c.peer_id)
    told = a.ok("peers", "--sdp", c.peer_id)
    assert told.count("webrtc-datachannel") == 2
    assert len(set(re.findall(r"a=ice-ufrag:(\S+)", told))) == 2
    assert len(set(re.findall(r"a=fingerprint:sha-256 (\S+)", told))) == 2


def test_settings_come_from_file_environment_and_command_line(crew: Crew) -> None:
    """Each later source wins: file, environment, `--set`."""
    file = crew.directory / "c.toml"
    file.write_text('name = "from-file"\n')
    argv = ["up", "--json", "--config", str(file), "--listen", "127.0.0.1:0", "--data-dir"]
    cases: list[tuple[dict[str, str], list[str], str]] = [
        ({}, [], "from-file"),
        ({"OVERLAY_NAME": "from-env"}, [], "from-env"),
        ({"OVERLAY_NAME": "from-env"}, ["--set", "name=from-set"], "from-set"),
    ]
    for index, (env, extra, name) in enumerate(cases):
        directory = crew.directory / f"n{index}"
        process = Process([*crew.node("x").argv, *argv, str(directory), *extra], env=env)
        try:
            process.out.next(30.0)
            told = overlay("status", "--json", "--data-dir", str(directory)).stdout
            assert json.loads(told)["name"] == name
        finally:
            process.kill()


def test_the_control_api_is_http_over_a_unix_socket_of_the_owner(crew: Crew) -> None:
    node = crew.node("a").up()
    (path,) = [f for f in node.directory.iterdir() if stat.S_ISSOCK(f.stat().st_mode)]
    assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(5.0)
        client.connect(str(path))
        client.sendall(b"GET /status HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n")
        answer = http.client.HTTPResponse(client)
        answer.begin()
        assert answer.status == 200
        assert json.loads(answer.read())["peer_id"] == node.peer_id


def test_direct_false_dials_nobody_from_a_gossiped_record(crew: Crew) -> None:
    """All are dialable, yet every link beside the first's own is negotiated through the mesh."""
    first = crew.node("n1").up("--set", "links.direct=false")
    link = first.invite("--members", "1")
    others = [crew.node(f"n{i}").up("--set", "links.direct=false", join=link) for i in (2, 3, 4)]
    settled([first, *others])
    for node in others:
        for peer in node.peers():
            assert peer["negotiated"] == ("invite" if peer["peer_id"] == first.peer_id else "mesh")
            assert (peer["via"] is None) == (peer["negotiated"] == "invite")
            assert peer["hops"] >= (0 if peer["negotiated"] == "invite" else 2)


def test_auto_false_opens_no_link_that_nobody_asked_for(line: list[Node]) -> None:
    a, b, c = line
    a.ok("ping", b.peer_id)
    assert a.peer(c) is None
    assert [peer["peer_id"] for peer in c.peers()] == [b.peer_id]


def test_no_node_is_exit_3_and_usage_is_exit_2(short_path: Path) -> None:
    one_line_error(overlay("status", "--data-dir", str(short_path / "none")), code=3)
    assert overlay("frobnicate").returncode == 2
    assert overlay("publish").returncode == 2


def test_logs_are_structured(crew: Crew) -> None:
    """With `--json` each line of the log is an object with an event and a level."""
    a = crew.node("a").up("--set", "log.format=json")
    b = crew.node("b").up(join=a.invite())
    settled([a, b])
    lines = [json.loads(text) for text in a.log.splitlines()]
    assert lines
    assert all("event" in line and "level" in line for line in lines)


# --- demonstrations ------------------------------------------------------------------------------

# That they hold with sixteen nodes: `test_m2.py`.


def test_demo_fails_when_a_survivor_cannot_hear() -> None:
    """The counter-test: one survivor frozen before the last message."""
    demo = sh(sys.executable, "demos/mesh.py", "--freeze-one", "--nodes", "3", timeout=180)
    assert demo.returncode == 1, demo.stdout + demo.stderr


def test_firewalled_demo_runs_as_an_ordinary_user() -> None:
    done = sh("unshare", "-Urn", sys.executable, "demos/firewalled.py", "--nodes", "4", timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def test_firewalled_demo_fails_without_its_firewalls() -> None:
    """The counter-test: with open doors anybody could have dialled, and the proof is none."""
    done = sh(sys.executable, "demos/firewalled.py", "--no-firewall", "--nodes", "3", timeout=120)
    assert done.returncode == 1, done.stdout + done.stderr


# --- the counter-test of mesh negotiation --------------------------------------------------------


def test_connect_needs_the_one_between(line: list[Node]) -> None:
    """B frozen: no. B thawed: yes, by mesh via B, which forwarded the offer and the answer."""
    a, b, c = line
    b.freeze()
    started = time.monotonic()
    one_line_error(a.run("connect", c.peer_id), code=1)
    assert time.monotonic() - started < 15.0
    b.thaw()
    wait_for(lambda: b.peer(a) and b.peer(c) and a.peer(b) and c.peer(b), 20.0, "B is back")
    before = b.json("status")["signalling"]["forwarded"]
    a.ok("connect", c.peer_id)
    for here, there in ((a, c), (c, a)):
        peer = wait_for(partial(here.peer, there), 5.0, "the link at both ends")
        assert peer is not None
        assert (peer["negotiated"], peer["via"], peer["hops"]) == ("mesh", b.peer_id, 2)
    assert b.json("status")["signalling"]["forwarded"] >= before + 2


def test_an_offer_corrupted_on_the_way_is_refused_counted_and_named(crew: Crew) -> None:
    build = [sys.executable, "-m", "tests.builds.corrupt_offer"]
    b = crew.node("b", argv=build).up(*QUIET)
    link = b.invite("--members", "1")
    a, c = (crew.node(name).up(*QUIET, join=link) for name in ("a", "c"))
    b.wait_peers(2)
    before = refusals(c)
    a.run("connect", c.peer_id)  # whether a second offer makes up for it is A's affair
    assert refusals(c) == before + 1
    c.logs(r"offer_refused.*\bseal\b")
    assert re.search(r"offer_refused", a.log + b.log) is None
    a.ok("connect", c.peer_id)  # the build corrupts one offer only: nothing else was wrong
    assert c.json("status")["internal_errors"] == 0


# --- bad input and faults ------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(420)
def test_a_storm_of_datagrams_costs_no_innocent_link(crew: Crew) -> None:
    """200,000 datagrams at one node, half of them from a linked peer that has turned on it."""
    if not may_forge():
        pytest.skip("needs CAP_NET_RAW to forge source addresses: run as root")
    hub, *innocent = mesh_of(crew, 3)
    orders = pipe_for_orders(crew.directory)
    hostile = crew.node(
        "hostile",
        argv=[sys.executable, "-m", "tests.builds.hostile_node"],
        env={"HOSTILE_ORDERS": orders},
    ).up(join=hub.invite("--members", "1"))
    hub.wait_peers(3)
    (subscription,) = subscribed([innocent[0]], "after")
    before = resident(hub)
    report = storm(hub, innocent, hostile, orders)
    assert report["read"] >= 200_000, report
    assert report["from_linked"] >= report["read"] / 4, report
    assert min(report["mutated"]["stun"], report["mutated"]["dtls"]) > 10_000, report
    assert report["mutated"]["sctp"] > 100, report
    assert report["worst_amplification"] <= 3.0, report
    for node in innocent:
        hub.ok("ping", node.peer_id)
        node.ok("ping", hub.peer_id)
    hub.ok("publish", "after", "still here")
    heard(subscription, "still here")
    assert [node.json("status")["internal_errors"] for node in (hub, *innocent)] == [0, 0, 0]
    assert resident(hub) - before <= 16 * 1024 * 1024


def storm(hub: Node, innocent: list[Node], hostile: Node, orders: str) -> Json:
    """Strangers and the hostile peer at once, until both have sent their share; what was sent."""
    assert hostile.process is not None
    dropped = backlog(port_of(hub)[1])[1]
    order = {"target": hub.ready["listen"][0], "count": FROM_LINKED, "seed": 1}
    Path(orders).write_text(json.dumps(order) + "\n")
    begun = next_event(hostile.process, "storm_begins", 10.0)
    over = threading.Event()
    reconnecting = threading.Thread(target=keep_linked, args=(hostile, hub, over))
    reconnecting.start()
    try:
        with Strangers(port_of(hub), [port_of(node) for node in innocent], seed=1) as strangers:
            strangers.checks = [bytes.fromhex(check) for check in begun["checks"]]
            strangers.send(FROM_STRANGERS)
            worst = strangers.worst_amplification()
        mutated = next_event(hostile.process, "storm", 300.0)["sent"]
    finally:
        over.set()
        reconnecting.join()
    sent = FROM_STRANGERS + sum(mutated.values())
    return {
        "read": sent - (backlog(port_of(hub)[1])[1] - dropped),
        "from_linked": sum(mutated.values()),
        "mutated": mutated,
        "worst_amplification": worst,
    }


FROM_STRANGERS, FROM_LINKED = 150_000, 60_000


def keep_linked(hostile: Node, hub: Node, over: threading.Event) -> None:
    """Open the hostile link again whenever the hub has ended it."""
    while not over.wait(0.2):
        with contextlib.suppress(subprocess.TimeoutExpired):
            hostile.run("connect", hub.peer_id)


@pytest.mark.parametrize("fault", ["garbage", "oversized", "out_of_order"])
def test_a_bad_control_message_ends_the_link_not_the_node(crew: Crew, fault: str) -> None:
    hub, innocent = mesh_of(crew, 2)
    build = [sys.executable, "-m", "tests.builds.bad_control", fault]
    bad = crew.node("bad", argv=build)
    bad.start(join=hub.invite("--members", "1"))
    wait_for(lambda: "protocol" in hub.log, 20.0, "the hub says why it ended the link")
    hub.ok("ping", innocent.peer_id)
    assert hub.json("status")["internal_errors"] == 0
    assert hub.process is not None
    assert hub.process.popen.poll() is None


def forger(fault: str) -> list[str]:
    return [sys.executable, "-m", "tests.builds.forger", fault]


def test_a_listener_with_another_certificate_is_refused(crew: Crew) -> None:
    """The link names a fingerprint; whoever answers with another certificate is not the member."""
    hub, other = crew.node("a").up(), crew.node("o").up()
    link, listen = hub.invite(), hub.ready["listen"][0]
    hub.kill()
    shutil.copy(other.directory / "certificate.pem", hub.directory / "certificate.pem")
    hub.up(listen=listen)
    one_line_error(crew.node("b").run("join", "-", stdin=link + "\n"), "certificate")
    assert hub.peers() == []
    crew.node("c").up(join=hub.invite())
    hub.wait_peers(1)


def test_a_man_in_the_middle_is_refused_and_counted(crew: Crew) -> None:
    """He passes everything on between two sessions of his own; the hello finds him out."""
    hub = crew.node("a").up()
    link = hub.invite("--members", "1")
    middle = Process([sys.executable, "-m", "tests.builds.man_in_the_middle"], stdin=link + "\n")
    try:
        crooked = middle.out.next(30.0)
        joiner = crew.node("b")
        one_line_error(joiner.run("join", "-", stdin=crooked), "invite|member|refuse|reach")
    finally:
        middle.kill()
    assert refusals(hub) >= 1
    hub.logs("hello_refused")
    assert hub.peers() == []
    joiner.up(join=link)  # without him between them
    hub.wait_peers(1)


def test_a_replayed_hello_is_refused_and_counted(crew: Crew) -> None:
    hub = crew.node("a").up()
    env = {"KEPT_PROOF": str(crew.directory / "proof")}
    joiner = crew.node("b", argv=forger("replayed_hello"), env=env).up(join=hub.invite())
    hub.wait_peers(1)
    joiner.kill()
    assert refusals(hub) == 0
    assert failed_up(joiner, join=hub.invite())
    assert refusals(hub) >= 1
    hub.logs("hello_refused")


NO_RELAY = (*QUIET, "--set", "links.circuits=false")


def attempt_is_refused(dialler: Node, target: Node) -> None:
    """`connect` leads to refusals at the target and to no link."""
    before = refusals(target)
    connecting = Process(
        [*OVERLAY, "connect", target.peer_id, "--data-dir", str(dialler.directory)]
    )
    try:
        wait_for(lambda: refusals(target) > before, 15.0, "the offer is refused")
    finally:
        connecting.kill()
    assert target.peer(dialler) is None


@pytest.mark.parametrize("fault", ["forged_offer", "offer_for_another"])
def test_a_forged_offer_is_refused_and_counted(crew: Crew, fault: str) -> None:
    b = crew.node("b").up(*QUIET)
    link = b.invite("--members", "1")
    a = crew.node("a", argv=forger(fault)).up(*NO_RELAY, join=link)
    c = crew.node("c").up(*NO_RELAY, join=link)
    b.wait_peers(2)
    attempt_is_refused(a, c)
    c.logs("offer_refused")


def test_a_replayed_offer_is_refused_and_counted(crew: Crew) -> None:
    """B sends A's old offer again wherever D's was to go."""
    b = crew.node("b", argv=forger("replayed_offer")).up(*QUIET)
    link = b.invite("--members", "1")
    a, c, d = (crew.node(name).up(*NO_RELAY, join=link) for name in ("a", "c", "d"))
    b.wait_peers(3)
    a.ok("connect", c.peer_id)
    since = c.peer(a)
    assert since is not None
    attempt_is_refused(d, c)
    after = c.peer(a)
    assert after is not None
    assert after["since"] == since["since"], "the link that the first offer made goes on"


def test_a_node_of_another_wire_version_is_told_both_versions(crew: Crew) -> None:
    hub = crew.node("a").up()
    build = [sys.executable, "-m", "tests.builds.other_wire"]
    line = failed_up(crew.node("b", argv=build), join=hub.invite())
    assert re.search(r"version.*\b1\b.*\b2\b|version.*\b2\b.*\b1\b", line), line
    assert hub.peers() == []


def test_a_killed_node_is_known_within_ten_seconds(pair: list[Node]) -> None:
    a, b = pair
    b.kill()
    wait_for(lambda: a.peer(b) is None, 10.0, "a knows that b is gone")


def test_a_killed_node_is_back_within_two_seconds_of_its_restart(crew: Crew) -> None:
    """Same data directory, same port, no invite: from `ready` to the first link in 2 s."""
    a, b, c = mesh_of(crew, 3)
    listen = "{}:{}".format(*port_of(c))
    c.kill()
    c.up(listen=listen)
    started = time.monotonic()
    c.wait_peers(2)
    assert time.monotonic() - started < 2.0 + 1.0, "2 s, and 1 s for the command itself"
    for node in (a, b):
        node.ok("ping", c.peer_id)
        peer = node.peer(c)
        assert peer is not None
        assert peer["negotiated"] in NEGOTIATED - {"invite"}


def test_a_second_up_on_one_data_directory_is_refused(crew: Crew) -> None:
    node = crew.node("a").up()
    second = Node(node.directory)
    assert re.search("already|running|in use", failed_up(second))
    assert node.json("status")["peer_id"] == node.peer_id


def test_a_port_in_use_is_refused(crew: Crew) -> None:
    node = crew.node("a").up()
    address = "{}:{}".format(*port_of(node))
    line = failed_up(crew.node("b"), listen=address)
    assert address.split(":")[1] in line
    assert re.search("in use", line)


def test_a_bad_configuration_key_is_refused(crew: Crew) -> None:
    assert re.search("links.atuo", failed_up(crew.node("a"), "--set", "links.atuo=false"))
    file = crew.directory / "c.toml"
    file.write_text("[links]\natuo = false\n")
    line = failed_up(crew.node("b"), "--config", str(file))
    assert re.search(r"links\.atuo", line)
    assert re.search(r"links\.auto", line), "says what to do"


def test_an_unreadable_key_file_is_refused(crew: Crew) -> None:
    node = crew.node("a").up()
    node.kill()
    key = node.directory / "identity.key"
    key.write_bytes(b"not a key")
    assert re.search("identity.key", failed_up(node))
    key.unlink()
    key.mkdir()
    assert re.search("identity.key", failed_up(node))


@pytest.mark.parametrize("days", [-1, 1])
def test_a_clock_a_day_off_is_named(crew: Crew, days: int) -> None:
    """The joiner's clock is wrong: one line says so, and nobody crashes."""
    hub = crew.node("a").up()
    build = [sys.executable, "-m", "tests.builds.clock_off"]
    env = {"CLOCK_OFF_SECONDS": str((days * 86_400) + days * 3600)}
    late = crew.node("b", argv=build, env=env)
    line = failed_up(late, join=hub.invite("--expires", "1h"))
    assert re.search("clock", line)
    assert hub.json("status")["internal_errors"] == 0
