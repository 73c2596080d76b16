"""Adversaries of a simulated world: nodes that run the shipped core, and lie with what it says.

They have joined like anybody, know each other, and know every honest member. What an adversary
does is a twist on what goes into its core and what comes out of it; on its own account it acts a
few times a second. Its core is otherwise the one that everybody runs, so that only the twist is
measured.
"""

import random
from collections import deque
from dataclasses import dataclass, field
from functools import partial

import msgspec

from overlay.core.context import Settings
from overlay.core.events import Effect, Event, Received, Transmit
from overlay.core.link.links import LinkState
from overlay.core.membership.records import RecordReader
from overlay.core.overlay import Overlay
from overlay.core.routing.next_hop import OFFER_TTL
from overlay.core.routing.requests import new_request
from overlay.core.types import Crypto, LinkId, PeerId, Random
from overlay.core.wire import messages as m
from overlay.sim.node import SimNode
from overlay.sim.scenario.scenario import Adversary
from overlay.sim.world import MakeCore, World

TWISTS_A_ROUND = 10
"""How often in an exchange interval an adversary replays or forges (guess)."""
REPLAYED = 3
"""Messages at a time (guess)."""
OVERHEARD_MAX = 64
LIES = 32
"""Neighbours that a liar names: as many as make it look near to everything."""


@dataclass(frozen=True, slots=True)
class Act:
    """An adversary's time has come; never seen by its core."""

    what: str


@dataclass(slots=True)
class Conspiracy:
    """What the adversaries of one world know of each other and of everybody else."""

    rng: Random
    byzantine: list[PeerId] = field(default_factory=list)
    honest: list[PeerId] = field(default_factory=list)


class Byzantine(Overlay):
    """The core that ships, with a twist on what goes into it and on what comes out of it."""

    def __init__(
        self,
        line: Adversary,
        conspiracy: Conspiracy,
        settings: Settings,
        crypto: Crypto,
        random: Random,
        reader: RecordReader,
    ) -> None:
        super().__init__(settings, crypto, random, reader)
        self._ways = line.do
        self._conspiracy = conspiracy
        self._view = settings.passive_size
        self._overheard: deque[m.Message] = deque(maxlen=OVERHEARD_MAX)

    def handle(self, event: Event | Act, now: float) -> list[Effect]:
        """As the core would, with a twist before and after."""
        if isinstance(event, Act):
            self._act(event.what, now)
            return self._twisted(self._context.drain())
        if isinstance(event, Received) and self._conceals(event):
            return self._context.drain()
        return self._twisted(super().handle(event, now))

    # --- on its own account ------------------------------------------------------------------

    def _act(self, what: str, now: float) -> None:
        links = [view.link for view in self.peers() if view.state is not LinkState.SILENT]
        if what == "flood":
            self._push(now)
        elif links and what == "replay":
            self._replay(links)
        elif links:
            self._forge(links)

    def _push(self, now: float) -> None:
        """A view of adversaries, to any honest member."""
        conspiracy = self._conspiracy
        if not conspiracy.honest or not self._routing.neighbours:
            return
        target = conspiracy.rng.choice(conspiracy.honest)
        request = new_request(self._context.crypto)
        push = m.ViewExchange(target, request, OFFER_TTL, self._plotters())
        self._routing.send(push, now, walk=False)

    def _plotters(self) -> list[bytes]:
        """Ourselves and as many other adversaries as a view has places."""
        byzantine, rng = self._conspiracy.byzantine, self._conspiracy.rng
        others = rng.sample(byzantine, min(self._view, len(byzantine)))
        return [self._context.peer_id, *others]

    def _replay(self, links: list[LinkId]) -> None:
        rng = self._conspiracy.rng
        for message in rng.sample(list(self._overheard), min(REPLAYED, len(self._overheard))):
            self._context.emit(Transmit(rng.choice(links), message))

    def _forge(self, links: list[LinkId]) -> None:
        """A record with one bit turned, and a publication in somebody's name."""
        rng = self._conspiracy.rng
        if not self._conspiracy.honest:
            return
        victim = rng.choice(self._conspiracy.honest)
        record = bytearray(self._book.bytes_of(victim) or self._membership.own)
        record[rng.randrange(len(record))] ^= 1 << rng.randrange(8)
        token, sign = self._context.crypto.token, self._context.crypto.sign
        gossip = m.Gossip(
            token(16), victim, "t", b"0-0 forged", text=False, hops=0, signature=sign(b"forged")
        )
        link = rng.choice(links)
        self._context.emit(Transmit(link, m.Records([bytes(record)])))
        self._context.emit(Transmit(link, gossip))

    # --- what goes in ------------------------------------------------------------------------

    def _conceals(self, event: Received) -> bool:
        """Whether the core is not to know of a message; remembers what may be said again."""
        message = event.message
        if "replay" in self._ways and not isinstance(message, m.Hello | m.Proof | m.Goodbye):
            self._overheard.append(message)
        if "swallow" not in self._ways:
            return False
        match message:
            case m.Offer() | m.Trace() | m.ViewExchange() | m.RecordPull():
                passing = message.target != self._context.peer_id
            case m.Locate():
                passing = True
            case _:
                passing = False
        if passing:
            assert not isinstance(message, m.Hello)
            self._context.emit(Transmit(event.link, m.SignalAck(_name(message), answer=False)))
        return passing

    # --- what comes out ----------------------------------------------------------------------

    def _twisted(self, effects: list[Effect]) -> list[Effect]:
        return [twisted for each in effects if (twisted := self._twist(each)) is not None]

    def _twist(self, effect: Effect) -> Effect | None:
        if not isinstance(effect, Transmit):
            return effect
        message, me = effect.message, self._context.peer_id
        match message:
            case m.Gossip(origin=origin) | m.GossipPart(origin=origin) if "drop" in self._ways:
                return effect if origin == me else None
            case m.IHave() if "drop" in self._ways:
                return None
            case m.Neighbours() if "lie" in self._ways:
                return Transmit(effect.link, m.Neighbours(self._lies()))
            case m.ViewExchange() | m.ViewExchanged() if "flood" in self._ways:
                if message.peers[:1] == [me]:
                    plot = msgspec.structs.replace(message, peers=self._plotters())
                    return Transmit(effect.link, plot)
        return effect

    def _lies(self) -> list[bytes]:
        everybody = [*self._conspiracy.honest, *self._conspiracy.byzantine]
        return [*self._conspiracy.rng.sample(everybody, min(LIES, len(everybody)))]


def _name(message: m.Message) -> bytes:
    name = getattr(message, "request", b"")
    assert isinstance(name, bytes)
    return name


class Adversaries:
    """Those of one world: drawn before it begins, turned when they start, counted at the end."""

    def __init__(self, world: World, lines: tuple[Adversary, ...], nodes: int) -> None:
        self._world = world
        rng = random.Random(f"adversaries {world.seed}")
        self._conspiracy = Conspiracy(rng)
        self.members: dict[SimNode, None] = {}
        self._lines: dict[int, Adversary] = {}
        """Of the nodes that will start, by their numbers."""
        free = list(range(1, nodes))
        for line in lines:
            for number in rng.sample(free, min(len(free), round(line.share * nodes))):
                self._lines[number] = line
                free.remove(number)
        self._started = 0

    def next_core(self) -> MakeCore:
        """What the next node that starts is to run: the shipped core, or one that lies."""
        line = self._lines.get(self._started)
        return Overlay if line is None else partial(Byzantine, line, self._conspiracy)

    def enlist(self, node: SimNode) -> None:
        """The next node has started, with the core that `next_core` made."""
        line = self._lines.get(self._started)
        self._started += 1
        if line is None:
            self._conspiracy.honest.append(node.peer_id)
            return
        self._conspiracy.byzantine.append(node.peer_id)
        self.members[node] = None
        settings = node.settings
        often = {"flood": line.factor, "replay": TWISTS_A_ROUND, "forge": TWISTS_A_ROUND}
        for what, times in often.items():
            if what in line.do:
                interval = settings.exchange_interval / times
                self._later(node, Act(what), interval * self._conspiracy.rng.random(), interval)

    def _later(self, node: SimNode, act: Act, delay: float, interval: float) -> None:
        self._world.after(delay, lambda: self._act(node, act, interval))

    def _act(self, node: SimNode, act: Act, interval: float) -> None:
        if isinstance(node.core, Byzantine):  # a restart turns it honest
            self._world.feed(node, act)  # type: ignore[arg-type]  # for Byzantine alone
            self._later(node, act, interval, interval)

    def measures(self) -> dict[str, float | None]:
        """As `MEASURES` has them, over the honest nodes that are up."""
        byzantine = dict.fromkeys(self._conspiracy.byzantine)
        honest = [node for node in self._world.up() if node not in self.members]
        views = [list(node.core.passive_view()) for node in honest]
        around = [list(node.core.active_view()) for node in honest]
        samples = [list(node.core.samples()) for node in honest]
        return {
            "byzantine_view": _share(views, byzantine),
            "byzantine_samples": _share(samples, byzantine),
            "byzantine_neighbours": _share(around, byzantine),
            "isolated": sum(all(peer in byzantine for peer in view) for view in views),
        }


MEASURES = {
    "byzantine_view": "adversaries in the passive views of honest nodes, as a share of the slots",
    "byzantine_samples": "adversaries among the members last sampled there, as a share",
    "byzantine_neighbours": "adversaries in the active views of honest nodes, as a share",
    "isolated": "honest nodes in whose passive view there is no honest member",
}
"""At the end of a run with adversaries."""


def _share(lists: list[list[PeerId]], byzantine: dict[PeerId, None]) -> float | None:
    every = [peer for each in lists for peer in each]
    return sum(peer in byzantine for peer in every) / len(every) if every else None
