"""Who is to be heard at which pair of addresses: the door's index of associations."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from overlay.core.endpoint.dtls_cookie import (
    ONLY_OF_CLIENTS,
    ONLY_OF_SERVERS,
    SERVER_GREETINGS,
    handshake_type,
)
from overlay.core.ice import stun
from overlay.core.ice.agent import IceOutput
from overlay.core.ice.lite import PAIRS_MAX, Pair
from overlay.core.types import Address, Candidate, IceCredentials, LinkId, PathKind
from overlay.core.wire.dial_tokens import Claim

EARLY_MAX = 4
"""Records kept that overtake the last check of their path. guess"""
TARGETS_MAX = 24
"""Addresses of one link, signalled or verified; the one verified longest ago goes. guess"""


class Ice(Protocol):
    """What the door needs of an ICE agent; `IceAgent` and `LiteSession` have it."""

    @property
    def local(self) -> IceCredentials: ...

    @property
    def remote(self) -> IceCredentials | None: ...

    @property
    def rtt(self) -> float | None: ...

    def receive(
        self, message: stun.Message, remote: Address, local: Address | None, now: float
    ) -> None: ...

    def heard(self, remote: Address, now: float) -> None: ...

    def handle_timeout(self, now: float) -> None: ...

    def next_deadline(self) -> float | None: ...

    def take(self) -> list[IceOutput]: ...


@dataclass(slots=True, eq=False)
class Association:
    """One link or attempt on the port, from its first check to its end."""

    link: LinkId
    ice: Ice
    attempt: bytes
    inbound: bool
    dtls_role: str
    fingerprint: bytes | None
    deadline: float | None
    """When the attempt has failed; None while it is only prepared, and once established."""
    direct: bool = False
    """A direct dial, ours or a peer's; else negotiated."""
    claim: Claim | None = None
    """Of an inbound direct dial."""
    candidates: tuple[Candidate, ...] = ()
    remote_candidates: tuple[Candidate, ...] = ()
    started: bool = True
    """False while only prepared."""
    name: str = ""
    """The whole USERNAME of a direct dial that comes in, our user fragment otherwise."""
    due: float | None = None
    """The deadline that is set for it."""
    pair: Pair | None = None
    """Where its datagrams go; None before the path stands."""
    path: PathKind = PathKind.HOST
    secured: bool = False
    established: bool = False
    observed: Address | None = None
    """Our address as the peer sees it, told once the link is established."""
    hello_random: bytes = b""
    """Of the ClientHello that opened it."""
    pairs: dict[Pair, None] = field(default_factory=dict)
    """Where authenticated checks came from, and `pair`: where it may be heard."""
    targets: dict[Address, None] = field(default_factory=dict)
    """Where its checks may go unasked: what was signalled, and what has answered us since."""
    greeted: bool = False
    """As client: the server's hello has come."""
    early: list[bytes] = field(default_factory=list)
    """Records that came before our side of the path stood."""
    quiet_until: float = float("-inf")
    """Records decrypted before this instant tell the agent nothing that it does not know."""

    @property
    def dialling(self) -> tuple[Address, ...]:
        """Where this direct dial of ours is looking for its listener, if it is one."""
        if not self.direct or self.inbound or self.established:
            return ()
        return tuple(candidate.address for candidate in self.remote_candidates)

    def takes(self, data: bytes) -> bool:
        """Whether this plain record can belong to its handshake.

        On a pair where another handshake has just lost, records of that one still come in, and a
        message out of turn ends a handshake for good.
        """
        kind = handshake_type(data)
        if self.dtls_role == "server":
            return kind not in ONLY_OF_SERVERS
        self.greeted |= kind in SERVER_GREETINGS
        return self.greeted and kind not in ONLY_OF_CLIENTS

    def next_deadline(self) -> float | None:
        """When it wants to be looked at."""
        deadlines = (self.deadline, self.ice.next_deadline())
        return min((each for each in deadlines if each is not None), default=None)

    def vouch(self, remote: Address) -> None:
        """`remote` was signalled, or has proven that it receives what we send there."""
        self.targets.pop(remote, None)
        self.targets[remote] = None
        if len(self.targets) > TARGETS_MAX:
            del self.targets[next(iter(self.targets))]


class Route:
    """All associations that may be heard at one pair of addresses, and in which order."""

    __slots__ = ("members", "only", "opening", "pair", "sealed", "waiting")

    def __init__(self, pair: Pair) -> None:
        self.pair = pair
        self.members: list[Association] = []
        self.arrange()

    def arrange(self) -> None:
        """Decide who hears what: established ones first, at home before elsewhere."""
        members = sorted(self.members, key=self._rank)
        self.opening = tuple(m for m in members if m.secured and not m.established)
        """Handshakes under way: they get records of epoch 0."""
        self.sealed = tuple(m.link for m in members if m.secured)
        """Encrypted records go to the first that can read them."""
        self.waiting = [m for m in members if not m.secured and m.started]
        self.only = self.sealed[0] if len(self.sealed) == 1 else None

    def plain(self, data: bytes) -> tuple[LinkId, ...]:
        """Whose handshake a record of epoch 0 can belong to."""
        return tuple(each.link for each in self.opening if each.takes(data))

    def keep(self, data: bytes) -> bool:
        """Keep a record of epoch 0 for a handshake that is about to begin; False: there is none."""
        if self.opening or not self.waiting:
            return False
        early = self.waiting[0].early
        if len(early) < EARLY_MAX:
            early.append(data)
        return True

    def prefer(self, association: Association) -> None:
        """It has just been heard here: ask it first among its like."""
        self.members.remove(association)
        self.members.insert(0, association)
        self.arrange()

    def _rank(self, member: Association) -> int:
        return 2 * (not member.established) + (member.pair != self.pair)


class Routes:
    """The routes by pair. Bounded by the associations: each has at most four pairs and its own."""

    def __init__(self) -> None:
        self._routes: dict[Pair, Route] = {}

    def __len__(self) -> int:
        return len(self._routes)

    def get(self, pair: Pair) -> Route | None:
        """The route of a datagram."""
        return self._routes.get(pair)

    def members(self, pair: Pair) -> Sequence[Association]:
        """The associations that may be heard there."""
        route = self._routes.get(pair)
        return () if route is None else tuple(route.members)

    def join(self, association: Association, pair: Pair) -> None:
        """Let `association` be heard at `pair` too; beyond four the oldest other is forgotten."""
        if pair in association.pairs:
            del association.pairs[pair]
        else:
            self._routes.setdefault(pair, Route(pair)).members.append(association)
        association.pairs[pair] = None
        others = [each for each in association.pairs if each != association.pair]
        if len(others) > PAIRS_MAX:
            self._leave(association, others[0])
        self._routes[pair].arrange()

    def leave_all(self, association: Association) -> None:
        """The association is gone."""
        for pair in list(association.pairs):
            self._leave(association, pair)

    def arrange(self, association: Association) -> None:
        """Its state has changed: put every route of it in order again."""
        for pair in association.pairs:
            self._routes[pair].arrange()

    def prefer(self, association: Association, pair: Pair) -> None:
        """Ask it first at `pair`, where its datagrams go."""
        route = self._routes[pair]
        if route.sealed[:1] != (association.link,):
            route.prefer(association)

    def opening_at(self, pair: Pair) -> tuple[Association, ...]:
        """Handshakes under way there."""
        route = self._routes.get(pair)
        return () if route is None else route.opening

    def _leave(self, association: Association, pair: Pair) -> None:
        del association.pairs[pair]
        route = self._routes[pair]
        route.members.remove(association)
        route.arrange()
        if not route.members:
            del self._routes[pair]
