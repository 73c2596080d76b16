"""A node that deals in forgeries; the first argument names which.

``forged_offer``: its offers carry a signature that is not its own.
``offer_for_another``: its offers are meant for somebody else than the peer they are sealed to.
``replayed_offer``: whatever offer it passes on, the first one goes out again under its name.
``replayed_hello``: it proves who it is with what it said on an earlier link, kept in the file
that ``KEPT_PROOF`` names.
"""

import os
import sys
from pathlib import Path
from typing import Any

import msgspec

from overlay.core.wire import codec
from overlay.core.wire import signing as documents
from overlay.core.wire.documents import OfferBody
from overlay.core.wire.messages import Message, Offer, Proof
from overlay.identity import Keys
from tests.builds import run_overlay

_encode, _sign, _sign_document = codec.encode, Keys.sign, documents.sign
_first: list[Offer] = []


def forged_signature(keys: Keys, data: bytes) -> bytes:
    """As the keys, but an offer's signature has one bit wrong."""
    signature = _sign(keys, data)
    if data.startswith(documents.KINDS[OfferBody].label + b"\0"):
        return signature[:-1] + bytes([signature[-1] ^ 1])
    return signature


def misaddressed(body: Any, *args: Any) -> Any:
    """As `documents.sign`, but an offer names a recipient who does not exist."""
    if isinstance(body, OfferBody):
        body = msgspec.structs.replace(body, recipient=bytes(32))
    return _sign_document(body, *args)


def encode_first_offer(message: Message) -> bytes:
    """As the codec, but what is in every offer is what was in the first.

    The very same offer once more is what a forwarder sends that missed an acknowledgement.
    """
    if isinstance(message, Offer):
        _first.append(message)
        old = _first[0]
        message = msgspec.structs.replace(message, prekey=old.prekey, sealed=old.sealed)
    return _encode(message)


def encode_kept_proof(message: Message) -> bytes:
    """As the codec, but the proof is that of an earlier life."""
    if not isinstance(message, Proof):
        return _encode(message)
    kept = Path(os.environ["KEPT_PROOF"])
    if not kept.exists():
        kept.write_bytes(_encode(message))
    return kept.read_bytes()


def forge(fault: str) -> None:
    """Put the forgery in place."""
    match fault:
        case "forged_offer":
            Keys.sign = forged_signature  # type: ignore[method-assign,assignment]
        case "offer_for_another":
            documents.sign = misaddressed  # type: ignore[assignment]
        case "replayed_offer":
            codec.encode = encode_first_offer
        case "replayed_hello":
            codec.encode = encode_kept_proof
        case _:
            sys.exit(f"no such forgery: {fault}")


if __name__ == "__main__":
    forge(sys.argv.pop(1))
    run_overlay()
