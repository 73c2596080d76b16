"""The node of `overlay up`: a data directory, signals, a log and a control API around a node.

The order of things is chosen for a fast start: the control socket listens first (who asks early
waits, and is told that we live), the UDP port comes next, then the dials go out, and only when they
have come back is the HTTP server imported, in a thread.
"""

import contextlib
import random
import socket
from collections.abc import Awaitable, Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio

from overlay import api, signals
from overlay.apps import chat
from overlay.apps.files.service import Files
from overlay.core.addresses import Reach
from overlay.core.admission.invites import JOINING
from overlay.core.events import Report
from overlay.core.wire.documents import InviteBody
from overlay.errors import CommandFailed, Failure, UsageError
from overlay.identity import Identity, load_or_create
from overlay.names import plain
from overlay.node.config import WILDCARD, Config, listen_address
from overlay.node.connections import Connections
from overlay.node.directory import DataDirectory
from overlay.node.doctor import FEW_DESCRIPTORS
from overlay.node.library import sole
from overlay.node.listening import make_transport
from overlay.node.logs import Log, log_report, open_log
from overlay.node.node import Dependencies, Node, short
from overlay.node.store import Store

CRASHED = 70
"""The exit code of a node that ended by a bug of ours (sysexits.h, EX_SOFTWARE)."""
STUCK_TIMEOUT = 5.0
"""Seconds after which a node that was told to leave ends anyhow (guess): the HTTP server cannot
be kept from waiting for a client that has stopped reading."""
EARLY_TIMEOUT = 1.5
"""The same before it was ready (guess): who has just started it sits and waits."""
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
    afterwards: Callable[[Callable[[], None]], None]
    """Calls what it is given once all that was announced has been written."""
    progress: Callable[[str], None]
    """Takes a line on what is being tried before the node is ready, for who waits for it."""
    consent: Callable[[str], None] | None = None
    """Begin afresh: called with what is to be forgotten, and returns if the user agrees."""


class Asked:
    """Whether a signal has asked the node to leave, and since when there is one to ask."""

    def __init__(self) -> None:
        self._ready = False
        self._early = False
        self._count = 0
        self._tell: Callable[[], None] | None = None
        self.forget_socket: Callable[[], None] | None = None
        """What is to be done even when the node is stuck."""

    def on_signal(self, _: int) -> None:
        """Between any two instructions of the main thread: note it, and wake the node."""
        self._count += 1
        if self._count == 1 and not self._ready:
            self._early = True
            signals.end_within(EARLY_TIMEOUT, self.forget_socket)
        if self._tell is not None:
            self._tell()

    @property
    def twice(self) -> bool:
        """Whether there was a second one, which asks to end at once."""
        return self._count > 1

    @property
    def early(self) -> bool:
        """Whether it came before the node was ready."""
        return self._early

    def listen(self, tell: Callable[[], None]) -> None:
        """Have `tell` called at each signal, from now on; at once if there was one."""
        self._tell = tell
        if self._count:
            tell()

    def ready(self) -> bool:
        """From now on a signal is a good way to end; False: one has come before."""
        self._ready = True
        if self._early:
            return False
        signals.settle(0)
        return True


def run(options: Options) -> int:
    """Be a node until told to leave; the exit code. UsageError: it could not start as asked."""
    asked = Asked()
    with contextlib.ExitStack() as stack:
        stack.enter_context(signals.taken(asked.on_signal))
        with signals.held():  # what is begun is finished: no half-made file stays behind
            directory = stack.enter_context(closing(DataDirectory.open(options.data_dir)))
            log = stack.enter_context(open_log(options.config.log))
            store = stack.enter_context(closing(Store(directory.path / "overlay.db")))
            if options.consent is not None:
                begin_afresh(store, options.consent)
            identity = load_or_create(directory.path, has_lived=store.has_lived)
            control = directory.listen()
            asked.forget_socket = directory.forget_socket
        try:
            return trio.run(_live, options, log, store, identity, control, asked)
        except Exception as error:
            if isinstance(fault := sole(error), UsageError):
                raise fault from None
            log.logger.exception("crashed")
            return CRASHED
        finally:
            control.close()


def begin_afresh(store: Store, consent: Callable[[str], None]) -> None:
    """Forget the network of earlier lives, if there is one; the identity stays."""
    kept = store.network()
    if kept is None:
        return
    network, name = kept
    consent(f"the network {plain(name)} ({short(network)}), its members and its invites")
    store.forget_network()


async def _live(
    options: Options,
    log: Log,
    store: Store,
    identity: Identity,
    control: socket.socket,
    asked: Asked,
) -> int:
    return await Daemon(options, log, store, identity, asked).run(control)


class Daemon:
    """One life of a node, from the bound port to the last goodbye."""

    def __init__(
        self, options: Options, log: Log, store: Store, identity: Identity, asked: Asked
    ) -> None:
        self._options = options
        self._log = log
        self._store = store
        self._asked = asked
        self._ready = False
        self._early: list[dict[str, Any]] = []
        self._entered = trio.Event()
        self._reach = Reach.NOWHERE
        """From how far newcomers could come with the last invite that was announced."""
        transport = make_transport(options.config, identity, store.port())
        given = Dependencies(report=self._on_report, notice=self._on_event, random=random.Random())
        self.node = Node(options.config, identity, store, transport, given)
        log.names.of = self.node.name_of

    # --- a life --------------------------------------------------------------------------------

    async def run(self, control: socket.socket) -> int:
        """Start, live until told to leave, say goodbye; the exit code.

        UsageError: it could not start as asked.
        """
        async with trio.open_nursery() as nursery:
            self._heed_signals(nursery.cancel_scope)
            connections = Connections(control)
            nursery.start_soon(connections.run)
            await nursery.start(self.node.run)  # type: ignore[arg-type, unused-ignore]
            self._store.set_port(self.node.transport.listen[0].port)
            async with trio.open_nursery() as commands:
                commands.start_soon(self._serve_control, connections)
                await self._enter()
                nursery.start_soon(self._invite_again)
                await self.node.leaving.wait()
                await self._leave()
                if self._asked.early:
                    commands.cancel_scope.cancel()
            nursery.cancel_scope.cancel()
        return signals.status() if self._asked.early else 0

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
        self._ready = not self.node.leaving.is_set() and self._asked.ready()
        if not self._ready:
            return
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
        self._options.afterwards(self._log.release)
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
            except (CommandFailed, UsageError) as error:
                # The node is going, has too much to do, or cannot write its network down.
                self._reach = reach
                code = error.code if isinstance(error, CommandFailed) else Failure.USAGE
                self._log.logger.warning("invite_failed", code=code, text=str(error))
                continue
            if made is not None:
                self._reach = reach
                told = {"event": "invite", "link": made.link, "expires_at": made.expires_at}
                self._options.announce(told)

    async def _leave(self) -> None:
        """Say goodbye, and end however stuck something may be."""
        if not self._asked.early:
            signals.settle(0)
            signals.end_within(STUCK_TIMEOUT, self._asked.forget_socket)
        await self.node.farewell()
        if self._ready:
            self._options.announce({"event": "left"})

    # --- beside the loop -----------------------------------------------------------------------

    def _heed_signals(self, everything: trio.CancelScope) -> None:
        """The first one asks to leave, the second to end at once."""
        token = trio.lowlevel.current_trio_token()

        def leave() -> None:
            if self._asked.twice:
                everything.cancel()
            self.node.leaving.set()

        def tell() -> None:
            with contextlib.suppress(trio.RunFinishedError):
                token.run_sync_soon(leave, idempotent=True)

        self._asked.listen(tell)

    async def _serve_control(self, connections: Connections) -> None:
        with trio.move_on_after(CONTROL_PATIENCE):
            await self._entered.wait()
        answer = await trio.to_thread.run_sync(import_control, abandon_on_cancel=True)  # type: ignore[call-arg, unused-ignore]
        await answer(self.node, connections, APPS, Files())

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


def import_control() -> Callable[[Node, Connections, Mapping[str, Any], Files], Awaitable[None]]:
    """The HTTP server, which takes a fifth of a second to import: call it in a thread."""
    from overlay.node.control import answer

    return answer
