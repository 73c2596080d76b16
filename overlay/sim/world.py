"""A seeded world: whole nodes of the unchanged core on a virtual clock of microseconds.

Everything that happens is drawn from one seed; the same seed gives the same world. Nodes meet over
`overlay.sim.network.links`; what a crash, a freeze or a lost packet does to them is decided there.
With `checked`, `overlay.sim.checks.invariants` looks at every event.
"""

import dataclasses
import random
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from overlay.core.context import Settings
from overlay.core.events import (
    JOIN_TIMEOUT,
    ClockSet,
    Connect,
    Deliver,
    Effect,
    Event,
    Join,
    Leave,
    Listening,
    MakeInvite,
    Publish,
    Recall,
    Received,
    Rejected,
    Remember,
    Report,
    Resolved,
    TracePeer,
    Transmit,
    Wakeup,
)
from overlay.core.membership.records import RecordReader
from overlay.core.overlay import Overlay
from overlay.core.timers import NEVER
from overlay.core.types import Address, RequestId
from overlay.core.wire.documents import InviteBody
from overlay.sim.checks.bounds import RECORDS_KEPT
from overlay.sim.checks.invariants import Invariants, Violated
from overlay.sim.clock import MICROSECOND, Clock
from overlay.sim.crypto import Ledger, StandInCrypto
from overlay.sim.host import Pages
from overlay.sim.network.conditions import Conditions
from overlay.sim.network.ice import IceNetwork
from overlay.sim.network.links import Network
from overlay.sim.network.silence import Checks, Silence
from overlay.sim.node import PORT, Environment, SimNode

QUIET = ("debug", "info")
"""Levels of reports that observers see and nodes do not keep."""

_WAKEUP = Wakeup()

Observer = Callable[[SimNode, Effect], None]
MakeCore = Callable[[Settings, StandInCrypto, random.Random, RecordReader], Overlay]


class World:
    """Nodes, a network, a clock and one seed."""

    def __init__(
        self,
        seed: int,
        conditions: Conditions | None = None,
        *,
        checked: bool = False,
        replay: str = "",
        codec: bool = False,
        keepalives: bool = False,
        fidelity: str = "links",
        crypto: Callable[[Ledger, random.Random], StandInCrypto] = StandInCrypto,
    ) -> None:
        """`replay`: the command that makes this world again, for whoever reads of a failure.

        A world leaves out what nothing depends on, to be fast. `codec` has every message encoded
        and decoded, `keepalives` every check of a link simulated; at the `fidelity` ``ice`` every
        check, answer and handshake is a datagram. `crypto` makes each node's keys.
        """
        self.seed = seed
        self.replay = replay
        self.rng = random.Random(seed)
        self.clock = Clock()
        self.events = 0
        """Messages delivered to cores so far."""
        self.nodes: list[SimNode] = []
        self.by_address: dict[Address, SimNode] = {}
        self._observers: list[Observer] = []
        self.invariants = Invariants(self.violated) if checked else None
        environment = Environment(
            seed, self.clock, self.rng, self.nodes, self.by_address, self.feed
        )
        self.network = _network(
            environment, conditions or Conditions(), fidelity, codec=codec, keepalives=keepalives
        )
        self._crypto = crypto
        self._ledger = Ledger()
        self._reader = RecordReader(RECORDS_KEPT)
        self._requests = 0
        self._pages = Pages()

    @property
    def now(self) -> float:
        """Virtual seconds since the beginning."""
        return self.clock.now

    def observe(self, observer: Observer) -> None:
        """From now on call this with every effect but `Transmit`, when it is performed."""
        self._observers.append(observer)

    # --- nodes -------------------------------------------------------------------------------

    def spawn(
        self,
        *,
        firewalled: bool = False,
        advertised: bool = False,
        network: bytes = b"",
        group: int = 0,
        core: MakeCore = Overlay,
        host: str = "",
        **settings: Any,
    ) -> SimNode:
        """Start a node of its own; it joins nobody yet. `settings`: of `Settings`.

        `advertised`: its address is given as one that everybody can dial; `group`: the part of a
        divided world in which it starts; `core`: makes what it runs until a restart;
        `host`: its IP address, if it is to have a certain one.
        """
        index = len(self.nodes)
        crypto = self._crypto(self._ledger, random.Random(self.rng.getrandbits(64)))
        chosen = Settings(
            network=network or bytes(32),
            network_name="world",
            name=f"n{index}",
            boot=1,
            dial_key=crypto.token(32),
            **settings,
        )
        return self._start(chosen, crypto, core, firewalled, advertised, group, host)

    def clone(self, node: SimNode, *, boot: int = 0) -> SimNode:
        """Start a copy of a node's data directory on another machine: its keys and its cache.

        `boot`: the copy's, one more than the node's if it is not given.
        """
        boot = boot or node.settings.boot + 1
        settings = dataclasses.replace(node.settings, boot=boot, sequence=boot << 20)
        copy = self._start(settings, node.crypto, Overlay, node.firewalled, node.advertised, 0)
        self.feed(copy, Recall(tuple(data for peer, data in node.cache.items())))
        return copy

    def _start(
        self,
        chosen: Settings,
        crypto: StandInCrypto,
        core: MakeCore,
        firewalled: bool,
        advertised: bool,
        group: int,
        host: str = "",
    ) -> SimNode:
        index = len(self.nodes)
        address = Address(host or f"10.{index >> 16}.{index >> 8 & 255}.{index & 255}", PORT)
        rng = random.Random(self.rng.getrandbits(64))
        node = SimNode(
            f"n{index}",
            address,
            crypto,
            chosen,
            core(chosen, crypto, rng, self._reader),
            firewalled,
            advertised,
            group=group,
            index=index,
        )
        self.nodes.append(node)
        self.by_address[address] = node
        self._boot(node)
        return node

    def burst(
        self, size: int, through: SimNode, over: float, *, firewalled: float = 0.0, **settings: Any
    ) -> list[SimNode]:
        """Start `size` nodes that join through one contact within `over` seconds; returns them.

        `firewalled`: the share of them that nobody can dial.
        """
        invite = self.invite(through)
        nodes = []
        for _ in range(size):
            node = self.spawn(firewalled=self.rng.random() < firewalled, **settings)
            nodes.append(node)
            self.after(self.rng.uniform(0.0, over), partial(self.join, node, invite))
        return nodes

    def restart(self, node: SimNode) -> None:
        """The same node again after a crash: same keys and address, a newer boot, its cache."""
        assert not node.alive
        settings = dataclasses.replace(node.settings, boot=node.settings.boot + 1)
        node.settings = settings
        rng = random.Random(self.rng.getrandbits(64))
        node.core = Overlay(settings, node.crypto, rng, self._reader)
        node.alive, node.frozen, node.backlog, node.wakes = True, False, [], NEVER
        self._boot(node)
        records = [data for peer, data in node.cache.items() if peer != node.peer_id]
        self.feed(node, Recall(tuple(records)))

    def _boot(self, node: SimNode) -> None:
        if self.invariants is not None:
            self.invariants.on_boot(node)
        self.feed(node, ClockSet(node.wall(self.now)))
        self.feed(node, Listening((node.address,), (node.address,) if node.advertised else ()))

    def crash(self, node: SimNode) -> None:
        """The node is gone without a word."""
        node.alive = False
        self.network.on_crash(node)

    def freeze(self, node: SimNode) -> None:
        """The node stops without dying; what arrives waits."""
        node.frozen = True
        self.network.on_freeze(node)

    def thaw(self, node: SimNode) -> None:
        """A frozen node goes on where it was."""
        node.frozen = False
        backlog, node.backlog = node.backlog, []
        for event in backlog:
            self.feed(node, event)
        self.network.on_thaw(node)
        self.feed(node, Wakeup())

    def leave(self, node: SimNode) -> None:
        """Have a node leave with a goodbye, and stop it."""
        self.request(node, Leave)
        node.alive = False
        self.network.on_crash(node)

    def step_clock(self, node: SimNode, seconds: float) -> None:
        """The node's wall clock jumps by so much; its monotonic clock does not."""
        node.clock_offset += seconds
        self.feed(node, ClockSet(node.wall(self.now)))

    # --- partitions --------------------------------------------------------------------------

    def partition(self, groups: Sequence[Sequence[SimNode]]) -> None:
        """No packet passes between these groups; nodes in none of them form one more group."""
        for node in self.nodes:
            node.group = 0
        for number, group in enumerate(groups, 1):
            for node in group:
                node.group = number
        self.network.on_partition()

    def heal(self) -> None:
        """Packets pass between all again."""
        self.partition([])

    def deafen(self, node: SimNode, *senders: SimNode) -> None:
        """From now on the node gets no packets from these, and from all others it does."""
        node.deaf_to = senders
        self.network.on_partition()

    # --- commands ----------------------------------------------------------------------------

    def request(self, node: SimNode, make: Callable[[RequestId], Event]) -> RequestId:
        """Give a node a command; its result will be in `node.results`."""
        self._requests += 1
        request = RequestId(self._requests)
        self.feed(node, make(request))
        return request

    def invite(self, node: SimNode, members: int = 1, expires_in: float = 3600.0) -> InviteBody:
        """An invite of this node; runs the world until it is made (at once for one member)."""
        request = self.request(node, lambda r: MakeInvite(r, expires_in, members))
        self.run_until(lambda: request in node.results, within=5.0)
        result = node.results[request]
        assert isinstance(result, Resolved)
        body: InviteBody = result.value
        return body

    def join(self, node: SimNode, invite: InviteBody, timeout: float = JOIN_TIMEOUT) -> RequestId:
        """Have a node join by an invite, for so many seconds."""
        return self.request(node, lambda r: Join(r, invite, timeout))

    def connect(self, node: SimNode, peer: SimNode) -> RequestId:
        """Have a node open a link to a peer."""
        return self.request(node, lambda r: Connect(r, peer.peer_id))

    def trace(self, node: SimNode, peer: SimNode) -> RequestId:
        """Have a node trace the way to a peer; resolves to `Traced`."""
        return self.request(node, lambda r: TracePeer(r, peer.peer_id))

    def publish(self, node: SimNode, data: bytes, topic: str = "t") -> RequestId:
        """Have a node publish; resolves to the message id at once."""
        return self.request(node, lambda r: Publish(r, topic, data, text=False))

    def heard(self, data: bytes) -> list[SimNode]:
        """The nodes to which this publication was delivered, once for each time."""
        return [node for node in self.nodes for each in node.delivered if each.data == data]

    def up(self) -> list[SimNode]:
        """The nodes that are neither dead nor frozen."""
        return [node for node in self.nodes if node.alive and not node.frozen]

    # --- the clock ---------------------------------------------------------------------------

    def at(self, when: float, action: Callable[[], Any]) -> None:
        """Do something at this virtual second (at once if that is past)."""
        self.clock.at_us(round(when * MICROSECOND), action)

    def after(self, delay: float, action: Callable[[], Any]) -> None:
        """Do something after `delay` virtual seconds."""
        self.at(self.now + delay, action)

    def run_for(self, seconds: float) -> None:
        """Let so much virtual time pass."""
        self.clock.run_to(self.clock.now_us + round(seconds * MICROSECOND))
        self._pages.look()

    def run_until(self, condition: Callable[[], bool], within: float, what: str = "") -> None:
        """Let time pass until the condition holds; raises Violated after `within` seconds.

        `what`: what is waited for, in words.
        """
        end = self.clock.now_us + round(within * MICROSECOND)
        while not condition():
            if not self.clock.step(end):
                missing = f"{what}: " if what else ""
                raise self.violated(f"{missing}not within {within:g} virtual seconds")

    def violated(self, what: str) -> Violated:
        """The exception that says what went wrong, when, and how to see it again."""
        return Violated(self.seed, self.now, what, self.replay)

    # --- the cores ---------------------------------------------------------------------------

    def feed(self, node: SimNode, event: Event) -> None:
        """Hand an event to a node's core and perform what comes out."""
        if not node.alive:
            return
        if node.frozen:
            node.backlog.append(event)
            return
        if type(event) is Received:
            self.events += 1
        effects = node.core.handle(event, self.clock.now_us / MICROSECOND)
        if self.invariants is not None:
            self.invariants.after(node, event, effects)
        for effect in effects:
            if type(effect) is Transmit:
                self.network.perform(node, effect)
            else:
                self._perform(node, effect)
        if node.core.agenda.earliest < node.wakes:
            self._schedule_wakeup(node)

    def _perform(self, node: SimNode, effect: Effect) -> None:
        for observer in self._observers:
            observer(node, effect)
        match effect:
            case Deliver():
                node.delivered.append(effect)
            case Resolved() | Rejected():
                node.results[effect.request] = effect
            case Remember(peer, record):
                node.cache[peer] = record
            case Report():
                if effect.level not in QUIET:
                    node.reports.append(effect)
            case _:
                self.network.perform(node, effect)

    def _schedule_wakeup(self, node: SimNode) -> None:
        """One pending wake-up a node: the earliest; one that comes too soon looks again."""
        node.wakes = deadline = node.core.agenda.settle()
        if deadline == NEVER:
            return
        when = max(self.clock.now_us, int(deadline * MICROSECOND))
        while when / MICROSECOND < deadline:  # never wake before what is due
            when += 1
        self.clock.schedule(when, self._wake, node, deadline)

    def _wake(self, node: SimNode, deadline: float) -> None:
        if node.wakes != deadline or not node.alive:
            return
        node.wakes = NEVER
        if node.core.agenda.settle() <= self.clock.now_us / MICROSECOND:
            self.feed(node, _WAKEUP)
        else:
            self._schedule_wakeup(node)


def _network(
    environment: Environment,
    conditions: Conditions,
    fidelity: str,
    *,
    codec: bool,
    keepalives: bool,
) -> Network:
    if fidelity == "ice":
        return IceNetwork(environment, conditions, codec=codec)
    assert fidelity == "links", fidelity
    silence = Checks if keepalives else Silence
    return Network(environment, conditions, codec=codec, silence=silence)
