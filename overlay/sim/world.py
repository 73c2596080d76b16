"""A seeded world: whole nodes of the unchanged core on a virtual clock of microseconds.

Everything that happens is drawn from one seed; the same seed gives the same world. Nodes meet over
`overlay.sim.network`; what a crash, a freeze or a lost packet does to them is decided there.
"""

import dataclasses
import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from overlay.core.events import (
    ClockSet,
    Connect,
    Deliver,
    Effect,
    Event,
    Join,
    Leave,
    Listening,
    MakeInvite,
    Publish,
    Recall,
    Rejected,
    Remember,
    Report,
    Resolved,
    Wakeup,
)
from overlay.core.messages import InviteBody
from overlay.core.overlay import Overlay, Settings
from overlay.core.types import Address, LinkId, PeerId, RequestId
from overlay.sim.crypto import Ledger, StandInCrypto
from overlay.sim.network import Conditions, Network

EPOCH = 1_800_000_000
"""Unix seconds at which every world begins."""
MICROSECOND = 1_000_000


@dataclass(slots=True)
class SimNode:
    """One node: its core, and what the world knows of it."""

    name: str
    address: Address
    crypto: StandInCrypto
    settings: Settings
    core: Overlay
    firewalled: bool
    alive: bool = True
    frozen: bool = False
    backlog: list[Event] = field(default_factory=list)
    """Events that wait for a frozen node to thaw."""
    wake_at: int | None = None
    next_inbound_link: int = 1
    delivered: list[Deliver] = field(default_factory=list)
    results: dict[RequestId, Resolved | Rejected] = field(default_factory=dict)
    cache: dict[PeerId, bytes] = field(default_factory=dict)
    reports: list[Report] = field(default_factory=list)

    @property
    def peer_id(self) -> PeerId:
        """The node's peer id."""
        return self.crypto.peer_id

    def neighbours(self) -> set[PeerId]:
        """Peers with a link that is not silent."""
        return {view.peer for view in self.core.peers() if view.state != "silent"}


class World:
    """Nodes, a network, a clock and one seed."""

    def __init__(self, seed: int, conditions: Conditions | None = None) -> None:
        self.seed = seed
        self.rng = random.Random(seed)
        self.now_us = 0
        self.events = 0
        """Events handled by cores so far."""
        self.nodes: list[SimNode] = []
        self.network = Network(self, conditions or Conditions())
        self._ledger = Ledger()
        self._queue: list[tuple[int, int, Callable[[], None]]] = []
        self._count = 0
        self._requests = 0

    @property
    def now(self) -> float:
        """Virtual seconds since the beginning."""
        return self.now_us / MICROSECOND

    # --- nodes -------------------------------------------------------------------------------

    def spawn(self, *, firewalled: bool = False, network: bytes = b"", **settings: Any) -> SimNode:
        """Start a node of its own; it joins nobody yet."""
        index = len(self.nodes)
        crypto = StandInCrypto(self._ledger, random.Random(self.rng.getrandbits(64)))
        chosen = Settings(
            network=network or bytes(32),
            network_name="world",
            name=f"n{index}",
            boot=1,
            dial_key=crypto.token(32),
            **settings,
        )
        address = Address(f"10.{index >> 16}.{index >> 8 & 255}.{index & 255}", 4000)
        core = Overlay(chosen, crypto, random.Random(self.rng.getrandbits(64)))
        node = SimNode(f"n{index}", address, crypto, chosen, core, firewalled)
        self.nodes.append(node)
        self._boot(node)
        return node

    def restart(self, node: SimNode) -> None:
        """The same node again after a crash: same keys and address, a newer boot, its cache."""
        assert not node.alive
        settings = dataclasses.replace(node.settings, boot=node.settings.boot + 1)
        node.settings = settings
        node.core = Overlay(settings, node.crypto, random.Random(self.rng.getrandbits(64)))
        node.alive, node.frozen, node.backlog, node.wake_at = True, False, [], None
        self._boot(node)
        records = [data for peer, data in node.cache.items() if peer != node.peer_id]
        self.feed(node, Recall(tuple(records)))

    def _boot(self, node: SimNode) -> None:
        self.feed(node, ClockSet(EPOCH + self.now))
        self.feed(node, Listening((node.address,)))

    def crash(self, node: SimNode) -> None:
        """The node is gone without a word."""
        node.alive = False
        self.network.on_crash(node)

    def freeze(self, node: SimNode) -> None:
        """The node stops without dying; what arrives waits."""
        node.frozen = True
        self.network.on_freeze(node)

    def thaw(self, node: SimNode) -> None:
        """A frozen node goes on where it was."""
        node.frozen = False
        backlog, node.backlog = node.backlog, []
        for event in backlog:
            self.feed(node, event)
        self.network.on_thaw(node)
        self.feed(node, Wakeup())

    # --- commands ----------------------------------------------------------------------------

    def request(self, node: SimNode, make: Callable[[RequestId], Event]) -> RequestId:
        """Give a node a command; its result will be in `node.results`."""
        self._requests += 1
        request = RequestId(self._requests)
        self.feed(node, make(request))
        return request

    def invite(self, node: SimNode, members: int = 1, expires_in: float = 3600.0) -> InviteBody:
        """An invite of this node; runs the world until it is made."""
        request = self.request(node, lambda r: MakeInvite(r, expires_in, members))
        self.run_until(lambda: request in node.results, within=5.0)
        result = node.results[request]
        assert isinstance(result, Resolved)
        body: InviteBody = result.value
        return body

    def join(self, node: SimNode, invite: InviteBody) -> RequestId:
        """Have a node join by an invite."""
        return self.request(node, lambda r: Join(r, invite))

    def connect(self, node: SimNode, peer: SimNode) -> RequestId:
        """Have a node open a link to a peer."""
        return self.request(node, lambda r: Connect(r, peer.peer_id))

    def publish(self, node: SimNode, data: bytes) -> RequestId:
        """Have a node publish on the topic ``t``."""
        return self.request(node, lambda r: Publish(r, "t", data, text=False))

    def leave(self, node: SimNode) -> None:
        """Have a node leave with a goodbye, and stop it."""
        self.request(node, Leave)
        node.alive = False
        self.network.on_left(node)

    def heard(self, data: bytes) -> list[SimNode]:
        """The nodes to which this publication was delivered, once for each time."""
        return [node for node in self.nodes for each in node.delivered if each.data == data]

    # --- the clock ---------------------------------------------------------------------------

    def at(self, delay: float, action: Callable[[], None]) -> None:
        """Do something after `delay` virtual seconds."""
        self._count += 1
        when = self.now_us + max(0, round(delay * MICROSECOND))
        heapq.heappush(self._queue, (when, self._count, action))

    def run_for(self, seconds: float) -> None:
        """Let so much virtual time pass."""
        end = self.now_us + round(seconds * MICROSECOND)
        while self._queue and self._queue[0][0] <= end:
            self._step()
        self.now_us = end

    def run_until(self, condition: Callable[[], bool], within: float) -> None:
        """Let time pass until the condition holds; fails after `within` virtual seconds."""
        end = self.now_us + round(within * MICROSECOND)
        while not condition():
            over = not self._queue or self._queue[0][0] > end
            assert not over, f"not within {within} virtual seconds: seed {self.seed}, at {self.now}"
            self._step()

    def _step(self) -> None:
        when, _, action = heapq.heappop(self._queue)
        self.now_us = max(self.now_us, when)
        action()

    # --- the door ----------------------------------------------------------------------------

    def feed(self, node: SimNode, event: Event) -> None:
        """Hand an event to a node's core and perform what comes out."""
        if not node.alive:
            return
        if node.frozen:
            node.backlog.append(event)
            return
        self.events += 1
        for effect in node.core.handle(event, self.now):
            self._perform(node, effect)
        self._schedule_wakeup(node)

    def _perform(self, node: SimNode, effect: Effect) -> None:
        match effect:
            case Deliver():
                node.delivered.append(effect)
            case Resolved() | Rejected():
                node.results[effect.request] = effect
            case Remember(peer, record):
                node.cache[peer] = record
            case Report():
                node.reports.append(effect)
            case _:
                self.network.perform(node, effect)

    def _schedule_wakeup(self, node: SimNode) -> None:
        """One pending wake-up a node: the earliest."""
        deadline = node.core.next_deadline()
        if deadline is None:
            return
        when = max(self.now_us, int(deadline * MICROSECOND))
        while when / MICROSECOND < deadline:  # never wake before what is due
            when += 1
        if node.wake_at is not None and self.now_us <= node.wake_at <= when:
            return
        node.wake_at = when
        core = node.core

        def wake() -> None:
            if node.core is core and node.wake_at == when:
                node.wake_at = None
                self.feed(node, Wakeup())

        self.at((when - self.now_us) / MICROSECOND, wake)

    def new_inbound_link(self, node: SimNode) -> LinkId:
        """The next odd link id of a node."""
        node.next_inbound_link += 2
        return LinkId(node.next_inbound_link - 2)
