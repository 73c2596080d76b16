"""Draws what a run, or a sweep, came to: PNG pictures by their names.

Draws with matplotlib (the extra `sim`), imported when the first picture is drawn. No display, no
state between two pictures, the same bytes for the same numbers.
"""

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from itertools import groupby
from typing import TYPE_CHECKING, Any

from overlay.errors import UsageError
from overlay.sim.report.report import Beside, Report
from overlay.sim.report.timeline import Timeline
from overlay.sim.scenario import units
from overlay.sim.scenario.scenario import Published

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, SOFT, GRID = "#1b2a3a", "#7a8794", "#e3e7eb"
OURS, WRONG, BAND = "#0b6e99", "#c0392b", "#cfe6d4"
OTHERS = ("#d98a1f", "#7d5ba6", "#4f9d69", "#b04a78", "#8a6d3b", "#5b7c99")
MARKS = "so^Dv<>"
"""Colours and marks of published curves, in turn: told apart without colour too."""
OWN = (OURS, "C2", "C4", "C6", "C9", "C5", "C7")
"""Colours of our curves: the first ones are unlike the first published one."""
WIDE = 7.6
DOTS = 130
"""Inches and dots an inch: 988 pixels."""
FAULTS_NAMED = 12
"""Lines of a timeline whose names have room in a plot (guess)."""
SPAN = 30.0
"""A range of numbers wider than this factor is drawn on a logarithmic scale (guess)."""


@dataclass(frozen=True, slots=True)
class Picture:
    """One plot: the name of its file, what it shows, and the PNG."""

    name: str
    title: str
    png: bytes


@dataclass(frozen=True, slots=True)
class Curve:
    """Points that belong together, with a range for each where there are several runs."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()


def require() -> None:
    """UsageError that names the extra when there is no matplotlib: before anything long begins."""
    try:
        import_module("matplotlib.figure")
    except ImportError:
        text = "plots need the extra `sim`: install overlay-mesh[sim] (matplotlib)"
        raise UsageError(f"{text}; in a clone, `make install-sim` does that") from None


def of_run(report: Report, timeline: Timeline) -> list[Picture]:
    """Every plot of a report that has something to show."""
    drawn = [
        ("bands", "Measures and their bands", _bands(report)),
        *_published(report),
        ("timeline", "The run on its virtual clock", _timeline(report, timeline)),
        ("delivery", "How messages came", _delivery(timeline)),
        ("links", "Links of a node at the end", _degrees(timeline)),
    ]
    return [Picture(name, title, _png(figure)) for name, title, figure in drawn if figure]


def of_curves(
    name: str, title: str, x_label: str, ours: list[Curve], others: list[Curve]
) -> Picture:
    """One measure over one key: our curves, the published ones, and the range of the seeds."""
    figure, (axes,) = _panels(1, 3.6)
    _curves(axes, ours, others, x_label, title)
    return Picture(name, title, _png(figure))


# --- the plots of a run --------------------------------------------------------------------------


def _bands(report: Report) -> "Figure | None":
    """Each band as a bar of the same length, the measure as a point on it or beside it."""
    rows = [
        (name, verdict.value, verdict.band, verdict.ok)
        for name, verdict in report.verdicts().items()
        if verdict.band is not None and verdict.value is not None
    ]
    if not rows:
        return None
    figure, (axes,) = _panels(1, 0.7 + 0.34 * len(rows))
    for y, (_, value, (low, high), ok) in enumerate(rows):
        axes.barh(y, 1.0, left=0.0, height=0.6, color=BAND, zorder=1)
        at = 0.5 if high == low else (value - low) / (high - low)
        if high == low and value != low:
            at = 1.25 if value > high else -0.25
        colour, mark = (OURS, "o") if ok else (WRONG, "X")
        axes.plot(min(max(at, -0.4), 1.4), y, mark, color=colour, zorder=3, markersize=7)
        axes.text(-0.05, y, f"{low:g}", ha="right", va="center", color=SOFT, fontsize=7, zorder=2)
        axes.text(1.05, y, f"{high:g}", ha="left", va="center", color=SOFT, fontsize=7, zorder=2)
        axes.text(1.62, y, f"{value:.5g}", ha="right", va="center", color=INK, fontsize=8)
    titles = [units.titled(name, units.of_measure(name)) for name, *_ in rows]
    axes.set_yticks(range(len(rows)), titles)
    axes.set_xlim(-0.5, 1.65)
    axes.set_xticks([])
    axes.invert_yaxis()
    axes.grid(visible=False)
    axes.spines["left"].set_visible(False)
    axes.spines["bottom"].set_visible(False)
    return figure


def _published(report: Report) -> Iterator[tuple[str, str, "Figure | None"]]:
    """Every group of curves over the same thing in a plot of its own."""
    rows = [row for row in report.published() if row.x is not None]
    rows.sort(key=_over)
    for number, (over, group) in enumerate(groupby(rows, _over), 1):
        figure, (axes,) = _panels(1, 3.6)
        beside = list(group)
        title = _common(beside)
        _curves(axes, list(_measured(beside)), list(_theirs(report, beside)), over, title)
        yield f"published-{number}", "Beside the published figures", figure


def _over(row: Beside) -> str:
    return label_of(row.figures)


def label_of(figures: Published) -> str:
    """What the horizontal axis of published figures is."""
    return figures.label or units.titled(figures.along, units.of_key(figures.along))


def _common(rows: list[Beside]) -> str:
    """What the vertical axis is: the measure, or where there are several their unit."""
    names = {row.measure: None for row in rows}
    told = {units.of_measure(name): None for name in names}
    return units.titled(*names, *told) if len(names) == len(told) == 1 else ", ".join(told)


def _measured(rows: list[Beside]) -> Iterator[Curve]:
    """Ours, once for each set of measures that somebody has published figures for."""
    seen: dict[tuple[str, float], float] = {}
    for row in rows:
        if row.measured is not None and row.x is not None:
            seen[row.measure, row.x] = row.measured
    if seen:
        points = sorted((x, y) for (_, x), y in seen.items())
        yield Curve("measured here", [x for x, _ in points], [y for _, y in points])


def _theirs(report: Report, rows: list[Beside]) -> Iterator[Curve]:
    shown = {id(row.figures) for row in rows}
    for figures in report.scenario.published:
        if id(figures) in shown:
            yield Curve(figures.name, figures.x, figures.values)


def _timeline(report: Report, timeline: Timeline) -> "Figure | None":
    """Members, their links and what was asked of them, over virtual time, with the faults."""
    if timeline.empty:
        return None
    lanes = timeline.lanes[1:] or timeline.lanes
    asked = [name for name in ("messages", "requests") if any(getattr(x, name) for x in lanes)]
    figure, panels = _panels(2 + len(asked), 1.6)
    for number, lane in enumerate(lanes):
        style: dict[str, Any] = {
            "color": OURS if len(lanes) == 1 else f"C{number % 10}",
            "label": lane.name,
        }
        at = [moment.at for moment in lane.moments]
        panels[0].step(at, [moment.up for moment in lane.moments], where="mid", **style)
        panels[1].plot(at, [moment.links for moment in lane.moments], **style)
        for panel, name in zip(panels[2:], asked, strict=True):
            judged = getattr(lane, name)
            xs, ys = [each.at for each in judged], [each.share for each in judged]
            panel.plot(xs, ys, "o", markersize=3.5, alpha=0.7, **style)
    shares = (f"{name}\n(share)" for name in asked)
    for panel, label in zip(panels, ("nodes up", "links a node", *shares), strict=True):
        panel.set_ylabel(label)
        panel.set_xlim(lanes[0].begin, lanes[0].end)
        panel.set_ylim(bottom=0)
    for panel in panels[2:]:
        panel.set_ylim(-0.05, 1.08)
    if len(lanes) > 1:
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(
            handles, labels, loc="outside right upper", frameon=False, fontsize=8, title="% hit"
        )
    _faults(report, panels)
    panels[-1].set_xlabel("virtual seconds")
    return figure


def _faults(report: Report, panels: "list[Axes]") -> None:
    """A line where each begins, with its name while there is room for names."""
    faults = report.scenario.faults
    for fault in faults:
        for panel in panels:
            panel.axvline(fault.at, color=WRONG, linewidth=0.8, linestyle=":")
        if len(faults) <= FAULTS_NAMED:
            name = fault.do if fault.times == 1 else f"{fault.do} × {fault.times}"
            transform = panels[0].get_xaxis_transform()
            place: dict[str, Any] = {"transform": transform, "rotation": 30}
            panels[0].text(fault.at, 1.02, name, color=WRONG, fontsize=7, clip_on=False, **place)


def _delivery(timeline: Timeline) -> "Figure | None":
    """How many links messages had passed, and how long they took."""
    delays = timeline.delays()
    if not delays:
        return None
    figure, (left, right) = _panels(1, 3.0, across=2)
    hops = sorted(timeline.hops.items())
    total = timeline.hops.total()
    left.bar([hop for hop, _ in hops], [count / total for _, count in hops], color=OURS)
    left.set_xlabel("links passed")
    left.set_ylabel("share of deliveries")
    right.plot([x for x, _ in delays], [y for _, y in delays], color=OURS)
    right.set_xscale("log")
    right.set_xlabel("seconds until delivered")
    right.set_ylabel("share delivered by then")
    right.set_ylim(0, 1.03)
    return figure


def _degrees(timeline: Timeline) -> "Figure | None":
    """How many nodes have how many links."""
    degrees = sorted(timeline.degrees().items())
    if not degrees:
        return None
    figure, (axes,) = _panels(1, 2.6)
    axes.bar([links for links, _ in degrees], [count for _, count in degrees], color=OURS)
    axes.set_xlabel("links")
    axes.set_ylabel("nodes")
    return figure


# --- how they look -------------------------------------------------------------------------------


def _panels(count: int, height: float, across: int = 1) -> tuple["Figure", list["Axes"]]:
    """A figure of panels above each other (or beside), dressed alike."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDE, height * count + 0.5), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(count, across, squeeze=False, sharex="col" if count > 1 else "none")
    panels: list[Axes] = list(grid.flat)
    for axes in panels:
        axes.grid(color=GRID, linewidth=0.6)
        axes.set_axisbelow(True)
        axes.tick_params(colors=INK, labelsize=8, length=3)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        for side in ("left", "bottom"):
            axes.spines[side].set_color(SOFT)
    return figure, panels


def _curves(axes: "Axes", ours: list[Curve], others: list[Curve], x_label: str, y: str) -> None:
    for number, curve in enumerate(others):
        colour, mark = OTHERS[number % len(OTHERS)], MARKS[number % len(MARKS)]
        style: dict[str, Any] = {
            "color": colour,
            "marker": mark,
            "linestyle": "--",
            "markersize": 4.5,
        }
        axes.plot(curve.x, curve.y, label=curve.label, linewidth=1.0, **style)
    for number, curve in enumerate(ours):
        colour = OWN[number % len(OWN)]
        axes.plot(curve.x, curve.y, "-o", color=colour, label=curve.label, markersize=5)
        if curve.low:
            axes.fill_between(curve.x, curve.low, curve.high, color=colour, alpha=0.15, linewidth=0)
    drawn = [*ours, *others]
    _scale(axes.set_xscale, [x for curve in drawn for x in curve.x])
    _scale(axes.set_yscale, [y for curve in drawn for y in curve.y])
    axes.set_xlabel(x_label)
    axes.set_ylabel(y)
    _legend(axes)


def _scale(choose: Callable[[str], None], values: list[float]) -> None:
    if values and min(values) > 0 and max(values) / min(values) > SPAN:
        choose("log")


def _legend(axes: "Axes") -> None:
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, fontsize=8, loc="best")


def _png(figure: "Figure") -> bytes:
    """The same figure is the same bytes: no date, no version in it."""
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=DOTS, metadata={"Software": None})
    return out.getvalue()
