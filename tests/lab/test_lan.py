"""The lab itself: firewalls drop what nobody asked for, and nothing outlives its owner."""

import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.lab.lan import Host, Lan
from tests.lab.namespaces import Namespace, why_unavailable
from tests.lab.nodes import ROOT, environment
from tests.lab.router import Routed

IP_MTU_DISCOVER, MAY_FRAGMENT, DONT_FRAGMENT = 10, 0, 2
"""ip(7): what Python's socket module does not name."""

pytestmark = [pytest.mark.netns, pytest.mark.needs("ip", "nft", "unshare")]


@pytest.fixture
def lan() -> Iterator[Lan]:
    if why := why_unavailable():
        pytest.skip(why)
    with Lan() as lan:
        yield lan


def port(host: Host) -> socket.socket:
    """A UDP socket on the host, given up to two seconds to receive."""
    made = host.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    made.bind((host.address, 7))
    made.settimeout(2.0)
    return made


def test_a_firewalled_host_hears_only_whom_it_has_asked(lan: Lan) -> None:
    outside, inside = lan.host(firewall=None), lan.host()
    with port(outside) as stranger, port(inside) as guarded:
        stranger.sendto(b"unasked", (inside.address, 7))
        guarded.sendto(b"question", (outside.address, 7))
        assert stranger.recv(100) == b"question"
        stranger.sendto(b"answer", (inside.address, 7))
        assert guarded.recv(100) == b"answer", "what came before it was dropped"


def test_two_firewalled_hosts_meet_once_both_have_sent(lan: Lan) -> None:
    """Hole punching in one line each: the first packet is lost, and opens the way back."""
    first, second = lan.host(), lan.host()
    with port(first) as a, port(second) as b:
        a.sendto(b"lost", (second.address, 7))
        b.sendto(b"through", (first.address, 7))
        assert a.recv(100) == b"through"
        a.sendto(b"and back", (second.address, 7))
        assert b.recv(100) == b"and back"


def test_an_open_host_hears_strangers(lan: Lan) -> None:
    with port(lan.host(firewall=None)) as a, port(lan.host()) as b:
        b.sendto(b"hello", a.getsockname())
        assert a.recv(100) == b"hello"


def test_a_host_without_rules_of_its_own_sees_no_other_network(lan: Lan) -> None:
    """The counter-test: a namespace that is not plugged in reaches nobody."""
    host = lan.host(firewall=None)
    with Namespace() as island, island.call(socket.socket) as alone:
        with pytest.raises(OSError, match="unreachable"):
            alone.connect((host.address, 7))


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_a_narrow_leg_swallows_large_packets_in_silence(lan: Lan, family: int) -> None:
    """Both ways; in IPv4 what may be fragmented gets through (RFC 791 §2.3)."""
    is_ipv4 = family == socket.AF_INET
    level, option = (socket.IPPROTO_IP, IP_MTU_DISCOVER) if is_ipv4 else (socket.IPPROTO_IPV6, 23)
    with Routed() as routed:
        hosts = routed.host(routed.near), routed.host(routed.far)
        addresses = [host.address for host in hosts] if is_ipv4 else ["fd77:0::1", "fd77:1::1"]
        ports = [host.call(lambda: socket.socket(family, socket.SOCK_DGRAM)) for host in hosts]
        for each, address in zip(ports, addresses, strict=True):
            each.bind((address, 7))
            each.settimeout(0.3)
            each.setsockopt(level, option, DONT_FRAGMENT)
        routed.narrow(1280)
        for sender, receiver, target in (
            (ports[0], ports[1], addresses[1]),
            (ports[1], ports[0], addresses[0]),
        ):
            sender.sendto(bytes(1200), (target, 7))
            assert len(receiver.recv(2000)) == 1200
            sender.sendto(bytes(1260), (target, 7))
            with pytest.raises(TimeoutError):
                receiver.recv(2000)
            if is_ipv4:
                sender.setsockopt(level, option, MAY_FRAGMENT)
                sender.sendto(bytes(1260), (target, 7))
                assert len(receiver.recv(2000)) == 1260
        for each in ports:
            each.close()


OWNER = """
import os, sys, time
from tests.lab.lan import Lan
lan = Lan()
near = lan.host()
near.ip(f"link add probe type veth peer name there netns /proc/{os.getppid()}/ns/net")
print("up", flush=True)
time.sleep(60)
"""
WITNESS = f"""
import subprocess, sys, time
owner = subprocess.Popen([sys.executable, "-c", {OWNER!r}], stdout=subprocess.PIPE)
assert owner.stdout.readline() == b"up\\n"
assert "there" in open("/proc/net/dev").read()
owner.kill()
owner.wait()
for _ in range(200):
    if "there" not in open("/proc/net/dev").read():
        print("gone")
        break
    time.sleep(0.05)
"""


def test_everything_disappears_with_its_owner(lan: Lan) -> None:
    """Kill the owner with SIGKILL: a cable into one of its namespaces goes with them."""
    done = subprocess.run(
        ["unshare", "-Urn", sys.executable, "-c", WITNESS],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
        env=environment(),
        check=False,
    )
    assert done.stdout == "gone\n", done.stderr
