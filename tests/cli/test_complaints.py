"""Whatever a user gets wrong is one line that says what, why and what to do; never a traceback."""

import os
import sqlite3
import stat
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from overlay.identity import load_or_create
from overlay.node.store import Store
from tests.cli.complaints import complaint, failed_start, leave
from tests.lab.nodes import Crew, Node, overlay, wait_for

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    "arguments",
    [
        ("status",), ("peers",), ("connect", "x"), ("ping", "x"), ("wait", "--timeout", "0.2"),
        ("publish", "t", "d"), ("subscribe", "t"), ("invite",), ("leave",),
    ],
    ids=" ".join,
)  # fmt: skip
def test_without_a_node_every_command_is_exit_3(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    line = complaint(overlay(*arguments, "--data-dir", str(tmp_path / "none")), code=3)
    assert "overlay up" in line


@pytest.mark.parametrize(
    "arguments",
    [
        ("frobnicate",), ("publish",), ("status", "--loud"), ("ping",), ("wait", "--peers", "few"),
        ("wait", "--peers", "-1"), ("invite", "--members", "9"), ("invite", "--expires", "soon"),
        ("invite", "show"), ("join",), ("up", "surplus"), ("up", "--set", "links.max"),
        ("up", "--listen", "here"), ("up", "--advertise", "there"), ("up", "--name", 65 * "n"),
        ("up", "--config", "/nowhere/at/all.toml"), ("join", ""), ("join", "-"),
    ],
    ids=lambda arguments: " ".join(arguments)[:40],
)  # fmt: skip
def test_wrong_usage_is_exit_2(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    complaint(overlay(*arguments, env={"OVERLAY_DATA_DIR": str(tmp_path / "d")}))
    assert not (tmp_path / "d").exists(), "nothing was made"


def test_no_command_at_all_shows_the_help_and_is_exit_2() -> None:
    done = overlay()
    assert done.returncode == 2
    assert "Usage" in done.stderr


def test_an_unknown_key_names_its_source_and_the_nearest_key(crew: Crew) -> None:
    file = crew.directory / "node.toml"
    file.write_text("[links]\natuo = false\n")
    line = failed_start(crew.node("a"), "--config", str(file))
    assert str(file) in line
    assert "links.atuo" in line
    assert "links.auto" in line


def test_a_variable_that_is_none_of_ours_is_a_warning_and_a_wrong_value_is_refused(
    crew: Crew,
) -> None:
    """Kubernetes sets such variables for a service that is called `overlay`."""
    service = {"OVERLAY_PORT": "tcp://10.0.0.1:80", "OVERLAY_SERVICE_HOST": "10.0.0.1"}
    node = crew.node("b", env={"OVERLAY_LINKS_ATUO": "1", **service}).up()
    leave(node)
    (line,) = (line for line in node.log.splitlines() if line.startswith("warning"))
    assert "OVERLAY_LINKS_ATUO (did you mean OVERLAY_LINKS_AUTO?)" in line
    assert "OVERLAY_PORT, OVERLAY_SERVICE_HOST (as Kubernetes" in line
    line = failed_start(crew.node("c", env={"OVERLAY_LINKS_AUTO": "perhaps"}))
    assert "OVERLAY_LINKS_AUTO" in line
    assert "true or false" in line


# --- links -------------------------------------------------------------------------------------


Spoil = Callable[[str], str]
SPOILT: dict[str, tuple[Spoil, str]] = {
    "no link": (lambda link: "https://example.org/", "no invite link"),
    "nothing": (lambda link: "\n", "no invite link"),
    "truncated": (lambda link: link[: len(link) // 2], "truncated|copy all"),
    "mistyped": (
        lambda link: link[:40] + ("A" if link[40] != "A" else "B") + link[41:],
        "mistyped",
    ),
}


@pytest.mark.parametrize("how", SPOILT)
def test_a_spoilt_link_is_refused(crew: Crew, how: str) -> None:
    spoil, says = SPOILT[how]
    bad = spoil(crew.node("a").up().invite())
    target = crew.directory / "b"
    lines = [
        complaint(overlay("join", "-", "--data-dir", str(target), stdin=bad)),
        complaint(overlay("up", "--join", "-", "--data-dir", str(target), stdin=bad)),
        complaint(overlay("invite", "show", "-", stdin=bad)),
    ]
    assert len(set(lines)) == 1
    assert any(word in lines[0] for word in says.split("|"))
    assert bad.strip() not in lines[0] or not bad.startswith("overlay:"), "a link is a secret"
    assert not target.exists()


def test_a_forged_link_is_refused(crew: Crew) -> None:
    """One invite's grant with another's seed: whole to the eye, and made by nobody."""
    import msgspec

    from overlay.core.wire import invite
    from overlay.identity import ephemeral

    node = crew.node("a").up()
    one, two = (invite.decode(node.invite(), ephemeral()) for _ in range(2))
    forged = invite.encode(msgspec.structs.replace(one, seed=two.seed))
    done = overlay("join", "-", "--data-dir", str(crew.directory / "b"), stdin=forged)
    assert "not made by whom it names" in complaint(done)


def test_an_expired_link_is_refused_and_still_explained(crew: Crew) -> None:
    made = crew.node("a").up().json("invite", "--expires", "1s")
    wait_for(lambda: time.time() > made["expires_at"] + 0.1, 10.0, "the expiry")
    target = str(crew.directory / "b")
    assert "expired" in complaint(overlay("join", "-", "--data-dir", target, stdin=made["link"]))
    assert "expired" in overlay("invite", "show", "-", stdin=made["link"]).stdout
    assert "expired" in complaint(overlay("invite", "show", "-", "--sdp", stdin=made["link"]))


def test_a_link_to_another_network_is_refused(crew: Crew) -> None:
    here, there = crew.node("here").up("--set", "network.name=home"), crew.node("there").up()
    link = there.invite()
    assert "network" in complaint(here.run("join", "-", stdin=link))
    leave(here)
    line = failed_start(here, join=link)
    assert "the network home, and the invite to another, mesh" in line
    assert "--data-dir" in line
    here.up()


def test_a_link_to_the_own_network_is_welcome_again(crew: Crew) -> None:
    first = crew.node("a").up()
    second = crew.node("b").up(join=first.invite())
    leave(second)
    second.up(join=first.invite())
    second.wait_peers(1)


def test_the_own_link_leads_nowhere(crew: Crew) -> None:
    node = crew.node("a").up()
    link = node.invite()
    leave(node)
    failed_start(node, join=link)
    node.up()


def test_an_unreachable_link_is_refused_in_time_and_binds_to_nothing(crew: Crew) -> None:
    gone, there = crew.node("gone").up(), crew.node("there").up()
    link = gone.invite()
    gone.kill()
    late = crew.node("late")
    started = time.monotonic()
    line = failed_start(late, "--timeout", "6", join=link)
    assert 5 < time.monotonic() - started < 30
    assert any(word in line for word in ("reach", "answer"))
    assert "within 6 s" in line
    late.up(join=there.invite())  # the network of the dead link was not kept


@pytest.mark.parametrize("hours", [-25, 25])
def test_a_clock_a_day_off_is_named(crew: Crew, hours: int) -> None:
    import sys

    hub = crew.node("hub").up()
    late = crew.node(
        "late",
        argv=[sys.executable, "-m", "tests.builds.clock_off"],
        env={"CLOCK_OFF_SECONDS": str(hours * 3600)},
    )
    assert "clock" in failed_start(late, join=hub.invite("--expires", "1h"))
    assert hub.json("status")["internal_errors"] == 0


# --- the machine -------------------------------------------------------------------------------


def test_a_second_node_on_one_data_directory_is_refused(crew: Crew) -> None:
    node = crew.node("a").up()
    line = failed_start(Node(node.directory))
    assert "already running" in line
    assert node.process is not None
    assert f"process {node.process.popen.pid}" in line
    assert node.json("status")["peer_id"] == node.peer_id, "the first one does not care"


def test_a_port_in_use_is_refused(crew: Crew) -> None:
    address = crew.node("a").up().ready["listen"][0]
    line = failed_start(crew.node("b"), listen=address)
    assert address in line
    assert "in use" in line
    assert "--listen" in line


def test_an_address_of_another_machine_is_refused(crew: Crew) -> None:
    assert "203.0.113.7" in failed_start(crew.node("a"), listen="203.0.113.7:7000")


def spoil_identity(node: Node) -> str:
    (node.directory / "identity.key").write_bytes(b"not a key")
    return "identity.key"


def lose_certificate(node: Node) -> str:
    (node.directory / "certificate.pem").unlink()
    return "certificate.pem"


def unreadable_key(node: Node) -> str:
    (node.directory / "dial.key").unlink()
    (node.directory / "dial.key").mkdir()
    return "dial.key"


def expose_key(node: Node) -> str:
    (node.directory / "identity.key").chmod(0o644)
    return "chmod 600"


def newer_database(node: Node) -> str:
    database = sqlite3.connect(node.directory / "overlay.db")
    database.execute("PRAGMA user_version = 9999")
    database.close()
    return "newer overlay"


def broken_database(node: Node) -> str:
    (node.directory / "overlay.db").write_bytes(os.urandom(8192))
    return "overlay.db"


def database_directory(node: Node) -> str:
    (node.directory / "overlay.db").unlink()
    (node.directory / "overlay.db").mkdir()
    return "overlay.db"


@pytest.mark.parametrize(
    "harm",
    [spoil_identity, lose_certificate, unreadable_key, expose_key, newer_database,
     broken_database, database_directory],
)  # fmt: skip
def test_a_damaged_data_directory_is_named(crew: Crew, harm: Callable[[Node], str]) -> None:
    node = crew.node("a")
    load_or_create(node.directory)
    Store(node.directory / "overlay.db").close()
    assert harm(node) in failed_start(node)


def test_a_data_directory_that_cannot_be_is_named(crew: Crew) -> None:
    (crew.directory / "file").write_text("")
    for path in (crew.directory / "file", crew.directory / "file" / "below"):
        assert str(path) in failed_start(Node(path))
    busy = crew.directory / "busy"
    busy.mkdir(mode=0o755)
    busy.chmod(0o755)
    (busy / "thesis.txt").write_text("mine")
    assert "not overlay's" in failed_start(Node(busy))
    assert stat.S_IMODE(busy.stat().st_mode) == 0o755


def test_a_log_that_cannot_be_written_is_named(crew: Crew) -> None:
    line = failed_start(crew.node("a"), "--set", f"log.file={crew.directory}")
    assert "log.file" in line


def test_a_stopped_node_is_a_failure_and_not_a_hang(crew: Crew) -> None:
    node = crew.node("a").up()
    node.freeze()
    line = complaint(node.run("wait", "--peers", "1", "--timeout", "0.1"))
    assert "does not answer" in line
    node.thaw()


# --- what a paste does to a command line ---------------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("—name", "--name"),
        ("–name=bob", "--name=bob"),
        ("—-data-dir", "--data-dir"),
        ("—well", "—well"),
        ("--name", "--name"),
        ("a—name", "a—name"),
    ],
)
def test_a_dash_in_place_of_two_hyphens_is_an_option(typed: str, meant: str) -> None:
    from overlay.cli.main import undashed

    assert undashed(typed) == meant


@pytest.mark.parametrize(
    "secret",
    [
        "overlay:EECGWFY4ROX3UGJITNXY7DY5",
        "OVERLAY: eecgwfy4rox3ugjitnxy7dy5",
        "KPVWYNGXHAIMCIWXVA3BVUATFHX2MTNQ",
        "kpvwyngxhaimciwxva3bvuatfhx2mtnq",
    ],
)
def test_a_link_or_a_piece_of_one_is_never_repeated(
    secret: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from overlay.cli.main import complain

    complain(f"Got unexpected extra argument ({secret})", 2)
    assert secret.rsplit(":", maxsplit=1)[-1].strip() not in capsys.readouterr().err


@pytest.mark.parametrize(
    "word",
    ["12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp", "0123456789abcdef", "unexpected"],
)
def test_what_is_no_piece_of_a_link_is_repeated(
    word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from overlay.cli.main import complain

    complain(f"there is no {word}", 2)
    assert word in capsys.readouterr().err
