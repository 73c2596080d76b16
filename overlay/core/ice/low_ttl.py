"""First checks that open our own NAT and die before they reach the peer's (decision 0039).

A packet that reaches a router before the host behind it has sent anything there is not dropped
everywhere. A router whose INPUT chain is open takes it as its own, and connection tracking then
holds the very port that the host's own packets need; others put its sender on a list. So whoever
moves first (the answerer, since the offerer has to wait for its answer) sends with a TTL that lives
for a few hops: past its own NAT, and not as far as the peer's.

It stands alone because the agent has only to ask it which TTL an address gets.
"""

from overlay.core.ice.checklist import CandidatePair
from overlay.core.types import Address, LowTtl, PathKind, Technique

BURST = 16
"""Such checks that leave at once, before the answer does: they cost whoever is there nothing."""


class Lowered:
    """The addresses to which our packets still have a low TTL, and how the path came about."""

    def __init__(self) -> None:
        self.until: float | None = None
        """When all packets have the kernel's TTL; None: they have."""
        self._plan: LowTtl | None = None
        self._unheard: dict[Address, None] = {}

    def begin(self, plan: LowTtl | None, now: float) -> None:
        """Offer and answer are at hand, and this is what the answerer does."""
        self._plan = plan
        if plan is not None and plan.ttl is not None and plan.addresses:
            self._unheard = dict.fromkeys(plan.addresses)
            self.until = now + plan.seconds

    def to(self, address: Address) -> int | None:
        """The TTL of a packet to this address; None: the kernel's."""
        if self._plan is None or address not in self._unheard:
            return None
        return self._plan.ttl

    def heard(self, address: Address) -> None:
        """An authentic check has come from there: its NAT has let a packet of the peer's out."""
        self._unheard.pop(address, None)
        if not self._unheard:
            self.until = None

    def end(self) -> tuple[Address, ...]:
        """It has lasted long enough, or the path stands; returns who has not been heard."""
        unheard, self._unheard, self.until = tuple(self._unheard), {}, None
        return unheard

    def technique(self, pair: CandidatePair, kind: PathKind) -> Technique | None:
        """How this pair was found, by a rule that both ends go by.

        What the answerer sees as the offerer's address is what it tells the offerer.
        """
        if kind is PathKind.RELAYED:
            return None
        plan = self._plan
        offerers = pair.mapped if plan is None or plan.ttl is None else pair.remote
        return Technique.LOW_TTL if plan and offerers in plan.addresses else Technique.ICE
