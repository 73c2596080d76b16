"""All that a node does about circuits, behind one entry: an end of its own, a relay for others.

Methods return facts of the circuits that it is an end of.
"""

from typing import assert_never

from overlay.core.context import Context
from overlay.core.link.links import Links
from overlay.core.membership.records import RecordBook
from overlay.core.relay.circuits import CircuitFact, Circuits
from overlay.core.relay.serving import Serving
from overlay.core.routing.routing import Routing
from overlay.core.types import CircuitId, PeerId
from overlay.core.wire.messages import (
    CircuitAccept,
    CircuitAsk,
    CircuitClose,
    CircuitMessage,
    CircuitOffer,
    CircuitReady,
    CircuitRefuse,
)


class Relaying:
    """The two roles of one node."""

    def __init__(self, context: Context, links: Links, routing: Routing, book: RecordBook) -> None:
        self.circuits = Circuits(context, links, routing, book)
        self.serving = Serving(context, links, book)

    def on_message(self, peer: PeerId, message: CircuitMessage, now: float) -> list[CircuitFact]:
        """A neighbour wants a circuit, or says what has become of one."""
        match message:
            case CircuitAsk():
                self.serving.on_ask(peer, message, now)
            case CircuitAccept():
                self.serving.on_accept(peer, message, now)
            case CircuitOffer():
                return self.circuits.on_offer(peer, message, now)
            case CircuitReady():
                return self.circuits.on_ready(peer, message, now)
            case CircuitRefuse():
                if not self.serving.on_refuse(peer, message):
                    return self.circuits.on_refuse(peer, message, now)
            case CircuitClose():
                if not self.serving.on_close(peer, message):
                    return self.circuits.on_close(peer, message)
            case _:
                assert_never(message)
        return []

    def on_path(self, peer: PeerId, now: float) -> list[CircuitFact]:
        """A neighbour's link has come or gone, is another one, or has another path."""
        self.serving.on_link(peer)
        facts = self.circuits.on_link(peer)
        self.circuits.on_path(peer, now)
        return facts

    def on_carried(self, circuit: CircuitId, size: int, now: float) -> None:
        """So many bytes went over a circuit that we relay."""
        self.serving.on_carried(circuit, size, now)

    def on_time(self, now: float) -> list[CircuitFact]:
        """Do what is due."""
        self.serving.on_time(now)
        return self.circuits.on_time(now)
