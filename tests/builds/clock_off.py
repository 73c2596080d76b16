"""A node whose wall clock is off by ``CLOCK_OFF_SECONDS``."""

import os
import time

from tests.builds import run_overlay

OFFSET = float(os.environ["CLOCK_OFF_SECONDS"])
_true_time = time.time


def wrong_time() -> float:
    """Unix seconds, as this machine believes."""
    return _true_time() + OFFSET


if __name__ == "__main__":
    time.time = wrong_time
    run_overlay()
