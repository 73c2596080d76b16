"""Who is in the mesh: the book of signed records, and our own.

Records travel by gossip while the mesh is small: a neighbour gets all we know when it comes, and
every newer record once. In a large one they come with walks, shuffles and links.
Whom we link to is HyParView's concern; links that it has no use for are guests for a while.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from overlay.core.context import Context
from overlay.core.events import Remember, Transmit
from overlay.core.link.links import Link, Links
from overlay.core.membership.records import (
    DAY,
    RECORD_LIFE,
    RecordBook,
    make_record,
    next_rotation,
    rotate_prekeys,
)
from overlay.core.nat.reflexive import Reflexive
from overlay.core.timers import NEVER, Timers
from overlay.core.types import Negotiated, PeerId
from overlay.core.wire import dial_tokens as dial
from overlay.core.wire.documents import Record, TokenEntry
from overlay.core.wire.messages import Neighbours, Records

TELL_DELAY = 0.05
"""Seconds (guess): records that come together are told together."""
DIGEST_DELAY = 1.0
"""Seconds (guess): a new link is told of once both ends know what it is for."""
DIGEST_INTERVAL = 5.0
"""Seconds (guess) between two digests: a newcomer changes a dozen neighbourhoods several times."""
RECORDS_PER_MESSAGE = 16
"""A record has about 500 bytes: well below the message limit."""
MANY_FOR = 3600.0
"""Seconds (guess) for which a mesh that was too large to know everybody is taken to be so still."""
NEIGHBOURS_MAX = 64
GUESTS_MAX = 128


@dataclass(slots=True)
class Membership:
    """The book of records, and our own."""

    context: Context
    links: Links
    reflexive: Reflexive
    book: RecordBook
    lasts: Callable[[PeerId], bool]
    """Whether the link to this peer is kept for something, and not a guest's."""
    own: bytes = b""
    _sequence: int = 0
    _fresh: dict[PeerId, PeerId | None] = field(default_factory=dict)
    """Records to be passed on, and who brought each."""
    _told_at: float = -DIGEST_INTERVAL
    _many_until: float = 0.0
    """Until then somebody's word counts that not everybody can be known."""
    _timers: Timers[tuple[str, PeerId]] = field(init=False)

    def __post_init__(self) -> None:
        self._timers = Timers(self.context.agenda)

    # --- our own record ----------------------------------------------------------------------

    def renew(self, now: float) -> None:
        """Sign our record anew, because something in it changed or a day began."""
        context = self.context
        wall = context.wall(now)
        self.book.expire(wall)
        day = int(wall // DAY)
        sequence = max(self._sequence, context.settings.sequence) + 1
        self._sequence = max(sequence, int(wall * 1000))
        record = Record(
            network=context.settings.network,
            peer_id=context.peer_id,
            sequence=self._sequence,
            issued_at=int(wall),
            expires_at=int(wall) + RECORD_LIFE,
            name=context.settings.name,
            fingerprint=context.crypto.fingerprint,
            addresses=self.reflexive.entries(),
            token=self._member_token(day),
            prekeys=rotate_prekeys(wall, context.crypto),
            wire_min=context.settings.wire[0],
            wire_max=context.settings.wire[1],
        )
        self.own = make_record(record, context.crypto)
        context.emit(Remember(context.peer_id, self.own))
        self._fresh[context.peer_id] = None
        self._timers.set(("tell", context.peer_id), now + TELL_DELAY)
        self._timers.set(("renew", context.peer_id), now + max(1.0, next_rotation(wall) - wall))

    def renew_soon(self, now: float) -> None:
        """Renew once changes that come together have come."""
        self._timers.set(("renew", self.context.peer_id), now + TELL_DELAY)

    def _member_token(self, day: int) -> TokenEntry:
        """The day's token for members (DESIGN, dial tokens)."""
        token_id, expires_at = day.to_bytes(8, "big"), day * DAY + DAY + RECORD_LIFE
        key = self.context.settings.dial_key
        token = dial.make_token(key, dial.MEMBER, token_id, expires_at)
        return TokenEntry(dial.MEMBER, token_id, expires_at, token)

    # --- other members' records --------------------------------------------------------------

    def add(self, data: bytes, bearer: PeerId | None, now: float) -> Record | None:
        """Take in a record; returns it when it is newer than what we had, and passes it on."""
        record = self.book.add(data, self.context.wall(now), self.links.by_peer)
        if record is None:
            return None
        peer = PeerId(record.peer_id)
        if peer == self.context.peer_id:
            self.book.forget(peer)  # our own, come back to us: nobody to link to
            return None
        if self.knows_everybody(now):
            self._fresh[peer] = bearer
            self._timers.set(("tell", self.context.peer_id), now + TELL_DELAY)
        if peer in self.links.by_peer:
            self.context.emit(Remember(peer, data))
        return record

    def welcome(self, link: Link, now: float) -> None:
        """Tell a new neighbour all members that we know; of many, a few to a newcomer."""
        some = not self.knows_everybody(now)
        if some and link.negotiated is not Negotiated.INVITE:
            return
        peers = [peer for peer in self.book.peers() if peer != link.peer]
        if some:
            most = min(self.context.settings.records_spread, RECORDS_PER_MESSAGE, len(peers))
            peers = self.context.random.sample(peers, most)
        for start in range(0, len(peers), RECORDS_PER_MESSAGE):
            chunk = peers[start : start + RECORDS_PER_MESSAGE]
            records = [each for peer in chunk if (each := self.book.bytes_of(peer))]
            self.context.emit(Transmit(link.id, Records(records, some)))

    def on_some(self, now: float) -> None:
        """A neighbour says that it has told us of some members only."""
        self._many_until = now + MANY_FOR

    def knows_everybody(self, now: float) -> bool:
        """Whether the mesh is so small that every member's record has come to us, or will."""
        return now >= self._many_until and len(self.book) <= self.context.settings.records_spread

    # --- telling the neighbours --------------------------------------------------------------

    def tell_soon(self, now: float) -> None:
        """Our neighbours have changed: say so shortly, to whom it serves for routing."""
        if not self.context.settings.ring_side:
            return
        name = ("digest", self.context.peer_id)
        if self._timers.deadlines.get(name, NEVER) > now + DIGEST_DELAY:
            self._timers.set(name, now + DIGEST_DELAY)

    def _tell_digest(self, now: float) -> None:
        """Guests come and go: they are told once, when they come, and nobody is told of them."""
        alive, lasts = self.links.alive(), self.lasts
        lasting = [link.peer for link in alive if link.peer is not None and lasts(link.peer)]
        digest = tuple(lasting[:NEIGHBOURS_MAX])
        message = Neighbours(list(digest))  # to whoever is named in it, too: it knows that
        due = now >= self._told_at + DIGEST_INTERVAL
        waits = False
        for link in alive:
            if link.told is None or (link.peer in digest and not _alike(link, digest)):
                if link.told is None or due:
                    link.told = digest
                    self.context.emit(Transmit(link.id, message))
                else:
                    waits = True
        if due:
            self._told_at = now
        if waits:
            name = ("digest", self.context.peer_id)
            self._timers.set(name, self._told_at + DIGEST_INTERVAL)

    def _tell_records(self) -> None:
        fresh, self._fresh = self._fresh, {}
        for link in self.links.alive():
            chunk: list[bytes] = []
            for peer, bearer in fresh.items():
                data = self.own if peer == self.context.peer_id else self.book.bytes_of(peer)
                if data and link.peer not in (peer, bearer):
                    chunk.append(data)
            for start in range(0, len(chunk), RECORDS_PER_MESSAGE):
                part = chunk[start : start + RECORDS_PER_MESSAGE]
                self.context.emit(Transmit(link.id, Records(part)))

    # --- time --------------------------------------------------------------------------------

    def on_time(self, now: float) -> None:
        """Do what is due."""
        for kind, _ in self._timers.pop_due(now):
            if kind == "renew":
                self.renew(now)
            elif kind == "tell":
                self._tell_records()
            elif kind == "digest":
                self._tell_digest(now)


def _alike(link: Link, digest: tuple[PeerId, ...]) -> bool:
    """Whether its peer has been told this, itself aside."""
    told = link.told
    if told is digest or told == digest or told is None:
        return told is not None
    return _without(link.peer, told) == _without(link.peer, digest)


def _without(peer: PeerId | None, peers: tuple[PeerId | None, ...]) -> tuple[PeerId | None, ...]:
    at = peers.index(peer) if peer in peers else len(peers)
    return peers[:at] + peers[at + 1 :]
