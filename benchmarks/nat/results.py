"""What came of the tries: rows for programs, tables in ``docs/nat.md`` for people."""

import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.report import write_table
from tests.lab.nat.mesh import MATRIX, Try

Pair = tuple[str, str]
Found = dict[Pair, list[Try]]
SAID = {"relayed": "relayed"}
"""What a node says, where nothing was counted; all else is direct."""
OURS = "<!-- ours: written by `make bench-nat` -->"
STOCK = "<!-- stock: written by `make bench-nat` -->"
OTHERWISE = "<!-- conditions: written by `make bench-nat` -->"


@dataclass(frozen=True, slots=True)
class Row:
    """All tries of a pair."""

    a: str
    b: str
    tries: int
    connected: int
    paths: dict[str, int]
    """How many took which way: ``direct``, ``relayed``, as the laboratory has counted."""
    median_s: float | None
    """From the request behind `overlay connect` to the first answered ping; None: never."""
    max_s: float | None


def row_of(pair: Pair, tries: Sequence[Try]) -> Row:
    """One pair's row."""
    taken = [each.seconds for each in tries if each.connected]
    ways = Counter(each.way or SAID.get(each.path, "direct") for each in tries if each.connected)
    middle = round(statistics.median(taken), 3) if taken else None
    latest = round(max(taken), 3) if taken else None
    return Row(*pair, len(tries), len(taken), dict(ways), middle, latest)


def rows_of(found: Found) -> list[Row]:
    """A row for each pair."""
    return [row_of(pair, tries) for pair, tries in found.items()]


def write_page(page: Path, ours: Sequence[Any], conditions: Mapping[str, Any]) -> None:
    """Put the tables between the page's marks, from what the files of results say."""
    when = conditions.get("measured", {}).get("ours")
    said = f"{when['date']}, commit {when['commit']}; in seconds, the median:\n\n" if when else ""
    write_table(page, said + matrix(Row(**row) for row in ours), OURS)
    write_table(page, matrix(Row(**row) for row in conditions.get("stock", ())), STOCK)
    write_table(page, summary(conditions), OTHERWISE)


def matrix(rows: Iterable[Row]) -> str:
    """A table of all pairs; each stands once, above the diagonal."""
    by_pair = {(row.a, row.b): row for row in rows}
    kinds = [kind for kind in MATRIX if any(kind in pair for pair in by_pair)]
    names = [kind.replace("_", " ") for kind in kinds]
    lines = ["| | " + " | ".join(names) + " |", "|---" * (len(kinds) + 1) + "|"]
    for name, a in zip(names, kinds, strict=True):
        cells = [_cell(by_pair.get((a, b))) for b in kinds]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(row: Row | None) -> str:
    if row is None:
        return ""
    if not row.connected:
        return f"**0/{row.tries}**"
    ways = "+".join(sorted(row.paths))
    share = "" if row.connected == row.tries else f" **{row.connected}/{row.tries}**"
    return f"{ways}{share} {row.median_s:.2f}"


def summary(conditions: Mapping[str, Any]) -> str:
    """The other runs, a line each."""
    lines = [
        "| what | connected | direct | relayed | median | longest |",
        "|---|---|---|---|---|---|",
    ]
    for name, rows in conditions.items():
        if name in ("stock", "mappings of 3 s", "measured"):
            continue
        groups = (
            [(f"{row['a']}", [row]) for row in rows] if name == "one carrier" else [(name, rows)]
        )
        lines += [_summed(label.replace("_", " "), group) for label, group in groups]
    short = conditions.get("mappings of 3 s")
    if short is None:
        return "\n".join(lines)
    return "\n".join(lines) + (
        f"\n\nWith mappings that end after three idle seconds, of {short['links']} links between "
        f"homes of all kinds {short['ended']} ended within {short['seconds']:.0f} s; they were up "
        f"in {100 * short['up']:.1f} % of all looks."
    )


def _summed(label: str, rows: Sequence[Mapping[str, Any]]) -> str:
    tries, connected = (sum(row[key] for row in rows) for key in ("tries", "connected"))
    ways = Counter[str]()
    for row in rows:
        ways.update(row["paths"])
    taken = [row["median_s"] for row in rows if row["connected"]]
    middle, latest = (f"{value:.2f} s" for value in (statistics.median(taken), max(taken)))
    return (
        f"| {label} | {connected} of {tries} | {ways['direct']} | {ways['relayed']} "
        f"| {middle} | {latest} |"
    )
