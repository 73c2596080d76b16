"""What the link does to its streams, and what their applications are told of it."""

import pytest

from overlay.core.stream.frames import CANCELLED, Data, End, Frame, Ready, Reset, decode, encode
from overlay.core.stream.mux import (
    FIRST_ID,
    LINGER_TIMEOUT,
    LOST,
    OPEN_TIMEOUT,
    WINDOW,
    Changed,
    StreamMux,
)
from overlay.core.stream.stream import EARLY_CREDIT, SEND_BUFFER
from tests.core.stream.pair import Pair

# --- it begins -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("client", "first"), [(True, FIRST_ID), (False, FIRST_ID + 1)])
def test_ready_goes_once_on_the_first_id_of_its_sender(client: bool, first: int) -> None:
    """Below are the ids of control and of datagrams."""
    mux = StreamMux(client=client)
    mux.admit()
    mux.admit()
    stream_id, frame = mux.pop()
    assert (stream_id, decode(frame)) == (first, Ready())
    mux.admit()
    assert not mux.ready


def test_no_frame_of_a_stream_goes_to_a_peer_that_we_have_not_admitted() -> None:
    pair = Pair(admitted=False)
    pair.server.mux.admit()
    early = pair.client.mux.open("test", 0, 0.0)
    assert early is not None
    pair.settle()
    assert not pair.server.opened, "the peer has admitted us; that is half of it"
    pair.client.mux.admit()
    pair.settle()
    assert len(pair.server.opened) == 1


def test_a_link_that_ends_before_it_was_used_says_nothing_more() -> None:
    mux = StreamMux(client=True)
    mux.admit()
    mux.lose()
    assert not mux.ready


# --- what applications are told ------------------------------------------------------------------


def test_an_application_is_told_again_after_each_time_it_was_told() -> None:
    pair = Pair()
    ours, theirs = pair.open()
    for _ in range(3):
        pair.server.changed.clear()
        pair.client.mux.write(ours, b"news")
        pair.settle()
        assert pair.server.changed == [theirs]


@pytest.mark.parametrize("frame", [Data(b"news"), End(), Reset(CANCELLED)])
def test_an_application_is_told_of_bytes_of_the_end_and_of_a_reset(frame: Frame) -> None:
    pair = Pair()
    _, theirs = pair.open()
    pair.server.changed.clear()
    pair.server.mux.receive(theirs.id, encode(frame), 0.0)
    pair.server.note()
    assert pair.server.changed == [theirs]


def test_many_changes_at_once_are_told_once() -> None:
    pair = Pair()
    ours, theirs = pair.open()
    for _ in range(3):
        pair.client.mux.write(ours, b"news")
        stream_id, frame = pair.client.mux.pop()
        pair.server.mux.receive(stream_id, frame, 0.0)
    assert [output.stream for output in pair.server.mux.take() if isinstance(output, Changed)] == [
        theirs
    ]


def test_whoever_waits_is_told_that_the_link_has_ended() -> None:
    pair = Pair()
    ours, _ = pair.open()
    pair.client.changed.clear()
    pair.client.mux.lose()
    pair.client.note()
    assert pair.client.changed == [ours]
    assert ours.broken == LOST


def test_a_writer_with_credit_is_told_when_half_of_its_room_is_back() -> None:
    pair = Pair()
    ours, _ = pair.open()
    pair.client.mux.write(ours, bytes(SEND_BUFFER))
    told = []
    for _ in range(4):
        pair.client.mux.pop(SEND_BUFFER // 4)
        told.append(pair.client.mux.take())
    assert told == [[], [Changed(ours)], [Changed(ours)], [Changed(ours)]]


def test_a_writer_without_credit_is_told_when_some_of_its_bytes_go() -> None:
    pair = Pair()
    ours, theirs = pair.open()
    while pair.client.mux.write(ours, bytes(SEND_BUFFER)):
        pair.settle()
    assert (ours.room, ours.credit) == (0, 0)
    pair.client.changed.clear()
    pair.server.all_of(theirs)
    pair.settle()
    assert pair.client.changed
    assert ours.room > 0


# --- it is silent --------------------------------------------------------------------------------


def test_a_link_that_was_not_silent_starts_no_timer_anew() -> None:
    pair = Pair()
    assert pair.client.mux.open("test", 0, 0.0) is not None
    pair.client.mux.resume(20.0)
    assert pair.client.mux.next_deadline() == OPEN_TIMEOUT


def test_a_closed_stream_gets_its_whole_minute_after_each_silence() -> None:
    pair = Pair()
    ours, _ = pair.open()
    while pair.client.mux.write(ours, bytes(SEND_BUFFER)):
        pair.settle()
    pair.client.mux.close(ours, 0.0)
    assert pair.client.mux.next_deadline() == LINGER_TIMEOUT
    for now in (50.0, 100.0):
        pair.client.mux.suspend()
        pair.client.mux.resume(now)
        assert pair.client.mux.next_deadline() == now + LINGER_TIMEOUT
    assert ours.broken is None


# --- credit --------------------------------------------------------------------------------------


def test_credit_comes_back_in_halves_and_never_beyond_the_window() -> None:
    pair = Pair()
    ours, theirs = pair.open()
    assert ours.credit == WINDOW
    while pair.client.mux.write(ours, bytes(SEND_BUFFER)):
        pair.settle()
    pair.server.mux.read(theirs, WINDOW // 2 - 1)
    pair.settle()
    assert ours.credit == 0, "one byte short of half"
    pair.server.mux.read(theirs, 1)
    pair.settle()
    assert theirs.allowance + len(theirs.incoming) == WINDOW


def test_bytes_thrown_away_give_no_credit_back() -> None:
    """A peer that goes on writing to a closed stream is stopped by its credit, or by our RESET."""
    pair = Pair()
    ours, theirs = pair.open()
    pair.server.mux.close(theirs, 0.0)
    pair.client.mux.write(ours, bytes(EARLY_CREDIT))
    stream_id, frame = pair.client.mux.pop()
    before = theirs.allowance
    pair.server.mux.receive(stream_id, frame, 0.0)
    assert theirs.allowance == before - (len(frame) - 1)
    assert not theirs.incoming


def test_nothing_is_said_to_a_peer_that_has_ended_but_our_own_end() -> None:
    """Neither credit that it cannot use, nor that we read no more of what is all here."""
    pair = Pair()
    ours, theirs = pair.open()
    for _ in range(WINDOW // SEND_BUFFER):
        pair.client.mux.write(ours, bytes(SEND_BUFFER))
        pair.settle()
    pair.client.mux.end(ours)
    pair.settle()
    assert len(pair.server.all_of(theirs)) == WINDOW
    assert not pair.server.mux.ready
    pair.server.mux.close(theirs, 0.0)
    assert pair.server.mux.pop() == (theirs.id, encode(End()))
    assert not pair.server.mux.ready


def test_a_reset_takes_back_an_end_that_has_not_gone_out() -> None:
    pair = Pair()
    ours, theirs = pair.open()
    pair.client.mux.write(ours, b"all of it")
    pair.client.mux.pop()
    pair.client.mux.end(ours)
    pair.client.mux.reset(ours, CANCELLED)
    assert pair.client.mux.pop() == (ours.id, encode(Reset(CANCELLED)))
    assert not pair.client.mux.ready
    pair.server.mux.receive(ours.id, encode(Reset(CANCELLED)), 0.0)
    assert not theirs.at_eof


def test_nothing_is_kept_for_an_application_that_has_given_up() -> None:
    pair = Pair()
    _, theirs = pair.open()
    pair.server.mux.reset(theirs, CANCELLED)
    pair.server.mux.receive(theirs.id, encode(Data(b"late")), 0.0)
    assert not theirs.incoming
