"""BASALT: a passive view that nobody can fill by naming itself or its friends often.

A. Auvolat, Y.-D. Bromberg, D. Frey, F. Taïani, "BASALT: a rock-solid foundation for epidemic
consensus algorithms in very large, very open networks" (arXiv 2102.04063, 2021; Middleware 2023).
The view has v slots. Each slot has a secret random seed and holds, of all peers ever heard of, the
one whose hash with the seed ranks least: a peer that is named a thousand times ranks no better than
one that is named once. In each round whole views are exchanged (push and pull) with the peer of the
view that has come up least. From time to time the peers of k slots are taken as samples, and these
slots get new seeds.

Deviation: the paper pulls from one peer and pushes to another, over fresh connections. A link of
the mesh costs a negotiation, so one routed request pushes our view to a peer, and its reply pulls
the view of the same peer.

Deviation: the k slots that are seeded together share one seed, and each uses its own part of one
hash. So a peer costs one hash for k slots.

Deviation: views are lists of ids. The records of those that won slots are pulled in one more
exchange, because nobody can link to a peer without its record (decision 0016).

Deviation: a slot whose peer does not answer is emptied, and a prefix of addresses that holds many
slots already wins no more of them. The paper's nodes do not leave and have no addresses.
"""

import hashlib
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from operator import lt
from struct import Struct
from typing import assert_never

from overlay.core.context import Context
from overlay.core.limits import BoundedDict, TokenBuckets
from overlay.core.routing.next_hop import OFFER_TTL
from overlay.core.routing.requests import base_of, new_request
from overlay.core.timers import Timers
from overlay.core.types import PeerId
from overlay.core.wire.bounds import LIST_MAX
from overlay.core.wire.messages import (
    RecordPull,
    RecordPulled,
    ViewExchange,
    ViewExchanged,
)

ROW = 10
"""k (paper, §5): slots that are sampled and seeded anew together."""
ROUNDS_A_ROW = 10
"""Rounds (paper: k / ρ) from one row to the next: one sample a round."""
RANK_BYTES = 6
_SPLIT = [Struct(f"{RANK_BYTES}s" * slots) for slots in range(ROW + 1)]
EMPTY = b"\xff" * (RANK_BYTES + 1)
"""Ranks after every peer: for a slot that is empty, or whose peer gives way to any other."""
FIRST_PAUSE = 1.0
"""Seconds (guess) from the first neighbour to the first exchange; each next pause is twice as long
until it is `Slots.interval`, so that a newcomer's view fills within a minute."""
EXCHANGE_TIMEOUT = 6.0
"""Seconds (guess) that both attempts of an exchange may take."""
REST_ROUNDS = 3
"""Rounds (guess) for which a peer that did not answer competes for no slot."""
RESTING_MAX = 64
COMPETED_MAX = 64
"""Peers remembered (guess) that have competed for all slots; one that is forgotten does so again,
with the same result."""
PULLED_MAX = 8
"""Records (guess) that are pulled at once."""
ASKED_MAX = 8
"""Requests of ours under way at once (guess)."""
PREFIX_SHARE = 5
"""One prefix wins at most one slot in so many (guess), while others compete."""
PUSHES_PER_SECOND = 1.0
"""Exchanges (guess) that one neighbour may bring us: at 10,000 nodes it brings one in 10 s."""
PUSHES_BURST = 30.0
FLOOD_PER_SECOND = 24.0
"""Exchanges above which a neighbour loses its link: twice as many as it can have to pass on if all
others keep to the limit."""
FLOOD_BURST = 240.0


class Timer(StrEnum):
    """What falls due; the id of a request in its place: nobody has answered it in time."""

    ROUND = "round"  # every τ: exchange views with somebody


@dataclass(frozen=True, slots=True)
class Slots:
    """The paper's parameters, as far as a node can choose them."""

    size: int = 30
    """v (the paper's example has 50)."""
    interval: float = 30.0
    """τ, seconds (guess)."""


@dataclass(frozen=True, slots=True)
class Ask:
    """Send this request through the mesh; its reply or `on_unanswered` may follow."""

    routed: ViewExchange | RecordPull


@dataclass(slots=True)
class _Row:
    """k slots with one seed."""

    seed: bytes
    since: int  # the epoch in which all peers began to compete for these slots
    peers: list[PeerId | None]
    ranks: list[bytes]  # of these peers; `EMPTY` where there is none
    hits: list[int]  # how often each of them has come up since it won its slot

    def rank(self, peer: PeerId) -> tuple[bytes, ...]:
        """Its ranks in all slots of the row."""
        split = _SPLIT[len(self.peers)]
        digest = hashlib.blake2b(peer, key=self.seed, digest_size=split.size).digest()
        return split.unpack(digest)

    def hit(self, peer: PeerId) -> None:
        """A peer has come up once more."""
        for slot, holder in enumerate(self.peers):
            if holder == peer:
                self.hits[slot] += 1

    def put(self, slot: int, peer: PeerId | None, rank: bytes) -> None:
        """Give a slot to a peer, or empty it."""
        self.peers[slot], self.ranks[slot], self.hits[slot] = peer, rank, int(peer is not None)


@dataclass(slots=True)
class Basalt:
    """The slots of one node. The requests (`Ask`) that methods return are to be sent."""

    context: Context
    parameters: Slots
    record_of: Callable[[PeerId], bytes | None]
    owner_of: Callable[[bytes], PeerId | None]
    """Whose record this claims to be."""
    prefix: Callable[[PeerId], str]
    samples: deque[PeerId] = field(init=False)
    """The paper's samples, the newest last: peers of slots that were then seeded anew."""
    counters: dict[str, int] = field(default_factory=dict)
    _rows: list[_Row] = field(init=False)
    # Peers that have competed for all slots, and up to which epoch.
    _competed: BoundedDict[PeerId, int] = field(default_factory=lambda: BoundedDict(COMPETED_MAX))
    # Peers that did not answer, and the round in which they may compete again.
    _resting: dict[PeerId, int] = field(default_factory=dict)
    # Our requests under way, and who is to answer each.
    _asked: dict[bytes, PeerId] = field(default_factory=dict)
    # Of these, the requests for records, and whose records each asks for.
    _pulling: dict[bytes, list[bytes]] = field(default_factory=dict)
    _timers: Timers[Timer | bytes] = field(init=False)
    _round: int = 0
    _epoch: int = 1
    _next_row: int = 0
    _pause: float = FIRST_PAUSE
    _pace: TokenBuckets[PeerId] = field(
        default_factory=lambda: TokenBuckets(PUSHES_PER_SECOND, PUSHES_BURST)
    )
    _patience: TokenBuckets[PeerId] = field(
        default_factory=lambda: TokenBuckets(FLOOD_PER_SECOND, FLOOD_BURST)
    )

    def __post_init__(self) -> None:
        self._timers = Timers(self.context.agenda)
        size = self.parameters.size
        self.samples = deque(maxlen=max(1, size))
        rows = range(0, size, ROW)
        self._rows = [self._new_row(min(ROW, size - start)) for start in rows]

    def _new_row(self, size: int) -> _Row:
        seed = self.context.crypto.token(16)
        return _Row(seed, self._epoch, [None] * size, [EMPTY] * size, [0] * size)

    # --- the view --------------------------------------------------------------------------------

    @property
    def peers(self) -> dict[PeerId, None]:
        """The paper's view: whoever holds a slot."""
        return {peer: None for row in self._rows for peer in row.peers if peer is not None}

    def slots(self) -> list[PeerId]:
        """The same, each peer once for each of its slots."""
        return [peer for row in self._rows for peer in row.peers if peer is not None]

    def candidates(self) -> dict[PeerId, None]:
        """Samples: the paper's random peers, which no attacker can choose."""
        return dict.fromkeys(peer for peer in self.samples if peer not in self._resting)

    def add(self, peer: PeerId) -> None:
        """It was a neighbour, or a walk brought it: it competes as any other peer."""
        self.update_sample([peer])

    def on_known(self, peer: PeerId) -> None:
        """Its record has come: it competes."""
        self.update_sample([peer])

    def on_failed(self, peer: PeerId) -> None:
        """It has fallen silent: it competes, and loses its slots if it answers no exchange."""
        self.update_sample([peer])

    def on_promoted(self, peer: PeerId) -> None:
        """It is a neighbour now and stays in the view, which else would be no sample of all."""

    def on_linked(self, peer: PeerId) -> None:
        """There is a link to it: if it did not answer before, it does now."""
        self._resting.pop(peer, None)
        self.update_sample([peer])

    def remove(self, peer: PeerId) -> None:
        """Deviation: it was not reached, so it rests, and others compete for its slots."""
        self._resting.pop(peer, None)
        while len(self._resting) >= RESTING_MAX:
            del self._resting[next(iter(self._resting))]
        self._resting[peer] = self._round + REST_ROUNDS
        self._competed.pop(peer, None)
        if peer in self.samples:
            self.samples = deque((e for e in self.samples if e != peer), self.samples.maxlen)
        emptied = [row for row in self._rows if peer in row.peers]
        for row in emptied:
            for slot, holder in enumerate(row.peers):
                if holder == peer:
                    row.put(slot, None, EMPTY)
            self._open(row)
        if emptied:
            self.update_sample(list(self.peers))

    def update_sample(self, peers: Iterable[PeerId]) -> None:
        """The paper's updateSample: each of these peers competes for each slot."""
        for peer in peers:
            if peer == self.context.peer_id or peer in self._resting:
                continue
            competed = self._competed.get(peer, 0)
            for row in self._rows:
                if peer in row.peers:
                    row.hit(peer)
                if row.since > competed:
                    self._compete(peer, row)
            if competed != self._epoch:
                self._competed.put(peer, self._epoch)

    def _compete(self, peer: PeerId, row: _Row) -> None:
        ranks = row.rank(peer)
        if not any(map(lt, ranks, row.ranks)):
            return
        for slot, (rank, least) in enumerate(zip(ranks, row.ranks, strict=True)):
            if rank < least and row.peers[slot] != peer and self._may_take(peer, row.peers[slot]):
                row.put(slot, peer, rank)

    def _open(self, row: _Row) -> None:
        """From now on all peers compete for these slots, also those that have lost before."""
        self._epoch += 1
        row.since = self._epoch

    # --- prefixes (a deviation: the paper knows no addresses) ------------------------------------

    @property
    def _prefix_max(self) -> int:
        return max(2, self.parameters.size // PREFIX_SHARE)

    def _of_prefix(self, prefix: str) -> list[tuple[_Row, int]]:
        """The slots that peers of a prefix hold."""
        return [
            (row, slot)
            for row in self._rows
            for slot, holder in enumerate(row.peers)
            if holder is not None and self.prefix(holder) == prefix
        ]

    def _may_take(self, peer: PeerId, holder: PeerId | None) -> bool:
        """Whether its prefix may win this slot too, or the slot is empty."""
        prefix = self.prefix(peer)
        if not prefix or holder is None:
            return True
        crowd = len(self._of_prefix(prefix)) - int(self.prefix(holder) == prefix)
        return crowd < self._prefix_max

    def on_record(self, peer: PeerId) -> None:
        """Its prefix is known now: slots that its prefix has too many of go to the next peer."""
        prefix = self.prefix(peer)
        if not prefix:
            return
        for row, slot in self._of_prefix(prefix)[self._prefix_max :]:
            row.ranks[slot] = EMPTY
            self._open(row)

    # --- rounds ----------------------------------------------------------------------------------

    def begin(self, now: float) -> None:
        """There is a neighbour, through which views can be exchanged."""
        if Timer.ROUND not in self._timers and self._rows:
            self._timers.set(Timer.ROUND, now + self._pause * self.context.random.uniform(0.5, 1.5))

    def on_time(self, now: float) -> tuple[bool, list[Ask]]:
        """Whether a round was due, and the requests to be sent; and give up old requests."""
        asks: list[Ask] = []
        due = self._timers.pop_due(now)
        for name in due:
            if isinstance(name, bytes):
                self.on_unanswered(name)
            elif name is Timer.ROUND:
                asks += self._exchange(now)
            else:
                assert_never(name)
        return Timer.ROUND in due, asks

    def _exchange(self, now: float) -> list[Ask]:
        """One round: push our view to one peer, and pull its view."""
        self._round += 1
        self._resting = {peer: at for peer, at in self._resting.items() if at > self._round}
        if self._round % ROUNDS_A_ROW == 0:
            self._sample()
        self._pause = min(2 * self._pause, self.parameters.interval)
        self._timers.set(Timer.ROUND, now + self._pause * self.context.random.uniform(0.9, 1.1))
        partner = self._select_peer()
        if partner is None:
            return []
        request = self._new_request(partner, now)
        return [Ask(ViewExchange(partner, request, OFFER_TTL, self._own_view()))]

    def _sample(self) -> None:
        """The peers of the next k slots are samples, and these slots get a new seed."""
        row, view = self._rows[self._next_row], list(self.peers)
        self._next_row = (self._next_row + 1) % len(self._rows)
        self.samples.extend(peer for peer in row.peers if peer is not None)
        row.seed = self.context.crypto.token(16)
        for slot in range(len(row.peers)):
            row.put(slot, None, EMPTY)
        self._open(row)
        # The paper's updateSample(view): the other peers of the view compete for these slots.
        self.update_sample(view)

    def _select_peer(self) -> PeerId | None:
        """The paper's selectPeer: a random one of the slots whose peers have come up least."""
        taken = [
            (row.hits[slot], row, slot)
            for row in self._rows
            for slot, holder in enumerate(row.peers)
            if holder is not None
        ]
        least = min((hits for hits, _, _ in taken), default=0)
        rarest = [(row, slot) for hits, row, slot in taken if hits == least]
        if not rarest:
            return None
        row, slot = self.context.random.choice(rarest)
        row.hits[slot] += 1
        return row.peers[slot]

    def _own_view(self) -> list[bytes]:
        """Ourselves and our whole view."""
        view: list[bytes] = [self.context.peer_id, *self.peers]
        return view[:LIST_MAX]

    def _new_request(self, partner: PeerId, now: float) -> bytes:
        while len(self._asked) >= ASKED_MAX:
            self._forget(next(iter(self._asked)))
        request = new_request(self.context.crypto)
        self._asked[request] = partner
        self._timers.set(request, now + EXCHANGE_TIMEOUT)
        return request

    def _forget(self, request: bytes) -> PeerId | None:
        self._timers.stop(request)
        self._pulling.pop(request, None)
        return self._asked.pop(request, None)

    # --- exchanges -------------------------------------------------------------------------------

    def on_view_exchange(self, push: ViewExchange) -> ViewExchanged:
        """A peer pushes its view; the reply is ours, as it was before."""
        reply = ViewExchanged(push.request, self._own_view())
        self._take_view(push.peers)
        return reply

    def on_view_exchanged(self, reply: ViewExchanged, now: float) -> list[Ask]:
        """The view that we pulled: its peers compete; ask for the records of those that won."""
        partner = self._forget(base_of(reply.request))
        if partner is None:
            return []
        self._take_view([partner, *reply.peers])
        held = self.peers
        wanted = [
            peer
            for peer in dict.fromkeys(map(PeerId, [partner, *reply.peers]))
            if peer in held and self.record_of(peer) is None
        ]
        if not wanted:
            return []
        request = self._new_request(partner, now)
        pulled = self._pulling[request] = list(wanted[:PULLED_MAX])
        return [Ask(RecordPull(partner, request, OFFER_TTL, pulled))]

    def on_record_pull(self, pull: RecordPull) -> RecordPulled:
        """A peer asks for records of our view."""
        found = (self.record_of(PeerId(peer)) for peer in pull.peers[:PULLED_MAX])
        return RecordPulled(pull.request, [record for record in found if record])

    def on_record_pulled(self, reply: RecordPulled) -> list[bytes]:
        """The records that have come, but for those that we did not ask for."""
        request = base_of(reply.request)
        wanted = dict.fromkeys(self._pulling.get(request, ()))
        if self._forget(request) is None:
            return []
        asked = []
        for record in reply.records:
            owner = self.owner_of(record)
            if owner in wanted:
                del wanted[owner]
                asked.append(record)
            else:
                self._count("unasked")
        return asked

    def on_unanswered(self, request: bytes) -> bool:
        """A request was not answered or not passed on; returns whether it was one of ours."""
        partner = self._forget(request)
        if partner is None:
            return False
        self._count("unanswered")
        self.remove(partner)
        return True

    def _take_view(self, peers: list[PeerId] | list[bytes]) -> None:
        """The peers of another view compete, but of a longer view than ours only the first ones."""
        self.update_sample(map(PeerId, peers[: self.parameters.size + 2]))

    # --- limits ----------------------------------------------------------------------------------

    def allows(self, bearer: PeerId, now: float) -> bool:
        """Whether this neighbour may bring one more exchange, of its own or of others."""
        self._patience.spend(bearer, 1.0, now)
        if self._pace.left(bearer, now) < 1.0:
            self._count("limited")
            return False
        self._pace.spend(bearer, 1.0, now)
        return True

    def is_flooding(self, bearer: PeerId, now: float) -> bool:
        """Whether it brings more exchanges than others can have asked it to pass on."""
        return self._patience.left(bearer, now) < 0.0

    def _count(self, what: str) -> None:
        self.counters[what] = self.counters.get(what, 0) + 1
