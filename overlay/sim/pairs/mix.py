"""The field's mix: how often homes are of which kind, and what comes of pairs drawn from them.

The shares are round numbers after what has been published (guess). Richter et al. (IMC 2016) found
carriers' NATs in a sixth of the fixed access networks and in nine tenths of the mobile ones; of
these NATs 11 % (fixed) and 40 % (mobile) have mappings that depend on who is sent to, of home
routers less than 2 %. Idle mappings live for 35 s (fixed) and 65 s (mobile) there, in the median.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from random import Random

from overlay.core.nat.behaviour import Dependence, Ports
from overlay.sim.network.nat.kinds import KINDS, Kind
from overlay.sim.pairs.pair import Options, Outcome, Path, Why, outcome

FIXED_TIMEOUT, MOBILE_TIMEOUT = 35.0, 65.0
_ADDRESS_PORT = Dependence.ADDRESS_PORT


def _fixed(name: str, mapping: Dependence, ports: Ports) -> Kind:
    """A home's router behind a carrier's NAT."""
    carrier = Kind(name, mapping=mapping, ports=ports, timeout=FIXED_TIMEOUT)
    return Kind(f"fixed_{name}", carrier=carrier)


def _mobile(name: str, mapping: Dependence, ports: Ports) -> Kind:
    """A telephone: nothing but the carrier's NAT is in front of it."""
    return Kind(f"mobile_{name}", mapping=mapping, ports=ports, timeout=MOBILE_TIMEOUT)


_RESTRICTED = "port_restricted", Dependence.INDEPENDENT, Ports.PRESERVED
_SEQUENTIAL = "sequential", _ADDRESS_PORT, Ports.SEQUENTIAL
_RANDOM = "random", _ADDRESS_PORT, Ports.RANDOM
MIX: dict[Kind, int] = {
    KINDS["public"]: 8,
    KINDS["full_cone"]: 3,
    KINDS["address_restricted"]: 5,
    KINDS["port_restricted"]: 52,
    KINDS["symmetric_random"]: 1,
    _fixed(*_RESTRICTED): 15,
    _fixed(*_SEQUENTIAL): 1,
    _fixed(*_RANDOM): 1,
    _mobile(*_RESTRICTED): 7,
    _mobile(*_SEQUENTIAL): 2,
    _mobile(*_RANDOM): 2,
    KINDS["no_udp"]: 3,
}
"""Of a hundred homes, how many are of which kind."""


def draw(count: int, seed: int = 0) -> Iterator[tuple[Kind, Kind]]:
    """So many pairs of homes, each home drawn by itself."""
    rng = Random(f"homes {seed}")
    kinds, shares = list(MIX), list(MIX.values())
    for _ in range(count):
        a, b = rng.choices(kinds, shares, k=2)
        yield a, b


def share(finds: Callable[[Kind, Kind], bool]) -> float:
    """Of all pairs, how many are direct if this says which are."""
    total = sum(MIX.values())
    direct = sum(m * n for a, m in MIX.items() for b, n in MIX.items() if finds(a, b))
    return direct / total**2


# --- by trying -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Counts:
    """What came of so many pairs."""

    pairs: int
    direct: int
    relayed: int
    unreachable: int
    no_udp: int
    """Pairs of which one home lets no UDP out; in no other count."""
    techniques: dict[str, int]
    """What has found direct paths, where it took more than a dial."""

    @property
    def share(self) -> float:
        """Of all pairs, how many are direct."""
        return self.direct / self.pairs


def counts(found: Sequence[Outcome]) -> Counts:
    """Count what came of pairs."""
    paths = [each.path for each in found if each.why is not Why.NO_UDP]
    techniques = Counter(each.technique for each in found if each.technique is not None)
    return Counts(
        pairs=len(found),
        direct=paths.count(Path.DIRECT),
        relayed=paths.count(Path.RELAYED),
        unreachable=paths.count(Path.NONE),
        no_udp=len(found) - len(paths),
        techniques=dict(sorted(techniques.items())),
    )


MEMBERS = Options(acquainted=8.0)
"""Both have been members for long enough to know their NATs."""
WORLDS = 1_000_000
"""Worlds of one seed of the mix, each with a seed of its own."""


def outcomes(numbers: range, seed: int = 0, options: Options = MEMBERS) -> Iterator[Outcome]:
    """What comes of these of the pairs that `draw` gives, each in a world of its own."""
    pairs = list(draw(numbers.stop, seed))
    for number in numbers:
        yield outcome(*pairs[number], seed * WORLDS + number, options)
