"""One idea: Plumtree, push along a tree, pull what the tree lost.

J. Leitão, J. Pereira, L. Rodrigues, "Epidemic broadcast trees", SRDS 2007. A message (GOSSIP in
the paper, `Gossip` or `GossipPart` here) is pushed to the *eager* neighbours at once, and announced
to the *lazy* ones in batches (IHAVE). Who receives a message twice sends PRUNE, and both ends make
the branch between them lazy; who is announced a message that does not come sends GRAFT, and both
ends make it eager again. What a message says is no concern of this machine.

Deviation: the parts of a large message are messages of their own, which come in one *flow*. Many
parts are under way before a PRUNE has had its effect, and a slow link takes long for each of them.
So each flow has one bearer, whose duplicates prune nothing, and no part is grafted while others of
its flow still come.

Deviation: a node that receives messages along the tree sends PRUNE to each new neighbour at once,
before any duplicate. It would get every message from it a second time; where nodes come and go,
most of the duplicates came from new neighbours.

Deviation: who is pushed to decides whether it is, and it keeps one neighbour, its *parent*, whose
duplicates prune nothing. With messages under way at once, and both ends making a branch lazy, the
prunes of one message cut what another had just joined (docs/decisions/0035-a-parent-is-kept.md).
"""

import math
from collections import deque
from dataclasses import dataclass, field
from enum import StrEnum
from typing import assert_never

import msgspec

from overlay.core.context import Context
from overlay.core.events import Transmit
from overlay.core.gossip.parts import flow_of
from overlay.core.limits import BoundedDict
from overlay.core.timers import Timers
from overlay.core.types import LinkId, PeerId
from overlay.core.wire.messages import Announcement, GossipPart, Graft, IHave, Prune, Published

ANNOUNCE_DELAY = 0.05
"""Seconds (guess) over which announcements are batched: the paper's "dispatch" (Algorithm 1)."""
ANNOUNCEMENTS_MAX = 128
"""Announcements in one message; the limit of lists on the wire is 256."""
GRAFT_TIMEOUT = 0.2
"""Seconds (measured) that an announced message may take at first to come along the tree: the
paper's first timeout (§3.7). Deviation: as messages come, a node learns how long after their
announcements they do, as RFC 6298 §2 learns a retransmission timeout."""
GRAFT_TIMEOUT_MIN, GRAFT_TIMEOUT_MAX = 0.1, 0.5
"""Seconds (guess) between which it stays."""
BEARER_TIMEOUT = 0.5
"""Seconds (guess) without a message after which a parent, or the bearer of a flow, gives way."""
GRAFT_SPREAD = 3.0
"""The timeout is up to so many times as long (guess): of the nodes behind a lost branch, one
sends its GRAFT first and feeds the others."""
REGRAFT_TIMEOUT = 0.3
"""Seconds (guess) between two GRAFTs for one message: the paper's second timeout, shorter than the
first (§3.7)."""
OPTIMIZE_THRESHOLD = 3
"""Hops by which a lazy path must be shorter to replace the eager one (§3.8; measured: the paper's 7
is more than a mesh of 50 nodes is deep)."""
CACHE_LIFE = 30.0
"""Seconds (guess) that a message can still be grafted from us."""
CACHE_BYTES = 8 << 20
"""Of the messages that can be grafted (guess); the oldest gives way."""
CACHE_OVERHEAD = 1024
"""Bytes that each counts for besides its data."""
RECENT = 5.0
"""Seconds (guess): two peers become neighbours in less, and who has died is suspected in less."""
LOSSES_MAX = 32
"""Lost neighbours whose time is remembered; the first gives way."""
TOLD_MAX = 1024
"""Messages announced to a new neighbour (guess: a quarter of `MISSING_MAX`, what it can note)."""
FED_LATELY = 30.0
"""Seconds (guess) without a message after which the tree may have changed without our notice."""
SEEN_MAX = 8192
IGNORED_MAX = 1024
"""Messages remembered that are not passed on; kept apart, so that a flood of them makes us forget
no message that we did pass on."""
MISSING_MAX = 4096
FLOWS_MAX = 256
"""Large messages followed at once; the one that waited longest gives way."""
ANNOUNCERS_MAX = 8
"""Announcers remembered for one missing message."""
HOPS_MAX = 200
NO_MESSAGE = bytes(16)
"""The id in a GRAFT that asks for the branch alone, and for no message."""
ALL_MESSAGES = b"\xff" * 16
"""The id in a GRAFT that asks for an IHAVE of every message that we still have."""
_NOBODY: dict[PeerId, int] = {}
"""The announcers of a message that nobody announced."""


class Timer(StrEnum):
    """What falls due; a message id in its place: time to graft that message."""

    DISPATCH = "dispatch"  # announce what has been received since the last time (`ANNOUNCE_DELAY`)
    EXPIRE = "expire"  # the oldest message in the cache has been there for `CACHE_LIFE`


@dataclass(slots=True)
class _Cached:
    message: Published
    bearer: PeerId | None  # the neighbour that brought it; None: it is our own
    expires_at: float


@dataclass(slots=True)
class _Missing:
    """A message that was announced and has not come."""

    since: float  # when it was first announced
    announcers: dict[PeerId, int] = field(
        default_factory=dict
    )  # and over how many hops each has it
    asked: bool = False  # whether somebody has been sent a GRAFT for it


@dataclass(slots=True)
class _Flow:
    """The parts of one large message that are coming to us."""

    bearer: PeerId  # the neighbour on whose branch they come
    borne_at: float  # when the bearer last brought a part that was new
    moved_at: float  # when any neighbour did


@dataclass(slots=True)
class Plumtree:
    """The tree of one node. The caller has checked a message before it is passed on."""

    context: Context
    links: dict[PeerId, LinkId] = field(default_factory=dict)
    """The neighbours, every one of them either eager or lazy; and those that are leaving."""
    eager: dict[PeerId, None] = field(default_factory=dict)
    """The paper's eagerPushPeers: branches of the tree."""
    lazy: dict[PeerId, None] = field(default_factory=dict)
    """The paper's lazyPushPeers."""
    payloads: int = 0
    """Messages sent whole, to each neighbour."""
    announcements: int = 0
    """Messages announced, to each neighbour."""
    # Messages received that are not passed on.
    _ignored: BoundedDict[bytes, None] = field(default_factory=lambda: BoundedDict(IGNORED_MAX))
    # The paper's receivedMsgs, and over how many hops each came.
    _seen: dict[bytes, int] = field(default_factory=dict)
    _cache: dict[bytes, _Cached] = field(default_factory=dict)
    _cached_bytes: int = 0
    # Messages announced and not received.
    _missing: dict[bytes, _Missing] = field(default_factory=dict)
    # The flow that has waited longest for a part comes first.
    _flows: BoundedDict[bytes, _Flow] = field(default_factory=lambda: BoundedDict(FLOWS_MAX))
    # The paper's lazyQueue: what the next dispatch announces.
    _lazy_queue: list[Announcement] = field(default_factory=list)
    # The neighbour from which we get the messages, as long as it brings them.
    _parent: PeerId | None = None
    _borne_at: float = 0.0  # when the parent last brought a message
    _pushed_at: float = -math.inf  # when we last passed one on, or sent our own
    _fed_at: float = 0.0  # when the last message came along the tree, and in time
    # How long after its announcement a message comes, and by how much that varies: smoothed.
    _lag: float = 0.0
    _lag_variation: float = GRAFT_TIMEOUT / 4
    # Neighbours that are to push nothing to us: the last word to each was PRUNE.
    _stopped: dict[PeerId, None] = field(default_factory=dict)
    # Of those that announced what we had: over how many hops more it would have come to us.
    _further: dict[PeerId, int] = field(default_factory=dict)
    # No neighbours any more, but the link stands, and one of us gets its messages from the other.
    _leaving: dict[PeerId, None] = field(default_factory=dict)
    # When neighbours were suspected or lost, in order.
    _losses: deque[float] = field(default_factory=lambda: deque(maxlen=LOSSES_MAX))
    # Neighbours that have not sent GRAFT for `ALL_MESSAGES`; each is answered once.
    _unasked: dict[PeerId, None] = field(default_factory=dict)
    _timers: Timers[Timer | bytes] = field(init=False)

    def __post_init__(self) -> None:
        self._timers = Timers(self.context.agenda)

    # --- neighbours ------------------------------------------------------------------------------

    def on_neighbour_up(self, peer: PeerId, link: LinkId, now: float) -> None:
        """A new neighbour is eager until it proves redundant (§3.5)."""
        self.links[peer] = link
        if peer in self._leaving:
            del self._leaving[peer]
            self._stopped.pop(peer, None)
        elif peer in self.lazy or peer in self.eager:
            return  # It has moved to another link.
        self._make_eager(peer)
        if self.context.settings.flood:
            return
        self._unasked[peer] = None
        # Deviation: it hears of the messages of the last seconds, which it may have missed while
        # the two of us agreed to become neighbours. If it replaces a neighbour that died, it hears
        # of our own messages since then as well, which may have reached nobody, and is asked for
        # an IHAVE of all that it has.
        intact = self._intact_until(now)
        self._send_ihave(peer, self._cached_since(now - RECENT, intact - RECENT))
        if intact < now:
            self._send(peer, Graft(ALL_MESSAGES))
        # Deviation: PRUNE before the first duplicate (see the head of this file).
        if self._is_fed(now) and self._parent != peer:
            self._stop(peer)

    def on_moved(self, peer: PeerId, link: LinkId) -> None:
        """A peer has another link: what goes to it goes over that one from now on."""
        if peer in self.links:
            self.links[peer] = link

    def _intact_until(self, now: float) -> float:
        """Until when no neighbour had been lost, of the time for which messages are cached."""
        while self._losses and self._losses[0] <= now - CACHE_LIFE:
            self._losses.popleft()
        return self._losses[0] if self._losses else now

    def _cached_since(self, all_since: float, own_since: float) -> list[Announcement]:
        """Cached messages of all origins, and our own, since these times; of many, the newest."""
        cached = [
            Announcement(message_id, min(each.message.hops + 1, HOPS_MAX))
            for message_id, each in self._cache.items()
            if each.expires_at - CACHE_LIFE
            > (own_since if each.message.origin == self.context.peer_id else all_since)
        ]
        return cached[-TOLD_MAX:]

    def _is_fed(self, now: float) -> bool:
        """Whether messages come along the tree, so that another branch to us is redundant."""
        fed = self._feeds(self._parent) and self._parent not in self._leaving
        return fed and now < self._fed_at + FED_LATELY

    def _feeds(self, peer: PeerId | None) -> bool:
        """Whether a neighbour pushes to us, as far as we have told it."""
        return peer in self.links and peer not in self._stopped

    def on_loss(self, peer: PeerId, now: float) -> None:
        """A neighbour is or may be dead: what we sent it lately may have gone no further."""
        if peer in self.links and peer not in self._leaving:
            self._losses.append(now)

    def on_neighbour_down(self, peer: PeerId, now: float, *, linked: bool) -> None:
        """A neighbour is one no longer; `linked`: but its link stands.

        Deviation: over a link that stands, whoever gets its messages from the other goes on getting
        them, until somebody else feeds it.
        """
        self._unasked.pop(peer, None)
        self._further.pop(peer, None)
        self.lazy.pop(peer, None)
        if not linked or self.context.settings.flood:
            self.on_unlinked(peer, now)
        if peer not in self.links:
            return
        self._leaving[peer] = None
        if now >= self._pushed_at + FED_LATELY:
            self.eager.pop(peer, None)
        elif peer == self._parent:
            self.on_doubt(peer, now)
        elif peer not in self._stopped and self._feeds(self._parent):
            self._stop(peer)

    def on_unlinked(self, peer: PeerId, now: float) -> None:
        """A link is gone, and what its peer had announced cannot be had from it (§3.7)."""
        self.links.pop(peer, None)
        self.eager.pop(peer, None)
        self.lazy.pop(peer, None)
        self._leaving.pop(peer, None)
        self._stopped.pop(peer, None)
        self._further.pop(peer, None)
        for missing in self._missing.values():
            missing.announcers.pop(peer, None)
        self.on_doubt(peer, now)

    def on_doubt(self, peer: PeerId, now: float) -> None:
        """A neighbour is or may be gone.

        Deviation: if it was our parent, the next one is grafted at once, not when the next message
        is missing. It is a neighbour to which messages come over fewer hops than to us (of as many,
        one with a lower id): one below us in the tree gets its messages from us.
        """
        if peer != self._parent:
            return
        nearer = [each for each, more in self._further.items() if self._precedes(each, more)]
        if nearer:
            self._replace_parent(min(nearer, key=lambda each: self._further[each]), now)

    def _note_distance(self, peer: PeerId, further: int) -> None:
        if peer in self.links and peer not in self._leaving:
            self._further[peer] = further

    def _precedes(self, peer: PeerId, further: int) -> bool:
        """Whether messages reach this neighbour before us, in an order that all agree on."""
        return further <= 0 or (further == 1 and peer < self.context.peer_id)

    # --- GOSSIP (§3.6, Algorithm 1) --------------------------------------------------------------

    def is_new(self, message_id: bytes) -> bool:
        """Whether this message has not been received."""
        return message_id not in self._seen and message_id not in self._ignored

    def ignore(self, message_id: bytes) -> None:
        """This message is received, but is to go no further: neither passed on nor grafted."""
        self._ignored.put(message_id, None)
        self._missing.pop(message_id, None)
        self._timers.stop(message_id)

    def broadcast(self, message: Published, now: float) -> None:
        """Send a message of our own."""
        self._push(message, None, now, _NOBODY)

    def on_gossip(self, peer: PeerId, message: Published, now: float) -> None:
        """A message that is new to us and holds: pass it on; its bearer is on our tree (§3.6)."""
        bearer = self._follow(peer, message, now) if isinstance(message, GossipPart) else peer
        hops = max(1, message.hops)
        # It is missing no longer, so the timer for its GRAFT stops (Algorithm 1).
        missing = self._missing.pop(message.message_id, None)
        self._timers.stop(message.message_id)
        announcers = _NOBODY if missing is None else missing.announcers
        for announcer, distance in announcers.items():
            self._note_distance(announcer, distance - hops)
        if missing is not None and not missing.asked and not isinstance(message, GossipPart):
            self._learn(now - missing.since)
        self._push(msgspec.structs.replace(message, hops=hops), peer, now, announcers)
        if bearer != peer or peer not in self.links:
            return
        if peer in self._leaving and self._parent != peer and self._feeds(self._parent):
            self._stop(peer)
        elif peer in self._stopped:
            # It was under way before our PRUNE had come there: no reason to leave our parent.
            if not self._feeds(self._parent):
                self._branch(peer)
        else:
            if not self._feeds(self._parent) or now >= self._borne_at + BEARER_TIMEOUT:
                self._parent = peer
            if peer == self._parent:
                self._borne_at = now
            if missing is None or now < missing.since + BEARER_TIMEOUT:
                self._fed_at = now
            self._optimize(hops, announcers, now)

    def _follow(self, peer: PeerId, part: GossipPart, now: float) -> PeerId:
        """Note that a part of a flow has come; the bearer of the flow."""
        flow = self._flows.pop(flow_of(part.message_id), None)
        if flow is None or (flow.bearer != peer and now >= flow.borne_at + BEARER_TIMEOUT):
            flow = _Flow(peer, now, now)  # The first part; or its bearer brings none any more.
        if flow.bearer == peer:
            flow.borne_at = now
        flow.moved_at = now
        self._flows.put(flow_of(part.message_id), flow)
        return flow.bearer

    def on_duplicate(self, peer: PeerId, message: Published, now: float) -> None:
        """A neighbour sent what we had: the branch between us is redundant (§3.6).

        It gets a PRUNE even if it had one: it may have made us eager since.
        """
        if self.context.settings.flood:
            return
        cached = self._cache.get(message.message_id)
        bearer = None if cached is None else cached.bearer
        flow = self._flows.get(flow_of(message.message_id))
        if flow is not None:
            # Deviation: the bearer of a flow is not pruned (see the head of this file).
            if flow.bearer != peer:
                if peer == self._parent and self._feeds(flow.bearer):
                    self._parent = flow.bearer
                if peer != self._parent:
                    self._make_lazy(peer)  # We are not its bearer, or it would not have pushed it.
                    self._stop(peer)
        elif peer == self._parent:
            # Deviation: nor is the parent, but who brought the message before it. What has come
            # over so many hops more may have come through us, and says nothing of our parent.
            if cached is None or bearer is None or bearer == peer:
                return
            if max(1, message.hops) <= cached.message.hops + 1:
                self._borne_at = now
                self._stop(bearer)
        elif self._feeds(self._parent):
            if self._feeds(bearer) or now < self._borne_at + BEARER_TIMEOUT:
                self._stop(peer)
        elif peer in self._stopped:
            self._branch(peer)
        else:
            self._parent = peer

    def on_unsent(self, link: LinkId, message: GossipPart) -> None:
        """A link was too slow for a part, which was dropped: its peer may graft it later."""
        for peer in [peer for peer, used in self.links.items() if used == link]:
            self._send(peer, IHave([Announcement(message.message_id, message.hops)]))

    def on_prune(self, peer: PeerId) -> None:
        """PRUNE: a neighbour gets our messages sooner from elsewhere (§3.6).

        Deviation: our parent goes on pushing to us; any other neighbour is to stop as well.
        """
        self._make_lazy(peer)
        if self._feeds(peer) and peer != self._parent and self._feeds(self._parent):
            self._stop(peer)

    def _push(
        self, message: Published, bearer: PeerId | None, now: float, known: dict[PeerId, int]
    ) -> None:
        """The paper's eagerPush and lazyPush (Algorithm 1); and keep the message for GRAFTs.

        `known`: who has announced it, and needs no copy.
        """
        self._pushed_at = now
        self._remember(message, bearer, now)
        flow = self._flows.get(flow_of(message.message_id))
        onward = _onward(message)
        for peer in self.eager:
            if peer in (bearer, message.origin) or peer in known:
                continue
            if flow is not None and peer == flow.bearer:
                # Deviation: it has the part. Pushed, it would be a duplicate and prune our branch.
                if onward is not None:
                    self._send(peer, IHave([Announcement(message.message_id, onward.hops)]))
            elif onward is not None:
                self.payloads += 1
                self._send(peer, onward)
        if self.lazy and onward is not None:
            self._lazy_queue.append(Announcement(message.message_id, onward.hops))
            if Timer.DISPATCH not in self._timers:
                self._timers.set(Timer.DISPATCH, now + ANNOUNCE_DELAY)

    def _optimize(self, hops: int, announcers: dict[PeerId, int], now: float) -> None:
        """Swap branches if a lazy neighbour announced the message over far fewer hops (§3.8).

        It announced it before our parent brought it, so messages will come sooner, too.
        """
        nearer = [
            peer
            for peer, distance in announcers.items()
            if distance + OPTIMIZE_THRESHOLD <= hops and peer in self._stopped
        ]
        if nearer:
            self._replace_parent(min(nearer, key=lambda peer: announcers[peer]), now)

    # --- IHAVE and GRAFT (§3.7, Algorithm 2) -----------------------------------------------------

    def on_ihave(self, peer: PeerId, message: IHave, now: float) -> None:
        """IHAVE: note who has the messages that we lack, and wait for them along the tree."""
        for each in message.announcements:
            ours = self._seen.get(each.message_id)
            if ours is not None:
                self._note_distance(peer, each.hops - ours)
            elif self.is_new(each.message_id) and peer in self.links:
                self._on_announced(peer, each, now)

    def _on_announced(self, peer: PeerId, announced: Announcement, now: float) -> None:
        missing = self._missing.get(announced.message_id)
        if missing is None:
            if len(self._missing) >= MISSING_MAX:
                return
            missing = self._missing[announced.message_id] = _Missing(now)
        if len(missing.announcers) < ANNOUNCERS_MAX:
            missing.announcers[peer] = announced.hops
        if missing.asked:
            return
        # Deviation: it is asked for at once if our parent is gone, or announces it: links keep the
        # order, so it will not push it.
        parent, moving = self._parent, flow_of(announced.message_id) in self._flows
        if not moving and parent is not None and (peer == parent or not self._feeds(parent)):
            self._timers.stop(announced.message_id)
            self._graft(announced.message_id, now)
        elif announced.message_id not in self._timers:
            wait = self._graft_timeout() * self.context.random.uniform(1.0, GRAFT_SPREAD)
            self._timers.set(announced.message_id, now + wait)

    def _learn(self, lag: float) -> None:
        """A message has come so long after its announcement (RFC 6298 §2.3)."""
        self._lag_variation += (abs(self._lag - lag) - self._lag_variation) / 4
        self._lag += (lag - self._lag) / 8

    def _graft_timeout(self) -> float:
        """How long an announced message may take to come along the tree, in seconds."""
        expected = self._lag + 4 * self._lag_variation
        return max(GRAFT_TIMEOUT_MIN, min(expected, GRAFT_TIMEOUT_MAX))

    def _graft(self, message_id: bytes, now: float) -> None:
        """The time for a missing message is up: ask the next of its announcers for it."""
        missing = self._missing[message_id]
        announcers = missing.announcers
        if not announcers:
            del self._missing[message_id]
            return
        # Deviation: while other parts of its flow come, this one is late and not lost.
        flow = self._flows.get(flow_of(message_id))
        if flow is not None and now < flow.moved_at + BEARER_TIMEOUT:
            self._timers.set(message_id, flow.moved_at + BEARER_TIMEOUT)
            return
        # The paper's removeFirstAnnouncement: who announced it first. Our parent goes before, but
        # only once: it may announce again and again what it does not bring.
        parent, peer = self._parent, next(iter(announcers))
        if parent is not None and parent in announcers and not missing.asked:
            peer = parent
        del announcers[peer]
        missing.asked = True
        self._send(peer, Graft(message_id))
        # Deviation: if later messages come along the tree, only this one is wanted, and no branch.
        if not self._feeds(parent) or self._fed_at < missing.since:
            self._parent = peer
            self._stopped.pop(peer, None)
            self._make_eager(peer)
        elif peer in self._stopped:
            self._send(peer, Prune())
        self._timers.set(message_id, now + REGRAFT_TIMEOUT)

    def on_graft(self, peer: PeerId, message: Graft) -> None:
        """GRAFT: a neighbour lacks a message and wants the branch to it; we send the message."""
        if message.message_id == ALL_MESSAGES:
            # Deviation: it does not know which messages it lacks, so it hears which ones we have.
            if peer in self._unasked:
                del self._unasked[peer]
                self._send_ihave(peer, self._cached_since(-math.inf, -math.inf))
            return
        self._make_eager(peer, message.message_id)
        cached = self._cache.get(message.message_id)
        onward = None if cached is None else _onward(cached.message)
        if onward is not None:
            self.payloads += 1
            self._send(peer, onward)

    # --- the tree --------------------------------------------------------------------------------

    def _branch(self, peer: PeerId) -> None:
        """Have a neighbour push to us from now on, and push to it."""
        self._parent = peer
        self._stopped.pop(peer, None)
        self._make_eager(peer)
        self._send(peer, Graft(NO_MESSAGE))

    def _replace_parent(self, peer: PeerId, now: float) -> None:
        """Get messages from this neighbour instead of from our parent, and what it has at once."""
        before = self._parent
        self._branch(peer)
        if before is not None and self._feeds(before):
            self._stop(before)
            self._make_lazy(before)
        for message_id, missing in list(self._missing.items()):
            if peer in missing.announcers and not missing.asked:
                self._graft(message_id, now)

    def _stop(self, peer: PeerId) -> None:
        """Have a neighbour push nothing to us from now on."""
        if peer in self.links:
            self._stopped[peer] = None
            self._send(peer, Prune())

    def _make_eager(self, peer: PeerId, wanted: bytes = NO_MESSAGE) -> None:
        """Push to it from now on; `wanted` is sent to it anyway."""
        if peer not in self.links:
            return
        if peer in self.lazy:
            # What is about to be announced to the lazy would be neither pushed nor announced.
            del self.lazy[peer]
            self._send_ihave(peer, [each for each in self._lazy_queue if each.message_id != wanted])
        self.eager[peer] = None

    def _make_lazy(self, peer: PeerId) -> None:
        if peer in self.eager:
            del self.eager[peer]
            if peer not in self._leaving:
                self.lazy[peer] = None

    # --- memory ----------------------------------------------------------------------------------

    def _remember(self, message: Published, bearer: PeerId | None, now: float) -> None:
        while len(self._seen) >= SEEN_MAX:
            del self._seen[next(iter(self._seen))]
        self._seen[message.message_id] = message.hops
        self._cache[message.message_id] = _Cached(message, bearer, now + CACHE_LIFE)
        self._cached_bytes += len(message.data) + CACHE_OVERHEAD
        while self._cached_bytes > CACHE_BYTES:
            self._uncache_oldest()
        if Timer.EXPIRE not in self._timers:
            self._timers.set(Timer.EXPIRE, now + CACHE_LIFE)

    def _uncache_oldest(self) -> None:
        oldest = next(iter(self._cache))
        self._cached_bytes -= len(self._cache.pop(oldest).message.data) + CACHE_OVERHEAD

    # --- time ------------------------------------------------------------------------------------

    def on_time(self, now: float) -> None:
        """Announce, graft what does not come, forget what is old."""
        for due in self._timers.pop_due(now):
            if isinstance(due, bytes):
                self._graft(due, now)
            elif due is Timer.DISPATCH:
                self._dispatch()
            elif due is Timer.EXPIRE:
                self._expire(now)
            else:
                assert_never(due)

    def _dispatch(self) -> None:
        """Announce what has come since the last time to all lazy neighbours (Algorithm 1)."""
        queue, self._lazy_queue = self._lazy_queue, []
        for peer in self.lazy:
            self._send_ihave(peer, queue)

    def _send_ihave(self, peer: PeerId, messages: list[Announcement]) -> None:
        self.announcements += len(messages)
        for start in range(0, len(messages), ANNOUNCEMENTS_MAX):
            self._send(peer, IHave(messages[start : start + ANNOUNCEMENTS_MAX]))

    def _expire(self, now: float) -> None:
        while self._cache and next(iter(self._cache.values())).expires_at <= now:
            self._uncache_oldest()
        if self._cache:
            first = next(iter(self._cache.values()))
            self._timers.set(Timer.EXPIRE, first.expires_at)

    def _send(self, peer: PeerId, message: Published | IHave | Graft | Prune) -> None:
        link = self.links.get(peer)
        if link is not None:
            self.context.emit(Transmit(link, message))


def _onward(message: Published) -> Published | None:
    """The message as all neighbours get it: one object, so that it is encoded once.

    None after `HOPS_MAX` hops: it goes no further.
    """
    if message.hops >= HOPS_MAX:
        return None
    return msgspec.structs.replace(message, hops=message.hops + 1)
