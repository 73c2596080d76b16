"""How much each of many may cost us: token buckets, bounded tables, handshakes at once."""

import ipaddress
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Generic, TypeVar

from overlay.core.types import Address, LinkId, PeerId

NAMES_MAX = 1024
"""Names remembered; of more, whoever spent longest ago begins anew."""


@dataclass(slots=True)
class Budgets:
    """Buckets that hold `burst` units and gain `rate` a second; debts count down to one burst."""

    rate: float
    burst: float
    _left: dict[PeerId, tuple[float, float]] = field(default_factory=dict)
    """What was left, and when."""

    def left(self, name: PeerId, now: float) -> float:
        """Units that this one may still spend; below zero what it has overspent."""
        units, at = self._left.get(name, (self.burst, now))
        return min(self.burst, units + (now - at) * self.rate)

    def spend(self, name: PeerId, units: float, now: float) -> float:
        """Take units from this one's bucket, whether they are there or not; what is left."""
        left = max(-self.burst, self.left(name, now) - units)
        self._left.pop(name, None)
        while len(self._left) >= NAMES_MAX:
            del self._left[next(iter(self._left))]
        self._left[name] = (left, now)
        return left


RATE = 50.0
"""Datagrams a second from one source that has no association. guess"""
BURST = 100.0
"""guess: ICE checks of a dozen simultaneous dials"""
SOURCES_MAX = 4096
"""Sources whose bucket we remember; the one longest unheard is forgotten first. guess"""
AMPLIFICATION = 3
"""paper: RFC 9000 §8.1; DESIGN.md, the door"""
HALF_OPEN_MAX = 256
HALF_OPEN_PER_PREFIX = 16
"""paper: DESIGN.md, the door; also for what waits for its ClientHello"""
HALF_OPEN_TIMEOUT = 10.0

_PREFIX_BITS = {4: 24, 6: 48}

Key = TypeVar("Key")
Value = TypeVar("Value")


class Recent(dict[Key, Value], Generic[Key, Value]):
    """A dict of bounded size: what was put in longest ago makes room."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self._size = size

    def put(self, key: Key, value: Value) -> None:
        """Set it, as the newest."""
        self.pop(key, None)
        self[key] = value
        if len(self) > self._size:
            del self[next(iter(self))]


@lru_cache(maxsize=SOURCES_MAX)
def prefix_of(host: str) -> str:
    """Whom a limit for each prefix counts `host` with; empty: nobody, it is exempt.

    A public address stands for its /24 or /48: that is what one operator, or one spoofer behind
    one access network, can fill. Loopback is exempt: only this machine sends from there, and
    dozens of its nodes may start at once. Addresses that are not global (private, link-local,
    carrier) count one by one: there a prefix is a whole LAN of honest machines, and the bound on
    the total still holds.
    """
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    if address.is_loopback:
        return ""
    if not address.is_global:
        return str(address)
    network = ipaddress.ip_network((address, _PREFIX_BITS[address.version]), strict=False)
    return str(network)


def source_of(remote: Address) -> str:
    """Whose token bucket a datagram draws on: a public prefix, or one local socket.

    Near us, a noisy program must not silence the others on its machine.
    """
    prefix = prefix_of(remote.host)
    return prefix if "/" in prefix else f"{remote.host} {remote.port}"


class TokenBuckets:
    """A token bucket for each source, made before anything else is allocated for it."""

    def __init__(self, rate: float = RATE, burst: float = BURST) -> None:
        self._rate = rate
        self._burst = burst
        self._buckets: Recent[str, tuple[float, float]] = Recent(SOURCES_MAX)

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, source: str, now: float) -> bool:
        """Take one token of `source`; False when it has none left."""
        tokens, filled_at = self._buckets.get(source, (self._burst, now))
        tokens = min(self._burst, tokens + max(0.0, now - filled_at) * self._rate)
        allowed = tokens >= 1.0
        self._buckets.put(source, (tokens - 1.0 if allowed else tokens, now))
        return allowed


class Allowance:
    """Never more than three times the bytes to an unverified address than it has sent."""

    def __init__(self) -> None:
        self._bytes: Recent[Address, int] = Recent(SOURCES_MAX)

    def __len__(self) -> int:
        return len(self._bytes)

    def earn(self, remote: Address, size: int) -> None:
        """`remote` has sent `size` bytes."""
        self._bytes.put(remote, self._bytes.get(remote, 0) + AMPLIFICATION * size)

    def spend(self, remote: Address, size: int) -> bool:
        """Whether `size` bytes may go to `remote`; they count as sent when they may."""
        left = self._bytes.get(remote, 0) - size
        if left < 0:
            return False
        self._bytes[remote] = left
        return True


class HalfOpen:
    """At most 256 inbound handshakes at once, 16 for each prefix."""

    def __init__(self) -> None:
        self._prefixes: dict[LinkId, str] = {}

    def __len__(self) -> int:
        return len(self._prefixes)

    def admit(self, link: LinkId, host: str) -> bool:
        """Count a handshake with `host` until `release`; False when the limits refuse it."""
        prefix = prefix_of(host)
        if len(self._prefixes) >= HALF_OPEN_MAX or (
            prefix and sum(p == prefix for p in self._prefixes.values()) >= HALF_OPEN_PER_PREFIX
        ):
            return False
        self._prefixes[link] = prefix
        return True

    def release(self, link: LinkId) -> None:
        """The handshake is over, one way or the other."""
        self._prefixes.pop(link, None)
