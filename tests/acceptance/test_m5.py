"""One idea: M5 as its user sees it: a link that is up carries data, and a node finds its way back.

A test for each line of the order. Where truth takes minutes, a world of the simulator has them, and
the witness here is shorter.
"""

import json
import shutil
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from itertools import combinations, pairwise
from pathlib import Path

import pytest

from tests.acceptance.black_box import QUIET, failed_up, next_event, one_line_error, suite
from tests.lab.endurance import Endurance
from tests.lab.lan import Host, Lan
from tests.lab.namespaces import Namespace, why_unavailable
from tests.lab.nodes import (
    OVERLAY,
    ROOT,
    Crew,
    Node,
    Process,
    heard,
    overlay,
    settled,
    wait_for,
)
from tests.lab.router import Routed

netns = pytest.mark.netns
UP = {"up", "suspect"}
"""States of a link in use."""


@pytest.fixture(autouse=True)
def _can_make_namespaces(request: pytest.FixtureRequest) -> None:
    if request.node.get_closest_marker("netns") and (why := why_unavailable()):
        pytest.skip(why)


@pytest.fixture
def lan() -> Iterator[Lan]:
    with Lan() as lan:
        yield lan


def on(crew: Crew, name: str, host: Namespace) -> Node:
    return crew.node(name, enter=host.enter)


def state(node: Node, other: Node) -> str:
    """What the node says of its link to another."""
    rows = node.ask("GET", "/peers/all")["peers"]
    return next((row["state"] for row in rows if row["peer_id"] == other.peer_id), "unknown")


def until(nodes: tuple[Node, Node], patience: float, *, up: bool) -> float:
    """Seconds until both nodes' links to each other are up, or until both are not."""
    began_at = time.monotonic()
    a, b = nodes
    wait_for(
        lambda: (state(a, b) in UP) is up and (state(b, a) in UP) is up,
        patience,
        f"the link between {a.name} and {b.name} {'up' if up else 'down'} at both ends",
    )
    return time.monotonic() - began_at


def is_known(node: Node, other: Node) -> bool:
    return state(node, other) == "known"


def is_elsewhere(node: Node) -> bool:
    return bool(node.ask("GET", "/status")["identity_elsewhere"])


def events(node: Node, name: str) -> list[str]:
    """The lines of its log that name this event."""
    assert node.process is not None
    return [line for line in node.process.log.splitlines() if name in line]


def publish(node: Node, topic: str, data: str) -> None:
    node.ask("POST", "/publish", {"topic": topic, "data": data})


def publish_until_heard(node: Node, topic: str, ear: Process) -> None:
    """A subscription is live once it has heard something."""

    def is_heard() -> bool:
        publish(node, topic, "hello")
        try:
            heard(ear, "hello", 1.0)
        except TimeoutError:
            return False
        return True

    wait_for(is_heard, 20.0, "the first message")


def listens_at(node: Node, address: str) -> bool:
    """Whether its status names this IP address."""
    listen: list[str] = node.ask("GET", "/status")["listen"]
    return any(each.startswith(f"{address}:") for each in listen)


def wait(seconds: float) -> None:
    """Let this much time pass."""
    time.sleep(seconds)


def addresses(link: str) -> list[list[str]]:
    """Of each member that an invite names."""
    shown = overlay("invite", "show", "-", "--json", stdin=link)
    assert shown.returncode == 0, shown.stderr
    members = json.loads(shown.stdout)["members"]
    return [[each["address"] for each in member["addresses"]] for member in members]


# --- A. a link means that both are heard, and that data flows ------------------------------------

DEAF = """
table inet deaf {
  chain input { type filter hook input priority -10; ip saddr %s drop; }
}
"""


@netns
def test_1a_a_link_that_is_deaf_one_way_is_down_at_both_ends(crew: Crew, lan: Lan) -> None:
    """In a mesh of five b hears nothing from a: both say so, and both come back."""
    hosts = [lan.host(firewall=None) for _ in range(5)]
    first = on(crew, "a", hosts[0]).up(listen=None)
    link = first.invite()
    rest = [
        on(crew, name, host).up(join=link, listen=None)
        for name, host in zip("bcde", hosts[1:], strict=True)
    ]
    settled([first, *rest])
    pair = (first, rest[0])
    hosts[1].nft(DEAF % hosts[0].address)
    assert until(pair, 30.0, up=False) <= 8.0
    wait(10.0)  # in which b asks a, and a hears it
    assert not {state(*pair), state(*reversed(pair))} & UP
    hosts[1].nft("delete table inet deaf")
    assert until(pair, 30.0, up=True) <= 5.0
    assert all(node.json("status")["internal_errors"] == 0 for node in (first, *rest))


RECEIVER_OF_ALL = """
import sys, trio, overlay

async def main():
    async with overlay.open_node(name="receiver", listen=sys.argv[1]) as node:
        async with node.accept_streams("data") as arriving:
            print((await node.invite()).link, flush=True)
            async with await anext(arriving) as stream:
                first = await stream.receive_some()
                print("begun", flush=True)
                print(len(first) + sum([len(data) async for data in stream]), flush=True)
                await trio.sleep_forever()

trio.run(main)
"""
SENDER_OF_ALL = """
import sys, trio, overlay

async def main():
    async with overlay.open_node(name="sender", listen=sys.argv[1], join=sys.argv[2]) as node:
        while not any(peer.name == "receiver" for peer in node.peers()):
            await trio.sleep(0.05)
        stream = await node.open_stream("receiver", "data")
        for _ in range(200):
            await stream.send_all(bytes(10_000))
            await trio.sleep(0.01)
        await stream.aclose()
        await trio.sleep_forever()

trio.run(main)
"""


def at(host: Namespace, family: int | None) -> str | None:
    """Where a node on this host listens: in one family only, or everywhere."""
    if family is None:
        return None
    address = host.call(lambda: source_address(family))
    return f"[{address}]:0" if ":" in address else f"{address}:0"


def source_address(family: int) -> str:
    """What the default route sends from."""
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1" if family == socket.AF_INET else "2001:db8::1", 9))
        return str(probe.getsockname()[0])


def small_paths(
    crew: Crew, routed: Routed, family: int | None, argv: tuple[str, ...] = OVERLAY
) -> tuple[Node, Node, Process]:
    """Two nodes with a router between them, and the second one's ear."""
    hosts = routed.host(routed.near), routed.host(routed.far)
    a = crew.node("a", argv=argv, enter=hosts[0].enter).up(*QUIET, listen=at(hosts[0], family))
    b = crew.node("b", argv=argv, enter=hosts[1].enter)
    b.up(*QUIET, listen=at(hosts[1], family), join=a.invite())
    settled([a, b])
    ear = b.subscribe("big")
    publish_until_heard(a, "big", ear)
    return a, b, ear


@netns
@pytest.mark.parametrize(
    ("family", "mtus"),
    [
        (socket.AF_INET, (1200, 800, 600, 1500)),
        (socket.AF_INET6, (1280, 1500)),
        (None, (1200, 600)),
    ],
    ids=["ipv4", "ipv6", "both"],
)
def test_1b_what_is_too_large_for_the_path_arrives_all_the_same(
    crew: Crew, family: int | None, mtus: tuple[int, ...]
) -> None:
    """The far leg carries less and less, and nobody says so: data goes on, and so do pings.

    Where the link ran over IPv6, a leg of less than 1,280 bytes also ends its path.
    """
    with Routed() as routed:
        a, b, ear = small_paths(crew, routed, family)
        for mtu in mtus:
            routed.narrow(mtu)
            for size in (5_000, 200_000):
                text = f"{mtu} {size} " + "x" * size
                publish(a, "big", text)
                heard(ear, text, 10.0 if family else 30.0)
            assert a.run("ping", b.peer_id).returncode == 0
            assert {state(a, b), state(b, a)} == {"up"}
        assert len(events(a, "peer_up")) == 1, "it is one link all the time"


@netns
def test_1b_without_the_search_for_the_size_nothing_arrives_again(crew: Crew) -> None:
    """The counter-test: the same build but for that, on the same path."""
    build = (sys.executable, "-m", "tests.builds.no_mtu_search")
    with Routed() as routed:
        a, _, ear = small_paths(crew, routed, socket.AF_INET, build)
        routed.narrow(1200)
        publish(a, "big", "x" * 5_000)
        publish(a, "big", "small")
        with pytest.raises(TimeoutError):
            heard(ear, "small", 8.0)


@netns
def test_1b_a_link_that_carries_no_data_is_given_up_with_that_reason(crew: Crew) -> None:
    """What is under way fits no more, and a firewall drops its fragments; checks are answered."""
    with Routed() as routed:
        a, b, _ = small_paths(crew, routed, socket.AF_INET)
        routed.drop_fragments()
        routed.narrow(800)
        publish(a, "big", "x" * 5_000)
        until((a, b), 15.0, up=False)
        assert "reason=stalled" in wait_for(lambda: events(a, "peer_down"), 5.0, "its line")[0]


@netns
def test_1b_a_newcomer_joins_over_a_path_that_has_always_been_small(crew: Crew) -> None:
    """Flights of the handshake fall to 548 bytes after two time-outs."""
    with Routed() as routed:
        hosts = routed.host(routed.near), routed.host(routed.far)
        routed.narrow(576)
        a = on(crew, "a", hosts[0]).up(*QUIET, listen=at(hosts[0], socket.AF_INET))
        b = on(crew, "b", hosts[1])
        b.up(*QUIET, listen=at(hosts[1], socket.AF_INET), join=a.invite())
        settled([a, b])


@netns
def test_1b_a_stream_goes_on_when_its_path_carries_less(crew: Crew) -> None:
    with Routed() as routed:
        hosts = routed.host(routed.near), routed.host(routed.far)
        there, here = (f"{host.address}:0" for host in hosts)
        receiver = Process([sys.executable, "-c", RECEIVER_OF_ALL, here], enter=hosts[1].enter)
        sender = None
        try:
            argv = [sys.executable, "-c", SENDER_OF_ALL, there, receiver.out.next(30.0).strip()]
            sender = Process(argv, enter=hosts[0].enter)
            assert receiver.out.next(30.0) == "begun\n"
            routed.narrow(1000)
            assert receiver.out.next(20.0) == "2000000\n"
        finally:
            for process in (receiver, sender):
                if process is not None:
                    process.kill()


def test_1c_a_peer_that_seldom_asks_is_never_suspected(crew: Crew) -> None:
    """It asks every 5 s, as RFC 7675 has it; its link is up in every look of twelve seconds."""
    suite("tests/transport", "stock and (flap or pace)")
    a = crew.node("a").up(*QUIET)
    rare = (sys.executable, "-m", "tests.builds.rare_checks")
    b = crew.node("b", argv=rare).up(*QUIET, join=a.invite())
    settled([a, b])
    seen, deadline = set(), time.monotonic() + 12.0
    while time.monotonic() < deadline:
        seen |= {state(a, b), state(b, a)}
        time.sleep(0.1)
    assert seen == {"up"}
    assert len(events(a, "peer_up")) == 1


@netns
def test_2_another_way_is_taken_when_the_path_has_lost_its_address(crew: Crew, lan: Lan) -> None:
    """Two hosts on two LANs: one address goes away, and nothing that was published is lost."""
    with Lan("10.78.0.0/24") as second:
        hosts = [lan.host(firewall=None) for _ in range(2)]
        for number, host in enumerate(hosts):
            second.plug(host, "eth1", f"10.78.0.{number + 1}")
        a = on(crew, "a", hosts[0]).up(listen=None)
        b = on(crew, "b", hosts[1]).up(listen=None, join=a.invite())
        settled([a, b])
        ear = b.subscribe("news")
        publish_until_heard(a, "news", ear)
        before = [node.ask("GET", "/peers")["peers"][0]["since"] for node in (a, b)]
        path = a.ask("GET", "/peers")["peers"][0]["local"]
        interface = "eth1" if path.startswith("10.78.") else "eth0"
        sent, times = [], []
        for number in range(60):
            if number == 10:
                hosts[0].ip(f"addr flush dev {interface}")
            sent.append(f"number {number}")
            publish(a, "news", sent[-1])
            time.sleep(0.2)
        for text in sent:
            heard(ear, text, 20.0)
            times.append(time.monotonic())
        received = [json.loads(line)["received_at"] for line in ear.out.all][-60:]
        gaps = [late - early for early, late in pairwise(received)]
        assert max(gaps) <= 5.0
        after = [node.ask("GET", "/peers")["peers"][0]["since"] for node in (a, b)]
        assert after == before, "it is the same link, with its streams"


STREAMER = """
import json, sys, time, trio, overlay
from overlay.errors import OverlayError

async def main():
    link = sys.stdin.readline()
    async with overlay.open_node(name="sender", listen=sys.argv[1], join=link) as node:
        while not any(peer.name == "receiver" for peer in node.peers()):
            await trio.sleep(0.05)
        stream = await node.open_stream("receiver", "data")
        print(json.dumps({"event": "open"}), flush=True)
        try:
            while True:
                await stream.send_all(bytes(65536))
                await trio.sleep(0.01)
        except (OverlayError, trio.BrokenResourceError) as error:
            told = {"event": "failed", "kind": type(error).__name__, "text": str(error)}
            print(json.dumps(told), flush=True)

trio.run(main)
"""
RECEIVER = """
import sys, trio, overlay

async def main():
    async with overlay.open_node(name="receiver", listen=sys.argv[1]) as node:
        async with node.accept_streams("data") as arriving:
            print((await node.invite()).link, flush=True)
            async with await anext(arriving) as stream:
                async for _ in stream:
                    pass

trio.run(main)
"""


def test_3_the_stream_of_a_killed_receiver_fails_soon_and_says_why() -> None:
    fails_soon(None, None)


@netns
def test_3_so_does_one_to_another_host_from_behind_a_firewall(lan: Lan) -> None:
    fails_soon(lan.host(firewall=None), lan.host())


def fails_soon(there: Host | None, here: Host | None) -> None:
    """Kill the receiver on one host and see the sender on the other fail."""
    at_there, at_here = (host.address if host else "127.0.0.1" for host in (there, here))
    enter = there.enter if there else None
    receiver = Process([sys.executable, "-c", RECEIVER, f"{at_there}:0"], enter=enter)
    sender = None
    try:
        link = receiver.out.next(30.0)
        enter = here.enter if here else None
        argv = [sys.executable, "-c", STREAMER, f"{at_here}:0"]
        sender = Process(argv, enter=enter, stdin=link)
        next_event(sender, "open", 30.0)
        receiver.kill()
        killed_at = time.monotonic()
        failure = next_event(sender, "failed", 60.0)
        assert time.monotonic() - killed_at <= 10.0
        assert any(word in failure["text"] for word in ("silent", "gone", "no answer", "broken"))
    finally:
        for process in (receiver, sender):
            if process is not None:
                process.kill()


def test_4_old_friends_are_called_until_one_answers(crew: Crew) -> None:
    """A clock 30 days behind at start, put right later; and friends who are all elsewhere."""
    suite("tests/sim", "recall")
    a = crew.node("a").up()
    b = crew.node("b").up(join=a.invite())
    settled([a, b])
    assert b.process is not None
    assert b.process.end() == 0
    clock = crew.directory / "clock"
    b.argv = (sys.executable, "-m", "tests.builds.clock_behind")
    b.env = {"CLOCK_BEHIND_SECONDS": str(30 * 86400), "CLOCK_SET": str(clock)}
    b.up()
    clock.touch()
    wait_for(lambda: state(b, a) == "up", 15.0, "linked, once the clock is right")
    assert b.process.end() == 0
    assert a.process is not None
    assert a.process.end() == 0
    b.argv, b.env = OVERLAY, None
    b.up()
    (line, *_) = wait_for(lambda: events(b, "recalling"), 15.0, "a line on who is called in vain")
    assert "invite" in line, "and what would help"
    a.up()
    wait_for(lambda: state(b, a) == "up", 15.0, "linked, once the friend is back")


@netns
def test_5_a_node_notices_that_the_network_has_come(crew: Crew, lan: Lan) -> None:
    """Started without any, then an address appears, and another takes its place."""
    host = lan.host(firewall=None)
    host.ip("addr flush dev eth0")
    node = on(crew, "a", host).up(listen=None)
    for address in ("10.77.0.200", "10.77.0.201"):
        host.ip("addr flush dev eth0", f"addr add {address}/24 dev eth0")
        added_at = time.monotonic()
        wait_for(partial(listens_at, node, address), 20.0, f"{address} in the status")
        named = addresses(node.invite())
        assert time.monotonic() - added_at <= 5.0 + 1.0, "a command's start is not counted"
        assert any(each.startswith(f"{address}:") for each in named[0]), named
    assert not any(each.startswith("10.77.0.200:") for each in named[0]), named
    newcomer = on(crew, "b", lan.host(firewall=None)).up(join=node.invite(), listen=None)
    settled([node, newcomer])


def test_6_the_dead_are_dialled_less_and_less(crew: Crew) -> None:
    """A world has the minutes; here, the attempts of the first fifteen seconds."""
    suite("tests/sim", "dead and (backoff or forgotten)")
    a = crew.node("a").up("--set", "log.level=debug")
    link = a.invite()
    rest = [crew.node(name).up(join=link) for name in "bcd"]
    settled([a, *rest])
    victim = rest[-1]
    victim.kill()
    wait_for(lambda: state(a, victim) not in UP, 20.0, "the silence to be noticed")
    wait(15.0)
    tried = [line for line in events(a, "attempt_failed") if victim.peer_id in line]
    assert len(tried) <= 4, tried


def test_7_two_nodes_with_one_identity_both_say_so(crew: Crew) -> None:
    a = crew.node("a").up()
    b = crew.node("b").up(join=a.invite())
    c = crew.node("c").up(join=a.invite())
    settled([a, b, c])
    before = len(events(a, "peer_up"))
    # The lock and the socket are the running node's; everything else is copied under its hands.
    clone = crew.node("clone")
    shutil.copytree(
        b.directory, clone.directory, ignore=shutil.ignore_patterns("*.sock", "lock*", "*.lock")
    )
    clone.up()
    for twin in (b, clone):
        wait_for(partial(is_elsewhere, twin), 15.0, f"{twin.name} to say that it has a twin")
        twin.logs("identity_elsewhere")
    assert len(events(a, "peer_up")) - before <= 6, "the mesh stays calm"
    assert state(a, c) == "up"
    assert a.json("status")["identity_elsewhere"] is False


@pytest.mark.parametrize("count", [40, pytest.param(100, marks=pytest.mark.soak)])
def test_8_many_newcomers_at_once_all_get_in(crew: Crew, count: int) -> None:
    issuer = crew.node("issuer").up()
    link = issuer.invite("--members", "1")
    argv = [sys.executable, "-m", "tests.builds.newcomers"]
    processes = [
        subprocess.Popen(
            [*argv, str(crew.directory / f"group{number}"), str(count // 4)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        for number in range(4)
    ]
    try:
        for process in processes:
            assert process.stdin is not None
            process.stdin.write(link + "\n")
            process.stdin.flush()
        for process in processes:
            assert process.stdout is not None
            assert json.loads(process.stdout.readline())["event"] == "prepared"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        answers = [
            json.loads(process.stdout.readline())
            for process in processes
            for _ in range(count // 4)
            if process.stdout is not None
        ]
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    assert all(answer["event"] == "joined" for answer in answers), answers
    if count == 40:
        assert max(answer["seconds"] for answer in answers) <= 5.0, answers
    assert issuer.json("status")["internal_errors"] == 0


@netns
def test_8_a_join_goes_on_until_its_time_is_up(crew: Crew, lan: Lan) -> None:
    """The issuer's firewall opens after a while; what is refused for good ends at once.

    A log of level debug is not held back until the node is ready.
    """
    hosts = [lan.host(firewall=None) for _ in range(2)]
    a = on(crew, "a", hosts[0]).up(listen=None)
    hosts[0].nft(DEAF % hosts[1].address)
    b = on(crew, "b", hosts[1])
    b.start("--set", "log.level=debug", join=a.invite(), listen=None)
    (line, *_) = wait_for(lambda: events(b, "joining"), 20.0, "a line on what is being tried")
    assert "answered yet" in line
    hosts[0].nft("delete table inet deaf")
    b.wait_ready(20.0)
    settled([a, b])
    late = a.invite("--expires", "1s")
    wait(1.1)
    began_at = time.monotonic()
    failed_up(on(crew, "c", hosts[1]), join=late, listen=None)
    assert time.monotonic() - began_at < 5.0


# --- B. which addresses are named and dialled ----------------------------------------------------


@netns
def test_9_connect_takes_no_longer_than_its_best_way(crew: Crew, lan: Lan) -> None:
    """Hosts of one LAN, their firewalls closed, or open; each has an address on loopback, too."""
    hub = on(crew, "hub", lan.host(firewall=None)).up(listen=None)
    link = hub.invite()
    closed = [
        on(crew, f"closed{n}", lan.host()).up(*QUIET[:2], listen=None, join=link) for n in range(4)
    ]
    opened = [
        on(crew, f"open{n}", lan.host(firewall=None)).up(*QUIET[:2], listen=None, join=link)
        for n in range(3)
    ]
    taken = {}
    for nodes in (closed, opened):
        for a, b in combinations(nodes, 2):
            wait_for(partial(is_known, a, b), 20.0, "the other's record, and no link")
            began_at = time.monotonic()
            a.ask("POST", "/connect", {"peer": b.peer_id})
            taken[a.name, b.name] = time.monotonic() - began_at
    between = [taken[a.name, b.name] for a, b in combinations(closed, 2)]
    assert statistics.median(between) <= 0.6, taken
    assert max(between) <= 1.0, taken
    assert max(taken[a.name, b.name] for a, b in combinations(opened, 2)) <= 0.4, taken


@netns
def test_10_the_default_routes_addresses_are_always_named(crew: Crew, lan: Lan) -> None:
    """Docker and libvirt bridges with eight IPv6 addresses do not push the LAN's IPv4 out."""
    host = lan.host(firewall=None)
    host.ip(
        *(
            line
            for number in range(8)
            for line in (
                f"link add br{number} type bridge",
                f"link add port{number} type veth peer name guest{number}",
                f"link set port{number} master br{number}",
                *(f"link set {name}{number} up" for name in ("br", "port", "guest")),
                f"addr add fd00:{number}::1/64 dev br{number}",
                f"addr add 172.{17 + number}.0.1/16 dev br{number}",
            )
        ),
        "route add default via 10.77.0.254",
    )
    a = on(crew, "a", host).up(listen=None)
    (named,) = addresses(a.invite())
    assert named[0].startswith(f"{host.address}:"), named
    b = on(crew, "b", lan.host(firewall=None)).up(join=a.invite(), listen=None)
    settled([a, b])
    for member in addresses(b.invite()):
        assert any(each.startswith("10.77.0.") for each in member), member


def test_11_an_address_that_reaches_nobody_is_refused_or_made_right(crew: Crew) -> None:
    node = crew.node("a")
    for wrong in ("0.0.0.0:4000", "[::]:4000", "[fe80::1%eth0]:4000", "203.0.113.7:0"):
        failed_up(node, "--advertise", wrong)
        node.env = {"OVERLAY_ADVERTISE": wrong}
        failed_up(node)
        node.env = None
        file = crew.directory / "overlay.toml"
        file.write_text(f'advertise = ["{wrong}"]\n')
        failed_up(node, "--config", str(file))
    failed_up(node, "--listen", "[fe80::1%nowhere0]:0", listen=None)
    node.up("--advertise", "[::ffff:203.0.113.7]:4000")
    assert "203.0.113.7:4000" in addresses(node.invite())[0]


@netns
def test_12_a_node_without_addresses_waits_for_one(crew: Crew) -> None:
    """`ready` comes first, its invite null; the invite follows as soon as there is something."""
    with Namespace() as island, Lan() as lan:
        island.ip("link set lo down")
        node = on(crew, "a", island)
        process = node.start(listen=None)
        node.wait_ready()
        assert list(node.ready)[:4] == ["event", "peer_id", "listen", "invite"]
        assert node.ready["invite"] is None
        one_line_error(node.run("invite"), "address", code=1)
        lan.plug(island, "eth0", "10.77.0.50")
        told = next_event(process, "invite", 15.0)
        assert told.keys() >= {"link", "expires_at"}
        assert addresses(told["link"])[0][0].startswith("10.77.0.50:")
        assert listens_at(node, "10.77.0.50")


@netns
def test_12_two_laptops_on_one_cable(crew: Crew, lan: Lan) -> None:
    """Only link-local addresses: they meet over those."""
    hosts = [lan.host(firewall=None) for _ in range(2)]
    for host in hosts:
        host.ip("addr flush dev eth0 scope global")
    a = on(crew, "a", hosts[0]).up(listen=None)
    b = on(crew, "b", hosts[1]).up(listen=None, join=a.invite())
    settled([a, b])
    assert "fe80::" in a.ask("GET", "/peers")["peers"][0]["remote"]


@netns
def test_13_a_port_that_is_taken_in_one_family_is_passed_over(crew: Crew) -> None:
    with Namespace() as host:
        host.call(lambda: Path("/proc/sys/net/ipv4/ip_local_port_range").write_text("40000 40009"))
        taken = []
        for port in range(40000, 40008):
            taken.append(host.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)))
            taken[-1].bind(("0.0.0.0", port))
        try:
            for number in range(4):
                node = on(crew, f"n{number}", host).up(listen="*:0")
                node.kill()
        finally:
            for each in taken:
                each.close()


# --- C. how a path moves, and how a tree heals ---------------------------------------------------


def test_14_a_peer_may_restart_ice(crew: Crew) -> None:
    """Of a live association, in both roles; the records of a restart cost little."""
    suite("tests/core/endpoint", "restart and (dialler or dialled)")
    suite("tests/core/endpoint", "restart and (ten or often or flood)")
    suite("tests/transport", "restart")


BEHIND_NAT = """
import asyncio, re, sys
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription

class Side(asyncio.DatagramProtocol):
    def __init__(self, nat): self.nat = nat
    def connection_made(self, transport): self.transport = transport
    def datagram_received(self, data, address): self.nat.forward(self, data, address)

class Nat:
    async def bind(self):
        loop = asyncio.get_running_loop()
        _, side = await loop.create_datagram_endpoint(lambda: Side(self), ("127.0.0.1", 0))
        return side
    async def start(self, node):
        self.node, self.inside, self.outside = node, await self.bind(), await self.bind()
        return str(self.inside.transport.get_extra_info("sockname")[1])
    async def rebind(self):
        self.outside.transport.close()
        self.outside = await self.bind()
    def forward(self, side, data, address):
        if side is self.inside:
            self.peer = address
            self.outside.transport.sendto(data, self.node)
        else:
            self.inside.transport.sendto(data, self.peer)

async def main():
    answer, nat = sys.stdin.read(), Nat()
    port = re.search(r"127.0.0.1 ([0-9]+) typ host", answer)[1]
    answer = answer.replace(port, await nat.start(("127.0.0.1", int(port))))
    pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    channel = pc.createDataChannel("overlay", negotiated=True, id=0)
    opened, heard = asyncio.Event(), asyncio.Queue()
    channel.on("open", opened.set)
    channel.on("message", heard.put_nowait)
    await pc.setLocalDescription(await pc.createOffer())
    await pc.setRemoteDescription(RTCSessionDescription(answer, "answer"))
    await asyncio.wait_for(opened.wait(), 15)
    await heard.get()  # its hello, which we never answer
    await asyncio.sleep(3.5)
    await nat.rebind()
    print("said" if await asyncio.wait_for(heard.get(), 12) else "", flush=True)

asyncio.run(main())
"""
"""A stock peer, silent but for its checks, whose NAT maps it anew; it waits for a goodbye."""


def test_15_a_path_moves_by_a_check_and_an_encrypted_nonce(crew: Crew) -> None:
    """The goodbye to a silent stranger whose NAT has rebound reaches it where it is now.

    Stock aiortc checks every four to six seconds, so one comes from there before the hello is
    given up, ten seconds after the link has opened.
    """
    suite("tests/core/endpoint", "(spoofed or copied) and heartbeat")
    suite("tests/transport", "rebind and stock")
    node = crew.node("a").up()
    strangers = [
        Process(
            [sys.executable, "-c", BEHIND_NAT],
            stdin=node.ok("invite", "show", node.invite(), "--sdp"),
        )
        for _ in range(3)
    ]
    try:
        for stranger in strangers:
            stranger.popen.wait(45.0)
            stranger.out.finish()
            assert stranger.out.all == ["said\n"], stranger.log
    finally:
        for stranger in strangers:
            stranger.kill()


def test_16_a_tree_heals_before_anybody_notices() -> None:
    """A world has the seeds, all of them in ``make soak``; processes have a row of the bench."""
    suite("tests/core/gossip/test_fresh_mesh.py", "reach_everybody_soon_and_once")
    suite("tests/core/gossip/test_fresh_mesh.py", "the_same_seed_is_slow")
    rows = {row["name"]: row for row in json.loads((ROOT / "benchmarks/results.json").read_text())}
    assert rows["publish-fifty"]["ok"]


# --- all of it, for half an hour -----------------------------------------------------------------


@netns
@pytest.mark.timeout(2400)
@pytest.mark.parametrize("seconds", [25.0, pytest.param(1800.0, marks=pytest.mark.soak)])
def test_nothing_is_lost_at_nodes_that_stay(crew: Crew, lan: Lan, seconds: float) -> None:
    """Eight nodes: one killed every 10 s, one interface gone, one link deaf one way, and so on."""
    with Lan("10.78.0.0/24") as second:
        outcome = Endurance(crew, (lan, second)).run(seconds)
    assert len(outcome.sent) >= 4 * seconds
    assert outcome.kills >= seconds // 10 - 1
    assert outcome.lost() == {}
    assert outcome.doubled() == {}
    assert set(outcome.internal_errors.values()) == {0}
    if seconds > 300:
        for name, memory in outcome.memory.items():
            third = len(memory) // 3
            before, after = memory[third : 2 * third], memory[2 * third :]
            assert statistics.median(after) <= 1.05 * statistics.median(before), name
        for name, counts in outcome.descriptors.items():
            assert max(counts[len(counts) // 2 :]) <= max(counts[: len(counts) // 2]) + 2, name
