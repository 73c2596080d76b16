"""Where a node lives, and what becomes of it on a disk that is full, read-only or odd."""

import errno
import os
import socket
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from overlay.cli import reports
from overlay.cli.main import run
from overlay.errors import CommandFailed, ConfigError
from overlay.identity import IDENTITY_FILE, load_or_create
from overlay.node.directory import SOCKET, DataDirectory, absolute, default_path
from overlay.node.store import Store
from tests.cli.complaints import complaint, failed_start, leave
from tests.lab.mounts import Mounts, fill
from tests.lab.namespaces import why_unavailable
from tests.lab.nodes import OVERLAY, ROOT, Crew, Node, environment

NEED_NO_DIRECTORY = (["--help"], ["--version"], ["up", "--help"], ["sim", "list", "--json"])


@pytest.fixture
def mounts() -> Iterator[Mounts]:
    """A file system that a test may change for its own processes."""
    if why := why_unavailable():
        pytest.skip(why)
    with Mounts() as mounts:
        yield mounts


# --- where it lives ------------------------------------------------------------------------------


def homeless(mounts: Mounts, *args: str, **env: str) -> "subprocess.CompletedProcess[str]":
    """A command of somebody who has no home, and no entry in passwd either."""
    unset = [word for name in ("HOME", "XDG_DATA_HOME") for word in ("-u", name)]
    return subprocess.run(
        ["env", *unset, *(f"{name}={value}" for name, value in env.items()), *OVERLAY, *args],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        cwd=ROOT,
        env=environment(),
        preexec_fn=mounts.enter,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.netns
def test_without_home_and_passwd_a_line_says_what_to_name(mounts: Mounts, tmp_path: Path) -> None:
    mounts.without_users()
    for args in (["status"], ["up"]):  # in this order: nothing is made in a home that is there
        line = complaint(homeless(mounts, *args))
        assert "HOME is not set" in line
        assert "--data-dir" in line
    for args in NEED_NO_DIRECTORY:
        assert homeless(mounts, *args).returncode == 0
    assert "no invite link" in complaint(homeless(mounts, "invite", "show", "x"))
    state = f"{tmp_path / 'first'}:{tmp_path / 'second'}"
    line = complaint(homeless(mounts, "status", STATE_DIRECTORY=state), code=3)
    assert f"no node is running on {tmp_path / 'first'}:" in line


def test_a_services_own_directory_comes_before_its_users(monkeypatch: pytest.MonkeyPatch) -> None:
    before = default_path()
    for value, path in (("", before), ("/a", Path("/a")), (":/b:/c", Path("/b"))):
        monkeypatch.setenv("STATE_DIRECTORY", value)
        assert default_path() == path


@pytest.mark.parametrize(
    "arguments",
    [
        ["up", "--data-dir", ""],
        ["status", "--data-dir", ""],
        ["up", "--config", ""],
        ["sim", "run", "baseline", "--report", ""],
    ],
    ids=" ".join,
)
def test_an_empty_path_is_not_the_current_directory(
    capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    assert run(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "is empty" in line
    assert arguments[-2] in line


def test_a_home_or_a_place_that_is_not_there_is_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="--data-dir"):
        absolute(Path("~nobody-has-this-name/x"))
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(ConfigError, match="current directory is gone"):
        absolute(Path("x"))


# --- a disk that takes nothing -------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.netns
def test_a_node_on_a_full_disk_lives_on_and_says_so_once(mounts: Mounts, tmp_path: Path) -> None:
    """And one that is to start there is told in a line what is wrong."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounts.disk(disk, 1 << 20)
    with Crew(tmp_path) as crew:
        node = Node(disk / "a", enter=mounts.enter)
        crew.nodes.append(node)
        log = ("--set", f"log.file={disk / 'log'}", "--set", "log.level=debug")
        node.up(*log)
        identity, link = node.peer_id, node.ok("invite").strip()
        for file in ("filler", "log"):  # the last page of the log has room of its own
            mounts.call(partial(fill, disk / file))
        for name in ("b", "c", "d"):
            crew.node(name).up(join=link)
        node.wait_peers(3)
        said = node.logs(r"warning: log\.file: .*")
        assert "No space left on device" in said
        assert str(disk / "log") in said
        leave(node)
        assert node.log.count("warning") == 1
        assert "Traceback" not in node.log
        mounts.call(partial(fill, disk / "filler"))  # what the log of its memory has left
        for fresh in (node, Node(disk / "new", enter=mounts.enter)):
            line = failed_start(fresh)
            assert str(fresh.directory) in line
            assert "No space left on device" in line or "full" in line
            assert "make room" in line
        mounts.call((disk / "filler").unlink)
        node.up()
        assert node.peer_id == identity


@pytest.mark.slow
@pytest.mark.netns
def test_what_nobody_may_write_to_is_named(mounts: Mounts, tmp_path: Path) -> None:
    node = Node(tmp_path / "a", enter=mounts.enter)
    load_or_create(node.directory)
    Store(node.directory / "overlay.db").close()
    keys = (node.directory / IDENTITY_FILE).read_bytes()
    mounts.read_only(node.directory / "overlay.db")
    line = failed_start(node)
    assert f"{node.directory / 'overlay.db'} cannot be used (Read-only file system)" in line
    mounts.read_only(node.directory)
    line = failed_start(node)
    assert f"{node.directory} cannot be used: Read-only file system" in line
    assert (node.directory / IDENTITY_FILE).read_bytes() == keys


def test_a_control_socket_that_cannot_be_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = DataDirectory.open(tmp_path)
    (tmp_path / SOCKET).mkdir()
    with pytest.raises(ConfigError, match=rf"{tmp_path / SOCKET} is a directory"):
        directory.listen()
    (tmp_path / SOCKET).rmdir()

    def bind(*_: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    # As vfat does; not every kernel has it.
    monkeypatch.setattr(socket.socket, "bind", bind)
    with pytest.raises(ConfigError, match=r"control\.sock cannot be made: .*has no sockets"):
        directory.listen()
    monkeypatch.undo()
    with directory.listen():
        pass
    (tmp_path / SOCKET).unlink()
    (tmp_path / SOCKET).mkdir()
    directory.close()  # what has come in its place is not taken away, and is no reason to fail


def test_a_disk_without_modes_is_no_place_for_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.chmod(0o755)
    monkeypatch.setattr(Path, "chmod", lambda *_: None)
    with pytest.raises(ConfigError, match="keeps no modes"):
        DataDirectory.open(tmp_path)
    assert list(tmp_path.iterdir()) == []


# --- who the node is -----------------------------------------------------------------------------


def test_an_identity_is_never_made_anew(tmp_path: Path) -> None:
    """A lost, empty or unreachable key is not the same as none yet."""
    key = tmp_path / IDENTITY_FILE
    before = load_or_create(tmp_path)
    content = key.read_bytes()
    key.rename(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match=f"{IDENTITY_FILE} is missing"):
        load_or_create(tmp_path, has_lived=True)
    key.symlink_to(tmp_path / "not-mounted")
    with pytest.raises(ConfigError, match=f"{IDENTITY_FILE} is missing"):
        load_or_create(tmp_path)
    assert key.is_symlink()
    key.unlink()
    key.touch(mode=0o600)
    with pytest.raises(ConfigError, match=f"{IDENTITY_FILE} is damaged"):
        load_or_create(tmp_path)
    key.write_bytes(content)
    assert load_or_create(tmp_path).peer_id == before.peer_id


def test_a_memory_knows_whether_a_node_has_had_it(tmp_path: Path) -> None:
    store = Store(tmp_path / "overlay.db")
    before = store.has_lived
    store.next_boot()
    assert (before, store.has_lived) == (False, True)
    store.close()


# --- what else is written ------------------------------------------------------------------------


def test_a_simulation_whose_trace_does_not_fit_names_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "small.toml").write_text("nodes = 4\nduration = 20.0\n")
    assert run(["sim", "run", str(tmp_path / "small.toml"), "--trace", "/dev/full"]) == 1
    error = capsys.readouterr().err
    assert error == "error: --trace /dev/full: cannot be written: No space left on device\n"


def test_a_page_that_does_not_fit_is_named(tmp_path: Path) -> None:
    (tmp_path / "index.html").symlink_to("/dev/full")
    with pytest.raises(CommandFailed, match=r"index\.html: cannot be written: No space left"):
        reports.write_pages(tmp_path, [], "text")
