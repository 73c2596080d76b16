"""The network of a simulated world at fidelity ``links``: dials, negotiations, ordered channels.

A dial reaches whoever listens at its address and checks the same fingerprint and dial token as the
door does; a firewalled node can only be reached by a negotiation that both ends take part in.
Checks and keepalives are not simulated one by one: a silent end is reported when they would have
noticed (suspect 1.5 s after the 2 s check, silent at 6 s, lost at 60 s).
"""

import hmac
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from overlay.core import dial
from overlay.core.events import (
    Admit,
    Dial,
    DialFailed,
    Effect,
    Hangup,
    LinkAlive,
    LinkLost,
    LinkOpened,
    LinkSilent,
    LinkSuspect,
    Mapped,
    Negotiate,
    Prepare,
    Received,
    Transmit,
)
from overlay.core.types import LinkFacts, LinkId, PathKind

if TYPE_CHECKING:
    from overlay.sim.world import SimNode, World

SUSPECT_AFTER, SILENT_AFTER, LOST_AFTER = 3.5, 6.0, 60.0
HANDSHAKE_ROUND_TRIPS = 3
"""ICE, DTLS with its cookie, SCTP: measured on real links as about three."""
RETRANSMISSION = 0.3
"""Seconds that one lost packet costs a reliable message."""


@dataclass(frozen=True, slots=True)
class Conditions:
    """What the network does to packets."""

    latency: tuple[float, float] = (0.005, 0.050)
    """Seconds one way, uniform, drawn a link."""
    jitter: float = 0.002
    loss: float = 0.0
    """Share of packets lost; reliable messages come later instead."""


@dataclass(slots=True)
class _Pipe:
    """One link between two nodes: its ends, its delay, and when the last message arrives."""

    ends: tuple[tuple["SimNode", LinkId], tuple["SimNode", LinkId]]
    latency: float
    arrives: list[int] = field(default_factory=lambda: [0, 0])
    open: bool = True


class Network:
    """All links of a world."""

    def __init__(self, world: "World", conditions: Conditions) -> None:
        self._world = world
        self.conditions = conditions
        self._pipes: dict[tuple[str, LinkId], _Pipe] = {}
        self._negotiating: dict[str, tuple[SimNode, Negotiate]] = {}
        self._called_off: dict[tuple[str, LinkId], None] = {}

    def perform(self, node: "SimNode", effect: Effect) -> None:
        """What the transport does with the core's effects."""
        match effect:
            case Transmit():
                self._transmit(node, effect)
            case Dial():
                self._dial(node, effect)
            case Negotiate():
                self._negotiate(node, effect)
            case Hangup(link):
                self._hang_up(node, link)
            case Prepare() | Admit():
                pass
            case _:
                raise AssertionError(effect)

    # --- opening -----------------------------------------------------------------------------

    def _dial(self, node: "SimNode", effect: Dial) -> None:
        latency = self._latency()
        delay = 2 * latency * HANDSHAKE_ROUND_TRIPS
        listeners = [each for each in self._world.nodes if each.address in effect.addresses]
        world = self._world

        def attempt() -> None:
            if not self._still_wanted(node, effect.link):
                return
            for listener in listeners:
                if not _answers(listener) or listener.firewalled:
                    continue
                claim = dial.parse_ufrag(effect.remote.ufrag)
                if claim is None or not self._token_holds(listener, effect, claim):
                    continue
                if listener.crypto.fingerprint != effect.fingerprint:
                    world.feed(node, DialFailed(effect.link, "certificate"))
                    return
                self._open(node, effect.link, listener, world.new_inbound_link(listener),
                           effect.attempt, latency, claim)  # fmt: skip
                return
            rest = max(0.0, effect.timeout - delay)
            world.at(rest, lambda: self._fail(node, effect.link, "timeout"))

        world.at(delay, attempt)

    def _token_holds(self, listener: "SimNode", effect: Dial, claim: dial.Claim) -> bool:
        from overlay.sim.world import EPOCH

        key = listener.settings.dial_key
        token = dial.make_token(key, claim.kind, claim.token_id, claim.expires_at)
        password = dial.listener_password(token, effect.remote.ufrag)
        fresh = claim.expires_at > EPOCH + self._world.now
        return fresh and hmac.compare_digest(password, effect.remote.password)

    def _negotiate(self, node: "SimNode", effect: Negotiate) -> None:
        """Both ends must have started, each with the other's credentials."""
        self._negotiating[effect.local.ufrag] = (node, effect)
        other = self._negotiating.get(effect.remote.ufrag)
        self._world.at(effect.timeout, lambda: self._fail(node, effect.link, "timeout"))
        if other is None or other[1].remote != effect.local or other[1].local != effect.remote:
            return
        peer, theirs = other
        latency = self._latency()

        def attempt() -> None:
            wanted = self._still_wanted(node, effect.link)
            if wanted and self._still_wanted(peer, theirs.link) and _answers(peer):
                if effect.controlling:
                    args = (node, effect.link, peer, theirs.link)
                else:
                    args = (peer, theirs.link, node, effect.link)
                self._open(*args, effect.attempt, latency, None)
            for ufrag in (effect.local.ufrag, effect.remote.ufrag):
                self._negotiating.pop(ufrag, None)

        self._world.at(2 * latency * HANDSHAKE_ROUND_TRIPS, attempt)

    def _open(
        self,
        dialler: "SimNode",
        out_link: LinkId,
        listener: "SimNode",
        in_link: LinkId,
        attempt: bytes,
        latency: float,
        claim: dial.Claim | None,
    ) -> None:
        exporter = self._world.rng.randbytes(32)
        pipe = _Pipe(((dialler, out_link), (listener, in_link)), latency)
        for (node, link), (other, _) in (pipe.ends, pipe.ends[::-1]):
            inbound = node is listener
            self._pipes[node.name, link] = pipe
            facts = LinkFacts(
                remote=other.address,
                local=node.address,
                path=PathKind.HOST,
                dtls_role="server" if inbound else "client",
                remote_fingerprint=other.crypto.fingerprint,
                exporter=exporter,
                attempt=attempt,
                token_kind=claim.kind if claim and inbound else None,
                token_id=claim.token_id if claim and inbound else b"",
            )
            self._world.feed(node, LinkOpened(link, inbound, facts))
            self._world.feed(node, Mapped(link, node.address))

    def _still_wanted(self, node: "SimNode", link: LinkId) -> bool:
        known = (node.name, link)
        return node.alive and known not in self._pipes and known not in self._called_off

    def _fail(self, node: "SimNode", link: LinkId, reason: str) -> None:
        if self._still_wanted(node, link):
            self._called_off[node.name, link] = None
            self._world.feed(node, DialFailed(link, reason))

    # --- messages ----------------------------------------------------------------------------

    def _transmit(self, node: "SimNode", effect: Transmit) -> None:
        pipe = self._pipes.get((node.name, effect.link))
        if pipe is None or not pipe.open:
            return
        side = 0 if pipe.ends[0][0] is node else 1
        other, other_link = pipe.ends[1 - side]
        delay = pipe.latency + self._world.rng.random() * self.conditions.jitter
        while self._world.rng.random() < self.conditions.loss:
            delay += RETRANSMISSION
        world = self._world
        arrival = max(world.now_us + round(delay * 1_000_000), pipe.arrives[side])
        pipe.arrives[side] = arrival

        def deliver() -> None:
            if self._pipes.get((other.name, other_link)) is pipe:
                world.feed(other, Received(other_link, effect.message))

        world.at((arrival - world.now_us) / 1_000_000, deliver)

    def _hang_up(self, node: "SimNode", link: LinkId) -> None:
        """What was sent before still arrives; then the other end sees the link closed."""
        self._called_off[node.name, link] = None
        pipe = self._pipes.pop((node.name, link), None)
        if pipe is None or not pipe.open:
            return
        pipe.open = False
        side = 0 if pipe.ends[0][0] is node else 1
        other, other_link = pipe.ends[1 - side]
        arrival = max(self._world.now_us + round(pipe.latency * 1_000_000), pipe.arrives[side])
        delay = (arrival - self._world.now_us) / 1_000_000
        self._world.at(delay, lambda: self._lose(other, other_link, "closed"))

    def _lose(self, node: "SimNode", link: LinkId, reason: str) -> None:
        if self._pipes.pop((node.name, link), None) is not None:
            self._called_off[node.name, link] = None
            self._world.feed(node, LinkLost(link, reason))

    # --- silence -----------------------------------------------------------------------------

    def on_crash(self, node: "SimNode") -> None:
        """Everybody at the other end notices in time; the node's own ends are gone."""
        self._fall_silent(node)
        for key in [key for key in self._pipes if key[0] == node.name]:
            self._pipes.pop(key).open = False
        self._called_off = {key: None for key in self._called_off if key[0] != node.name}

    def on_left(self, node: "SimNode") -> None:
        """The node said its goodbyes; nothing of it remains."""
        for key in [key for key in self._pipes if key[0] == node.name]:
            self._hang_up(node, key[1])

    def on_freeze(self, node: "SimNode") -> None:
        """To the others a frozen node looks like a dead one."""
        self._fall_silent(node)

    def on_thaw(self, node: "SimNode") -> None:
        """The next checks are answered again."""
        for other, link in self._far_ends(node):
            self._world.feed(other, LinkAlive(link))

    def _far_ends(self, node: "SimNode") -> list[tuple["SimNode", LinkId]]:
        pipes = [pipe for (name, _), pipe in self._pipes.items() if name == node.name]
        return [end for pipe in pipes for end in pipe.ends if end[0] is not node]

    def _fall_silent(self, node: "SimNode") -> None:
        at, core = self._world.at, node.core
        for other, link in self._far_ends(node):
            at(SUSPECT_AFTER, partial(self._notice, node, core, other, LinkSuspect(link)))
            at(SILENT_AFTER, partial(self._notice, node, core, other, LinkSilent(link)))
            at(LOST_AFTER, partial(self._notice, node, core, other, LinkLost(link, "broken")))

    def _notice(
        self,
        node: "SimNode",
        core: object,
        other: "SimNode",
        fact: LinkSuspect | LinkSilent | LinkLost,
    ) -> None:
        """The other end notices the silence, unless it is over."""
        back = _answers(node) and node.core is core
        if back or (other.name, fact.link) not in self._pipes:
            return
        if isinstance(fact, LinkLost):
            self._lose(other, fact.link, fact.reason)
        else:
            self._world.feed(other, fact)

    def _latency(self) -> float:
        return self._world.rng.uniform(*self.conditions.latency)


def _answers(node: "SimNode") -> bool:
    return node.alive and not node.frozen
