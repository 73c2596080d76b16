"""One node of a simulated world: its core, and what the world knows of it."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from overlay.core.context import Settings
from overlay.core.events import Deliver, Event, Rejected, Report, Resolved
from overlay.core.link.links import LinkState
from overlay.core.overlay import Overlay
from overlay.core.timers import NEVER
from overlay.core.types import Address, LinkId, PeerId, RequestId
from overlay.sim.clock import EPOCH, Clock
from overlay.sim.crypto import StandInCrypto

PORT = 4000
"""The UDP port of every node, at its own host."""


@dataclass(slots=True, eq=False, repr=False)
class SimNode:
    """A node is itself and no other: compared by identity."""

    name: str
    address: Address
    crypto: StandInCrypto
    settings: Settings
    core: Overlay
    firewalled: bool
    advertised: bool = False
    alive: bool = True
    frozen: bool = False
    group: int = 0
    """Packets pass within a group only (`World.partition`)."""
    deaf_to: "tuple[SimNode, ...]" = ()
    """Whose packets do not reach it, though its own reach them (`World.deafen`)."""
    clock_offset: float = 0.0
    """Seconds that its wall clock is ahead of the world's."""
    backlog: list[Event] = field(default_factory=list)
    """Events that wait for a frozen node to thaw."""
    wakes: float = NEVER
    """For which deadline of its core the pending wake-up is, seconds."""
    next_inbound_link: int = 1
    delivered: list[Deliver] = field(default_factory=list)
    results: dict[RequestId, Resolved | Rejected] = field(default_factory=dict)
    index: int = 0
    """How many started before it."""
    cache: dict[PeerId, bytes] = field(default_factory=dict)
    reports: list[Report] = field(default_factory=list)

    def __repr__(self) -> str:
        """Its name: all that it holds would fill a screen, and lead to every other node."""
        return f"<node {self.name}>"

    @property
    def peer_id(self) -> PeerId:
        """The node's peer id."""
        return self.crypto.peer_id

    def gets_from(self, sender: "SimNode") -> bool:
        """Whether packets of that node arrive here."""
        return self.group == sender.group and sender not in self.deaf_to

    def wall(self, now: float) -> float:
        """What its wall clock says at this virtual second, Unix seconds."""
        return EPOCH + now + self.clock_offset

    def new_inbound_link(self) -> LinkId:
        """Its next odd link id."""
        self.next_inbound_link += 2
        return LinkId(self.next_inbound_link - 2)

    def neighbours(self) -> set[PeerId]:
        """Peers with a link that is not silent."""
        return {view.peer for view in self.core.peers() if view.state is not LinkState.SILENT}

    def active_view(self) -> list[PeerId]:
        """Its HyParView neighbours."""
        return list(self.core.active_view())

    def cost_of(self, peer: PeerId, wall: float) -> int | None:
        """Messages that a link which opens at this moment took: offer and answer, on each hop.

        None if it is older.
        """
        for view in self.core.peers():
            if view.peer == peer and view.since_wall >= wall - 0.001:
                return 2 * view.hops
        return None


@dataclass(frozen=True, slots=True)
class Environment:
    """What a world hands to its network: time, chance, the nodes, and the way to their cores."""

    seed: int
    clock: Clock
    rng: random.Random
    nodes: list[SimNode]
    """All that ever started, in that order; it grows."""
    by_address: dict[Address, SimNode]
    feed: Callable[[SimNode, Event], None]
    """Hands an event to a node's core."""
