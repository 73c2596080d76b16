"""A running node as its commands see it: every answer that the control API gives, as plain data."""

import base64
import math
import time
from dataclasses import dataclass, field
from typing import Any

import trio

import overlay
from overlay.core import dial, invite, sdp
from overlay.core.events import Connect, Deliver, MakeInvite, PingPeer, Publish
from overlay.core.messages import WIRE_VERSION, InviteBody
from overlay.core.overlay import Overlay, PeerView, Settings
from overlay.core.types import Address, Candidate, IceCredentials, LinkId, PeerId, RequestId
from overlay.errors import CommandFailed, UsageError
from overlay.identity import parse_peer_id, peer_id_text
from overlay.node.config import MAX_DURATION, Config, parse_duration
from overlay.node.driver import Driver
from overlay.node.words import plain
from overlay.transport.port import LinkDescription, Transport

MAX_MEMBERS = 4


@dataclass(eq=False)
class Node:
    """The core, the transport and the loop between them, with what the user calls them."""

    core: Overlay
    transport: Transport
    driver: Driver
    config: Config
    settings: Settings
    peer_id: PeerId
    listen: tuple[Address, ...] = ()
    """Where others on our networks reach us: a wildcard stands for its interfaces."""
    started_at: float = field(default_factory=trio.current_time)
    leaving: trio.Event = field(default_factory=trio.Event)
    """Set when the node is to say goodbye and end."""
    internal_errors: int = 0
    """Faults of ours in answering commands; the transport counts its own."""

    # --- questions -----------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """What `overlay status` prints."""
        status = self.core.status()
        counters = status.signalling
        return {
            "version": overlay.__version__,
            "wire": WIRE_VERSION,
            "peer_id": peer_id_text(self.peer_id),
            "name": self.settings.name,
            "network": self.settings.network_name,
            "network_id": self.settings.network.hex(),
            "listen": [str(address) for address in self.listen],
            "links": self.links(),
            "uptime": trio.current_time() - self.started_at,
            "internal_errors": self.internal_errors + self.transport.internal_errors,
            "signalling": {
                "sent": counters.sent,
                "forwarded": counters.forwarded,
                "delivered": counters.delivered,
                "dropped": counters.dropped,
            },
            "refused": status.refused,
        }

    def links(self) -> int:
        """How many peers we are linked to, those that have fallen silent left out."""
        return sum(view.state != "silent" for view in self.core.peers())

    def peers(self, *, everybody: bool = False) -> list[dict[str, Any]]:
        """What `overlay peers` prints: an object for every link that is not silent.

        With `everybody` also for the silent ones, and for each member known by its record alone.
        """
        views = self.core.peers()
        rows = [self._peer(view) for view in views if everybody or view.state != "silent"]
        if everybody:
            linked = {view.peer for view in views}
            known = [each for each in self.core.known() if each.peer_id not in linked]
            rows += [_known(PeerId(record.peer_id), record.name) for record in known]
        return rows

    def _peer(self, view: PeerView) -> dict[str, Any]:
        statistics = self.transport.statistics(view.link)
        seen = statistics or view.facts
        rtt = view.rtt if statistics is None or statistics.rtt is None else statistics.rtt
        return {
            "peer_id": peer_id_text(view.peer),
            "name": view.name,
            "direction": view.direction,
            "negotiated": view.negotiated.value,
            "via": peer_id_text(view.via) if view.via else None,
            "hops": view.hops,
            "path": seen.path.value,
            "local": str(seen.local),
            "remote": str(seen.remote),
            "since": view.since_wall,
            "rtt": rtt,
            "bytes_in": statistics.bytes_in if statistics else 0,
            "bytes_out": statistics.bytes_out if statistics else 0,
            "state": view.state,
        }

    def resolve(self, text: str) -> PeerId:
        """The peer that a user means: an id, a unique prefix of one, or a unique name.

        CommandFailed ``ambiguous`` lists the candidates, ``unknown_peer`` says that there is none.
        """
        names = {PeerId(record.peer_id): record.name for record in self.core.known()}
        names |= {view.peer: view.name or names.get(view.peer, "") for view in self.core.peers()}
        names[self.peer_id] = self.settings.name
        ids = {peer_id_text(peer): peer for peer in names}
        if text in ids:
            return ids[text]
        matches = {peer for name, peer in ids.items() if text and name.startswith(text)}
        matches |= {peer for peer, name in names.items() if name == text}
        if len(matches) == 1:
            return matches.pop()
        if matches:
            listed = ", ".join(
                sorted(f"{peer_id_text(peer)} ({plain(names[peer])})" for peer in matches)
            )
            raise CommandFailed(
                "ambiguous", f"{plain(text)!r} matches more than one peer: {listed}"
            )
        try:
            return parse_peer_id(text)
        except UsageError:
            raise CommandFailed(
                "unknown_peer",
                f"no peer that this node knows has the id, prefix or name {plain(text)!r}: "
                "see `overlay peers`",
            ) from None

    def descriptions(self, peer: PeerId) -> dict[str, Any]:
        """Both session descriptions of the link to `peer`."""
        link = self._link_to(peer)
        described = self.transport.description(link)
        if described is None:
            raise CommandFailed("not_linked", "the link has just ended")
        local, remote = sdp_of(described)
        return {"peer_id": peer_id_text(peer), "local": local, "remote": remote}

    def _link_to(self, peer: PeerId) -> LinkId:
        for view in self.core.peers():
            if view.peer == peer:
                return view.link
        raise CommandFailed("not_linked", "there is no link to this peer: connect first")

    def message(self, message: Deliver) -> dict[str, Any]:
        """A published message as `subscribe` prints it."""
        data = (
            {"data": message.data.decode(errors="replace")}
            if message.text
            else {"data_b64": base64.b64encode(message.data).decode()}
        )
        origin = peer_id_text(message.origin)
        return {"topic": message.topic, "from": origin, **data, "received_at": time.time()}

    # --- commands ------------------------------------------------------------------------------

    async def invite(self, expires: float | None, members: int | None) -> dict[str, Any]:
        """A new invite link, a secret, and when it expires."""
        lifetime = parse_duration(self.config.invite.expires) if expires is None else expires
        count = self.config.invite.members if members is None else members
        if not 0 < lifetime <= MAX_DURATION:
            raise CommandFailed("usage", "an invite lasts more than 0 s and at most 365 days")
        if not 1 <= count <= MAX_MEMBERS:
            raise CommandFailed("usage", f"an invite names 1 to {MAX_MEMBERS} members")

        def command(request: RequestId) -> MakeInvite:
            return MakeInvite(request, lifetime, count)

        body: InviteBody = await self.driver.call(command)
        return {"link": invite.encode(body), "expires_at": invite.grant_of(body).expires_at}

    async def connect(self, peer: PeerId) -> dict[str, Any]:
        """Open a link to `peer`, if there is none; the link as `peers` shows it."""
        await self.driver.call(lambda request: Connect(request, peer))
        for view in self.core.peers():
            if view.peer == peer:
                return self._peer(view)
        raise CommandFailed("closed", "the link was opened and has already ended")

    async def ping(self, peer: PeerId) -> dict[str, Any]:
        """The round trip to a linked peer, in seconds."""
        rtt: float = await self.driver.call(lambda request: PingPeer(request, peer))
        return {"peer_id": peer_id_text(peer), "rtt": rtt}

    async def publish(self, topic: str, data: bytes, *, text: bool) -> dict[str, Any]:
        """Send to every subscriber in the mesh."""
        message_id: bytes = await self.driver.call(
            lambda request: Publish(request, topic, data, text)
        )
        return {"message_id": message_id.hex()}

    async def wait(self, peers: int, timeout: float | None) -> dict[str, Any]:
        """Return once at least `peers` links are up; CommandFailed ``timeout``."""
        with trio.move_on_after(math.inf if timeout is None else max(0.0, timeout)):
            await self.driver.wait_until(lambda: self.links() >= peers)
        if (links := self.links()) < peers:
            raise CommandFailed("timeout", f"only {links} of {peers} links are up")
        return {"links": links}


def _known(peer: PeerId, name: str) -> dict[str, Any]:
    """A row for a member without a link."""
    link = ("direction", "negotiated", "via", "hops", "path", "local", "remote", "since", "rtt")
    return {
        "peer_id": peer_id_text(peer),
        "name": name,
        **dict.fromkeys(link),
        "bytes_in": 0,
        "bytes_out": 0,
        "state": "known",
    }


def sdp_of(link: LinkDescription) -> tuple[str, str]:
    """Our side of a link and the peer's, as session descriptions."""
    setups = ("active", "passive")
    ours, theirs = setups if link.dtls_role == "client" else setups[::-1]
    return (
        _side(link.local, link.local_fingerprint, ours, link.local_candidates),
        _side(link.remote, link.remote_fingerprint, theirs, link.remote_candidates),
    )


def _side(
    credentials: IceCredentials | None,
    fingerprint: bytes,
    setup: str,
    candidates: tuple[Candidate, ...],
) -> str:
    # The listener of a direct dial is ICE-lite; the dialler chose its user fragment.
    lite = credentials is not None and dial.parse_ufrag(credentials.ufrag) is not None
    return sdp.describe(sdp.Description(credentials, fingerprint, setup, candidates, lite=lite))
