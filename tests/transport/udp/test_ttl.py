"""A TTL that one datagram alone has; other tests of sockets need Linux, and this one does not."""

import socket
import struct
from functools import partial

import pytest

from overlay.core.types import Address
from overlay.transport.udp.sockets import UdpSocket
from tests.transport.nodes import PATIENCE


@pytest.mark.parametrize(
    ("bound", "asked"),
    [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.2"), ("::1", "::1"), ("::", "::1")],
)
def test_a_low_ttl_is_one_datagrams_alone(bound: str, asked: str) -> None:
    """And it leaves from the address that was asked for, as any other."""
    ipv6 = ":" in bound
    family = socket.AF_INET6 if ipv6 else socket.AF_INET
    level, receive = (
        (socket.IPPROTO_IPV6, socket.IPV6_RECVHOPLIMIT)
        if ipv6
        else (socket.IPPROTO_IP, getattr(socket, "IP_RECVTTL", 12))
    )
    sender = UdpSocket(Address(bound, 0))
    with socket.socket(family, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("::1" if ipv6 else "127.0.0.1", 0))
        receiver.settimeout(PATIENCE)
        receiver.setsockopt(level, receive, 1)
        remote, local = Address(*receiver.getsockname()[:2]), Address(asked, 1)
        for send in (
            partial(sender.send, b"usual", remote, local),
            partial(sender.send_low, b"low", remote, local, 4),
            partial(sender.send, b"usual", remote, local),
        ):
            send()
        heard = [receiver.recvmsg(64, 64) for _ in range(3)]
    sender.close()
    ttls = [struct.unpack("=i", ancillary[0][2])[0] for _, ancillary, _, _ in heard]
    assert [data for data, _, _, _ in heard] == [b"usual", b"low", b"usual"]
    assert ttls[1] == 4
    assert ttls[0] == ttls[2] >= 32
    assert {source[0] for _, _, _, source in heard} == {asked}
