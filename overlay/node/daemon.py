"""The node of `overlay up`: a data directory, signals, a log and a control API around a node.

The order of things is chosen for a fast start: the control socket listens first (who asks early
waits in its backlog), the UDP port comes next, then the dials go out, and only when they have
come back is the HTTP server imported, in a thread.
"""

import contextlib
import os
import random
import signal
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio

from overlay import api
from overlay.apps import chat
from overlay.core.addresses import Reach
from overlay.core.admission.invites import JOINING
from overlay.core.events import Report
from overlay.core.wire.documents import InviteBody
from overlay.errors import CommandFailed, Failure, UsageError
from overlay.identity import Identity, load_or_create
from overlay.node.config import WILDCARD, Config, listen_address
from overlay.node.directory import DataDirectory
from overlay.node.doctor import FEW_DESCRIPTORS
from overlay.node.library import sole
from overlay.node.listening import make_transport
from overlay.node.logs import Log, log_report, open_log
from overlay.node.node import Dependencies, Node
from overlay.node.store import Store

INTERRUPTED = 130
"""The exit code of a node that a signal ended before it was ready (128 + SIGINT)."""
CRASHED = 70
"""The exit code of a node that ended by a bug of ours (sysexits.h, EX_SOFTWARE)."""
STUCK_TIMEOUT = 5.0
"""Seconds after which a node that was told to leave ends anyhow (guess): the HTTP server cannot
be kept from waiting for a client that has stopped reading."""
CONTROL_PATIENCE = 1.0
"""Seconds that commands wait at most while the first dials are out (guess)."""

ANY = frozenset({WILDCARD, "0.0.0.0", "::"})
"""Hosts to listen on that name no address themselves."""
NO_ADDRESS = "no network interface has an address: the invite follows as soon as one has"
ONLY_RELAYS = (
    "this node names no address of its own (links.relay_only), and is linked to no member that "
    "strangers can reach: `overlay invite` makes one that names such members once there are some"
)
ONLY_LOOPBACK = (
    "no network interface has an address but loopback: only nodes on this machine can join until "
    "one has; another invite follows then"
)

APPS = {"chat": chat.rows}
"""Applications that commands reach through the control API, by name."""

Announce = Callable[[dict[str, Any]], None]
"""Takes what `up --json` prints, one object at a time; ``ready`` comes first."""


@dataclass(frozen=True, slots=True)
class Options:
    """What `overlay up` was told."""

    config: Config
    data_dir: Path
    invite: InviteBody | None
    join_timeout: float
    """Seconds for which a join goes on while nobody answers."""
    announce: Announce
    progress: Callable[[str], None]
    """Takes a line on what is being tried before the node is ready, for who waits for it."""


def run(options: Options) -> int:
    """Be a node until told to leave; the exit code. UsageError: it could not start as asked."""
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(closing(DataDirectory.open(options.data_dir)))
        log = stack.enter_context(open_log(options.config.log))
        store = stack.enter_context(closing(Store(directory.path / "overlay.db")))
        identity = load_or_create(directory.path)
        control = directory.listen()
        try:
            return trio.run(_live, options, log, store, identity, control)
        except Exception as error:
            if isinstance(fault := sole(error), UsageError):
                raise fault from None
            log.logger.exception("crashed")
            return CRASHED
        finally:
            control.close()


async def _live(
    options: Options, log: Log, store: Store, identity: Identity, control: socket.socket
) -> int:
    return await Daemon(options, log, store, identity).run(control)


class Daemon:
    """One life of a node, from the bound port to the last goodbye."""

    def __init__(self, options: Options, log: Log, store: Store, identity: Identity) -> None:
        self._options = options
        self._log = log
        self._store = store
        self._ready = False
        self._interrupted = False
        self._early: list[dict[str, Any]] = []
        self._entered = trio.Event()
        self._reach = Reach.NOWHERE
        """From how far newcomers could come with the last invite that was announced."""
        transport = make_transport(options.config, identity, store.port())
        given = Dependencies(report=self._on_report, notice=self._on_event, random=random.Random())
        self.node = Node(options.config, identity, store, transport, given)

    # --- a life --------------------------------------------------------------------------------

    async def run(self, control: socket.socket) -> int:
        """Start, live until told to leave, say goodbye; the exit code.

        UsageError: it could not start as asked.
        """
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._on_signals, signals, nursery.cancel_scope)
                await nursery.start(self.node.run)  # type: ignore[arg-type, unused-ignore]
                self._store.set_port(self.node.transport.listen[0].port)
                async with trio.open_nursery() as commands:
                    commands.start_soon(self._serve_control, control)
                    await self._enter()
                    nursery.start_soon(self._invite_again)
                    await self.node.leaving.wait()
                    await self._leave()
                nursery.cancel_scope.cancel()
        return self._exit_code()

    async def _enter(self) -> None:
        """Be in the network: joined by the invite, recalling old friends, ready."""
        invite = self._options.invite
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._cancel_on_leaving, nursery.cancel_scope)
            if invite is not None:
                await self.node.enter(invite, self._options.join_timeout)
            self.node.recall()
            await self._announce_ready()
            nursery.cancel_scope.cancel()
        self._entered.set()

    async def _cancel_on_leaving(self, scope: trio.CancelScope) -> None:
        await self.node.leaving.wait()
        scope.cancel()

    async def _announce_ready(self) -> None:
        self._reach = self.node.reach
        made = await self._invitation()
        self._options.announce(
            {
                "event": "ready",
                "peer_id": self.node.peer_id,
                "listen": list(self.node.addresses),
                "invite": made.link if made else None,
                "expires_at": made.expires_at if made else None,
                "name": self.node.name,
                "network": self.node.network,
                "data_dir": str(self._options.data_dir),
            }
        )
        self._ready = True
        self._log.release()
        for event in self._early:
            self._options.announce(event)
        if self.node.has_few_descriptors:
            self._log.logger.warning("few_descriptors", text=FEW_DESCRIPTORS)
        if made is None:
            hidden = self._options.config.links.relay_only
            self._log.logger.warning("no_address", text=ONLY_RELAYS if hidden else NO_ADDRESS)
        elif self._reach is Reach.MACHINE and listen_address(self._options.config).host in ANY:
            self._log.logger.warning("only_loopback", text=ONLY_LOOPBACK)

    async def _invitation(self) -> api.Invite | None:
        """An invite, or None while there is no address that it could name."""
        try:
            return await self.node.invite()
        except CommandFailed as error:
            if error.code != Failure.NO_ADDRESS:
                raise
            return None

    async def _invite_again(self) -> None:
        """Announce an invite whenever newcomers can come from farther away than with the last."""
        while self._reach < Reach.NETWORK and not self.node.leaving.is_set():
            reach = await self.node.reaches_beyond(self._reach)
            try:
                made = await self._invitation()
            except CommandFailed as error:  # The node is going, or has too much to do.
                self._reach = reach
                self._log.logger.warning("invite_failed", code=error.code, text=error.text)
                continue
            if made is not None:
                self._reach = reach
                told = {"event": "invite", "link": made.link, "expires_at": made.expires_at}
                self._options.announce(told)

    async def _leave(self) -> None:
        """Say goodbye, and end however stuck something may be."""
        watchdog = threading.Timer(STUCK_TIMEOUT, os._exit, (self._exit_code(),))
        watchdog.daemon = True
        watchdog.start()
        await self.node.farewell()
        self._options.announce({"event": "left"})

    def _exit_code(self) -> int:
        return INTERRUPTED if self._interrupted and not self._ready else 0

    # --- beside the loop -----------------------------------------------------------------------

    async def _on_signals(self, signals: AsyncIterator[int], everything: trio.CancelScope) -> None:
        """The first one asks to leave, the second to end at once."""
        async for _ in signals:
            if self.node.leaving.is_set():
                everything.cancel()
            self._interrupted = True
            self.node.leaving.set()

    async def _serve_control(self, control: socket.socket) -> None:
        with trio.move_on_after(CONTROL_PATIENCE):
            await self._entered.wait()
        serve = await trio.to_thread.run_sync(import_control)
        await serve(self.node, control, APPS)

    def _on_report(self, report: Report) -> None:
        log_report(self._log.logger, report)
        if report.event == JOINING and not self._ready:
            self._options.progress(report.fields["text"])

    def _on_event(self, event: api.Event) -> None:
        if isinstance(event, api.DialFailed):
            return  # the log names it
        told: dict[str, Any] = {
            "event": "linked" if isinstance(event, api.LinkUp) else "unlinked",
            "peer_id": event.peer_id,
        }
        if isinstance(event, api.LinkDown) and event.reason:
            told["reason"] = event.reason
        if self._ready:
            self._options.announce(told)
        else:
            self._early.append(told)


def import_control() -> Callable[[Node, socket.socket, Mapping[str, Any]], Awaitable[None]]:
    """The HTTP server, which takes a fifth of a second to import: call it in a thread."""
    from overlay.node.control import serve

    return serve
