"""Whom a node is linked to, and why: the views and the ring, and the links that both use.

The views (HyParView) want random neighbours for gossip, the ring wants ring and long links for
routing. Either may use a link that the other asked for; a link that neither uses is a guest's.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import assert_never

from overlay.core.context import Context
from overlay.core.membership.basalt import Ask, Basalt, Slots
from overlay.core.membership.hyparview import Fact as ViewFact
from overlay.core.membership.hyparview import (
    HyParView,
    NeighbourDown,
    NeighbourUp,
    Parameters,
    Wanted,
)
from overlay.core.membership.link_uses import LinkUses, Use, UsesChanged
from overlay.core.membership.shuffles import Sampled, ShuffledView, ShuffleParameters
from overlay.core.routing.ring import (
    Held,
    LocateNeeded,
    Needed,
    Released,
    Ring,
    RingFact,
    RingParameters,
)
from overlay.core.types import EndReason, GoodbyeCode, LinkId, PeerId
from overlay.core.wire import messages as m

ABSENT = {EndReason.BROKEN, EndReason.GONE}
"""Ends of links after which their peer is nowhere to be found."""


@dataclass(frozen=True, slots=True)
class Overstayed:
    """The link to this peer serves nothing, and the time of a guest is up."""

    peer: PeerId


NeighbourFact = (
    NeighbourUp | NeighbourDown | Wanted | LocateNeeded | Ask | Sampled | Overstayed | UsesChanged
)


@dataclass(slots=True)
class Neighbourhood:
    """Composes the machines that want links. Its methods return facts."""

    context: Context
    record_of: Callable[[PeerId], bytes | None]
    owner_of: Callable[[bytes], PeerId | None]
    """Whose record this claims to be."""
    prefix: Callable[[PeerId], str]
    """The address prefix in a member's record: one attacker may have all addresses of a prefix."""
    is_served: Callable[[PeerId], bool]
    """Whether we relay for a peer."""
    views: HyParView = field(init=False)
    passive: Basalt | ShuffledView = field(init=False)
    ring: Ring = field(init=False)
    uses: LinkUses = field(init=False)
    _facts: list[NeighbourFact] = field(default_factory=list)

    def __post_init__(self) -> None:
        settings = self.context.settings
        parameters = Parameters(settings.active_size, full_mesh=settings.mesh_size)
        side = settings.ring_side if settings.auto else 0
        self.views = HyParView(self.context, parameters, opens_links=settings.auto)
        self.passive = self.views.passive = self._policy()
        self.ring = Ring(self.context, RingParameters(side, settings.long_links))
        self.uses = LinkUses(self.context, self.ring.is_near, self.is_served)

    def _policy(self) -> Basalt | ShuffledView:
        """How the passive view is filled."""
        settings, views = self.context.settings, self.views
        if settings.passive_policy == "basalt":
            slots = Slots(settings.passive_size, settings.exchange_interval)
            return Basalt(self.context, slots, self.record_of, self.owner_of, self.prefix)
        return ShuffledView(
            self.context,
            ShuffleParameters(settings.passive_size),
            views.active,
            views.links,
            views.known,
            self.record_of,
        )

    def passive_view(self) -> list[PeerId]:
        """The passive view; of BASALT, each peer once for each slot that it holds."""
        passive = self.passive
        return passive.slots() if isinstance(passive, Basalt) else list(passive.peers)

    def samples(self) -> list[PeerId]:
        """BASALT's last samples, the newest last."""
        return list(self.passive.samples) if isinstance(self.passive, Basalt) else []

    # --- links ---------------------------------------------------------------------------------

    def on_linked(
        self, peer: PeerId, link: LinkId, *, ours: bool, join: bool, now: float
    ) -> list[NeighbourFact]:
        """A link stands, or stands on another path."""
        self.uses.on_linked(peer, link, now)
        if isinstance(self.passive, Basalt):
            self.passive.on_linked(peer)
        self._take(self.views.on_linked(peer, link, ours=ours, join=join, now=now), now)
        return self._done(self.ring.on_linked(peer, now), now)

    def on_heard_again(self, peer: PeerId, link: LinkId, now: float) -> list[NeighbourFact]:
        """A silent link is back."""
        self._take(self.views.on_heard_again(peer, link, now), now)
        return self._done(self.ring.on_linked(peer, now), now)

    def on_doubt(self, peer: PeerId, now: float, *, doubtful: bool) -> list[NeighbourFact]:
        """A check of a link has gone unanswered, or is answered again."""
        return self._done(self.views.on_doubt(peer, now, doubtful=doubtful), now)

    def on_silent(self, peer: PeerId, now: float) -> list[NeighbourFact]:
        """A link is silent: others take its place in view and ring, but it is not ended."""
        for use in (Use.VIEW, Use.RING, Use.LONG):
            self._facts += self.uses.release(peer, use, now)
        self._take(self.views.on_unlinked(peer, now, absent=True), now)
        return self._done(self.ring.on_unlinked(peer, now), now)

    def on_unlinked(self, peer: PeerId, code: str, now: float) -> list[NeighbourFact]:
        """A link has ended."""
        self.uses.on_unlinked(peer)
        if code == GoodbyeCode.LEAVE:
            self.views.forget(peer)
        self._take(self.views.on_unlinked(peer, now, absent=code in ABSENT), now)
        self._take(self.ring.on_unlinked(peer, now), now)
        if code == GoodbyeCode.LEAVE:
            self.ring.forget(peer, now)
        return self._done([], now)

    def on_unreachable(self, peer: PeerId, now: float) -> list[NeighbourFact]:
        """A link that was wanted did not come about."""
        self._take(self.views.on_unreachable(peer, now), now)
        return self._done(self.ring.on_unreachable(peer, now), now)

    def keep(self, peer: PeerId, now: float) -> list[NeighbourFact]:
        """A command asked for a link to this peer: it stays."""
        self._facts += self.uses.hold(peer, Use.KEPT, now)
        return self._done([], now)

    def on_relay(self, relay: PeerId, now: float, *, used: bool) -> list[NeighbourFact]:
        """Circuits of ours run over the link to this peer, or do so no longer."""
        change = self.uses.hold if used else self.uses.release
        self._facts += change(relay, Use.RELAY, now)
        return self._done([], now)

    def link_of(self, peer: PeerId) -> LinkId:
        """The link to a neighbour of the active view."""
        return self.views.links[peer]

    # --- members -------------------------------------------------------------------------------

    def on_known(self, peer: PeerId, now: float) -> list[NeighbourFact]:
        """A member has been heard of by its record."""
        self._take(self.views.on_known(peer, now), now)
        if isinstance(self.passive, Basalt):
            self.passive.on_record(peer)
        return self._done(self.ring.on_known(peer, now), now)

    def on_evicted(self, peer: PeerId, now: float) -> None:
        """The book of records had no room for a member's, or has forgotten it."""
        self.views.forget(peer)
        if peer not in self.ring.linked:
            self.ring.forget(peer, now)

    def on_recalled(self, peers: list[PeerId], now: float) -> list[NeighbourFact]:
        """Peers met before this node was restarted."""
        return self._done(self.views.on_recalled(peers, now), now)

    def on_neighbours(self, peers: list[PeerId], now: float) -> list[NeighbourFact]:
        """A neighbour says who its neighbours are."""
        return self._done(self.ring.on_heard(peers, now), now)

    def on_located(self, place: int, peers: list[PeerId], now: float) -> list[NeighbourFact]:
        """Who is nearest to a place that the ring asked about."""
        return self._done(self.ring.on_located(place, peers, now), now)

    # --- messages ------------------------------------------------------------------------------

    def on_message(
        self, peer: PeerId, message: m.NeighbourMessage, record: bytes, now: float
    ) -> list[NeighbourFact]:
        """HyParView's messages, and what a peer counts on its link for."""
        view = self.views
        match message:
            case m.JoinView():
                facts = view.on_join(peer, record, now)
            case m.ForwardJoin():
                facts = view.on_forward_join(peer, message, now)
            case m.NeighbourAsk():
                facts = view.on_neighbour_ask(peer, message, now)
            case m.NeighbourReply():
                facts = view.on_neighbour_reply(peer, message, now)
            case m.Disconnect():
                facts = view.on_disconnect(peer, now)
            case m.RecordShuffle() | m.RecordShuffleReply():
                self._on_shuffle(peer, message, now)
                facts = []
            case m.LinkUse():
                self._facts += self.uses.on_link_use(peer, message, now)
                facts = []
            case _:
                assert_never(message)
        return self._done(facts, now)

    def _on_shuffle(
        self, peer: PeerId, message: m.RecordShuffle | m.RecordShuffleReply, now: float
    ) -> None:
        """HyParView's shuffles, in which only nodes with the paper's passive view take part."""
        passive = self.passive
        if isinstance(passive, ShuffledView):
            if isinstance(message, m.RecordShuffle):
                sampled = passive.on_shuffle(peer, message, now)
            else:
                sampled = passive.on_shuffle_reply(message)
            if sampled is not None:
                self._facts.append(sampled)

    def on_sampled(self, peers: list[PeerId], sent: list[PeerId]) -> None:
        """Those of a sample whose records hold."""
        if isinstance(self.passive, ShuffledView):
            self.passive.integrate(peers, sent)

    # --- exchanges of whole views ----------------------------------------------------------------

    def allows(self, bearer: PeerId, now: float) -> bool:
        """Whether a neighbour may bring one more exchange, of its own or of others."""
        return not isinstance(self.passive, Basalt) or self.passive.allows(bearer, now)

    def is_flooding(self, bearer: PeerId, now: float) -> bool:
        """Whether a neighbour brings more exchanges than it can have to pass on."""
        return isinstance(self.passive, Basalt) and self.passive.is_flooding(bearer, now)

    def on_asked(
        self, routed: m.ViewExchange | m.RecordPull
    ) -> m.ViewExchanged | m.RecordPulled | None:
        """A member exchanges views with us, or wants records; our reply."""
        if not isinstance(self.passive, Basalt):
            return None
        if isinstance(routed, m.ViewExchange):
            return self.passive.on_view_exchange(routed)
        return self.passive.on_record_pull(routed)

    def on_answered(
        self, reply: m.ViewExchanged | m.RecordPulled, now: float
    ) -> list[NeighbourFact]:
        """What a member replied to us."""
        if not isinstance(self.passive, Basalt):
            return []
        if isinstance(reply, m.ViewExchanged):
            return [*self.passive.on_view_exchanged(reply, now)]
        return [Sampled(self.passive.on_record_pulled(reply), [])]

    def on_unanswered(self, request: bytes) -> bool:
        """A request was not passed on; returns whether it was an exchange of ours."""
        return isinstance(self.passive, Basalt) and self.passive.on_unanswered(request)

    # --- time ----------------------------------------------------------------------------------

    def on_time(self, now: float) -> list[NeighbourFact]:
        """Shuffle or exchange views, look after the ring, and end links that serve nothing."""
        self._take(self.views.on_time(now), now)
        if self._on_round(now):
            self._take(self.views.shrink(), now)
        self._take(self.ring.on_time(now), now)
        for peer in self.uses.on_time(now):
            if self.views.active:  # A node without neighbours keeps the links that it has.
                self._facts.append(Overstayed(peer))
        return self._done([], now)

    def _on_round(self, now: float) -> bool:
        """Let the passive view do what is due; returns whether a shuffle or round was."""
        if isinstance(self.passive, ShuffledView):
            return self.passive.on_time(now)
        due, asks = self.passive.on_time(now)
        self._facts += asks
        return due

    # --- what the machines say -----------------------------------------------------------------

    def _take(self, facts: list[ViewFact] | list[RingFact], now: float) -> None:
        for fact in facts:
            self._on_fact(fact, now)

    def _done(self, facts: list[ViewFact] | list[RingFact], now: float) -> list[NeighbourFact]:
        self._take(facts, now)
        done, self._facts = self._facts, []
        return done

    def _on_fact(self, fact: ViewFact | RingFact, now: float) -> None:
        match fact:
            case NeighbourUp(peer):
                self._facts += self.uses.hold(peer, Use.VIEW, now)
                self.passive.begin(now)
                self._facts.append(fact)
            case NeighbourDown(peer):
                self._facts += self.uses.release(peer, Use.VIEW, now)
                self._facts.append(fact)
            case Wanted() | LocateNeeded():
                self._facts.append(fact)
            case Needed(peer):
                self._facts.append(Wanted(peer))
            case Held(peer, ring):
                self._facts += self.uses.hold(peer, Use.RING if ring else Use.LONG, now)
            case Released(peer):
                self._facts += self.uses.release(peer, Use.RING | Use.LONG, now)
            case _:
                assert_never(fact)
