"""The machines of the laboratory: hosts, plain routers that may count, and gateways with a NAT."""

import ipaddress
import itertools
from collections.abc import Iterator
from dataclasses import dataclass

from tests.lab.namespaces import Namespace
from tests.lab.nat.kinds import TIMEOUT, Ipv6, Kind, rules
from tests.lab.nat.wire import Wire
from tests.lab.netlink import Netlink

ANYWHERE, ANYWHERE6 = "0.0.0.0/0", "::/0"
_HEADERS = {4: 28, 6: 48}
"""Bytes of the headers of IP and UDP."""

COUNTING = """
table inet traffic
delete table inet traffic
table inet traffic {
  set flows4 {
    type ipv4_addr . ipv4_addr . inet_proto
    flags dynamic; size 65535; counter
  }
  set flows6 {
    type ipv6_addr . ipv6_addr . inet_proto
    flags dynamic; size 65535; counter
  }
  chain forward {
    type filter hook forward priority filter
    update @flows4 { ip saddr . ip daddr . meta l4proto counter }
    update @flows6 { ip6 saddr . ip6 daddr . meta l4proto counter }
  }
}
"""


BLOCKING = """
table inet outage
delete table inet outage
table inet outage {
  chain forward { type filter hook forward priority -300; policy drop; }
}
"""
UNBLOCKING = """
table inet outage
delete table inet outage
"""


@dataclass(frozen=True, slots=True)
class Flow:
    """What went from one address to another through a router that counts."""

    source: str
    destination: str
    protocol: str
    """``udp``, ``tcp``, ``icmp`` …"""
    packets: int
    bytes: int
    """With the headers of IP."""

    @property
    def payload(self) -> int:
        """Bytes within UDP datagrams that were no fragments."""
        headers = _HEADERS[ipaddress.ip_address(self.source).version]
        return self.bytes - headers * self.packets


class Machine(Namespace):
    """A namespace with the kernel's ear."""

    def __init__(self) -> None:
        super().__init__()
        self.netlink = Netlink(self)

    def sysctls(self, **values: int) -> None:
        """Set kernel parameters, their dots written as double underscores."""

        def write() -> None:
            for key, value in values.items():
                with open("/proc/sys/" + key.replace("__", "/"), "w") as file:
                    file.write(str(value))

        self.call(write)

    def close(self) -> None:
        self.netlink.close()
        super().close()


class Router(Machine):
    """It forwards IPv4 and IPv6, and sends nobody elsewhere (RFC 792's redirects)."""

    def __init__(self) -> None:
        super().__init__()
        self.sysctls(
            net__ipv4__ip_forward=1,
            net__ipv6__conf__all__forwarding=1,
            net__ipv4__conf__all__send_redirects=0,
            net__ipv4__conf__default__send_redirects=0,
        )

    def flows(self) -> Iterator[Flow]:
        """What it has counted, if it was told to count."""
        for name in ("flows4", "flows6"):
            listed = self.nft_json(f"list set inet traffic {name}")
            (told,) = [entry["set"] for entry in listed if "set" in entry]
            for element in told.get("elem", []):
                counter = element["elem"]["counter"]
                source, destination, protocol = element["elem"]["val"]["concat"]
                yield Flow(source, destination, str(protocol), counter["packets"], counter["bytes"])


class Host(Machine):
    """A computer: processes run in it with `enter`, sockets are made in it with `call`."""

    def __init__(self, address: str, address6: str | None = None) -> None:
        super().__init__()
        self.address, self.address6 = address, address6
        self.addresses = [address]

    def owns(self, address: str) -> bool:
        return address in (*self.addresses, self.address6)


class Gateway(Router):
    """A router of one kind between ``wan`` and ``lan``: a home's, or a carrier's."""

    def __init__(
        self,
        kind: Kind,
        number: int,
        wan: str,
        lan: str,
        *,
        hairpin: bool,
        timeout: int | None,
        ipv6: Ipv6 = Ipv6.NONE,
    ) -> None:
        """`wan`: its address there; `lan`: the network behind it, of which it takes the first."""
        super().__init__()
        self.kind, self.number, self.wan = kind, number, wan
        self.lan = ipaddress.ip_network(lan)
        self.wire: Wire | None = None
        """What translates in this router's place, if anything does."""
        self._hairpin, self._timeout, self._ipv6 = hairpin, timeout, ipv6
        self._epoch = 0
        self._ports = itertools.count()
        self._plugged: dict[Machine, str] = {}
        self.netlink.bridge("lan")
        self.netlink.address("lan", f"{self.lan[1]}/{self.lan.prefixlen}")
        for family in ("iptables", "ip6tables"):
            # What one host sends to another would otherwise meet the router's rules.
            self.sysctl(f"net.bridge.bridge-nf-call-{family}", 0)
        if timeout is not None:
            self.sysctls(
                net__netfilter__nf_conntrack_udp_timeout=timeout,
                net__netfilter__nf_conntrack_udp_timeout_stream=timeout,
            )

    def plug(self, machine: Machine, interface: str, *addresses: str) -> None:
        """Cable a machine to the LAN; its default route leads here, from the first address."""
        port = self._plugged[machine] = f"port{next(self._ports)}"
        self.netlink.veth(port, machine.netlink, interface, master="lan")
        # Up only now: a switch without a port has no carrier, and gets it up to a second late.
        self.netlink.up("lan")
        for address in addresses:
            machine.netlink.address(interface, f"{address}/{self.lan.prefixlen}")
        if addresses:
            machine.netlink.route(ANYWHERE, via=str(self.lan[1]))

    def unplug(self, machine: Machine) -> None:
        """Pull its cable: the machine keeps its addresses, and sees that there is no carrier."""
        self.netlink.down(self._plugged[machine])

    def plug_in(self, machine: Machine) -> None:
        """Put the cable back."""
        self.netlink.up(self._plugged[machine])

    def block(self) -> None:
        """Pass nothing on any more, and say nothing of it: somewhere beyond it the way is broken.

        What is mapped stays mapped.
        """
        self.nft(BLOCKING)

    def unblock(self) -> None:
        """Pass on again what its rules say."""
        self.nft(UNBLOCKING)

    def apply(self) -> None:
        """Load the rules of its kind; mappings that exist stay."""
        if self.wire is not None:
            return
        self.nft(
            rules(
                self.kind,
                self.wan,
                str(self.lan),
                hairpin=self._hairpin,
                timeout=self._timeout or TIMEOUT,
                epoch=self._epoch,
                ipv6=self._ipv6,
            )
        )

    def translator(self, seed: int) -> dict[str, object]:
        """The same kind for a `Wire`."""
        return {
            "wan": self.wan,
            "mapping": self.kind.mapping,
            "filtering": self.kind.filtering,
            "ports": self.kind.ports,
            "hairpin": self._hairpin,
            "timeout": self._timeout or TIMEOUT,
            "udp": self.kind.udp,
            "seed": seed,
        }

    def forget(self) -> None:
        """Lose every mapping and every flow."""
        if self.wire is not None:
            self.wire.forget()
            return
        self.apply()
        self.netlink.forget_mappings()

    def rebind(self) -> None:
        """Restart: every mapping is lost and none comes up with the port that it had."""
        self._epoch += 1
        if self.wire is not None:
            self.wire.forget(move_ports=True)
        else:
            self.forget()

    def move(self, wan: str, prefix: int) -> None:
        """Change the address on the WAN; every mapping is lost."""
        old, self.wan = self.wan, wan
        if self.wire is not None:
            self.wire.forget(wan)
            return
        default = str(ipaddress.ip_interface(f"{wan}/{prefix}").network[1])
        # In this order: with an interface's first address Linux takes all others of its network.
        self.netlink.address("wan", f"{old}/{prefix}", remove=True)
        self.netlink.address("wan", f"{wan}/{prefix}")
        self.netlink.route(ANYWHERE, via=default)
        self.forget()

    def close(self) -> None:
        if self.wire is not None:
            self.wire.close()
        super().close()
