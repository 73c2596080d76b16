"""What every machine of the core is given: settings, keys, randomness, wall time, an outbox."""

from dataclasses import dataclass, replace
from typing import Any

from overlay.core.events import Effect, Report
from overlay.core.timers import Agenda
from overlay.core.types import Address, Crypto, PeerId, Random
from overlay.core.wire.messages import WIRE_MIN, WIRE_VERSION


@dataclass(frozen=True, slots=True)
class Settings:
    """What a node is started with; the configuration file decides most of it."""

    network: bytes
    """The network's id, 32 bytes."""
    network_name: str
    name: str
    boot: int
    """Greater at each start of this node: tells an old link from a new one."""
    dial_key: bytes
    sequence: int = 0
    """Our records continue after this sequence number."""
    wire: tuple[int, int] = (WIRE_MIN, WIRE_VERSION)
    """The wire versions that we speak, the oldest and the newest."""
    direct: bool = True
    """Whether records that came by gossip may be dialled (``links.direct``)."""
    auto: bool = True
    """Whether links open that no command asked for (``links.auto``)."""
    mesh_size: int = 8
    """Up to this many nodes the mesh is full (``links.full_mesh``)."""
    active_size: int = 5
    """Neighbours for gossip in a larger mesh (HyParView's active view)."""
    links_max: int = 12
    """Links beyond this are guests (``links.max``). There is room besides for as many long links of
    others as we ask for ourselves: with none, others would have to draw theirs again and again."""
    ring_side: int = 2
    """Ring neighbours on either side, for routing; 0 does without the ring."""
    long_links: int = 2
    """Links at harmonic distances around the ring."""
    records_spread: int = 64
    """Up to so many members everybody knows everybody's record (`RECORDS_SPREAD`)."""
    records_max: int = 256
    """Records kept (guess: eight passive views); one that serves nothing gives way."""
    passive_size: int = 30
    """Members kept in mind to replace neighbours (HyParView's passive view)."""
    passive_policy: str = "basalt"
    """How the passive view is filled: ``basalt``, or ``paper`` for HyParView's own shuffles."""
    exchange_interval: float = 30.0
    """Seconds (guess) between two exchanges of whole views (`overlay.core.membership.basalt`)."""
    guest_stay: float = 30.0
    """Seconds that a guest's link stays open (``links.guests``)."""
    low_ttl: int = 4
    """The TTL of our first checks as the answerer of an offer, 3 to 6; 0: the usual one
    (``nat.low_ttl``)."""
    knock: bool = True
    """Whether we knock for neighbours that ask what their NATs do (``nat.knock``)."""
    examine: bool = True
    """Whether we have our own NAT examined."""
    offers: bool = True
    """Whether links are negotiated through the mesh; off, links come by dialling alone."""
    relay: bool = True
    """Whether we relay for others (``relay.serve``)."""
    relay_rate: float = 5e6
    """Bytes a second over one circuit that we relay, both ways together (``relay.rate``)."""
    relay_bytes_per_day: int = 10**10
    """Bytes in a day that we relay at most (``relay.bytes_per_day``)."""
    circuits: bool = True
    """Whether peers that cannot be reached otherwise are reached through relays."""
    prediction: bool = True
    """Whether links are got off relays by foretelling ports (``nat.prediction``)."""
    birthday: bool = True
    """The same by many sockets and many probes (``nat.birthday``), if there can be so many."""
    stun: Address | None = None
    """A STUN server that may be asked where it sees us, for first contacts (``nat.stun``)."""
    relay_only: bool = False
    """Whether others learn no address of this host, and reach it over circuits alone
    (``links.relay_only``; decision 0038)."""
    shuffle_interval: float = 10.0
    """Seconds (guess) between two shuffles of ours: the papers' "cycle", which has no length."""
    resort: bool = True
    """Whether any member known by its record is promoted when nobody in the passive view is left,
    and absent ones are sought; off for the paper, in which whoever is in no view is forgotten."""
    flood: bool = False
    """Whether every neighbour stays eager: published messages flood the active view (HyParView
    §5), and no tree is grown."""


def hidden(settings: Settings) -> Settings:
    """What else is off in a node that shows itself to its relays alone (``links.relay_only``)."""
    return replace(settings, direct=False, knock=False, examine=False, relay=False)


class Context:
    """The shared ground of the machines of one node; it decides nothing."""

    def __init__(self, settings: Settings, crypto: Crypto, random: Random) -> None:
        self.settings = hidden(settings) if settings.relay_only else settings
        self.crypto = crypto
        self.random = random
        self.peer_id: PeerId = crypto.peer_id
        self._wall_offset = 0.0
        self.agenda = Agenda()  # the deadlines of all machines
        self._effects: list[Effect] = []

    def emit(self, effect: Effect) -> None:
        """Put an effect into the outbox; it is performed when the event has been handled."""
        self._effects.append(effect)

    def report(self, level: str, event: str, **fields: Any) -> None:
        """Have the log name something."""
        self._effects.append(Report(level, event, fields))

    def wall(self, now: float) -> float:
        """Unix seconds."""
        return now + self._wall_offset

    def set_wall(self, wall: float, now: float) -> None:
        """The host says that it is `wall` (Unix seconds) at this instant."""
        self._wall_offset = wall - now

    def drain(self) -> list[Effect]:
        """All effects since the last drain, in order."""
        effects, self._effects = self._effects, []
        return effects
