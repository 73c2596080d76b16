"""What is lost with one technique switched off: exactly the pairs that need it stay relayed.

Only pairs that some technique joins are tried: so each run shows both what one is for and that
the others do without it. Behind a router that remembers early packets the end that has one offers,
for otherwise plain ICE wins the race now and then. A pair that should do without is tried once more
if it did not: prediction and birthday need luck.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.nat.results import Pair
from tests.lab.nat.kinds import KINDS
from tests.lab.nat.mesh import PAIRS, Try, needs_low_ttl, technique

Tried = Callable[[str, Sequence[Pair]], Sequence[Try]]
MARK = "<!-- counter-tests: written by `make bench-nat` -->"


@dataclass(frozen=True, slots=True)
class Without:
    """One technique switched off."""

    setting: str
    loses: Callable[[Pair], bool]
    """Whether this pair has no direct path then."""


def remembers(pair: Pair) -> bool:
    """Whether a router of this pair remembers what comes too early, and something may."""
    return KINDS[pair[0]].accepts or KINDS[pair[1]].accepts


WITHOUT = {
    "low TTL": Without("nat.low_ttl=0", remembers),
    "prediction": Without("nat.prediction=false", lambda pair: technique(*pair) == "prediction"),
    "birthday": Without("nat.birthday=false", lambda pair: technique(*pair) == "birthday"),
}


def pairs() -> list[Pair]:
    """Those that some technique joins, the end that remembers early packets first."""
    chosen = [pair for pair in PAIRS if needs_low_ttl(*pair) or technique(*pair)]
    return [(b, a) if KINDS[b].accepts else (a, b) for a, b in chosen]


def measure(tried: Tried) -> list[dict[str, Any]]:
    """A row for each technique; `tried`: makes one try of each pair with this setting."""
    rows = []
    for name, without in WITHOUT.items():
        found = {(each.a, each.b): each for each in tried(without.setting, pairs())}
        again = [
            pair for pair, each in found.items() if each.way != "direct" and not without.loses(pair)
        ]
        if again:
            found |= {(each.a, each.b): each for each in tried(without.setting, again)}
        wrong = [
            f"without {name}: {each}"
            for pair, each in found.items()
            if each.way != ("relayed" if without.loses(pair) else "direct")
        ]
        relayed = sorted([*pair] for pair, each in found.items() if each.way == "relayed")
        ways = Counter(each.way for each in found.values())
        rows.append(
            {
                "without": name,
                "setting": without.setting,
                "pairs": len(found),
                "direct": ways["direct"],
                "relayed": relayed,
                "missed": wrong,
            }
        )
    return rows


def page(found: Mapping[str, Any]) -> str:
    """The section's table, from what was found; nothing from nothing."""
    if not found:
        return "| |  |\n|---|"
    lines = [
        f"{found['date']}, commit {found['commit']}; one try of each pair that a technique joins:",
        "",
        "| without | pairs | direct | relayed, exactly those that need it |",
        "|---|---|---|---|",
    ]
    for row in found["rows"]:
        named = ", ".join(f"{a} – {b}".replace("_", " ") for a, b in row["relayed"])
        what = f"{row['without']} (`{row['setting']}`)"
        lines.append(f"| {what} | {row['pairs']} | {row['direct']} | {named} |")
    return "\n".join(lines)
