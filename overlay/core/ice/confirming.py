"""What proves an address of the peer's: a nonce that we sent there, encrypted, comes back from it.

A check's integrity does not cover the address that it came from, and whoever stands on the way can
pass a copy of a record on from an address of its own. A nonce inside the association can be read
and returned only by the peer (cf. PATH_CHALLENGE, RFC 9000 §8.2), in an SCTP HEARTBEAT ACK (RFC
9260 §8.3), which goes where the peer's own path runs. So of several addresses at which a peer can
be reached it is the one that it uses which confirms.
"""

from dataclasses import dataclass
from enum import StrEnum

from overlay.core.ice.outputs import AddressPair, Confirm
from overlay.core.limits import BoundedDict, TokenBuckets
from overlay.core.types import Random

NONCE_BYTES = 8
OPEN_MAX = 32
"""Nonces under way; the oldest is given up for the newest (guess)."""
ANSWER_TIMEOUT = 10.0
"""Seconds after which the return of a nonce says nothing any more (guess)."""
UNPROVEN_RATE = 10.0
"""Nonces a second to addresses that the path does not run to, and as many at once, for each reason
(guess)."""


class Unproven(StrEnum):
    """Why an address that the path does not run to is asked: who floods one keeps up no other."""

    MOVED = "moved"  # an authentic check of the path's own session came from there
    RESTARTED = "restarted"  # a check came from there that may be the same dialler's, restarted


@dataclass(frozen=True, slots=True)
class _Open:
    pair: AddressPair
    asked_at: float


class Confirmations:
    """The nonces of one association that have not come back yet."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._open: BoundedDict[bytes, _Open] = BoundedDict(OPEN_MAX)
        self._buckets = TokenBuckets[Unproven](UNPROVEN_RATE, UNPROVEN_RATE, len(Unproven))

    def __len__(self) -> int:
        return len(self._open)

    def ask(self, pair: AddressPair, now: float) -> Confirm:
        """Send a nonce where the path runs."""
        nonce = self._random.randbytes(NONCE_BYTES)
        self._open.put(nonce, _Open(pair, now))
        return Confirm(nonce, *pair)

    def ask_unproven(self, pair: AddressPair, why: Unproven, now: float) -> Confirm | None:
        """Send a nonce elsewhere; not too often."""
        return self.ask(pair, now) if self._buckets.take(why, now) else None

    def returned(self, nonce: bytes, pair: AddressPair, now: float) -> float | None:
        """The round trip in seconds of a nonce that comes back from where it was sent, else None.

        None for one that comes from elsewhere, too late, twice, or was never sent.
        """
        sent = self._open.pop(nonce, None)
        if sent is None or sent.pair != pair or now > sent.asked_at + ANSWER_TIMEOUT:
            return None
        return now - sent.asked_at

    def clear(self) -> None:
        """The path has moved: what was asked before says nothing any more."""
        self._open.clear()
