"""How much each of many may cost us: bounded tables, token buckets, handshakes at once."""

from functools import lru_cache
from typing import Generic, TypeVar

from overlay.core.addresses import parse, prefix_of
from overlay.core.types import Address, LinkId

NAMES_MAX = 1024
"""Names whose bucket is remembered; of more, whoever spent longest ago begins anew (guess)."""
RATE = 50.0
"""Datagrams a second from one source that has no association (guess)."""
BURST = 100.0
"""Of them at once: the ICE checks of a dozen simultaneous dials (guess)."""
SOURCES_MAX = 4096
"""Sources whose bucket is remembered; the one longest unheard is forgotten first (guess)."""
AMPLIFICATION = 3
"""Times the bytes that an address has sent may go to it before it is validated (RFC 9000 §8.1)."""
HALF_OPEN_MAX = 256
"""Handshakes under way that strangers have begun; as many checks await a ClientHello (guess)."""
HALF_OPEN_PER_PREFIX = 16
"""Of either, from one prefix, once half of all places are taken (guess). Until then it may take
more: forty newcomers of one office stand behind one address."""
HALF_OPEN_TIMEOUT = 10.0
"""Seconds that either may take (guess)."""
PREFIX_BITS = (24, 48)
"""What one operator, or one spoofer behind one access network, can fill: of IPv4, of IPv6 (guess).
"""

Key = TypeVar("Key")
Value = TypeVar("Value")


class BoundedDict(dict[Key, Value], Generic[Key, Value]):
    """A dict of at most `size` entries: what was put in longest ago makes room."""

    __slots__ = ("_size",)

    def __init__(self, size: int) -> None:
        super().__init__()
        self._size = size

    def put(self, key: Key, value: Value) -> None:
        """Set it, as the newest."""
        self.pop(key, None)
        self[key] = value
        if len(self) > self._size:
            del self[next(iter(self))]


class TokenBuckets(Generic[Key]):
    """A bucket for each name that holds `burst` tokens and gains `rate` a second.

    At most `size` names are remembered: of more, whoever spent longest ago begins with a full one.
    """

    __slots__ = ("_buckets", "_burst", "_rate")

    def __init__(self, rate: float, burst: float, size: int = NAMES_MAX) -> None:
        self._rate = rate
        self._burst = burst
        # What was left, and when.
        self._buckets: BoundedDict[Key, tuple[float, float]] = BoundedDict(size)

    def __len__(self) -> int:
        return len(self._buckets)

    def left(self, name: Key, now: float) -> float:
        """Tokens that this one may still spend; below zero what it has overspent."""
        tokens, at = self._buckets.get(name, (self._burst, now))
        return min(self._burst, tokens + max(0.0, now - at) * self._rate)

    def take(self, name: Key, now: float) -> bool:
        """Take one token, if it is there; whether it was."""
        tokens = self.left(name, now)
        allowed = tokens >= 1.0
        self._buckets.put(name, (tokens - 1.0 if allowed else tokens, now))
        return allowed

    def forget(self, name: Key) -> None:
        """Its next bucket is a full one."""
        self._buckets.pop(name, None)

    def spend(self, name: Key, tokens: float, now: float) -> float:
        """Take tokens, there or not (a debt grows to one burst at most); what is left."""
        left = max(-self._burst, self.left(name, now) - tokens)
        self._buckets.put(name, (left, now))
        return left


@lru_cache(maxsize=SOURCES_MAX)
def group_of(host: str) -> str:
    """With whom a limit for each prefix counts `host`; empty: with nobody, it is exempt.

    A global address counts with its /24 or /48. Loopback is exempt: only this machine sends from
    there, and dozens of its nodes may start at once. All others (private, link-local, carrier)
    count one by one: there a prefix is a whole LAN of honest machines, and the bound on the total
    still holds.
    """
    address = parse(host)
    if address is None:
        return host
    if address.is_loopback:
        return ""
    return prefix_of(host, *PREFIX_BITS) or str(address)


def is_greedy(places: int, group: str, of_group: int) -> bool:
    """Whether a group with so many of the `places` taken has to leave the next one to others."""
    return bool(group) and of_group >= HALF_OPEN_PER_PREFIX and places >= HALF_OPEN_MAX // 2


def source_of(remote: Address) -> str:
    """Whose token bucket a datagram draws on: a global prefix's, or one local socket's.

    Near us, a noisy program must not silence the others on its machine.
    """
    group = group_of(remote.host)
    return group if "/" in group else f"{remote.host} {remote.port}"


class Allowance:
    """Never more than three times the bytes to an address than came from it (RFC 9000 §8.1)."""

    def __init__(self) -> None:
        self._bytes: BoundedDict[Address, int] = BoundedDict(SOURCES_MAX)

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
    """At most 256 handshakes of strangers at once; of the second half, 16 for each prefix."""

    def __init__(self) -> None:
        self._groups: dict[LinkId, str] = {}

    def __len__(self) -> int:
        return len(self._groups)

    def admit(self, link: LinkId, host: str) -> bool:
        """Count a handshake with `host` until `release`; False when the limits refuse it."""
        group = group_of(host)
        of_group = sum(each == group for each in self._groups.values())
        if len(self._groups) >= HALF_OPEN_MAX or is_greedy(len(self._groups), group, of_group):
            return False
        self._groups[link] = group
        return True

    def release(self, link: LinkId) -> None:
        """The handshake is over, one way or the other."""
        self._groups.pop(link, None)
