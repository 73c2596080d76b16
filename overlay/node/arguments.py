"""What a program hands to a node, checked at the call: nothing wrong gets as far as the core.

A value of a wrong type is a TypeError, one that is out of bounds a `WrongArgument`, which is a
ValueError and a CommandFailed ``usage``. The public interface states the types; a test calls every
method with others, so that none goes without its checks.
"""

import math
import os
from collections.abc import Mapping
from typing import Any

from overlay.core.stream.frames import CODE_MAX, PRIORITY_MAX, PRIORITY_MIN, PROTOCOL_MAX
from overlay.core.wire.bounds import TOPIC_MAX, Topic
from overlay.errors import WrongArgument

LONGEST = 10 * 365 * 86400.0
"""Seconds: beyond any patience, and still a number that every clock can take."""
MOST = 2**31 - 1
TEXT_MAX = 1 << 20
"""Characters of a text that has no closer bound, such as a link (guess)."""


def _of(kind: type | tuple[type, ...], what: str, value: Any, expected: str) -> None:
    """TypeError unless the value is of this type; a bool is a bool, and no number."""
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise TypeError(f"{what} is {expected}, not {type(value).__name__}")


# --- kinds of values -----------------------------------------------------------------------------


def text(what: str, value: Any, most: int = TEXT_MAX) -> None:
    """A str that can be written as UTF-8."""
    _of(str, what, value, "a str")
    if len(value) > most:
        raise WrongArgument(f"{what} has at most {most} characters, not {len(value)}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise WrongArgument(f"{what} is not UTF-8: it has half a character") from None


def octets(what: str, value: Any) -> None:
    """Bytes, as they are and as long as they want to be."""
    _of(bytes, what, value, "bytes")


def flag(what: str, value: Any) -> None:
    """True or False."""
    _of(bool, what, value, "a bool")


def whole(what: str, value: Any, least: int = 0, most: int = MOST) -> None:
    """An int within bounds."""
    _of(int, what, value, "an int")
    if not least <= value <= most:
        raise WrongArgument(f"{what} is from {least} to {most}")


def seconds(what: str, value: Any, most: float = LONGEST) -> None:
    """A duration that a clock can wait for."""
    _of((int, float), what, value, "a number of seconds")
    if not 0 <= value <= most:
        raise WrongArgument(f"{what} is from 0 to {most:.0f} seconds")


def positive(what: str, value: Any, most: float) -> None:
    """A duration that is not over at once."""
    seconds(what, value, most)
    if not value > 0:
        raise WrongArgument(f"{what} is more than 0 and at most {most:.0f} seconds")


def fraction(what: str, value: Any, least: float, most: float) -> None:
    """A finite number within bounds."""
    _of((int, float), what, value, "a number")
    if not (least <= value <= most and math.isfinite(value)):
        raise WrongArgument(f"{what} is from {least:g} to {most:g}")


def function(what: str, value: Any) -> None:
    """Something that can be called."""
    if not callable(value):
        raise TypeError(f"{what} is a function, not {type(value).__name__}")


def path(what: str, value: Any) -> None:
    """Where something is."""
    _of((str, os.PathLike), what, value, "a path")
    text(what, os.fspath(value))
    if "\0" in os.fspath(value):
        raise WrongArgument(f"{what} is no path: it has U+0000 NULL")


def settings(what: str, value: Any) -> None:
    """A mapping by the keys of the configuration, which looks at the values itself."""
    _of(Mapping, what, value, "a mapping")
    for key in value:
        text(f"a key of {what}", key)


# --- what the methods take -----------------------------------------------------------------------


def topic(value: Any) -> None:
    """What is published on, and subscribed to."""
    text("a topic", value)
    if not Topic().holds(value):
        raise WrongArgument(f"a topic has 1 to {TOPIC_MAX} bytes, all of them printable")


def content(value: Any) -> None:
    """What is published; how much that may be is the core's to say."""
    if isinstance(value, str):
        text("data", value, most=MOST)
    else:
        _of(bytes, "data", value, "bytes or a str")


def peer(value: Any) -> None:
    """A peer as people name it."""
    text("a peer", value)


def protocol(value: Any) -> None:
    """What a stream is for."""
    text("a protocol", value)
    if not (0 < len(value) <= PROTOCOL_MAX and value.isprintable()):
        raise WrongArgument(f"a protocol's name has 1 to {PROTOCOL_MAX} printable characters")


def priority(value: Any) -> None:
    """A stream's share of its link."""
    whole("a priority", value, PRIORITY_MIN, PRIORITY_MAX)


def code(value: Any) -> None:
    """What a reset says."""
    whole("a code", value, 0, CODE_MAX)


def buffer(value: Any) -> memoryview:
    """Bytes to send, in any form that has them in one piece."""
    _of((bytes, bytearray, memoryview), "data", value, "bytes, a bytearray or a memoryview")
    try:
        return memoryview(value).cast("B")
    except TypeError:
        raise WrongArgument("data is a memoryview whose bytes are not in one piece") from None
