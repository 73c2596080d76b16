"""A pair world: two nodes in homes of given kinds, three public members, and nobody else.

Both homes' nodes join and are linked to all three members, who say where they see them and relay
for them. Then one asks for the other. `outcome` runs such a world until it is clear what comes of
it; it is cheap enough for thousands of them in a minute.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from random import Random
from typing import Any

from overlay.core.events import Rejected
from overlay.core.nat.pairs import cause
from overlay.core.snapshots import PeerView
from overlay.core.types import Address, PathKind, RequestId
from overlay.sim.network.conditions import Conditions, Plane
from overlay.sim.network.ice import IceNetwork
from overlay.sim.network.nat.firewalls import TTL
from overlay.sim.network.nat.homes import ROUTERS, Gateway, Home, Homes
from overlay.sim.network.nat.kinds import Kind
from overlay.sim.node import SimNode
from overlay.sim.pairs.reach import by_all_means
from overlay.sim.world import World

OBSERVERS = 3
ELSEWHERE = "9.9.9.9"
"""Where foreign flows go; nobody is there."""
WITHIN = 40.0
"""Seconds within which every command has a result."""

WIDTH, BASE = 0.02, 0.005
"""Seconds from one edge of the plane to the other, and what every way takes besides: the way from
one home to the other is shorter than that over a third node, as it mostly is."""
LOOK_EVERY = 0.02
LOOKS = 25
"""Seconds between two looks whether a relayed link has become a direct one, and how many of them
come to each look whether it still may: that one is dear."""


class _Apart(Plane):
    """A plane with the homes on it, and the public members as far behind it as is said."""

    def __init__(self, seed: int, signalling: float) -> None:
        super().__init__(seed, WIDTH, BASE)
        self._signalling = signalling

    def between(self, one: int, other: int) -> float:
        """See `Latencies.between`."""
        straight = super().between(one, other)
        crosses = (one < OBSERVERS) != (other < OBSERVERS)
        return straight + self._signalling if crosses else straight


class Path(StrEnum):
    """How two nodes are linked in the end."""

    DIRECT = "direct"
    RELAYED = "relayed"
    NONE = "none"


class Why(StrEnum):
    """Why two nodes are not linked directly."""

    NO_UDP = "no_udp"  # one of the two homes lets no UDP out, so that its node is no member
    NATS = "nats"  # both NATs are known to leave no direct path
    SEARCHED = "searched"  # a direct path was looked for in vain
    REJECTED = "rejected"  # the command was turned down


@dataclass(frozen=True, slots=True)
class Options:
    """What else is to be said of a pair world."""

    acquainted: float = 0.0
    """Seconds that both nodes are members before one asks for the other: in about eight of them
    they get to know their NATs."""
    patience: float = 8.0
    """Seconds within which a link that began as a relayed one may become a direct one."""
    routers: int = ROUTERS
    """Plain routers before each home."""
    signalling: float = 0.0
    """Seconds by which every way between a home and a public member takes longer: two of them are
    on the way of an offer, and on that of its answer."""
    shared: str | Kind = ""
    """Both homes are behind one carrier's NAT, of this kind."""
    foreign: float = 0.0
    """Mappings a second that other hosts of each home make meanwhile (Poisson)."""
    checked: bool = False
    """Every promise of the nodes is watched; one that is broken raises `Violated`."""
    conditions: Conditions | None = None
    """What becomes of packets; None: each node has a place in a plane, drawn from the seed, some
    milliseconds from the others, none is lost, and `signalling` counts."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Of both homes' nodes (`overlay.core.context.Settings`), where they are not the defaults."""


DEFAULT = Options()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one pair."""

    a: str
    b: str
    """The names of the two kinds."""
    path: Path
    technique: str | None = None
    """What has found the direct path; None: there is none, or all it took was a dial."""
    seconds: float = 0.0
    """Virtual ones from the request to a link, direct or relayed."""
    direct_after: float | None = None
    """From the request to a direct link; None: there is none."""
    why: Why | None = None
    """Why there is no direct link; None: there is one."""
    text: str = ""
    """The same for people, as the nodes say it."""


class PairWorld:
    """Two homes, three public members, a clock; a test may do to it what it likes meanwhile."""

    def __init__(
        self, a: str | Kind, b: str | Kind, seed: int = 0, options: Options = DEFAULT
    ) -> None:
        """`a`: the kind of the home that asks for the other; each a `Kind`, or the name of one."""
        self.options = options
        conditions = options.conditions or Conditions(between=_Apart(seed, options.signalling))
        self.world = world = World(seed, conditions, checked=options.checked, fidelity="ice")
        assert isinstance(world.network, IceNetwork)
        self.homes = Homes(world.network, seed, routers=options.routers)
        self.publics = [
            world.spawn(host=f"5.{number}.0.10", advertised=True, auto=False)
            for number in range(1, OBSERVERS + 1)
        ]
        carrier = self.homes.carrier(options.shared) if options.shared else None
        self.at = self._home(a, carrier), self._home(b, carrier)
        """The two homes."""
        self.a, self.b = (
            world.spawn(host=home.new_host(), **{"auto": False, **options.settings})
            for home in self.at
        )
        if options.foreign:
            for home in self.at:
                self._foreign(home.new_host(), Random(f"foreign {home.outer} {seed}"), 0)

    def _home(self, kind: str | Kind, carrier: Gateway | None) -> Home:
        return self.homes.home(kind, carrier=carrier)

    def _foreign(self, host: str, rng: Random, flows: int) -> None:
        """A host that runs nothing of ours opens one flow after the other."""
        if flows:
            source = Address(host, 1024 + flows % 60_000)
            self.homes.outward(source, Address(ELSEWHERE, 53), TTL)
        pause = rng.expovariate(self.options.foreign)
        self.world.after(pause, partial(self._foreign, host, rng, flows + 1))

    # --- steps -------------------------------------------------------------------------------

    def gather(self) -> Rejected | None:
        """Have all become members, both homes' nodes linked to all public ones.

        Returns why one of the two has not, if it has not.
        """
        first, *others = self.publics
        refused = self._join(others, first)
        for public in self.publics:
            refused = refused or self._join([self.a, self.b], public)
        if refused is None:
            self.world.run_until(self._are_known, WITHIN, "the records of all")
            self.world.run_for(self.options.acquainted)
        return refused

    def connect(self) -> Outcome:
        """Have one ask for the other, and wait for what becomes of it."""
        began = self.world.now
        refused = self._all([(self.a, self.world.connect(self.a, self.b))])
        if refused is not None:
            return self._outcome(Path.NONE, why=Why.REJECTED, text=refused.text)
        seconds = self.world.now - began
        if not self.is_direct():
            self._wait_until_direct()
        if self.is_direct():
            after = self.world.now - began
            return self._outcome(
                Path.DIRECT, seconds=seconds, technique=self._technique(), direct_after=after
            )
        text = self._cause()
        why = Why.NATS if text else Why.SEARCHED
        path = Path.RELAYED if self.view() is not None else Path.NONE
        return self._outcome(path, seconds=seconds, why=why, text=text)

    def _join(self, nodes: Iterable[SimNode], through: SimNode) -> Rejected | None:
        """Whoever is a member already is linked to one more of them."""
        invite = self.world.invite(through)
        return self._all([(node, self.world.join(node, invite)) for node in nodes])

    def _all(self, asked: Sequence[tuple[SimNode, RequestId]]) -> Rejected | None:
        """Run until all these requests have a result; the first bad one, if there is one."""
        for node, request in asked:
            self.world.run_until(partial(_has_result, node, request), WITHIN, "the result")
            result = node.results[request]
            if isinstance(result, Rejected):
                return result
        return None

    def _are_known(self) -> bool:
        """Whether each of the two has heard of the other."""
        pairs = (self.a, self.b), (self.b, self.a)
        return all(
            any(record.peer_id == other.peer_id for record in node.core.known())
            for node, other in pairs
        )

    def _wait_until_direct(self) -> None:
        """Or until it is clear that they will not be, or patience is over."""
        until = self.world.now + self.options.patience
        while self.world.now < until and not self.is_hopeless():
            for _ in range(LOOKS):
                if self.is_direct():
                    return
                self.world.run_for(LOOK_EVERY)

    # --- looks -------------------------------------------------------------------------------

    def view(self) -> PeerView | None:
        """What the asking node says of its link to the other."""
        peer = self.b.peer_id
        return next((view for view in self.a.core.peers() if view.peer == peer), None)

    def is_direct(self) -> bool:
        """Whether they are linked without a relay."""
        view = self.view()
        return view is not None and view.facts.path is not PathKind.RELAYED

    def _technique(self) -> str | None:
        view = self.view()
        return view.facts.technique if view is not None else None

    def is_hopeless(self) -> bool:
        """Whether nothing can find a direct path, and the nodes know that ICE finds none."""
        return not by_all_means(*(home.kind for home in self.at)) and bool(self._cause())

    def _cause(self) -> str:
        return cause(self.a.core.behaviour().words, self.a.core.tried(self.b.peer_id)[1])

    def _outcome(self, path: Path, **found: Any) -> Outcome:
        return Outcome(self.at[0].kind.name, self.at[1].kind.name, path, **found)


def outcome(a: str | Kind, b: str | Kind, seed: int = 0, options: Options = DEFAULT) -> Outcome:
    """What comes of two homes of these kinds when a node in the first asks for one in the second.

    The same seed and options, the same outcome.
    """
    pair = PairWorld(a, b, seed, options)
    refused = pair.gather()
    if refused is None:
        return pair.connect()
    kinds = [home.kind for home in pair.at]
    why = Why.REJECTED if all(kind.udp for kind in kinds) else Why.NO_UDP
    return Outcome(kinds[0].name, kinds[1].name, Path.NONE, why=why, text=refused.text)


def _has_result(node: SimNode, request: RequestId) -> bool:
    return request in node.results
