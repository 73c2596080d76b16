"""The path that ICE has found: where it runs, how the peer sees us, whether it is there."""

from overlay.core.ice.checklist import CandidatePair
from overlay.core.ice.liveness import LATENESS, Liveness
from overlay.core.ice.outputs import Alive, IceOutput, Mapped, Selected, Silent, Suspect
from overlay.core.ice.states import Liveliness
from overlay.core.types import Address, PathKind


class Path:
    """The selected pair and its liveness; says every change once."""

    def __init__(self, outputs: list[IceOutput]) -> None:
        self.pair: CandidatePair | None = None  # None until the first nomination
        # An encrypted packet has been heard: from here on the strict rule moves the path.
        self.secured = False
        self._outputs = outputs
        self._liveness: Liveness | None = None
        self._route: tuple[Address, Address | None] | None = None
        self._mapped: Address | None = None

    def select(self, pair: CandidatePair, kind: PathKind, now: float) -> None:
        """The path runs over this pair now."""
        self.pair = pair
        if self._liveness is None:
            self._liveness = Liveness(now)
        self.announce(kind)

    def announce(self, kind: PathKind) -> None:
        """Say where the path runs if that has changed; the kernel may have changed our end."""
        assert self.pair is not None
        route = (self.pair.remote, self.pair.local or self.pair.seen_local)
        if route != self._route:
            self._route = route
            self._outputs.append(Selected(*route, kind))

    def observe(self, pair: CandidatePair) -> None:
        """Say how the peer sees us if that has changed; only the path's own mapping counts."""
        if self.pair in (None, pair) and pair.mapped not in (None, self._mapped):
            self._mapped = pair.mapped
            self._outputs.append(Mapped(pair.mapped))

    def heard(self, now: float) -> None:
        """The peer has proven to be there."""
        if self._liveness is not None and self._liveness.heard(now):
            self._outputs.append(Alive())

    def is_doubtful(self) -> bool:
        """Whether the peer is suspect or silent."""
        return self._liveness is not None and self._liveness.state is not Liveliness.ALIVE

    def check_due(self, controlling: bool, now: float) -> bool:
        """Whether to send a consent check (RFC 7675 §5.1) now; it counts as sent."""
        return self._liveness is not None and self._liveness.due(controlling, now)

    def judge(self, now: float) -> bool:
        """Say what has changed for the worse. False: the path is dead."""
        verdict = None if self._liveness is None else self._liveness.judge(now)
        if verdict is Liveliness.SUSPECT:
            self._outputs.append(Suspect())
        elif verdict is Liveliness.SILENT:
            self._outputs.append(Silent())
        return verdict is not Liveliness.DEAD

    def forgive(self, deadline: float | None, now: float) -> None:
        """A timeout that comes late says that our process stood still, not that the peer did."""
        if self._liveness is not None and deadline is not None and now > deadline + LATENESS:
            self._liveness.forgive(now - deadline, now)

    def next_deadline(self, controlling: bool) -> float | None:
        """When `check_due` or `judge` wants to be called."""
        return None if self._liveness is None else self._liveness.next_deadline(controlling)
