"""The listener's half of a direct dial: ICE-lite (RFC 8445 §2.5), opened by a dial token.

A dialler's check carries a token in its USERNAME. Nothing but a bounded line in a table is kept of
such a half-open check until the dialler's ClientHello brings a valid cookie. Then it becomes a
`LiteSession`, which looks to the endpoint like a full agent that asks by HEARTBEAT alone.
"""

from dataclasses import dataclass, field

from overlay.core.addresses import is_circuit
from overlay.core.ice import stun
from overlay.core.ice.confirming import Confirmations, Unproven
from overlay.core.ice.outputs import AddressPair, Failed, Failure, IceOutput, Selected, SendStun
from overlay.core.ice.path import RoundTrip, Watch
from overlay.core.limits import (
    HALF_OPEN_MAX,
    HALF_OPEN_TIMEOUT,
    BoundedDict,
    group_of,
    is_greedy,
)
from overlay.core.types import Address, IceCredentials, LinkId, PathKind, Random
from overlay.core.wire.dial_tokens import Claim

PAIRS_MAX = 4
"""Addresses from which one dialler may check at once; the one unheard longest goes (guess)."""
NOMINATION_TIMEOUT = 3.0
"""Seconds in which a dialler nominates; one that does not is asking after an association that it
believes in and that we have lost (guess)."""
RESTART_PATIENCE = 1.0
"""Seconds in which a dialler sends its ClientHello, as a rule. If none has come, and it holds the
token of an association that we have, it may have restarted ICE on that (guess)."""
GENERATIONS = 2
"""Credentials under which one dialler may check: those of its last restart, and those before."""
EXPIRED_MAX = 1024
"""Dials of which we know that they are over; the one unheard longest is forgotten (guess)."""


@dataclass(slots=True, eq=False)
class HalfOpenCheck:
    """Somebody with a valid token has checked, and may send a ClientHello."""

    username: str
    local: IceCredentials
    claim: Claim
    begun_at: float
    group: str
    """With whom it counts against the limit (`overlay.core.limits.group_of`)."""
    nominated: bool = False
    """It has said USE-CANDIDATE: it means to send a ClientHello."""
    restarts: LinkId | None = None
    """The one association that it may be going on with, instead of dialling anew."""
    pairs: dict[AddressPair, None] = field(default_factory=dict)
    """Where it checked from, the latest last."""

    def restart(self, link: LinkId) -> None:
        """It may be going on with this association."""
        self.restarts = link

    def expired(self, now: float) -> bool:
        """Whether it has checked for too long without coming in."""
        timeout = HALF_OPEN_TIMEOUT if self.nominated else NOMINATION_TIMEOUT
        return now - self.begun_at >= timeout


class HalfOpenChecks:
    """At most 256 half-open checks, 10 s each; when half are there, 16 for each prefix.

    Beyond that a newcomer replaces the oldest, of its prefix or of all.

    Replacing, not refusing: a flood makes everybody's stay shorter (a dialler needs one round
    trip), where refusing would let 26 packets a second keep everybody out.

    A dial whose association is over, or that never came in, has *expired*: its checks are refused.
    A listener that answered them for ever would keep a dialler believing in an association that
    died with our last process.
    """

    def __init__(self) -> None:
        self._by_username: dict[str, HalfOpenCheck] = {}
        self._by_pair: dict[AddressPair, dict[str, HalfOpenCheck]] = {}
        self._expired: BoundedDict[str, None] = BoundedDict(EXPIRED_MAX)

    def __len__(self) -> int:
        return len(self._by_username)

    def get(self, username: str, now: float) -> HalfOpenCheck | None:
        """The half-open check with this USERNAME, if it has not expired."""
        check = self._by_username.get(username)
        if check is not None and check.expired(now):
            self.remove(check)
            self.expire(username)
            return None
        return check

    def expire(self, username: str) -> None:
        """This dial is over."""
        self._expired.put(username, None)

    def is_expired(self, username: str) -> bool:
        """Whether this dial is over, as far as we remember."""
        if username not in self._expired:
            return False
        self.expire(username)
        return True

    def at(self, pair: AddressPair, now: float) -> HalfOpenCheck | None:
        """Whose ClientHello from these addresses would be: the latest that checked from there."""
        return next(iter(self.all_at(pair, now)), None)

    def all_at(self, pair: AddressPair, now: float) -> list[HalfOpenCheck]:
        """All that checked from these addresses, the latest first."""
        checks = [self.get(each, now) for each in reversed(self._by_pair.get(pair, {}).copy())]
        return [check for check in checks if check is not None]

    def add(self, check: HalfOpenCheck) -> None:
        """Take in a newcomer; the oldest of its prefix, or of all, makes room."""
        rivals = [each for each in self._by_username.values() if each.group == check.group]
        if is_greedy(len(self._by_username), check.group, len(rivals)):
            self.remove(rivals[0])
        elif len(self._by_username) >= HALF_OPEN_MAX:
            self.remove(next(iter(self._by_username.values())))
        self._by_username[check.username] = check

    def checked(self, check: HalfOpenCheck, pair: AddressPair, nominated: bool) -> None:
        """`check` has just checked from these addresses, with or without USE-CANDIDATE."""
        check.nominated |= nominated
        check.pairs.pop(pair, None)
        check.pairs[pair] = None
        here = self._by_pair.setdefault(pair, {})
        here.pop(check.username, None)
        here[check.username] = check
        if len(check.pairs) > PAIRS_MAX:
            self._leave(check, next(iter(check.pairs)))

    def remove(self, check: HalfOpenCheck) -> None:
        """Forget it, or the one of the same USERNAME that has come since it was crowded out."""
        known = self._by_username.pop(check.username, None)
        if known is not None:
            for pair in list(known.pairs):
                self._leave(known, pair)

    def _leave(self, check: HalfOpenCheck, pair: AddressPair) -> None:
        del check.pairs[pair]
        here = self._by_pair[pair]
        del here[check.username]
        if not here:
            del self._by_pair[pair]


def new_check(
    username: str, local: IceCredentials, claim: Claim, host: str, now: float
) -> HalfOpenCheck:
    """The first check of a dial."""
    return HalfOpenCheck(username, local, claim, now, group_of(host))


def answer(request: stun.Message, key: bytes, remote: Address) -> tuple[bytes, bool]:
    """The answer to an authenticated check, and whether it says success (RFC 8445 §7.3)."""
    if request.unknown_required:  # RFC 8489 §6.3.1
        return stun.encode(stun.binding_error(request, 420), key), False
    if request.ice_controlled is not None:
        # We are lite and so never controlling: the dialler has to switch (RFC 8445 §6.1.1).
        return stun.encode(stun.binding_error(request, 487), key), False
    return stun.encode(stun.binding_success(request, remote), key), True


def kind_from(remote: Address) -> PathKind:
    """What kind of path leads to a dialler that is seen at this address.

    HOST: we are asked at our own address, and cannot see whether the dialler's is one of its own or
    its NAT's.
    """
    return PathKind.RELAYED if is_circuit(remote) else PathKind.HOST


class LiteSession:
    """One direct dial after its cookie: answers checks, asks by HEARTBEAT, follows the path.

    Its methods are those of `overlay.core.ice.agent.IceAgent`.
    """

    def __init__(
        self, local: IceCredentials, pair: AddressPair, random: Random, now: float
    ) -> None:
        self.local = local
        self.remote: IceCredentials | None = None  # a listener never learns the dialler's password
        self.round_trip = RoundTrip()
        self._keys: BoundedDict[str, bytes] = BoundedDict(GENERATIONS)
        self._keys.put(local.ufrag, local.password.encode())
        self._pair = pair
        self._outputs: list[IceOutput] = []
        self._watch = Watch(self._outputs, self.round_trip, now)
        self._confirmations = Confirmations(random)

    def receive(
        self, message: stun.Message, remote: Address, local: Address | None, now: float
    ) -> None:
        """Answer a check; one that is not authentic is ignored."""
        # Deviation: RFC 8489 §9.1.3 answers 401. Silence is enough: the peer knows the password.
        key = self._keys.get((message.username or "").partition(":")[0])
        if key is None or not message.integrity_ok(key):
            return
        data, accepted = answer(message, key, remote)
        self._outputs.append(SendStun(data, remote, local))
        if not accepted:
            return
        if (remote, local) != self._pair:
            question = self._confirmations.ask_unproven((remote, local), Unproven.MOVED, now)
            if question is not None:
                self._outputs.append(question)
        elif self._watch.asks_back(now):
            self._ask(now)

    def acknowledged(self, now: float) -> None:
        """An encrypted packet has acknowledged something of ours."""
        self._watch.answered(now)

    def unacknowledged(self, now: float) -> None:
        """Data has been under way for longer than an acknowledgement takes: ask at once."""
        if self._watch.hasten(now):
            self._ask(now)

    def ask_restarted(self, pair: AddressPair, now: float) -> bytes | None:
        """Ask there whether it is our dialler that has restarted ICE; the nonce, if it goes out."""
        question = self._confirmations.ask_unproven(pair, Unproven.RESTARTED, now)
        if question is None:
            return None
        self._outputs.append(question)
        return question.nonce

    def restart(self, local: IceCredentials) -> None:
        """The dialler has restarted ICE, and checks with these credentials from now on."""
        self.local = local
        self._keys.put(local.ufrag, local.password.encode())

    def confirmed(self, nonce: bytes, remote: Address, local: Address | None, now: float) -> bool:
        """A nonce has come back from there: if it was sent there, the path runs there now.

        Whether it was.
        """
        pair = (remote, local)
        seconds = self._confirmations.returned(nonce, pair, now)
        if seconds is None:
            return False
        if pair != self._pair:
            self._pair = pair
            self._confirmations.clear()
            self.round_trip.forget()
            self._outputs.append(Selected(remote, local, kind_from(remote)))
        self.round_trip.measure(seconds, now)
        self._watch.answered(now)
        return True

    def handle_timeout(self, now: float) -> None:
        """Ask when it is time, and judge the silence."""
        self._watch.forgive(self.next_deadline(), now)
        if self._watch.question_due(now, controlling=False):
            self._ask(now)
        if not self._watch.judge(now):
            self._outputs.append(Failed(Failure.SILENT))

    def next_deadline(self) -> float:
        """When `handle_timeout` wants to be called."""
        return self._watch.next_deadline(controlling=False)

    def take(self) -> list[IceOutput]:
        """Drain the outputs."""
        outputs = self._outputs.copy()
        self._outputs.clear()
        return outputs

    def _ask(self, now: float) -> None:
        self._outputs.append(self._confirmations.ask(self._pair, now))
