"""Bulk on a slow wire that loses packets: who waits for whom, in virtual time."""

import statistics

import pytest

import overlay.transport.udp.link
from overlay.core.stream.frames import CREDIT_MAX, REFUSED
from overlay.core.stream.mux import PIECE, StreamMux
from overlay.core.stream.stream import Stream
from overlay.core.wire.codec import encode
from overlay.core.wire.messages import Ping
from overlay.transport.sctp.association import Sctp
from tests.transport.sctp.wire import Wire
from tests.transport.udp.link_pair import Host, linked_hosts

LOSS, LATENCY = 0.01, 0.025
PINGS, APART = 40, 0.25


class Bulk:
    """Streams that always have data, and a reader at the other end."""

    def __init__(self, near: Host, far: Host, *priorities: int) -> None:
        self.near, self.far = near, far
        self.got: dict[int, int] = {}
        self.streams: list[Stream] = []
        for priority in priorities:
            stream = self.mux.open("bulk", priority, near.now())
            assert stream is not None
            self.streams.append(stream)

    @property
    def mux(self) -> StreamMux:
        assert self.near.link.streams is not None
        return self.near.link.streams.mux

    def go_on(self) -> None:
        """Write what there is room for, read what has come."""
        assert self.near.link.streams is not None
        assert self.far.link.streams is not None
        for stream in self.streams:
            if stream.room >= PIECE:
                self.near.link.streams.write(stream, memoryview(bytes(stream.room)))
        for reader in self.far.streams:
            data = self.far.link.streams.read(reader._stream, CREDIT_MAX)
            self.got[reader._stream.id] = self.got.get(reader._stream.id, 0) + len(data)

    def last(self, seconds: float) -> None:
        end = self.near.now() + seconds
        self.near.wire.call_later(seconds, lambda: None)

        def over() -> bool:
            self.go_on()
            return self.near.now() >= end

        assert self.near.wire.run(over, limit=2 * seconds)


def round_trip(near: Host, bulk: Bulk) -> float:
    """The median ping while the bulk goes on, in seconds."""
    sent = {}
    for token in range(PINGS):
        sent[token] = near.now()
        near.link.transmit(encode(Ping(token)))
        bulk.last(APART)
    near.wire.run(lambda: len(near.pongs) == PINGS, limit=60.0)
    carried = sum(bulk.got.values()) / (PINGS * APART)
    assert carried > 100_000 or not bulk.streams, "bytes a second: there was no bulk"
    return statistics.median(near.pongs[token] - sent[token] for token in sent)


def a_slow_lossy_wire(seed: int) -> tuple[Host, Host]:
    wire = Wire(seed)
    wire.latency = LATENCY
    near, far = linked_hosts(wire)
    wire.loss = LOSS
    return near, far


@pytest.mark.parametrize("seed", range(3))
def test_a_ping_hardly_waits_for_four_streams_of_bulk(seed: int) -> None:
    idle = round_trip(*_with_bulk(seed))
    busy = round_trip(*_with_bulk(seed, 0, 0, 0, 0))
    assert 2 * LATENCY <= idle <= 3 * LATENCY
    assert busy <= 3 * idle


def test_with_one_queue_for_all_a_ping_waits_for_the_bulk(monkeypatch: pytest.MonkeyPatch) -> None:
    """The counter-test: whatever is written goes to SCTP at once, first in, first out."""
    monkeypatch.setattr(overlay.transport.udp.link, "LOW_WATER", 1 << 40)
    monkeypatch.setattr(Sctp, "piece", PIECE)
    idle = round_trip(*_with_bulk(0))
    busy = round_trip(*_with_bulk(0, 0, 0, 0, 0))
    assert busy > 10 * idle


def _with_bulk(seed: int, *priorities: int) -> tuple[Host, Bulk]:
    near, far = a_slow_lossy_wire(seed)
    bulk = Bulk(near, far, *priorities)
    bulk.last(3.0)  # until the window has found its size
    return near, bulk


def test_streams_share_a_lossy_wire_by_priority() -> None:
    near, far = a_slow_lossy_wire(5)
    bulk = Bulk(near, far, -2, 0, 0, 2)
    bulk.last(30.0)
    low, one, other, high = (bulk.got[stream.id] for stream in bulk.streams)
    assert one == pytest.approx(other, rel=0.25)
    assert 2 * low < one
    assert high > 2 * one
    assert low > 0


def test_a_stream_loses_nothing_on_a_bad_wire() -> None:
    near, far = a_slow_lossy_wire(7)
    near.wire.loss, near.wire.jitter, near.wire.duplication = 0.1, 0.05, 0.05
    assert near.link.streams is not None
    assert far.link.streams is not None
    mux = near.link.streams.mux
    stream = mux.open("test", 0, near.now())
    assert stream is not None
    data = near.wire.random.randbytes(400_000)
    left, got = data, bytearray()

    def done() -> bool:
        nonlocal left
        assert near.link.streams is not None
        assert far.link.streams is not None
        if left and stream.room:
            left = left[near.link.streams.write(stream, memoryview(left)) :]
        for reader in far.streams:
            got.extend(far.link.streams.read(reader._stream, 10_000))
        return len(got) == len(data)

    assert near.wire.run(done, limit=600.0)
    assert bytes(got) == data


def test_a_stream_opened_towards_a_hangup_is_handed_to_nobody() -> None:
    near, far = a_slow_lossy_wire(9)
    near.wire.loss = 0.0
    assert near.link.streams is not None
    assert far.link.streams is not None
    lingering = near.link.streams.mux.open("test", 0, near.now())
    assert lingering is not None
    near.link.streams.write(lingering, memoryview(bytes(60_000)))
    near.link.streams.close(lingering)
    late = far.link.streams.mux.open("late", 0, far.now())
    assert late is not None
    far.link.streams.write(late, memoryview(b"too late"))
    near.link.hang_up()
    near.wire.run(lambda: late.broken is not None, limit=10.0)
    assert late.broken == REFUSED
    assert not near.streams
    arrived = far.streams[0]._stream.incoming
    assert near.wire.run(lambda: len(arrived) == 60_000, limit=10.0)
