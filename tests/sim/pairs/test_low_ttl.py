"""Boxes and hops do to a pair what was measured on real routers, low TTL included.

The first packets of a node to the outer address of the other get a TTL here, by the test: what is
proven is the world, not the node.
"""

from dataclasses import dataclass, replace

import pytest

from overlay.core.types import Address
from overlay.sim.network.ice import IceNetwork
from overlay.sim.network.nat.firewalls import Way
from overlay.sim.network.nat.kinds import KINDS, Kind
from overlay.sim.node import SimNode
from overlay.sim.pairs.pair import Options, PairWorld, Path

OPEN = "open_input", "open_input"
ICE_ALONE = {"low_ttl": 0, "prediction": False, "birthday": False}
ONE_ROUTER = Options(routers=1, patience=3.0, settings=ICE_ALONE)


@dataclass
class Low:
    """Lowers the TTL of what one node sends to the other's home, until it hears from there."""

    pair: PairWorld
    ttl: int
    sender: SimNode
    lasts: float
    """Or for so many seconds after its first packet."""
    heard: bool = False
    began_at: float | None = None

    def __post_init__(self) -> None:
        network = self.pair.world.network
        assert isinstance(network, IceNetwork)
        send, inward = network.send, self.pair.homes.inward
        outer = {home.outer for home in self.pair.at}

        def lowered(
            node: SimNode,
            data: bytes,
            target: Address,
            ttl: int | None = None,
            local: Address | None = None,
        ) -> None:
            between = node is self.sender and target.host in outer
            send(node, data, target, self.ttl if between and self.is_low() else ttl, local)

        def listening(source: Address, target: Address, ttl: int) -> Way | None:
            way = inward(source, target, ttl)
            self.heard |= way is not None and source.host in outer and way[1] == self.sender.address
            return way

        network.send = lowered  # type: ignore[method-assign]
        self.pair.homes.inward = listening  # type: ignore[method-assign]

    def is_low(self) -> bool:
        now = self.pair.world.now
        if self.began_at is None:
            self.began_at = now
        return not self.heard and now <= self.began_at + self.lasts


Ends = tuple[str | Kind, str | Kind]


def path(
    ends: Ends,
    ttl: int = 0,
    options: Options = ONE_ROUTER,
    *,
    offerer: bool = False,
    lasts: float = float("inf"),
) -> Path:
    """How a pair is linked if its answerer (or its offerer) sends with this TTL; 0: with none."""
    found = set[Path]()
    for seed in range(2):
        pair = PairWorld(*ends, seed, options)
        assert pair.gather() is None
        if ttl:
            Low(pair, ttl, pair.a if offerer else pair.b, lasts)
        found.add(pair.connect().path)
    (one,) = found
    return one


@pytest.mark.parametrize("routers", [1, 2])
def test_two_routers_that_early_packets_spoil_need_a_low_ttl(routers: int) -> None:
    """It works as long as it dies before the other's NAT, which is 2k + 2 with k routers a side."""
    options = replace(ONE_ROUTER, routers=routers)
    assert path(OPEN, options=options) is Path.RELAYED
    highest = 2 * routers + 2
    for ttl in (2, 4, highest):
        assert path(OPEN, ttl, options) is Path.DIRECT, ttl
    for ttl in (1, highest + 1):
        assert path(OPEN, ttl, options) is Path.RELAYED, ttl


def test_only_the_first_mover_needs_it() -> None:
    assert path(OPEN, 4) is Path.DIRECT
    assert path(OPEN, 4, offerer=True) is Path.RELAYED


def test_one_such_router_needs_it_if_its_host_asks_first() -> None:
    ends = "open_input", "port_restricted"
    assert path(ends) is Path.RELAYED
    assert path(ends, 4) is Path.DIRECT
    assert path(ends[::-1]) is Path.DIRECT
    assert path(ends[::-1], 4) is Path.DIRECT


def test_with_slow_signalling_it_has_to_last_until_the_other_is_heard() -> None:
    """The answer takes 400 ms; a check with an ordinary TTL after 150 ms spoils it all."""
    slow = replace(ONE_ROUTER, signalling=0.2)
    assert path(OPEN, options=slow) is Path.RELAYED
    assert path(OPEN, 4, slow) is Path.DIRECT
    assert path(OPEN, 4, slow, lasts=0.15) is Path.RELAYED


def test_behind_a_carrier_it_has_to_be_three() -> None:
    """With two it dies at the carrier's NAT, and has opened the home's alone."""
    behind = Kind("behind", carrier=replace(KINDS["open_input"], name="carrier"))
    assert path(("open_input", behind)) is Path.RELAYED
    assert path(("open_input", behind), 2) is Path.RELAYED
    assert path(("open_input", behind), 3) is Path.DIRECT


@pytest.mark.parametrize("kind", ["public", "full_cone", "port_restricted", "symmetric_random"])
def test_no_other_pair_loses_by_it(kind: str) -> None:
    """Once the answer has come over and some time is past, nothing is low any more."""
    for other in ("full_cone", "address_restricted", "port_restricted"):
        assert path((other, kind), 4, lasts=0.25) is path((other, kind)), other


def test_who_stays_low_until_it_is_heard_may_never_be() -> None:
    """The counter-test: only a symmetric NAT's own packets can say which port it has this time."""
    ends = "full_cone", "symmetric_random"
    assert path(ends, 4, lasts=0.25) is Path.DIRECT
    assert path(ends, 4) is Path.RELAYED
