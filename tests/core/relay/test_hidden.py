"""A hidden node (``links.relay_only``) names no address, and sends to nobody but its relays."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from overlay.core import context
from overlay.core.connect import answering, offering
from overlay.core.connect.table import Table
from overlay.core.context import Context
from overlay.core.events import (
    Dial,
    MakeInvite,
    Negotiate,
    OpenPort,
    Rejected,
    Resolved,
    Restart,
    Wakeup,
)
from overlay.core.ice import stun
from overlay.core.link.links import LinkState
from overlay.core.types import Address, IceCredentials, LinkId, PathKind
from overlay.core.wire import dial_tokens as dial
from overlay.core.wire.documents import AnswerBody, OfferBody, Record
from overlay.sim.clock import EPOCH
from overlay.sim.network.ice import IceNetwork
from overlay.sim.node import SimNode
from overlay.sim.world import World
from tests.core.relay.test_relayed import STEADY, connect, link_of, path, remote_of

RELAYED = (PathKind.RELAYED, LinkState.UP)
BOTH = pytest.mark.parametrize("hidden", [True, False], ids=["hidden", "not hidden"])
"""What holds of a hidden node has to be false of another, or the test shows nothing."""


def world_of(seed: int = 0) -> World:
    return World(seed, STEADY, checked=True, fidelity="ice")


def mesh(world: World, *, hidden: bool = True, **settings: Any) -> tuple[SimNode, ...]:
    """A member, another one, and a node that has joined by the first one's invite."""
    anchor = world.spawn(**settings)
    others = [world.spawn(**settings), world.spawn(relay_only=hidden, **settings)]
    for each in others:
        world.join(each, world.invite(anchor))
        world.run_until(partial(is_linked, anchor, each), within=10.0)
        world.run_for(3.0)
    return anchor, *others


def is_linked(one: SimNode, other: SimNode) -> bool:
    return other.peer_id in one.neighbours()


def sent_to(world: World, node: SimNode) -> set[Address]:
    """Where datagrams of this node go from now on."""
    targets: set[Address] = set()
    network = world.network
    assert isinstance(network, IceNetwork)
    leaving = network.leaving

    def leave(source: Address, target: Address) -> tuple[Address, Address] | None:
        if source.host == node.address.host:
            targets.add(target)
        return leaving(source, target)

    network.leaving = leave
    return targets


def record_of(holder: SimNode, node: SimNode) -> Record:
    (record,) = [each for each in holder.core.known() if each.peer_id == node.peer_id]
    return record


# --- what it says ------------------------------------------------------------------------------


@BOTH
def test_its_record_has_no_address_and_no_dial_token(hidden: bool) -> None:
    world = world_of()
    anchor, other, node = mesh(world, hidden=hidden)
    world.run_for(30.0)
    for holder in (anchor, other):
        record = record_of(holder, node)
        assert (record.addresses == [], record.token is None) == (hidden, hidden)
    assert bool(node.core.addresses()) != hidden


@BOTH
def test_its_offers_and_answers_have_no_candidates(
    hidden: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    bodies: list[OfferBody | AnswerBody] = []

    def noting(module: object, name: str) -> None:
        seal: Callable[..., object] = getattr(module, name)

        def sealed(context: Context, body: OfferBody | AnswerBody, *rest: object) -> object:
            bodies.append(body)
            return seal(context, body, *rest)

        monkeypatch.setattr(module, name, sealed)

    noting(offering, "seal_offer")
    noting(answering, "seal_answer")
    world = world_of()
    _, other, node = mesh(world, hidden=hidden, auto=False, direct=False)
    connect(world, node, other)
    world.run_for(10.0)
    _, third, another = mesh(world, hidden=hidden, auto=False, direct=False)
    connect(world, third, another)
    world.run_for(10.0)
    own = [each for each in bodies if each.sender in (node.peer_id, another.peer_id)]
    assert {type(each) for each in own} == {OfferBody, AnswerBody}
    assert all(not each.candidates for each in own) == hidden


@BOTH
def test_an_invite_of_its_own_names_its_relays_alone(hidden: bool) -> None:
    world = world_of()
    anchor, _, node = mesh(world, hidden=hidden)
    world.run_for(5.0)
    body = world.invite(node)
    assert (node.peer_id in [each.peer_id for each in body.members]) != hidden
    newcomer = world.spawn()
    request = world.join(newcomer, body)
    world.run_until(lambda: request in newcomer.results, within=10.0)
    assert newcomer.results[request] == Resolved(request, None)
    assert newcomer.neighbours() == {(anchor if hidden else node).peer_id}


def test_without_a_relay_it_has_nobody_whom_an_invite_could_name() -> None:
    world = world_of()
    node = world.spawn(relay_only=True)
    request = world.request(node, lambda name: MakeInvite(name, 60.0, 4))
    result = node.results[request]
    assert isinstance(result, Rejected)
    assert "relay_only" in result.text


# --- where it sends ----------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("seed", range(3))
def test_every_datagram_of_it_goes_to_a_member_whom_its_invite_names(
    seed: int, hidden: bool
) -> None:
    world = world_of(seed)
    anchor = world.spawn()
    members = [world.spawn() for _ in range(4)]
    node = world.spawn(relay_only=hidden)
    private = world.spawn(relay_only=hidden)
    targets = sent_to(world, node)
    for each in (*members, node, private):
        world.join(each, world.invite(anchor))
        world.run_for(2.0)
    for one, other in ((node, members[0]), (members[1], node), (node, private)):
        assert isinstance(connect(world, one, other), Resolved)
    world.run_for(5.0)
    world.publish(members[2], b"from afar")
    world.publish(node, b"from here")
    world.run_for(90.0)
    assert {each.data for each in node.delivered} >= {b"from afar"}
    assert {each.data for each in members[3].delivered} >= {b"from here"}
    assert (targets == {anchor.address}) == hidden
    if hidden:
        for other in (members[0], members[1], private):
            assert path(node, other) == path(other, node) == RELAYED
            assert node.core._relaying.circuits.relay_of(remote_of(node, other)) == anchor.peer_id


@BOTH
def test_after_a_restart_it_calls_those_alone_to_whom_it_was_linked_itself(hidden: bool) -> None:
    world = world_of()
    anchor, other, node = mesh(world, hidden=hidden)
    assert isinstance(connect(world, node, other), Resolved)
    world.run_for(5.0)
    world.crash(node)
    world.run_for(5.0)
    world.crash(anchor)
    targets = sent_to(world, node)
    world.restart(node)
    world.run_for(60.0)
    assert (targets == {anchor.address}) == hidden
    assert set(node.cache) - {node.peer_id} == {anchor.peer_id} or not hidden


def test_in_a_mesh_that_is_not_full_it_keeps_its_relay_and_misses_nothing() -> None:
    world = World(0, STEADY, checked=True)
    anchor = world.spawn()
    others = world.burst(13, anchor, over=5.0)
    world.run_for(30.0)
    node = world.spawn(relay_only=True)
    world.join(node, world.invite(anchor))
    world.run_for(10.0)
    texts = [bytes([number]) for number in range(8)]
    for other, text in zip(others, texts, strict=False):
        world.publish(other, text)
        world.run_for(15.0)
        assert node.neighbours() == {anchor.peer_id}
    assert [each.data for each in node.delivered] == texts


@BOTH
def test_nobody_knocks_for_it_and_it_knocks_for_nobody(hidden: bool) -> None:
    world = world_of()
    opened: list[SimNode] = []
    world.observe(lambda node, e: opened.append(node) if isinstance(e, OpenPort) else None)
    anchor = world.spawn(host="5.1.0.10", advertised=True)
    node = world.spawn(host="5.2.0.10", firewalled=True, relay_only=hidden)
    world.join(node, world.invite(anchor))
    world.run_for(30.0)
    assert (node not in opened) == hidden
    assert (anchor not in opened) == hidden


# --- how it is reached -------------------------------------------------------------------------


def apart(world: World) -> tuple[SimNode, SimNode, SimNode, SimNode]:
    """A hidden node and another, with a member each between them: node, its own, other's, other."""
    settings: dict[str, Any] = {"auto": False, "direct": False}
    own, others = world.spawn(**settings), world.spawn(**settings)
    node, other = world.spawn(relay_only=True, auto=False), world.spawn(auto=False)
    for each, contact in ((others, own), (node, own), (other, others)):
        world.join(each, world.invite(contact))
        world.run_for(3.0)
    world.run_for(10.0)
    assert node.neighbours() == {own.peer_id}
    assert other.neighbours() == {others.peer_id}
    return node, own, others, other


@pytest.mark.parametrize("asks", ["it", "the other"])
def test_without_a_common_neighbour_the_other_end_gets_to_its_relay(asks: str) -> None:
    world = world_of()
    node, own, _, other = apart(world)
    targets = sent_to(world, node)
    ends = (node, other) if asks == "it" else (other, node)
    assert isinstance(connect(world, *ends), Resolved)
    world.run_for(2.0)
    assert path(node, other) == path(other, node) == RELAYED
    assert node.core._relaying.circuits.relay_of(remote_of(node, other)) == own.peer_id
    assert targets == {own.address}


@pytest.mark.parametrize("dials", ["it", "the other"])
def test_when_its_relay_dies_the_one_in_reserve_takes_its_place(dials: str) -> None:
    world = world_of()
    anchor, second, other = (world.spawn(auto=False) for _ in range(3))
    node = world.spawn(relay_only=True, auto=False)
    for each in (second, other, node):
        world.join(each, world.invite(anchor))
        world.run_for(2.0)
    for each in (other, node):
        world.join(each, world.invite(second))
        world.run_for(8.0)
    targets = sent_to(world, node)
    ends = (node, other) if dials == "it" else (other, node)
    assert isinstance(connect(world, *ends), Resolved)
    world.run_for(2.0)
    before, used = (
        link_of(node, other),
        node.core._relaying.circuits.relay_of(remote_of(node, other)),
    )
    world.crash(anchor if used == anchor.peer_id else second)
    world.run_for(8.0)
    assert link_of(node, other) == before, "the link goes on"
    assert path(node, other) == path(other, node) == RELAYED
    assert node.core._relaying.circuits.relay_of(remote_of(node, other)) not in (None, used)
    assert targets <= {anchor.address, second.address}


@pytest.mark.parametrize("careful", [True, False], ids=["careful", "careless"])
def test_a_relay_that_a_peer_names_is_not_called(
    careful: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It might be the peer's own, and see from where it is called."""
    if not careful:
        monkeypatch.setattr(context, "hidden", lambda settings: settings)
    world = world_of()
    node, own, others, other = apart(world)
    targets = sent_to(world, node)
    connect(world, other, node)
    world.run_for(30.0)
    assert (targets == {own.address}) == careful
    assert (others.address in targets) != careful


# --- what it answers ---------------------------------------------------------------------------


@BOTH
def test_dials_and_questions_from_elsewhere_get_no_answer(hidden: bool) -> None:
    """Even with a token of its own making, such as its records had before it was hidden."""
    world = world_of()
    _, other, node = mesh(world, hidden=hidden, auto=False)
    targets = sent_to(world, node)
    network = world.network
    assert isinstance(network, IceNetwork)
    dial_directly(world, other, node, dial.MEMBER)
    question = stun.encode(stun.binding_request(bytes(12)), None)
    network.send(other, question, node.address)
    world.run_for(6.0)
    assert (other.address in targets) != hidden


def dial_directly(world: World, one: SimNode, other: SimNode, kind: int) -> None:
    """A dial to where the other is in truth, with a token that it would have made."""
    expires_at = int(EPOCH + world.now) + 1000
    token = dial.make_token(other.settings.dial_key, kind, bytes(8), expires_at)
    remote = dial.listener_credentials(token, dial.Claim(kind, bytes(8), expires_at, b"a" * 16))
    local = IceCredentials("f" * 32, "p" * 32)
    addresses, fingerprint = (other.address,), other.crypto.fingerprint
    effect = Dial(LinkId(7000), addresses, fingerprint, remote, local, b"a" * 16, 5.0)
    world.network.perform(one, effect)


@pytest.mark.parametrize("kind", [dial.CIRCUIT, dial.MEMBER], ids=["of a ticket", "of a record"])
def test_the_token_of_a_ticket_opens_nobody_to_a_direct_dial(kind: int) -> None:
    world = world_of()
    _, other, node = mesh(world, hidden=False, auto=False)
    network = world.network
    assert isinstance(network, IceNetwork)
    dial_directly(world, other, node, kind)
    world.run_for(6.0)
    refused = network.port(node).endpoint.counters["refused_token"]
    assert (refused > 0) == (kind == dial.CIRCUIT)


@pytest.fixture
def rude(monkeypatch: pytest.MonkeyPatch) -> None:
    """Others do not care that a node is hidden: they offer it restarts and candidates."""
    monkeypatch.setattr(Table, "is_hidden", lambda table, _: table.context.settings.relay_only)


@pytest.mark.usefixtures("rude")
@BOTH
@pytest.mark.parametrize("dials", ["it", "the other"])
def test_offers_to_restart_ice_do_not_make_it_check_anybody(hidden: bool, dials: str) -> None:
    world = world_of()
    anchor, other, node = mesh(world, hidden=hidden, auto=False, direct=False)
    targets = sent_to(world, node)
    checks: list[SimNode] = []
    kinds = (Negotiate, Restart)
    world.observe(lambda at, effect: checks.append(at) if isinstance(effect, kinds) else None)
    ends = (node, other) if dials == "it" else (other, node)
    assert isinstance(connect(world, *ends), Resolved)
    world.run_for(1.0)
    before = link_of(node, other)
    # The other end has had enough of the relay, again and again.
    for _ in range(3):
        attempts = other.core._connecting.table.of(node.peer_id)
        world.run_for(12.0)
        other.core._connecting._offer(attempts, world.now)
        world.feed(other, Wakeup())
        world.run_for(12.0)
    assert link_of(node, other) == before
    assert (node not in checks) == hidden
    assert (targets <= {anchor.address}) == hidden
    assert (path(node, other) == RELAYED) == hidden
