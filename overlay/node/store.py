"""What a node remembers from one life to the next, in one SQLite file.

Write-ahead log with ``synchronous=NORMAL``: a commit costs microseconds and no fsync, survives
``kill -9``, and may lose its last moments only when the whole machine goes down. The fsyncs of a
checkpoint happen in `Store.checkpoint`, which the node calls off its loop.
"""

import os
import sqlite3
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from overlay.errors import ConfigError

MAX_PEERS = 1024
"""Peers remembered; beyond it the longest unseen is forgotten (guess)."""
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
        """Count a start. Greater than all before, even when an old copy of the file came back."""
        boot = max((self._get("boot") or 0) + 1, int(self._wall()))
        self._put("boot", boot)
        return boot

    # --- peers ---------------------------------------------------------------------------------

    def remember(self, peer: bytes, record: bytes) -> None:
        """Keep the signed record of a peer that we are linked to."""
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
