"""Every error that overlay raises on purpose, by whose fault it is."""


class OverlayError(Exception):
    """The root: catch this to catch all of ours."""


class LocalProtocolError(OverlayError):
    """Our own code broke the protocol: a bug in overlay."""


class RemoteProtocolError(OverlayError):
    """A peer sent what no correct peer sends; costs that peer its link."""


class LinkError(OverlayError):
    """A link could not be opened or did not last."""


class ConnectTimeout(LinkError):
    """Nobody answered in time."""


class LinkBroken(LinkError):
    """The world ended the link."""


class LinkClosed(LinkError):
    """One of the two ends closed the link on purpose."""


class UsageError(OverlayError):
    """What the user asked for cannot be done as asked; the text is what they read."""


class ConfigError(UsageError):
    """A configuration key, value or file is wrong: what, why, and what to do."""


class InviteError(UsageError):
    """An invite link cannot be used: what is wrong with it and what to do."""


class CommandFailed(OverlayError):
    """A command was turned down: a code for programs, a text for people (what, why, what to do)."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


class NoNode(OverlayError):
    """No node is running on this data directory."""
