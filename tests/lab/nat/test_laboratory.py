"""One idea: the laboratory itself: who hears whom, how far a packet comes, what is counted."""

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from overlay.core.addresses import prefix_of
from overlay.transport.udp.interfaces import look_around
from tests.lab.nat.capture import Capture
from tests.lab.nat.kinds import KINDS, Ipv6, Ports
from tests.lab.nat.laboratory import ROUTERS, Home, Laboratory
from tests.lab.nat.machines import Host
from tests.lab.nat.wire import Impairment
from tests.lab.nodes import ROOT, Process, environment, wait_for

pytestmark = [pytest.mark.netns, pytest.mark.needs("nft", "unshare")]
SOON = 10.0
NEVER = 0.1
Address = tuple[str, int]


class Port:
    """A fresh UDP port of all of a host's addresses."""

    def __init__(self, host: Host, family: int = socket.AF_INET) -> None:
        self.socket = host.call(lambda: socket.socket(family, socket.SOCK_DGRAM))
        self.socket.bind(("", 0))
        self.number: int = self.socket.getsockname()[1]
        self.own = ((host.address6 if family == socket.AF_INET6 else host.address), self.number)

    def send(self, data: bytes, to: object, ttl: int = 64) -> None:
        self.socket.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, ttl)
        assert isinstance(to, tuple)
        self.socket.sendto(data, to[:2])

    def hear(self, within: float = SOON) -> tuple[bytes, Address] | None:
        """The next packet and where it came from; None: nothing came."""
        self.socket.settimeout(within)
        with contextlib.suppress(TimeoutError, ConnectionRefusedError):
            data, source = self.socket.recvfrom(65536)
            return data, source[:2]
        return None

    def mapped_at(self, observer: "Port") -> Address:
        """Under which address the observer sees us."""
        self.send(b"who am I?", observer.own)
        heard = observer.hear()
        assert heard is not None
        return heard[1]


@pytest.fixture(scope="module")
def observer(laboratory: Laboratory) -> Iterator[Port]:
    made = Port(laboratory.public_host())
    yield made
    made.socket.close()


OpenPort = Callable[..., Port]


@pytest.fixture
def port() -> Iterator[OpenPort]:
    """Opens ports of hosts, and closes them in the end."""
    with ExitStack() as opened:

        def open_one(host: Host, family: int = socket.AF_INET) -> Port:
            made = Port(host, family)
            opened.callback(made.socket.close)
            return made

        yield open_one


def meet(a: Home, b: Home, observer: Port, ttl: int = 64, *, expected: bool = True) -> bool:
    """Whether two hosts that know each other's mapped addresses hear each other.

    `a` sends first, with this TTL, and only then does `b`. Who has heard the other answers to
    where it came from. What is `expected` decides no more than how patient we are.
    """
    for home in (a, b):
        home.forget()
    rounds, patience = (6, 0.5) if expected else (2, NEVER)
    ours, theirs = Port(a.host), Port(b.host)
    try:
        our_address, their_address = ours.mapped_at(observer), theirs.mapped_at(observer)
        ours.send(b"first", their_address, ttl)
        heard_us, heard_them = theirs.hear(NEVER), None
        for _ in range(rounds):
            theirs.send(b"hello", heard_us[1] if heard_us else our_address)
            heard_them = heard_them or ours.hear(patience)
            ours.send(b"hello", heard_them[1] if heard_them else their_address)
            heard_us = heard_us or theirs.hear(patience)
            if heard_us and heard_them:
                return True
        return False
    finally:
        ours.socket.close()
        theirs.socket.close()


# --- who hears whom ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [name for name, kind in KINDS.items() if kind.udp])
def test_who_asked_is_answered_at_an_address_of_its_own_prefix(
    laboratory: Laboratory, observer: Port, port: OpenPort, kind: str
) -> None:
    home = laboratory.standing(kind)
    inside = port(home.host)
    source = inside.mapped_at(observer)
    observer.send(b"answer", source)
    assert inside.hear() == (b"answer", observer.own)
    assert source[0] == home.wan_address
    prefixes = {prefix_of(address, 16, 32) for address in (source[0], observer.own[0])}
    assert len(prefixes) == 2
    assert "" not in prefixes, "both count as addresses of the internet"


@pytest.mark.parametrize(
    ("first", "second", "direct"),
    [
        ("port_restricted", "port_restricted", True),
        ("port_restricted_hashed", "carrier", True),
        ("symmetric_random", "full_cone", True),
        ("symmetric_random", "address_restricted", True),
        ("symmetric_sequential", "port_restricted", False),
        ("symmetric_random", "port_restricted", False),
        ("symmetric_random", "symmetric_random", False),
    ],
)
def test_pairs_meet_as_their_kinds_let_them(
    laboratory: Laboratory, observer: Port, first: str, second: str, direct: bool
) -> None:
    pair = laboratory.standing(first), laboratory.standing(second, nth=int(first == second))
    assert meet(*pair, observer, expected=direct) is direct


def test_an_early_packet_poisons_an_open_input_chain_and_a_short_one_does_not(
    laboratory: Laboratory, observer: Port
) -> None:
    """Its TTL takes it out of its own NAT and not to the other's: three routers are between."""
    pair = laboratory.standing("open_input"), laboratory.standing("open_input", nth=1)
    assert not meet(*pair, observer, expected=False)
    assert meet(*pair, observer, ttl=2), "out of its own router"
    assert meet(*pair, observer, ttl=2 * ROUTERS + 2), "up to the last router before the other's"
    assert not meet(*pair, observer, 2 * ROUTERS + 3, expected=False), (
        "and there it does harm again"
    )


def test_behind_one_carrier_only_hairpinning_makes_a_way(
    laboratory: Laboratory, observer: Port
) -> None:
    for hairpin in (False, True):
        carrier = laboratory.carrier(hairpin=hairpin)
        a, b = (laboratory.home("port_restricted", carrier=carrier) for _ in range(2))
        assert a.wan_address == b.wan_address
        laboratory.reset_counters()
        assert meet(a, b, observer, expected=hairpin) is hairpin
        assert (laboratory.bytes_between(a, b) > 0) is hairpin, "the carrier's NAT counts"


def test_hosts_of_one_home_meet_on_its_lan(laboratory: Laboratory, port: OpenPort) -> None:
    home = laboratory.home("symmetric_random", hosts=2)
    near, far = (port(host) for host in home.hosts)
    laboratory.reset_counters()
    near.send(b"hello", far.own)
    assert far.hear() == (b"hello", near.own)
    assert laboratory.flows() == []


def test_two_homes_may_have_the_same_private_network(
    laboratory: Laboratory, observer: Port
) -> None:
    a, b = (laboratory.home("port_restricted", lan="192.168.77.0/24") for _ in range(2))
    assert a.host.address == b.host.address
    assert meet(a, b, observer)


def test_a_capture_sees_what_stays_on_the_lan(
    laboratory: Laboratory, observer: Port, port: OpenPort
) -> None:
    home = laboratory.home("port_restricted", hosts=2)
    near, far = (port(host) for host in home.hosts)
    with Capture(home.host) as capture:
        near.send(b"to the LAN", far.own)
        near.send(b"to the internet", observer.own)
        assert far.hear()
        assert observer.hear()
    sent = [packet for packet in capture.sent if packet.protocol == "udp"]
    assert [(packet.source, packet.source_port) for packet in sent] == [near.own] * 2
    told = {(packet.destination, packet.destination_port): packet.payload for packet in sent}
    assert told == {far.own: b"to the LAN", observer.own: b"to the internet"}


def test_without_udp_there_is_tcp(laboratory: Laboratory, observer: Port, port: OpenPort) -> None:
    home, server = laboratory.standing("no_udp"), laboratory.public_host()
    port(home.host).send(b"lost", observer.own)
    with server.call(lambda: socket.create_server((server.address, 443))) as listener:
        with home.host.call(lambda: socket.create_connection((server.address, 443), SOON)):
            connection, source = listener.accept()
            connection.close()
    assert source[0] == home.wan_address
    assert observer.hear(NEVER) is None


def test_processes_run_in_a_host(laboratory: Laboratory) -> None:
    home = laboratory.standing("full_cone")
    process = Process(["ip", "-4", "-brief", "address"], enter=home.host.enter)
    assert process.popen.wait(SOON) == 0
    process.out.finish()
    assert home.host.address in "".join(process.out.all)


# --- what routers forget ----------------------------------------------------------------------


def gets_in(inside: Port, observer: Port, source: Address) -> bool:
    """Whether the observer's packet to a mapped address arrives, for one that should."""
    observer.send(b"still there?", source)
    return inside.hear() is not None


def is_kept_out(inside: Port, observer: Port, source: Address) -> bool:
    """The same for one that should not."""
    observer.send(b"still there?", source)
    return inside.hear(NEVER) is None


@pytest.mark.parametrize(
    ("kind", "userspace"),
    [
        *((kind, False) for kind in ("full_cone", "port_restricted", "symmetric_random")),
        *((kind, False) for kind in ("carrier", "port_restricted_hashed")),
        ("port_restricted", True),
    ],
)
def test_mappings_are_forgotten_and_come_up_elsewhere_after_a_restart(
    laboratory: Laboratory, observer: Port, port: OpenPort, kind: str, userspace: bool
) -> None:
    preserved = KINDS[kind].ports is Ports.PRESERVED
    home = laboratory.home(kind, userspace=userspace)
    inside = port(home.host)
    before = inside.mapped_at(observer)
    assert gets_in(inside, observer, before)
    home.forget()
    assert is_kept_out(inside, observer, before)
    assert (inside.mapped_at(observer) == before) is preserved
    home.rebind()
    after = inside.mapped_at(observer)
    assert after[0] == before[0]
    assert after[1] != before[1]
    assert is_kept_out(inside, observer, before)
    assert inside.mapped_at(observer) == after, "one mapping again, at its new place"


@pytest.mark.parametrize(
    ("kind", "userspace"),
    [
        *((kind, False) for kind in ("public", "address_restricted", "carrier")),
        ("symmetric_random", True),
    ],
)
def test_a_home_gets_another_address(
    laboratory: Laboratory, observer: Port, port: OpenPort, kind: str, userspace: bool
) -> None:
    home = laboratory.home(kind, userspace=userspace)
    inside = port(home.host)
    before = inside.mapped_at(observer)
    new = home.change_address()
    after = inside.mapped_at(observer)
    assert after[0] == new == home.wan_address != before[0]
    assert home.owns(before[0])
    assert home.owns(after[0])
    assert gets_in(inside, observer, after)
    assert is_kept_out(inside, observer, before)


def test_idle_mappings_live_as_long_as_was_asked(
    laboratory: Laboratory, observer: Port, port: OpenPort
) -> None:
    """Of connection tracking, of what a full cone has learnt, and in user space."""
    asked = [(kind, False) for kind in ("port_restricted", "full_cone", "symmetric_random")]
    asked.append(("full_cone", True))
    ports = list[tuple[int, Port, Address]]()
    for timeout in (1, 30):
        for kind, userspace in asked:
            inside = port(laboratory.home(kind, timeout=timeout, userspace=userspace).host)
            ports.append((timeout, inside, inside.mapped_at(observer)))
    time.sleep(1.5)
    for timeout, inside, source in ports:
        assert (gets_in if timeout == 30 else is_kept_out)(inside, observer, source)


# --- IPv6 -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["port_restricted", "public"])
def test_ipv6_is_open_behind_a_stateful_firewall_or_dead(
    laboratory: Laboratory, port: OpenPort, kind: str
) -> None:
    family = socket.AF_INET6
    hosts = laboratory.public_host(), laboratory.public_host()
    stranger, asked = (port(host, family) for host in hosts)
    for ipv6 in (Ipv6.OPEN, Ipv6.FIREWALLED, Ipv6.DEAD):
        home = laboratory.home(kind, ipv6=ipv6)
        inside = port(home.host, family)
        laboratory.reset_counters()
        assert prefix_of(str(inside.own[0]), 16, 32)
        inside.send(b"question", asked.own)
        question = asked.hear(NEVER if ipv6 is Ipv6.DEAD else SOON)
        assert question == (None if ipv6 is Ipv6.DEAD else (b"question", inside.own))
        asked.send(b"answer", inside.own)
        alive, is_open = ipv6 is not Ipv6.DEAD, ipv6 is Ipv6.OPEN
        assert (inside.hear(SOON if alive else NEVER) is not None) is alive
        counted = 0 if ipv6 is Ipv6.DEAD else len(b"question")
        assert laboratory.bytes_between(home, hosts[1]) == counted + len(b"answer")
        stranger.send(b"unasked", inside.own)
        assert (inside.hear(SOON if is_open else NEVER) is not None) is is_open


# --- many addresses ---------------------------------------------------------------------------


def test_a_host_may_have_many_addresses_and_interfaces_that_lead_nowhere(
    laboratory: Laboratory, observer: Port
) -> None:
    home = laboratory.home("port_restricted", addresses=4, nowhere=2, ipv6=Ipv6.FIREWALLED)
    found = home.host.call(look_around)
    on_lan = [each.host for each in found.hosts if each.interface == "eth0"]
    assert set(home.host.addresses) <= set(on_lan)
    assert len(home.host.addresses) == 8
    assert found.routed[-1] == home.host.address, "its first leads to the internet"
    assert {each.interface for each in found.hosts if each.host.startswith("10.200.")} == {
        "eth1",
        "eth2",
    }
    seen_at = set[Address]()
    for address in home.host.addresses[:4]:
        with home.host.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as sock:
            sock.bind((address, 7777))
            sock.sendto(b"who am I?", observer.own)
            heard = observer.hear()
            assert heard is not None
            seen_at.add(heard[1])
    assert {host for host, _ in seen_at} == {home.wan_address}
    assert len(seen_at) == 4, "a mapping for each"


def test_a_home_may_have_ipv6_alone(laboratory: Laboratory, port: OpenPort) -> None:
    home, server = laboratory.home("port_restricted", ipv6=Ipv6.ONLY), laboratory.public_host()
    inside, asked = (port(host, socket.AF_INET6) for host in (home.host, server))
    inside.send(b"question", asked.own)
    assert asked.hear() == (b"question", inside.own)
    assert home.wan_address == home.host.address == inside.own[0]
    with pytest.raises(OSError, match="unreachable"):
        port(home.host).send(b"question", (server.address, 1))


# --- outages ----------------------------------------------------------------------------------


@pytest.mark.parametrize("cable", [True, False])
def test_an_outage_ends_as_it_began_and_only_a_pulled_cable_is_seen(
    laboratory: Laboratory, observer: Port, port: OpenPort, cable: bool
) -> None:
    home = laboratory.standing("port_restricted", "outage", ipv6=Ipv6.FIREWALLED)
    inside = port(home.host)
    before = inside.mapped_at(observer)

    def interfaces() -> set[str]:
        return {each.interface for each in home.host.call(look_around).hosts}

    wait_for(lambda: "eth0" in interfaces(), SOON, "a carrier", 0.02)
    with home.outage(cable=cable):
        wait_for(lambda: ("eth0" in interfaces()) is not cable, SOON, "no carrier", 0.02)
        assert is_kept_out(inside, observer, before)
        if not cable:  # else the kernel keeps it until there is a carrier
            inside.send(b"lost", observer.own)
            assert observer.hear(NEVER) is None
    wait_for(lambda: "eth0" in interfaces(), SOON, "a carrier", 0.02)
    assert inside.mapped_at(observer) == before
    assert gets_in(inside, observer, before)


# --- bad wires --------------------------------------------------------------------------------


def test_two_impaired_legs_make_the_round_trip_and_the_loss_that_were_asked_for(
    laboratory: Laboratory, observer: Port, port: OpenPort
) -> None:
    impairment = Impairment(latency=0.01, loss=0.1)
    homes = [
        laboratory.home("port_restricted", impairment=impairment),
        laboratory.home("full_cone", impairment=impairment, userspace=True),
    ]
    near, far = (port(home.host) for home in homes)
    their_address = wait_for(lambda: ask(far, observer), SOON, "an observation")
    sent, arrived = 600, 0
    for number in range(sent):
        near.send(number.to_bytes(2), their_address)
        if number % 60 == 59:  # read before the socket's buffer is full
            while far.hear(0.5 if number == sent - 1 else 0.05):
                arrived += 1
    # Two legs: 0.81 is the mean; five deviations either way.
    assert 0.73 * sent < arrived < 0.89 * sent
    trips = []
    for _ in range(10):
        begun = time.monotonic()
        near.send(b"ping", their_address)
        if (heard := far.hear(0.2)) is None:
            continue
        far.send(b"pong", heard[1])
        if near.hear(0.2) is not None:
            trips.append(time.monotonic() - begun)
    assert min(trips) >= 0.04, "four times a leg"
    assert min(trips) < 0.2


def ask(port: Port, observer: Port) -> Address | None:
    port.send(b"who am I?", observer.own)
    heard = observer.hear(0.2)
    return heard[1] if heard else None


# --- counters ---------------------------------------------------------------------------------


def test_the_core_counts_what_goes_straight_and_what_goes_through_others(
    laboratory: Laboratory, observer: Port, port: OpenPort
) -> None:
    homes = [laboratory.standing("full_cone", nth=nth) for nth in range(3)]
    a, b, relay = (port(home.host) for home in homes)
    addresses = [port.mapped_at(observer) for port in (a, b, relay)]
    laboratory.reset_counters()
    for _ in range(10):
        a.send(bytes(1000), addresses[1])
        assert b.hear()
    assert laboratory.bytes_between(homes[0], homes[1]) == 10_000
    assert laboratory.bytes_via(homes[0], homes[1]) == 0
    a.send(bytes(700), addresses[2])
    assert relay.hear()
    relay.send(bytes(700), addresses[1])
    assert b.hear()
    assert laboratory.bytes_between(homes[1], homes[0]) == 10_000
    assert laboratory.bytes_via(homes[0], homes[1]) == 1400, "to the relay, and from there"
    laboratory.reset_counters()
    assert laboratory.bytes_between(homes[0], homes[1]) == 0


# --- what is left -----------------------------------------------------------------------------


def test_nothing_is_left_when_a_laboratory_closes() -> None:
    def held() -> tuple[set[str], int, str]:
        """Descriptors, threads, and children of this process."""
        children = f"/proc/self/task/{os.getpid()}/children"
        with open(children) as file:
            return set(os.listdir("/proc/self/fd")), threading.active_count(), file.read()

    before = held()
    with Laboratory() as laboratory:
        laboratory.home("carrier", impairment=Impairment(latency=0.01))
        laboratory.home("full_cone", userspace=True)
        assert held() != before
    assert held() == before


WITNESS = """
import subprocess, sys
from tests.lab.nat.laboratory import Laboratory
from tests.lab.nat.stun import Responder, classify
from tests.lab.nat.wire import Impairment
laboratory = Laboratory()
with Responder(laboratory.public_host(2)) as responder:
    home = laboratory.home("symmetric_random", impairment=Impairment(latency=0.001))
    found = classify(home.host, responder.hosts)
    print(found.mapping, found.filtering, found.ports, flush=True)
with open(f"/proc/self/task/{__import__('os').getpid()}/children") as file:
    print(file.read(), flush=True)
sys.stdin.read()
"""


def test_an_ordinary_user_has_one_too_and_its_processes_die_with_it() -> None:
    owner = subprocess.Popen(
        ["unshare", "-Urn", sys.executable, "-c", WITNESS],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=environment(),
    )
    assert owner.stdout is not None
    assert owner.stdout.readline() == "address-port address-port random\n"
    children = owner.stdout.readline().split()
    assert len(children) == 1, "the wire"
    assert alive(children[0])
    owner.kill()
    owner.communicate()
    wait_for(lambda: not alive(children[0]), SOON, "the wire's end")


def alive(pid: str) -> bool:
    """Whether it is a wire of ours still."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/cmdline") as file:
        return "tests.lab.nat.wire" in file.read()
    return False
