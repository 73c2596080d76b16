"""One idea: a node's links from the open channel to the end: hello, glare, liveness, farewell.

A link is named by its id until the hello has succeeded; from then on a peer has exactly one link.
Where two come about at once (glare), both ends must keep the same one: they compare what both know,
the boots of their peers and the names of the two attempts. Of two by the same dialler, the first
whose proof holds stands.

A dialler that has a link to the peer already, suspect or silent, names it in its proof. If the
listener has that link, too, it is not displaced: it goes on over the path that the new link has
found (`Adopt`), with its streams and all, and the new link is hung up.
"""

from dataclasses import dataclass, field
from enum import StrEnum

from overlay.core.context import Context
from overlay.core.events import (
    Admit,
    Adopt,
    Hangup,
    LinkAlive,
    LinkOpened,
    LinkSilent,
    LinkSuspect,
    Rejected,
    Resolved,
    Transmit,
)
from overlay.core.link.hello import SECOND_HELLO, Accepted, HelloExchange
from overlay.core.timers import Timers
from overlay.core.types import (
    Address,
    EndReason,
    GoodbyeCode,
    LinkFacts,
    LinkId,
    Negotiated,
    PathKind,
    PeerId,
    Refusal,
    RequestId,
)
from overlay.core.wire.documents import InviteBody
from overlay.core.wire.messages import Goodbye, Hello, Ping, Pong, Proof
from overlay.errors import Failure

DUPLICATE = Refusal(GoodbyeCode.DUPLICATE, "another link to this peer stands")
ELSEWHERE = Refusal(
    GoodbyeCode.ELSEWHERE,
    "another node with your identity, of a newer boot, is linked to this one: stop one of the two",
)
HELLO_TIMEOUT = 10.0
"""Seconds (guess) from the open channel to the verified proof."""
GLARE_WINDOW = 5.0
"""Seconds (guess): links of one peer that open closer together than this are simultaneous."""
PENDING_HELLOS_MAX = 256
"""Links whose hello is under way (guess); more are hung up."""
GOODBYE_MAX = 200
"""Characters of a goodbye's text."""
PINGS_MAX = 256
"""Pings that wait for their pongs; of more, the oldest is given up."""
PING_TIMEOUT = 10.0
"""Seconds (guess)."""
UNANSWERED = f"the peer did not answer within {PING_TIMEOUT:g} s"
UNHEARD = (
    "nothing has been heard of this peer for 6 s: it is gone, or the network between is; "
    "the link waits a minute for it"
)


class LinkState(StrEnum):
    """What a link is good for."""

    HELLO = "hello"
    """Its channel is open, and nobody has proven anything."""
    UP = "up"
    """It is the one link to its peer."""
    SUSPECT = "suspect"
    """A check has gone unanswered for 1.5 s: still in use."""
    SILENT = "silent"
    """Nothing has been heard for 6 s: others take its place, and it may resume within a minute."""
    ENDED = "ended"
    """It has been hung up, or was lost."""


class LinkEvent(StrEnum):
    """What happens to a link."""

    PROVEN = "proof holds"
    SUSPECTED = "LinkSuspect"
    FELL_SILENT = "LinkSilent"
    HEARD = "LinkAlive"
    END = "refused, goodbye, displaced, lost"


TRANSITIONS: dict[LinkState, dict[LinkEvent, LinkState]] = {
    LinkState.HELLO: {
        LinkEvent.PROVEN: LinkState.UP,
        LinkEvent.END: LinkState.ENDED,
    },
    LinkState.UP: {
        LinkEvent.SUSPECTED: LinkState.SUSPECT,
        LinkEvent.FELL_SILENT: LinkState.SILENT,
        LinkEvent.END: LinkState.ENDED,
    },
    LinkState.SUSPECT: {
        LinkEvent.HEARD: LinkState.UP,
        LinkEvent.FELL_SILENT: LinkState.SILENT,
        LinkEvent.END: LinkState.ENDED,
    },
    LinkState.SILENT: {
        LinkEvent.HEARD: LinkState.UP,
        LinkEvent.END: LinkState.ENDED,
    },
    LinkState.ENDED: {},
}
"""What follows. What the transport says of a link in a state without an entry for it is no news."""
LIVENESS: dict[type, LinkEvent] = {
    LinkSuspect: LinkEvent.SUSPECTED,
    LinkAlive: LinkEvent.HEARD,
    LinkSilent: LinkEvent.FELL_SILENT,
}


@dataclass(slots=True)
class Expected:
    """What an attempt of ours is meant to become."""

    peer: PeerId | None
    """None: an invite names but its certificate."""
    negotiated: Negotiated
    inbound: bool
    via: PeerId | None = None
    hops: int = 0
    invite: InviteBody | None = None


@dataclass(slots=True)
class Link:
    """An open link; `peer` stays None until the hello has succeeded."""

    id: LinkId
    facts: LinkFacts
    inbound: bool
    hello: HelloExchange | None
    """None once it has succeeded."""
    opened_at: float
    expected: Expected | None
    asked_at: float
    """When we sent what the peer's proof replies to: the first round trip is counted from then."""
    peer: PeerId | None = None
    boot: int = 0
    negotiated: Negotiated = Negotiated.DIRECT
    since: float = 0.0
    state: LinkState = LinkState.HELLO
    rtt: float | None = None
    mapped: Address | None = None
    """Where the peer's end of the path sees us."""
    adopted: tuple[bytes, float] | None = None
    """The attempt of the link whose path it has taken over, and when."""
    told: tuple[PeerId, ...] | None = None
    """The neighbours of ours that the peer was last told of."""
    welcomed_at: float = float("-inf")
    """When the peer was sent all records that we then had."""

    def on(self, event: LinkEvent) -> bool:
        """Take the transition that the table has for it, if any; whether it had one."""
        after = TRANSITIONS[self.state].get(event)
        self.state = after or self.state
        return after is not None

    def on_told(self, neighbours: tuple[PeerId, ...]) -> None:
        """The peer has been told of these neighbours of ours."""
        self.told = neighbours

    def on_welcomed(self, now: float) -> None:
        """The peer has been sent all records that we have."""
        self.welcomed_at = now

    @property
    def via(self) -> PeerId | None:
        """The neighbour that handed us the offer or the answer, or relayed our dial."""
        return self.expected.via if self.expected else None

    @property
    def hops(self) -> int:
        """How many links the offer travelled, or the dial over a circuit; else 0."""
        return self.expected.hops if self.expected else 0


# What `Links` tells the composed node: facts, returned by its methods.


@dataclass(frozen=True, slots=True)
class PeerUp:
    """A peer that had no link has one: it is a neighbour now."""

    peer: PeerId
    link: Link
    record: bytes


@dataclass(frozen=True, slots=True)
class PeerMoved:
    """A neighbour's link was replaced by another."""

    peer: PeerId
    link: Link
    record: bytes
    restarted: bool = False
    """By one of a newer process, which knows nothing of what the two had agreed."""


@dataclass(frozen=True, slots=True)
class PeerDown:
    """A neighbour's link has ended."""

    peer: PeerId
    code: str


@dataclass(frozen=True, slots=True)
class AttemptFailed:
    """A link of ours never came to a verified hello."""

    link: LinkId
    code: str
    text: str


@dataclass(frozen=True, slots=True)
class TwinSeen:
    """An older process of a neighbour's identity lives as well, and shows this record."""

    peer: PeerId
    link: Link
    """The neighbour's, which stands."""
    record: bytes


LinkFact = PeerUp | PeerMoved | PeerDown | AttemptFailed | TwinSeen


@dataclass(slots=True)
class _Ping:
    link: LinkId
    sent_at: float
    request: RequestId | None


@dataclass(slots=True)
class Links:
    """Every link of the node by id, and by peer once the peer is known."""

    context: Context
    by_id: dict[LinkId, Link] = field(default_factory=dict)
    by_peer: dict[PeerId, Link] = field(default_factory=dict)
    refused: dict[str, int] = field(default_factory=dict)
    """How many hellos failed, by code."""
    _expected: dict[LinkId, Expected] = field(default_factory=dict)
    _timers: Timers[LinkId] = field(init=False)
    _pings: dict[int, _Ping] = field(default_factory=dict)
    _ping_timers: Timers[int] = field(init=False)
    _next_id: int = 0

    def __post_init__(self) -> None:
        self._timers = Timers(self.context.agenda)
        self._ping_timers = Timers(self.context.agenda)

    def new_id(self) -> LinkId:
        """The next even link id: attempts that the core starts."""
        self._next_id += 2
        return LinkId(self._next_id - 2)

    def expect(self, link: LinkId, expected: Expected) -> None:
        """Remember what an attempt is meant to become when it opens."""
        self._expected[link] = expected

    def forget(self, link: LinkId) -> None:
        """An attempt is called off, or over, before anybody has proven anything on it."""
        self._expected.pop(link, None)
        opened = self.by_id.get(link)
        if opened is not None and opened.peer is None:
            self._drop(opened)

    def on_dial_failed(self, link: LinkId, reason: EndReason) -> str:
        """An attempt came to nothing; what to say of it. A wrong certificate counts as refused."""
        self.forget(link)
        if reason is not EndReason.CERTIFICATE:
            return f"the connection attempt failed ({reason})"
        self.refused[reason] = self.refused.get(reason, 0) + 1
        self.context.report("warning", "certificate_refused", link=link)
        return (
            "the node that answered has another certificate than was promised: "
            "ask for a new invite from a member whom you trust"
        )

    def alive(self) -> list[Link]:
        """The neighbours' links that are not silent, in the order in which they came up."""
        return [link for link in self.by_peer.values() if link.state is not LinkState.SILENT]

    def is_up(self, peer: PeerId) -> bool:
        """Whether there is a link to this peer that nobody doubts."""
        link = self.by_peer.get(peer)
        return link is not None and link.state is LinkState.UP

    # --- opening -----------------------------------------------------------------------------

    def on_opened(self, event: LinkOpened, now: float) -> None:
        """A channel stands: say hello."""
        expected = self._expected.pop(event.link, None)
        pending = sum(1 for link in self.by_id.values() if link.peer is None)
        called_off = expected is None and not event.inbound
        if called_off or pending >= PENDING_HELLOS_MAX:
            reason = EndReason.CANCELLED if called_off else EndReason.BUSY
            self.context.emit(Hangup(event.link, reason))
            return
        hello = HelloExchange(
            self.context,
            event.facts,
            dialler=not event.inbound,
            expected=expected.peer if expected else None,
            negotiated=expected.negotiated if expected else None,
            invite_body=expected.invite if expected else None,
        )
        link = Link(event.link, event.facts, event.inbound, hello, now, expected, asked_at=now)
        self.by_id[link.id] = link
        self._timers.set(link.id, now + HELLO_TIMEOUT)
        self.context.emit(Transmit(link.id, hello.hello(now)))

    def on_hello(self, link: Link, message: Hello, record: bytes, now: float) -> list[LinkFact]:
        """The peer's hello: the dialler answers with its proof."""
        if link.hello is None:
            return self._refuse(link, SECOND_HELLO)
        refusal = link.hello.on_hello(message, now)
        if refusal is not None:
            return self._refuse(link, refusal)
        if not link.inbound:
            whom = link.expected.peer if link.expected else None
            rival = self.by_peer.get(whom) if whom is not None else None
            if rival is not None and rival.state is LinkState.UP and not _improves(link, rival):
                return self._refuse(link, DUPLICATE)  # Another attempt has been faster.
            link.asked_at = now
            resumes = b""
            if rival is not None:
                resumes = rival.facts.attempt
                self.context.emit(Adopt(rival.id, link.id, asked=True))
            self.context.emit(Transmit(link.id, link.hello.proof(record, resumes)))
        return []

    def on_proof(self, link: Link, message: Proof, record: bytes, now: float) -> list[LinkFact]:
        """The peer's proof: the link is its link from here on, if it holds."""
        if link.state is not LinkState.HELLO or link.hello is None:
            return self.end(link, GoodbyeCode.PROTOCOL, "a second proof on one link")
        result = link.hello.on_proof(message, now)
        if isinstance(result, Refusal):
            return self._refuse(link, result)
        rival = self.by_peer.get(result.peer)
        if rival is not None and rival.facts.attempt == result.resumes:
            return self._resume(rival, link, link.hello, record, now)
        if result.resumes and not link.inbound:
            # Lost on our side meanwhile, and the listener takes nothing on the path meant for it.
            return self.end(link, GoodbyeCode.UNNEEDED, "the link that was to go on is lost")
        if rival is not None and result.boot < rival.boot:
            seen = TwinSeen(result.peer, rival, result.record)
            return [seen, *self._refuse(link, ELSEWHERE)]
        if rival is not None and not self._displaces(link, result, rival):
            return self._refuse(link, DUPLICATE)
        if link.inbound and _is_relayed(link) and rival is None and self._may_open(result.peer):
            return self._refuse(link, DUPLICATE)
        if link.inbound:
            self.context.emit(Transmit(link.id, link.hello.proof(record)))
        return [self._establish(link, result, rival, now)]

    def _resume(
        self, link: Link, path: Link, hello: HelloExchange, record: bytes, now: float
    ) -> list[LinkFact]:
        """Both ends know of an older link: it goes on over the path of the one just proven.

        Where each end has found a path, both take that of the lower attempt. The dialler, whom the
        listener's proof reaches last, hangs up.
        """
        before, at = link.adopted or (b"", 0.0)
        if not before or now - at > GLARE_WINDOW or path.facts.attempt < before:
            link.adopted = path.facts.attempt, now
            self.context.emit(Adopt(link.id, path.id))
        path.hello = None
        if not path.inbound:
            return self.end(path, DUPLICATE.code, DUPLICATE.text)
        self.context.emit(Transmit(path.id, hello.proof(record, link.facts.attempt)))
        return []

    def _establish(self, link: Link, result: Accepted, rival: Link | None, now: float) -> LinkFact:
        link.peer, link.boot, link.negotiated = result.peer, result.boot, result.negotiated
        link.since, link.hello = self.context.wall(now), None
        link.rtt = now - link.asked_at
        link.on(LinkEvent.PROVEN)
        self._timers.stop(link.id)
        self.context.emit(Admit(link.id, result.peer))
        self.by_peer[result.peer] = link
        if rival is None:
            return PeerUp(result.peer, link, result.record)
        why = DUPLICATE if rival.boot == link.boot else ELSEWHERE
        self._close(rival, why.code, why.text)
        return PeerMoved(result.peer, link, result.record, rival.boot != link.boot)

    def _displaces(self, link: Link, new: Accepted, old: Link) -> bool:
        """Whether a new link replaces a peer's old one; both ends must decide alike.

        A newer boot of the peer wins. A peer that dials again long after its link stood has
        lost it. Otherwise both were made at once. Of two by one dialler the older one stands, for
        its listener decides alone; else a direct one wins against a relayed one, then the lower
        attempt. A listener leaves a relayed link, too: streams run over it already, and whoever has
        not named it in its proof will look for a better path of it soon.
        """
        if new.boot != old.boot:
            return new.boot > old.boot
        if abs(link.opened_at - old.opened_at) > GLARE_WINDOW or old.state is LinkState.SILENT:
            return True
        if _is_relayed(link) != _is_relayed(old):
            return _is_relayed(old) and not (link.inbound and old.state is LinkState.UP)
        if link.inbound == old.inbound:
            return False
        return link.facts.attempt < old.facts.attempt

    def _may_open(self, peer: PeerId) -> bool:
        """Whether a direct link of ours to this peer waits for nothing but the peer's proof.

        Then a relayed one that it dials is not taken, and it will take the direct one. One that we
        have dialled it has taken already, and refuses the direct one: there we follow it.
        """
        return any(
            not each.inbound
            and each.expected is not None
            and each.expected.peer == peer
            and each.asked_at > each.opened_at
            and not _is_relayed(each)
            for each in self.by_id.values()
            if each.peer is None
        )

    def _refuse(self, link: Link, refusal: Refusal) -> list[LinkFact]:
        self.refused[refusal.code] = self.refused.get(refusal.code, 0) + 1
        if refusal.code not in (GoodbyeCode.DUPLICATE, GoodbyeCode.ELSEWHERE):
            self.context.report(
                "warning", "hello_refused", code=refusal.code, text=refusal.text,
                remote=str(link.facts.remote),
            )  # fmt: skip
        return self.end(link, refusal.code, refusal.text)

    # --- ending ------------------------------------------------------------------------------

    def end(self, link: Link, code: GoodbyeCode, text: str) -> list[LinkFact]:
        """Say goodbye, hang up, and say what that means for the node."""
        self._close(link, code, text)
        return self._ended(link, code, text)

    def leave(self) -> None:
        """Say goodbye on every link."""
        for link in list(self.by_id.values()):
            self.end(link, GoodbyeCode.LEAVE, "the node is leaving")

    def on_goodbye(self, link: Link, message: Goodbye) -> list[LinkFact]:
        """The peer ends the link and says why."""
        self._drop(link)
        self.context.emit(Hangup(link.id, EndReason.CLOSED))
        return self._ended(link, message.code, message.text)

    def on_lost(self, link_id: LinkId, reason: EndReason) -> list[LinkFact]:
        """The transport has lost an open link."""
        link = self.by_id.get(link_id)
        if link is None:
            return []
        self._drop(link)
        self._give_up_all(link_id, Failure.BROKEN, f"the link to the peer has ended ({reason})")
        return self._ended(link, reason, f"the link was lost ({reason})")

    def _ended(self, link: Link, code: str, text: str) -> list[LinkFact]:
        if link.peer is None:
            return [] if link.expected is None else [AttemptFailed(link.id, code, text)]
        if self.by_peer.get(link.peer) is not link:
            return []
        del self.by_peer[link.peer]
        return [PeerDown(link.peer, code)]

    def _close(self, link: Link, code: GoodbyeCode, text: str) -> None:
        self._drop(link)
        line = "".join(filter(str.isprintable, text))[:GOODBYE_MAX]
        self.context.emit(Transmit(link.id, Goodbye(code, line)))
        self.context.emit(Hangup(link.id, code))

    def _drop(self, link: Link) -> None:
        link.on(LinkEvent.END)
        self.by_id.pop(link.id, None)
        self._timers.stop(link.id)

    # --- paths -------------------------------------------------------------------------------

    def on_mapped(self, link_id: LinkId, address: Address) -> Link | None:
        """The checks of a path show where its other end sees us, before or after the hello."""
        link = self.by_id.get(link_id)
        if link is not None:
            link.mapped = address
        return link

    def on_path_moved(self, link_id: LinkId, facts: LinkFacts, now: float) -> None:
        """A link has moved to another path."""
        link = self.by_id.get(link_id)
        if link is not None:
            link.facts = facts
            self.show_path(link, now)

    def show_path(self, link: Link, now: float) -> None:
        """A link on another path has another round trip."""
        if link.peer is not None:
            self.ping(link, None, now)

    # --- liveness and round trips ------------------------------------------------------------

    def on_liveness(self, event: LinkSuspect | LinkAlive | LinkSilent) -> PeerId | None:
        """Note what the transport thinks of a link; returns its peer if that is news."""
        link = self.by_id.get(event.link)
        if link is None or not link.on(LIVENESS[type(event)]):
            return None
        if link.state is LinkState.SILENT:
            self._give_up_all(link.id, Failure.SILENT, UNHEARD)
        return link.peer

    def ping(self, link: Link, request: RequestId | None, now: float) -> None:
        """Ask for a pong, for a command or to know the round trip."""
        if request is not None and link.state is LinkState.SILENT:
            self.context.emit(Rejected(request, Failure.SILENT, UNHEARD))
            return
        token = int.from_bytes(self.context.crypto.token(7), "big")
        while len(self._pings) >= PINGS_MAX:
            self._give_up(next(iter(self._pings)), Failure.TIMEOUT, UNANSWERED)
        self._pings[token] = _Ping(link.id, now, request)
        self._ping_timers.set(token, now + PING_TIMEOUT)
        self.context.emit(Transmit(link.id, Ping(token)))

    def on_pong(self, link: Link, message: Pong, now: float) -> None:
        """The round trip of a ping; a command that waits for it resolves to it."""
        ping = self._pings.get(message.token)
        if ping is None or ping.link != link.id:
            return
        del self._pings[message.token]
        self._ping_timers.stop(message.token)
        link.rtt = now - ping.sent_at
        if ping.request is not None:
            self.context.emit(Resolved(ping.request, link.rtt))

    def _give_up_all(self, link: LinkId, code: Failure, text: str) -> None:
        for token in [token for token, ping in self._pings.items() if ping.link == link]:
            self._give_up(token, code, text)

    def _give_up(self, token: int, code: Failure, text: str) -> None:
        ping = self._pings.pop(token)
        self._ping_timers.stop(token)
        if ping.request is not None:
            self.context.emit(Rejected(ping.request, code, text))

    def on_time(self, now: float) -> list[LinkFact]:
        """End the links whose hello takes too long; give up pings."""
        facts: list[LinkFact] = []
        for token in self._ping_timers.pop_due(now):
            self._give_up(token, Failure.TIMEOUT, UNANSWERED)
        for link_id in self._timers.pop_due(now):
            link = self.by_id[link_id]
            facts += self._refuse(link, Refusal(GoodbyeCode.TIMEOUT, "the hello took too long"))
        return facts


def _is_relayed(link: Link) -> bool:
    return link.facts.path is PathKind.RELAYED


def _improves(link: Link, standing: Link) -> bool:
    """Whether a new link has a path of its own, and the one that stands has none."""
    return _is_relayed(standing) and not _is_relayed(link)
