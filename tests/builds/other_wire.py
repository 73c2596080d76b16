"""A node from a later day: of wire version 2, or of those that ``WIRE_RANGE`` names, as "1 2"."""

import os

from overlay.core.wire import messages
from tests.builds import run_overlay

if __name__ == "__main__":
    oldest, newest = os.environ.get("WIRE_RANGE", "2 2").split()
    messages.WIRE_MIN, messages.WIRE_VERSION = int(oldest), int(newest)
    run_overlay()
