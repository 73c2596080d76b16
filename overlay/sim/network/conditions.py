"""What the network of a simulated world does to packets: how long they travel, and which are lost.

Nodes are known by their number in the world, from 0. All latencies are seconds one way, without
jitter: in a plane, by a matrix, or as drawn.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from math import dist
from typing import Protocol


class Latencies(Protocol):
    """From any node to any other."""

    def between(self, one: int, other: int) -> float:
        """Seconds that a packet takes from `one` to `other`."""
        ...


class Drawn:
    """Uniform, drawn for each pair of nodes; the same both ways, whichever is asked for first."""

    def __init__(self, seed: int, low: float, high: float) -> None:
        self._key = b"%d" % seed
        self._low, self._span = low, high - low

    def between(self, one: int, other: int) -> float:
        """See `Latencies.between`."""
        pair = b"%d %d" % (min(one, other), max(one, other))
        drawn = int.from_bytes(blake2b(pair, key=self._key, digest_size=8).digest(), "big")
        return self._low + self._span * drawn / 2**64


class Plane:
    """Each node has a place in a square, drawn from the seed; latency grows with the distance.

    Two nodes that are near to a third are near to each other, as in real networks.
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
        """Where a node is; places are drawn in the order of the nodes' numbers."""
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


@dataclass(frozen=True, slots=True)
class Conditions:
    """Drawn anew for each link or packet; a world can change them while it runs.

    A link's control channel stays in order, as SCTP keeps it: a packet that is late or lost holds
    up those behind it on its link, and lets other links and handshakes overtake.
    """

    latency: tuple[float, float] = (0.005, 0.050)
    """Seconds one way, uniform, drawn a link."""
    between: Latencies | None = None
    """In place of `latency`: what it is from each node to each other."""
    jitter: float = 0.002
    """Seconds at most that a packet takes longer than its link's latency, uniform."""
    loss: float = 0.0
    """Share of packets lost; reliable messages and handshakes come later instead."""
    reordering: float = 0.0
    """Share of packets held up on the way, by as much as four times the link's latency."""
    bandwidth: float = 0.0
    """Bytes a second that a link carries each way; 0: no limit."""
