"""Direct dials whose dialler has restarted ICE (RFC 8445 §9): which association they go on with.

Such a one goes on with encrypted records and no ClientHello. Which of several associations with
its token it belongs to only decrypting shows, so one alone is asked and tried: the one of the same
attempt, else, when no ClientHello has come for a while, the likeliest. A HEARTBEAT of that
association goes there, and its answer is what proves the restart.
"""

from collections.abc import Iterable

from overlay.core.endpoint.association import Association
from overlay.core.ice.lite import RESTART_PATIENCE, HalfOpenCheck, LiteSession
from overlay.core.ice.outputs import AddressPair
from overlay.core.limits import HALF_OPEN_MAX, BoundedDict, TokenBuckets
from overlay.core.types import LinkId

TRIES = 10.0
"""Records a second that are tried on one association because its dialler may have restarted ICE,
and as many at once (guess)."""


class Redials:
    """The questions that are out."""

    def __init__(self) -> None:
        # Nonces that ask whether a dial is an older one, restarted; and how often that is tried.
        self._asked: BoundedDict[bytes, HalfOpenCheck] = BoundedDict(HALF_OPEN_MAX)
        self._tries = TokenBuckets[LinkId](TRIES, TRIES)

    def ask(
        self,
        check: HalfOpenCheck,
        associations: Iterable[Association],
        pair: AddressPair,
        now: float,
    ) -> Association | None:
        """Ask the association that this dial may be one of; None: it is a new one, or may be."""
        candidates = [each for each in associations if each.may_be_restarted_by(check)]
        best = max(candidates, key=lambda each: each.likeness(check, pair), default=None)
        if best is None or best.claim is None:
            return None
        again = best.claim.attempt == check.claim.attempt
        if not (again or now >= check.begun_at + RESTART_PATIENCE):
            return None
        check.restart(best.link)
        if isinstance(best.ice, LiteSession):
            nonce = best.ice.ask_restarted(pair, now)
            if nonce is not None:
                self._asked.put(nonce, check)
        return best

    def answered(self, nonce: bytes) -> HalfOpenCheck | None:
        """The dial that this nonce has asked about, once."""
        return self._asked.pop(nonce, None)

    def may_try(self, link: LinkId, now: float) -> bool:
        """Whether one more record may be tried on this association."""
        return self._tries.take(link, now)
