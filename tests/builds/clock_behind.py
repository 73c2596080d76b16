"""A node whose wall clock is ``CLOCK_BEHIND_SECONDS`` behind until the file ``CLOCK_SET`` exists.

A board without a battery starts so, and is right once it has asked somebody for the time.
"""

import os
import time

from tests.builds import run_overlay

BEHIND = float(os.environ["CLOCK_BEHIND_SECONDS"])
IS_SET = os.environ["CLOCK_SET"]
_true_time = time.time


def wrong_time() -> float:
    """Unix seconds, as this machine believes."""
    return _true_time() - (0.0 if os.path.exists(IS_SET) else BEHIND)


if __name__ == "__main__":
    time.time = wrong_time
    run_overlay()
