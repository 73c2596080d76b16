"""What follows from observers and knocks, and that nothing follows from too few of them."""

from dataclasses import replace
from functools import partial

import pytest

from overlay.core.nat.behaviour import Behaviour, Dependence, Findings, Ports, behaviour, is_open
from overlay.core.nat.reflexive import Reflexive
from overlay.core.types import Address, PeerId

LAN = Address("192.168.1.5", 4000)
WAN = "11.7.0.10"
INDEPENDENT, ADDRESS, ADDRESS_PORT, UNKNOWN = Dependence


def at_home(*ports: int, listening: Address = LAN, host: str = WAN) -> Reflexive:
    """Behind a NAT, as so many observers in as many prefixes see it."""
    reflexive = Reflexive()
    reflexive.listen((listening,), ())
    for index, port in enumerate(ports):
        observer = Address(f"20.{index}.0.1", 4000)
        reflexive.vote(PeerId(bytes([index]) * 32), Address(host, port), observer, listening)
    return reflexive


def known(reflexive: Reflexive, *findings: Findings) -> Behaviour:
    return behaviour(reflexive, findings)


def test_with_one_observer_all_is_unknown_whatever_was_found() -> None:
    everything = Findings(
        ipv6=False, near=True, strange=True, other=Address(WAN, 5000),
        fresh=(Address(LAN.host, 5000), Address(WAN, 5000)), main=True, hairpin=True,
    )  # fmt: skip
    seen = known(at_home(4000), everything)
    assert seen.words == ["unknown", "unknown", "unknown"]
    assert len(seen.observers) == 1
    assert known(at_home()).words == ["unknown"] * 3


def test_a_mapping_that_all_see_alike_is_independent() -> None:
    seen = known(at_home(61_000, 61_000))
    assert (seen.mapping, seen.filtering, seen.differs) == (INDEPENDENT, UNKNOWN, False)
    assert not seen.reachable


def test_which_part_of_the_address_decides_only_a_second_port_tells() -> None:
    seen = known(at_home(61_000, 7_000, 33_000))
    assert (seen.mapping, seen.differs) == (UNKNOWN, True)
    fresh = Address(LAN.host, 5000), Address(WAN, 5000)
    for port, mapping in ((5000, ADDRESS), (22_000, ADDRESS_PORT)):
        found = Findings(ipv6=False, fresh=fresh, other=Address(WAN, port))
        assert known(at_home(61_000, 7_000, 33_000), found).mapping is mapping
        early = Findings(ipv6=False, fresh=fresh, other=Address(WAN, port), elsewhere=fresh[1])
        assert known(at_home(61_000, 7_000, 33_000), early).mapping is INDEPENDENT
        assert known(at_home(61_000, 7_000, 33_000), early, found).mapping is INDEPENDENT
    other = Findings(ipv6=True, fresh=fresh, other=fresh[1])
    assert known(at_home(61_000, 7_000), other).mapping is UNKNOWN, "another family's"


@pytest.mark.parametrize(
    ("ports", "allocation"),
    [
        ((4000, 4000), Ports.PRESERVED),
        ((20_001, 20_002, 20_005), Ports.SEQUENTIAL),
        ((20_001, 20_009), Ports.SEQUENTIAL),
        ((20_009, 20_001), Ports.SEQUENTIAL),
        ((20_001, 61_442, 9_000), Ports.RANDOM),
        ((61_000, 61_000), Ports.UNKNOWN),
    ],
)
def test_how_ports_are_allocated(ports: tuple[int, ...], allocation: Ports) -> None:
    assert known(at_home(*ports)).ports is allocation


def test_two_mappings_a_moment_apart_say_most_about_ports() -> None:
    """Found with real nodes: between two observers a busy home has hundreds of other mappings."""
    apart = at_home(20_001, 20_300, 20_900)
    assert known(apart).ports is Ports.RANDOM
    fresh = Address(LAN.host, 5000), Address(WAN, 20_950)
    for other, allocation in ((20_953, Ports.SEQUENTIAL), (41_000, Ports.RANDOM)):
        found = Findings(ipv6=False, fresh=fresh, other=Address(WAN, other))
        assert known(apart, found).ports is allocation


def test_a_second_socket_shows_how_an_independent_nat_chooses_ports() -> None:
    fresh = Address(LAN.host, 5000)
    for outer, allocation in ((61_003, Ports.SEQUENTIAL), (22_222, Ports.RANDOM)):
        found = Findings(ipv6=False, fresh=(fresh, Address(WAN, outer)))
        assert known(at_home(61_000, 61_000), found).ports is allocation


def test_one_whose_early_packet_has_taken_the_port_does_not_make_it_another_nat() -> None:
    """Found on a router whose INPUT chain accepts: it gives our port away to who comes too soon."""
    assert known(at_home(4000, 4000, 61_000)).ports is Ports.PRESERVED
    taken = Findings(ipv6=False, fresh=(Address(LAN.host, 5000), Address(WAN, 61_000)))
    assert known(at_home(4000, 4000), taken).ports is Ports.PRESERVED
    assert known(at_home(4000, 4000), taken, taken, taken).ports is not Ports.PRESERVED


def test_a_fresh_socket_that_two_hosts_see_at_its_port_shows_that_ports_are_kept() -> None:
    """Two observers whose packets came too early may agree on a wrong port."""
    fresh = Address(LAN.host, 5000), Address(WAN, 5000)
    found = Findings(ipv6=False, fresh=fresh, other=Address(WAN, 7000), elsewhere=fresh[1])
    for seen in ((61_000, 61_000, 4000), (61_000, 61_000), (61_000, 7_000, 33_000)):
        assert known(at_home(*seen), found).ports is Ports.PRESERVED
        assert known(at_home(*seen), replace(found, elsewhere=None)).ports is not Ports.PRESERVED


@pytest.mark.parametrize(
    ("near", "strange", "filtering"),
    [
        (True, True, INDEPENDENT),
        (True, False, ADDRESS),
        (False, False, ADDRESS_PORT),
        (False, None, ADDRESS_PORT),
        (True, None, UNKNOWN),
        (None, None, UNKNOWN),
        (None, False, UNKNOWN),
    ],
)
def test_filtering(near: bool | None, strange: bool | None, filtering: Dependence) -> None:
    found = Findings(ipv6=False, near=near, strange=strange)
    assert known(at_home(4000, 4000), found).filtering is filtering


def test_a_knock_that_came_in_counts_for_more_than_one_that_got_lost() -> None:
    heard = Findings(ipv6=False, near=True, strange=True)
    lost = Findings(ipv6=False, near=False, strange=False)
    assert known(at_home(4000, 4000), heard, lost).filtering is INDEPENDENT
    assert known(at_home(4000, 4000), lost, heard).filtering is INDEPENDENT


def test_who_is_reached_by_strangers_at_its_own_global_address_has_no_nat() -> None:
    public = Address("11.7.1.10", 4000)
    reflexive = at_home(listening=public)
    assert known(reflexive).words == ["unknown"] * 3
    assert reflexive.prove(public)
    seen = known(reflexive)
    assert seen.words == ["independent", "independent", "preserved"]
    assert seen.reachable
    lan = at_home()
    assert lan.prove(LAN)
    assert not known(lan).reachable, "who came in there was on the same network"


def test_what_was_dialled_over_ipv6_says_nothing_of_an_ipv4_nat() -> None:
    """Found with real nodes: public ones are dialled over IPv6, homes may be, too."""
    six = Address("2a00::5", 4000)
    home = Reflexive()
    home.listen((LAN, six), ())
    assert home.prove(six)
    assert known(home).filtering is INDEPENDENT, "nobody sees us over IPv4"
    for index in range(2):
        observer = Address(f"20.{index}.0.1", 4000)
        home.vote(PeerId(bytes([index]) * 32), Address(WAN, 61_000), observer, LAN)
    assert known(home).words == ["independent", "unknown", "unknown"]
    public = Reflexive()
    public.listen((Address("11.7.1.10", 4000), six), ())
    public.prove(six)
    for index in range(2):
        observer = Address(f"2a0{index}::1", 4000)
        public.vote(PeerId(bytes([index]) * 32), six, observer, six)
    assert known(public).filtering is INDEPENDENT


def test_of_two_families_it_is_ipv4_that_has_the_nat() -> None:
    six = Address("2a00::5", 4000)
    home = at_home(61_000, 7_000)
    home.listen((LAN, six), ())
    for index in range(2, 6):
        observer = Address(f"2a0{index}::1", 4000)
        home.vote(PeerId(bytes([index]) * 32), six, observer, six)
    assert known(home).differs
    alone = at_home(61_000)
    alone.listen((LAN, six), ())
    for index in range(2, 6):
        observer = Address(f"2a0{index}::1", 4000)
        alone.vote(PeerId(bytes([index]) * 32), six, observer, six)
    assert known(alone).mapping is INDEPENDENT, "one over IPv4 is too few"


def test_no_nat_behind_a_firewall() -> None:
    own = Address("11.7.1.10", 4000)
    reflexive = at_home(4000, 4000, listening=own, host=own.host)
    seen = known(reflexive, Findings(ipv6=False, near=False, strange=False, hairpin=True))
    assert seen.words == ["independent", "address-port", "preserved"]
    assert (seen.reachable, seen.hairpin) == (False, None)


def test_ipv6_is_open_only_to_whom_strangers_have_knocked() -> None:
    reflexive = Reflexive()
    assert known(reflexive).ipv6 == "none"
    own = Address("2a00:1::5", 4000)
    reflexive.listen((LAN, own), ())
    assert known(reflexive).ipv6 == "unknown"
    assert known(reflexive, Findings(ipv6=True, near=False)).ipv6 == "firewalled"
    assert known(reflexive, Findings(ipv6=True, near=True, strange=True)).ipv6 == "open"
    reflexive.prove(own)
    assert known(reflexive).ipv6 == "open"


# --- claims --------------------------------------------------------------------------------------


def opened(
    reflexive: Reflexive,
    *,
    main: bool | None = None,
    near: bool | None = None,
    strange: bool | None = None,
    fresh: tuple[Address, Address] | None = None,
    twice: bytes = b"",
) -> Address | None:
    """`twice`: another helper, or the same, has found the same before."""
    found = Findings(False, PeerId(b"a"), near, strange, fresh, main=main)  # noqa: FBT003
    before = [replace(found, helper=PeerId(twice))] if twice else []
    return is_open(reflexive, found, before)


def test_what_strangers_reach_is_what_was_knocked() -> None:
    mapped = Address(WAN, 61_000)
    home = at_home(61_000, 61_000)
    assert opened(home, main=True, near=True, strange=True) == mapped
    closed = partial(opened, home, main=True, near=False, strange=False)
    assert closed(twice=b"b") == mapped, "a port forwarded by hand"
    assert closed() is None, "one helper alone may have knocked at one port only"
    assert closed(twice=b"a") is None
    assert opened(home, main=True, near=True, strange=False) is None, "only whom we have sent to"
    assert opened(home, main=True) is None
    assert opened(home, near=True, strange=True) is None, "nobody has knocked at the port itself"
    assert opened(at_home(61_000, 7_000), main=True, near=True, strange=True) is None


def test_without_a_nat_the_helpers_knock_has_to_do_until_there_is_a_stranger() -> None:
    own = Address("11.7.1.10", 4000)
    host, fresh = at_home(listening=own), (Address("11.7.1.10", 5000),) * 2
    assert opened(host, main=True, near=True, fresh=fresh) == own
    assert opened(host, main=True, near=True, strange=True, fresh=fresh) == own
    assert opened(host, main=True, near=True, strange=False, fresh=fresh) is None
    closed = partial(opened, host, main=True, near=False, strange=False, fresh=fresh)
    assert closed(twice=b"b") == own, "one port opened"
    assert closed() is None
    assert opened(host, near=True, fresh=fresh) is None
    inside = (Address(LAN.host, 5000),) * 2
    assert opened(at_home(), main=True, near=True, fresh=inside) is None, "the same network"


def test_a_claim_expires_and_can_be_renewed() -> None:
    mapped = Address(WAN, 61_000)
    home = at_home(61_000, 61_000)
    assert not any(entry.proven for entry in home.entries())
    assert home.knocked(mapped, 100.0)
    assert not home.knocked(mapped, 700.0), "no news"
    assert [entry.host for entry in home.entries() if entry.proven] == [WAN]
    assert home.is_public()
    assert not home.unknocked(1_900.0)
    assert home.unknocked(2_500.0)
    assert not home.is_public()
    assert not any(entry.proven for entry in home.entries())


def test_a_claim_ends_when_the_next_knock_does_not_come_in_or_we_are_elsewhere() -> None:
    mapped = Address(WAN, 61_000)
    home = at_home(61_000, 61_000)
    home.knocked(mapped, 0.0)
    assert home.close()
    assert not home.close()
    assert not home.is_public()
    home.knocked(mapped, 0.0)
    home.listen((Address("192.168.9.9", 4000),), ())
    assert not home.is_public()
