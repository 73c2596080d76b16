"""Where our neighbours see a peer: nothing is aimed at an address that the peer alone has named.

What is aimed are hundreds of packets, and whoever names where they go could name a victim. So
those whom we are linked to are asked, by the rule that our own address stands by: two of them at
least, and more than half of the prefixes that they are in (`overlay.core.nat.observers`).
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from overlay.core.addresses import is_private
from overlay.core.limits import TokenBuckets
from overlay.core.nat.knocking import Neighbour
from overlay.core.nat.observers import Observation, agreed
from overlay.core.types import Address, PeerId
from overlay.core.wire.bounds import Host
from overlay.core.wire.messages import Sight

ASKED_MAX = 8
"""Neighbours that are asked about one peer (guess)."""
ASK_RATE, ASK_BURST = 1.0, 10.0
"""Questions a second that one neighbour may ask, and at once (guess)."""


@dataclass(slots=True)
class Sights:
    """What has been said of one peer."""

    peer: PeerId
    by_host: bool
    """Its NAT shows it at another port to everybody: the host alone counts."""
    asked: dict[PeerId, Neighbour]
    _said: dict[PeerId, Address | None] = field(default_factory=dict)

    def learn(self, neighbour: PeerId, sight: Sight) -> None:
        """A neighbour has answered; one that was not asked, or twice, is not heard."""
        if neighbour not in self.asked or neighbour in self._said or sight.peer != self.peer:
            return
        known = Host().holds(sight.host) and sight.port > 0 and not is_private(sight.host)
        port = 1 if self.by_host else sight.port
        self._said[neighbour] = Address(sight.host, port) if known else None

    @property
    def complete(self) -> bool:
        """Whether nobody is left to answer."""
        return len(self._said) == len(self.asked)

    def verdict(self) -> Address | None:
        """Where the peer is, if enough of them agree."""
        said = [
            Observation(neighbour, address, self.asked[neighbour].remote)
            for neighbour, address in self._said.items()
            if address is not None
        ]
        return agreed(said)


@dataclass(slots=True)
class Witness:
    """Answers those who ask where we see others."""

    link_of: Callable[[PeerId], Address | None]
    """Where the direct path of our link to a member runs; None: there is none, or it is hidden."""
    _asks: TokenBuckets[PeerId] = field(default_factory=lambda: TokenBuckets(ASK_RATE, ASK_BURST))

    def answer(self, asker: PeerId, peer: PeerId, now: float) -> Sight:
        """What we say; nothing of use to who asks too often."""
        seen = self.link_of(peer) if self._asks.take(asker, now) else None
        return Sight(peer, "", 0) if seen is None else Sight(peer, seen.host, seen.port)
