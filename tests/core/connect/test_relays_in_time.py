"""The way over a relay is not given up early: where much is lost, or an offer is declined."""

from typing import Any

import pytest

from overlay.core.connect.table import Table
from overlay.core.relay.circuits import Circuits
from overlay.sim.network.conditions import Conditions
from overlay.sim.network.ice import IceNetwork
from overlay.sim.pairs.pair import Options, PairWorld, Path

ENDS = "symmetric_random", "symmetric_random"
"""Both NATs are known to leave no direct path, so each declines the other's offer."""


@pytest.mark.parametrize("seed", [3, 4, 10, 23])
def test_where_one_packet_in_seven_is_lost_two_find_each_other_by_relay(seed: int) -> None:
    """Each of the two ways of a circuit loses as many; one in six pairs gave up before."""
    lossy = Conditions(latency=(0.02, 0.03), loss=0.15)
    pair = PairWorld(*ENDS, seed, Options(acquainted=8.0, patience=0.0, conditions=lossy))
    assert pair.gather() is None
    found = pair.connect()
    assert found.path is Path.RELAYED, found.text


@pytest.mark.parametrize("stands", [1, 2])
def test_beside_a_circuit_over_which_nothing_comes_another_one_is_dialled(
    stands: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The dial over the first goes on: were the second to wait for its end, so would the user."""
    pair = PairWorld(*ENDS, 1, Options(acquainted=8.0, patience=0.0))
    assert pair.gather() is None
    network = pair.world.network
    assert isinstance(network, IceNetwork)
    passes, dead = network._passes_over, list[Any]()

    def passes_over(sender: Any, circuit: Any, receiver: Any) -> bool:
        if len(dead) < stands and circuit not in dead:
            dead.append(circuit)
        return circuit not in dead[:stands] and bool(passes(sender, circuit, receiver))

    monkeypatch.setattr(network, "_passes_over", passes_over)
    found = pair.connect()
    if stands == 1:
        assert found.path is Path.RELAYED, found.text
        assert found.seconds < 3.0
    else:
        assert found.path is Path.NONE
        assert "relay" in found.text


def test_relays_that_a_declined_answer_names_are_gone_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one who asks knows of none itself, and has no neighbour in common with the other."""
    pair = PairWorld(*ENDS, 1, Options(patience=0.0))
    first, second, third = pair.publics
    assert pair._join([second, third], first) is None
    assert pair._join([pair.a], first) is None
    assert pair._join([pair.b], second) is None
    pair.world.run_until(pair._are_known, 40.0, "the records of all")
    pair.world.run_for(8.0)
    entries = Circuits.entries
    asking = pair.a.core._connecting._detours.circuits
    monkeypatch.setattr(
        Circuits, "entries", lambda self, *told: [] if self is asking else entries(self, *told)
    )
    monkeypatch.setattr(Table, "is_hopeless", lambda self, _: True)
    found = pair.connect()
    assert found.path is Path.RELAYED, found.text
    assert found.seconds < 2.0
