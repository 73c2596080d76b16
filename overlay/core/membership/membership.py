"""Who is in the mesh: our own record, the book of others', and how they reach our neighbours.

In a small mesh every node knows every record: a new neighbour is sent all that we know, and each
newer record is sent on once to all neighbours, a newcomer's soon and a member's rarely. In a large
mesh, records come with walks, exchanges of views, and hellos. Besides, neighbours tell each other
which links of theirs last: by these digests requests are routed with look-ahead
(`overlay.core.routing.lookahead`).
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import assert_never

import msgspec

from overlay.core.context import Context
from overlay.core.events import Remember, Transmit
from overlay.core.link.links import Link, Links
from overlay.core.membership.prekeys import DAY, next_rotation, rotate_prekeys
from overlay.core.membership.records import FORGET_AFTER, RECORD_LIFE, RecordBook, make_record
from overlay.core.nat.reflexive import Reflexive
from overlay.core.timers import NEVER, Timers
from overlay.core.types import Negotiated, PathKind, PeerId
from overlay.core.wire import dial_tokens as dial
from overlay.core.wire.documents import Record, TokenEntry
from overlay.core.wire.messages import Neighbours, Records

TELL_DELAY = 0.05
"""Seconds (guess) for which records that have come wait, so that many go in one message."""
TELL_INTERVAL = 0.5
"""Seconds (guess) between two times that newcomers' records and our own are passed on."""
RENEWED_INTERVAL = 5.0
"""Seconds (guess) between two times that newer records of known members are passed on: of forty
newcomers at once each signs anew when it has been dialled, at any time within six seconds
(measured), and each time all would tell it to all."""
DIGEST_DELAY = 1.0
"""Seconds (guess) from a change to the digest: by then both ends know what a new link is for."""
DIGEST_INTERVAL = 5.0
"""Seconds (guess) between two digests: a newcomer changes the links of a dozen nodes several times
within seconds."""
RECORDS_PER_MESSAGE = 16
"""A record has about 500 bytes: well below the message limit."""
FORGET_INTERVAL = 3600.0
"""Seconds (guess) between two looks at who has not been heard of: also how long a node that was
asleep for days has to hear of the others anew."""
MANY_FOR = 3600.0
"""Seconds (guess) for which we do not expect to know every member, after a neighbour has said that
there are too many."""
NEIGHBOURS_MAX = 64


class Timer(StrEnum):
    """What falls due."""

    RENEW = "renew"  # sign our record anew
    TELL_RECORDS = "tell records"  # pass on newcomers' records, and our own
    TELL_RENEWED = "tell renewed"  # pass on newer records of known members
    FORGET = "forget"  # forget the members that have long been silent
    TELL_DIGEST = "tell digest"  # tell the neighbours which links of ours last


class Fresh(msgspec.Struct, frozen=True, gc=False):
    """A record to be passed on."""

    bearer: PeerId | None
    """Who brought it; None if it came by no link."""
    since: float
    """When it came; whoever was welcomed later was sent it then."""


@dataclass(slots=True)
class Membership:
    """Keeps our record fresh, takes in those of others, and tells our neighbours both."""

    context: Context
    links: Links
    reflexive: Reflexive
    book: RecordBook
    lasts: Callable[[PeerId], bool]
    """Whether the link to this peer has a use, so that it is not a guest's."""
    own: bytes = b""
    """Our record as it was last signed."""
    _sequence: int = 0
    _first: int = 0  # the first sequence number of this life
    # Whose records are to be passed on: of newcomers and ourselves, and of members known before.
    _fresh: dict[PeerId, Fresh] = field(default_factory=dict)
    _renewed: dict[PeerId, Fresh] = field(default_factory=dict)
    _told_at: float = -DIGEST_INTERVAL  # when all neighbours were last told our digest
    _passed_on_at: float = -TELL_INTERVAL  # when the former were last passed on, …
    _renewed_at: float = -RENEWED_INTERVAL  # … and when the latter
    _many_until: float = 0.0  # until then we do not expect to know every member (`MANY_FOR`)
    _timers: Timers[Timer] = field(init=False)

    def __post_init__(self) -> None:
        self._timers = Timers(self.context.agenda)

    # --- our own record ----------------------------------------------------------------------

    def renew(self, now: float) -> None:
        """Sign our record anew, because something in it has changed or a new day has begun."""
        context = self.context
        wall = context.wall(now)
        self.book.expire(wall)
        day = int(wall // DAY)
        sequence = max(self._sequence, context.settings.sequence) + 1
        self._sequence = max(sequence, int(wall * 1000))
        self._first = self._first or self._sequence
        record = Record(
            network=context.settings.network,
            peer_id=context.peer_id,
            sequence=self._sequence,
            issued_at=int(wall),
            expires_at=int(wall) + RECORD_LIFE,
            name=context.settings.name,
            fingerprint=context.crypto.fingerprint,
            addresses=self.reflexive.entries(),
            token=None if context.settings.relay_only else self._member_token(day),
            prekeys=rotate_prekeys(wall, context.crypto),
            wire_min=context.settings.wire[0],
            wire_max=context.settings.wire[1],
        )
        self.own = make_record(record, context.crypto)
        context.emit(Remember(context.peer_id, self.own))
        self._fresh[context.peer_id] = Fresh(None, NEVER)  # A hello may have gone with the last.
        self._tell_records_soon(now)
        self._timers.set(Timer.RENEW, now + max(1.0, next_rotation(wall) - wall))
        if Timer.FORGET not in self._timers:
            self._timers.set(Timer.FORGET, now + FORGET_INTERVAL)

    @property
    def sequences(self) -> range:
        """The sequence numbers of this life."""
        return range(self._first, self._sequence + 1)

    def renew_soon(self, now: float, delay: float = TELL_DELAY) -> None:
        """Renew shortly: changes often come several at once."""
        self._timers.set(Timer.RENEW, now + delay)

    def on_clock(self, now: float) -> None:
        """The clock was wrong, or we slept: sign anew, and wait for what others have signed."""
        self.renew_soon(now)
        self._timers.set(Timer.FORGET, now + FORGET_INTERVAL)

    def _member_token(self, day: int) -> TokenEntry:
        """The day's token, with which members may dial us directly (decision 0004)."""
        token_id, expires_at = day.to_bytes(8, "big"), day * DAY + DAY + RECORD_LIFE
        key = self.context.settings.dial_key
        token = dial.make_token(key, dial.MEMBER, token_id, expires_at)
        return TokenEntry(dial.MEMBER, token_id, expires_at, token)

    # --- other members' records --------------------------------------------------------------

    def add(
        self, data: bytes, bearer: PeerId | None, now: float, *, recalled: bool = False
    ) -> Record | None:
        """Take in a record and pass it on; returns it if it is newer than what we had.

        `recalled`: it comes from our own cache, so it may be as old as records get.
        """
        owner = self.book.owner(data)
        if owner == self.context.peer_id:
            return None  # Our own must not lead to a link.
        is_new = owner is not None and owner not in self.book
        wall = self.context.wall(now)
        since = 0.0 if recalled else wall - FORGET_AFTER
        record = self.book.add(data, wall, self.links.by_peer, since=since)
        if record is None:
            return None
        peer = PeerId(record.peer_id)
        if self.knows_everybody(now):
            self._pass_on_soon(peer, Fresh(bearer, now), now, is_new=is_new)
        if peer in self.links.by_peer:
            self.remember(peer, data)
        return record

    def remember(self, peer: PeerId, data: bytes) -> bool:
        """Keep a neighbour's record for the next life, unless it may not be called then.

        A hidden node calls nobody but those to whom it has shown its address before.
        """
        link = self.links.by_peer.get(peer)
        relayed = link is None or link.facts.path is PathKind.RELAYED
        if relayed and self.context.settings.relay_only:
            return False
        self.context.emit(Remember(peer, data))
        return True

    def welcome(self, link: Link, now: float) -> None:
        """Send a new neighbour all records that we have; of too many, some to a newcomer only."""
        some = not self.knows_everybody(now)
        if some and link.negotiated not in (Negotiated.INVITE, Negotiated.MANUAL):
            return
        peers = [peer for peer in self.book.peers() if peer != link.peer]
        if some:
            most = min(self.context.settings.records_spread, RECORDS_PER_MESSAGE, len(peers))
            peers = self.context.random.sample(peers, most)
        for start in range(0, len(peers), RECORDS_PER_MESSAGE):
            chunk = peers[start : start + RECORDS_PER_MESSAGE]
            records = [each for peer in chunk if (each := self.book.bytes_of(peer))]
            self.context.emit(Transmit(link.id, Records(records, some)))
        if not some:
            link.on_welcomed(now)

    def on_some(self, now: float) -> None:
        """A neighbour says that it has sent us the records of some members only."""
        self._many_until = now + MANY_FOR

    def knows_everybody(self, now: float) -> bool:
        """Whether the mesh is so small that we have every member's record, or soon will."""
        return now >= self._many_until and len(self.book) <= self.context.settings.records_spread

    # --- telling the neighbours --------------------------------------------------------------

    def tell_soon(self, now: float) -> None:
        """Our links have changed: tell our neighbours shortly, if requests are routed at all."""
        if not self.context.settings.ring_side:
            return
        if self._timers.deadlines.get(Timer.TELL_DIGEST, NEVER) > now + DIGEST_DELAY:
            self._timers.set(Timer.TELL_DIGEST, now + DIGEST_DELAY)

    def _tell_digest(self, now: float) -> None:
        """Tell the neighbours which links of ours last.

        Guests soon go: a guest is told once, when it comes, and the digest does not name it.
        """
        alive, lasts = self.links.alive(), self.lasts
        lasting = [link.peer for link in alive if link.peer is not None and lasts(link.peer)]
        digest = tuple(lasting[:NEIGHBOURS_MAX])
        message = Neighbours(list(digest))  # One object for all of them, so encoded once.
        due = now >= self._told_at + DIGEST_INTERVAL
        waits = False
        for link in alive:
            told, peer = link.told, link.peer
            if told is None or (peer in digest and not _alike(peer, told, digest)):
                if told is None or due:
                    link.on_told(digest)
                    self.context.emit(Transmit(link.id, message))
                else:
                    waits = True
        if due:
            self._told_at = now
        if waits:
            self._timers.set(Timer.TELL_DIGEST, self._told_at + DIGEST_INTERVAL)

    def _pass_on_soon(self, peer: PeerId, fresh: Fresh, now: float, *, is_new: bool) -> None:
        """A record has come; one of a newcomer that has not been passed on yet is still that."""
        if is_new or peer in self._fresh:
            self._fresh[peer] = fresh
            self._tell_records_soon(now)
        else:
            self._renewed[peer] = fresh
            if Timer.TELL_RENEWED not in self._timers:
                at = max(now + TELL_DELAY, self._renewed_at + RENEWED_INTERVAL)
                self._timers.set(Timer.TELL_RENEWED, at)

    def _tell_records_soon(self, now: float) -> None:
        if Timer.TELL_RECORDS not in self._timers:
            at = max(now + TELL_DELAY, self._passed_on_at + TELL_INTERVAL)
            self._timers.set(Timer.TELL_RECORDS, at)

    def _tell_fresh(self, now: float) -> None:
        self._passed_on_at = now
        fresh, self._fresh = self._fresh, {}
        self._tell_records(fresh)

    def _tell_renewed(self, now: float) -> None:
        self._renewed_at = now
        renewed, self._renewed = self._renewed, {}
        self._tell_records(renewed)

    def _tell_records(self, records: dict[PeerId, Fresh]) -> None:
        """Pass these on to all who have them neither brought nor been welcomed with them."""
        for link in self.links.alive():
            chunk: list[bytes] = []
            for peer, fresh in records.items():
                data = self.own if peer == self.context.peer_id else self.book.bytes_of(peer)
                # Its owner, too, hears of one that has come from elsewhere: perhaps from a copy.
                if data and link.peer != (fresh.bearer or peer) and link.welcomed_at <= fresh.since:
                    chunk.append(data)
            for start in range(0, len(chunk), RECORDS_PER_MESSAGE):
                part = chunk[start : start + RECORDS_PER_MESSAGE]
                self.context.emit(Transmit(link.id, Records(part)))

    def _forget(self, now: float) -> None:
        """Whoever has signed nothing for two days is gone; without links, nobody would tell us."""
        if self.links.by_peer:
            self.book.forget_stale(self.context.wall(now) - FORGET_AFTER, self.links.by_peer)
        self._timers.set(Timer.FORGET, now + FORGET_INTERVAL)

    # --- time --------------------------------------------------------------------------------

    def on_time(self, now: float) -> bool:
        """Do what is due; whether anything was."""
        all_due = self._timers.pop_due(now)
        for timer in all_due:
            match timer:
                case Timer.RENEW:
                    self.renew(now)
                case Timer.TELL_RECORDS:
                    self._tell_fresh(now)
                case Timer.TELL_RENEWED:
                    self._tell_renewed(now)
                case Timer.FORGET:
                    self._forget(now)
                case Timer.TELL_DIGEST:
                    self._tell_digest(now)
                case _:
                    assert_never(timer)
        return bool(all_due)


def _alike(peer: PeerId | None, told: tuple[PeerId, ...], digest: tuple[PeerId, ...]) -> bool:
    """Whether the peer was last told the same, whether or not it was named itself."""
    return told is digest or told == digest or _without(peer, told) == _without(peer, digest)


def _without(peer: PeerId | None, peers: tuple[PeerId | None, ...]) -> tuple[PeerId | None, ...]:
    at = peers.index(peer) if peer in peers else len(peers)
    return peers[:at] + peers[at + 1 :]
