"""Latency matrices of scenarios: a CSV file, or rows; square, each number a possible latency."""

import csv
import math
from collections.abc import Sequence
from pathlib import Path

SIZE_MAX = 2048
"""Rows: four million numbers."""
LATENCY_MAX = 10.0
"""Seconds."""

Rows = tuple[tuple[float, ...], ...]


def load(path: Path) -> Rows:
    """The rows of a CSV file; ValueError says in words what is wrong with it."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            lines = [line for line in csv.reader(file) if any(map(str.strip, line))]
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror or error}") from None
    except (UnicodeDecodeError, csv.Error):
        raise ValueError(f"{path} is not a CSV file") from None
    try:
        return checked([[_number(text) for text in line] for line in lines])
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def checked(rows: Sequence[Sequence[float]]) -> Rows:
    """The same rows if they are a matrix of latencies; ValueError says in words why not."""
    size = len(rows)
    if not 1 <= size <= SIZE_MAX:
        raise ValueError(f"expected 1 to {SIZE_MAX} rows, not {size}")
    for number, row in enumerate(rows, 1):
        if len(row) != size:
            text = f"expected {size} numbers in row {number}, one for each row, not {len(row)}"
            raise ValueError(text)
        for value in row:
            if not 0 <= value <= LATENCY_MAX:  # which no NaN is
                text = f"expected seconds from 0 to {LATENCY_MAX:g} in row {number}"
                raise ValueError(f"{text}, not {value:g}")
    return tuple(map(tuple, rows))


def _number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"expected numbers, not {text.strip()[:20]!r}")
    return number
