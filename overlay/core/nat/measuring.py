"""How long an idle mapping lives, measured: one length of silence after the other.

Each has a socket of its own. It is seen by a helper, which then keeps silent for as long as was
asked, and knocks from the port that the socket knows: if that comes in, the mapping has lived.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import assert_never

from overlay.core.context import Context
from overlay.core.events import OpenPort, SendFrom
from overlay.core.ice import stun
from overlay.core.nat.knocking import Neighbour
from overlay.core.nat.lifetime import Lifetime, Measurement
from overlay.core.timers import Timers
from overlay.core.types import Address, PeerId, PortId
from overlay.core.wire.messages import KnockAsk, KnockMessage

NEXT_AFTER = 5.0
"""Seconds (guess) from one silence to the next, and until the next look for a helper."""
RESEND = 0.25
"""Seconds (guess) between two packets that say the same, while there is no answer."""
RESENDS = 8
OPENING_TIMEOUT = 3.0
"""Seconds (guess) for a socket to open and its packet to be seen, and for the knock to be told."""
KNOCK_TIMEOUT = 1.8
"""Seconds (guess) from the word of a knock until it has come in: the second packet follows a second
after the first."""


class Due(StrEnum):
    """What falls due."""

    RESEND = "resend"
    NEXT = "next"  # a silence is to begin
    OVER = "over"  # the knock after a silence should have come in


@dataclass(slots=True)
class Measuring:
    """Lets mappings be idle, and knows what that has shown."""

    context: Context
    neighbours: Callable[[], list[Neighbour]]
    tell: Callable[[PeerId, KnockMessage], None]
    """Sends a message to a neighbour, if it is one still."""
    new_port: Callable[[], PortId]
    is_busy: Callable[[], bool]
    """Whether an examination is under way, which needs the helpers."""
    lifetime: Lifetime = field(default_factory=Lifetime)
    _current: Measurement | None = None
    _timers: Timers[Due] = field(init=False)

    def __post_init__(self) -> None:
        self._timers = Timers(self.context.agenda)

    def begin(self, now: float) -> None:
        """Helpers have shown themselves: measure what is not known yet."""
        if self.lifetime.next() is not None:
            self._timers.set(Due.NEXT, now)

    def on_moved(self) -> None:
        """We are elsewhere: what was found there says nothing here."""
        self.lifetime, self._current = Lifetime(), None
        for due in Due:
            self._timers.stop(due)

    def _measure(self, now: float) -> None:
        """Let a mapping be idle for a while, and see whether the helper still gets through."""
        silence = self.lifetime.next()
        helpers = [each for each in self.neighbours() if each.is_public]
        if silence is None or self._current is not None:
            return
        if not helpers or self.is_busy():
            self._timers.set(Due.NEXT, now + NEXT_AFTER)
            return
        helper = self.context.random.choice(helpers)
        request = self.context.crypto.token(12)
        self._current = Measurement(helper, self.new_port(), request, silence)
        lasts = silence + OPENING_TIMEOUT
        self._timers.set(Due.OVER, now + lasts)
        self.context.emit(OpenPort(self._current.port, helper.local.host, lasts))

    # --- what comes in -----------------------------------------------------------------------

    def on_port_opened(self, port: PortId, now: float) -> None:
        """Ask the helper to knock there after the silence, and let it see where that is."""
        current = self._current
        if current is not None and current.port == port:
            ask = KnockAsk(current.request, own=False, after=int(current.silence))
            self.tell(current.helper.peer, ask)
            self._timers.set(Due.RESEND, now)

    def on_port_heard(
        self, port: PortId, message: stun.Message, remote: Address, now: float
    ) -> None:
        """A datagram at a further socket."""
        current = self._current
        if current is None or current.port != port:
            return
        if message.transaction_id != current.request or remote != current.helper.remote:
            return
        if message.message_class is stun.MessageClass.SUCCESS:
            current.seen = True
        elif message.message_class is stun.MessageClass.INDICATION:
            current.heard = True
            self._end(current, now)

    def on_knocked(self, request: bytes, now: float) -> None:
        """A helper says that it has knocked."""
        if self._current is not None and self._current.request == request:
            self._current.told = True
            self._timers.set(Due.OVER, now + KNOCK_TIMEOUT)

    def on_refused(self, request: bytes, now: float) -> None:
        """A helper will not knock."""
        if self._current is not None and self._current.request == request:
            self._end(self._current, now)

    def _end(self, current: Measurement, now: float) -> None:
        self._timers.stop(Due.OVER)
        self._current = None
        if current.heard or (current.seen and current.told):
            self.lifetime.learn(current.silence, lived=current.heard)
        if self.lifetime.next() is not None:
            self._timers.set(Due.NEXT, now + NEXT_AFTER)

    # --- time --------------------------------------------------------------------------------

    def _resend(self, now: float) -> None:
        current = self._current
        if current is None or current.seen or current.sends >= RESENDS:
            return
        current.sends += 1
        data = stun.encode(stun.binding_request(current.request), None)
        self.context.emit(SendFrom(current.port, data, current.helper.remote))
        self._timers.set(Due.RESEND, now + RESEND)

    def on_time(self, now: float) -> None:
        """Do what is due."""
        for due in self._timers.pop_due(now):
            match due:
                case Due.RESEND:
                    self._resend(now)
                case Due.NEXT:
                    self._measure(now)
                case Due.OVER:
                    if self._current is not None:
                        self._end(self._current, now)
                case _:
                    assert_never(due)
