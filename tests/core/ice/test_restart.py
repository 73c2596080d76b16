"""ICE restarts: fresh credentials and addresses under a living association (RFC 8445 §9)."""

import pytest

from overlay.core.ice import outputs as ice
from overlay.core.ice import stun
from overlay.core.types import Address, Candidate
from tests.core.ice.by_hand import check, give
from tests.core.ice.world import Host, credentials, host_candidates, linked, worries


def restart(a: Host, b: Host, *, delay: float = 0.0) -> None:
    """Both restart with fresh credentials and all addresses that they have now."""
    fresh = {host: credentials(host.name + "2") for host in (a, b)}
    for host, other, wait in ((a, b, 0.0), (b, a, delay)):

        def go(host: Host = host, other: Host = other) -> None:
            assert host.agent is not None
            offers = host_candidates(other)
            now, ours = host.world.now, host_candidates(host)
            host.agent.restart(fresh[host], fresh[other], offers, now, local_candidates=ours)
            host.perform()

        a.world.at(a.world.now + wait, go)


@pytest.mark.parametrize("delay", [0.0, 0.2, 3.0])
def test_a_restart_moves_both_ends_while_the_old_path_lives_on(delay: float) -> None:
    world, a, b = linked(17)
    a.addresses.insert(0, Address("172.16.0.1", 5000))
    b.addresses.insert(0, Address("172.16.0.2", 5000))
    restart(a, b, delay=delay)
    both_moved = lambda: len(a.said(ice.Selected)) == len(b.said(ice.Selected)) == 2  # noqa: E731
    assert world.run_until(world.now + 8.0, both_moved)
    assert a.route is not None
    assert b.route is not None
    assert (a.route.local, a.route.remote) == (b.route.remote, b.route.local)
    assert a.route.local == a.addresses[0]
    world.run_until(world.now + 20.0)
    assert not a.said(ice.Silent)
    assert not b.said(ice.Silent)
    assert not a.said(ice.Failed)


def test_checks_under_the_old_credentials_are_answered_after_a_restart() -> None:
    """The peer restarts when it hears of ours: until then it asks as before."""
    world, a, b = linked(24)
    assert a.agent is not None
    a.agent.restart(credentials("a2"), credentials("b2"), host_candidates(b), world.now)
    a.perform()
    for username, key, code in (
        ("ufraga:ufragb", credentials("a").password, None),
        ("ufraga2:ufragb2", credentials("a2").password, None),
        ("ufraga:ufragb2", credentials("a").password, 401),
        ("ufraga:ufragb", credentials("a2").password, 401),
    ):
        a.sent.clear()
        data = check(username=username, key=key.encode(), controlling=None, controlled=0)
        give(world, a, data, b.addresses[0])
        answer = stun.parse(a.sent[0][1].data)
        assert isinstance(answer, stun.Message)
        assert answer.error_code == code, (username, code)


def test_a_restart_onto_the_same_path_says_nothing_new() -> None:
    world, a, b = linked(18)
    restart(a, b)
    world.run_until(world.now + 15.0)
    assert len(a.said(ice.Selected)) == len(b.said(ice.Selected)) == 1
    assert not worries(a)
    assert not worries(b)
    assert a.agent is not None
    assert a.agent.local == credentials("a2")


def test_a_restart_that_finds_no_path_leaves_the_old_one() -> None:
    """The peer never restarts: our checks under its new credentials are refused."""
    world, a, b = linked(19)
    assert a.agent is not None
    nowhere = [Candidate("host", Address("10.9.9.9", 1), 5)]
    a.agent.restart(credentials("a2"), credentials("b2"), nowhere, world.now)
    a.perform()
    world.run_until(world.now + 11.0)
    assert not a.said(ice.Failed)
    assert len(a.said(ice.Selected)) == 1
    world.run_until(world.now + 5.0)
    a.send_record()
    world.run_until(world.now + 0.1)
    assert worries(a)[-1] == ice.Alive(), "acknowledgements still count"
