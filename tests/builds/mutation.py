"""Changing valid packets so that they look valid a little longer than noise does."""

import hashlib
import hmac
import struct
import zlib
from random import Random

import google_crc32c

MAGIC_COOKIE = 0x2112A442
INTEGRITY, FINGERPRINT = 0x0008, 0x8028
EDGES = (0, 1, 3, 4, 0x7F, 0x80, 0xFF)


def mutate(data: bytes, random: Random) -> bytes:
    """One to four small changes anywhere, of the kinds that parsers trip over."""
    changed = bytearray(data)
    for _ in range(random.randint(1, 4)):
        if not changed:
            break
        at = random.randrange(len(changed))
        match random.randrange(6):
            case 0:
                changed[at] ^= 1 << random.randrange(8)
            case 1:
                changed[at] = random.choice(EDGES)
            case 2:  # cut short
                del changed[at:]
            case 3:  # a slice twice
                changed[at:at] = changed[at : at + random.randint(1, 16)]
            case 4:  # a slice missing
                del changed[at : at + random.randint(1, 8)]
            case _:  # a 16-bit field, most likely a length, at an edge
                at &= ~1
                changed[at : at + 2] = random.choice(((0, 0), (0, 1), (0, 3), (255, 255)))
    return bytes(changed)


def mutate_stun(data: bytes, key: bytes | None, random: Random) -> bytes:
    """A STUN message with its attributes changed; signed again when the key is known (RFC 8489)."""
    if key is None or random.random() < 0.3:
        return mutate(data, random)
    body = mutate(_without_integrity(data)[20:], random)
    body = body[: len(body) & ~3] if random.random() < 0.8 else body
    return sign_stun(data[:2] + data[4:20], body, key)


def sign_stun(head: bytes, body: bytes, key: bytes) -> bytes:
    """Head (no length), `body`, MESSAGE-INTEGRITY and FINGERPRINT (RFC 8489 §14.5, §14.7)."""
    signed = head[:2] + struct.pack("!H", (len(body) + 24) & 0xFFFF) + head[2:] + body
    mac = hmac.digest(key, signed, hashlib.sha1)
    whole = signed + struct.pack("!HH", INTEGRITY, 20) + mac
    whole = whole[:2] + struct.pack("!H", (len(body) + 32) & 0xFFFF) + whole[4:]
    check = (zlib.crc32(whole) ^ 0x5354554E) & 0xFFFFFFFF
    return whole + struct.pack("!HHI", FINGERPRINT, 4, check)


def _without_integrity(data: bytes) -> bytes:
    at = 20
    while at + 4 <= len(data):
        kind, size = struct.unpack_from("!HH", data, at)
        if kind in (INTEGRITY, FINGERPRINT):
            break
        at += 4 + size + -size % 4
    return data[:at]


def mutate_sctp(packet: bytes, random: Random) -> bytes:
    """An SCTP packet with chunks changed or made up; mostly with a right checksum (RFC 9260)."""
    if random.random() < 0.3:
        kind, size = random.choice(CHUNKS), random.choice((0, 1, 4, 12, 16, 60))
        declared = random.choice((size + 4, size + 4, 0, 3, 0xFFFF))
        chunks = struct.pack("!BBH", kind, random.randrange(256), declared) + random.randbytes(size)
    else:
        chunks = mutate(packet[12:], random)
    if random.random() < 0.2:
        return packet[:12] + chunks
    check = google_crc32c.value(packet[:8] + bytes(4) + chunks)
    return packet[:8] + struct.pack("<I", check) + chunks


CHUNKS = (*range(16), 64, 127, 128, 130, 192, 193, 255)


def mutate_dtls(datagram: bytes, random: Random) -> bytes:
    """A DTLS datagram changed; half the time only behind the record header (RFC 6347 §4.1)."""
    if random.random() < 0.5 or len(datagram) <= 13:
        return mutate(datagram, random)
    body = mutate(datagram[13:], random)
    return datagram[:11] + struct.pack("!H", len(body) & 0xFFFF) + body
