"""One idea: the circuits of a port, those that it is an end of and those that it relays.

A circuit is a path through a neighbour. Its datagrams travel as bare UDP between the nodes' one
ports: the circuit's id, whose first byte no other protocol of the port has (RFC 7983 §7), then a
datagram of ICE or DTLS, which is the two ends' own. For all that is above, such a path is a pair of
addresses like any other: `overlay.core.addresses.circuit_address` and no local one.

The rules that hold whatever anybody sends:

1. A datagram counts only if it comes between the very addresses on which the path of its link runs,
   the link over which the circuit was agreed. Whoever has seen an id cannot use it.
2. A circuit never runs over another: neither by the link that leads to its relay, nor by what its
   datagrams carry. So no chain and no loop of relays can be made.
3. All is bounded: the circuits, and the bytes a second that each may carry.
"""

from collections import Counter
from collections.abc import Callable
from typing import assert_never

from overlay.core.addresses import CIRCUIT_BYTES, circuit_address, is_circuit
from overlay.core.events import CircuitCarried, DropCircuit, RelayCircuit, UseCircuit
from overlay.core.ice.outputs import AddressPair
from overlay.core.timers import NEVER
from overlay.core.types import Address, CircuitId, LinkId

FIRST, PAST = 64, 80
"""What the first byte of a circuit's datagram is from, and below (RFC 7983 §7)."""
USED_MAX = 64
"""Circuits that we may be an end of (guess)."""
RELAYED_MAX = 256
"""Circuits that we may relay (guess)."""
REPORT_INTERVAL = 10.0
"""Seconds between two reports of what a circuit has carried (guess)."""

CircuitEffect = UseCircuit | RelayCircuit | DropCircuit
Way = tuple[bytes, Address, Address | None]
"""How a datagram over a circuit leaves: what goes before it, and the addresses between which."""


class _Used:
    """A circuit that we are an end of."""

    __slots__ = ("address", "circuit", "link", "pair", "way")

    def __init__(self, circuit: CircuitId, link: LinkId) -> None:
        self.circuit, self.link = circuit, link
        self.address = circuit_address(circuit)
        self.pair: AddressPair | None = None
        self.way: Way | None = None

    @property
    def links(self) -> tuple[LinkId, ...]:
        return (self.link,)

    def follow(self, _: LinkId, pair: AddressPair | None) -> None:
        """Where the link to the relay runs now; None: nowhere that circuits may run."""
        self.pair = pair
        self.way = None if pair is None else (self.circuit, *pair)


class _Relayed:
    """A circuit that we relay: from the path of either link to that of the other."""

    __slots__ = ("carried", "circuit", "filled_at", "links", "one", "other", "rate", "tokens")

    def __init__(
        self, circuit: CircuitId, one: LinkId, other: LinkId, rate: float, now: float
    ) -> None:
        self.circuit = circuit
        self.links = (one, other)
        self.one: AddressPair | None = None
        self.other: AddressPair | None = None
        self.rate = self.tokens = rate
        self.filled_at = now
        self.carried = 0  # bytes since the last report

    def follow(self, link: LinkId, pair: AddressPair | None) -> None:
        """Where one of the two links runs now; None: nowhere that circuits may run."""
        if link == self.links[0]:
            self.one = pair
        else:
            self.other = pair


class Circuits:
    """The table; `say` is told what was carried. Counts in `counters` what it refuses, by kind:

    circuit_unknown (no such circuit), circuit_elsewhere (not from where its link's path runs),
    circuit_over_rate, circuit_nested (of a circuit in a circuit), circuit_crowded (too many).
    """

    def __init__(self, counters: Counter[str], say: Callable[[CircuitCarried], None]) -> None:
        self._counters = counters
        self._say = say
        self._used: dict[bytes, _Used] = {}
        self._by_address: dict[Address, _Used] = {}
        self._relayed: dict[bytes, _Relayed] = {}
        self._by_link: dict[LinkId, list[_Used | _Relayed]] = {}
        self._report_at = NEVER

    def __len__(self) -> int:
        return len(self._used) + len(self._relayed)

    # --- what the core wants ----------------------------------------------------------------------

    def perform(
        self, effect: CircuitEffect, standing: Callable[[LinkId], AddressPair | None], now: float
    ) -> None:
        """Do it, unless a rule forbids it. `standing`: where the path of an open link runs."""
        match effect:
            case UseCircuit(circuit, link):
                if self._may_begin(circuit, len(self._used) < USED_MAX):
                    self._begin(_Used(circuit, link), standing)
            case RelayCircuit(circuit, one, other, rate):
                if one == other:
                    self._counters["circuit_nested"] += 1
                elif self._may_begin(circuit, len(self._relayed) < RELAYED_MAX):
                    self._begin(_Relayed(circuit, one, other, rate, now), standing)
                    self._report_at = min(self._report_at, now + REPORT_INTERVAL)
            case DropCircuit(circuit):
                self._drop(circuit)
            case _:
                assert_never(effect)

    def _may_begin(self, circuit: CircuitId, has_room: bool) -> bool:
        if circuit in self._used or circuit in self._relayed:
            return False
        if not has_room:
            self._counters["circuit_crowded"] += 1
        return has_room

    def _begin(
        self, new: _Used | _Relayed, standing: Callable[[LinkId], AddressPair | None]
    ) -> None:
        pairs = [(link, standing(link)) for link in new.links]
        if any(pair is not None and is_circuit(pair[0]) for _, pair in pairs):
            self._counters["circuit_nested"] += 1
            return
        if any(pair is None for _, pair in pairs):
            return  # a link has ended meanwhile, and its core is about to hear of it
        if isinstance(new, _Used):
            self._used[new.circuit] = self._by_address[new.address] = new
        else:
            self._relayed[new.circuit] = new
        for link, pair in pairs:
            new.follow(link, pair)
            self._by_link.setdefault(link, []).append(new)

    def _drop(self, circuit: CircuitId) -> None:
        dropped = self._used.pop(circuit, None) or self._relayed.pop(circuit, None)
        if dropped is None:
            return
        for link in dropped.links:
            self._by_link[link].remove(dropped)
            if not self._by_link[link]:
                del self._by_link[link]
        if isinstance(dropped, _Used):
            del self._by_address[dropped.address]
        else:
            self._report(dropped)

    # --- what becomes of the links ----------------------------------------------------------------

    def move(self, link: LinkId, pair: AddressPair) -> None:
        """The path of a link runs here now, and with it its circuits'."""
        if link in self._by_link:
            usable = None if is_circuit(pair[0]) else pair
            for each in self._by_link[link]:
                each.follow(link, usable)

    def end(self, link: LinkId) -> None:
        """A link is gone: so are its circuits."""
        for each in list(self._by_link.get(link, ())):
            self._drop(each.circuit)

    # --- datagrams --------------------------------------------------------------------------------

    def forward(
        self, data: bytes, remote: Address, local: Address | None, now: float
    ) -> AddressPair | None:
        """Where a datagram of a circuit goes on to that we relay; it goes on as it is.

        None: it is none of those, or it is dropped and counted. This runs once a datagram.
        """
        relayed = self._relayed.get(data[:CIRCUIT_BYTES])
        if relayed is None:
            return None
        if (remote, local) == relayed.one:
            onward = relayed.other
        elif (remote, local) == relayed.other:
            onward = relayed.one
        else:
            self._counters["circuit_elsewhere"] += 1
            return None
        size = len(data)
        if onward is None or size <= CIRCUIT_BYTES or FIRST <= data[CIRCUIT_BYTES] < PAST:
            self._counters["circuit_nested"] += 1
            return None
        if now > relayed.filled_at:
            tokens = relayed.tokens + (now - relayed.filled_at) * relayed.rate
            relayed.tokens = min(tokens, relayed.rate)
            relayed.filled_at = now
        if relayed.tokens < size:
            self._counters["circuit_over_rate"] += 1
            return None
        relayed.tokens -= size
        relayed.carried += size
        return onward

    def arrived(self, data: bytes, remote: Address, local: Address | None) -> Address | None:
        """From which circuit's address the rest of this datagram comes, that we are an end of.

        None: it is dropped, and counted unless `forward` has done so.
        """
        used = self._used.get(data[:CIRCUIT_BYTES])
        if used is None:
            if data[:CIRCUIT_BYTES] not in self._relayed:
                self._counters["circuit_unknown"] += 1
        elif (remote, local) != used.pair:
            self._counters["circuit_elsewhere"] += 1
        elif len(data) <= CIRCUIT_BYTES or FIRST <= data[CIRCUIT_BYTES] < PAST:
            self._counters["circuit_nested"] += 1
        else:
            return used.address
        return None

    def way(self, address: Address) -> Way | None:
        """How a datagram to a circuit's address leaves; None: the circuit is over, or stuck."""
        used = self._by_address.get(address)
        return None if used is None else used.way

    # --- reports ----------------------------------------------------------------------------------

    def next_deadline(self) -> float | None:
        """When `handle_timeout` wants to be called."""
        return None if self._report_at == NEVER else self._report_at

    def handle_timeout(self, now: float) -> None:
        """Report what was carried, if it is time."""
        if now >= self._report_at:
            self._report_at = now + REPORT_INTERVAL if self._relayed else NEVER
            for relayed in self._relayed.values():
                self._report(relayed)

    def _report(self, relayed: _Relayed) -> None:
        if relayed.carried:
            self._say(CircuitCarried(relayed.circuit, relayed.carried))
            relayed.carried = 0
