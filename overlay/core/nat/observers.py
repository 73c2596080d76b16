"""Who sees us where: every neighbour's Binding response tells, and no single one is believed.

Of the observers in one network prefix it is likely that one person speaks, so a prefix has one
vote (RFC 8489 gives a server's word no proof at all). An address stands when more than half of the
prefixes name it, or half of them and more than half of the observers; and two observers at least.
So fewer than half of the observers, or all in one prefix, cannot move it.

Whose link has fallen silent saw us before that, perhaps behind a router that has been switched off
and on since: against those that are heard its word counts for nothing.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from overlay.core.addresses import is_loopback, is_private, needs_zone, prefix_of
from overlay.core.limits import BoundedDict
from overlay.core.types import Address, PeerId
from overlay.core.wire.bounds import Host

OBSERVERS_MAX = 64
"""Neighbours whose word is kept; the one that spoke first goes (guess)."""
VOICES_NEEDED = 2
"""Observers that must see us at one address before it stands (guess)."""
PREFIX_BITS = (16, 32)
"""In which observers may well be one person's, of IPv4 and of IPv6 (guess)."""


@dataclass(frozen=True, slots=True)
class Observation:
    """Where one neighbour sees us."""

    peer: PeerId
    mapped: Address
    observer: Address | None = None
    """The neighbour's own address, as we see it."""
    local: Address | None = None
    """Ours, from which the link leaves."""
    order: int = 0
    """Counts up with each mapping that is new to us: in this order they were made."""

    @property
    def prefix(self) -> str:
        """Whose vote it is: its prefix's if that is a global one, else its own."""
        host = self.observer.host if self.observer is not None else ""
        return prefix_of(host, *PREFIX_BITS) or host or self.peer.hex()

    @property
    def realm(self) -> tuple[bool, str, bool]:
        """What it can be compared with: the same family, uplink of ours, and kind of network."""
        local = self.local.host if self.local is not None else ""
        return ":" in self.mapped.host, local, is_private(self.mapped.host)


class Observers:
    """What our neighbours say."""

    def __init__(self) -> None:
        # By neighbour, and whether it was asked beside its link (`overlay.core.nat.asking`).
        self._said: BoundedDict[tuple[PeerId, bool], Observation] = BoundedDict(OBSERVERS_MAX)
        self._silent: dict[PeerId, None] = {}
        self._order = 0

    def say(
        self,
        peer: PeerId,
        mapped: Address,
        observer: Address | None = None,
        local: Address | None = None,
        *,
        asked: bool = False,
    ) -> bool:
        """A neighbour sees us here; False: that says nothing to others, and is not kept."""
        if not Host().holds(mapped.host) or not 0 < mapped.port < 65_536:
            return False  # no address that anybody could send to: not worth a place in a record
        if is_loopback(mapped.host) or needs_zone(mapped.host):
            return False  # the neighbour is that near; to others the address says nothing
        self._order += 1
        self._said.put((peer, asked), Observation(peer, mapped, observer, local, self._order))
        return True

    def seen_by(self, peer: PeerId) -> Address | None:
        """Where this neighbour last saw us by its link."""
        said = self._said.get((peer, False))
        return said.mapped if said is not None else None

    def silent(self, peer: PeerId) -> None:
        """A neighbour's link has fallen silent."""
        self._silent[peer] = None

    def heard(self, peer: PeerId) -> None:
        """It is heard again."""
        self._silent.pop(peer, None)

    def _counting(self) -> list[Observation]:
        """Without those of silent neighbours that are at odds with what others say there."""
        fresh = [said for said in self._said.values() if said.peer not in self._silent]
        told, mapped = {said.realm for said in fresh}, {said.mapped for said in fresh}
        return [
            said
            for said in self._said.values()
            if said.peer not in self._silent or said.realm not in told or said.mapped in mapped
        ]

    def forget(self, peer: PeerId) -> None:
        """A neighbour is gone, and its vote with it."""
        self._said.pop((peer, False), None)
        self.heard(peer)
        self.forget_asked(peer)

    def forget_asked(self, peer: PeerId) -> None:
        """It is not asked any more, or does not answer."""
        self._said.pop((peer, True), None)

    def outside(self, own: Iterable[Address]) -> list[Observation]:
        """What those say who are beyond our NAT, or see that there is none.

        Who sees us at a private address of our own is on the same network: that says nothing.
        """
        ours = set(own)
        return [
            said
            for said in self._counting()
            if said.mapped not in ours or not is_private(said.mapped.host)
        ]

    def mapped(self, own: Iterable[Address]) -> list[Address]:
        """Every address that is not our own at which anybody sees us, most observers first."""
        ours = set(own)
        voices = Counter(said.mapped for said in self._counting() if said.mapped not in ours)
        return sorted(voices, key=lambda each: (-voices[each], each))

    def agreed(self, own: Iterable[Address]) -> list[Address]:
        """The addresses that stand, one a realm at most: those that all can use come first."""
        found = map(agreed, realms(self.outside(own)))
        return sorted(filter(None, found), key=lambda each: (is_private(each.host), each))

    def hosts(self, own: Iterable[Address]) -> set[str]:
        """The hosts that stand in the same way, whatever ports each observer sees there."""
        found = (
            agreed([replace(each, mapped=Address(each.mapped.host, 1)) for each in realm])
            for realm in realms(self.outside(own))
        )
        return {each.host for each in found if each is not None}


def realms(said: Iterable[Observation]) -> list[list[Observation]]:
    """Observations that can be compared with each other, those that say most of a NAT first.

    Those from beyond all NATs, then over IPv4, if they are enough, then the most.
    """
    groups: dict[tuple[bool, str, bool], list[Observation]] = {}
    for each in said:
        groups.setdefault(each.realm, []).append(each)

    def rank(group: list[Observation]) -> tuple[bool, bool, int]:
        ipv6, _, private = group[0].realm
        return private, ipv6 or len(group) < VOICES_NEEDED, -len(group)

    return sorted(groups.values(), key=rank)


def agreed(said: Sequence[Observation]) -> Address | None:
    """The address at which these observers see us, if enough of them agree."""
    votes = Counter(_votes(said))
    voices = Counter(each.mapped for each in said)
    best = max(votes, key=lambda each: (votes[each], voices[each], each), default=None)
    if best is None or voices[best] < VOICES_NEEDED:
        return None
    half = 2 * votes[best] - sum(votes.values())
    return best if half > 0 or (half == 0 and 2 * voices[best] > len(said)) else None


def _votes(said: Sequence[Observation]) -> list[Address]:
    """What each prefix says: the address that most in it name, of several the one named last."""
    ballots: dict[str, list[Observation]] = {}
    for each in said:
        ballots.setdefault(each.prefix, []).append(each)
    votes = []
    for ballot in ballots.values():
        voices = Counter(each.mapped for each in ballot)
        votes.append(max(ballot, key=lambda each: (voices[each.mapped], each.order)).mapped)
    return votes
