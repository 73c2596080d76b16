"""Published messages: signed by their origin, checked and delivered once; Plumtree carries them.

Every message is signed by its origin over the network, its id, topic and data, so that nobody
speaks in another's name; whoever passes on one whose signature does not hold loses its link. A
larger message goes out in parts, a few at a time: duplicates of the first parts prune the tree
along which the others go.
"""

import hashlib
from collections import deque
from dataclasses import dataclass, field
from typing import assert_never

import msgspec

from overlay.core.context import Context
from overlay.core.events import Deliver, Publish, Rejected, Resolved
from overlay.core.gossip.parts import Reassembly, Refusal, cut, flow_of, part_id, refusal_of
from overlay.core.gossip.plumtree import Plumtree
from overlay.core.limits import TokenBuckets
from overlay.core.timers import Timers
from overlay.core.types import PeerId, RequestId
from overlay.core.wire import messages as m
from overlay.core.wire import signing as documents
from overlay.core.wire.bounds import PART_MAX, PUBLISHED_MAX, TOPIC_MAX, Topic
from overlay.core.wire.messages import Gossip, GossipPart, Published
from overlay.errors import Failure

LABEL = b"overlay gossip 1"
PART_LABEL = b"overlay gossip part 1"
PARTS_AT_ONCE = 4
PART_INTERVAL = 0.01
"""Seconds (guess) between so many parts of ours, which makes 6 MB/s."""
OUTGOING_MAX = 16 << 20
"""Bytes of ours that may wait to go out; beyond it `publish` is refused (guess)."""
OWN_RATE, OWN_BURST = 200.0, 1000.0
"""Messages that we publish a second, and at once; beyond it `publish` is refused (guess)."""
RATE, BURST = 1.25 * OWN_RATE, 1.25 * OWN_BURST
"""Messages of one origin that are passed on (guess): a quarter more than an honest one sends, so
that those which were delayed and come together are passed on, too."""
PART_COST = 0.125
"""Of a message: an origin that sends `PARTS_AT_ONCE` every `PART_INTERVAL` besides all the messages
that it may is still within the rate."""
REPORT_INTERVAL = 10.0
"""Seconds at least between two reports of what was given up: a flood fills no log."""


@dataclass(slots=True)
class _Outgoing:
    """A publication of ours of which parts have still to go."""

    request: RequestId
    publication: bytes
    topic: str
    text: bool
    pieces: deque[bytes]
    parts: int
    size: int


@dataclass(slots=True)
class Dissemination:
    """Signs, checks, cuts and delivers publications; how they travel is the tree's concern."""

    context: Context
    _outgoing: deque[_Outgoing] = field(default_factory=deque)
    _own: TokenBuckets[PeerId] = field(default_factory=lambda: TokenBuckets(OWN_RATE, OWN_BURST))
    _origins: TokenBuckets[PeerId] = field(default_factory=lambda: TokenBuckets(RATE, BURST))
    _next_parts_at: float = 0.0
    _reassembly: Reassembly = field(default_factory=Reassembly)
    _reported: int = 0
    _report_at: float = 0.0
    _timers: Timers[None] = field(init=False)

    def __post_init__(self) -> None:
        self._timers = Timers(self.context.agenda)

    # --- ours ------------------------------------------------------------------------------------

    def publish(self, command: Publish, now: float) -> list[Published]:
        """Sign a message of our own and deliver it here; returns what is to be broadcast now.

        The command is resolved when all of it has gone.
        """
        context, request, data = self.context, command.request, command.data
        refusal = self._refusal(command, now)
        if refusal is not None:
            context.emit(Rejected(request, *refusal))
            return []
        context.emit(Deliver(command.topic, context.peer_id, data, command.text, 0))
        message_id = context.crypto.token(16)
        if len(data) <= PART_MAX:
            context.emit(Resolved(request, message_id))
            return [self._gossip(message_id, command)]
        pieces = deque(cut(data))
        self._reassembly.finish(flow_of(part_id(context.peer_id, message_id, 0)))
        self._outgoing.append(
            _Outgoing(
                request, message_id, command.topic, command.text, pieces, len(pieces), len(data)
            )
        )
        due = self._parts_due(now)
        self._set_timer()
        return due

    def _refusal(self, command: Publish, now: float) -> tuple[Failure, str] | None:
        """Why it cannot be published."""
        size = len(command.data)
        if size > PUBLISHED_MAX or not Topic().holds(command.topic):
            return Failure.TOO_LARGE, (
                f"a message has at most {PUBLISHED_MAX} bytes, and its topic 1 to {TOPIC_MAX}, "
                "all of them printable: send less, or name the topic otherwise"
            )
        if size > PART_MAX and sum(each.size for each in self._outgoing) + size > OUTGOING_MAX:
            text = f"more than {OUTGOING_MAX} bytes of earlier messages wait to go out: try later"
            return Failure.BUSY, text
        if self._own.left(self.context.peer_id, now) < 1.0:
            text = f"more than {OWN_RATE:g} messages a second are passed on by nobody: try later"
            return Failure.BUSY, text
        self._own.spend(self.context.peer_id, 1.0, now)
        return None

    def _gossip(self, message_id: bytes, command: Publish) -> Gossip:
        origin, topic, data = self.context.peer_id, command.topic, command.data
        bare = Gossip(message_id, origin, topic, data, command.text, 0, b"")
        return msgspec.structs.replace(bare, signature=self._sign(bare))

    def _parts_due(self, now: float) -> list[Published]:
        """The next parts of ours, when it is time for some."""
        due: list[Published] = []
        while self._outgoing and now >= self._next_parts_at:
            first = self._outgoing[0]
            due.append(self._next_part(first))
            if not first.pieces:
                self._outgoing.popleft()
                self.context.emit(Resolved(first.request, first.publication))
            if len(due) >= PARTS_AT_ONCE:
                self._next_parts_at = now + PART_INTERVAL
        return due

    def _next_part(self, outgoing: _Outgoing) -> GossipPart:
        origin, number = self.context.peer_id, outgoing.parts - len(outgoing.pieces)
        bare = GossipPart(
            message_id=part_id(origin, outgoing.publication, number),
            origin=origin,
            topic=outgoing.topic,
            data=outgoing.pieces.popleft(),
            text=outgoing.text,
            hops=0,
            publication=outgoing.publication,
            part=number,
            parts=outgoing.parts,
            signature=b"",
        )
        return msgspec.structs.replace(bare, signature=self._sign(bare))

    # --- others' ---------------------------------------------------------------------------------

    def receive(
        self, message: Published, now: float, bearer: PeerId | None = None
    ) -> Refusal | None:
        """Deliver a message that is new to us, once all of it has come; or why it is refused.

        Too many messages of one origin are the fault of a neighbour only if it is their origin.
        """
        part = message if isinstance(message, GossipPart) else None
        if part is not None and (refusal := refusal_of(part)) is not None:
            return refusal
        origin = PeerId(message.origin)
        signed = _signed_part(self.context.settings.network, message)
        if not self.context.crypto.verify(origin, signed, message.signature):
            return Refusal.UNSIGNED
        left = self._origins.spend(origin, 1.0 if part is None else PART_COST, now)
        if left <= 0.0:
            floods = origin == bearer and left <= -BURST
            return Refusal.FLOOD if floods else Refusal.OVER_RATE
        data: bytes | None = message.data
        if part is not None:
            data = self._reassembly.add(part, now)
            self._set_timer()
        if data is not None:
            hops = max(1, message.hops)
            self.context.emit(Deliver(message.topic, origin, data, message.text, hops))
        return None

    def _sign(self, message: Published) -> bytes:
        return self.context.crypto.sign(_signed_part(self.context.settings.network, message))

    # --- time ------------------------------------------------------------------------------------

    def _set_timer(self) -> None:
        """Set the timer to when `on_time` next has something to do."""
        expiry = self._reassembly.next_deadline()
        parts = self._next_parts_at if self._outgoing else None
        deadlines = [each for each in (expiry, parts) if each is not None]
        if self._reassembly.given_up > self._reported:
            deadlines.append(self._report_at)
        if deadlines:
            self._timers.set(None, min(deadlines))
        else:
            self._timers.stop(None)

    def on_time(self, now: float) -> list[Published]:
        """Give up what stays incomplete; returns what of ours is to be broadcast now."""
        if not self._timers.pop_due(now):
            return []
        self._reassembly.on_time(now)
        given_up = self._reassembly.given_up
        if given_up > self._reported and now >= self._report_at:
            count, self._reported = given_up - self._reported, given_up
            self._report_at = now + REPORT_INTERVAL
            self.context.report("info", "publications_given_up", count=count)
        due = self._parts_due(now)
        self._set_timer()
        return due


def _signed_part(network: bytes, message: Published) -> bytes:
    digest = hashlib.sha256(message.data).digest()
    fields = [network, message.message_id, message.topic, message.text, digest]
    if isinstance(message, Gossip):
        return documents.labelled(LABEL, msgspec.msgpack.encode(fields))
    fields += [message.publication, message.part, message.parts]
    return documents.labelled(PART_LABEL, msgspec.msgpack.encode(fields))


@dataclass(slots=True)
class Gossiping:
    """Composes the machine that checks publications with the tree that carries them."""

    context: Context
    dissemination: Dissemination = field(init=False)
    tree: Plumtree = field(init=False)

    def __post_init__(self) -> None:
        self.dissemination = Dissemination(self.context)
        self.tree = Plumtree(self.context)

    def publish(self, command: Publish, now: float) -> None:
        """Sign a message of our own and send it along the tree."""
        self._broadcast(self.dissemination.publish(command, now), now)

    def on_published(self, peer: PeerId, message: m.Published, now: float) -> str | None:
        """A neighbour brings a publication; returns what it has done wrong, if anything."""
        if not self.tree.is_new(message.message_id):
            self.tree.on_duplicate(peer, message, now)
            return None
        refusal = self.dissemination.receive(message, now, peer)
        if refusal is None:
            self.tree.on_gossip(peer, message, now)
            return None
        if refusal is Refusal.OVER_RATE:
            self.tree.ignore(message.message_id)
            return None
        return refusal.value

    def on_message(self, peer: PeerId, message: m.TreeMessage, now: float) -> None:
        """Plumtree's own messages."""
        match message:
            case m.IHave():
                self.tree.on_ihave(peer, message, now)
            case m.Graft():
                self.tree.on_graft(peer, message)
            case m.Prune():
                self.tree.on_prune(peer)
            case _:
                assert_never(message)

    def on_time(self, now: float) -> None:
        """Announce, graft, send what waits its turn."""
        self.tree.on_time(now)
        self._broadcast(self.dissemination.on_time(now), now)

    def _broadcast(self, messages: list[m.Published], now: float) -> None:
        for message in messages:
            self.tree.broadcast(message, now)
