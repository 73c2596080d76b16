"""Prekeys: short-lived keys to which others seal what they send us through the mesh.

Each node has a new X25519 key every day and names it in its record. Once a key is destroyed, what
was sealed to it can be read by nobody, not even by who steals the node's identity later.
"""

from overlay.core.types import IDENTITY, Crypto, PeerId
from overlay.core.wire.documents import PrekeyEntry, Record

DAY = 86_400
PREKEYS_LIVE = 2
"""Today's key and yesterday's: who has our record of yesterday can still seal to us."""
PREKEYS_FORGOTTEN = 30
"""Days before these whose keys each rotation destroys: a node may have been off for long."""
SUITE = 1
"""HPKE with X25519, HKDF-SHA256, AES-128-GCM (RFC 9180)."""


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
