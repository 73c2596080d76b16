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
    ACK,
    HEARTBEAT,
    RECORD,
    Datagram,
    Firewall,
    Gateway,
    Host,
    Nat,
    Wall,
    World,
    connected,
    credentials,
    host_candidates,
    linked,
    meet,
    secured,
    worries,
)

# --- an idle path, and a quiet one ---------------------------------------------------------------


def questions(host: Host, since: float = 0.0) -> list[float]:
    """When the host has sent checks."""
    return [at for at, each in host.sent if each.data[:2] == b"\0\1" and at >= since]


def test_both_ends_of_an_idle_path_ask_for_themselves() -> None:
    """The controlled one less often: five questions in six seconds, and as many answers."""
    world, a, b = linked(1)
    began = world.now
    world.run_until(began + 102.0)
    assert 49 <= len(questions(a, began)) <= 51
    assert 33 <= len(questions(b, began)) <= 34
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
        assert all(datagram.data in (RECORD, ACK) for _, datagram in host.sent[count:])


def test_suspicion_comes_after_a_second_and_a_half_and_silence_after_six() -> None:
    world, a, b = linked(4)
    world.dark = True
    dark_at = world.now
    world.run_until(dark_at + 7.0)
    for host, asks_after in ((a, 2.0), (b, 3.0)):
        assert worries(host) == [ice.Suspect(), ice.Silent()]
        answered_at = host.when(ice.Silent)[0] - 6.0
        assert dark_at - 3.1 <= answered_at <= dark_at
        assert host.when(ice.Suspect)[0] - answered_at == pytest.approx(asks_after + 1.5)


@pytest.mark.parametrize("deaf", ["a", "b"])
@pytest.mark.parametrize("talks", [False, True])
def test_one_way_loss_is_silence_at_both_ends(deaf: str, talks: bool) -> None:
    """Who is not heard gets the other's questions and data: they do not say that it is heard."""
    world, a, b = linked(26)
    ear = a if deaf == "a" else b
    ear.gateway = Wall()
    since = world.now

    def talk() -> None:
        a.send_record()
        b.send_record()
        world.at(world.now + 0.3, talk)

    if talks:
        talk()
    world.run_until(since + 8.0)
    for host in (a, b):
        assert worries(host) == [ice.Suspect(), ice.Silent()], host.name
    world.run_until(since + 40.0)
    for host in (a, b):
        assert worries(host) == [ice.Suspect(), ice.Silent()], host.name
    ear.gateway = Gateway()
    healed_at = world.now
    world.run_until(healed_at + 2.5)
    for host in (a, b):
        assert worries(host)[-1] == ice.Alive(), host.name


def test_a_question_of_a_silent_peer_is_asked_back_at_once() -> None:
    """Else an end would wait for its own turn, up to two seconds."""
    world, a, b = linked(27)
    b.frozen = True
    world.run_until(world.now + 20.0)
    b.backlog.clear()
    b.thaw()
    thawed_at = world.now
    assert world.run_until(thawed_at + 2.5, lambda: bool(questions(b, thawed_at)))
    world.run_until(world.now + 0.1)
    assert worries(a)[-1] == ice.Alive()


def test_somebody_who_asks_all_the_time_is_not_asked_back_as_often() -> None:
    world, a, b = linked(28)
    world.run_until(world.now + 1.0)
    b.frozen = True
    world.run_until(world.now + 10.0)
    began = world.now
    for number in range(1000):
        give(world, a, check(controlling=None, controlled=1, random=Random(number)), b.addresses[0])
        world.run_until(world.now + 0.01)
    assert len(questions(a, began)) <= 105


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


def test_an_acknowledgement_counts_as_an_answer() -> None:
    world, a, b = linked(8)
    world.dark = True
    assert a.agent is not None
    for _ in range(20):
        world.run_until(world.now + 1.0)
        a.agent.acknowledged(world.now)
        a.perform()
    assert not worries(a)
    assert ice.Silent() in worries(b), "who gets no answer notices all the same"


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
    assert secured(world, a, b)
    world.run_until(world.now + 1.0)
    return world, a, b, nat


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
    world, a, b = linked(12)
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
    world, a, b = linked(29)
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


# --- measuring -----------------------------------------------------------------------------------


def test_the_round_trip_is_measured_and_smoothed() -> None:
    world, a, _ = linked(20)
    assert a.agent is not None
    assert a.agent.round_trip.seconds == pytest.approx(0.04, rel=0.3)
    world.latency = 0.1
    world.run_until(world.now + 60.0)
    assert a.agent.round_trip.seconds == pytest.approx(0.2, rel=0.3)


def test_a_round_trip_that_was_measured_long_ago_is_none() -> None:
    """A path in use is not asked: what a question took at its start says nothing by then."""
    world, a, b = linked(20)
    assert a.agent is not None
    measured_at = world.now

    def talk() -> None:
        a.send_record()
        world.at(world.now + 1.0, talk)

    talk()
    world.run_until(measured_at + 25.0)
    assert a.agent.round_trip.fresh(world.now) == pytest.approx(0.04, rel=0.3)
    world.run_until(measured_at + 35.0)
    assert a.agent.round_trip.fresh(world.now) is None


def test_another_path_has_another_round_trip() -> None:
    world, a, b, nat = behind_nat(3)
    world.latency = 0.2
    nat.rebind()
    assert world.run_until(world.now + 6.0, lambda: len(b.said(ice.Selected)) >= 2)
    world.run_until(world.now + 1.0)
    assert b.agent is not None
    assert b.agent.round_trip.seconds == pytest.approx(0.4, rel=0.3)


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
        rtts += [a.agent.round_trip.seconds, b.agent.round_trip.seconds]
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
