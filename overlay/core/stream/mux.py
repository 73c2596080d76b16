"""The application streams of one link: frames in, frames out, all bounded, nothing awaited.

Rule 1. Nothing but READY is sent before both ends have admitted each other. READY says "I have";
any other frame says so too, because nobody sends one before it has heard READY.
Rule 2. A stream lives on an SCTP stream id: even for the DTLS client, odd for the server
(RFC 8832 §6), from 2 up. Its opener may open the next one there once it has heard the peer's last
word (END or RESET) and has said its own. CREDIT and RESET that the peer sent before it heard ours
may arrive later: an opener ignores what comes before the ACK, the first answer to OPEN.
Rule 3. Nobody sends more bytes than the other has given credit for, and credit comes back only as
the application reads: a reader that stops costs its writer this stream's credit, and nobody else
anything.
Rule 4. Frames that are not data (at most a few a stream) go before data; data in fair turns.

Why it is so, and not a data channel each: docs/decisions/0011-streams.md.
"""

from collections import deque
from dataclasses import dataclass
from typing import assert_never

from overlay.core.stream.frames import (
    BUSY,
    CANCELLED,
    TIMEOUT,
    Ack,
    Credit,
    Data,
    End,
    Frame,
    FrameType,
    Open,
    Ready,
    Reset,
    decode,
    encode,
)
from overlay.core.stream.stream import EARLY_CREDIT, Stream
from overlay.core.stream.turns import Turns
from overlay.core.timers import Timers
from overlay.core.wire.codec import Broken, Unknown

FIRST_ID = 2
STREAMS_MAX = 256
"""Streams that each side may have open at once, and ids that an opener uses (guess)."""
WINDOW = 262_144
"""Bytes of one stream that may wait for our application: 5 MB/s at 50 ms (guess)."""
WINDOWS_MAX = 16 << 20
"""Bytes of all windows of a link together; beyond it a stream gets `EARLY_CREDIT` only (guess)."""
PIECE = 16_384
"""Bytes of data in one frame at most: what a more urgent message may have to wait for (guess)."""
OPEN_TIMEOUT = 30.0
"""Seconds until a stream that the peer does not acknowledge is broken (guess)."""
LINGER_TIMEOUT = 60.0
"""Seconds in which what a closed stream has queued must have gone out (guess)."""
IDS_END = 1024
"""One past the last stream id that a peer can use: what our SCTP offers."""
LOST = -1
"""Why a stream broke whose link has ended."""
WASTE_MAX = 1000.0
"""Streams that a peer may open in vain (we refuse or it resets them) before it loses its link."""
WASTE_RATE = 50.0
"""Forgiven each second: requests that a user cancels are opened in vain, too (guess)."""


@dataclass(frozen=True, slots=True)
class Opened:
    """The peer has opened a stream."""

    stream: Stream


@dataclass(frozen=True, slots=True)
class Changed:
    """Something that the application of this stream may wait for has happened."""

    stream: Stream


@dataclass(frozen=True, slots=True)
class Over:
    """The peer knows the stream no more; if it was ours, another one can be opened."""

    stream: Stream


@dataclass(frozen=True, slots=True)
class Violation:
    """The peer broke the protocol: end the link."""

    why: str


Output = Opened | Changed | Over | Violation


class StreamMux:
    """All streams of one link. After each call: `take` what happened, `pop` what is to be sent."""

    def __init__(self, *, client: bool) -> None:
        """`client`: we are the DTLS client."""
        self._parity = 0 if client else 1
        self._streams: dict[int, Stream] = {}
        self._free: deque[int] = deque()
        self._next_id = FIRST_ID + self._parity
        self._urgent: deque[Stream] = deque()
        self._turns = Turns()
        self._timers: Timers[int] = Timers()
        self._outputs: list[Output] = []
        self._is_admitted = self._peer_is_ready = self._heard_ready = self._owes_ready = False
        self._is_suspended = self._is_over = False
        self._inbound = 0
        self._windows = 0
        self._waste, self._waste_at = 0.0, 0.0

    def take(self) -> list[Output]:
        """Drain what has happened."""
        outputs, self._outputs = self._outputs, []
        for output in outputs:
            if isinstance(output, Changed):
                output.stream.is_changed = False
        return outputs

    # --- the link --------------------------------------------------------------------------------

    def admit(self) -> None:
        """The peer has been admitted: it may have streams."""
        if not self._is_admitted:
            self._is_admitted = self._owes_ready = True

    def receive(self, stream_id: int, data: bytes, now: float) -> None:
        """Handle one SCTP message on an id from 2 up. Never raises, for any bytes."""
        if self._is_over:
            return
        frame = decode(data)
        why = self._on_frame(stream_id, frame, now)
        if why is not None:
            self._outputs.append(Violation(why))
            self._is_over = True

    def suspend(self) -> None:
        """The link has fallen silent: no time passes for streams."""
        self._is_suspended = True

    def resume(self, now: float) -> None:
        """The link is heard again: every timer starts anew."""
        if self._is_suspended:
            self._is_suspended = False
            for stream in self._streams.values():
                self._arm(stream, now)

    def hang_up(self) -> None:
        """Break what our application has not closed; the rest may still be delivered."""
        for stream in list(self._streams.values()):
            if not stream.is_closed:
                stream.stop(CANCELLED)
                self._break(stream, LOST)

    def lose(self) -> None:
        """The link has ended: every stream is broken, and there is nothing more to send."""
        self._is_over = True
        self._owes_ready = False
        for stream in self._streams.values():
            self._change(stream)
            stream.broken = LOST if stream.broken is None else stream.broken
        self._streams.clear()
        self._urgent.clear()
        self._turns = Turns()
        self._timers = Timers()

    # --- our application -------------------------------------------------------------------------

    def open(self, protocol: str, priority: int, now: float) -> Stream | None:
        """A new stream; None: as many as allowed are open, or the link has ended."""
        stream_id = self._free_id()
        if stream_id is None or self._is_over:
            return None
        window = self._grant()
        stream = Stream(stream_id, Open(protocol, priority, window), ours=True, window=window)
        self._add(stream)
        self._arm(stream, now)
        return stream

    def write(self, stream: Stream, data: bytes | memoryview) -> int:
        """Queue bytes of a stream neither ended nor broken; how many there was room for."""
        taken = stream.put(data)
        self._settle(stream)
        return taken

    def read(self, stream: Stream, most: int) -> bytes:
        """Up to `most` bytes of what has arrived."""
        data = stream.get(most)
        self._settle(stream)
        return data

    def end(self, stream: Stream) -> None:
        """Half-close: send nothing more than what has been queued."""
        stream.end()
        self._settle(stream)

    def close(self, stream: Stream, now: float) -> None:
        """Our application leaves; what it has written is still delivered, within a minute."""
        stream.close()
        self._arm(stream, now)
        self._settle(stream)

    def reset(self, stream: Stream, code: int = CANCELLED) -> None:
        """Our application leaves, and nobody need care for what was under way."""
        stream.reset(code)
        self._settle(stream)

    # --- frames out ------------------------------------------------------------------------------

    @property
    def ready(self) -> bool:
        """Whether `pop` has a frame."""
        if not self._peer_is_ready or not self._is_admitted:
            return self._owes_ready
        return bool(self._owes_ready or self._urgent or len(self._turns))

    @property
    def queued(self) -> int:
        """Bytes that applications have handed over and `pop` has not."""
        return sum(len(stream.outgoing) for stream in self._streams.values())

    def pop(self, limit: int = PIECE) -> tuple[int, bytes]:
        """The next frame and its stream id, with at most `limit` bytes of data. Only if `ready`."""
        if self._owes_ready:
            self._owes_ready = False
            return FIRST_ID + self._parity, encode(Ready())
        frame: Frame
        if self._urgent:
            stream = self._urgent[0]
            frame = stream.pay()
            if not stream.owed:
                self._urgent.popleft()
                stream.is_urgent = False
        else:
            stream, piece = self._turns.take(min(limit, PIECE))
            frame = Data(piece)
            if stream.room >= len(stream.outgoing) or not stream.sendable:
                self._change(stream)  # half of the room is back, or all that will be for now
        self._settle(stream)
        return stream.id, encode(frame)

    # --- frames in: each returns what is wrong, or None ------------------------------------------

    def _on_frame(self, stream_id: int, frame: Frame | Unknown | Broken, now: float) -> str | None:
        if isinstance(frame, Broken):
            return frame.why
        if isinstance(frame, Ready):
            return self._on_ready()
        if not self._is_admitted:
            return "a stream before the link was admitted"
        if not FIRST_ID <= stream_id < IDS_END:
            return f"a stream on id {stream_id}"
        self._peer_is_ready = True
        if isinstance(frame, Unknown):
            return None
        stream = self._streams.get(stream_id)
        if isinstance(frame, Open):
            return self._on_open(stream_id, stream, frame, now)
        if stream is None or not (stream.is_acknowledged or isinstance(frame, Ack)):
            # What was sent before our last word arrived (rule 2).
            late = isinstance(frame, Credit | Reset)
            return None if late else f"{type(frame).__name__} on a stream that is not open"
        why = self._on_stream(stream, frame, now)
        self._settle(stream)
        return why

    def _on_ready(self) -> str | None:
        if self._heard_ready:
            return "READY twice"
        self._heard_ready = self._peer_is_ready = True
        return None

    def _on_open(self, stream_id: int, known: Stream | None, frame: Open, now: float) -> str | None:
        if known is not None or stream_id % 2 == self._parity:
            return "OPEN on a stream id that is not free"
        refused = self._inbound >= STREAMS_MAX
        window = EARLY_CREDIT if refused else self._grant()
        stream = Stream(stream_id, frame, ours=False, window=window)
        if refused:
            stream.reset(BUSY)
            self._add(stream)
            return self._count_waste(now)
        self._inbound += 1
        stream.is_counted = True
        self._add(stream)
        self._outputs.append(Opened(stream))
        return None

    def _on_stream(
        self, stream: Stream, frame: Ack | Data | Credit | End | Reset, now: float
    ) -> str | None:
        match frame:
            case Data():
                self._change(stream)
                return stream.on_data(frame.data)
            case Credit():
                return stream.on_credit(frame.credit)
            case Ack():
                why = stream.on_ack(frame.credit)
                self._arm(stream, now)
                return why
            case End():
                self._change(stream)
                return stream.on_end()
            case Reset():
                self._change(stream)
                in_vain = not stream.ours and not stream.final_received
                return stream.on_reset(frame.code) or (self._count_waste(now) if in_vain else None)
            case _:
                assert_never(frame)

    def _count_waste(self, now: float) -> str | None:
        forgiven = (now - self._waste_at) * WASTE_RATE
        self._waste = max(0.0, self._waste - forgiven) + 1
        self._waste_at = now
        return "too many streams opened in vain" if self._waste > WASTE_MAX else None

    # --- inside ----------------------------------------------------------------------------------

    def _free_id(self) -> int | None:
        if not self._free and self._next_id < FIRST_ID + 2 * STREAMS_MAX:
            self._free.append(self._next_id)
            self._next_id += 2
        return self._free.popleft() if self._free else None

    def _grant(self) -> int:
        return min(WINDOW, max(EARLY_CREDIT, WINDOWS_MAX - self._windows))

    def _add(self, stream: Stream) -> None:
        self._streams[stream.id] = stream
        self._windows += stream.window
        self._settle(stream)

    def _settle(self, stream: Stream) -> None:
        """Put the stream where it belongs after whatever has happened to it."""
        if stream.is_over or self._is_over:
            self._release(stream)
            return
        if stream.sendable:
            self._turns.join(stream)
        else:
            self._turns.leave(stream)
        if stream.owed and {FrameType.OPEN, FrameType.RESET}.issubset(stream.owed):
            stream.take_back()  # the peer has never heard of it
        if stream.owed and not stream.is_urgent:
            stream.is_urgent = True
            self._urgent.append(stream)
        elif not stream.owed and stream.is_urgent:
            stream.is_urgent = False
            self._urgent.remove(stream)
        if stream.is_complete:
            self._forget(stream)

    def _forget(self, stream: Stream) -> None:
        """Both last words have been said: the id is free."""
        del self._streams[stream.id]
        self._timers.stop(stream.id)
        stream.is_over = True
        if stream.ours:
            self._free.append(stream.id)
        self._outputs.append(Over(stream))
        self._release(stream)

    def _release(self, stream: Stream) -> None:
        """Nothing is left to read: the window is free, and the place of an inbound stream."""
        if not stream.incoming:
            self._windows -= stream.window
            stream.window = 0
            if stream.is_counted:
                stream.is_counted = False
                self._inbound -= 1

    def _arm(self, stream: Stream, now: float) -> None:
        if self._streams.get(stream.id) is not stream:
            return
        if not stream.is_acknowledged:
            self._timers.set(stream.id, now + OPEN_TIMEOUT)
        elif stream.is_closed:
            self._timers.set(stream.id, now + LINGER_TIMEOUT)
        else:
            self._timers.stop(stream.id)

    def _break(self, stream: Stream, code: int) -> None:
        stream.broken = code
        self._settle(stream)
        self._change(stream)

    def _change(self, stream: Stream) -> None:
        if not stream.is_changed:
            stream.is_changed = True
            self._outputs.append(Changed(stream))

    # --- time ------------------------------------------------------------------------------------

    def next_deadline(self) -> float | None:
        """When to call `handle_timeout` next."""
        return None if self._is_suspended else self._timers.next_deadline()

    def handle_timeout(self, now: float) -> None:
        """Break what the peer has not answered, and give up what it does not take."""
        due = [] if self._is_suspended else self._timers.pop_due(now)
        for stream in [self._streams[stream_id] for stream_id in due]:
            stream.reset(TIMEOUT)
            self._break(stream, TIMEOUT)
