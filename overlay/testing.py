"""For tests of programs that use overlay: whole nodes in one process, under a clock that jumps.

Real nodes with real keys and the real core; only the sockets are missing: they are linked by
`overlay.transport.memory`. With trio's MockClock an hour passes at once, and a peer that is
unplugged falls silent after six seconds that nobody waits for. pytest has it as the fixture
``mesh`` (`overlay.pytest_plugin`).

`World` is the other way: the cores of nodes alone, without trio and real keys, all of it drawn from
one seed. It is what `overlay sim` runs; pytest has it as the fixture ``world``.
"""

import random
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import trio

from overlay import api
from overlay.core.types import Address
from overlay.errors import WrongArgument
from overlay.identity import Identity
from overlay.node import arguments
from overlay.node.config import of_settings
from overlay.node.library import sole
from overlay.node.node import Dependencies, Node
from overlay.node.store import Forgetful
from overlay.sim.checks.invariants import Violated
from overlay.sim.network.conditions import Conditions
from overlay.sim.node import SimNode
from overlay.sim.world import World
from overlay.transport.memory.transport import LATENCY, MemoryNetwork, MemoryTransport

__all__ = ["Conditions", "Mesh", "SimNode", "Violated", "World", "open_mesh"]

WALL_AT_START = 1_800_000_000.0
"""Unix seconds at which every mesh begins: 15 January 2027."""
SETTLE_TIMEOUT = 60.0
"""Seconds of trio's clock; far longer than any mesh takes (guess)."""
PORT = 4000
SEED = 1
LATENCY_MAX = 60.0
"""Seconds: beyond it nothing ever comes about."""
NODES_MAX = 1_000
"""Nodes made at once (guess): whole ones, with keys of their own."""


class Mesh:
    """Nodes without sockets. Their names are n1, n2, … unless they are given others."""

    def __init__(self, nursery: trio.Nursery, *, seed: int, latency: float) -> None:
        self._nursery = nursery
        self._random = random.Random(seed)
        self._network = MemoryNetwork(self._random, latency)
        self._living: dict[str, Node] = {}
        self._addresses: dict[str, Address] = {}
        self._made = 0

    async def node(
        self,
        name: str | None = None,
        *,
        join: api.Node | str | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> api.Node:
        """One more node: in the network of `join` (a node, or an invite link), or in its own."""
        if name is not None:
            arguments.text("name", name)
        if settings is not None:
            arguments.settings("settings", settings)
        if join is not None and not isinstance(join, str):
            self._address_of(join)
        self._made += 1
        config = of_settings({"name": name or f"n{self._made}", **(settings or {})})
        identity = Identity.generate()
        address = Address(f"10.{self._made >> 16}.{self._made >> 8 & 255}.{self._made & 255}", PORT)
        transport = MemoryTransport(
            self._network,
            address,
            dial_key=identity.dial_key,
            fingerprint=identity.fingerprint,
        )
        given = Dependencies(wall=_wall, random=random.Random(self._random.random()))
        node = Node(config, identity, Forgetful(_wall), transport, given)
        await self._nursery.start(node.run)  # type: ignore[arg-type, unused-ignore]
        self._living[node.peer_id] = node
        self._addresses[node.peer_id] = address
        if join is not None:
            await node.join(join if isinstance(join, str) else (await join.invite()).link)
        return node

    async def nodes(
        self, count: int, *, settings: Mapping[str, Any] | None = None
    ) -> list[api.Node]:
        """So many nodes in one network, each invited by one of those before it, and all linked up.

        Up to eight, everybody is linked to everybody; in a larger mesh, `settled` is what counts.
        """
        arguments.whole("count", count, 0, NODES_MAX)
        made: list[api.Node] = []
        for _ in range(count):
            inviter = self._random.choice(made) if made else None
            made.append(await self.node(join=inviter, settings=settings))
        await self.settled(*made)
        return made

    async def settled(self, *nodes: api.Node) -> None:
        """Return once these nodes are one mesh: each reaches each other over links among them.

        A small mesh is full once it has settled. trio.TooSlowError after 60 s of trio's clock.
        """
        for node in nodes:
            self._address_of(node)
        with trio.fail_after(SETTLE_TIMEOUT):
            while not self._is_settled(nodes):  # noqa: ASYNC110 (whatever changes, in any node)
                await trio.sleep(0.05)

    def _is_settled(self, nodes: tuple[api.Node, ...]) -> bool:
        ids = {node.peer_id for node in nodes}
        linked = {node.peer_id: {peer.peer_id for peer in node.peers()} & ids for node in nodes}
        full = min((self._living[peer].config.links.full_mesh for peer in ids), default=0)
        auto = all(self._living[peer].config.links.auto for peer in ids)
        if auto and len(nodes) <= full:
            return all(len(others) == len(nodes) - 1 for others in linked.values())
        reached, fresh = set(), list(ids)[:1]
        while fresh:
            peer = fresh.pop()
            if peer not in reached:
                reached.add(peer)
                fresh += linked[peer]
        return reached == ids

    # --- faults --------------------------------------------------------------------------------

    def cut(self, one: api.Node, other: api.Node) -> None:
        """Let nothing pass between these two."""
        self._network.cut(self._address_of(one), self._address_of(other))

    def heal(self, one: api.Node, other: api.Node) -> None:
        """Undo `cut`: what waited arrives."""
        self._network.heal(self._address_of(one), self._address_of(other))

    def unplug(self, node: api.Node) -> None:
        """Let nothing pass to or from this node."""
        self._network.isolate(self._address_of(node))

    def replug(self, node: api.Node) -> None:
        """Undo `unplug`: what waited arrives."""
        self._network.reconnect(self._address_of(node))

    def crash(self, node: api.Node) -> None:
        """End a node without a goodbye; its peers notice by its silence."""
        self.unplug(node)
        self._living[node.peer_id].stop()

    def _address_of(self, node: Any) -> Address:
        """Where one of our nodes is; TypeError, or WrongArgument, if it is none."""
        if not isinstance(node, Node):
            raise TypeError(f"a node of this mesh is expected, not {type(node).__name__}")
        if node.peer_id not in self._addresses:
            raise WrongArgument(f"{node.name} is a node of another mesh")
        return self._addresses[node.peer_id]

    def check(self) -> None:
        """AssertionError when a node has met a fault of overlay's own."""
        for node in self._living.values():
            status = node.status()
            assert status["internal_errors"] == 0, f"internal errors in {status['name']}"


def open_mesh(*, seed: int = SEED, latency: float = LATENCY) -> AbstractAsyncContextManager[Mesh]:
    """An empty mesh whose nodes end with the block; `latency` is in seconds, one way.

    `seed` decides what overlay chooses at random. Keys are real and so never the same, and trio
    itself takes no order for granted: two runs are alike, not equal.
    """
    arguments.whole("seed", seed, -sys.maxsize, sys.maxsize)
    arguments.fraction("latency", latency, 0.0, LATENCY_MAX)
    return _opened(seed, latency)


@asynccontextmanager
async def _opened(seed: int, latency: float) -> AsyncIterator[Mesh]:
    failure: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery:
            mesh = Mesh(nursery, seed=seed, latency=latency)
            yield mesh
            mesh.check()
            nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        failure = sole(group)
    if failure is not None:
        raise failure


def _wall() -> float:
    return WALL_AT_START + trio.current_time()
