"""HyParView: a small symmetric active view to send over, a larger passive one to repair it from.

J. Leitão, J. Pereira, L. Rodrigues, "HyParView: a membership protocol for reliable gossip-based
broadcast", DSN 2007; pages and sections below are of the technical report DI-FCUL TR-07-13. An
active neighbour is a peer with an open link that both ends have agreed to use for gossip. Opening
links is the ladder's work: this machine says whom it wants and hears who came. The passive view is
another's (`overlay.core.membership.shuffles`).

Deviations: absent members are sought now and then and taken into the view at another's expense, so
that the parts of a divided mesh, each of them content, become one again. And whoever has been
refused by as many as it wants asks the next with high priority: six full views may be closed in
themselves, and three nodes outside with nobody but each other.
"""

from dataclasses import dataclass, field

import msgspec

from overlay.core.context import Context
from overlay.core.events import Transmit
from overlay.core.membership.shuffles import PassiveView
from overlay.core.timers import NEVER, Timers
from overlay.core.types import LinkId, PeerId
from overlay.core.wire import messages as m

__all__ = ["Fact", "HyParView", "NeighborDown", "NeighborUp", "Parameters", "Wanted"]

ASK_TIMEOUT = 5.0
"""Seconds (guess) that a peer gets to say whether it takes us in."""
WANT_TIMEOUT = 20.0
"""Seconds (guess) that a wanted link may take to come about, whatever the ladder tries."""
WANT_PATIENCE = 1.5
"""Seconds (guess) after which a wanted peer is given company: after a mass crash, many of those
that could be wanted are dead, and each of them takes the ladder many seconds to give up."""
REPAIRS_AT_ONCE = 2
REPAIRS_MAX = 8
"""Peers (guess) asked or wanted at once, those included that have had their time."""
SECOND_ASK = 1.5
"""Seconds (guess) that of two peers new to each other the lower id leaves to the higher."""
REST = 30.0
"""Seconds (guess) before a peer that refused or could not be reached is asked again."""
SEEK_INTERVAL = 20.0
"""Seconds (guess) between two attempts to find an absent member again, even with a full view."""
KNOWN_MAX = 1024
"""As many as the book holds records; of more, whom we have heard of first is forgotten."""


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


# --- facts, for the composed node ----------------------------------------------------------------


class NeighborUp(msgspec.Struct, frozen=True, gc=False):
    """A peer is in the active view now."""

    peer: PeerId


class NeighborDown(msgspec.Struct, frozen=True, gc=False):
    """A peer is no longer in the active view."""

    peer: PeerId


class Wanted(msgspec.Struct, frozen=True, gc=False):
    """Open a link to this peer; `on_linked` or `on_unreachable` is expected to follow."""

    peer: PeerId


Fact = NeighborUp | NeighborDown | Wanted


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
    _asking: dict[PeerId, bool] = field(default_factory=dict)
    """Peers wanted for the active view; the value: with high priority."""
    _slow: dict[PeerId, None] = field(default_factory=dict)
    """Of the peers wanted, those whose link has been a long time coming."""
    _doubtful: dict[PeerId, None] = field(default_factory=dict)
    """Active neighbours that have left a check unanswered: they may be dead."""
    _resting: dict[PeerId, float] = field(default_factory=dict)
    _rested_at: float = NEVER
    """When the first of them has rested."""
    _absent: dict[PeerId, None] = field(default_factory=dict)
    """Members that fell silent or could not be reached when last tried: not counted as there."""
    passive: PassiveView = field(init=False)
    """Set by whoever chooses the policy."""
    _timers: Timers[tuple[str, bytes]] = field(init=False)
    _facts: list[Fact] = field(default_factory=list)
    _now: float = 0.0
    _content_until: float = 0.0
    """A live peer has refused us: until then, one free place is no reason to ask another."""
    _dropped: int = 0
    """Neighbours that had to make room and are not replaced before the next shuffle (Algorithm 1);
    of the paper alone: what was shuffled last leads to near ones, and triangles close."""
    _refusals: int = 0
    """In a row, since a peer last became a neighbour."""

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
        self._absent.pop(peer, None)
        self._doubtful.pop(peer, None)
        if join:
            self._send(peer, m.JoinView())
            self._activate(peer)
        elif peer in self._asking or (ours and len(self.active) < self._capacity):
            self._ask(peer, high=self._asking.get(peer, False))
        return self._done(now)

    def on_heard_again(self, peer: PeerId, link: LinkId, now: float) -> list[Fact]:
        """A silent link is back; only one end may have noticed that it was gone."""
        self._now = now
        self.links[peer] = link
        self._absent.pop(peer, None)
        if len(self.active) < self._capacity:
            self._ask(peer, high=False)
        else:
            self._stop_asking(peer)
            self._send(peer, m.Disconnect())
        return self._done(now)

    def on_doubt(self, peer: PeerId, now: float, *, doubtful: bool) -> list[Fact]:
        """A neighbour has not answered, or again; if most have not, certainty would come late."""
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
        if self._deactivate(peer):
            (self.passive.lose if absent else self.passive.remember)(peer)
        self._rest(peer)
        if absent and peer in self.known:
            self._miss(peer)
        return self._done(now)

    def on_unreachable(self, peer: PeerId, now: float) -> list[Fact]:
        """A wanted link did not come about (§4.3: drop it from the passive view, try another)."""
        self._now = now
        if peer in self._asking and peer not in self.links:
            self._stop_asking(peer)
            self.passive.discard(peer)
            self._miss(peer)
            self._rest(peer)
        return self._done(now)

    def on_known(self, peer: PeerId, now: float) -> list[Fact]:
        """A member has been heard of by its record."""
        self._now = now
        self._absent.pop(peer, None)
        if peer not in self.known:
            self._learn(peer)
            if self.context.peer_id < peer:
                self._rest(peer, SECOND_ASK)  # it sees us, too: let it come first
        self.passive.hear(peer)
        return self._done(now)

    def on_recalled(self, peers: list[PeerId], now: float) -> list[Fact]:
        """Peers met in an earlier life: ask as many at once as the view has room for."""
        self._now = now
        for peer in self.context.random.sample(peers, min(self._capacity, len(peers))):
            self._resting.pop(peer, None)
            self._want(peer, high=False)
        return self._done(now)

    def forget(self, peer: PeerId) -> None:
        """A member has left or its record has expired: it is nobody to link to."""
        self.known.pop(peer, None)
        self._absent.pop(peer, None)
        self.passive.discard(peer)

    # --- messages ------------------------------------------------------------------------------

    def on_join(self, peer: PeerId, record: bytes, now: float) -> list[Fact]:
        """A newcomer joins through us: take it in, and send word of it on walks (§4.2)."""
        self._now = now
        self._activate(peer)
        for neighbour in list(self.active):
            if neighbour != peer:
                self._send(neighbour, m.ForwardJoin(peer, self.parameters.active_walk, record))
        return self._done(now)

    def on_forward_join(self, peer: PeerId, message: m.ForwardJoin, now: float) -> list[Fact]:
        """Word of a newcomer: its walk ends here, or goes on (§4.2, Algorithm 1)."""
        self._now = now
        newcomer = PeerId(message.newcomer)
        ttl = min(message.ttl, self.parameters.active_walk)
        if newcomer == self.context.peer_id or newcomer not in self.known:
            return self._done(now)
        others = [each for each in self.active if each not in (peer, newcomer)]
        if ttl == 0 or not others:
            self._want(newcomer, high=True)
        else:
            if ttl == self.parameters.passive_walk:
                self.passive.remember(newcomer)
            onward = m.ForwardJoin(message.newcomer, ttl - 1, message.record)
            self._send(self.context.random.choice(others), onward)
        return self._done(now)

    def on_neighbour_ask(self, peer: PeerId, message: m.NeighbourAsk, now: float) -> list[Fact]:
        """A peer wants us in its view: always with high priority, else if there is room (§4.3)."""
        self._now = now
        accepted = peer in self.active or message.high or self._sure < self._capacity
        self._send(peer, m.NeighbourReply(accepted))
        if accepted:
            self._activate(peer)
        return self._done(now)

    def on_neighbour_reply(self, peer: PeerId, message: m.NeighbourReply, now: float) -> list[Fact]:
        """What a peer says to our asking."""
        self._now = now
        if peer not in self._asking:
            if message.accepted != (peer in self.active):  # to what has been taken back since
                self._send(peer, m.Disconnect())
                self._deactivate(peer)
            return self._done(now)
        self._stop_asking(peer)
        if message.accepted:
            self._activate(peer)
        elif peer not in self.active:
            self._refusals += 1
            self._rest(peer)
            self._content_until = now + REST
            self._timers.set(("rest", b""), self._content_until)
        return self._done(now)

    def on_disconnect(self, peer: PeerId, now: float) -> list[Fact]:
        """A neighbour had to make room: it goes to our passive view (Algorithm 1)."""
        self._now = now
        if self._deactivate(peer):
            self._dropped += not self.context.settings.resort
            self.passive.remember(peer)
            self._rest(peer)
        return self._done(now)

    def shrink(self) -> list[Fact]:
        """A shuffle begins. The mesh may have outgrown being full: one neighbour has to go."""
        self._dropped = 0
        if len(self.active) > self._capacity:
            self._drop_one()
        facts, self._facts = self._facts, []
        return facts

    # --- the views -------------------------------------------------------------------------------

    @property
    def _capacity(self) -> int:
        """Active neighbours that we aim for: everybody while there are few."""
        if len(self.known) - len(self._absent) < self.parameters.full_mesh:
            return self.parameters.full_mesh - 1
        return self.parameters.active_size

    @property
    def _sure(self) -> int:
        """Active neighbours that nothing speaks against."""
        return len(self.active) - len(self._doubtful)

    def _activate(self, peer: PeerId) -> None:
        """Into the active view, at a random neighbour's expense if it is full (Algorithm 1)."""
        if peer in self.active or peer not in self.links:
            return
        if len(self.active) >= self._capacity:
            self._drop_one()
        self.passive.promote(peer)
        self._resting.pop(peer, None)
        self._stop_asking(peer)
        self.active[peer] = None
        self._refusals = 0
        self._facts.append(NeighborUp(peer))

    def _drop_one(self) -> None:
        """A random neighbour has to go, and is told (§4.2); one that may be dead goes first."""
        peer = self.context.random.choice(list(self._doubtful or self.active))
        self._send(peer, m.Disconnect())
        self._deactivate(peer)
        self.passive.remember(peer)

    def _deactivate(self, peer: PeerId) -> bool:
        if peer not in self.active:
            return False
        del self.active[peer]
        self._doubtful.pop(peer, None)
        self._facts.append(NeighborDown(peer))
        return True

    # --- repair (§4.3) ---------------------------------------------------------------------------

    def _repair(self) -> None:
        """Promote passive peers until the active view is full, a few at a time."""
        hopeful = len(self._asking) - len(self._slow)
        missing = self._capacity - len(self.active) - hopeful
        if self.active:
            missing -= self._dropped
        if self._doubtful:
            missing = max(missing, (self._capacity + 1) // 2 - self._sure - hopeful)
        if missing == 1 and self._now < self._content_until and self.active:
            return  # everybody else is full: one place may stay free for a while
        room = min(missing, REPAIRS_AT_ONCE - hopeful, REPAIRS_MAX - len(self._asking))
        if room <= 0:
            return
        rested = self._rested(self.passive.candidates()) or self._rested(self.passive.peers)
        if not rested and self.context.settings.resort:
            rested = self._rested(self.known)
        for peer in self.context.random.sample(rested, min(room, len(rested))):
            urgent = not self._sure or self._is_shut_out
            self._refusals = 0 if urgent else self._refusals
            self._want(peer, high=urgent)
        if not rested and self._resting:
            self._timers.set(("rest", b""), min(self._resting.values()))

    @property
    def _is_shut_out(self) -> bool:
        """Whether as many as we want have refused us, with nobody taking us in between."""
        return self._refusals >= self._capacity and self.context.settings.resort

    def _rested(self, peers: dict[PeerId, None]) -> list[PeerId]:
        """Those that could be asked now."""
        return [
            peer
            for peer in peers
            if peer not in self._resting and peer not in self._asking and peer not in self.active
        ]

    def _want(self, peer: PeerId, *, high: bool) -> None:
        if peer in self.active or peer in self._asking:
            return
        if peer in self.links:
            self._ask(peer, high=high)
        elif self.opens_links:
            self._asking[peer] = high
            self._timers.set(("ask", peer), self._now + WANT_TIMEOUT)
            self._timers.set(("slow", peer), self._now + WANT_PATIENCE)
            self._facts.append(Wanted(peer))

    def _ask(self, peer: PeerId, *, high: bool) -> None:
        """Over a link that stands (§4.3: with high priority when the view is empty)."""
        if peer not in self.active:
            self._stop_asking(peer)
            self._asking[peer] = high
            self._timers.set(("ask", peer), self._now + ASK_TIMEOUT)
            self._send(peer, m.NeighbourAsk(high=high or not self._sure))

    def _rest(self, peer: PeerId, span: float = REST) -> None:
        if peer in self.known or peer in self.passive.peers:
            self._resting.pop(peer, None)
            while len(self._resting) >= KNOWN_MAX:  # of more newcomers than we can know
                del self._resting[next(iter(self._resting))]
            self._resting[peer] = self._now + span
            self._rested_at = min(self._rested_at, self._now + span)

    def _wake_rested(self) -> None:
        self._resting = {peer: at for peer, at in self._resting.items() if at > self._now}
        self._rested_at = min(self._resting.values(), default=NEVER)

    def _learn(self, peer: PeerId) -> None:
        """There is such a member; of too many, the longest known goes that is of no use."""
        if peer not in self.known and len(self.known) >= KNOWN_MAX:
            spare = (each for each in self.known if each not in self.links)
            self.forget(next(spare, peer))
        self.known.setdefault(peer)

    def _miss(self, peer: PeerId) -> None:
        """A member is not where it was: seek it from time to time."""
        if peer in self.known and self.context.settings.resort:
            self._absent[peer] = None
            self._seek_later()

    def _seek_later(self) -> None:
        if ("seek", b"") not in self._timers:
            wait = SEEK_INTERVAL * self.context.random.uniform(0.5, 1.5)
            self._timers.set(("seek", b""), self._now + wait)

    def _seek(self) -> None:
        """Look for one absent member; if it answers, it gets a place (see the deviation above)."""
        absent = self._rested(self._absent)
        if absent and len(self._asking) < REPAIRS_AT_ONCE:
            self._want(self.context.random.choice(absent), high=True)
        if self._absent:
            self._seek_later()

    def _stop_asking(self, peer: PeerId) -> None:
        self._asking.pop(peer, None)
        self._slow.pop(peer, None)
        self._timers.stop(("ask", peer))
        self._timers.stop(("slow", peer))

    # --- time ------------------------------------------------------------------------------------

    def on_time(self, now: float) -> list[Fact]:
        """Shuffle, forget, and ask somebody else when an answer takes too long."""
        self._now = now
        due = self._timers.pop_due(now)
        for kind, name in due:
            if kind == "seek":
                self._seek()
            elif kind == "slow":
                self._slow[PeerId(name)] = None
            elif kind == "ask":
                peer = PeerId(name)
                self._stop_asking(peer)
                self._rest(peer)
        return self._done(now) if due else []

    def _done(self, now: float) -> list[Fact]:
        """Repair what is missing, and hand over the facts."""
        if now >= self._rested_at:
            self._wake_rested()
        self._repair()
        facts, self._facts = self._facts, []
        return facts

    def _send(self, peer: PeerId, message: m.Message) -> None:
        link = self.links.get(peer)
        if link is not None:
            self.context.emit(Transmit(link, message))
