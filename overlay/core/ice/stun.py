"""STUN messages (RFC 8489) as far as ICE (RFC 8445) needs them: bytes in, values out.

`parse` never raises: whatever is no STUN message comes back as a `ParseError` value. What it
yields keeps the bytes as received, because MESSAGE-INTEGRITY covers those and not our reading
of them. `encode` writes the attributes in one fixed order, integrity and fingerprint last.
"""

import hmac
import ipaddress
import struct
from binascii import crc32
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum

from overlay.core.addresses import is_circuit
from overlay.core.types import Address

MAGIC_COOKIE = 0x2112A442
BINDING = 0x001
"""The one method that ICE uses (RFC 8489 §18.2)."""
MAX_BYTES = 2048
"""A longer datagram is not parsed: RFC 8489 §6.1 keeps messages below the path's MTU (guess)."""
MAX_ATTRIBUTES = 32
"""A message with more is refused, so that one datagram cannot cost us much (guess)."""
MAX_USERNAME_BYTES = 513
"""Two user fragments of 256 characters and the colon (RFC 8839 §5.4)."""

USERNAME = 0x0006
MESSAGE_INTEGRITY = 0x0008
ERROR_CODE = 0x0009
UNKNOWN_ATTRIBUTES = 0x000A
XOR_MAPPED_ADDRESS = 0x0020
PRIORITY = 0x0024
USE_CANDIDATE = 0x0025
SOFTWARE = 0x8022
FINGERPRINT = 0x8028
ICE_CONTROLLED = 0x8029
ICE_CONTROLLING = 0x802A

UNDERSTOOD_AND_IGNORED = frozenset({0x0001, 0x0014, 0x0015, 0x001C})
"""MAPPED-ADDRESS, REALM, NONCE, MESSAGE-INTEGRITY-SHA256: no reason to answer 420.

Deviation: ICE protects its checks with MESSAGE-INTEGRITY (RFC 8445 §7.1), so the SHA-256
sibling, which a sender of both adds (RFC 8489 §9.1.2), is left unread.
"""

REASONS = {
    400: "Bad Request",
    401: "Unauthenticated",
    420: "Unknown Attribute",
    487: "Role Conflict",
}

_HEADER = struct.Struct("!HHI12s")
_ATTRIBUTE = struct.Struct("!HH")
_UINT32 = struct.Struct("!I")
_UINT64 = struct.Struct("!Q")
_INTEGRITY_BYTES = 24
_FINGERPRINT_BYTES = 8
_FINGERPRINT_XOR = 0x5354554E
_COOKIE_BYTES = MAGIC_COOKIE.to_bytes(4, "big")


class MessageClass(IntEnum):
    """The two class bits of the message type (RFC 8489 §5)."""

    REQUEST = 0
    INDICATION = 1
    SUCCESS = 2
    ERROR = 3


_CLASSES = tuple(MessageClass)


@dataclass(frozen=True, slots=True)
class ParseError:
    """These bytes are no STUN message that we can read; says why."""

    why: str


@dataclass(slots=True)
class Message:
    """A STUN message. An attribute that is absent is None, False or empty."""

    method: int
    message_class: MessageClass
    transaction_id: bytes
    """12 bytes."""
    username: str | None = None
    priority: int | None = None
    use_candidate: bool = False
    ice_controlling: int | None = None
    """The sender's tie-breaker, 64 bits (RFC 8445 §7.1.3)."""
    ice_controlled: int | None = None
    mapped_address: Address | None = None
    """XOR-MAPPED-ADDRESS."""
    error_code: int | None = None
    error_reason: str = ""
    unknown_attributes: tuple[int, ...] = ()
    """What a 420 response complains of."""
    software: str | None = None
    unknown_required: tuple[int, ...] = ()
    """Received comprehension-required attributes that we do not know (RFC 8489 §6.3.1)."""
    fingerprint: bool = False
    """Whether it came with a FINGERPRINT (a wrong one is a `ParseError`)."""
    raw: bytes = field(default=b"", repr=False, compare=False)
    """The datagram as received."""
    integrity_at: int = field(default=0, repr=False, compare=False)
    """Where MESSAGE-INTEGRITY begins in `raw`; 0 when it has none."""

    def integrity_ok(self, key: bytes) -> bool:
        """Whether the bytes received carry a MESSAGE-INTEGRITY made with `key` (RFC 8489 §14.5)."""
        at = self.integrity_at
        if not at:
            return False
        claimed = self.raw[at + 4 : at + _INTEGRITY_BYTES]
        return hmac.compare_digest(claimed, _integrity(self.raw[:at], key))


# --- reading ------------------------------------------------------------------------------------


def is_stun(data: bytes) -> bool:
    """Whether a datagram belongs to STUN on a shared port (RFC 7983 §7, RFC 8489 §5)."""
    return len(data) >= _HEADER.size and data[0] < 4 and data[4:8] == _COOKIE_BYTES


def parse(data: bytes) -> Message | ParseError:
    """Read a datagram. Never raises, whatever the bytes."""
    if not is_stun(data):
        return ParseError("no STUN header")
    if len(data) > MAX_BYTES:
        return ParseError("too long")
    message_type, length, _, transaction_id = _HEADER.unpack_from(data)
    if length % 4 or length != len(data) - _HEADER.size:
        return ParseError("wrong length")
    message_class = _CLASSES[message_type >> 7 & 2 | message_type >> 4 & 1]
    method = message_type >> 2 & 0xF80 | message_type >> 1 & 0x70 | message_type & 0x0F
    message = Message(method, message_class, transaction_id, raw=data)
    why = _read_attributes(message, data)
    return message if why is None else ParseError(why)


def _read_attributes(message: Message, data: bytes) -> str | None:
    """Fill in the attributes; say what is wrong with the first that cannot be read."""
    at, size, seen = _HEADER.size, len(data), set[int]()
    for _ in range(MAX_ATTRIBUTES):
        if at == size:
            return None
        # The length is a multiple of four and so is every step: four bytes are always left.
        kind, length = _ATTRIBUTE.unpack_from(data, at)
        value_at = at + _ATTRIBUTE.size
        if value_at + length > size:
            return f"attribute {kind:#06x} is cut off"
        why = _read_attribute(message, kind, data[value_at : value_at + length], at, seen)
        if why is not None:
            return why
        at = value_at + (length + 3 & ~3)
    return None if at == size else "too many attributes"


def _read_attribute(
    message: Message, kind: int, value: bytes, at: int, seen: set[int]
) -> str | None:
    if kind == FINGERPRINT:
        return _check_fingerprint(message, value, at)
    if message.integrity_at or kind in seen:
        # What follows the integrity is unprotected (RFC 8489 §14.5); of several, the first counts.
        return None
    seen.add(kind)
    if kind == MESSAGE_INTEGRITY:
        if len(value) != _INTEGRITY_BYTES - _ATTRIBUTE.size:
            return "malformed MESSAGE-INTEGRITY"
        message.integrity_at = at
        return None
    reader = _READERS.get(kind)
    if reader is not None:
        return None if reader(message, value) else f"malformed attribute {kind:#06x}"
    if kind < 0x8000 and kind not in UNDERSTOOD_AND_IGNORED:
        message.unknown_required += (kind,)
    return None


def _check_fingerprint(message: Message, value: bytes, at: int) -> str | None:
    """RFC 8489 §14.7: the last attribute, a CRC over all before it."""
    if len(value) != 4 or at + _FINGERPRINT_BYTES != len(message.raw):
        return "malformed FINGERPRINT"
    if _UINT32.unpack(value)[0] != crc32(message.raw[:at]) ^ _FINGERPRINT_XOR:
        return "wrong FINGERPRINT"
    message.fingerprint = True
    return None


def _read_username(message: Message, value: bytes) -> bool:
    if len(value) > MAX_USERNAME_BYTES:
        return False
    try:
        message.username = value.decode()
    except UnicodeDecodeError:
        return False
    return True


def _read_priority(message: Message, value: bytes) -> bool:
    if len(value) != 4:
        return False
    message.priority = _UINT32.unpack(value)[0]
    return True


def _read_use_candidate(message: Message, value: bytes) -> bool:
    message.use_candidate = True
    return not value


def _read_controlling(message: Message, value: bytes) -> bool:
    if len(value) != 8:
        return False
    message.ice_controlling = _UINT64.unpack(value)[0]
    return True


def _read_controlled(message: Message, value: bytes) -> bool:
    if len(value) != 8:
        return False
    message.ice_controlled = _UINT64.unpack(value)[0]
    return True


def _read_mapped_address(message: Message, value: bytes) -> bool:
    """RFC 8489 §14.2: port and address are XORed with the cookie and the transaction id."""
    family, size = value[1:2], len(value)
    if not ((family == b"\1" and size == 8) or (family == b"\2" and size == 20)):
        return False
    port = int.from_bytes(value[2:4], "big") ^ MAGIC_COOKIE >> 16
    host = _xor(value[4:], message.transaction_id)
    if size == 8:
        message.mapped_address = Address(f"{host[0]}.{host[1]}.{host[2]}.{host[3]}", port)
    else:
        message.mapped_address = Address(str(ipaddress.IPv6Address(host)), port)
    return True


def _read_error_code(message: Message, value: bytes) -> bool:
    if len(value) < 4 or not 3 <= value[2] & 7 <= 6 or value[3] > 99:
        return False
    message.error_code = (value[2] & 7) * 100 + value[3]
    message.error_reason = value[4:].decode(errors="replace")
    return True


def _read_unknown_attributes(message: Message, value: bytes) -> bool:
    if len(value) % 2:
        return False
    message.unknown_attributes = struct.unpack(f"!{len(value) // 2}H", value)
    return True


def _read_software(message: Message, value: bytes) -> bool:
    message.software = value.decode(errors="replace")
    return True


_READERS: dict[int, Callable[[Message, bytes], bool]] = {
    USERNAME: _read_username,
    PRIORITY: _read_priority,
    USE_CANDIDATE: _read_use_candidate,
    ICE_CONTROLLING: _read_controlling,
    ICE_CONTROLLED: _read_controlled,
    XOR_MAPPED_ADDRESS: _read_mapped_address,
    ERROR_CODE: _read_error_code,
    UNKNOWN_ATTRIBUTES: _read_unknown_attributes,
    SOFTWARE: _read_software,
}


# --- writing ------------------------------------------------------------------------------------


def encode(message: Message, key: bytes | None, fingerprint: bool = True) -> bytes:
    """The bytes of a message: with MESSAGE-INTEGRITY unless `key` is None (RFC 8489 §14.5)."""
    body = _attributes(message)
    size = len(body)
    method, bits = message.method, message.message_class
    kind = (method & 0xF80) << 2 | (method & 0x70) << 1 | method & 0x0F
    kind |= (bits & 2) << 7 | (bits & 1) << 4
    data = _HEADER.pack(kind, size, MAGIC_COOKIE, message.transaction_id) + body
    if key is not None:
        size += _INTEGRITY_BYTES
        data = _with_length(data, size)
        data += _ATTRIBUTE.pack(MESSAGE_INTEGRITY, 20) + hmac.digest(key, data, "sha1")
    if fingerprint:
        data = _with_length(data, size + _FINGERPRINT_BYTES)
        data += _ATTRIBUTE.pack(FINGERPRINT, 4) + _UINT32.pack(crc32(data) ^ _FINGERPRINT_XOR)
    return data


def _attributes(message: Message) -> bytes:
    body = b""
    if message.error_code is not None:
        code = bytes((0, 0, message.error_code // 100, message.error_code % 100))
        body += _attribute(ERROR_CODE, code + message.error_reason.encode())
    if message.unknown_attributes:
        count = len(message.unknown_attributes)
        unknown = struct.pack(f"!{count}H", *message.unknown_attributes)
        body += _attribute(UNKNOWN_ATTRIBUTES, unknown)
    if message.software is not None:
        body += _attribute(SOFTWARE, message.software.encode())
    if message.mapped_address is not None:
        value = _mapped_address(message.mapped_address, message.transaction_id)
        body += _attribute(XOR_MAPPED_ADDRESS, value)
    if message.username is not None:
        body += _attribute(USERNAME, message.username.encode())
    if message.priority is not None:
        body += _attribute(PRIORITY, _UINT32.pack(message.priority))
    if message.ice_controlling is not None:
        body += _attribute(ICE_CONTROLLING, _UINT64.pack(message.ice_controlling))
    if message.ice_controlled is not None:
        body += _attribute(ICE_CONTROLLED, _UINT64.pack(message.ice_controlled))
    if message.use_candidate:
        body += _attribute(USE_CANDIDATE, b"")
    return body


def _attribute(kind: int, value: bytes) -> bytes:
    return _ATTRIBUTE.pack(kind, len(value)) + value + bytes(-len(value) % 4)


def _mapped_address(address: Address, transaction_id: bytes) -> bytes:
    if ":" in address.host:
        family, host = b"\0\2", ipaddress.IPv6Address(address.host).packed
    else:
        family, host = b"\0\1", bytes(map(int, address.host.split(".")))
    port = (address.port ^ MAGIC_COOKIE >> 16).to_bytes(2, "big")
    return family + port + _xor(host, transaction_id)


def _xor(host: bytes, transaction_id: bytes) -> bytes:
    pad = (_COOKIE_BYTES + transaction_id)[: len(host)]
    mixed = int.from_bytes(host, "big") ^ int.from_bytes(pad, "big")
    return mixed.to_bytes(len(host), "big")


def _with_length(data: bytes, length: int) -> bytes:
    return data[:2] + length.to_bytes(2, "big") + data[4:]


def _integrity(before: bytes, key: bytes) -> bytes:
    """HMAC-SHA1 over all before the attribute, the header's length counting it (RFC 8489 §14.5)."""
    length = len(before) - _HEADER.size + _INTEGRITY_BYTES
    return hmac.digest(key, _with_length(before, length), "sha1")


# --- what ICE says ------------------------------------------------------------------------------


def binding_request(
    transaction_id: bytes,
    *,
    username: str | None = None,
    priority: int | None = None,
    controlling: int | None = None,
    controlled: int | None = None,
    use_candidate: bool = False,
) -> Message:
    """A Binding request: bare for a STUN server, with the rest a check (RFC 8445 §7.1).

    `controlling` or `controlled` is our tie-breaker under the role that we hold.
    """
    return Message(
        BINDING,
        MessageClass.REQUEST,
        transaction_id,
        username=username,
        priority=priority,
        use_candidate=use_candidate,
        ice_controlling=controlling,
        ice_controlled=controlled,
    )


def binding_indication(transaction_id: bytes) -> Message:
    """What nobody answers (RFC 8489 §6): it keeps a mapping alive, or shows that it comes in."""
    return Message(BINDING, MessageClass.INDICATION, transaction_id)


def binding_success(request: Message, mapped: Address) -> Message:
    """The answer to `request`, which came from `mapped` (RFC 8489 §6.3.3).

    Over a circuit it came from no address, and the answer says 0.0.0.0:0.
    """
    if is_circuit(mapped):
        mapped = Address("0.0.0.0", 0)
    return Message(
        request.method, MessageClass.SUCCESS, request.transaction_id, mapped_address=mapped
    )


def binding_error(request: Message, code: int) -> Message:
    """The refusal of `request`; a 420 names the attributes unknown to us (RFC 8489 §6.3.1)."""
    return Message(
        request.method,
        MessageClass.ERROR,
        request.transaction_id,
        error_code=code,
        error_reason=REASONS.get(code, ""),
        unknown_attributes=request.unknown_required if code == 420 else (),
    )
