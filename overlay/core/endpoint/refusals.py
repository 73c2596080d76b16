"""Who is gone, of those who are silent: what ICMP says of a port that nobody has open any more.

It stands alone because the rule has to hold whoever forges such messages. Rule: a refusal ends
nothing that is heard; it only takes the patience from a path that is silent anyway. A peer that
sleeps, or has lost its network, refuses nothing, and its association waits for it; a process that
was killed leaves a host behind that says so to every datagram (RFC 1122 §3.2.2.1).
"""

from overlay.core.limits import BoundedDict
from overlay.core.types import Address, LinkId

REFUSALS_MAX = 256
"""Addresses whose last refusal is remembered (guess)."""
REFUSAL_TIMEOUT = 6.0
"""Seconds that a refusal counts: as long as a path that answers nothing takes to be silent."""


class Refusals:
    """What was refused, and which links are silent."""

    def __init__(self) -> None:
        self._refused: BoundedDict[Address, float] = BoundedDict(REFUSALS_MAX)
        self._silent: dict[LinkId, Address] = {}

    def on_refused(self, remote: Address, now: float) -> list[LinkId]:
        """Its host says that nobody listens at `remote`: the links that end with this."""
        self._refused.put(remote, now)
        return [link for link, address in self._silent.items() if address == remote]

    def on_silent(self, link: LinkId, remote: Address, now: float) -> bool:
        """Nothing comes from there any more: whether the link ends with this."""
        self._silent[link] = remote
        refused_at = self._refused.get(remote)
        return refused_at is not None and now <= refused_at + REFUSAL_TIMEOUT

    def on_heard(self, link: LinkId) -> None:
        """It is silent no more, or has ended."""
        self._silent.pop(link, None)
