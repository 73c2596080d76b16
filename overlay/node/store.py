"""What a node remembers from one life to the next, in one SQLite file.

Write-ahead log with ``synchronous=NORMAL``: a commit costs microseconds and no fsync, survives
``kill -9``, and may lose its last moments only when the whole machine goes down. The fsyncs of a
checkpoint happen in `Store.checkpoint`, which the node calls off its loop.
"""

import contextlib
import errno
import logging
import os
import secrets
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import trio

from overlay.errors import ConfigError
from overlay.identity import MemoryPrekeys, PrekeyStore
from overlay.node.directory import NO_SPACE

CHECKPOINT_INTERVAL = 60.0
MAX_PEERS = 1024
"""Peers remembered; beyond it the longest unseen is forgotten (guess)."""
BOOT_RANDOM_BITS = 10
"""Of two copies of a data directory on boards without a clock, one pair in 1,024 looks like one."""
RECORDS_PER_BOOT = 1 << 20
"""Room for the record sequence numbers of one life (guess: one a second for twelve days)."""

MIGRATIONS: Sequence[str] = (
    # 1: the first
    """
    CREATE TABLE meta (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
    CREATE TABLE peers (
        peer_id BLOB PRIMARY KEY, record BLOB NOT NULL, seen_at REAL NOT NULL
    ) WITHOUT ROWID;
    CREATE INDEX peers_by_seen_at ON peers (seen_at);
    CREATE TABLE prekeys (
        prekey_id INTEGER PRIMARY KEY, private BLOB NOT NULL, made_at REAL NOT NULL
    );
    """,
)
"""Each takes the file one version further; only ever appended to. `user_version` counts them."""


UNNAMED = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN})
"""What may mean a full disk."""
DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})

log = logging.getLogger("overlay.store")


class Memory(Protocol):
    """What a node needs of its memory: a file, or nothing that lasts."""

    @property
    def prekeys(self) -> PrekeyStore:
        """Where the daily sealing keys are kept."""
        ...

    def network(self) -> tuple[bytes, str] | None: ...
    def set_network(self, network: bytes, name: str) -> None: ...
    def name(self) -> str: ...
    def set_name(self, name: str) -> None: ...
    def next_boot(self) -> int: ...
    def remember(self, peer: bytes, record: bytes) -> None: ...
    def records(self) -> tuple[bytes, ...]: ...
    async def tend(self) -> None:
        """Do what has to be done now and then, for as long as the node lives."""
        ...


class Forgetful:
    """The memory of a node that keeps nothing across restarts."""

    def __init__(self, wall: Callable[[], float] = time.time) -> None:
        self._wall = wall
        self._network: tuple[bytes, str] | None = None
        self.prekeys = MemoryPrekeys()

    def network(self) -> tuple[bytes, str] | None:
        """As `Store.network`."""
        return self._network

    def set_network(self, network: bytes, name: str) -> None:
        """As `Store.set_network`."""
        self._network = network, name

    def name(self) -> str:
        """There was none before."""
        return ""

    def set_name(self, name: str) -> None:
        """The node knows it for this life."""

    def next_boot(self) -> int:
        """The first, and the last."""
        return int(self._wall())

    def remember(self, peer: bytes, record: bytes) -> None:
        """The core knows the peers of this life by itself."""

    def records(self) -> tuple[bytes, ...]:
        """There was no life before."""
        return ()

    async def tend(self) -> None:
        """There is nothing to do."""


class Store:
    """The file; used by one thread, except for `checkpoint`."""

    def __init__(self, path: Path, wall: Callable[[], float] = time.time) -> None:
        self._path = path
        self._wall = wall
        with self._needed():
            self._db = _open(path)
            try:
                _migrate(self._db, path)
            except BaseException:
                self._db.close()
                raise
        self.trouble = Trouble(path)
        self.prekeys = Prekeys(self._db, wall, self.trouble)

    def close(self) -> None:
        """Put everything in order; the store is of no use afterwards."""
        with contextlib.suppress(sqlite3.Error):  # what could not be written has been told
            self._db.close()

    def checkpoint(self) -> None:
        """Fold the log into the file; may wait for the disk, so call it from another thread."""
        db = sqlite3.connect(self._path)
        try:
            db.execute("PRAGMA wal_checkpoint(PASSIVE)")
        finally:
            db.close()

    async def tend(self) -> None:
        """Keep the log short, and write what could not be written before."""
        while True:
            await trio.sleep(CHECKPOINT_INTERVAL)
            with self.trouble.told():
                await trio.to_thread.run_sync(self.checkpoint)
            self.prekeys.tend()
            self.trouble.quiet()

    @contextlib.contextmanager
    def _needed(self) -> Iterator[None]:
        """Within it, whatever is wrong with the file is a ConfigError: there is no going on."""
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            why = error.strerror if isinstance(error, OSError) else str(error)
            if _code(error) in UNNAMED and _is_full(self._path):  # it may not say so
                why, error = "its disk is full", OSError(errno.ENOSPC, why)
            raise ConfigError(f"{self._path} cannot be used ({why}): {_advice(error)}") from None

    # --- meta ----------------------------------------------------------------------------------

    def _get(self, key: str) -> Any:
        row = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return None if row is None else row[0]

    def _put(self, key: str, value: bytes | str | int) -> None:
        self._db.execute(
            "INSERT INTO meta VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
            (key, value),
        )

    def network(self) -> tuple[bytes, str] | None:
        """The id and name of the network that this node belongs to, once it has one."""
        network, name = self._get("network"), self._get("network_name")
        return None if network is None else (network, name or "")

    def set_network(self, network: bytes, name: str) -> None:
        """Belong to this network from now on; ConfigError where that cannot be kept.

        A node that forgets it would come back as the founder of another one.
        """
        if self.network() != (network, name):
            with self._needed():
                self._put("network_name", name)
                self._put("network", network)

    def forget_network(self) -> None:
        """Belong to none: forget its peers, and the sealing keys that they know."""
        self._db.executescript(
            "BEGIN; DELETE FROM meta WHERE key IN ('network', 'network_name'); "
            "DELETE FROM peers; DELETE FROM prekeys; COMMIT;"
        )

    def name(self) -> str:
        """What the node was called last, empty when it was never told."""
        return self._get("name") or ""

    def set_name(self, name: str) -> None:
        """Be called so until told otherwise."""
        if name != self.name():
            self._put("name", name)

    def port(self) -> int:
        """The UDP port of the last life, 0 when there was none."""
        return self._get("port") or 0

    def set_port(self, port: int) -> None:
        """Listen here again next time, if it can be written down."""
        with self.trouble.told():
            self._put("port", port)

    def next_boot(self) -> int:
        """Count a start. Greater than all before, even when an old copy of the file came back.

        ConfigError where it cannot be kept: others would take the next life for this one. Its last
        bits are random, so that two copies of one file that start at once still differ.
        """
        last = self._get("boot") or 0
        count = max((last >> BOOT_RANDOM_BITS) + 1, min(int(self._wall()), 1 << 32))
        boot = count << BOOT_RANDOM_BITS | secrets.randbits(BOOT_RANDOM_BITS)
        with self._needed():
            self._put("boot", boot)
        return boot

    @property
    def has_lived(self) -> bool:
        """Whether a node has had this memory before."""
        with self._needed():
            return self._get("boot") is not None

    # --- peers ---------------------------------------------------------------------------------

    def remember(self, peer: bytes, record: bytes) -> None:
        """Keep the signed record of a peer that we are linked to.

        A full disk costs the cache and not the node: the log says so.
        """
        with self.trouble.told():
            self._insert(peer, record)

    def _insert(self, peer: bytes, record: bytes) -> None:
        self._db.execute(
            "INSERT INTO peers VALUES (?, ?, ?) ON CONFLICT (peer_id) "
            "DO UPDATE SET record = excluded.record, seen_at = excluded.seen_at",
            (peer, record, self._wall()),
        )
        self._db.execute(
            "DELETE FROM peers WHERE peer_id IN "
            "(SELECT peer_id FROM peers ORDER BY seen_at DESC, peer_id LIMIT -1 OFFSET ?)",
            (MAX_PEERS,),
        )

    def records(self) -> tuple[bytes, ...]:
        """The records of peers met, the latest first; none where they cannot be read."""
        query = "SELECT record FROM peers ORDER BY seen_at DESC, peer_id"
        rows: list[tuple[bytes]] = []
        with self.trouble.told():
            rows = self._db.execute(query).fetchall()
        return tuple(row[0] for row in rows)


class Trouble:
    """What is wrong with the file of a node that lives on: the log says it once, and its end.

    A disk that is nearly full takes one line and not the next, so the end is when all goes well for
    a while (`quiet`).
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._is_known = False
        self._is_fresh = False

    @contextlib.contextmanager
    def told(self) -> Iterator[None]:
        """Within it, an error of the file is a line in the log, and nothing more."""
        try:
            yield
        except sqlite3.Error as error:
            self._is_fresh = True
            if not self._is_known:
                self._is_known = True
                text = "%s cannot be written (%s): what is new is forgotten at the end; make room"
                log.warning(text, self._path, error)

    def quiet(self) -> None:
        """Call it now and then: nothing was wrong since the last time, if anything was before."""
        if self._is_known and not self._is_fresh:
            self._is_known = False
            log.info("%s can be written again", self._path)
        self._is_fresh = False


class Prekeys:
    """The private halves of the daily sealing keys (`overlay.identity.PrekeyStore`).

    What the file does not take is kept, or kept away, in memory until it does.
    """

    def __init__(self, db: sqlite3.Connection, wall: Callable[[], float], trouble: Trouble) -> None:
        self._db = db
        self._wall = wall
        self._trouble = trouble
        self._unwritten: dict[int, bytes | None] = {}
        """Keys that the file has not yet: None for one that it is still to forget. As many as there
        are days in which nothing could be written."""

    def load(self, prekey_id: int) -> bytes | None:
        """The key kept under this id."""
        if prekey_id in self._unwritten:
            return self._unwritten[prekey_id]
        row = None
        with self._trouble.told():
            row = self._db.execute(
                "SELECT private FROM prekeys WHERE prekey_id = ?", (prekey_id,)
            ).fetchone()
        return None if row is None else row[0]

    def save(self, prekey_id: int, private: bytes) -> None:
        """Keep a key."""
        self._unwritten[prekey_id] = private
        self.tend()

    def delete(self, prekey_id: int) -> None:
        """Destroy a key, kept or not; ``secure_delete`` overwrites its place in the file."""
        self._unwritten[prekey_id] = None
        self.tend()

    def tend(self) -> None:
        """Write what could not be written before."""
        for prekey_id, private in list(self._unwritten.items()):
            with self._trouble.told():
                self._write(prekey_id, private)
                del self._unwritten[prekey_id]

    def _write(self, prekey_id: int, private: bytes | None) -> None:
        if private is None:
            self._db.execute("DELETE FROM prekeys WHERE prekey_id = ?", (prekey_id,))
        else:
            self._db.execute(
                "INSERT OR REPLACE INTO prekeys VALUES (?, ?, ?)",
                (prekey_id, private, self._wall()),
            )


def _is_full(path: Path) -> bool:
    """Whether a disk has no room for SQLite's smallest needs (its index of the log: 32 KiB)."""
    try:
        disk = os.statvfs(path.parent)
    except OSError:
        return False
    return disk.f_blocks > 0 and disk.f_bavail * disk.f_frsize < 32_768


def _code(error: Exception) -> int:
    """SQLite's, without its extension."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def _advice(error: Exception) -> str:
    """What a user can do about a file that cannot be used."""
    code = _code(error)
    number = getattr(error, "errno", 0)
    if code == sqlite3.SQLITE_FULL or number in NO_SPACE:
        return "make room, or choose another directory with --data-dir"
    if code in DAMAGED or number == errno.EISDIR:
        return "move it away to start with an empty memory"
    return "make it writable for this user, or choose another directory with --data-dir"


def _open(path: Path) -> sqlite3.Connection:
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    db = sqlite3.connect(path, isolation_level=None)  # each statement is its own transaction
    try:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        db.execute("PRAGMA wal_autocheckpoint = 0")
        db.execute("PRAGMA secure_delete = ON")
    except BaseException:
        db.close()
        raise
    return db


def _migrate(db: sqlite3.Connection, path: Path) -> None:
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if version > len(MIGRATIONS):
        raise ConfigError(
            f"{path} was written by a newer overlay (schema {version}, this one knows "
            f"{len(MIGRATIONS)}): update overlay, or choose another --data-dir"
        )
    for number, script in enumerate(MIGRATIONS[version:], version + 1):
        db.executescript(f"BEGIN; {script}; PRAGMA user_version = {number}; COMMIT;")
