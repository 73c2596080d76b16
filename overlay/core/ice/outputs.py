"""What comes out of an ICE agent: datagrams to send, and facts about the path."""

from dataclasses import dataclass
from enum import StrEnum

from overlay.core.types import Address, PathKind

AddressPair = tuple[Address, Address | None]
"""A remote address, and the local address that it talks to (None where nobody says)."""


class Failure(StrEnum):
    """Why an agent has given up."""

    TIMEOUT = "timeout"  # no candidate pair worked in time
    SILENT = "silent"  # no answer on the path for 60 s
    CONFLICT = "conflict"  # both sides claim one role, time and again (RFC 8445 §7.3.1.1)


@dataclass(frozen=True, slots=True)
class SendStun:
    """Send this datagram."""

    data: bytes
    remote: Address
    local: Address | None
    """The source address; None: the routing table's choice."""


@dataclass(frozen=True, slots=True)
class Confirm:
    """Send this nonce there, encrypted, beside the path: is the peer there, and does it hear us?

    An SCTP HEARTBEAT carries it (RFC 9260 §8.3), which every stack answers.
    """

    nonce: bytes
    remote: Address
    local: Address | None


@dataclass(frozen=True, slots=True)
class Nominated:
    """This pair is valid and has just been nominated: a handshake may begin there (RFC 8445 §12.1).

    `Selected` follows when the peer has heard of it; another pair does if it never does.
    """

    remote: Address
    local: Address | None
    path: PathKind


@dataclass(frozen=True, slots=True)
class Selected:
    """The path: at the first nomination that was heard, and whenever either end of it moves."""

    remote: Address
    local: Address | None
    path: PathKind


@dataclass(frozen=True, slots=True)
class Mapped:
    """The peer sees us at `address` (XOR-MAPPED-ADDRESS): at first, and whenever that changes."""

    address: Address


@dataclass(frozen=True, slots=True)
class Suspect:
    """A question on the established path has gone unanswered for 1.5 s, or two hasty ones."""


@dataclass(frozen=True, slots=True)
class Alive:
    """It answers again after `Suspect` or `Silent`."""


@dataclass(frozen=True, slots=True)
class Silent:
    """No answer for 6 s. The path is kept and probed."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The end."""

    reason: Failure


IceOutput = SendStun | Confirm | Nominated | Selected | Mapped | Suspect | Alive | Silent | Failed
