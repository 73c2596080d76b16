"""What peers say, made safe to show.

It stands alone because commands import it, which import next to nothing in order to start fast.
"""


def plain(text: str) -> str:
    """A peer's words without anything that a terminal would obey."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
