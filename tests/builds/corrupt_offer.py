"""A node that breaks the seal of the first offer which it passes on for others.

Run with ``links.auto=false`` it makes no offers of its own: every one that it sends is another's.
"""

import msgspec

from overlay.core.wire import codec
from overlay.core.wire.messages import Message, Offer
from tests.builds import run_overlay

_encode = codec.encode
_broken: list[bytes] = []


def encode(message: Message) -> bytes:
    """As the codec, but for one bit in the middle of one seal."""
    if isinstance(message, Offer) and _broken in ([], [message.request]):
        _broken[:] = [message.request]  # sent again for want of an answer, it stays broken
        sealed = bytearray(message.sealed)
        sealed[len(sealed) // 2] ^= 1
        message = msgspec.structs.replace(message, sealed=bytes(sealed))
    return _encode(message)


if __name__ == "__main__":
    codec.encode = encode
    run_overlay()
