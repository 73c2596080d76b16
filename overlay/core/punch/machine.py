"""What all techniques share: their door, and what comes out of it.

It stands alone so that neither technique knows the other.
"""

from dataclasses import dataclass
from typing import Protocol

from overlay.core.ice import stun
from overlay.core.types import Address, PunchEnd

PORTS = range(1024, 65_536)
"""Where NATs have their mappings (RFC 4787 §4.2.2)."""


@dataclass(frozen=True, slots=True)
class Check:
    """Send a check that belongs to no candidate pair: whoever answers it by its own makes one."""

    remote: Address
    local: Address | None
    ttl: int | None = None


@dataclass(frozen=True, slots=True)
class Ask:
    """Send this plain Binding request (RFC 8489) to an observer."""

    transaction: bytes
    remote: Address
    local: Address


@dataclass(frozen=True, slots=True)
class Foretell:
    """Tell the peer where we shall be."""

    round: int
    ports: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Over:
    """It has come to nothing."""

    end: PunchEnd


PunchOutput = Check | Ask | Foretell | Over


class Machine(Protocol):
    """One technique at one end, from its begin to its end; clock and randomness are passed in."""

    sockets: int
    """How many fresh sockets it wants."""

    @property
    def is_quiet(self) -> bool:
        """Whether no other check of the node's may now leave for a new address."""
        ...

    def begin(self, sockets: tuple[Address, ...], now: float) -> None:
        """Its sockets are open, at these addresses of ours: perhaps fewer than it wanted."""
        ...

    def on_mapped(
        self, answer: stun.Message, remote: Address, local: Address | None, now: float
    ) -> None:
        """A Binding response that no agent has asked for."""
        ...

    def aim(self, round_number: int, ports: tuple[int, ...], now: float) -> None:
        """The peer foretells its ports."""
        ...

    def handle_timeout(self, now: float) -> None:
        """Do what is due."""
        ...

    def next_deadline(self) -> float | None:
        """When that is; None: not before something else happens."""
        ...

    def take(self) -> list[PunchOutput]:
        """What there is to do since the last call."""
        ...
