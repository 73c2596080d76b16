"""What two NATs leave to be tried when ICE finds no path, and which end does what.

A pure function of what offer and answer say, which both ends so compute alike. What decides is
whether an end has one address for everybody; if it has not, whether its next port can be told.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum

from overlay.core.nat.behaviour import Dependence, Ports
from overlay.core.nat.pairs import DEPENDENT, direct
from overlay.core.types import PunchRole, Technique


@dataclass(frozen=True, slots=True)
class Plan:
    """One technique, and our part in it."""

    technique: Technique
    role: PunchRole
    ice_first: bool
    """ICE might do, as far as is known, and has a moment before this begins."""


class _Outer(StrEnum):
    """How an end is seen."""

    ONE = "at one address"
    NEXT = "at ports that can be told"
    ANY = "at any port"
    UNKNOWN = "unknown"


def _outer(words: Sequence[str]) -> _Outer:
    mapping, ports = (words[0], words[2]) if len(words) > 2 else ("", "")
    if mapping == Dependence.INDEPENDENT:
        return _Outer.ONE
    if mapping not in (Dependence.ADDRESS, Dependence.ADDRESS_PORT, DEPENDENT):
        return _Outer.UNKNOWN
    match ports:
        case Ports.SEQUENTIAL:
            return _Outer.NEXT
        case Ports.RANDOM:
            return _Outer.ANY
        case _:
            return _Outer.UNKNOWN


_TECHNIQUES = {
    (_Outer.NEXT, _Outer.ONE): (Technique.PREDICTION, PunchRole.OPENS),
    (_Outer.ONE, _Outer.NEXT): (Technique.PREDICTION, PunchRole.PROBES),
    (_Outer.NEXT, _Outer.NEXT): (Technique.PREDICTION, PunchRole.BOTH),
    (_Outer.ANY, _Outer.ONE): (Technique.BIRTHDAY, PunchRole.OPENS),
    (_Outer.ONE, _Outer.ANY): (Technique.BIRTHDAY, PunchRole.PROBES),
}
"""By how we and the peer are seen. Where one end is at any port, and the other is not at one
address, it takes some 50,000 probes: a relay costs everybody less."""


def are_fixed(ours: Sequence[str], theirs: Sequence[str]) -> bool:
    """Whether each end has one address for everybody, so that ICE ought to have found a path."""
    return _outer(ours) is _outer(theirs) is _Outer.ONE


def plan(
    ours: Sequence[str], theirs: Sequence[str], able: Collection[str], *, offers: bool = False
) -> Plan | None:
    """What to do for a path between two NATs; None: ICE does, or nothing helps, or none is known.

    Each is mapping, filtering and ports in the words of offers; `able`: what both ends can do.
    `low-ttl` among that: ICE ought to have found a path and has not, so some router may remember
    a packet against its sender; whoever `offers` opens a fresh socket with a low TTL.

    >>> home, far = ("independent", "address-port", "random"), ("address-port",) * 2 + ("random",)
    >>> plan(home, far, ["birthday"]).role.value, plan(far, far, ["birthday"])
    ('probes', None)
    """
    if Technique.LOW_TTL in able and are_fixed(ours, theirs):
        role = PunchRole.OPENS if offers else PunchRole.PROBES
        return Plan(Technique.LOW_TTL, role, ice_first=False)
    known = direct(ours, theirs)
    found = _TECHNIQUES.get((_outer(ours), _outer(theirs)))
    if known or found is None or found[0] not in able:
        return None
    return Plan(*found, ice_first=known is None)
