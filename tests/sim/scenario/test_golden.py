"""Three runs whose trace hashes are committed: the same everywhere, under any hash seed."""

import pytest

from tests.sim.scenario.golden import RUNS, golden, hash_of
from tests.soak import everyday

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("run", RUNS.values(), ids=list(RUNS))
@pytest.mark.parametrize("hash_seed", everyday({"4711"}, ["0", "4711"]))
def test_golden_hash(run: str, hash_seed: str) -> None:
    """If the change was meant to change the trace: python -m tests.sim.scenario.golden"""
    assert hash_of(run, hash_seed) == golden()[run]


def test_golden_hashes_are_not_those_of_other_runs() -> None:
    """The counter-test: the hash hangs on what happens."""
    one, other = (hash_of(f"first-mesh --nodes 8 --seed {seed}", "0") for seed in (1, 2))
    assert one != other
    assert one not in golden().values()
    assert set(golden()) == set(RUNS.values())
