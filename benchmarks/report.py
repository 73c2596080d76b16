"""Where results go: ``results.json`` for programs, a table in ``docs/benchmarks.md`` for people."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks.measure import Measure, Result

BEGIN = "<!-- table: written by `make bench` -->"
END = "<!-- end of table -->"


def read_results(path: Path) -> list[Result]:
    """The results of earlier runs; none when there is no file."""
    if not path.exists():
        return []
    return [Result(**entry) for entry in json.loads(path.read_text())]


def merge(old: Iterable[Result], new: Iterable[Result], order: Sequence[str]) -> list[Result]:
    """Every result once, the newer one, in the order of the table; unknown names are dropped."""
    by_name = {result.name: result for result in (*old, *new)}
    return [by_name[name] for name in order if name in by_name]


def write_results(path: Path, outcome: Sequence[Result]) -> None:
    """Replace the file that programs read."""
    path.write_text(json.dumps([asdict(result) for result in outcome], indent=2) + "\n")


def table(outcome: Sequence[Result], measures: Sequence[Measure]) -> str:
    """The Markdown table: one line a result."""
    titles = {measure.name: measure.title for measure in measures}
    lines = [
        "| name | what | ours | rival | ratio | bar | met |",
        "|---|---|---|---|---|---|---|",
    ]
    for result in outcome:
        cells = (
            f"`{result.name}`",
            titles[result.name],
            _figure(result.value, result.unit),
            _figure(result.baseline, result.unit),
            "" if result.ratio is None else f"{result.ratio:.2f}",
            result.bar,
            "yes" if result.ok else "**no**",
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def write_table(page: Path, text: str, begin: str = BEGIN) -> None:
    """Put the table between the page's two marks.

    Raises ValueError when the page has lost a mark.
    """
    before, found, rest = page.read_text().partition(begin)
    _, end, after = rest.partition(END)
    if not found or not end:
        raise ValueError(
            f"{page.name} has no place for the table: keep the lines {begin} and {END}"
        )
    page.write_text(f"{before}{begin}\n{text}\n{END}{after}")


def _figure(value: float | None, unit: str) -> str:
    if value is None:
        return ""
    shown = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return f"{shown} {unit}".strip()
