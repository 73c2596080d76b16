"""Names of signalling requests: 15 random bytes, and one that counts the attempts.

Hops take all 16 bytes as the name, so that each attempt finds its own way; the ends compare the
first 15. The second attempt keeps away from the first one's path, those after it begin at random.
"""

from overlay.core.types import Crypto

WALK = 2
"""The first attempt that walks."""
ATTEMPTS_MAX = 18
"""Greedy, greedy over another first link, sixteen walks (DESIGN, routing)."""


SOUGHT = ATTEMPTS_MAX
"""The attempt that follows the answer to a seek."""


def new_request(crypto: Crypto) -> bytes:
    """A fresh name, as of the first attempt."""
    return crypto.token(15) + b"\0"


def base_of(request: bytes) -> bytes:
    """The name that all attempts of one request share: that of its first."""
    return request[:15] + b"\0"


def attempt_of(request: bytes, attempt: int) -> bytes:
    """The name of another attempt of the same request."""
    return request[:15] + bytes([attempt])


def walks(request: bytes) -> bool:
    """Whether this attempt begins at random."""
    return WALK <= request[15] < SOUGHT
