"""When packets are acknowledged, and when a link lets publications gather, in virtual time."""

import pytest

from overlay.core.wire.codec import encode
from overlay.core.wire.messages import Goodbye, Ping, Pong
from overlay.transport.sctp import association, timers
from overlay.transport.sctp.association import Sctp
from overlay.transport.sctp.timers import SACK_DELAY_SMALL, Timer, smoothed
from overlay.transport.udp.link import GATHER_INTERVAL
from tests.transport.sctp.test_association import say, up
from tests.transport.sctp.wire import Wire, pair
from tests.transport.udp.link_pair import Host, linked_hosts


async def test_small_packets_wait_for_an_acknowledgement_together(loop: None) -> None:
    wire, alice, bob = up()
    wire.run(lambda: alice.association.idle and bob.association.idle)
    before = wire.carried
    for _ in range(10):
        say(alice, b"x")
    assert wire.run(lambda: alice.association.idle, 2 * SACK_DELAY_SMALL)
    assert 10 < wire.carried - before <= 10 + 3, "one that was asked for, and one for the rest"


@pytest.mark.parametrize("capped", [False, True])
async def test_what_takes_two_seconds_there_and_back_is_not_sent_twice(
    loop: None, monkeypatch: pytest.MonkeyPatch, capped: bool
) -> None:
    """The counter-test has the longest RTO of paths that are quick."""
    if capped:
        for module in (timers, association):
            monkeypatch.setattr(module, "longest", lambda _: timers.RTO_MAX)
    wire = Wire()
    wire.latency, wire.jitter = 0.95, 0.1
    alice, bob = pair(wire)
    assert wire.run(lambda: alice.is_up and bob.is_up)
    say(alice, b"measures")
    assert wire.run(lambda: alice.association.idle)
    carried = list[int]()
    for _ in range(20):
        before = wire.carried
        say(alice, bytes(500))
        wire.run(lambda: alice.association.idle)
        carried.append(wire.carried - before)
    assert (set(carried[2:]) == {2}) is not capped, "each once, and its SACK"


async def test_full_packets_do_not_wait(loop: None) -> None:
    wire, alice, bob = up()
    before, begun = wire.carried, wire.time
    say(alice, bytes(200_000))
    assert wire.run(lambda: bool(bob.received))
    packets = 200_000 / 1172
    assert packets * 1.4 < wire.carried - before < packets * 2, "a SACK for two packets, or so"
    assert wire.time - begun < 100 * wire.latency, "no round waits for a timer"


async def test_a_narrow_window_asks_for_its_acknowledgement(loop: None) -> None:
    wire, alice, bob = up()
    alice.association._cwnd = 1000
    begun = wire.time
    for _ in range(10):
        say(alice, bytes(400))
    assert wire.run(lambda: len(bob.received) == 10)
    assert wire.time - begun < SACK_DELAY_SMALL, "each round takes a round trip, no delay"


async def test_the_path_is_measured_without_the_delay_of_acknowledgements(
    loop: None,
) -> None:
    wire, alice, _ = up()
    for _ in range(20):
        say(alice, b"x")
        wire.run(lambda: False, 0.3)
    assert alice.association.rtt is not None
    assert alice.association.rtt < SACK_DELAY_SMALL / 2


def test_a_retransmission_waits_longer_than_any_acknowledgement() -> None:
    srtt, rttvar, rto = smoothed(None, None, 0.5)
    for _ in range(100):
        srtt, rttvar, rto = smoothed(srtt, rttvar, 0.5)
    assert rttvar < 0.001
    assert rto > srtt + SACK_DELAY_SMALL


def test_plain_acknowledgements_take_the_short_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Counter-test: without it the same bytes arrive, in as many packets."""
    wires = []
    for shortened in (True, False):
        if not shortened:
            monkeypatch.setattr(Sctp, "_receive_plain_sack", lambda self, packet: False)
        wire, alice, bob = up()
        for size in (10, 5000, 70_000):
            say(alice, bytes(size))
        assert wire.run(lambda: len(bob.received) == 3 and alice.association.idle)  # noqa: B023
        association = alice.association
        wires.append((wire.carried, association._cwnd, association._flight_size))
    assert wires[0] == wires[1]


def test_a_timer_started_again_rings_once_and_late() -> None:
    wire, rung = Wire(1), []
    timer = Timer(wire, lambda: rung.append(wire.time))
    timer.start(1.0)
    wire.call_later(0.5, lambda: timer.start(1.0))
    wire.run(lambda: False, 5.0)
    assert rung == [pytest.approx(1.5)]


def test_a_timer_that_was_stopped_or_closed_does_not_ring() -> None:
    wire, rung = Wire(1), []
    stopped, closed = (Timer(wire, lambda: rung.append(wire.time)) for _ in range(2))
    stopped.start(1.0)
    closed.start(1.0)
    stopped.stop()
    closed.close()
    closed.start(1.0)
    wire.run(lambda: False, 5.0)
    assert rung == []


def test_a_timer_is_hastened_but_never_put_off() -> None:
    wire, rung = Wire(1), []
    timer = Timer(wire, lambda: rung.append(wire.time))
    timer.hasten(1.0)
    timer.hasten(0.2)
    timer.hasten(3.0)
    wire.run(lambda: False, 5.0)
    assert rung == [pytest.approx(0.2)]


# --- publications -----------------------------------------------------------------------------


def quiet(seed: int) -> tuple[Wire, Host, Host]:
    wire = Wire(seed)
    alice, bob = linked_hosts(wire)
    wire.run(lambda: False, 1.0)
    return wire, alice, bob


def patient(host: Host, token: int) -> None:
    host.link.transmit(encode(Pong(token)), patient=True)


async def test_a_lone_publication_waits_for_nobody(loop: None) -> None:
    wire, alice, bob = quiet(1)
    begun = wire.time
    patient(alice, 1)
    assert wire.run(lambda: 1 in bob.pongs)
    assert bob.pongs[1] - begun < GATHER_INTERVAL


async def test_fast_publications_share_packets_and_are_late_by_an_interval_at_most(
    loop: None,
) -> None:
    wire, alice, bob = quiet(1)
    before, sent = wire.carried, {}
    for token in range(30):
        sent[token] = wire.time
        patient(alice, token)
        wire.call_later(0.005, lambda: None)
        wire.run(lambda: wire.time >= sent[token] + 0.005)  # noqa: B023
    assert wire.run(lambda: len(bob.pongs) == 30)
    assert list(bob.pongs) == sorted(bob.pongs), "out of order"
    assert max(bob.pongs[token] - sent[token] for token in sent) < 2 * GATHER_INTERVAL
    assert wire.carried - before < 20


async def test_what_is_urgent_takes_the_waiting_along(loop: None) -> None:
    wire, alice, bob = quiet(1)
    patient(alice, 1)
    patient(alice, 2)
    begun = wire.time
    alice.link.transmit(encode(Ping(3)))
    assert wire.run(lambda: 3 in alice.pongs)
    assert alice.pongs[3] - begun < GATHER_INTERVAL
    assert list(bob.pongs) == [1, 2]


async def test_a_full_packet_of_publications_goes_at_once(loop: None) -> None:
    wire, alice, bob = quiet(1)
    begun = wire.time
    for token in range(400):
        patient(alice, token)
    assert wire.run(lambda: len(bob.pongs) > 300)
    assert wire.time - begun < GATHER_INTERVAL


@pytest.mark.parametrize("last", [True, False])
def test_a_farewell_asks_for_its_acknowledgement_at_once(*, last: bool) -> None:
    """Whoever leaves waits for it; counter-test: of any other message nobody does."""
    wire = Wire(1)
    client, _ = linked_hosts(wire)
    client.link.transmit(encode(Ping(1)))
    wire.run(lambda: False, 3 * SACK_DELAY_SMALL)
    begun = wire.time
    client.link.transmit(encode(Goodbye("leave", "the node is leaving")), last=last)
    assert wire.run(lambda: client.link.queued == 0 and client.link._is_drained)
    assert (wire.time - begun < SACK_DELAY_SMALL / 2) is last
