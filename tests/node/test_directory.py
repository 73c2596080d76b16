"""The data directory: private, for one node at a time, its socket reachable at any depth."""

import contextlib
import os
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from overlay.errors import ConfigError
from overlay.node import directory as directories
from overlay.node.directory import LOCK, SOCKET, DataDirectory, is_running, socket_address


def test_a_new_one_is_for_its_owner_alone(tmp_path: Path) -> None:
    directory = DataDirectory.open(tmp_path / "deep" / "node")
    assert stat.S_IMODE(directory.path.stat().st_mode) == 0o700
    directory.close()


def test_an_empty_one_that_is_open_to_others_is_closed_to_them(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    DataDirectory.open(tmp_path).close()
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o700


def test_a_directory_full_of_other_things_is_left_alone(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ConfigError, match="not overlay's"):
        DataDirectory.open(tmp_path)
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755


def test_a_file_in_its_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be used"):
        DataDirectory.open(tmp_path / "file")


def test_it_has_room_for_one_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directories, "LOCK_PATIENCE", 0.0)
    first = DataDirectory.open(tmp_path / "node")
    with pytest.raises(ConfigError, match=rf"already running.*process {os.getpid()}"):
        DataDirectory.open(tmp_path / "node")
    first.close()
    DataDirectory.open(tmp_path / "node").close()


def test_whether_a_node_runs_there_can_be_asked(tmp_path: Path) -> None:
    assert not is_running(tmp_path / "node")
    directory = DataDirectory.open(tmp_path / "node")
    assert is_running(tmp_path / "node")
    directory.close()
    assert not is_running(tmp_path / "node")


def test_a_killed_node_leaves_no_lock_and_no_socket_in_the_way(tmp_path: Path) -> None:
    program = (
        "import sys, time\nfrom pathlib import Path\n"
        "from overlay.node.directory import DataDirectory\n"
        "directory = DataDirectory.open(Path(sys.argv[1]))\nkeep = directory.listen()\n"
        "print('listening', flush=True)\ntime.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "node")], stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        child.send_signal(signal.SIGKILL)
    assert (tmp_path / "node" / SOCKET).exists(), "the counter-test: it was left behind"
    directory = DataDirectory.open(tmp_path / "node")
    with directory.listen():
        assert talks(directory.path)
    directory.close()
    assert not (tmp_path / "node" / SOCKET).exists()
    assert (tmp_path / "node" / LOCK).exists()


def talks(path: Path) -> bool:
    """Whether something listens on the control socket of a data directory."""
    with socket.socket(socket.AF_UNIX) as client, socket_address(path) as address:
        client.settimeout(5.0)
        return client.connect_ex(address) == 0


@pytest.mark.parametrize("has_proc", [True, False])
@pytest.mark.parametrize("name", ["short", "long" * 50 + "/" + "longer" * 30])
def test_the_socket_is_reachable_however_long_its_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, has_proc: bool
) -> None:
    if not has_proc:
        monkeypatch.setattr(directories, "DESCRIPTORS", tmp_path / "none")
    directory = DataDirectory.open(tmp_path / name)
    with directory.listen():
        file = tmp_path / name / SOCKET
        assert stat.S_ISSOCK(file.stat().st_mode)
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert talks(directory.path)
    directory.close()


def test_listening_twice_replaces_a_stale_socket(tmp_path: Path) -> None:
    directory = DataDirectory.open(tmp_path)
    with contextlib.closing(directory.listen()):
        pass
    assert not talks(tmp_path)
    with directory.listen():
        assert talks(tmp_path)
    directory.close()
