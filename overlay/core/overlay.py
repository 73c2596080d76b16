"""The node's brain: composes the machines of the core behind one door and one clock.

Machines never call each other. They emit effects into one outbox and return facts; what a fact
means for the others is decided here, and only here.
"""

from collections import deque
from typing import assert_never

from overlay.core import messages as m
from overlay.core.climbing import Climbing
from overlay.core.context import Context, Settings
from overlay.core.dissemination import IN_VAIN, Dissemination
from overlay.core.events import (
    ClockSet,
    Command,
    Connect,
    DialFailed,
    Effect,
    Event,
    Join,
    Leave,
    LinkAlive,
    LinkLost,
    LinkOpened,
    LinkSilent,
    LinkSuspect,
    Listening,
    MakeInvite,
    Malformed,
    Mapped,
    PathMoved,
    PingPeer,
    Publish,
    Recall,
    Received,
    Rejected,
    Remember,
    Resolved,
    TracePeer,
    Transmit,
    Unsent,
    Wakeup,
)
from overlay.core.hyparview import (
    Fact,
    HyParView,
    NeighborDown,
    NeighborUp,
    Parameters,
    Unneeded,
    Wanted,
)
from overlay.core.inviting import Inviting
from overlay.core.ladder import Ladder
from overlay.core.links import AttemptFailed, Link, LinkFact, Links, PeerDown, PeerMoved, PeerUp
from overlay.core.membership import Membership
from overlay.core.plumtree import Plumtree
from overlay.core.records import RecordBook
from overlay.core.reflexive import Reflexive
from overlay.core.responding import Responder
from overlay.core.routing import Routing, RoutingFact
from overlay.core.timers import NEVER
from overlay.core.tracing import Tracing
from overlay.core.types import Address, Crypto, LinkId, Negotiated, PeerId, Random
from overlay.core.views import PeerView, Status, view_of

__all__ = ["Overlay", "PeerView", "Settings", "Status"]


class Overlay:
    """`handle` an event, perform the effects, come back at `next_deadline`."""

    def __init__(self, settings: Settings, crypto: Crypto, random: Random) -> None:
        self._context = context = Context(settings, crypto, random)
        self._reflexive = Reflexive()
        self._book = RecordBook(settings.network, crypto)
        self._links = Links(context)
        self._ladder = Ladder(context, self._links)
        self._routing = Routing(context)
        self._dissemination = Dissemination(context)
        self._tree = Plumtree(context)
        parameters = Parameters(
            active_size=settings.active_size,
            passive_size=settings.passive_size,
            full_mesh=settings.mesh_size,
        )
        self._views = HyParView(context, parameters, opens_links=settings.auto)
        self._membership = Membership(context, self._links, self._reflexive, self._book)
        self._inviting = Inviting(context, self._links, self._ladder, self._book, self._reflexive)
        self._tracing = Tracing(context)
        self._climbing = Climbing(
            context,
            self._links,
            self._ladder,
            self._routing,
            Responder(context, self._ladder, self._routing),
            self._book,
            self._reflexive,
            self._membership,
            self._tracing,
        )
        self._kept: dict[PeerId, None] = {}
        """Peers whom a command asked to be linked to: their links stay."""
        self._view_facts: deque[Fact] = deque()

    # --- the only door -----------------------------------------------------------------------

    def handle(self, event: Event, now: float) -> list[Effect]:
        """Take in one event; returns what is to be done. Never raises on what a peer can send."""
        if now >= self._context.agenda.earliest:
            self._on_time(now)
            self._context.agenda.settle()
        match event:
            case Received():
                self._on_received(event.link, event.message, now)
            case Wakeup():
                pass  # The due timers above were the point.
            case Unsent():
                self._tree.on_unsent(event.link, event.message)
            case ClockSet() | Listening() | Mapped() | PathMoved():
                self._on_surroundings(event, now)
            case LinkSuspect() | LinkAlive() | LinkSilent():
                self._on_liveness(event, now)
            case LinkOpened() | DialFailed() | LinkLost() | Malformed():
                self._on_link(event, now)
            case _:
                self._on_command(event, now)
        return self._context.drain()

    def next_deadline(self) -> float | None:
        """When `handle(Wakeup(), …)` next may have something to do; None for never."""
        earliest = self._context.agenda.earliest
        return None if earliest == NEVER else earliest

    # --- for looking at ----------------------------------------------------------------------

    def status(self) -> Status:
        """A snapshot of counts."""
        return Status(len(self._links.by_peer), self._routing.counters, dict(self._links.refused))

    def peers(self) -> list[PeerView]:
        """A snapshot of the neighbours, in the order in which they came."""
        links = self._links.by_peer.items()
        return [view_of(peer, link, self._book.get(peer)) for peer, link in links]

    def active_view(self) -> tuple[PeerId, ...]:
        """A snapshot of the neighbours that gossip runs over (HyParView)."""
        return tuple(self._views.active)

    def known(self) -> list[m.Record]:
        """Every other member known by its record."""
        return [each for peer in self._book.peers() if (each := self._book.get(peer))]

    # --- surroundings ------------------------------------------------------------------------

    def _on_surroundings(
        self, event: ClockSet | Listening | Mapped | PathMoved, now: float
    ) -> None:
        match event:
            case ClockSet(wall):
                self._context.wall_offset = wall - now
                self._membership.renew_soon(now)
            case Listening(addresses, advertised):
                self._reflexive.listen(addresses, advertised)
                self._membership.renew(now)
            case Mapped(link_id, address):
                self._on_mapped(link_id, address, now)
            case PathMoved(link_id, facts):
                link = self._links.by_id.get(link_id)
                if link is not None:
                    link.facts = facts
                    self._show_path(link, now)

    def _on_mapped(self, link_id: LinkId, address: Address, now: float) -> None:
        link = self._links.by_id.get(link_id)
        if link is None or link.peer is None:
            return
        moved = self._reflexive.seen_by(link.peer) not in (None, address)
        if self._reflexive.vote(link.peer, address):
            self._membership.renew_soon(now)
        if moved:
            self._show_path(link, now)

    def _show_path(self, link: Link, now: float) -> None:
        """A peer follows us to another address only when a packet of ours decrypts from there."""
        if link.peer is not None:
            self._links.ping(link, None, now)

    def _on_liveness(self, event: LinkSuspect | LinkAlive | LinkSilent, now: float) -> None:
        peer = self._links.on_liveness(event)
        if peer is None:
            return
        if isinstance(event, LinkSilent):
            self._on_routing(self._routing.remove(peer, now), now)
            self._on_views(self._views.on_unlinked(peer, now, absent=True), now)
        elif isinstance(event, LinkSuspect) or peer in self._views.links:
            doubtful = isinstance(event, LinkSuspect)
            self._on_views(self._views.on_doubt(peer, now, doubtful=doubtful), now)
        else:
            self._routing.add(peer, event.link, now)
            self._on_views(self._views.on_heard_again(peer, event.link, now), now)
        if not isinstance(event, LinkSuspect):
            self._membership.tell_soon(now)
            news = "peer_silent" if isinstance(event, LinkSilent) else "peer_up"
            self._context.report("info", news, peer=peer)

    # --- links -------------------------------------------------------------------------------

    def _on_link(self, event: LinkOpened | DialFailed | LinkLost | Malformed, now: float) -> None:
        match event:
            case LinkOpened():
                dialled = event.inbound and event.facts.token_kind is not None
                if dialled and self._reflexive.prove(event.facts.local):
                    self._membership.renew_soon(now)
                self._links.on_opened(event, now)
            case DialFailed(link_id, reason):
                text = self._links.on_dial_failed(link_id, reason)
                self._on_facts([AttemptFailed(link_id, reason, text)], now)
            case LinkLost(link_id, reason):
                self._on_facts(self._links.on_lost(link_id, reason), now)
            case Malformed(link_id, why):
                self._misbehaved(link_id, why, now)

    def _misbehaved(self, link_id: LinkId, why: str, now: float) -> None:
        """A peer's fault costs it its link and nobody else anything."""
        link = self._links.by_id.get(link_id)
        if link is not None:
            self._context.report("warning", "peer_misbehaved", peer=link.peer, why=why)
            self._on_facts(self._links.end(link, "protocol", why), now)

    def _on_facts(self, facts: list[LinkFact], now: float) -> None:
        for fact in facts:
            match fact:
                case PeerUp() | PeerMoved():
                    self._on_peer_up(fact, now)
                case PeerDown(peer, code):
                    self._on_peer_down(peer, code, now)
                case AttemptFailed(link_id, code, text):
                    self._inviting.on_attempt_failed(link_id, code, text)
                    stuck = self._climbing.on_attempt_failed(link_id, code, text, now)
                    self._on_stuck(stuck, now)
                case _:
                    assert_never(fact)

    def _on_peer_up(self, fact: PeerUp | PeerMoved, now: float) -> None:
        peer, link = fact.peer, fact.link
        if isinstance(fact, PeerUp) and not self._membership.seat(peer, now):
            self._on_facts(self._links.end(link, "full", "this node has no room for a guest"), now)
            return
        self._routing.add(peer, link.id, now)
        self._ladder.on_up(peer, link.id)
        self._inviting.on_up(link.id, peer)
        self._membership.add(fact.record, peer, now)
        if (data := self._book.bytes_of(peer)) is not None:
            self._context.emit(Remember(peer, data))
        self._membership.welcome(link)
        self._membership.tell_soon(now)
        if peer in self._tree.links:
            self._tree.add(peer, link.id, now)
        join = link.negotiated is Negotiated.INVITE and not link.inbound
        facts = self._views.on_linked(peer, link.id, ours=not link.inbound, join=join, now=now)
        self._on_views(facts, now)
        self._context.report(
            "info", "peer_up", peer=peer, negotiated=link.negotiated.value, via=link.via
        )

    def _on_peer_down(self, peer: PeerId, code: str, now: float) -> None:
        self._reflexive.forget(peer)
        self._inviting.forget(peer)
        self._membership.unseat(peer)
        self._kept.pop(peer, None)
        if code == "leave":
            self._views.forget(peer)
        # Everybody forgets the link before anybody acts on its end.
        routed = self._routing.remove(peer, now)
        self._on_views(self._views.on_unlinked(peer, now, absent=code == "broken"), now)
        self._on_routing(routed, now)
        self._membership.tell_soon(now)
        self._context.report("info", "peer_down", peer=peer, code=code)

    # --- messages ----------------------------------------------------------------------------

    def _on_received(self, link_id: LinkId, message: m.Message, now: float) -> None:
        link = self._links.by_id.get(link_id)
        if link is None:
            return
        match message:
            case m.Hello():
                self._on_facts(self._links.on_hello(link, message, self._membership.own, now), now)
            case m.Proof():
                self._on_facts(self._links.on_proof(link, message, self._membership.own, now), now)
            case m.Goodbye():
                self._on_facts(self._links.on_goodbye(link, message), now)
            case _ if link.peer is None:
                self._misbehaved(link_id, "a message before the hello was done", now)
            case _:
                self._on_peer_message(link, link.peer, message, now)

    def _on_peer_message(self, link: Link, peer: PeerId, message: m.Message, now: float) -> None:
        """A message of a peer that has proven itself; hellos were dealt with above."""
        match message:
            case m.Offer() | m.Trace():
                self._on_routing(self._routing.on_offer(peer, message, now), now)
            case m.Answer() | m.TraceReply():
                self._on_routing(self._routing.on_answer(peer, message, now), now)
            case m.SignalAck():
                self._routing.on_ack(peer, message)
            case m.Bounce():
                self._on_routing(self._routing.on_bounce(peer, message, now), now)
            case m.Neighbours(peers):
                self._routing.learn(peer, peers)
            case m.Records(records):
                for data in records:
                    self._on_record(data, peer, now)
            case m.Gossip() | m.GossipPart():
                self._on_gossip(link, peer, message, now)
            case m.Ping(token):
                self._context.emit(Transmit(link.id, m.Pong(token)))
            case m.Pong():
                self._links.on_pong(link, message, now)
                if link.rtt is not None and peer in self._routing.neighbours:
                    self._routing.neighbours[peer].srtt = link.rtt
            case m.TokenRequest():
                grant = self._inviting.grant_token(peer, message, now)
                if grant is not None:
                    self._context.emit(Transmit(link.id, grant))
            case m.TokenGrant():
                self._inviting.on_token_grant(peer, message)
            case m.Hello() | m.Proof() | m.Goodbye():
                pass
            case _:
                self._on_view_message(peer, message, now)

    def _on_view_message(self, peer: PeerId, message: m.ViewMessage, now: float) -> None:
        """HyParView's and Plumtree's."""
        views, tree = self._views, self._tree
        match message:
            case m.JoinView():
                record = self._book.bytes_of(peer) or b""
                self._on_views(views.on_join(peer, record, now), now)
            case m.ForwardJoin():
                self._on_record(message.record, peer, now)
                self._on_views(views.on_forward_join(peer, message, now), now)
            case m.NeighbourAsk():
                self._on_views(views.on_neighbour_ask(peer, message, now), now)
            case m.NeighbourReply():
                self._on_views(views.on_neighbour_reply(peer, message, now), now)
            case m.Disconnect():
                self._on_views(views.on_disconnect(peer, now), now)
            case m.Shuffle():
                self._on_views(views.on_shuffle(peer, message, now), now)
            case m.ShuffleReply():
                self._on_views(views.on_shuffle_reply(message, now), now)
            case m.IHave():
                tree.on_announcements(peer, message, now)
            case m.Graft():
                tree.on_graft(peer, message)
            case m.Prune():
                tree.on_prune(peer)
            case _:
                assert_never(message)

    def _on_gossip(self, link: Link, peer: PeerId, message: m.Published, now: float) -> None:
        if not self._tree.is_news(message.message_id):
            self._tree.on_duplicate(peer, message)
        elif (why := self._dissemination.receive(message, now, peer)) is None:
            self._tree.on_news(peer, message, now)
        elif why == IN_VAIN:
            self._tree.pass_over(message.message_id)
        else:
            self._misbehaved(link.id, why, now)

    def _on_record(self, data: bytes, bearer: PeerId, now: float) -> None:
        record = self._membership.add(data, bearer, now)
        if record is not None:
            self._on_views(self._views.on_known(PeerId(record.peer_id), now), now)

    # --- the views ---------------------------------------------------------------------------

    def _on_views(self, facts: list[Fact], now: float) -> None:
        """What the views decided; a fact may bring about others, which wait their turn."""
        busy = bool(self._view_facts)
        self._view_facts.extend(facts)
        while self._view_facts and not busy:
            self._on_view_fact(self._view_facts[0], now)
            self._view_facts.popleft()

    def _on_routing(self, facts: list[RoutingFact], now: float) -> None:
        self._on_stuck(self._climbing.on_routing(facts, now), now)

    def _on_stuck(self, peers: list[PeerId], now: float) -> None:
        """Nothing is left to try towards these peers for now: the views choose others."""
        for peer in peers:
            self._on_views(self._views.on_unreachable(peer, now), now)

    def _on_view_fact(self, fact: Fact, now: float) -> None:
        match fact:
            case NeighborUp(peer):
                self._tree.add(peer, self._views.links[peer], now)
                self._membership.unseat(peer)
            case NeighborDown(peer):
                self._tree.remove(peer)
            case Wanted(peer):
                self._on_stuck(self._climbing.start(peer, now), now)
            case Unneeded(peer):
                self._membership.dismiss(peer, now)
            case _:
                assert_never(fact)

    # --- commands ----------------------------------------------------------------------------

    def _on_command(self, command: Command, now: float) -> None:
        match command:
            case Join():
                for member in command.invite.members:
                    self._climbing.met[PeerId(member.peer_id)] = None
                self._inviting.join(command, now)
            case MakeInvite():
                self._inviting.make(command, now)
            case Connect():
                self._on_connect(command, now)
            case PingPeer():
                self._on_ping(command, now)
            case TracePeer():
                trace = self._tracing.start(command, now)
                if trace is not None:
                    self._on_routing(self._routing.send(trace, now), now)
            case Publish():
                self._broadcast(self._dissemination.publish(command, now), now)
            case Leave():
                self._links.leave()
                self._context.emit(Resolved(command.request, None))
            case Recall(records):
                self._on_recall(records, now)
            case _:
                assert_never(command)

    def _on_connect(self, command: Connect, now: float) -> None:
        peer = command.peer
        if peer == self._context.peer_id:
            text = "that is this node itself"
            self._context.emit(Rejected(command.request, "self", text))
        elif peer in self._links.by_peer and self._links.by_peer[peer].state != "silent":
            self._context.emit(Resolved(command.request, None))
        elif self._book.get(peer) is None:
            text = "no record of this peer has been heard of: is it in this network?"
            self._context.emit(Rejected(command.request, "unknown_peer", text))
        else:
            self._kept[peer] = None
            self._ladder.wait(peer, command.request, now)
            self._on_stuck(self._climbing.start(peer, now), now)

    def _on_ping(self, command: PingPeer, now: float) -> None:
        link = self._links.by_peer.get(command.peer)
        if link is None:
            text = "there is no link to this peer: connect first"
            self._context.emit(Rejected(command.request, "not_linked", text))
            return
        self._links.ping(link, command.request, now)

    def _broadcast(self, messages: list[m.Published], now: float) -> None:
        for message in messages:
            self._tree.broadcast(message, now)

    def _on_recall(self, records: tuple[bytes, ...], now: float) -> None:
        opened = [self._membership.add(data, None, now) for data in records]
        peers = [PeerId(record.peer_id) for record in opened if record is not None]
        self._climbing.met.update(dict.fromkeys(peers))
        for peer in peers:
            self._on_views(self._views.on_known(peer, now), now)
        self._on_views(self._views.on_recalled(peers, now), now)

    # --- time --------------------------------------------------------------------------------

    def _on_time(self, now: float) -> None:
        self._on_facts(self._links.on_time(now), now)
        self._on_stuck(self._climbing.on_time(now), now)
        self._on_routing(self._routing.on_time(now), now)
        for guest in self._membership.on_time(now):
            self._on_guest_over(guest, now)
        self._on_views(self._views.on_time(now), now)
        self._tree.on_time(now)
        self._broadcast(self._dissemination.on_time(now), now)
        self._tracing.on_time(now)
        self._inviting.on_time(now)

    def _on_guest_over(self, peer: PeerId, now: float) -> None:
        """A link that the view has no use for has served long enough, unless it is all we have."""
        link, active = self._links.by_peer.get(peer), self._views.active
        if link is not None and active and peer not in active and peer not in self._kept:
            self._on_facts(self._links.end(link, "unneeded", "the view has no use for it"), now)
