"""Streams of one link: credit, last words, limits; each rule with its counter-test."""

import pytest

from overlay.core.stream.frames import (
    CANCELLED,
    CLOSED,
    TIMEOUT,
    Ack,
    Credit,
    Data,
    End,
    Frame,
    Open,
    Ready,
    Reset,
    decode,
    encode,
)
from overlay.core.stream.mux import (
    LINGER_TIMEOUT,
    LOST,
    OPEN_TIMEOUT,
    PIECE,
    STREAMS_MAX,
    WINDOW,
    Changed,
    StreamMux,
)
from overlay.core.stream.stream import EARLY_CREDIT, SEND_BUFFER
from tests.core.stream.pair import Pair

# --- bytes ---------------------------------------------------------------------------------------


def test_bytes_cross_both_ways_and_both_ends_see_the_end() -> None:
    pair = Pair()
    ours, theirs = pair.open("chat", 2)
    assert (theirs.protocol, theirs.priority) == ("chat", 2)
    pair.client.mux.write(ours, b"question")
    pair.client.mux.end(ours)
    pair.settle()
    assert pair.server.all_of(theirs) == b"question"
    assert theirs.at_eof
    pair.server.mux.write(theirs, b"answer")
    pair.server.mux.end(theirs)
    pair.settle()
    assert pair.client.all_of(ours) == b"answer"
    assert ours.at_eof
    assert ours.is_over
    assert theirs.is_over


def test_a_reader_that_stops_gets_one_window_and_what_it_reads_is_refilled() -> None:
    pair = Pair()
    ours, theirs = pair.open()
    written = 0
    while taken := pair.client.mux.write(ours, bytes(SEND_BUFFER)):
        written += taken
        pair.settle()
    assert len(theirs.incoming) == WINDOW
    assert len(ours.outgoing) == SEND_BUFFER
    assert written == WINDOW + SEND_BUFFER
    pair.server.mux.read(theirs, WINDOW // 2 - 1)
    pair.settle()
    assert len(ours.outgoing) == SEND_BUFFER, "credit comes in halves of a window"
    pair.server.mux.read(theirs, 1)
    pair.settle()
    assert len(ours.outgoing) == 0


@pytest.mark.parametrize("limit", [1, 999, 7000, PIECE])
def test_no_piece_exceeds_what_is_left_of_the_credit(limit: int) -> None:
    pair = Pair()
    ours, theirs = pair.open()
    ours.credit = theirs.allowance = 2500
    pair.client.mux.write(ours, bytes(10_000))
    pair.client.flush(limit)
    pair.settle()
    assert len(theirs.incoming) == 2500
    assert not pair.server.violations


def test_a_writer_is_told_of_room_when_half_is_free_or_nothing_more_goes() -> None:
    pair = Pair()
    ours, _ = pair.open()
    ours.credit = 3000
    pair.client.mux.write(ours, bytes(SEND_BUFFER))
    told = []
    while pair.client.mux.ready:
        pair.client.mux.pop(1000)
        told.append(pair.client.mux.take())
    assert told == [[], [], [Changed(ours)]]


def test_a_reader_that_stops_costs_other_streams_nothing() -> None:
    pair = Pair()
    stuck, _ = pair.open()
    while pair.client.mux.write(stuck, bytes(SEND_BUFFER)):
        pair.settle()
    ours, theirs = pair.open()
    for _ in range(20):
        pair.client.mux.write(ours, bytes(SEND_BUFFER))
        pair.settle()
        assert len(pair.server.all_of(theirs)) == SEND_BUFFER


def test_an_opener_sends_no_more_than_the_early_credit_before_it_is_answered() -> None:
    pair = Pair()
    ours = pair.client.mux.open("test", 0, 0.0)
    assert ours is not None
    pair.client.mux.write(ours, bytes(SEND_BUFFER))
    pair.client.flush()
    assert len(ours.outgoing) == SEND_BUFFER - EARLY_CREDIT
    pair.settle()
    assert len(ours.outgoing) == 0


# --- the end -------------------------------------------------------------------------------------


def test_a_closed_stream_delivers_what_was_written_and_stops_the_other_direction() -> None:
    pair = Pair()
    ours, theirs = pair.open()
    pair.client.mux.write(ours, b"last words")
    pair.client.mux.close(ours, 0.0)
    pair.settle()
    assert pair.server.all_of(theirs) == b"last words"
    assert theirs.at_eof
    assert theirs.broken == CLOSED
    assert ours.is_over
    assert theirs.is_over


def test_a_reset_throws_away_what_has_not_been_read() -> None:
    pair = Pair()
    ours, theirs = pair.open()
    pair.client.mux.write(ours, bytes(1000))
    pair.settle()
    pair.client.mux.write(ours, bytes(1000))
    pair.client.mux.reset(ours, 77)
    pair.settle()
    assert not theirs.incoming
    assert not theirs.at_eof
    assert theirs.broken == 77
    assert ours.is_over
    assert theirs.is_over


def test_a_stream_given_up_before_it_was_sent_is_never_heard_of() -> None:
    pair = Pair(admitted=False)
    pair.server.mux.admit()
    pair.settle()
    for _ in range(2 * STREAMS_MAX):
        stream = pair.server.mux.open("test", 0, 0.0)
        assert stream is not None
        pair.server.mux.reset(stream, CANCELLED)
    pair.client.mux.admit()
    pair.settle()
    assert not pair.client.opened
    assert not pair.client.violations


def test_ten_thousand_streams_one_after_the_other_leave_nothing_behind() -> None:
    pair = Pair()
    for number in range(10_000):
        ours, theirs = pair.open()
        if number % 2:
            pair.client.mux.reset(ours)
            pair.now += 1.0
        else:
            pair.client.mux.close(ours, pair.now)
        pair.settle()
        assert theirs.broken is not None
    assert not pair.client.violations + pair.server.violations
    for side, _ in pair.sides():
        assert not side.mux._streams
        assert side.mux._windows == 0
        assert side.mux._inbound == 0
        assert len(side.mux._timers) == 0


def test_the_next_stream_waits_until_the_peer_has_forgotten_the_last() -> None:
    pair = Pair()
    streams = [pair.client.mux.open("test", 0, 0.0) for _ in range(STREAMS_MAX)]
    assert pair.client.mux.open("test", 0, 0.0) is None
    pair.settle()
    first = streams[0]
    assert first is not None
    pair.client.mux.reset(first)
    pair.client.flush()
    assert pair.client.mux.open("test", 0, 0.0) is None
    pair.settle()
    assert pair.client.mux.open("test", 0, 0.0) is not None


def test_what_was_meant_for_the_last_stream_of_an_id_does_not_reach_the_next() -> None:
    pair = Pair()
    ours, theirs = pair.open()
    pair.client.mux.write(ours, bytes(SEND_BUFFER))
    pair.settle()
    pair.client.mux.write(ours, bytes(SEND_BUFFER))
    pair.settle()
    pair.server.mux.end(theirs)
    pair.server.flush()  # its last word, and then, before it hears ours, credit
    pair.server.all_of(theirs)
    pair.server.flush()
    assert [type(decode(frame)) for frame in pair.server.wire[ours.id]] == [End, Credit]
    pair.client.mux.end(ours)
    pair.client.flush()
    pair.client.mux.receive(ours.id, pair.server.wire[ours.id].popleft(), 0.0)
    assert ours.is_over
    next_one = pair.client.mux.open("next", 0, 0.0)
    assert next_one is not None
    assert next_one.id == ours.id
    pair.client.mux.receive(ours.id, pair.server.wire[ours.id].popleft(), 0.0)
    assert next_one.credit == EARLY_CREDIT
    pair.settle()
    assert next_one.credit == WINDOW
    assert not pair.client.violations + pair.server.violations


def test_closing_a_stream_that_is_over_leaves_the_next_of_its_id_alone() -> None:
    pair = Pair()
    ours, theirs = pair.open()
    pair.client.mux.end(ours)
    pair.server.mux.end(theirs)
    pair.settle()
    next_one, _ = pair.open()
    assert next_one.id == ours.id
    pair.client.mux.close(ours, 0.0)
    pair.client.mux.reset(ours)
    pair.settle()
    assert pair.client.mux.next_deadline() is None
    assert not next_one.is_closed


# --- time ----------------------------------------------------------------------------------------


def test_a_stream_that_nobody_answers_breaks_in_time() -> None:
    pair = Pair()
    ours = pair.client.mux.open("test", 0, 0.0)
    assert ours is not None
    pair.client.flush()
    assert pair.client.mux.next_deadline() == OPEN_TIMEOUT
    pair.client.mux.handle_timeout(OPEN_TIMEOUT)
    assert ours.broken == TIMEOUT
    pair.settle()  # it was only late
    assert ours.is_over
    assert not pair.client.violations


def test_no_time_passes_for_streams_while_the_link_is_silent() -> None:
    pair = Pair()
    ours = pair.client.mux.open("test", 0, 0.0)
    assert ours is not None
    pair.client.mux.suspend()
    assert pair.client.mux.next_deadline() is None
    pair.client.mux.handle_timeout(10 * OPEN_TIMEOUT)
    assert ours.broken is None
    pair.client.mux.resume(50.0)
    assert pair.client.mux.next_deadline() == 50.0 + OPEN_TIMEOUT
    pair.settle()
    assert pair.client.mux.next_deadline() is None


def test_what_a_closed_stream_cannot_deliver_is_given_up() -> None:
    pair = Pair()
    ours, theirs = pair.open()
    while pair.client.mux.write(ours, bytes(SEND_BUFFER)):
        pair.settle()
    pair.client.mux.close(ours, 5.0)
    pair.settle()
    assert not theirs.final_received
    pair.client.mux.handle_timeout(5.0 + LINGER_TIMEOUT)
    pair.settle()
    assert theirs.broken == TIMEOUT
    assert ours.is_over


# --- turns ---------------------------------------------------------------------------------------


def shares(*priorities: int, pieces: int = 400, limit: int = PIECE) -> list[int]:
    """Bytes that each of some streams which always have data gets into so many pieces."""
    pair = Pair()
    streams = [pair.open(priority=priority)[0] for priority in priorities]
    got = [0] * len(streams)
    for stream in streams:
        stream.credit = 1 << 40
    for _ in range(pieces):
        for stream in streams:
            pair.client.mux.write(stream, bytes(SEND_BUFFER))
        stream_id, frame = pair.client.mux.pop(limit)
        pair.client.note()
        got[[stream.id for stream in streams].index(stream_id)] += len(frame) - 1
    return got


@pytest.mark.parametrize("limit", [PIECE, 1000, 16_239])
def test_equal_streams_get_equal_shares(limit: int) -> None:
    got = shares(0, 0, 0, limit=limit)
    assert max(got) - min(got) <= 2 * PIECE


def test_each_step_of_priority_doubles_the_share_and_nobody_starves() -> None:
    low, normal, high = shares(-2, 0, 1, pieces=2000)
    assert normal / low == pytest.approx(4, rel=0.1)
    assert high / normal == pytest.approx(2, rel=0.1)


def test_a_small_frame_goes_before_waiting_data() -> None:
    pair = Pair()
    ours, _ = pair.open()
    pair.client.mux.write(ours, bytes(SEND_BUFFER))
    other = pair.client.mux.open("test", 0, 0.0)
    assert other is not None
    stream_id, frame = pair.client.mux.pop()
    assert stream_id == other.id
    assert isinstance(decode(frame), Open)


# --- the link ends -------------------------------------------------------------------------------


def test_a_lost_link_breaks_its_streams_but_not_what_had_ended() -> None:
    pair = Pair()
    ours, theirs = pair.open()
    pair.client.mux.write(ours, b"whole")
    pair.client.mux.end(ours)
    pair.settle()
    pair.server.mux.lose()
    pair.client.mux.lose()
    assert (ours.broken, theirs.broken) == (LOST, LOST)
    assert pair.server.all_of(theirs) == b"whole"
    assert theirs.at_eof
    assert not ours.at_eof
    assert not pair.client.mux.ready
    assert pair.client.mux.open("test", 0, 0.0) is None


def test_a_hangup_breaks_open_streams_and_lets_closed_ones_deliver() -> None:
    pair = Pair()
    one, theirs_one = pair.open()
    two, theirs_two = pair.open()
    pair.client.mux.write(one, b"kept")
    pair.client.mux.write(two, b"lost")
    pair.client.mux.close(one, 0.0)
    pair.client.mux.hang_up()
    assert two.broken == LOST
    pair.settle()
    assert pair.server.all_of(theirs_one) == b"kept"
    assert theirs_two.broken == CANCELLED
    assert pair.server.all_of(theirs_two) == b""


def test_frames_are_read_as_they_were_written() -> None:
    frames: list[Frame] = [
        Ready(),
        Open("chat/1", -4, 5),
        Ack(0),
        Data(b"\0"),
        Credit(1),
        End(),
        Reset(2**31 - 1),
    ]
    assert [decode(encode(frame)) for frame in frames] == frames
    assert [encode(frame) for frame in frames] == [
        b"\x00",
        b"\x01\x93\xa6chat/1\xfc\x05",
        b"\x02\x91\x00",
        b"\x03\x00",
        b"\x04\x91\x01",
        b"\x05",
        b"\x06\x91\xce\x7f\xff\xff\xff",
    ], "the wire never changes"


def test_nothing_but_ready_waits_in_a_new_mux() -> None:
    mux = StreamMux(client=True)
    seen = [mux.ready]
    mux.admit()
    seen.append(mux.ready)
    assert mux.pop() == (2, b"\0")
    seen.append(mux.ready)
    assert seen == [False, True, False]
