"""The port of a node that shows itself to nobody but its relays (``links.relay_only``).

It stands alone so that ordinary nodes pay nothing for it: not even a question a datagram.
"""

from overlay.core.addresses import is_circuit
from overlay.core.endpoint.endpoint import Endpoint
from overlay.core.types import Address


class HiddenEndpoint(Endpoint):
    """Hears those whom it has dialled itself, and what comes over circuits: nobody else.

    So it answers no check, no question (RFC 8489) and no handshake from anywhere else, whatever
    tokens or credentials they show, and no path of it moves there. `counters` has such datagrams
    as ``hidden``.
    """

    def receive(self, data: bytes, remote: Address, local: Address | None, now: float) -> None:
        """As `Endpoint.receive`, from addresses of our own choice."""
        if is_circuit(remote) or any(remote in each.targets for each in self._links.values()):
            super().receive(data, remote, local, now)
        else:
            self.counters["hidden"] += 1
