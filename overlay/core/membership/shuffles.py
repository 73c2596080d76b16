"""The passive view: peers kept in mind to replace neighbours that die, and how it stays fresh.

The policy of the HyParView paper: a set of bounded size in which a random peer gives way, kept
fresh by shuffles, samples of both views that are exchanged at the ends of random walks (§4.4 of the
technical report DI-FCUL TR-07-13).

Deviations: the paper answers a shuffle over a fresh TCP connection; a mesh link costs a
negotiation, so the reply goes back along the walk, whose hops remember it for half a minute. Peers
travel as signed records, without which nobody could dial them.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from overlay.core.context import Context
from overlay.core.events import Transmit
from overlay.core.timers import Timers
from overlay.core.types import LinkId, PeerId
from overlay.core.wire.messages import RecordShuffle, RecordShuffleReply

WALK_LIFE = 30.0
WALKS_MAX = 256


@dataclass(frozen=True, slots=True)
class Shuffles:
    """The paper's parameters of the passive view, its values for 10,000 nodes (§5.1)."""

    size: int = 30
    walk: int = 6
    """ARWL: how far a shuffle goes."""
    active: int = 3
    """Of its sample, from the active view."""
    passive: int = 4
    """And from the passive view."""


@dataclass(frozen=True, slots=True)
class Sampled:
    """A sample of peers has come; `integrate` takes those in whose records hold."""

    records: list[bytes]
    sent: list[PeerId]
    """What went the other way."""


class PassiveView(Protocol):
    """What HyParView asks of its passive view, whatever the policy."""

    @property
    def peers(self) -> dict[PeerId, None]:
        """Everybody in it (a dict for its order)."""
        ...

    def candidates(self) -> dict[PeerId, None]:
        """Of these or of earlier ones, those to be linked to first; perhaps nobody."""
        ...

    def remember(self, peer: PeerId) -> None:
        """A peer could be of use."""
        ...

    def hear(self, peer: PeerId) -> None:
        """A peer exists."""
        ...

    def promote(self, peer: PeerId) -> None:
        """A peer is a neighbour now."""
        ...

    def lose(self, peer: PeerId) -> None:
        """A neighbour has fallen silent."""
        ...

    def discard(self, peer: PeerId) -> None:
        """A peer is of no use: it was not reached."""
        ...


@dataclass(slots=True)
class Shuffling:
    """The paper's policy."""

    context: Context
    parameters: Shuffles
    active: dict[PeerId, None]
    """The active view itself."""
    links: dict[PeerId, LinkId]
    known: dict[PeerId, None]
    """Members whose records we hold."""
    record_of: Callable[[PeerId], bytes | None]
    peers: dict[PeerId, None] = field(default_factory=dict)
    _walks: dict[bytes, tuple[PeerId | None, list[PeerId]]] = field(default_factory=dict)
    """Shuffles that passed through: who handed them to us, and what we sent if it was ours."""
    _timers: Timers[bytes] = field(init=False)

    def __post_init__(self) -> None:
        self._timers = Timers(self.context.agenda)

    # --- the view --------------------------------------------------------------------------------

    def remember(self, peer: PeerId) -> None:
        """Into the view; of too many, a random one goes."""
        if peer in self.active or peer in self.peers or peer not in self.known:
            return
        if len(self.peers) >= self.parameters.size:
            del self.peers[self.context.random.choice(list(self.peers))]
        self.peers[peer] = None

    def hear(self, peer: PeerId) -> None:
        """Existing is not enough: a walk that passes will end next door, and triangles close."""

    def lose(self, peer: PeerId) -> None:
        """The dead are not kept: they would take the places of those that can replace them."""

    def discard(self, peer: PeerId) -> None:
        """Out of the view."""
        self.peers.pop(peer, None)

    promote = discard

    def candidates(self) -> dict[PeerId, None]:
        """Nobody in particular."""
        return {}

    def integrate(self, peers: list[PeerId], sent: list[PeerId]) -> None:
        """Take in a sample; what we sent away makes room first (§4.4)."""
        disposable = [peer for peer in sent if peer in self.peers]
        for peer in peers:
            if peer not in self.known or peer in self.peers or peer in self.active:
                continue
            if len(self.peers) >= self.parameters.size and disposable:
                self.discard(disposable.pop())
            self.remember(peer)

    # --- shuffles (§4.4) -------------------------------------------------------------------------

    def begin(self, now: float) -> None:
        """There is somebody to shuffle with."""
        if b"" not in self._timers:
            wait = self.context.settings.shuffle_interval * self.context.random.uniform(0.5, 1.5)
            self._timers.set(b"", now + wait)

    def on_time(self, now: float) -> bool:
        """Shuffle, and forget old walks; returns whether a shuffle was due."""
        due = self._timers.pop_due(now)
        for walk in due:
            if walk:
                self._walks.pop(walk, None)
            else:
                self._shuffle(now)
                wait = self.context.settings.shuffle_interval * self.context.random.uniform(
                    0.9, 1.1
                )
                self._timers.set(b"", now + wait)
        return b"" in due

    def _shuffle(self, now: float) -> None:
        """Offer a random neighbour a sample of both views."""
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
        """A sample on its walk: pass it on, or keep it and answer with as many of ours."""
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
        passive = list(self.peers)
        ours = random.sample(passive, min(len(message.records), len(passive)))
        self._send(peer, RecordShuffleReply(message.walk, self._records(ours)))
        return Sampled(message.records, ours)

    def on_shuffle_reply(self, message: RecordShuffleReply) -> Sampled | None:
        """The answer to a sample: for us, or for whoever handed it to us."""
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
