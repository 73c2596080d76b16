"""Bytes as text that survives chat and mail: a prefix, base32 (RFC 4648 §6), a checksum.

No case, no ``_``, no ``-``: nothing that Markdown, a mail program or a QR code changes or has to
spell out. The checksum says whether all is there, so that text which was wrapped, quoted or
decorated is put together again until it holds, and what is lost or changed is called that.
"""

import base64
import binascii
import hashlib
import re
import unicodedata
from dataclasses import dataclass

PREFIX = "overlay:"
CHECKSUM_BYTES = 4
TEXT_MAX = 32 * 1024
"""Characters that are looked through for armoured text."""
PIECES_MAX = 512
"""Words that are tried as pieces of one text: twice as many as the longest wraps into."""
LONG_PIECE = 16
"""Characters: a word of so many is taken for a piece, when the checksum cannot say (guess)."""

_PREFIX = re.compile(r"overlay\s*:", re.IGNORECASE)
_SOFT_BREAK = re.compile(r"(?<!=)=[ \t]*\r?\n")  # RFC 2045 §6.7, rule 5
_QUOTED = re.compile(r"[=%]([2-7][0-9A-Fa-f])")  # RFC 2045 §6.7, rule 1; RFC 3986 §2.1
_REPLIED = re.compile(r"^[ \t]*(?:[>|][ \t]*)+", re.MULTILINE)
_EDGES = re.compile(r"^[^A-Za-z0-9]+|[^A-Za-z0-9]+$")
_PART = re.compile(r"[A-Za-z0-9]+")
_OTHER = re.compile(r"[^A-Za-z2-7]")
_LOOKALIKES = str.maketrans("01", "OL")  # RFC 4648 §6: the digits that base32 leaves out


@dataclass(frozen=True, slots=True)
class Damage:
    """Armoured text whose checksum does not hold, or that has none."""

    packed: bytes
    """What could be read of it, the checksum perhaps included."""
    cut: bool = False
    """It has a number of characters that no number of bytes is written with."""
    other: str = ""
    """The first character of it that does not belong there."""


def armour(payload: bytes) -> str:
    """The text for a payload: one word."""
    packed = payload + checksum(payload)
    return PREFIX + base64.b32encode(packed).decode().rstrip("=")


def checksum(payload: bytes) -> bytes:
    """What the text ends with."""
    return hashlib.sha256(payload).digest()[:CHECKSUM_BYTES]


def read(pieces: list[str]) -> bytes | Damage:
    """The payload whose text these words begin with, or what is wrong. Never raises."""
    word = ""
    for part in _PART.findall(" ".join(pieces[:PIECES_MAX])):
        word += part
        packed = _decoded(word)
        if isinstance(packed, bytes) and holds(packed):
            return packed[:-CHECKSUM_BYTES]
    return _damage(likely(pieces))


def holds(packed: bytes) -> bool:
    """Whether a payload and its checksum are whole."""
    payload, rest = packed[:-CHECKSUM_BYTES], packed[-CHECKSUM_BYTES:]
    return len(payload) > 0 and checksum(payload) == rest


def bare(piece: str) -> str:
    """A word without the brackets, quotes, full stops and hyphens around it."""
    return _EDGES.sub("", piece)


def likely(pieces: list[str]) -> str:
    """The words that somebody meant, as one: the first, the long ones after it, the rest of it."""
    first, *others = [bare(piece) for piece in pieces[:PIECES_MAX]]
    taken = [first]
    for word in others:
        if len(word) < LONG_PIECE and word != others[-1] and not any(map(str.isdigit, word)):
            break
        taken.append(word)
        if len(word) < LONG_PIECE:
            break
    return "".join(taken)


def found(text: str) -> list[list[str]]:
    """The words behind each prefix in a text, undecorated, up to the next prefix."""
    parts = _PREFIX.split(undecorated(text))[1:]
    return [words for part in parts if (words := part.split())]


def undecorated(text: str) -> str:
    """The text without what mail and chat programs do to one on its way.

    Invisible characters go (zero-width, soft hyphens, byte order marks), wide ones become plain,
    quoted-printable, per cent and Markdown's escapes are undone, marks of replies are taken away.
    """
    plain = text[:TEXT_MAX]
    if not plain.isascii():
        plain = unicodedata.normalize("NFKC", plain)
        plain = "".join(each for each in plain if unicodedata.category(each) != "Cf")
    plain = _SOFT_BREAK.sub("", plain.replace("\\", ""))
    plain = _QUOTED.sub(lambda match: chr(int(match[1], 16)), plain)
    return _REPLIED.sub("", plain)


def text_of(data: bytes) -> str:
    """Text from a file or a pipe in whatever encoding its byte order mark, or its zeros, tell."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16", errors="replace")
    if b"\0" in data[:64]:
        order = "utf-16-be" if data[:1] == b"\0" else "utf-16-le"
        return data.decode(order, errors="replace")
    return data.decode("utf-8", errors="replace")


def _decoded(word: str) -> bytes | None:
    word = word.upper().translate(_LOOKALIKES)
    try:
        return base64.b32decode(word + "=" * (-len(word) % 8))
    except (binascii.Error, ValueError):
        return None


def _damage(word: str) -> Damage:
    plain = word.upper().translate(_LOOKALIKES)
    other = _OTHER.search(plain)
    if other is not None:
        return Damage(b"", other=other[0].lower())
    whole = len(plain) - len(plain) % 8
    packed = _decoded(plain) or _decoded(plain[:whole]) or b""
    return Damage(packed, cut=len(plain) % 8 in (1, 3, 6))
