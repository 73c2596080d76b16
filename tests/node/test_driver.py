"""The one loop: what goes into the core and what comes out, on a fake clock and a scripted core."""

import math
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from overlay.api import Message
from overlay.core.events import (
    Admit,
    ClockSet,
    Connect,
    Deliver,
    Effect,
    Event,
    Hangup,
    LinkLost,
    Malformed,
    PingPeer,
    Rejected,
    Remember,
    Report,
    Resolved,
    Transmit,
    Wakeup,
)
from overlay.core.types import EndReason, GoodbyeCode, LinkId, PeerId
from overlay.core.wire.messages import Ping
from overlay.errors import CommandFailed
from overlay.identity import peer_id_text
from overlay.node import driver as drivers
from overlay.node import feed as feeds
from overlay.node.driver import Driver, LinkChange
from overlay.transport.interface import TransportEffect

PEER, OTHER = PeerId(b"p" * 32), PeerId(b"o" * 32)


class ScriptedCore:
    """Answers each event as a test says; notes what it was given, and when."""

    def __init__(self, answer: Callable[[Event], list[Effect]] = lambda _: []) -> None:
        self.answer = answer
        self.events: list[tuple[float, Event]] = []
        self.deadlines: list[float] = []

    def handle(self, event: Event, now: float) -> list[Effect]:
        self.events.append((now, event))
        self.deadlines = [at for at in self.deadlines if at > now]
        return self.answer(event)

    def next_deadline(self) -> float | None:
        return min(self.deadlines, default=None)

    def given(self, kind: type) -> list[Event]:
        return [event for _, event in self.events if isinstance(event, kind)]


class NotingTransport:
    """Performs nothing; notes everything."""

    def __init__(self) -> None:
        self.performed: list[TransportEffect] = []
        self.walls: list[float] = []

    def perform(self, effect: TransportEffect) -> None:
        self.performed.append(effect)

    def clock_set(self, wall: float) -> None:
        self.walls.append(wall)


class Harness:
    """A driver with all that it talks to."""

    def __init__(self, core: ScriptedCore) -> None:
        self.core = core
        self.transport = NotingTransport()
        self.remembered: list[tuple[PeerId, bytes]] = []
        self.reports: list[Report] = []
        self.changes: list[LinkChange] = []
        self.offset = 1000.0
        self.driver = Driver(
            core,
            self.transport,
            remember=lambda peer, record: self.remembered.append((peer, record)),
            report=self.reports.append,
            changed=self.changes.append,
            wall=lambda: trio.current_time() + self.offset,
        )


def deliver(topic: str, number: int = 0) -> Deliver:
    return Deliver(topic, PEER, str(number).encode(), text=True, hops=1)


async def test_the_core_learns_the_wall_time_first(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    harness = Harness(ScriptedCore())
    await nursery.start(harness.driver.run)
    await wait_all_tasks_blocked()
    assert harness.core.events == [(0.0, ClockSet(1000.0))]
    assert harness.transport.walls == [1000.0]


async def test_a_jump_of_wall_time_is_told_within_a_second_and_a_drift_is_not(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    harness = Harness(ScriptedCore())
    await nursery.start(harness.driver.run)
    harness.offset += 0.9
    await trio.sleep(5.5)
    assert len(harness.core.given(ClockSet)) == 1
    harness.offset += 86_400.0
    await trio.sleep(1.1)
    assert harness.core.given(ClockSet)[1:] == [ClockSet(6.0 + 1000.9 + 86_400.0)]
    assert len(harness.transport.walls) == 2


async def test_who_stood_still_is_told_the_time_when_it_goes_on(
    nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    """A machine that slept: its clock is right, but the world around it has changed."""
    harness = Harness(ScriptedCore())
    await nursery.start(harness.driver.run)
    for seconds in (1.1, 4.0, 30.0):
        await wait_all_tasks_blocked()
        mock_clock.jump(seconds)
    await wait_all_tasks_blocked()
    assert harness.core.given(ClockSet) == [ClockSet(1000.0), ClockSet(1035.1)]


async def test_the_core_is_woken_at_its_deadline_and_no_earlier(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    core = ScriptedCore()
    core.deadlines = [0.25, 0.75]
    await nursery.start(Harness(core).driver.run)
    await trio.sleep(0.9)
    assert [(now, event) for now, event in core.events if isinstance(event, Wakeup)] == [
        (0.25, Wakeup()),
        (0.75, Wakeup()),
    ]


async def test_without_a_deadline_the_core_sleeps_until_an_event(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    harness = Harness(ScriptedCore())
    await nursery.start(harness.driver.run)
    await trio.sleep(3.5)
    harness.driver.emit(LinkLost(LinkId(1), EndReason.BROKEN))
    await wait_all_tasks_blocked()
    assert harness.core.events[1:] == [(3.5, LinkLost(LinkId(1), EndReason.BROKEN))]


async def test_effects_go_where_they_belong(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    effects: list[Effect] = [
        Transmit(LinkId(1), Ping(7)),
        Admit(LinkId(1), PEER),
        Remember(PEER, b"record"),
        Report("info", "peer_up", {"peer": PEER}),
        Hangup(LinkId(3), GoodbyeCode.DUPLICATE),
    ]
    harness = Harness(ScriptedCore(lambda event: effects if isinstance(event, LinkLost) else []))
    await nursery.start(harness.driver.run)
    harness.driver.emit(LinkLost(LinkId(9), EndReason.BROKEN))
    await wait_all_tasks_blocked()
    assert harness.transport.performed == [effects[0], effects[1], effects[4]]
    assert harness.remembered == [(PEER, b"record")]
    assert harness.reports == [effects[3]]
    assert harness.changes == [LinkChange(PEER, up=True)]


async def test_a_command_gets_its_own_answer(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    def answer(event: Event) -> list[Effect]:
        match event:
            case PingPeer(request):
                return [Resolved(request, 0.5)]
            case Connect(request):
                return [Rejected(request, "unreachable", "nobody answers")]
            case _:
                return []

    driver = Harness(ScriptedCore(answer)).driver
    await nursery.start(driver.run)
    assert await driver.call(lambda request: PingPeer(request, PEER)) == 0.5
    with pytest.raises(CommandFailed) as caught:
        await driver.call(lambda request: Connect(request, PEER))
    assert (caught.value.code, caught.value.text) == ("unreachable", "nobody answers")


async def test_a_command_that_nobody_answers_times_out(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    driver = Harness(ScriptedCore()).driver
    await nursery.start(driver.run)
    with pytest.raises(CommandFailed) as caught:
        await driver.call(lambda request: PingPeer(request, PEER), timeout=5.0)
    assert caught.value.code == "timeout"
    assert trio.current_time() == 5.0


async def test_an_answer_that_comes_too_late_does_no_harm(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    asked: list[PingPeer] = []

    def answer(event: Event) -> list[Effect]:
        if isinstance(event, PingPeer):
            asked.append(event)
        return [Resolved(asked[0].request, 1.0)] if isinstance(event, LinkLost) else []

    driver = Harness(ScriptedCore(answer)).driver
    await nursery.start(driver.run)
    with pytest.raises(CommandFailed):
        await driver.call(lambda request: PingPeer(request, PEER), timeout=1.0)
    driver.emit(LinkLost(LinkId(1), EndReason.BROKEN))
    await wait_all_tasks_blocked()


async def test_too_many_commands_are_turned_away(
    nursery: trio.Nursery, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drivers, "MAX_COMMANDS", 1)
    driver = Harness(ScriptedCore()).driver
    await nursery.start(driver.run)
    nursery.start_soon(driver.call, lambda request: PingPeer(request, PEER))
    await wait_all_tasks_blocked()
    with pytest.raises(CommandFailed, match="try again later"):
        await driver.call(lambda request: PingPeer(request, PEER))
    nursery.cancel_scope.cancel()


async def test_a_fault_of_the_core_ends_the_driver(autojump_clock: MockClock) -> None:
    def broken(event: Event) -> list[Effect]:
        assert isinstance(event, ClockSet), "a bug"
        return []

    driver = Harness(ScriptedCore(broken)).driver
    with pytest.RaisesGroup(
        pytest.RaisesExc(AssertionError, match="a bug"), flatten_subgroups=True
    ):
        async with trio.open_nursery() as nursery:
            await nursery.start(driver.run)
            driver.emit(Wakeup())


async def test_subscribers_hear_their_topic_and_no_other(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    effects: list[Effect] = [deliver("news", 1), deliver("weather", 2), deliver("news", 3)]
    driver = Harness(ScriptedCore(lambda event: effects if event == Wakeup() else [])).driver
    await nursery.start(driver.run)
    async with driver.subscribe("news") as first, driver.subscribe("news") as second:
        driver.emit(Wakeup())
        for subscription in (first, second):
            heard = [await subscription.get(), await subscription.get()]
            assert [message.data for message in heard] == [b"1", b"3"]
    first.close()
    driver.emit(Wakeup())
    await wait_all_tasks_blocked()
    assert not driver._subscriptions
    with pytest.raises(CommandFailed, match="closed by its reader"):
        await first.get()


async def test_a_message_is_told_with_its_origin_and_the_wall_time(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    core = ScriptedCore(lambda event: [deliver("news")] if event == Wakeup() else [])
    driver = Harness(core).driver
    await nursery.start(driver.run)
    async with driver.subscribe("news") as news:
        await trio.sleep(5)
        driver.emit(Wakeup())
        told = await news.get()
    assert told == Message("news", peer_id_text(PEER), b"0", is_text=True, received_at=1005.0)


async def test_who_waits_for_an_ended_driver_waits_no_longer(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    driver = Harness(ScriptedCore()).driver

    async def refused(call: Callable[[], Awaitable[object]]) -> None:
        with pytest.raises(CommandFailed) as caught:
            await call()
        assert caught.value.code == "closed"

    async def command() -> None:
        await driver.call(lambda request: PingPeer(request, PEER), timeout=math.inf)

    async def condition() -> None:
        await driver.wait_until(lambda: False)

    async def subscription() -> None:
        driver.subscribe("late")

    running = await nursery.start(scoped, driver)
    news = driver.subscribe("news")
    async with trio.open_nursery() as waiting:
        waiting.start_soon(refused, command)
        waiting.start_soon(refused, condition)
        await wait_all_tasks_blocked()
        running.cancel()
    assert [message async for message in news] == []
    for call in (command, condition, subscription):
        await refused(call)


async def scoped(driver: Driver, *, task_status: Any = trio.TASK_STATUS_IGNORED) -> None:
    """Run a driver in a scope that a test can cancel."""
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as inside:
            await inside.start(driver.run)
            task_status.started(scope)


async def test_a_slow_subscriber_hears_all_that_fits_and_then_that_it_was_too_slow(
    nursery: trio.Nursery, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeds, "MAX_WAITING", 3)
    effects: list[Effect] = [deliver("news", number) for number in range(5)]
    driver = Harness(ScriptedCore(lambda event: effects if event == Wakeup() else [])).driver
    await nursery.start(driver.run)
    async with driver.subscribe("news") as slow:
        driver.emit(Wakeup())
        await wait_all_tasks_blocked()
        assert [(await slow.get()).data for _ in range(3)] == [b"0", b"1", b"2"]
        with pytest.raises(CommandFailed, match="more came than was read"):
            await slow.get()


async def test_too_many_subscriptions_are_turned_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drivers, "MAX_SUBSCRIPTIONS", 1)
    driver = Harness(ScriptedCore()).driver
    async with driver.subscribe("a"):
        with pytest.raises(CommandFailed):
            driver.subscribe("b")
    async with driver.subscribe("b"):
        pass


async def test_a_link_that_floods_the_inbox_is_ended_and_facts_still_get_in(
    nursery: trio.Nursery, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drivers, "MAX_INBOX", 3)
    harness = Harness(ScriptedCore())
    for number in range(4):
        harness.driver.emit(Malformed(LinkId(1), str(number)))
    harness.driver.emit(LinkLost(LinkId(5), EndReason.BROKEN))
    await nursery.start(harness.driver.run)
    await wait_all_tasks_blocked()
    assert harness.transport.performed == [Hangup(LinkId(1), EndReason.OVERFLOW)]
    reasons = [e.why for e in harness.core.given(Malformed) if isinstance(e, Malformed)]
    assert reasons == ["0", "1", "2"]
    assert harness.core.given(LinkLost) == [
        LinkLost(LinkId(1), EndReason.OVERFLOW),
        LinkLost(LinkId(5), EndReason.BROKEN),
    ]


async def test_a_link_that_replaces_another_is_no_change(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    script: dict[LinkId, list[Effect]] = {
        LinkId(0): [Admit(LinkId(0), PEER), Admit(LinkId(1), OTHER)],
        LinkId(2): [Admit(LinkId(2), PEER), Hangup(LinkId(0), GoodbyeCode.DUPLICATE)],
    }

    def answer(event: Event) -> list[Effect]:
        return script.get(event.link, []) if isinstance(event, Malformed) else []

    harness = Harness(ScriptedCore(answer))
    await nursery.start(harness.driver.run)
    for link in script:
        harness.driver.emit(Malformed(link, ""))
    harness.driver.emit(LinkLost(LinkId(2), EndReason.BROKEN))
    await wait_all_tasks_blocked()
    assert harness.changes == [
        LinkChange(PEER, up=True),
        LinkChange(OTHER, up=True),
        LinkChange(PEER, up=False, reason="broken"),
    ]


async def test_waiting_returns_once_what_is_waited_for_holds(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    harness = Harness(ScriptedCore())
    await nursery.start(harness.driver.run)
    await wait_all_tasks_blocked()

    async def three_events() -> None:
        for number in range(3):
            await trio.sleep(1)
            harness.driver.emit(Malformed(LinkId(number), ""))

    nursery.start_soon(three_events)
    with trio.fail_after(60):
        await harness.driver.wait_until(lambda: len(harness.core.given(Malformed)) == 3)
    assert math.isclose(trio.current_time(), 3.0)


async def test_other_tasks_get_their_turn_in_a_flood(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """The core asks for more work with every event: everybody else must still run."""
    harness = Harness(ScriptedCore())

    def more(event: Event) -> list[Effect]:
        harness.driver.emit(Wakeup())
        return []

    harness.core.answer = more
    await nursery.start(harness.driver.run)
    for _ in range(10):
        await trio.lowlevel.checkpoint()
    assert len(harness.core.events) <= 12 * drivers.MAX_BATCH
    nursery.cancel_scope.cancel()
