"""The listener's half of a direct dial: ICE-lite (RFC 8445 §2.5), opened by a dial token.

A dialler's check carries a token in its USERNAME. Nothing but a bounded line in a table is kept of
such a half-open check until the dialler's ClientHello brings a valid cookie. Then it becomes a
`LiteSession`, which looks to the endpoint like a full agent that never asks anything.
"""

from dataclasses import dataclass, field
from typing import assert_never

from overlay.core.ice import stun
from overlay.core.ice.liveness import DEAD_TIMEOUT
from overlay.core.ice.outputs import (
    Alive,
    Failed,
    Failure,
    IceOutput,
    Selected,
    SendStun,
    Silent,
    Suspect,
)
from overlay.core.ice.states import Liveliness
from overlay.core.limits import (
    HALF_OPEN_MAX,
    HALF_OPEN_TIMEOUT,
    BoundedDict,
    group_of,
    is_greedy,
)
from overlay.core.types import Address, IceCredentials, PathKind
from overlay.core.wire.dial_tokens import Claim

AddressPair = tuple[Address, Address | None]
"""A remote address, and the local address that it talks to (None where nobody says)."""

PAIRS_MAX = 4
"""Addresses from which one dialler may check at once; the one unheard longest goes (guess)."""
NOMINATION_TIMEOUT = 3.0
"""Seconds in which a dialler nominates; one that does not is asking after an association that it
believes in and that we have lost (guess)."""
EXPIRED_MAX = 1024
"""Dials of which we know that they are over; the one unheard longest is forgotten (guess)."""
MOVE_TIMEOUT = 10.0
"""Seconds after a check from a new address in which a record from there moves the path (guess)."""
FREEZE = 1.0
"""A timer this late, in seconds, means that our process stood still, not that the peer was silent
(guess)."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How soon the silence of a dialler means something, in seconds."""

    suspect: float
    silent: float


NODE_PACE = Pace(3.5, 6.0)
"""A node checks an idle link every 2 s, so three checks in a row went missing (guess)."""
STOCK_PACE = Pace(7.5, 15.0)
"""Browsers and aiortc check every 2.5 to 6 s, and browsers give up after 15 s (measured)."""


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
    pairs: dict[AddressPair, None] = field(default_factory=dict)
    """Where it checked from, the latest last."""

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
        for username in reversed(self._by_pair.get(pair, {}).copy()):
            check = self.get(username, now)
            if check is not None:
                return check
        return None

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
        """Forget it."""
        self._by_username.pop(check.username, None)
        for pair in list(check.pairs):
            self._leave(check, pair)

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


class LiteSession:
    """One direct dial after its cookie: answers checks, listens for silence, follows the path.

    Its methods are those of `overlay.core.ice.agent.IceAgent`.
    """

    def __init__(self, local: IceCredentials, pair: AddressPair, now: float) -> None:
        self.local = local
        self.remote: IceCredentials | None = None  # a listener never learns the dialler's password
        self.rtt: float | None = None
        self._pace = STOCK_PACE
        self._key = local.password.encode()
        self._address = pair[0]
        self._state = Liveliness.ALIVE
        self._heard_at = now
        self._patient_until = now
        self._checked: BoundedDict[Address, tuple[Address | None, float]] = BoundedDict(PAIRS_MAX)
        self._outputs: list[IceOutput] = []

    def receive(
        self, message: stun.Message, remote: Address, local: Address | None, now: float
    ) -> None:
        """Answer a check; one that is not authentic is ignored."""
        # Deviation: RFC 8489 §9.1.3 answers 401. Silence is enough: the peer knows the password.
        if not message.integrity_ok(self._key):
            return
        data, accepted = answer(message, self._key, remote)
        self._outputs.append(SendStun(data, remote, local))
        if not accepted:
            return
        self._checked.put(remote, (local, now))
        self._hear(now)

    def heard(self, remote: Address, now: float) -> None:
        """A record from `remote` has decrypted: it moves the path if a check came from there too.

        Neither is enough alone: a check's integrity does not cover its source address, and whoever
        stands on the way can pass a record on from an address of its own.
        """
        if remote != self._address and remote in self._checked:
            local, checked_at = self._checked[remote]
            if now - checked_at < MOVE_TIMEOUT:
                self._address = remote
                # HOST: we are asked at our own address, and cannot see whether the dialler's is one
                # of its own or its NAT's.
                self._outputs.append(Selected(remote, local, PathKind.HOST))
        self._hear(now)

    def admit(self, now: float) -> None:
        """The dialler is an overlay node: expect it to check as often as nodes do."""
        self._pace = NODE_PACE
        # What was patience until now is no lateness of ours.
        self._patient_until = max(self._patient_until, now)

    def handle_timeout(self, now: float) -> None:
        """Judge the silence."""
        late = now - self.next_deadline()
        if late < 0.0:
            return
        if late > FREEZE:
            # Our own process was frozen: what the peer sent meanwhile waits in the socket. Take
            # the lateness off its silence, and read before judging.
            self._heard_at += late
            self._patient_until = now + FREEZE
            return
        if self._state is Liveliness.ALIVE:
            self._state = Liveliness.SUSPECT
            self._outputs.append(Suspect())
        elif self._state is Liveliness.SUSPECT:
            self._state = Liveliness.SILENT
            self._outputs.append(Silent())
        else:
            self._outputs.append(Failed(Failure.SILENT))

    def next_deadline(self) -> float:
        """When the silence next means something."""
        match self._state:
            case Liveliness.ALIVE:
                timeout = self._pace.suspect
            case Liveliness.SUSPECT:
                timeout = self._pace.silent
            case Liveliness.SILENT | Liveliness.DEAD:
                timeout = DEAD_TIMEOUT
            case _:
                assert_never(self._state)
        return max(self._heard_at + timeout, self._patient_until)

    def take(self) -> list[IceOutput]:
        """Drain the outputs."""
        outputs, self._outputs = self._outputs, []
        return outputs

    def _hear(self, now: float) -> None:
        self._heard_at = now
        if self._state is not Liveliness.ALIVE:
            self._state = Liveliness.ALIVE
            self._outputs.append(Alive())
