"""The reference of all settings, written from the one table in `overlay.node.config`."""

import textwrap
from collections.abc import Iterator
from itertools import groupby
from typing import Any

import msgspec

from overlay.node.config import keys, variable
from overlay.tables import Key

WIDTH = 96


def as_toml() -> str:
    """A configuration file with every key at its default; ``configs/reference.toml``."""
    lines = [
        "# Every setting of an overlay node, at its default. Start a node with a file like this by",
        "# `overlay up --config FILE`. Each can also be set by the variable that is named with it,",
        "# or by `--set KEY=VALUE`; the later one wins (written by docs.reference).",
    ]
    for section, members in groupby(keys().items(), lambda each: each[0].rpartition(".")[0]):
        lines += ["", f"[{section}]"] if section else []
        for name, key in members:
            lines += ["", *_comment(name, key), f"{key.name} = {_value(key.default)}"]
    return "\n".join(lines) + "\n"


def as_markdown() -> str:
    """The same as a table for the documentation."""
    rows = ["| key | default | allowed | variable | what it does |", "|---|---|---|---|---|"]
    for name, key in keys().items():
        cells = (f"`{name}`", f"`{_value(key.default)}`", key.allowed, f"`{variable(name)}`")
        rows.append(f"| {' | '.join(cells)} | {key.about} |".replace('`""`', "none"))
    return "\n".join(rows) + "\n"


def _comment(name: str, key: Key) -> Iterator[str]:
    text = f"{key.about} ({key.allowed}; {variable(name)})"
    return (f"# {line}" for line in textwrap.wrap(text, WIDTH, break_on_hyphens=False))


def _value(value: Any) -> str:
    """As TOML writes it, which for our few types is as JSON does."""
    return msgspec.json.encode(value).decode()
