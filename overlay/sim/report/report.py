"""The report of a run: each measure beside its band, and in one line what went wrong."""

from dataclasses import dataclass
from typing import Any

from overlay.sim.scenario.profiles import config_diff
from overlay.sim.scenario.running import Outcome
from overlay.sim.scenario.scenario import Published, Scenario
from overlay.tables import value_of

Band = tuple[float, float]
WHAT_MAX = 300
"""Characters of a violation that are shown: it may quote a message."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """One measure, the band that it has to be in, and whether it is; None where there is none."""

    value: float | None
    band: Band | None
    ok: bool | None


@dataclass(frozen=True, slots=True)
class Beside:
    """A published figure, and what came of it here."""

    figures: Published
    """The figures that it is one of."""
    measure: str
    x: float | None
    published: float
    measured: float | None


@dataclass(frozen=True, slots=True)
class Report:
    """A run, what it measured, and what of that was promised."""

    name: str
    scenario: Scenario
    full_size: int
    """The nodes that the file names: at another size its bands say nothing."""
    outcome: Outcome
    seconds: float
    """Wall time of the run."""
    peak_rss: int
    """Bytes that the process had at most."""

    @property
    def ok(self) -> bool:
        """No band is missed, no invariant broken."""
        missed = any(verdict.ok is False for verdict in self.verdicts().values())
        return self.outcome.violation is None and not missed

    def verdicts(self) -> dict[str, Verdict]:
        """Every measure by its name."""
        apply = self.scenario.nodes == self.full_size
        bands = self.scenario.bands if apply else {}
        return {
            name: _verdict(value, bands.get(name)) for name, value in self.outcome.measures.items()
        }

    def published(self) -> list[Beside]:
        """Every published figure that this run can be held against."""
        return [row for figures in self.scenario.published for row in self._beside(figures)]

    def _beside(self, figures: Published) -> list[Beside]:
        measured = self.outcome.measures
        if figures.along:
            here = value_of(self.scenario, figures.along)
            pairs = zip(figures.x, figures.values, strict=True)
            name = figures.measures[0]
            return [Beside(figures, name, x, y, measured[name]) for x, y in pairs if x == here]
        xs = figures.x or (None,) * len(figures.values)
        rows = zip(figures.measures, xs, figures.values, strict=True)
        return [Beside(figures, name, x, y, measured[name]) for name, x, y in rows]

    def as_json(self) -> dict[str, Any]:
        """The one object of ``--json``."""
        events = self.outcome.events
        return {
            "scenario": self.name,
            "profile": self.scenario.profile,
            "nodes": self.scenario.nodes,
            "seed": self.scenario.seed,
            "full_size": self.scenario.nodes == self.full_size,
            "config_diff": config_diff(self.scenario),
            "measures": {
                name: {"value": verdict.value, "band": verdict.band, "ok": verdict.ok}
                for name, verdict in self.verdicts().items()
            },
            "ok": self.ok,
            "events": events,
            "events_per_second": events / self.seconds if self.seconds > 0 else 0.0,
            "peak_rss": self.peak_rss,
            "trace_hash": self.outcome.trace_hash,
        }

    def failure(self, replay: str = "") -> str | None:
        """In one line: the seed, the virtual time, what was violated, how to see it again."""
        violation = self.outcome.violation
        missed = [
            f"{name} is {shown(verdict.value)}, outside its band {shown_band(verdict.band)}"
            for name, verdict in self.verdicts().items()
            if verdict.ok is False and verdict.band is not None
        ]
        what = [*([violation.what[:WHAT_MAX]] if violation is not None else []), *missed]
        if not what:
            return None
        seed, at = self.scenario.seed, self.outcome.at
        again = f"; replay: {replay}" if replay else ""
        return f"{self.name}, seed {seed}, at {at:.6f} s: {'; '.join(what)}{again}"


def _verdict(value: float | None, band: Band | None) -> Verdict:
    if band is None:
        return Verdict(value, None, None)
    return Verdict(value, band, value is not None and band[0] <= value <= band[1])


def shown(value: float | None) -> str:
    """A measure for people."""
    return "not measured" if value is None else f"{value:.6g}"


def shown_band(band: Band) -> str:
    """A band for people."""
    return f"{band[0]:g} to {band[1]:g}"
