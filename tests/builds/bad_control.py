"""A node that says hello like any other, and then one thing on channel 0 that no node says.

The first argument names it: ``garbage``, ``oversized`` or ``out_of_order``.
"""

import sys

from overlay.core.wire import codec
from overlay.core.wire.messages import MAX_MESSAGE_BYTES, Hello, Message, Proof
from tests.builds import run_overlay

_encode = codec.encode
_said: dict[str, bytes] = {}


def bad_message(fault: str) -> bytes:
    """What goes out in place of the first message after the hello."""
    return {
        "garbage": b"\xc1 no MessagePack begins like this",
        "oversized": b"\x92\x04\xc6" + (MAX_MESSAGE_BYTES).to_bytes(4) + bytes(MAX_MESSAGE_BYTES),
        "out_of_order": _said.get("Hello", b""),
    }[fault]


def encode(message: Message) -> bytes:
    """As the codec, until the hello is over."""
    if isinstance(message, Hello | Proof):
        data = _said[type(message).__name__] = _encode(message)
        return data
    if "Proof" in _said and "bad" not in _said:
        data = _said["bad"] = bad_message(FAULT)
        return data
    return _encode(message)


if __name__ == "__main__":
    FAULT = sys.argv.pop(1)
    codec.encode = encode
    run_overlay()
