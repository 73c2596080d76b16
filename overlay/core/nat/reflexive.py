"""Where we can be reached: our own addresses, and those at which our neighbours see us.

Every connectivity check is a STUN query: the answers say under which address a neighbour sees us.
One voice is not believed: candidates may carry it (a wrong one costs a few checks), but a record
carries only what two neighbours agree on. Each neighbour has one vote, whatever its prefix.
"""

import ipaddress
from dataclasses import dataclass, field

from overlay.core.addresses import candidate_priority
from overlay.core.types import Address, Candidate, PeerId
from overlay.core.wire.bounds import Host
from overlay.core.wire.documents import AddressEntry

VOTES_NEEDED = 2
"""Neighbours that must see us at one address before a record says it (guess)."""
VOTES_MAX = 64
"""Neighbours whose word is kept; the one that spoke first goes (guess)."""


@dataclass(slots=True)
class Reflexive:
    """What is known of our own addresses."""

    listening: tuple[Address, ...] = ()
    advertised: tuple[Address, ...] = ()
    _proven: dict[Address, None] = field(default_factory=dict)
    _votes: dict[PeerId, Address] = field(default_factory=dict)

    def listen(self, listening: tuple[Address, ...], advertised: tuple[Address, ...]) -> None:
        """Our port is open at these addresses; the user says that `advertised` lead there too."""
        self.listening, self.advertised = listening, advertised
        self._proven = {each: None for each in self._proven if each in listening}

    def prove(self, local: Address) -> bool:
        """A stranger came in at this address of ours; returns whether that is news."""
        if local not in self.listening or local in self._proven:
            return False
        self._proven[local] = None
        return True

    def vote(self, peer: PeerId, address: Address) -> bool:
        """A neighbour sees us here; returns whether that changes the addresses in our record."""
        if not Host().holds(address.host) or not 0 < address.port < 65_536:
            return False  # no address that anybody could send to: not worth a place in a record
        before = self.mapped(VOTES_NEEDED)
        if peer not in self._votes and len(self._votes) >= VOTES_MAX:
            self._votes.pop(next(iter(self._votes)))
        self._votes[peer] = address
        return self.mapped(VOTES_NEEDED) != before

    def seen_by(self, peer: PeerId) -> Address | None:
        """Where this neighbour last saw us."""
        return self._votes.get(peer)

    def forget(self, peer: PeerId) -> None:
        """A neighbour is gone, and its vote with it."""
        self._votes.pop(peer, None)

    def mapped(self, votes: int = 1) -> list[Address]:
        """Mapped addresses with at least so many votes, most votes first."""
        tally: dict[Address, int] = {}
        for address in self._votes.values():
            tally[address] = tally.get(address, 0) + 1
        own = (*self.listening, *self.advertised)
        chosen = [each for each, count in tally.items() if count >= votes and each not in own]
        return sorted(chosen, key=lambda each: (-tally[each], each))

    def candidates(self) -> tuple[Candidate, ...]:
        """Our ICE candidates, all at once: what a STUN server would tell, neighbours have told."""
        local = self.listening[0] if self.listening else None
        hosts = [_candidate("host", each, rank) for rank, each in enumerate(self.listening)]
        others = [*self.advertised, *self.mapped()]
        reflexive = [
            _candidate("srflx", each, rank, local)
            for rank, each in enumerate(others)
            if each not in self.listening
        ]
        return tuple(hosts[:6] + reflexive[:2])

    def entries(self) -> list[AddressEntry]:
        """Our addresses as our record and invites carry them, proven ones first."""
        entries = [AddressEntry(host, port, proven=True) for host, port in self.advertised]
        entries += [
            AddressEntry(each.host, each.port, proven=each in self._proven)
            for each in sorted(self.listening, key=lambda each: each not in self._proven)
            if each not in self.advertised
        ]
        entries += [
            AddressEntry(each.host, each.port, proven=False) for each in self.mapped(VOTES_NEEDED)
        ]
        return entries[:8]

    def dialable(self, entries: list[AddressEntry], *, claimed: bool) -> list[Address]:
        """Which of a peer's addresses are worth a direct dial.

        Proven ones; loopback when we are there ourselves; with `claimed`, all that could work.
        """
        chosen = []
        for entry in entries:
            loopback = _is_loopback(entry.host)
            if loopback and not any(_is_loopback(own.host) for own in self.listening):
                continue
            if claimed or entry.proven or loopback:
                chosen.append(Address(entry.host, entry.port))
        return chosen


def _candidate(kind: str, address: Address, rank: int, base: Address | None = None) -> Candidate:
    foundation = f"{kind[0]}{rank}"  # RFC 8445 §5.1.1.3: one for each kind and base
    return Candidate(kind, address, candidate_priority(kind, rank), foundation, base)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
