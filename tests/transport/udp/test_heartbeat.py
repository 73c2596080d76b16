"""HEARTBEAT: what is asked comes back, from where it was asked, and moves nothing by itself."""

from functools import partial
from itertools import pairwise

import pytest

from overlay.core.types import Address, EndReason
from overlay.core.wire.codec import encode
from overlay.core.wire.messages import Ping
from overlay.transport.sctp.packets import HeartbeatKind
from overlay.transport.udp.link import HEARD_INTERVAL
from tests.transport.sctp.test_association import chunk, feed, heard, say, up
from tests.transport.sctp.wire import Wire
from tests.transport.udp.link_pair import HERE, THERE, linked_hosts

ELSEWHERE = Address("192.0.2.9", 9)
NONCE = bytes(range(8))


async def test_a_nonce_comes_back_and_says_where_from(loop: None) -> None:
    wire = Wire()
    client, server = linked_hosts(wire)
    wire.run(lambda: False, 1.0)
    server.sent_to.clear()
    server.heard_from = ELSEWHERE
    server.link.confirm(NONCE, ELSEWHERE, HERE)
    assert wire.run(lambda: bool(server.confirmations))
    assert server.confirmations == [(NONCE, ELSEWHERE, HERE)]
    assert server.sent_to == [ELSEWHERE]
    assert server.link.remote == THERE, "the path moves only if the endpoint says so"
    assert not client.confirmations


async def test_a_question_that_got_lost_is_not_repeated(loop: None) -> None:
    wire = Wire()
    _, server = linked_hosts(wire)
    wire.run(lambda: False, 1.0)
    carried, wire.loss = wire.carried, 1.0
    server.link.confirm(NONCE, ELSEWHERE, HERE)
    wire.run(lambda: False, 10.0)
    assert wire.carried == carried + 1
    assert not server.confirmations


async def test_nothing_is_asked_over_a_link_that_has_ended(loop: None) -> None:
    wire = Wire()
    client, _ = linked_hosts(wire)
    client.link.end(EndReason.CLOSED)
    carried = wire.carried
    client.link.confirm(NONCE, ELSEWHERE, HERE)
    assert wire.carried == carried


async def test_what_the_peer_acknowledges_is_said_at_most_every_tenth_of_a_second(
    loop: None,
) -> None:
    wire = Wire()
    client, server = linked_hosts(wire)
    wire.run(lambda: False, 1.0)
    client.acknowledged_at.clear()
    server.acknowledged_at.clear()
    for number in range(300):
        wire.call_later(0.01 * number, partial(client.link.transmit, encode(Ping(number))))
    wire.run(lambda: False, 3.0)
    times = client.acknowledged_at
    assert 3 < len(times) <= 3.0 / HEARD_INTERVAL + 1
    assert all(later - earlier >= HEARD_INTERVAL for earlier, later in pairwise(times))


async def test_data_of_the_peers_alone_does_not_say_that_we_are_heard(loop: None) -> None:
    wire = Wire()
    client, server = linked_hosts(wire)
    wire.run(lambda: False, 1.0)
    for lost in (True, False):
        client.is_lost_on_the_way = lost
        client.acknowledged_at.clear()
        before = client.link.bytes_in
        for number in range(5):
            server.link.transmit(encode(Ping(number)))
        wire.run(lambda: False, 0.5)
        assert client.link.bytes_in > before
        assert bool(client.acknowledged_at) is not lost, "its pongs, when they arrive"


async def test_an_acknowledgement_sent_again_is_no_news(loop: None) -> None:
    wire, alice, bob = up()
    say(alice, b"x")
    assert wire.run(lambda: alice.association.idle)
    alice.association.acknowledged = False
    bob.association._sack_owed = 1
    bob.association._sack_late()
    wire.run(lambda: False, 0.1)
    assert not alice.association.acknowledged


async def test_a_heartbeat_is_padded_to_a_size_and_answered_without_the_padding(
    loop: None,
) -> None:
    wire, alice, bob = up()
    sizes = []
    for size in (0, 40, 508, 1188):
        packet = alice.association.heartbeat(HeartbeatKind.PATH, NONCE, size)
        assert len(packet) == (size or 32)
        alice.dtls.send(packet)
        wire.largest = 0
        assert wire.run(lambda: bool(alice.association._confirmed))
        sizes.append(wire.largest)
        assert alice.association._confirmed.pop() == NONCE
    assert max(sizes) < 100, "the answer is small, whatever was asked"
    say(bob, b"fine")
    assert wire.run(lambda: bool(heard(alice)))


@pytest.mark.parametrize(
    "parameter", [b"", b"\0\1\0\x05x", b"\0\1\0\x0d\x63" + NONCE, b"\0\2\0\x0d\x01" + NONCE]
)
async def test_an_answer_to_something_else_is_passed_over(loop: None, parameter: bytes) -> None:
    _, alice, _ = up()
    alice.association.acknowledged = False
    feed(alice, chunk(5, parameter + bytes(-len(parameter) % 4)))
    assert not alice.association._confirmed
    assert not alice.association.acknowledged
