"""The path that ICE has found: where it runs, how the peer sees us, whether the peer is there."""

from overlay.core.addresses import is_circuit
from overlay.core.ice.checklist import CandidatePair
from overlay.core.ice.liveness import LATENESS, Liveness, slack_for
from overlay.core.ice.outputs import Alive, IceOutput, Mapped, Selected, Silent, Suspect
from overlay.core.ice.states import Liveliness
from overlay.core.types import Address, PathKind, Technique

RTT_AGE = 30.0
"""Seconds after which a round trip that was measured says nothing any more (guess)."""


class RoundTrip:
    """What the questions of a path have measured, in seconds."""

    def __init__(self) -> None:
        self.seconds: float | None = None
        """Smoothed (RFC 6298 §2)."""
        self.at_most: float | None = None
        """What an answer has taken since the question was first asked, if that was repeated."""
        self._measured_at = float("-inf")

    def measure(self, seconds: float, now: float) -> None:
        """A question was answered after so many seconds."""
        if self.fresh(now) is None:
            self.seconds = seconds
        elif self.seconds is not None:
            self.seconds += (seconds - self.seconds) / 8
        self._measured_at = now

    @property
    def usual(self) -> float:
        """What an answer may take, as far as is known; 0: nothing is."""
        return self.seconds or self.at_most or 0.0

    def fresh(self, now: float) -> float | None:
        """The round trip unless it is too old: a path in use is not asked."""
        return self.seconds if now <= self._measured_at + RTT_AGE else None

    def forget(self) -> None:
        """The path is another one."""
        self.seconds, self.at_most, self._measured_at = None, None, float("-inf")


class Watch:
    """The liveness of one path; says every change once."""

    def __init__(self, outputs: list[IceOutput], round_trip: RoundTrip, now: float) -> None:
        self._outputs = outputs
        self._round_trip = round_trip
        self._liveness = Liveness(now)

    def answered(self, now: float) -> None:
        """The peer has answered, or acknowledged something of ours."""
        if self._liveness.answered(now):
            self._outputs.append(Alive())

    def is_doubtful(self) -> bool:
        """Whether the peer is suspect or silent."""
        return self._liveness.state is not Liveliness.ALIVE

    def question_due(self, now: float, *, controlling: bool) -> bool:
        """Whether to ask (RFC 7675 §5.1) now; it counts as sent."""
        return self._liveness.due(controlling, now)

    def asks_back(self, now: float) -> bool:
        """The peer has asked us: whether to ask it at once, being in doubt; it counts as sent."""
        return self._liveness.asks_back(now)

    def hasten(self, now: float) -> bool:
        """Data is not acknowledged: whether to ask at once; it counts as sent."""
        # An answer takes a round trip, and somewhat longer on a busy path.
        return self._liveness.hasten(1.5 * (self._round_trip.seconds or 0.0), now)

    def judge(self, now: float) -> bool:
        """Say what has changed for the worse. False: the path is dead."""
        self._liveness.slack = slack_for(self._round_trip.usual)
        verdict = self._liveness.judge(now)
        if verdict is Liveliness.SUSPECT:
            self._outputs.append(Suspect())
        elif verdict is Liveliness.SILENT:
            self._outputs.append(Silent())
        return verdict is not Liveliness.DEAD

    def forgive(self, deadline: float | None, now: float) -> None:
        """A timeout that comes late says that our process stood still, not that the peer did."""
        if deadline is not None and now > deadline + LATENESS:
            self._liveness.forgive(now - deadline, now)

    def next_deadline(self, *, controlling: bool) -> float:
        """When `question_due` or `judge` wants to be called."""
        self._liveness.slack = slack_for(self._round_trip.usual)
        return self._liveness.next_deadline(controlling)


class Path:
    """The selected pair of an agent, and its watch."""

    def __init__(self, outputs: list[IceOutput], round_trip: RoundTrip, *, secured: bool) -> None:
        self.pair: CandidatePair | None = None  # None until the first nomination
        # Something encrypted has been acknowledged: from here on the strict rule moves the path.
        self.secured = secured
        self.watch: Watch | None = None  # None until the first nomination
        self.technique: Technique | None = None  # how it was found, wherever it moves
        self._outputs = outputs
        self._round_trip = round_trip
        self._route: tuple[Address, Address | None, PathKind] | None = None
        self._mapped: Address | None = None

    def select(self, pair: CandidatePair, kind: PathKind, now: float) -> None:
        """The path runs over this pair now."""
        self.pair = pair
        if self.watch is None:
            self.watch = Watch(self._outputs, self._round_trip, now)
        self.announce(kind)

    def announce(self, kind: PathKind) -> None:
        """Say where the path runs if that has changed; the kernel may have changed our end."""
        assert self.pair is not None
        route = (self.pair.remote, self.pair.local or self.pair.seen_local, kind)
        if route != self._route:
            self._route = route
            self._outputs.append(Selected(*route, self.technique))

    def observe(self, pair: CandidatePair) -> None:
        """Say how the peer sees us if that has changed; only the path's own mapping counts.

        Over a circuit the peer sees nothing of us.
        """
        if is_circuit(pair.remote):
            return
        if self.pair in (None, pair) and pair.mapped not in (None, self._mapped):
            self._mapped = pair.mapped
            self._outputs.append(Mapped(pair.mapped))

    def answered(self, now: float) -> None:
        """The peer has answered, or acknowledged something of ours."""
        if self.watch is not None:
            self.watch.answered(now)
