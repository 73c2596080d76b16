"""Run the published experiments at full size, table what came of them; exit 1 on a missed band.

Experiments that begin alike share a mesh: it grows once, in a process of its own, and each of them
goes on in a copy of that process, exactly as `overlay sim run NAME` would. Each is written down
when it is done: an interrupted run loses nothing, `python -m benchmarks.simulations NAME …` does
some again.
"""

import argparse
import json
import signal
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from benchmarks import curves, report
from overlay.cli.sim import peak_rss
from overlay.sim.checks.invariants import Violated
from overlay.sim.report.report import Report
from overlay.sim.scenario import units
from overlay.sim.scenario.forking import forked
from overlay.sim.scenario.profiles import setting
from overlay.sim.scenario.reading import assignments, find, load, read
from overlay.sim.scenario.running import Grown, Outcome, beginning, run
from overlay.sim.scenario.scenario import Branches, Scenario

RESULTS = Path(__file__).with_name("simulations.json")
PAGE = Path(__file__).resolve().parent.parent / "docs" / "benchmarks.md"
BEGIN = "<!-- table: written by `make bench-sim` -->"
CURVES = "<!-- curves: drawn by `make bench-sim` -->"
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
PRODUCT: dict[str, tuple[str, ...]] = {
    "hyparview-table1": (),
    "hyparview-first-message": (),
    "hyparview-failures": (),
    "hyparview-healing": ("publish.0.rate=0.5", "publish.0.stop=771", "duration=780"),
    "plumtree-table1": (),
    "plumtree-hops": (
        *("faults.0.every=10", "publish.2.rate=0.1"),
        *("publish.2.stop=2100", "duration=2140"),
    ),
}
"""Run a second time with what ships; the bands are the papers' and hold for their profile alone.
With each: what it says in cycles, in those that ship."""
CYCLES = 50
"""They pass between the last join and the first thing that is done to the mesh."""
PATIENCE = 6 * 3600
"""Seconds for one experiment (guess)."""
TELL_INTERVAL = 120.0
"""Seconds between two lines about how far an experiment is (guess)."""
Row = dict[str, Any]
"""What `--json` prints, and `seconds` of wall time, and whether the bands are meant for it."""


@dataclass(frozen=True, slots=True)
class Experiment:
    """A scenario at its full size, and whether its bands are meant for it."""

    name: str
    scenario: Scenario
    bands_apply: bool = True


def main(arguments: Sequence[str]) -> int:
    """0 when every band is met, 1 when one is missed or an experiment does not end."""
    options = _parse(arguments)
    names = options.names or SCENARIOS
    wanted = [Experiment(name, load(find(name))) for name in names if not options.product_only]
    if not options.paper_only:
        wanted += [as_shipped(name, options.nodes) for name in names if name in PRODUCT]
    ok = True
    for group in () if options.table else alike(wanted):
        ok = bool(forked(partial(_in_turn, group))) and ok
    rows = rows_in(RESULTS)
    report.write_table(PAGE, table(rows), begin=BEGIN)
    report.write_table(PAGE, curves.write(rows, PAGE.parent / "curves", PAGE), begin=CURVES)
    return 0 if ok else 1


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.simulations", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="only these (all)")
    parser.add_argument("--paper-only", action="store_true", help="not with what ships as well")
    parser.add_argument("--product-only", action="store_true", help="only with what ships")
    parser.add_argument("--nodes", type=int, help="of those with what ships (the paper's number)")
    parser.add_argument("--table", action="store_true", help="run nothing, only write the table")
    options = parser.parse_args(arguments)
    for name in options.names:
        if name not in SCENARIOS:
            parser.error(f"{name} is none of {', '.join(SCENARIOS)}")
    return options


# --- what is run ---------------------------------------------------------------------------------


def as_shipped(name: str, nodes: int | None = None) -> Experiment:
    """The same with what ships: as many cycles pass before it begins, shorter ones."""
    paper = load(find(name))
    shipped = msgspec.structs.replace(
        paper, profile="product", cycle=None, nodes=nodes or paper.nodes
    )
    cycles = (setting(each, "shuffle_interval") for each in (paper, shipped))
    sooner = CYCLES * (next(cycles) - next(cycles))
    content = msgspec.json.decode(msgspec.json.encode(_moved(shipped, -sooner)))
    scenario = read(content, name, assignments(PRODUCT[name]))
    return Experiment(name, scenario, bands_apply=False)


def _moved(scenario: Scenario, by: float) -> Scenario:
    """All that is done to the mesh happens so many seconds later."""

    def later(thing: Any, *keys: str) -> Any:
        return msgspec.structs.replace(thing, **{key: getattr(thing, key) + by for key in keys})

    branches = scenario.branches
    return msgspec.structs.replace(
        scenario,
        duration=scenario.duration + by,
        branches=later(branches, "at") if branches.shares else Branches(),
        faults=tuple(later(fault, "at") for fault in scenario.faults),
        publish=tuple(later(phase, "start", "stop") for phase in scenario.publish),
    )


def alike(experiments: Iterable[Experiment]) -> list[list[Experiment]]:
    """The experiments, those together whose meshes grow alike."""
    groups: dict[bytes, list[Experiment]] = {}
    for experiment in experiments:
        key = msgspec.json.encode(beginning(experiment.scenario))
        groups.setdefault(key, []).append(experiment)
    return list(groups.values())


# --- running it ----------------------------------------------------------------------------------


def _in_turn(group: Sequence[Experiment]) -> bytes:
    """Grow a mesh if several share it, run the experiments; nothing if a band was missed."""
    begun = time.monotonic()
    going_on: Callable[..., Outcome] = run
    if len(group) > 1:
        try:
            names = ", ".join(each.name for each in group)
            going_on = Grown([each.scenario for each in group], _telling(names)).run
        except Violated as violation:
            print(f"{names}: {violation}", flush=True)
            return b""
    grown, ok = time.monotonic() - begun, True
    for experiment in group:
        try:
            row = json.loads(forked(partial(_measured, experiment, going_on, grown)))
        except RuntimeError as error:  # of the copy, or it was ended
            print(f"{experiment.name}: {error}", flush=True)
            ok = False
            continue
        RESULTS.write_text(json.dumps(merged(rows_in(RESULTS), row), indent=1) + "\n")
        print(line_of(row), flush=True)
        ok = ok and (row["ok"] or not experiment.bands_apply)
    return b"met" if ok else b""


def _telling(name: str) -> Callable[[float], None]:
    """Tells how far it is on standard error, now and then."""
    told_at = time.monotonic()

    def progress(now: float) -> None:
        nonlocal told_at
        if time.monotonic() > told_at + TELL_INTERVAL:
            told_at = time.monotonic()
            print(f"{name}: at {now:,.0f} virtual seconds", file=sys.stderr, flush=True)

    return progress


def _measured(experiment: Experiment, going_on: Callable[..., Outcome], grown: float) -> bytes:
    """In a copy of the process: an experiment from here to its end, as a row; ends in patience."""
    signal.alarm(PATIENCE)
    begun, scenario = time.monotonic(), experiment.scenario
    outcome = going_on(scenario, progress=_telling(experiment.name))
    seconds = grown + time.monotonic() - begun
    # The page shows what has a band, at any size; `full_size` says whether it is that of the file.
    told = Report(experiment.name, scenario, scenario.nodes, outcome, seconds, peak_rss())
    if outcome.violation is not None:
        raise outcome.violation
    row = told.as_json() | {"seconds": round(seconds), "bands_apply": experiment.bands_apply}
    row["full_size"] = scenario.nodes == load(find(experiment.name)).nodes
    return json.dumps(row).encode()


# --- what is kept --------------------------------------------------------------------------------


def rows_in(path: Path) -> list[Row]:
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
    unit = units.of_measure(name)
    value += "" if unit == units.SHARE else f" {unit}"
    if not bands_apply:
        return f"{name} {value}"
    low, high = measure["band"]
    shown = f"{name} {value} ({low:g} to {high:g})"
    return shown if measure["ok"] else f"**{shown}**"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
