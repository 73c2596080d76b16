"""What a network keeps of each link: its two ends, and the attempt that came before it."""

from dataclasses import dataclass, field
from typing import Protocol

from overlay.core.events import Dial, Negotiate, Prepare, Restart
from overlay.core.types import LinkFacts, LinkId
from overlay.core.wire.messages import Message
from overlay.sim.node import SimNode


class Via(Protocol):
    """What carries the packets of an end that do not go directly."""

    def carries(self, sender: SimNode, receiver: SimNode) -> bool:
        """Whether packets of one node reach the other."""
        ...


@dataclass(slots=True, eq=False)
class LinkEnd:
    """One node's end of a link; what is said of packets is said of those that it receives."""

    node: SimNode
    link: LinkId
    latency: float
    """Seconds that a packet takes from this end to the other."""
    arrives: int = 0
    """Microsecond at which the last packet under way arrives."""
    sent: int = 0
    """Microsecond at which the last packet has left (bandwidth)."""
    gone: bool = False
    answered: bool = True
    """Whether questions of this end are answered; if not, notices of silence are under way."""
    told: bool = False
    """The core thinks it suspect or silent."""
    epoch: int = 0
    """Counts the changes of `answered`: a notice of an earlier one is void."""
    held: list[Message | None] = field(default_factory=list)
    """What waits for the path to come back; None: the other end has hung up."""
    facts: LinkFacts | None = None
    """As its core knows them."""
    via: Via | None = None
    """What its packets go over; None: they go directly."""
    restart: Restart | None = None
    """A restart that has begun at this end, and at the other perhaps not yet."""
    other: "LinkEnd" = field(init=False)

    def reaches(self) -> bool:
        """Whether packets of this end arrive at the other."""
        if self.via is not None:
            return self.via.carries(self.node, self.other.node)
        return self.other.node.gets_from(self.node)


@dataclass(slots=True, eq=False)
class Attempt:
    """A dial or a negotiation under way."""

    node: SimNode
    effect: Dial | Prepare | Negotiate
    latency: float


def part(end: LinkEnd) -> None:
    """Cut two ends that are both gone from each other, so that no reference cycle is left."""
    other = end.other
    if end.gone and other.gone:
        del end.other, other.other
