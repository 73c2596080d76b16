"""Publications too large for one piece: cut into parts, and put together again from them.

The id of a part is a hash of its origin and its publication, so that no other origin can use it for
a part of its own. Its first bytes are the same for all parts of a publication: so announcements,
which carry ids alone, tell which messages belong together.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from overlay.core.limits import BoundedDict
from overlay.core.types import PeerId
from overlay.core.wire.bounds import PART_MAX
from overlay.core.wire.messages import GossipPart

LABEL = b"overlay gossip part id 1"
FLOW_BYTES = 14
"""Bytes of an id that are the same for all parts; the other two are the number of the part."""
LIFE = 30.0
"""Seconds (guess) without a new part after which a publication is given up."""
ORIGIN_BYTES = 4 << 20
"""Of one origin's unfinished publications (guess); the one that has waited longest gives way."""
TOTAL_BYTES = 32 << 20
"""Of all unfinished publications (guess); the one that has waited longest gives way."""
OVERHEAD = PART_MAX
"""Bytes that each counts for besides its data, so that their number is bounded, too."""
OVER_MAX = 4096
"""Finished and given up publications remembered (guess): late parts do not begin them again."""


class Refusal(StrEnum):
    """Why a message is neither delivered nor passed on."""

    BEYOND_LAST = "a part of a publication beyond its last"
    WRONG_ID = "a part of a publication with the id of another"
    UNSIGNED = "a published message that its origin has not signed"
    FLOOD = "a flood of published messages"
    OVER_RATE = "a message more than its origin may send"  # no fault of who brought it


def flow_of(message_id: bytes) -> bytes:
    """The part of an id that all parts of one publication share.

    An id that is not a part's is random, so it shares a flow with no other.
    """
    return message_id[:FLOW_BYTES]


def part_id(origin: bytes, publication: bytes, part: int) -> bytes:
    """The only id that this part may have, 16 bytes."""
    flow = hashlib.sha256(LABEL + b"\0" + origin + publication).digest()[:FLOW_BYTES]
    return flow + part.to_bytes(16 - FLOW_BYTES, "big")


def cut(data: bytes) -> Iterator[bytes]:
    """The pieces of a publication, in order."""
    for start in range(0, len(data), PART_MAX):
        yield data[start : start + PART_MAX]


def refusal_of(part: GossipPart) -> Refusal | None:
    """Why this part cannot be one: no origin makes such a part, and no neighbour passes it on."""
    if part.part >= part.parts:
        return Refusal.BEYOND_LAST
    if part.message_id != part_id(part.origin, part.publication, part.part):
        return Refusal.WRONG_ID
    return None


@dataclass(slots=True)
class _Pending:
    """A publication of which parts are missing."""

    origin: PeerId
    kind: tuple[str, bool, int]  # topic, text, parts: the same in every part
    expires_at: float
    pieces: dict[int, bytes] = field(default_factory=dict)
    size: int = OVERHEAD

    def whole(self) -> bytes | None:
        """All of it in order, once it is complete."""
        parts = self.kind[2]
        if len(self.pieces) < parts:
            return None
        return b"".join(self.pieces[part] for part in range(parts))


@dataclass(slots=True)
class Reassembly:
    """Unfinished publications, by flow; the one that has waited longest for a part comes first."""

    given_up: int = 0
    """Publications that were not finished: their parts came too late, or others needed the room."""
    _pending: dict[bytes, _Pending] = field(default_factory=dict)
    # The same flows of each origin, in the same order.
    _by_origin: dict[PeerId, dict[bytes, None]] = field(default_factory=dict)
    _sizes: dict[PeerId, int] = field(default_factory=dict)
    _size: int = 0
    # Flows whose parts are ignored from now on.
    _over: BoundedDict[bytes, None] = field(default_factory=lambda: BoundedDict(OVER_MAX))

    def add(self, part: GossipPart, now: float) -> bytes | None:
        """Take in a part whose id and signature hold; returns the whole if none is missing now."""
        flow, origin = flow_of(part.message_id), PeerId(part.origin)
        kind = (part.topic, part.text, part.parts)
        if flow in self._over:
            return None
        pending = self._pending.get(flow)
        if pending is None:
            pending = self._begin(flow, _Pending(origin, kind, now + LIFE))
        if pending.kind != kind or part.part in pending.pieces:
            return None  # The origin contradicts itself, or we have this part.
        pending.pieces[part.part] = part.data
        self._grow(flow, pending, len(part.data), now)
        whole = pending.whole()
        if whole is not None:
            self._end(flow)
        self._make_room(origin)
        return whole

    def finish(self, flow: bytes) -> None:
        """All of this publication is known: its parts are ignored from now on."""
        self._over.put(flow, None)

    def next_deadline(self) -> float | None:
        """When `on_time` next has something to do."""
        return next(iter(self._pending.values())).expires_at if self._pending else None

    def on_time(self, now: float) -> None:
        """Give up what has waited too long."""
        while self._pending and next(iter(self._pending.values())).expires_at <= now:
            self._give_up(next(iter(self._pending)))

    def _begin(self, flow: bytes, pending: _Pending) -> _Pending:
        self._pending[flow] = pending
        self._by_origin.setdefault(pending.origin, {})[flow] = None
        self._sizes[pending.origin] = self._sizes.get(pending.origin, 0) + pending.size
        self._size += pending.size
        return pending

    def _grow(self, flow: bytes, pending: _Pending, size: int, now: float) -> None:
        pending.size += size
        self._sizes[pending.origin] += size
        self._size += size
        pending.expires_at = now + LIFE
        flows = self._by_origin[pending.origin]
        self._pending[flow] = self._pending.pop(flow)
        flows[flow] = flows.pop(flow)

    def _make_room(self, origin: PeerId) -> None:
        while self._sizes.get(origin, 0) > ORIGIN_BYTES:
            self._give_up(next(iter(self._by_origin[origin])))
        while self._size > TOTAL_BYTES:
            self._give_up(next(iter(self._pending)))

    def _give_up(self, flow: bytes) -> None:
        self._end(flow)
        self.given_up += 1

    def _end(self, flow: bytes) -> None:
        pending = self._pending.pop(flow)
        self._size -= pending.size
        self._sizes[pending.origin] -= pending.size
        flows = self._by_origin[pending.origin]
        del flows[flow]
        if not flows:
            del self._by_origin[pending.origin], self._sizes[pending.origin]
        self.finish(flow)
