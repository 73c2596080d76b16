"""Names beside peer ids: what peers call themselves, asked of the running node once it matters.

It stands alone because commands of several files show names, and none of the rest of each other.
"""

import time
from contextlib import suppress

from overlay.errors import OverlayError
from overlay.names import titled
from overlay.node.client import Client

ASK_INTERVAL = 1.0
"""Seconds between two questions about somebody without a name (guess)."""
ASK_TIMEOUT = 2.0
"""Seconds after which an id goes without its name (guess)."""


class Names:
    """Who is who, for a command that runs for a while: newcomers are asked about, too."""

    def __init__(self, node: Client) -> None:
        self._node = node
        self._known: dict[str, str] = {}
        self._asked_at = float("-inf")

    def titled(self, peer_id: str) -> str:
        """A peer's name and short id; the id alone where nobody knows the name."""
        if peer_id not in self._known and time.monotonic() >= self._asked_at + ASK_INTERVAL:
            self._ask()
        return titled(peer_id, self._known.get(peer_id))

    def _ask(self) -> None:
        self._asked_at = time.monotonic()
        with suppress(OverlayError, OSError):
            ourselves = self._node.get("/status", ASK_TIMEOUT)
            others = self._node.get("/peers/all", ASK_TIMEOUT)["peers"]
            self._known = {
                row["peer_id"]: row["name"] for row in (*others, ourselves) if row["name"]
            }
