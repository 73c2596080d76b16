"""The hard cases: many addresses, uplinks of either family, outages, ways that are bad.

What they are and what must come of each, `tests.lab.nat.hard` says; here all are tried, some times
each, and told for programs and for the page.
"""

import statistics
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Any

from tests.lab.nat.hard import CASES, LEVELS, Case, Trial, Tried, missed
from tests.lab.nat.laboratory import Laboratory
from tests.lab.nat.mesh import Mesh

TRIES = 3
TOGETHER = 8
"""Cases whose nodes are up at once."""
MARK = "<!-- hard: written by `make bench-nat` -->"


@dataclass(frozen=True, slots=True)
class Row:
    """All tries of a case."""

    name: str
    group: str
    outcome: str
    """What must come of it: ``direct``, ``relayed``."""
    tries: int
    ways: dict[str, int]
    """What came of it, as `Tried.way` has it."""
    techniques: dict[str, int]
    median_s: float
    max_s: float
    """To the first answered ping."""
    direct_s: float | None
    """The longest until a path of their own."""
    back_s: float | None
    """The longest from the end of an outage until bytes moved."""
    missed: list[str]


def measure(
    laboratory: Laboratory, mesh: Callable[[ExitStack], Mesh], tries: int, names: str
) -> list[Row]:
    """Try the cases in whose names this is found, so many times, and say what is amiss."""
    rows = list[Row]()
    for cases in chunks([case for case in CASES if names in f"{case.group.value}: {case.name}"]):
        _say(f"{cases[0].group.value}: {len(cases)} cases")
        found: dict[str, list[Tried]] = {case.name: [] for case in cases}
        for _ in range(tries):
            with ExitStack() as stack:
                for case, tried in zip(
                    cases, Trial(laboratory, mesh(stack), cases).run(), strict=True
                ):
                    found[case.name].append(tried)
                    for wrong in missed(case, tried):
                        _say(f"  {wrong}: {tried}")
        rows += [row_of(case, found[case.name]) for case in cases]
    return rows


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def chunks(cases: Sequence[Case]) -> Iterable[Sequence[Case]]:
    """Cases of one group that are tried together."""
    groups = dict.fromkeys(case.group for case in cases)
    for group in groups:
        alike = [case for case in cases if case.group is group]
        yield from (alike[at : at + TOGETHER] for at in range(0, len(alike), TOGETHER))


def row_of(case: Case, tries: Sequence[Tried]) -> Row:
    """One case's row."""
    taken = [each.seconds for each in tries]
    direct = [each.direct_s for each in tries if each.direct_s is not None]
    back = [each.back_s for each in tries if each.back_s is not None]
    return Row(
        case.name,
        case.group.value,
        case.outcome,
        len(tries),
        dict(Counter(each.way or "nothing" for each in tries)),
        dict(Counter(each.technique for each in tries if each.technique)),
        round(statistics.median(taken), 3),
        max(taken),
        max(direct, default=None),
        max(back, default=None),
        [why for each in tries for why in missed(case, each)],
    )


def told(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """As the file has it."""
    return [asdict(row) for row in rows]


def page(found: Mapping[str, Any]) -> str:
    """The section's tables, from what was found; nothing from nothing."""
    if not found:
        return "| |  |\n|---|"
    lines = [f"{found['tries']} tries each, {found['date']}, commit {found['commit']}."]
    for group in dict.fromkeys(row["group"] for row in found["rows"]):
        outages = group == "outages"
        lines += [
            "",
            f"| {group} | | connects | longest | {'back' if outages else 'direct'} within | by |",
            "|---|---|---|---|---|---|",
        ]
        lines += [_line(Row(**row), outages) for row in found["rows"] if row["group"] == group]
    return "\n".join(
        [*lines, "", "The ways that are bad, each way of the leg of one end:", *_levels()]
    )


def _levels() -> list[str]:
    """What each degradation is made of."""
    told = []
    for name, (level, _) in LEVELS.items():
        parts = [f"{1000 * level.latency:.0f} ms"]
        parts += [f"up to {1000 * level.jitter:.0f} ms more"] if level.jitter else []
        parts += [f"{100 * level.loss:g} % lost"] if level.loss else []
        parts += [f"{100 * level.reorder:g} % overtaken"] if level.reorder else []
        if level.rate:
            parts.append(f"{level.rate / 1000:g} kB/s behind a queue of {level.queue / 1000:g} kB")
        told.append(f"- {name}: {', '.join(parts)}")
    return ["", *told]


def _line(row: Row, outages: bool) -> str:
    ways = " + ".join(
        way if count == row.tries else f"**{way} {count} of {row.tries}**"
        for way, count in sorted(row.ways.items())
    )
    last = row.back_s if outages else row.direct_s
    by = ", ".join(sorted(row.techniques))
    cells = (
        row.name,
        ways,
        f"{row.median_s:.2f} s",
        f"{row.max_s:.2f} s",
        "" if last is None else f"{last:.2f} s",
        by,
    )
    return f"| {' | '.join(cells)} |"
