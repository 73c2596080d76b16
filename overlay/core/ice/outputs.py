"""What comes out of an ICE agent: datagrams to send, and facts about the path."""

from dataclasses import dataclass

from overlay.core.types import Address, PathKind


@dataclass(frozen=True, slots=True)
class SendStun:
    """Send this datagram."""

    data: bytes
    remote: Address
    local: Address | None
    """The source address; None: the routing table's choice."""


@dataclass(frozen=True, slots=True)
class Selected:
    """The path: at the first nomination, and whenever either end of it moves."""

    remote: Address
    local: Address | None
    path: PathKind


@dataclass(frozen=True, slots=True)
class Observed:
    """The peer sees us at `address`: the first time, and whenever that changes."""

    address: Address


@dataclass(frozen=True, slots=True)
class Suspect:
    """A check on the established path has gone unanswered for 1.5 s."""


@dataclass(frozen=True, slots=True)
class Alive:
    """Heard again after `Suspect` or `Silent`."""


@dataclass(frozen=True, slots=True)
class Silent:
    """Nothing heard for 6 s. The path is kept and probed."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The end: ``timeout`` (no pair worked), ``silent`` (for 60 s), ``conflict`` (of roles)."""

    reason: str


IceOutput = SendStun | Selected | Observed | Suspect | Alive | Silent | Failed
