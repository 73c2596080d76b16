"""What an IP address in text form says of its owner, and the priority of a candidate there.

Hosts come from peers and may be any text: nothing here raises on one.
"""

import ipaddress
from functools import lru_cache

CACHED = 4096
"""Hosts whose prefix is remembered (guess)."""
TYPE_PREFERENCES = {"host": 126, "prflx": 110, "srflx": 100, "relay": 0}
"""RFC 8445 §5.1.2.2."""


def parse(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address, an IPv4-mapped one (RFC 4291 §2.5.5.2) as IPv4; None: no IP address."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


@lru_cache(maxsize=CACHED)
def prefix_of(host: str, bits4: int, bits6: int) -> str:
    """The network of so many bits that a global IPv4 or IPv6 address is in; empty for all others.

    >>> prefix_of("11.22.33.44", 16, 32), prefix_of("192.168.1.1", 16, 32)
    ('11.22.0.0/16', '')
    """
    address = parse(host)
    if address is None or not address.is_global:
        return ""
    bits = bits4 if address.version == 4 else bits6
    return str(ipaddress.ip_network((address, bits), strict=False))


def candidate_priority(kind: str, rank: int = 0) -> int:
    """The priority of a candidate of component 1, RFC 8445 §5.1.2.1.

    `rank`: how many of its kind we prefer to it; the local preference is 65535 less that.
    """
    return TYPE_PREFERENCES[kind] << 24 | (65_535 - rank) << 8 | 255
