"""A sweep: one scenario, the values that some of its keys take in turn, and the seeds of each.

Every combination of values with every seed is a cell: a scenario of its own, read and checked like
any other before the first of them runs.
"""

import copy
import hashlib
import itertools
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from overlay.errors import ConfigError, UsageError
from overlay.sim.scenario import reading
from overlay.sim.scenario.measures import names_for
from overlay.sim.scenario.reading import read
from overlay.sim.scenario.scenario import Scenario
from overlay.tables import Reader, Table, content_of

CELLS_MAX = 100_000
"""Cells of one sweep (guess): who asks for more has probably mistyped a number."""
TOLD_ONLY = ("about", "source", "published")
"""Keys of a scenario that do not change what comes of it."""
Set = tuple[tuple[str, Any], ...]
"""Keys as ``--set`` has them, and their values."""


class SweepFile(Table, frozen=True, kw_only=True):
    """What is run, and with which seeds."""

    about: Annotated[
        str,
        Meta(
            max_length=200,
            description="One line over the table.",
            extra={"default": "none"},
        ),
    ] = ""
    scenario: Annotated[
        str | dict[str, Any],
        Meta(
            description="What every cell begins with: a name of `overlay sim list`, a file "
            "(relative to this one), or, as the table `[scenario]`, a whole scenario.",
            extra={"allowed": "a name, a FILE.toml, or a table"},
        ),
    ]
    seeds: Annotated[
        tuple[Annotated[int, Meta(ge=0, le=2**63 - 1)], ...],
        Meta(
            max_length=CELLS_MAX,
            description="Every combination of values runs once with each of them.",
            extra={"allowed": "whole numbers from 0", "default": "the scenario's own"},
        ),
    ] = ()
    measures: Annotated[
        tuple[str, ...],
        Meta(
            max_length=1000,
            description="What the table and the plots show; the CSV has all.",
            extra={
                "allowed": "names of measures",
                "default": "those with a band or a published figure, else all",
            },
        ),
    ] = ()
    set: Annotated[
        dict[str, Any],
        Meta(
            description="`[set]`: keys of the scenario that have another value in every cell.",
            extra={"allowed": "keys as `--set` has them", "default": "none"},
        ),
    ] = msgspec.field(default_factory=dict)
    sweep: Annotated[
        dict[str, Any],
        Meta(
            description="`[sweep]`: for a key of the scenario, the values that it takes in turn. "
            "With several keys, every combination; the plots have the first one whose values are "
            "numbers below them.",
            extra={"allowed": "a list for each key", "default": "none: the seeds only"},
        ),
    ] = msgspec.field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Cell:
    """One run of a sweep."""

    key: str
    """The same for the same scenario, seed and version of overlay: what a result is kept under."""
    axes: Set
    """What sets it apart from the others, but for its seed."""
    scenario: Scenario
    command: str
    """Runs it alone; empty where the scenario stands in the sweep's own file."""


@dataclass(frozen=True, slots=True)
class Sweep:
    """All that is to be run."""

    name: str
    about: str
    base: str
    """The name of the scenario."""
    full_size: int
    """Nodes at which the scenario's bands hold."""
    axes: Mapping[str, Sequence[Any]]
    measures: Sequence[str]
    cells: Sequence[Cell]


def load(path: Path, version: str) -> Sweep:
    """The sweep in a file, every cell of it checked; ConfigError in one line where that fails.

    `version`: of overlay, whose results these will be.
    """
    where = str(path)
    file: SweepFile = Reader(where).table(SweepFile, content_of(path))
    base = _base(path, file)
    fixed, axes = dict(_flat(file.set)), dict(_axes(file.sweep, where))
    if "seed" in fixed:
        raise ConfigError(f"{where}: set.seed: expected the seeds under `seeds`")
    for key in axes:
        if key in fixed:
            raise ConfigError(f"{where}: sweep.{key}: is in [set] too: expected one of both")
    own = read(copy.deepcopy(base.content), base.where)
    seeds = _once(file.seeds or (own.seed,), f"{where}: seeds")
    count = len(seeds)
    for values in axes.values():
        count *= len(values)
    if count > CELLS_MAX:
        raise ConfigError(f"{where}: sweep: {count} cells, expected at most {CELLS_MAX}")
    points = itertools.product(*axes.values())
    asked = ((tuple(zip(axes, values, strict=True)), seed) for values in points for seed in seeds)
    cells = [_cell(base, where, fixed, point, seed, version) for point, seed in asked]
    measures = _measures(file, where, own, cells[0].scenario)
    return Sweep(path.stem, file.about, base.name, own.nodes, axes, measures, cells)


@dataclass(frozen=True, slots=True)
class _Beginning:
    """What every cell begins with."""

    name: str
    where: str
    """The file, or the part of it, that an error names."""
    content: dict[str, Any]
    run: str
    """What `overlay sim run` takes; empty where the scenario stands in the sweep's own file."""


def _base(path: Path, file: SweepFile) -> _Beginning:
    if isinstance(file.scenario, dict):
        return _Beginning(path.stem, f"{path}: scenario", file.scenario, "")
    try:
        found = reading.find(file.scenario)
        found = found if file.scenario == found.stem else path.parent / found
        content = content_of(found)
    except UsageError as error:
        raise ConfigError(f"{path}: scenario: {error}") from None
    named = file.scenario == found.stem
    return _Beginning(found.stem, str(found), content, found.stem if named else str(found))


def _flat(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """``network.loss`` for the loss in a table network: how TOML reads a dotted key."""
    for key, value in table.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _axes(table: Mapping[str, Any], where: str) -> Iterator[tuple[str, Sequence[Any]]]:
    for key, values in _flat(table):
        if key == "seed":
            raise ConfigError(f"{where}: sweep.seed: expected the seeds under `seeds`")
        if not isinstance(values, list) or not values:
            raise ConfigError(f"{where}: sweep.{key}: expected a list of one value at least")
        yield key, _once(values, f"{where}: sweep.{key}")


def _once(values: Sequence[Any], where: str) -> Sequence[Any]:
    seen: set[str] = set()
    for value in values:
        if repr(value) in seen:
            raise ConfigError(f"{where}: expected each value once, not {value} twice")
        seen.add(repr(value))
    return values


def _cell(
    base: _Beginning, where: str, fixed: Mapping[str, Any], point: Set, seed: int, version: str
) -> Cell:
    """One cell; ConfigError in the words of the sweep when it cannot be."""
    overrides: dict[str, tuple[str, Any]] = {
        **{key: (f"{where}: set", value) for key, value in fixed.items()},
        **{key: (f"{where}: sweep", value) for key, value in point},
        "seed": (f"{where}: seeds", seed),
    }
    settings = {**fixed, **dict(point)}
    try:
        scenario = read(copy.deepcopy(base.content), base.where, overrides)
    except ConfigError as error:
        raise ConfigError(_located(str(error), where, settings)) from None
    command = _command(base.run, seed, settings) if base.run else ""
    return Cell(_key(scenario, version), point, scenario, command)


def _command(run: str, seed: int, settings: Mapping[str, Any]) -> str:
    """What to type to run a cell alone."""
    words = ["overlay", "sim", "run", run, "--seed", str(seed)]
    for key, value in settings.items():
        words += ["--set", f"{key}={msgspec.json.encode(value).decode()}"]
    return shlex.join(words)


def _located(text: str, where: str, settings: Mapping[str, Any]) -> str:
    """Whatever is wrong with a cell is told of the sweep that asks for it."""
    if text.startswith(where):
        return text
    asked = ", ".join(f"{key} = {value}" for key, value in settings.items())
    return f"{where}: with {asked}: {text}" if asked else f"{where}: {text}"


def _key(scenario: Scenario, version: str) -> str:
    content = msgspec.to_builtins(scenario)
    for key in TOLD_ONLY:
        content.pop(key, None)
    data = msgspec.json.encode([version, content], order="deterministic")
    return hashlib.sha256(data).hexdigest()[:32]


def _measures(file: SweepFile, where: str, base: Scenario, cell: Scenario) -> Sequence[str]:
    names = names_for(cell)
    for name in file.measures:
        if name not in names:
            there = ", ".join(names)
            raise ConfigError(f"{where}: measures: no such measure: {name} (there are {there})")
    published = {name for figures in base.published for name in figures.measures}
    telling = [name for name in names if name in base.bands or name in published]
    return file.measures or telling or names
