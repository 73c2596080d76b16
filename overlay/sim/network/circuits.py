"""Circuits at fidelity ``links``: who relays which, and whether packets pass over it.

A node that is an end has said over which link its relay is reached, and the relay between which two
links it forwards. A packet passes while the relay lives, both links stand, and both legs pass.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from overlay.core.addresses import circuit_of
from overlay.core.events import DropCircuit, RelayCircuit, UseCircuit
from overlay.core.types import Address, CircuitId, LinkId
from overlay.sim.network.ends import LinkEnd
from overlay.sim.node import SimNode

CircuitEffect = UseCircuit | RelayCircuit | DropCircuit


@dataclass(frozen=True, slots=True)
class _Relayed:
    relay: SimNode
    links: tuple[LinkId, LinkId]


@dataclass(frozen=True, slots=True)
class Over:
    """A circuit as the path of a link's end."""

    circuits: "Circuits"
    circuit: CircuitId

    def carries(self, sender: SimNode, receiver: SimNode) -> bool:
        """Whether packets of one node reach the other over it."""
        found = self.circuits.far_end(sender, self.circuit)
        if found is None or found[1] is not receiver:
            return False
        relay = found[0]
        return (
            relay.alive
            and not relay.frozen
            and relay.gets_from(sender)
            and receiver.gets_from(relay)
        )


class Circuits:
    """All circuits of a world."""

    def __init__(self, links: Mapping[SimNode, Mapping[LinkId, LinkEnd]]) -> None:
        """`links`: each node's ends of its open links."""
        self._links = links
        self._used: dict[tuple[SimNode, CircuitId], LinkId] = {}
        self._relayed: dict[CircuitId, _Relayed] = {}
        self.over: dict[LinkEnd, None] = {}
        """Ends of links that run over a circuit, or did."""

    def perform(self, node: SimNode, effect: CircuitEffect) -> None:
        """What a node's transport does with it."""
        match effect:
            case UseCircuit(circuit, link):
                self._used[node, circuit] = link
            case RelayCircuit(circuit, one, other):
                self._relayed.setdefault(circuit, _Relayed(node, (one, other)))
            case DropCircuit(circuit):
                self._used.pop((node, circuit), None)
                relayed = self._relayed.get(circuit)
                if relayed is not None and relayed.relay is node:
                    del self._relayed[circuit]

    def far_end(self, node: SimNode, circuit: CircuitId) -> tuple[SimNode, SimNode] | None:
        """The relay of a circuit that this node uses, and who uses it at the other end."""
        relayed = self._relayed.get(circuit)
        if relayed is None or self._at(node, circuit) is not relayed.relay:
            return None
        legs = [self._links[relayed.relay].get(link) for link in relayed.links]
        if legs[0] is None or legs[1] is None:
            return None
        ends = [leg.other.node for leg in legs if leg is not None]
        other = ends[1] if ends[0] is node else ends[0]
        if node not in ends or self._at(other, circuit) is not relayed.relay:
            return None
        return relayed.relay, other

    def _at(self, node: SimNode, circuit: CircuitId) -> SimNode | None:
        """To whom the link leads over which this node uses the circuit."""
        link = self._used.get((node, circuit))
        end = None if link is None else self._links[node].get(link)
        return None if end is None or end.other.gone else end.other.node

    def path(self, node: SimNode, address: Address) -> tuple[SimNode, Over] | None:
        """Whom a dial to a circuit's address reaches, and over what."""
        circuit = circuit_of(address)
        found = None if circuit is None else self.far_end(node, circuit)
        if circuit is None or found is None:
            return None
        over = Over(self, circuit)
        passes = over.carries(node, found[1]) and over.carries(found[1], node)
        return (found[1], over) if passes else None

    def latency(self, node: SimNode, address: Address) -> float | None:
        """Seconds one way over both legs; None: there is no such circuit."""
        circuit = circuit_of(address)
        found = None if circuit is None else self.far_end(node, circuit)
        if circuit is None or found is None:
            return None
        relayed = self._relayed[circuit]
        legs = [self._links[relayed.relay][link] for link in relayed.links]
        return sum(leg.latency for leg in legs)

    def runs_over(self, end: LinkEnd) -> None:
        """This end's path is a circuit now."""
        self.over[end] = None

    def standing(self) -> list[LinkEnd]:
        """Ends to be looked at when a relay's fate has changed; forgets those that are gone."""
        for end in [end for end in self.over if end.gone or end.via is None]:
            del self.over[end]
        return list(self.over)
