"""Address prefixes: whose machines may well be one attacker's."""

import ipaddress
from functools import lru_cache

from overlay.core.wire.documents import Record

PREFIX_BITS = {4: 16, 6: 32}


@lru_cache(maxsize=4096)
def prefix_of(host: str) -> str:
    """Whose machines may well be one attacker's: a global address' /16 or /32; else nobody's.

    >>> prefix_of("11.22.33.44"), prefix_of("192.168.1.1")
    ('11.22.0.0/16', '')
    """
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return ""
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    if not address.is_global:
        return ""
    bits = PREFIX_BITS[address.version]
    return str(ipaddress.ip_network((address, bits), strict=False))


def prefix_in(record: Record | None) -> str:
    """The prefix of the first global address in a record; proven ones first."""
    entries = sorted(record.addresses, key=lambda entry: not entry.proven) if record else []
    return next(filter(None, (prefix_of(entry.host) for entry in entries)), "")
