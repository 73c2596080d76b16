"""The check list of an ICE agent: which candidate pairs to check, in which order (RFC 8445 §6.1.2).

One component on one port, so checks for a local candidate leave from its base: candidate pairs are
made of our bases and the remote candidates of the same family (§6.1.2.4 prunes the others). All is
bounded, since a peer fills it.
"""

import ipaddress
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count

from overlay.core.addresses import (
    LOCALS_MAX,
    TYPE_PREFERENCES,
    candidate_priority,
    is_circuit,
    link_of,
)
from overlay.core.ice.states import PAIR, PairEvent, PairState
from overlay.core.types import Address, Candidate, PathKind

MAX_BASES = LOCALS_MAX
"""Local addresses that checks leave from; an offer names eight of them."""
MAX_SIGNALLED = 8
"""Remote candidates out of an offer or answer (guess)."""
MAX_REFLEXIVE = 8
"""Remote addresses learnt from checks; beyond it the oldest of no use makes room (guess)."""
SPARE_UNTIL = 4
"""Checks from the best of our addresses on one link (guess: over two seconds) before the others on
it have their turn."""
MAX_PAIRS = 100
"""RFC 8445 §6.1.2.5."""


def pair_priority(controlling: int, controlled: int) -> int:
    """RFC 8445 §6.1.2.3, from the two candidates' priorities."""
    low, high = min(controlling, controlled), max(controlling, controlled)
    return (low << 32) + 2 * high + (controlling > controlled)


@dataclass(frozen=True, slots=True)
class Base:
    """A local address that checks leave from."""

    local: Address | None
    """None: the routing table chooses the source (the candidate was a wildcard address)."""
    ipv6: bool
    priority: int
    """The best of the candidates that share it."""
    turn: int = 0
    """How many of its family we prefer to it."""
    first: Address | None = None
    """The best base on the same link, if that is another one."""


@dataclass(slots=True, eq=False)
class CandidatePair:
    """A candidate pair: where a check leaves from, and where it goes."""

    local: Address | None
    remote: Address
    local_priority: int
    remote_candidate: Candidate
    turn: int = 0
    """Its base's: each remote candidate is checked from one base before any is from a second."""
    priority: int = 0
    state: PairState = PairState.WAITING
    nominated: bool = False
    """The controlling peer has said USE-CANDIDATE on it."""
    seen_local: Address | None = None
    """The local address that the last answer reached."""
    mapped: Address | None = None
    """What the last answer calls our address."""
    checked_at: float = float("-inf")
    """When the last check went out."""
    answered_at: float = float("-inf")
    """When a check on it was last answered."""
    sends: int = 0
    """How many checks have gone out, repeated ones as well."""
    heard: bool = False
    """An authentic check of the peer's has come this way."""
    first: "CandidatePair | None" = None
    """The same remote address from the best base on the same link, if that is another one."""

    @property
    def is_spare(self) -> bool:
        """Whether it is kept back: addresses on one link share their way out.

        Deviation: RFC 8445 checks all. Behind a router that keeps ports, where two of a host's
        addresses send to one remote, the first has the port that others know of, and the second
        another: our peers would be told of one, and checked from the other.
        """
        first = self.first
        if first is None or self.state is not PairState.WAITING:
            return False
        if first.state is PairState.SUCCEEDED:
            return True
        return first.state is not PairState.FAILED and first.sends < SPARE_UNTIL

    @property
    def prflx_priority(self) -> int:
        """What a check says in PRIORITY: ours, were it peer-reflexive (RFC 8445 §7.1.1)."""
        return TYPE_PREFERENCES["prflx"] << 24 | self.local_priority & 0xFFFFFF

    def on(self, event: PairEvent) -> None:
        """Take the transition that the table has for it."""
        self.state = PAIR[self.state][event]

    @property
    def order(self) -> tuple[int, int]:
        """The less, the sooner it is checked, and the longer it keeps its place.

        Deviation: RFC 8445 §6.1.2.3 and §6.1.2.5 go by priority alone. Of hosts with dozens of
        addresses all pairs of two host candidates then come before the first that leads through a
        NAT, and leave it no room (measured: with sixteen at both ends no path was found).
        """
        return self.turn, -self.priority

    def sort(self, controlling: bool) -> None:
        """Compute the pair's priority under our role."""
        ours, theirs = self.local_priority, self.remote_candidate.priority
        self.priority = pair_priority(ours, theirs) if controlling else pair_priority(theirs, ours)


class CheckList:
    """Bases, remote candidates and the pairs of both."""

    def __init__(self, controlling: bool, candidates: Sequence[Candidate]) -> None:
        self.controlling = controlling
        self.bases = _bases(candidates)
        self._host_addresses = [each.address for each in candidates if each.kind == "host"]
        self._remotes: dict[Address, Candidate] = {}
        self._pairs: dict[tuple[Address | None, Address], CandidatePair] = {}

    def __iter__(self) -> Iterator[CandidatePair]:
        return iter(self._pairs.values())

    def __len__(self) -> int:
        return len(self._pairs)

    def set_role(self, controlling: bool) -> None:
        """A switch of roles recomputes all priorities (RFC 8445 §7.2.5.1)."""
        self.controlling = controlling
        for pair in self:
            pair.sort(controlling)

    def add_remote(self, candidate: Candidate) -> None:
        """Pair a signalled candidate with every base of its family, or skip it.

        Skipped are addresses that are no unicast IP address, families that we have no base of,
        and candidates beyond the first eight.
        """
        address = unicast(candidate.address)
        if candidate.kind == "relay" and is_circuit(candidate.address):
            address = candidate.address  # our own core's: a peer's cannot be decoded
        if address is None or candidate.kind not in TYPE_PREFERENCES:
            return
        known = self._remotes.get(address)
        signalled = sum(each.kind != "prflx" for each in self._remotes.values())
        if (known is not None and known.kind != "prflx") or signalled >= MAX_SIGNALLED:
            return
        bases = [base for base in self.bases if base.ipv6 == (":" in address.host)]
        if not bases:
            return
        priority = _clamped(candidate.priority)
        remote = Candidate(candidate.kind, address, priority, candidate.foundation, candidate.base)
        self._remotes[address] = remote
        for pair in self:
            # Learnt from a check before: now we know what it is (RFC 8445 §7.3.1.3).
            if pair.remote == address:
                pair.remote_candidate = remote
                pair.sort(self.controlling)
        for base in bases:
            self._add_pair(base, remote)

    def learn(self, local: Address | None, remote: Address, priority: int) -> CandidatePair | None:
        """The pair of a check that came from `remote` to `local` (RFC 8445 §7.3.1.3).

        An address never heard of becomes a peer-reflexive candidate. None when there is no room.
        """
        pair = self.find(local, remote)
        if pair is not None:
            return pair
        candidate = self._remotes.get(remote)
        if candidate is None:
            # RFC 8445 §7.3.1.3: peer-reflexive, of the priority that its check says.
            if not self._room_for_reflexive():
                return None
            candidate = Candidate("prflx", remote, _clamped(priority))
            self._remotes[remote] = candidate
        base = self._base_of(local, remote)
        return self._add_pair(base, candidate)

    def find(self, local: Address | None, remote: Address) -> CandidatePair | None:
        """The pair that a datagram from `remote` to `local` belongs to."""
        pair = self._pairs.get((local, remote)) or self._pairs.get((None, remote))
        if pair is None and local is None:
            return next((each for each in self if each.remote == remote), None)
        return pair

    def next_waiting(self) -> CandidatePair | None:
        """The pair to check next (RFC 8445 §6.1.4.2)."""
        return min(self.waiting(), key=lambda pair: pair.order, default=None)

    def waiting(self) -> Iterator[CandidatePair]:
        """The pairs that have not been checked yet, and may be."""
        return (pair for pair in self if pair.state is PairState.WAITING and not pair.is_spare)

    def best_valid(self) -> CandidatePair | None:
        """The best of the valid list (RFC 8445 §7.2.5.3.2)."""
        return _best(pair for pair in self if pair.state is PairState.SUCCEEDED)

    def may_improve_on(self, pair: CandidatePair) -> bool:
        """Whether a pair of higher priority may still succeed."""
        return any(True for _ in self._better_than(pair))

    def better_asked_at(self, pair: CandidatePair, now: float) -> float:
        """When the last pair of higher priority was checked that may still succeed.

        Now, when one of them has not been checked yet.
        """
        better = self._better_than(pair)
        asked = (now if each.state is PairState.WAITING else each.checked_at for each in better)
        return max(asked, default=now)

    def _better_than(self, pair: CandidatePair) -> Iterator[CandidatePair]:
        unsettled = (PairState.WAITING, PairState.IN_PROGRESS)
        better = (each for each in self if each.priority > pair.priority and not each.is_spare)
        return (each for each in better if each.state in unsettled)

    def keep_only(self, selected: CandidatePair) -> None:
        """Forget the other pairs: one that comes up later proves itself anew."""
        self._pairs = {(selected.local, selected.remote): selected}

    def alternatives_to(self, selected: CandidatePair) -> list[CandidatePair]:
        """The selected remote address from each of our other bases: our own end may have moved.

        What the routing table chooses is among the first two, however many there are: it knows of
        addresses that have come since.
        """
        if is_circuit(selected.remote):
            return []  # it leaves by the link to its relay, wherever that runs
        ipv6 = ":" in selected.remote.host
        bases = [base for base in self.bases if base.ipv6 == ipv6 and base.local != selected.local]
        if selected.local is not None and all(base.local is not None for base in bases):
            bases.insert(1, Base(None, ipv6, 0))
        found = [self._add_pair(base, selected.remote_candidate) for base in bases]
        return [pair for pair in found if pair is not None]

    def kind_of(self, pair: CandidatePair) -> PathKind:
        """What kind of path a checked pair is."""
        if pair.remote_candidate.kind == "relay" or is_circuit(pair.remote):
            return PathKind.RELAYED
        # Both ends are host candidates when the peer sees us at an address of our own.
        ours = (pair.local, pair.seen_local, *self._host_addresses)
        if pair.remote_candidate.kind == "host" and pair.mapped and pair.mapped in ours:
            return PathKind.HOST
        return PathKind.REFLEXIVE

    def _base_of(self, local: Address | None, remote: Address) -> Base:
        ipv6 = ":" in remote.host
        bases = [base for base in self.bases if base.ipv6 == ipv6]
        for base in bases:
            if base.local == local or base.local is None:
                return base
        # The check came to an address that is no base of ours: an interface that came up later, or
        # a shell that knows no local addresses.
        return Base(local, ipv6, min((base.priority for base in bases), default=1))

    def _add_pair(self, base: Base, remote: Candidate) -> CandidatePair | None:
        key = (base.local, remote.address)
        pair = self._pairs.get(key)
        if pair is None:
            pair = CandidatePair(base.local, remote.address, base.priority, remote, base.turn)
            if base.first is not None and link_of(base.first.host) != link_of(remote.address.host):
                pair.first = self._pairs.get((base.first, remote.address))
            pair.sort(self.controlling)
            if not self._room_for(pair):
                return None
            self._pairs[key] = pair
        return pair

    def _room_for(self, pair: CandidatePair) -> bool:
        """Full: the last pair in order goes that is not under way, if this one comes before it."""
        if len(self._pairs) < MAX_PAIRS:
            return True
        # Deviation: §6.1.2.5 goes by priority alone; we give no check up that is under way.
        idle = (PairState.WAITING, PairState.FAILED)
        victims = [(other.order, key) for key, other in self._pairs.items() if other.state in idle]
        last = max(victims, key=lambda victim: victim[0], default=None)
        if last is None or last[0] <= pair.order:
            return False
        del self._pairs[last[1]]
        return True

    def _room_for_reflexive(self) -> bool:
        learnt = [each.address for each in self._remotes.values() if each.kind == "prflx"]
        if len(learnt) < MAX_REFLEXIVE:
            return True
        valid = [pair.remote for pair in self if pair.state is PairState.SUCCEEDED]
        oldest = next((address for address in learnt if address not in valid), None)
        if oldest is None:
            return False
        del self._remotes[oldest]
        self._pairs = {key: pair for key, pair in self._pairs.items() if pair.remote != oldest}
        return True


def unicast(address: Address) -> Address | None:
    """The address in canonical text, or None when no check may go there.

    Hosts come from peers: names, zones, multicast and unspecified addresses are refused.
    """
    try:
        host = ipaddress.ip_address(address.host)
    except ValueError:
        return None
    if host.is_multicast or host.is_unspecified or "%" in address.host:
        return None
    if not 0 < address.port < 65_536 or str(host) == "255.255.255.255":
        return None
    return Address(str(host), address.port)


def _bases(candidates: Sequence[Candidate]) -> list[Base]:
    """Our bases, best first; a candidate that shares one adds nothing (RFC 8445 §6.1.2.4).

    No candidates at all: one unpinned base of each family.
    """
    if not candidates:
        priority = candidate_priority("host")
        return [Base(None, ipv6=ipv6, priority=priority) for ipv6 in (False, True)]
    best: dict[tuple[Address | None, bool], int] = {}
    for candidate in candidates:
        address = candidate.base or candidate.address
        wildcard = address.host in ("0.0.0.0", "::")
        key = (None if wildcard else address, ":" in address.host)
        best[key] = max(best.get(key, 0), _clamped(candidate.priority))
    turns = {False: count(), True: count()}
    by_priority = sorted(best.items(), key=lambda item: -item[1])[:MAX_BASES]
    firsts: dict[str, Address] = {}
    bases = []
    for (local, ipv6), priority in by_priority:
        first = firsts.setdefault(link_of(local.host), local) if local is not None else None
        other = first if first is not None and local and first.host != local.host else None
        bases.append(Base(local, ipv6, priority, next(turns[ipv6]), other))
    return bases


def _best(pairs: Iterator[CandidatePair]) -> CandidatePair | None:
    return max(pairs, key=lambda pair: pair.priority, default=None)


def _clamped(priority: int) -> int:
    return min(max(priority, 1), 2**32 - 1)
