"""Invites in whole nodes: made with neighbours' help, redeemed by one dial of many, or refused."""

import msgspec
import pytest

from overlay.core.admission.invites import JOIN_REST_MAX, JOINING
from overlay.core.connect.dialling import DIAL_TIMEOUT
from overlay.core.events import (
    ClockSet,
    Listening,
    MakeInvite,
    Recall,
    Report,
    Resolved,
)
from overlay.core.types import Address, Negotiated
from overlay.core.wire import invite as invites
from overlay.core.wire.documents import InviteMember, Record
from overlay.sim.clock import EPOCH
from overlay.sim.world import World
from tests.core.worlds import chain, is_full_mesh, rejected


def test_a_join_that_cannot_work_says_why() -> None:
    world = World(1)
    host = world.spawn()
    invite = world.invite(host, expires_in=100.0)
    stranger = world.spawn(network=b"\1" * 32)
    assert rejected(world, stranger, world.join(stranger, invite)).code == "network"

    forged = msgspec.structs.replace(
        invite, grant=msgspec.structs.replace(invite.grant, signature=bytes(64))
    )
    guest = world.spawn()
    assert rejected(world, guest, world.join(guest, forged)).code == "refused"

    skewed = world.spawn()
    world.feed(skewed, ClockSet(EPOCH + world.now - 86_400))
    clock = rejected(world, skewed, world.join(skewed, invite))
    assert (clock.code, "clock" in clock.text) == ("clock", True)

    wrong = msgspec.structs.replace(invite.members[0], fingerprint=bytes(32))
    request = world.join(guest, msgspec.structs.replace(invite, members=[wrong]))
    certificate = rejected(world, guest, request)
    assert (certificate.code, "certificate" in certificate.text) == ("certificate", True)
    assert guest.core.status().refused["certificate"] == 1

    world.crash(host)
    gone = rejected(world, guest, world.join(guest, invite))
    assert gone.code == "unreachable"

    world.run_for(200.0)
    assert rejected(world, guest, world.join(guest, invite)).code == "expired"


def test_an_invite_names_neighbours_and_works_without_its_maker() -> None:
    world = World(4)
    nodes = chain(world, 4)
    world.run_until(lambda: is_full_mesh(nodes), within=30.0)
    alone = world.invite(nodes[0], members=1)
    shared = world.invite(nodes[0], members=4)
    assert len(alone.members) == 1
    assert 2 <= len(shared.members) <= 4
    world.crash(nodes[0])
    late, later = world.spawn(), world.spawn()
    assert rejected(world, late, world.join(late, alone)).code == "unreachable"
    request = world.join(later, shared)
    world.run_until(lambda: request in later.results, within=10.0)
    assert later.results[request] == Resolved(request, None)


def test_a_link_leads_to_members_whom_it_names_by_their_certificates_alone() -> None:
    """Its maker is gone, and of the others it carries no ids."""
    world = World(4)
    nodes = chain(world, 4)
    world.run_until(lambda: is_full_mesh(nodes), within=30.0)
    made = world.invite(nodes[0], members=4)
    late = world.spawn(direct=False)
    read = invites.decode(invites.encode(made), late.crypto)
    assert [bool(member.peer_id) for member in read.members[:2]] == [True, False]
    world.crash(nodes[0])
    request = world.join(late, read)
    world.run_until(lambda: request in late.results, within=10.0)
    assert late.results[request] == Resolved(request, None)
    assert late.neighbours() & {node.peer_id for node in nodes[1:]}
    again = world.join(late, read)
    world.run_until(lambda: again in late.results, within=10.0)
    assert late.results[again] == Resolved(again, None), "whoever answered is linked already"


def test_an_invite_follows_the_addresses_and_there_is_none_without_any() -> None:
    world = World(3)
    one, two = chain(world, 2)
    world.run_until(lambda: is_full_mesh([one, two]), within=30.0)
    new = Address("203.0.113.99", 4000)
    for addresses in ((one.address, new), (new,)):
        world.feed(one, Listening(addresses))
        assert hosts_of(world.invite(one).members[0]) == {each.host for each in addresses}
        world.run_for(1.0)
        (record,) = [each for each in two.core.known() if each.peer_id == one.peer_id]
        assert hosts_of(record) == {each.host for each in addresses}
    world.feed(one, Listening(()))
    request = world.request(one, lambda r: MakeInvite(r, 60.0, 1))
    assert rejected(world, one, request).code == "no_address"
    world.feed(one, Listening((new,)))
    assert hosts_of(world.invite(one).members[0]) == {new.host}


def hosts_of(who: Record | InviteMember) -> set[str]:
    return {entry.host for entry in who.addresses}


def test_a_neighbour_is_never_named_by_loopback_alone() -> None:
    """Stated: who listened on loopback, too, named neighbours by theirs: of another machine."""
    world = World(4)
    nodes = chain(world, 3)
    world.run_until(lambda: is_full_mesh(nodes), within=30.0)
    own = nodes[0].address
    for each in nodes:
        world.feed(each, Listening((each.address, Address("127.0.0.1", 4000))))
    world.run_for(2.0)
    for member in world.invite(nodes[0], members=4).members[1:]:
        assert hosts_of(member) - {"127.0.0.1"}
    for each in nodes[1:]:
        world.feed(each, Listening((Address("127.0.0.1", 4000),)))
    world.run_for(2.0)
    (alone,) = world.invite(nodes[0], members=4).members
    assert own.host in hosts_of(alone)


def test_a_dial_token_opens_only_the_node_that_made_it() -> None:
    """The counter-test of the invite: another kind of token, or another node's, opens nothing."""
    world = World(6)
    host, other = world.spawn(), world.spawn()
    invite = world.invite(host)
    (member,) = invite.members
    stolen = world.invite(other).members[0]
    swapped = msgspec.structs.replace(member, token=stolen.token)
    guest = world.spawn()
    request = world.join(guest, msgspec.structs.replace(invite, members=[swapped]))
    assert rejected(world, guest, request).code == "unreachable"


def test_an_invite_does_not_wait_for_a_neighbour_that_says_nothing() -> None:
    world = World(4)
    nodes = chain(world, 3)
    world.run_until(lambda: is_full_mesh(nodes), within=30.0)
    world.freeze(nodes[1])
    before = world.now
    invite = world.invite(nodes[0], members=4)
    assert nodes[1].peer_id not in [member.peer_id for member in invite.members]
    assert world.now - before <= 1.1


def test_a_record_that_is_too_old_or_another_networks_joins_nobody() -> None:
    world = World(13)
    one, two = chain(world, 2)
    world.run_for(2.0)
    stranger = world.spawn(network=b"\3" * 32)
    world.feed(stranger, Recall((one.cache[two.peer_id], b"garbage")))
    assert stranger.core.known() == []
    world.feed(stranger, ClockSet(EPOCH + world.now + 100 * 86_400))
    late = world.spawn()
    world.feed(late, ClockSet(EPOCH + world.now + 100 * 86_400))
    world.feed(late, Recall((one.cache[two.peer_id],)))
    assert late.core.known() == []


@pytest.mark.parametrize("up", [1, 4])
def test_of_the_members_that_an_invite_names_one_takes_the_newcomer_in(up: int) -> None:
    """Whichever answers first; of the others, hardly one has answered by then, too."""
    joined = 0
    for seed in range(5):
        world = World(seed)
        nodes = [world.spawn(advertised=True)]
        for _ in range(11):
            nodes.append(world.spawn(advertised=True))
            world.join(nodes[-1], world.invite(nodes[0]))
            world.run_for(0.5)
        invite = world.invite(nodes[3], members=4)
        named = [node for node in nodes if node.peer_id in {m.peer_id for m in invite.members}]
        assert len(named) == 4
        for node in named[up:]:
            world.crash(node)
        newcomer = world.spawn()
        request = world.join(newcomer, invite)
        world.run_for(2.0)
        assert isinstance(newcomer.results[request], Resolved)
        views = newcomer.core.peers()
        joined += sum(each.negotiated is Negotiated.INVITE for each in views)
    assert 5 <= joined <= (5 if up == 1 else 10)


def test_a_join_goes_on_until_somebody_answers() -> None:
    world = World(21)
    host, early, hasty = world.spawn(), world.spawn(), world.spawn()
    invite = world.invite(host)
    said: list[str] = []
    world.observe(
        lambda node, effect: (
            said.append(effect.fields["text"])
            if node is early and isinstance(effect, Report) and effect.event == JOINING
            else None
        )
    )
    world.crash(host)
    request, short = world.join(early, invite), world.join(hasty, invite, timeout=6.0)
    world.after(12.0, lambda: world.restart(host))
    world.run_until(lambda: request in early.results, within=30.0)
    assert early.results[request] == Resolved(request, None)
    assert world.now < 12.0 + JOIN_REST_MAX + DIAL_TIMEOUT
    assert len(said) in (1, 2, 3)
    assert all("1 address has answered yet" in text for text in said), said
    assert rejected(world, hasty, short).code == "unreachable", "its time was up before"


def test_a_join_whose_time_is_up_leaves_nothing_under_way() -> None:
    world = World(22)
    host, late = world.spawn(), world.spawn()
    invite = world.invite(host)
    world.crash(host)
    result = rejected(world, late, world.join(late, invite, timeout=3.0))
    assert world.now <= 3.1
    assert "within 3 s" in result.text
    world.restart(host)
    world.run_for(30.0)
    assert late.neighbours() == set(), "nobody goes on dialling for it"


@pytest.mark.parametrize("wrong", ["expired", "network", "version", "forged"])
def test_who_is_refused_for_good_hears_so_at_once(wrong: str) -> None:
    world = World(23)
    host = world.spawn(wire=(7, 7)) if wrong == "version" else world.spawn()
    invite = world.invite(host, expires_in=100.0)
    guest = world.spawn(network=b"\1" * 32) if wrong == "network" else world.spawn()
    if wrong == "expired":
        world.run_for(101.0)
    elif wrong == "forged":
        invite = msgspec.structs.replace(invite, seed=b"\7" * 32)
    began_at = world.now
    result = rejected(world, guest, world.join(guest, invite))
    assert result.code == ("refused" if wrong == "forged" else wrong)
    assert world.now - began_at < 1.0


def test_who_is_linked_to_a_member_of_the_invite_has_joined() -> None:
    world = World(11, checked=True)
    issuer, node = world.spawn(), world.spawn()
    link = world.invite(issuer)
    for _ in range(2):
        request = world.join(node, link)
        world.run_for(3.0)
        assert node.results[request] == Resolved(request, None)
