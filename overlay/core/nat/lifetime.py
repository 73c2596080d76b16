"""For how long an idle mapping lives (RFC 4787 §4.3): silences of known lengths, halved between."""

from dataclasses import dataclass, field

from overlay.core.nat.knocking import Neighbour
from overlay.core.types import PortId

SILENCES = (2.0, 5.0, 10.0, 25.0, 55.0, 115.0)
"""Seconds that are tried (guess): below the lifetimes that are common, 30, 60 and 120 s (RFC 4787
REQ-5 asks for two minutes, and three of four carriers' NATs forget within one). A link that is idle
is asked every 2 s or 3 s, so shorter ones matter to nothing."""
FIRST = 3
"""Which of them is tried first."""
REPEATED = 2
"""How often a silence must have been too long (guess): the knock that breaks it may get lost."""


@dataclass(slots=True)
class Measurement:
    """One silence under way."""

    helper: Neighbour
    port: PortId
    request: bytes
    silence: float
    sends: int = 0
    seen: bool = False
    """The helper has answered, so the silence has begun."""
    told: bool = False
    """It says that it has knocked afterwards."""
    heard: bool = False
    """Its knock has come in."""


@dataclass(slots=True)
class Lifetime:
    """What the silences so far have shown."""

    lived: int = -1
    """The longest that the mapping outlived; -1: none yet."""
    died: int = len(SILENCES)
    """The shortest that it did not."""
    _failed: dict[int, int] = field(default_factory=dict)

    @property
    def seconds(self) -> float | None:
        """How long an idle mapping lives at least; None: not known yet, or hardly at all."""
        return SILENCES[self.lived] if self.lived >= 0 and self.next() is None else None

    def next(self) -> float | None:
        """The silence to be tried next; None: all is known."""
        if self.died - self.lived <= 1:
            return None
        if self.lived < 0 and self.died == len(SILENCES):
            return SILENCES[FIRST]
        return SILENCES[(self.lived + self.died) // 2]

    def learn(self, silence: float, *, lived: bool) -> None:
        """A mapping has outlived this silence, or has not."""
        index = SILENCES.index(silence)
        if lived:
            self.lived = max(self.lived, index)
            return
        self._failed[index] = self._failed.get(index, 0) + 1
        if self._failed[index] >= REPEATED:
            self.died = min(self.died, index)
