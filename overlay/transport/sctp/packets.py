"""SCTP packets (RFC 9260 §3): read from a peer that may mean harm, and written in bundles.

aiortc's parser trusts the lengths inside a chunk: a parameter of length 0 keeps it busy for ever,
a SACK may name 19 million acknowledged chunks. So chunks are checked here before aiortc's classes
see them. What is merely unknown is skipped as the RFC says; what no correct peer sends raises
RemoteProtocolError.
"""

from collections.abc import Callable, Iterator
from enum import IntEnum
from struct import Struct

import google_crc32c
from aiortc.rtcsctptransport import CHUNK_TYPES, SCTP_MAX_PACKET_LENGTH, Chunk, DataChunk

from overlay.errors import RemoteProtocolError

COMMON_HEADER = Struct("!HHLL")
CHUNK_HEADER = Struct("!BBH")
DATA_BODY = Struct("!LHHL")
PARAMETER_HEADER = Struct("!HH")
DATA_CHUNK = Struct("!BBHLHHL")
PLAIN_SACK = Struct("!HHLLBBHLLHH")
"""A packet of one SACK that names no gap and no duplicate (RFC 9260 §3.3.4)."""
PACKET_BYTES = SCTP_MAX_PACKET_LENGTH // 4 * 4
"""What a packet has at most, unless a path carries less: 1,273 bytes with all headers on IPv6,
whose paths carry 1,280 (RFC 8200 §5)."""
SCTP_PORT = 5000
"""Inside DTLS every association uses this port at both ends."""
TSN_MODULO = 2**32
TSN_HALF = 2**31
"""Of two TSNs the one that is less than this ahead is the newer (RFC 1982, RFC 9260 §1.6)."""
LAST_FRAGMENT, FIRST_FRAGMENT, UNORDERED, IMMEDIATE = 1, 2, 4, 8
"""Flags of a DATA chunk; the last asks for a SACK at once (RFC 7053)."""
WHOLE = FIRST_FRAGMENT | LAST_FRAGMENT
"""Both flags of a chunk that is a message by itself."""
DATA = 0
INIT = 1
SACK = 3
HEARTBEAT = 4
PLAIN_SACK_BYTES = PLAIN_SACK.size - COMMON_HEADER.size
PAD = 0x84
"""Filler that brings a packet to a size; who does not know it passes over it (RFC 4820)."""
FORWARD_TSN = 192
HEARTBEAT_INFO = Struct("!HHB8s3x")
"""The one parameter of a HEARTBEAT (RFC 9260 §3.3.5): a `HeartbeatKind` and a nonce."""
NONCE_BYTES = 8
_HEARTBEAT_INFO_TYPE = 1

# INIT, INIT ACK, SACK, SHUTDOWN, FORWARD TSN: bytes before anything optional.
_SHORTEST_BODY = {1: 16, 2: 16, SACK: 12, 7: 4, FORWARD_TSN: 4}
# Chunks that end in parameters or causes (RFC 9260 §3.2.1), and where those begin.
_PARAMETERS_AT = {1: 16, 2: 16, 4: 0, 5: 0, 6: 0, 9: 0, 130: 0}


class HeartbeatKind(IntEnum):
    """What a HEARTBEAT of ours asks. The peer sends it back without a look (RFC 9260 §3.3.6)."""

    PATH = 1
    """Whether the peer is heard from the address that it was sent to."""
    SIZE = 2
    """Whether a packet of this size arrives (RFC 8899 §6.2)."""


class InboundData(DataChunk):
    """A DATA chunk as it arrived (RFC 9260 §3.3.1)."""

    def __init__(self, flags: int, body: bytes) -> None:
        if len(body) <= DATA_BODY.size:
            raise RemoteProtocolError("SCTP: a DATA chunk without data")
        self.flags = flags
        self.tsn, self.stream_id, self.stream_seq, self.protocol = DATA_BODY.unpack_from(body)
        self.user_data = body[DATA_BODY.size :]


def is_for(packet: bytes, tag: int) -> bool:
    """Whether the checksum holds and the verification tag is ours, or 0 for an INIT (§8.5)."""
    if len(packet) < COMMON_HEADER.size + CHUNK_HEADER.size:
        return False
    carried = int.from_bytes(packet[4:8], "big")
    if carried != (0 if packet[COMMON_HEADER.size] == INIT else tag):
        return False
    checksum: int = google_crc32c.value(b"%b\0\0\0\0%b" % (packet[:8], packet[12:]))
    return checksum == int.from_bytes(packet[8:12], "little")


def read_plain_sack(packet: bytes, tag: int) -> tuple[int, int] | None:
    """The cumulative TSN and the window, if all of the packet is such a SACK for us."""
    if len(packet) != PLAIN_SACK.size:
        return None
    _, _, carried, _, kind, _, size, cumulative, window, gaps, duplicates = PLAIN_SACK.unpack(
        packet
    )
    if kind != SACK or carried != tag or size != PLAIN_SACK_BYTES or gaps or duplicates:
        return None
    return (cumulative, window) if is_for(packet, tag) else None


def read_chunks(packet: bytes) -> Iterator[Chunk]:
    """The chunks of a packet whose header is good; unknown ones are left out.

    RemoteProtocolError: a chunk that no correct peer sends.
    """
    position, length = COMMON_HEADER.size, len(packet)
    while position + CHUNK_HEADER.size <= length:
        kind, flags, size = CHUNK_HEADER.unpack_from(packet, position)
        end = position + size
        if size < CHUNK_HEADER.size or end > length:
            raise RemoteProtocolError("SCTP: a chunk longer than its packet")
        body = packet[position + CHUNK_HEADER.size : end]
        if kind == DATA:
            yield InboundData(flags, body)
        elif kind in CHUNK_TYPES:
            if kind == INIT and (position > COMMON_HEADER.size or end + 3 < length):
                raise RemoteProtocolError("SCTP: an INIT among other chunks")  # RFC 9260 §3.3.2
            _check(kind, body)
            yield CHUNK_TYPES[kind](flags, body)
        elif not kind & 0x80:
            return  # RFC 9260 §3.2: stop here; the two high bits would be 1x for "skip and go on"
        position = end + -size % 4


def _check(kind: int, body: bytes) -> None:
    if len(body) < _SHORTEST_BODY.get(kind, 0):
        raise RemoteProtocolError(f"SCTP: a chunk of type {kind} cut short")
    if kind in _PARAMETERS_AT:
        _check_parameters(body, _PARAMETERS_AT[kind])
    elif kind == SACK:
        _check_gaps(body)
    elif kind == FORWARD_TSN and len(body) % 4:
        raise RemoteProtocolError("SCTP: a FORWARD TSN cut short")


def _check_parameters(body: bytes, position: int) -> None:
    while position + PARAMETER_HEADER.size <= len(body):
        _, size = PARAMETER_HEADER.unpack_from(body, position)
        if size < PARAMETER_HEADER.size or position + size > len(body):
            raise RemoteProtocolError("SCTP: a parameter longer than its chunk")
        position += size + -size % 4


def _check_gaps(body: bytes) -> None:
    """Gap blocks ascend and do not touch (RFC 9260 §3.3.4)."""
    gaps = int.from_bytes(body[8:10], "big")
    duplicates = int.from_bytes(body[10:12], "big")
    if len(body) != 12 + 4 * (gaps + duplicates):
        raise RemoteProtocolError("SCTP: a SACK of the wrong size")
    last = 0
    for position in range(12, 12 + 4 * gaps, 4):
        start, end = PARAMETER_HEADER.unpack_from(body, position)
        if not last < start <= end:
            raise RemoteProtocolError("SCTP: a SACK whose gaps overlap")
        last = end


def heartbeat(tag: int, kind: HeartbeatKind, nonce: bytes, size: int = 0) -> bytes:
    """A packet with a HEARTBEAT, with padding up to `size` bytes (a multiple of 4)."""
    # The length in the parameter's header leaves out what pads it to whole words.
    info = HEARTBEAT_INFO.pack(_HEARTBEAT_INFO_TYPE, HEARTBEAT_INFO.size - 3, kind, nonce)
    chunks = CHUNK_HEADER.pack(HEARTBEAT, 0, CHUNK_HEADER.size + len(info)) + info
    room = size - COMMON_HEADER.size - len(chunks)
    if room >= CHUNK_HEADER.size:
        chunks += CHUNK_HEADER.pack(PAD, 0, room) + bytes(room - CHUNK_HEADER.size)
    return _packet(tag, chunks)


def read_heartbeat_ack(parameters: list[tuple[int, bytes]]) -> tuple[int, bytes] | None:
    """The kind and the nonce that a HEARTBEAT ACK brings back; None: none of ours."""
    if len(parameters) != 1 or parameters[0][0] != _HEARTBEAT_INFO_TYPE:
        return None
    info = parameters[0][1]
    return (info[0], info[1:]) if len(info) == 1 + NONCE_BYTES else None


class OutboundData(DataChunk):
    """A DATA chunk of ours with aiortc's book-keeping; the defaults live in the class."""

    _abandoned = False
    _acked = False
    _expiry = None
    _in_flight = False
    _misses = 0
    _retransmit = False
    _sent_count = 0
    _sent_time: float | None = None

    def __init__(
        self, flags: int, tsn: int, stream_id: int, stream_seq: int, protocol: int, data: bytes
    ) -> None:
        self.flags = flags
        self.tsn = tsn
        self.stream_id = stream_id
        self.stream_seq = stream_seq
        self.protocol = protocol
        self.user_data = data
        self._book_size = len(data)
        self._max_retransmits: int | None = None

    def __bytes__(self) -> bytes:
        size = DATA_CHUNK.size + len(self.user_data)
        header = DATA_CHUNK.pack(
            0, self.flags, size, self.tsn, self.stream_id, self.stream_seq, self.protocol
        )
        return header + self.user_data + b"\0" * (-size % 4)


class Bundle:
    """DATA chunks on their way into one packet (RFC 9260 §6.10)."""

    __slots__ = ("_chunks", "_most", "_room", "_send", "_send_oversize", "_tag")

    def __init__(
        self,
        tag: int,
        size: int,
        send: Callable[[bytes], None],
        send_oversize: Callable[[bytes], None],
    ) -> None:
        """`tag` is the peer's verification tag; `send` takes each finished packet.

        A chunk that was numbered when packets were larger, and cannot be cut any more, goes by
        itself to `send_oversize`.
        """
        self._tag = tag
        self._send = send
        self._send_oversize = send_oversize
        self._chunks: list[bytes] = []
        self._most = self._room = size - COMMON_HEADER.size

    def add(self, chunk: OutboundData) -> None:
        """Put a chunk in; if it does not fit, the packet so far goes out first."""
        data = chunk.__bytes__()
        if len(data) > self._room:
            self.send()
        self._chunks.append(data)
        self._room -= len(data)

    def send(self) -> None:
        """Send what is in the bundle, if anything."""
        if self._chunks:
            send = self._send if self._room >= 0 else self._send_oversize
            send(_packet(self._tag, b"".join(self._chunks)))
            self._chunks.clear()
            self._room = self._most


def _packet(tag: int, chunks: bytes) -> bytes:
    blank = COMMON_HEADER.pack(SCTP_PORT, SCTP_PORT, tag, 0)
    checksum: int = google_crc32c.value(blank + chunks)
    return blank[:8] + checksum.to_bytes(4, "little") + chunks
