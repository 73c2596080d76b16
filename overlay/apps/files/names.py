"""Which names of files are safe to write, wherever the receiver may put them.

A sender chooses the name, so the receiver writes it only if it means one plain file in its own
directory, on every system, and looks like what it is. Whatever else is refused, not mended: who
sends is told what to rename, and nobody gets a file under a name that somebody else has made up.
"""

import unicodedata

NAME_MAX = 240
"""Bytes: with ``.part`` or `` (999)`` behind it, file systems still take it (they take 255)."""
PART = ".part"
"""The end of the names of unfinished files."""
JOINERS = frozenset("\N{ZERO WIDTH NON-JOINER}\N{ZERO WIDTH JOINER}")
"""Invisible, but part of how Persian, Indic scripts and emoji are written."""
DEVICES = frozenset(
    {"CON", "PRN", "AUX", "NUL", "CLOCK$", "CONIN$", "CONOUT$"}
    | {f"{port}{digit}" for port in ("COM", "LPT") for digit in "0123456789¹²³"}
)
"""What opens a device on Windows, with any extension (Microsoft, "Naming Files, Paths, …")."""


def fault_of(name: str) -> str | None:
    """What is wrong with a file's name, as the end of a sentence; None: it is safe."""
    if not name:
        return "is empty"
    for character in name:
        if fault := _fault_of_character(character):
            return fault
    if name.startswith("."):
        return "begins with a dot (such files are hidden, and may configure programs)"
    if name.endswith((".", " ")) or name.startswith(" "):
        return "begins or ends with what some systems cut off (a space, a dot)"
    if name.partition(".")[0].rstrip().upper() in DEVICES:
        return "is a device's on some systems"
    if name.casefold().endswith(PART):
        return f"ends in {PART}, as unfinished files do here"
    if len(name.encode()) > NAME_MAX:
        return f"has more than {NAME_MAX} bytes"
    return None


def _fault_of_character(character: str) -> str | None:
    """Separators, controls, and what a screen does not show as it stands (bidi, format)."""
    if character in "/\\":
        return f"has a {character} in it, which separates directories"
    # Cc control, Cf format (bidi among them), Cs surrogate, Cn unassigned, Zl and Zp separators;
    # Zs are spaces, which people and cameras do put into names.
    kind = unicodedata.category(character)
    if character in JOINERS or kind == "Zs" or kind[0] not in "CZ":
        return None
    return f"has the invisible character U+{ord(character):04X} in it"


def numbered(name: str, number: int) -> str:
    """The same name beside one that is taken: ``report (1).pdf``."""
    stem, dot, extension = name.rpartition(".")
    return f"{stem} ({number}).{extension}" if dot else f"{name} ({number})"


def shown(text: str) -> str:
    """A peer's words, or a path, without anything that a terminal would obey."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
