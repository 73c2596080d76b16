"""SCTP: what arrives, in what order, over what wire; and what a hostile peer can do."""

import struct
from collections.abc import Callable

import google_crc32c
import pytest

from overlay.errors import RemoteProtocolError
from overlay.transport.dtls.association import MAX_DATAGRAM_BYTES
from overlay.transport.outbox import CONTROL, DATAGRAMS
from overlay.transport.sctp.association import BINARY, MAX_STREAMS, TSN_WINDOW, Channel
from tests.transport.sctp.wire import End, Wire, pair


def up(seed: int = 1) -> tuple[Wire, End, End]:
    """A wire and two associated ends."""
    wire = Wire(seed)
    alice, bob = pair(wire)
    assert wire.run(lambda: alice.is_up and bob.is_up)
    return wire, alice, bob


def say(end: End, *messages: bytes, channel: Channel = CONTROL) -> None:
    for message in messages:
        end.association.queue(channel, BINARY, message)
    end.association.flush()


def heard(end: End, stream_id: int = 0) -> list[bytes]:
    return [data for stream, _, data in end.received if stream == stream_id]


async def test_messages_of_all_sizes_arrive_whole_and_in_order(loop: None) -> None:
    wire, alice, bob = up()
    messages = [bytes([size % 251]) * size for size in (1, 2, 100, 1171, 1172, 1173, 5000, 65_536)]
    say(alice, *messages)
    say(bob, *reversed(messages))
    assert wire.run(lambda: len(alice.received) == len(bob.received) == len(messages))
    assert heard(bob) == messages
    assert heard(alice) == messages[::-1]


@pytest.mark.parametrize("seed", range(12))
async def test_a_lossy_reordering_duplicating_wire_loses_nothing(loop: None, seed: int) -> None:
    wire, alice, bob = up(seed)
    wire.loss, wire.duplication, wire.jitter, wire.corruption = 0.1, 0.05, 0.02, 0.05
    messages = [wire.random.randbytes(wire.random.choice((20, 300, 4000))) for _ in range(150)]
    for message in messages:
        say(alice, message)
        say(bob, message)
    assert wire.run(lambda: len(alice.received) == len(bob.received) == len(messages), 300)
    assert heard(bob) == messages
    assert heard(alice) == messages


@pytest.mark.parametrize("seed", range(24))
async def test_an_association_survives_losses_in_its_handshake(loop: None, seed: int) -> None:
    wire = Wire(seed)
    alice, bob = pair(wire)
    assert wire.run(lambda: alice.dtls.state == "connected")
    wire.loss, wire.duplication, wire.jitter = 0.25, 0.25, 0.05
    assert wire.run(lambda: alice.is_ready or bob.is_ready)
    for end in (alice, bob):  # as soon as they may, whatever has been lost by then
        assert wire.run(lambda end=end: end.is_ready)  # type: ignore[misc]
        say(end, b"first", b"second")
    assert wire.run(lambda: len(alice.received) == len(bob.received) == 2)
    say(alice, b"third")
    say(bob, b"third")
    assert wire.run(lambda: len(alice.received) == len(bob.received) == 3)
    assert heard(alice) == heard(bob) == [b"first", b"second", b"third"]


async def test_data_need_not_wait_for_the_last_flight_of_the_handshake(loop: None) -> None:
    """It follows the COOKIE ECHO (RFC 9260 §5.1): each end is heard two round trips after DTLS."""
    wire = Wire()
    alice, bob = pair(wire)
    assert wire.run(lambda: bob.dtls.state == "connected")
    since = wire.time
    for end in (bob, alice):
        assert wire.run(lambda end=end: end.is_ready)  # type: ignore[misc]
        say(end, b"hello")
    assert wire.run(lambda: bool(alice.received and bob.received))
    assert wire.time - since <= 4 * wire.latency + 1e-9


async def test_inits_that_crossed_are_sent_again_when_both_answers_are_lost(loop: None) -> None:
    """By then each end knows the other's tag, and an INIT that names one is ignored."""
    wire = Wire()
    alice, bob = pair(wire)
    assert wire.run(lambda: alice.sctp is not None)
    assert wire.run(lambda: knows(alice) and knows(bob))
    wire.clear()
    assert not alice.is_up
    assert not bob.is_up
    assert wire.run(lambda: alice.is_up and bob.is_up)


def knows(end: End) -> bool:
    """Whether the other's INIT has come."""
    return end.association._last_received_tsn is not None


async def test_datagrams_are_lost_rather_than_late(loop: None) -> None:
    wire, alice, bob = up()
    wire.loss = 1.0
    say(alice, b"lost", channel=DATAGRAMS)
    wire.run(lambda: False, 0.1)
    wire.loss = 0.0
    say(alice, b"kept", channel=DATAGRAMS)
    say(alice, b"control")
    assert wire.run(lambda: bool(heard(bob)))
    wire.run(lambda: False, 10)
    assert heard(bob, 1) == [b"kept"]


async def test_a_forward_tsn_that_got_lost_is_sent_again_whatever_is_acknowledged(
    loop: None,
) -> None:
    """RFC 3758 §3.5 C3: else the peer waits for ever for what nobody sends any more."""
    wire, alice, bob = up()
    say(alice, b"first")
    assert wire.run(lambda: alice.association.idle)
    wire.loss = 1.0
    say(alice, b"lost", channel=DATAGRAMS)
    wire.run(lambda: False, 0.7)
    assert not alice.association._sent_queue, "given up, and said so in vain"
    wire.loss = 0.0
    bob.association._sack_owed = 1
    bob.association._sack_late()
    wire.run(lambda: False, 0.1)
    say(alice, b"control")
    assert wire.run(lambda: alice.association.idle)
    assert heard(bob) == [b"first", b"control"]


async def test_small_messages_share_packets(loop: None) -> None:
    wire, alice, bob = up()
    before = wire.carried
    say(alice, *[bytes(100)] * 100)
    assert wire.run(lambda: len(bob.received) == 100)
    assert wire.carried - before < 40, "100 messages in some 10 packets, and their SACKs"


async def test_what_is_in_flight_is_repeated_as_soon_as_the_path_is_back(loop: None) -> None:
    wire, alice, bob = up()
    wire.loss = 1.0
    say(alice, b"into the void")
    wire.run(lambda: False, 30)
    wire.loss = 0.0
    back = wire.time
    alice.association.resume()
    assert wire.run(lambda: bool(bob.received))
    assert wire.time - back < 0.1


async def test_what_arrived_is_acknowledged_again_as_soon_as_the_path_is_back(loop: None) -> None:
    """The SACK got lost: its receiver would send all again, and wait for its timer first."""
    wire, alice, bob = up()
    wire.run(lambda: False, 1.0)
    say(alice, b"heard")
    assert wire.run(lambda: bool(bob.received))
    wire.clear()
    wire.loss = 1.0
    wire.run(lambda: False, 30)
    wire.loss = 0.0
    assert not alice.association.idle
    bob.association.resume()
    back = wire.time
    assert wire.run(lambda: alice.association.idle)
    assert wire.time - back < 3 * wire.latency


async def test_a_second_loss_after_the_path_is_back_is_not_waited_for_longer(loop: None) -> None:
    """The two ends find it at different moments: what the first repeats may be lost once more."""
    wire, alice, bob = up()
    wire.loss = 1.0
    say(alice, b"into the void")
    wire.run(lambda: False, 30)
    alice.association.resume()
    wire.loss = 0.0
    back = wire.time
    assert wire.run(lambda: bool(bob.received))
    assert wire.time - back < 0.6


async def test_an_abort_ends_the_other_side(loop: None) -> None:
    wire, alice, bob = up()
    alice.association.abort()
    assert wire.run(lambda: bob.association.over)


async def test_a_peer_that_resets_channel_0_has_ended_the_link(loop: None) -> None:
    _, alice, bob = up()
    reset = struct.pack("!HHLLLH", 13, 18, 7, 0, bob.association._last_received_tsn, 0)
    feed(bob, chunk(130, reset))
    assert bob.association.over
    assert not alice.association.over


# --- a hostile peer ------------------------------------------------------------------------------


def chunk(kind: int, body: bytes, flags: int = 0) -> bytes:
    return struct.pack("!BBH", kind, flags, 4 + len(body)) + body + bytes(-len(body) % 4)


def packet(tag: int, *chunks: bytes) -> bytes:
    header, body = struct.pack("!HHL", 5000, 5000, tag), b"".join(chunks)
    checksum = google_crc32c.value(header + bytes(4) + body)
    return header + struct.pack("<L", checksum) + body


def feed(end: End, *chunks: bytes, tag: int | None = None) -> None:
    """Let `end` receive these chunks as if its peer had sent them."""
    mine = end.association._local_verification_tag
    end.association.receive(packet(mine if tag is None else tag, *chunks))
    end.received += end.association.take()


def data(end: End, ahead: int, payload: bytes = b"?", stream: int = 0, flags: int = 3) -> bytes:
    tsn = (end.association._last_received_tsn + ahead) % 2**32
    return chunk(0, struct.pack("!LHHL", tsn, stream, 0, BINARY) + payload, flags)


def sack(end: End, ahead: int, *gaps: tuple[int, int], count: int | None = None) -> bytes:
    cumulative = (end.association._last_sacked_tsn + ahead) % 2**32
    body = struct.pack("!LLHH", cumulative, 1 << 20, len(gaps) if count is None else count, 0)
    return chunk(3, body + b"".join(struct.pack("!HH", *gap) for gap in gaps))


INIT = struct.pack("!LLHHL", 7, 1 << 20, 10, 10, 99)

FAULTS: dict[str, Callable[[End], list[bytes]]] = {
    "an INIT among others": lambda end: [chunk(1, INIT), chunk(4, b"")],
    "an INIT cut short": lambda end: [chunk(1, INIT[:10])],
    "a parameter of length 0": lambda end: [chunk(4, struct.pack("!HH", 1, 0) + bytes(8))],
    "a parameter past its chunk": lambda end: [chunk(4, struct.pack("!HH", 1, 900))],
    "a chunk past its packet": lambda end: [struct.pack("!BBH", 0, 3, 900) + bytes(20)],
    "a chunk of length 0": lambda end: [struct.pack("!BBH", 0, 3, 0) + bytes(20)],
    "DATA without data": lambda end: [chunk(0, struct.pack("!LHHL", 1, 0, 0, BINARY), 3)],
    "DATA cut short": lambda end: [chunk(0, bytes(5), 3)],
    "data on a stream that is not": lambda end: [data(end, 1, stream=MAX_STREAMS)],
    "a SACK of the future": lambda end: [sack(end, 5)],
    "a SACK of gaps in the future": lambda end: [sack(end, 0, (1, 65_535))],
    "a SACK of overlapping gaps": lambda end: [sack(end, 0, (1, 1), (1, 1))],
    "a SACK of absent gaps": lambda end: [sack(end, 0, count=60_000)],
    "a SACK cut short": lambda end: [chunk(3, bytes(6))],
    "a FORWARD TSN cut short": lambda end: [chunk(192, bytes(2))],
    "a SHUTDOWN cut short": lambda end: [chunk(7, b"")],
    "a RE-CONFIG cut short": lambda end: [chunk(130, struct.pack("!HH", 13, 6) + bytes(2))],
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_what_no_correct_peer_sends_is_the_peers_fault(loop: None, fault: str) -> None:
    _, _, bob = up()
    chunks = FAULTS[fault](bob)
    with pytest.raises(RemoteProtocolError, match="SCTP"):
        feed(bob, *chunks, tag=0 if chunks[0][0] == 1 else None)


HARMLESS: dict[str, Callable[[End], list[bytes]]] = {
    "an unknown chunk to skip": lambda end: [chunk(0x9F, b"new")],
    "an unknown chunk to stop at": lambda end: [chunk(0x3F, b"new"), data(end, 1)],
    "a heartbeat": lambda end: [chunk(4, struct.pack("!HH4s", 1, 8, b"beat"))],
    "an old SACK": lambda end: [sack(end, -3)],
    "an error": lambda end: [chunk(9, struct.pack("!HH4s", 3, 8, b"oops"))],
    "a late INIT ACK": lambda end: [chunk(2, INIT)],
    "a late COOKIE ACK": lambda end: [chunk(11, b"")],
    "a foreign COOKIE ECHO": lambda end: [chunk(10, bytes(24))],
    "duplicate data": lambda end: [data(end, 0)],
    "data far ahead": lambda end: [data(end, TSN_WINDOW + 1)],
    "an old FORWARD TSN": lambda end: [
        chunk(192, struct.pack("!L", (end.association._last_received_tsn - 5) % 2**32))
    ],
    "a late SHUTDOWN COMPLETE": lambda end: [chunk(14, b"")],
    "an unknown parameter": lambda end: [chunk(130, struct.pack("!HH", 99, 4))],
}


@pytest.mark.parametrize("name", HARMLESS)
async def test_what_is_to_be_ignored_leaves_the_association_alone(loop: None, name: str) -> None:
    wire, alice, bob = up()
    say(alice, b"before")
    assert wire.run(lambda: len(bob.received) == 1)
    feed(bob, *HARMLESS[name](bob))
    say(alice, b"after", b"all")
    say(bob, b"too")
    assert wire.run(lambda: len(bob.received) == 3 and len(alice.received) == 1)
    assert heard(bob) == [b"before", b"after", b"all"]


async def test_a_late_duplicate_of_the_init_does_not_rewind_the_association(loop: None) -> None:
    wire = Wire()
    alice, bob = pair(wire)
    assert wire.run(lambda: alice.sctp is not None)
    tsn = alice.association._local_tsn
    init = struct.pack(
        "!LLHHL", alice.association._local_verification_tag, 1 << 20, 1024, 1024, tsn
    )
    assert wire.run(lambda: alice.is_up and bob.is_up)
    say(alice, b"one", b"two")
    assert wire.run(lambda: len(bob.received) == 2)
    feed(bob, chunk(1, init), tag=0)
    say(alice, b"three")
    assert wire.run(lambda: len(bob.received) == 3)


async def test_packets_with_a_wrong_tag_or_checksum_are_ignored(loop: None) -> None:
    _, _, bob = up()
    good = packet(bob.association._local_verification_tag, data(bob, 1))
    for wrong in (packet(1, data(bob, 1)), good[:-1] + b"\xff", good[:11], b""):
        bob.association.receive(wrong)
        assert bob.association.take() == []
    bob.association.receive(good)
    assert len(bob.association.take()) == 1


async def test_a_peer_cannot_make_us_hoard_pieces_of_messages(loop: None) -> None:
    _, _, bob = up()

    def hoard() -> None:
        for ahead in range(2, TSN_WINDOW):
            feed(bob, data(bob, ahead, bytes(1300), flags=0))

    with pytest.raises(RemoteProtocolError, match="pieces"):
        hoard()


async def test_sparse_data_is_acknowledged_within_a_packet(loop: None) -> None:
    wire, _, bob = up()
    before = wire.carried
    for ahead in range(2, 1500, 2):
        feed(bob, data(bob, ahead))
    assert wire.carried > before
    assert wire.largest <= MAX_DATAGRAM_BYTES + 37, "a SACK of 749 gaps would be 3 KiB"


@pytest.mark.parametrize("seed", range(20))
async def test_random_chunks_do_no_harm_or_are_the_peers_fault(loop: None, seed: int) -> None:
    wire, _, bob = up(seed)
    random = wire.random
    kinds = [*range(16), 64, 128, 130, 192, 193, 255]
    templates = [data(bob, 1), sack(bob, 0, (1, 1)), chunk(1, INIT), chunk(2, INIT)]
    for _ in range(300):
        if random.random() < 0.5:
            body = random.randbytes(random.randrange(40))
            made = chunk(random.choice(kinds), body, random.randrange(256))
        else:
            broken = bytearray(random.choice(templates))
            broken[random.randrange(len(broken))] = random.randrange(256)
            made = bytes(broken)
        try:
            feed(bob, made, tag=random.choice((None, 0)))
        except RemoteProtocolError:
            return
