"""What a node remembers from one life to the next, in one SQLite file.

Write-ahead log with ``synchronous=NORMAL``: a commit costs microseconds and no fsync, survives
``kill -9``, and may lose its last moments only when the whole machine goes down. The fsyncs of a
checkpoint happen in `Store.checkpoint`, which the node calls off its loop.
"""

import logging
import os
import secrets
import sqlite3
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import trio

from overlay.errors import ConfigError
from overlay.identity import MemoryPrekeys, PrekeyStore

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


log = logging.getLogger("overlay.store")


class Memory(Protocol):
    """What a node needs of its memory: a file, or nothing that lasts."""

    @property
    def prekeys(self) -> PrekeyStore:
        """Where the daily sealing keys are kept."""
        ...

    def network(self) -> tuple[bytes, str] | None: ...
    def set_network(self, network: bytes, name: str) -> None: ...
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
        try:
            self._db = _open(path)
            try:
                _migrate(self._db, path)
            except BaseException:
                self._db.close()
                raise
        except (sqlite3.Error, OSError) as error:
            raise ConfigError(
                f"{path} cannot be used ({error}): move it away to start with an empty memory"
            ) from None
        self.prekeys = Prekeys(self._db, wall)

    def close(self) -> None:
        """Put everything in order; the store is of no use afterwards."""
        self._db.close()

    def checkpoint(self) -> None:
        """Fold the log into the file; may wait for the disk, so call it from another thread."""
        db = sqlite3.connect(self._path)
        try:
            db.execute("PRAGMA wal_checkpoint(PASSIVE)")
        finally:
            db.close()

    async def tend(self) -> None:
        """Keep the log short."""
        while True:
            await trio.sleep(CHECKPOINT_INTERVAL)
            await trio.to_thread.run_sync(self.checkpoint)

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
        """Belong to this network from now on."""
        self._put("network_name", name)
        self._put("network", network)

    def port(self) -> int:
        """The UDP port of the last life, 0 when there was none."""
        return self._get("port") or 0

    def set_port(self, port: int) -> None:
        """Listen here again next time."""
        self._put("port", port)

    def next_boot(self) -> int:
        """Count a start. Greater than all before, even when an old copy of the file came back.

        Its last bits are random, so that two copies of one file that start at once still differ.
        """
        last = self._get("boot") or 0
        count = max((last >> BOOT_RANDOM_BITS) + 1, min(int(self._wall()), 1 << 32))
        boot = count << BOOT_RANDOM_BITS | secrets.randbits(BOOT_RANDOM_BITS)
        self._put("boot", boot)
        return boot

    # --- peers ---------------------------------------------------------------------------------

    def remember(self, peer: bytes, record: bytes) -> None:
        """Keep the signed record of a peer that we are linked to.

        A full disk costs the cache and not the node: the log says so.
        """
        try:
            self._insert(peer, record)
        except sqlite3.Error as error:
            log.warning("a peer is not remembered: %s", error)

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
        """The records of peers met, the latest first."""
        rows = self._db.execute("SELECT record FROM peers ORDER BY seen_at DESC, peer_id")
        return tuple(row[0] for row in rows)


class Prekeys:
    """The private halves of the daily sealing keys (`overlay.identity.PrekeyStore`)."""

    def __init__(self, db: sqlite3.Connection, wall: Callable[[], float]) -> None:
        self._db = db
        self._wall = wall

    def load(self, prekey_id: int) -> bytes | None:
        """The key kept under this id."""
        row = self._db.execute(
            "SELECT private FROM prekeys WHERE prekey_id = ?", (prekey_id,)
        ).fetchone()
        return None if row is None else row[0]

    def save(self, prekey_id: int, private: bytes) -> None:
        """Keep a key."""
        self._db.execute(
            "INSERT OR REPLACE INTO prekeys VALUES (?, ?, ?)", (prekey_id, private, self._wall())
        )

    def delete(self, prekey_id: int) -> None:
        """Destroy a key, kept or not; ``secure_delete`` overwrites its place in the file."""
        self._db.execute("DELETE FROM prekeys WHERE prekey_id = ?", (prekey_id,))


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
