"""One idea: the node without its sockets, composed of the core's machines, with one entry.

A package may call those below it; nobody reaches into another's fields; what a fact means for a
package above is decided here, and only here.
"""

from typing import assert_never, cast

from overlay.core.addresses import is_circuit, is_private
from overlay.core.admission.by_hand import ByHand
from overlay.core.admission.invites import Inviting
from overlay.core.connect.connect import Connecting
from overlay.core.context import Context, Settings
from overlay.core.events import (
    AcceptAnswer,
    AnswerOffer,
    CircuitCarried,
    ClockSet,
    Command,
    Connect,
    DialFailed,
    Effect,
    Event,
    Examine,
    Foretold,
    Join,
    Leave,
    LinkAlive,
    LinkLost,
    LinkOpened,
    LinkSilent,
    LinkSuspect,
    Listening,
    MakeInvite,
    MakeOffer,
    Malformed,
    Mapped,
    PathMoved,
    PingPeer,
    PortHeard,
    PortOpened,
    Publish,
    PunchOver,
    Recall,
    Received,
    Rejected,
    Resolved,
    Seen,
    TracePeer,
    Transmit,
    Unsent,
    Wakeup,
)
from overlay.core.gossip.publications import Gossiping
from overlay.core.link.links import (
    AttemptFailed,
    Link,
    LinkFact,
    Links,
    LinkState,
    PeerDown,
    PeerMoved,
    PeerUp,
    TwinSeen,
)
from overlay.core.membership.basalt import Ask
from overlay.core.membership.elsewhere import RECORD_TICK, Elsewhere
from overlay.core.membership.hyparview import NeighbourDown, NeighbourUp, Wanted
from overlay.core.membership.link_uses import UsesChanged
from overlay.core.membership.membership import Membership
from overlay.core.membership.neighbourhood import NeighbourFact, Neighbourhood, Overstayed
from overlay.core.membership.recall import Recalling
from overlay.core.membership.records import RecordBook, RecordReader
from overlay.core.membership.shuffles import Sampled
from overlay.core.nat.knocking import Neighbour
from overlay.core.nat.nat import Nat
from overlay.core.nat.pairs import UNKNOWN
from overlay.core.nat.reflexive import Reflexive
from overlay.core.punch.sights import Witness
from overlay.core.relay.circuits import CircuitFact, Closed, Failed, RelayUsed, Stands
from overlay.core.relay.relaying import Relaying
from overlay.core.routing.lookups import Locating, Tracing
from overlay.core.routing.requests import (
    BounceCode,
    Reply,
    ReplyArrived,
    RequestArrived,
    Routed,
    RoutingFact,
    Undeliverable,
)
from overlay.core.routing.ring import LocateNeeded
from overlay.core.routing.routing import Routing
from overlay.core.snapshots import Snapshots
from overlay.core.timers import NEVER
from overlay.core.types import (
    Address,
    Crypto,
    GoodbyeCode,
    LinkId,
    Negotiated,
    PathKind,
    PeerId,
    Random,
)
from overlay.core.wire import messages as m
from overlay.core.wire.documents import Record
from overlay.errors import Failure

FULL = (GoodbyeCode.FULL, "this node has no room for a guest")
TURNS = 2
"""Turns that timers have at an event: what one makes due at once is done in the next."""
UNNEEDED = "this link serves no purpose any more; the records that it brought lead on"


class Overlay(Snapshots):
    """`handle` an event, perform the effects, come back at `next_deadline`."""

    def __init__(
        self,
        settings: Settings,
        crypto: Crypto,
        random: Random,
        reader: RecordReader | None = None,
    ) -> None:
        self._context = context = Context(settings, crypto, random)
        self.agenda = context.agenda  # the deadlines of all machines, for who asks often
        self._reflexive = Reflexive(settings.relay_only)
        self._book = book = RecordBook(settings.network, crypto, settings.records_max, reader)
        self._links = Links(context)
        self._nat = Nat(context, self._reflexive, self._neighbours, self._tell)
        self._routing = Routing(context)
        self._gossip = Gossiping(context)
        self._relaying = relaying = Relaying(context, self._links, self._routing, book)
        self._neighbourhood = Neighbourhood(
            context, self._record_of, book.owner, book.prefix_of, relaying.serving.serves
        )
        self._locating = Locating(context, self._routing, self._neighbourhood.ring)
        self._tracing = Tracing(context, self._routing)
        lasts = self._neighbourhood.uses.lasts
        self._membership = Membership(context, self._links, self._reflexive, book, lasts)
        self._elsewhere = Elsewhere(context, book)
        self._recalling = Recalling(context, self._links, book)
        self._connecting = Connecting(
            context,
            self._links,
            self._routing,
            book,
            self._reflexive,
            self._membership,
            relaying.circuits,
            self._nat_words,
            self._neighbours,
        )
        self._witness = Witness(self._seen_at)
        self._inviting = Inviting(context, self._links, self._connecting, book, self._reflexive)
        self._by_hand = ByHand(context, self._links, self._reflexive)
        # Peers whom a command asked to be linked to: their links stay.
        self._kept: dict[PeerId, None] = {}
        self._neighbour_facts: list[NeighbourFact] = []

    # --- the only entry ----------------------------------------------------------------------

    def handle(self, event: Event, now: float) -> list[Effect]:
        """Take in one event; returns what is to be done. Never raises on what a peer can send.

        `now`: seconds of a clock that never goes back.
        """
        for _ in range(TURNS):
            if now >= self.agenda.earliest:
                self.agenda.begin_turn(now)
                self._on_time(now)
        match event:
            case Received():
                self._on_received(event.link, event.message, now)
            case Wakeup():
                pass  # The due timers above were the point.
            case PortOpened() | PortHeard() | Seen():
                if isinstance(event, Seen):
                    self._by_hand.on_seen(event, now)
                self._renew_if(self._nat.on_port(event, now), now)
                self._connecting.on_nat(now)
            case Foretold() | PunchOver():
                self._on_stuck(self._connecting.on_punch(event, None, now), now)
            case CircuitCarried(circuit, size):
                self._relaying.on_carried(circuit, size, now)
            case Unsent():
                self._gossip.tree.on_unsent(event.link, event.message)
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
        earliest = self._context.agenda.settle()
        return None if earliest == NEVER else earliest

    def _nat_words(self) -> list[str]:
        words = self._nat.behaviour().words
        return words if any(word != UNKNOWN for word in words) else []

    # --- where we are ------------------------------------------------------------------------

    def _on_surroundings(
        self, event: ClockSet | Listening | Mapped | PathMoved, now: float
    ) -> None:
        """The host or a link says what time it is, or where we are."""
        match event:
            case ClockSet(wall):
                self._context.set_wall(wall, now)
                self._elsewhere.on_clock(now)
                self._membership.on_clock(now)
                self._connecting.forgive_all(now)
                self._recalling.on_surroundings(now)
            case Listening(addresses, advertised):
                self._nat.on_listening(addresses, now)
                self._reflexive.listen(addresses, advertised)
                self._membership.renew(now)
                self._connecting.forgive_all(now)
                self._connecting.upgrade_soon(now)
                self._recalling.on_surroundings(now)
            case Mapped(link_id, address):
                link = self._links.on_mapped(link_id, address)
                if link is not None:
                    self._on_mapped(link, now)
            case PathMoved(link_id, facts):
                self._links.on_path_moved(link_id, facts, now)
                link = self._links.by_id.get(link_id)
                if link is not None and link.peer is not None:
                    self._connecting.on_path(link, now)
                    self._on_path(link.peer, now)
            case _:
                assert_never(event)

    def _on_mapped(self, link: Link, now: float) -> None:
        """A link knows its peer and where that sees us, whichever it learnt first."""
        if link.peer is None or link.mapped is None:
            return
        before = self._reflexive.seen_by(link.peer)
        remote, local = link.facts.remote, link.facts.local
        if is_circuit(remote):
            return  # who relays it sees us elsewhere than the peer does
        if all(local.port != each.port for each in self._reflexive.listening):
            return  # nor is a further socket seen where the node's own is
        self._renew_if(self._reflexive.vote(link.peer, link.mapped, remote, local), now)
        elsewhere = before is None or before.host != link.mapped.host
        if elsewhere and self._reflexive.has_moved():
            self._connecting.upgrade_soon(now)
        if before not in (None, link.mapped):
            self._links.show_path(link, now)
        self._nat.consider(now)
        self._connecting.on_nat(now)

    # --- what our NAT does -------------------------------------------------------------------

    def _neighbour(self, link: Link, peer: PeerId) -> Neighbour:
        """A neighbour as knocks need it: where it is, and whether strangers reach it there."""
        remote, record = link.facts.remote, self._book.get(peer)
        entries = record.addresses if record is not None else []
        own = [each.host for each in self._reflexive.own]
        known = [each for each in entries if not (is_private(each.host) or each.host in own)]
        proven = [(each.host, each.port) for each in known if each.proven]
        hosts = tuple(each.host for each in known) if proven else ()
        by_proof = sorted(known, key=lambda each: not each.proven)
        over_ipv4 = tuple(
            Address(each.host, each.port) for each in by_proof if ":" not in each.host
        )
        local = link.facts.local
        return Neighbour(peer, link.id, remote, local, remote in proven, hosts, over_ipv4)

    def _neighbours(self) -> list[Neighbour]:
        alive = self._links.alive()
        return [self._neighbour(link, link.peer) for link in alive if link.peer is not None]

    def _seen_at(self, peer: PeerId) -> Address | None:
        """Where others may hear from us that we see this neighbour; not one that is hidden."""
        link, record = self._links.by_peer.get(peer), self._book.get(peer)
        if link is None or is_circuit(link.facts.remote):
            return None
        hidden = record is None or record.token is None
        return None if hidden or link.state is LinkState.SILENT else link.facts.remote

    def _tell(self, peer: PeerId, message: m.KnockMessage) -> None:
        link = self._links.by_peer.get(peer)
        if link is not None:
            self._context.emit(Transmit(link.id, message))

    def _renew_if(self, changed: bool, now: float) -> None:
        """Our record has to name other addresses, or others as proven."""
        if changed:
            self._membership.renew_soon(now)

    # --- links -------------------------------------------------------------------------------

    def _on_link(self, event: LinkOpened | DialFailed | LinkLost | Malformed, now: float) -> None:
        match event:
            case LinkOpened():
                dialled = event.inbound and event.facts.token_kind is not None
                dialled &= event.facts.path is not PathKind.RELAYED
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

    def _on_liveness(self, event: LinkSuspect | LinkAlive | LinkSilent, now: float) -> None:
        peer = self._links.on_liveness(event)
        if peer is None:
            return
        silent = isinstance(event, LinkSilent)
        self._renew_if(self._reflexive.on_liveness(peer, silent=silent), now)
        if not isinstance(event, LinkAlive):
            self._gossip.tree.on_loss(peer, now)
        if isinstance(event, LinkSilent):
            self._on_routing(self._routing.remove(peer, now), now)
            self._on_neighbours(self._neighbourhood.on_silent(peer, now), now)
            self._gossip.tree.on_unlinked(peer, now)  # It may have left the view when in doubt.
            self._on_presence(peer, "peer_silent", now)
        elif isinstance(event, LinkSuspect):
            self._routing.on_suspect(peer)
            self._gossip.tree.on_doubt(peer, now)
            self._on_neighbours(self._neighbourhood.on_doubt(peer, now, doubtful=True), now)
        elif peer in self._routing.neighbours:  # It was suspect, and not silent: no news to others.
            self._routing.on_alive(peer)
            self._on_neighbours(self._neighbourhood.on_doubt(peer, now, doubtful=False), now)
        else:  # It was silent: it is a neighbour again.
            self._routing.add(peer, event.link, now)
            self._on_neighbours(self._neighbourhood.on_heard_again(peer, event.link, now), now)
            self._on_presence(peer, "peer_up", now)
        if isinstance(event, LinkAlive):
            self._connecting.on_up(peer, event.link, now)
            self._inviting.on_up(event.link, peer)
            self._on_stuck(self._connecting.climb_again(now), now)
        elif (link := self._links.by_id.get(event.link)) is not None:
            self._on_stuck(self._connecting.climb(link, now), now)

    def _on_presence(self, peer: PeerId, news: str, now: float) -> None:
        """It has become a neighbour again, or has ceased to be one: tell the others and the log."""
        self._membership.tell_soon(now)
        self._recalling.on_links(now)
        self._context.report("info", news, peer=peer)

    def _misbehaved(self, link_id: LinkId, why: str, now: float) -> None:
        """A peer's fault ends its link, and no other."""
        link = self._links.by_id.get(link_id)
        if link is not None:
            self._context.report("warning", "peer_misbehaved", peer=link.peer, why=why)
            self._on_facts(self._links.end(link, GoodbyeCode.PROTOCOL, why), now)

    def _on_facts(self, facts: list[LinkFact], now: float) -> None:
        for fact in facts:
            match fact:
                case PeerUp() | PeerMoved():
                    self._on_peer_up(fact, now)
                case PeerDown(peer, code):
                    self._on_peer_down(peer, code, now)
                case TwinSeen(_, link, record):
                    self._context.emit(Transmit(link.id, m.Records([record])))
                case AttemptFailed(link_id, code, text):
                    self._inviting.on_attempt_failed(link_id, code, text, now)
                    self._by_hand.on_attempt_failed(link_id, code, text, now)
                    stuck = self._connecting.on_attempt_failed(link_id, code, text, now)
                    self._on_stuck(stuck, now)
                case _:
                    assert_never(fact)

    def _on_peer_up(self, fact: PeerUp | PeerMoved, now: float) -> None:
        peer, link = fact.peer, fact.link
        was_up = peer in self._routing.neighbours
        if isinstance(fact, PeerUp) and not self._neighbourhood.uses.has_room():
            self._membership.welcome(link, now)  # It may dial those whose records it gets.
            self._on_facts([*self._links.end(link, *FULL), AttemptFailed(link.id, *FULL)], now)
            return
        self._routing.add(peer, link.id, now)
        self._routing.on_round_trip(peer, link.rtt)
        self._connecting.on_up(peer, link.id, now)
        self._inviting.on_up(link.id, peer)
        self._by_hand.on_up(link.id, peer)
        self._add_record(fact.record, peer, now)
        self._on_mapped(link, now)
        data = self._book.bytes_of(peer)
        if data is not None and self._membership.remember(peer, data):
            self._recalling.remember(peer, data)
        self._recalling.on_links(now)
        self._membership.welcome(link, now)
        self._membership.tell_soon(now)
        self._gossip.tree.on_moved(peer, link.id)
        self._on_path(peer, now)
        around, ours = self._neighbourhood, not link.inbound
        if isinstance(fact, PeerMoved) and fact.restarted:
            # As if it had gone: the new process has us in no view, and counts on no link to us.
            self._on_neighbours(around.on_unlinked(peer, GoodbyeCode.ELSEWHERE, now), now)
        join = ours and link.negotiated in (Negotiated.INVITE, Negotiated.MANUAL)
        facts = around.on_linked(peer, link.id, ours=ours, join=join, now=now)
        if peer in self._kept:
            facts += around.keep(peer, now)
        self._on_neighbours(facts, now)
        self._on_stuck(self._connecting.climb_again(now), now)
        how, news = link.negotiated.value, "peer_moved" if was_up else "peer_up"
        self._context.report("info", news, peer=peer, negotiated=how, via=link.via)

    def _on_peer_down(self, peer: PeerId, code: str, now: float) -> None:
        self._reflexive.forget(peer)
        self._inviting.forget(peer)
        self._kept.pop(peer, None)
        self._gossip.tree.on_loss(peer, now)
        self._gossip.tree.on_unlinked(peer, now)
        # All machines forget the link before any of them acts on its end.
        routed = self._routing.remove(peer, now)
        self._on_neighbours(self._neighbourhood.on_unlinked(peer, code, now), now)
        self._on_routing(routed, now)
        self._on_path(peer, now)
        self._membership.tell_soon(now)
        self._recalling.on_links(now)
        self._context.report("info", "peer_down", peer=peer, reason=code)

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
                self._on_goodbye(link, message, now)
                self._on_facts(self._links.on_goodbye(link, message), now)
            case _ if link.peer is None:
                self._misbehaved(link_id, "a message before the hello was done", now)
            case _:
                self._on_peer_message(link, link.peer, message, now)

    def _on_goodbye(self, link: Link, message: m.Goodbye, now: float) -> None:
        """Who has preferred another node with our identity is shown a fresh record next time.

        It passes that on to the other one, who so hears of us. A stranger's word does not count.
        """
        if message.code == GoodbyeCode.ELSEWHERE and (link.peer is not None or not link.inbound):
            self._elsewhere.on_told(now)
            self._membership.renew(now)
            self._membership.renew_soon(now, RECORD_TICK)

    def _on_peer_message(self, link: Link, peer: PeerId, message: m.Message, now: float) -> None:
        """A message of a peer that has proven who it is; the most frequent kinds come first."""
        match message:
            case m.SignalAck():
                self._routing.on_ack(peer, message, now)
            case m.Neighbours():
                peers = cast(list[PeerId], message.peers)
                self._routing.on_neighbours(peer, peers)
                self._on_neighbours(self._neighbourhood.on_neighbours(peers, now), now)
            case m.Offer() | m.Trace() | m.Locate():
                self._on_routing(self._routing.on_request(peer, message, now), now)
            case m.Bounce():
                self._on_routing(self._routing.on_bounce(peer, message, now), now)
            case m.Seek() | m.Sought():
                self._on_routing(self._routing.on_seek(peer, message, now), now)
            case m.Records(records, some):
                if some:
                    self._membership.on_some(now)
                for data in records:
                    self._on_record(data, peer, now)
            case m.Answer() | m.TraceReply() | m.Located() | m.ViewExchanged() | m.RecordPulled():
                self._on_routing(self._routing.on_reply(peer, message, now), now)
            case m.ViewExchange() | m.RecordPull():
                self._on_exchange(link, peer, message, now)
            case m.Gossip() | m.GossipPart():
                why = self._gossip.on_published(peer, message, now)
                if why is not None:
                    self._misbehaved(link.id, why, now)
            case m.Ping(token):
                self._context.emit(Transmit(link.id, m.Pong(token)))
            case m.Pong():
                self._links.on_pong(link, message, now)
                self._routing.on_round_trip(peer, link.rtt)
            case m.TokenRequest():
                grant = self._inviting.grant_token(peer, message, now)
                if grant is not None:
                    self._context.emit(Transmit(link.id, grant))
            case m.TokenGrant():
                self._inviting.on_token_grant(peer, message)
            case m.Hello() | m.Proof() | m.Goodbye() | m.Shuffle() | m.ShuffleReply():
                pass
            case m.KnockAsk() | m.KnockPass() | m.Knocked() | m.KnockRefuse():
                neighbour = self._neighbour(link, peer)
                self._renew_if(self._nat.on_message(neighbour, message, now), now)
            case m.SightAsk() | m.Sight() | m.Foretell():
                self._on_punch(link, peer, message, now)
            case m.CircuitAsk() | m.CircuitOffer() | m.CircuitAccept():
                self._on_circuit_message(peer, message, now)
            case m.CircuitReady() | m.CircuitRefuse() | m.CircuitClose():
                self._on_circuit_message(peer, message, now)
            case m.IHave() | m.Graft() | m.Prune():
                self._gossip.on_message(peer, message, now)
            case _:
                if isinstance(message, m.ForwardJoin):
                    self._on_record(message.record, peer, now)
                    self._routing.on_news(self._book.owner(message.record), peer, now)
                record = self._book.bytes_of(peer) or b""
                self._on_neighbours(self._neighbourhood.on_message(peer, message, record, now), now)

    def _on_punch(self, link: Link, peer: PeerId, message: m.PunchMessage, now: float) -> None:
        """A neighbour asks where we see another, or helps a technique of ours."""
        match message:
            case m.SightAsk(asked):
                sight = self._witness.answer(peer, PeerId(asked), now)
                self._context.emit(Transmit(link.id, sight))
            case m.Sight() | m.Foretell():
                self._on_stuck(self._connecting.on_punch(message, peer, now), now)
            case _:
                assert_never(message)

    def _on_exchange(
        self, link: Link, peer: PeerId, message: m.ViewExchange | m.RecordPull, now: float
    ) -> None:
        """A member's exchange of views: a neighbour may bring so many; one that floods is left."""
        if self._neighbourhood.allows(peer, now):
            self._on_routing(self._routing.on_request(peer, message, now), now)
        elif self._neighbourhood.is_flooding(peer, now):
            self._misbehaved(link.id, "a flood of views", now)
        else:
            self._context.emit(Transmit(link.id, m.Bounce(message.request, BounceCode.BUSY)))

    # --- circuits ------------------------------------------------------------------------------

    def _on_circuit_message(self, peer: PeerId, message: m.CircuitMessage, now: float) -> None:
        if isinstance(message, m.CircuitReady) and message.record:
            self._on_record(message.record, peer, now)
        self._on_circuits(self._relaying.on_message(peer, message, now), now)

    def _on_circuits(self, facts: list[CircuitFact], now: float) -> None:
        for fact in facts:
            match fact:
                case Stands(peer):
                    self._on_stuck(self._connecting.on_circuit(peer, now), now)
                case Failed(peer, code):
                    self._on_stuck(self._connecting.on_no_circuit(peer, code, now), now)
                case Closed(peer, circuit):  # A link over it is suspect now: its transport says so.
                    self._on_stuck(self._connecting.on_circuit_closed(peer, circuit, now), now)
                case RelayUsed(relay, used):
                    self._on_neighbours(self._neighbourhood.on_relay(relay, now, used=used), now)
                case _:
                    assert_never(fact)

    def _on_path(self, peer: PeerId, now: float) -> None:
        """A neighbour's link has come or gone, is another one, or has another path."""
        self._on_circuits(self._relaying.on_path(peer, now), now)

    def _on_record(self, data: bytes, bearer: PeerId | None, now: float) -> None:
        record = None if self._book.is_old(data) else self._add_record(data, bearer, now)
        if record is not None:
            self._routing.on_news(self._book.owner(data), bearer, now)
            self._on_neighbours(self._neighbourhood.on_known(PeerId(record.peer_id), now), now)

    def _add_record(
        self, data: bytes, bearer: PeerId | None, now: float, *, recalled: bool = False
    ) -> Record | None:
        if self._book.owner(data) == self._context.peer_id:
            self._elsewhere.on_own_record(data, self._membership.sequences, now)
            return None
        record = self._membership.add(data, bearer, now, recalled=recalled)
        if record is not None:
            self._connecting.on_record(PeerId(record.peer_id), now)
        self._on_evicted(now)
        return record

    def _on_evicted(self, now: float) -> None:
        """Members whose records we hold no longer are wanted by nobody."""
        for peer in self._book.evicted():
            self._neighbourhood.on_evicted(peer, now)

    def _introduce(self, data: bytes, now: float) -> PeerId | None:
        """Whose record this is, if it holds."""
        self._on_record(data, None, now)
        peer = self._book.owner(data)
        return peer if peer is not None and peer in self._book else None

    def _record_of(self, peer: PeerId) -> bytes | None:
        """A member's record as it was signed, or our own."""
        return self._membership.own if peer == self._context.peer_id else self._book.bytes_of(peer)

    # --- the neighbourhood ---------------------------------------------------------------------

    def _on_neighbours(self, facts: list[NeighbourFact], now: float) -> None:
        """What views and ring decided; a fact may bring about others, which wait their turn."""
        busy = bool(self._neighbour_facts)
        self._neighbour_facts.extend(facts)
        while self._neighbour_facts and not busy:
            self._on_neighbour_fact(self._neighbour_facts[0], now)
            del self._neighbour_facts[0]

    # --- requests through the mesh -------------------------------------------------------------

    def _on_routing(self, facts: list[RoutingFact], now: float) -> None:
        for fact in facts:
            match fact:
                case RequestArrived(routed, via):
                    self._on_request_arrived(routed, via, now)
                case ReplyArrived(reply, via):
                    self._on_reply_arrived(reply, via, now)
                case Undeliverable(request, code):
                    if not self._neighbourhood.on_unanswered(request):
                        self._tracing.on_undeliverable(request, code)
                        stuck = self._connecting.on_undeliverable(request, code, now)
                        self._on_stuck(stuck, now)
                case _:
                    assert_never(fact)

    def _on_request_arrived(self, routed: Routed, via: PeerId, now: float) -> None:
        self._answer(routed, via, now)
        self._routing.acknowledge(routed.request)  # Unless a reply has said as much.

    def _answer(self, routed: Routed, via: PeerId, now: float) -> None:
        match routed:
            case m.Offer():
                self._connecting.on_offer(routed, via, now)
            case m.Locate():
                self._on_routing(self._locating.answer(routed), now)
            case m.Trace():
                self._on_routing(self._tracing.answer(routed), now)
            case m.ViewExchange() | m.RecordPull():
                answer = self._neighbourhood.on_asked(routed)
                if answer is not None:
                    self._on_routing(self._routing.reply(answer), now)
            case _:
                assert_never(routed)

    def _on_reply_arrived(self, reply: Reply, via: PeerId, now: float) -> None:
        match reply:
            case m.Answer():
                self._on_stuck(self._connecting.on_answer(reply, via, now), now)
            case m.Located():
                found = self._locating.on_located(reply)
                if found is not None:
                    self._on_neighbours(self._neighbourhood.on_located(*found, now), now)
            case m.TraceReply():
                self._tracing.on_reply(reply, now)
            case m.ViewExchanged() | m.RecordPulled():
                self._on_neighbours(self._neighbourhood.on_answered(reply, now), now)
            case _:
                assert_never(reply)

    def _on_stuck(self, peers: list[PeerId], now: float) -> None:
        """Nothing is left to try towards these peers for now: others are chosen."""
        for peer in peers:
            self._on_neighbours(self._neighbourhood.on_unreachable(peer, now), now)

    def _on_neighbour_fact(self, fact: NeighbourFact, now: float) -> None:
        match fact:
            case NeighbourUp(peer):
                self._gossip.tree.on_neighbour_up(peer, self._neighbourhood.link_of(peer), now)
            case NeighbourDown(peer):
                link = self._links.by_peer.get(peer)
                linked = link is not None and link.state is not LinkState.SILENT
                self._gossip.tree.on_neighbour_down(peer, now, linked=linked)
            case Wanted(peer):
                self._on_stuck(self._connecting.start(peer, now), now)
            case LocateNeeded():
                self._on_routing(self._locating.start(fact, now), now)
            case Ask(routed):
                self._on_routing(self._routing.send(routed, now, walk=False), now)
            case Sampled(records, sent):
                introduced = [self._introduce(data, now) for data in records]
                peers = [peer for peer in introduced if peer is not None]
                self._neighbourhood.on_sampled(peers, sent)
            case Overstayed(peer):
                link = self._links.by_peer.get(peer)
                # What is silent serves nothing for now, and has a minute to come back; later again.
                if link is not None and link.state is not LinkState.SILENT:
                    self._on_facts(self._links.end(link, GoodbyeCode.UNNEEDED, UNNEEDED), now)
            case UsesChanged():
                self._membership.tell_soon(now)
            case _:
                assert_never(fact)

    # --- commands ----------------------------------------------------------------------------

    def _on_command(self, command: Command, now: float) -> None:
        match command:
            case Join():
                for member in command.invite.members:
                    self._connecting.on_met((member.peer_id or member.fingerprint,))
                self._inviting.join(command, now)
            case MakeInvite():
                self._inviting.make(command, now)
            case MakeOffer() | AnswerOffer():
                self._by_hand.begin(command, now)
            case AcceptAnswer():
                self._by_hand.accept(command, now)
            case Connect():
                self._on_connect(command, now)
            case PingPeer():
                self._on_ping(command, now)
            case Examine(request):
                self._nat.ask(request, now)
            case TracePeer():
                self._on_routing(self._tracing.start(command, now), now)
            case Publish():
                self._gossip.publish(command, now)
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
            self._context.emit(Rejected(command.request, Failure.SELF, text))
        elif self._links.is_up(peer):
            self._context.emit(Resolved(command.request, None))
        elif self._book.get(peer) is None and self._membership.knows_everybody(now):
            text = "no record of this peer has been heard of: is it in this network?"
            self._context.emit(Rejected(command.request, Failure.UNKNOWN_PEER, text))
        else:
            self._kept[peer] = None
            self._connecting.wait(peer, command.request, now)
            self._on_stuck(self._connecting.start(peer, now), now)

    def _on_ping(self, command: PingPeer, now: float) -> None:
        link = self._links.by_peer.get(command.peer)
        if link is None:
            text = "there is no link to this peer: connect first"
            self._context.emit(Rejected(command.request, Failure.NOT_LINKED, text))
            return
        self._links.ping(link, command.request, now)

    def _on_recall(self, records: tuple[bytes, ...], now: float) -> None:
        for data in reversed(records):  # The latest met is the last to be forgotten.
            peer = self._book.owner(data)
            if peer is not None and peer != self._context.peer_id:
                self._recalling.remember(peer, data)
        self._call(now)

    def _call(self, now: float) -> None:
        """A round of calls to members met before."""
        for data in self._recalling.unread(now):
            record = self._add_record(data, None, now, recalled=True)
            if record is not None:
                peer = PeerId(record.peer_id)
                self._connecting.on_met([peer])
                self._on_neighbours(self._neighbourhood.on_known(peer, now), now)
        peers = self._recalling.call(now)
        self._connecting.on_recalled(peers)
        self._on_neighbours(self._neighbourhood.on_recalled(peers, now), now)

    # --- time --------------------------------------------------------------------------------

    def _on_time(self, now: float) -> None:
        self._on_facts(self._links.on_time(now), now)
        self._on_stuck(self._connecting.on_time(now), now)
        self._on_routing(self._routing.on_time(now), now)
        if self._membership.on_time(now):
            self._on_evicted(now)
        self._on_neighbours(self._neighbourhood.on_time(now), now)
        self._gossip.on_time(now)
        self._tracing.on_time(now)
        self._inviting.on_time(now)
        self._by_hand.on_time(now)
        self._on_circuits(self._relaying.on_time(now), now)
        self._elsewhere.on_time(now)
        if self._nat.on_time(now):
            self._membership.renew_soon(now)
            self._connecting.on_nat(now)
        if self._recalling.on_time(now):
            self._call(now)
