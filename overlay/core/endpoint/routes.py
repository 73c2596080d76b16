"""Who is to be heard at which pair of addresses: the endpoint's index of associations."""

from collections.abc import Sequence

from overlay.core.endpoint.association import Association
from overlay.core.ice.lite import PAIRS_MAX
from overlay.core.ice.outputs import AddressPair
from overlay.core.types import LinkId

EARLY_MAX = 4
"""Records kept that overtake the last check of their path (guess)."""


class Route:
    """All associations that may be heard at one pair of addresses, and in which order."""

    __slots__ = ("members", "only", "opening", "pair", "sealed", "waiting")

    def __init__(self, pair: AddressPair) -> None:
        self.pair = pair
        self.members: list[Association] = []
        self.arrange()

    def arrange(self) -> None:
        """Decide who hears what: established ones first, and those whose datagrams go here."""
        members = sorted(self.members, key=self._rank)
        # Handshakes under way: they get records of epoch 0.
        self.opening = tuple(m for m in members if m.secured and not m.established)
        # Encrypted records go to the first that can read them.
        self.sealed = tuple(m.link for m in members if m.secured)
        self.waiting = [m for m in members if not m.secured and m.started]
        self.only = self.sealed[0] if len(self.sealed) == 1 else None

    def plain(self, data: bytes, name: bytes = b"") -> tuple[LinkId, ...]:
        """Whose handshake a record of epoch 0 can belong to; `name`: of a ClientHello."""
        return tuple(each.link for each in self.opening if each.goes_by(name) and each.takes(data))

    def keep(self, data: bytes, name: bytes = b"") -> bool:
        """Keep a record of epoch 0 for a handshake that is about to begin; False: there is none."""
        waiting = [each for each in self.waiting if each.goes_by(name)]
        if not waiting or any(each.goes_by(name) for each in self.opening):
            return False
        early = waiting[0].early
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
        self._routes: dict[AddressPair, Route] = {}

    def __len__(self) -> int:
        return len(self._routes)

    def get(self, pair: AddressPair) -> Route | None:
        """The route of a datagram."""
        return self._routes.get(pair)

    def members(self, pair: AddressPair) -> Sequence[Association]:
        """The associations that may be heard there."""
        route = self._routes.get(pair)
        return () if route is None else tuple(route.members)

    def join(self, association: Association, pair: AddressPair) -> None:
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

    def prefer(self, association: Association, pair: AddressPair) -> None:
        """Ask it first at `pair`, where its datagrams go."""
        route = self._routes[pair]
        if route.sealed[:1] != (association.link,):
            route.prefer(association)

    def opening_at(self, pair: AddressPair) -> tuple[Association, ...]:
        """Handshakes under way there."""
        route = self._routes.get(pair)
        return () if route is None else route.opening

    def _leave(self, association: Association, pair: AddressPair) -> None:
        del association.pairs[pair]
        route = self._routes[pair]
        route.members.remove(association)
        route.arrange()
        if not route.members:
            del self._routes[pair]
