"""Streams under any bytes, and under any order of whatever honest ends do."""

from collections import deque
from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from overlay.core.stream import EARLY_CREDIT, SEND_BUFFER, Stream
from overlay.core.stream_frames import (
    Ack,
    Credit,
    Data,
    End,
    Frame,
    Open,
    Ready,
    Reset,
    encode,
)
from overlay.core.streams import STREAMS_MAX, WINDOWS_MAX, StreamMux
from tests.core.stream_pair import Pair, Side

SMALL = st.integers(0, 300_000)
FRAMES: st.SearchStrategy[Frame] = st.one_of(
    st.just(Ready()),
    st.builds(Open, st.text(st.characters(codec="utf-8"), max_size=70), st.integers(-9, 9), SMALL),
    st.builds(Ack, SMALL),
    st.builds(lambda size: Data(bytes(size)), SMALL),
    st.builds(Credit, SMALL),
    st.just(End()),
    st.builds(Reset, SMALL),
)
ANY_BYTES = st.one_of(FRAMES.map(encode), st.binary(max_size=40))
IDS = st.one_of(st.integers(2, 9), st.integers(0, 70_000))
LOCAL = st.sampled_from(["open", "write", "read", "end", "close", "reset", "pop", "time"])


def act(mux: StreamMux, what: str, streams: list[Stream], index: int, now: float) -> None:
    """Something an application does, if it may."""
    if what == "open":
        if (stream := mux.open("test", index % 9 - 4, now)) is not None:
            streams.append(stream)
    elif what == "time":
        mux.handle_timeout(now)
    elif what == "pop":
        if mux.ready:
            mux.pop(1 + 37 * index)
    elif streams:
        act_on(mux, what, streams[index % len(streams)], index, now)


def act_on(mux: StreamMux, what: str, stream: Stream, index: int, now: float) -> bytes:
    """The same for one stream; what was written or read."""
    if what == "write" and not stream.ending and stream.broken is None:
        data = bytes([index % 256]) * (1 + 500 * index)
        return data[: mux.write(stream, data)]
    if what == "read" and not stream.is_closed:
        return mux.read(stream, 1 + 500 * index)
    if what == "end" and not stream.is_closed:
        mux.end(stream)
    elif what == "close" and not stream.is_closed:
        mux.close(stream, now)
    elif what == "reset":
        mux.reset(stream, index)
    return b""


@given(
    st.booleans(),
    st.lists(
        st.one_of(st.tuples(IDS, ANY_BYTES), st.tuples(LOCAL, st.integers(0, 100))), max_size=60
    ),
)
def test_no_bytes_make_it_raise_or_grow(
    admitted: bool, steps: list[tuple[int | str, bytes | int]]
) -> None:
    side = Side(client=False)
    if admitted:
        side.mux.admit()
    ours: list[Stream] = []
    for now, (what, how) in enumerate(steps):
        if isinstance(what, int) and isinstance(how, bytes):
            side.mux.receive(what, how, float(now))
        elif isinstance(what, str) and isinstance(how, int):
            act(side.mux, what, ours + side.opened, how, float(now))
        side.note()
        held = sum(len(stream.incoming) for stream in [*ours, *side.opened])
        assert held <= WINDOWS_MAX + 2 * STREAMS_MAX * EARLY_CREDIT
        assert len(side.violations) <= 1
    side.flush()
    assert len(side.mux._streams) <= 1022


@dataclass(eq=False)
class Half:
    """One direction of a stream: what went in at one end and came out at the other."""

    written: bytearray = field(default_factory=bytearray)
    read: bytearray = field(default_factory=bytearray)


class Witness:
    """Applications at both ends that do as they are told and note every byte."""

    def __init__(self, seed: int) -> None:
        self.pair = Pair(seed)
        self.ends: dict[Side, list[Stream]] = {self.pair.client: [], self.pair.server: []}
        self.halves: dict[Stream, tuple[Half, Half]] = {}
        """By either end: what it writes, what it reads."""
        self.unmet: dict[tuple[Side, int], deque[Stream]] = {}

    def open(self, side: Side, other: Side, priority: int) -> None:
        stream = side.mux.open("test", priority, self.pair.now)
        if stream is not None:
            self.ends[side].append(stream)
            self.halves[stream] = (Half(), Half())
            self.unmet.setdefault((other, stream.id), deque()).append(stream)

    def meet(self) -> None:
        """Pair up what has arrived with what was opened; streams given up unsent never arrive."""
        for side, _ in self.pair.sides():
            for stream in side.opened:
                waiting = self.unmet[side, stream.id]
                while not waiting[0].is_acknowledged and len(waiting) > 1:
                    waiting.popleft()
                written, read = self.halves[waiting.popleft()]
                self.halves[stream] = (read, written)
                self.ends[side].append(stream)
            side.opened.clear()

    def act(self, side: Side, what: str, index: int) -> None:
        streams = self.ends[side]
        if not streams:
            return
        stream = streams[index % len(streams)]
        data = act_on(side.mux, what, stream, index, self.pair.now)
        written, read = self.halves[stream]
        if what == "write":
            written.written += data
        elif what == "read":
            read.read += data

    def check(self) -> None:
        assert not self.pair.client.violations + self.pair.server.violations
        for _, half in self.halves.values():
            assert half.written.startswith(half.read)
        for streams in self.ends.values():
            for stream in streams:
                assert len(stream.outgoing) <= SEND_BUFFER
                assert len(stream.incoming) <= max(stream.window, EARLY_CREDIT) or stream.is_over

    def finish(self) -> None:
        """Read everything to its end, close everything: nothing may be left."""
        for _ in range(8):
            self.pair.settle()
            self.meet()
            for side, streams in self.ends.items():
                for stream in streams:
                    if not stream.is_closed:
                        self.halves[stream][1].read += side.all_of(stream)
                        side.mux.end(stream)
        self.check()
        for streams in self.ends.values():
            for stream in streams:
                half = self.halves[stream][1]
                if stream.at_eof and not stream.is_closed:
                    assert half.read == half.written, "not all that was sent has arrived"
        for side, streams in self.ends.items():
            for stream in streams:
                side.mux.close(stream, self.pair.now)
        self.pair.settle()
        for side in self.ends:
            assert not side.mux._streams
            assert (side.mux._windows, side.mux._inbound) == (0, 0)
            assert not side.mux.ready


DEEDS = st.sampled_from(["open", "write", "read", "end", "close", "reset", "arrive", "flush"])


@given(
    st.integers(0, 2**32),
    st.lists(st.tuples(st.booleans(), DEEDS, st.integers(0, 100)), max_size=80),
)
def test_what_comes_out_is_what_went_in_whatever_overtakes_what(
    seed: int, steps: list[tuple[bool, str, int]]
) -> None:
    witness = Witness(seed)
    for at_client, what, index in steps:
        side, other = witness.pair.sides()[0 if at_client else 1]
        if what == "open":
            witness.open(side, other, index % 9 - 4)
        elif what == "flush":
            side.flush(1 + 37 * index)
        elif what == "arrive":
            for _ in range(1 + index % 5):
                witness.pair.deliver_one()
        else:
            witness.act(side, what, index)
        side.note()
        witness.meet()
        witness.check()
    witness.finish()
