"""Whether two homes can have a direct path at all, by what their NATs are; nothing is tried here.

A world that knows its homes knows from this when waiting is in vain. No node knows as much.
"""

from overlay.core.nat.behaviour import Dependence, Ports
from overlay.sim.network.nat.kinds import Kind


def by_ice(a: Kind, b: Kind) -> bool:
    """Whether ICE alone finds a direct path (RFC 8445, server-reflexive candidates).

    Checks go both ways at once, so each filter has let the other end in, unless a mapping for this
    peer has a port that nobody has told it.
    """
    if not (a.udp and b.udp):
        return False
    return not any(_depends(one) and _is_strict(other) for one, other in ((a, b), (b, a)))


def by_all_means(a: Kind, b: Kind) -> bool:
    """Whether a direct path is found by prediction and the birthday technique, too.

    What stays out of reach: a port drawn by chance, where the other one is not known either.
    """
    if not (a.udp and b.udp):
        return False
    by_chance = [each for each in (a, b) if _draws(each)]
    return by_ice(a, b) or not (by_chance and _depends(a) and _depends(b))


def _chain(kind: Kind) -> list[Kind]:
    return [kind] if kind.carrier is None else [kind, kind.carrier]


def _depends(kind: Kind) -> bool:
    return any(each.mapping is not Dependence.INDEPENDENT for each in _chain(kind))


def _is_strict(kind: Kind) -> bool:
    return any(each.filtering is Dependence.ADDRESS_PORT for each in _chain(kind))


def _draws(kind: Kind) -> bool:
    nats = [each for each in _chain(kind) if each.mapping is not Dependence.INDEPENDENT]
    return any(each.ports is Ports.RANDOM for each in nats)
