"""An established path: who notices what when, and what moves it."""

from random import Random

import pytest

from overlay.core.ice import outputs as ice
from overlay.core.ice import stun
from overlay.core.ice.liveness import Liveness
from overlay.core.ice.states import Liveliness
from overlay.core.types import Address
from tests.core.ice.by_hand import check, give
from tests.core.ice.world import (
    RECORD,
    Datagram,
    Firewall,
    Host,
    Nat,
    World,
    connected,
    credentials,
    host_candidates,
    linked,
    meet,
    worries,
)

# --- an idle path, and a quiet one ---------------------------------------------------------------


def test_an_idle_path_costs_one_question_every_two_seconds() -> None:
    world, a, b = linked(1)
    before = len(a.sent), len(b.sent)
    world.run_until(world.now + 100.0)
    assert 45 <= len(a.sent) - before[0] <= 51, "the controlling side asks"
    assert 45 <= len(b.sent) - before[1] <= 51, "the controlled side only answers"
    assert not worries(a)
    assert not worries(b)


def test_a_path_in_use_is_not_asked_at_all() -> None:
    world, a, b = linked(2)
    before = len(a.sent), len(b.sent)

    def talk() -> None:
        a.send_record()
        b.send_record()
        world.at(world.now + 1.0, talk)

    talk()
    world.run_until(world.now + 50.0)
    for host, count in zip((a, b), before, strict=True):
        assert all(datagram.data == RECORD for _, datagram in host.sent[count:])


def test_the_controlled_side_asks_when_no_question_comes() -> None:
    world, a, b = linked(3)
    a.frozen = True
    began, count = world.now, len(b.sent)
    world.run_until(began + 4.0)
    questions = [at for at, _ in b.sent[count:]]
    assert 2.5 < questions[0] - began < 3.6


def test_suspicion_comes_after_a_second_and_a_half_and_silence_after_six() -> None:
    world, a, b = linked(4)
    world.dark = True
    dark_at = world.now
    world.run_until(dark_at + 7.0)
    for host, asks_after in ((a, 2.0), (b, 3.5)):
        assert worries(host) == [ice.Suspect(), ice.Silent()]
        heard_at = host.when(ice.Silent)[0] - 6.0
        assert dark_at - 2.1 <= heard_at <= dark_at
        assert host.when(ice.Suspect)[0] - heard_at == pytest.approx(asks_after + 1.5)


def test_a_path_that_comes_back_is_alive_again_and_where_it_was() -> None:
    world, a, b = linked(5)
    world.dark = True
    world.run_until(world.now + 40.0)
    world.dark = False
    world.run_until(world.now + 2.5)
    for host in (a, b):
        assert worries(host) == [ice.Suspect(), ice.Silent(), ice.Alive()]
        assert len(host.said(ice.Selected)) == 1


def test_after_a_minute_of_silence_the_path_is_given_up() -> None:
    world, a, b = linked(6)
    world.dark = True
    dark_at = world.now
    world.run_until(dark_at + 120.0)
    for host in (a, b):
        assert worries(host)[-1] == ice.Failed(ice.Failure.SILENT)
        assert dark_at + 57.0 < host.when(ice.Failed)[0] <= dark_at + 60.0
        assert host.agent is not None
        assert host.agent.next_deadline() is None
        host.agent.receive(stun.parse(check()), b.addresses[0], None, world.now)  # type: ignore[arg-type]
        assert not host.agent.take()


def test_a_single_lost_packet_accuses_nobody() -> None:
    world, a, b = linked(7)
    ticks = [0]

    def lose_every_third() -> None:
        ticks[0] += 1
        world.loss = 1.0 if ticks[0] % 3 == 0 else 0.0
        world.at(world.now + 0.25, lose_every_third)

    lose_every_third()
    world.run_until(world.now + 60.0)
    assert not worries(a)
    assert not worries(b)


@pytest.mark.parametrize("seed", range(10))
def test_loss_alone_never_silences_a_path(seed: int) -> None:
    world, a, b = linked(seed, loss=0.2)
    world.run_until(world.now + 120.0)
    assert not a.said(ice.Silent)
    assert not b.said(ice.Silent)


def test_any_packet_that_decrypts_counts_as_heard() -> None:
    world, a, b = linked(8)
    world.dark = True
    assert a.agent is not None
    for _ in range(20):
        world.run_until(world.now + 1.0)
        a.agent.heard(b.addresses[0], world.now)
        a.perform()
    assert not worries(a)
    assert ice.Silent() in worries(b), "who hears nothing notices all the same"


# --- who slept? ----------------------------------------------------------------------------------


@pytest.mark.parametrize("sleep", [4.5, 8.0, 90.0])
def test_a_freeze_of_our_own_process_is_not_the_peers_silence(sleep: float) -> None:
    world, a, _ = linked(9)
    a.frozen = True
    world.run_until(world.now + sleep)
    a.backlog.clear()  # the socket's buffer was too small to keep anything
    world.dark = True  # and now the peer is really gone
    thawed_at = world.now
    a.thaw()
    assert not worries(a)
    world.run_until(thawed_at + 10.0)
    assert worries(a) == [ice.Suspect(), ice.Silent()]
    assert thawed_at + 1.5 <= a.when(ice.Suspect)[0] <= thawed_at + 2.1
    assert thawed_at + 3.9 <= a.when(ice.Silent)[0] <= thawed_at + 6.1


def test_a_freeze_while_a_question_is_out_gives_the_answer_its_time() -> None:
    liveness = Liveness(0.0)
    assert liveness.due(True, 2.0)  # noqa: FBT003
    liveness.forgive(28.0, 30.0)
    assert liveness.judge(30.0) is None
    assert liveness.judge(31.4) is None
    assert liveness.judge(31.5) is Liveliness.SUSPECT


def test_what_was_silent_does_not_become_suspect_by_our_own_sleep() -> None:
    liveness = Liveness(0.0)
    assert liveness.due(True, 2.0)  # noqa: FBT003
    assert liveness.judge(6.0) is Liveliness.SILENT
    liveness.forgive(12.0, 17.0)
    assert [liveness.judge(17.0), liveness.judge(71.9)] == [None, None]
    assert liveness.judge(72.0) is Liveliness.DEAD


def test_a_frozen_node_finds_its_path_again() -> None:
    world, a, b = linked(10)
    a.frozen = True
    world.run_until(world.now + 20.0)
    assert worries(b) == [ice.Suspect(), ice.Silent()]
    a.thaw()
    world.run_until(world.now + 3.0)
    assert worries(b)[-1] == ice.Alive()
    assert not worries(a)


def test_punctual_timeouts_forgive_nothing() -> None:
    """The counter-test: without a freeze the same silence is the peer's."""
    world, a, b = linked(9)
    b.agent = None
    world.run_until(world.now + 8.0)
    assert worries(a) == [ice.Suspect(), ice.Silent()]


def test_a_verdict_is_due_at_the_very_deadline() -> None:
    """Whatever the rounding of sums: a deadline that has come must not come again."""
    random = Random(11)
    for _ in range(300):
        now = random.uniform(0, 1e7)
        liveness, controlling = Liveness(now), random.random() < 0.5
        for _ in range(500):
            deadline = liveness.next_deadline(controlling)
            assert deadline >= now
            now = deadline
            liveness.due(controlling, now)
            liveness.judge(now)
            if liveness.state is Liveliness.DEAD:
                break
            assert liveness.next_deadline(controlling) > now
        assert liveness.state is Liveliness.DEAD


# --- what moves a path ---------------------------------------------------------------------------


def behind_nat(seed: int) -> tuple[World, Host, Host, Nat]:
    world = World(seed)
    a, b = world.host("a", "192.168.0.2"), world.host("b", "203.0.113.9")
    nat = Nat("198.51.100.1")
    a.gateway = nat
    meet(a, b)
    assert world.run_until(9.0, lambda: connected(a, b))
    world.run_until(world.now + 1.0)
    return world, a, b, nat


@pytest.mark.parametrize("seed", range(10))
def test_a_rebound_nat_is_followed_on_an_idle_path(seed: int) -> None:
    world, a, b, nat = behind_nat(seed)
    nat.rebind()
    assert world.run_until(world.now + 4.0, lambda: len(b.said(ice.Selected)) == 2)
    assert b.route is not None
    assert b.route.remote in nat.mappings.values()
    assert not b.said(ice.Silent)
    assert len(a.said(ice.Selected)) == 1, "our own end has not moved"
    assert len(a.said(ice.Mapped)) == 2, "but is seen elsewhere"


def test_a_check_alone_does_not_move_a_path() -> None:
    """Without an encrypted packet from the new address the old one stays."""
    world, a, b, nat = behind_nat(1)
    a.pokes = False
    nat.rebind()
    world.run_until(world.now + 20.0)
    assert len(b.said(ice.Selected)) == 1
    a.send_record()
    world.run_until(world.now + 1.0)
    assert len(b.said(ice.Selected)) == 2


def test_an_encrypted_packet_from_a_new_address_is_followed_once_it_has_answered() -> None:
    """Packets flow while the NAT rebinds: the stationary side asks there on its own."""
    world, a, b, nat = behind_nat(2)
    nat.rebind()
    for _ in range(3):
        a.send_record()
    world.run_until(world.now + 0.1)
    assert len(b.said(ice.Selected)) == 1, "those may have been taken and sent on"
    a.send_record()
    world.run_until(world.now + 0.1)
    assert len(b.said(ice.Selected)) == 2


def test_an_address_that_packets_come_from_is_asked_again_while_they_come() -> None:
    """The question there may be lost; and the answer must not be awaited for ever."""
    world, _, b = linked(23)
    elsewhere = Address("10.0.0.77", 5000)
    assert b.agent is not None
    b.sent.clear()
    for _ in range(200):
        b.agent.heard(elsewhere, world.now)
        b.perform()
        world.run_until(world.now + 0.1)
    questions = [at for at, datagram in b.sent if datagram.target == elsewhere]
    assert 16 <= len(questions) <= 40, "four questions every three seconds or so"
    assert len(b.said(ice.Selected)) == 1


def test_a_replayed_check_and_packet_from_a_spoofed_address_do_not_move_a_path() -> None:
    """Who copies a check and a fresh packet off the wire cannot answer our question there."""
    world, a, b = linked(12)
    thief = world.host("thief", "203.0.113.66")
    thief.on_datagram = lambda datagram: None
    checks = [each for _, each in a.sent if each.data[0] == 0 and each.data[1] == 1]
    for _ in range(50):
        thief.send(checks[-1].data, b.addresses[0])
        thief.send(RECORD, b.addresses[0])
        world.run_until(world.now + 0.2)
    assert len(b.said(ice.Selected)) == 1
    assert not worries(b)
    to_thief = sum(len(each.data) for _, each in b.sent if each.target == thief.addresses[0])
    from_thief = sum(len(each.data) for _, each in thief.sent)
    assert to_thief <= 3 * from_thief


def test_our_own_end_moves_when_its_address_is_gone() -> None:
    """From wire to radio: the mover notices, probes from elsewhere, and the other follows."""
    world = World(13)
    a, b = world.host("a", "10.0.0.1", "192.168.7.1"), world.host("b", "10.0.0.2")
    meet(a, b, host_candidates(a)[:1])
    assert world.run_until(9.0, lambda: connected(a, b))
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
    assert world.run_until(9.0, lambda: connected(a, b))
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
    assert world.run_until(9.0, lambda: connected(a, b))

    def talk() -> None:
        a.send_record()
        b.send_record()
        world.at(world.now + 0.3, talk)

    talk()
    world.run_until(world.now + 60.0)
    assert len(a.said(ice.Selected)) == len(b.said(ice.Selected)) == 1


def test_a_nomination_moves_the_path_only_until_a_packet_has_been_decrypted() -> None:
    """An aggressive peer may nominate several pairs before anything is encrypted."""
    world, _, b = linked(15)
    answers_check(world, b, Address("10.0.0.77", 5000), use_candidate=True)
    assert len(b.said(ice.Selected)) == 1, "b has decrypted a packet before"


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
        assert isinstance(question, stun.Message)
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


# --- measuring -----------------------------------------------------------------------------------


def test_the_round_trip_is_measured_and_smoothed() -> None:
    world, a, _ = linked(20)
    assert a.agent is not None
    assert a.agent.rtt == pytest.approx(0.04, rel=0.3)
    world.latency = 0.1
    world.run_until(world.now + 60.0)
    assert a.agent.rtt == pytest.approx(0.2, rel=0.3)


def test_a_check_that_was_sent_again_measures_no_round_trip() -> None:
    """Its answer may be to either (Karn)."""
    world = World(25)
    a, b = world.host("a", "10.0.0.1"), world.host("b", "10.0.0.2")
    world.dark = True
    meet(a, b)
    world.run_until(0.2)
    world.dark = False
    assert a.agent is not None
    assert b.agent is not None
    rtts: list[float | None] = []
    while world.now < 5.0:
        world.run_until(world.now + 0.01)
        rtts += [a.agent.rtt, b.agent.rtt]
    assert max(rtt for rtt in rtts if rtt is not None) < 0.05


def test_datagrams_for_nobody_disappear() -> None:
    """The world itself: a counter-test that it drops what it should."""
    world = World(21)
    a = world.host("a", "10.0.0.1")
    fire = Firewall()
    a.gateway = fire
    seen: list[Datagram] = []
    a.on_datagram = seen.append
    stranger = world.host("b", "10.0.0.2")
    stranger.send(RECORD, a.addresses[0])
    world.run_until(1.0)
    assert (len(seen), fire.refused) == (0, 1)
    a.send(RECORD, stranger.addresses[0])
    stranger.send(RECORD, a.addresses[0])
    world.run_until(2.0)
    assert len(seen) == 1
