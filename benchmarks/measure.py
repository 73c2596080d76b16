"""What is measured, how runs are paired and summed up, and when a figure meets its bar."""

import statistics
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

Figures = Mapping[str, float]
"""One run: each measure's name and what it came to."""


@dataclass(frozen=True, slots=True)
class Bar:
    """A limit on a measure, or on its ratio to the rival's."""

    limit: float
    at_most: bool = True
    of_ratio: bool = False

    def __str__(self) -> str:
        sign = "<=" if self.at_most else ">="
        return f"{sign} {self.limit:g}" + (" x rival" if self.of_ratio else "")

    def met(self, value: float | None, ratio: float | None) -> bool:
        """Whether the bar is met; a figure that is missing never meets it."""
        figure = ratio if self.of_ratio else value
        if figure is None:
            return False
        return figure <= self.limit if self.at_most else figure >= self.limit


@dataclass(frozen=True, slots=True)
class Measure:
    """One row of the table."""

    name: str
    title: str
    unit: str
    bar: Bar
    worst: bool = False
    """Whether the worst run counts (a promise about every run) instead of the median."""

    def sum_up(self, runs: Iterable[float]) -> float | None:
        """The median of the runs, or the worst of them; None without any."""
        figures = list(runs)
        if not figures:
            return None
        if self.worst:
            return max(figures) if self.bar.at_most else min(figures)
        return statistics.median(figures)


@dataclass(frozen=True, slots=True)
class Case:
    """Something to run: it yields the figures of one or more measures."""

    name: str
    measures: tuple[Measure, ...]
    ours: Callable[[], Figures]
    rival: Callable[[], Figures] | None = None
    rival_runs: int | None = None
    """Fewer runs of a rival that is slow, where no bar compares with it."""


@dataclass(slots=True)
class Runs:
    """All runs of a case."""

    ours: list[Figures] = field(default_factory=list)
    rival: list[Figures] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Result:
    """One measure's outcome: an entry of results.json."""

    name: str
    value: float | None
    unit: str
    baseline: float | None
    ratio: float | None
    bar: str
    ok: bool


def in_turn(case: Case, runs: int, say: Callable[[str], None]) -> Runs:
    """Run ours, the rival, ours, the rival, …, so that both meet the same noise."""
    done = Runs()
    for number in range(1, runs + 1):
        done.ours.append(case.ours())
        say(f"{case.name} {number}/{runs} ours  {_line(done.ours[-1])}")
        if case.rival is not None and number <= (case.rival_runs or runs):
            done.rival.append(case.rival())
            say(f"{case.name} {number}/{runs} rival {_line(done.rival[-1])}")
    return done


def results(case: Case, runs: Runs) -> list[Result]:
    """A result for each measure of the case; a measure without a figure misses its bar."""
    return [_result(measure, runs) for measure in case.measures]


def _result(measure: Measure, runs: Runs) -> Result:
    name = measure.name
    value = measure.sum_up(run[name] for run in runs.ours if name in run)
    baseline = measure.sum_up(run[name] for run in runs.rival if name in run)
    ratio = value / baseline if value is not None and baseline else None
    return Result(
        name=name,
        value=value,
        unit=measure.unit,
        baseline=baseline,
        ratio=ratio,
        bar=str(measure.bar),
        ok=measure.bar.met(value, ratio),
    )


def _line(figures: Figures) -> str:
    return "  ".join(f"{name} {value:.4g}" for name, value in figures.items())
