"""One stream: two directions, each with its credit and its last word.

Each side says a last word about what it sends, END or RESET, once; when both have been said the
stream is over. RESET also stops the other direction: whoever gets one and has not said its own
last word yet says RESET in turn. A RESET after an END only stops the other direction.
"""

from typing import assert_never

from overlay.core.stream.frames import (
    CLOSED,
    CREDIT_MAX,
    Ack,
    Credit,
    End,
    Frame,
    FrameType,
    Open,
    Reset,
)
from overlay.core.stream.states import (
    RECEIVING,
    SENDING,
    Receiving,
    ReceivingEvent,
    Sending,
    SendingEvent,
)

EARLY_CREDIT = 16_384
"""Bytes that an opener may send before it is answered: a constant of the protocol."""
OPENINGS = frozenset({FrameType.OPEN, FrameType.ACK})
"""What each side says of a stream before anything else."""
SEND_BUFFER = 65_536
"""Bytes that an application may hand over before they are sent (guess)."""


class Stream:
    """The state and the rules of one stream; `StreamMux` feeds and schedules it."""

    __slots__ = (
        *("allowance", "broken", "consumed", "credit", "debt", "id", "in_round", "incoming"),
        *("is_changed", "is_closed", "is_counted", "is_over", "is_urgent", "ours", "outgoing"),
        *("owed", "priority", "protocol", "receiving", "reset_code", "sending", "window"),
    )

    def __init__(self, stream_id: int, opening: Open, *, ours: bool, window: int) -> None:
        """`window`: bytes that may wait here for our application, at least `EARLY_CREDIT`."""
        self.id = stream_id
        self.protocol, self.priority = opening.protocol, opening.priority
        self.ours = ours
        self.sending = Sending.OPEN
        self.receiving = Receiving.UNANSWERED if ours else Receiving.OPEN
        # Types of the frames that go out before any data, in order; no type twice.
        self.owed = [FrameType.OPEN if ours else FrameType.ACK]
        self.outgoing, self.incoming = bytearray(), bytearray()
        self.credit = EARLY_CREDIT if ours else opening.credit  # bytes that we may still send
        self.window = self.allowance = window  # `allowance`: bytes that the peer may still send
        self.consumed = 0  # bytes that our application has taken since we last gave credit
        self.reset_code: int | None = None  # what our RESET says, once there is one
        # Why nothing can be sent any more, nor read unless the END has come.
        self.broken: int | None = None
        self.is_closed = False  # our application has left: what still arrives is thrown away
        self.is_over = False  # the peer knows it no more; there may be something left to read
        # Marks of the scheduler and of the mux.
        self.in_round = self.is_urgent = self.is_changed = self.is_counted = False
        # Bytes sent beyond the turns had so far, or below zero what is left of this one.
        self.debt = 0

    # --- states ----------------------------------------------------------------------------------

    @property
    def ending(self) -> bool:
        """Whether our application can write no more."""
        return self.sending is not Sending.OPEN

    @property
    def final_sent(self) -> bool:
        """Whether we have said our last word."""
        return self.sending is Sending.ENDED

    @property
    def final_received(self) -> bool:
        """Whether the peer has said its last word."""
        return self.receiving is Receiving.ENDED or self.receiving is Receiving.RESET

    @property
    def is_acknowledged(self) -> bool:
        """Whether the peer knows the stream."""
        return self.receiving is not Receiving.UNANSWERED

    def _send(self, event: SendingEvent) -> bool:
        """Whether that is news; what has no entry in the table changes nothing."""
        after = SENDING[self.sending].get(event)
        self.sending = after or self.sending
        return after is not None

    def _receive(self, event: ReceivingEvent) -> bool:
        """Whether the peer may do that now."""
        after = RECEIVING[self.receiving].get(event)
        self.receiving = after or self.receiving
        return after is not None

    # --- our application -------------------------------------------------------------------------

    @property
    def room(self) -> int:
        """Bytes that `put` takes now."""
        return SEND_BUFFER - len(self.outgoing)

    def put(self, data: bytes | memoryview) -> int:
        """Queue as much as there is room for; how many bytes that was."""
        assert not self.ending, "nothing is written after the end"
        taken = data[: self.room]
        self.outgoing += taken
        return len(taken)

    @property
    def at_eof(self) -> bool:
        """Whether all has been read and nothing will come."""
        return self.receiving is Receiving.ENDED and not self.incoming

    def get(self, most: int) -> bytes:
        """Take up to `most` bytes; what was taken comes back to the peer as credit."""
        data = bytes(self.incoming[:most])
        del self.incoming[:most]
        self.consumed += len(data)
        if 2 * self.consumed >= self.window and not self.final_received:
            self._owe(FrameType.CREDIT)
        return data

    def end(self) -> None:
        """Send nothing more than what has been queued."""
        if self._send(SendingEvent.END) and not self.outgoing:
            self._owe(FrameType.END)

    def close(self) -> None:
        """Read no more and send nothing more; what has been queued is still delivered."""
        self.is_closed = True
        self.incoming.clear()
        self.end()
        if not self.final_received and self.reset_code is None:
            self.reset_code = CLOSED
            if not self.outgoing:
                self._owe(FrameType.RESET)

    def reset(self, code: int) -> None:
        """Give up both directions at once."""
        self.is_closed = True
        self.incoming.clear()
        self.stop(code)

    def stop(self, code: int) -> None:
        """Give up, but leave what has arrived to be read."""
        self.outgoing.clear()
        self._send(SendingEvent.STOP)
        self.owed = [kind for kind in self.owed if kind in OPENINGS]
        if not (self.final_sent and self.final_received):
            self.reset_code = code
            self._owe(FrameType.RESET)

    def take_back(self) -> None:
        """It was given up before the peer heard of it: nothing is said on either side."""
        self.owed.clear()
        self._send(SendingEvent.TAKEN_BACK)
        self._receive(ReceivingEvent.TAKEN_BACK)

    # --- the peer: each returns what is wrong with the frame, or None ----------------------------

    def on_ack(self, credit: int) -> str | None:
        """The peer knows the stream."""
        if not self._receive(ReceivingEvent.ACK):
            return "a stream acknowledged twice"
        self.credit += credit
        return None

    def on_data(self, data: bytes) -> str | None:
        """The next bytes of the peer's."""
        if not self._receive(ReceivingEvent.DATA):
            return "data after the end of a stream"
        if len(data) > self.allowance:
            return f"data beyond the credit of a stream: {len(data)} for {self.allowance} bytes"
        self.allowance -= len(data)
        if not self.is_closed:
            self.incoming += data
        return None

    def on_credit(self, credit: int) -> str | None:
        """The peer's application has read."""
        self.credit += credit
        return "more credit than there can be" if self.credit > CREDIT_MAX else None

    def on_end(self) -> str | None:
        """The peer sends no more."""
        return None if self._receive(ReceivingEvent.END) else "a stream ended twice"

    def on_reset(self, code: int) -> str | None:
        """The peer neither sends nor reads any more."""
        if not self._receive(ReceivingEvent.RESET):
            return "a RESET out of place"
        if self.receiving is Receiving.RESET:
            self.incoming.clear()
        self.broken = code
        if not self.final_sent:
            self.stop(code)
        return None

    # --- what is sent ----------------------------------------------------------------------------

    @property
    def sendable(self) -> bool:
        """Whether `take` has something."""
        return bool(self.outgoing) and self.credit > 0

    def take(self, most: int) -> bytes:
        """The next bytes that the credit lets go, at most `most`."""
        piece = bytes(self.outgoing[: min(most, self.credit)])
        del self.outgoing[: len(piece)]
        self.credit -= len(piece)
        if self.sending is Sending.ENDING and not self.outgoing:
            self._owe(FrameType.END)
            if self.is_closed and not self.final_received:
                self._owe(FrameType.RESET)
        return piece

    def pay(self) -> Frame:
        """The first of the frames that are owed; there is one."""
        match kind := self.owed.pop(0):
            case FrameType.OPEN:
                return Open(self.protocol, self.priority, self.window)
            case FrameType.ACK:
                return Ack(self.window - EARLY_CREDIT)
            case FrameType.CREDIT:
                given, self.consumed = self.consumed, 0
                self.allowance += given
                return Credit(given)
            case FrameType.END:
                self._send(SendingEvent.END_SENT)
                return End()
            case FrameType.RESET:
                self._send(SendingEvent.RESET_SENT)
                assert self.reset_code is not None, "owed with its code"
                return Reset(self.reset_code)
            case FrameType.READY | FrameType.DATA:
                raise AssertionError(f"a stream never owes {kind.name}")
            case _:
                assert_never(kind)

    @property
    def is_complete(self) -> bool:
        """Whether both last words have been said."""
        return self.final_sent and self.final_received and not self.owed

    def _owe(self, kind: FrameType) -> None:
        if kind not in self.owed:
            self.owed.append(kind)
