"""Records: what each node says of itself, signed, sequenced and expiring; and the book of them."""

from collections.abc import Container
from dataclasses import dataclass

from overlay.core.addresses import prefix_of
from overlay.core.types import IDENTITY, Crypto, PeerId
from overlay.core.wire import signing as documents
from overlay.core.wire.bounds import RECORD_MAX
from overlay.core.wire.documents import PrekeyEntry, Record, Signed
from overlay.errors import LocalProtocolError

DAY = 86_400
RECORD_LIFE = 14 * DAY
"""Seconds (guess): a node that was off for a holiday can still dial the peers that it met."""
RECORD_LIFE_MAX = 30 * DAY
"""Seconds (guess): nobody keeps a place in the book for longer than this with one record."""
FUTURE_MAX = DAY
"""Seconds (guess): records from further ahead are refused, whoever's clock is wrong."""
BOOK_MAX = 1024
PREKEYS_LIVE = 2
"""Today's key and yesterday's: whoever holds yesterday's record can still seal to us."""
PREKEYS_FORGOTTEN = 30
"""Days before that whose keys are destroyed at each change (a node may have slept for long)."""
SUITE = 1
"""HPKE with X25519, HKDF-SHA256, AES-128-GCM."""
PREFIX_BITS = (16, 32)
"""Whose machines may well be one attacker's, of IPv4 and of IPv6 (guess)."""


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
    """None: the signature has been checked, and holds."""
    prefix: str
    """Whose machine it may be of (`prefix_in`)."""

    def holds(self, crypto: Crypto) -> bool:
        """Whether its owner has signed it; checked once."""
        if self.signed is not None and documents.is_signed(self.signed, self.record, crypto):
            self.signed = None
        return self.signed is None


class RecordReader:
    """Records from bytes; the last ones are kept, for they come often.

    A world gives one reader to all of its nodes, so that they share what they hold.
    """

    def __init__(self, kept: int = 2 * BOOK_MAX) -> None:
        self._kept = kept
        self._read: dict[bytes, Read] = {}
        self.known = self._read.get
        """What was read before, or None."""

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
        while len(self._read) >= self._kept:
            del self._read[next(iter(self._read))]
        read = self._read[data] = Read(data, record, signed, prefix_in(record))
        return read


def prefix_in(record: Record | None) -> str:
    """The /16 or /32 of the first global address in a record; proven ones first."""
    entries = sorted(record.addresses, key=lambda entry: not entry.proven) if record else []
    return next(filter(None, (prefix_of(entry.host, *PREFIX_BITS) for entry in entries)), "")


def open_record(
    data: bytes, network: bytes, wall: float, crypto: Crypto, reader: RecordReader | None = None
) -> Record | str:
    """The record, or why it is refused: ``malformed: …``, ``network``, ``expired``, ``future``,
    ``life``, ``signature``. Never raises; the signature comes last, since it costs most.
    """
    read = (reader or RecordReader()).read(data)
    if isinstance(read, str):
        return read
    why = _refusal(read.record, network, wall)
    return why or (read.record if read.holds(crypto) else "signature")


def rotate_prekeys(wall: float, crypto: Crypto) -> list[PrekeyEntry]:
    """The live prekeys, today's first; older ones are destroyed. Call it daily, and at the start.

    A prekey's id is its day, so the same day gives the same keys after a restart.
    """
    today = int(wall // DAY)
    oldest = today - PREKEYS_LIVE
    for day in range(max(0, oldest - PREKEYS_FORGOTTEN), oldest + 1):
        crypto.forget_prekey(day)
    days = [day for day in range(today, oldest, -1) if day >= 0]
    return [
        PrekeyEntry(day, SUITE, crypto.new_prekey(day), (day + PREKEYS_LIVE) * DAY) for day in days
    ]


def next_rotation(wall: float) -> float:
    """When `rotate_prekeys` next has something to do, Unix seconds."""
    return float((wall // DAY + 1) * DAY)


def sealing_key(peer: PeerId, record: Record | None, wall: float, crypto: Crypto) -> PrekeyEntry:
    """What to seal to: the first prekey of a record that its owner still holds, else its identity.

    Sealed to an identity, a message can be read by whoever steals that key later: what it says
    (addresses, credentials of one attempt) is worth nothing by then.
    """
    for prekey in record.prekeys if record else ():
        if prekey.suite == SUITE and len(prekey.public) == 32 and prekey.expires_at > wall:
            return prekey
    return PrekeyEntry(IDENTITY, SUITE, crypto.sealing_key(peer), int(wall) + DAY)


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
        """Whether it is one that we have, or older: most are, so nothing else is looked at."""
        read = self._reader.known(data)
        known = self._records.get(PeerId(read.record.peer_id)) if read is not None else None
        if read is None or known is None or read.record.sequence > known.record.sequence:
            return False
        self.counters["old"] = self.counters.get("old", 0) + 1
        return True

    def add(
        self, data: bytes, wall: float, needed: Container[PeerId] = frozenset()
    ) -> Record | None:
        """The record if it is valid and news to us; otherwise None, counted. Never raises.

        Peers that are `needed` do not give way to it.
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
        why = _refusal(record, self._network, wall)
        if why is not None or not read.holds(self._crypto):
            self._count(why or "signature")
            return None
        if known is None and len(self._records) >= self._capacity:
            self._evict(needed)
        self._records[peer] = read
        return record

    def expire(self, wall: float) -> list[PeerId]:
        """Forget every record that has expired; whose they were."""
        gone = [peer for peer, read in self._records.items() if read.record.expires_at <= wall]
        for peer in gone:
            self.forget(peer)
        return gone

    def forget(self, peer: PeerId) -> None:
        """Drop a peer's record, known or not."""
        self._records.pop(peer, None)

    def get(self, peer: PeerId) -> Record | None:
        """The newest record of a peer."""
        read = self._records.get(peer)
        return read.record if read else None

    def bytes_of(self, peer: PeerId) -> bytes | None:
        """The same as it was signed, to be passed on."""
        read = self._records.get(peer)
        return read.data if read else None

    def prefix_of(self, peer: PeerId) -> str:
        """The prefix of a peer's address, as far as it is known."""
        read = self._records.get(peer)
        return read.prefix if read else ""

    def peers(self) -> list[PeerId]:
        """Whose records we hold, longest known first."""
        return list(self._records)

    def owner(self, data: bytes) -> PeerId | None:
        """Whose record these bytes claim to be."""
        read = self._reader.read(data)
        return None if isinstance(read, str) else PeerId(read.record.peer_id)

    def evicted(self) -> list[PeerId]:
        """Who has given way since this was last asked."""
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


def _refusal(record: Record, network: bytes, wall: float) -> str | None:
    """Why a record that its author may well have signed is not to be used, or None."""
    if record.network != network:
        return "network"
    if record.expires_at <= wall:
        return "expired"
    if record.issued_at > wall + FUTURE_MAX:
        return "future"
    if not 0 < record.expires_at - record.issued_at <= RECORD_LIFE_MAX:
        return "life"
    return None
