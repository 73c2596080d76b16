"""The published experiments: what is kept of a run, and how its line reads."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from benchmarks import simulations
from benchmarks.report import END
from benchmarks.simulations import BEGIN, PAGE, RESULTS, SCENARIOS, line_of, main, merged, read

MEASURES = {
    "hops": {"value": 9.5, "band": [8, 10], "ok": True},
    "path": {"value": 7.0, "band": [6.3, 6.45], "ok": False},
    "joined": {"value": 1.0, "band": None, "ok": None},
}


def row(name: str, *, ok: bool = True, bands_apply: bool = True, **more: Any) -> simulations.Row:
    told = {"scenario": name, "profile": "paper", "nodes": 10_000, "measures": MEASURES, "ok": ok}
    return {**told, "seconds": 1234, "bands_apply": bands_apply, **more}


def test_a_line_shows_what_has_a_band_and_names_a_miss() -> None:
    line = line_of(row("plumtree-hops", ok=False))
    assert line.startswith("| `plumtree-hops` | paper | 10,000 | hops 9.5 (8 to 10); **path 7 (6.3")
    assert line.endswith("| 1,234 s | **no** |")
    assert "joined" not in line


def test_bands_of_a_paper_say_nothing_of_what_ships() -> None:
    line = line_of(row("plumtree-hops", ok=False, bands_apply=False))
    assert "hops 9.5; path 7 |" in line
    assert "**" not in line


def test_a_newer_run_takes_the_place_of_the_older() -> None:
    old = [row("join-burst"), row("plumtree-hops", bands_apply=False), row("plumtree-hops")]
    rows = merged(old, row("join-burst", seconds=5))
    assert [(each["scenario"], each["bands_apply"]) for each in rows] == [
        ("plumtree-hops", True),
        ("plumtree-hops", False),
        ("join-burst", True),
    ]
    assert rows[-1]["seconds"] == 5


@pytest.mark.parametrize(("ok", "code"), [(True, 0), (False, 1)])
def test_each_run_is_kept_when_it_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ok: bool, code: int
) -> None:
    page, results = tmp_path / "page.md", tmp_path / "results.json"
    page.write_text(f"{BEGIN}\n{END}\n")

    def done(argv: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        if "join-burst" not in argv:
            return subprocess.CompletedProcess(argv, 2, "", "error: no scenario is named so")
        return subprocess.CompletedProcess(
            argv, 0 if ok else 1, json.dumps(row("join-burst", ok=ok))
        )

    monkeypatch.setattr(simulations, "PAGE", page)
    monkeypatch.setattr(simulations, "RESULTS", results)
    monkeypatch.setattr(subprocess, "run", done)
    assert main(["join-burst"]) == code
    assert [each["scenario"] for each in read(results)] == ["join-burst"]
    assert "| `join-burst` | paper |" in page.read_text()
    assert main(["signalling-cost"]) == 1, "what cannot run is no success"
    assert [each["scenario"] for each in read(results)] == ["join-burst"]


def test_a_name_that_is_none_of_them_is_refused() -> None:
    with pytest.raises(SystemExit) as ended:
        main(["join-bursts"])
    assert ended.value.code == 2


def test_the_page_shows_the_runs_that_lie_beside_it() -> None:
    rows = read(RESULTS)
    assert {each["scenario"] for each in rows} <= set(SCENARIOS)
    assert f"{BEGIN}\n{simulations.table(rows)}\n{END}" in PAGE.read_text()
