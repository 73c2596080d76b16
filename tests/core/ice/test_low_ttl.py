"""The low TTL: the answerer's first checks open its own NAT, and no other router ever sees them."""

from collections.abc import Callable
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.core.addresses import candidate_priority
from overlay.core.ice import outputs as ice
from overlay.core.ice.agent import IceAgent
from overlay.core.ice.low_ttl import BURST
from overlay.core.types import Address, Candidate, LowTtl, PathKind, Technique
from tests.core.ice.world import (
    Host,
    Nat,
    OpenInput,
    World,
    connected,
    credentials,
    host_candidates,
    meet,
)

OFFERER, ANSWERER = Address("198.51.100.1", 40_001), Address("203.0.113.1", 40_002)
LATE = 0.4
"""Seconds that an answer takes, and as long an offer."""
ENOUGH = LowTtl((OFFERER,), 4, 0.15 + 2 * LATE)
Boxes = tuple[type[Nat], type[Nat]]


def pair(seed: int, boxes: Boxes, low_ttl: LowTtl | None, late: float) -> tuple[World, Host, Host]:
    """An offerer and an answerer behind such NATs; both have told each other what is mapped."""
    world = World(seed)
    a, b = world.host("a", "192.168.0.2"), world.host("b", "192.168.1.2")
    offered = []
    for host, box, mapped in zip((a, b), boxes, (OFFERER, ANSWERER), strict=True):
        nat = host.gateway = box(mapped.host, port=50_000)
        nat.mappings[host.addresses[0], None] = mapped
        priority = candidate_priority("srflx")
        seen = Candidate("srflx", mapped, priority, "s", host.addresses[0])
        offered.append([*host_candidates(host), seen])
    meet(a, b, *offered, signalling=late, low_ttl=low_ttl)
    return world, a, b


OPEN = [(OpenInput, OpenInput), (OpenInput, Nat), (Nat, OpenInput)]


@pytest.mark.parametrize("late", [0.01, LATE], ids=["early", "late"])
@pytest.mark.parametrize("boxes", OPEN, ids=["both", "offerer", "answerer"])
def test_routers_that_remember_an_early_packet_are_passed(boxes: Boxes, late: float) -> None:
    for seed in range(10):
        world, a, b = pair(seed, boxes, ENOUGH, late)
        assert world.run_until(9.0, lambda a=a, b=b: connected(a, b))  # type: ignore[misc]
        for host in (a, b):
            assert host.route is not None
            assert (host.route.path, host.route.technique) == (
                PathKind.REFLEXIVE,
                Technique.LOW_TTL,
            )


@pytest.mark.parametrize(
    "low_ttl",
    [None, LowTtl((OFFERER,), 9, 9.0), LowTtl((OFFERER,), 4, 0.2)],
    ids=["never low", "as high as it takes to get there", "too short for the signalling"],
)
def test_counter_such_a_router_that_sees_one_packet_is_not_passed(low_ttl: LowTtl | None) -> None:
    world, a, b = pair(1, (OpenInput, OpenInput), low_ttl, LATE)
    assert not world.run_until(9.0, lambda: connected(a, b))


def test_a_pair_that_needs_no_low_ttl_goes_by_plain_ice() -> None:
    world, a, b = pair(1, (Nat, Nat), None, 0.01)
    assert world.run_until(9.0, lambda: connected(a, b))
    assert {host.route and host.route.technique for host in (a, b)} == {Technique.ICE}


def test_the_first_low_checks_leave_at_once_and_all_stay_low_until_the_peer_is_heard() -> None:
    world, a, b = pair(1, (Nat, Nat), ENOUGH, LATE)
    assert [(at, each.ttl) for at, each in b.sent if each.target == OFFERER][:1] == [(0.0, 4)]
    assert world.run_until(9.0, lambda: connected(a, b))
    towards = [(at, each.ttl) for at, each in b.sent if each.target == OFFERER]
    low = [at for at, ttl in towards if ttl is not None]
    usual = [at for at, ttl in towards if ttl is None]
    assert len(low) >= 2
    assert max(low) < LATE <= min(usual)
    assert all(each.ttl is None for _, each in a.sent)
    assert all(each.ttl is None for _, each in b.sent if each.target != OFFERER)


def test_whoever_is_never_heard_gets_packets_of_the_usual_ttl_after_a_while() -> None:
    """It may be that the own NAT lets the peer in only once more than the low TTL has got out."""
    world, _, b = pair(1, (Nat, Nat), ENOUGH, 5.0)
    world.run_until(4.0)
    towards = [(at, each.ttl) for at, each in b.sent if each.target == OFFERER]
    assert all((at < ENOUGH.seconds) is (ttl == 4) for at, ttl in towards)
    first = min(at for at, ttl in towards if ttl is None)
    assert first == pytest.approx(ENOUGH.seconds), "not with the next that is due anyway"


def agent_with(count: int, low_ttl: LowTtl, remotes: list[Candidate]) -> IceAgent:
    """An answerer with so many addresses of its own, each on another link, started."""
    locals_ = [Address(f"10.0.{each + 1}.1", 5000) for each in range(count)]
    own = [Candidate("host", each, candidate_priority("host", n)) for n, each in enumerate(locals_)]
    agent = IceAgent(
        controlling=False, local=credentials("b"), candidates=own, random=Random(1), now=0.0
    )
    agent.start(credentials("a"), remotes, 0.0, low_ttl=low_ttl)
    return agent


def sent_by(agent: IceAgent, until: Callable[[ice.SendStun], bool]) -> list[ice.SendStun]:
    return [each for each in agent.take() if isinstance(each, ice.SendStun) and until(each)]


@pytest.mark.parametrize("count", [1, 7, 8])
def test_the_burst_is_bounded_and_the_others_wait_for_the_pacer(count: int) -> None:
    mapped = [Address(f"198.51.100.{each}", 4000) for each in (1, 2)]
    remotes = [Candidate("srflx", each, candidate_priority("srflx")) for each in mapped]
    agent = agent_with(count, LowTtl(tuple(mapped), 4, 1.0), remotes)
    first = sent_by(agent, lambda each: each.ttl == 4)
    assert len(first) == min(BURST, 2 * count)
    assert not sent_by(agent, lambda each: True)


@given(st.lists(st.sampled_from(["check", "wait", "answer"]), max_size=12), st.integers(0, 2**16))
def test_no_packet_of_the_usual_ttl_leaves_before_its_time(steps: list[str], seed: int) -> None:
    """Whatever else happens: strangers' checks, timers, answers to the peer's other addresses."""
    rng = Random(seed)
    world, _, b = pair(seed % 50, (Nat, Nat), ENOUGH, 99.0)
    assert b.agent is not None
    for step in steps:
        match step:
            case "wait":
                world.run_until(world.now + rng.random() * 0.2)
            case "check":
                b.agent.add_remote_candidate(
                    Candidate("host", Address(f"10.9.{rng.randrange(9)}.1", 5000), 1 + seed),
                    world.now,
                )
            case _:
                b.agent.unacknowledged(world.now)
        b.perform()
    towards = [(at, each.ttl) for at, each in b.sent if each.target == OFFERER]
    assert {ttl for at, ttl in towards if at < ENOUGH.seconds} == {4}
