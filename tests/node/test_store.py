"""What a node remembers: it survives kill -9, moves forward only, and stays bounded."""

import os
import signal
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from overlay.errors import ConfigError
from overlay.node import store as stores
from overlay.node.store import MIGRATIONS, Store


class Wall:
    """A wall clock that says what it is told."""

    def __init__(self, now: float = 1_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "overlay.db"


def reopened(store: Store, path: Path, wall: Wall | None = None) -> Store:
    store.close()
    return Store(path, wall or Wall())


def test_everything_is_there_again_after_a_restart(path: Path) -> None:
    store = Store(path, Wall())
    assert store.network() is None
    assert store.port() == 0
    store.set_network(b"n" * 32, "home")
    store.set_port(4711)
    store.set_name("kitchen")
    store.remember(b"p" * 32, b"record")
    store.prekeys.save(7, b"k" * 32)
    store = reopened(store, path)
    assert store.network() == (b"n" * 32, "home")
    assert store.port() == 4711
    assert store.name() == "kitchen"
    assert store.records() == (b"record",)
    assert store.prekeys.load(7) == b"k" * 32
    store.close()


def test_a_network_is_forgotten_with_its_peers_and_nothing_else(path: Path) -> None:
    store = Store(path, Wall())
    boot = store.next_boot()
    store.set_network(b"n" * 32, "home")
    store.set_port(4711)
    store.set_name("kitchen")
    store.remember(b"p" * 32, b"record")
    store.prekeys.save(7, b"k" * 32)
    store.forget_network()
    store = reopened(store, path)
    assert store.network() is None
    assert store.records() == ()
    assert store.prekeys.load(7) is None
    assert (store.port(), store.name()) == (4711, "kitchen")
    assert store.next_boot() > boot
    store.close()


def test_a_boot_is_greater_than_every_one_before(path: Path) -> None:
    wall = Wall(1_000_000)
    store = Store(path, wall)
    boots = [store.next_boot(), store.next_boot()]
    store = reopened(store, path, wall)
    wall.now = 5.0  # the clock was set back
    boots.append(store.next_boot())
    store.close()
    path.unlink()
    wall.now = 2_000_000.0  # an old copy came back: as good as none
    store = Store(path, wall)
    boots.append(store.next_boot())
    store.close()
    assert boots == sorted(set(boots))


def test_the_peers_longest_unseen_are_forgotten(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stores, "MAX_PEERS", 3)
    wall = Wall()
    store = Store(path, wall)
    for number in (1, 2, 3, 1, 4):  # 1 was seen again before 4 came: 2 goes
        wall.now += 1
        store.remember(bytes([number]) * 32, bytes([number]))
    assert store.records() == (b"\x04", b"\x01", b"\x03")
    store.close()


def test_a_forgotten_prekey_has_left_the_disk(path: Path) -> None:
    secret = os.urandom(32)
    store = Store(path, Wall())
    store.prekeys.save(7, secret)
    store.checkpoint()
    assert secret in path.read_bytes(), "the counter-test: it was there"
    store.prekeys.delete(7)
    assert store.prekeys.load(7) is None
    store.close()
    assert secret not in path.read_bytes()


def test_a_checkpoint_from_another_thread_takes_the_log_in(path: Path) -> None:
    store = Store(path, Wall())
    store.remember(b"p" * 32, b"a record that is easy to find")
    assert b"easy to find" not in path.read_bytes()
    store.checkpoint()
    assert b"easy to find" in path.read_bytes()
    store.remember(b"q" * 32, b"another")
    store.close()


def test_what_was_written_survives_kill_9(path: Path) -> None:
    program = (
        "import sys, time\nfrom pathlib import Path\nfrom overlay.node.store import Store\n"
        "store = Store(Path(sys.argv[1]))\nstore.remember(b'p' * 32, b'record')\n"
        "print('written', flush=True)\ntime.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        child.send_signal(signal.SIGKILL)
    store = Store(path, Wall())
    assert store.records() == (b"record",)
    store.close()


def test_the_file_is_private(path: Path) -> None:
    Store(path, Wall()).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_newer_file_is_refused_in_one_line(path: Path) -> None:
    Store(path, Wall()).close()
    db = sqlite3.connect(path)
    db.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    db.close()
    with pytest.raises(ConfigError, match="newer overlay") as caught:
        Store(path, Wall())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"no database at all, by a long way" * 40, b"SQLite format 3"])
def test_a_file_that_is_no_database_is_refused_in_one_line(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="cannot be used") as caught:
        Store(path, Wall())
    assert "\n" not in str(caught.value)


def test_a_place_where_nothing_can_be_written_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be used"):
        Store(tmp_path / "none" / "overlay.db", Wall())


def test_migrations_go_forward_and_keep_what_is_there(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(path, Wall())
    store.set_network(b"n" * 32, "home")
    store.close()
    later = (*MIGRATIONS, "ALTER TABLE peers ADD COLUMN note TEXT")
    monkeypatch.setattr(stores, "MIGRATIONS", later)
    store = Store(path, Wall())
    assert store.network() == (b"n" * 32, "home")
    store.close()
    db = sqlite3.connect(path)
    assert db.execute("PRAGMA user_version").fetchone() == (len(later),)
    db.close()


def test_a_migration_that_fails_changes_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Store(path, Wall()).close()
    broken = (*MIGRATIONS, "CREATE TABLE extra (x); SELECT no_such_function()")
    monkeypatch.setattr(stores, "MIGRATIONS", broken)
    with pytest.raises(ConfigError):
        Store(path, Wall())
    db = sqlite3.connect(path)
    assert db.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)
    assert db.execute("SELECT name FROM sqlite_master WHERE name = 'extra'").fetchone() is None
    db.close()


# --- a disk that is full -------------------------------------------------------------------------


def fill_up(store: Store) -> None:
    """Let the file grow no further: what SQLite says then is what it says of a full disk."""
    pages = store._db.execute("PRAGMA page_count").fetchone()[0]
    store._db.execute(f"PRAGMA max_page_count = {pages}")


def test_a_full_disk_costs_the_node_its_memory_and_is_told_once(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="overlay.store")
    store = Store(path, Wall())
    store.set_network(b"n" * 32, "home")
    fill_up(store)
    for number in range(200):
        store.remember(bytes([number]) * 32, b"r" * 500)
    for day in range(200):
        store.prekeys.save(day, bytes([day]) * 32)
    assert store.prekeys.load(199) == bytes([199]) * 32, "it is kept in memory"
    store.set_port(7)
    (line,) = (each.getMessage() for each in caplog.records if each.levelname == "WARNING")
    assert str(path) in line
    assert "full" in line
    store.set_network(b"n" * 32, "home")  # it is so already: nothing is written
    with pytest.raises(ConfigError, match=r"overlay\.db cannot be used .*full.*make room"):
        store.set_network(b"m" * 32, "h" * 60_000)
    store._db.execute("PRAGMA max_page_count = 100000")
    store.prekeys.delete(0)
    store.trouble.quiet()
    assert len(caplog.records) == 1, "it was still wrong a moment ago"
    store.trouble.quiet()
    store.trouble.quiet()
    assert [each.levelname for each in caplog.records] == ["WARNING", "INFO"]
    assert "can be written again" in caplog.records[-1].getMessage()
    store = reopened(store, path)
    assert store.prekeys.load(199) == bytes([199]) * 32, "and written when there is room"
    assert store.prekeys.load(0) is None
    store.close()


def test_a_key_that_cannot_be_destroyed_yet_is_not_used_again(path: Path) -> None:
    store = Store(path, Wall())
    store.prekeys.save(7, b"k" * 32)
    store._db.execute("PRAGMA query_only = ON")
    store.prekeys.delete(7)
    assert store.prekeys.load(7) is None
    store._db.execute("PRAGMA query_only = OFF")
    store.prekeys.tend()
    store = reopened(store, path)
    assert store.prekeys.load(7) is None
    store.close()
