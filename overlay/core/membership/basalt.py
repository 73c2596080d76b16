"""BASALT: a passive view that nobody can fill by saying a name often.

A. Auvolat, Y.-D. Bromberg, D. Frey, F. Taïani, "BASALT: a rock-solid foundation for epidemic
consensus algorithms in very large, very open networks" (arXiv 2102.04063, 2021; Middleware 2023).
Each slot has a secret seed and keeps, of all ids ever heard, the one that ranks least by a hash of
seed and id: what is said a thousand times wins no more than what is said once. Whole views are
exchanged with the member that has come up least. From time to time some slots are sampled and
seeded anew.

Deviations. The paper pushes to one member and pulls from another, over connections of their own; a
link of the mesh costs a negotiation, so one routed request pushes our view to a member and its
reply pulls that member's. Slots that are seeded anew together share one seed, of which each uses
its own part. Records follow the ids in one more exchange. A slot whose member does not answer is
emptied, and prefer prefixes that are not crowded: both are the product's, not the paper's.
"""

import hashlib
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from operator import lt
from struct import Struct

from overlay.core.context import Context
from overlay.core.limits import Budgets
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
"""Ranks after everything: an empty slot, or one whose holder gives way to anybody."""
FIRST_PAUSE = 1.0
"""Seconds (guess) from the first neighbour to the first exchange; each next pause is twice as long
until it is `Slots.interval`, so that a newcomer's view fills within a minute."""
EXCHANGE_TIMEOUT = 6.0
"""Seconds (guess) that both attempts of an exchange may take."""
REST_ROUNDS = 3
"""Rounds (guess) for which a member that did not answer takes part in nothing."""
RESTING_MAX = 64
MET_MAX = 64
"""Ids remembered (guess) that need not compete again; one that is forgotten merely does."""
PULLED_MAX = 8
"""Records (guess) that are asked for at once."""
ASKED_MAX = 8
PREFIX_SHARE = 5
"""At most one slot of so many (guess) for one prefix, while there are others."""
PUSHES_PER_SECOND = 1.0
"""Exchanges (guess) that one neighbour may bring us: at 10,000 nodes it brings one in 10 s."""
PUSHES_BURST = 30.0
FLOOD_PER_SECOND = 24.0
"""Twice what one that keeps to the limit can have to pass on: beyond that it loses its link."""
FLOOD_BURST = 240.0


@dataclass(frozen=True, slots=True)
class Slots:
    """The paper's parameters, as far as a node can choose them."""

    size: int = 30
    """v (the paper's example has 50)."""
    interval: float = 30.0
    """τ, seconds (guess)."""


@dataclass(frozen=True, slots=True)
class Ask:
    """Send this request through the mesh; `on_answered` or `on_unanswered` may follow."""

    routed: ViewExchange | RecordPull


@dataclass(slots=True)
class _Row:
    """Slots with one seed; EMPTY stands for the rank of nobody."""

    seed: bytes
    since: int
    """The epoch since which everybody competes for these slots."""
    peers: list[PeerId | None]
    ranks: list[bytes]
    hits: list[int]

    def rank(self, peer: PeerId) -> tuple[bytes, ...]:
        """Its ranks in all slots of the row."""
        split = _SPLIT[len(self.peers)]
        digest = hashlib.blake2b(peer, key=self.seed, digest_size=split.size).digest()
        return split.unpack(digest)

    def hit(self, peer: PeerId) -> None:
        """It has come up once more."""
        for slot, holder in enumerate(self.peers):
            if holder == peer:
                self.hits[slot] += 1

    def put(self, slot: int, peer: PeerId | None, rank: bytes) -> None:
        """Give a slot to somebody, or to nobody."""
        self.peers[slot], self.ranks[slot], self.hits[slot] = peer, rank, int(peer is not None)


@dataclass(slots=True)
class Basalt:
    """The slots of one node. Methods that return asks expect them to be sent."""

    context: Context
    parameters: Slots
    record_of: Callable[[PeerId], bytes | None]
    owner_of: Callable[[bytes], PeerId | None]
    """Whose record this claims to be."""
    prefix: Callable[[PeerId], str]
    samples: deque[PeerId] = field(init=False)
    """Who held a slot when it was seeded anew, the newest last: as good as drawn at random."""
    counters: dict[str, int] = field(default_factory=dict)
    _rows: list[_Row] = field(init=False)
    _met: dict[PeerId, int] = field(default_factory=dict)
    """Who has competed for all slots, and until which epoch."""
    _resting: dict[PeerId, int] = field(default_factory=dict)
    """Members that did not answer, and the round in which they may come back."""
    _asked: dict[bytes, PeerId] = field(default_factory=dict)
    """Whom our requests went to, by their names."""
    _pulling: dict[bytes, list[bytes]] = field(default_factory=dict)
    """Whose records were asked for, by the names of these requests."""
    _timers: Timers[bytes] = field(init=False)
    _round: int = 0
    _epoch: int = 1
    _next_row: int = 0
    _pause: float = FIRST_PAUSE
    _pace: Budgets = field(default_factory=lambda: Budgets(PUSHES_PER_SECOND, PUSHES_BURST))
    _patience: Budgets = field(default_factory=lambda: Budgets(FLOOD_PER_SECOND, FLOOD_BURST))

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
        """Whoever holds a slot."""
        return {peer: None for row in self._rows for peer in row.peers if peer is not None}

    def slots(self) -> list[PeerId]:
        """The same, once for each slot."""
        return [peer for row in self._rows for peer in row.peers if peer is not None]

    def candidates(self) -> dict[PeerId, None]:
        """Whom to link to when a neighbour is missing: samples, for they are the fairest."""
        return dict.fromkeys(peer for peer in self.samples if peer not in self._resting)

    def remember(self, peer: PeerId) -> None:
        """It was a neighbour, or a walk brought it: it competes like anybody."""
        self.update([peer])

    hear = remember
    lose = remember

    def meet(self, peer: PeerId) -> None:
        """It is linked to us, so it is there."""
        self._resting.pop(peer, None)
        self.update([peer])

    def promote(self, peer: PeerId) -> None:
        """It is a neighbour now, and stays: a view without one's neighbours would be no sample."""

    def discard(self, peer: PeerId) -> None:
        """It was not reached: it rests, and others compete for its slots."""
        self._resting.pop(peer, None)
        while len(self._resting) >= RESTING_MAX:
            del self._resting[next(iter(self._resting))]
        self._resting[peer] = self._round + REST_ROUNDS
        self._met.pop(peer, None)
        if peer in self.samples:
            self.samples = deque((e for e in self.samples if e != peer), self.samples.maxlen)
        emptied = [row for row in self._rows if peer in row.peers]
        for row in emptied:
            for slot, holder in enumerate(row.peers):
                if holder == peer:
                    row.put(slot, None, EMPTY)
            self._open(row)
        if emptied:
            self.update(list(self.peers))

    def update(self, peers: Iterable[PeerId]) -> None:
        """The paper's updateSample: each id competes for each slot."""
        for peer in peers:
            if peer == self.context.peer_id or peer in self._resting:
                continue
            met = self._met.get(peer, 0)
            for row in self._rows:
                if peer in row.peers:
                    row.hit(peer)
                if row.since > met:
                    self._compete(peer, row)
            if met != self._epoch:
                self._meet(peer)

    def _compete(self, peer: PeerId, row: _Row) -> None:
        ranks = row.rank(peer)
        if not any(map(lt, ranks, row.ranks)):
            return
        for slot, (rank, least) in enumerate(zip(ranks, row.ranks, strict=True)):
            if rank < least and row.peers[slot] != peer and self._may_take(peer, row.peers[slot]):
                row.put(slot, peer, rank)

    def _meet(self, peer: PeerId) -> None:
        """It has competed for every slot as it is now."""
        self._met.pop(peer, None)
        while len(self._met) >= MET_MAX:
            del self._met[next(iter(self._met))]
        self._met[peer] = self._epoch

    def _open(self, row: _Row) -> None:
        """From now on everybody competes for these slots, whoever lost before too."""
        self._epoch += 1
        row.since = self._epoch

    # --- prefixes --------------------------------------------------------------------------------

    @property
    def _prefix_max(self) -> int:
        return max(2, self.parameters.size // PREFIX_SHARE)

    def _of_prefix(self, prefix: str) -> list[tuple[_Row, int]]:
        """The slots that members of a prefix hold."""
        return [
            (row, slot)
            for row in self._rows
            for slot, holder in enumerate(row.peers)
            if holder is not None and self.prefix(holder) == prefix
        ]

    def _may_take(self, peer: PeerId, holder: PeerId | None) -> bool:
        """Whether its prefix has not too many slots already, if there is anybody else."""
        prefix = self.prefix(peer)
        if not prefix or holder is None:
            return True
        crowd = len(self._of_prefix(prefix)) - int(self.prefix(holder) == prefix)
        return crowd < self._prefix_max

    def on_record(self, peer: PeerId) -> None:
        """Its addresses are known now: if there are too many like it, it gives way to others."""
        prefix = self.prefix(peer)
        if not prefix:
            return
        for row, slot in self._of_prefix(prefix)[self._prefix_max :]:
            row.ranks[slot] = EMPTY
            self._open(row)

    # --- rounds ----------------------------------------------------------------------------------

    def begin(self, now: float) -> None:
        """There is somebody to exchange with."""
        if b"" not in self._timers and self._rows:
            self._timers.set(b"", now + self._pause * self.context.random.uniform(0.5, 1.5))

    def on_time(self, now: float) -> tuple[bool, list[Ask]]:
        """A round, if it is due (the first of the pair), and what nobody has answered in time."""
        asks: list[Ask] = []
        due = self._timers.pop_due(now)
        for name in due:
            if name:
                self.on_unanswered(name)
            else:
                asks += self._exchange(now)
        return b"" in due, asks

    def _exchange(self, now: float) -> list[Ask]:
        self._round += 1
        self._resting = {peer: at for peer, at in self._resting.items() if at > self._round}
        if self._round % ROUNDS_A_ROW == 0:
            self._sample()
        self._pause = min(2 * self._pause, self.parameters.interval)
        self._timers.set(b"", now + self._pause * self.context.random.uniform(0.9, 1.1))
        partner = self._select()
        if partner is None:
            return []
        request = self._name(partner, now)
        return [Ask(ViewExchange(partner, request, OFFER_TTL, self._whole()))]

    def _sample(self) -> None:
        """The next row: its members are samples, its slots are seeded anew."""
        row, view = self._rows[self._next_row], list(self.peers)
        self._next_row = (self._next_row + 1) % len(self._rows)
        self.samples.extend(peer for peer in row.peers if peer is not None)
        row.seed = self.context.crypto.token(16)
        for slot in range(len(row.peers)):
            row.put(slot, None, EMPTY)
        self._open(row)
        self.update(view)

    def _select(self) -> PeerId | None:
        """The paper's selectPeer: of those that came up least, anyone."""
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

    def _whole(self) -> list[bytes]:
        """Ourselves and our whole view."""
        whole: list[bytes] = [self.context.peer_id, *self.peers]
        return whole[:LIST_MAX]

    def _name(self, partner: PeerId, now: float) -> bytes:
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

    def on_asked(self, routed: ViewExchange | RecordPull) -> ViewExchanged | RecordPulled:
        """Somebody pushes its view, or wants records of those that we named; our reply."""
        if isinstance(routed, RecordPull):
            found = (self.record_of(PeerId(peer)) for peer in routed.peers[:PULLED_MAX])
            return RecordPulled(routed.request, [record for record in found if record])
        reply = ViewExchanged(routed.request, self._whole())
        self._hear_view(routed.peers)
        return reply

    def on_answered(self, reply: ViewExchanged, now: float) -> list[Ask]:
        """A member's view has come: it competes, and records are asked for of those that won."""
        partner = self._forget(base_of(reply.request))
        if partner is None:
            return []
        self._hear_view([partner, *reply.peers])
        held = self.peers
        wanted = [
            peer
            for peer in dict.fromkeys(map(PeerId, [partner, *reply.peers]))
            if peer in held and self.record_of(peer) is None
        ]
        if not wanted:
            return []
        request = self._name(partner, now)
        pulled = self._pulling[request] = list(wanted[:PULLED_MAX])
        return [Ask(RecordPull(partner, request, OFFER_TTL, pulled))]

    def on_records(self, reply: RecordPulled) -> list[bytes]:
        """The records that we asked for; nobody's word of others is taken in along with them."""
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
        """Nobody answered, or nobody passed it on; returns whether it was a request of ours."""
        partner = self._forget(request)
        if partner is None:
            return False
        self._count("unanswered")
        self.discard(partner)
        return True

    def _hear_view(self, peers: list[PeerId] | list[bytes]) -> None:
        """No more of it than our own view would be: nobody says more by saying it longer."""
        self.update(map(PeerId, peers[: self.parameters.size + 2]))

    # --- limits ----------------------------------------------------------------------------------

    def allows(self, bearer: PeerId, now: float) -> bool:
        """Whether this neighbour may bring one more exchange, its own or somebody's."""
        self._patience.spend(bearer, 1.0, now)
        if self._pace.left(bearer, now) < 1.0:
            self._count("limited")
            return False
        self._pace.spend(bearer, 1.0, now)
        return True

    def is_flooding(self, bearer: PeerId, now: float) -> bool:
        """Whether it brings so many that it cannot be passing on what others keep to."""
        return self._patience.left(bearer, now) < 0.0

    def _count(self, what: str) -> None:
        self.counters[what] = self.counters.get(what, 0) + 1
