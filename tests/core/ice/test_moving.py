"""An established path: what moves it, and what does not."""

from random import Random

import pytest

from overlay.core.ice import outputs as ice
from overlay.core.ice import stun
from overlay.core.types import Address
from tests.core.ice.by_hand import check, give
from tests.core.ice.world import (
    ACK,
    HEARTBEAT,
    RECORD,
    Host,
    World,
    behind_nat,
    connected,
    credentials,
    host_candidates,
    linked,
    meet,
    secured,
    worries,
)


@pytest.mark.parametrize("seed", range(10))
def test_a_rebound_nat_is_followed_on_an_idle_path(seed: int) -> None:
    world, a, b, nat = behind_nat(seed)
    nat.rebind()
    assert world.run_until(world.now + 4.0, lambda: len(b.said(ice.Selected)) >= 2)
    assert b.route is not None
    assert b.route.remote in nat.mappings.values()
    assert not b.said(ice.Silent)
    world.run_until(world.now + 1.0)
    assert len(a.said(ice.Selected)) == 1, "our own end has not moved"
    assert len(a.said(ice.Mapped)) == 2, "but is seen elsewhere"
    assert len({fact.remote for fact in b.said(ice.Selected)}) == 2


@pytest.mark.parametrize("mute", [True, False])
def test_a_check_alone_does_not_move_a_path(mute: bool) -> None:
    """Nor does one with packets: the nonce has to come back."""
    world, a, b, nat = behind_nat(1)
    nat.rebind()
    if mute:
        world.lost = lambda datagram: (
            datagram.data.startswith(ACK + b"") and len(datagram.data) > len(ACK)
        )
    for _ in range(20):
        a.send_record()
        world.run_until(world.now + 0.5)
    assert (len({fact.remote for fact in b.said(ice.Selected)}) == 1) is mute


def spoofed(number: int) -> bytes:
    """A fresh check with the password of "b", as somebody might send it who has learnt that."""
    key = credentials("b").password.encode()
    return check(username="ufragb:ufraga", key=key, random=Random(number))


@pytest.mark.parametrize("copies", [False, True], ids=["no records", "copied records"])
@pytest.mark.parametrize("kind", ["no checks", "copied checks", "spoofed checks"])
def test_checks_and_records_from_a_wrong_place_draw_one_heartbeat_a_check(
    kind: str, copies: bool
) -> None:
    """Beside the answer to each check, which its sender could have had anywhere."""
    world, a, b = linked(12)
    thief = world.host("thief", "203.0.113.66")
    thief.on_datagram = lambda datagram: None
    checks = [each for _, each in a.sent if each.data[:2] == b"\0\1"]
    sent = 0
    for number in range(50):
        if kind != "no checks":
            thief.send(
                checks[-1].data if kind == "copied checks" else spoofed(number), b.addresses[0]
            )
            sent += 1
        if copies:
            thief.send(RECORD, b.addresses[0])
        b.send_record()
        world.run_until(world.now + 0.2)
    astray = [each.data for _, each in b.sent if each.target == thief.addresses[0]]
    heartbeats = [data for data in astray if data.startswith(HEARTBEAT)]
    answers = [data for data in astray if data[:2] == b"\1\1"]
    assert len(heartbeats) == len(answers) == sent
    assert len(astray) == 2 * sent
    assert len(b.said(ice.Selected)) == 1
    assert not worries(b)


def test_heartbeats_to_wrong_places_are_few_whatever_is_spoofed() -> None:
    world, _a, b = linked(12)
    b.sent.clear()
    for number in range(2000):
        source = Address(f"203.0.113.{1 + number % 200}", 5000)
        give(world, b, spoofed(number), source, own=b.addresses[0])
        world.run_until(world.now + 0.005)
    heartbeats = [each for _, each in b.sent if each.data.startswith(HEARTBEAT)]
    assert 100 <= len(heartbeats) <= 111
    assert b.agent is not None
    assert len(b.agent._confirmations) <= 32
    assert len(b.said(ice.Selected)) == 1


def test_a_nonce_counts_only_from_where_it_was_sent_and_once() -> None:
    world, _a, b = linked(29)
    assert b.agent is not None
    here, there = Address("203.0.113.66", 5000), Address("203.0.113.67", 5000)
    local, b.sent = b.addresses[0], []
    for number, place in enumerate((here, there)):
        give(world, b, spoofed(number), place, own=local)
    mine, theirs = (
        each.data.removeprefix(HEARTBEAT) for _, each in b.sent if each.data.startswith(HEARTBEAT)
    )
    for nonce, place, moves in [
        (theirs, here, False),
        (bytes(8), there, False),
        (mine, here, True),
        (mine, here, False),
        (theirs, there, False),  # asked before the path moved
    ]:
        count = len(b.said(ice.Selected))
        b.agent.confirmed(nonce, place, local, world.now)
        b.perform()
        assert (len(b.said(ice.Selected)) > count) is moves
    assert b.route is not None
    assert b.route.remote == here


def test_our_own_end_moves_when_its_address_is_gone() -> None:
    """From wire to radio: the mover notices, probes from elsewhere, and the other follows."""
    world = World(13)
    a, b = world.host("a", "10.0.0.1", "192.168.7.1"), world.host("b", "10.0.0.2")
    meet(a, b, host_candidates(a)[:1])
    assert secured(world, a, b)
    del a.addresses[0]
    gone_at = world.now
    assert world.run_until(gone_at + 6.5, lambda: len(b.said(ice.Selected)) == 2)
    assert a.route is not None
    assert b.route is not None
    assert a.route.local == b.route.remote == Address("192.168.7.1", 5000)
    assert worries(a) == [ice.Suspect(), ice.Alive()]
    world.run_until(world.now + 20.0)
    assert worries(a) == [ice.Suspect(), ice.Alive()]
    assert not b.said(ice.Silent)
    assert len(a.said(ice.Selected)) == len(b.said(ice.Selected)) == 2


def test_our_own_end_stays_when_only_the_peer_slept() -> None:
    """Both the path and the way around it are answered at last: then there is nothing to mend."""
    world = World(22)
    a, b = world.host("a", "10.0.0.1", "192.168.7.1"), world.host("b", "10.0.0.2")
    meet(a, b)
    assert secured(world, a, b)
    seen = len(a.said(ice.Mapped))
    for sleep in (3.0, 5.0, 20.0):
        world.run_until(world.now + 5.0)
        b.frozen = True
        world.run_until(world.now + sleep)
        b.thaw()
        world.run_until(world.now + 5.0)
        assert worries(a)[-1] == ice.Alive()
    assert len(a.said(ice.Selected)) == len(b.said(ice.Selected)) == 1
    assert len(a.said(ice.Mapped)) == seen, "how the peer sees our other address is no news"


def test_a_path_does_not_flap_between_two_that_work() -> None:
    world = World(14, loss=0.1)
    a = world.host("a", "10.0.0.1", "192.168.7.1")
    b = world.host("b", "10.0.0.2", "192.168.7.2")
    meet(a, b)
    assert secured(world, a, b)

    def talk() -> None:
        a.send_record()
        b.send_record()
        world.at(world.now + 0.3, talk)

    talk()
    world.run_until(world.now + 60.0)
    assert len(a.said(ice.Selected)) == len(b.said(ice.Selected)) == 1


def test_a_nomination_moves_the_path_only_until_something_was_acknowledged() -> None:
    """An aggressive peer may nominate several pairs before anything is encrypted."""
    world, _, b = linked(15)
    answers_check(world, b, Address("10.0.0.77", 5000), use_candidate=True)
    assert len(b.said(ice.Selected)) == 1, "b has been acknowledged before"


def answers_check(world: World, b: Host, source: Address, *, use_candidate: bool) -> None:
    """A genuine check of "a" reaches b from `source`, and b's check there is answered."""
    data = check(username="ufragb:ufraga", key=credentials("b").password.encode(), random=Random(5))
    if use_candidate:
        request = stun.binding_request(
            bytes(12), username="ufragb:ufraga", priority=9, controlling=7, use_candidate=True
        )
        data = stun.encode(request, credentials("b").password.encode())
    count = len(b.sent)
    give(world, b, data, source)
    for _, datagram in b.sent[count:]:
        question = stun.parse(datagram.data)
        if not isinstance(question, stun.Message):
            continue
        if question.message_class is stun.MessageClass.REQUEST:
            reply = stun.binding_success(question, b.addresses[0])
            give(world, b, stun.encode(reply, credentials("a").password.encode()), source)


def test_before_any_packet_a_later_nomination_is_followed() -> None:
    world = World(16)
    a, b = world.host("a", "10.0.0.1"), world.host("b", "10.0.0.2")
    a.pokes = b.pokes = False
    meet(a, b)
    assert world.run_until(9.0, lambda: connected(a, b))
    elsewhere = Address("10.0.0.77", 5000)
    answers_check(world, b, elsewhere, use_candidate=False)
    assert len(b.said(ice.Selected)) == 1
    answers_check(world, b, elsewhere, use_candidate=True)
    assert len(b.said(ice.Selected)) == 2
    assert b.route is not None
    assert b.route.remote == elsewhere
