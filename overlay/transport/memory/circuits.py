"""Circuits between memory transports: who relays which, and whom a path over it leads to."""

from collections.abc import Callable

from overlay.core.events import DropCircuit, RelayCircuit, UseCircuit
from overlay.core.types import Address, CircuitId, LinkId
from overlay.transport.interface import CircuitEffect

Far = Callable[[Address, LinkId], Address | None]
"""Where the other end of a node's open link is; None: it has no such link."""


class Circuits:
    """All circuits of a network; nodes are named by their addresses."""

    def __init__(self, far: Far, passes: Callable[[Address, Address], bool]) -> None:
        """`passes`: whether something sent from one node to the other would arrive."""
        self._far, self._passes = far, passes
        self._used: dict[tuple[Address, CircuitId], LinkId] = {}
        self._relayed: dict[CircuitId, tuple[Address, LinkId, LinkId]] = {}

    @property
    def stand(self) -> bool:
        """Whether there are any."""
        return bool(self._relayed)

    def perform(self, node: Address, effect: CircuitEffect) -> None:
        """What a node's transport does with it."""
        match effect:
            case UseCircuit(circuit, link):
                self._used[node, circuit] = link
            case RelayCircuit(circuit, one, other):
                self._relayed.setdefault(circuit, (node, one, other))
            case DropCircuit(circuit):
                self._used.pop((node, circuit), None)
                if self._relayed.get(circuit, (None,))[0] == node:
                    del self._relayed[circuit]

    def far_end(self, node: Address, circuit: CircuitId) -> Address | None:
        """Whom datagrams of this node reach over the circuit; None: nobody, just now."""
        relay, one, other = self._relayed.get(circuit, (None, LinkId(0), LinkId(0)))
        if relay is None or self._relay_of(node, circuit) != relay:
            return None
        ends = [self._far(relay, one), self._far(relay, other)]
        far = ends[1] if ends[0] == node else ends[0]
        if node not in ends or far is None or self._relay_of(far, circuit) != relay:
            return None
        return far if self._passes(node, relay) and self._passes(relay, far) else None

    def _relay_of(self, node: Address, circuit: CircuitId) -> Address | None:
        link = self._used.get((node, circuit))
        return None if link is None else self._far(node, link)
