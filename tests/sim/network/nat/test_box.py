"""A box does what RFC 4787 says of its kind, and nothing that only another kind does.

Each rule is tried on every kind that a box can have, drawn by Hypothesis: where a kind is said to
do otherwise, the rule has to fail, which is its counter-test.
"""

from dataclasses import replace
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.core.nat.behaviour import Dependence, Ports
from overlay.core.types import Address
from overlay.sim.network.nat import box as boxes
from overlay.sim.network.nat.box import Box
from overlay.sim.network.nat.kinds import KINDS, Kind

INDEPENDENT, ADDRESS, ADDRESS_PORT, _ = Dependence
OUTER = "11.1.0.10"
HOST = Address("192.168.1.10", 4000)
PEER, SAME_HOST, STRANGER = Address("5.1.0.10", 1), Address("5.1.0.10", 2), Address("5.2.0.10", 1)
DEPENDENCES = st.sampled_from((INDEPENDENT, ADDRESS, ADDRESS_PORT))
PORTS = st.sampled_from((Ports.PRESERVED, Ports.SEQUENTIAL, Ports.RANDOM))
PLAIN = st.builds(
    Kind,
    st.just("drawn"),
    mapping=DEPENDENCES,
    filtering=DEPENDENCES,
    ports=PORTS,
    timeout=st.sampled_from((3.0, 35.0, 120.0)),
)
SEEDS = st.integers(0, 2**32)


def box(kind: Kind, seed: int = 0) -> Box:
    return Box(kind, OUTER, Random(seed))


def out(one: Box, source: Address, target: Address, now: float = 0.0) -> Address:
    outer = one.outward(source, target, now)
    assert outer is not None
    return outer


# --- §4.1: mapping -------------------------------------------------------------------------------


@given(PLAIN, SEEDS)
def test_a_mapping_depends_on_what_the_kind_says(kind: Kind, seed: int) -> None:
    one = box(kind, seed)
    first, again = out(one, HOST, PEER), out(one, HOST, PEER)
    other_port, other_host = out(one, HOST, SAME_HOST), out(one, HOST, STRANGER)
    assert first == again
    assert (first == other_port) == (kind.mapping in (INDEPENDENT, ADDRESS))
    assert (first == other_host) == (kind.mapping is INDEPENDENT)
    assert all(each.host == OUTER for each in (first, other_port, other_host))


@given(PLAIN, SEEDS, st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=60))
def test_no_two_inner_ports_share_an_outer_one(
    kind: Kind, seed: int, flows: list[tuple[int, int]]
) -> None:
    one, taken = box(kind, seed), dict[Address, Address]()
    for inner, target in flows:
        source = Address(f"192.168.1.{10 + inner % 3}", 4000 + inner)
        outer = out(one, source, Address("5.1.0.10", 1000 + target))
        assert taken.setdefault(outer, source) == source


# --- §4.2.1: ports -------------------------------------------------------------------------------


@given(PLAIN, SEEDS)
def test_ports_are_chosen_as_the_kind_says(kind: Kind, seed: int) -> None:
    one = box(kind, seed)
    sources = [Address(HOST.host, 4000 + 7 * each) for each in range(4)]
    outer = [out(one, source, PEER).port for source in sources]
    assert (outer == [source.port for source in sources]) == (kind.ports is Ports.PRESERVED)
    steps = [(late - early) % boxes.SEQUENCE for early, late in pairwise(outer)]
    assert (steps == [1, 1, 1]) == (kind.ports is Ports.SEQUENTIAL)


def test_a_preserved_port_that_is_taken_gives_way_to_another() -> None:
    one = box(KINDS["port_restricted"])
    other = Address("192.168.1.11", HOST.port)
    assert out(one, HOST, PEER).port == HOST.port
    assert out(one, other, PEER).port != HOST.port


def test_a_sequential_nat_numbers_the_flows_of_all_its_hosts() -> None:
    """Why foreign flows spoil a prediction."""
    one = box(KINDS["symmetric_sequential"])
    first = out(one, HOST, PEER)
    out(one, Address("192.168.1.11", 9), STRANGER)
    assert out(one, HOST, STRANGER).port == first.port + 2


# --- §4.3: how long a mapping lives --------------------------------------------------------------


@given(PLAIN, SEEDS)
def test_an_idle_mapping_ends_after_its_time(kind: Kind, seed: int) -> None:
    one = box(kind, seed)
    outer = out(one, HOST, PEER)
    assert one.inward(PEER, outer, kind.timeout) == HOST
    assert one.inward(PEER, outer, kind.timeout + 0.1) is None


@given(PLAIN, SEEDS)
def test_what_goes_out_keeps_a_mapping_alive_and_what_comes_in_does_not(
    kind: Kind, seed: int
) -> None:
    one, half = box(kind, seed), 0.6 * kind.timeout
    outer = out(one, HOST, PEER)
    assert out(one, HOST, PEER, half) == outer
    assert one.inward(PEER, outer, 2 * half) == HOST
    assert one.inward(PEER, outer, 3 * half) is None


def test_an_ended_mapping_may_come_up_with_another_port() -> None:
    kind = KINDS["port_restricted_hashed"]
    one = box(kind)
    assert out(one, HOST, PEER) != out(one, HOST, PEER, kind.timeout + 0.1)


@given(PLAIN, SEEDS)
def test_a_restart_loses_every_mapping(kind: Kind, seed: int) -> None:
    one = box(kind, seed)
    outer = out(one, HOST, PEER)
    one.forget("11.1.0.11")
    assert one.inward(PEER, outer, 0.0) is None
    assert out(one, HOST, PEER).host == "11.1.0.11"


# --- §5: filtering -------------------------------------------------------------------------------


@given(PLAIN, SEEDS)
def test_a_filter_lets_in_whom_the_kind_says(kind: Kind, seed: int) -> None:
    one = box(kind, seed)
    outer = out(one, HOST, PEER)
    assert one.inward(PEER, outer, 0.0) == HOST
    assert (one.inward(SAME_HOST, outer, 0.0) == HOST) == (kind.filtering is not ADDRESS_PORT)
    assert (one.inward(STRANGER, outer, 0.0) == HOST) == (kind.filtering is INDEPENDENT)


@given(PLAIN, SEEDS, st.integers(1, 65_535))
def test_nothing_gets_in_where_nothing_is_mapped(kind: Kind, seed: int, port: int) -> None:
    one = box(kind, seed)
    outer = out(one, HOST, PEER)
    if port != outer.port:
        assert one.inward(PEER, Address(OUTER, port), 0.0) is None


def test_a_filter_without_a_nat_leaves_addresses_as_they_are() -> None:
    one = box(Kind("firewall", is_nat=False))
    assert out(one, HOST, PEER) == HOST
    assert one.inward(PEER, HOST, 0.0) == HOST
    assert one.inward(STRANGER, HOST, 0.0) is None


def test_without_udp_nothing_goes_either_way() -> None:
    one = box(KINDS["no_udp"])
    assert one.outward(HOST, PEER, 0.0) is None
    assert one.inward(PEER, Address(OUTER, HOST.port), 0.0) is None


# --- packets that come too early -----------------------------------------------------------------

OPEN, SHUT = KINDS["open_input"], KINDS["port_restricted"]


def early(kind: Kind, *, again: float = 0.0, at: float = 1.0) -> tuple[Box, Address, Address]:
    """The peer's packets come at 0 and `again` before the host sends to it, which it does `at`.

    Returns where everybody else sees the host, and where the peer does.
    """
    one = box(kind)
    outer = out(one, HOST, STRANGER)
    for when in (0.0, again):
        assert one.inward(PEER, outer, when) is None
    out(one, HOST, STRANGER, at)
    return one, outer, out(one, HOST, PEER, at)


@pytest.mark.parametrize(("kind", "spoils"), [(OPEN, True), (SHUT, False)])
def test_a_packet_that_comes_too_early_takes_the_port(kind: Kind, spoils: bool) -> None:
    """The counter-test: a router that drops it keeps the port for its host."""
    one, outer, seen = early(kind)
    assert (seen != outer) == spoils
    # The peer, which sends to where all others see the host, gets in only if nothing is spoilt.
    assert (one.inward(PEER, outer, 1.0) == HOST) != spoils
    # At its own port it does.
    assert one.inward(PEER, seen, 1.0) == HOST
    assert out(one, HOST, PEER, 2.0) == seen


def test_it_takes_it_for_thirty_seconds_after_the_last_such_packet() -> None:
    for again, at, spoils in ((0.0, 29.9, True), (0.0, 30.1, False), (20.0, 49.9, True)):
        _, outer, seen = early(OPEN, again=again, at=at)
        assert (seen != outer) == spoils, (again, at)


def test_it_takes_it_for_its_own_source_alone() -> None:
    one, outer, _ = early(OPEN)
    assert out(one, HOST, SAME_HOST, 1.0) == outer
    assert one.inward(SAME_HOST, outer, 1.0) == HOST


def test_a_flow_that_was_there_before_keeps_its_port() -> None:
    one = box(OPEN)
    outer = out(one, HOST, PEER)
    assert one.inward(PEER, outer, 1.0) == HOST
    assert out(one, HOST, PEER, 2.0) == outer


def test_a_fresh_socket_at_either_end_is_not_spoilt() -> None:
    one, outer, _ = early(OPEN)
    fresh = Address(HOST.host, HOST.port + 1)
    assert out(one, fresh, PEER, 1.0).port == fresh.port
    assert out(one, HOST, Address(PEER.host, PEER.port + 1), 1.0) == outer


def test_it_spoils_the_port_of_a_host_that_has_sent_to_nobody_yet() -> None:
    one = box(OPEN)
    assert one.inward(PEER, Address(OUTER, HOST.port), 0.0) is None
    assert out(one, HOST, PEER, 1.0).port != HOST.port
    assert out(one, HOST, STRANGER, 1.0).port == HOST.port


@given(PLAIN, SEEDS)
def test_early_packets_spoil_nothing_where_they_are_dropped(kind: Kind, seed: int) -> None:
    """Of two boxes of the same luck, one gets them, the other does not."""
    one, other = box(kind, seed), box(kind, seed)
    guess = Address(OUTER, HOST.port)
    one.inward(PEER, guess, 0.0)
    assert out(one, HOST, PEER) == out(other, HOST, PEER)


# --- bounds --------------------------------------------------------------------------------------


def test_a_nat_whose_ports_are_all_in_use_makes_no_mapping() -> None:
    one = box(replace(KINDS["symmetric_sequential"], timeout=1.0))
    for port in range(boxes.SEQUENCE):
        out(one, HOST, Address("5.1.0.10", port))
    assert one.outward(HOST, STRANGER, 0.0) is None
    assert one.outward(HOST, STRANGER, 2.0) is not None, "idle ones make room"
