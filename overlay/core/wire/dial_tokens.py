"""Dial tokens: a listener lets strangers in without keeping state for them.

``token = HMAC(K, kind ‖ id ‖ expiry)[:16]`` is made once by the node that owns the dial key K and
travels in invites and records. Its holder picks the listener's user fragment, which carries kind,
id, expiry and its attempt in the open, and both sides derive the passwords from it.
"""

import base64
import binascii
import hashlib
import hmac
import struct
from dataclasses import dataclass

from overlay.core.types import IceCredentials

INVITE = 1
"""The token of one invite; its id is the invite's."""
MEMBER = 2
"""The day's token in a node's record, for members."""
CIRCUIT = 3
"""The token in a ticket (`documents.Ticket`): good for dials over circuits, and for no others."""

TOKEN_ID_BYTES = 8
ATTEMPT_BYTES = 16
PREFIX = "o1"
_CLAIM = struct.Struct("!B8sQ16s")


@dataclass(frozen=True, slots=True)
class Claim:
    """What a dialler's chosen user fragment says."""

    kind: int
    token_id: bytes
    expires_at: int
    """Unix seconds."""
    attempt: bytes


def make_token(dial_key: bytes, kind: int, token_id: bytes, expires_at: int) -> bytes:
    """The 16-byte token that opens the node with this dial key until `expires_at`."""
    body = struct.pack("!B8sQ", kind, token_id, expires_at)
    return hmac.digest(dial_key, b"overlay dial token" + body, "sha256")[:16]


def make_ufrag(claim: Claim) -> str:
    """The listener's user fragment as the dialler writes it: ice-chars only (RFC 8839 §5.4)."""
    packed = _CLAIM.pack(claim.kind, claim.token_id, claim.expires_at, claim.attempt)
    return PREFIX + base64.b64encode(packed).decode().rstrip("=")


def parse_ufrag(ufrag: str) -> Claim | None:
    """The claim in a user fragment, or None when it is not of ours. Never raises."""
    if not ufrag.startswith(PREFIX) or len(ufrag) != len(PREFIX) + 44:
        return None
    try:
        packed = base64.b64decode(ufrag[len(PREFIX) :], validate=True)
    except (binascii.Error, ValueError):
        return None
    return Claim(*_CLAIM.unpack(packed)) if len(packed) == _CLAIM.size else None


def listener_password(token: bytes, ufrag: str) -> str:
    """The listener's ICE password on a dial with this user fragment."""
    return base64.b64encode(hmac.digest(token, ufrag.encode(), hashlib.sha256)).decode().rstrip("=")


def listener_credentials(token: bytes, claim: Claim) -> IceCredentials:
    """The credentials with which the dialler writes the listener's answer itself."""
    ufrag = make_ufrag(claim)
    return IceCredentials(ufrag, listener_password(token, ufrag))
