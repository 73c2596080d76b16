"""A node that asks whether its peers are there at the pace of RFC 7675 §5.1 alone: every 5 s."""

from overlay.core.ice import liveness
from tests.builds import run_overlay

RFC_INTERVAL = 5.0

if __name__ == "__main__":
    for name in ("IDLE_INTERVAL", "IDLE_INTERVAL_CONTROLLED"):
        setattr(liveness, name, RFC_INTERVAL)
    run_overlay()
