"""`overlay sim sweep` as real processes: interrupted, killed, gone on with; nothing left over."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from overlay.cli import main
from tests.cli.complaints import complaint
from tests.lab.nodes import OVERLAY, ROOT, Json, Process, environment, overlay, wait_for
from tests.soak import everyday

SMALL = """
nodes = 6
duration = 40.0
liveness = 0.0
[[requests]]
start = 10.0
stop = 25.0
rate = 4.0
"""
SWEEP = """
scenario = "small.toml"
seeds = [1, 2]
measures = ["degree", "success"]
[sweep]
"network.loss" = [0.0, 0.1]
"""
LONG = SWEEP.replace("[1, 2]", str(list(range(1, 11))))
"""Twenty runs: enough to be interrupted in the middle."""
LIMIT = 100.0
"""Seconds for one sweep on a loaded machine (guess)."""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "small.toml").write_text(SMALL)
    path = tmp_path / "losses.toml"
    path.write_text(SWEEP)
    return path


def argv(file: Path, *more: str) -> list[str]:
    out = str(file.parent / "out")
    return ["sim", "sweep", str(file), "--output", out, "--workers", "1", *more]


def lines(file: Path) -> list[str]:
    """What has been kept: whole lines."""
    path = file.parent / "out" / "cells.jsonl"
    text = path.read_text() if path.exists() else ""
    return text[: text.rfind("\n") + 1].splitlines()


def family(pid: int) -> list[psutil.Process]:
    """A process and all that it has started."""
    parent = psutil.Process(pid)
    return [parent, *parent.children(recursive=True)]


def all_gone(processes: list[psutil.Process]) -> bool:
    return not any(each.is_running() and each.status() != "zombie" for each in processes)


@pytest.fixture
def begun(file: Path) -> Iterator[tuple[Process, list[psutil.Process]]]:
    """A long sweep after its first runs, and its family."""
    file.write_text(LONG)
    process = Process([*OVERLAY, *argv(file)])
    try:
        wait_for(lambda: lines(file), LIMIT, "the first run")
        yield process, family(process.popen.pid)
    finally:
        process.kill()


def answer(done: subprocess.CompletedProcess[str]) -> Json:
    (line,) = done.stdout.splitlines()
    found: dict[str, Any] = json.loads(line)
    return found


# --- to its end ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_sweep_leaves_a_table_runs_plots_and_a_page_whose_words_are_documented(
    file: Path,
) -> None:
    done = overlay(*argv(file), timeout=LIMIT)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    head, *rows, last = done.stdout.splitlines()
    told = re.split(r"\s{2,}", head.strip())
    assert told == ["network.loss (share)", "ok", "degree (peers)", "success (share)"]
    assert [row.split()[:2] for row in rows] == [["0.0", "2/2"], ["0.1", "2/2"]]
    assert last == f"report {file.parent / 'out' / 'index.html'}"
    there = sorted(path.name for path in (file.parent / "out").iterdir())
    assert there == ["cells.jsonl", "degree.png", "index.html", "success.png", "table.csv"]
    assert len((file.parent / "out" / "table.csv").read_text().splitlines()) == 5
    again = overlay(*argv(file, "--json"), timeout=LIMIT)
    said = answer(again)
    assert (said["runs"], said["computed"], said["kept"], said["ok"]) == (4, 0, 4, True)
    page = (ROOT / "docs" / "simulation.md").read_text()
    columns = (file.parent / "out" / "table.csv").read_text().partition("\n")[0].split(",")
    measures = set(said["points"][0]["measures"]["degree"])
    for word in {*said, *said["points"][0], *measures, *columns} - {"network.loss"}:
        assert f"`{word}`" in page, word
    assert [point["set"] for point in said["points"]] == [
        {"network.loss": 0.0},
        {"network.loss": 0.1},
    ]
    fresh = answer(overlay(*argv(file, "--json", "--fresh"), timeout=LIMIT))
    assert (fresh["computed"], fresh["kept"]) == (4, 0)
    assert fresh["points"] == said["points"], "the same seeds, the same measures"


@pytest.mark.slow
def test_a_run_of_a_sweep_is_the_run_alone(file: Path) -> None:
    overlay(*argv(file), timeout=LIMIT)
    swept = next(cell for cell in map(json.loads, lines(file)) if cell["seed"] == 2)
    loss = swept["set"]["network.loss"]
    small = str(file.parent / "small.toml")
    alone = overlay("sim", "run", small, "--seed", "2", "--set", f"network.loss={loss}", "--json")
    said = answer(alone)
    for key in ("trace_hash", "measures", "events", "nodes", "config_diff", "full_size"):
        assert swept[key] == said[key], key


@pytest.mark.slow
def test_runs_that_go_wrong_are_one_line_with_a_command_that_shows_it(file: Path) -> None:
    file.write_text(SWEEP.replace("[sweep]", "[set]\nbands.degree = [1, 2]\n[sweep]"))
    done = overlay(*argv(file, "--json"), timeout=LIMIT)
    assert done.returncode == 1
    assert answer(done)["ok"] is False
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: losses: 4 of 4 runs went wrong: network.loss = 0.0, seed 1: ")
    assert "outside its band 1 to 2" in line
    assert line.endswith("and 1 more")
    command = line.split("replay: ")[1].split("; ")[0].replace("overlay ", "", 1)
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m overlay {command}"],
        env=environment(),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "outside its band 1 to 2" in done.stderr


@pytest.mark.slow
def test_a_sweep_has_nothing_to_say_of_another_that_listens(file: Path) -> None:
    """8787 is where the cluster's scheduler listens by default."""
    with socket.socket() as taken:
        with suppress(OSError):  # another has it: all the better
            taken.bind(("127.0.0.1", 8787))
            taken.listen()
        done = overlay(*argv(file, "--json"), timeout=LIMIT)
    assert done.returncode == 0
    assert done.stderr == ""


# --- not to its end ------------------------------------------------------------------------------


def go_on(file: Path, before: list[str]) -> None:
    """The same command computes what is missing, and nothing twice."""
    assert 0 < len(before) < 20, "interrupted in the middle"
    done = overlay(*argv(file, "--json"), timeout=LIMIT)
    assert done.returncode == 0, done.stderr
    said = answer(done)
    assert (said["kept"], said["computed"]) == (len(before), 20 - len(before))
    after = lines(file)
    assert after[: len(before)] == before
    assert len({json.loads(line)["cell"] for line in after}) == len(after) == 20


@pytest.mark.slow
@pytest.mark.parametrize("whole_terminal", everyday({True}, [True, False]))
def test_an_interrupt_ends_all_workers_and_loses_nothing(
    file: Path, begun: tuple[Process, list[psutil.Process]], whole_terminal: bool
) -> None:
    process, all_of_it = begun
    assert len(all_of_it) > 1, "no workers to end"
    if whole_terminal:
        os.killpg(process.popen.pid, signal.SIGINT)
    else:
        process.signal(signal.SIGINT)
    assert process.popen.wait(30.0) == 130
    process.err.finish()
    before = lines(file)
    text = f"interrupted: {len(before)} of 20 runs are kept: the same command goes on"
    assert process.log.strip() == text, "and nothing else"
    wait_for(lambda: all_gone(all_of_it), 10.0, "the end of all workers")
    go_on(file, before)


@pytest.mark.slow
@pytest.mark.parametrize("number", everyday({signal.SIGKILL}, [signal.SIGKILL, signal.SIGTERM]))
def test_a_killed_sweep_takes_its_workers_along_and_loses_nothing(
    file: Path, begun: tuple[Process, list[psutil.Process]], number: int
) -> None:
    process, all_of_it = begun
    process.signal(number)
    assert process.popen.wait(30.0) == (143 if number == signal.SIGTERM else -number)
    wait_for(lambda: all_gone(all_of_it), 10.0, "the end of all workers")
    go_on(file, lines(file))


@pytest.mark.slow
def test_everything_listens_on_loopback_and_one_sweep_at_a_time_writes(
    file: Path, begun: tuple[Process, list[psutil.Process]]
) -> None:
    first, all_of_it = begun
    found = [at for each in all_of_it for at in each.net_connections("inet")]
    listening = {at.laddr.ip for at in found if at.status == psutil.CONN_LISTEN}
    assert listening == {"127.0.0.1"}
    first.popen.send_signal(signal.SIGSTOP)  # however slowly the other starts, this one is there
    try:
        other = overlay(*argv(file), timeout=LIMIT)
    finally:
        first.popen.send_signal(signal.SIGCONT)
    assert "another sweep is writing to it" in complaint(other)


@pytest.mark.slow
def test_a_worker_that_dies_is_replaced_and_its_run_computed_again(
    file: Path, begun: tuple[Process, list[psutil.Process]]
) -> None:
    process, all_of_it = begun
    worker = max(all_of_it[1:], key=lambda each: sum(each.cpu_times()[:2]))
    worker.kill()
    assert process.popen.wait(LIMIT) == 0, process.log
    assert len(lines(file)) == 20


BRANCHED = """
nodes = 12
duration = 3000.0
liveness = 0.0
[branches]
at = 10.0
shares = [0.1, 0.5]
[[faults]]
at = 11.0
do = "crash"
share = 0.1
"""


@pytest.mark.slow
def test_a_killed_sweep_takes_the_branches_of_its_runs_along(file: Path) -> None:
    """A run that branches copies its process: workers' children are no children of the sweep."""
    (file.parent / "small.toml").write_text(BRANCHED)
    file.write_text(SWEEP.replace('measures = ["degree", "success"]', ""))
    process = Process([*OVERLAY, *argv(file)])

    def copies() -> list[psutil.Process]:
        """Processes that a worker has started."""
        assert process.popen.poll() is None, process.log
        workers = psutil.Process(process.popen.pid).children()
        return [child for worker in workers for child in worker.children()]

    try:
        wait_for(copies, LIMIT, "the first branch")
        all_of_it = family(process.popen.pid)
        process.signal(signal.SIGKILL)
        process.popen.wait(30.0)
        wait_for(lambda: all_gone(all_of_it), 10.0, "the end of all copies")
    finally:
        process.kill()


# --- on a cluster --------------------------------------------------------------------------------

CLUSTER = """
import sys
from distributed import LocalCluster
if __name__ == "__main__":
    with LocalCluster(n_workers=int(sys.argv[1]), threads_per_worker=1, host="127.0.0.1",
                      dashboard_address=None, worker_dashboard_address=None) as cluster:
        print(cluster.scheduler_address, flush=True)
        sys.stdin.read()
"""


@pytest.fixture
def cluster(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of a scheduler on loopback, with so many workers."""
    script = tmp_path / "cluster.py"
    script.write_text(CLUSTER)
    process = subprocess.Popen(
        [sys.executable, str(script), str(request.param)],
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.stdin.close()
        try:
            process.wait(20.0)
        except subprocess.TimeoutExpired:
            for each in family(process.pid):
                each.kill()
            process.wait()
        process.stdout.close()


@pytest.mark.slow
@pytest.mark.parametrize("cluster", [1], indirect=True)
def test_a_cluster_comes_to_the_same(file: Path, cluster: str) -> None:
    said = answer(overlay(*argv(file, "--json", "--scheduler", cluster), timeout=LIMIT))
    assert (said["computed"], said["ok"]) == (4, True)
    here = answer(overlay(*argv(file, "--json", "--fresh"), timeout=LIMIT))
    assert here["points"] == said["points"]


@pytest.mark.slow
@pytest.mark.parametrize("cluster", [0], indirect=True)
def test_a_cluster_without_workers_is_one_line(file: Path, cluster: str) -> None:
    done = overlay(*argv(file, "--scheduler", cluster), timeout=LIMIT)
    assert complaint(done) == f"error: --scheduler {cluster}: it has no workers\n"


@pytest.mark.parametrize(
    "address",
    [
        pytest.param("tcp://127.0.0.1:1", marks=pytest.mark.slow),
        "nonsense://x",
        "tcp://x y:z",
    ],
)
def test_an_address_where_nobody_answers_is_one_line(file: Path, address: str) -> None:
    done = overlay(*argv(file, "--scheduler", address), timeout=LIMIT)
    assert f"--scheduler {address}: nobody answers there" in complaint(done)


# --- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("seeds", "seds", "losses.toml: seds: no such key (did you mean seeds?)"),
        ("0.1]", "-0.1]", "losses.toml: sweep: network.loss: expected a number from 0 to 0.9"),
        (
            '"network.loss" = [0.0, 0.1]',
            "requests.0.start = [5.0, 30.0]",
            "losses.toml: with requests.0.start = 30.0: ",
        ),
        ("[sweep]", '[set]\nprofile = "fast"\n[sweep]', "expected product or paper"),
        ("small.toml", "none.toml", "losses.toml: scenario: "),
    ],
    ids=["unknown key", "negative rate", "impossible timeline", "unknown profile", "no scenario"],
)
def test_a_mistake_is_one_line_and_nothing_is_begun(
    file: Path, old: str, new: str, said: str
) -> None:
    assert old in SWEEP
    file.write_text(SWEEP.replace(old, new))
    assert said in complaint(overlay(*argv(file)))
    assert not (file.parent / "out").exists()


def test_results_of_something_else_are_left_alone(file: Path) -> None:
    out = file.parent / "out"
    out.mkdir()
    (out / "cells.jsonl").write_text("mine\n")
    assert "line 1 is no result of a sweep (--fresh" in complaint(overlay(*argv(file)))
    assert (out / "cells.jsonl").read_text() == "mine\n"
    out_file = file.parent / "taken"
    out_file.touch()
    done = overlay("sim", "sweep", str(file), "--output", str(out_file))
    assert "taken" in complaint(done)


@pytest.mark.parametrize(
    ("module", "said"),
    [
        ("distributed", r"extra `sweep`: install overlay-mesh\[sweep\]"),
        ("matplotlib.figure", r"extra `sim`: install overlay-mesh\[sim\]"),
    ],
)
def test_a_missing_extra_is_one_line_that_names_it(
    file: Path,
    module: str,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    assert main.run(argv(file)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(said, line)
    assert not (file.parent / "out").exists()
