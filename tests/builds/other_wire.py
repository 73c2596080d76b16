"""A node from a later day: it speaks wire version 2 and no other."""

from overlay.core import messages
from tests.builds import run_overlay

if __name__ == "__main__":
    messages.WIRE_VERSION = 2
    run_overlay()
