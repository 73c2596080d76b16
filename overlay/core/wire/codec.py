"""Control messages to bytes and back: what a peer sends becomes a value, never an exception."""

from dataclasses import dataclass
from typing import Generic, TypeVar

import msgspec

from overlay.core.wire.bounds import violation
from overlay.core.wire.messages import MAX_MESSAGE_BYTES, Message
from overlay.errors import LocalProtocolError

Kind = TypeVar("Kind", bound=msgspec.Struct)


@dataclass(frozen=True, slots=True)
class Unknown:
    """A well-formed message of a kind that a later version knows: to be ignored."""

    kind: int


@dataclass(frozen=True, slots=True)
class Broken:
    """Not a message that any correct peer sends."""

    why: str


class _Envelope(msgspec.Struct, array_like=True, frozen=True):
    """What every message of every version begins with."""

    kind: int


class Reader(Generic[Kind]):
    """Decodes one kind of struct (or one union of kinds) within its bounds."""

    def __init__(self, kind: type[Kind]) -> None:
        self._decoder = msgspec.msgpack.Decoder(kind)

    def read(self, data: bytes, limit: int) -> Kind | Broken:
        """The struct, or why it is none; further fields are ignored. Never raises."""
        if len(data) > limit:
            return Broken(f"{len(data)} bytes, at most {limit} are allowed")
        try:
            struct = self._decoder.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            # UnicodeDecodeError: msgspec lets text that is not UTF-8 through to here.
            # RecursionError: arrays within arrays in a field that only a later version knows.
            return Broken(_line(error))
        outside = violation(struct)
        return struct if outside is None else Broken(f"{outside} is out of bounds")


_MESSAGES: Reader[Message] = Reader(Message)  # type: ignore[arg-type]
_ENVELOPES = msgspec.msgpack.Decoder(_Envelope)
_KINDS = frozenset(kind.__struct_config__.tag for kind in Message.__args__)


def encode(message: Message) -> bytes:
    """The message as it crosses the link.

    Raises LocalProtocolError when it is out of bounds: no peer would accept it.
    """
    outside = violation(message)
    if outside is not None:
        raise LocalProtocolError(f"{outside} is out of bounds")
    data = msgspec.msgpack.encode(message)
    if len(data) > MAX_MESSAGE_BYTES:
        raise LocalProtocolError(f"a {type(message).__name__} of {len(data)} bytes is too large")
    return data


def decode(data: bytes) -> Message | Unknown | Broken:
    """What a peer sent. Never raises, for any bytes."""
    message = _MESSAGES.read(data, MAX_MESSAGE_BYTES)
    if isinstance(message, Broken) and len(data) <= MAX_MESSAGE_BYTES:
        kind = _kind_of(data)
        if kind is not None and kind not in _KINDS:
            return Unknown(kind)
    return message


def _kind_of(data: bytes) -> int | None:
    """What the first field says, if all of it is MessagePack."""
    try:
        return _ENVELOPES.decode(data).kind
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _line(error: Exception) -> str:
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__
