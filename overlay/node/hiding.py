"""Links taken out of what is printed and logged: who reads along could join by them.

It stands alone because the command line and the log need it, and neither needs the other.
"""

import re

LINK = re.compile(r"overlay\s*:\s*[A-Za-z0-9_-]{8,}", re.IGNORECASE)
PIECE = re.compile(
    r"(?<![A-Za-z0-9])(?=[A-Za-z]*[2-7])(?=[0-9A-Fa-f]*[G-Zg-z])(?:[a-z2-7]{16,}|[A-Z2-7]{16,})"
    r"(?![A-Za-z0-9])"
)
"""A word that looks like a piece of a link: base32 of letters and digits that is no hexadecimal."""


def hidden(text: str) -> str:
    """The text without the links in it, whole or in pieces."""
    return PIECE.sub("…", LINK.sub("overlay:…", text))
