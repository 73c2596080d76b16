"""A LAN: one switch, hosts in namespaces of their own, each behind the firewall it asks for.

A router or a NAT box is a `Namespace` plugged into two LANs with `Lan.plug`, with its own rules.
"""

import ipaddress
from types import TracebackType
from typing import Self

from tests.lab.namespaces import Namespace, join_veth

STATEFUL = """
table inet firewall {
  chain input {
    type filter hook input priority filter; policy drop;
    iifname "lo" accept
    ct state established,related accept
    icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
  }
}
"""
"""A host firewall as most systems ship it: in comes only what was asked for."""


class Host(Namespace):
    """A machine on the LAN: a namespace with one address on ``eth0``."""

    def __init__(self, address: str) -> None:
        super().__init__()
        self.address = address


class Lan:
    """A bridge in a namespace of its own, and the hosts plugged into it."""

    def __init__(self, network: str = "10.77.0.0/24") -> None:
        self.network = ipaddress.ip_network(network)
        self.hosts: list[Host] = []
        self._addresses = iter(self.network.hosts())
        self._ports = 0
        self._switch = Namespace()
        # Without forward_delay 0 a port is deaf for 15 s (IEEE 802.1D listening and learning).
        self._switch.ip("link add br0 type bridge forward_delay 0 stp_state 0", "link set br0 up")
        for family in ("iptables", "ip6tables", "arptables"):
            # Bridged frames would otherwise cross the switch's own packet filter.
            self._switch.sysctl(f"net.bridge.bridge-nf-call-{family}", 0)

    def host(self, firewall: str | None = STATEFUL) -> Host:
        """A new machine with the next address; None leaves it open."""
        host = Host(str(next(self._addresses)))
        self.hosts.append(host)
        self.plug(host, "eth0", host.address)
        if firewall is not None:
            host.nft(firewall)
        return host

    def plug(self, namespace: Namespace, interface: str, address: str) -> None:
        """Cable a namespace to the switch."""
        port = f"port{self._ports}"
        self._ports += 1
        join_veth(self._switch, port, namespace, interface)
        self._switch.ip(f"link set {port} master br0", f"link set {port} up")
        namespace.ip(
            f"addr add {address}/{self.network.prefixlen} dev {interface}",
            f"link set {interface} up",
        )

    def close(self) -> None:
        for host in self.hosts:
            host.close()
        self._switch.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
