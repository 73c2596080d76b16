"""Many routing machines and nothing else: a mesh that stands, in which requests travel.

Each node has its ring neighbours, long links at harmonic distances and random links, and knows its
neighbours' neighbours. So thousands of nodes are cheap, and the dead are dead without anybody
having noticed.
"""

import heapq
import math
import random
from collections import Counter
from dataclasses import dataclass, field

from overlay.core.context import Context, Settings
from overlay.core.events import Transmit
from overlay.core.routing.next_hop import OFFER_TTL
from overlay.core.routing.requests import (
    ReplyArrived,
    RequestArrived,
    RoutingFact,
    Undeliverable,
    base_of,
    new_request,
)
from overlay.core.routing.ring import place_of
from overlay.core.routing.routing import Routing
from overlay.core.timers import NEVER
from overlay.core.types import LinkId, PeerId
from overlay.core.wire.messages import Bounce, Message, Seek, SignalAck, Sought, Trace, TraceReply
from overlay.sim.crypto import Ledger, StandInCrypto

LATENCY = 0.02


@dataclass(slots=True)
class Asked:
    """A request, and what came of it."""

    node: int
    to: int
    at: float
    answered_at: float | None = None
    attempt: int = 0
    path: list[bytes] = field(default_factory=list)
    answers: int = 0
    given_up_at: float | None = None


@dataclass(slots=True)
class RoutingWorld:
    """`size` nodes in the order of their places; node i's ring neighbours are i-2 … i+2."""

    size: int
    seed: int = 1
    side: int = 2
    long: int = 2
    extra: int = 5
    """Random links of each node, both ends' counted."""
    routers: list[Routing] = field(default_factory=list)
    links: list[dict[int, None]] = field(default_factory=list)
    dead: dict[int, None] = field(default_factory=dict)
    swallowing: dict[int, None] = field(default_factory=dict)
    """Acknowledge what is not for them, and do no more."""
    now: float = 0.0
    asked: dict[bytes, Asked] = field(default_factory=dict)
    sent: Counter[str] = field(default_factory=Counter)
    visits: Counter[tuple[bytes, int]] = field(default_factory=Counter)
    """How often a node was handed each attempt, and took charge of it."""
    costs: Counter[bytes] = field(default_factory=Counter)
    """Hand-overs of each request, over all its attempts."""
    _queue: list[tuple[float, int, int, int, Message | None]] = field(default_factory=list)
    _count: int = 0

    def __post_init__(self) -> None:
        rng, ledger = random.Random(self.seed), Ledger()
        cryptos = [StandInCrypto(ledger, random.Random(rng.random())) for _ in range(self.size)]
        cryptos.sort(key=lambda crypto: place_of(crypto.peer_id))
        for crypto in cryptos:
            settings = Settings(bytes(32), "n", "hop", 1, dial_key=bytes(32))
            self.routers.append(Routing(Context(settings, crypto, random.Random(rng.random()))))
        self.links = [{} for _ in range(self.size)]
        for index in range(self.size):
            for step in range(1, self.side + 1):
                self.link(index, (index + step) % self.size)
            for _ in range(self.long):
                step = int(self.size ** rng.random())  # harmonic (Symphony, §3.1)
                self.link(index, (index + rng.choice((1, -1)) * step) % self.size)
            while len(self.links[index]) < 2 * self.side + self.long and self.extra:
                self.link(index, rng.randrange(self.size))
        for _ in range(self.extra * self.size // 2):
            self.link(rng.randrange(self.size), rng.randrange(self.size))
        self.tell()

    def peer(self, index: int) -> PeerId:
        """A node's id."""
        return self.routers[index].context.peer_id

    def link(self, one: int, other: int) -> None:
        """Link two nodes, each by the other's number."""
        if one != other and other not in self.links[one]:
            self.links[one][other] = self.links[other][one] = None
            self.routers[one].add(self.peer(other), LinkId(other), self.now)
            self.routers[other].add(self.peer(one), LinkId(one), self.now)

    def tell(self) -> None:
        """Everybody hears of its neighbours' neighbours."""
        for index, links in enumerate(self.links):
            for other in links:
                self.lie(other, list(self.links[other]), only=index)

    def lie(self, liar: int, about: list[int], only: int | None = None) -> None:
        """A node says that these are its neighbours."""
        peers = [self.peer(each) for each in about]
        for other in self.links[liar] if only is None else [only]:
            self.routers[other].on_neighbours(self.peer(liar), peers)

    # --- requests ------------------------------------------------------------------------------

    def trace(self, node: int, to: int, *, target: PeerId | None = None) -> Asked:
        """Have a node ask another, or somebody who is nowhere."""
        router = self.routers[node]
        request = new_request(router.context.crypto)
        asked = self.asked[request] = Asked(node, to, self.now)
        routed = Trace(target or self.peer(to), request, OFFER_TTL, [])
        self._on_facts(node, router.send(routed, self.now))
        self._after(node)
        return asked

    def run(self, seconds: float) -> None:
        """Let so much time pass."""
        end = self.now + seconds
        while self._queue and self._queue[0][0] <= end:
            self.now, _, node, sender, message = heapq.heappop(self._queue)
            if node in self.dead:
                continue
            if message is None:
                self._on_facts(node, self.routers[node].on_time(self.now))
                self.routers[node].context.agenda.settle()
            else:
                self._on_facts(node, self._deliver(node, self.peer(sender), message))
            self._after(node)
        self.now = end

    def _deliver(self, node: int, sender: PeerId, message: Message) -> list[RoutingFact]:
        router = self.routers[node]
        match message:
            case Trace():
                if node in self.swallowing and message.target != self.peer(node):
                    self._send(node, self._number(node, sender), SignalAck(message.request, False))  # noqa: FBT003
                    return []
                return router.on_request(sender, message, self.now)
            case TraceReply():
                return router.on_reply(sender, message, self.now)
            case SignalAck():
                router.on_ack(sender, message, self.now)
            case Seek() if node in self.swallowing:
                return []
            case Seek() | Sought():
                return router.on_seek(sender, message, self.now)
            case Bounce():
                return router.on_bounce(sender, message, self.now)
        return []

    def _number(self, node: int, sender: PeerId) -> int:
        return int(self.routers[node].neighbours[sender].link)

    def _on_facts(self, node: int, facts: list[RoutingFact]) -> None:
        for fact in facts:
            match fact:
                case RequestArrived(Trace() as trace):
                    path = [*trace.path, bytes(self.peer(node))]
                    reply = TraceReply(trace.request, path)
                    self._on_facts(node, self.routers[node].reply(reply))
                case ReplyArrived(TraceReply() as reply):
                    asked = self.asked[base_of(reply.request)]
                    asked.answers += 1
                    if asked.answered_at is None:
                        asked.answered_at = self.now
                        asked.attempt, asked.path = reply.request[-1], reply.path
                case Undeliverable(request):
                    self.asked[base_of(request)].given_up_at = self.now
                case _:
                    raise AssertionError(fact)

    def _after(self, node: int) -> None:
        context = self.routers[node].context
        for effect in context.drain():
            assert isinstance(effect, Transmit)
            self._send(node, int(effect.link), effect.message)
        if context.agenda.earliest != NEVER:
            self._push(context.agenda.earliest, node, node, None)

    def _send(self, node: int, to: int, message: Message) -> None:
        self.sent[type(message).__name__] += 1
        if isinstance(message, Trace):
            self.visits[message.request, to] += 1
            self.costs[base_of(message.request)] += 1
        self._push(self.now + LATENCY, to, node, message)

    def _push(self, at: float, node: int, sender: int, message: Message | None) -> None:
        self._count += 1
        heapq.heappush(self._queue, (at, self._count, node, sender, message))

    # --- what came of it -----------------------------------------------------------------------

    def answered(self, *, attempts: int = math.inf) -> float:  # type: ignore[assignment]
        """The share of requests answered within so many attempts."""
        good = [
            asked
            for asked in self.asked.values()
            if asked.answered_at is not None and asked.attempt < attempts
        ]
        return len(good) / len(self.asked)

    def hops(self) -> float:
        """Links one way, on average over what was answered."""
        counts = [len(asked.path) for asked in self.asked.values() if asked.answered_at is not None]
        return sum(counts) / len(counts)
