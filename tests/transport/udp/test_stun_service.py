"""Anybody may ask a node's port for its address (RFC 8489): programs that know nothing of us do."""

import re
import shutil
import subprocess

import pytest
import trio

from overlay.core.endpoint.strangers import AWAITED_MAX
from overlay.core.events import Await, Seen
from overlay.core.ice import stun
from overlay.core.limits import BURST, SOURCES_MAX
from overlay.core.types import Address
from tests.transport.nodes import Node, udp_nodes
from tests.transport.udp.test_faults import udp
from tests.transport.udp.test_stock_peer import stock_peer


def request(transaction: bytes) -> bytes:
    return stun.encode(stun.binding_request(transaction), None)


@pytest.mark.skipif(shutil.which("turnutils_stunclient") is None, reason="coturn is not installed")
async def test_coturns_client_is_told_its_address() -> None:
    async with udp_nodes("bob") as (bob,):
        port = bob.transport.listen[0].port
        done = await trio.run_process(
            ["turnutils_stunclient", "-p", str(port), "127.0.0.1"],
            capture_stdout=True,
            stderr=subprocess.STDOUT,
        )
        assert re.search(rb"UDP reflexive addr: 127\.0\.0\.1:\d+", done.stdout)
        assert udp(bob)._endpoint.counters["stun_served"] >= 1


async def test_a_stock_peer_that_uses_a_node_as_its_ice_server_gets_a_reflexive_candidate() -> None:
    async with udp_nodes("bob") as (bob,), stock_peer(str(bob.address)) as stock:
        await stock.order(do="offer")
        offer = (await stock.says())["sdp"]
        assert re.search(r"^a=candidate:.* typ srflx", offer, re.MULTILINE)
    async with stock_peer() as stock:  # the counter-test: without a server there is none
        await stock.order(do="offer")
        assert "srflx" not in (await stock.says())["sdp"]


async def test_a_flood_gets_few_answers_and_leaves_nothing() -> None:
    async with udp_nodes("bob") as (bob,):
        answers = await flooded(bob, 20 * int(BURST))
        strangers = udp(bob)._endpoint._strangers
        assert 0 < answers <= 2 * BURST
        assert len(strangers.buckets) <= SOURCES_MAX
        assert len(strangers.allowance) <= SOURCES_MAX
        assert udp(bob)._endpoint.counters["rate_limited"] >= 17 * BURST


async def flooded(bob: Node, count: int) -> int:
    """How many of so many requests, sent at once from one socket, are answered."""
    with trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM) as socket:
        await socket.bind(("127.0.0.1", 0))
        for number in range(count):
            await socket.sendto(request(number.to_bytes(12, "big")), bob.address)
            if number % 50 == 0:
                await trio.sleep(0.001)  # so that the kernel's buffer holds them
        return await answered(socket)


async def answered(socket: trio.socket.SocketType) -> int:
    """How many datagrams wait in a socket; each is an answer of a fair size."""
    answers = 0
    while True:
        with trio.move_on_after(0.5) as scope:
            data = await socket.recv(2048)
            assert len(data) <= 3 * len(request(bytes(12)))
            answers += 1
        if scope.cancelled_caught:
            return answers


async def test_what_the_core_waits_for_is_told_once_and_nothing_else() -> None:
    async with udp_nodes("bob") as (bob,):
        wanted, other = b"w" * 12, b"o" * 12
        bob.transport.perform(Await(wanted))
        with trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM) as socket:
            await socket.bind(("127.0.0.1", 0))
            ours = Address(*socket.getsockname())
            for transaction in (other, wanted, wanted):
                await socket.sendto(request(transaction), bob.address)
            assert await bob.next_of(Seen) == Seen(wanted, ours)
            knock = stun.encode(stun.binding_indication(other), None)
            bob.transport.perform(Await(other))
            await socket.sendto(knock, bob.address)
            assert await bob.next_of(Seen, 1) == Seen(other, ours)
        assert len(bob.all_of(Seen)) == 2


async def test_what_is_waited_for_is_bounded() -> None:
    async with udp_nodes("bob") as (bob,):
        for number in range(3 * AWAITED_MAX):
            bob.transport.perform(Await(number.to_bytes(12, "big")))
        assert len(udp(bob)._endpoint._strangers._awaited) == AWAITED_MAX
