"""Latency by places in a plane, by a matrix, or as drawn: for two nodes it is what it is."""

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from overlay.cli.main import run as command
from overlay.core.events import Resolved
from overlay.errors import ConfigError
from overlay.sim.network.conditions import Conditions, Drawn, Latencies, Matrix, Plane
from overlay.sim.scenario.profiles import conditions_of
from overlay.sim.scenario.reading import assignments, load, read
from overlay.sim.scenario.running import run
from overlay.sim.scenario.tracing import header
from overlay.sim.world import World

ROOT = Path(__file__).resolve().parents[3]
MATRIX = ROOT / "simulations" / "three-continents.csv"
PAIRS = list(itertools.product(range(12), repeat=2))
ROWS = ((0.001, 0.02, 0.3), (0.03, 0.001, 0.1), (0.3, 0.1, 0.001))


def content(**network: Any) -> dict[str, Any]:
    """A file's content: eight nodes for twenty seconds, and what the network is."""
    return {
        "nodes": 8,
        "duration": 20.0,
        "liveness": 0.0,
        "network": network,
        "publish": [{"start": 8.0, "stop": 12.0, "within": 5.0}],
    }


def wrong(**network: Any) -> str:
    """What is said of this network: one line."""
    with pytest.raises(ConfigError) as caught:
        read(content(**network), "file.toml")
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- what it is ----------------------------------------------------------------------------------


@pytest.mark.parametrize("latencies", [Plane(1, 0.1, 0.005), Drawn(1, 0.01, 0.05)])
def test_the_way_back_takes_as_long(latencies: Latencies) -> None:
    for one, other in PAIRS:
        assert latencies.between(one, other) == latencies.between(other, one)


def test_in_a_plane_no_detour_is_shorter() -> None:
    plane = Plane(3, 0.1, 0.005)
    for one, over, other in itertools.product(range(10), repeat=3):
        assert plane.between(one, other) <= plane.between(one, over) + plane.between(over, other)


def test_drawn_latencies_know_shorter_detours() -> None:
    """The counter-test: nobody is near to anybody there."""
    drawn = Drawn(3, 0.0, 0.1)
    assert any(
        drawn.between(one, other) > drawn.between(one, over) + drawn.between(over, other)
        for one, over, other in itertools.permutations(range(10), 3)
    )


def test_places_are_in_the_square_and_ways_take_the_base_besides() -> None:
    plane = Plane(2, 0.1, 0.005)
    ways = [plane.between(one, other) for one, other in PAIRS]
    assert all(0 <= at <= 0.1 for node in range(12) for at in plane.place(node))
    assert min(ways) == 0.005
    assert 0.05 < max(ways) <= 0.005 + 0.1 * 2**0.5


def test_a_place_hangs_on_seed_and_number_and_not_on_who_asks_first() -> None:
    one, other = Plane(5, 0.1, 0.0), Plane(5, 0.1, 0.0)
    later = one.between(7, 3)
    for node in range(10):
        other.place(node)
    assert other.between(7, 3) == later != Plane(6, 0.1, 0.0).between(7, 3)


def test_a_matrix_has_a_row_for_each_sender_and_begins_again_after_the_last() -> None:
    matrix = Matrix(ROWS)
    assert matrix.between(0, 1) == 0.02
    assert matrix.between(1, 0) == 0.03
    assert matrix.between(3, 4) == 0.02
    assert matrix.between(0, 3) == 0.001


# --- in a world ----------------------------------------------------------------------------------


@pytest.mark.parametrize("fidelity", ["links", "ice"])
def test_a_round_trip_takes_what_the_matrix_says(fidelity: str) -> None:
    world = World(1, Conditions(between=Matrix(ROWS), jitter=0.0), fidelity=fidelity)
    nodes = [world.spawn() for _ in range(3)]
    for node in nodes[1:]:
        world.join(node, world.invite(nodes[0]))
    world.run_for(10.0)
    for one, other in itertools.permutations(range(3), 2):
        request = world.trace(nodes[one], nodes[other])
        world.run_for(2.0)
        result = nodes[one].results[request]
        assert isinstance(result, Resolved)
        assert result.value.rtt == pytest.approx(ROWS[one][other] + ROWS[other][one], abs=1e-5)


@pytest.mark.parametrize("fidelity", ["links", "ice"])
def test_the_same_seed_gives_the_same_run(fidelity: str) -> None:
    usual = {**content(coordinates=0.1), "fidelity": fidelity}

    def trace_hash(**changes: Any) -> str:
        return run(read({**usual, **changes}, "file.toml")).trace_hash

    assert trace_hash() == trace_hash()
    assert trace_hash() != trace_hash(network={"coordinates": 0.2})
    assert trace_hash() != trace_hash(network={"matrix": [list(row) for row in ROWS]})


def test_a_plane_as_wide_as_another_network_is_slow_delays_as_much() -> None:
    """Twice the distances, twice the delay; nothing but distance delays here."""
    delays = []
    for side in (0.1, 0.2):
        network = {"coordinates": side, "base": 0.0, "jitter": 0.0}
        delays.append(run(read(content(**network), "file.toml")).measures["delay"])
    near, far = delays
    assert near is not None
    assert far is not None
    assert 1.5 < far / near < 2.5


# --- in a file -----------------------------------------------------------------------------------


def test_the_matrix_that_ships_is_read_from_beside_the_scenario(tmp_path: Path) -> None:
    (tmp_path / "there.csv").write_text(MATRIX.read_text())
    file = tmp_path / "far.toml"
    file.write_text(
        'nodes = 4\nduration = 9.0\n[join]\nevery = 0.1\n[network]\nmatrix = "there.csv"'
    )
    conditions = conditions_of(load(file))
    assert conditions.between is not None
    assert conditions.between.between(0, 1) > 0


def test_on_a_command_line_its_path_is_that_of_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here.csv").write_text("0.1\n")
    monkeypatch.chdir(tmp_path)
    path = ROOT / "simulations" / "first-mesh.toml"
    assert load(path, assignments(["network.matrix=here.csv"])).network.matrix == ((0.1,),)


def test_a_trace_holds_the_matrix_itself(tmp_path: Path) -> None:
    """So it can be replayed when the file is gone."""
    (tmp_path / "m.csv").write_text(MATRIX.read_text())
    scenario = read({"nodes": 4, "duration": 9.0, "network": {"matrix": "m.csv"}}, f"{tmp_path}/f")
    (tmp_path / "m.csv").unlink()
    first = json.loads(header("far", scenario, "0"))
    assert read(first["scenario"], "t.jsonl") == scenario


@pytest.mark.parametrize(
    ("network", "said"),
    [
        ({"coordinates": 0.0}, "network.coordinates: expected a number above 0, at most 10"),
        ({"coordinates": 11.0}, "network.coordinates: expected a number above 0, at most 10"),
        ({"coordinates": 0.1, "base": -1.0}, "network.base: expected a number from 0 to 10"),
        ({"base": 0.1}, "network.base: expected coordinates with it"),
        ({"coordinates": 0.1, "matrix": [[0.1]]}, "network.matrix: expected matrix or coordin"),
        ({"coordinates": 0.1, "latency": [0.1, 0.2]}, "network.latency: expected latency or co"),
        ({"matrix": [[0.1]], "latency": [0.1, 0.2]}, "network.latency: expected latency or matr"),
        ({"matrix": 3}, "network.matrix: expected the path of a CSV file with 1 to 2048 rows"),
        ({"matrix": []}, "network.matrix: expected 1 to 2048 rows, not 0"),
        ({"matrix": [[0.1, 0.2], [0.1]]}, "network.matrix: expected 2 numbers in row 2"),
        ({"matrix": [[0.1, 0.2]]}, "network.matrix: expected 1 numbers in row 1"),
        ({"matrix": [[-0.1]]}, "network.matrix: expected seconds from 0 to 10 in row 1, not -0.1"),
        ({"matrix": [["a"]]}, "network.matrix: expected the path of a CSV file"),
        ({"matrix": "none.csv"}, "network.matrix: none.csv cannot be read"),
    ],
)
def test_a_network_that_cannot_be_is_one_line_with_file_and_key(
    network: dict[str, Any], said: str
) -> None:
    assert wrong(**network).startswith(f"file.toml: {said}")


@pytest.mark.parametrize(
    ("matrix", "said"),
    [
        (b"0.1,0.2\n0.1\n", "m.csv: expected 2 numbers in row 2, one for each row, not 1"),
        (b"0.1,x\n0.1,0.1\n", "m.csv: expected numbers, not 'x'"),
        (b"nan\n", "m.csv: expected numbers, not 'nan'"),
        (b"11\n", "m.csv: expected seconds from 0 to 10 in row 1, not 11"),
        (b"\n", "m.csv: expected 1 to 2048 rows, not 0"),
        (b"\xff\xfe\n", "m.csv is not a CSV file"),
    ],
)
def test_a_wrong_matrix_is_one_line_and_exit_code_2(
    matrix: bytes,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.csv").write_bytes(matrix)
    (tmp_path / "far.toml").write_text('nodes = 4\nduration = 9.0\n[network]\nmatrix = "m.csv"\n')
    assert command(["sim", "run", "far.toml"]) == 2
    error = capsys.readouterr().err
    assert f"far.toml: network.matrix: {said}" in error
    assert error.strip().count("\n") == 0
