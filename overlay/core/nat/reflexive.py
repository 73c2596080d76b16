"""Where we can be reached: our own addresses, and those at which our neighbours see us.

Every connectivity check is a STUN query: the answers say under which address a neighbour sees us.
One voice is not believed: candidates may carry it (a wrong one costs a few checks), but a record
carries only what two neighbours agree on. Each neighbour has one vote, whatever its prefix.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from overlay.core.addresses import candidate_priority, is_loopback, needs_zone
from overlay.core.types import Address, Candidate, PeerId
from overlay.core.wire.bounds import Host
from overlay.core.wire.documents import AddressEntry

VOTES_NEEDED = 2
"""Neighbours that must see us at one address before a record says it (guess)."""
VOTES_MAX = 64
"""Neighbours whose word is kept; the one that spoke first goes (guess)."""
NAMED_MAX = 8
"""Addresses in our record, in an invite, in an offer: as many as a dial goes to."""
MAPPED_MAX = 2
"""Of them, how many may be such as neighbours tell us (guess): one a family."""
ROUTED_MAX = 2
"""Of them, how many are named whatever has been proven: the default routes', one a family."""


@dataclass(slots=True)
class Reflexive:
    """What is known of our own addresses."""

    listening: tuple[Address, ...] = ()
    """Best first (`overlay.core.addresses.named_hosts`)."""
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
        if is_loopback(address.host) or needs_zone(address.host):
            return False  # the neighbour is that near; to others the address says nothing
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
        """Our ICE candidates, all at once: what a STUN server would tell, neighbours have told.

        An offer has room for the first eight; from the others checks leave nonetheless, since a
        peer may be on a network of which we have no better address.
        """
        local = self.listening[0] if self.listening else None
        hosts = [_candidate("host", each, rank) for rank, each in enumerate(self.listening)]
        others = [*self.advertised, *self.mapped()]
        reflexive = [
            _candidate("srflx", each, rank, local)
            for rank, each in enumerate(others)
            if each not in self.listening
        ][:MAPPED_MAX]
        offered = NAMED_MAX - len(reflexive)
        return tuple(hosts[:offered] + reflexive + hosts[offered:])

    def entries(self) -> list[AddressEntry]:
        """Our addresses as our record and invites carry them, proven ones first."""
        own = [each for each in self.listening if each not in self.advertised]
        own = own[:ROUTED_MAX] + sorted(
            own[ROUTED_MAX:], key=lambda each: not self._is_proven(each)
        )
        mapped = self.mapped(VOTES_NEEDED)[:MAPPED_MAX]
        own = own[: max(ROUTED_MAX, NAMED_MAX - len(self.advertised) - len(mapped))]
        entries = [AddressEntry(host, port, proven=True) for host, port in self.advertised]
        entries += [
            AddressEntry(each.host, each.port, proven=self._is_proven(each))
            for each in sorted(own, key=lambda each: not self._is_proven(each))
        ]
        entries += [AddressEntry(each.host, each.port, proven=False) for each in mapped]
        return entries[:NAMED_MAX]

    def _is_proven(self, address: Address) -> bool:
        return address in self._proven

    def dialable(self, entries: Sequence[AddressEntry], *, claimed: bool) -> list[Address]:
        """Which of a peer's addresses are worth a direct dial.

        Proven ones; loopback when the peer is on this machine; with `claimed`, all that could work.
        """
        is_here = self._shares_host(entries)
        chosen = []
        for entry in entries:
            address, loopback = Address(entry.host, entry.port), is_loopback(entry.host)
            if address in self.listening or (loopback and not is_here):
                continue  # it would lead to ourselves, or to somebody else on this machine
            if claimed or entry.proven or loopback:
                chosen.append(address)
        return chosen

    def _shares_host(self, entries: Sequence[AddressEntry]) -> bool:
        """Whether a peer with these addresses is on this machine, as far as they tell."""
        ours = [own.host for own in self.listening]
        theirs = [entry.host for entry in entries if not is_loopback(entry.host)]
        if not theirs:
            return any(is_loopback(host) for host in ours)
        return any(host in ours for host in theirs)

    def worth_naming(self, entries: Sequence[AddressEntry]) -> list[AddressEntry]:
        """Which of a neighbour's addresses an invite of ours should name.

        Those that whoever can use ours can use, too: proven ones; loopback if ours are loopback.
        """
        ours = (*self.listening, *self.advertised)
        is_here = all(is_loopback(own.host) for own in ours)
        return [
            entry for entry in entries if (is_here if is_loopback(entry.host) else entry.proven)
        ]


def _candidate(kind: str, address: Address, rank: int, base: Address | None = None) -> Candidate:
    foundation = f"{kind[0]}{rank}"  # RFC 8445 §5.1.1.3: one for each kind and base
    return Candidate(kind, address, candidate_priority(kind, rank), foundation, base)
