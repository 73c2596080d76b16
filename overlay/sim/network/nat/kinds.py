"""Which NATs there are, in RFC 4787's terms: the words of `overlay.core.nat.behaviour`.

They are the kinds of the laboratory too (docs/nat-laboratory.md), and a test holds the two to be
the same; so what a pair of homes comes to in a simulated world can be held against real routers.
"""

from dataclasses import dataclass

from overlay.core.nat.behaviour import Dependence, Ports

TIMEOUT = 120.0
"""Seconds that an idle mapping lives if nothing else is said (RFC 4787 §4.3, REQ-5: at least)."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One sort of access to the internet."""

    name: str
    mapping: Dependence = Dependence.INDEPENDENT
    """What of the other end's address decides which mapping an inner endpoint has (§4.1)."""
    filtering: Dependence = Dependence.ADDRESS_PORT
    """Whose packets get in: everybody's, or those of hosts or endpoints that were sent to (§5)."""
    ports: Ports = Ports.PRESERVED
    """How the port of a new mapping is chosen (§4.2.1)."""
    timeout: float = TIMEOUT
    """Seconds after the last packet that went out, after which a mapping ends (§4.3)."""
    hairpin: bool = False
    """Hosts behind it reach each other at its outer address (§6)."""
    is_nat: bool = True
    accepts: bool = False
    """The router's INPUT chain lets packets for itself in: one that comes before its own host has
    sent there occupies the port in connection tracking, and the host gets another one."""
    udp: bool = True
    carrier: "Kind | None" = None
    """The NAT of the access network in front of the home's (RFC 6888)."""


_ADDRESS, _ADDRESS_PORT = Dependence.ADDRESS, Dependence.ADDRESS_PORT
_INDEPENDENT = Dependence.INDEPENDENT

KINDS = {
    kind.name: kind
    for kind in (
        Kind("public", filtering=_INDEPENDENT, is_nat=False),
        Kind("full_cone", filtering=_INDEPENDENT),
        Kind("address_restricted", filtering=_ADDRESS),
        Kind("port_restricted"),
        Kind("port_restricted_hashed", ports=Ports.RANDOM),
        Kind("carrier", carrier=Kind("port_restricted")),
        Kind("address_mapped", mapping=_ADDRESS, ports=Ports.RANDOM),
        Kind("symmetric_sequential", mapping=_ADDRESS_PORT, ports=Ports.SEQUENTIAL),
        Kind("symmetric_random", mapping=_ADDRESS_PORT, ports=Ports.RANDOM),
        Kind("open_input", accepts=True),
        Kind("no_udp", udp=False),
    )
}
"""By name, from the easiest to the worst."""
