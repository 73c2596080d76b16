"""Peers that keep no rules: what each costs, and that it costs nobody else."""

import pytest

from overlay.core.stream.frames import (
    BUSY,
    CANCELLED,
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
    STREAMS_MAX,
    WASTE_MAX,
    WASTE_RATE,
    WINDOW,
    WINDOWS_MAX,
)
from overlay.core.stream.stream import EARLY_CREDIT
from tests.core.stream.pair import Pair, Side

OPENING = Open("test", 0, WINDOW)


def feed(side: Side, stream_id: int, *frames: Frame | bytes, now: float = 0.0) -> None:
    """What a peer that follows no rules sends."""
    for frame in frames:
        data = frame if isinstance(frame, bytes) else encode(frame)
        side.mux.receive(stream_id, data, now)
    side.note()


def admitted_server() -> Side:
    side = Side(client=False)
    side.mux.admit()
    feed(side, 2, Ready())
    side.flush()
    side.wire.clear()
    return side


def sent(side: Side) -> list[Frame]:
    side.flush()
    frames = [decode(frame) for frames in side.wire.values() for frame in frames]
    side.wire.clear()
    return frames  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("why", "frames"),
    [
        ("more than its credit", [OPENING, *[Data(bytes(WINDOW // 4))] * 4, Data(b"!")]),
        ("data after the end", [OPENING, End(), Data(b"!")]),
        ("two ends", [OPENING, End(), End()]),
        ("an open stream opened again", [OPENING, OPENING]),
        ("data on no stream", [Data(b"!")]),
        ("an answer that nobody asked for", [OPENING, Ack(0)]),
        ("credit without measure", [OPENING, Credit(1 << 30), Credit(1 << 30)]),
        ("READY twice", [Ready()]),
        ("an empty frame", [b""]),
        ("no data", [b"\x03"]),
        ("a protocol without a name", [b"\x01\x93\xa0\x00\x00"]),
        ("a body cut short", [b"\x01\x93\xa1"]),
        ("a name with controls", [b"\x01\x93\xa1\n\x00\x00"]),
        ("a credit of nothing", [b"\x04\x91\x00"]),
        ("a code of text", [b"\x06\x91\xa1x"]),
        ("a body without end", [b"\x06" + b"\x91" * 100_000]),
    ],
    ids=lambda value: value.replace(" ", "-") if isinstance(value, str) else "",
)
def test_a_peer_that_breaks_a_rule_is_told_apart(why: str, frames: list[Frame | bytes]) -> None:
    side = admitted_server()
    feed(side, 4, *frames)
    assert len(side.violations) == 1, why
    feed(side, 6, OPENING)
    assert [stream.id for stream in side.opened] in ([], [4]), "nothing is heard after it"


@pytest.mark.parametrize("stream_id", [0, 1, 5, 1024, 65_534])
def test_an_id_that_is_not_the_peers_is_a_violation(stream_id: int) -> None:
    side = admitted_server()
    feed(side, stream_id, OPENING)
    assert len(side.violations) == 1


def test_frames_that_only_a_later_version_knows_are_ignored() -> None:
    side = admitted_server()
    feed(side, 4, b"\x07new", OPENING, b"\xffnew", Data(b"known"))
    feed(side, 8, b"\x01" + b"\x94\xa1x\x00\x00\xa5extra")
    assert not side.violations
    assert [stream.protocol for stream in side.opened] == ["test", "x"]


def test_no_stream_before_both_ends_have_admitted_each_other() -> None:
    pair = Pair(admitted=False)
    pair.server.mux.admit()
    early = pair.server.mux.open("test", 0, 0.0)
    assert early is not None
    pair.server.mux.write(early, b"early")
    pair.settle()
    assert not pair.client.opened
    assert not pair.client.violations
    pair.client.mux.admit()
    pair.settle()
    assert pair.client.all_of(pair.client.opened[0]) == b"early"


def test_a_stream_before_we_have_admitted_the_peer_is_a_violation() -> None:
    side = Side(client=False)
    feed(side, 2, Ready(), OPENING)
    assert side.violations == ["a stream before the link was admitted"]


def test_more_streams_than_allowed_are_refused_and_cost_the_others_nothing() -> None:
    side = admitted_server()
    for number in range(STREAMS_MAX + 50):
        feed(side, 2 + 2 * number, OPENING)
    assert len(side.opened) == STREAMS_MAX
    assert not side.violations
    assert sent(side).count(Reset(BUSY)) == 50
    feed(side, 2, Data(b"still here"))
    assert side.all_of(side.opened[0]) == b"still here"


def test_a_peer_that_opens_and_resets_for_ever_loses_its_link() -> None:
    side = admitted_server()
    for number in range(10_000):
        if side.violations:
            break
        feed(side, 2 + 2 * (number % STREAMS_MAX), OPENING, Reset(CANCELLED), now=number / 1000)
        side.flush()
    assert side.violations == ["too many streams opened in vain"]
    assert WASTE_MAX <= number < 1.1 * WASTE_MAX


def test_cancelling_now_and_then_is_forgiven() -> None:
    side = admitted_server()
    for number in range(10_000):
        feed(side, 2 + 2 * (number % STREAMS_MAX), OPENING, Reset(CANCELLED), now=number / 20)
        side.flush()
    assert not side.violations


def test_the_windows_of_a_link_are_bounded_and_every_stream_has_one() -> None:
    side = admitted_server()
    for number in range(STREAMS_MAX):
        feed(side, 2 + 2 * number, OPENING)
    windows = [stream.window for stream in side.opened]
    assert sum(windows) <= WINDOWS_MAX + STREAMS_MAX * EARLY_CREDIT
    assert min(windows) == EARLY_CREDIT
    assert windows[0] == WINDOW


def test_ended_streams_that_nobody_reads_still_count() -> None:
    """Otherwise a peer could fill our memory one window after the other."""
    side = admitted_server()
    for round_ in range(3):
        for number in range(STREAMS_MAX):
            feed(side, 2 + 2 * number, OPENING, Data(bytes(10)), End())
        for stream in side.opened[round_ * STREAMS_MAX :]:
            side.mux.end(stream)
        side.flush()
    assert len(side.opened) == STREAMS_MAX
    for stream in side.opened:
        side.all_of(stream)
    feed(side, 2, Reset(0), OPENING)
    assert not side.violations


@pytest.mark.parametrize("frame", [b"", b"\x03", b"\x04\x91\x00", b"\x06\x91\xa1x"])
def test_what_cannot_be_read_is_no_better_on_an_open_stream(frame: bytes) -> None:
    side = admitted_server()
    feed(side, 4, OPENING, frame)
    assert len(side.violations) == 1


def test_what_overtakes_ready_says_the_same() -> None:
    """SCTP streams overtake each other: an OPEN may be the first that is heard of a peer."""
    side = Side(client=False)
    side.mux.admit()
    feed(side, 4, OPENING)
    assert sent(side) == [Ready(), Ack(WINDOW - EARLY_CREDIT)]
    feed(side, 2, Ready())
    assert not side.violations


def test_a_peer_that_opens_for_ever_what_we_cannot_take_loses_its_link() -> None:
    side = admitted_server()
    for number in range(STREAMS_MAX):
        feed(side, 2 + 2 * number, OPENING)
    refused, rounds = 2 + 2 * STREAMS_MAX, 0
    while not side.violations and rounds < 2 * WASTE_MAX:
        feed(side, refused, OPENING, now=rounds / 1000)
        side.flush()
        feed(side, refused, End(), now=rounds / 1000)
        rounds += 1
    assert side.violations == ["too many streams opened in vain"]
    assert rounds >= WASTE_MAX


def test_what_is_forgiven_comes_back_at_its_rate_and_never_beyond_none() -> None:
    side = admitted_server()
    for number in range(900):
        feed(side, 2 + 2 * (number % STREAMS_MAX), OPENING, Reset(CANCELLED), now=0.0)
        side.flush()
    later = 900 / WASTE_RATE
    for number in range(10_000):
        if side.violations:
            break
        feed(side, 2 + 2 * (number % STREAMS_MAX), OPENING, Reset(CANCELLED), now=100 * later)
        side.flush()
    assert number == WASTE_MAX + 1, "a long time forgives all, and no more than that"


def test_streams_that_come_to_their_end_are_not_in_vain_nor_are_our_own() -> None:
    side = admitted_server()
    for number in range(2 * int(WASTE_MAX)):
        stream_id = 2 + 2 * (number % STREAMS_MAX)
        feed(side, stream_id, OPENING, End(), Reset(CANCELLED))  # as a graceful close says it
        side.flush()
        ours = side.mux.open("test", 0, 0.0)
        assert ours is not None
        side.flush()
        feed(side, ours.id, Ack(0), Reset(BUSY))
        side.flush()
        assert ours.broken == BUSY
    assert not side.violations


def test_ids_are_given_to_as_many_streams_as_allowed_and_again_when_free() -> None:
    pair = Pair()
    streams = [pair.client.mux.open("test", 0, 0.0) for _ in range(STREAMS_MAX + 1)]
    assert streams[-1] is None
    ids = [stream.id for stream in streams[:-1] if stream is not None]
    assert ids == list(range(2, 2 + 2 * STREAMS_MAX, 2))
    pair.settle()
    first = streams[0]
    assert first is not None
    pair.client.mux.reset(first)
    pair.settle()
    again = pair.client.mux.open("test", 0, 0.0)
    assert again is not None
    assert again.id == 2
    assert pair.client.mux.open("test", 0, 0.0) is None
