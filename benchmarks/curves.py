"""Draws the published experiments that are a curve: the published figures, and ours beside them."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from overlay.sim.report import plots
from overlay.sim.report.plots import Curve, Picture, label_of
from overlay.sim.scenario import units
from overlay.sim.scenario.reading import find, load
from overlay.sim.scenario.scenario import Published

Row = dict[str, Any]


def pictures(rows: Iterable[Row]) -> Iterator[Picture]:
    """One for each scenario that has been run and has a published curve, in the rows' order."""
    runs: dict[str, list[Row]] = {}
    for row in rows:
        runs.setdefault(row["scenario"], []).append(row)
    for name, told in runs.items():
        for figures in load(find(name)).published:
            if figures.x and not figures.along:
                yield _picture(name, figures, told)


def _picture(name: str, figures: Published, rows: Sequence[Row]) -> Picture:
    ours = [Curve(_label(row, rows), figures.x, _values(figures, row)) for row in rows]
    theirs = Curve(figures.name, figures.x, figures.values)
    measure = figures.measures[0].rpartition("_")[0].replace("_", " ")
    title = units.titled(measure, units.of_measure(figures.measures[0]))
    return plots.of_curves(name, title, label_of(figures), ours, [theirs])


def _label(row: Row, rows: Sequence[Row]) -> str:
    nodes = f"{row['nodes']:,} nodes"
    return f"measured, profile {row['profile']}, {nodes}" if len(rows) > 1 else f"measured, {nodes}"


def _values(figures: Published, row: Row) -> list[float]:
    return [row["measures"][measure]["value"] for measure in figures.measures]


def write(rows: Iterable[Row], directory: Path, page: Path) -> str:
    """Draw them all into a directory; the Markdown that shows them on a page."""
    shown = []
    for picture in pictures(rows):
        directory.mkdir(exist_ok=True)
        file = directory / f"{picture.name}.png"
        file.write_bytes(picture.png)
        where = file.relative_to(page.parent).as_posix()
        shown.append(f"![{picture.name}: {picture.title}]({where})")
    return "\n\n".join(shown)
