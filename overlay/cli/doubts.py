"""While a command waits for a peer: says on standard error that the link to it is in doubt.

The node knows within a few seconds that a peer may be gone; whoever waits learns it then, and not
when the time is up.
"""

import contextlib
import sys
import threading
from collections.abc import Iterator

from overlay.errors import OverlayError
from overlay.names import plain, short_id, stands_for
from overlay.node.client import Client

LOOK = 0.5
"""Seconds between two looks (guess)."""
PATIENCE = 5.0
FAREWELL = 1.0
"""Seconds for a look that is under way (guess)."""
SUSPECT = "suspect"


@contextlib.contextmanager
def doubts(node: Client, peer: str) -> Iterator[None]:
    """Look after the link to this peer until the block ends; a thread does it."""
    over = threading.Event()
    watching = (node, peer, over)
    thread = threading.Thread(target=_watch, args=watching, name="doubts", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(FAREWELL)


def _watch(node: Client, peer: str, over: threading.Event) -> None:
    was_suspect = False
    while not over.wait(LOOK):
        try:
            rows = node.get("/peers/all", PATIENCE)["peers"]
        except (OverlayError, OSError):
            return  # the command itself says what is wrong
        meant = [row for row in rows if row["name"] == peer or stands_for(peer, row["peer_id"])]
        is_suspect = len(meant) == 1 and meant[0]["state"] == SUSPECT
        if is_suspect and not was_suspect and not over.is_set():
            name = plain(meant[0]["name"]) or short_id(meant[0]["peer_id"])
            print(f"{name} is suspect: a question went unanswered; waiting", file=sys.stderr)
        was_suspect = is_suspect
