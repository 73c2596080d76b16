"""The passive view of HyParView's paper: a bounded set of peers that shuffles keep fresh.

Its peers replace neighbours that die. In a full view a random peer gives way. A shuffle exchanges
samples of both views with the node at the end of a random walk (§4.4 of the technical report
DI-FCUL TR-07-13). The other policy is `overlay.core.membership.basalt`.

Deviation: the paper answers a shuffle over a fresh TCP connection. A link of the mesh costs a
negotiation, so the reply goes back along the walk, whose hops remember it for half a minute.

Deviation: peers travel as signed records, because nobody can dial a peer without its record
(decision 0016).
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol, assert_never

from overlay.core.context import Context
from overlay.core.events import Transmit
from overlay.core.timers import Timers
from overlay.core.types import LinkId, PeerId
from overlay.core.wire.messages import RecordShuffle, RecordShuffleReply

WALK_LIFE = 30.0
"""Seconds (guess) for which a hop of a shuffle remembers it: by then the reply has passed."""
WALKS_MAX = 256


class Timer(StrEnum):
    """What falls due; the id of a walk in its place: time to forget that walk."""

    SHUFFLE = "shuffle"


@dataclass(frozen=True, slots=True)
class ShuffleParameters:
    """The paper's parameters of the passive view, and its values for 10,000 nodes (§5.1)."""

    size: int = 30
    walk: int = 6
    """How many hops a shuffle goes (ARWL)."""
    active: int = 3
    """ka: how many of the sample are from the active view."""
    passive: int = 4
    """kp: how many are from the passive view."""


@dataclass(frozen=True, slots=True)
class Sampled:
    """A sample of peers has come; `integrate` takes in those whose records hold."""

    records: list[bytes]
    sent: list[PeerId]
    """The sample that we sent in exchange."""


class PassiveView(Protocol):
    """What HyParView asks of its passive view, whatever the policy."""

    @property
    def peers(self) -> dict[PeerId, None]:
        """Everybody in it (a dict for its order)."""
        ...

    def candidates(self) -> dict[PeerId, None]:
        """Peers that should be linked to before others of the view; perhaps none."""
        ...

    def add(self, peer: PeerId) -> None:
        """A peer that could replace a neighbour: the paper's addNodePassiveView."""
        ...

    def remove(self, peer: PeerId) -> None:
        """A peer that was not reached, or has left."""
        ...

    def on_known(self, peer: PeerId) -> None:
        """A peer's record has come."""
        ...

    def on_promoted(self, peer: PeerId) -> None:
        """A peer is a neighbour now."""
        ...

    def on_failed(self, peer: PeerId) -> None:
        """A neighbour has fallen silent."""
        ...


@dataclass(slots=True)
class ShuffledView:
    """The paper's policy."""

    context: Context
    parameters: ShuffleParameters
    active: dict[PeerId, None]
    """The active view; read only, as the next two."""
    links: dict[PeerId, LinkId]
    known: dict[PeerId, None]
    """Members whose records we hold."""
    record_of: Callable[[PeerId], bytes | None]
    peers: dict[PeerId, None] = field(default_factory=dict)
    # Shuffles under way: who sent each to us; or None and our sample if it is ours.
    _walks: dict[bytes, tuple[PeerId | None, list[PeerId]]] = field(default_factory=dict)
    _timers: Timers[Timer | bytes] = field(init=False)

    def __post_init__(self) -> None:
        self._timers = Timers(self.context.agenda)

    # --- the view --------------------------------------------------------------------------------

    def add(self, peer: PeerId) -> None:
        """The paper's addNodePassiveView: of too many, a random one goes (Algorithm 1)."""
        if peer in self.active or peer in self.peers or peer not in self.known:
            return
        if len(self.peers) >= self.parameters.size:
            del self.peers[self.context.random.choice(list(self.peers))]
        self.peers[peer] = None

    def remove(self, peer: PeerId) -> None:
        """Out of the view."""
        self.peers.pop(peer, None)

    def on_known(self, peer: PeerId) -> None:
        """Nothing: only walks and shuffles fill the view.

        A peer that is merely heard of is likely to be a neighbour of a neighbour. Links to such
        peers make clusters, which messages leave over few links.
        """

    def on_promoted(self, peer: PeerId) -> None:
        """Nobody is in both views."""
        self.peers.pop(peer, None)

    def on_failed(self, peer: PeerId) -> None:
        """Nothing: who has failed is not kept, in the place of one that could replace it (§4.3)."""

    def candidates(self) -> dict[PeerId, None]:
        """No peers: the paper draws from the whole view."""
        return {}

    def integrate(self, peers: list[PeerId], sent: list[PeerId]) -> None:
        """Take in a sample; what we sent away makes room first (§4.4)."""
        disposable = [peer for peer in sent if peer in self.peers]
        for peer in peers:
            if peer not in self.known or peer in self.peers or peer in self.active:
                continue
            if len(self.peers) >= self.parameters.size and disposable:
                self.remove(disposable.pop())
            self.add(peer)

    # --- shuffles (§4.4) -------------------------------------------------------------------------

    def begin(self, now: float) -> None:
        """There is a neighbour to shuffle with."""
        if Timer.SHUFFLE not in self._timers:
            self._set_shuffle(now, 0.5, 1.5)

    def _set_shuffle(self, now: float, least: float, most: float) -> None:
        wait = self.context.settings.shuffle_interval * self.context.random.uniform(least, most)
        self._timers.set(Timer.SHUFFLE, now + wait)

    def on_time(self, now: float) -> bool:
        """Shuffle, and forget old walks; returns whether a shuffle was due."""
        due = self._timers.pop_due(now)
        for name in due:
            if isinstance(name, bytes):
                self._walks.pop(name, None)
            elif name is Timer.SHUFFLE:
                self._shuffle(now)
                self._set_shuffle(now, 0.9, 1.1)
            else:
                assert_never(name)
        return Timer.SHUFFLE in due

    def _shuffle(self, now: float) -> None:
        """Send SHUFFLE with ourselves and a sample of both views to a random neighbour."""
        if not self.active:
            return
        random, parameters = self.context.random, self.parameters
        target = random.choice(list(self.active))
        rest = [peer for peer in self.active if peer != target]
        sample = random.sample(rest, min(parameters.active, len(rest)))
        passive = list(self.peers)
        sample += random.sample(passive, min(parameters.passive, len(passive)))
        walk = self.context.crypto.token(8)
        self._follow(walk, None, sample, now)
        records = self._records([self.context.peer_id, *sample])
        self._send(target, RecordShuffle(walk, parameters.walk, records))

    def on_shuffle(self, peer: PeerId, message: RecordShuffle, now: float) -> Sampled | None:
        """SHUFFLE: pass it on; or, at the end of its walk, take the sample and reply with ours."""
        if message.walk in self._walks or len(self._walks) >= WALKS_MAX:
            return None
        random = self.context.random
        ttl = min(message.ttl, self.parameters.walk) - 1
        others = [each for each in self.active if each != peer]
        if ttl > 0 and others:
            self._follow(message.walk, peer, [], now)
            onward = RecordShuffle(message.walk, ttl, message.records)
            self._send(random.choice(others), onward)
            return None
        # As many from our passive view as the sample that came has.
        passive = list(self.peers)
        ours = random.sample(passive, min(len(message.records), len(passive)))
        self._send(peer, RecordShuffleReply(message.walk, self._records(ours)))
        return Sampled(message.records, ours)

    def on_shuffle_reply(self, message: RecordShuffleReply) -> Sampled | None:
        """SHUFFLEREPLY: take the sample if the shuffle was ours, else pass it back."""
        walk = self._walks.pop(message.walk, None)
        if walk is None:
            return None
        self._timers.stop(message.walk)
        came_from, sent = walk
        if came_from is None:
            return Sampled(message.records, sent)
        self._send(came_from, message)
        return None

    def _follow(
        self, walk: bytes, came_from: PeerId | None, sent: list[PeerId], now: float
    ) -> None:
        self._walks[walk] = (came_from, sent)
        self._timers.set(walk, now + WALK_LIFE)

    def _records(self, peers: list[PeerId]) -> list[bytes]:
        records = [self.record_of(peer) for peer in peers]
        return [record for record in records if record]

    def _send(self, peer: PeerId, message: RecordShuffle | RecordShuffleReply) -> None:
        link = self.links.get(peer)
        if link is not None:
            self.context.emit(Transmit(link, message))
