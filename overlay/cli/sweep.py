"""`overlay sim sweep`: a scenario with many values and seeds, on all cores or a cluster."""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from overlay import signals
from overlay.cli.options import Location, json_option, print_json
from overlay.cli.reports import console, make_directory, shows_progress, table, write_pages, writing
from overlay.errors import CommandFailed, Failure
from overlay.version import __version__

if TYPE_CHECKING:
    from overlay.sim.sweep.results_file import Results
    from overlay.sim.sweep.summary import Point
    from overlay.sim.sweep.sweep import Sweep

FAILURES_SHOWN = 3
ENDING_TIMEOUT = 20.0
"""Seconds that the workers of an interrupted sweep have to end (guess)."""


@click.command()
@click.argument("file", type=Location(dir_okay=False), metavar="FILE.toml")
@click.option(
    "--output",
    type=Location(file_okay=False),
    metavar="DIR",
    help="Where everything goes: by default a directory named like the file.",
)
@click.option("--fresh", is_flag=True, help="Forget what an earlier run has computed.")
@click.option("--workers", type=click.IntRange(1, 1024), metavar="N", help="Fewer than all cores.")
@click.option("--scheduler", metavar="ADDRESS", help="Run on a cluster of dask.distributed.")
@json_option
def sweep(
    file: Path,
    output: Path | None,
    fresh: bool,
    workers: int | None,
    scheduler: str | None,
    as_json: bool,
) -> None:
    """Run a scenario with many values of its keys, and many seeds.

    Each finished run is kept at once: after an interruption the same command goes on where it was.
    Exit code 1 when a run misses a band or breaks a promise.
    """
    from overlay.sim.report import plots
    from overlay.sim.sweep import fleet
    from overlay.sim.sweep.results_file import Results
    from overlay.sim.sweep.sweep import load

    planned = load(file, __version__)
    fleet.require()
    plots.require()
    directory = output or Path(file.stem)
    make_directory("--output", directory)
    with (
        signals.interrupting(ENDING_TIMEOUT),
        Results(directory / "cells.jsonl", fresh=fresh) as results,
    ):
        kept = len(results.of(cell.key for cell in planned.cells))
        failures = _compute(planned, results, scheduler, workers, as_json)
        _tell(planned, results, directory, failures, kept, as_json)


def _compute(
    planned: "Sweep", results: "Results", scheduler: str | None, workers: int | None, as_json: bool
) -> list[str]:
    """Run what there is no result of; why some cells have none."""
    from overlay.sim.sweep import fleet

    done = results.of(cell.key for cell in planned.cells)
    missing = [cell for cell in planned.cells if cell.key not in done]
    failures: list[str] = []
    if not missing:
        return failures
    with _progress(len(planned.cells), len(done), as_json) as advance:
        computed = fleet.compute(planned, missing, version, scheduler=scheduler, workers=workers)
        try:
            with closing(computed):
                for cell, came in computed:
                    if isinstance(came, str):
                        failures.append(f"{_named(cell.axes, cell.scenario.seed)}: {came}")
                    else:
                        with writing(f"--output {results.path}"):
                            results.add(cell.key, {"set": dict(cell.axes), **came})
                    advance()
        except KeyboardInterrupt:
            count = len(results.of(cell.key for cell in planned.cells))
            text = f"{count} of {len(planned.cells)} runs are kept: the same command goes on"
            click.echo(f"interrupted: {text}", err=True)
            raise
    return failures


def _named(axes: tuple[tuple[str, Any], ...], seed: int) -> str:
    from overlay.sim.sweep.summary import written

    return ", ".join([*(f"{key} = {written(value)}" for key, value in axes), f"seed {seed}"])


def version() -> str:
    """In whatever process it is called: its version of overlay."""
    return __version__


@contextmanager
def _progress(total: int, done: int, as_json: bool) -> Iterator[Callable[[], None]]:
    """A bar, on a terminal."""
    if not shows_progress(as_json=as_json):
        yield lambda: None
        return
    from rich.progress import MofNCompleteColumn, Progress

    columns = (*Progress.get_default_columns(), MofNCompleteColumn())
    with Progress(*columns, console=console(stderr=True), transient=True) as bar:
        task = bar.add_task("runs", total=total, completed=done)
        yield lambda: bar.advance(task)


def _tell(
    planned: "Sweep",
    results: "Results",
    directory: Path,
    failures: list[str],
    kept: int,
    as_json: bool,
) -> None:
    from overlay.sim.sweep import summary

    found = results.of(cell.key for cell in planned.cells)
    wrong = [
        f"{_named(cell.axes, cell.scenario.seed)}: {found[cell.key]['failure']}"
        for cell in planned.cells
        if cell.key in found and found[cell.key]["failure"]
    ]
    points = summary.points(planned, found)
    with writing(f"--output {directory / 'table.csv'}"):
        (directory / "table.csv").write_text(summary.as_csv(planned, found), encoding="utf-8")
    drawn = summary.pictures(planned, found)
    problems = [*failures, *wrong]
    write_pages(directory, drawn, summary.html(planned, points, drawn, problems))
    if as_json:
        computed = len(found) - kept
        print_json(_object(planned, points, computed, kept, problems, directory))
    elif points:
        head, *body = summary.rows(planned, points)
        table(head, body)
        print(f"report {directory / 'index.html'}")
    if problems:
        more = len(problems) - FAILURES_SHOWN
        shown = "; ".join(problems[:FAILURES_SHOWN]) + (f"; and {more} more" if more > 0 else "")
        runs = f"{len(problems)} of {len(planned.cells)} runs"
        raise CommandFailed(Failure.VIOLATED, f"{planned.name}: {runs} went wrong: {shown}")


def _object(
    planned: "Sweep",
    points: "list[Point]",
    computed: int,
    kept: int,
    problems: list[str],
    directory: Path,
) -> dict[str, Any]:
    """The one object of ``--json``."""
    told = [
        {
            "set": dict(zip(planned.axes, point.values, strict=True)),
            "runs": point.runs,
            "ok": point.good == point.runs,
            "measures": {
                name: spread and {"mean": spread.mean, "min": spread.least, "max": spread.most}
                for name, spread in point.measures.items()
            },
        }
        for point in points
    ]
    return {
        "sweep": planned.name,
        "scenario": planned.base,
        "runs": len(planned.cells),
        "computed": computed,
        "kept": kept,
        "ok": not problems,
        "points": told,
        "output": str(directory),
    }
