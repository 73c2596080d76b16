"""ICE restarts over real sockets: the association, its messages and its streams go on."""

import pytest

from overlay.core.events import Admit, LinkLost, PathMoved, Restart
from overlay.core.types import Address, IceCredentials, LinkId, PeerId
from overlay.core.wire import dial_tokens as dial
from overlay.core.wire.messages import Ping
from overlay.transport.udp.transport import UdpTransport
from tests.transport.nodes import WALL, Node, stream_between, udp_nodes
from tests.transport.udp.relay import relay_to

FRESH = IceCredentials("fresh ufrag", "fresh password".ljust(24, "x"))


def remote_of(node: Node, link: LinkId) -> Address:
    """Where the node's datagrams on this link go."""
    statistics = node.transport.statistics(link)
    assert statistics is not None
    return statistics.remote


async def talk(alice: Node, ours: LinkId, bob: Node, theirs: LinkId, token: int) -> None:
    """A message crosses the link each way."""
    alice.send(ours, Ping(token))
    await bob.until(lambda: Ping(token) in bob.received())
    bob.send(theirs, Ping(token))
    await alice.until(lambda: Ping(token) in alice.received())


@pytest.mark.parametrize("dialler_asks", [True, False])
async def test_a_restart_takes_a_link_and_its_stream_to_a_path_that_works(
    dialler_asks: bool,
) -> None:
    async with udp_nodes("bob", "alice") as (bob, alice), relay_to(bob.address) as relay:
        ours = alice.dial(bob, address=relay.address)
        await alice.opened(ours)
        theirs = (await bob.opened()).link
        for node, link in ((alice, ours), (bob, theirs)):
            node.transport.perform(Admit(link, PeerId(bytes(32))))
        stream, far = await stream_between(alice, ours, bob)
        relay.loss = 1.0
        await stream.send_all(b"on its way")
        for node, link, controlling, local, remote, other in (
            (alice, ours, dialler_asks, alice.credentials, FRESH, bob),
            (bob, theirs, not dialler_asks, FRESH, alice.credentials, alice),
        ):
            node.transport.perform(
                Restart(
                    link, controlling, local, remote, node.candidates(), other.candidates(), 10.0
                )
            )
        await alice.next_of(PathMoved)
        await bob.next_of(PathMoved)
        assert remote_of(alice, ours) == bob.address
        assert remote_of(bob, theirs) == alice.address
        assert await far.receive_some() == b"on its way"
        await talk(alice, ours, bob, theirs, 1)
        assert not alice.all_of(LinkLost)
        assert not bob.all_of(LinkLost)


async def test_a_dialler_restarts_by_itself_with_nothing_but_its_token() -> None:
    """Its listener has not been told; the dialler sends no ClientHello."""
    async with udp_nodes("bob", "alice") as (bob, alice), relay_to(bob.address) as relay:
        ours = alice.dial(bob, address=relay.address)
        await alice.opened(ours)
        theirs = (await bob.opened()).link
        claim = dial.Claim(dial.INVITE, b"invite 1", int(WALL) + 3600, bytes(range(16)))
        token = dial.make_token(bob.dial_key, claim.kind, claim.token_id, claim.expires_at)
        listener = dial.listener_credentials(token, claim)
        relay.loss, controlling = 1.0, True
        alice.transport.perform(
            Restart(ours, controlling, FRESH, listener, alice.candidates(), bob.candidates(), 10.0)
        )
        moved = await bob.next_of(PathMoved)
        assert moved.facts.remote == alice.address
        await talk(alice, ours, bob, theirs, 1)
        assert isinstance(bob.transport, UdpTransport)
        assert len(bob.transport._endpoint._links) == 1
