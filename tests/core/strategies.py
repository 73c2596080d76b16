"""Hypothesis strategies for everything that crosses a link, made from the bounds themselves."""

import types
import typing
from typing import Any

import msgspec
from hypothesis import strategies as st

from overlay.core.wire import bounds, messages
from overlay.core.wire import documents as document_bodies
from overlay.core.wire.messages import Message

ALL_KINDS = [
    kind
    for module in (messages, document_bodies)
    for kind in vars(module).values()
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct)
]
MESSAGE_KINDS: tuple[type[msgspec.Struct], ...] = typing.get_args(Message)


def messages_within_bounds() -> st.SearchStrategy[Message]:
    """Any message that a correct peer could send, as far as its form goes."""
    return st.one_of(*map(within_bounds, MESSAGE_KINDS))


def within_bounds(kind: type[msgspec.Struct]) -> st.SearchStrategy[Any]:
    """Any struct of this kind whose fields are within their bounds."""
    fields = msgspec.structs.fields(kind)
    return st.builds(kind, **{f.name: _value(f.type, bounds.BOUNDS[kind][f.name]) for f in fields})


def _value(annotation: Any, rule: bounds.Rule) -> st.SearchStrategy[Any]:
    """Values of this type for which the rule holds; sizes are kept small where they are free."""
    if isinstance(annotation, types.UnionType):
        return st.none() | _value(annotation.__args__[0], rule)
    match rule:
        case bounds.Number(low, high):
            return st.integers(low, high)
        case bounds.Bytes():
            return st.one_of(*(st.binary(min_size=n, max_size=n) for n in sorted(rule._sizes)))
        case bounds.Blob(high, low):
            return st.binary(min_size=low, max_size=min(high, low + 64))
        case bounds.Text(high, low, alphabet):
            characters = st.sampled_from(sorted(alphabet)) if alphabet else _printable()
            return st.text(characters, min_size=low, max_size=min(high, low + 16))
        case bounds.Name():
            return st.text(max_size=16)
        case bounds.Topic():
            return st.text(_printable(), min_size=1, max_size=16)
        case bounds.OneOf():
            return st.sampled_from(sorted(rule._texts))
        case bounds.Host():
            return st.ip_addresses().map(str).filter(rule.holds)
        case bounds.CircuitName():
            first = st.integers(64, 79).map(lambda byte: bytes([byte]))
            return st.builds(bytes.__add__, first, st.binary(min_size=7, max_size=7))
        case bounds.Many(high, item):
            inner, *rest = typing.get_args(annotation)
            values = st.lists(_value(inner, item), max_size=min(high, 4))
            return values.map(tuple) if rest else values
        case _:
            return st.booleans() if annotation is bool else within_bounds(annotation)


def _printable() -> st.SearchStrategy[str]:
    return st.characters(codec="utf-8").filter(str.isprintable)
