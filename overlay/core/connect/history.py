"""What was tried towards each peer lately, and what came of it: the answer to "why am I relayed?".

Connecting writes it, `overlay doctor PEER` reads it. Nothing is decided by it, and it is bounded:
the last attempts towards the peers tried last.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from overlay.core.limits import BoundedDict
from overlay.core.types import PeerId, Technique

PEERS_MAX = 256
"""Peers whose history is kept; the one tried longest ago is forgotten (guess)."""
ATTEMPTS_MAX = 16
"""Attempts kept of each (guess): a few rounds of all rungs."""


class Rung(StrEnum):
    """A way to reach a peer; each is raced against the others."""

    DIAL = "dial"
    """Straight to an address of its record."""
    OFFER = "offer"
    """Offer and answer through the mesh, then the checks of both ends (ICE)."""
    CIRCUIT = "circuit"
    """Through a relay."""


class Outcome(StrEnum):
    """What came of an attempt."""

    LINKED = "linked"
    FAILED = "failed"
    CANCELLED = "cancelled"
    """Another rung was faster or better."""
    SKIPPED = "skipped"
    """It was not worth starting."""


@dataclass(frozen=True, slots=True)
class Tried:
    """One attempt that is over."""

    rung: Rung
    outcome: Outcome
    seconds: float
    why: str
    """In plain words."""
    technique: Technique | None = None
    """Of an offer that was answered: by what the two have looked for a path."""


@dataclass(slots=True)
class _Peer:
    tried: deque[Tried] = field(default_factory=lambda: deque(maxlen=ATTEMPTS_MAX))
    nat: tuple[str, ...] = ()


class History:
    """The last attempts towards each peer, and what each says of its own NAT."""

    def __init__(self) -> None:
        self._peers: BoundedDict[PeerId, _Peer] = BoundedDict(PEERS_MAX)

    def note(
        self,
        peer: PeerId,
        rung: Rung | str,
        outcome: Outcome | str,
        seconds: float,
        why: str,
        technique: Technique | None = None,
    ) -> None:
        """An attempt is over after so many seconds."""
        tried = Tried(Rung(rung), Outcome(outcome), max(0.0, seconds), why, technique)
        self._touched(peer).tried.append(tried)

    def nat(self, peer: PeerId, words: Sequence[str]) -> None:
        """What an offer or an answer of this peer says: mapping, filtering, ports."""
        if words:
            self._touched(peer).nat = tuple(words)

    def tried(self, peer: PeerId) -> tuple[Tried, ...]:
        """The last attempts, the oldest first."""
        known = self._peers.get(peer)
        return tuple(known.tried) if known is not None else ()

    def nat_of(self, peer: PeerId) -> tuple[str, ...]:
        """What the peer last said of its NAT; empty: nothing."""
        known = self._peers.get(peer)
        return known.nat if known is not None else ()

    def on_moved(self, peer: PeerId) -> None:
        """The peer may be behind another NAT."""
        self._touched(peer).nat = ()

    def forget(self) -> None:
        """Our own surroundings have changed: what failed before says nothing any more."""
        self._peers.clear()

    def _touched(self, peer: PeerId) -> _Peer:
        known = self._peers.get(peer) or _Peer()
        self._peers.put(peer, known)
        return known
