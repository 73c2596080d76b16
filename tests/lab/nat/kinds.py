"""Which NATs there are, in RFC 4787's terms, and the nftables rules that make a router one of them.

The words of the enums are those that a node uses of its own NAT: a test compares them as they are.
"""

from dataclasses import dataclass
from enum import StrEnum


class Dependence(StrEnum):
    """What of the other end's address decides (RFC 4787 §4.1 and §5)."""

    INDEPENDENT = "independent"
    ADDRESS = "address"
    ADDRESS_PORT = "address-port"


class Ports(StrEnum):
    """How a new mapping's port is chosen (RFC 4787 §4.2.1)."""

    PRESERVED = "preserved"
    SEQUENTIAL = "sequential"
    RANDOM = "random"


class Ipv6(StrEnum):
    """What a home has of IPv6: global addresses without a NAT, if any."""

    NONE = "none"
    OPEN = "open"
    FIREWALLED = "firewalled"
    """In comes only what belongs to a flow that went out (RFC 6092)."""
    ONLY = "only"
    """Firewalled as well, and the hosts have no IPv4 at all."""
    DEAD = "dead"
    """Addresses and a default route, and nothing ever arrives anywhere (RFC 8305's reason)."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One sort of access to the internet. What is behind it has to find all this out by itself."""

    name: str
    mapping: Dependence = Dependence.INDEPENDENT
    filtering: Dependence = Dependence.ADDRESS_PORT
    ports: Ports = Ports.PRESERVED
    is_nat: bool = True
    accepts: bool = False
    """The router's INPUT chain lets packets for itself in: one that comes before its own host has
    sent there occupies the port in connection tracking, and the host gets another one."""
    udp: bool = True
    carriers: int = 0
    """NATs of the access network in front of the home's, 100.64.0.0/10 (RFC 6598) between."""
    summary: str = ""


_ADDRESS, _ADDRESS_PORT = Dependence.ADDRESS, Dependence.ADDRESS_PORT
_INDEPENDENT = Dependence.INDEPENDENT

KINDS = {
    kind.name: kind
    for kind in (
        Kind(
            "public",
            filtering=_INDEPENDENT,
            is_nat=False,
            summary="no NAT and no firewall: the host has a global address",
        ),
        Kind(
            "full_cone",
            filtering=_INDEPENDENT,
            summary="whoever sends to a mapped port gets in",
        ),
        Kind(
            "address_restricted",
            filtering=_ADDRESS,
            summary="in gets any port of an address that was sent to",
        ),
        Kind(
            "port_restricted",
            summary="in gets only the address and port that were sent to",
        ),
        Kind(
            "port_restricted_hashed",
            ports=Ports.RANDOM,
            summary="the same, but the mapped port is never the host's own",
        ),
        Kind(
            "carrier",
            carriers=1,
            summary="a port-restricted home behind a port-restricted carrier NAT",
        ),
        Kind(
            "address_mapped",
            mapping=_ADDRESS,
            ports=Ports.RANDOM,
            summary="a mapping for each address that is sent to",
        ),
        Kind(
            "symmetric_sequential",
            mapping=_ADDRESS_PORT,
            ports=Ports.SEQUENTIAL,
            summary="a mapping for each address and port that is sent to, numbered on",
        ),
        Kind(
            "symmetric_random",
            mapping=_ADDRESS_PORT,
            ports=Ports.RANDOM,
            summary="a mapping for each address and port that is sent to, drawn by chance",
        ),
        Kind(
            "open_input",
            accepts=True,
            summary="port-restricted, and a packet that comes too early takes its port",
        ),
        Kind(
            "no_udp",
            udp=False,
            summary="TCP only",
        ),
    )
}
"""By name, from the easiest to the worst."""

SEQUENCE = 1024
"""Mappings after which a sequential NAT begins again."""
TIMEOUT = 120
"""Seconds that an idle mapping lives if nothing else is asked for (RFC 4787 §4.3, REQ-5)."""

_DROPPING = """policy drop
    iifname { "lo", "lan" } accept
    ct state established,related accept
    icmp type echo-request accept
    icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, echo-request } accept"""


def rules(
    kind: Kind,
    wan: str,
    lan: str,
    *,
    hairpin: bool = False,
    timeout: int = TIMEOUT,
    epoch: int = 0,
    ipv6: Ipv6 = Ipv6.NONE,
) -> str:
    """The nftables ruleset of a router with the interfaces ``wan`` and ``lan``.

    `wan`: its one address; `lan`: the network behind it. With another `epoch` mappings get other
    ports, as after a restart of the router.
    """
    accepted = {Ipv6.OPEN: "meta nfproto ipv6 accept", Ipv6.DEAD: "meta nfproto ipv6 drop"}
    return f"""
table inet nat
delete table inet nat
table inet nat {{
  chain input {{
    type filter hook input priority filter
    {"policy accept" if kind.accepts else _DROPPING}
  }}
  chain forward {{
    type filter hook forward priority filter; policy drop
    {"" if kind.udp else "meta l4proto udp drop"}
    {"" if kind.is_nat else "meta nfproto ipv4 accept"}
    {accepted.get(ipv6, "")}
    ct state established,related accept
    ct status dnat accept
    iifname "lan" accept
  }}
  {_translation(kind, wan, lan, hairpin, timeout, epoch) if kind.is_nat else ""}
}}
"""


def _translation(kind: Kind, wan: str, lan: str, hairpin: bool, timeout: int, epoch: int) -> str:
    """The chains that change addresses.

    Linux's own NAT is address- and port-restricted; wider filters and hairpinning look up what was
    learnt (`_learning`). What is turned round keeps its own mapping for a source (RFC 4787 §6).
    """
    sources = _sources(kind, wan, epoch)
    arriving, to_host = f'iifname "wan" ip daddr {wan}', "dnat ip to udp dport map @mapped"
    inward = {
        Dependence.INDEPENDENT: f"{arriving} meta l4proto udp {to_host}",
        Dependence.ADDRESS: f"{arriving} udp dport . ip saddr @permitted {to_host}",
        Dependence.ADDRESS_PORT: "",
    }[kind.filtering]
    turned, outward = "", [f'oifname "wan" {source}' for source in sources]
    if hairpin:
        turned = f'iifname "lan" ip daddr {wan} meta l4proto udp {to_host}'
        outward += [f'iifname "lan" oifname "lan" ct status dnat {source}' for source in sources]
    newline = "\n    "
    looks_up = hairpin or inward or any("@chosen" in source for source in sources)
    return f"""{_learning(kind, lan, timeout) if looks_up else ""}
  chain inward {{
    type nat hook prerouting priority dstnat
    meta nfproto ipv6 accept
    {turned}
    {inward}
  }}
  chain outward {{
    type nat hook postrouting priority srcnat
    meta nfproto ipv6 accept
    {newline.join(outward)}
  }}"""


def _key(kind: Kind) -> str:
    """What has the same mapping: a host's port, or that and the address that it sends to."""
    key = "ct original ip saddr . ct original proto-src"
    return key if kind.mapping is Dependence.INDEPENDENT else f"{key} . ct original ip daddr"


def _learning(kind: Kind, lan: str, timeout: int) -> str:
    """What a router remembers beside connection tracking, learnt from each packet that goes out.

    `mapped`: which host has an outside port. `permitted`: to whom that has sent. `chosen`: which
    outside port a host's has, so that others can be drawn by chance and yet stay.
    """
    lasting = f"flags dynamic,timeout; size 65535; timeout {timeout}s"
    # Flows that began here, and flows that began outside and got in.
    ours = f"meta l4proto udp ct direction original ct original ip saddr {lan}"
    theirs = f"meta l4proto udp ct direction reply ct reply ip saddr {lan}"
    our_port, their_port = "ct reply proto-dst", "ct original proto-dst"
    to = "" if kind.mapping is Dependence.INDEPENDENT else " . ipv4_addr"
    return f"""
  map mapped {{ type inet_service : ipv4_addr . inet_service; {lasting}; }}
  set permitted {{ type inet_service . ipv4_addr; {lasting}; }}
  map chosen {{ type ipv4_addr . inet_service{to} : inet_service; {lasting}; }}
  chain learn {{
    type filter hook postrouting priority 101
    {ours} update @mapped {{ {our_port} : ct original ip saddr . ct original proto-src }}
    {theirs} update @mapped {{ {their_port} : ct reply ip saddr . ct reply proto-src }}
    {ours} update @permitted {{ {our_port} . ip daddr }}
    {theirs} update @permitted {{ {their_port} . ip daddr }}
    {ours} update @chosen {{ {_key(kind)} : {our_port} }}
  }}"""


def _sources(kind: Kind, wan: str, epoch: int) -> list[str]:
    """The statements that change the source of what goes out, UDP's before all other's."""
    plain, by_chance = f"snat ip to {wan}", f"snat ip to {wan} fully-random"
    if kind.ports is Ports.SEQUENTIAL:
        # From a map, since bare numbers come out with their bytes swapped.
        base = 20_000 + 3_000 * (epoch % 8)
        numbers = ", ".join(f"{n} : {base + n}" for n in range(SEQUENCE))
        return [f"meta l4proto udp {plain}:numgen inc mod {SEQUENCE} map {{ {numbers} }}", plain]
    if kind.mapping is Dependence.ADDRESS_PORT:
        return [by_chance]
    if kind.ports is Ports.PRESERVED and not epoch:
        return [plain]
    kept = f"meta l4proto udp {plain}:{_key(kind)} map @chosen"
    return [kept, f"meta l4proto udp {plain}:20000-59999 fully-random", plain]
