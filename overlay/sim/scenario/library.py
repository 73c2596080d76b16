"""The scenarios that come with overlay: in an installed package, or beside it in its repository."""

import difflib
from pathlib import Path

from overlay.errors import UsageError

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
