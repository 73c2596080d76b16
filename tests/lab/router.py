"""Two LANs with a router each, and between the routers a leg that may carry small packets only.

It stands alone because what it does in silence is the point: no host is ever told.
"""

from contextlib import ExitStack

from tests.lab.lan import Host, Lan
from tests.lab.namespaces import Namespace, join_veth

SILENT = """
table inet silent {
  chain output {
    type filter hook output priority filter
    icmp type { destination-unreachable, time-exceeded } drop
    icmpv6 type { destination-unreachable, packet-too-big, time-exceeded } drop
  }
}
"""
"""A router that says nothing about packets which it does not pass on: a black hole (RFC 2923)."""


NO_FRAGMENTS = """
table ip fragments {
  chain arriving {
    type filter hook prerouting priority -450
    ip frag-off & 0x3fff != 0 drop
  }
}
"""
"""As many firewalls do: before anything puts the fragments together again."""


class Routed(ExitStack):
    """`near` and `far`: two LANs that reach each other over two routers, by IPv4 and IPv6."""

    def __init__(self, *, silent: bool = True) -> None:
        super().__init__()
        self.near = self.enter_context(Lan("10.81.0.0/24"))
        self.far = self.enter_context(Lan("10.82.0.0/24"))
        self._routers = self.enter_context(Namespace()), self.enter_context(Namespace())
        join_veth(self._routers[0], "leg", self._routers[1], "leg")
        for side, (router, lan) in enumerate(
            zip(self._routers, (self.near, self.far), strict=True)
        ):
            for key in ("net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"):
                router.sysctl(key, 1)
            lan.plug(router, "lan", str(lan.network[254]))
            ours, other = f"fd77:{side}::/64", f"fd77:{1 - side}::/64"
            other_lan = (self.far, self.near)[side].network
            router.ip(
                f"addr add {ours.replace('::', '::fe')} dev lan",
                f"addr add 10.83.0.{side}/31 dev leg",
                f"addr add fd77:2::{side + 1}/64 dev leg",
                "link set leg up",
                f"route add {other_lan} via 10.83.0.{1 - side}",
                f"route add {other} via fd77:2::{2 - side}",
            )
            if silent:
                router.nft(SILENT)

    def host(self, lan: Lan) -> Host:
        """A machine without a firewall on one of the LANs; its default route leads to the other."""
        made = lan.host(firewall=None)
        prefix = f"fd77:{int(lan is self.far)}::"
        made.ip(
            f"addr add {prefix}{len(lan.hosts)}/64 dev eth0",
            f"route add default via {lan.network[254]}",
            f"route add default via {prefix}fe",
        )
        return made

    def narrow(self, mtu: int) -> None:
        """From now on the leg carries packets of at most `mtu` bytes.

        Below 1,280 it loses its IPv6 addresses for good: IPv6 knows no such link (RFC 8200 §5).
        """
        for router in self._routers:
            router.ip(f"link set leg mtu {mtu}")

    def drop_fragments(self) -> None:
        """From now on no fragment of an IPv4 packet gets through."""
        for router in self._routers:
            router.nft(NO_FRAGMENTS)
