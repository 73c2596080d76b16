"""An unmodified aiortc `RTCPeerConnection` at the other end, in every role it can take."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from overlay.core.addresses import candidate_priority
from overlay.core.events import Admit, LinkAlive, LinkLost, LinkSilent, LinkSuspect, PathMoved
from overlay.core.ice import liveness
from overlay.core.types import Address, Candidate, PeerId
from overlay.core.wire import dial_tokens as dial
from overlay.core.wire import sdp
from overlay.core.wire.messages import Ping
from tests.transport.nodes import PATIENCE, WALL, Node, udp_nodes
from tests.transport.udp.relay import relay_to

PEER = Path(__file__).parent / "stock_peer.py"


class Stock:
    """The process: give it orders, read what it says."""

    def __init__(self, process: trio.Process) -> None:
        self._process = process
        self._rest = b""

    async def order(self, **fields: object) -> None:
        assert self._process.stdin is not None
        await self._process.stdin.send_all(json.dumps(fields).encode() + b"\n")

    def stop(self) -> None:
        """It does not answer any more."""
        os.kill(self._process.pid, signal.SIGSTOP)

    async def says(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        with trio.fail_after(PATIENCE):
            while b"\n" not in self._rest:
                more = await self._process.stdout.receive_some()
                assert more, "the stock peer has died"
                self._rest += more
        line, _, self._rest = self._rest.partition(b"\n")
        said: dict[str, Any] = json.loads(line)
        return said


@asynccontextmanager
async def stock_peer(*servers: str) -> AsyncGenerator[Stock, None]:
    """A stock peer that dies with the block; it asks these STUN servers."""
    process = await trio.lowlevel.open_process(
        [sys.executable, str(PEER), *servers], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    async with process.stdin, process.stdout:
        try:
            yield Stock(process)
        finally:
            with trio.CancelScope(shield=True):
                process.kill()
                await process.wait()


def described(node: Node, setup: str) -> str:
    """The node's session description with the credentials that `Node.negotiate` uses."""
    return sdp.describe(
        sdp.Description(node.credentials, node.fingerprint, setup, node.candidates())
    )


def negotiate(node: Node, text: str, *, controlling: bool) -> None:
    """Start full ICE with what a stock peer's description says."""
    remote = sdp.parse(text)
    assert isinstance(remote, sdp.Description)
    assert remote.credentials is not None
    assert not controlling or remote.setup == "passive"
    node.negotiate(
        remote.credentials, remote.candidates, remote.fingerprint, controlling=controlling
    )


async def echoes(node: Node, stock: Stock) -> None:
    """The link has opened at both ends and carries messages both ways."""
    link = (await node.opened()).link
    assert await stock.says() == {"open": True}
    node.send(link, *[Ping(token) for token in range(200)])
    await node.until(lambda: len(node.received()) == 200)
    assert node.received() == [Ping(token) for token in range(200)]


async def test_our_offer_is_answered_by_a_stock_peer() -> None:
    async with udp_nodes("alice") as (alice,), stock_peer() as stock:
        await stock.order(do="answer", sdp=described(alice, "active"))
        negotiate(alice, (await stock.says())["sdp"], controlling=True)
        await echoes(alice, stock)


async def test_we_answer_the_offer_of_a_stock_peer() -> None:
    async with udp_nodes("alice") as (alice,), stock_peer() as stock:
        await stock.order(do="offer")
        negotiate(alice, (await stock.says())["sdp"], controlling=False)
        await stock.order(do="accept", sdp=described(alice, "passive"))
        await echoes(alice, stock)


@pytest.mark.parametrize("in_band", [False, True], ids=["negotiated channel", "in-band channel"])
async def test_a_stock_peer_dials_with_an_answer_that_was_fabricated(in_band: bool) -> None:
    async with udp_nodes("bob") as (bob,), stock_peer() as stock:
        await dialled(bob, stock, bob.address, in_band=in_band)
        opened = await bob.opened()
        assert opened.inbound
        assert opened.facts.token_id == b"invite 2"
        assert opened.facts.attempt == b"a" * 16
        await echoes(bob, stock)


async def dialled(node: Node, stock: Stock, address: Address, *, in_band: bool = False) -> None:
    """The stock peer dials the node at this address."""
    claim = dial.Claim(dial.INVITE, b"invite 2", int(WALL) + 60, b"a" * 16)
    token = dial.make_token(node.dial_key, claim.kind, claim.token_id, claim.expires_at)
    answer = sdp.fabricated_answer(
        address, dial.listener_credentials(token, claim), node.fingerprint
    )
    await stock.order(do="offer", in_band=in_band)
    await stock.says()
    await stock.order(do="accept", sdp=answer)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["dialled", "negotiated"])
async def test_a_silent_stock_peer_is_followed_when_its_nat_rebinds(kind: str) -> None:
    """It sends nothing but a check every four to six seconds, as RFC 7675 has it."""
    async with (
        udp_nodes("bob") as (bob,),
        relay_to(bob.address) as relay,
        stock_peer() as stock,
    ):
        if kind == "dialled":
            await dialled(bob, stock, relay.address)
        else:
            await stock.order(do="offer")
            theirs = sdp.parse((await stock.says())["sdp"])
            assert isinstance(theirs, sdp.Description)
            assert theirs.credentials is not None
            bob.negotiate(theirs.credentials, (), theirs.fingerprint, controlling=False)
            ours = (Candidate("host", relay.address, candidate_priority("host")),)
            answer = sdp.Description(bob.credentials, bob.fingerprint, "passive", ours)
            await stock.order(do="accept", sdp=sdp.describe(answer))
        link = (await bob.opened()).link
        assert await stock.says() == {"open": True}
        await relay.move()
        moved = await bob.next_of(PathMoved)
        assert moved.facts.remote == relay.seen_at
        bob.send(link, Ping(1))
        await bob.until(lambda: bob.received() == [Ping(1)])
        assert not bob.all_of(LinkSilent)


@pytest.mark.slow
async def test_a_stock_peer_that_checks_at_its_own_pace_does_not_flap(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ten times as fast as we are by default, and its four to six seconds are forty to sixty."""
    for name in ("IDLE_INTERVAL_CONTROLLED", "SUSPECT_TIMEOUT", "SILENT_TIMEOUT", "PROBE_INTERVAL"):
        monkeypatch.setattr(liveness, name, getattr(liveness, name) / 10)
    async with udp_nodes("bob") as (bob,), stock_peer() as stock:
        await dialled(bob, stock, bob.address)
        link = (await bob.opened()).link
        bob.transport.perform(Admit(link, PeerId(bytes(32))))
        await trio.sleep(6.0)  # in which it checks once
        assert not bob.all_of(LinkSuspect)
        assert not bob.all_of(LinkAlive)
        stock.stop()
        await bob.next_of(LinkSilent)


async def test_a_stock_peer_that_closes_is_known_to_have_gone() -> None:
    async with udp_nodes("alice") as (alice,):
        async with stock_peer() as stock:
            await stock.order(do="offer")
            negotiate(alice, (await stock.says())["sdp"], controlling=False)
            await stock.order(do="accept", sdp=described(alice, "passive"))
            await echoes(alice, stock)
            await stock.order(do="close")
            assert (await alice.next_of(LinkLost)).reason == "closed"
