"""What fidelity ``links`` leaves out changes no measure: a world of checks comes to the same.

The two cannot be equal node by node, since the first datagram more draws another number. So means
over seeds are compared, within what chance moves them.
"""

from statistics import fmean

import pytest

from overlay.core.types import Address
from overlay.sim.network.nat.firewalls import Firewalls
from overlay.sim.scenario.reading import read
from overlay.sim.scenario.running import run
from tests.soak import everyday

pytestmark = pytest.mark.slow
FULL, SMALL = (60, (1, 2, 3)), (24, (1, 2))
"""How many nodes, and the seeds of their runs; every day the small ones."""
MEASURES = ("joined", "reliability", "success", "success_connect", "degree", "path")
TOLERANCES = {
    # Of 120 requests in three runs two may fail of bad luck, and one node of 180 come late.
    "joined": 0.01,
    "reliability": 0.02,
    "success": 0.02,
    "success_connect": 0.02,
    # Over seeds, one run's mean degree has a standard deviation of 0.04 and its mean path one of
    # 0.04: the difference of two means of three has 0.033. Four times that.
    "degree": 0.13,
    "path": 0.13,
}


def measured(fidelity: str, seed: int, nodes: int) -> dict[str, float]:
    """A burst of joins, four in ten firewalled; a fifth crash at once; requests afterwards."""
    scenario = read(
        {
            "nodes": nodes,
            "duration": 75.0,
            "seed": seed,
            "fidelity": fidelity,
            "liveness": 0.0,
            "join": {"how": "burst", "within": 10.0, "firewalled": 0.4},
            "network": {"loss": 0.02},
            "faults": [{"at": 35.0, "do": "crash", "share": 0.2}],
            "publish": [{"start": 50.0, "stop": 65.0, "rate": 1.0}],
            "requests": [
                {"start": 50.0, "stop": 65.0, "rate": 2.0},
                {"start": 50.0, "stop": 60.0, "kind": "connect", "name": "connect"},
            ],
        },
        fidelity,
    )
    outcome = run(scenario)
    assert outcome.violation is None
    found = {name: outcome.measures[name] for name in MEASURES}
    return {name: value for name, value in found.items() if value is not None}


def means(fidelity: str, nodes: int, seeds: tuple[int, ...]) -> dict[str, float]:
    runs = [measured(fidelity, seed, nodes) for seed in seeds]
    return {name: fmean(run[name] for run in runs) for name in MEASURES}


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("nodes", "seeds"), everyday({SMALL}, [SMALL, FULL]))
def test_both_fidelities_come_to_the_same_measures(nodes: int, seeds: tuple[int, ...]) -> None:
    links, ice = means("links", nodes, seeds), means("ice", nodes, seeds)
    for name, tolerance in TOLERANCES.items():
        assert ice[name] == pytest.approx(links[name], abs=tolerance), name


def test_a_firewall_that_no_check_opens_is_another_world(monkeypatch: pytest.MonkeyPatch) -> None:
    """The counter-test: the measures do hang on what becomes of the checks."""

    def closed(self: Firewalls, source: Address, target: Address) -> tuple[Address, Address] | None:
        return None if self._is_firewalled(target) else (source, target)

    monkeypatch.setattr(Firewalls, "arriving", closed)
    assert measured("ice", 1, 60)["joined"] < 0.7
