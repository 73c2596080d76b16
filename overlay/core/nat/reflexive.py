"""Where we can be reached: our own addresses, and those at which our neighbours see us.

Every connectivity check is a STUN query: the answers say under which address a neighbour sees us.
One voice is not believed: candidates may carry it (a wrong one costs a few checks), but a record
carries only what observers agree on (`overlay.core.nat.observers`).

An address is proven by a stranger who came in there: a dial at one of our own, or a knock
(`overlay.core.nat.examining`), which proves a mapped one for a while.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from overlay.core.addresses import candidate_priority, is_loopback, is_private, may_be_nat
from overlay.core.nat.observers import Observers
from overlay.core.types import Address, Candidate, PeerId
from overlay.core.wire.documents import AddressEntry

KNOCKED_FOR = 1800.0
"""Seconds (guess) for which a knock proves a mapped address: three times as long as until the next
one."""
NAMED_MAX = 8
"""Addresses in our record, in an invite, in an offer: as many as a dial goes to."""
MAPPED_MAX = 2
"""Of them, how many may be such as neighbours tell us (guess): one a family."""
ROUTED_MAX = 2
"""Of them, how many are named whatever has been proven: the default routes', one a family."""


@dataclass(slots=True)
class Reflexive:
    """What is known of our own addresses."""

    hidden: bool = False
    """They are named to nobody (``links.relay_only``)."""
    listening: tuple[Address, ...] = ()
    """Best first (`overlay.core.addresses.named_hosts`)."""
    advertised: tuple[Address, ...] = ()
    observers: Observers = field(default_factory=Observers)
    _proven: dict[Address, None] = field(default_factory=dict)
    _outer: set[str] = field(default_factory=set)
    # Until when a knock proves each address.
    _knocked: dict[Address, float] = field(default_factory=dict)

    def listen(self, listening: tuple[Address, ...], advertised: tuple[Address, ...]) -> None:
        """Our port is open at these addresses; the user says that `advertised` lead there too."""
        if listening != self.listening:
            self._knocked.clear()
        self.listening, self.advertised = listening, advertised
        self._proven = {each: None for each in self._proven if each in listening}

    def prove(self, local: Address) -> bool:
        """A stranger came in at this address of ours; returns whether that is news."""
        if local not in self.listening or local in self._proven:
            return False
        self._proven[local] = None
        return True

    @property
    def own(self) -> tuple[Address, ...]:
        """All addresses that nobody need tell us."""
        return (*self.listening, *self.advertised)

    def vote(
        self,
        peer: PeerId,
        address: Address,
        observer: Address | None = None,
        local: Address | None = None,
        *,
        asked: bool = False,
    ) -> bool:
        """A neighbour sees us here; returns whether that changes the addresses in our record.

        `observer`: where that neighbour is; `local`: from which of our addresses its link leaves;
        `asked`: beside its link.
        """
        before = self.agreed()
        kept = self.observers.say(peer, address, observer, local, asked=asked)
        return kept and self.agreed() != before

    def on_liveness(self, peer: PeerId, *, silent: bool) -> bool:
        """A neighbour has fallen silent, or is heard again; returns the same as `vote`."""
        before = self.agreed()
        if silent:
            self.observers.silent(peer)
        else:
            self.observers.heard(peer)
        return self.agreed() != before

    def seen_by(self, peer: PeerId) -> Address | None:
        """Where this neighbour last saw us."""
        return self.observers.seen_by(peer)

    def forget(self, peer: PeerId) -> None:
        """A neighbour is gone, and its vote with it."""
        self.observers.forget(peer)

    def forget_asked(self, peer: PeerId) -> None:
        """A neighbour is not asked beside its link any more."""
        self.observers.forget_asked(peer)

    def agreed(self) -> list[Address]:
        """The mapped addresses on which enough observers agree, none of them our own."""
        return [each for each in self.observers.agreed(self.own) if each not in self.own]

    def has_moved(self) -> bool:
        """Whether observers now agree on another host than before: our NAT has another address.

        Said once for each. Where a NAT shows us at other ports to everybody, it is all that they
        can agree on.
        """
        before, found = self._outer, self.observers.hosts(self.own)
        self._outer = found or before
        return bool(found - before) and bool(before - found) and bool(found)

    # --- knocks ------------------------------------------------------------------------------

    def knocked(self, address: Address, now: float) -> bool:
        """A stranger's knock came in at this address; returns whether that is news to others."""
        news = address not in self._knocked and not self.is_proven(address)
        self._knocked[address] = now + KNOCKED_FOR
        return news

    def unknocked(self, now: float) -> bool:
        """Drop what no knock has proven lately; returns whether our record has to change."""
        gone = [each for each, until in self._knocked.items() if until <= now]
        for each in gone:
            del self._knocked[each]
        return bool(gone)

    def close(self) -> bool:
        """Knocks do not come in any more; returns whether our record has to change."""
        closed, self._knocked = bool(self._knocked), {}
        return closed

    def is_public(self) -> bool:
        """Whether strangers reach us from anywhere, as somebody has shown or the user says."""
        open_to_all = (*self.advertised, *self._proven, *self._knocked)
        return any(not is_private(each.host) for each in open_to_all)

    def candidates(self) -> tuple[Candidate, ...]:
        """Our ICE candidates, all at once: what a STUN server would tell, neighbours have told.

        An offer has room for the first eight; from the others checks leave nonetheless, since a
        peer may be on a network of which we have no better address.
        """
        if self.hidden:
            return ()
        bases = {":" in each.host: each for each in reversed(self.listening)}
        hosts = [_candidate("host", each, rank) for rank, each in enumerate(self.listening)]
        others = [*self.advertised, *self.observers.mapped(self.own)]
        reflexive = [
            _candidate("srflx", each, rank, bases.get(":" in each.host))
            for rank, each in enumerate(others)
            if each not in self.listening
        ][:MAPPED_MAX]
        offered = NAMED_MAX - len(reflexive)
        return tuple(hosts[:offered] + reflexive + hosts[offered:])

    def entries(self) -> list[AddressEntry]:
        """Our addresses as our record and invites carry them, proven ones first."""
        if self.hidden:
            return []
        own = [each for each in self.listening if each not in self.advertised]
        own = own[:ROUTED_MAX] + sorted(own[ROUTED_MAX:], key=lambda each: not self.is_proven(each))
        mapped = self.agreed()[:MAPPED_MAX]
        own = own[: max(ROUTED_MAX, NAMED_MAX - len(self.advertised) - len(mapped))]
        entries = [AddressEntry(host, port, proven=True) for host, port in self.advertised]
        entries += [
            AddressEntry(each.host, each.port, proven=self.is_proven(each))
            for each in sorted(own, key=lambda each: not self.is_proven(each))
        ]
        entries += [
            AddressEntry(each.host, each.port, proven=self.is_proven(each))
            for each in sorted(mapped, key=lambda each: not self.is_proven(each))
        ]
        return entries[:NAMED_MAX]

    def is_dialled(self, *, ipv6: bool) -> bool:
        """Whether strangers have dialled a global address of our own: there is no NAT, then."""
        own = [each.host for each in self._proven if (":" in each.host) == ipv6]
        return not all(map(is_private, own))

    def is_proven(self, address: Address) -> bool:
        """Whether a stranger has come in there."""
        return address in self._proven or address in self._knocked

    def dialable(
        self, entries: Sequence[AddressEntry], *, claimed: bool, mapped: bool
    ) -> list[Address]:
        """Which of a peer's addresses are worth a direct dial.

        Proven ones; loopback when the peer is on this machine; with `claimed`, all that could work,
        but those that may be a NAT's only with `mapped`: there a packet that comes too early has
        some routers refuse the peer's own, for as long as they remember it.
        """
        is_here = self._shares_host(entries)
        chosen = []
        for entry in entries:
            address, loopback = Address(entry.host, entry.port), is_loopback(entry.host)
            if address in self.listening or (loopback and not is_here):
                continue  # it would lead to ourselves, or to somebody else on this machine
            if entry.proven or loopback or (claimed and (mapped or not may_be_nat(entry.host))):
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
