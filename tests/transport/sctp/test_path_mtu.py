"""The search for a packet's size: a machine on simulated paths, then associations on a wire."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.core.types import Address
from overlay.transport.outbox import DATAGRAMS
from overlay.transport.sctp.packets import PACKET_BYTES
from overlay.transport.sctp.path_mtu import (
    GRANULARITY,
    HELP_TIMEOUT,
    PROBE_TIMEOUT,
    PROBES_MAX,
    RAISE_INTERVAL,
    TIMEOUTS_MAX,
    PathMtu,
    Search,
)
from tests.transport.sctp.test_association import heard, say, up
from tests.transport.sctp.wire import LEAST, Wire, pair

HERE, THERE = Address("192.0.2.1", 1), Address("192.0.2.2", 2)
RTT = 0.05
RTO = 0.5
OVERHEAD = 65
"""What DTLS, UDP and IPv4 add to a packet."""


class Trip:
    """A path that carries packets of up to `limit` bytes, and a sender who always has data."""

    def __init__(self, limit: int, seed: int = 1) -> None:
        self.mtu = PathMtu(LEAST, PACKET_BYTES, path=HERE)
        self.limit = limit
        self.loss = 0.0
        self.answers_probes = self.cuts = True
        self.is_dead = False  # whether nothing arrives
        self.now = 0.0
        self.sent: list[int] = []
        self._random = Random(seed)
        self._answers: list[tuple[float, bytes]] = []
        self._next_data = 0.0

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while True:
            self._send()
            deadline = self.mtu.next_deadline()
            due = [self._next_data, *[at for at, _ in self._answers]]
            due += [deadline] if deadline is not None else []
            if min(due) > end or self.mtu.is_stalled:
                self.now = end
                return
            self.now = max(self.now, min(due))
            if self._answers and self._answers[0][0] <= self.now:
                self.mtu.on_answer(self._answers.pop(0)[1], self.now)
            elif deadline is not None and deadline <= self.now:
                self.mtu.handle_timeout(self.now)
            else:
                self._data()

    def _send(self) -> None:
        for nonce, size in self.mtu.take():
            self.sent.append(size)
            if self.answers_probes and self._arrives(size):
                self._answers.append((self.now + RTT, nonce))

    def _data(self) -> None:
        """A packet's worth: acknowledged after a round trip, or T3 runs out."""
        if self._arrives(self.mtu.size) or (self.cuts and self.mtu.size == LEAST):
            self.mtu.on_progress(self.now)
            self._next_data = self.now + RTT
        else:
            self.mtu.on_timeout(self.mtu.size, self.now)
            self._next_data = self.now + RTO

    def _arrives(self, size: int) -> bool:
        return not self.is_dead and size <= self.limit and self._random.random() >= self.loss


def test_a_path_that_carries_all_is_never_asked() -> None:
    trip = Trip(PACKET_BYTES)
    trip.run(600)
    assert not trip.sent
    assert trip.mtu.next_deadline() is None


@pytest.mark.parametrize("limit", [LEAST, 532, 732, 936, 1132, PACKET_BYTES - 4])
def test_packets_fall_at_once_and_then_grow_to_what_the_path_carries(limit: int) -> None:
    trip = Trip(limit)
    trip.run(1.0)
    assert trip.mtu.size <= limit, "data gets on within two round trips and a bit"
    trip.run(PROBES_MAX * PROBE_TIMEOUT * 8)
    assert limit - GRANULARITY <= trip.mtu.size <= limit
    assert trip.mtu.state is Search.COMPLETE
    assert trip.mtu.next_deadline() is not None, "it is asked anew one day"


def test_a_path_that_carries_more_again_is_used_in_full_again() -> None:
    trip = Trip(700)
    trip.run(30)
    assert trip.mtu.size < 701
    trip.limit = PACKET_BYTES
    trip.run(RAISE_INTERVAL)
    assert trip.mtu.size == PACKET_BYTES
    assert trip.mtu.next_deadline() is None


def test_loss_alone_is_not_taken_for_a_small_path() -> None:
    """Counter-test: at the same loss a small path is found."""
    fallen = 0
    for seed in range(100):
        trip = Trip(PACKET_BYTES, seed)
        trip.loss = 0.1
        trip.mtu.on_timeout(PACKET_BYTES, 0.0)
        while trip.mtu.state is Search.DOUBTED:
            trip.run(0.05)
        fallen += trip.mtu.size < PACKET_BYTES
    assert fallen <= 10
    trip = Trip(700)
    trip.loss = 0.1
    trip.run(20)
    assert trip.mtu.size <= 700


def test_who_does_not_answer_probes_is_reached_in_small_packets_all_the_same() -> None:
    trip = Trip(700)
    trip.answers_probes = False
    trip.run(TIMEOUTS_MAX * RTO + 1)
    assert trip.mtu.size == LEAST
    assert not trip.mtu.is_stalled
    trip.run(100)
    assert trip.mtu.size == LEAST
    assert not trip.mtu.is_stalled


@pytest.mark.parametrize("answers_probes", [True, False])
def test_data_that_no_size_helps_makes_the_path_stalled(answers_probes: bool) -> None:
    trip = Trip(LEAST - 4)
    trip.answers_probes = answers_probes
    trip.cuts = False
    trip.run(TIMEOUTS_MAX * RTO + HELP_TIMEOUT - 1.0)
    assert not trip.mtu.is_stalled
    trip.run(2.0)
    assert trip.mtu.is_stalled


def test_a_silent_peer_is_not_a_stalled_path() -> None:
    trip = Trip(PACKET_BYTES)
    trip.is_dead = True
    trip.run(RTO)
    trip.mtu.hold()
    trip.run(100)
    assert not trip.mtu.is_stalled
    assert trip.mtu.size == PACKET_BYTES
    trip.sent.clear()
    trip.run(10)
    assert not trip.sent, "nobody is asked who is not there"
    trip.is_dead = False
    trip.mtu.release(trip.now)
    trip.run(1)
    assert trip.mtu.state is Search.COMPLETE


def test_a_closed_window_is_not_a_stalled_path() -> None:
    mtu = PathMtu(LEAST, PACKET_BYTES, path=HERE)
    for count in range(20):
        mtu.on_timeout(100, float(count))
        mtu.forgive()
    assert mtu.size == PACKET_BYTES
    assert mtu.next_deadline() is None


def test_small_data_that_is_lost_says_nothing_of_sizes() -> None:
    mtu = PathMtu(LEAST, PACKET_BYTES, path=HERE)
    mtu.on_timeout(100, 0.0)
    assert not mtu.take()
    assert mtu.next_deadline() is None


def test_a_path_change_starts_at_the_smaller_size_of_the_two() -> None:
    trip = Trip(700)
    trip.run(30)
    found = trip.mtu.size
    assert found < PACKET_BYTES
    trip.limit = PACKET_BYTES
    trip.mtu.move(THERE, LEAST, trip.now)
    assert trip.mtu.size == found, "the new one may be no better"
    trip.run(1)
    assert trip.mtu.size == PACKET_BYTES, "and is asked at once"
    trip.limit = 700
    trip.mtu.move(HERE, LEAST, trip.now)
    assert trip.mtu.size == found, "what is known of a path is not forgotten"


def test_a_path_over_ipv6_starts_at_what_all_such_paths_carry() -> None:
    trip = Trip(600)
    trip.run(30)
    trip.mtu.move(THERE, PACKET_BYTES, trip.now)
    assert trip.mtu.size == PACKET_BYTES


def test_an_answer_from_the_path_before_says_nothing_of_this_one() -> None:
    mtu = PathMtu(LEAST, PACKET_BYTES, path=HERE)
    mtu.begin_small(0.0)
    ((nonce, _),) = mtu.take()
    mtu.move(THERE, LEAST, 0.0)
    mtu.on_answer(nonce, 0.1)
    assert mtu.size == LEAST
    mtu.on_answer(bytes([255] * 8), 0.1)
    assert mtu.size == LEAST, "nor does one that was never asked for"


def test_a_handshake_that_needed_small_datagrams_is_followed_by_small_packets() -> None:
    trip = Trip(600)
    trip.mtu.begin_small(0.0)
    assert trip.mtu.size == LEAST
    trip.run(30)
    assert 600 - GRANULARITY <= trip.mtu.size <= 600


@pytest.mark.parametrize("size", [0, LEAST, PACKET_BYTES - 3, PACKET_BYTES + 4, 2**32 - 4])
def test_an_answer_that_the_peer_has_made_up_makes_no_packet_too_large(size: int) -> None:
    mtu = PathMtu(LEAST, PACKET_BYTES, path=HERE)
    mtu.begin_small(0.0)
    ((nonce, _),) = mtu.take()
    mtu.on_answer(nonce[:4] + size.to_bytes(4, "big"), 0.1)
    assert mtu.size == LEAST


def test_small_packets_are_no_larger_than_others() -> None:
    """Where every path carries what is sent at most, as over IPv6."""
    mtu = PathMtu(PACKET_BYTES + 4, PACKET_BYTES, path=HERE)
    mtu.begin_small(0.0)
    assert mtu.size == PACKET_BYTES
    assert not mtu.take()


Change = tuple[int, float, float]
"""For so many seconds the path carries so much, and loses so much."""


@given(
    st.lists(
        st.tuples(
            st.integers(LEAST, PACKET_BYTES), st.sampled_from([0.0, 0.1, 0.3]), st.floats(0, 90)
        ),
        max_size=5,
    ),
    st.integers(LEAST, PACKET_BYTES),
    st.booleans(),
)
def test_whatever_a_path_does_data_gets_through_in_the_end(
    changes: list[Change], limit: int, moves: bool
) -> None:
    trip = Trip(PACKET_BYTES)
    for each, loss, seconds in changes:
        trip.limit, trip.loss = each, loss
        if moves:
            trip.mtu.move(Address("192.0.2.3", each), LEAST, trip.now)
        trip.run(seconds)
        assert LEAST <= trip.mtu.size <= PACKET_BYTES
        assert trip.mtu.size % 4 == 0
        trip.mtu.is_stalled = False  # a lossy path may be given up; here it goes on
    trip.limit, trip.loss = limit, 0.0
    trip.run(10)
    assert trip.mtu.size <= limit
    trip.run(RAISE_INTERVAL + 8 * PROBES_MAX * PROBE_TIMEOUT)
    assert limit - GRANULARITY - 3 <= trip.mtu.size <= limit
    assert not trip.mtu.is_stalled


# --- associations on a wire --------------------------------------------------------------------


@pytest.mark.parametrize("path_mtu", [1253, 1252, 1200, 1006, 800, 600, 576])
async def test_large_messages_arrive_over_a_path_that_drops_large_packets(
    loop: None, path_mtu: int
) -> None:
    wire, alice, bob = up()
    wire.mtu = path_mtu
    for end in (alice, bob):
        say(end, bytes(5000))
    assert wire.run(lambda: len(alice.received) == len(bob.received) == 1, 3.0)
    wire.run(lambda: False, 40.0)
    before = wire.dropped
    say(alice, *[bytes(5000)] * 100)
    assert wire.run(lambda: len(bob.received) == 101, 10.0)
    assert wire.dropped == before, "new chunks fit"
    assert alice.association.packet_bytes <= path_mtu - OVERHEAD or path_mtu == 1253
    assert alice.association.packet_bytes > min(path_mtu - OVERHEAD, PACKET_BYTES) - GRANULARITY - 4


async def test_packets_that_begin_small_grow_without_a_loss(loop: None) -> None:
    wire = Wire()
    alice, bob = pair(wire)
    for end in (alice, bob):
        end.mtu.begin_small(0.0)
    assert wire.run(lambda: alice.is_up and bob.is_up)
    wire.run(lambda: False, 5.0)
    for end in (alice, bob):
        assert end.association.packet_bytes == PACKET_BYTES
        assert end.sizes == [PACKET_BYTES]


async def test_without_the_search_nothing_arrives_again(
    loop: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PathMtu, "on_timeout", lambda self, waiting, now: None)
    wire, alice, bob = up()
    wire.mtu = 1200
    say(alice, bytes(5000), b"small", b"smaller")
    assert not wire.run(lambda: bool(bob.received), 120.0)


async def test_what_is_numbered_and_does_not_fit_is_cut_on_the_way(loop: None) -> None:
    wire, alice, bob = up()
    wire.mtu = 800
    say(alice, bytes(5000))
    assert wire.run(lambda: bool(bob.received))
    assert 0 < alice.in_fragments <= 10
    cut = alice.in_fragments
    say(alice, bytes(50_000))
    assert wire.run(lambda: len(bob.received) == 2)
    assert alice.in_fragments == cut, "what is numbered later fits by itself"


async def test_where_not_even_fragments_arrive_the_association_is_stalled(loop: None) -> None:
    wire, alice, bob = up()
    wire.mtu, wire.carries_fragments = 800, False
    say(alice, bytes(5000))
    begun = wire.time
    assert wire.run(lambda: alice.association.stalled, 60.0)
    assert wire.time - begun < 16.0, "five time-outs, of which none has measured anything"
    assert not bob.received


async def test_an_idle_association_is_never_stalled(loop: None) -> None:
    wire, alice, bob = up()
    say(alice, b"x")
    assert wire.run(lambda: alice.association.idle)
    wire.loss = 1.0
    wire.run(lambda: False, 100.0)
    assert not alice.association.stalled
    say(alice, b"lost", channel=DATAGRAMS)
    wire.run(lambda: False, 100.0)
    assert not alice.association.stalled, "nor for what may be lost"
    wire.loss = 0.0
    say(alice, b"y")
    assert wire.run(lambda: heard(bob) == [b"x", b"y"], 100.0)


async def test_a_held_association_waits_and_goes_on(loop: None) -> None:
    wire, alice, bob = up()
    wire.loss = 1.0
    alice.association.hold()
    say(alice, bytes(5000))
    wire.run(lambda: False, 60.0)
    assert not alice.association.stalled
    assert alice.association.packet_bytes == PACKET_BYTES
    wire.loss = 0.0
    alice.association.resume()
    assert wire.run(lambda: bool(bob.received), 1.0)


@pytest.mark.parametrize("seed", range(8))
async def test_a_small_path_that_also_loses_packets_delivers_all(loop: None, seed: int) -> None:
    wire, alice, bob = up(seed)
    wire.mtu, wire.loss, wire.jitter = wire.random.choice((1200, 800, 600)), 0.05, 0.02
    messages = [wire.random.randbytes(wire.random.choice((20, 3000, 9000))) for _ in range(40)]
    say(alice, *messages)
    say(bob, *messages)
    assert wire.run(lambda: len(alice.received) == len(bob.received) == len(messages), 300.0)
    assert heard(bob) == heard(alice) == messages


async def test_an_old_acknowledgement_does_not_tell_of_the_window(loop: None) -> None:
    wire, alice, _ = up()
    say(alice, b"x")
    assert wire.run(lambda: alice.association.idle)
    window = alice.association._peer_rwnd
    alice.association._on_sack((alice.association._last_sacked_tsn - 1) % 2**32, 1, [])
    assert alice.association._peer_rwnd == window
    alice.association._on_sack(alice.association._last_sacked_tsn, 7, [])
    assert alice.association._peer_rwnd == 7
