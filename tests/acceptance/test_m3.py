"""M3 as its user sees it: a black-box test for each line of the order that a user can see.

Worlds run here at sizes that take seconds, where their bands say nothing; what the full sizes came
to stands in ``benchmarks/simulations.json`` and is held here against the order.
"""

import contextlib
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.acceptance.black_box import LINKS_MOST, make, one_line_error, sh, suite
from tests.lab.nodes import OVERLAY, ROOT, Crew, Json, Node, Process, environment, wait_for
from tests.soak import everyday

FULL_SIZE = {
    "hyparview-table1": 10_000,
    "hyparview-first-message": 10_000,
    "hyparview-failures": 10_000,
    "hyparview-healing": 10_000,
    "cyclon-failures": 10_000,
    "plumtree-table1": 10_000,
    "plumtree-hops": 10_000,
    "byzantine-flood": 1_000,
    "signalling-cost": 10_000,
    "signalling-stale": 10_000,
    "signalling-churn": 1_000,
    "join-burst": 1_000,
    "partition-heal": 60,
    "iroh-scenarios": 1_000,
}
"""The scenarios of the order, and the least number of nodes that counts as their full size."""
OF_PAPERS = {name for name in FULL_SIZE if name.startswith(("hyparview", "plumtree"))}
KINDS = {
    "join", "crash", "publish", "deliver", "link_up", "link_down", "request", "answered",
}  # fmt: skip


def simulated(*args: str, seed: str = "1", code: int = 0) -> Json:
    """What ``overlay sim run … --json`` prints under this hash seed."""
    argv = [*OVERLAY, "sim", "run", *args, "--json"]
    env = environment({"PYTHONHASHSEED": seed})
    done = subprocess.run(
        argv, capture_output=True, text=True, timeout=110.0, cwd=ROOT, env=env, check=False
    )
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    (line,) = done.stdout.splitlines()
    answer: Json = json.loads(line)
    assert answer["ok"] is (code == 0)
    return answer


def full_runs() -> dict[str, Json]:
    """What ``make bench-sim`` has written: the shipped bands at full size, by scenario."""
    rows = json.loads((ROOT / "benchmarks" / "simulations.json").read_text())
    return {row["scenario"]: row for row in rows if row["bands_apply"]}


# --- 1. passive policies -------------------------------------------------------------------------


def test_a_flood_of_pushes_does_not_take_over_the_views() -> None:
    """Forty nodes for ten minutes; the shipped policy, which is no option to be found."""
    size = (
        "duration=600",
        "links.passive=15",
        "join.within=10",
        "requests.0.start=560",
        "requests.0.stop=580",
    )
    answer = simulated(
        "byzantine-flood", "--nodes", "40", *(word for each in size for word in ("--set", each))
    )
    assert answer["profile"] == "product"
    assert not [key for key in answer["config_diff"] if "policy" in key]
    found = {name: each["value"] for name, each in answer["measures"].items()}
    assert found["byzantine_view"] <= 0.5
    assert found["byzantine_samples"] <= 0.5
    assert found["isolated"] == 0
    suite("tests/sim/scenario/test_byzantine.py", "random_replacement_falls")


# --- 2. the keyspace -----------------------------------------------------------------------------


def place_of(node: Node) -> int:
    """Where a node stands on the ring, by the protocol's page alone."""
    digits = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
    number = 0
    for digit in node.peer_id:
        number = 58 * number + digits.index(digit)
    key = number.to_bytes(38, "big")[-32:]
    return int.from_bytes(hashlib.sha256(b"overlay ring 1" + key).digest()[:8], "big")


def ring_of(nodes: list[Node]) -> dict[str, set[str]]:
    """Whom each of these has to be linked to: the two next on either side."""
    around = [node.peer_id for node in sorted(nodes, key=place_of)]
    count = len(around)
    return {
        peer: {around[(at + step) % count] for step in (-2, -1, 1, 2)}
        for at, peer in enumerate(around)
    }


def has_ring(nodes: list[Node]) -> bool:
    """Whether every node is linked to its neighbours on the ring."""
    ring = ring_of(nodes)
    return all(ring[node.peer_id] <= node.neighbours() for node in nodes)


def mesh_of(crew: Crew, count: int, *settings: str) -> list[Node]:
    """So many processes, each joined by the invite of the one before it."""
    nodes: list[Node] = []
    for number in range(count):
        link = nodes[-1].ready["invite"] if nodes else None
        nodes.append(crew.node(f"n{number}").up(*settings, join=link))
    return nodes


@pytest.mark.slow
def test_each_node_of_a_mesh_is_linked_to_its_neighbours_on_the_ring(crew: Crew) -> None:
    nodes = mesh_of(crew, 16, "--set", "links.guests=3s")
    wait_for(lambda: has_ring(nodes), 60.0, "two ring neighbours on either side, everywhere")

    def counts() -> list[int]:
        counts = [len(node.neighbours()) for node in nodes]
        return counts if max(counts) <= LINKS_MOST and has_ring(nodes) else []

    degrees = wait_for(counts, 60.0, "the ring, within the budget of links")
    assert sum(degrees) / 2 < 16 * 15 / 2
    dead = nodes.pop(7)
    dead.kill()
    wait_for(lambda: has_ring(nodes), 60.0, "the ring closes over the one that died")


@pytest.mark.slow
def test_without_links_of_its_own_a_mesh_has_no_ring(crew: Crew) -> None:
    """The counter-test: the ring is the nodes' doing, and not a matter of chance."""
    nodes = mesh_of(crew, 16, "--set", "links.auto=false")
    assert not has_ring(nodes)


def test_a_mesh_that_was_cut_in_halves_is_one_again() -> None:
    answer = simulated("partition-heal", "--nodes", "24")
    assert answer["measures"]["connected"]["value"] == 1.0


# --- 3. routing ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_trace_goes_around_a_node_that_swallows_requests(crew: Crew) -> None:
    """The one in the middle is stopped: whoever handed it the request tries somebody else."""
    nodes = mesh_of(crew, 14, "--set", "links.full_mesh=0", "--set", "links.guests=2s")
    wait_for(lambda: has_ring(nodes), 60.0, "the ring")
    by_id = {node.peer_id: node for node in nodes}

    def far() -> tuple[Node, Node, list[str]] | None:
        for a in nodes:
            for b in nodes:
                if a is not b and b.peer_id not in a.neighbours():
                    hops = a.json("trace", b.peer_id)["hops"]
                    if len(hops) >= 2:
                        return a, b, hops
        return None

    found = wait_for(far, 60.0, "two that are not linked")
    assert found is not None
    a, b, hops = found
    assert hops[-1] == b.peer_id
    assert len(set(hops)) == len(hops), "never twice through a node"
    middle = by_id[hops[0]]
    middle.freeze()
    try:
        again = a.json("trace", b.peer_id)
    finally:
        middle.thaw()
    assert again["hops"][-1] == b.peer_id
    assert middle.peer_id not in again["hops"]


def test_signalling_costs_what_look_ahead_promises() -> None:
    """At 60 nodes the band of the order holds: 2.5 hops one way."""
    answer = simulated("signalling-cost", "--nodes", "60")
    hops = answer["measures"]["request_hops"]["value"]
    assert 1.0 <= hops <= 2.5
    assert answer["measures"]["success_trace"]["value"] == 1.0
    assert answer["measures"]["success_connect"]["value"] == 1.0
    suite("tests/sim/scenario/test_signalling.py", "negotiated_link_costs")


# --- 4. the simulator ----------------------------------------------------------------------------


def test_the_object_of_a_run_has_what_the_order_says() -> None:
    answer = simulated("first-mesh", "--nodes", "12")
    assert set(answer) == {
        "scenario", "profile", "nodes", "seed", "full_size", "config_diff", "measures", "ok",
        "events", "events_per_second", "peak_rss", "trace_hash",
    }  # fmt: skip
    assert (answer["nodes"], answer["full_size"]) == (12, False)
    assert answer["events"] > 100
    assert answer["events_per_second"] > 0
    assert answer["peak_rss"] > 10**7
    for name, measure in answer["measures"].items():
        assert set(measure) == {"value", "band", "ok"}, name
        assert measure["band"] is None, "at another size the bands say nothing"
        assert measure["ok"] is None
    assert simulated("first-mesh", "--nodes", "12", "--set", "links.active=4")["config_diff"]


def test_a_missed_band_is_exit_1() -> None:
    answer = simulated("first-mesh", "--set", "bands.hops=[9,9]", code=1)
    assert answer["measures"]["hops"]["ok"] is False
    assert answer["measures"]["reliability"]["ok"] is True


WORLD = """
about = "all that can happen to a mesh, written by somebody who writes no code"
nodes = 24
duration = 150.0
seed = 3

[join]
how = "burst"
within = 10.0
through = "random"

[network]
latency = [0.005, 0.03]
jitter = 0.002
loss = 0.01
reordering = 0.01
bandwidth = 1000000.0

[[faults]]
at = 30.0
do = "crash"
count = 2

[[faults]]
at = 35.0
do = "restart"

[[faults]]
at = 40.0
do = "leave"
count = 1

[[faults]]
at = 45.0
do = "freeze"
count = 2

[[faults]]
at = 49.0
do = "thaw"

[[faults]]
at = 55.0
do = "clock"
share = 0.5
by = 30.0

[[faults]]
at = 60.0
do = "partition"
parts = [0.5, 0.5]

[[faults]]
at = 70.0
do = "heal"

[[publish]]
start = 110.0
stop = 120.0

[[requests]]
start = 110.0
stop = 120.0
rate = 3.0

[bands]
reliability = [1.0, 1.0]
success = [1.0, 1.0]
connected = [1.0, 1.0]
"""


def test_anyone_can_write_a_scenario_without_code(tmp_path: Path) -> None:
    file = tmp_path / "everything.toml"
    file.write_text(WORLD)
    assert simulated(str(file))["full_size"] is True


def test_a_scenario_can_have_churn_and_adversaries(tmp_path: Path) -> None:
    """The reference on the page names the keys, and a run counts what they did."""
    page = (ROOT / "docs" / "simulation.md").read_text()
    reference = page.partition("## Every key")[2]
    assert "### `[churn]`" in reference
    assert "### `[[adversaries]]`" in reference
    for word in ("weibull", "drop", "lie", "replay", "forge", "swallow", "flood"):
        assert re.search(word, reference, re.IGNORECASE), word
    file = tmp_path / "churn.toml"
    churn = "[churn]\nstart = 80.0\nstop = 120.0\nshape = 0.5\nmedian = 300.0\n"
    file.write_text(WORLD.replace("[[publish]]", f"{churn}\n[[publish]]"))
    trace = tmp_path / "churn.jsonl"
    done = sh(*OVERLAY, "sim", "run", str(file), "--trace", str(trace), "--json")
    assert done.returncode in {0, 1}, done.stderr
    crashed = [event["t"] for event in events_of(trace) if event["kind"] == "crash"]
    assert any(80.0 < t < 120.0 for t in crashed)


def events_of(trace: Path) -> list[Json]:
    """The lines of a trace behind the first one."""
    return [json.loads(line) for line in trace.read_text().splitlines()[1:]]


def test_a_trace_tells_all_and_replays(tmp_path: Path) -> None:
    trace = tmp_path / "trace.jsonl"
    answer = simulated("first-mesh", "--nodes", "20", "--trace", str(trace))
    events = events_of(trace)
    assert {event["kind"] for event in events} == KINDS
    assert all({"t", "kind", "node"} <= set(event) for event in events)
    assert all("id" in event for event in events if event["kind"] not in {"join", "crash"})
    text = (ROOT / "tests" / "sim" / "scenario" / "recompute.py").read_text()
    assert "overlay" not in re.findall(r"^(?:from|import) (\w+)", text, re.MULTILINE)
    found = json.loads(
        sh(sys.executable, "-I", "tests/sim/scenario/recompute.py", str(trace)).stdout
    )
    assert {"reliability", "hops", "success"} <= set(found)
    for name, value in found.items():
        assert answer["measures"][name]["value"] == value, name
    replayed = sh(*OVERLAY, "sim", "replay", str(trace), "--json")
    assert replayed.returncode == 0
    assert json.loads(replayed.stdout)["trace_hash"] == answer["trace_hash"]
    lines = trace.read_text().splitlines(keepends=True)
    lines[40] = lines[40].replace('"t":', '"t":1')
    trace.write_text("".join(lines))
    assert sh(*OVERLAY, "sim", "replay", str(trace)).returncode == 1, "a changed line is noticed"


def test_the_hash_of_a_run_hangs_on_its_seed_and_on_nothing_else() -> None:
    world = ("first-mesh", "--nodes", "16")
    hashes = [simulated(*world, seed=seed)["trace_hash"] for seed in ("0", "1", "4711")]
    assert len(set(hashes)) == 1
    assert simulated(*world, "--seed", "2")["trace_hash"] != hashes[0]


def test_three_golden_hashes_are_committed() -> None:
    suite("tests/sim", "golden")
    text = (ROOT / "tests" / "sim" / "scenario" / "golden.json").read_text()
    hashes = re.findall(r'"[0-9a-f]{64}"', text)
    assert len(set(hashes)) >= 3


def test_cheap_worlds_and_dear_ones_agree() -> None:
    """Keepalives simulated and elided; the real codec and real crypto, and their stand-ins."""
    suite("tests/sim/network/test_fidelity.py", "keepalive or crypto or codec")


def test_a_run_leaves_a_report_that_stands_alone(tmp_path: Path) -> None:
    simulated("first-mesh", "--nodes", "12", "--report", str(tmp_path / "report"))
    (page,) = (tmp_path / "report").glob("*.html")
    text = page.read_text()
    assert "first-mesh" in text
    assert "reliability" in text
    fetched = re.findall(r"""(?:src|href)\s*=\s*["']([^"'#]+)""", text)
    assert all(each.startswith("data:") for each in fetched), fetched
    plots = list((tmp_path / "report").glob("*.png"))
    assert plots
    assert all(plot.read_bytes().startswith(b"\x89PNG") for plot in plots)


SWEEP = """
scenario = "first-mesh"
seeds = [1, 2]

[set]
nodes = 8
duration = 230.0

[sweep]
"network.loss" = [0.0, 0.05, 0.1]
"""


@pytest.mark.slow
def test_an_interrupted_sweep_loses_nothing_that_was_computed(tmp_path: Path) -> None:
    file, out = tmp_path / "losses.toml", tmp_path / "out"
    file.write_text(SWEEP)
    argv = [*OVERLAY, "sim", "sweep", str(file), "--output", str(out)]

    def computed() -> list[str]:
        return [line for each in out.glob("*.jsonl") for line in each.read_text().splitlines()]

    first = Process(argv)
    try:
        wait_for(computed, 100.0, "the first cell")
    finally:
        first.popen.send_signal(signal.SIGKILL)
        first.kill()
    before = computed()
    done = sh(*argv, timeout=110.0)
    assert done.returncode == 0, done.stderr
    after = computed()
    assert set(before) <= set(after)
    assert len(after) == len(set(after)) == 6, "every cell once"
    (table,) = out.glob("*.csv")
    assert len(table.read_text().splitlines()) == 7
    assert list(out.glob("*.png"))


# --- 5. scenarios --------------------------------------------------------------------------------


def test_every_named_scenario_comes_with_overlay_at_its_full_size() -> None:
    listed = [
        json.loads(line)
        for line in sh(*OVERLAY, "sim", "list", "--json").stdout.split("\n")
        if line
    ]
    nodes = {each["name"]: each["nodes"] for each in listed}
    assert not FULL_SIZE.keys() - nodes.keys()
    assert {name for name, least in FULL_SIZE.items() if nodes[name] < least} == set()
    for each in listed:
        if each["name"] in FULL_SIZE:
            scenario = tomllib.loads(Path(each["file"]).read_text())
            assert scenario["bands"], each["name"]
            paper = each["name"] in OF_PAPERS
            assert (scenario.get("profile", "product") == "paper") == paper, each["name"]


def section(page: str, title: str) -> str:
    """What stands on a page under a heading, up to the next one."""
    return page.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def test_every_named_scenario_has_been_run_at_full_size_and_stands_on_the_page() -> None:
    page = (ROOT / "docs" / "benchmarks.md").read_text()
    missed = section(page, "Bands that are missed")
    runs = full_runs()
    assert not FULL_SIZE.keys() - runs.keys()
    for name, least in FULL_SIZE.items():
        row = runs[name]
        assert row["full_size"] is True
        assert row["nodes"] >= least
        assert f"| `{name}` |" in page
        for measure, each in row["measures"].items():
            assert each["ok"] is not False or f"`{name}`: `{measure}`" in missed, (name, measure)
    assert sh(*make("-n", "bench-sim")).returncode == 0


def test_with_what_ships_no_fewer_hear_than_the_papers_ask_for() -> None:
    rows = json.loads((ROOT / "benchmarks" / "simulations.json").read_text())
    shipped = {row["scenario"]: row for row in rows if not row["bands_apply"]}
    missed = section((ROOT / "docs" / "benchmarks.md").read_text(), "Bands that are missed")
    assert not OF_PAPERS - shipped.keys()
    for name in OF_PAPERS:
        row = shipped[name]
        assert row["profile"] == "product", name
        assert row["nodes"] >= 2_000, name
        for measure, each in row["measures"].items():
            if each["band"] and measure.startswith("reliability"):
                heard = each["value"] >= each["band"][0]
                told = f"`{name}` with what ships: `{measure}`" in missed
                assert heard or told, (name, measure)


def test_scenarios_of_the_papers_hold_at_reduced_size() -> None:
    suite("tests/sim/scenario/test_papers.py", "test")
    suite("tests/sim/scenario/test_signalling.py", "not swarms")


# --- speed ---------------------------------------------------------------------------------------


def test_the_world_is_as_fast_as_ordered_or_the_page_says_why_not() -> None:
    rows = {row["name"]: row for row in json.loads((ROOT / "benchmarks/results.json").read_text())}
    benchmarks = (ROOT / "docs" / "benchmarks.md").read_text()
    missed = section(benchmarks, "Bars that are missed")
    events, seconds, mib = map(
        rows.get, ("sim-events", "sim-hundred-thousand-time", "sim-hundred-thousand-memory")
    )
    reached = {
        "sim-events": events and events["value"] >= 40_000,
        "sim-hundred-thousand-time": seconds and seconds["value"] <= 30 * 60,
        "sim-hundred-thousand-memory": mib and mib["value"] <= 8 * 1024,
    }
    for name, held in reached.items():
        assert name not in rows or rows[name]["ok"] is held
        assert bool(held) != (f"`{name}`" in missed), "met, or its figures and cause are told"
    page = (ROOT / "docs" / "simulation.md").read_text()
    for size in ("1,000", "10,000", "100,000"):
        assert re.search(rf"^\| {size} \|.*\|", page, re.MULTILINE), f"the curve at {size}"
    assert "bytes a node" in page


# --- real processes ------------------------------------------------------------------------------


def demonstration(
    *argv: str, timeout: float, start: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """`mesh60.py` to its end; nothing that it started may still be there then."""
    mark = f"demonstration {os.urandom(8).hex()}"
    done = subprocess.run(
        (*start, sys.executable, "demos/mesh60.py", "--json", *argv),
        capture_output=True,
        text=True,
        timeout=timeout,
        cwd=ROOT,
        env=environment({"MARKED_AS": mark}),
        check=False,
    )
    wait_for(lambda: not marked(mark), 5.0, "the end of all its nodes")
    return done


def marked(mark: str) -> list[str]:
    """Processes that have inherited this mark."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if mark.encode() in (process / "environ").read_bytes():
                found.append((process / "cmdline").read_text())
    return found


def test_what_a_demonstration_leaves_behind_is_found() -> None:
    mark = f"demonstration {os.urandom(8).hex()}"
    with subprocess.Popen(("sleep", "60"), env=environment({"MARKED_AS": mark})) as left:
        wait_for(lambda: marked(mark), 5.0, "the process that is left")
        left.kill()
    assert not marked(mark)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("nodes", everyday({24}, [24, 60]))
def test_a_mesh_of_processes_outlives_half_of_them(nodes: int) -> None:
    """`make mesh-60` has sixty. At a low priority: they would starve the tests beside this one."""
    plan = sh(*make("-n", "mesh-60")).stdout
    assert "demos/mesh60.py" in plan
    assert "--nodes" not in plan
    done = demonstration("--nodes", str(nodes), timeout=880.0, start=("nice",))
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout)
    assert told["nodes"] == nodes
    assert told["full_mesh"] == nodes * (nodes - 1) // 2
    assert told["links"] <= LINKS_MOST * nodes / 2 < told["full_mesh"]
    assert told["degree"]["min"] >= 4
    assert told["traces"]["asked"] == told["traces"]["answered"] == 100
    assert told["traces"]["hops"]["max"] >= 2
    assert told["killed"] == told["heard"] == nodes // 2
    after = told["after"]
    assert after["components"] == 1
    assert after["degree"]["min"] >= 1
    assert after["traces"]["asked"] == after["traces"]["answered"] == 100


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("broken", "nodes", "says"),
    [
        ("--no-links", 8, "4 links each"),
        ("--freeze-later", 16, "does not answer|survivors in one mesh"),
        pytest.param("--freeze-one", 16, "never heard", marks=pytest.mark.soak),
    ],
)
def test_the_mesh_of_processes_fails_when_it_should(broken: str, nodes: int, says: str) -> None:
    """The counter-tests: nobody opens links of its own; one is lost; a survivor cannot hear.

    With one that cannot hear, `mesh.py` fails every day, in `test_m1.py`.
    """
    done = demonstration(broken, "--nodes", str(nodes), "--patience", "40", timeout=280.0)
    assert done.returncode == 1, done.stdout + done.stderr
    assert re.search(rf"it did not hold: .*({says})", done.stderr, re.DOTALL), done.stderr
    assert done.stdout == ""


# --- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ("nodes = 8\nduration = 9.0\nnoddes = 9", ["noddes", "nodes"]),
        (
            "nodes = 8\nduration = 9.0\n[[publish]]\nstart = 1.0\nstop = 2.0\nrate = -1.0",
            ["rate", "0"],
        ),
        ('nodes = 8\nduration = 9.0\n[[faults]]\nat = 20.0\ndo = "crash"', ["faults", "at", "9"]),
        ('nodes = 8\nduration = 9.0\nprofile = "fast"', ["profile", "product", "paper"]),
    ],
    ids=["unknown key", "negative rate", "impossible timeline", "unknown profile"],
)
def test_a_mistake_in_a_scenario_is_one_line(tmp_path: Path, wrong: str, words: list[str]) -> None:
    file = tmp_path / "wrong.toml"
    file.write_text(wrong)
    done = sh(*OVERLAY, "sim", "run", str(file))
    assert done.stdout == ""
    one_line_error(done, "wrong.toml", *words, code=2)


def test_a_mistake_in_a_sweep_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "wrong.toml"
    for wrong, word in (
        (SWEEP.replace("[set]", "[sett]"), "sett"),
        (SWEEP.replace("network.loss", "network.los"), "network.los"),
        (SWEEP.replace("0.05", "-1.0"), "network.loss"),
        (SWEEP.replace("first-mesh", "first-mess"), "first-mess"),
    ):
        assert wrong != SWEEP
        file.write_text(wrong)
        done = sh(*OVERLAY, "sim", "sweep", str(file), "--output", str(tmp_path / "out"))
        one_line_error(done, word, code=2)


# --- done when -----------------------------------------------------------------------------------


def test_fifteen_lines_test_a_world_in_an_empty_directory(tmp_path: Path) -> None:
    """As the page shows it; `.ci/wheel.py` does the same with the wheel in a new environment."""
    page = (ROOT / "docs" / "testing.md").read_text()
    blocks = re.findall(r"```python test\n(.*?)```", page, re.DOTALL)
    (program,) = [block for block in blocks if "(world" in block][:1]
    assert len(program.splitlines()) <= 15
    (tmp_path / "test_world.py").write_text(program)
    done = sh(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", cwd=tmp_path)
    assert re.search(r"[1-9] passed", done.stdout), done.stdout
    (tmp_path / "test_world.py").write_text(program.replace("assert ", "assert not "))
    done = sh(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", cwd=tmp_path)
    assert done.returncode == 1, "it can fail"
    assert "world" in (ROOT / ".ci" / "wheel.py").read_text()
