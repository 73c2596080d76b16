"""What has to hold at every moment of a simulated world, whatever happens in it.

Safety is watched from outside, by what goes into a core and what comes out of it; only the sizes
of its containers are read inside. What has to come true once the faults are over is in
`overlay.sim.scenario.liveness`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from overlay.core.events import (
    Admit,
    Adopt,
    Deliver,
    Dial,
    DialFailed,
    Effect,
    Event,
    Hangup,
    Leave,
    LinkLost,
    LinkOpened,
    Negotiate,
    Prepare,
    Publish,
    RelayCircuit,
    Report,
    Restart,
    Transmit,
    UseCircuit,
)
from overlay.core.types import EndReason, LinkId, PeerId
from overlay.errors import OverlayError
from overlay.sim.checks.bounds import oversized
from overlay.sim.node import SimNode

WATCHED_MAX = 2000
"""Nodes of a world that are watched: the first ones, so that the contact of a burst is among them.
Watching costs a fifth of a node's time."""
LOOK_EVERY = 32
"""Events of a node between two looks at its state."""
ERRORS = ("error", "critical")


class Violated(OverlayError):
    """A simulated world broke a promise: the seed, the virtual time, what, and how to replay."""

    def __init__(self, seed: int, at: float, what: str, replay: str) -> None:
        self.seed, self.at, self.what, self.replay = seed, at, what, replay
        again = f"; replay: {replay}" if replay else ""
        super().__init__(f"seed {seed}, at {at:.6f} s: {what}{again}")


@dataclass(slots=True)
class _Life:
    """What one core was told and has said since it started."""

    opened: dict[LinkId, None] = field(default_factory=dict)
    attempts: dict[LinkId, None] = field(default_factory=dict)
    delivered: dict[tuple[PeerId, str, bytes], int] = field(default_factory=dict)
    counters: dict[str, int] = field(default_factory=dict)
    events: int = 0
    left: bool = False


class Invariants:
    """Looks at every event of every node, of the first ones in a large world; raises Violated."""

    def __init__(self, violated: Callable[[str], Violated]) -> None:
        """`violated`: makes the exception that says what, when, and how to see it again."""
        self._violated = violated
        self._lives: dict[SimNode, _Life] = {}
        self._published: dict[tuple[PeerId, str, bytes], int] = {}

    def on_boot(self, node: SimNode) -> None:
        """A node starts, with nothing but its keys and its cache."""
        if node.index < WATCHED_MAX:
            self._lives[node] = _Life()

    def after(self, node: SimNode, event: Event, effects: list[Effect]) -> None:
        """A core has handled an event."""
        if isinstance(event, Publish):
            publication = (node.peer_id, event.topic, event.data)
            self._published[publication] = self._published.get(publication, 0) + 1
        life = self._lives.get(node)
        if life is None:
            return
        match event:
            case LinkOpened(link):
                life.attempts.pop(link, None)
                life.opened[link] = None
            case LinkLost(link):
                life.opened.pop(link, None)
            case DialFailed(link):
                life.attempts.pop(link, None)
            case Leave():
                life.left = True
        if isinstance(event, LinkOpened | LinkLost | DialFailed):
            # What fell due before the event was looked at may have called that attempt off.
            crossed = Hangup(event.link, EndReason.CANCELLED)
            if crossed in effects:
                effects = [each for each in effects if each != crossed]
                life.opened.pop(event.link, None)
        for effect in effects:
            self._on_effect(node, life, effect)
        life.events += 1
        if life.events % LOOK_EVERY == 0 and not life.left:
            self.look(node)

    def _on_effect(self, node: SimNode, life: _Life, effect: Effect) -> None:
        match effect:
            case Transmit(link) | Admit(link) | Restart(link):
                if link not in life.opened:
                    raise self._broken(node, f"uses link {link}, which is not open: {effect!r}")
            case Adopt(link, path):
                if not {link, path} <= life.opened.keys():
                    raise self._broken(node, f"adopts what is not open: {effect!r}")
            case UseCircuit(_, link):
                if link not in life.opened:
                    raise self._broken(node, f"uses a circuit over no open link: {effect!r}")
            case RelayCircuit(_, one, other):
                if not {one, other} <= life.opened.keys():
                    raise self._broken(node, f"relays between links not open: {effect!r}")
            case Hangup(link):
                if link not in life.opened and link not in life.attempts:
                    raise self._broken(node, f"hangs up link {link}, which it does not have")
                life.opened.pop(link, None)
                life.attempts.pop(link, None)
            case Dial(link) | Prepare(link) | Negotiate(link):
                if link in life.opened:
                    raise self._broken(node, f"starts link {link}, which is open")
                life.attempts[link] = None
            case Deliver():
                self._on_delivery(node, life, effect)
            case Report(level, name) if level in ERRORS:
                raise self._broken(node, f"reports {name}: {effect.fields!r}")

    def _on_delivery(self, node: SimNode, life: _Life, effect: Deliver) -> None:
        publication = (effect.origin, effect.topic, effect.data)
        count = life.delivered[publication] = life.delivered.get(publication, 0) + 1
        published = self._published.get(publication, 0)
        if count > published:
            what = "what nobody published" if not published else "a publication twice"
            raise self._broken(node, f"delivers {what}: {effect.data[:40]!r}")

    # --- state -------------------------------------------------------------------------------

    def look(self, node: SimNode) -> None:
        """Check the state of one core: sizes, links, views, counters."""
        if node not in self._lives:
            return
        core = node.core
        peers = core.peers()
        if len({view.peer for view in peers}) < len(peers):
            raise self._broken(node, "has two links to one peer")
        opened = self._lives[node].opened
        for view in peers:
            if view.link not in opened:
                raise self._broken(node, f"shows link {view.link}, which is not open")
        limit = max(node.settings.mesh_size - 1, node.settings.active_size)
        active = core.active_view()
        if len(active) > limit:
            raise self._broken(node, f"has {len(active)} active neighbours, at most {limit}")
        if not set(active) <= {view.peer for view in peers}:
            raise self._broken(node, "has an active neighbour without a link")
        large = oversized(core)
        if large is not None:
            raise self._broken(node, large)
        self._look_at_counters(node)

    def _look_at_counters(self, node: SimNode) -> None:
        status, life = node.core.status(), self._lives[node]
        signalling = status.signalling
        now = {
            **{f"refused {code}": count for code, count in status.refused.items()},
            "sent": signalling.sent,
            "forwarded": signalling.forwarded,
            "delivered": signalling.delivered,
            "dropped": signalling.dropped,
        }
        for name, before in life.counters.items():
            if now.get(name, 0) < before:
                raise self._broken(node, f"counts {name} backwards: {now.get(name, 0)} < {before}")
        life.counters = now

    def _broken(self, node: SimNode, what: str) -> Violated:
        return self._violated(f"{node.name} {what}")
