"""A STUN server that the user has named (``nat.stun``): asked only while it is needed.

Plain Binding requests (RFC 8489 §3) leave from the node's one port. What comes back is where the
server sees it, and each question keeps the NAT's mapping: one every ten seconds, since mappings may
die after thirty. Nobody is asked unless the user has opted in, and no record carries the answer.
"""

from dataclasses import dataclass, field

from overlay.core.context import Context
from overlay.core.events import Await, Seen, SendFrom
from overlay.core.ice import stun
from overlay.core.timers import Timers
from overlay.core.types import MAIN, Address

RESEND = 0.5
"""Seconds until an unanswered question is asked again (RFC 8489 §6.2.1)."""
SENDS = 7
"""Times that a question is asked in quick succession (RFC 8489 §6.2.1, Rc)."""
KEEP_INTERVAL = 10.0
"""Seconds (guess) from an answer to the next question: a mapping lives for 30 s at least."""


@dataclass(slots=True)
class StunServer:
    """What the server says, for as long as somebody wants to know."""

    context: Context
    mapped: Address | None = None
    """Where it last saw us; None: it has not answered, or not been asked."""
    _until: float = float("-inf")
    _transaction: bytes = b""
    _sends: int = 0
    _timers: Timers[None] = field(init=False)

    def __post_init__(self) -> None:
        self._timers = Timers(self.context.agenda)

    def want(self, until: float, now: float) -> None:
        """Ask now, and keep the mapping until then."""
        if self.context.settings.stun is None:
            return
        if now >= self._until:
            self.mapped, self._sends = None, 0
        self._until = max(self._until, until)
        if not self._timers.deadlines:  # Else it is being asked, or has just answered.
            self._send(now)

    @property
    def is_silent(self) -> bool:
        """Whether it has been asked often enough without an answer."""
        return self.mapped is None and self._sends >= SENDS

    def on_seen(self, seen: Seen, now: float) -> bool:
        """An answer, from whoever says so; returns whether it was waited for."""
        if not self._transaction or seen.transaction != self._transaction:
            return False
        if seen.remote != self.context.settings.stun or seen.mapped is None:
            return False
        self._transaction, self._sends, self.mapped = b"", 0, seen.mapped
        self._timers.set(None, now + KEEP_INTERVAL)
        return True

    def on_time(self, now: float) -> None:
        """Ask again, if anybody still wants to know."""
        for _ in list(self._timers.pop_due(now)):
            if now < self._until:
                self._send(now)

    def _send(self, now: float) -> None:
        server = self.context.settings.stun
        assert server is not None
        self._sends += 1
        self._transaction = self.context.crypto.token(12)
        self.context.emit(Await(self._transaction))
        data = stun.encode(stun.binding_request(self._transaction), None)
        self.context.emit(SendFrom(MAIN, data, server))
        pause = RESEND if self._sends < SENDS else KEEP_INTERVAL
        self._timers.set(None, now + pause)
