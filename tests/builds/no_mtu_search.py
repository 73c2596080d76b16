"""A node whose links never ask how large a packet may be on their path."""

from overlay.transport.sctp.path_mtu import PathMtu
from tests.builds import run_overlay


def on_timeout(self: PathMtu, waiting: int, now: float) -> None:
    """Conclude nothing."""


if __name__ == "__main__":
    PathMtu.on_timeout = on_timeout  # type: ignore[method-assign]
    run_overlay()
