"""Parts of large publications on a link: below all other messages, by turns with streams."""

from collections.abc import Callable
from random import Random

import pytest

from overlay.core.events import Event, LinkLost, Received, Unsent
from overlay.core.wire.bounds import PART_MAX
from overlay.core.wire.codec import encode
from overlay.core.wire.messages import GossipPart, Ping
from overlay.transport.outbox import MAX_PARTS_LANE_BYTES, PARTS, Outbox
from tests.transport.nodes import Node, linked, memory_nodes, udp_nodes
from tests.transport.sctp.wire import Wire
from tests.transport.test_outbox import Endless
from tests.transport.udp.link_pair import Host, linked_hosts


def part(number: int) -> GossipPart:
    """A full part, with bytes of its own."""
    return GossipPart(
        message_id=number.to_bytes(16, "big"),
        origin=bytes(32),
        topic="t",
        data=Random(number).randbytes(PART_MAX),
        text=False,
        hops=1,
        publication=bytes(16),
        part=number % 64,
        parts=64,
        signature=bytes(64),
    )


class Ears:
    """What parts a host has received."""

    def __init__(self, host: Host) -> None:
        self.parts: list[GossipPart] = []
        self._emit = host.emit
        host.emit = self._hear  # type: ignore[method-assign]

    def _hear(self, event: Event) -> None:
        if isinstance(event, Received) and isinstance(event.message, GossipPart):
            self.parts.append(event.message)
        else:
            self._emit(event)


def test_parts_go_after_all_else_by_turns_with_streams() -> None:
    outbox = Outbox()
    outbox.add_streams(Endless())
    for data in (b"p1", b"p2"):
        assert outbox.push_part(53, data)
    outbox.push_datagram(53, b"datagram")
    outbox.push_control(53, b"control")
    popped = [outbox.pop(7) for _ in range(6)]
    sent = [message[2] for message in popped if message]
    assert sent == [b"control", b"datagram", b"p1", bytes(7), b"p2", bytes(7)]
    outbox.push_part(53, b"p3")
    assert outbox.pop(0) is None, "no bulk is wanted now"
    assert outbox.pop(7) == (PARTS, 53, b"p3")


def test_parts_alone_need_no_turns_and_have_a_bound_of_their_own() -> None:
    outbox = Outbox()
    while outbox.push_part(53, bytes(PART_MAX)):
        pass
    assert outbox.size == outbox.parts.size == MAX_PARTS_LANE_BYTES
    assert outbox.push_control(53, b"control"), "no room for what is urgent"
    popped = [outbox.pop(1) for _ in range(MAX_PARTS_LANE_BYTES // PART_MAX + 2)]
    assert popped[-1] is None
    assert None not in popped[:-1]
    assert not outbox.ready


@pytest.mark.parametrize("seed", range(4))
def test_pings_stay_prompt_while_a_large_publication_crosses_a_lossy_link(seed: int) -> None:
    """Stated: the same bytes as control messages hold a ping up for as long as they take."""
    worst = {}
    for as_parts in (True, False):
        wire = Wire(seed)
        client, server = linked_hosts(wire)
        ears = Ears(server)
        wire.latency, wire.loss = 0.0125, 0.01
        begun = wire.time
        for number in range(64):
            data = encode(part(number))
            if as_parts:
                assert client.link.transmit_part(data)
            else:
                client.link.transmit(data)
        asked: dict[int, float] = {}
        while len(ears.parts) < 64:
            token = len(asked)
            asked[token] = wire.time
            client.link.transmit(encode(Ping(token)))
            assert wire.run(lambda: token in client.pongs, limit=60.0)  # noqa: B023
        assert sorted(each.part for each in ears.parts) == list(range(64))
        assert all(each == part(each.part) for each in ears.parts)
        assert len(asked) > 5 or not as_parts, f"over in {wire.time - begun} s: shows nothing"
        worst[as_parts] = max(client.pongs[token] - at for token, at in asked.items())
    assert worst[True] < worst[False] / 2


@pytest.mark.parametrize("seed", range(3))
def test_parts_and_messages_in_order_both_arrive_whole_over_a_bad_wire(seed: int) -> None:
    wire = Wire(seed)
    client, server = linked_hosts(wire)
    ears, order = Ears(server), list[int]()
    emit = server.emit

    def note(event: Event) -> None:
        if isinstance(event, Received) and isinstance(event.message, Ping):
            order.append(event.message.token)
        emit(event)

    server.emit = note  # type: ignore[method-assign]
    wire.loss, wire.jitter, wire.duplication = 0.03, 0.01, 0.01
    for number in range(100):
        client.link.transmit_part(encode(part(number)))
        client.link.transmit(encode(Ping(number)))
    assert wire.run(lambda: len(ears.parts) == 100 and len(order) == 100, limit=120.0)
    assert order == list(range(100)), "control messages have lost their order"
    assert sorted(each.message_id for each in ears.parts) == [
        number.to_bytes(16, "big") for number in range(100)
    ]
    assert all(each == part(int.from_bytes(each.message_id, "big")) for each in ears.parts)


class Losing(Wire):
    """Loses one of the full packets."""

    def __init__(self, lost: int) -> None:
        super().__init__()
        self.full, self.lost = 0, lost

    def carry(
        self, to: Callable[[bytes], None], datagram: bytes, *, may_be_cut: bool = False
    ) -> None:
        self.full += len(datagram) > 1000
        if len(datagram) <= 1000 or self.full != self.lost:
            super().carry(to, datagram, may_be_cut=may_be_cut)


def crossing(wire: Losing) -> tuple[float, float]:
    """When a part has arrived, and when the pong to a ping sent once all of it was under way."""
    client, server = linked_hosts(wire)
    wire.full, ears = 0, Ears(server)
    client.link.transmit_part(encode(part(0)))
    assert wire.run(lambda: client.link.queued == 0)
    client.link.transmit(encode(Ping(1)))
    assert wire.run(lambda: 1 in client.pongs or bool(ears.parts))
    first = wire.time
    assert wire.run(lambda: 1 in client.pongs and bool(ears.parts))
    return (wire.time, first) if client.pongs[1] == first else (first, wire.time)


def test_a_lost_packet_of_a_part_holds_no_message_up() -> None:
    whole = Losing(0)
    crossing(whole)
    assert whole.full > 5
    arrived, answered = crossing(Losing(whole.full))
    assert answered < arrived


async def flooded(sender: Node, receiver: Node) -> None:
    """Far more parts at once than may wait: what does not fit is told, and the link goes on."""
    ours, theirs = await linked(sender, receiver)
    many = 3 * MAX_PARTS_LANE_BYTES // PART_MAX
    sender.send(ours, *map(part, range(many)))
    unsent = {event.message.message_id for event in sender.all_of(Unsent)}
    assert 0 < len(unsent) < many
    assert {event.link for event in sender.all_of(Unsent)} == {ours}

    def arrived() -> set[bytes]:
        parts = [each for each in receiver.received(theirs) if isinstance(each, GossipPart)]
        return {each.message_id for each in parts}

    await receiver.until(lambda: len(arrived()) == many - len(unsent))
    assert not arrived() & unsent
    sender.send(ours, Ping(7))
    await receiver.until(lambda: Ping(7) in receiver.received(theirs))
    assert not sender.all_of(LinkLost)


async def test_too_many_parts_at_once_end_no_link() -> None:
    async with udp_nodes("alice", "bob") as (alice, bob):
        await flooded(alice, bob)


async def test_too_many_parts_at_once_end_no_link_in_memory() -> None:
    async with memory_nodes("alice", "bob") as (alice, bob):
        await flooded(alice, bob)
