"""Links, addresses, routes and mappings of a namespace, asked of the kernel without a program.

A start of ip(8) out of a large process takes 7 ms here, and a message 0.05: a laboratory of twenty
homes is a hundred namespaces with a thousand of these steps. Layouts: rtnetlink(7), and
``linux/netfilter/nfnetlink_conntrack.h``.
"""

import ipaddress
import itertools
import os
import socket
import struct

from tests.lab.namespaces import Namespace

_ROUTE, _NETFILTER = 0, 12
_REQUEST, _ACK, _EXCLUSIVE, _CREATE = 1, 4, 0x200, 0x400
_ERROR = 2
_NEW_LINK, _DEL_LINK, _NEW_ADDRESS, _DEL_ADDRESS, _NEW_ROUTE = 16, 17, 20, 21, 24
_DELETE_MAPPINGS = 1 << 8 | 2
"""NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_DELETE: without a tuple, all of this namespace's."""
_NO_DAD = 0x02
"""IFA_F_NODAD (RFC 4862 §5.4)."""


_indices = itertools.count(1000)


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", len(value) + 4, kind) + value + bytes(-len(value) % 4)


def _name(text: str) -> bytes:
    return text.encode() + b"\0"


def _link(index: int = 0, *, up: bool = False, changed: bool = False) -> bytes:
    """struct ifinfomsg; `changed`: that it is not up is no default, but asked for."""
    return struct.pack("=BxHiII", 0, 0, index, int(up), int(up or changed))


class Netlink:
    """The kernel's side of one namespace; every method raises the kernel's OSError."""

    def __init__(self, namespace: Namespace) -> None:
        self._namespace = namespace
        self._socket = self._open(_ROUTE)
        self._numbers = itertools.count(1)
        self._indices: dict[str, int] = {}

    def _open(self, protocol: int) -> socket.socket:
        made = self._namespace.call(
            lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol)
        )
        made.bind((0, 0))
        return made

    def _ask(
        self, kind: int, body: bytes, flags: int = 0, via: socket.socket | None = None
    ) -> None:
        """Send one request, and wait for the kernel's word on it."""
        via = via or self._socket
        number = next(self._numbers)
        header = struct.pack("=IHHII", 16 + len(body), kind, _REQUEST | _ACK | flags, number, 0)
        via.send(header + body)
        answer = via.recv(65536)
        (told,) = struct.unpack_from("=H", answer, 4)
        assert told == _ERROR, "every request asks for an acknowledgement"
        (error,) = struct.unpack_from("=i", answer, 16)
        if error:
            raise OSError(-error, os.strerror(-error))

    def _index(self, name: str) -> int:
        if name not in self._indices:
            self._indices[name] = self._namespace.call(lambda: socket.if_nametoindex(name))
        return self._indices[name]

    def _fresh(self, name: str) -> int:
        """A number for an interface that no interface of the process's has.

        Where the two ends of a cable have the same number, Linux takes either for a device of
        its own and lets up to a second pass before it uses it (`linkwatch_urgent_event`).
        """
        self._indices[name] = next(_indices)
        return self._indices[name]

    def bridge(self, name: str) -> None:
        """A switch, still down, without spanning tree: its ports forward at once."""
        kind = _attribute(18, _attribute(1, b"bridge"))
        body = _link(self._fresh(name)) + _attribute(3, _name(name)) + kind
        self._ask(_NEW_LINK, body, _CREATE | _EXCLUSIVE)

    def veth(self, name: str, far: "Netlink", far_name: str, *, master: str | None = None) -> None:
        """A virtual cable to `far`, both ends up; ours a port of the bridge `master` if given."""
        peer = _link(far._fresh(far_name)) + _attribute(3, _name(far_name))
        peer += _attribute(28, struct.pack("=I", far._namespace.fd))
        kind = _attribute(1, b"veth") + _attribute(2, _attribute(1, peer))
        body = _link(self._fresh(name)) + _attribute(3, _name(name))
        if master is not None:
            body += _attribute(10, struct.pack("=I", self._index(master)))
        self._ask(_NEW_LINK, body + _attribute(18, kind), _CREATE | _EXCLUSIVE)
        self.up(name)
        far.up(far_name)

    def up(self, name: str) -> None:
        """Switch an interface on.

        The first question for a neighbour's hardware address (RFC 826) is lost when the other end
        was switched on just now; by default the next one comes after a second.
        """

        def ask_again_soon() -> None:
            for family in ("ipv4", "ipv6"):
                for key, value in (("retrans_time_ms", 20), ("mcast_solicit", 50)):
                    with open(f"/proc/sys/net/{family}/neigh/{name}/{key}", "w") as file:
                        file.write(str(value))

        self._ask(_NEW_LINK, _link(self._index(name), up=True))
        self._namespace.call(ask_again_soon)

    def down(self, name: str) -> None:
        """Switch an interface off: the other end of its cable sees no carrier any more."""
        self._ask(_NEW_LINK, _link(self._index(name), changed=True))

    def remove(self, name: str) -> None:
        """Take an interface away, with its other end if it is a cable."""
        self._ask(_DEL_LINK, _link(self._index(name)))

    def address(self, name: str, interface: str, *, remove: bool = False) -> None:
        """Give an interface an address with its prefix length (`11.0.0.1/24`), or take it."""
        at = ipaddress.ip_interface(interface)
        family = socket.AF_INET if at.version == 4 else socket.AF_INET6
        flags = 0 if at.version == 4 else _NO_DAD
        head = struct.pack("=BBBBI", family, at.network.prefixlen, flags, 0, self._index(name))
        body = head + _attribute(2, at.packed) + _attribute(1, at.packed)
        if remove:
            self._ask(_DEL_ADDRESS, body)
        else:
            self._ask(_NEW_ADDRESS, body, _CREATE)

    def route(self, network: str, *, via: str | None = None, device: str | None = None) -> None:
        """Send what is for `network` to the next hop `via`, or straight out of `device`."""
        to = ipaddress.ip_network(network)
        family = socket.AF_INET if to.version == 4 else socket.AF_INET6
        scope = 253 if via is None and to.version == 4 else 0
        head = struct.pack("=BBBBBBBBI", family, to.prefixlen, 0, 0, 254, 4, scope, 1, 0)
        body = head + _attribute(1, to.network_address.packed)
        if via is not None:
            body += _attribute(5, ipaddress.ip_address(via).packed)
        if device is not None:
            body += _attribute(4, struct.pack("=I", self._index(device)))
        self._ask(_NEW_ROUTE, body, _CREATE)

    def forget_mappings(self) -> None:
        """Empty connection tracking: every mapping and every flow that a firewall knows."""
        with self._open(_NETFILTER) as conntrack:
            self._ask(_DELETE_MAPPINGS, struct.pack("=BBH", socket.AF_UNSPEC, 0, 0), via=conntrack)

    def close(self) -> None:
        self._socket.close()
