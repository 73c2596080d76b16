"""Every error that overlay raises on purpose, by whose fault it is."""

from enum import StrEnum


class OverlayError(Exception):
    """The root: catch this to catch all of ours."""


class LocalProtocolError(OverlayError):
    """Our own code broke the protocol: a bug in overlay."""


class RemoteProtocolError(OverlayError):
    """A peer sent what no correct peer sends; costs that peer its link."""


class LinkClosed(OverlayError):
    """There is no such link any more: one of its ends, or the network between them, ended it."""


class UsageError(OverlayError):
    """What the user asked for cannot be done as asked; the text is what they read."""


class ConfigError(UsageError):
    """A configuration key, value or file is wrong: what, why, and what to do."""


class InviteError(UsageError):
    """An invite link cannot be used: what is wrong with it and what to do."""


class Failure(StrEnum):
    """Why a command was turned down; scripts read these words."""

    USAGE = "usage"  # it was asked for in a way that nobody understands
    AMBIGUOUS = "ambiguous"  # the name or prefix fits more than one peer
    UNKNOWN_PEER = "unknown_peer"  # nobody of this id or name is known
    SELF = "self"  # the peer that is meant is this node itself
    TOO_LARGE = "too_large"  # a message, request or reply has too many bytes
    NOT_LINKED = "not_linked"  # there is no link to this peer
    SILENT = "silent"  # the link to this peer stands, and nothing comes over it
    NETWORK = "network"  # the invite is for another network
    NO_ADDRESS = "no_address"  # this node has no address to name
    UNREACHABLE = "unreachable"  # nobody answered, or nobody could pass it on
    TIMEOUT = "timeout"  # it took too long
    BUSY = "busy"  # too much is under way here or there: try again later
    REFUSED = "refused"  # the peer did not want it
    FAILED = "failed"  # the peer gave it up without saying why
    BROKEN = "broken"  # the link ended before the answer came
    CLOSED = "closed"  # the node, the feed or the link has ended
    OVERFLOW = "overflow"  # a feed was not read fast enough
    PROTOCOL = "protocol"  # what answered makes no sense
    INTERNAL = "internal"  # a bug of ours; the log says more
    VIOLATED = "violated"  # a simulated network broke a promise
    DIFFERS = "differs"  # a replay did not repeat its recording


class CommandFailed(OverlayError):
    """A command was turned down: a code for programs, a text for people (what, why, what to do).

    The code is a `Failure`; or what ended the last attempt to reach the peer
    (`overlay.core.types.EndReason`, `overlay.core.types.GoodbyeCode`); or the word of a program
    that answers a request.
    """

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = str(code)
        self.text = str(text)


class WrongArgument(CommandFailed, ValueError):
    """A program has handed in a value that is out of bounds: a ValueError, and ``usage``."""

    def __init__(self, text: str) -> None:
        super().__init__(Failure.USAGE, text)


class NoNode(OverlayError):
    """No node is running on this data directory."""


class NodeSilent(OverlayError):
    """The node on this data directory gives no sign of life: what may be wrong, and what to do."""
