"""An established path: who notices what when, and what moves it."""

from random import Random

import pytest

from overlay.core.ice import outputs as ice
from overlay.core.ice import stun
from overlay.core.ice.liveness import Liveness
from overlay.core.ice.states import Liveliness
from tests.core.ice.by_hand import check, give
from tests.core.ice.world import (
    ACK,
    RECORD,
    Datagram,
    Firewall,
    Gateway,
    Host,
    Wall,
    World,
    behind_nat,
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


@pytest.mark.parametrize("latency", [0.15, 0.6, 0.95])
def test_a_path_whose_answers_take_long_is_not_doubted_for_that(latency: float) -> None:
    """One lost packet accuses nobody there either; a dead one is found out a little later."""
    world = World(3, latency=latency)
    a, b = world.host("a", "10.0.0.1"), world.host("b", "10.0.0.2")
    meet(a, b)
    assert secured(world, a, b)
    world.run_until(world.now + 4.0)  # the first questions have measured it
    lost = {"once": True}

    def lose(datagram: Datagram) -> bool:
        return datagram.source in a.addresses and bool(lost.pop("once", False))

    world.at(world.now + 10.0, lambda: setattr(world, "lost", lose))
    world.run_until(world.now + 60.0)
    assert not worries(a)
    assert not worries(b)
    world.dark = True
    world.run_until(world.now + 12.0)
    for host in (a, b):
        assert worries(host) == [ice.Suspect(), ice.Silent()]


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
    assert liveness.due(controlling=True, now=2.0)
    liveness.forgive(28.0, 30.0)
    assert liveness.judge(30.0) is None
    assert liveness.judge(31.4) is None
    assert liveness.judge(31.5) is Liveliness.SUSPECT


def test_what_was_silent_does_not_become_suspect_by_our_own_sleep() -> None:
    liveness = Liveness(0.0)
    assert liveness.due(controlling=True, now=2.0)
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
    world, a, _b = linked(20)
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
    world, _a, b, nat = behind_nat(3)
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


@pytest.mark.parametrize(("patience", "suspect_after"), [(0.0, 0.7), (0.2, 0.7), (1.5, 3.0)])
def test_hasty_questions_have_the_time_that_an_answer_takes(
    patience: float, suspect_after: float
) -> None:
    liveness = Liveness(0.0)
    assert liveness.hasten(patience, 1.0)
    assert not liveness.hasten(patience, 1.1), "one at a time"
    asked = 1
    deadline = liveness.next_deadline(controlling=False)
    while (verdict := liveness.judge(deadline)) is None:
        asked += liveness.due(controlling=False, now=deadline)
        deadline = liveness.next_deadline(controlling=False)
    assert (verdict, asked) == (Liveliness.SUSPECT, 2)
    assert deadline == pytest.approx(1.0 + suspect_after)


def test_an_answer_ends_the_haste() -> None:
    liveness = Liveness(0.0)
    assert liveness.hasten(0.0, 1.0)
    liveness.answered(1.1)
    assert liveness.judge(3.0) is None
    assert liveness.next_deadline(controlling=True) == 3.1
    assert liveness.hasten(0.0, 2.0), "and there may be another"


def test_haste_forgives_our_own_sleep() -> None:
    liveness = Liveness(0.0)
    assert liveness.hasten(0.0, 1.0)
    liveness.forgive(5.0, 6.1)
    assert liveness.judge(6.1) is None
    assert liveness.judge(6.7) is Liveliness.SUSPECT


def test_who_is_suspect_is_not_asked_in_haste() -> None:
    liveness = Liveness(0.0)
    assert liveness.due(controlling=True, now=2.0)
    assert liveness.judge(3.5) is Liveliness.SUSPECT
    assert not liveness.hasten(0.0, 3.6)
