"""A node that asks its neighbours to knock at somebody who has never asked: at the host and port
in `VICTIM`, often, and in its own name.
"""

import os

from overlay.core.nat.knocking import ATTESTATION_LIFE, Knocking, _Knock
from overlay.core.wire import signing
from overlay.core.wire.documents import Attestation
from overlay.core.wire.messages import KnockPass
from tests.builds import run_overlay

WORDS = 50
"""Attestations to each neighbour, whenever somebody asks for one knock."""


def ask_strangers(self: Knocking, knock: _Knock, now: float) -> None:
    """Name the victim to every neighbour, by words of which each is signed and new."""
    host, _, port = os.environ["VICTIM"].rpartition(":")
    for _ in range(WORDS):
        word = Attestation(
            network=self.context.settings.network,
            helper=self.context.peer_id,
            asker=knock.asker.peer,
            host=host,
            port=int(port),
            nonce=self.context.random.randbytes(len(knock.request)),
            expires_at=int(self.context.wall(now) + ATTESTATION_LIFE),
        )
        data = signing.pack(signing.sign(word, self.context.crypto))
        for neighbour in self.neighbours():
            self.tell(neighbour.peer, KnockPass(data))


if __name__ == "__main__":
    Knocking._ask_stranger = ask_strangers  # type: ignore[method-assign]
    run_overlay()
