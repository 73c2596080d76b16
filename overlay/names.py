"""One idea: how a node or a network is called: which names may be, and the short form of a peer id.

Whoever reads a list of peers relies on its names, and whoever chooses one may mean harm. So a name
has nothing in it that cannot be seen, that steers a terminal, or that turns round what stands
beside it. The rule is here alone. It holds for names that are given to us, on the command line or
by a program; one that a peer's record brings and that breaks it is no name, and the short id stands
in its place (decision 0046).

A short id is the part of a peer id in which two differ, as far as people need it (decision 0047).
It stands outside the core because programs that know the public interface alone rely on it as well.
"""

import re
import unicodedata
from functools import cache, lru_cache

NAME_MAX = 64
"""Characters of a name."""
MARKS_MAX = 6
"""Marks on one letter (guess): no script needs more, and a tower of them covers other lines."""
ID_PREFIX = "12D3KooW"
"""All peer ids of Ed25519 keys begin so."""
SHORT_ID = 8
"""Characters of a short id: 45 bits, so two alike are no accident."""
LEAST_PREFIX = 4
"""Characters of the beginning of a short id that commands accept (guess)."""

# --- short ids -----------------------------------------------------------------------------------


def short_id(peer_id: str) -> str:
    """Enough of a peer id to tell it from others, and to pass to a command."""
    return peer_id.removeprefix(ID_PREFIX)[:SHORT_ID]


def titled(peer_id: str, name: str | None) -> str:
    """A peer by the name that it has chosen, which proves nothing, beside its short id."""
    return f"{plain(name)} ({short_id(peer_id)})" if name else short_id(peer_id)


def stands_for(text: str, peer_id: str) -> bool:
    """Whether a peer id is meant: by its beginning, or by that of its short form."""
    if peer_id.startswith(text):
        return bool(text)
    return len(text) >= LEAST_PREFIX and peer_id.removeprefix(ID_PREFIX).startswith(text)


# --- emoji ---------------------------------------------------------------------------------------

_PICTURE = (
    "[\xa9\xae\u203c\u2049\u2122\u2139\u2194-\u21aa\u231a-\u23ff\u24c2\u25aa-\u25fe\u2600-\u27bf"
    "\u2934\u2935\u2b05-\u2b55\u3030\u303d\u3297\u3299\U0001f000-\U0001faff]"
)
_ELEMENT = f"{_PICTURE}(?:[\ufe0e\ufe0f]|[\U0001f3fb-\U0001f3ff])?"
_JOINED = f"{_ELEMENT}(?:\u200d{_ELEMENT})*"
_REGION = "\U0001f3f4[\U000e0030-\U000e0039\U000e0061-\U000e007a]{3,6}\U000e007f"
_KEYCAP = "[0-9#*]\ufe0f?\u20e3"


@cache
def _emoji() -> re.Pattern[str]:
    """Whole emoji sequences (UTS #51 §1.4.9): in them, and only there, joiners and selectors mean
    something. Deviation: by blocks, not by the property Extended_Pictographic, which Python has no
    table of; so that what a later Unicode puts there counts as well.
    """
    return re.compile(f"({_REGION}|{_KEYCAP}|{_JOINED})")


# --- names ---------------------------------------------------------------------------------------

_ORDER = frozenset(("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"))
"""Bidirectional classes that turn text round (UAX #9)."""
_MARKS = frozenset("\u061c\u200e\u200f")
_UNSEEN = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0\u180b\u180c\u180d\u180f")
"""Printable by their category, and blank (Default_Ignorable_Code_Point, and an empty Braille)."""
_CONTROLS = {
    "\0": "NULL",
    "\b": "BACKSPACE",
    "\t": "TABULATION",
    "\n": "LINE FEED",
    "\r": "CARRIAGE RETURN",
    "\x1b": "ESCAPE",
    "\x7f": "DELETE",
}


def complaint(name: str) -> str:
    """What is wrong with a name, to be put after it, without any of it; empty: nothing is."""
    if not name:
        return "is empty"
    if len(name) > NAME_MAX:
        return f"has {len(name)} characters, and {NAME_MAX} are the most"
    if name.isascii() and name.isprintable() and name == name.strip():
        return ""  # most are, and lists of peers are long
    # An emoji leaves one plain character in its place.
    rest, marks = _emoji().sub("x", name), 0
    for before, each in zip(f" {rest}", rest, strict=False):
        if why := _unfit(each):
            return f"has {character(each)}, {why}: leave it out"
        marks = marks + 1 if unicodedata.category(each)[0] == "M" else 0
        if marks and before == " ":
            return f"has {character(each)}, a mark, with no letter before it: leave it out"
        if marks > MARKS_MAX:
            return f"has more than {MARKS_MAX} marks on one letter: leave some out"
    if rest.isspace():
        return "has only spaces"
    if rest != rest.strip():
        return "begins or ends with a space: leave it out"
    return ""


@lru_cache(1024)
def told(name: str) -> str:
    """A name that somebody else chose; empty if it is none."""
    return "" if complaint(name) else name


def fitting(name: str) -> str:
    """What of a name that nobody chose, such as a host's, is one; empty if nothing is."""
    kept = "".join(each for each in name if not _unfit(each)).strip()[:NAME_MAX].strip()
    return told(kept)


def character(each: str) -> str:
    """A character for people: its number and what Unicode calls it, never itself."""
    number = ord(each)
    if 0xDC80 <= number <= 0xDCFF:  # how Python passes on a byte that it could not read
        return f"the byte {number - 0xDC00:02X}"
    called = _CONTROLS.get(each) or unicodedata.name(each, "")
    return f"U+{number:04X} {called}".rstrip()


def _unfit(each: str) -> str:
    """Why a character outside an emoji has no place in a name; empty: it has."""
    category = unicodedata.category(each)
    if unicodedata.bidirectional(each) in _ORDER or each in _MARKS:
        return "which turns round what stands beside it"
    if each in _UNSEEN or "VARIATION SELECTOR" in unicodedata.name(each, ""):
        return "which nobody can see"
    why = {
        "Cc": "a control character",
        "Cf": "which nobody can see",
        "Cn": f"which is no character of Unicode {unicodedata.unidata_version}",
        "Co": "which looks different everywhere",
        "Cs": "which is not UTF-8",
        "Zl": "a line break",
        "Zp": "a line break",
        "Zs": "a space that looks like the usual one",
    }
    return "" if each == " " else why.get(category, "")


# --- words ---------------------------------------------------------------------------------------


def plain(text: str) -> str:
    """What anybody else says, without anything that a terminal would obey."""
    if text.isprintable():
        return text
    parts = _emoji().split(text)  # every other one is an emoji
    return "".join(each if n % 2 else _replaced(each) for n, each in enumerate(parts))


def _replaced(text: str) -> str:
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
