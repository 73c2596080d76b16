"""Plumtree: push along a tree, pull what the tree lost.

J. Leitão, J. Pereira, L. Rodrigues, "Epidemic broadcast trees", SRDS 2007. Messages go to *eager*
neighbours at once and are announced to *lazy* ones in batches; a duplicate prunes a branch, an
announcement of what does not come grafts one. What a message says is no concern of this machine.
"""

from dataclasses import dataclass, field

import msgspec

from overlay.core.context import Context
from overlay.core.events import Transmit
from overlay.core.messages import Announcement, Gossip, Graft, IHave, Prune
from overlay.core.timers import Timers
from overlay.core.types import LinkId, PeerId

ANNOUNCE_DELAY = 0.05
"""Seconds (guess) over which announcements are batched."""
ANNOUNCEMENTS_MAX = 128
"""Announcements in one message; the limit of lists on the wire is 256."""
GRAFT_TIMEOUT = 0.5
"""Seconds (guess) that an announced message may take to come along the tree (§3.7)."""
REGRAFT_TIMEOUT = 0.3
"""Seconds (guess) between grafts of one message from different neighbours (§3.7, shorter)."""
OPTIMIZE_THRESHOLD = 7
"""Hops that a lazy path must be shorter by to replace the eager one (paper, §3.8)."""
CACHE_LIFE = 30.0
"""Seconds (guess) that a message can still be grafted from us."""
CACHE_BYTES = 8 << 20
RECENT = 5.0
"""Seconds (guess): longer than two peers take to become neighbours."""
SEEN_MAX = 8192
MISSING_MAX = 4096
ANNOUNCERS_MAX = 8
"""Announcers remembered for one missing message."""
HOPS_MAX = 200


@dataclass(slots=True)
class _Cached:
    message: Gossip
    expires_at: float


@dataclass(slots=True)
class Plumtree:
    """The tree of one node. The caller has checked a message before it is passed on."""

    context: Context
    links: dict[PeerId, LinkId] = field(default_factory=dict)
    eager: dict[PeerId, None] = field(default_factory=dict)
    lazy: dict[PeerId, None] = field(default_factory=dict)
    _seen: dict[bytes, int] = field(default_factory=dict)
    """Messages received, and over how many hops."""
    _cache: dict[bytes, _Cached] = field(default_factory=dict)
    _cached_bytes: int = 0
    _missing: dict[bytes, dict[PeerId, int]] = field(default_factory=dict)
    """Messages announced and not received: by whom, and how many hops away."""
    _to_announce: list[Announcement] = field(default_factory=list)
    _timers: Timers[tuple[str, bytes]] = field(init=False)

    def __post_init__(self) -> None:
        self._timers = Timers(self.context.agenda)

    # --- neighbours ------------------------------------------------------------------------------

    def add(self, peer: PeerId, link: LinkId, now: float) -> None:
        """A new neighbour is eager until it proves redundant (§3.5).

        Deviation: it is told of the last seconds' messages, which it may have missed while the
        two were agreeing on becoming neighbours.
        """
        self.links[peer] = link
        if peer in self.lazy or peer in self.eager:
            return
        self.eager[peer] = None
        recent = [
            Announcement(message_id, min(cached.message.hops + 1, HOPS_MAX))
            for message_id, cached in self._cache.items()
            if cached.expires_at - CACHE_LIFE > now - RECENT
        ]
        if recent:
            self._send(peer, IHave(recent[-ANNOUNCEMENTS_MAX:]))

    def remove(self, peer: PeerId) -> None:
        """A neighbour is gone, and with it what it had announced (§3.7)."""
        self.links.pop(peer, None)
        self.eager.pop(peer, None)
        self.lazy.pop(peer, None)
        for announcers in self._missing.values():
            announcers.pop(peer, None)

    # --- messages --------------------------------------------------------------------------------

    def is_news(self, message_id: bytes) -> bool:
        """Whether this message has not been seen."""
        return message_id not in self._seen

    def broadcast(self, message: Gossip, now: float) -> None:
        """Send a message of our own."""
        self._take(message, None, now)

    def on_news(self, peer: PeerId, message: Gossip, now: float) -> None:
        """A message that is new to us and holds: pass it on; its bearer is on our tree (§3.6)."""
        hops = max(1, message.hops)
        announcers = self._missing.pop(message.message_id, {})
        self._timers.stop(("graft", message.message_id))
        self._take(msgspec.structs.replace(message, hops=hops), peer, now)
        self._make_eager(peer)
        self._optimize(peer, message.message_id, hops, announcers)

    def on_duplicate(self, peer: PeerId) -> None:
        """A neighbour sent what we had: the branch between us is redundant (§3.6)."""
        if self._make_lazy(peer):
            self._send(peer, Prune())

    def on_announcements(self, peer: PeerId, message: IHave, now: float) -> None:
        """A neighbour has messages; those that do not come otherwise are pulled (§3.7)."""
        for each in message.announcements:
            if each.message_id in self._seen or len(self._missing) >= MISSING_MAX:
                continue
            announcers = self._missing.setdefault(each.message_id, {})
            if len(announcers) < ANNOUNCERS_MAX:
                announcers[peer] = each.hops
            if ("graft", each.message_id) not in self._timers:
                self._timers.set(("graft", each.message_id), now + GRAFT_TIMEOUT)

    def on_graft(self, peer: PeerId, message: Graft) -> None:
        """A neighbour lacks a message, or wants to be on our tree."""
        self._make_eager(peer)
        cached = self._cache.get(message.message_id)
        if cached is not None:
            self._push(peer, cached.message)

    def on_prune(self, peer: PeerId) -> None:
        """A neighbour gets our messages sooner from elsewhere."""
        self._make_lazy(peer)

    def _take(self, message: Gossip, bearer: PeerId | None, now: float) -> None:
        """Keep it for those who may ask, push it to the eager, announce it to the lazy."""
        self._remember(message, now)
        for peer in self.eager:
            if peer not in (bearer, message.origin):
                self._push(peer, message)
        if self.lazy and message.hops < HOPS_MAX:
            self._to_announce.append(Announcement(message.message_id, message.hops + 1))
            if ("announce", b"") not in self._timers:
                self._timers.set(("announce", b""), now + ANNOUNCE_DELAY)

    def _push(self, peer: PeerId, message: Gossip) -> None:
        if message.hops < HOPS_MAX:
            self._send(peer, msgspec.structs.replace(message, hops=message.hops + 1))

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

    def _remember(self, message: Gossip, now: float) -> None:
        while len(self._seen) >= SEEN_MAX:
            del self._seen[next(iter(self._seen))]
        self._seen[message.message_id] = message.hops
        self._cache[message.message_id] = _Cached(message, now + CACHE_LIFE)
        self._cached_bytes += len(message.data)
        while self._cached_bytes > CACHE_BYTES:
            self._uncache_oldest()
        if ("expire", b"") not in self._timers:
            self._timers.set(("expire", b""), now + CACHE_LIFE)

    def _uncache_oldest(self) -> None:
        oldest = next(iter(self._cache))
        self._cached_bytes -= len(self._cache.pop(oldest).message.data)

    # --- time ------------------------------------------------------------------------------------

    def on_time(self, now: float) -> None:
        """Announce, graft what does not come, forget what is old."""
        for kind, message_id in list(self._timers.pop_due(now)):
            if kind == "announce":
                self._announce()
            elif kind == "expire":
                self._expire(now)
            else:
                self._graft(message_id, now)

    def _announce(self) -> None:
        pending, self._to_announce = self._to_announce, []
        for start in range(0, len(pending), ANNOUNCEMENTS_MAX):
            batch = IHave(pending[start : start + ANNOUNCEMENTS_MAX])
            for peer in self.lazy:
                self._send(peer, batch)

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
        peer = next(iter(announcers))
        del announcers[peer]
        self._make_eager(peer)
        self._send(peer, Graft(message_id))
        self._timers.set(("graft", message_id), now + REGRAFT_TIMEOUT)

    def _send(self, peer: PeerId, message: Gossip | IHave | Graft | Prune) -> None:
        link = self.links.get(peer)
        if link is not None:
            self.context.emit(Transmit(link, message))
