"""What an IP address in text form says of its owner, and which of its own a machine names first.

Hosts come from peers and may be any text: nothing here raises on one.
"""

import ipaddress
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from itertools import chain, zip_longest

from overlay.core.types import Address, CircuitId

_PRIVATE: dict[int, list[ipaddress.IPv4Network] | list[ipaddress.IPv6Network]] = {
    4: [
        ipaddress.IPv4Network(network)
        for network in (
            *("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10"),
            *("169.254.0.0/16", "127.0.0.0/8"),
        )
    ],
    6: [ipaddress.IPv6Network(network) for network in ("fc00::/7", "fe80::/10", "::1/128")],
}

CACHED = 4096
"""Hosts whose prefix is remembered (guess)."""
LOCALS_MAX = 32
"""Addresses of this machine that are used at all (guess): hosts of containers have dozens."""
OF_SOFTWARE = re.compile(
    r"docker|podman|br-|bridge|virbr|veth|vnet|vmnet|vbox|vethernet|lx[cd]|cni|cali|flannel|"
    r"tun|tap|utun|wg|tailscale|zt",
    re.IGNORECASE,
)
"""How the names of interfaces begin that lead to containers, virtual machines and tunnels, where
few others are (guess)."""
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


@lru_cache(maxsize=CACHED)
def link_of(host: str) -> str:
    """The network that is most likely one link, whose hosts share a way out: /24 or /64 (guess).

    >>> link_of("192.168.1.10"), link_of("2001:db8::7")
    ('192.168.1.0/24', '2001:db8::/64')
    """
    address = parse(host)
    if address is None:
        return ""
    return str(ipaddress.ip_network((address, 24 if address.version == 4 else 64), strict=False))


@lru_cache(maxsize=CACHED)
def is_private(host: str) -> bool:
    """Whether the address means something on its own network only, or is none.

    RFC 1918, RFC 6598 (behind a carrier's NAT), RFC 3927, RFC 4193, link-local and loopback.
    """
    address = parse(host)
    return address is None or any(address in network for network in _PRIVATE[address.version])


def candidate_priority(kind: str, rank: int = 0) -> int:
    """The priority of a candidate of component 1, RFC 8445 §5.1.2.1.

    `rank`: how many of its kind we prefer to it; the local preference is 65535 less that.
    """
    return TYPE_PREFERENCES[kind] << 24 | (65_535 - rank) << 8 | 255


# --- circuits ---------------------------------------------------------------------------------

_CIRCUIT = "circuit "
CIRCUIT_BYTES = 8


def circuit_address(circuit: CircuitId) -> Address:
    """Where datagrams over a circuit come from and go to, as ICE and DTLS see it.

    It is no IP address: no socket can yield it, and no peer can name it.
    """
    return Address(_CIRCUIT + circuit.hex(), 0)


def is_circuit(address: Address) -> bool:
    """Whether this stands for a circuit. Port 0 alone does not say so: UDP may have it, too."""
    return not address.port and address.host.startswith(_CIRCUIT)


def circuit_of(address: Address) -> CircuitId | None:
    """The circuit that this address stands for; None: an address of UDP's."""
    if not is_circuit(address):
        return None
    return CircuitId(bytes.fromhex(address.host[len(_CIRCUIT) :]))


# --- our own ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LocalHost:
    """An address of this machine, and the name of the network interface that has it."""

    host: str
    interface: str


class Reach(IntEnum):
    """From how far a node can be dialled, by its addresses alone."""

    NOWHERE = 0
    """It has none."""
    MACHINE = 1
    """Loopback only."""
    LINK = 2
    """Link-local ones at best (RFC 3927, RFC 4291 §2.5.6)."""
    NETWORK = 3


def reach_of(hosts: Iterable[str]) -> Reach:
    """From how far these addresses lead to us."""
    return max(map(_reach_of, hosts), default=Reach.NOWHERE)


def _reach_of(host: str) -> Reach:
    address = parse(host)
    if address is None:
        return Reach.NOWHERE
    if address.is_loopback:
        return Reach.MACHINE
    return Reach.LINK if address.is_link_local else Reach.NETWORK


def is_loopback(host: str) -> bool:
    """Whether it leads nowhere but to the machine that sends there."""
    address = parse(host)
    return address is not None and address.is_loopback


def may_be_nat(host: str) -> bool:
    """Whether a NAT may stand at this address, so that it is not its node's own."""
    address = parse(host)
    return address is not None and address.version == 4 and address.is_global


def is_global_ipv6(host: str) -> bool:
    """Whether it is an IPv6 address that may be reached from anywhere."""
    address = parse(host)
    return address is not None and address.version == 6 and address.is_global


def needs_zone(host: str) -> bool:
    """Whether it is link-local in IPv6: the same address may be on each link (RFC 4007 §6)."""
    address = parse(host)
    return address is not None and address.version == 6 and address.is_link_local


def named_hosts(hosts: Sequence[LocalHost], routed: Iterable[str]) -> list[str]:
    """Under which of its addresses a machine may be reached, best first; at most `LOCALS_MAX`.

    `routed`: from where the default routes send. They come first, since most others are beyond
    them; then the LAN's, then those of containers, virtual machines and tunnels. Link-local ones
    only where there is no LAN's, and loopback only where there is nothing else.
    """
    loopback = [each for each in hosts if is_loopback(each.host)]
    local = [each for each in hosts if needs_zone(each.host)]
    near = {*loopback, *local}
    others = {each.host: each for each in hosts if each not in near}
    first = [others[host] for host in routed if host in others]
    uplinks = {each.interface for each in first}
    lan, rest = list[LocalHost](), list[LocalHost]()
    for each in [each for each in others.values() if each not in first]:
        (rest if _is_of_software(each) and each.interface not in uplinks else lan).append(each)
    if not lan and not first:
        lan = [each for each in local if not _is_of_software(each)]
    chosen = first + _by_turns(lan, uplinks) + _by_turns(rest, uplinks)
    if not chosen:
        chosen = _by_turns(loopback, uplinks)
    return list(dict.fromkeys(each.host for each in chosen))[:LOCALS_MAX]


def _is_of_software(local: LocalHost) -> bool:
    return OF_SOFTWARE.match(local.interface) is not None


def _by_turns(hosts: Iterable[LocalHost], uplinks: set[str]) -> list[LocalHost]:
    """The families by turns, in each one address of each interface, then the second ones.

    So no interface and no family crowds the others out.
    """
    lanes: dict[bool, list[tuple[int, bool, LocalHost]]] = {False: [], True: []}
    seen: Counter[tuple[str, bool]] = Counter()
    for each in hosts:
        ipv4 = ":" not in each.host
        lanes[ipv4].append((seen[each.interface, ipv4], each.interface not in uplinks, each))
        seen[each.interface, ipv4] += 1
    for lane in lanes.values():
        lane.sort(key=lambda turn: turn[:2])
    by_turns = chain.from_iterable(zip_longest(*lanes.values()))
    return [turn[2] for turn in by_turns if turn is not None]
