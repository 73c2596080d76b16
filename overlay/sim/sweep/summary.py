"""What a sweep came to: a table over its seeds, all cells as CSV, and curves."""

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import msgspec

from overlay.sim.report import page, plots
from overlay.sim.report.page import Cell
from overlay.sim.report.plots import Curve, Picture
from overlay.sim.report.report import shown
from overlay.sim.scenario import units
from overlay.sim.scenario.scenario import Published
from overlay.sim.sweep.results_file import Result
from overlay.sim.sweep.sweep import Sweep

ALWAYS = ("events", "trace_hash", "failure")
"""Columns of the CSV after the measures."""


@dataclass(frozen=True, slots=True)
class Spread:
    """One measure over the seeds of one point."""

    mean: float
    least: float
    most: float

    def __str__(self) -> str:
        spread = f" ({shown(self.least)} to {shown(self.most)})" if self.least < self.most else ""
        return shown(self.mean) + spread


@dataclass(frozen=True, slots=True)
class Point:
    """One combination of values, over the seeds that have run."""

    values: tuple[Any, ...]
    """Of the axes, in their order."""
    runs: int
    good: int
    """Runs in which no band was missed and no promise broken."""
    measures: Mapping[str, Spread | None]
    """None where no run measured it."""


def points(sweep: Sweep, results: Mapping[str, Result]) -> list[Point]:
    """The table, in the order of the sweep; combinations that have not run are left out."""
    groups: dict[str, tuple[tuple[Any, ...], list[Result]]] = {}
    for cell in sweep.cells:
        if cell.key in results:
            values = tuple(value for _, value in cell.axes)
            groups.setdefault(repr(values), (values, []))[1].append(results[cell.key])
    return [_point(sweep, values, found) for values, found in groups.values()]


def _point(sweep: Sweep, values: tuple[Any, ...], results: list[Result]) -> Point:
    measures = {name: _spread(name, results) for name in sweep.measures}
    return Point(values, len(results), sum(result["ok"] for result in results), measures)


def _spread(name: str, results: Iterable[Result]) -> Spread | None:
    cells = (result["measures"].get(name) for result in results)
    values = [cell["value"] for cell in cells if cell is not None and cell["value"] is not None]
    return Spread(fmean(values), min(values), max(values)) if values else None


def rows(sweep: Sweep, table: Iterable[Point]) -> Iterator[list[str]]:
    """The table as texts, its head first."""
    measures = (units.titled(name, units.of_measure(name)) for name in sweep.measures)
    yield [*(_axis(key) for key in sweep.axes), "ok", *measures]
    for point in table:
        spreads = ("" if each is None else str(each) for each in point.measures.values())
        yield [*map(written, point.values), f"{point.good}/{point.runs}", *spreads]


def as_csv(sweep: Sweep, results: Mapping[str, Result]) -> str:
    """A line for each cell that has run, with every measure."""
    measured = {name: None for result in results.values() for name in result["measures"]}
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*sweep.axes, "seed", "ok", *measured, *ALWAYS])
    for cell in sweep.cells:
        if cell.key not in results:
            continue
        result = results[cell.key]
        values = (result["measures"].get(name, {}).get("value") for name in measured)
        writer.writerow(
            [
                *(written(value) for _, value in cell.axes),
                result["seed"],
                written(result["ok"]),
                *("" if value is None else value for value in values),
                *("" if result[name] is None else result[name] for name in ALWAYS),
            ]
        )
    return out.getvalue()


def written(value: Any) -> str:
    """A value as TOML or JSON would have it, texts bare."""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


# --- plots ---------------------------------------------------------------------------------------


def pictures(sweep: Sweep, results: Mapping[str, Result]) -> list[Picture]:
    """One for each measure of the table, over the axis below."""
    below = _below(sweep)
    if below is None:
        return [_over_seeds(results, name) for name in sweep.measures]
    table = points(sweep, results)
    return [_over_axis(sweep, table, name, below) for name in sweep.measures]


def _below(sweep: Sweep) -> str | None:
    """The first axis whose values are numbers, else the first; None without any."""
    numeric = (key for key, values in sweep.axes.items() if all(map(_is_number, values)))
    return next(numeric, next(iter(sweep.axes), None))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _over_axis(sweep: Sweep, table: Sequence[Point], name: str, below: str) -> Picture:
    """A curve for each combination of the other axes; what is no number is numbered from 1."""
    keys, values = list(sweep.axes), sweep.axes[below]
    at, numeric = keys.index(below), all(map(_is_number, values))
    label = _axis(below)
    if not numeric:
        label += f" ({', '.join(f'{i}: {written(value)}' for i, value in enumerate(values, 1))})"
    lines: dict[str, list[tuple[float, Spread]]] = {}
    for point in table:
        spread = point.measures[name]
        if spread is None:
            continue
        others = [f"{key} = {written(v)}" for key, v in zip(keys, point.values, strict=True)]
        del others[at]
        x = point.values[at] if numeric else 1 + values.index(point.values[at])
        lines.setdefault(", ".join(others) or "measured here", []).append((x, spread))
    curves = [_curve(line, found) for line, found in lines.items()]
    title = units.titled(name, units.of_measure(name))
    return plots.of_curves(name, title, label, curves, list(_published(sweep, name, below)))


def _axis(key: str) -> str:
    """A key of the scenario with its unit."""
    return units.titled(key, units.of_key(key))


def _curve(label: str, found: list[tuple[float, Spread]]) -> Curve:
    found.sort(key=lambda each: each[0])
    return Curve(
        label,
        [x for x, _ in found],
        [spread.mean for _, spread in found],
        [spread.least for _, spread in found],
        [spread.most for _, spread in found],
    )


def _published(sweep: Sweep, name: str, below: str) -> Iterator[Curve]:
    published: Sequence[Published] = sweep.cells[0].scenario.published
    for figures in published:
        if figures.along == below and name in figures.measures:
            yield Curve(figures.name, figures.x, figures.values)


def _over_seeds(results: Mapping[str, Result], name: str) -> Picture:
    found = [result for result in results.values() if name in result["measures"]]
    seen = [(result["seed"], result["measures"][name]["value"]) for result in found]
    known = sorted((seed, value) for seed, value in seen if value is not None)
    curve = Curve("measured here", [seed for seed, _ in known], [value for _, value in known])
    title = units.titled(name, units.of_measure(name))
    return plots.of_curves(name, title, "seed", [curve], [])


def html(
    sweep: Sweep, table: Sequence[Point], drawn: Iterable[Picture], failures: Sequence[str]
) -> str:
    """The page of a sweep."""
    head, *body = rows(sweep, table)
    seeds = len({cell.scenario.seed for cell in sweep.cells})
    done = sum(point.runs for point in table)
    parts = [
        page.paragraph(sweep.about, "about"),
        page.paragraph(
            f"{sweep.base}: {done} of {len(sweep.cells)} cells, {seeds} "
            f"seed{'' if seeds == 1 else 's'} each. A measure is the mean over the seeds, with "
            "the least and the most of them."
        ),
        *(page.paragraph(text, "missed") for text in failures),
        page.table(head, [[Cell(text) for text in row] for row in body])
        or page.paragraph("No cell has run to its end."),
        *(page.figure(picture) for picture in drawn),
    ]
    return page.document(sweep.name, parts)
