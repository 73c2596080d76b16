"""How long packets travel from one node to another: in a plane, by a matrix, or as drawn.

Nodes are known by their number in the world, from 0. All are seconds one way, without jitter.
"""

import random
from collections.abc import Sequence
from hashlib import blake2b
from math import dist
from typing import Protocol


class Latencies(Protocol):
    """From any node to any other."""

    def between(self, one: int, other: int) -> float:
        """Seconds that a packet takes from `one` to `other`."""
        ...


class Drawn:
    """Uniform, drawn for each pair of nodes; the same both ways, and whoever asks first."""

    def __init__(self, seed: int, low: float, high: float) -> None:
        self._key = b"%d" % seed
        self._low, self._span = low, high - low

    def between(self, one: int, other: int) -> float:
        """See `Latencies.between`."""
        pair = b"%d %d" % (min(one, other), max(one, other))
        drawn = int.from_bytes(blake2b(pair, key=self._key, digest_size=8).digest(), "big")
        return self._low + self._span * drawn / 2**64


class Plane:
    """Every node has a place in a square, drawn from the seed; the way takes as long as it is far.

    So who is near to two nodes makes them near to each other, as in real networks.
    """

    def __init__(self, seed: int, side: float, base: float) -> None:
        """`side`: of the square, seconds; `base`: what every way takes besides."""
        self._rng = random.Random(f"places {seed}")
        self._side, self._base = side, base
        self._places: list[tuple[float, float]] = []

    def between(self, one: int, other: int) -> float:
        """See `Latencies.between`."""
        return self._base + dist(self.place(one), self.place(other))

    def place(self, node: int) -> tuple[float, float]:
        """Where a node is; the next number's place is the next that is drawn."""
        while len(self._places) <= node:
            self._places.append((self._rng.random() * self._side, self._rng.random() * self._side))
        return self._places[node]


class Matrix:
    """As measured: a row for each sender, a column for each receiver.

    Node i has row and column i modulo the number of rows: of two nodes in one row, the diagonal
    says how far they are apart.
    """

    def __init__(self, rows: Sequence[Sequence[float]]) -> None:
        self._rows = rows

    def between(self, one: int, other: int) -> float:
        """See `Latencies.between`."""
        size = len(self._rows)
        return self._rows[one % size][other % size]
