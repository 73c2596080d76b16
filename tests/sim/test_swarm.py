"""Swarms of faults, drawn from seeds: no promise breaks during them, and all is well after them."""

import hashlib
import os
import subprocess
import sys
from collections.abc import Collection

import pytest

from overlay.core.events import Effect
from overlay.sim.node import SimNode
from tests.sim.swarm import Run, draw
from tests.soak import everyday

SEEDS = range(30)
EVERYDAY = {2, 5, 6, 8, 9, 12, 15, 19, 24, 27}
"""Among them they have every fault, losses of a tenth, and six in ten that cannot be dialled."""


@pytest.mark.parametrize("seed", everyday(EVERYDAY, SEEDS))
def test_whatever_happens_the_mesh_keeps_its_promises_and_heals(
    seed: int, request: pytest.FixtureRequest
) -> None:
    Run(seed, f"pytest '{request.node.nodeid}'").run()


@pytest.mark.parametrize("seed", everyday({2, 8, 22}, [1, 2, 4, 7, 8, 11, 13, 22, 28, 29]))
def test_so_it_does_where_every_check_is_a_datagram(
    seed: int, request: pytest.FixtureRequest
) -> None:
    Run(seed, f"pytest '{request.node.nodeid}'", "ice").run()


def test_three_nodes_beside_six_whose_views_are_full_of_each_other_come_in() -> None:
    Run(182).run()


@pytest.mark.parametrize("seeds", [EVERYDAY, SEEDS], ids=["every day", "soak"])
def test_plans_differ_and_every_fault_is_drawn_by_some_seed(seeds: Collection[int]) -> None:
    kinds = {kind for seed in seeds for _, kind, _ in draw(seed).faults}
    assert kinds == {
        "burst", "clock", "crash", "freeze", "leave", "partition", "restart", "split",
    }  # fmt: skip
    assert len({repr(draw(seed)) for seed in seeds}) == len(seeds)


def history(seed: int) -> str:
    """A digest of all that the nodes of a swarm did."""
    run, digest = Run(seed), hashlib.sha256()

    def note(node: SimNode, effect: Effect) -> None:
        digest.update(f"{run.world.clock.now_us} {node.name} {effect!r}".encode())

    run.world.observe(note)
    run.run()
    return f"{digest.hexdigest()} {run.world.events}"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_seed_makes_one_history_under_any_hash_seed() -> None:
    """In processes of their own: the order of a set must decide nothing."""
    code = "from tests.sim.test_swarm import history; print(history(3))"
    histories = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for hash_seed in ("0", "4711")
    }
    assert len(histories) == 1
    assert histories != {history(4) + "\n"}, "the digest tells nothing apart"
