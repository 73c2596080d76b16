"""What the network of a simulated world does to packets."""

from dataclasses import dataclass

from overlay.sim.network.latencies import Latencies


@dataclass(frozen=True, slots=True)
class Conditions:
    """Drawn anew for each link or packet; a world can change them while it runs.

    A link's control channel stays in order, as SCTP keeps it: a packet that is late or lost holds
    up those behind it on its link, and lets other links and handshakes overtake.
    """

    latency: tuple[float, float] = (0.005, 0.050)
    """Seconds one way, uniform, drawn a link."""
    between: Latencies | None = None
    """In place of `latency`: what it is from each node to each other."""
    jitter: float = 0.002
    """Seconds at most that a packet takes longer than its link's latency, uniform."""
    loss: float = 0.0
    """Share of packets lost; reliable messages and handshakes come later instead."""
    reordering: float = 0.0
    """Share of packets held up on the way, by as much as four times the link's latency."""
    bandwidth: float = 0.0
    """Bytes a second that a link carries each way; 0: no limit."""
