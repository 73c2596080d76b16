"""A router that is switched off and on: its host's links go on, whoever has an old mapping."""

import pytest

from overlay.core.types import LinkId
from overlay.sim.pairs.pair import Options, PairWorld, Path

KIND = "port_restricted_hashed"
"""A port-restricted NAT that gives other ports after a restart."""
BACK = 20.0
"""Seconds; the path of each link is asked, found to be lost, and another one negotiated."""


def linked(publics: int, seed: int) -> tuple[PairWorld, LinkId]:
    """Two homes that are linked directly, the first one to so many others besides."""
    alone = {"circuits": False}  # a relay would hide that no direct path is looked for
    pair = PairWorld(KIND, KIND, seed, Options(settings=alone))
    first, *others = pair.publics
    assert pair._join(others, first) is None
    for public in pair.publics[:publics]:
        assert pair._join([pair.a, pair.b], public) is None
    pair.world.run_until(pair._are_known, 40.0, "the records of all")
    pair.world.run_for(8.0)
    assert pair.connect().path is Path.DIRECT
    pair.world.run_for(20.0)
    return pair, pair.a.core._links.by_peer[pair.b.peer_id].id


@pytest.mark.parametrize("publics", [1, 2, 3])
@pytest.mark.parametrize("outage", [0.0, 10.0])
@pytest.mark.parametrize("seed", range(3))
def test_a_link_goes_on_when_a_router_restarts(publics: int, outage: float, seed: int) -> None:
    """Found in the laboratory: the peer's word of the old mapping, against that of the one
    neighbour that was heard again, made the NAT look as if no direct path could be.
    """
    pair, link = linked(publics, seed)
    if outage:
        others = [pair.b, *pair.publics]
        pair.world.partition([[pair.a], others])
        pair.world.run_for(outage)
        pair.world.heal()
    pair.at[0].forget()
    pair.world.run_for(0.0 if outage else 6.0)  # without an outage nobody has noticed yet

    def is_back() -> bool:
        ends = (pair.a, pair.b), (pair.b, pair.a)
        return all(one.core._links.is_up(other.peer_id) for one, other in ends)

    pair.world.run_until(is_back, BACK, "the link")
    assert pair.a.core._links.by_peer[pair.b.peer_id].id == link, "it is another one"
