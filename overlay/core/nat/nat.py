"""All that a node does about NATs, behind one entry: its own examined, its neighbours' knocked at.

Methods return whether the addresses in our record have to change.
"""

from collections.abc import Callable
from typing import assert_never

from overlay.core.context import Context
from overlay.core.events import PortHeard, PortOpened, Seen
from overlay.core.nat.asking import Asking
from overlay.core.nat.behaviour import Behaviour
from overlay.core.nat.examining import Examining
from overlay.core.nat.knocking import Knocking, Neighbour
from overlay.core.nat.reflexive import Reflexive
from overlay.core.types import Address, PeerId, RequestId
from overlay.core.wire.messages import KnockAsk, Knocked, KnockMessage, KnockPass, KnockRefuse


class Nat:
    """The two roles of one node: who asks, and who is asked."""

    def __init__(
        self,
        context: Context,
        reflexive: Reflexive,
        neighbours: Callable[[], list[Neighbour]],
        tell: Callable[[PeerId, KnockMessage], None],
    ) -> None:
        """`tell`: sends a message to a neighbour, if it is one still."""
        self._reflexive = reflexive
        self._examining = Examining(context, reflexive, neighbours, tell)
        self._knocking = Knocking(context, reflexive, neighbours, tell)
        self._asking = Asking(context, reflexive, neighbours)

    def behaviour(self) -> Behaviour:
        """A snapshot of what is known of our own."""
        return self._examining.behaviour()

    def consider(self, now: float) -> None:
        """Somebody sees us from outside: examine soon, if need be, and ask over IPv4."""
        self._examining.consider(now)
        self._asking.consider(now)

    def on_listening(self, addresses: tuple[Address, ...], now: float) -> None:
        """Our port is open at these addresses; if others than before, we are elsewhere."""
        if addresses != self._reflexive.listening:
            self._examining.on_moved(now)
            self._asking.on_moved(addresses, now)

    def ask(self, request: RequestId, now: float) -> None:
        """A user wants to know: resolves when as much is known as can be."""
        self._examining.ask(request, now)

    def on_port(self, event: PortOpened | PortHeard | Seen, now: float) -> bool:
        """Something about a port that one of the two has wanted."""
        match event:
            case PortOpened(port, local):
                self._knocking.on_port_opened(port, local, now)
                self._examining.on_port_opened(port, local, now)
                return False
            case PortHeard(port, data, remote):
                self._knocking.on_port_heard(port, data, remote)
                return self._examining.on_port_heard(port, data, remote, now)
            case Seen(mapped=mapped) if mapped is not None:
                return self._asking.on_seen(event, now)
            case Seen(transaction, remote):
                self._knocking.on_seen(transaction, remote, now)
                return self._examining.on_seen(transaction, now)
            case _:
                assert_never(event)

    def on_message(self, neighbour: Neighbour, message: KnockMessage, now: float) -> bool:
        """A neighbour asks for knocks, or serves ours."""
        match message:
            case KnockAsk():
                self._knocking.on_ask(neighbour, message, now)
            case KnockPass():
                self._knocking.on_pass(neighbour, message, now)
            case Knocked():
                if not self._knocking.on_knocked(neighbour.peer, message):
                    return self._examining.on_knocked(neighbour.peer, message, now)
            case KnockRefuse():
                return self._examining.on_refused(neighbour.peer, message, now)
            case _:
                assert_never(message)
        return False

    def on_time(self, now: float) -> bool:
        """Do what is due."""
        self._knocking.on_time(now)
        self._asking.on_time(now)
        return self._examining.on_time(now)
