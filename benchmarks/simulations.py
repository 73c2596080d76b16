"""Run the published experiments at full size, table what came of them; exit 1 on a missed band.

Each runs in a process of its own, as `overlay sim run NAME --json`, and is written down when it is
done: an interrupted run loses nothing, `python -m benchmarks.simulations NAME …` does some again.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import report

RESULTS = Path(__file__).with_name("simulations.json")
PAGE = Path(__file__).resolve().parent.parent / "docs" / "benchmarks.md"
BEGIN = "<!-- table: written by `make bench-sim` -->"
MEMBERSHIP = (
    "hyparview-table1",
    "hyparview-first-message",
    "hyparview-failures",
    "hyparview-healing",
    "cyclon-failures",
    "plumtree-table1",
    "plumtree-hops",
    "byzantine-flood",
)
SIGNALLING = (
    "signalling-cost",
    "signalling-stale",
    "signalling-churn",
    "join-burst",
    "partition-heal",
    "iroh-scenarios",
)
SCENARIOS = (*MEMBERSHIP, *SIGNALLING)
PRODUCT = tuple(name for name in MEMBERSHIP if name.startswith(("hyparview", "plumtree")))
"""Run a second time with what ships; the bands are the papers' and hold for their profile alone."""
PATIENCE = 6 * 3600.0
"""Seconds for one experiment (guess)."""
Row = dict[str, Any]
"""What `--json` prints, and `seconds` of wall time, and whether the bands are meant for it."""


def main(arguments: Sequence[str]) -> int:
    """0 when every band is met, 1 when one is missed or an experiment does not end."""
    options = _parse(arguments)
    wanted = options.names or SCENARIOS
    runs = [(name, True) for name in wanted]
    runs += [(name, False) for name in wanted if name in PRODUCT and not options.paper_only]
    ok = True
    for name, bands_apply in runs if not options.table else ():
        row = run(name, bands_apply=bands_apply)
        if row is None:
            ok = False
            continue
        rows = merged(read(RESULTS), row)
        RESULTS.write_text(json.dumps(rows, indent=1) + "\n")
        print(line_of(row), flush=True)
        ok = ok and (row["ok"] or not bands_apply)
    report.write_table(PAGE, table(read(RESULTS)), begin=BEGIN)
    return 0 if ok else 1


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.simulations", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="only these (all)")
    parser.add_argument("--paper-only", action="store_true", help="not with what ships as well")
    parser.add_argument("--table", action="store_true", help="run nothing, only write the table")
    options = parser.parse_args(arguments)
    for name in options.names:
        if name not in SCENARIOS:
            parser.error(f"{name} is none of {', '.join(SCENARIOS)}")
    return options


def run(name: str, *, bands_apply: bool) -> Row | None:
    """One experiment at full size; None, and a line that says why, when it comes to nothing."""
    argv = [sys.executable, "-m", "overlay", "sim", "run", name, "--json"]
    argv += [] if bands_apply else ["--set", "profile=product"]
    begun = time.monotonic()
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=PATIENCE, check=False)
    except subprocess.TimeoutExpired:
        print(f"{name}: not done within {PATIENCE:g} s", flush=True)
        return None
    if done.returncode not in {0, 1} or not done.stdout:
        print(f"{name}: exit {done.returncode}: {done.stderr.strip()}", flush=True)
        return None
    row: Row = json.loads(done.stdout)
    return row | {"seconds": round(time.monotonic() - begun), "bands_apply": bands_apply}


def read(path: Path) -> list[Row]:
    """The rows of earlier runs; none when there is no file."""
    rows: list[Row] = json.loads(path.read_text()) if path.exists() else []
    return rows


def merged(old: Iterable[Row], new: Row) -> list[Row]:
    """Every experiment once for each profile, the newer run, in the order of the lists above."""
    rows = {(row["scenario"], row["bands_apply"]): row for row in (*old, new)}
    order = [(name, apply) for name in SCENARIOS for apply in (True, False)]
    return [rows[key] for key in order if key in rows]


def table(rows: Iterable[Row]) -> str:
    """The Markdown table: a line for each run."""
    lines = ["| scenario | profile | nodes | measured (band) | time | met |"]
    lines.append("|---|---|---|---|---|---|")
    return "\n".join([*lines, *map(line_of, rows)])


def line_of(row: Row) -> str:
    """One run: those of its measures that have a band; what misses it is bold."""
    banded = [
        _measure(name, each, bands_apply=row["bands_apply"])
        for name, each in row["measures"].items()
        if each["band"] is not None
    ]
    met = ("yes" if row["ok"] else "**no**") if row["bands_apply"] else ""
    cells = (
        f"`{row['scenario']}`",
        row["profile"],
        f"{row['nodes']:,}",
        "; ".join(banded),
        f"{row['seconds']:,} s",
        met,
    )
    return "| " + " | ".join(cells) + " |"


def _measure(name: str, measure: Row, *, bands_apply: bool) -> str:
    value = "–" if measure["value"] is None else f"{measure['value']:.4g}"
    if not bands_apply:
        return f"{name} {value}"
    low, high = measure["band"]
    shown = f"{name} {value} ({low:g} to {high:g})"
    return shown if measure["ok"] else f"**{shown}**"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
