"""From a TOML file to a scenario: strict about every key, and about the order of events.

Whatever is wrong is a `ConfigError` of one line that names the file (or the option that set it),
the key, and what is allowed there.
"""

import difflib
import math
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from overlay.errors import ConfigError, UsageError
from overlay.sim.scenario import matrices
from overlay.sim.scenario.measures import names_for
from overlay.sim.scenario.scenario import LATENCY, Fault, Phase, Scenario
from overlay.tables import Overrides, Reader, Table, assignment, content_of, nearest, value_of

PACKAGE = Path(__file__).resolve().parents[2]
PLACES = (PACKAGE / "simulations", PACKAGE.parent / "simulations")
"""Where the wheel puts them, and where the repository has them."""


def scenarios() -> dict[str, Path]:
    """Every scenario by its name: that of its file."""
    for place in PLACES:
        found = sorted(place.glob("*.toml"))
        if found:
            return {path.stem: path for path in found}
    return {}


def find(name: str) -> Path:
    """The file of a scenario that is named, or given as a path; UsageError when there is none."""
    if name.endswith(".toml") or "/" in name:
        return Path(name)
    known = scenarios()
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {close[0]}?" if close else "`overlay sim list` shows them"
        raise UsageError(f"no scenario is named {name} ({hint}); a file ends in .toml")
    return known[name]


def assignments(texts: Iterable[str]) -> dict[str, tuple[str, Any]]:
    """The ``--set KEY=VALUE`` of a command line; values as TOML writes them, else texts."""
    chosen = {}
    for text in texts:
        key, value = assignment(text)
        try:
            parsed = tomllib.loads(f"value = {value}")
        except tomllib.TOMLDecodeError:
            parsed = {}
        chosen[key] = ("--set", parsed["value"] if len(parsed) == 1 else value)
    return chosen


def load(path: Path, overrides: Overrides | None = None) -> Scenario:
    """The scenario in a file, with some keys set otherwise."""
    return read(content_of(path), str(path), overrides)


def read(content: dict[str, Any], where: str, overrides: Overrides | None = None) -> Scenario:
    """The scenario that a TOML document (or a trace's first line) describes."""
    overrides = overrides or {}
    for key, (option, value) in overrides.items():
        _assign(content, key, option, value)
    reader = Reader(where, overrides)
    scenario = _with_rows(reader, reader.table(Scenario, content))
    _Plausibility(reader, scenario).check()
    return scenario


def _with_rows(reader: Reader, scenario: Scenario) -> Scenario:
    """With the rows of its matrix in it: a trace or a sweep then needs no other file.

    A path is relative to the file that names it; on a command line, to the working directory.
    """
    network, key = scenario.network, "network.matrix"
    if network.matrix is None:
        return scenario
    option = reader.overrides.get(key)
    beside = Path(option[0] if option else reader.where).parent
    try:
        if isinstance(network.matrix, str):
            rows = matrices.load(beside / network.matrix)
        else:
            rows = matrices.checked(network.matrix)
    except ValueError as error:
        raise reader.wrong(key, str(error)) from None
    replaced = msgspec.structs.replace(network, matrix=rows)
    return msgspec.structs.replace(scenario, network=replaced)


def _assign(content: dict[str, Any], key: str, option: str, value: Any) -> None:
    """Put a value into the document; ``faults.0.share`` goes into the first of ``[[faults]]``."""
    *parents, leaf = key.split(".")
    branch: Any = content
    for parent in parents:
        if isinstance(branch, list) and parent.isdecimal() and int(parent) < len(branch):
            branch = branch[int(parent)]
        elif isinstance(branch, dict):
            branch = branch.setdefault(parent, {})
        else:
            raise ConfigError(f"{option}: {key}: there is no {parent} in it")
    if not isinstance(branch, dict):
        raise ConfigError(f"{option}: {key}: number the table that is meant, from 0")
    branch[leaf] = value


TAKES: Mapping[str, Sequence[str]] = {
    "crash": ("share", "count"),
    "leave": ("share", "count"),
    "freeze": ("share", "count"),
    "thaw": ("share", "count"),
    "restart": ("share", "count"),
    "partition": ("parts",),
    "heal": (),
    "clock": ("share", "count", "by"),
}
"""The keys of a fault beside `at` and `do`, by what it does."""
UNDOES = {"thaw": "freeze", "restart": "crash", "heal": "partition"}


@dataclass(slots=True)
class _Plausibility:
    """What no type can say: that the timeline can happen as written, and each band be met."""

    reader: Reader
    scenario: Scenario
    _done: set[str] = field(default_factory=set)

    def check(self) -> None:
        """Raises at the first thing that cannot be."""
        self._latency()
        self._joins()
        self._churn()
        faults = enumerate(self.scenario.faults)
        for number, fault in sorted(faults, key=lambda each: each[1].at):
            self._fault(f"faults.{number}", fault)
        self._branches()
        shares = sum(line.share for line in self.scenario.adversaries)
        if shares >= 1.0:
            text = f"the shares add up to {shares:g}, expected less than 1"
            raise self.reader.wrong("adversaries", text)
        self._phases("publish", self.scenario.publish)
        self._phases("requests", self.scenario.requests)
        self._bands()
        self._published()

    def _latency(self) -> None:
        low, high = self.scenario.network.latency
        if not 0 <= low <= high <= 10:
            text = f"expected two numbers from 0 to 10, the lower one first, not [{low}, {high}]"
            raise self.reader.wrong("network.latency", text)
        network, wrong = self.scenario.network, self.reader.wrong
        if network.matrix is not None and network.coordinates is not None:
            raise wrong("network.matrix", "expected matrix or coordinates, not both")
        if network.base is not None and network.coordinates is None:
            raise wrong("network.base", "expected coordinates with it")
        instead = "matrix" if network.matrix is not None else "coordinates"
        if _has(network, instead) and network.latency != LATENCY:
            raise wrong("network.latency", f"expected latency or {instead}, not both")

    def _churn(self) -> None:
        churn, end = self.scenario.churn, self.scenario.duration
        if churn.stop and not churn.start < churn.stop <= end:
            text = f"expected more than start, {churn.start:g}, and at most the duration, {end:g}"
            raise self.reader.wrong("churn.stop", text)

    def _joins(self) -> None:
        join, duration = self.scenario.join, self.scenario.duration
        one_by_one = join.how == "one-at-a-time"
        last = (self.scenario.nodes - 1) * join.every if one_by_one else join.within
        if last >= duration:
            key = "join.every" if one_by_one else "join.within"
            text = f"the last node would come at {last:g} s, after the end (duration {duration:g})"
            raise self.reader.wrong(key, text)

    def _fault(self, key: str, fault: Fault) -> None:
        wrong, end = self.reader.wrong, self.scenario.duration
        if fault.at >= end:
            raise wrong(f"{key}.at", f"expected less than the duration, {end:g}, not {fault.at:g}")
        given = [name for name in ("share", "count", "parts", "by") if _has(fault, name)]
        for name in given:
            if name not in TAKES[fault.do]:
                takes = ", ".join(("at", "do", *TAKES[fault.do]))
                raise wrong(f"{key}.{name}", f"a {fault.do} takes only {takes}")
        if "share" in given and "count" in given:
            raise wrong(f"{key}.count", "expected share or count, not both")
        if fault.do in {"crash", "leave", "freeze"} and not given:
            raise wrong(f"{key}.share", f"is missing: a {fault.do} takes a share or a count")
        if fault.do == "clock" and fault.by is None:
            raise wrong(f"{key}.by", "is missing: expected a number of seconds")
        if fault.count is not None and fault.count > self.scenario.nodes:
            text = f"expected at most {self.scenario.nodes}, the number of nodes"
            raise wrong(f"{key}.count", f"{text}, not {fault.count}")
        if fault.parts and (min(fault.parts) <= 0 or not math.isclose(sum(fault.parts), 1.0)):
            raise wrong(f"{key}.parts", "expected 2 to 16 numbers above 0 that add up to 1")
        if fault.at + (fault.times - 1) * fault.every >= end:
            raise wrong(f"{key}.times", f"the last time would come after the end ({end:g} s)")
        self._order(key, fault)

    def _branches(self) -> None:
        wrong, scenario, branches = self.reader.wrong, self.scenario, self.scenario.branches
        if scenario.protocol != "overlay" and not (branches.shares and scenario.publish):
            text = "takes branches of a crash and messages after it, and nothing else"
            raise wrong("protocol", f"{scenario.protocol} {text}")
        if not branches.shares:
            return
        percent = {round(share * 100): share * 100 for share in branches.shares}
        whole = all(math.isclose(*each) and 0 < each[0] < 100 for each in percent.items())
        if not whole or len(percent) < len(branches.shares):
            text = "expected different whole percentages, such as 0.1 and 0.25"
            raise wrong("branches.shares", text)
        if branches.at >= scenario.duration:
            raise wrong("branches.at", f"expected less than the duration, {scenario.duration:g}")
        if not scenario.faults or "share" not in TAKES[scenario.faults[0].do]:
            raise wrong("branches.shares", "need a first fault that takes a share, such as a crash")
        early = [fault.at for fault in scenario.faults]
        early += [phase.start for phase in (*scenario.publish, *scenario.requests)]
        if min(early) <= branches.at:
            text = (
                f"a fault or the workload begins at {min(early):g} s: expected after the branches"
            )
            raise wrong("branches.at", text)

    def _order(self, key: str, fault: Fault) -> None:
        """Nothing is undone before it was done; one partition at a time."""
        before = UNDOES.get(fault.do)
        if before is not None and before not in self._done:
            text = f"a {fault.do} at {fault.at:g} s needs a {before} before it"
            raise self.reader.wrong(f"{key}.at", text)
        if fault.do == "partition" and "partition" in self._done:
            text = f"a partition at {fault.at:g} s needs a heal of the one before it"
            raise self.reader.wrong(f"{key}.at", text)
        self._done.add(fault.do)
        if fault.do == "heal":
            self._done.remove("partition")

    def _phases(self, name: str, phases: Sequence[Phase]) -> None:
        wrong, end, seen = self.reader.wrong, self.scenario.duration, set()
        for number, phase in enumerate(phases):
            key = f"{name}.{number}"
            if phase.stop <= phase.start:
                raise wrong(f"{key}.stop", f"expected more than start, {phase.start:g}")
            if phase.stop + phase.within > end:
                text = f"{phase.stop:g} s and then {phase.within:g} s (within) end after the end"
                raise wrong(f"{key}.stop", f"{text} (duration {end:g})")
            if phase.name in seen:
                raise wrong(f"{key}.name", f"there is another {name} of this name")
            seen.update([phase.name] if phase.name else [])

    def _bands(self) -> None:
        names = names_for(self.scenario)
        for name, (low, high) in self.scenario.bands.items():
            if name not in names:
                text = f"this scenario has no such measure{nearest(name, names)}"
                raise self.reader.wrong(f"bands.{name}", text)
            if low > high:
                text = f"expected two numbers, the lower one first, not [{low:g}, {high:g}]"
                raise self.reader.wrong(f"bands.{name}", text)

    def _published(self) -> None:
        names = names_for(self.scenario)
        for number, figures in enumerate(self.scenario.published):
            key, count = f"published.{number}", len(figures.values)
            for name in figures.measures:
                if name not in names:
                    text = f"this scenario has no such measure{nearest(name, names)}: {name}"
                    raise self.reader.wrong(f"{key}.measures", text)
            if len(figures.measures) != (1 if figures.along else count):
                wanted = "one measure (along)" if figures.along else f"{count}, one a value"
                raise self.reader.wrong(f"{key}.measures", f"expected {wanted}")
            if len(figures.x) != count and (figures.x or figures.along):
                raise self.reader.wrong(f"{key}.x", f"expected {count} numbers, one a value")
            self._along(f"{key}.along", figures.along)

    def _along(self, where: str, key: str) -> None:
        try:
            value = value_of(self.scenario, key) if key else 0
        except KeyError:
            raise self.reader.wrong(where, f"this scenario has no such key: {key}") from None
        if isinstance(value, bool) or not isinstance(value, float | int | None):
            raise self.reader.wrong(where, f"expected a key whose values are numbers, not {key}")


def _has(table: Table, name: str) -> bool:
    return getattr(table, name) is not None
