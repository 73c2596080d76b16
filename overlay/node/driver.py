"""The one loop in which the core meets a clock: events in, effects out, nothing awaited between.

Whatever the core raises is a bug of ours; it ends `Driver.run`, and with it the node.
"""

import itertools
import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Protocol, assert_never

import trio

from overlay.api import Message
from overlay.core.events import (
    Admit,
    Adopt,
    Aim,
    Await,
    ClockSet,
    Deliver,
    Dial,
    DropCircuit,
    Effect,
    Event,
    Hangup,
    LinkLost,
    Malformed,
    Negotiate,
    OpenPort,
    Prepare,
    Punch,
    Received,
    Rejected,
    RelayCircuit,
    Remember,
    Report,
    Resolved,
    Restart,
    SendFrom,
    Transmit,
    UseCircuit,
    Wakeup,
)
from overlay.core.types import EndReason, LinkId, PeerId, RequestId
from overlay.errors import CommandFailed, Failure
from overlay.identity import peer_id_text
from overlay.node.feed import Feed
from overlay.transport.interface import Starting, TransportEffect

MAX_INBOX = 20_000
"""Messages that may wait for the core; a link that sends more is ended (guess)."""
MAX_BATCH = 4_096
"""Events handled before other tasks have their turn: more than one reading of a socket brings, so
that an honest link, however fast, cannot fill the inbox (measured: at 64, one full of messages of
100 bytes was ended within a second)."""
MAX_SUBSCRIPTIONS = 256
MAX_COMMANDS = 1_024
OVER = (Failure.CLOSED, "the node has ended: open another")
"""How a command fails that comes after the end of the node, or whose answer would."""
CLOCK_INTERVAL = 1.0
CLOCK_TOLERANCE = 1.0
"""Seconds by which wall time may drift from the monotone clock before the core is told."""
STANDSTILL = 5.0
"""A look at the clock this late, in seconds, means that our process stood still (guess): the whole
machine slept, or somebody stopped it."""


_name = lru_cache(1024)(peer_id_text)


class Core(Protocol):
    """What the loop needs of `overlay.core.overlay.Overlay`."""

    def handle(self, event: Event, now: float) -> list[Effect]:
        """Take in one event; what to do about it. Never raises on anything that a peer can send."""
        ...

    def next_deadline(self) -> float | None:
        """When to come back with a `Wakeup` at the latest."""
        ...


class Performer(Protocol):
    """What the loop needs of a transport."""

    def perform(self, effect: TransportEffect) -> None:
        """Carry it out; never awaits."""
        ...

    def clock_set(self, wall: float) -> None:
        """Wall time is this now."""
        ...


@dataclass(frozen=True, slots=True)
class LinkChange:
    """A link to a proven peer has come or gone, for those who watch the node."""

    peer: PeerId
    up: bool
    reason: str = ""


@dataclass(eq=False, slots=True)
class _Waiter:
    done: trio.Event = field(default_factory=trio.Event)
    outcome: Resolved | Rejected | None = None


class Driver:
    """Feeds one core for ever and performs what it decides."""

    def __init__(
        self,
        core: Core,
        transport: Performer,
        *,
        remember: Callable[[PeerId, bytes], None],
        report: Callable[[Report], None],
        changed: Callable[[LinkChange], None] = lambda _: None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._core = core
        self._transport = transport
        self._remember = remember
        self._report = report
        self._changed = changed
        self._wall = wall
        self._offset = math.nan
        self._inbox: deque[Event] = deque()
        self._arrived = trio.Event()
        self._moved = trio.Event()
        self._requests = itertools.count(1)
        self._waiting: dict[RequestId, _Waiter] = {}
        self._subscriptions: dict[Feed[Message], str] = {}
        self._is_over = False
        self._admitted: dict[LinkId, PeerId] = {}

    # --- in ------------------------------------------------------------------------------------

    def emit(self, event: Event) -> None:
        """Hand the core an event; a link that floods the inbox is ended instead."""
        if len(self._inbox) >= MAX_INBOX and isinstance(event, Received | Malformed):
            self._transport.perform(Hangup(event.link, EndReason.OVERFLOW))
            event = LinkLost(event.link, EndReason.OVERFLOW)
        self._inbox.append(event)
        self._arrived.set()

    async def call(self, command: Callable[[RequestId], Event], timeout: float = 60.0) -> Any:
        """The value to which a command resolves; CommandFailed: rejected, or took longer."""
        if self._is_over:
            raise CommandFailed(*OVER)
        if len(self._waiting) >= MAX_COMMANDS:
            raise CommandFailed(
                Failure.BUSY, f"{MAX_COMMANDS} commands are under way: try again later"
            )
        request = RequestId(next(self._requests))
        waiter = self._waiting[request] = _Waiter()
        try:
            self.emit(command(request))
            with trio.move_on_after(timeout):
                await waiter.done.wait()
        finally:
            del self._waiting[request]
        match waiter.outcome:
            case Resolved(value=value):
                return value
            case Rejected(code=code, text=text):
                raise CommandFailed(code, text)
            case None:
                raise CommandFailed(Failure.TIMEOUT, f"no answer within {timeout:g} s")
            case _:
                assert_never(waiter.outcome)

    def subscribe(self, topic: str) -> Feed[Message]:
        """What is published on `topic` from now on, until the feed is closed."""
        if self._is_over:
            raise CommandFailed(*OVER)
        if len(self._subscriptions) >= MAX_SUBSCRIPTIONS:
            raise CommandFailed(
                Failure.BUSY, f"{MAX_SUBSCRIPTIONS} subscriptions are open: end one"
            )

        def forget() -> None:
            del self._subscriptions[feed]

        feed: Feed[Message] = Feed(forget, lambda message: len(message.data))
        self._subscriptions[feed] = topic
        return feed

    def peer_of(self, link: LinkId) -> PeerId | None:
        """Whose link this is, once the peer has proven itself."""
        return self._admitted.get(link)

    async def wait_until(self, holds: Callable[[], bool]) -> None:
        """Return once `holds()` does; asked again after whatever the core has handled."""
        while not holds():
            if self._is_over:
                raise CommandFailed(*OVER)
            await self._moved.wait()

    def replace(self, core: Core) -> None:
        """Feed another core from now on; the one before must have nothing under way."""
        self._core = core
        self._set_clock()

    # --- the loop ------------------------------------------------------------------------------

    async def run(self, *, task_status: Starting = trio.TASK_STATUS_IGNORED) -> None:
        """Feed the core for ever: the one place where it meets a clock."""
        self._set_clock()
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._watch_clock)
                task_status.started()
                while True:
                    await self._due()
                    for _ in range(MAX_BATCH):
                        self._step(self._inbox.popleft() if self._inbox else Wakeup())
                        if not self._inbox:
                            break
                    self._moved.set()
                    self._moved = trio.Event()
        finally:
            self._finish()

    def _finish(self) -> None:
        """Nobody is left waiting for a core that is fed no more."""
        self._is_over = True
        self._moved.set()
        for request, waiter in self._waiting.items():
            waiter.outcome = waiter.outcome or Rejected(request, *OVER)
            waiter.done.set()
        for feed in list(self._subscriptions):
            feed.end()

    async def _due(self) -> None:
        """Returns with the next event or deadline, and always after a checkpoint."""
        if self._inbox:
            await trio.lowlevel.checkpoint()
            return
        self._arrived = trio.Event()
        deadline = self._core.next_deadline()
        with trio.move_on_at(math.inf if deadline is None else deadline):
            await self._arrived.wait()

    def _step(self, event: Event) -> None:
        for effect in self._core.handle(event, trio.current_time()):
            self._perform(effect)
        if isinstance(event, LinkLost):
            self._unlinked(event.link, event.reason)

    def _perform(self, effect: Effect) -> None:
        """Never awaits."""
        match effect:
            case Transmit() | Dial() | Prepare() | Negotiate() | Restart() | Adopt():
                self._transport.perform(effect)
            case UseCircuit() | RelayCircuit() | DropCircuit():
                self._transport.perform(effect)
            case OpenPort() | SendFrom() | Await() | Punch() | Aim():
                self._transport.perform(effect)
            case Admit(link, peer):
                self._transport.perform(effect)
                self._linked(link, peer)
            case Hangup(link, reason):
                self._transport.perform(effect)
                self._unlinked(link, reason)
            case Deliver():
                self._deliver(effect)
            case Resolved(request) | Rejected(request):
                if (waiter := self._waiting.get(request)) is not None:
                    waiter.outcome = effect
                    waiter.done.set()
            case Remember(peer, record):
                self._remember(peer, record)
            case Report():
                self._report(effect)
            case _:
                assert_never(effect)

    def _deliver(self, effect: Deliver) -> None:
        feeds = [feed for feed, topic in self._subscriptions.items() if topic == effect.topic]
        if not feeds:
            return
        origin = _name(effect.origin)
        message = Message(effect.topic, origin, effect.data, effect.text, self._wall())
        for feed in feeds:
            feed.put(message)

    def _linked(self, link: LinkId, peer: PeerId) -> None:
        if peer not in self._admitted.values():  # else this link replaces another
            self._changed(LinkChange(peer, up=True))
        self._admitted[link] = peer

    def _unlinked(self, link: LinkId, reason: str) -> None:
        peer = self._admitted.pop(link, None)
        if peer is not None and peer not in self._admitted.values():
            self._changed(LinkChange(peer, up=False, reason=reason))

    # --- the clocks ----------------------------------------------------------------------------

    async def _watch_clock(self) -> None:
        while True:
            looks_at = trio.current_time() + CLOCK_INTERVAL
            await trio.sleep_until(looks_at)
            now = trio.current_time()
            drift = abs(self._wall() - now - self._offset)
            if drift > CLOCK_TOLERANCE or now > looks_at + STANDSTILL:
                self._set_clock()

    def _set_clock(self) -> None:
        wall = self._wall()
        self._offset = wall - trio.current_time()
        self._transport.clock_set(wall)
        self.emit(ClockSet(wall))
