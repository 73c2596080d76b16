"""Which addresses a machine finds at its interfaces, and a node that follows them."""

import contextlib
import json
import socket
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from overlay.core.types import Address
from overlay.transport.udp.interfaces import look_around
from tests.lab.lan import Lan
from tests.lab.namespaces import Namespace, join_veth, why_unavailable
from tests.lab.nodes import Crew, Node, overlay, wait_for

pytestmark = [pytest.mark.netns, pytest.mark.needs("ip", "nft", "unshare")]
BOTH = (Address("::", 9), Address("0.0.0.0", 9))


@pytest.fixture(autouse=True)
def _can_make_namespaces() -> None:
    if why := why_unavailable():
        pytest.skip(why)


@pytest.fixture
def host() -> Iterator[Namespace]:
    with Namespace() as host, Namespace() as outside:
        join_veth(host, "eth0", outside, "eth0")
        outside.ip("link set eth0 up")
        host.ip("link set eth0 up", "addr add 10.77.0.1/24 dev eth0")
        wait_for(lambda: named(host) == ["10.77.0.1"], 10.0, "a carrier", 0.02)
        yield host


def named(host: Namespace, bound: Sequence[Address] = BOTH) -> list[str]:
    """Under which addresses a node there could be reached."""
    return [address.host for address in host.call(lambda: list(look_around().reach(bound)))]


def comes_to_name(host: Namespace, count: int) -> None:
    """Wait until it names so many: the kernel tells of carriers when it has time."""
    wait_for(lambda: len(named(host)) == count, 10.0, f"{count} addresses", 0.02)


def guests(count: int) -> list[str]:
    """Commands that make so many bridges with a guest each, and addresses of both families."""
    return [
        line
        for number in range(count)
        for line in (
            f"link add virbr{number} type bridge",
            f"link add vnet{number} type veth peer name guest{number}",
            f"link set vnet{number} master virbr{number}",
            *(f"link set {name}{number} up" for name in ("virbr", "vnet", "guest")),
            f"addr add fd00:{number}::1/64 dev virbr{number}",
            f"addr add 172.{17 + number}.0.1/16 dev virbr{number}",
        )
    ]


def test_the_lan_comes_before_bridges_and_the_default_route_before_all(host: Namespace) -> None:
    host.ip(*guests(8))
    comes_to_name(host, 17)
    assert named(host)[0] == "10.77.0.1", "though IPv6 comes first elsewhere"
    host.ip(
        "addr add 2001:db8::1/64 dev eth0 nodad",
        "addr add 2001:db8::2/64 dev eth0",
        "addr add 10.77.0.2/24 dev eth0",
        "route add default via 10.77.0.254 src 10.77.0.2",
        "route add default via 2001:db8::ff src 2001:db8::1",
    )
    assert named(host)[:2] == ["2001:db8::1", "10.77.0.2"]
    assert set(named(host)[2:4]) == {"2001:db8::2", "10.77.0.1"}


def test_an_interface_that_is_down_or_without_a_carrier_has_no_addresses(host: Namespace) -> None:
    host.ip(*guests(1))
    comes_to_name(host, 3)
    host.ip("link set guest0 down")
    comes_to_name(host, 1)
    assert named(host) == ["10.77.0.1"], "nobody is plugged in at the bridge"
    host.ip("link set eth0 down")
    assert named(host) == ["::1", "127.0.0.1"]
    host.ip("link set eth0 up")
    comes_to_name(host, 1)
    assert named(host) == ["10.77.0.1"]


def test_link_local_addresses_are_named_where_there_are_no_others(host: Namespace) -> None:
    host.ip("addr flush dev eth0 scope global")
    (link_local,) = named(host)
    assert link_local.startswith("fe80::")
    assert named(host, BOTH[1:]) == ["127.0.0.1"], "IPv4 has nothing else"
    host.ip("link set lo down", "link set eth0 down")
    assert named(host) == []


def test_a_told_address_is_named_for_as_long_as_an_interface_has_it(host: Namespace) -> None:
    bound = [Address("10.77.0.1", 9)]
    assert named(host, bound) == ["10.77.0.1"]
    host.ip("addr del 10.77.0.1/24 dev eth0")
    assert named(host, bound) == []


def test_to_ask_for_the_default_routes_sends_nothing(host: Namespace) -> None:
    host.ip("route add default via 10.77.0.254")
    with host.call(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0x0300)) as every:
        every.bind(("eth0", 0))
        every.settimeout(0.2)
        assert host.call(look_around).routed == ("10.77.0.1",)
        frames = []
        with contextlib.suppress(TimeoutError):
            while True:
                frames.append(every.recv(2048))
    of_ipv4 = [frame for frame in frames if frame[12:14] in (b"\x08\x00", b"\x08\x06")]
    assert of_ipv4 == [], "no packet, and no question after the router"


def test_a_node_started_before_its_network_follows_it() -> None:
    with (
        Namespace() as island,
        Lan() as lan,
        tempfile.TemporaryDirectory(prefix="lab-") as directory,
        Crew(Path(directory)) as crew,
    ):
        node = crew.node("a", enter=island.enter)
        process = node.start(listen=None)
        node.wait_ready()
        assert all("127.0.0.1" in at or "[::1]" in at for at in node.ready["listen"])
        wait_for(lambda: "only_loopback" in node.log, 10.0, "the log to say so")
        lan.plug(island, "eth0", "10.77.0.9")
        event = json.loads(process.out.next(20.0))
        assert event["event"] == "invite"
        assert hosts(event["link"]) == ["10.77.0.9"]
        island.ip("addr del 10.77.0.9/24 dev eth0", "addr add 10.77.0.10/24 dev eth0")
        wait_for(lambda: listen(node) == ["10.77.0.10"], 20.0, "the new address, the old one gone")
        assert hosts(node.invite()) == ["10.77.0.10"]
        island.ip("link set eth0 down")
        wait_for(lambda: "127.0.0.1" in listen(node), 20.0, "loopback again")


def listen(node: Node) -> list[str]:
    """The IP addresses in its status."""
    told: list[str] = node.ask("GET", "/status")["listen"]
    return [address.rpartition(":")[0] for address in told]


def hosts(link: str) -> list[str]:
    """The IP addresses that an invite names."""
    shown = json.loads(overlay("invite", "show", "-", "--json", stdin=link).stdout)
    (member,) = shown["members"]
    return [entry["address"].rpartition(":")[0] for entry in member["addresses"]]
