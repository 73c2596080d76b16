"""Knocks: packets that a node which strangers reach sends to a neighbour that asks for them.

Whose packets a NAT lets in is seen only when somebody sends some: the helper from another of its
ports, and a stranger, whom it asks in turn. Nobody may be made to shower others, so:

- a node knocks only if it is itself proven to be reachable, and at an address at which it sees
  the asker: the verified one of their link, or the one from which a Binding request with the
  asker's random transaction id has come, on the same host;
- a stranger knocks on the signed word of its own neighbour, which counts once and for 10 s;
- a knock is two Binding indications (RFC 8489 §6), so that a lost one says nothing false, each of
  28 bytes, a second apart; and one a second goes to a prefix, whoever asks.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import assert_never

from overlay.core.addresses import is_private
from overlay.core.context import Context
from overlay.core.events import Await, OpenPort, SendFrom
from overlay.core.ice import stun
from overlay.core.limits import SOURCES_MAX, BoundedDict, TokenBuckets, group_of
from overlay.core.nat.reflexive import Reflexive
from overlay.core.timers import Timers
from overlay.core.types import MAIN, Address, LinkId, PeerId, PortId
from overlay.core.wire import signing
from overlay.core.wire.documents import Attestation
from overlay.core.wire.messages import KnockAsk, Knocked, KnockMessage, KnockPass, KnockRefuse

ATTESTATION_LIFE = 10.0
"""Seconds for which a helper's word may be used (guess)."""
CLOCK_SKEW = 300.0
"""Seconds by which two clocks may differ, as everywhere (`overlay.core.link.hello`)."""
KNOCK_RATE, KNOCK_BURST = 1.0, 2.0
"""Packets a second to one prefix, and at once (guess)."""
ASK_RATE, ASK_BURST = 0.5, 6.0
"""Knocks a second that one neighbour may ask for, and at once: an examination takes two, and one
for each step in which a lifetime is measured (guess)."""
KNOCKING_MAX = 16
"""Askers that we serve at once (guess)."""
PORT_LIFE = 8.0
"""Seconds for which a port that we knock from stays open: answers are compared there (guess)."""
SEEN_TIMEOUT = 4.0
"""Seconds within which the asker's Binding request has to come (guess)."""
NONCES_MAX = 1024


class KnockRefusal(StrEnum):
    """Why somebody does not knock."""

    OFF = "off"  # ``nat.knock`` is false
    HIDDEN = "hidden"  # nobody has proven that strangers reach the node itself
    BUSY = "busy"  # too much is asked of it
    PRIVATE = "private"  # it sees the asker at an address that says nothing to strangers


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A neighbour, where the path to it runs."""

    peer: PeerId
    link: LinkId
    remote: Address
    local: Address
    is_public: bool
    """Whether strangers reach it at that address, as its record says."""
    hosts: tuple[str, ...] = ()
    """Of either family, if they reach it at one of them at least."""
    over_ipv4: tuple[Address, ...] = ()
    """Its global addresses of that family, proven ones first."""


class Due(StrEnum):
    """What falls due for a knock."""

    AGAIN = "again"  # its second packet
    SILENCE = "silence"  # the asker's mapping has been idle for as long as was asked
    OVER = "over"


@dataclass(slots=True)
class _Knock:
    """One that we have been asked for."""

    request: bytes
    asker: Neighbour
    """Who is told of it: the asker itself, or who has vouched for it."""
    port: PortId
    target: Address | None = None
    """None: it has not been seen yet."""
    stranger: bool = False
    own: bool = False
    after: int = 0
    second: PeerId | None = None
    """Whom we have asked to knock as a stranger."""


@dataclass(slots=True)
class Knocking:
    """Serves the knocks that neighbours ask for."""

    context: Context
    reflexive: Reflexive
    neighbours: Callable[[], list[Neighbour]]
    tell: Callable[[PeerId, KnockMessage], None]
    """Sends a message to a neighbour, if it is one still."""
    refused: dict[str, int] = field(default_factory=dict)
    """How many knocks we have refused, by code."""
    _knocks: dict[bytes, _Knock] = field(default_factory=dict)
    _by_port: dict[PortId, _Knock] = field(default_factory=dict)
    _nonces: BoundedDict[bytes, None] = field(default_factory=lambda: BoundedDict(NONCES_MAX))
    _asks: TokenBuckets[PeerId] = field(default_factory=lambda: TokenBuckets(ASK_RATE, ASK_BURST))
    _packets: TokenBuckets[str] = field(
        default_factory=lambda: TokenBuckets(KNOCK_RATE, KNOCK_BURST, SOURCES_MAX)
    )
    _timers: Timers[tuple[Due, bytes]] = field(init=False)
    _next_port: int = 1
    """Odd; the ports of our own examinations are even."""

    def __post_init__(self) -> None:
        self._timers = Timers(self.context.agenda)

    # --- the helper --------------------------------------------------------------------------

    def on_ask(self, asker: Neighbour, message: KnockAsk, now: float) -> None:
        """A neighbour wants to be knocked at."""
        refusal = self._refusal(asker, message.request, now)
        if refusal is None and is_private(asker.remote.host):
            refusal = KnockRefusal.PRIVATE
        if refusal is not None:
            self.refused[refusal] = self.refused.get(refusal, 0) + 1
            self.tell(asker.peer, KnockRefuse(message.request, refusal))
            return
        knock = self._add(message.request, asker, now + SEEN_TIMEOUT)
        knock.own, knock.after = message.own, message.after
        if message.own:
            knock.target = asker.remote
            self._open(knock, now)
        else:
            self.context.emit(Await(message.request))

    def on_seen(self, transaction: bytes, remote: Address, now: float) -> None:
        """The asker's Binding request has come from there."""
        knock = self._knocks.get(transaction)
        # On another host it could be anybody's who has copied the request.
        if knock is None or knock.target or remote.host != knock.asker.remote.host:
            return
        knock.target = remote
        if knock.after:
            self._timers.set((Due.SILENCE, transaction), now + knock.after)
            self._timers.set((Due.OVER, transaction), now + knock.after + 1.0)
        else:
            self._open(knock, now)
            self._ask_stranger(knock, now)

    def _ask_stranger(self, knock: _Knock, now: float) -> None:
        """Have somebody knock that is on no host to which the asker's socket has sent."""
        assert knock.target is not None
        near = (knock.target.host, knock.asker.local.host)
        others = [
            each
            for each in self.neighbours()
            if each.peer != knock.asker.peer
            and not any(host in near for host in each.hosts)
            and any((":" in host) == (":" in knock.target.host) for host in each.hosts)
        ]
        if not others:
            return
        chosen = self.context.random.choice(others)
        knock.second = chosen.peer
        attestation = Attestation(
            network=self.context.settings.network,
            helper=self.context.peer_id,
            asker=knock.asker.peer,
            host=knock.target.host,
            port=knock.target.port,
            nonce=knock.request,
            expires_at=int(self.context.wall(now) + ATTESTATION_LIFE),
        )
        data = signing.pack(signing.sign(attestation, self.context.crypto))
        self.tell(chosen.peer, KnockPass(data))

    def on_knocked(self, peer: PeerId, message: Knocked) -> bool:
        """A stranger has knocked as we have asked it to: tell the asker. False: not for us."""
        knock = self._knocks.get(message.request)
        if knock is None or knock.second != peer:
            return False
        told = Knocked(message.request, message.port, stranger=True)
        self.tell(knock.asker.peer, told)
        return True

    # --- the stranger ------------------------------------------------------------------------

    def on_pass(self, helper: Neighbour, message: KnockPass, now: float) -> None:
        """A neighbour has somebody whom it helps knocked at by us."""
        word = signing.opened(message.attestation, Attestation, self.context.crypto)
        if isinstance(word, str) or not self._holds(word, helper, now):
            self.refused["attestation"] = self.refused.get("attestation", 0) + 1
            return
        self._nonces.put(word.nonce, None)
        refusal = self._refusal(helper, word.nonce, now)
        if refusal is not None:
            self.refused[refusal] = self.refused.get(refusal, 0) + 1
            return
        knock = self._add(word.nonce, helper, now + SEEN_TIMEOUT)
        knock.stranger, knock.target = True, Address(word.host, word.port)
        self._open(knock, now)

    def _holds(self, word: Attestation, helper: Neighbour, now: float) -> bool:
        wall = self.context.wall(now)
        lives = wall - CLOCK_SKEW < word.expires_at < wall + ATTESTATION_LIFE + CLOCK_SKEW
        ours = word.network == self.context.settings.network and word.helper == helper.peer
        new = word.nonce not in self._nonces and word.asker != self.context.peer_id
        return ours and lives and new and bool(helper.hosts) and not is_private(word.host)

    # --- both --------------------------------------------------------------------------------

    def _refusal(self, asker: Neighbour, request: bytes, now: float) -> KnockRefusal | None:
        if not self.context.settings.knock:
            return KnockRefusal.OFF
        if not self.reflexive.is_public():
            return KnockRefusal.HIDDEN
        if len(self._knocks) >= KNOCKING_MAX or request in self._knocks:
            return KnockRefusal.BUSY
        return None if self._asks.take(asker.peer, now) else KnockRefusal.BUSY

    def _add(self, request: bytes, asker: Neighbour, until: float) -> _Knock:
        knock = self._knocks[request] = _Knock(request, asker, PortId(self._next_port))
        self._by_port[knock.port] = knock
        self._next_port += 2
        self._timers.set((Due.OVER, request), until)
        return knock

    def _open(self, knock: _Knock, now: float) -> None:
        assert knock.target is not None
        ipv6 = ":" in knock.target.host
        # A stranger's link to the helper may run over the other family.
        hosts = (knock.asker.local.host, *(each.host for each in self.reflexive.listening))
        host = next((each for each in hosts if (":" in each) == ipv6), None)
        if host is not None:
            self._timers.set((Due.OVER, knock.request), now + PORT_LIFE)
            self.context.emit(OpenPort(knock.port, host, PORT_LIFE))

    def on_port_opened(self, port: PortId, local: Address, now: float) -> None:
        """Knock from there."""
        knock = self._by_port.get(port)
        if knock is None:
            return
        if self._knock(knock, port, now):
            self._timers.set((Due.AGAIN, knock.request), now + 1.0 / KNOCK_RATE)
            self.tell(knock.asker.peer, Knocked(knock.request, local.port))
        elif not knock.stranger:
            self.tell(knock.asker.peer, KnockRefuse(knock.request, KnockRefusal.BUSY))

    def _knock(self, knock: _Knock, port: PortId, now: float) -> bool:
        """Send a packet; False: its prefix has had its share."""
        target = knock.target
        assert target is not None
        if not self._packets.take(group_of(target.host) or target.host, now):
            return False
        data = stun.encode(stun.binding_indication(knock.request), None)
        self.context.emit(SendFrom(port, data, target, knock.asker.local))
        return True

    def on_port_heard(self, port: PortId, data: bytes, remote: Address) -> None:
        """The asker compares where this port sees it; strangers and others are not answered."""
        knock = self._by_port.get(port)
        if knock is None or knock.target is None or knock.stranger:
            return
        request = stun.parse(data)
        if isinstance(request, stun.ParseError) or remote.host != knock.target.host:
            return
        if request.method == stun.BINDING and request.message_class is stun.MessageClass.REQUEST:
            answer = stun.encode(stun.binding_success(request, remote), None)
            self.context.emit(SendFrom(port, answer, remote))

    # --- time --------------------------------------------------------------------------------

    def on_time(self, now: float) -> None:
        """Knock again; forget what is over."""
        for due, request in self._timers.pop_due(now):
            knock = self._knocks.get(request)
            if knock is None:
                continue
            match due:
                case Due.AGAIN:
                    self._knock(knock, knock.port, now)
                case Due.SILENCE:
                    if self._knock(knock, MAIN, now):
                        self.tell(knock.asker.peer, Knocked(request, 0))
                case Due.OVER:
                    del self._knocks[request], self._by_port[knock.port]
                    for each in (Due.AGAIN, Due.SILENCE):
                        self._timers.stop((each, request))
                case _:
                    assert_never(due)
