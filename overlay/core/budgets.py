"""How much each of many may say: a token bucket for every name, and a bound on the names."""

from dataclasses import dataclass, field

from overlay.core.types import PeerId

NAMES_MAX = 1024
"""Names remembered; of more, whoever spent longest ago begins anew."""


@dataclass(slots=True)
class Budgets:
    """Buckets that hold `burst` units and gain `rate` a second; debts count down to one burst."""

    rate: float
    burst: float
    _left: dict[PeerId, tuple[float, float]] = field(default_factory=dict)
    """What was left, and when."""

    def left(self, name: PeerId, now: float) -> float:
        """Units that this one may still spend; below zero what it has overspent."""
        units, at = self._left.get(name, (self.burst, now))
        return min(self.burst, units + (now - at) * self.rate)

    def spend(self, name: PeerId, units: float, now: float) -> float:
        """Take units from this one's bucket, whether they are there or not; what is left."""
        left = max(-self.burst, self.left(name, now) - units)
        self._left.pop(name, None)
        while len(self._left) >= NAMES_MAX:
            del self._left[next(iter(self._left))]
        self._left[name] = (left, now)
        return left
