"""Links of version 1, which are read and no longer made: base64url of MessagePack, checksum behind.

They have a case, ``_`` and ``-``, which chat programs and mail may change; where one does not hold
any more, what most likely happened to it is named.
"""

import base64
import binascii
import re

import msgspec

from overlay.core.wire.armour import CHECKSUM_BYTES, PIECES_MAX, TEXT_MAX, holds
from overlay.core.wire.codec import Broken, Reader
from overlay.core.wire.documents import InviteBody
from overlay.errors import InviteError

VERSION = 1
BEGIN = "az"
"""What every one begins with, in whatever case: its version, and an array of four or more."""
MANY = 200
"""Characters (guess) among which there is a ``_`` but for one time in twenty."""
_BODIES = Reader(InviteBody)
_OTHER = re.compile(r"[^A-Za-z0-9_-]")
_EDGES = "<>\"'`.,;:!?()[]{}*=«»“”‘’„\u201a"


def read(pieces: list[str], again: str) -> InviteBody:
    """The invite in the link that these words begin with. InviteError, ending in `again`."""
    found = payload(pieces)
    if found is None:
        raise InviteError(f"{_damage(_likely(pieces))}; {again}")
    return _body(found)


def payload(pieces: list[str]) -> bytes | None:
    """What is in the link that these words begin with, if all of it is there."""
    word = ""
    for piece in pieces[:PIECES_MAX]:
        word += piece.strip(_EDGES)
        packed = _decoded(word)
        if packed is not None and holds(packed):
            return packed[:-CHECKSUM_BYTES]
    return None


def _body(payload: bytes) -> InviteBody:
    body = _BODIES.read(payload[1:], TEXT_MAX) if payload[0] == VERSION else Broken("no version 1")
    if isinstance(body, Broken):
        raise InviteError(f"the invite link is malformed ({body.why}): ask for a new one")
    return body


def _likely(pieces: list[str]) -> str:
    """The words that somebody meant: the first, and those after it that are as long."""
    taken = [pieces[0].strip(_EDGES)]
    for piece in pieces[1:PIECES_MAX]:
        word = piece.strip(_EDGES)
        if len(word) < 8 and piece != pieces[-1]:
            break
        taken.append(word)
    return "".join(taken)


def _decoded(word: str) -> bytes | None:
    if _OTHER.search(word) or len(word) % 4 == 1:
        return None
    try:
        return base64.urlsafe_b64decode(word + "=" * (-len(word) % 4))
    except (binascii.Error, ValueError):
        return None


def _damage(word: str) -> str:
    """What has most likely happened to a link whose checksum is wrong."""
    other = _OTHER.search(word)
    if other is not None:
        return f"the invite link is mistyped: {other[0]!r} does not belong in it"
    if word in (word.lower(), word.upper()) and len(word) >= 32:
        return "the invite link has lost its upper and lower case, which count in this older form"
    if len(word) >= MANY and "_" not in word:
        return (
            "the invite link has lost its underscores: chat programs take those for emphasis "
            "(links of newer nodes have none)"
        )
    packed = _decoded(word)
    if packed is None or _ends_early(packed):
        return "the invite link is truncated"
    return "the invite link is mistyped (its checksum is wrong)"


def _ends_early(packed: bytes) -> bool:
    """Whether the body, or the checksum behind it, is not all there."""
    for missing in range(1, CHECKSUM_BYTES + 1):
        body = packed[1 : len(packed) - CHECKSUM_BYTES + missing]
        if not isinstance(_BODIES.read(body, TEXT_MAX), Broken):
            return True
    try:
        msgspec.msgpack.decode(packed[1:])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return "truncated" in str(error)  # msgspec has no type for it; a test watches the word
    return False
