"""`overlay sim`: list scenarios, run one, compare a run with the trace of an earlier one.

The simulator is imported by the commands that run it and by no other.
"""

import contextlib
import resource
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from overlay.cli.options import Location, json_option, print_json
from overlay.cli.reports import console, make_directory, shows_progress, table, write_pages, writing
from overlay.cli.sweep import sweep
from overlay.errors import CommandFailed, Failure, UsageError

if TYPE_CHECKING:
    from overlay.sim.report.report import Report
    from overlay.sim.report.timeline import Timeline
    from overlay.sim.scenario.running import Outcome
    from overlay.sim.scenario.scenario import Scenario
    from overlay.sim.scenario.tracing import Comparison, Header

Line = Callable[[bytes], None]
SHOWN_MAX = 160
"""Characters of a line of a trace that an error shows."""


@click.group()
def sim() -> None:
    """Run whole meshes on a virtual clock, from scenarios in TOML.

    A run draws everything from one seed, so that it can be run again exactly.
    """


sim.add_command(sweep)


@sim.command("list")
@json_option
def list_scenarios(as_json: bool) -> None:
    """List the scenarios that come with overlay.

    Of each: its name and size, what it is about, and who published it.
    """
    from overlay.sim.scenario.reading import load, scenarios

    for name, path in scenarios().items():
        scenario = load(path)
        if as_json:
            size = {"nodes": scenario.nodes, "duration": scenario.duration}
            about = {"about": scenario.about, "source": scenario.source}
            print_json({"name": name, "file": str(path), **size, **about})
        else:
            source = f" [{scenario.source}]" if scenario.source else ""
            print(f"{name:<24} {scenario.nodes:>6} nodes  {scenario.about}{source}")


@sim.command()
@click.argument("scenario", metavar="NAME|FILE.toml")
@click.option("--nodes", type=int, metavar="N", help="Another size; bands hold at the full size.")
@click.option("--seed", type=int, metavar="S", help="Another seed.")
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="Another value of a key of the scenario.",
)
@click.option(
    "--trace",
    type=Location(dir_okay=False),
    metavar="FILE",
    help="Write what happens as JSON lines.",
)
@click.option(
    "--report",
    "pages",
    type=Location(file_okay=False),
    metavar="DIR",
    help="Write plots and one HTML page that shows all of it.",
)
@json_option
def run(
    scenario: str,
    nodes: int | None,
    seed: int | None,
    settings: tuple[str, ...],
    trace: Path | None,
    pages: Path | None,
    as_json: bool,
) -> None:
    """Run a scenario and hold what it measures against its bands.

    A name is one of `overlay sim list`. Exit code 1 when a band is missed or an invariant broken.
    """
    from overlay.sim.report.report import Report
    from overlay.sim.scenario.reading import assignments, find, load

    path = find(scenario)
    overrides = assignments(settings)
    overrides |= {} if nodes is None else {"nodes": ("--nodes", nodes)}
    overrides |= {} if seed is None else {"seed": ("--seed", seed)}
    full_size = load(path).nodes
    chosen = load(path, overrides)
    replay = _command(scenario, chosen.seed, nodes, settings)
    timeline = _timeline(pages, chosen)
    started_at = time.perf_counter()
    with _trace_file(trace, path.stem, chosen) as write, _progress(chosen, as_json) as progress:
        outcome = _run(chosen, replay, _both(write, timeline), progress)
    seconds = time.perf_counter() - started_at
    report = Report(path.stem, chosen, full_size, outcome, seconds, peak_rss())
    if pages is not None and timeline is not None:
        _write_report(pages, report, timeline, replay)
    if as_json:
        print_json(report.as_json())
    else:
        _print_report(report)
        if pages is not None:
            print(f"report {pages / 'index.html'}")
    failure = report.failure(replay)
    if failure is not None:
        raise CommandFailed(Failure.VIOLATED, failure)


@sim.command()
@click.argument("trace", type=Location(dir_okay=False), metavar="TRACE")
@json_option
def replay(trace: Path, as_json: bool) -> None:
    """Run what a trace describes again, and compare every line.

    Exit code 1 at the first line that differs.
    """
    from overlay.sim.scenario.reading import read
    from overlay.sim.scenario.tracing import Comparison, opened

    header, lines = opened(trace)
    scenario = read(header.scenario, str(trace))
    comparison = Comparison(lines)
    with _progress(scenario, as_json) as progress:
        outcome = _run(scenario, "", comparison.line, progress)
    comparison.finish()
    same = comparison.differs is None
    if as_json:
        differs_at = None if same else comparison.lines + 2
        answer = {"same": same, "lines": comparison.lines, "differs_at": differs_at}
        print_json({**answer, "trace_hash": outcome.trace_hash})
    elif same:
        print(f"the same: {comparison.lines} events, trace hash {outcome.trace_hash}")
        if outcome.violation is not None:
            print(f"it ends as it did: {outcome.violation}")
    if not same:
        raise CommandFailed(Failure.DIFFERS, _difference(trace, header, comparison))


def _run(
    scenario: "Scenario",
    replay: str,
    write: Line | None,
    progress: Callable[[float], None] | None,
) -> "Outcome":
    from overlay.sim.scenario.running import run as run_scenario

    return run_scenario(scenario, replay=replay, write=write, progress=progress)


def _command(scenario: str, seed: int, nodes: int | None, settings: tuple[str, ...]) -> str:
    """What to type for the same run."""
    words = ["overlay", "sim", "run", scenario, "--seed", str(seed)]
    words += [] if nodes is None else ["--nodes", str(nodes)]
    for setting in settings:
        words += ["--set", setting]
    return shlex.join(words)


def _difference(trace: Path, header: "Header", comparison: "Comparison") -> str:
    from overlay.version import __version__

    assert comparison.differs is not None
    recorded, now = (line[:SHOWN_MAX] or "the end" for line in comparison.differs)
    versions = f"overlay {header.version} wrote it, this is {__version__}: "
    return (
        f"{trace}: line {comparison.lines + 2} differs: "
        f"{versions if header.version != __version__ else ''}recorded {recorded}, now {now}"
    )


# --- what goes where ---------------------------------------------------------------------------


@contextmanager
def _trace_file(path: Path | None, name: str, scenario: "Scenario") -> Iterator[Line | None]:
    """Where the lines of the trace go, the first one written."""
    if path is None:
        yield None
        return
    from overlay.sim.scenario.tracing import header
    from overlay.version import __version__

    where = f"--trace {path}"

    def write(line: bytes) -> None:
        with writing(where):
            file.write(line)

    file = _writable(path)
    try:
        write(header(name, scenario, __version__))
        yield write
    except CommandFailed:
        with contextlib.suppress(OSError):  # closing it says once more that the disk is full
            file.close()
        raise
    finally:
        with writing(where):
            file.close()


def _timeline(pages: Path | None, scenario: "Scenario") -> "Timeline | None":
    """What gathers the plots' numbers; what would keep them from being written is said now."""
    if pages is None:
        return None
    from overlay.sim.report import plots
    from overlay.sim.report.timeline import Timeline

    plots.require()
    make_directory("--report", pages)
    return Timeline(scenario)


def _both(write: Line | None, timeline: "Timeline | None") -> Line | None:
    if timeline is None or write is None:
        return write if timeline is None else timeline.line
    one, other = write, timeline.line
    return lambda line: (one(line), other(line))[0]


def _write_report(directory: Path, report: "Report", timeline: "Timeline", command: str) -> None:
    from overlay.sim.report import page, plots

    timeline.finish()
    pictures = plots.of_run(report, timeline)
    write_pages(directory, pictures, page.of_run(report, pictures, command))


def _writable(path: Path) -> BinaryIO:
    try:
        return path.open("wb")
    except OSError as error:
        raise UsageError(f"--trace {path}: cannot be written: {error.strerror or error}") from None


@contextmanager
def _progress(scenario: "Scenario", as_json: bool) -> Iterator[Callable[[float], None] | None]:
    """A bar, on a terminal."""
    if not shows_progress(as_json=as_json):
        yield None
        return
    from rich.progress import Progress

    with Progress(console=console(stderr=True), transient=True) as bar:
        task = bar.add_task(f"{scenario.nodes} nodes", total=scenario.duration)
        yield lambda now: bar.update(task, completed=now)


def peak_rss() -> int:
    """Bytes that this process had in memory at most."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def _print_report(report: "Report") -> None:
    """A table for people."""
    from overlay.sim.report.report import shown, shown_band
    from overlay.sim.scenario import units

    answer = report.as_json()
    words: Mapping[bool | None, str] = {True: "ok", False: "missed", None: ""}
    rows = [
        (
            name,
            shown(verdict.value),
            units.of_measure(name),
            shown_band(verdict.band) if verdict.band is not None else "",
            words[verdict.ok],
        )
        for name, verdict in report.verdicts().items()
    ]
    out = console()
    out.print(_summary(answer))
    head = ("measure", "value", "unit", "band", "")
    with_bands = any(band for *_, band, _ in rows)
    table(head if with_bands else head[:3], rows if with_bands else [row[:3] for row in rows])
    out.print(f"trace hash {answer['trace_hash']}")


def _summary(answer: Mapping[str, Any]) -> str:
    size = f"{answer['nodes']} nodes"
    size += "" if answer["full_size"] else " (not the full size: no bands)"
    said = [f"{key} = {value}" for key, value in answer["config_diff"].items()]
    unlike = f", {', '.join(said)}" if said else ""
    rate = f"{answer['events']} messages, {answer['events_per_second']:.0f} a second"
    return (
        f"{answer['scenario']}: {size}, seed {answer['seed']}, "
        f"profile {answer['profile']}{unlike}: {rate}"
    )
