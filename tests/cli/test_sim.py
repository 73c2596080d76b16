"""`overlay sim` as its user sees it: tables and objects, one line when a run goes wrong."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from overlay.cli import main
from tests.cli.complaints import complaint
from tests.lab.nodes import ROOT, overlay

pytestmark = pytest.mark.slow

SMALL = """
about = "eight nodes"
nodes = 8
duration = 30.0
liveness = 20.0
[join]
every = 0.3
[network]
loss = 0.05
[[faults]]
at = 12.0
do = "freeze"
count = 1
[[faults]]
at = 14.0
do = "thaw"
[[publish]]
start = 10.0
stop = 20.0
[bands]
reliability = [0.9, 1.0]
"""


@pytest.fixture
def small(tmp_path: Path) -> str:
    path = tmp_path / "small.toml"
    path.write_text(SMALL)
    return str(path)


def answer(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    (line,) = done.stdout.splitlines()
    found: dict[str, Any] = json.loads(line)
    return found


def test_list_names_every_scenario_of_the_repository() -> None:
    names = sorted(path.stem for path in (ROOT / "simulations").glob("*.toml"))
    done = overlay("sim", "list")
    assert [line.split()[0] for line in done.stdout.splitlines()] == names
    for line in done.stdout.splitlines():
        assert re.fullmatch(r"[\w-]+ +\d+ nodes  [^\[]+( \[.+\])?", line), line
    listed = [json.loads(line) for line in overlay("sim", "list", "--json").stdout.splitlines()]
    assert [each["name"] for each in listed] == names
    for each in listed:
        assert Path(each["file"]).is_file()
        assert set(each) == {"name", "file", "nodes", "duration", "about", "source"}


def test_run_prints_a_table_and_replay_finds_the_trace_again(small: str, tmp_path: Path) -> None:
    trace = str(tmp_path / "trace.jsonl")
    done = overlay("sim", "run", small, "--trace", trace)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    rows = {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines()}
    assert rows["reliability"][1:] == ["share", "0.9", "to", "1", "ok"]
    assert rows["degree"] == ["7", "peers"]
    assert "8 nodes, seed 1, profile product: " in done.stdout
    again = overlay("sim", "replay", trace)
    assert again.returncode == 0, again.stderr
    digest = done.stdout.split("trace hash ")[1].strip()
    assert f"trace hash {digest}" in again.stdout
    lines = len(Path(trace).read_text().splitlines()) - 1
    said = answer(overlay("sim", "replay", trace, "--json"))
    assert said == {"same": True, "lines": lines, "differs_at": None, "trace_hash": digest}


def test_a_report_is_a_page_and_its_plots_and_changes_nothing(small: str, tmp_path: Path) -> None:
    pages, traces = tmp_path / "new" / "report", [str(tmp_path / name) for name in "ab"]
    done = overlay("sim", "run", small, "--report", str(pages), "--trace", traces[0])
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    *rest, last = done.stdout.splitlines()
    assert last == f"report {pages / 'index.html'}"
    there = sorted(path.name for path in pages.iterdir())
    assert there == ["bands.png", "delivery.png", "index.html", "links.png", "timeline.png"]
    text = (pages / "index.html").read_text()
    command = re.search(r"<pre>(overlay sim run .*?)</pre>", text)
    assert command is not None
    again = overlay(*shlex.split(command[1])[1:], "--json", "--trace", traces[1])
    assert answer(again)["trace_hash"] in rest[-1], "the page's command runs the same"
    assert answer(again)["trace_hash"] in text
    assert Path(traces[0]).read_bytes() == Path(traces[1]).read_bytes()


def test_without_matplotlib_a_report_is_refused_before_the_run(
    small: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert main.run(["sim", "run", small, "--report", str(tmp_path / "report")]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: plots need the extra `sim`: install overlay-mesh[sim]")
    assert "make install-sim" in err
    assert not (tmp_path / "report").exists()


def test_replay_names_the_line_that_differs(small: str, tmp_path: Path) -> None:
    trace = tmp_path / "trace.jsonl"
    overlay("sim", "run", small, "--trace", str(trace))
    lines = trace.read_text().splitlines()
    lines[4] = lines[4].replace('"t":', '"t":1')
    trace.write_text("\n".join(lines) + "\n")
    done = overlay("sim", "replay", str(trace))
    assert "trace.jsonl: line 5 differs: recorded " in complaint(done, 1)
    done = overlay("sim", "replay", str(trace), "--json")
    assert (done.returncode, answer(done)["differs_at"]) == (1, 5)


def test_options_choose_size_seed_and_any_key(small: str) -> None:
    done = overlay(
        *("sim", "run", small, "--nodes", "5", "--seed", "9", "--json"),
        *("--set", "network.loss=0", "--set", "links.full_mesh=3"),
    )
    assert done.returncode == 0, done.stderr
    said = answer(done)
    assert (said["scenario"], said["nodes"], said["seed"]) == ("small", 5, 9)
    assert said["full_size"] is False
    assert said["config_diff"] == {"links.full_mesh": 3}
    assert said["measures"]["reliability"]["ok"] is None
    assert said["events"] > 0 < said["events_per_second"]
    assert said["peak_rss"] > 1 << 20
    assert len(said["trace_hash"]) == 64


def test_a_missed_band_is_one_line_whose_command_misses_it_again(small: str) -> None:
    done = overlay("sim", "run", small, "--set", "bands.hops=[5, 6]", "--seed", "3", "--json")
    assert done.returncode == 1
    said = answer(done)
    assert said["ok"] is False
    assert said["measures"]["hops"]["ok"] is False
    assert said["measures"]["reliability"]["ok"] is True
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: small, seed 3, at 30.000000 s: hops is ")
    assert "outside its band 5 to 6" in line
    program, *words = shlex.split(line.split("; replay: ")[1])
    assert program == "overlay"
    again = overlay(*words, "--json")
    assert again.returncode == 1
    assert answer(again)["trace_hash"] == said["trace_hash"]
    assert again.stderr == done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "first-mess"], "no scenario is named first-mess (did you mean first-mesh?)"),
        (["run", "nothing"], "`overlay sim list` shows them"),
        (["run", "none.toml"], "none.toml: cannot be read"),
        (["run", "SMALL", "--set", "network.loss=-1"], "--set: network.loss: expected a number"),
        (["run", "SMALL", "--set", "profile=fast"], "--set: profile: expected product or paper"),
        (["run", "SMALL", "--set", "faults.1.at=11"], "--set: faults.1.at: a thaw at 11 s needs"),
        (["run", "SMALL", "--set", "faults.1.at=99"], "less than the duration, 30, not 99"),
        (["run", "SMALL", "--set", "loss=0.1"], "--set: loss: no such key"),
        (["run", "SMALL", "--nodes", "0"], "--nodes: nodes: expected a whole number"),
        (["run", "SMALL", "--trace", "no/such/file"], "--trace no/such/file: cannot be written"),
        (["run", "SMALL", "--report", "README.md/x"], "--report README.md/x: cannot be written"),
        (["run", "SMALL", "--report", "README.md"], "README.md"),
        (["replay", "SMALL"], "small.toml: is no trace"),
        (["replay", "none"], "none: cannot be read"),
    ],
)
def test_what_cannot_be_run_is_one_line(small: str, arguments: list[str], said: str) -> None:
    words = [small if word == "SMALL" else word for word in arguments]
    assert said in complaint(overlay("sim", *words))


def test_a_wrong_key_names_the_file(small: str) -> None:
    Path(small).write_text(SMALL.replace("every", "evry"))
    said = complaint(overlay("sim", "run", small))
    assert said == f"error: {small}: join.evry: no such key (did you mean every?)\n"


def test_a_trace_of_something_else_is_no_trace(tmp_path: Path) -> None:
    first = tmp_path / "trace.jsonl"
    for content in ("", "{}\n", '{"t":0,"kind":"join","node":"n0","id":""}\n', "\xff\n"):
        first.write_text(content, encoding="latin-1")
        assert "is no trace" in complaint(overlay("sim", "replay", str(first)))


@pytest.mark.parametrize("extra", ["matplotlib", "distributed"])
def test_a_plain_run_needs_no_extra(
    small: str,
    extra: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == extra]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, extra, None)
    assert main.run(["sim", "run", small, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["ok"] is True


def test_the_simulator_is_imported_by_its_own_commands_only() -> None:
    script = (
        "import sys; import overlay.cli.main; "
        "print([name for name in sys.modules if name.startswith('overlay.sim')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "[]\n"
