"""Birthday: many sockets behind a NAT that draws ports by chance, many probes from the other end.

Each of 256 sockets sends to the one address of the other end, so the NAT holds 256 ports open for
it; a probe to a port drawn by chance hits one of them once in 252 times, and a thousand miss all of
them once in 55. The sockets' packets have a low TTL (decision 0039): they need not arrive, and the
other end's router must not remember one that came before the probe to its port.
"""

from overlay.core.ice import stun
from overlay.core.punch.machine import PORTS, Check, Over, PunchOutput
from overlay.core.types import Address, PunchEnd, PunchRole, Random

SOCKETS = 256
SOCKETS_MIN = 128
"""With fewer it is not begun (guess): half of them are met in twice the time."""
RATE = 500.0
"""Openers a second, and as many probes: a router may limit more, or anybody take offence."""
SECONDS = 5.0
TICK = 0.02
"""Seconds between two bursts of both."""
BURST = 16
"""Packets of one of them at most, however late it comes."""
AGAIN = 2.0
"""Seconds after which each socket opens its port again (guess): the packet may have got lost."""


class Birthday:
    """One end of it."""

    def __init__(
        self, role: PunchRole, target: Address, *, ttl: int | None, random: Random
    ) -> None:
        self.sockets = SOCKETS if role is PunchRole.OPENS else 0
        self._role, self._target, self._ttl, self._random = role, target, ttl, random
        self._sockets: tuple[Address, ...] = ()
        self._ports: list[int] = []
        self._began_at = 0.0
        self._sent = 0
        self._next_at: float | None = None
        self._outputs: list[PunchOutput] = []

    @property
    def is_quiet(self) -> bool:
        """Other checks do no harm."""
        return False

    def begin(self, sockets: tuple[Address, ...], now: float) -> None:
        """See `Machine`."""
        if self.sockets and len(sockets) < SOCKETS_MIN:
            self._end(PunchEnd.SOCKETS)
            return
        self._sockets = sockets
        if not self.sockets:
            self._ports = self._random.sample(PORTS, round(RATE * SECONDS))
        self._began_at = self._next_at = now
        self.handle_timeout(now)

    def on_mapped(
        self, answer: stun.Message, remote: Address, local: Address | None, now: float
    ) -> None:
        """See `Machine`: it asks nobody."""

    def aim(self, round_number: int, ports: tuple[int, ...], now: float) -> None:
        """See `Machine`: nothing can be foretold here."""

    def handle_timeout(self, now: float) -> None:
        """See `Machine`."""
        if self._next_at is None or now < self._next_at:
            return
        if now >= self._began_at + SECONDS:
            self._end(PunchEnd.UNANSWERED)
            return
        for _ in range(min(BURST, self._due(now) - self._sent)):
            self._send()
        self._next_at = now + TICK

    def _due(self, now: float) -> int:
        """How many should have left by now."""
        passed = now - self._began_at
        due = 1 + int(RATE * passed)
        if not self._sockets:
            return min(due, len(self._ports))
        rounds = 1 + int(passed / AGAIN)
        return min(due, rounds * len(self._sockets))

    def _send(self) -> None:
        if self._sockets:
            local = self._sockets[self._sent % len(self._sockets)]
            self._outputs.append(Check(self._target, local, self._ttl))
        else:
            port = self._ports[self._sent]
            self._outputs.append(Check(Address(self._target.host, port), None))
        self._sent += 1

    def _end(self, end: PunchEnd) -> None:
        self._next_at = None
        self._outputs.append(Over(end))

    def next_deadline(self) -> float | None:
        """See `Machine`."""
        return self._next_at

    def take(self) -> list[PunchOutput]:
        """See `Machine`."""
        outputs, self._outputs = self._outputs, []
        return outputs
