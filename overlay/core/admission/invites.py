"""Invites: made with the help of neighbours, redeemed by dialling all they name at once.

Who dials may find nobody there yet, or an issuer whom dozens of newcomers keep busy. So a join goes
on until its time is up, with a rest after each round of dials in which nobody has answered; what is
refused for good ends it at once.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import assert_never

from overlay.core.connect.connect import Connecting
from overlay.core.context import Context
from overlay.core.events import Join, MakeInvite, Rejected, Resolved, Transmit
from overlay.core.link.links import Link, Links
from overlay.core.membership.records import RecordBook
from overlay.core.nat.reflexive import Reflexive
from overlay.core.timers import Timers
from overlay.core.types import EndReason, GoodbyeCode, LinkId, PeerId, Refusal, RequestId
from overlay.core.wire import compact, invite
from overlay.core.wire import dial_tokens as dial
from overlay.core.wire.documents import Grant, InviteBody, InviteMember, Signed
from overlay.core.wire.messages import TokenGrant, TokenRequest
from overlay.errors import Failure

TOKEN_TIMEOUT = 1.0
"""Seconds (guess) that neighbours get to hand out a token for an invite."""
MEMBERS_MAX = 4
"""Members that an invite names (guess): more would make the link too long to copy or scan."""
TOKEN_LIFE_MAX = 366 * 86_400
"""Seconds: a neighbour can ask for no longer."""
TOKENS_PER_MINUTE = 30
JOIN_REST_FIRST, JOIN_REST_MAX = 0.5, 4.0
"""Seconds (guess) between two rounds of a join's dials, twice as many after each, at most."""
JOINING = "joining"
"""The report that a join goes on."""
NO_ADDRESS = (
    "this node has no address that an invite could name: no network interface of this machine is "
    "up and has one; connect the machine to a network, then ask again"
)
HIDDEN = (
    "this node names no address of its own (links.relay_only), and is linked to no member that "
    "strangers can reach: an invite would name nobody"
)
# Why a join failed for good, the most telling first.
_TELLING = (
    *(GoodbyeCode.EXPIRED, GoodbyeCode.VERSION, GoodbyeCode.CLOCK, GoodbyeCode.NETWORK),
    *(GoodbyeCode.SELF, GoodbyeCode.REFUSED, EndReason.CERTIFICATE),
)


@dataclass(slots=True)
class _Making:
    """An invite that waits for its neighbours' tokens."""

    request: RequestId
    grant: Signed
    seed: bytes
    asked: dict[int, PeerId]
    members: list[InviteMember]


@dataclass(slots=True)
class _Joining:
    """A join: every dial that is still out, and why the others of this round failed."""

    command: Join
    grant: tuple[bytes, int]
    began_at: float
    gives_up_at: float
    links: dict[LinkId, PeerId | None] = field(default_factory=dict)
    """Whom each dial is for: None if the invite does not say."""
    failures: dict[str, str] = field(default_factory=dict)
    rounds: int = 0

    @property
    def addresses(self) -> int:
        """How many the invite names."""
        return sum(len(member.addresses) for member in self.command.invite.members)

    def names(self, peer: PeerId) -> bool:
        """Whether the invite names this member."""
        return any(member.peer_id == peer for member in self.command.invite.members)


class Due(StrEnum):
    """What falls due for a command."""

    MADE = "made"  # neighbours have had time to hand out tokens
    REDIAL = "redial"  # a join has rested
    GIVE_UP = "give up"  # a join's time is up


@dataclass(slots=True)
class Inviting:
    """Makes invites, and enters networks by them."""

    context: Context
    links: Links
    connecting: Connecting
    book: RecordBook
    reflexive: Reflexive
    _making: dict[RequestId, _Making] = field(default_factory=dict)
    _joins: dict[RequestId, _Joining] = field(default_factory=dict)
    _timers: Timers[tuple[Due, RequestId]] = field(init=False)
    _granted: dict[PeerId, list[float]] = field(default_factory=dict)
    _asked: int = 0

    def __post_init__(self) -> None:
        self._timers = Timers(self.context.agenda)

    # --- making ------------------------------------------------------------------------------

    def make(self, command: MakeInvite, now: float) -> None:
        """Sign the grant, ask neighbours for tokens, resolve when they came or after a second."""
        context, crypto, addresses = self.context, self.context.crypto, self.reflexive.entries()
        hidden = context.settings.relay_only
        if not addresses and not hidden:
            context.emit(Rejected(command.request, Failure.NO_ADDRESS, NO_ADDRESS))
            return
        expires_at = int(context.wall(now) + command.expires_in)
        network, nonce = context.settings.network, crypto.token(compact.NONCE_BYTES)
        invite_id = compact.invite_id(nonce, network, context.peer_id, expires_at)
        token = dial.make_token(context.settings.dial_key, dial.INVITE, invite_id, expires_at)
        seed = compact.invite_seed(token)
        grant = Grant(
            network=network,
            invite_id=invite_id,
            invite_key=crypto.public_of(seed),
            issuer=context.peer_id,
            role=command.role,
            uses=command.uses,
            expires_at=expires_at,
        )
        signed = invite.make_grant(grant, crypto)
        ours = InviteMember(context.peer_id, crypto.fingerprint, token, addresses)
        making = _Making(command.request, signed, seed, {}, [] if hidden else [ours])
        others = min(command.members, MEMBERS_MAX) - len(making.members)
        for link in self._dialable_neighbours()[:others]:
            assert link.peer is not None
            self._asked += 1
            making.asked[self._asked] = link.peer
            ask = TokenRequest(self._asked, dial.INVITE, invite_id, expires_at)
            context.emit(Transmit(link.id, ask))
        self._making[command.request] = making
        self._timers.set((Due.MADE, command.request), now + TOKEN_TIMEOUT)
        if not making.asked:
            self._made(making)

    def _dialable_neighbours(self) -> list[Link]:
        """The links to neighbours that a stranger could dial, in random order."""
        chosen = []
        for link in self.links.alive():
            record = self.book.get(link.peer) if link.peer else None
            if record and self.reflexive.worth_naming(record.addresses):
                chosen.append(link)
        self.context.random.shuffle(chosen)
        return chosen

    def grant_token(self, peer: PeerId, message: TokenRequest, now: float) -> TokenGrant | None:
        """A neighbour makes an invite that shall name us too; at most 30 a minute."""
        if self.context.settings.relay_only:
            return None
        recent = [at for at in self._granted.get(peer, []) if now - at < 60.0]
        latest = self.context.wall(now) + TOKEN_LIFE_MAX
        if len(recent) >= TOKENS_PER_MINUTE or message.kind != dial.INVITE:
            return None
        if message.expires_at > latest or len(message.token_id) != dial.TOKEN_ID_BYTES:
            return None
        self._granted[peer] = [*recent, now]
        key = self.context.settings.dial_key
        token = dial.make_token(key, dial.INVITE, message.token_id, message.expires_at)
        return TokenGrant(message.request, token)

    def on_token_grant(self, peer: PeerId, message: TokenGrant) -> None:
        """A neighbour has made us the token that we asked of it for an invite."""
        for making in list(self._making.values()):
            if making.asked.get(message.request) != peer:
                continue
            del making.asked[message.request]
            record = self.book.get(peer)
            if record is not None and len(message.token) == 16:
                addresses = self.reflexive.worth_naming(record.addresses)
                member = InviteMember(peer, record.fingerprint, message.token, addresses)
                making.members.append(member)
            if not making.asked:
                self._made(making)

    def _made(self, making: _Making) -> None:
        del self._making[making.request]
        self._timers.stop((Due.MADE, making.request))
        if not making.members:
            self.context.emit(Rejected(making.request, Failure.NO_ADDRESS, HIDDEN))
            return
        name = self.context.settings.network_name
        body = InviteBody(making.grant, making.seed, making.members, name)
        self.context.emit(Resolved(making.request, body))

    # --- joining -----------------------------------------------------------------------------

    def join(self, command: Join, now: float) -> None:
        """Dial every address of every member until the first verified hello, or time is up."""
        context = self.context
        grant = invite.open_grant(command.invite.grant, context.wall(now), context.crypto)
        if isinstance(grant, Refusal):
            context.emit(Rejected(command.request, grant.code, grant.text))
            return
        if grant.network != context.settings.network:
            text = "the invite is for another network than the one this node belongs to"
            context.emit(Rejected(command.request, Failure.NETWORK, text))
            return
        if any(self.links.is_up(PeerId(member.peer_id)) for member in command.invite.members):
            context.emit(Resolved(command.request, None))
            return
        gives_up_at = now + command.timeout
        joining = _Joining(command, (grant.invite_id, grant.expires_at), now, gives_up_at)
        self._joins[command.request] = joining
        if not joining.addresses:
            self._fail(joining, now)
            return
        self._timers.set((Due.GIVE_UP, command.request), gives_up_at)
        self._dial(joining)

    def _dial(self, joining: _Joining) -> None:
        joining.rounds += 1
        joining.failures.clear()
        joining.links = self.connecting.dial_invite(joining.command.invite, joining.grant)

    def on_up(self, link: LinkId, peer: PeerId) -> None:
        """A link is verified: joins that dialled this peer are done, their other dials called off.

        One contact is enough: it sends our ForwardJoin on walks (HyParView §4.2). Four contacts
        would send four times as many, and each would take us into its active view.
        """
        for joining in list(self._joins.values()):
            if link in joining.links or joining.names(peer):
                self._end(joining, sparing=peer)
                self.context.emit(Resolved(joining.command.request, None))

    def on_attempt_failed(self, link: LinkId, code: str, text: str, now: float) -> None:
        """One dial of a join has failed; when it was the last of its round, try all again later."""
        for joining in list(self._joins.values()):
            if link not in joining.links:
                continue
            peer = joining.links.pop(link)
            if peer is None and code == GoodbyeCode.DUPLICATE:  # Who that was is linked already.
                self._end(joining)
                self.context.emit(Resolved(joining.command.request, None))
                continue
            joining.failures[code] = text
            if not joining.links:
                self._on_round(joining, now)

    def _on_round(self, joining: _Joining, now: float) -> None:
        """Nobody has let us in: rest, unless we were refused for good or no time is left."""
        rest = min(JOIN_REST_MAX, JOIN_REST_FIRST * 2.0 ** min(joining.rounds - 1, 8))
        at = now + rest * self.context.random.uniform(0.75, 1.25)
        if at >= joining.gives_up_at or any(code in joining.failures for code in _TELLING):
            self._fail(joining, now)
            return
        self._timers.set((Due.REDIAL, joining.command.request), at)
        text = (
            f"{_nobody(joining)} has answered yet: "
            f"trying for {joining.gives_up_at - now:.0f} s more"
        )
        code = next(iter(joining.failures))
        self.context.report("info", JOINING, rounds=joining.rounds, code=code, text=text)

    def _fail(self, joining: _Joining, now: float) -> None:
        self._end(joining)
        request = joining.command.request
        for code in _TELLING:
            if code in joining.failures:
                self.context.emit(Rejected(request, code, joining.failures[code]))
                return
        text = (
            f"{_nobody(joining)} answered within "
            f"{now - joining.began_at:.0f} s: is a node up there that is not too busy, and does "
            "its firewall let UDP in on that port?"
        )
        self.context.emit(Rejected(request, Failure.UNREACHABLE, text))

    def _end(self, joining: _Joining, sparing: PeerId | None = None) -> None:
        """The join is over: call off its dials, but for those to one peer."""
        request = joining.command.request
        del self._joins[request]
        self._timers.stop((Due.REDIAL, request))
        self._timers.stop((Due.GIVE_UP, request))
        for link, named in joining.links.items():
            if named is None or named != sparing:
                self.connecting.call_off(named, link)

    # --- time --------------------------------------------------------------------------------

    def forget(self, peer: PeerId) -> None:
        """A neighbour is gone, and with it the tokens that were asked of it."""
        self._granted.pop(peer, None)
        for making in list(self._making.values()):
            making.asked = {ask: asked for ask, asked in making.asked.items() if asked != peer}
            if not making.asked:
                self._made(making)

    def on_time(self, now: float) -> None:
        """Make invites with the tokens that have come; let joins try again, or give up."""
        for due, request in self._timers.pop_due(now):
            match due:
                case Due.MADE:
                    if request in self._making:
                        self._made(self._making[request])
                case Due.REDIAL:
                    if request in self._joins:
                        self._dial(self._joins[request])
                case Due.GIVE_UP:
                    if request in self._joins:
                        self._fail(self._joins[request], now)
                case _:
                    assert_never(due)


def _nobody(joining: _Joining) -> str:
    """Who should have answered."""
    count = joining.addresses
    return f"none of the invite's {count} address{'es' if count > 1 else ''}"
