"""One NAT of a simulated world: endpoints of its inside become mappings of its outside, and back.

RFC 4787 says what a mapping and a filter may depend on; a `Kind` says what they do here. A mapping
is kept alive by what goes out, as REQ-6 demands, and not by what comes in.
"""

from dataclasses import dataclass, field
from random import Random

from overlay.core.limits import BoundedDict
from overlay.core.nat.behaviour import Dependence, Ports
from overlay.core.types import Address
from overlay.sim.network.nat.kinds import Kind

FIRST_PORT = 1024
SEQUENCE_FIRST, SEQUENCE = 20_000, 40_000
"""Where a sequential NAT numbers, and after how many mappings it begins again."""
DRAWS_MAX = 100
"""Ports that are tried for a new mapping; a NAT that finds none free then has none (guess)."""
PERMITTED_MAX = 4096
"""Whom a mapping has sent to; the one longest ago is forgotten."""
EARLY_LASTS = 30.0
"""Seconds for which a packet that nobody has answered occupies its port (Linux:
nf_conntrack_udp_timeout)."""
EARLY_MAX = 65_536
"""Of them at once."""


@dataclass(slots=True)
class Mapping:
    """A port of the NAT's that stands for one of a host behind it."""

    key: object
    inner: Address
    outer: Address
    sent_at: float = 0.0
    permitted: BoundedDict[object, float] = field(
        default_factory=lambda: BoundedDict(PERMITTED_MAX)
    )
    """When it last sent to whom, as far as the filter tells them apart."""


class Box:
    """A NAT, or a router without one that filters."""

    def __init__(self, kind: Kind, outer: str, rng: Random) -> None:
        """`outer`: its address outside; `rng`: draws its ports."""
        self.kind = kind
        self.outer = outer
        self._rng = rng
        self._next = rng.randrange(SEQUENCE)
        self._by_key: dict[object, Mapping] = {}
        self._by_outer: dict[Address, Mapping] = {}
        self._early: BoundedDict[tuple[Address, Address], float] = BoundedDict(EARLY_MAX)
        """Until when packets that came too early occupy an outer endpoint for their source."""

    def forget(self, outer: str = "") -> None:
        """Lose every mapping, as after a restart; `outer`: its new address, if it gets one."""
        self.outer = outer or self.outer
        self._by_key.clear()
        self._by_outer.clear()
        self._early.clear()

    def outward(self, source: Address, target: Address, now: float) -> Address | None:
        """With which source a datagram goes on; None: it does not."""
        kind = self.kind
        if not kind.udp:
            return None
        mapping = self._mapping(source, target, now)
        if mapping is None:
            return None
        mapping.sent_at = now
        if kind.filtering is not Dependence.INDEPENDENT:
            mapping.permitted.put(_part(kind.filtering, target), now)
        return mapping.outer

    def inward(self, source: Address, target: Address, now: float) -> Address | None:
        """To whom inside a datagram that has come to an outer endpoint goes; None: to nobody.

        Of what has been turned round (§6) the source is an outer endpoint, too: filters, which are
        there against strangers, let it in.
        """
        mapping = self._by_outer.get(target)
        if (
            mapping is not None
            and self._lives(mapping, now)
            and self._permits(mapping, source, now)
        ):
            return mapping.inner if self.kind.udp else None
        if self.kind.accepts:
            self._early.put((target, source), now + EARLY_LASTS)
        return None

    def _permits(self, mapping: Mapping, source: Address, now: float) -> bool:
        if source.host == self.outer and self.kind.is_nat:
            return True
        if self.kind.filtering is Dependence.INDEPENDENT:
            return not self._is_early(mapping.outer, source, now)
        sent_at = mapping.permitted.get(_part(self.kind.filtering, source))
        return sent_at is not None and now <= sent_at + self.kind.timeout

    def _lives(self, mapping: Mapping, now: float) -> bool:
        return now <= mapping.sent_at + self.kind.timeout

    def _is_early(self, outer: Address, target: Address, now: float) -> bool:
        return self.kind.accepts and now <= self._early.get((outer, target), -1.0)

    # --- mappings ----------------------------------------------------------------------------

    def _mapping(self, source: Address, target: Address, now: float) -> Mapping | None:
        """The one that a datagram leaves by, made if there is none.

        Where its port is taken by a packet that came too early from that very target, this target
        gets a mapping of its own, and keeps it for as long as that is used.
        """
        key = (source, _part(self.kind.mapping, target))
        if not self.kind.accepts:
            return self._living(key, now) or self._make(key, source, target, now)
        own = (source, target, "displaced")
        displaced = self._living(own, now)
        if displaced is not None:
            return displaced
        mapping = self._living(key, now)
        taken = self._is_taken(mapping, source, target, now)
        if mapping is not None and not taken:
            return mapping
        return self._make(own if taken else key, source, target, now)

    def _living(self, key: object, now: float) -> Mapping | None:
        mapping = self._by_key.get(key)
        if mapping is not None and not self._lives(mapping, now):
            self._drop(mapping)
            return None
        return mapping

    def _is_taken(
        self, mapping: Mapping | None, source: Address, target: Address, now: float
    ) -> bool:
        """Whether its port is no good for this target; a flow that is there already stays."""
        if mapping is None:
            return self._is_early(Address(self.outer, source.port), target, now)
        if not self._is_early(mapping.outer, target, now):
            return False
        sent_at = mapping.permitted.get(_part(self.kind.filtering, target))
        return sent_at is None or now > sent_at + self.kind.timeout

    def _drop(self, mapping: Mapping) -> None:
        del self._by_key[mapping.key], self._by_outer[mapping.outer]

    def _make(self, key: object, source: Address, target: Address, now: float) -> Mapping | None:
        outer = self._free(source, target, now)
        if outer is None:
            return None
        mapping = self._by_key[key] = self._by_outer[outer] = Mapping(key, source, outer)
        return mapping

    def _free(self, source: Address, target: Address, now: float) -> Address | None:
        """An outer endpoint that no living mapping has, and no early packet of this target's."""
        if not self.kind.is_nat:
            return source
        for attempt in range(DRAWS_MAX):
            outer = Address(self.outer, self._port(source, attempt))
            held = self._by_outer.get(outer)
            if held is not None and self._lives(held, now):
                continue
            if self._is_early(outer, target, now):
                continue
            if held is not None:
                self._drop(held)
            return outer
        return None

    def _port(self, source: Address, attempt: int) -> int:
        match self.kind.ports:
            case Ports.PRESERVED if not attempt:
                return source.port
            case Ports.SEQUENTIAL:
                self._next += 1
                return SEQUENCE_FIRST + self._next % SEQUENCE
            case _:
                return self._rng.randrange(FIRST_PORT, 65_536)


def _part(dependence: Dependence, remote: Address) -> object:
    """What of the other end's address decides."""
    match dependence:
        case Dependence.INDEPENDENT:
            return None
        case Dependence.ADDRESS:
            return remote.host
        case _:
            return remote
