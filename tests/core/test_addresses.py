"""Which of its addresses a machine names, and which first."""

from hypothesis import given
from hypothesis import strategies as st

from overlay.core.addresses import (
    LOCALS_MAX,
    LocalHost,
    Reach,
    is_loopback,
    named_hosts,
    needs_zone,
    reach_of,
)

LOOPBACK = [LocalHost("127.0.0.1", "lo"), LocalHost("::1", "lo")]
LAN = LocalHost("192.168.1.5", "eth0")
LAN6 = LocalHost("2001:db8::5", "eth0")
LINK = LocalHost("fe80::5", "eth0")


def bridges(name: str, count: int) -> list[LocalHost]:
    return [LocalHost(f"fd00:{n}::1", f"{name}{n}") for n in range(1, count + 1)]


def test_eight_bridges_do_not_push_the_lan_out() -> None:
    """Stated: all IPv6 addresses came first, and an invite has room for eight."""
    for name in ("docker", "virbr", "br"):
        hosts = [*LOOPBACK, *bridges(name, 8), LAN, LINK]
        for routed in ([], [LAN.host]):
            assert LAN.host in named_hosts(hosts, routed)[:2]


def test_the_default_routes_come_first_one_a_family() -> None:
    lan = [LocalHost(f"2001:db8::{n}", "eth0") for n in range(1, 9)]
    hosts = [*LOOPBACK, LocalHost("10.8.0.2", "tun0"), *lan, LAN, *bridges("br-", 3)]
    assert named_hosts(hosts, ["2001:db8::7", "10.8.0.2"])[:3] == [
        "2001:db8::7",
        "10.8.0.2",
        "2001:db8::1",
    ]
    assert named_hosts(hosts, ["2001:db8::7", "10.8.0.2"])[3] == LAN.host, "then the LAN's"
    assert named_hosts(hosts, ["2001:db8::7", "10.8.0.2"])[-3:] == [
        each.host for each in bridges("br-", 3)
    ]


def test_a_bridge_that_the_default_route_runs_over_is_the_lan() -> None:
    second = LocalHost("10.0.0.2", "bridge0")
    hosts = [LocalHost("10.0.0.1", "bridge0"), *bridges("docker", 4), LAN, second]
    assert named_hosts(hosts, ["10.0.0.1"])[:3] == ["10.0.0.1", second.host, LAN.host]
    assert second.host not in named_hosts(hosts, [])[:3]


def test_loopback_is_named_only_where_there_is_nothing_else_in_either_family() -> None:
    """Stated: a machine with IPv4 alone named ``::1``, too."""
    assert named_hosts([*LOOPBACK, LAN], []) == [LAN.host]
    assert named_hosts([*LOOPBACK, LAN6], []) == [LAN6.host]
    assert named_hosts(LOOPBACK, []) == ["::1", "127.0.0.1"]
    assert named_hosts([], ["192.0.2.1"]) == []


def test_link_local_addresses_are_named_where_the_lan_has_no_others() -> None:
    guests = bridges("docker", 1)
    assert named_hosts([*LOOPBACK, LINK], []) == [LINK.host]
    assert named_hosts([*LOOPBACK, *guests, LINK], []) == [LINK.host, guests[0].host]
    assert named_hosts([*LOOPBACK, LAN, LINK], []) == [LAN.host]
    assert named_hosts([*LOOPBACK, LocalHost("fe80::1", "docker0")], []) == ["::1", "127.0.0.1"]


NAMES = st.sampled_from(["lo", "eth0", "wlan0", "docker0", "br-1f", "virbr0", "tun0"])
TEXTS = st.one_of(
    st.ip_addresses().map(str),
    st.sampled_from(["127.0.0.1", "::1", "fe80::1", "fe80::2", "10.0.0.1", "x", ""]),
)
LOCALS = st.lists(st.builds(LocalHost, TEXTS, NAMES), max_size=60)


@given(LOCALS, st.lists(TEXTS, max_size=2))
def test_whatever_the_interfaces_are_the_rules_hold(
    hosts: list[LocalHost], routed: list[str]
) -> None:
    named = named_hosts(hosts, routed)
    own = {each.host for each in hosts}
    assert len(named) == len(set(named)) <= LOCALS_MAX
    assert set(named) <= own
    if any(is_loopback(host) for host in named):
        assert all(is_loopback(host) for host in named)
    usable = [h for h in routed if h in own and not is_loopback(h) and not needs_zone(h)]
    assert named[: len(set(usable))] == list(dict.fromkeys(usable))
    assert bool(named) or all(needs_zone(host) for host in own)


def test_from_how_far_a_node_can_be_dialled() -> None:
    assert reach_of([]) is Reach.NOWHERE
    assert reach_of(["::1", "127.0.0.1"]) is Reach.MACHINE
    assert reach_of(["::1", "fe80::1"]) is reach_of(["169.254.7.7"]) is Reach.LINK
    assert reach_of(["fe80::1", "2001:db8::1"]) is Reach.NETWORK
    assert reach_of(["nowhere"]) is Reach.NOWHERE
    assert reach_of([LAN.host]) is Reach.NETWORK
