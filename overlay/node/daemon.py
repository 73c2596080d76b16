"""The composition root: keys, memory, core, transport, loop and control API made into one node.

The order of things is chosen for a fast start: the control socket listens first (who asks early
waits in its backlog), the UDP port comes next, then the dials go out, and only when they have
come back is the HTTP server imported, in a thread.
"""

import contextlib
import os
import random
import secrets
import signal
import socket
import sqlite3
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import trio

from overlay.core import invite as invites
from overlay.core.events import Event, Join, Leave, Listening, Recall
from overlay.core.messages import InviteBody
from overlay.core.overlay import Overlay, Settings
from overlay.core.types import Address, PeerId
from overlay.errors import CommandFailed, ConfigError, InviteError, UsageError
from overlay.identity import Identity, Keys, load_or_create, peer_id_text
from overlay.node.config import WILDCARD, Config, advertised_addresses, listen_address
from overlay.node.directory import DataDirectory
from overlay.node.driver import Driver, LinkChange
from overlay.node.logs import Log, log_report, open_log
from overlay.node.node import Node
from overlay.node.store import RECORDS_PER_BOOT, Store
from overlay.transport.endpoint import UdpTransport
from overlay.transport.udp import open_sockets

CRASHED = 70
"""The exit code of a node that ended by a bug of ours (sysexits.h, EX_SOFTWARE)."""
LEAVE_TIMEOUT = 3.0
"""Seconds for the goodbyes (guess)."""
STUCK_TIMEOUT = 5.0
"""Seconds after which a node that was told to leave ends anyhow (guess): the HTTP server cannot
be kept from waiting for a client that has stopped reading."""
CHECKPOINT_INTERVAL = 60.0
CONTROL_PATIENCE = 1.0
"""Seconds that commands wait at most while the first dials are out (guess)."""

Announce = Callable[[dict[str, Any]], None]
"""Takes what `up --json` prints, one object at a time; ``ready`` comes first."""


@dataclass(frozen=True, slots=True)
class Options:
    """What `overlay up` was told."""

    config: Config
    data_dir: Path
    invite: InviteBody | None
    announce: Announce


def run(options: Options) -> int:
    """Be a node until told to leave; the exit code. UsageError: it could not start as asked."""
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(closing(DataDirectory.open(options.data_dir)))
        log = stack.enter_context(open_log(options.config.log))
        store = stack.enter_context(closing(Store(directory.path / "overlay.db")))
        identity = load_or_create(directory.path)
        network = choose_network(options, store)
        control = directory.listen()
        try:
            trio.run(_live, options, log, store, identity, network, control)
        except Exception as error:
            if (fault := users_fault(error)) is not None:
                raise fault from None
            log.logger.exception("crashed")
            return CRASHED
        finally:
            control.close()
    return 0


def users_fault(error: BaseException) -> UsageError | None:
    """The one thing that the user did wrong, if that is all there is; tasks wrap it in groups."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error if isinstance(error, UsageError) else None


def choose_network(options: Options, store: Store) -> tuple[bytes, str]:
    """The network to live in: the store's, else the invite's, else a new one, which is kept.

    An invite's is kept only once the join has succeeded. InviteError when the two differ.
    """
    ours = store.network()
    if options.invite is not None:
        grant = invites.grant_of(options.invite)
        theirs = (grant.network, options.invite.network_name)
        if ours is not None and ours[0] != theirs[0]:
            raise InviteError(
                f"{options.data_dir} belongs to the network {ours[1]!r} and the invite to another, "
                f"{theirs[1]!r}: choose another --data-dir"
            )
        return theirs
    if ours is None:
        ours = (secrets.token_bytes(32), options.config.network.name)
        store.set_network(*ours)
    return ours


async def _live(
    options: Options,
    log: Log,
    store: Store,
    identity: Identity,
    network: tuple[bytes, str],
    control: socket.socket,
) -> None:
    await Daemon(options, log, store, identity, network).run(control)


def any_host() -> str:
    """The wildcard of both families, or of IPv4 alone where there is no IPv6."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
            probe.bind(("::", 0))
    except OSError:
        return "0.0.0.0"
    return "::"


def is_free(address: Address) -> bool:
    """Whether we could listen there."""
    try:
        for each in open_sockets(address):
            each.close()
    except ConfigError:
        return False
    return True


class Daemon:
    """One life of a node, from the bound port to the last goodbye."""

    def __init__(
        self,
        options: Options,
        log: Log,
        store: Store,
        identity: Identity,
        network: tuple[bytes, str],
    ) -> None:
        self._options = options
        self._log = log
        self._store = store
        self._ready = False
        self._early: list[dict[str, Any]] = []
        self._entered = trio.Event()
        config, (network_id, network_name) = options.config, network
        boot = store.next_boot()
        settings = Settings(
            network=network_id,
            network_name=network_name,
            name=config.name or socket.gethostname().partition(".")[0][:64],
            boot=boot,
            dial_key=identity.dial_key,
            sequence=boot * RECORDS_PER_BOOT,
            direct=config.links.direct,
            auto=config.links.auto,
            mesh_size=config.links.full_mesh,
            links_max=config.links.max,
        )
        core = Overlay(settings, Keys(identity, store.prekeys), random.Random())
        self._transport = self._make_transport(identity)
        self._driver = Driver(
            core,
            self._transport,
            remember=self._remember,
            report=partial(log_report, log.logger),
            changed=self._on_link_change,
        )
        self.node = Node(core, self._transport, self._driver, config, settings, identity.peer_id)

    def _make_transport(self, identity: Identity) -> UdpTransport:
        config = self._options.config
        return UdpTransport(
            self._listen_address(listen_address(config)),
            dial_key=identity.dial_key,
            certificate=identity.certificate,
            random=random.Random(),
            advertise=advertised_addresses(config),
        )

    def _listen_address(self, wanted: Address) -> Address:
        """A port that was left to us is the last life's, or a new one if that is taken."""
        host = any_host() if wanted.host == WILDCARD else wanted.host
        last = Address(host, wanted.port or self._store.port())
        if wanted.port or is_free(last):
            return last
        self._log.logger.warning("port_taken", port=last.port, why="invites made before name it")
        return Address(host, 0)

    # --- a life --------------------------------------------------------------------------------

    async def run(self, control: socket.socket) -> None:
        """Start, live until told to leave, say goodbye. UsageError: it could not start as asked."""
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._on_signals, signals, nursery.cancel_scope)
                await nursery.start(self._driver.run)  # type: ignore[arg-type, unused-ignore]
                await nursery.start(self._transport.run, self._emit)  # type: ignore[arg-type, unused-ignore]
                self._store.set_port(self._transport.listen[0].port)
                async with trio.open_nursery() as commands:
                    commands.start_soon(self._serve_control, control)
                    commands.start_soon(self._checkpoint)
                    await self._enter()
                    await self.node.leaving.wait()
                    await self._leave()
                nursery.cancel_scope.cancel()

    async def _enter(self) -> None:
        """Be in the network: joined by the invite, recalling old friends, ready."""
        invite = self._options.invite
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._cancel_on_leaving, nursery.cancel_scope)
            if invite is not None:
                await self._join(invite)
            if records := self._store.records():
                self._driver.emit(Recall(records))
            await self._announce_ready()
            nursery.cancel_scope.cancel()
        self._entered.set()

    async def _cancel_on_leaving(self, scope: trio.CancelScope) -> None:
        await self.node.leaving.wait()
        scope.cancel()

    async def _join(self, invite: InviteBody) -> None:
        try:
            await self._driver.call(lambda request: Join(request, invite))
        except CommandFailed as error:
            raise InviteError(error.text) from None
        self._store.set_network(self.node.settings.network, self.node.settings.network_name)

    async def _announce_ready(self) -> None:
        made = await self.node.invite(None, None)
        self._options.announce(
            {
                "event": "ready",
                "peer_id": peer_id_text(self.node.peer_id),
                "listen": [str(address) for address in self.node.listen],
                "invite": made["link"],
                "expires_at": made["expires_at"],
                "name": self.node.settings.name,
                "network": self.node.settings.network_name,
                "data_dir": str(self._options.data_dir),
            }
        )
        self._ready = True
        self._log.release()
        for event in self._early:
            self._options.announce(event)

    async def _leave(self) -> None:
        """Say goodbye on every link, and let the goodbyes get out."""
        watchdog = threading.Timer(STUCK_TIMEOUT, os._exit, (0,))
        watchdog.daemon = True
        watchdog.start()
        links = [view.link for view in self.node.core.peers()]
        with trio.move_on_after(LEAVE_TIMEOUT):
            with contextlib.suppress(CommandFailed):
                await self._driver.call(Leave)
            # What we hang up ends without an event.
            while any(self._transport.statistics(link) for link in links):  # noqa: ASYNC110
                await trio.sleep(0.01)
        self._options.announce({"event": "left"})

    # --- beside the loop -----------------------------------------------------------------------

    async def _on_signals(self, signals: AsyncIterator[int], everything: trio.CancelScope) -> None:
        """The first one asks to leave, the second to end at once."""
        async for _ in signals:
            if self.node.leaving.is_set():
                everything.cancel()
            self.node.leaving.set()

    async def _serve_control(self, control: socket.socket) -> None:
        with trio.move_on_after(CONTROL_PATIENCE):
            await self._entered.wait()
        serve = await trio.to_thread.run_sync(import_control)
        await serve(self.node, control)

    async def _checkpoint(self) -> None:
        """Keep the write-ahead log short, until the node leaves."""
        while not self.node.leaving.is_set():
            with trio.move_on_after(CHECKPOINT_INTERVAL):
                await self.node.leaving.wait()
            await trio.to_thread.run_sync(self._store.checkpoint)

    # --- what the core and the transport say ---------------------------------------------------

    def _emit(self, event: Event) -> None:
        if isinstance(event, Listening):
            self.node.listen = event.addresses
        self._driver.emit(event)

    def _remember(self, peer: PeerId, record: bytes) -> None:
        try:
            self._store.remember(peer, record)
        except sqlite3.Error as error:  # a full disk costs the cache, not the node
            self._log.logger.warning("not_remembered", peer=peer, why=str(error))

    def _on_link_change(self, change: LinkChange) -> None:
        event: dict[str, Any] = {
            "event": "linked" if change.up else "unlinked",
            "peer_id": peer_id_text(change.peer),
        }
        if change.reason:
            event["reason"] = change.reason
        if self._ready:
            self._options.announce(event)
        else:
            self._early.append(event)


def import_control() -> Callable[[Node, socket.socket], Awaitable[None]]:
    """The HTTP server, which takes a fifth of a second to import: call it in a thread."""
    from overlay.node.control import serve

    return serve
