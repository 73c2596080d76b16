"""Where we are seen over IPv4 when no link runs over it: neighbours are asked by plain STUN.

Links prefer IPv6 where both ends have it, and its addresses are the hosts' own. So a node with both
families may hear from nobody at which address its NAT shows it over IPv4, and peers that have
nothing but IPv4 would find no path to it. Every node's port answers plain STUN; two neighbours
to which links run over IPv6, and whose records name a global IPv4 address, are asked there, from
the node's own port, again and again: the mapping has to be there still when an offer names it.
Nobody is asked while two links run over IPv4 and so tell it anyway. An address that is only claimed
may be a NAT's, which may remember a packet that nobody has asked for (decision 0039); that stands
in nobody's way, since the two are linked by another.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from overlay.core.addresses import is_loopback, is_private
from overlay.core.context import Context
from overlay.core.events import Await, Seen, SendFrom
from overlay.core.ice import stun
from overlay.core.limits import BoundedDict
from overlay.core.nat.knocking import Neighbour
from overlay.core.nat.observers import VOICES_NEEDED
from overlay.core.nat.reflexive import Reflexive
from overlay.core.timers import Timers
from overlay.core.types import MAIN, Address, PeerId

INTERVAL = 20.0
"""Seconds from one question to the next (guess): mappings of less than half a minute are rare."""
RESEND = 0.5
"""Seconds until a question is repeated that is not answered (guess)."""
SENDS = 4
REST = 120.0
"""Seconds for which a neighbour that has not answered is left alone (guess)."""
RESTING_MAX = 64


@dataclass(slots=True)
class _Question:
    """One neighbour that is asked now and then."""

    to: Address
    transaction: bytes = b""
    sends: int = 0
    """Since the last answer."""
    due: float = 0.0


@dataclass(slots=True)
class Asking:
    """Asks for one node. Methods return whether the addresses in our record have to change."""

    context: Context
    reflexive: Reflexive
    neighbours: Callable[[], list[Neighbour]]
    _questions: dict[PeerId, _Question] = field(default_factory=dict)
    # Until when who has not answered is left alone.
    _resting: BoundedDict[PeerId, float] = field(default_factory=lambda: BoundedDict(RESTING_MAX))
    _timers: Timers[None] = field(init=False)

    def __post_init__(self) -> None:
        self._timers = Timers(self.context.agenda)

    def on_moved(self, addresses: Sequence[Address], now: float) -> None:
        """We are elsewhere, with these addresses: who did not answer may."""
        for peer in self._questions:
            self.reflexive.forget_asked(peer)
        self._questions.clear()
        self._resting.clear()
        self._timers.stop(None)
        if len({":" in each.host for each in addresses}) > 1:
            self._timers.set(None, now)

    def consider(self, now: float) -> None:
        """Our links are others: see whom to ask, and ask what is due."""
        wanted = self._wanted(now)
        for peer in [each for each in self._questions if each not in wanted]:
            del self._questions[peer]
            self.reflexive.forget_asked(peer)
        for peer, address in wanted.items():
            question = self._questions.setdefault(peer, _Question(address))
            question.to = address
            if question.due <= now:
                self._send(question, now)
        due = [each.due for each in self._questions.values()]
        due += [until for until in self._resting.values() if until > now]
        if due:
            self._timers.set(None, min(due))

    def _send(self, question: _Question, now: float) -> None:
        question.sends += 1
        question.due = now + RESEND
        question.transaction = self.context.crypto.token(12)
        self.context.emit(Await(question.transaction))
        data = stun.encode(stun.binding_request(question.transaction), None)
        self.context.emit(SendFrom(MAIN, data, question.to))

    def _wanted(self, now: float) -> dict[PeerId, Address]:
        """Whom to ask, and where: those that are asked already before others."""
        if self.reflexive.hidden or not self._is_translated():
            return {}
        neighbours = self.neighbours()
        missing = VOICES_NEEDED - sum(_tells(each.remote) for each in neighbours)
        able = {
            each.peer: each.over_ipv4[0]
            for each in neighbours
            if each.over_ipv4 and ":" in each.remote.host and self._may_ask(each.peer, now)
        }
        chosen = sorted(able, key=lambda peer: peer not in self._questions)
        return {peer: able[peer] for peer in chosen[: max(0, missing)]}

    def _is_translated(self) -> bool:
        """Whether we have IPv4 addresses, and none that others could use."""
        ours = [each.host for each in self.reflexive.listening if ":" not in each.host]
        ours = [each for each in ours if not is_loopback(each)]
        return bool(ours) and all(map(is_private, ours))

    def _may_ask(self, peer: PeerId, now: float) -> bool:
        question = self._questions.get(peer)
        if question is not None and question.sends >= SENDS and question.due <= now:
            self._resting.put(peer, now + REST)
        return self._resting.get(peer, now) <= now

    def on_seen(self, seen: Seen, now: float) -> bool:
        """An answer has come in, from whoever says so."""
        for peer, question in self._questions.items():
            if question.transaction == seen.transaction and question.to == seen.remote:
                question.transaction, question.sends = b"", 0
                question.due = now + INTERVAL
                assert seen.mapped is not None
                return self.reflexive.vote(peer, seen.mapped, seen.remote, seen.local, asked=True)
        return False

    def on_time(self, now: float) -> None:
        """Ask again."""
        if list(self._timers.pop_due(now)):
            self.consider(now)


def _tells(remote: Address) -> bool:
    """Whether a neighbour whose link runs there sees us at our NAT's IPv4 address."""
    return ":" not in remote.host and not is_private(remote.host)
