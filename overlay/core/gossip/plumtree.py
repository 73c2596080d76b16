"""Plumtree: push along a tree, pull what the tree lost.

J. Leitão, J. Pereira, L. Rodrigues, "Epidemic broadcast trees", SRDS 2007. Messages go to *eager*
neighbours at once and are announced to *lazy* ones in batches; a duplicate prunes a branch, an
announcement of what does not come grafts one. What a message says is no concern of this machine.

Deviation: the parts of a large message are messages of their own, but come in one *flow*. Many are
under way before a prune has had its effect, and a slow link takes its time over them, so a flow has
one bearer whose duplicates prune nothing, and nothing is grafted while a flow goes on.

Deviation: where messages come along a tree, a new neighbour is asked at once to announce its own,
not to push them. Each would be a duplicate; where nodes come and go, most copies that are too many
were such ones.
"""

import math
from collections import deque
from dataclasses import dataclass, field

import msgspec

from overlay.core.context import Context
from overlay.core.events import Transmit
from overlay.core.gossip.parts import flow_of
from overlay.core.timers import Timers
from overlay.core.types import LinkId, PeerId
from overlay.core.wire.messages import Announcement, GossipPart, Graft, IHave, Prune, Published

ANNOUNCE_DELAY = 0.05
"""Seconds (guess) over which announcements are batched."""
ANNOUNCEMENTS_MAX = 128
"""Announcements in one message; the limit of lists on the wire is 256."""
GRAFT_TIMEOUT = 0.5
"""Seconds (guess) that an announced message may take to come along the tree (§3.7)."""
GRAFT_SPREAD = 3.0
"""At most so many times as long (guess): whoever asks first feeds the others of a lost branch."""
REGRAFT_TIMEOUT = 0.3
"""Seconds (guess) between grafts of one message from different neighbours (§3.7, shorter)."""
OPTIMIZE_THRESHOLD = 7
"""Hops that a lazy path must be shorter by to replace the eager one (paper, §3.8)."""
CACHE_LIFE = 30.0
"""Seconds (guess) that a message can still be grafted from us."""
CACHE_BYTES = 8 << 20
"""Of the messages that can be grafted (guess); the oldest gives way."""
CACHE_OVERHEAD = 1024
"""Bytes that each counts for besides its data."""
RECENT = 5.0
"""Seconds (guess): longer than two peers take to become neighbours, and than one is dead before
it is in doubt."""
LOSSES_MAX = 32
"""Lost neighbours whose time is remembered; the first gives way."""
TOLD_MAX = 1024
"""Messages that a new neighbour is told of (guess: a quarter of what it keeps in mind)."""
FED_LATELY = 30.0
"""Seconds (guess) without a message after which the tree may have changed unseen."""
SEEN_MAX = 8192
VAIN_MAX = 1024
"""Messages remembered that were not to be passed on; apart, so that a flood forgets no other."""
MISSING_MAX = 4096
FLOWS_MAX = 256
"""Large messages followed at once; the one that waited longest gives way."""
ANNOUNCERS_MAX = 8
"""Announcers remembered for one missing message."""
HOPS_MAX = 200
NO_MESSAGE = bytes(16)
"""The id of a graft that asks for a branch alone."""
ALL_MESSAGES = b"\xff" * 16
"""The id of a graft that asks to be told of everything that can be had."""


@dataclass(slots=True)
class _Cached:
    message: Published
    expires_at: float


@dataclass(slots=True)
class _Flow:
    """The parts of one large message on their way to us."""

    bearer: PeerId
    borne_at: float
    """When the bearer last brought a part that was new."""
    moved_at: float
    """When anybody did."""


@dataclass(slots=True)
class Plumtree:
    """The tree of one node. The caller has checked a message before it is passed on."""

    context: Context
    links: dict[PeerId, LinkId] = field(default_factory=dict)
    eager: dict[PeerId, None] = field(default_factory=dict)
    lazy: dict[PeerId, None] = field(default_factory=dict)
    payloads: int = 0
    """Messages sent whole, to each neighbour."""
    announcements: int = 0
    """Messages announced, to each neighbour."""
    _vain: dict[bytes, None] = field(default_factory=dict)
    _seen: dict[bytes, int] = field(default_factory=dict)
    """Messages received, and over how many hops."""
    _cache: dict[bytes, _Cached] = field(default_factory=dict)
    _cached_bytes: int = 0
    _missing: dict[bytes, dict[PeerId, int]] = field(default_factory=dict)
    """Messages announced and not received: by whom, and how many hops away."""
    _flows: dict[bytes, _Flow] = field(default_factory=dict)
    """The one that has moved least lately comes first."""
    _to_announce: list[Announcement] = field(default_factory=list)
    _parent: PeerId | None = None
    """Who brought us the last message, or stands in for it."""
    _fed_at: float = 0.0
    _last: bytes = NO_MESSAGE
    _spare: dict[PeerId, int] = field(default_factory=dict)
    """Who announced that message, and how many hops it would have come by."""
    _losses: deque[float] = field(default_factory=lambda: deque(maxlen=LOSSES_MAX))
    """When neighbours came into doubt or were gone, in order."""
    _unasked: dict[PeerId, None] = field(default_factory=dict)
    """Neighbours that have not asked for all that we have; each may do so once."""
    _timers: Timers[tuple[str, bytes]] = field(init=False)

    def __post_init__(self) -> None:
        self._timers = Timers(self.context.agenda)

    # --- neighbours ------------------------------------------------------------------------------

    def add(self, peer: PeerId, link: LinkId, now: float) -> None:
        """A new neighbour is eager until it proves redundant (§3.5).

        Deviation: it is told of the last seconds' messages, which it may have missed while the
        two were agreeing on becoming neighbours. If it takes the place of one that died, it is told
        of our own since then, which may have reached nobody, and asked for all that it has.
        """
        self.links[peer] = link
        if peer in self.lazy or peer in self.eager:
            return
        self.eager[peer] = None
        if self.context.settings.flood:
            return
        self._unasked[peer] = None
        sure = self._sure_until(now)
        self._tell(peer, self._kept_since(now - RECENT, sure - RECENT))
        if sure < now:
            self._send(peer, Graft(ALL_MESSAGES))
        if self._is_fed(now):
            self._send(peer, Prune())

    def on_moved(self, peer: PeerId, link: LinkId, now: float) -> None:
        """A peer has another link: what goes to it goes over that one from now on."""
        if peer in self.links:
            self.add(peer, link, now)

    def _sure_until(self, now: float) -> float:
        """Until when, as far as it still matters, every neighbour was there."""
        while self._losses and self._losses[0] <= now - CACHE_LIFE:
            self._losses.popleft()
        return self._losses[0] if self._losses else now

    def _kept_since(self, all_since: float, own_since: float) -> list[Announcement]:
        """What can be had from us, the newest if there is much of it."""
        kept = [
            Announcement(message_id, min(cached.message.hops + 1, HOPS_MAX))
            for message_id, cached in self._cache.items()
            if cached.expires_at - CACHE_LIFE
            > (own_since if cached.message.origin == self.context.peer_id else all_since)
        ]
        return kept[-TOLD_MAX:]

    def _is_fed(self, now: float) -> bool:
        """Whether messages come along the tree: another branch to us would be redundant."""
        return self._parent in self.eager and now < self._fed_at + FED_LATELY

    def on_loss(self, peer: PeerId, now: float) -> None:
        """A neighbour is or may be dead: what it was sent lately may have gone no further."""
        if peer in self.links:
            self._losses.append(now)

    def remove(self, peer: PeerId) -> None:
        """A neighbour is gone, and with it what it had announced (§3.7)."""
        self.links.pop(peer, None)
        self._unasked.pop(peer, None)
        self.eager.pop(peer, None)
        self.lazy.pop(peer, None)
        for announcers in self._missing.values():
            announcers.pop(peer, None)
        self._spare.pop(peer, None)
        self.on_doubt(peer)

    def on_doubt(self, peer: PeerId) -> None:
        """A neighbour is or may be gone; was it our parent, another one takes its place.

        Nobody below us can be chosen: what they announce has come over more hops than to us.
        """
        if peer != self._parent:
            return
        ours = self._seen.get(self._last, 0)
        nearer = [each for each, hops in self._spare.items() if hops <= ours and each in self.lazy]
        if nearer:
            self._parent = min(nearer, key=lambda each: self._spare[each])
            self._make_eager(self._parent)
            self._send(self._parent, Graft(NO_MESSAGE))

    # --- messages --------------------------------------------------------------------------------

    def is_news(self, message_id: bytes) -> bool:
        """Whether this message has not been seen."""
        return message_id not in self._seen and message_id not in self._vain

    def pass_over(self, message_id: bytes) -> None:
        """This message is to go no further: neither sent on nor asked for."""
        while len(self._vain) >= VAIN_MAX:
            del self._vain[next(iter(self._vain))]
        self._vain[message_id] = None
        self._missing.pop(message_id, None)
        self._timers.stop(("graft", message_id))

    def broadcast(self, message: Published, now: float) -> None:
        """Send a message of our own."""
        self._take(message, None, now)

    def on_news(self, peer: PeerId, message: Published, now: float) -> None:
        """A message that is new to us and holds: pass it on; its bearer is on our tree (§3.6)."""
        bearer = self._follow(peer, message, now) if isinstance(message, GossipPart) else peer
        hops = max(1, message.hops)
        announcers = self._missing.pop(message.message_id, {})
        self._timers.stop(("graft", message.message_id))
        self._take(msgspec.structs.replace(message, hops=hops), peer, now)
        if bearer == peer:
            self._parent, self._fed_at = peer, now
            self._last, self._spare = message.message_id, announcers
            self._make_eager(peer)
            self._optimize(peer, message.message_id, hops, announcers)

    def _follow(self, peer: PeerId, part: GossipPart, now: float) -> PeerId:
        """Note that a flow has moved; whom it comes from."""
        flow = self._flows.pop(flow_of(part.message_id), None)
        if flow is None or (flow.bearer != peer and now >= flow.borne_at + GRAFT_TIMEOUT):
            flow = _Flow(peer, now, now)
        if flow.bearer == peer:
            flow.borne_at = now
        flow.moved_at = now
        while len(self._flows) >= FLOWS_MAX:
            del self._flows[next(iter(self._flows))]
        self._flows[flow_of(part.message_id)] = flow
        return flow.bearer

    def on_duplicate(self, peer: PeerId, message: Published) -> None:
        """A neighbour sent what we had: the branch between us is redundant (§3.6).

        It is told so even if we think it knows: it may have made us eager since.
        """
        flow = self._flows.get(flow_of(message.message_id))
        if self.context.settings.flood or (flow is not None and flow.bearer == peer):
            return
        self._make_lazy(peer)
        self._send(peer, Prune())

    def on_unsent(self, link: LinkId, message: GossipPart) -> None:
        """A link is too far behind for a message: its peer may graft it later, from whomever."""
        for peer in [peer for peer, used in self.links.items() if used == link]:
            self._send(peer, IHave([Announcement(message.message_id, message.hops)]))

    def on_announcements(self, peer: PeerId, message: IHave, now: float) -> None:
        """A neighbour has messages; those that do not come otherwise are pulled (§3.7)."""
        for each in message.announcements:
            if each.message_id == self._last and peer in self.links:
                self._spare[peer] = each.hops
            if not self.is_news(each.message_id) or len(self._missing) >= MISSING_MAX:
                continue
            announcers = self._missing.setdefault(each.message_id, {})
            if len(announcers) < ANNOUNCERS_MAX:
                announcers[peer] = each.hops
            if ("graft", each.message_id) not in self._timers:
                wait = GRAFT_TIMEOUT * self.context.random.uniform(1.0, GRAFT_SPREAD)
                self._timers.set(("graft", each.message_id), now + wait)

    def on_graft(self, peer: PeerId, message: Graft) -> None:
        """A neighbour lacks a message, or wants to be on our tree, or may lack many."""
        if message.message_id == ALL_MESSAGES:
            if peer in self._unasked:
                del self._unasked[peer]
                self._tell(peer, self._kept_since(-math.inf, -math.inf))
            return
        self._make_eager(peer)
        cached = self._cache.get(message.message_id)
        onward = None if cached is None else _onward(cached.message)
        if onward is not None:
            self.payloads += 1
            self._send(peer, onward)

    def on_prune(self, peer: PeerId) -> None:
        """A neighbour gets our messages sooner from elsewhere."""
        self._make_lazy(peer)

    def _take(self, message: Published, bearer: PeerId | None, now: float) -> None:
        """Keep it for those who may ask, push it to the eager, announce it to the lazy."""
        self._remember(message, now)
        flow = self._flows.get(flow_of(message.message_id))
        onward = _onward(message)
        for peer in self.eager:
            if peer in (bearer, message.origin):
                continue
            if flow is not None and peer == flow.bearer:
                self._mention(peer, message)  # It has it; pushed, it would prune our branch.
            elif onward is not None:
                self.payloads += 1
                self._send(peer, onward)
        if self.lazy and message.hops < HOPS_MAX:
            self._to_announce.append(Announcement(message.message_id, message.hops + 1))
            if ("announce", b"") not in self._timers:
                self._timers.set(("announce", b""), now + ANNOUNCE_DELAY)

    def _mention(self, peer: PeerId, message: Published) -> None:
        if message.hops < HOPS_MAX:
            self._send(peer, IHave([Announcement(message.message_id, message.hops + 1)]))

    def _optimize(
        self, bearer: PeerId, message_id: bytes, hops: int, announcers: dict[PeerId, int]
    ) -> None:
        """Swap branches when a lazy neighbour is much nearer to the origin (§3.8)."""
        nearer = [
            peer
            for peer, distance in announcers.items()
            if distance + OPTIMIZE_THRESHOLD <= hops and peer in self.lazy
        ]
        if nearer:
            best = min(nearer, key=lambda peer: announcers[peer])
            self._make_eager(best)
            self._send(best, Graft(message_id))
            if self._make_lazy(bearer):
                self._send(bearer, Prune())

    # --- the tree --------------------------------------------------------------------------------

    def _make_eager(self, peer: PeerId) -> None:
        if peer in self.links:
            self.lazy.pop(peer, None)
            self.eager[peer] = None

    def _make_lazy(self, peer: PeerId) -> bool:
        if peer not in self.eager:
            return False
        del self.eager[peer]
        self.lazy[peer] = None
        return True

    # --- memory ----------------------------------------------------------------------------------

    def _remember(self, message: Published, now: float) -> None:
        while len(self._seen) >= SEEN_MAX:
            del self._seen[next(iter(self._seen))]
        self._seen[message.message_id] = message.hops
        self._cache[message.message_id] = _Cached(message, now + CACHE_LIFE)
        self._cached_bytes += len(message.data) + CACHE_OVERHEAD
        while self._cached_bytes > CACHE_BYTES:
            self._uncache_oldest()
        if ("expire", b"") not in self._timers:
            self._timers.set(("expire", b""), now + CACHE_LIFE)

    def _uncache_oldest(self) -> None:
        oldest = next(iter(self._cache))
        self._cached_bytes -= len(self._cache.pop(oldest).message.data) + CACHE_OVERHEAD

    # --- time ------------------------------------------------------------------------------------

    def on_time(self, now: float) -> None:
        """Announce, graft what does not come, forget what is old."""
        for kind, message_id in self._timers.pop_due(now):
            if kind == "announce":
                self._announce()
            elif kind == "expire":
                self._expire(now)
            else:
                self._graft(message_id, now)

    def _announce(self) -> None:
        pending, self._to_announce = self._to_announce, []
        for peer in self.lazy:
            self._tell(peer, pending)

    def _tell(self, peer: PeerId, pending: list[Announcement]) -> None:
        self.announcements += len(pending)
        for start in range(0, len(pending), ANNOUNCEMENTS_MAX):
            self._send(peer, IHave(pending[start : start + ANNOUNCEMENTS_MAX]))

    def _expire(self, now: float) -> None:
        while self._cache and next(iter(self._cache.values())).expires_at <= now:
            self._uncache_oldest()
        if self._cache:
            first = next(iter(self._cache.values()))
            self._timers.set(("expire", b""), first.expires_at)

    def _graft(self, message_id: bytes, now: float) -> None:
        """Pull a missing message from the next of its announcers (§3.7, Algorithm 2)."""
        announcers = self._missing.get(message_id)
        if not announcers:
            self._missing.pop(message_id, None)
            return
        flow = self._flows.get(flow_of(message_id))
        if flow is not None and now < flow.moved_at + GRAFT_TIMEOUT:
            self._timers.set(("graft", message_id), flow.moved_at + GRAFT_TIMEOUT)
            return
        peer = next(iter(announcers))
        del announcers[peer]
        self._make_eager(peer)
        self._send(peer, Graft(message_id))
        self._timers.set(("graft", message_id), now + REGRAFT_TIMEOUT)

    def _send(self, peer: PeerId, message: Published | IHave | Graft | Prune) -> None:
        link = self.links.get(peer)
        if link is not None:
            self.context.emit(Transmit(link, message))


def _onward(message: Published) -> Published | None:
    """What all neighbours get, one object and so encoded once; None at the end of its way."""
    if message.hops >= HOPS_MAX:
        return None
    return msgspec.structs.replace(message, hops=message.hops + 1)
