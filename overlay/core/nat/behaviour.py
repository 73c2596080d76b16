"""How our NAT behaves, in the words of RFC 4787: what follows from observers and knocks.

*Mapping* is whether the mapped address depends on who is sent to; neighbours see that at no extra
traffic. *Filtering* is whose packets come in; only packets from strangers show it, which helpers
send when asked (`overlay.core.nat.examining`). *Ports* is how the port of a new mapping is chosen.
Nothing is guessed: with fewer than two observers, and where answers are missing, it is "unknown".
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise

from overlay.core.addresses import is_private
from overlay.core.nat.observers import VOICES_NEEDED, Observation, agreed, realms
from overlay.core.nat.pairs import DEPENDENT
from overlay.core.nat.reflexive import Reflexive
from overlay.core.types import Address, PeerId

STEP_MAX = 64
"""Ports by which a sequential allocator has moved on at most between two mappings of ours (guess):
other hosts behind it have new ones meanwhile. Of random ports one pair in a thousand is as near."""


class Dependence(StrEnum):
    """What of the other end's address decides (RFC 4787 §4.1 and §5)."""

    INDEPENDENT = "independent"
    ADDRESS = "address"
    ADDRESS_PORT = "address-port"
    UNKNOWN = "unknown"


class Ports(StrEnum):
    """How the port of a new mapping is chosen (RFC 4787 §4.2.1)."""

    PRESERVED = "preserved"
    SEQUENTIAL = "sequential"
    RANDOM = "random"
    UNKNOWN = "unknown"


class Ipv6(StrEnum):
    """What we have of IPv6."""

    NONE = "none"
    """No global address."""
    OPEN = "open"
    """Strangers reach us."""
    FIREWALLED = "firewalled"
    """Strangers' knocks did not come in."""
    UNKNOWN = "unknown"
    """There is a global address; nobody has knocked there."""


@dataclass(frozen=True, slots=True)
class Findings:
    """What one examination has shown; None: nothing."""

    ipv6: bool
    """Over which family."""
    helper: PeerId | None = None
    """Who has knocked, or says that it has."""
    near: bool | None = None
    """Whether a knock from another port of somebody whom we have sent to came in."""
    strange: bool | None = None
    """Whether one from somebody whom we have never sent to came in."""
    fresh: tuple[Address, Address] | None = None
    """Another socket of ours, and where the helper saw it."""
    other: Address | None = None
    """Where the helper's second port saw it, a moment later."""
    elsewhere: Address | None = None
    """Where a neighbour on another host saw it, to which it had not sent before."""
    main: bool | None = None
    """Whether a knock from such another port came in at the node's own port."""
    hairpin: bool | None = None
    """Whether a packet of ours to our own mapped address came back."""

    @property
    def same_port(self) -> bool | None:
        """Whether two ports of one host see us at the same address."""
        if self.fresh is None or self.other is None:
            return None
        return self.fresh[1] == self.other

    @property
    def same_anywhere(self) -> bool:
        """Whether two hosts see us at the same address, neither of which had sent there first."""
        return self.fresh is not None and self.fresh[1] == self.elsewhere


@dataclass(frozen=True, slots=True)
class Behaviour:
    """A snapshot of what is known."""

    mapping: Dependence = Dependence.UNKNOWN
    filtering: Dependence = Dependence.UNKNOWN
    ports: Ports = Ports.UNKNOWN
    lifetime: float | None = None
    """Seconds for which an idle mapping lives at least; None: not measured yet."""
    hairpin: bool | None = None
    """Whether hosts behind the NAT reach each other at its outer address; None: no NAT, or not
    known."""
    ipv6: Ipv6 = Ipv6.NONE
    reachable: bool = False
    """Whether strangers reach us, proven lately."""
    differs: bool = False
    """Whether observers see us at different addresses, so that the mapping is not independent."""
    observers: tuple[Observation, ...] = ()
    """Those beyond our NAT."""

    @property
    def words(self) -> list[str]:
        """As offers and answers carry it."""
        unclear = self.differs and self.mapping is Dependence.UNKNOWN
        mapping = DEPENDENT if unclear else self.mapping.value
        return [mapping, self.filtering.value, self.ports.value]


def behaviour(
    reflexive: Reflexive, findings: Sequence[Findings] = (), lifetime: float | None = None
) -> Behaviour:
    """What follows from all that is known; of several findings of one thing the latest counts."""
    own = reflexive.own
    said = reflexive.observers.outside(own)
    group = next(iter(realms(said)), [])
    ipv6 = _ipv6(reflexive, [each for each in findings if each.ipv6])
    family = bool(group) and group[0].realm[0]
    known = [each for each in findings if each.ipv6 == family]
    if reflexive.is_dialled(ipv6=family) or (not group and reflexive.is_dialled(ipv6=True)):
        return Behaviour(
            mapping=Dependence.INDEPENDENT,
            filtering=Dependence.INDEPENDENT,
            ports=Ports.PRESERVED,
            ipv6=ipv6,
            reachable=True,
            observers=tuple(said),
        )
    enough = len({each.observer or each.peer for each in group}) >= VOICES_NEEDED
    stands = agreed(group)
    differs = enough and stands is None
    mapping, filtering, ports = Dependence.UNKNOWN, Dependence.UNKNOWN, Ports.UNKNOWN
    if enough:
        mapping = Dependence.INDEPENDENT if stands is not None else _mapping(known)
        filtering, ports = _filtering(known), _ports(group, known)
    return Behaviour(
        mapping=mapping,
        filtering=filtering,
        ports=ports,
        lifetime=lifetime,
        hairpin=None if stands in own else _latest([each.hairpin for each in known]),
        ipv6=ipv6,
        reachable=reflexive.is_public(),
        differs=differs,
        observers=tuple(said),
    )


def is_open(
    reflexive: Reflexive, found: Findings, before: Sequence[Findings] = ()
) -> Address | None:
    """The address of ours that these findings prove to be reachable by strangers, if they do.

    A knock from a second port of the helper must have come in at the node's own port. That alone
    shows a filter that lets in whom we have sent to; so either nobody's fresh socket is filtered,
    or it is, and this port is not: then somebody has opened it (a port that is forwarded). That
    nothing came in at the fresh one is a helper's word, so another helper has found the same
    `before`. Where there is no NAT, and no stranger to ask, the helper's knock has to do: firewalls
    filter by address and port, and the first public nodes of a mesh have nobody else.
    """
    if not found.main:
        return None
    others = [each for each in before if each.helper != found.helper and each.ipv6 == found.ipv6]
    closed = [each for each in others if each.main and each.near is False]
    forwarded = found.near is False and bool(closed)
    own = _without_nat(reflexive, found)
    if own is not None:
        stranger = found.strange is not False and found.near is not False
        return own if stranger or forwarded else None
    groups = realms(reflexive.observers.outside(reflexive.own))
    stands = agreed(next((each for each in groups if each[0].realm[0] == found.ipv6), []))
    return stands if found.strange or forwarded else None


def _without_nat(reflexive: Reflexive, found: Findings) -> Address | None:
    """Our own address, if the helper sees even a fresh socket of ours where it is."""
    if found.fresh is None or found.fresh[0] != found.fresh[1]:
        return None
    host = found.fresh[0].host
    own = (each for each in reflexive.listening if each.host == host)
    return None if is_private(host) else next(own, None)


def _mapping(known: Sequence[Findings]) -> Dependence:
    """Observers see us at different addresses: what two ports of one of them say decides.

    Unless two hosts have seen a fresh socket at the same address: then some router has given our
    usual port away to observers whose packets came too early, as it does to the second port, which
    has knocked.
    """
    if any(each.same_anywhere for each in known):
        return Dependence.INDEPENDENT
    same = _latest([each.same_port for each in known])
    if same is None:
        return Dependence.UNKNOWN
    return Dependence.ADDRESS if same else Dependence.ADDRESS_PORT


def _filtering(known: Sequence[Findings]) -> Dependence:
    """What comes in shows it, whoever has sent it; what does not only where somebody has knocked.

    Packets get lost, so one that came in counts for more than several that did not.
    """
    if any(each.strange for each in known):
        return Dependence.INDEPENDENT
    if any(each.near for each in known):
        stranger = _latest([each.strange for each in known])
        return Dependence.UNKNOWN if stranger is None else Dependence.ADDRESS
    near = _latest([each.near for each in known])
    return Dependence.UNKNOWN if near is None else Dependence.ADDRESS_PORT


def _ports(group: Sequence[Observation], known: Sequence[Findings]) -> Ports:
    """From all mappings of ours that we know of.

    Where one address stands, who sees another is left out: a router may have given the usual port
    away to a packet that came too early, or somebody lies. Where most came too early, two may even
    see us at the same wrong one; so a fresh socket that two hosts see at its own port decides.
    """
    stands = agreed(group)
    fresh = [each.fresh for each in known if each.fresh is not None]
    if any(each.same_anywhere and _is_kept(each.fresh) for each in known):
        return Ports.PRESERVED
    ordered = sorted(group, key=lambda each: each.order)
    said = [each for each in ordered if stands in (None, each.mapped) and each.local is not None]
    pairs = [(each.local, each.mapped) for each in said]
    if not pairs:
        return Ports.UNKNOWN
    # A router that preserves ports takes another where the usual one is taken; one that does not
    # hits the same by chance once in sixty thousand times.
    kept = [_is_kept(each) for each in [*pairs, *fresh]]
    if 2 * sum(kept) >= len(kept):
        return Ports.PRESERVED
    # Two mappings a moment apart say most: minutes apart others have had theirs in between.
    moments = [each for each in known if each.fresh and each.other and not each.same_port]
    if moments and moments[-1].fresh and moments[-1].other:
        ports = [moments[-1].fresh[1].port, moments[-1].other.port]
    else:
        # In which order these were made is not known for sure: whose answer came first was heard
        # first, and who says it again is heard last.
        ports = list(dict.fromkeys(outer.port for _, outer in pairs))
        ports += [outer.port for _, outer in fresh[-1:] if len(ports) < 2]
        ports.sort()
    if len(ports) < 2:
        return Ports.UNKNOWN
    steps = [after - before for before, after in pairwise(ports)]
    small = sum(0 < step <= STEP_MAX for step in steps)
    near = max(ports) - min(ports) <= STEP_MAX * len(steps)
    return Ports.SEQUENTIAL if near and 2 * small >= len(steps) else Ports.RANDOM


def _is_kept(pair: tuple[Address | None, Address] | None) -> bool:
    """Whether a mapping has the port of its socket."""
    return pair is not None and pair[0] is not None and pair[0].port == pair[1].port


def _ipv6(reflexive: Reflexive, known: Sequence[Findings]) -> Ipv6:
    own = [each for each in reflexive.own if ":" in each.host and not is_private(each.host)]
    if not own:
        return Ipv6.NONE
    if any(reflexive.is_proven(each) for each in own):
        return Ipv6.OPEN
    if any(each.strange for each in known):
        return Ipv6.OPEN
    return Ipv6.UNKNOWN if _filtering(known) is Dependence.UNKNOWN else Ipv6.FIREWALLED


def _latest(values: Sequence[bool | None]) -> bool | None:
    return next((each for each in reversed(values) if each is not None), None)
