"""Small words for people."""


def span(seconds: float) -> str:
    """A duration, roughly: two units at most."""
    whole = int(seconds)
    for unit, length, smaller, divisor in (
        ("d", 86_400, "h", 3_600),
        ("h", 3_600, "m", 60),
        ("m", 60, "s", 1),
    ):
        if whole >= length:
            return f"{whole // length}{unit} {whole % length // divisor}{smaller}"
    return f"{whole}s"
