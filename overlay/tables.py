"""Tables of TOML files as structs: what they say of each key, and the strict reader of them.

A field is `Annotated[type, Meta(limits, description=…, extra=…)]`, or a table, or a tuple of
tables. The limits of a value stand in its type alone: what an error and the documentation say is
allowed is derived from them. `extra` has what no type can say: ``allowed`` in place of that text
(``also`` after it), ``check``, which raises ValueError for a wrong value,
`Unfit` to say what is wrong; ``default``, in words.
"""

import difflib
import math
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import msgspec

from overlay.errors import ConfigError
from overlay.names import plain

UNLIMITED = 2**63 - 1
"""An upper limit that is none to people: it is the format's."""

Overrides = Mapping[str, tuple[str, Any]]
"""For a dotted key: the option that set it, and the value."""


class Unfit(ValueError):
    """A value of the right form that cannot work: what, why, and what to do, for the user."""


class Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the file."""


# --- what tables say of their keys ---------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Key:
    """All that the reference and an error say about a key."""

    name: str
    kind: Any
    """Its type, with its limits."""
    default: Any
    """`msgspec.NODEFAULT` where the key must be there."""
    allowed: str
    """The values that it takes, in words."""
    about: str
    """What it is for."""

    @property
    def written(self) -> str:
        """Its default as a file would have it, or in words."""
        if self.default is msgspec.NODEFAULT:
            return "must be there"
        words: str = (meta_of(self.kind).extra or {}).get("default", "")
        return words or f"`{msgspec.json.encode(self.default).decode()}`"


def tables(table: type[Table], name: str = "") -> Iterator[tuple[str, type[Table]]]:
    """The tables of a file, by the way in which a file begins each; the file's own first."""
    yield name, table
    for each in msgspec.structs.fields(table):
        if inner := table_of(each.type):
            repeated = get_origin(each.type) is tuple
            yield from tables(inner, f"[[{each.name}]]" if repeated else f"[{each.name}]")


def keys(table: type[Table]) -> Iterator[Key]:
    """The keys of one table, in the order of the file."""
    for each in msgspec.structs.fields(table):
        if not table_of(each.type):
            made = each.default_factory is not msgspec.NODEFAULT
            default = each.default_factory() if made else each.default
            about = meta_of(each.type).description
            yield Key(each.name, each.type, default, allowed(each.type), about)


def allowed(kind: Any) -> str:
    """The values of this type, in words: derived from its limits unless it says them itself."""
    meta = meta_of(kind)
    extra = meta.extra or {}
    text: str = extra.get("allowed") or _within_limits(_annotated(kind)[0], meta)
    return f"{text}, {extra['also']}" if "also" in extra else text


def _within_limits(plain: Any, meta: Any) -> str:
    if plain is bool:
        return "true or false"
    if plain is str and meta.pattern:
        *words, last = meta.pattern.removeprefix("^(").removesuffix(")$").split("|")
        return f"{', '.join(words)} or {last}"
    if plain is str:
        least = f"{meta.min_length} to" if meta.min_length else "at most"
        return f"a text of {least} {meta.max_length} characters"
    text = "a whole number" if plain is int else "a number"
    if meta.gt is not None:
        most = f"below {meta.lt:g}" if meta.lt is not None else f"at most {meta.le}"
        return f"{text} above {meta.gt}, {most}"
    return f"{text} from {meta.ge}" + (f" to {meta.le}" if meta.le < UNLIMITED else "")


def table_of(kind: Any) -> type[Table] | None:
    """The table that a field holds, once or several times; None for a plain value."""
    inner = get_args(kind)[0] if get_origin(kind) is tuple else kind
    return inner if isinstance(inner, type) and issubclass(inner, Table) else None


def meta_of(kind: Any) -> Any:
    """What a plain value says about itself."""
    return _annotated(kind)[1]


def _annotated(kind: Any) -> tuple[Any, Any]:
    if get_origin(kind) is UnionType or get_origin(kind) is Union:  # Annotated[…] | None
        kind = get_args(kind)[0]
    assert get_origin(kind) is Annotated, f"{kind} is not documented"
    plain, meta = get_args(kind)
    return plain, meta


# --- dotted keys ---------------------------------------------------------------------------------


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


def assignment(text: str) -> tuple[str, str]:
    """Key and value of one ``--set KEY=VALUE``."""
    key, equals, value = text.partition("=")
    if not equals:
        raise ConfigError(f"--set {plain(text)}: write it as KEY=VALUE")
    return key.strip(), value.strip()


def nearest(word: str, words: Iterable[str]) -> str:
    """A hint at what was meant, or at where to look."""
    close = difflib.get_close_matches(word, list(words), n=1, cutoff=0.6)
    return f" (did you mean {close[0]}?)" if close else f" (there are {', '.join(words)})"


# --- reading -------------------------------------------------------------------------------------


def content_of(path: Path) -> dict[str, Any]:
    """What a TOML file holds."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: is not a TOML file (not UTF-8)") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: is not valid TOML: {error}") from None


@dataclass(slots=True)
class Reader:
    """Turns tables into structs; ConfigError says in one line where a wrong value stood."""

    where: str
    """The file, or the option."""
    overrides: Overrides = field(default_factory=dict)
    """Keys whose values come from somewhere else."""
    names: Iterable[str] = ()
    """All dotted keys, to hint at the nearest; without them, at those of the table."""

    def wrong(self, key: str, text: str) -> ConfigError:
        """The error to raise about a key."""
        option = self.overrides.get(key)
        return ConfigError(plain(f"{option[0] if option else self.where}: {key}: {text}"))

    def table(self, kind: type[Table], content: Any, prefix: str = "") -> Any:
        """One table; `prefix` is its dotted name with the dot."""
        name = prefix.removesuffix(".")
        if not isinstance(content, dict):
            raise self.wrong(name, f"is a table: write [{name}] and its keys below")
        fields = {each.name: each for each in msgspec.structs.fields(kind)}
        for key in content:
            if key not in fields:
                if key in self.names:
                    raise self.wrong(key, "is written without quotes: its dots lead into tables")
                hint = nearest(prefix + key, self.names) if self.names else nearest(key, fields)
                raise self.wrong(prefix + key, f"no such key{hint}")
        values = {}
        for key, each in fields.items():
            if key in content:
                values[key] = self._value(each.type, content[key], prefix + key)
            elif each.required:
                text = f"is missing: expected {allowed(each.type)}"
                raise self.wrong(prefix + key, text)
        return kind(**values)

    def _value(self, kind: Any, value: Any, key: str) -> Any:
        """One value: a table, several of them, or something plain."""
        inner = table_of(kind)
        if inner is None:
            return self.plain(kind, value, key)
        if get_origin(kind) is not tuple:
            return self.table(inner, value, f"{key}.")
        if not isinstance(value, list):
            raise self.wrong(key, f"can be there several times: write [[{key}]]")
        return tuple(self.table(inner, each, f"{key}.{i}.") for i, each in enumerate(value))

    def plain(self, kind: Any, value: Any, key: str, *, is_text: bool = False) -> Any:
        """A value that its type, its limits and its check allow.

        `is_text`: it was written as text, so that "false" is a bool and commas make a list.
        """
        given = value
        try:
            if is_text and get_origin(_annotated(kind)[0]) is list:
                given = [part.strip() for part in value.split(",") if part.strip()]
            if not all(map(math.isfinite, _numbers(value))):
                raise ValueError(value)
            read = msgspec.convert(given, kind, strict=not is_text)
            if check := (meta_of(kind).extra or {}).get("check"):
                check(read)
        except Unfit as unfit:
            raise self.wrong(key, str(unfit)) from None
        except (msgspec.ValidationError, ValueError):
            shown = value if is_text else _shown(value)
            raise self.wrong(key, f"expected {allowed(kind)}, not {shown}") from None
        return read


def _numbers(value: Any) -> Iterable[float]:
    if isinstance(value, float):
        yield value
    elif isinstance(value, list | dict):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _numbers(each)


def _shown(value: Any) -> str:
    try:
        return msgspec.json.encode(value).decode() if not isinstance(value, float) else f"{value}"
    except TypeError:
        return str(value)
