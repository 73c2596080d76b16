"""The frames of application streams: one SCTP message each, on the SCTP stream of its stream.

The first byte is the type, the rest MessagePack, or plain bytes in `DATA`. What a frame means is
in `overlay.core.stream.mux`.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Annotated, TypeVar

import msgspec

from overlay.core.wire.codec import Broken, Unknown

PROTOCOL_MAX = 64
"""Characters of a protocol's name."""
PRIORITY_MIN, PRIORITY_MAX = -4, 4
CREDIT_MAX = 1 << 30
CODE_MAX = (1 << 31) - 1

CANCELLED, CLOSED, BUSY, REFUSED, TIMEOUT = range(5)
"""Codes of `Reset` below 16 are ours: the application gave up; it reads no more; too many streams;
nobody serves the protocol; no answer. Applications count from 16."""


class FrameType(IntEnum):
    """The first byte. A type that we do not know is a later version's, and ignored."""

    READY = 0
    OPEN = 1
    ACK = 2
    DATA = 3
    CREDIT = 4
    END = 5
    RESET = 6


@dataclass(frozen=True, slots=True)
class Ready:
    """The sender has admitted us: it takes streams now. Once, on its first stream id."""


class Open(msgspec.Struct, array_like=True, frozen=True):
    """A new stream; its opener takes `credit` bytes on it."""

    protocol: Annotated[str, msgspec.Meta(min_length=1, max_length=PROTOCOL_MAX)]
    priority: Annotated[int, msgspec.Meta(ge=PRIORITY_MIN, le=PRIORITY_MAX)]
    credit: Annotated[int, msgspec.Meta(ge=0, le=CREDIT_MAX)]


class Ack(msgspec.Struct, array_like=True, frozen=True):
    """The answer to each `Open`, first of all; `credit` comes on top of the early credit."""

    credit: Annotated[int, msgspec.Meta(ge=0, le=CREDIT_MAX)]


@dataclass(frozen=True, slots=True)
class Data:
    """The next bytes of the stream, at least one."""

    data: bytes


class Credit(msgspec.Struct, array_like=True, frozen=True):
    """The sender of this takes so many bytes more."""

    credit: Annotated[int, msgspec.Meta(ge=1, le=CREDIT_MAX)]


@dataclass(frozen=True, slots=True)
class End:
    """No more bytes from here (half-close)."""


class Reset(msgspec.Struct, array_like=True, frozen=True):
    """No more bytes from here, and none are wanted."""

    code: Annotated[int, msgspec.Meta(ge=0, le=CODE_MAX)]


Frame = Ready | Open | Ack | Data | Credit | End | Reset

_BODIES: dict[int, msgspec.msgpack.Decoder[Open | Ack | Credit | Reset]] = {
    FrameType.OPEN: msgspec.msgpack.Decoder(Open),
    FrameType.ACK: msgspec.msgpack.Decoder(Ack),
    FrameType.CREDIT: msgspec.msgpack.Decoder(Credit),
    FrameType.RESET: msgspec.msgpack.Decoder(Reset),
}
_TYPES: dict[type, FrameType] = {
    Open: FrameType.OPEN,
    Ack: FrameType.ACK,
    Credit: FrameType.CREDIT,
    Reset: FrameType.RESET,
}
_BODY_MAX = 1024
_DATA = bytes([FrameType.DATA])
Bodied = TypeVar("Bodied", Open, Ack, Credit, Reset)


def encode(frame: Frame) -> bytes:
    """The frame as it crosses the link."""
    match frame:
        case Data(data=data):
            return _DATA + data
        case Ready():
            return bytes([FrameType.READY])
        case End():
            return bytes([FrameType.END])
        case _:
            return bytes([_TYPES[type(frame)]]) + msgspec.msgpack.encode(frame)


def decode(frame: bytes) -> Frame | Unknown | Broken:
    """What a peer sent. Never raises, for any bytes."""
    kind = frame[0] if frame else None
    if kind == FrameType.DATA:
        return Data(frame[1:]) if len(frame) > 1 else Broken("a DATA frame without data")
    if kind == FrameType.READY:
        return Ready()
    if kind == FrameType.END:
        return End()
    if kind is None:
        return Broken("an empty frame")
    return _body(kind, frame[1:]) if kind in _BODIES else Unknown(kind)


def _body(kind: int, body: bytes) -> Frame | Broken:
    if len(body) > _BODY_MAX:
        return Broken(f"a frame of type {kind} with {len(body)} bytes")
    try:
        struct = _BODIES[kind].decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return Broken(f"a frame of type {kind}: {str(error)[:200]}")
    if isinstance(struct, Open) and not struct.protocol.isprintable():
        return Broken("a protocol's name with control characters")
    return struct
