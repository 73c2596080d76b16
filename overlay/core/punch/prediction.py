"""One idea: prediction, for NATs that number their ports one after the other.

Neighbours tell a fresh socket which ports it gets towards them; the next one is what it gets
towards the peer. A round is: ask two of them, send to the peer at once, tell it the next few
ports. The peer probes at these, several since other hosts behind the NAT have new flows meanwhile.
Between question and packet no other check of the node's may leave for a new address (`is_quiet`):
each would take a port.

Where both NATs number, both ask, tell, and then send to the peer's ports in their order, since
every packet gets a port of its own. One end sends to each of the ports, the other to every second
one: of two lines that rise differently some point meets, wherever each begins. So it does not
matter that other hosts' flows have taken ports between question and packet: if they have taken s
at the end that goes by twos and t at the other, its packet s + t meets the other's packet 2 s + t.

A round of both begins when either has asked, and fires when either has heard the other. Who hears
of a later round than its own goes there, so that two that did not begin at once keep step.

Where a NAT has one address for everybody, the port that neighbours see is the one that the peer
sees: then this is a fresh socket for ports that a router remembers a packet against (`fixed`).

What opens a NAT has a low TTL, and so cannot come to the other end too early (decision 0039).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from overlay.core.ice import stun
from overlay.core.punch.machine import PORTS, Ask, Check, Foretell, Over, PunchOutput
from overlay.core.types import Address, PunchEnd, PunchRole, Random

ROUNDS = 5
WINDOW = 5
"""Ports that are foretold: as many survive three foreign flows (measured)."""
STEP_MAX = 4
"""Ports by which some allocators move on at once (guess); more is other hosts' doing."""
ROUND_SECONDS = 0.9
"""From one round to the next (guess): five fit into five seconds."""
UNHEARD_SECONDS = 2.0
"""The same where the other end has to be heard and has not been (guess): it may begin later, and
its word comes by way of a relay."""
BOTH_PACKETS = 16
"""Packets of a round where both number (guess): some two meet if five flows come between at either
end."""
SAMPLE_RESEND = 0.2
"""Seconds until an observer is asked again (guess), and at last the other's word has to do."""
REPEATS = (0.0, 0.08, 0.25, 0.5)
"""Seconds after the first of a round's probes and openers at which they are sent again (guess)."""
REST = 0.1
"""Seconds from the last of them to the next round (guess)."""


@dataclass(slots=True)
class _Round:
    """One try."""

    number: int
    local: Address | None
    """Its socket, at the end that opens."""
    began_at: float
    asked: dict[bytes, Address] = field(default_factory=dict)
    """Observers that have not answered, by transaction."""
    seen: list[int] = field(default_factory=list)
    """The ports at which they have seen the socket."""
    resend_at: float | None = None
    foretold: bool = False
    ports: tuple[int, ...] = ()
    """Of the peer's."""
    targets: tuple[Address, ...] = ()
    """Where its packets go, once all is known."""
    fired_at: float = 0.0
    fired: int = 0


class Prediction:
    """One end of it."""

    def __init__(
        self,
        role: PunchRole,
        target: Address,
        observers: tuple[Address, ...],
        *,
        ttl: int | None,
        random: Random,
        fixed: bool = False,
        stride: int = 1,
    ) -> None:
        """`observers`: two of them are asked. `fixed`: the peer sees what they see.

        `stride`: where both ends number, one sends to every port (1), the other by twos (2).
        """
        self.sockets = 0 if role is PunchRole.PROBES else ROUNDS
        self._role, self._target, self._ttl, self._random = role, target, ttl, random
        self._observers, self._fixed, self._stride = observers[:2], fixed, stride
        self._sockets: tuple[Address, ...] = ()
        self._round: _Round | None = None
        self._ends_at: float | None = None
        self._is_over = False
        # What the peer has foretold before we have begun.
        self._early: dict[int, tuple[int, ...]] = {}
        self._outputs: list[PunchOutput] = []

    @property
    def is_quiet(self) -> bool:
        """See `Machine`: from the question to the packet that makes the mapping."""
        current = self._round
        return bool(self.sockets) and current is not None and not current.fired

    def begin(self, sockets: tuple[Address, ...], now: float) -> None:
        """See `Machine`."""
        self._ends_at = now + ROUNDS * ROUND_SECONDS + REPEATS[-1]
        latest = max(self._early, default=1)
        if not self.sockets:
            # The peer's word begins each round.
            self.aim(latest, self._early.get(latest, ()), now)
        elif not sockets:
            self._end(PunchEnd.SOCKETS)
        elif not self._observers:
            self._end(PunchEnd.UNSAMPLED)
        else:
            self._sockets = sockets
            self._begin_round(latest, self._early.get(latest, ()), now)

    def _begin_round(self, number: int, ports: tuple[int, ...], now: float) -> None:
        """`ports`: what the peer foretells for it, if it has."""
        if number > min(ROUNDS, len(self._sockets)):
            self._end(PunchEnd.UNANSWERED)
            return
        self._round = _Round(number, self._sockets[number - 1], now, ports=ports)
        for observer in self._observers:
            self._round.asked[self._random.randbytes(12)] = observer
        self._ask(self._round, now)

    def _ask(self, current: _Round, now: float) -> None:
        assert current.local is not None
        for transaction, observer in current.asked.items():
            self._outputs.append(Ask(transaction, observer, current.local))
        current.resend_at = now + SAMPLE_RESEND

    # --- what comes in -----------------------------------------------------------------------

    def on_mapped(
        self, answer: stun.Message, remote: Address, local: Address | None, now: float
    ) -> None:
        """See `Machine`."""
        current = self._round
        if current is None or local != current.local or answer.mapped_address is None:
            return
        if current.asked.get(answer.transaction_id) != remote:
            return
        del current.asked[answer.transaction_id]
        current.seen.append(answer.mapped_address.port)
        if not current.asked:
            self._sampled(current, now)

    def _sampled(self, current: _Round, now: float) -> None:
        """As much as will be is known of the socket: foretell, and fire if nothing is missing."""
        if current.foretold:
            return
        current.foretold, current.resend_at = True, None
        ports = tuple(dict.fromkeys(current.seen)) if self._fixed else foretell(current.seen)
        self._outputs.append(Foretell(current.number, ports))
        self._fire_if_ready(current, now)

    def aim(self, round_number: int, ports: tuple[int, ...], now: float) -> None:
        """See `Machine`."""
        current = self._round
        if not 1 <= round_number <= ROUNDS or not ports or self._is_over:
            return
        if self._ends_at is None:
            self._early[round_number] = ports
        elif self._role is PunchRole.PROBES:
            if current is None or round_number > current.number:
                self._round = _Round(round_number, None, now, ports=ports)
                self._fire(self._round, now)
        elif self._role is PunchRole.BOTH and current is not None:
            if round_number == current.number:
                current.ports = current.ports or ports
                self._fire_if_ready(current, now)
            elif current.number < round_number <= len(self._sockets):
                self._begin_round(round_number, ports, now)

    # --- packets -----------------------------------------------------------------------------

    def _fire_if_ready(self, current: _Round, now: float) -> None:
        if not current.foretold or current.fired:
            return
        if self._role is PunchRole.OPENS or current.ports:
            self._fire(current, now)

    def _fire(self, current: _Round, now: float) -> None:
        host = self._target.host
        if self._role is PunchRole.OPENS:
            current.targets = (self._target,)
        else:
            both = self._role is PunchRole.BOTH
            ports = line(current.ports, self._stride) if both else current.ports
            current.targets = tuple(Address(host, port) for port in ports)
        current.fired_at = now
        self._send(current)

    def _send(self, current: _Round) -> None:
        # An end that opens needs nobody to hear it before it has heard; where both open, somebody
        # has to, and by the second time either has its own NAT open.
        low = self._role is PunchRole.OPENS or (self._role is PunchRole.BOTH and not current.fired)
        for target in current.targets:
            self._outputs.append(Check(target, current.local, self._ttl if low else None))
        current.fired += 1

    # --- time --------------------------------------------------------------------------------

    def handle_timeout(self, now: float) -> None:
        """See `Machine`."""
        current = self._round
        if self._ends_at is None:
            return
        if current is not None:
            again = self._again_at(current)
            if again is not None and now >= again:
                self._send(current)
            if current.resend_at is not None and now >= current.resend_at:
                if current.seen:
                    self._sampled(current, now)
                else:
                    self._ask(current, now)
        if now >= self._ends_at:
            self._end(PunchEnd.UNANSWERED)
        elif self._sockets and current is not None and now >= self._over_at(current):
            self._begin_round(current.number + 1, (), now)

    def _over_at(self, current: _Round) -> float:
        """When the next round begins, at an end that opens."""
        if self._role is PunchRole.OPENS:
            return current.began_at + ROUND_SECONDS
        if not current.fired:
            return current.began_at + UNHEARD_SECONDS
        repeated = current.fired_at + REPEATS[-1] + REST
        return max(current.began_at + ROUND_SECONDS, repeated)

    def _again_at(self, current: _Round) -> float | None:
        if not 0 < current.fired < len(REPEATS):
            return None
        return current.fired_at + REPEATS[current.fired]

    def next_deadline(self) -> float | None:
        """See `Machine`."""
        if self._ends_at is None:
            return None
        deadlines: list[float | None] = [self._ends_at]
        if self._round is not None:
            deadlines += [self._again_at(self._round), self._round.resend_at]
            if self._sockets:
                deadlines.append(self._over_at(self._round))
        return min(each for each in deadlines if each is not None)

    def _end(self, end: PunchEnd) -> None:
        self._ends_at, self._round, self._is_over = None, None, True
        self._outputs.append(Over(end))

    def take(self) -> list[PunchOutput]:
        """See `Machine`."""
        outputs, self._outputs = self._outputs, []
        return outputs


def foretell(seen: list[int]) -> tuple[int, ...]:
    """The next ports of an allocator, after those that it gave last, in order.

    >>> foretell([20007, 20008])
    (20009, 20010, 20011, 20012, 20013)
    """
    last = seen[-1]
    step = last - seen[0] if len(seen) > 1 else 1
    if not 1 <= step <= STEP_MAX:
        step, last = 1, max(seen) if max(seen) - min(seen) < len(PORTS) // 2 else last
    ports = [last + step * (nth + 1) for nth in range(WINDOW)]
    ports += [last + nth + 1 for nth in range(WINDOW)] if step > 1 else []
    return tuple(dict.fromkeys(port for port in ports if port in PORTS)) or (PORTS.start,)


def line(foretold: Sequence[int], stride: int) -> tuple[int, ...]:
    """Every port of an allocator from the first that is foretold, or every second one.

    >>> line((20009, 20010, 20011), 2)[:3], line((20009, 20011, 20013), 1)[:3]
    ((20009, 20011, 20013), (20009, 20011, 20013))
    """
    first, step = foretold[0], foretold[1] - foretold[0] if len(foretold) > 1 else 1
    step = stride * (step if 1 <= step <= STEP_MAX else 1)
    ports = range(first, first + step * BOTH_PACKETS, step)
    return tuple(port for port in ports if port in PORTS)
