"""Streams under any bytes, and under any order of whatever honest ends do."""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.core.stream.frames import (
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
from overlay.core.stream.mux import LOST, STREAMS_MAX, WINDOWS_MAX, StreamMux
from overlay.core.stream.states import Receiving
from overlay.core.stream.stream import EARLY_CREDIT, SEND_BUFFER, Stream
from tests.core.stream.pair import Pair, Side

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
    read: int = 0

    def take(self, data: bytes) -> None:
        assert data == self.written[self.read : self.read + len(data)]
        self.read += len(data)


class Witness:
    """Applications at both ends that do as they are told and note every byte."""

    def __init__(self, seed: int) -> None:
        self.pair = Pair(seed)
        self.ends: dict[Side, list[Stream]] = {self.pair.client: [], self.pair.server: []}
        self.home: dict[Stream, StreamMux] = {}
        self.halves: dict[Stream, tuple[Half, Half]] = {}
        """By either end: what it writes, what it reads."""
        self.unmet: dict[tuple[Side, int], deque[Stream]] = {}
        self.met: list[tuple[Side, Stream, Side, Stream]] = []
        """Both ends of the present link's streams, the opener's first."""

    def open(self, side: Side, priority: int) -> None:
        stream = side.mux.open("test", priority, self.pair.now)
        if stream is not None:
            self.ends[side].append(stream)
            self.home[stream] = side.mux
            self.halves[stream] = (Half(), Half())

    def meet(self) -> None:
        """Pair up what has arrived with what was announced."""
        for side, other in self.pair.sides():
            for stream in side.announced:
                self.unmet.setdefault((other, stream.id), deque()).append(stream)
            side.announced.clear()
        for side, other in self.pair.sides():
            for stream in side.opened:
                opener = self.unmet[side, stream.id].popleft()
                written, read = self.halves[opener]
                self.halves[stream] = (read, written)
                self.ends[side].append(stream)
                self.home[stream] = side.mux
                self.met.append((other, opener, side, stream))
            side.opened.clear()

    def act(self, side: Side, what: str, index: int) -> None:
        streams = self.ends[side]
        if not streams:
            return
        stream = streams[index % len(streams)]
        data = act_on(self.home[stream], what, stream, index, self.pair.now)
        written, read = self.halves[stream]
        if what == "write":
            written.written += data
        elif what == "read":
            read.take(data)

    def wait(self, seconds: float) -> None:
        self.pair.now += seconds
        for side, _ in self.pair.sides():
            side.mux.handle_timeout(self.pair.now)
            side.note()

    def replace_link(self) -> None:
        """What is under way is lost, and another link takes this one's place, roles exchanged."""
        for side, _ in self.pair.sides():
            old = side.mux
            open_at_the_end = [stream for stream in old._streams.values() if stream.broken is None]
            side.changed.clear()
            old.lose()
            side.note()
            assert all(stream.broken == LOST for stream in open_at_the_end)
            assert set(open_at_the_end) <= set(side.changed)
            assert not old.ready
            assert old.open("test", 0, self.pair.now) is None
            assert (old.queued, old.next_deadline()) == (0, None)
            for stream_id, frames in side.wire.items():
                for frame in frames:
                    old.receive(stream_id, frame, self.pair.now)
            side.wire.clear()
            side.mux = StreamMux(client=old._parity == 1)
            side.mux.admit()
        self.unmet.clear()
        self.met.clear()

    def check(self) -> None:
        assert not self.pair.client.violations + self.pair.server.violations
        for streams in self.ends.values():
            for stream in streams:
                assert len(stream.outgoing) <= SEND_BUFFER
                assert len(stream.incoming) <= max(stream.window, EARLY_CREDIT) or stream.is_over
        for opener_side, opener, other_side, other in self.met:
            if not (opener.is_over or other.is_over):
                out = opener_side.wire.get(opener.id, ())
                back = other_side.wire.get(opener.id, ())
                check_credit(opener, out, other, back)
                check_credit(other, back, opener, out)

    def finish(self) -> None:
        """Read everything to its end, close everything: nothing may be left."""
        for side, _ in self.pair.sides():
            side.mux.resume(self.pair.now)
        for _ in range(8):
            self.pair.settle()
            self.meet()
            for side, streams in self.ends.items():
                for stream in streams:
                    if not stream.is_closed:
                        home = self.home[stream]
                        while piece := home.read(stream, 1 << 20):
                            self.halves[stream][1].take(piece)
                        home.end(stream)
                side.note()
        self.check()
        for streams in self.ends.values():
            for stream in streams:
                half = self.halves[stream][1]
                if stream.at_eof and not stream.is_closed:
                    assert half.read == len(half.written), "not all that was sent has arrived"
                assert stream.is_over or stream.broken is not None
        for streams in self.ends.values():
            for stream in streams:
                self.home[stream].close(stream, self.pair.now)
        self.pair.settle()
        for side in self.ends:
            assert not side.mux._streams
            assert (side.mux._windows, side.mux._inbound) == (0, 0)
            assert not side.mux.ready
            assert side.mux.next_deadline() is None


def check_credit(
    sender: Stream, out: Iterable[bytes], receiver: Stream, back: Iterable[bytes]
) -> None:
    """What the receiver allows is what the sender has, or what is on its way to either of them."""
    held = receiver.allowance + len(receiver.incoming) + receiver.consumed
    assert held == receiver.window or receiver.is_closed or receiver.broken is not None
    if Receiving.UNANSWERED in {sender.receiving, receiver.receiving}:
        return  # frames of the stream that had the id before may be under way
    data = sum(len(frame) - 1 for frame in out if frame[0] == FrameType.DATA)
    credit = [decode(frame) for frame in back if frame[0] == FrameType.CREDIT]
    given = sum(frame.credit for frame in credit if isinstance(frame, Credit))
    assert receiver.allowance == sender.credit + data + given


DEEDS = ("open", "write", "read", "end", "close", "reset", "arrive", "flush")
RARE = ("wait", "suspend", "resume", "replace")


def play(seed: int, steps: Iterable[tuple[bool, str, int]]) -> None:
    """Do all that, then make sure that nothing is lost, made up or left over."""
    witness = Witness(seed)
    for at_client, what, index in steps:
        side = witness.pair.client if at_client else witness.pair.server
        if what == "open":
            witness.open(side, index % 9 - 4)
        elif what == "flush":
            side.flush(1 + 37 * index)
        elif what == "arrive":
            for _ in range(1 + index % 5):
                witness.pair.deliver_one()
        elif what == "wait":
            witness.wait(float(index))
        elif what == "suspend":
            side.mux.suspend()
            assert side.mux.next_deadline() is None
        elif what == "resume":
            side.mux.resume(witness.pair.now)
        elif what == "replace":
            witness.replace_link()
        else:
            witness.act(side, what, index)
        side.note()
        witness.meet()
        witness.check()
    witness.finish()


@given(
    st.integers(0, 2**32),
    st.lists(
        st.tuples(st.booleans(), st.sampled_from(3 * DEEDS + RARE), st.integers(0, 100)),
        max_size=80,
    ),
)
def test_what_comes_out_is_what_went_in_whatever_overtakes_what(
    seed: int, steps: list[tuple[bool, str, int]]
) -> None:
    """Also when time runs out, when the link falls silent, and when another takes its place."""
    play(seed, steps)


@pytest.mark.parametrize("seed", range(30))
def test_the_same_in_long_lives_each_with_habits_of_its_own(seed: int) -> None:
    """Hypothesis prefers short stories; here ids come round again, and windows fill."""
    random = Random(seed)
    deeds = (*DEEDS, *(what for what in RARE if random.random() < 0.5))
    weights = [random.random() ** 3 * (0.1 if what in RARE else 1) for what in deeds]
    choices = random.choices(deeds, weights, k=300)
    play(seed, [(random.random() < 0.5, what, random.randrange(101)) for what in choices])
