"""What only sockets can show: one port for many links, wildcards, both families, overflow."""

from overlay.core.events import LinkLost, LinkOpened, Listening, Transmit
from overlay.core.types import Address, EndReason
from overlay.core.wire.messages import Goodbye, Ping
from tests.transport.nodes import Node, linked, udp_nodes


async def test_a_peer_that_does_not_keep_up_loses_its_link_and_no_other() -> None:
    async with udp_nodes("alice", "bob", "carol") as (alice, bob, carol):
        ours, _ = await linked(alice, bob)
        other = alice.dial(carol, attempt=bytes(16))
        await alice.opened(other)
        big = Goodbye("x", "y" * 1000)
        for _ in range(5000):
            alice.transport.perform(Transmit(ours, big))
        assert await alice.next_of(LinkLost) == LinkLost(ours, EndReason.OVERFLOW)
        alice.send(other, Ping(7))
        await carol.until(lambda: carol.received() == [Ping(7)])


async def test_dials_at_once_share_one_port() -> None:
    names = [f"peer{number}" for number in range(20)]
    async with udp_nodes("hub", *names) as (hub, *peers):
        for number, peer in enumerate(peers):
            peer.dial(hub, attempt=bytes([number]) * 16)
        for peer in peers:
            await peer.opened()
        await hub.until(lambda: len({event.facts.remote for event in _opened(hub)}) == 20)
        assert len({event.facts.exporter for event in _opened(hub)}) == 20


def _opened(node: Node) -> list[LinkOpened]:
    return node.all_of(LinkOpened)


async def test_a_wildcard_socket_answers_from_the_address_that_was_asked() -> None:
    async with (
        udp_nodes("alice") as (alice,),
        udp_nodes("bob", listen=Address("0.0.0.0", 0)) as (bob,),
    ):
        listening = bob.all_of(Listening)[0]
        assert all(address.host != "0.0.0.0" for address in listening.addresses)
        link = alice.dial(bob, address=Address("127.0.0.2", bob.address.port))
        assert (await alice.opened(link)).facts.remote.host == "127.0.0.2"
        assert (await bob.opened()).facts.local.host == "127.0.0.2"


async def test_ipv6_works_like_ipv4() -> None:
    async with udp_nodes("alice", "bob", listen=Address("::1", 0)) as (alice, bob):
        ours, _ = await linked(alice, bob)
        alice.send(ours, Ping(6))
        await bob.until(lambda: bob.received() == [Ping(6)])


async def test_the_wildcard_of_ipv6_takes_both_families_on_one_port() -> None:
    async with (
        udp_nodes("four") as (four,),
        udp_nodes("six", listen=Address("::1", 0)) as (six,),
        udp_nodes("hub", listen=Address("::", 0)) as (hub,),
    ):
        assert len({address.port for address in hub.transport.listen}) == 1
        port = hub.address.port
        await four.opened(four.dial(hub, address=Address("127.0.0.1", port)))
        await six.opened(six.dial(hub, address=Address("::1", port), attempt=bytes(16)))
