"""Where datagrams go among homes, which boxes they pass, and where those of a low TTL die."""

from dataclasses import replace

import pytest

from overlay.core.endpoint.outputs import Send
from overlay.core.types import Address
from overlay.sim.network.ice import IceNetwork
from overlay.sim.network.nat.firewalls import TTL
from overlay.sim.network.nat.homes import Home, Homes
from overlay.sim.network.nat.kinds import KINDS, Kind
from overlay.sim.node import SimNode
from overlay.sim.world import World

PUBLIC = Address("5.1.0.10", 4000)
TURNING = replace(KINDS["port_restricted"], name="turning", hairpin=True)


class Internet:
    """A world with one public host, and homes as a test likes."""

    def __init__(self, routers: int = 3) -> None:
        self.world = World(1, fidelity="ice")
        assert isinstance(self.world.network, IceNetwork)
        self.network = self.world.network
        self.homes = Homes(self.network, routers=routers)
        self.public = self.world.spawn(host=PUBLIC.host)

    def host(self, home: Home) -> SimNode:
        return self.world.spawn(host=home.new_host())

    def node(self, kind: str | Kind) -> SimNode:
        return self.host(self.homes.home(kind))

    def send(
        self, sender: SimNode, target: Address, ttl: int = TTL
    ) -> tuple[SimNode, Address] | None:
        """Who gets a datagram, and from where as he sees it."""
        way = self.homes.outward(sender.address, target, ttl)
        arrived = None if way is None else self.homes.inward(*way)
        receiver = None if arrived is None else self.world.by_address.get(arrived[1])
        return None if arrived is None or receiver is None else (receiver, arrived[0])

    def outer(self, node: SimNode) -> Address:
        """Where the public host sees a node, which has sent there now."""
        found = self.send(node, PUBLIC)
        assert found is not None
        assert found[0] is self.public
        return found[1]


def test_a_home_is_seen_at_its_outer_address_and_answered_there() -> None:
    net = Internet()
    home = net.homes.home("port_restricted")
    node = net.host(home)
    assert net.send(net.public, Address(home.outer, 4000)) is None
    outer = net.outer(node)
    assert outer == Address(home.outer, 4000)
    assert net.send(net.public, outer) == (node, PUBLIC)
    other = net.node("public")
    assert net.send(other, outer) is None
    assert net.send(node, other.address) == (other, outer)
    assert net.send(other, outer) == (node, other.address)


def test_a_public_home_has_neither_nat_nor_filter() -> None:
    net = Internet()
    home = net.homes.home("public")
    node = net.host(home)
    assert home.outer == node.address.host
    assert net.send(net.public, node.address) == (node, PUBLIC)
    assert net.outer(node) == node.address


def test_a_firewall_without_a_nat_stands_before_its_hosts_and_not_between_them() -> None:
    net = Internet()
    home = net.homes.home(Kind("firewall", is_nat=False))
    node, other = net.host(home), net.host(home)
    assert net.send(net.public, node.address) is None
    assert net.send(other, node.address) == (node, other.address)
    assert net.outer(node) == node.address
    assert net.send(net.public, node.address) == (node, PUBLIC)


def test_hosts_of_one_home_meet_on_its_lan() -> None:
    net = Internet()
    home = net.homes.home("symmetric_random")
    one, other = net.host(home), net.host(home)
    assert net.send(one, other.address) == (other, one.address)
    assert net.send(one, other.address, ttl=1) == (other, one.address), "no router is between"


def test_a_private_address_leads_nowhere_from_elsewhere() -> None:
    """But the NAT of whoever sends there has made a mapping: the next one has the next number."""
    net = Internet()
    one, other = net.node("symmetric_sequential"), net.node("port_restricted")
    first = net.outer(one).port
    assert net.send(one, other.address) is None
    assert net.send(net.public, other.address) is None
    net.world.spawn(host="5.2.0.10")
    found = net.send(one, Address("5.2.0.10", 4000))
    assert found is not None
    assert found[1].port == first + 2


@pytest.mark.parametrize("hairpin", [True, False])
def test_hairpinning_is_the_kinds(hairpin: bool) -> None:
    """RFC 4787 §6: with the outer source address; as in the laboratory nothing is filtered."""
    net = Internet()
    home = net.homes.home(replace(TURNING, hairpin=hairpin))
    one, other = net.host(home), net.host(home)
    outers = [net.outer(one), net.outer(other)]
    assert net.send(one, outers[1]) == ((other, outers[0]) if hairpin else None)
    assert net.send(one, Address(home.outer, 9)) is None, "nothing is mapped there"
    assert net.send(net.node("public"), outers[1]) is None


@pytest.mark.parametrize("hairpin", [True, False])
def test_homes_of_one_carrier_meet_at_its_nat(hairpin: bool) -> None:
    """Where each home's own filter has still to let the other in."""
    net = Internet()
    carrier = net.homes.carrier(replace(TURNING, hairpin=hairpin))
    one, other = (net.host(net.homes.home("port_restricted", carrier=carrier)) for _ in range(2))
    outers = [net.outer(one), net.outer(other)]
    assert outers[0].host == outers[1].host
    assert net.send(other, outers[0]) is None
    found = net.send(one, outers[1])
    assert found == ((other, outers[0]) if hairpin else None)


def test_behind_a_carrier_two_nats_are_passed() -> None:
    net = Internet()
    home = net.homes.home("carrier")
    node = net.host(home)
    outer = net.outer(node)
    assert outer.host == home.outer
    assert home.gateway.outside is not None
    assert home.outer != home.gateway.hosts[0]
    assert net.send(net.public, outer) == (node, PUBLIC)
    home.forget()
    assert net.send(net.public, outer) is None, "the inner one has forgotten"


def test_only_homes_with_a_nat_are_put_behind_a_carrier() -> None:
    net = Internet()
    with pytest.raises(ValueError, match="public"):
        net.homes.home("public", carrier=net.homes.carrier())


def test_a_home_that_moves_is_seen_elsewhere() -> None:
    net = Internet()
    home = net.homes.home("port_restricted")
    node = net.host(home)
    before = net.outer(node)
    assert home.move() != before.host
    assert net.send(net.public, before) is None
    assert net.outer(node) == Address(home.outer, before.port)
    assert net.send(net.public, net.outer(node)) == (node, PUBLIC)


# --- TTL -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("routers", [1, 2, 3])
@pytest.mark.parametrize("kind", ["port_restricted", "carrier"])
def test_a_low_ttl_opens_its_own_nat_and_dies_before_the_other(kind: str, routers: int) -> None:
    """Works from 2 on (behind a carrier's NAT from 3 on), up to 2k + 2 with k routers a side."""
    nats = 2 if kind == "carrier" else 1
    for ttl in range(1, 2 * routers + 6):
        net = Internet(routers)
        one, other = net.node(kind), net.node("open_input")
        seen_at, others = net.outer(one), net.outer(other)
        assert net.send(one, others, ttl) is None, "the other's filter lets nobody in"
        # Has our own been opened, and did nothing come to the other's that would spoil its port?
        found = net.send(other, seen_at)
        opened, spoilt = ttl > nats, ttl > nats + 2 * routers + 1
        assert (found == (one, others)) == (opened and not spoilt), (ttl, found)


def test_a_ttl_that_suffices_changes_nothing() -> None:
    """The way is 3 + 1 + 3 routers, the own NAT and the other's; each takes one."""
    net = Internet()
    one, other = net.node("port_restricted"), net.node("full_cone")
    target = net.outer(other)
    assert net.send(one, target, 9) is None
    assert net.send(one, target, 10) is not None


def arrivals(world: World, sender: SimNode, receiver: SimNode, ttl: int | None) -> int:
    """How many of one datagram that an endpoint sends with this TTL come to the receiver's port."""
    heard = list[Address]()
    network = world.network
    assert isinstance(network, IceNetwork)
    port, outputs = network.port(sender), [None, Send(b"a datagram", receiver.address, None, ttl)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(port.endpoint, "poll", outputs.pop)
        patch.setattr(network.port(receiver), "receive", lambda *given: heard.append(given[1]))
        port.perform_soon()
        world.run_for(1.0)
    return len(heard)


@pytest.mark.parametrize(("ttl", "arrives"), [(5, 0), (6, 1), (None, 1)])
def test_a_datagram_of_a_world_may_have_a_ttl_of_its_own(ttl: int | None, arrives: int) -> None:
    """A home's NAT, three routers and the core are on the way."""
    net = Internet()
    assert arrivals(net.world, net.node("port_restricted"), net.public, ttl) == arrives


def test_without_homes_nobody_counts_routers() -> None:
    world = World(1, fidelity="ice")
    assert arrivals(world, world.spawn(), world.spawn(), 1) == 1
