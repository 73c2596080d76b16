"""Records: what each node says of itself, signed, sequenced and expiring; and the book of them."""

from collections.abc import Container
from dataclasses import dataclass
from enum import StrEnum

from overlay.core.addresses import prefix_of
from overlay.core.limits import BoundedDict
from overlay.core.membership.prekeys import DAY
from overlay.core.types import Crypto, PeerId
from overlay.core.wire import signing as documents
from overlay.core.wire.bounds import RECORD_MAX
from overlay.core.wire.documents import Record, Signed
from overlay.errors import LocalProtocolError

RECORD_LIFE = 14 * DAY
"""Seconds (guess): a node that was off for a holiday can still dial the peers that it met."""
RECORD_LIFE_MAX = 30 * DAY
"""Seconds (guess) for which one record may at most keep a place in the book."""
FORGET_AFTER = 2 * DAY
"""Seconds (guess) after which a member that has not signed its record anew is forgotten, unless we
are linked to it: each does so every day, so this one is not heard of any more."""
FUTURE_MAX = DAY
"""Seconds (guess): records from further ahead are refused, whether our clock is wrong or theirs."""
BOOK_MAX = 1024
PREFIX_BITS = (16, 32)
"""Whose machines may well be one attacker's, of IPv4 and of IPv6 (guess)."""


class Refusal(StrEnum):
    """Why a well-formed record is refused."""

    NETWORK = "network"  # it is of another network
    EXPIRED = "expired"
    FUTURE = "future"  # it was issued more than `FUTURE_MAX` from now
    LIFE = "life"  # it lasts longer than `RECORD_LIFE_MAX`, or ends before it begins
    SIGNATURE = "signature"  # its owner has not signed it
    STALE = "stale"  # its owner has long been silent: others have not forgotten it yet


def make_record(record: Record, crypto: Crypto) -> bytes:
    """Our record as it travels. Raises LocalProtocolError when nobody would accept it."""
    assert record.peer_id == crypto.peer_id, "a record of somebody else"
    data = documents.pack(documents.sign(record, crypto))
    if len(data) > RECORD_MAX:
        raise LocalProtocolError(f"a record of {len(data)} bytes is too large")
    return data


@dataclass(slots=True, eq=False)
class Read:
    """A record and the bytes that it was read from."""

    data: bytes
    record: Record
    signed: Signed | None
    """None once the signature has been checked, and holds."""
    prefix: str
    """Whose machine it may be of (`prefix_in`)."""

    def refusal(self, network: bytes, wall: float, crypto: Crypto) -> Refusal | None:
        """Why it is refused, if it is. The signature comes last, because it costs most."""
        record = self.record
        if record.network != network:
            return Refusal.NETWORK
        if record.expires_at <= wall:
            return Refusal.EXPIRED
        if record.issued_at > wall + FUTURE_MAX:
            return Refusal.FUTURE
        if not 0 < record.expires_at - record.issued_at <= RECORD_LIFE_MAX:
            return Refusal.LIFE
        return None if self._is_signed(crypto) else Refusal.SIGNATURE

    def _is_signed(self, crypto: Crypto) -> bool:
        """Whether its owner has signed it; checked once."""
        if self.signed is not None and documents.is_signed(self.signed, self.record, crypto):
            self.signed = None
        return self.signed is None


class RecordReader:
    """Records from bytes; the last ones are kept, because the same record comes often.

    All nodes of a simulation share one reader.
    """

    def __init__(self, kept: int = 2 * BOOK_MAX) -> None:
        self._read: BoundedDict[bytes, Read] = BoundedDict(kept)
        # What was read before, or None; the dict's own method, because most records are known.
        self.known = self._read.get

    def read(self, data: bytes) -> Read | str:
        """What the record says, its signature unchecked, or ``malformed: …``. Never raises."""
        known = self._read.get(data)
        if known is not None:
            return known
        if len(data) > RECORD_MAX:
            return "malformed: too large"
        signed = documents.unpack(data)
        if isinstance(signed, str):
            return signed
        record = documents.peek(signed, Record)
        if isinstance(record, str):
            return record
        read = Read(data, record, signed, prefix_in(record))
        self._read.put(data, read)
        return read


def prefix_in(record: Record | None) -> str:
    """The /16 or /32 of the first global address in a record; proven ones first."""
    entries = sorted(record.addresses, key=lambda entry: not entry.proven) if record else []
    return next(filter(None, (prefix_of(entry.host, *PREFIX_BITS) for entry in entries)), "")


class RecordBook:
    """The newest valid record of every member we have heard of.

    When it is full, the record known longest gives way; `counters` says how often that and
    each refusal happened.
    """

    def __init__(
        self,
        network: bytes,
        crypto: Crypto,
        capacity: int = BOOK_MAX,
        reader: RecordReader | None = None,
    ) -> None:
        self.counters: dict[str, int] = {}
        self._network = network
        self._crypto = crypto
        self._capacity = capacity
        self._records: dict[PeerId, Read] = {}
        self._reader = reader or RecordReader()
        self._evicted: list[PeerId] = []

    def __len__(self) -> int:
        return len(self._records)

    def __contains__(self, peer: PeerId) -> bool:
        return peer in self._records

    def is_old(self, data: bytes) -> bool:
        """Whether we have this record or a newer one of its owner: most that come are old."""
        read = self._reader.known(data)
        known = self._records.get(PeerId(read.record.peer_id)) if read is not None else None
        if read is None or known is None or read.record.sequence > known.record.sequence:
            return False
        self.counters["old"] = self.counters.get("old", 0) + 1
        return True

    def add(
        self,
        data: bytes,
        wall: float,
        needed: Container[PeerId] = frozenset(),
        *,
        since: float = 0.0,
    ) -> Record | None:
        """The record if it holds and is newer than ours; otherwise None, counted. Never raises.

        In a full book, the records of peers that are `needed` give way after all others. Records
        issued before the Unix second `since` are refused.
        """
        read = self._reader.read(data)
        if isinstance(read, str):
            self._count("malformed")
            return None
        record, peer = read.record, PeerId(read.record.peer_id)
        known = self._records.get(peer)
        if known is not None and record.sequence <= known.record.sequence:
            self._count("old")
            return None
        stale = Refusal.STALE if record.issued_at <= since else None
        refusal = stale or read.refusal(self._network, wall, self._crypto)
        if refusal is not None:
            self._count(refusal)
            return None
        if known is None and len(self._records) >= self._capacity:
            self._evict(needed)
        self._records[peer] = read
        return record

    def refusal(self, data: bytes, wall: float) -> Refusal | str | None:
        """Why this record would be refused now, if so; nothing is counted. Never raises."""
        read = self._reader.read(data)
        return read if isinstance(read, str) else read.refusal(self._network, wall, self._crypto)

    def expire(self, wall: float) -> list[PeerId]:
        """Forget every record that has expired; returns whose they were."""
        gone = [peer for peer, read in self._records.items() if read.record.expires_at <= wall]
        for peer in gone:
            self.forget(peer)
        self._evicted += gone
        return gone

    def forget_stale(self, since: float, needed: Container[PeerId]) -> None:
        """Forget whoever has signed nothing since then, but for those that are `needed`."""
        for peer, read in list(self._records.items()):
            if read.record.issued_at <= since and peer not in needed:
                self.forget(peer)
                self._evicted.append(peer)
                self._count("forgotten")

    def forget(self, peer: PeerId) -> None:
        """Drop a peer's record, known or not."""
        self._records.pop(peer, None)

    def get(self, peer: PeerId) -> Record | None:
        """The newest record of a peer."""
        read = self._records.get(peer)
        return read.record if read else None

    def bytes_of(self, peer: PeerId) -> bytes | None:
        """The newest record of a peer as it was signed, to be passed on."""
        read = self._records.get(peer)
        return read.data if read else None

    def prefix_of(self, peer: PeerId) -> str:
        """The prefix of a peer's address, as far as it is known."""
        read = self._records.get(peer)
        return read.prefix if read else ""

    def peers(self) -> list[PeerId]:
        """Whose records we hold, longest known first."""
        return list(self._records)

    def read(self, data: bytes) -> Record | None:
        """What these bytes say, checked or not; None if they say nothing."""
        read = self._reader.read(data)
        return None if isinstance(read, str) else read.record

    def owner(self, data: bytes) -> PeerId | None:
        """Whose record these bytes claim to be."""
        read = self._reader.read(data)
        return None if isinstance(read, str) else PeerId(read.record.peer_id)

    def evicted(self) -> list[PeerId]:
        """Who has given way or been forgotten since this was last asked."""
        evicted, self._evicted = self._evicted, []
        return evicted

    def _evict(self, needed: Container[PeerId]) -> None:
        """The one known longest gives way."""
        peer = next((peer for peer in self._records if peer not in needed), None)
        if peer is None:
            peer = next(iter(self._records))
        self.forget(peer)
        self._evicted.append(peer)
        self._count("evicted")

    def _count(self, what: str) -> None:
        self.counters[what] = self.counters.get(what, 0) + 1
