"""One idea: a node is core, transport and memory around one loop, as programs and commands see it.

The composition that everything runs on: the daemon (`overlay.node.daemon`) adds a control socket
and signals, the library (`overlay.node.library`) an ``async with``, tests a transport in memory.
"""

import math
import random
import secrets
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import trio

from overlay import api
from overlay.core.addresses import Reach, is_loopback, reach_of
from overlay.core.admission.invites import MEMBERS_MAX
from overlay.core.connect.table import ATTEMPT_FAILED
from overlay.core.context import Settings
from overlay.core.events import (
    JOIN_TIMEOUT,
    Connect,
    Event,
    Examine,
    Join,
    Leave,
    Listening,
    MakeInvite,
    PingPeer,
    Publish,
    Recall,
    Report,
    Traced,
    TracePeer,
)
from overlay.core.link.links import LinkState
from overlay.core.overlay import Overlay
from overlay.core.snapshots import PeerView
from overlay.core.types import Address, GoodbyeCode, LinkId, PeerId, RequestId
from overlay.core.wire import invite as invites
from overlay.core.wire import signing
from overlay.core.wire.compact import NETWORK_BYTES, network_id
from overlay.core.wire.documents import InviteBody, Record
from overlay.core.wire.messages import WIRE_VERSION
from overlay.errors import CommandFailed, Failure, InviteError, UsageError
from overlay.identity import Identity, Keys, parse_peer_id, peer_id_text
from overlay.names import fitting, plain, short_id, stands_for, told
from overlay.node import arguments, doctor
from overlay.node.answers import sdp_of
from overlay.node.by_hand import ByHand
from overlay.node.config import MAX_DURATION, Config, parse_duration, stun_server
from overlay.node.driver import OVER, Driver, LinkChange
from overlay.node.feed import Feed
from overlay.node.store import RECORDS_PER_BOOT, Memory
from overlay.node.streaming import Handler, Streaming
from overlay.transport.interface import Starting, Transport
from overlay.transport.udp.further import has_descriptors
from overlay.version import __version__

MAX_EVENT_FEEDS = 256
MAX_CANDIDATES = 8
"""Peers that an error names when more than one is meant."""
NAMELESS = "node"
"""What a node is called on a host whose own name cannot be one."""
LEAVE_TIMEOUT = 3.0
"""Seconds for the goodbyes (guess)."""
EXAMINED_WITHIN = 15.0
"""Seconds (guess) for which a user waits at most for what a network's NAT does."""
SHORT_ID = 8
"""Hexadecimal digits of a network's id that people read."""
JOIN_SLACK = 10.0
"""Seconds beyond its own time limit after which a join that has not ended is given up (guess)."""

MakeCore = Callable[[Settings, Keys, random.Random], Overlay]


def host_name() -> str:
    """What this machine is called, without its domain."""
    return fitting(socket.gethostname().partition(".")[0]) or NAMELESS


def ignore(_: Any) -> None:
    """For a node that nobody watches."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dependencies:
    """What a node is handed besides its configuration; tests hand it something else."""

    report: Callable[[Report], None] = ignore
    """Takes what the log should name."""
    notice: Callable[[api.Event], None] = ignore
    """Takes what `Node.events` tells; called from within the loop, so it must not wait."""
    wall: Callable[[], float] = time.time
    random: random.Random
    make_core: MakeCore = Overlay


class Node:
    """`overlay.api.Node`. Made within trio; alive while `run` runs."""

    def __init__(
        self,
        config: Config,
        identity: Identity,
        memory: Memory,
        transport: Transport,
        given: Dependencies,
    ) -> None:
        self.config = config
        self.transport = transport
        self.leaving = trio.Event()  # set when the node is to say goodbye and end
        # Faults of ours in answering commands; the transport counts its own.
        self.internal_errors = 0
        self._id = identity.peer_id
        self._identity = identity
        self._memory = memory
        self._given = given
        self._boot = memory.next_boot()
        self._started_at = trio.current_time()
        self._listening = Listening(())
        self._moved = trio.Event()  # set when our addresses have changed
        self._feeds: list[Feed[api.Event]] = []
        self._scope = trio.CancelScope()
        if config.name:
            memory.set_name(config.name)
        # Whether we have answered an offer and met nobody yet: we settle with the first link.
        self._is_guest = False
        self.by_hand = ByHand(self, identity)
        kept = memory.network()
        # Whether the network is one that we have made ourselves and that nobody else knows of.
        self._is_founder = kept is None
        fresh = network_id(secrets.token_bytes(NETWORK_BYTES)), config.network.name
        self.settings = self._born_into(*(kept or fresh))
        self.core = self._make_core()
        self.driver = Driver(
            self.core,
            transport,
            remember=memory.remember,
            report=self._on_report,
            changed=self._on_link_change,
            wall=given.wall,
        )

        self._streaming = Streaming(
            self._linked, transport.open_stream, self.driver.peer_of, peer_id_text
        )

    def _born_into(self, network: bytes, network_name: str) -> Settings:
        links, relay = self.config.links, self.config.relay
        return Settings(
            network=network,
            network_name=told(network_name) or network.hex()[:8],
            name=self.config.name or self._memory.name() or host_name(),
            boot=self._boot,
            dial_key=self._identity.dial_key,
            sequence=self._boot * RECORDS_PER_BOOT,
            direct=links.direct,
            relay_only=links.relay_only,
            auto=links.auto,
            mesh_size=links.full_mesh,
            active_size=links.active,
            links_max=links.max,
            passive_size=links.passive,
            stun=stun_server(self.config),
            low_ttl=self.config.nat.low_ttl,
            prediction=self.config.nat.prediction,
            birthday=self.config.nat.birthday and has_descriptors(),
            knock=self.config.nat.knock,
            guest_stay=parse_duration(links.guests),
            relay=relay.serve,
            relay_rate=float(relay.rate),
            relay_bytes_per_day=relay.bytes_per_day,
            circuits=links.circuits,
        )

    def _make_core(self) -> Overlay:
        keys = Keys(self._identity, self._memory.prekeys)
        return self._given.make_core(self.settings, keys, self._given.random)

    # --- a life --------------------------------------------------------------------------------

    async def run(self, *, task_status: Starting = trio.TASK_STATUS_IGNORED) -> None:
        """Bind and live until cancelled or `leave`; started once it listens. ConfigError."""
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    await nursery.start(self.driver.run)  # type: ignore[arg-type, unused-ignore]
                    listen = partial(
                        self.transport.run, self._emit, on_stream=self._streaming.on_stream
                    )
                    await nursery.start(listen)  # type: ignore[arg-type, unused-ignore]
                    nursery.start_soon(self._memory.tend)
                    task_status.started()
                    await trio.sleep_forever()
        finally:
            self.leaving.set()
            self._streaming.end()
            for feed in list(self._feeds):
                feed.end()

    def recall(self) -> None:
        """Have the peers of earlier lives dialled."""
        if records := self._memory.records():
            self.driver.emit(Recall(records))

    async def leave(self) -> None:
        """See `overlay.api.Node.leave`."""
        await self.farewell()
        self.stop()

    def stop(self) -> None:
        """End without a goodbye."""
        self._scope.cancel()

    async def farewell(self) -> None:
        """Say goodbye on every link, and let the goodbyes get out."""
        self.leaving.set()
        links = [view.link for view in self.core.peers()]
        with trio.move_on_after(LEAVE_TIMEOUT), suppress(CommandFailed):
            await self.driver.call(Leave)
            # What we hang up ends without an event.
            while any(self.transport.statistics(link) for link in links):  # noqa: ASYNC110
                await trio.sleep(0.01)

    def _emit(self, event: Event) -> None:
        self.driver.emit(event)
        if isinstance(event, Listening):
            self._listening = event
            told = {"addresses": ", ".join(self.addresses)}
            self._given.report(Report("info", "listening", told))
            self._moved.set()
            self._moved = trio.Event()

    # --- who and where -------------------------------------------------------------------------

    @property
    def peer_id(self) -> str:
        """See `overlay.api.Node.peer_id`."""
        return peer_id_text(self._id)

    @property
    def name(self) -> str:
        """See `overlay.api.Node.name`."""
        return self.settings.name

    @property
    def network(self) -> str:
        """See `overlay.api.Node.network`."""
        return self.settings.network_name

    @property
    def addresses(self) -> tuple[str, ...]:
        """See `overlay.api.Node.addresses`; a wildcard is resolved to the interfaces' own."""
        return tuple(str(address) for address in self._listening.addresses)

    @property
    def reach(self) -> Reach:
        """From how far newcomers can dial this node now."""
        own = (*self._listening.addresses, *self._listening.advertised)
        return reach_of(address.host for address in own)

    async def reaches_beyond(self, reach: Reach) -> Reach:
        """Wait until newcomers can dial from farther away than that; from how far."""
        while self.reach <= reach:
            await self._moved.wait()
        return self.reach

    def status(self) -> dict[str, Any]:
        """See `overlay.api.Node.status`."""
        status, known = self.core.status(), self.core.behaviour()
        counters = status.signalling
        return {
            "version": __version__,
            "wire": WIRE_VERSION,
            "peer_id": self.peer_id,
            "name": self.name,
            "network": self.network,
            "network_id": self.settings.network.hex(),
            "listen": list(self.addresses),
            "links": self.links(),
            "suspect": self._in_state(LinkState.SUSPECT),
            "silent": self._in_state(LinkState.SILENT),
            "uptime": trio.current_time() - self._started_at,
            "internal_errors": self.internal_errors + self.transport.internal_errors,
            "signalling": {
                "sent": counters.sent,
                "forwarded": counters.forwarded,
                "delivered": counters.delivered,
                "dropped": counters.dropped,
            },
            "identity_elsewhere": status.identity_elsewhere,
            "recalling": status.recalling or None,
            "nat": {
                "mapping": known.mapping.value,
                "filtering": known.filtering.value,
                "ports": known.ports.value,
                "reachable": known.reachable,
            },
            "refused": {str(code): count for code, count in status.refused.items()},
        }

    # --- peers ---------------------------------------------------------------------------------

    def links(self) -> int:
        """How many peers we are linked to, those that have fallen silent left out."""
        return sum(view.state is not LinkState.SILENT for view in self.core.peers())

    def _in_state(self, state: LinkState) -> int:
        return sum(view.state is state for view in self.core.peers())

    def peers(self, *, everybody: bool = False) -> list[api.Peer]:
        """See `overlay.api.Node.peers`."""
        arguments.flag("everybody", everybody)
        views = self.core.peers()
        found = [
            self._peer(view) for view in views if everybody or view.state is not LinkState.SILENT
        ]
        if everybody:
            linked = {view.peer for view in views}
            known = [each for each in self.core.known() if each.peer_id not in linked]
            found += [api.Peer(peer_id_text(PeerId(r.peer_id)), told(r.name), None) for r in known]
        return found

    def _peer(self, view: PeerView) -> api.Peer:
        statistics = self.transport.statistics(view.link)
        seen = statistics or view.facts
        link = api.Link(
            direction=view.direction,
            negotiated=view.negotiated.value,
            via=peer_id_text(view.via) if view.via else None,
            hops=view.hops,
            path=seen.path.value,
            local=str(seen.local),
            remote=str(view.remote if view.relay else seen.remote),
            since=view.since_wall,
            rtt=view.rtt if statistics is None or statistics.rtt is None else statistics.rtt,
            bytes_in=statistics.bytes_in if statistics else 0,
            bytes_out=statistics.bytes_out if statistics else 0,
            state=view.state,
            relay=peer_id_text(view.relay) if view.relay else None,
            technique=view.facts.technique,
        )
        return api.Peer(peer_id_text(view.peer), view.name, link)

    def _names(self) -> dict[PeerId, str]:
        """What every peer that we know of calls itself."""
        names = {PeerId(record.peer_id): told(record.name) for record in self.core.known()}
        names |= {view.peer: view.name or names.get(view.peer, "") for view in self.core.peers()}
        return {**names, self._id: self.name}

    def name_of(self, peer: PeerId) -> str:
        """What a peer calls itself; nothing where that is unknown."""
        return self._names().get(peer, "")

    def resolve(self, text: str) -> PeerId:
        """The peer that a user means: an id, a short one, a unique prefix of them, a unique name.

        CommandFailed ``ambiguous`` lists the candidates, ``unknown_peer`` says that there is none.
        """
        arguments.peer(text)
        names = self._names()
        ids = {peer_id_text(peer): peer for peer in names}
        if text in ids:
            return ids[text]
        matches = {peer for peer_id, peer in ids.items() if stands_for(text, peer_id)}
        matches |= {peer for peer, name in names.items() if name == text}
        if len(matches) == 1:
            return matches.pop()
        if matches:
            listed = self._listed({peer_id_text(peer): names[peer] for peer in matches})
            raise CommandFailed(
                Failure.AMBIGUOUS, f"{plain(text)!r} matches more than one peer: {listed}"
            )
        try:
            return parse_peer_id(text)
        except UsageError:
            raise CommandFailed(
                Failure.UNKNOWN_PEER,
                f"no peer that this node knows has the id, prefix or name {plain(text[:64])!r}: "
                "see `overlay peers`",
            ) from None

    def _listed(self, names: dict[str, str]) -> str:
        """Peers to choose from, by ids that tell them apart."""
        ids = sorted(names)
        told_apart = len({short_id(each) for each in ids}) == len(ids)
        found = []
        for each in ids[:MAX_CANDIDATES]:
            known = [names[each], "this node" if each == self.peer_id else ""]
            about = f" ({', '.join(filter(None, known))})" if any(known) else ""
            found.append((short_id(each) if told_apart else each) + about)
        more = len(ids) - len(found)
        return ", ".join(found) + (f" and {more} more" if more else "")

    def link_to(self, peer: PeerId) -> LinkId:
        """The link to a peer; CommandFailed ``not_linked``."""
        for view in self.core.peers():
            if view.peer == peer:
                return view.link
        raise CommandFailed(Failure.NOT_LINKED, "there is no link to this peer: connect first")

    def descriptions(self, peer: str) -> dict[str, Any]:
        """Both session descriptions of the link to `peer`."""
        found = self.resolve(peer)
        described = self.transport.description(self.link_to(found))
        if described is None:
            raise CommandFailed(Failure.NOT_LINKED, "the link has just ended")
        local, remote = sdp_of(described)
        return {"peer_id": peer_id_text(found), "local": local, "remote": remote}

    async def connect(self, peer: str) -> api.Peer:
        """See `overlay.api.Node.connect`."""
        found = self.resolve(peer)
        await self.driver.call(lambda request: Connect(request, found))
        for view in self.core.peers():
            if view.peer == found:
                return self._peer(view)
        raise CommandFailed(Failure.CLOSED, "the link was opened and has already ended")

    async def ping(self, peer: str) -> float:
        """See `overlay.api.Node.ping`."""
        found = self.resolve(peer)
        rtt: float = await self.driver.call(lambda request: PingPeer(request, found))
        return rtt

    @property
    def has_few_descriptors(self) -> bool:
        """Whether birthday is left out although it is wanted."""
        return self.config.nat.birthday and not self.settings.birthday

    async def doctor(self) -> dict[str, Any]:
        """What this network is, as ``overlay doctor --json`` prints it."""
        with suppress(CommandFailed):  # what is known is told in any case
            await self.driver.call(Examine, EXAMINED_WITHIN)
        told = [str(Address(each.host, each.port)) for each in self.core.addresses()]
        tried = bool(self.core.status().recalling)
        udp = True if self.transport.heard else False if tried else None
        hidden = self.config.links.relay_only
        return doctor.network(
            self.core.behaviour(),
            told,
            udp=udp,
            hidden=hidden,
            few_descriptors=self.has_few_descriptors,
        )

    async def doctor_of(self, peer: str) -> dict[str, Any]:
        """How `peer` is reached and why, as ``overlay doctor PEER --json`` prints it.

        A peer that nobody has tried to reach yet is connected first.
        """
        found = self.resolve(peer)
        if found == self._id:
            raise CommandFailed(Failure.SELF, "that is this node itself")
        linked = {view.peer: self._peer(view).link for view in self.core.peers()}
        if found not in linked and not self.core.tried(found)[0]:
            with suppress(CommandFailed):
                await self.driver.call(lambda request: Connect(request, found))
            linked = {view.peer: self._peer(view).link for view in self.core.peers()}
        tried, theirs = self.core.tried(found)
        link = linked.get(found)
        up = link is not None and link.state != LinkState.SILENT
        path, relay = (link.path, link.relay) if link is not None and up else (None, None)
        return doctor.peer(path, relay, tried, self.core.behaviour().words, theirs)

    async def trace(self, peer: str) -> api.Trace:
        """See `overlay.api.Node.trace`."""
        found = self.resolve(peer)
        if found == self._id:
            raise CommandFailed(Failure.SELF, "that is this node itself")
        traced: Traced = await self.driver.call(lambda request: TracePeer(request, found))
        return api.Trace(tuple(peer_id_text(hop) for hop in traced.hops), traced.rtt)

    async def wait(self, peers: int, timeout: float | None = None) -> None:
        """See `overlay.api.Node.wait`."""
        arguments.whole("peers", peers)
        if timeout is not None:
            arguments.seconds("timeout", timeout)
        with trio.move_on_after(math.inf if timeout is None else timeout):
            await self.driver.wait_until(lambda: self.links() >= peers)
        if (links := self.links()) < peers:
            raise CommandFailed(Failure.TIMEOUT, f"only {links} of {peers} links are up")

    # --- invites -------------------------------------------------------------------------------

    async def invite(
        self, *, expires: float | None = None, members: int | None = None
    ) -> api.Invite:
        """See `overlay.api.Node.invite`."""
        lifetime = parse_duration(self.config.invite.expires) if expires is None else expires
        count = self.config.invite.members if members is None else members
        arguments.positive("expires", lifetime, MAX_DURATION)
        arguments.whole("members", count, 1, MEMBERS_MAX)
        self._settle()

        def command(request: RequestId) -> MakeInvite:
            return MakeInvite(request, lifetime, count)

        body: InviteBody = await self.driver.call(command)
        return api.Invite(invites.encode(body), invites.grant_of(body).expires_at)

    async def join(self, link: str, *, timeout: float = JOIN_TIMEOUT) -> None:
        """See `overlay.api.Node.join`."""
        arguments.text("an invite link", link)
        arguments.seconds("timeout", timeout)
        keys = Keys(self._identity, self._memory.prekeys)
        body = invites.decode(link, keys)
        invites.check(body, self._given.wall(), keys)
        await self.enter(body, timeout)

    async def enter(self, invite: InviteBody, timeout: float) -> None:
        """Join by an invite that has been read and checked; InviteError when that fails."""
        theirs = (invites.grant_of(invite).network, invite.network_name)
        if theirs[0] != self.settings.network:
            self._move_to(*theirs)
        elif {member.peer_id for member in invite.members} & {v.peer for v in self.core.peers()}:
            return  # a member that it names is linked already
        try:
            await self.driver.call(
                lambda request: Join(request, invite, timeout), timeout + JOIN_SLACK
            )
        except CommandFailed as error:
            named = [entry.host for member in invite.members for entry in member.addresses]
            if error.code == Failure.UNREACHABLE and not self._could_hear(named):
                raise InviteError(f"{error.text} ({doctor.NO_UDP})") from None
            raise InviteError(error.text) from None
        self._settle()

    def _could_hear(self, hosts: list[str]) -> bool:
        """Whether UDP works, as far as dials to these hosts could have shown it."""
        own = {address.host for address in self._listening.addresses}
        elsewhere = [host for host in hosts if host not in own and not is_loopback(host)]
        return self.transport.heard or not elsewhere

    def _move_to(self, network: bytes, name: str) -> None:
        """Become a node of another network. InviteError: others know us as a member of ours."""
        if not self._is_founder:
            raise InviteError(
                f"{belonging(self.network, self.settings.network, name, network)}: choose another "
                "--data-dir, or begin afresh with --reset-network (`overlay up --reset-network`), "
                "which forgets the network and its members and keeps the identity"
            )
        self._is_founder = False
        self.settings = self._born_into(network, name)
        self.core = self._make_core()
        self.driver.replace(self.core)
        self.driver.emit(self._listening)

    def _settle(self) -> None:
        """Keep the network for all later lives: from now on others know us as its member."""
        self._is_founder = False
        self._memory.set_network(self.settings.network, self.settings.network_name)

    # --- first contact by hand -----------------------------------------------------------------

    def keys(self) -> Keys:
        """What this node signs with."""
        return Keys(self._identity, self._memory.prekeys)

    def wall(self) -> float:
        """Unix seconds."""
        return self._given.wall()

    def settle(self) -> None:
        """Others may know us as a member of our network from now on."""
        self._settle()

    def enter_as_stranger(self, network: bytes, name: str) -> None:
        """Become a node of another network, if this one has never met anybody. InviteError."""
        if network == self.settings.network:
            raise InviteError(
                f"this node is in the network {plain(self.network)!r} already, from which the "
                "offer is: `overlay connect` reaches its members"
            )
        if self._has_met():
            raise InviteError(
                f"this node belongs to the network {plain(self.network)!r}, where it has met "
                f"others, and the offer is from another, {plain(name)!r}: answer it with a node "
                "of another --data-dir"
            )
        self._is_founder = self._is_guest = True
        self._move_to(network, name)

    def _has_met(self) -> bool:
        """Whether anybody else has ever been linked to us, in this life or an earlier one."""
        signed = (signing.unpack(data) for data in self._memory.records())
        kept = [signing.peek(each, Record) for each in signed if not isinstance(each, str)]
        known = [*self.core.known(), *(each for each in kept if not isinstance(each, str))]
        return bool(self.core.peers()) or any(each.peer_id != self._id for each in known)

    # --- topics and events ---------------------------------------------------------------------

    async def publish(self, topic: str, data: bytes | str) -> str:
        """See `overlay.api.Node.publish`."""
        arguments.topic(topic)
        arguments.content(data)
        content, is_text = (data.encode(), True) if isinstance(data, str) else (data, False)
        message_id: bytes = await self.driver.call(
            lambda request: Publish(request, topic, content, is_text)
        )
        return message_id.hex()

    def subscribe(self, topic: str) -> Feed[api.Message]:
        """See `overlay.api.Node.subscribe`."""
        arguments.topic(topic)
        return self.driver.subscribe(topic)

    def events(self) -> Feed[api.Event]:
        """See `overlay.api.Node.events`."""
        if self.leaving.is_set():
            raise CommandFailed(*OVER)
        if len(self._feeds) >= MAX_EVENT_FEEDS:
            raise CommandFailed(
                Failure.BUSY, f"{MAX_EVENT_FEEDS} feeds of events are open: close one"
            )
        feed: Feed[api.Event] = Feed(lambda: self._feeds.remove(feed))
        self._feeds.append(feed)
        return feed

    def _tell(self, event: api.Event) -> None:
        self._given.notice(event)
        for feed in list(self._feeds):
            feed.put(event)

    def _on_link_change(self, change: LinkChange) -> None:
        if change.up and self._is_guest:
            self._is_guest = False
            self._settle()
        peer = (peer_id_text(change.peer), self.name_of(change.peer))
        self._tell(api.LinkUp(*peer) if change.up else api.LinkDown(*peer, str(change.reason)))

    def _on_report(self, report: Report) -> None:
        self._given.report(report)
        told = report.fields
        if report.event == ATTEMPT_FAILED and told["code"] != GoodbyeCode.DUPLICATE:
            peer = (peer_id_text(told["peer"]), self.name_of(told["peer"]))
            self._tell(api.DialFailed(*peer, str(told["code"]), told["text"]))

    # --- streams -------------------------------------------------------------------------------

    async def open_stream(self, peer: str, protocol: str, *, priority: int = 0) -> api.Stream:
        """See `overlay.api.Node.open_stream`."""
        arguments.protocol(protocol)
        arguments.priority(priority)
        return await self._streaming.open(peer, protocol, priority)

    def accept_streams(self, protocol: str) -> Feed[api.Stream]:
        """See `overlay.api.Node.accept_streams`."""
        arguments.protocol(protocol)
        if self.leaving.is_set():
            raise CommandFailed(*OVER)
        return self._streaming.accept(protocol)

    async def request(
        self, peer: str, protocol: str, data: bytes, *, timeout: float = 30.0
    ) -> bytes:
        """See `overlay.api.Node.request`."""
        arguments.protocol(protocol)
        arguments.octets("data", data)
        arguments.seconds("timeout", timeout)
        return await self._streaming.request(peer, protocol, data, timeout)

    async def serve(
        self,
        protocol: str,
        handler: Handler,
        *,
        task_status: Starting = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """See `overlay.api.Node.serve`."""
        arguments.protocol(protocol)
        arguments.function("handler", handler)
        await self._streaming.serve(protocol, handler, task_status)

    async def _linked(self, peer: str) -> tuple[str, LinkId]:
        """The id of a peer and the link to it, opened if there is none."""
        found = self.resolve(peer)
        await self.driver.call(lambda request: Connect(request, found))
        return peer_id_text(found), self.link_to(found)


def belonging(our_name: str, ours: bytes, their_name: str, theirs: bytes) -> str:
    """That an invite is not for our network; their ids tell two of one name apart."""
    name, other = plain(our_name), plain(their_name)
    if name != other:
        return f"this node belongs to the network {name}, and the invite to another, {other}"
    return (
        f"this node belongs to the network {name} ({short(ours)}), and the invite to another of "
        f"that name ({short(theirs)})"
    )


def short(network: bytes) -> str:
    """The beginning of a network's id, for people."""
    return network.hex()[:SHORT_ID]
