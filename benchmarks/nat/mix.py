"""How many pairs of homes are direct in the field's mix: thousands of pair worlds, by simulation.

Homes are drawn as often as they are in the field (`overlay.sim.pairs.mix`); the same pairs are
tried again with all that goes beyond ICE switched off. No home is real here: that a pair comes to
what real homes of its kinds come to, the laboratory and a test say (`tests/sim/pairs`).
"""

import os
import statistics
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from functools import partial
from itertools import chain
from typing import Any

from overlay.sim.pairs.mix import MEMBERS, MIX, counts, outcomes, share
from overlay.sim.pairs.pair import Options, Outcome
from overlay.sim.pairs.reach import by_all_means, by_ice

PAIRS = 5000
SEED = 1
CONTROL: Mapping[str, Any] = {"low_ttl": 0, "prediction": False, "birthday": False}
"""Settings of nodes with which they do no more than ICE does."""
LEAST = 0.92
CONTROL_BAND = 0.80, 0.86
"""Bars: what is to be direct of all pairs, ours and without all that goes beyond ICE."""
AT_ONCE = 50
"""Pairs that a process tries before it tells what came of them."""
MARK = "<!-- mix: written by `make bench-nat` -->"
RIVALS = {
    "DCUtR (libp2p): 4.4 million attempts, 2025": "70 ± 7.1 %",
    "iroh, as published": "about 90 %",
    "Tailscale, as published": "over 90 %",
}
"""Of other systems, in the field: what is direct there."""


def measure(pairs: int = PAIRS, seed: int = SEED, workers: int | None = None) -> dict[str, Any]:
    """Try all pairs, ours and the control's; what came of them, as JSON has it."""
    found = dict[str, Any]()
    for name, settings in (("ours", {}), ("control", CONTROL)):
        tried = _tried(pairs, seed, replace(MEMBERS, settings=settings), workers)
        found[name] = _told(tried)
    return {
        "pairs": pairs,
        "seed": seed,
        "by_arithmetic": {"ice": share(by_ice), "ceiling": share(by_all_means)},
        **found,
    }


def _tried(pairs: int, seed: int, options: Options, workers: int | None) -> list[Outcome]:
    parts = [range(at, min(at + AT_ONCE, pairs)) for at in range(0, pairs, AT_ONCE)]
    try_part = partial(_part, seed=seed, options=options)
    if workers == 1:
        return list(chain.from_iterable(map(try_part, parts)))
    with ProcessPoolExecutor(workers or os.cpu_count()) as pool:
        return list(chain.from_iterable(pool.map(try_part, parts)))


def _part(numbers: range, seed: int, options: Options) -> list[Outcome]:
    return list(outcomes(numbers, seed, options))


def _told(tried: Sequence[Outcome]) -> dict[str, Any]:
    told = counts(tried)
    after = sorted(each.direct_after for each in tried if each.direct_after is not None)
    return {
        **asdict(told),
        "share": round(told.share, 4),
        "median_s": round(statistics.median(after), 3),
        "p95_s": round(after[int(0.95 * len(after))], 3),
        "max_s": round(after[-1], 3),
    }


def missed(found: Mapping[str, Any]) -> list[str]:
    """What is not as it must be."""
    said = []
    ours, control = found["ours"], found["control"]
    if ours["share"] < LEAST:
        said.append(f"mix: {100 * ours['share']:.1f} % of all pairs are direct")
    if not CONTROL_BAND[0] <= control["share"] <= CONTROL_BAND[1]:
        said.append(f"mix: {100 * control['share']:.1f} % are direct in the control")
    said += [
        f"mix: {found[name]['unreachable']} pairs with UDP are unreachable ({name})"
        for name in ("ours", "control")
        if found[name]["unreachable"]
    ]
    return said


def page(found: Mapping[str, Any]) -> str:
    """The section's tables, from what was found; nothing from nothing."""
    if not found:
        return "| |  |\n|---|"
    lines = [
        f"{found['pairs']} pairs, seed {found['seed']}{_when(found)}:",
        "",
        "| | direct | relayed | unreachable | without UDP | median | 95 of 100 within | by |",
        "|---|---|---|---|---|---|---|---|",
        _row("overlay", found["ours"]),
        _row("with nothing beyond ICE", found["control"]),
    ]
    lines += [f"| {name} | {told} | | | | | | |" for name, told in RIVALS.items()]
    ice, ceiling = (100 * found["by_arithmetic"][key] for key in ("ice", "ceiling"))
    lines += [
        "",
        f"By arithmetic ICE alone finds a path for {ice:.1f} % of all pairs of this mix,",
        f"and nothing can for more than {ceiling:.1f} %.",
        "",
        f"The mix, of a hundred homes: {', '.join(_drawn())}.",
    ]
    return "\n".join(lines)


def _when(found: Mapping[str, Any]) -> str:
    return f", {found['date']}, commit {found['commit']}" if "date" in found else ""


def _row(name: str, told: Mapping[str, Any]) -> str:
    by = ", ".join(f"{technique} {count}" for technique, count in told["techniques"].items())
    cells = (
        f"**{100 * told['share']:.1f} %**",
        *(str(told[key]) for key in ("relayed", "unreachable", "no_udp")),
        *(f"{told[key]:.2f} s" for key in ("median_s", "p95_s")),
        by,
    )
    return f"| {name} | {' | '.join(cells)} |"


def _drawn() -> list[str]:
    return [f"{kind.name.replace('_', ' ')} {percent}" for kind, percent in MIX.items()]
