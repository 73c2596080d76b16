"""Links over circuits between real transports: three nodes on loopback, one of which relays."""

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from random import Random
from socket import AF_INET, SOCK_DGRAM, socket

import pytest
import trio

from overlay.core.addresses import circuit_address
from overlay.core.events import (
    Admit,
    Adopt,
    CircuitCarried,
    DropCircuit,
    LinkAlive,
    LinkLost,
    LinkOpened,
    LinkSuspect,
    PathMoved,
    Received,
    RelayCircuit,
    UseCircuit,
)
from overlay.core.types import Address, CircuitId, LinkId, PathKind, PeerId
from overlay.core.wire.codec import encode
from overlay.core.wire.messages import Ping
from overlay.transport.streams import MeshStream
from overlay.transport.udp.link import UNACKNOWLEDGED_AFTER
from overlay.transport.udp.transport import UdpTransport
from tests.transport.nodes import LOOPBACK, Node, stream_between, udp_nodes
from tests.transport.sctp.wire import Wire
from tests.transport.udp.link_pair import HERE, THERE, linked_hosts
from tests.transport.udp.relay import relay_to

CIRCUIT, SECOND = CircuitId(b"@circuit"), CircuitId(b"Acircuit")
RATE = 1e9
SIZE = 1_000_000
IPV6_PAYLOAD = 1280 - 40 - 8
"""Bytes that fit a UDP datagram on every IPv6 path."""


@asynccontextmanager
async def neighbours(
    listen: Address = LOOPBACK, hosts: tuple[str, str] = ("127.0.0.1", "127.0.0.1")
) -> AsyncGenerator[tuple[Node, Node, Node], None]:
    """Alice and bob, linked to carol, who relays between them; `hosts`: where they dial her."""
    async with udp_nodes("alice", "bob", "carol", listen=listen) as (alice, bob, carol):
        for each, host in zip((alice, bob), hosts, strict=True):
            at = Address(host, carol.address.port)
            await each.opened(each.dial(carol, attempt=each.name.ljust(16).encode(), address=at))
        await carol.next_of(LinkOpened, 1)
        begin(alice, bob, carol, CIRCUIT)
        yield alice, bob, carol


def begin(alice: Node, bob: Node, carol: Node, circuit: CircuitId, rate: float = RATE) -> None:
    carol.transport.perform(RelayCircuit(circuit, LinkId(1), LinkId(3), rate))
    for each in (alice, bob):
        each.transport.perform(UseCircuit(circuit, LinkId(0)))


async def relayed(alice: Node, bob: Node, circuit: CircuitId = CIRCUIT) -> tuple[LinkId, LinkId]:
    """A link from alice to bob over a circuit: its id at each end."""
    already = len(bob.all_of(LinkOpened))
    link = alice.dial(bob, address=circuit_address(circuit), attempt=circuit * 2)
    await alice.opened(link)
    theirs = (await bob.next_of(LinkOpened, already)).link
    for node, each in ((alice, link), (bob, theirs)):
        node.transport.perform(Admit(each, PeerId(bytes(32))))
    return link, theirs


async def read(stream: MeshStream, size: int) -> bytes:
    received = bytearray()
    while len(received) < size:
        received.extend(await stream.receive_some(65_536))
    return bytes(received)


async def carries_whole(near: MeshStream, far: MeshStream, seed: int) -> None:
    """Bytes are the same at the other end."""
    data = Random(seed).randbytes(SIZE)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(near.send_all, data)
        assert await read(far, SIZE) == data


def counters(node: Node) -> dict[str, int]:
    """What the endpoint has refused of circuits."""
    assert isinstance(node.transport, UdpTransport)
    counted = node.transport.refused
    return {kind: count for kind, count in counted.items() if kind.startswith("circuit")}


@pytest.mark.parametrize(
    ("listen", "hosts"),
    [
        ("127.0.0.1", ("127.0.0.1", "127.0.0.1")),
        ("0.0.0.0", ("127.0.0.2", "127.0.0.1")),
        ("::", ("::1", "127.0.0.1")),  # from one family to the other
        ("::", ("127.0.0.1", "::1")),
    ],
)
async def test_a_stream_over_a_circuit_arrives_whole(listen: str, hosts: tuple[str, str]) -> None:
    async with neighbours(Address(listen, 0), hosts) as (alice, bob, carol):
        link, theirs = await relayed(alice, bob)
        for node, each in ((alice, link), (bob, theirs)):
            facts = (await node.opened(each)).facts
            assert (facts.path, facts.remote) == (PathKind.RELAYED, circuit_address(CIRCUIT))
        near, far = await stream_between(alice, link, bob)
        await carries_whole(near, far, 1)
        await carries_whole(far, near, 2)
        assert not carol.all_of(Received)
        assert [counters(node) for node in (alice, bob, carol)] == [{}, {}, {}]


async def test_no_datagram_is_too_large_for_any_ipv6_path(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nor before a direct link comes to run over a circuit: its packets are as small already."""
    sizes: list[int] = []
    async with neighbours() as (alice, bob, _):
        assert isinstance(alice.transport, UdpTransport)
        (ours,) = alice.transport._sockets
        send: Callable[[bytes, Address, Address | None], None] = ours.send

        def measure(data: bytes, remote: Address, local: Address | None) -> None:
            sizes.append(len(data))
            send(data, remote, local)

        monkeypatch.setattr(ours, "send", measure)
        link, _ = await relayed(alice, bob)
        near, far = await stream_between(alice, link, bob)
        await carries_whole(near, far, 1)
    assert IPV6_PAYLOAD - 8 <= max(sizes) <= IPV6_PAYLOAD


async def test_whatever_goes_to_a_circuit_goes_over_it() -> None:
    async with neighbours() as (alice, bob, carol):
        assert isinstance(alice.transport, UdpTransport)
        over = circuit_address(CIRCUIT)
        for send in (
            alice.transport.send_datagram,
            alice.transport.send_probe,
            alice.transport.send_in_fragments,
        ):
            send(b"\x17" + bytes(99), over, None)
            send(b"\x17" + bytes(99), circuit_address(SECOND), None)  # which is none of ours
            send(b"\x17" + bytes(99), Address("127.0.0.1", 0), None)  # to which nothing can go
        assert isinstance(bob.transport, UdpTransport)
        with trio.fail_after(30):
            while bob.transport.refused["unknown"] < 3:  # noqa: ASYNC110 (nothing else says it)
                await trio.sleep(0.01)
        assert [counters(node) for node in (alice, bob, carol)] == [{}, {}, {}]


async def test_a_relay_says_what_it_has_carried() -> None:
    async with neighbours() as (alice, bob, carol):
        link, _ = await relayed(alice, bob)
        near, far = await stream_between(alice, link, bob)
        await carries_whole(near, far, 1)
        carol.transport.perform(DropCircuit(CIRCUIT))
        carried = sum(event.bytes for event in carol.all_of(CircuitCarried))
        assert SIZE < carried < 1.5 * SIZE
        assert not alice.all_of(CircuitCarried)


async def test_a_rate_is_kept_and_the_stream_still_whole() -> None:
    async with neighbours() as (alice, bob, carol):
        begin(alice, bob, carol, SECOND, rate=400_000.0)
        link, _ = await relayed(alice, bob, SECOND)
        near, far = await stream_between(alice, link, bob)
        await carries_whole(near, far, 1)
        assert counters(carol)["circuit_over_rate"] > 0


async def test_a_stream_goes_on_while_the_link_to_the_relay_moves() -> None:
    """A NAT on the way to the relay maps the link anew; the circuit moves with it."""
    async with (
        udp_nodes("alice", "bob", "carol") as (alice, bob, carol),
        relay_to(carol.address) as nat,
    ):
        await alice.opened(alice.dial(carol, attempt=bytes(16), address=nat.address))
        await bob.opened(bob.dial(carol, attempt=b"b" * 16))
        await carol.next_of(LinkOpened, 1)
        begin(alice, bob, carol, CIRCUIT)
        link, _ = await relayed(alice, bob)
        near, far = await stream_between(alice, link, bob)
        await carries_whole(near, far, 1)
        await nat.move()
        await carol.next_of(PathMoved)
        await carries_whole(near, far, 2)
        await carries_whole(far, near, 3)


async def test_a_relay_that_drops_doubles_and_alters_does_no_harm(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with neighbours() as (alice, bob, carol):
        link, theirs = await relayed(alice, bob)
        near, far = await stream_between(alice, link, bob)
        assert isinstance(carol.transport, UdpTransport)
        send: Callable[[bytes, Address, Address | None], None] = carol.transport.send_datagram
        random = Random(5)

        def meddle(data: bytes, remote: Address, local: Address | None) -> None:
            chance = random.random()
            if data[0] >= 64 and chance < 0.02:
                return
            if data[0] >= 64 and chance < 0.06:
                altered = bytearray(data)
                altered[random.randrange(8, len(data))] ^= 1 << random.randrange(8)
                send(bytes(altered), remote, local)
                send(data[: random.randrange(9, len(data))], remote, local)
            if data[0] >= 64 and chance < 0.10:
                send(data, remote, local)
            send(data, remote, local)

        monkeypatch.setattr(carol.transport, "send_datagram", meddle)
        await carries_whole(near, far, 1)
        assert not alice.all_of(LinkLost)
        assert not bob.all_of(LinkLost)
        assert theirs % 2


async def test_a_circuits_id_from_another_socket_is_of_no_use() -> None:
    async with neighbours() as (alice, bob, carol):
        link, theirs = await relayed(alice, bob)
        with socket(AF_INET, SOCK_DGRAM) as stranger:
            for node in (alice, bob, carol):
                for inner in (b"", b"\x16\xfe\xfd", b"\0\1" + bytes(18), CIRCUIT):
                    stranger.sendto(CIRCUIT + inner, node.address)
                stranger.sendto(b"@unknown" + bytes(20), node.address)
        with trio.fail_after(30):
            for node in (alice, bob, carol):
                expected = {"circuit_elsewhere": 4, "circuit_unknown": 1}
                while counters(node) != expected:  # noqa: ASYNC110 (nothing else says it)
                    await trio.sleep(0.01)
        alice.send(link, Ping(1))
        await bob.until(lambda: bob.received(theirs) == [Ping(1)])


async def test_a_second_circuit_carries_on_what_a_dead_one_has_dropped() -> None:
    async with neighbours() as (alice, bob, carol):
        link, theirs = await relayed(alice, bob)
        near, far = await stream_between(alice, link, bob)
        data, received = Random(1).randbytes(6 * SIZE), bytearray()

        async def take() -> None:
            while len(received) < len(data):
                received.extend(await far.receive_some(65_536))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(near.send_all, data)
            nursery.start_soon(take)
            while len(received) < 100_000:  # noqa: ASYNC110 (the stream is in the middle)
                await trio.sleep(0.001)
            carol.transport.perform(DropCircuit(CIRCUIT))
            await alice.until(lambda: LinkSuspect(link) in alice.events)
            begin(alice, bob, carol, SECOND)
            second, their_second = await relayed(alice, bob, SECOND)
            bob.transport.perform(Adopt(theirs, their_second))
            alice.transport.perform(Adopt(link, second))
            await alice.until(lambda: LinkAlive(link) in alice.events)
        assert bytes(received) == data
        assert not alice.all_of(LinkLost)


# --- a link's own part ------------------------------------------------------------------------


def test_over_a_relay_what_is_not_acknowledged_is_said_soon() -> None:
    wire = Wire(1)
    client, server = linked_hosts(wire)
    for host in (client, server):
        host.link.move(circuit_address(CIRCUIT), None, PathKind.RELAYED)
    client.link.transmit(encode(Ping(1)))
    wire.run(lambda: wire.time > 5.0)
    assert not client.unacknowledged_at, "it was acknowledged"
    client.is_lost_on_the_way = True
    sent_at = wire.time
    client.link.transmit(encode(Ping(2)))
    wire.run(lambda: wire.time > sent_at + 2.9)
    said = [at - sent_at for at in client.unacknowledged_at][:5]
    assert said == pytest.approx([UNACKNOWLEDGED_AFTER * n for n in range(1, 6)], abs=0.05)
    client.is_lost_on_the_way = False
    wire.run(lambda: client.link._sctp is not None and client.link._sctp.idle)
    already = len(client.unacknowledged_at)
    wire.run(lambda: wire.time > sent_at + 30.0)
    assert len(client.unacknowledged_at) == already


def test_on_a_direct_path_nothing_is_said() -> None:
    wire = Wire(1)
    client, _ = linked_hosts(wire)
    client.is_lost_on_the_way = True
    client.link.transmit(encode(Ping(2)))
    wire.run(lambda: wire.time > 3.0)
    assert not client.unacknowledged_at


def test_a_link_that_ceases_to_be_relayed_is_not_looked_at_any_more() -> None:
    wire = Wire(1)
    client, _ = linked_hosts(wire)
    client.link.move(circuit_address(CIRCUIT), None, PathKind.RELAYED)
    client.is_lost_on_the_way = True
    client.link.transmit(encode(Ping(1)))
    client.link.move(THERE, HERE, PathKind.HOST)
    wire.run(lambda: wire.time > 3.0)
    assert not client.unacknowledged_at
