"""When an answerer begins with a low TTL, for how long, and what the two tell each other of it.

`overlay.core.ice.low_ttl` does it; decision 0039 has the reasons. It lasts until the offerer is
heard, which takes an answer there and a check back: one round trip of the signalling. Too short a
time is what does harm, and only the offerer can measure it: it tells whoever answers its next
offer. When an answer has come later than its low TTL may have lasted, a router of the offerer's may
have seen a packet too early, and remembers that for half a minute.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from overlay.core.connect.offers import to_entries
from overlay.core.context import Context
from overlay.core.limits import BoundedDict
from overlay.core.nat.pairs import minds_early_packets
from overlay.core.types import Address, Candidate, LowTtl, PeerId
from overlay.core.wire.documents import AnswerBody, CandidateEntry, OfferBody

TARGETS_MAX = 2
"""Reflexive candidates of one offer to which it is done."""
MARGIN = 0.15
"""Seconds more than the signalling's round trip."""
HOP = 0.1
"""Seconds (guess) that a hop takes there and back at least: the machine in it may be busy."""
LONGEST = 3.0
"""Seconds (guess) at most, whatever is said of the round trip."""
POISONED_FOR = 35.0
"""Seconds after an attempt in vain for which a router may remember a packet of it: connection
tracking forgets a flow that nobody answers after 30 (measured), and the other end may go on for a
few more than we do."""
PEERS_MAX = 256
"""Peers of which we remember what their last answer took (guess)."""


def targets(candidates: Sequence[CandidateEntry]) -> tuple[Address, ...]:
    """The addresses of an offer to which its answerer's packets have a low TTL, if any have."""
    reflexive = [Address(each.host, each.port) for each in candidates if each.kind == "srflx"]
    return tuple(reflexive[:TARGETS_MAX])


def answerers(
    context: Context, body: OfferBody, ours: Sequence[str], hops: int, srtt: float
) -> LowTtl | None:
    """How to answer this offer; None: as RFC 8445 does it.

    `ours`: our NAT in words; `hops`: how far the offer has come; `srtt`: the last of them, in
    seconds there and back.
    """
    ttl, addresses = context.settings.low_ttl, targets(body.candidates)
    if not ttl or not addresses or not minds_early_packets(ours, body.nat):
        return None
    round_trip = max(body.round_trip / 1000, hops * max(srtt, HOP))
    return LowTtl(addresses, ttl, min(MARGIN + round_trip, LONGEST))


def offerers(candidates: Sequence[Candidate], body: AnswerBody) -> LowTtl | None:
    """How the answerer of our offer with these candidates has begun, by its answer."""
    return LowTtl(targets(to_entries(candidates))) if body.low_ttl else None


@dataclass(slots=True)
class Signalling:
    """How long answers took to come, and what may have been too early for them."""

    _round_trips: BoundedDict[PeerId, float] = field(default_factory=lambda: BoundedDict(PEERS_MAX))
    # Peers whose last answer came too late for its low TTL; and until when a router may remember a
    # packet of theirs, since no path has come of it.
    _late: BoundedDict[PeerId, None] = field(default_factory=lambda: BoundedDict(PEERS_MAX))
    _poisoned: BoundedDict[PeerId, float] = field(default_factory=lambda: BoundedDict(PEERS_MAX))

    def round_trip_to(self, peer: PeerId) -> int:
        """What its last answer took, in milliseconds; 0: not known."""
        return round(1000 * min(self._round_trips.get(peer, 0.0), LONGEST))

    def on_answer(self, peer: PeerId, seconds: float, body: AnswerBody) -> None:
        """Its answer has taken so long: longer than its low TTL may have lasted?"""
        self._round_trips.put(peer, seconds)
        self._late.pop(peer, None)
        if body.low_ttl and 1000 * seconds > body.low_for:
            self._late.put(peer, None)

    def on_failed(self, peer: PeerId, now: float) -> None:
        """No path has come of offer and answer."""
        if peer in self._late:
            self._poisoned.put(peer, now + POISONED_FOR)

    def is_late(self, peer: PeerId) -> bool:
        """Whether its last answer came too late."""
        return peer in self._late

    def poisoned_until(self, peer: PeerId) -> float:
        """Before this an attempt between the same two ports may be in vain; a fresh one is not.

        In the past unless something was too late.
        """
        return self._poisoned.get(peer, float("-inf"))

    def forget(self) -> None:
        """Our network is another one: another router, other ports."""
        self._late.clear()
        self._poisoned.clear()
