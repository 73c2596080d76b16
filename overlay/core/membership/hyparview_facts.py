"""What HyParView is set to, and what it tells the composed node."""

from dataclasses import dataclass

import msgspec

from overlay.core.types import PeerId


@dataclass(frozen=True, slots=True)
class Parameters:
    """The paper's names and its values for 10,000 nodes (§5.1), but for `full_mesh`."""

    active_size: int = 5
    active_walk: int = 6
    """ARWL."""
    passive_walk: int = 3
    """PRWL."""
    full_mesh: int = 8
    """Up to this many nodes everybody is everybody's neighbour (product; 0 for the paper)."""


# --- facts, for the composed node ----------------------------------------------------------------


class NeighborUp(msgspec.Struct, frozen=True, gc=False):
    """A peer is in the active view now."""

    peer: PeerId


class NeighborDown(msgspec.Struct, frozen=True, gc=False):
    """A peer is no longer in the active view."""

    peer: PeerId


class Wanted(msgspec.Struct, frozen=True, gc=False):
    """Open a link to this peer; `on_linked` or `on_unreachable` is expected to follow."""

    peer: PeerId


Fact = NeighborUp | NeighborDown | Wanted
