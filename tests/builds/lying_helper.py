"""A node that asks its neighbours to knock at somebody who has never asked, at the host and port
in `VICTIM`: whenever its user runs `overlay doctor`, fifty times.
"""

import os

from overlay.core.nat.knocking import ATTESTATION_LIFE, Knocking
from overlay.core.nat.nat import Nat
from overlay.core.types import RequestId
from overlay.core.wire import signing
from overlay.core.wire.documents import Attestation
from overlay.core.wire.messages import KnockPass
from tests.builds import run_overlay

WORDS = 50
"""Attestations to each neighbour, each of them signed and new."""
NONCE_BYTES = 12


def lie(knocking: Knocking, now: float) -> None:
    """Vouch for the victim as for an asker."""
    host, _, port = os.environ["VICTIM"].rpartition(":")
    context = knocking.context
    for neighbour in knocking.neighbours():
        for _ in range(WORDS):
            word = Attestation(
                network=context.settings.network,
                helper=context.peer_id,
                asker=context.peer_id,
                host=host,
                port=int(port),
                nonce=context.random.randbytes(NONCE_BYTES),
                expires_at=int(context.wall(now) + ATTESTATION_LIFE),
            )
            data = signing.pack(signing.sign(word, context.crypto))
            knocking.tell(neighbour.peer, KnockPass(data))


def ask(self: Nat, request: RequestId, now: float) -> None:
    """What the doctor asks of it, and the lies beside it."""
    lie(self._knocking, now)
    self._examining.ask(request, now)


if __name__ == "__main__":
    Nat.ask = ask  # type: ignore[method-assign]
    run_overlay()
