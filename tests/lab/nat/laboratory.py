"""An internet in namespaces: public hosts, and homes behind routers of every kind.

In the middle is the core, one router that counts. From it a leg leads to each home: three plain
routers, then the home's own router (or a carrier's NAT and then the home's), then its hosts::

    core ── router ── router ── router ── home's router ══ hosts         11.n.0.10 ║ 192.168.n.10
    core ── router ── router ── router ── carrier's NAT ══ home's router ══ hosts
    core ── public host                                                  5.n.0.10

So a packet of a low TTL dies between two homes after it has opened its own NAT. Every leg and
every public host has a /16 and a /32 (IPv6) of its own, from ranges that count as global: who
compares observers by prefix sees as many prefixes as there are. Nothing leads out of it.
"""

import ipaddress
import itertools
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Any

from tests.lab.nat.kinds import KINDS, Ipv6, Kind
from tests.lab.nat.machines import (
    ANYWHERE,
    ANYWHERE6,
    COUNTING,
    Flow,
    Gateway,
    Host,
    Machine,
    Router,
)
from tests.lab.nat.wire import Impairment, Wire

ADDRESSES_MAX = 32
"""Addresses that a host may have of each family, and interfaces that lead nowhere."""
ROUTERS = 3
"""Plain routers between the core and each home, unless it is asked for fewer."""


def prefix4(number: int) -> str:
    """The first half of the addresses of a leg: 11.n, and further ranges that are not used up."""
    return f"{11 + number // 250}.{number % 250}"


def prefix6(number: int) -> str:
    """The first half of the /64s of a leg, without its third group."""
    return f"2a00:{number:x}"


def _behind_carrier(number: int, suffix: int) -> str:
    """A home's WAN address in the carrier's network (RFC 6598)."""
    return f"100.{64 + number // 250}.{number % 250}.{suffix}"


class Home:
    """Hosts behind a router, a leg away from the core; made by `Laboratory.home`."""

    def __init__(
        self, kind: Kind, number: int, gateway: Gateway, carrier: Gateway | None, *, shared: bool
    ) -> None:
        self.kind, self.number = kind, number
        self.gateway, self.carrier = gateway, carrier
        self.hosts: list[Host] = []
        self._shares_carrier = shared
        self._suffixes = itertools.count(11)

    @property
    def host(self) -> Host:
        """The first host, for homes that need no more."""
        return self.hosts[0]

    @property
    def outermost(self) -> Gateway:
        """The router whose WAN address the internet sees."""
        return self.carrier or self.gateway

    @property
    def wan_address(self) -> str:
        """The address from which the internet sees it."""
        if self.host.address6 is not None and self.host.address == self.host.address6:
            return self.host.address6
        return self.outermost.wan if self.kind.is_nat else self.host.address

    def owns(self, address: str) -> bool:
        """Whether it is one that this home has, or had before it changed, on the internet."""
        number, at = self.outermost.number, ipaddress.ip_address(address)
        if at.version == 4:
            return at in ipaddress.ip_network(f"{prefix4(number)}.0.0/16")
        return at in ipaddress.ip_network(f"{prefix6(number)}::/32")

    def forget(self) -> None:
        """Lose every mapping, as if nobody had spoken yet; a shared carrier loses them too."""
        self.gateway.forget()
        if self.carrier is not None:
            self.carrier.forget()

    def rebind(self) -> None:
        """The routers restart: mappings are lost and come up with other ports."""
        self.gateway.rebind()
        if self.carrier is not None and not self._shares_carrier:
            self.carrier.rebind()

    @contextmanager
    def outage(self, *, cable: bool = False) -> Iterator[None]:
        """Nothing goes in or out within the block.

        `cable`: the hosts' cables are pulled, which they see; otherwise they are told nothing.
        """
        for host in self.hosts if cable else ():
            self.gateway.unplug(host)
        if not cable:
            self.gateway.block()
        yield
        for host in self.hosts if cable else ():
            self.gateway.plug_in(host)
        if not cable:
            self.gateway.unblock()

    def change_address(self) -> str:
        """Another WAN address of the same leg, as a provider gives one at night; returns it."""
        suffix = next(self._suffixes)
        if not self.kind.is_nat:
            self._move_host(suffix)
        elif self.carrier is None:
            self.gateway.move(f"{prefix4(self.number)}.0.{suffix}", 24)
        elif self._shares_carrier:
            self.gateway.move(_behind_carrier(self.number, suffix), 10)
        else:
            self.carrier.move(f"{prefix4(self.carrier.number)}.0.{suffix}", 24)
            self.gateway.forget()
        return self.wan_address

    def _move_host(self, suffix: int) -> None:
        host, prefix = self.host, self.gateway.lan.prefixlen
        new = f"{prefix4(self.number)}.1.{100 + suffix}"
        host.netlink.address("eth0", f"{host.address}/{prefix}", remove=True)
        host.netlink.address("eth0", f"{new}/{prefix}")
        host.netlink.route(ANYWHERE, via=str(self.gateway.lan[1]))
        host.address = new
        host.addresses.append(new)


class Laboratory(ExitStack):
    """The internet: empty at first, and gone with all its processes when the block ends."""

    def __init__(self) -> None:
        super().__init__()
        self.homes: list[Home] = []
        self.public_hosts: list[Host] = []
        self._numbers = itertools.count(1)
        self._publics = itertools.count(1)
        self._standing: dict[object, Home] = {}
        self._wires: list[Wire] = []
        self.core = Router()
        self.callback(self.core.close)
        self.core.nft(COUNTING)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        for wire in self._wires:
            wire.end()  # all at once: the kernel takes its time for each device
        return super().__exit__(kind, error, trace)

    # --- what there is on it ------------------------------------------------------------------

    def public_host(self, addresses: int = 1) -> Host:
        """A computer on the internet itself, with so many addresses of IPv4 and one of IPv6."""
        number = next(self._publics)
        network = f"{5 + number // 250}.{number % 250}.0"
        host = Host(f"{network}.10", f"2a01:{number:x}::10")
        self.callback(host.close)
        self.core.netlink.veth(f"public{number}", host.netlink, "eth0")
        self.core.netlink.address(f"public{number}", f"{network}.1/24")
        self.core.netlink.address(f"public{number}", f"2a01:{number:x}::1/64")
        host.addresses = [f"{network}.{10 + each}" for each in range(addresses)]
        for address in host.addresses:
            host.netlink.address("eth0", f"{address}/24")
        host.netlink.address("eth0", f"{host.address6}/64")
        host.netlink.route(ANYWHERE, via=f"{network}.1")
        host.netlink.route(ANYWHERE6, via=f"2a01:{number:x}::1")
        self.public_hosts.append(host)
        return host

    def carrier(
        self,
        kind: str = "port_restricted",
        *,
        hairpin: bool = False,
        timeout: int | None = None,
        impairment: Impairment | None = None,
    ) -> Gateway:
        """A carrier's NAT at the end of a leg; homes are put behind it with `home(carrier=…)`."""
        number = next(self._numbers)
        made = Gateway(
            KINDS[kind],
            number,
            f"{prefix4(number)}.0.10",
            "100.64.0.0/10",
            hairpin=hairpin,
            timeout=timeout,
        )
        self.callback(made.close)
        self._uplink(made, number, self._leg(number, impairment))
        made.apply()
        made.nft(COUNTING)
        return made

    def home(
        self,
        kind: str,
        hosts: int = 1,
        *,
        hairpin: bool = False,
        timeout: int | None = None,
        impairment: Impairment | None = None,
        ipv6: Ipv6 = Ipv6.NONE,
        carrier: Gateway | None = None,
        routers: int = ROUTERS,
        userspace: bool = False,
        lan: str | None = None,
        addresses: int = 1,
        nowhere: int = 0,
    ) -> Home:
        """A new home of a kind of `KINDS`, with its own leg unless it is behind a `carrier`.

        `routers`: how many are between it and the core, one at least. `timeout`: seconds that an
        idle UDP mapping lives. `impairment`: what its leg does to
        packets. `userspace`: its NAT is a `Wire`, exact in all that RFC 4787 says, IPv4 only.
        `lan`: the private network, of its own by default; in real life many have the same.
        `addresses`: of each host on its LAN, as many of each family that it has. `nowhere`: further
        interfaces of each host, up and with an address that hosts of all homes have, on a cable
        that leads to nobody.
        """
        chosen = KINDS[kind]
        if ipv6 is not Ipv6.NONE and (carrier or chosen.carriers):
            raise ValueError("behind a carrier's NAT there is no IPv6 here")
        if userspace and (chosen.accepts or chosen.carriers or ipv6 is not Ipv6.NONE):
            raise ValueError(f"{kind} has no NAT in user space, and IPv6 has none at all")
        if userspace and carrier:
            raise ValueError("behind a carrier's NAT homes have Linux's own")
        shared = carrier is not None
        if chosen.carriers:
            if shared:
                raise ValueError("the kind `carrier` has a carrier of its own")
            carrier = self.carrier(hairpin=hairpin, timeout=timeout, impairment=impairment)
        number = next(self._numbers)
        wan = f"{prefix4(number)}.0.10" if carrier is None else _behind_carrier(number, 10)
        lan = lan or (
            f"192.168.{number % 250}.0/24" if chosen.is_nat else f"{prefix4(number)}.1.0/24"
        )
        gateway = Gateway(chosen, number, wan, lan, hairpin=hairpin, timeout=timeout, ipv6=ipv6)
        self.callback(gateway.close)
        if carrier is not None:
            carrier.plug(gateway, "wan", wan)
        elif userspace:
            self._translated_uplink(gateway, number, impairment or Impairment())
        else:
            self._uplink(gateway, number, self._leg(number, impairment, routers))
        gateway.apply()
        home = Home(chosen, number, gateway, carrier, shared=shared)
        for each in range(hosts):
            home.hosts.append(self._host(home, 10 + each, ipv6, addresses))
            self._lead_nowhere(home.hosts[-1], nowhere)
        self.homes.append(home)
        return home

    def standing(self, kind: str, nth: int | str = 0, **options: Any) -> Home:
        """The home of a kind with these options and this number or name; built when first asked."""
        told = {name: value for name, value in options.items() if value}
        key = (kind, nth, *sorted(told.items()))
        if key not in self._standing:
            self._standing[key] = self.home(kind, **options)
        return self._standing[key]

    # --- cables -------------------------------------------------------------------------------

    def _leg(self, number: int, impairment: Impairment | None, routers: int = ROUTERS) -> Router:
        """Plain routers in a row from the core on; the last of them."""
        near: Router = self.core
        for hop in range(routers):
            far = Router()
            self.callback(far.close)
            device = f"leg{number}" if near is self.core else "down"
            if impairment is not None and near is self.core:
                wire = Wire((far, "up"), (near, device), impairment)
                self._wires.append(wire)
                self.callback(wire.close)
                near.netlink.up(device)
                far.netlink.up("up")
            else:
                near.netlink.veth(device, far.netlink, "up")
            ours, theirs = (
                f"{prefix4(number)}.255.{2 * hop}",
                f"{prefix4(number)}.255.{2 * hop + 1}",
            )
            ours6, theirs6 = (f"{prefix6(number)}:ff:{hop}::{end}" for end in (0, 1))
            for machine, name, own in ((near, device, ours), (far, "up", theirs)):
                machine.netlink.address(name, f"{own}/31")
            for machine, name, own in ((near, device, ours6), (far, "up", theirs6)):
                machine.netlink.address(name, f"{own}/127")
            near.netlink.route(f"{prefix4(number)}.0.0/16", via=theirs)
            near.netlink.route(f"{prefix6(number)}::/32", via=theirs6)
            far.netlink.route(ANYWHERE, via=ours)
            far.netlink.route(ANYWHERE6, via=ours6)
            near = far
        return near

    def _uplink(self, gateway: Gateway, number: int, last: Router) -> None:
        """Cable a gateway's WAN to the last router of its leg."""
        last.netlink.veth("down", gateway.netlink, "wan")
        last.netlink.address("down", f"{prefix4(number)}.0.1/24")
        last.netlink.address("down", f"{prefix6(number)}:0:1::1/64")
        gateway.netlink.address("wan", f"{gateway.wan}/24")
        gateway.netlink.address("wan", f"{prefix6(number)}:0:1::10/64")
        gateway.netlink.route(ANYWHERE, via=f"{prefix4(number)}.0.1")
        gateway.netlink.route(ANYWHERE6, via=f"{prefix6(number)}:0:1::1")
        last.netlink.route(f"{prefix4(number)}.1.0/24", via=gateway.wan)
        last.netlink.route(f"{prefix6(number)}:1::/48", via=f"{prefix6(number)}:0:1::10")

    def _translated_uplink(self, gateway: Gateway, number: int, impairment: Impairment) -> None:
        """The same by a wire that translates; what is on it is the gateway's whole prefix."""
        last = self._leg(number, None)
        nat = gateway.translator(impairment.seed)
        gateway.wire = Wire((gateway, "wan"), (last, "down"), impairment, nat)
        self._wires.append(gateway.wire)
        gateway.netlink.up("wan")
        last.netlink.up("down")
        last.netlink.address("down", f"{prefix4(number)}.0.1/32")
        last.netlink.route(f"{prefix4(number)}.0.0/24", device="down")
        gateway.netlink.route(ANYWHERE, device="wan")

    def _host(self, home: Home, suffix: int, ipv6: Ipv6, addresses: int) -> Host:
        gateway, prefix = home.gateway, f"{prefix6(home.number)}:1:"
        further = 140 + ADDRESSES_MAX * (suffix - 10)
        ours = [gateway.lan[suffix], *(gateway.lan[further + n] for n in range(1, addresses))]
        ours6 = [f"{prefix}:{suffix}", *(f"{prefix}:{suffix}:{n}" for n in range(1, addresses))]
        if ipv6 is Ipv6.ONLY:
            ours = []
        host = Host(str(ours[0]) if ours else ours6[0])
        self.callback(host.close)
        gateway.plug(host, "eth0", *map(str, ours))
        host.addresses = [*map(str, ours)]
        if ipv6 is not Ipv6.NONE:
            if suffix == 10:
                gateway.netlink.address("lan", f"{prefix}:1/64")
            host.address6 = ours6[0]
            host.addresses += ours6
            for each in ours6:
                host.netlink.address("eth0", f"{each}/64")
            host.netlink.route(ANYWHERE6, via=f"{prefix}:1")
        return host

    def _lead_nowhere(self, host: Host, interfaces: int) -> None:
        """Interfaces as of containers and virtual machines, but not called so."""
        if not interfaces:
            return
        closet = Machine()
        self.callback(closet.close)
        for n in range(1, interfaces + 1):
            host.netlink.veth(f"eth{n}", closet.netlink, f"end{n}")
            host.netlink.address(f"eth{n}", f"10.200.{n}.1/24")

    # --- counters -----------------------------------------------------------------------------

    def reset_counters(self) -> None:
        """Everything counted so far is forgotten."""
        for router in self._counting():
            router.nft(COUNTING)

    def _counting(self) -> set[Router]:
        return {self.core, *(home.carrier for home in self.homes if home.carrier is not None)}

    def flows(self) -> list[Flow]:
        """All that has crossed the core, each direction by itself."""
        return list(self.core.flows())

    def bytes_between(self, a: Home | Host, b: Home | Host) -> int:
        """Bytes in UDP datagrams that went between the two without anybody in between.

        Behind one carrier they meet at its NAT, and that one's counters decide.
        """
        if isinstance(a, Home) and isinstance(b, Home) and a.carrier and a.carrier is b.carrier:
            pair = {a.gateway.wan, b.gateway.wan}
            counted = [f for f in a.carrier.flows() if {f.source, f.destination} == pair]
        else:
            counted = [
                flow
                for flow in self.flows()
                if (a.owns(flow.source) and b.owns(flow.destination))
                or (b.owns(flow.source) and a.owns(flow.destination))
            ]
        return sum(flow.payload for flow in counted if flow.protocol == "udp")

    def bytes_via(self, a: Home | Host, b: Home | Host) -> int:
        """Bytes in UDP datagrams between one of the two and anybody else.

        What a relay passes on is counted twice: on its way to the relay, and from there.
        """
        counted = [
            flow
            for flow in self.flows()
            if (a.owns(flow.source) or b.owns(flow.source))
            != (a.owns(flow.destination) or b.owns(flow.destination))
        ]
        return sum(flow.payload for flow in counted if flow.protocol == "udp")
