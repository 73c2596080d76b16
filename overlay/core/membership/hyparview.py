"""One idea: HyParView, a small symmetric active view, repaired from a larger passive one.

J. Leitão, J. Pereira, L. Rodrigues, "HyParView: a membership protocol for reliable gossip-based
broadcast", DSN 2007; sections and algorithms below are those of the technical report DI-FCUL
TR-07-13. A neighbour (a member of the active view) is a peer with an open link that both ends have
agreed to use for gossip. Opening links is the work of `overlay.core.connect`: this machine says
which peers it wants (`Wanted`) and hears which links stand. The passive view is another machine
(`overlay.core.membership.shuffles`, `overlay.core.membership.basalt`).

Deviation: members that have fallen silent are asked again from time to time, with high priority,
and so is one of them that is heard of again, whoever found it. If the mesh was divided, each part
has full views and no reason to look for the other; the neighbour that has to make room for such a
member is what makes the parts one mesh again.

Deviation: a node that as many peers have refused as it wants neighbours asks the next one with high
priority. In a small mesh, six full views may have only each other as neighbours, and refuse three
nodes outside for ever.

Deviation: a node that has nobody in its view who is surely there asks whom it is linked to, with
high priority and at once, even who has refused it just now. Behind a NAT that few can get through,
these may be all that it can ever reach, and nothing is heard until one is its neighbour.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import assert_never

import msgspec

from overlay.core.context import Context
from overlay.core.events import Transmit
from overlay.core.membership.shuffles import PassiveView
from overlay.core.timers import NEVER, Timers
from overlay.core.types import LinkId, PeerId
from overlay.core.wire import messages as m

ASK_TIMEOUT = 5.0
"""Seconds (guess) that a peer gets to say whether it takes us in."""
WANT_TIMEOUT = 20.0
"""Seconds (guess) that a wanted link may take to come about, whatever is tried."""
WANT_PATIENCE = 1.5
"""Seconds (guess) after which another peer is wanted besides: after a mass crash, many of those
that could be wanted are dead, and it takes many seconds to give up the link to each of them."""
REPAIRS_AT_ONCE = 2
"""Peers (guess) asked or wanted at once, but for the slow ones (`WANT_PATIENCE`)."""
REPAIRS_MAX = 8
"""The same with the slow ones (guess)."""
SECOND_ASK = 1.5
"""Seconds (guess) for which of two peers new to each other the one with the lower id waits, so that
only one link is opened."""
REST = 30.0
"""Seconds (guess) before a peer that refused or could not be reached is asked again."""
SEEK_INTERVAL = 20.0
"""Seconds (guess) between two attempts to find an absent member again, even with a full view."""
KNOWN_MAX = 1024
"""As many as the book holds records; of more, the one known longest is forgotten."""


@dataclass(frozen=True, slots=True)
class Parameters:
    """The paper's names and its values for 10,000 nodes (§5.1), but for `full_mesh`."""

    active_size: int = 5
    active_walk: int = 6
    """ARWL."""
    passive_walk: int = 3
    """PRWL."""
    full_mesh: int = 8
    """Up to this many nodes everybody is everybody's neighbour (product; 0 for the paper)."""


class Timer(StrEnum):
    """What falls due for the node as a whole."""

    SEEK = "seek"  # look for an absent member (`SEEK_INTERVAL`)
    REST = "rest"  # a peer has rested and may be asked, or one place need not stay free any more


class PeerTimer(StrEnum):
    """What falls due for one peer that is asked or wanted."""

    GIVE_UP = "give up"  # its answer or its link has taken too long (`ASK_TIMEOUT`, `WANT_TIMEOUT`)
    SLOW = "slow"  # its link is a long time coming (`WANT_PATIENCE`)


# --- facts, for the composed node ----------------------------------------------------------------


class NeighbourUp(msgspec.Struct, frozen=True, gc=False):
    """A peer is in the active view now."""

    peer: PeerId


class NeighbourDown(msgspec.Struct, frozen=True, gc=False):
    """A peer is no longer in the active view."""

    peer: PeerId


class Wanted(msgspec.Struct, frozen=True, gc=False):
    """Open a link to this peer; `on_linked` or `on_unreachable` is expected to follow."""

    peer: PeerId


Fact = NeighbourUp | NeighbourDown | Wanted


@dataclass(slots=True)
class HyParView:
    """The views of one node. Every method returns facts and emits what is to be sent."""

    context: Context
    parameters: Parameters
    opens_links: bool = True
    """Whether links may be opened that no command asked for (``links.auto``)."""
    links: dict[PeerId, LinkId] = field(default_factory=dict)
    """Open links, in the view or not."""
    active: dict[PeerId, None] = field(default_factory=dict)
    known: dict[PeerId, None] = field(default_factory=dict)
    """Members that we hold a record of: only they can be linked to."""
    # Peers wanted for the active view; the value: with high priority.
    _asking: dict[PeerId, bool] = field(default_factory=dict)
    # Of the peers wanted, those whose link is a long time coming.
    _slow: dict[PeerId, None] = field(default_factory=dict)
    # Neighbours that have left a check unanswered: they may be dead.
    _doubtful: dict[PeerId, None] = field(default_factory=dict)
    # Peers that are not asked at present, and until when.
    _resting: dict[PeerId, float] = field(default_factory=dict)
    _rested_at: float = NEVER  # when the first of them has rested
    # Members that fell silent, or could not be reached when last tried.
    _absent: dict[PeerId, None] = field(default_factory=dict)
    passive: PassiveView = field(init=False)
    """Set by the neighbourhood, which knows the policy."""
    _timers: Timers[Timer | tuple[PeerTimer, PeerId]] = field(init=False)
    _facts: list[Fact] = field(default_factory=list)
    _now: float = 0.0  # the time of the call that is under way
    # Until then no absent member that is back is asked for its own sake.
    _reunited_until: float = 0.0
    # A peer has refused us: until then, one free place is no reason to ask another.
    _content_until: float = 0.0
    # Neighbours that dropped us and are not replaced before the next shuffle (Algorithm 1); only
    # with the paper's own passive view. Before a shuffle it holds mostly former neighbours: links
    # to them would make neighbours of our neighbours.
    _dropped: int = 0
    _refusals: int = 0  # since a peer last became a neighbour

    def __post_init__(self) -> None:
        self._timers = Timers(self.context.agenda)

    # --- links ---------------------------------------------------------------------------------

    def on_linked(
        self, peer: PeerId, link: LinkId, *, ours: bool, join: bool, now: float
    ) -> list[Fact]:
        """A link stands. `ours`: we opened it. `join`: by an invite, so the peer is our contact."""
        self._now = now
        self.links[peer] = link
        self.known.setdefault(peer)
        returned = self._has_returned(peer)
        self._doubtful.pop(peer, None)
        if join:
            # Algorithm 1: a newcomer sends JOIN to its contact, which cannot refuse.
            self._send(peer, m.JoinView())
            self._add_active(peer)
        elif returned or peer in self._asking or (ours and len(self.active) < self._capacity):
            self._ask(peer, high=returned or self._asking.get(peer, False))
        return self._done(now)

    def on_heard_again(self, peer: PeerId, link: LinkId, now: float) -> list[Fact]:
        """A silent link is back.

        Perhaps only we had noticed its silence, and the peer still has us in its active view.
        """
        self._now = now
        self.links[peer] = link
        returned = self._has_returned(peer)
        if returned or len(self.active) < self._capacity:
            self._ask(peer, high=returned)
        else:
            self._stop_asking(peer)
            self._send(peer, m.Disconnect())
        return self._done(now)

    def on_doubt(self, peer: PeerId, now: float, *, doubtful: bool) -> list[Fact]:
        """A neighbour has left a check unanswered (`doubtful`), or has answered again.

        Deviation: the paper waits until TCP says that a neighbour has failed. If most neighbours
        leave checks unanswered, others are asked before it is certain (`_repair`).
        """
        self._now = now
        if doubtful and peer in self.active:
            self._doubtful[peer] = None
        else:
            self._doubtful.pop(peer, None)
        return self._done(now)

    def on_unlinked(self, peer: PeerId, now: float, *, absent: bool) -> list[Fact]:
        """A link has ended; `absent`: because nothing was heard of the peer any more."""
        self._now = now
        self.links.pop(peer, None)
        self._stop_asking(peer)
        if self._remove_active(peer):
            if absent:
                self.passive.on_failed(peer)
            else:
                self.passive.add(peer)
        self._rest(peer)
        if absent:
            self._miss(peer)
        return self._done(now)

    def on_unreachable(self, peer: PeerId, now: float) -> list[Fact]:
        """A wanted link did not come about."""
        self._now = now
        if peer in self._asking and peer not in self.links:
            # §4.3: it has failed, so it leaves the passive view, and another is tried.
            self._stop_asking(peer)
            self.passive.remove(peer)
            self._miss(peer)
            self._rest(peer)
        return self._done(now)

    def on_known(self, peer: PeerId, now: float) -> list[Fact]:
        """A member's record has come."""
        self._now = now
        if peer not in self._resting and self._has_returned(peer):
            self._want(peer, high=True)
        self._absent.pop(peer, None)
        if peer not in self.known:
            self._learn(peer)
            if self.context.peer_id < peer:
                self._rest(peer, SECOND_ASK)  # It may have heard of us as well, and asks first.
        self.passive.on_known(peer)
        return self._done(now)

    def on_recalled(self, peers: list[PeerId], now: float) -> list[Fact]:
        """Peers met before this node was restarted: ask as many as the view has room for."""
        self._now = now
        for peer in self.context.random.sample(peers, min(self._capacity, len(peers))):
            self._resting.pop(peer, None)
            self._want(peer, high=False)
        return self._done(now)

    def forget(self, peer: PeerId) -> None:
        """A member has left, or we have its record no longer: it cannot be linked to."""
        self.known.pop(peer, None)
        self._absent.pop(peer, None)
        self.passive.remove(peer)

    # --- messages ------------------------------------------------------------------------------

    def on_join(self, peer: PeerId, record: bytes, now: float) -> list[Fact]:
        """JOIN: a newcomer has us as its contact (§4.2, Algorithm 1)."""
        self._now = now
        self._add_active(peer)
        # A random walk of FORWARDJOIN starts at each of the other neighbours.
        for neighbour in list(self.active):
            if neighbour != peer:
                self._send(neighbour, m.ForwardJoin(peer, self.parameters.active_walk, record))
        return self._done(now)

    def on_forward_join(self, peer: PeerId, message: m.ForwardJoin, now: float) -> list[Fact]:
        """FORWARDJOIN: the walk of a newcomer ends here or goes on (§4.2, Algorithm 1)."""
        self._now = now
        newcomer = PeerId(message.newcomer)
        ttl = min(message.ttl, self.parameters.active_walk)
        if newcomer == self.context.peer_id or newcomer not in self.known:
            return self._done(now)
        others = [each for each in self.active if each not in (peer, newcomer)]
        if ttl == 0 or not others:
            # Deviation: the paper adds the newcomer over a fresh connection; here it is asked with
            # high priority, over a link that may have to be opened first.
            self._want(newcomer, high=True)
        else:
            if ttl == self.parameters.passive_walk:
                self.passive.add(newcomer)
            onward = m.ForwardJoin(message.newcomer, ttl - 1, message.record)
            self._send(self.context.random.choice(others), onward)
        return self._done(now)

    def on_neighbour_ask(self, peer: PeerId, message: m.NeighbourAsk, now: float) -> list[Fact]:
        """NEIGHBOUR: a peer wants to be our neighbour (§4.3)."""
        self._now = now
        # High priority is always accepted; low priority if there is a free place. Deviation: the
        # place of a neighbour that may be dead counts as free.
        accepted = peer in self.active or message.high or self._sure < self._capacity
        self._send(peer, m.NeighbourReply(accepted))
        if accepted:
            self._add_active(peer)
        return self._done(now)

    def on_neighbour_reply(self, peer: PeerId, message: m.NeighbourReply, now: float) -> list[Fact]:
        """A peer accepts or refuses our request to be neighbours (§4.3)."""
        self._now = now
        if peer not in self._asking:
            # We have given up the request since: if the peer sees its outcome otherwise than we
            # do, neither is the other's neighbour.
            if message.accepted != (peer in self.active):
                self._send(peer, m.Disconnect())
                self._remove_active(peer)
            return self._done(now)
        self._stop_asking(peer)
        if message.accepted:
            self._add_active(peer)
        elif peer not in self.active:
            self._refusals += 1
            self._rest(peer)
            self._content_until = now + REST
            self._timers.set(Timer.REST, self._content_until)
        return self._done(now)

    def on_disconnect(self, peer: PeerId, now: float) -> list[Fact]:
        """DISCONNECT: a neighbour has dropped us; it goes to our passive view (Algorithm 1)."""
        self._now = now
        if self._remove_active(peer):
            if not self.context.settings.resort:
                self._dropped += 1
            self.passive.add(peer)
            self._rest(peer)
        return self._done(now)

    def shrink(self) -> list[Fact]:
        """A shuffle begins; at each of them, a view that is too large loses one neighbour.

        It is too large when the mesh has grown beyond `full_mesh`.
        """
        self._dropped = 0
        if len(self.active) > self._capacity:
            self._drop_random()
        facts, self._facts = self._facts, []
        return facts

    # --- the views -------------------------------------------------------------------------------

    @property
    def _capacity(self) -> int:
        """How many neighbours we want: everybody while the mesh is small."""
        if len(self.known) - len(self._absent) < self.parameters.full_mesh:
            return self.parameters.full_mesh - 1
        return self.parameters.active_size

    @property
    def _sure(self) -> int:
        """How many neighbours are not in doubt."""
        return len(self.active) - len(self._doubtful)

    def _add_active(self, peer: PeerId) -> None:
        """The paper's addNodeActiveView: a random neighbour makes room if the view is full."""
        if peer in self.active or peer not in self.links:
            return
        if len(self.active) >= self._capacity:
            self._drop_random()
        self.passive.on_promoted(peer)
        self._resting.pop(peer, None)
        self._stop_asking(peer)
        self.active[peer] = None
        self._refusals = 0
        self._facts.append(NeighbourUp(peer))

    def _drop_random(self) -> None:
        """The paper's dropRandomElementFromActiveView.

        Deviation: a neighbour that may be dead is dropped before any other.
        """
        peer = self.context.random.choice(list(self._doubtful or self.active))
        self._send(peer, m.Disconnect())
        self._remove_active(peer)
        self.passive.add(peer)

    def _remove_active(self, peer: PeerId) -> bool:
        """Out of the active view; returns whether it was in it."""
        if peer not in self.active:
            return False
        del self.active[peer]
        self._doubtful.pop(peer, None)
        self._facts.append(NeighbourDown(peer))
        return True

    # --- repair (§4.3) ---------------------------------------------------------------------------

    def _repair(self) -> None:
        """Ask passive peers, a few at a time, until the active view is full (§4.3)."""
        if not self._sure and self.context.settings.resort:
            self._ask_linked()
        hopeful = len(self._asking) - len(self._slow)
        missing = self._capacity - len(self.active) - hopeful
        if self.active:
            missing -= self._dropped
        if self._doubtful:
            # Deviation: others are asked while fewer than half are surely there.
            missing = max(missing, (self._capacity + 1) // 2 - self._sure - hopeful)
        if missing == 1 and self._now < self._content_until and self.active:
            return  # Deviation: other views are full, so one place may stay free for a while.
        room = min(missing, REPAIRS_AT_ONCE - hopeful, REPAIRS_MAX - len(self._asking))
        if room <= 0:
            return
        # Deviation: BASALT's samples come first; and if nobody in the passive view can be asked,
        # any member whose record we hold is (`Settings.resort`).
        rested = self._rested(self.passive.candidates()) or self._rested(self.passive.peers)
        if not rested and self.context.settings.resort:
            rested = self._rested(self.known)
        for peer in self.context.random.sample(rested, min(room, len(rested))):
            # High priority if the active view is empty. Deviation: or if nobody in it is surely
            # there, or too many have refused us (see the head of this file).
            urgent = not self._sure or self._is_shut_out
            if urgent:
                self._refusals = 0
            self._want(peer, high=urgent)
        if not rested and self._resting:
            self._timers.set(Timer.REST, min(self._resting.values()))

    def _ask_linked(self) -> None:
        """Nobody refuses high priority, and there is no link to wait for."""
        asked = sum(peer in self.links for peer in self._asking)
        spare = [
            each for each in self.links if each not in self.active and each not in self._asking
        ]
        room = max(0, min(REPAIRS_AT_ONCE - asked, len(spare)))
        for peer in self.context.random.sample(spare, room):
            self._ask(peer, high=True)

    @property
    def _is_shut_out(self) -> bool:
        """Whether as many peers in a row have refused us as we want neighbours."""
        return self._refusals >= self._capacity and self.context.settings.resort

    def _rested(self, peers: dict[PeerId, None]) -> list[PeerId]:
        """Those of these peers that can be asked now."""
        return [
            peer
            for peer in peers
            if peer not in self._resting and peer not in self._asking and peer not in self.active
        ]

    def _want(self, peer: PeerId, *, high: bool) -> None:
        """Ask a peer to be our neighbour, as soon as there is a link to it."""
        if peer in self.active or peer in self._asking:
            return
        if peer in self.links:
            self._ask(peer, high=high)
        elif self.opens_links:
            self._asking[peer] = high
            self._timers.set((PeerTimer.GIVE_UP, peer), self._now + WANT_TIMEOUT)
            self._timers.set((PeerTimer.SLOW, peer), self._now + WANT_PATIENCE)
            self._facts.append(Wanted(peer))

    def _ask(self, peer: PeerId, *, high: bool) -> None:
        """Send NEIGHBOUR over a link that stands (§4.3: high priority when the view is empty)."""
        if peer not in self.active:
            self._stop_asking(peer)
            self._asking[peer] = high
            self._timers.set((PeerTimer.GIVE_UP, peer), self._now + ASK_TIMEOUT)
            self._send(peer, m.NeighbourAsk(high=high or not self._sure))

    def _rest(self, peer: PeerId, span: float = REST) -> None:
        """Do not ask this peer for so many seconds."""
        if peer in self.known or peer in self.passive.peers:
            self._resting.pop(peer, None)
            while len(self._resting) >= KNOWN_MAX:
                del self._resting[next(iter(self._resting))]
            self._resting[peer] = self._now + span
            self._rested_at = min(self._rested_at, self._now + span)

    def _wake_rested(self) -> None:
        self._resting = {peer: at for peer, at in self._resting.items() if at > self._now}
        self._rested_at = min(self._resting.values(), default=NEVER)

    def _learn(self, peer: PeerId) -> None:
        """There is such a member; of too many, the longest known without a link is forgotten."""
        if peer not in self.known and len(self.known) >= KNOWN_MAX:
            spare = (each for each in self.known if each not in self.links)
            self.forget(next(spare, peer))
        self.known.setdefault(peer)

    def _miss(self, peer: PeerId) -> None:
        """A member is not there any more: look for it from time to time."""
        if peer in self.known and self.context.settings.resort:
            self._absent[peer] = None
            self._seek_later()

    def _seek_later(self) -> None:
        if Timer.SEEK not in self._timers:
            wait = SEEK_INTERVAL * self.context.random.uniform(0.5, 1.5)
            self._timers.set(Timer.SEEK, self._now + wait)

    def _seek(self) -> None:
        """Deviation: ask one absent member with high priority (see the head of this file)."""
        absent = self._rested(self._absent)
        if absent and len(self._asking) < REPAIRS_AT_ONCE:
            self._want(self.context.random.choice(absent), high=True)
        if self._absent:
            self._seek_later()

    def _has_returned(self, peer: PeerId) -> bool:
        """Note that it is there; whether it is to be asked because it was absent.

        Of many that come back at once, one is enough to make two parts one mesh.
        """
        returned = peer in self._absent and self._now >= self._reunited_until
        self._absent.pop(peer, None)
        if returned:
            self._reunited_until = self._now + SEEK_INTERVAL
        return returned

    def _stop_asking(self, peer: PeerId) -> None:
        self._asking.pop(peer, None)
        self._slow.pop(peer, None)
        self._timers.stop((PeerTimer.GIVE_UP, peer))
        self._timers.stop((PeerTimer.SLOW, peer))

    # --- time ------------------------------------------------------------------------------------

    def on_time(self, now: float) -> list[Fact]:
        """Give up who takes too long, and look for who is absent."""
        self._now = now
        due = self._timers.pop_due(now)
        for name in due:
            if isinstance(name, tuple):
                self._on_peer_timer(*name)
            elif name is Timer.SEEK:
                self._seek()
            elif name is Timer.REST:
                pass  # `_done` asks who has rested.
            else:
                assert_never(name)
        return self._done(now) if due else []

    def _on_peer_timer(self, timer: PeerTimer, peer: PeerId) -> None:
        match timer:
            case PeerTimer.SLOW:
                self._slow[peer] = None
            case PeerTimer.GIVE_UP:
                self._stop_asking(peer)
                self._rest(peer)
            case _:
                assert_never(timer)

    def _done(self, now: float) -> list[Fact]:
        """Repair the active view if places are free, and hand over the facts."""
        if now >= self._rested_at:
            self._wake_rested()
        self._repair()
        facts, self._facts = self._facts, []
        return facts

    def _send(self, peer: PeerId, message: m.Message) -> None:
        link = self.links.get(peer)
        if link is not None:
            self.context.emit(Transmit(link, message))
