"""Tables of a TOML file as structs: each key with its limits, its meaning, and its default.

A field is `Annotated[type, Meta(limits, description=…, extra={"allowed": …, "default": …})]`, or a
table, or a tuple of tables.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import msgspec


class Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the file."""


@dataclass(frozen=True, slots=True)
class Key:
    """One row of the reference."""

    name: str
    allowed: str
    default: str
    about: str


def tables(table: type[Table], name: str = "") -> Iterator[tuple[str, type[Table]]]:
    """The tables of a file, by the way in which a file begins each; the file's own first."""
    yield name, table
    for field in msgspec.structs.fields(table):
        if inner := table_of(field.type):
            repeated = get_origin(field.type) is tuple
            yield from tables(inner, f"[[{field.name}]]" if repeated else f"[{field.name}]")


def keys(table: type[Table]) -> Iterator[Key]:
    """The keys of one table, in the order of the file."""
    for field in msgspec.structs.fields(table):
        if table_of(field.type):
            continue
        meta = meta_of(field.type)
        default = meta.extra.get("default") or _written(field)
        yield Key(field.name, meta.extra["allowed"], default, meta.description)


def _written(field: msgspec.structs.FieldInfo) -> str:
    """A default as a file would have it."""
    if field.required:
        return "must be there"
    return f"`{msgspec.json.encode(field.default).decode()}`"


def value_of(table: Table, key: str) -> Any:
    """What a table says for a dotted key, as ``--set`` has it; KeyError where it has no such."""
    value: Any = table
    for part in key.split("."):
        if isinstance(value, tuple) and part.isdecimal() and int(part) < len(value):
            value = value[int(part)]
        elif isinstance(value, Table) and hasattr(value, part):
            value = getattr(value, part)
        else:
            raise KeyError(key)
    return value


def table_of(kind: Any) -> type[Table] | None:
    """The table that a field holds, once or several times; None for a plain value."""
    inner = get_args(kind)[0] if get_origin(kind) is tuple else kind
    return inner if isinstance(inner, type) and issubclass(inner, Table) else None


def meta_of(kind: Any) -> Any:
    """What a plain value says about itself."""
    if get_origin(kind) is UnionType or get_origin(kind) is Union:  # Annotated[…] | None
        kind = get_args(kind)[0]
    assert get_origin(kind) is Annotated, f"{kind} is not documented"
    return get_args(kind)[1]
