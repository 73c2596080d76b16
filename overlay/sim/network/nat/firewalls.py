"""Firewalls, and what boxes are to the network: what becomes of a datagram at either end.

A datagram passes the box of its sender as it leaves and the box of its receiver as it arrives. A
box is a function of the datagram's two addresses, which may remember what it saw. Where routers
count (`overlay.sim.network.nat.homes`), a datagram that has a TTL of its own passes `Hops` instead.
"""

from collections.abc import Callable, Mapping
from typing import Protocol

from overlay.core.limits import BoundedDict
from overlay.core.types import Address
from overlay.sim.clock import Clock
from overlay.sim.node import SimNode

Fate = Callable[[Address, Address], tuple[Address, Address] | None]
"""From source and target to the source and target with which a datagram goes on; None: dropped.

A NAT box gives a datagram that leaves another source, and one that arrives another target.
"""

TTL = 64
"""Routers that a datagram passes at most if nothing else is said (RFC 1700)."""
Way = tuple[Address, Address, int]
"""Source, target, and how many more routers a datagram may pass."""


class Hops(Protocol):
    """Boxes and routers that count: what passes too many of them dies on the way (RFC 791)."""

    def outward(self, source: Address, target: Address, ttl: int) -> Way | None:
        """As it comes to the box of its receiver, if it does."""
        ...

    def inward(self, source: Address, target: Address, ttl: int) -> Way | None:
        """As it comes to its receiver, if it does."""
        ...


REMEMBERED_MAX = 1024
"""Addresses to which a firewalled node has sent, at most; the one longest ago is forgotten."""
FORGOTTEN_AFTER = 120.0
"""Seconds after which a firewall forgets to whom its node has sent (RFC 4787 REQ-5: at least)."""


class Firewalls:
    """Filter by address and port (RFC 4787 §5) before each firewalled node; nothing is mapped."""

    def __init__(self, clock: Clock, by_address: Mapping[Address, SimNode]) -> None:
        self._clock = clock
        self._by_address = by_address
        self._sent: dict[Address, BoundedDict[Address, float]] = {}
        """For each firewalled node, when it last sent to whom."""

    def leaving(self, source: Address, target: Address) -> tuple[Address, Address] | None:
        """Let it out, and remember where it went."""
        if self._is_firewalled(source):
            self._sent.setdefault(source, BoundedDict(REMEMBERED_MAX)).put(target, self._clock.now)
        return source, target

    def arriving(self, source: Address, target: Address) -> tuple[Address, Address] | None:
        """Let it in if the node has lately sent to its source."""
        if self._is_firewalled(target):
            sent = self._sent.get(target)
            sent_at = sent.get(source) if sent else None
            if sent_at is None or self._clock.now > sent_at + FORGOTTEN_AFTER:
                return None
        return source, target

    def _is_firewalled(self, address: Address) -> bool:
        node = self._by_address.get(address)
        return node is not None and node.firewalled
