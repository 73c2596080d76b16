"""The listener's half of a direct dial: ICE-lite (RFC 8445 §2.5), opened by a dial token.

A dialler knocks with a check whose USERNAME carries its token; nothing but a bounded line in a
table is kept of it until its ClientHello brings a valid cookie. Then it is a `LiteSession`, which
looks to the door like a full agent that never asks anything.
"""

from dataclasses import dataclass, field
from enum import Enum

from overlay.core.ice import stun
from overlay.core.ice.agent import Alive, Failed, IceOutput, Selected, SendStun, Silent, Suspect
from overlay.core.limits import (
    HALF_OPEN_MAX,
    HALF_OPEN_PER_PREFIX,
    HALF_OPEN_TIMEOUT,
    Recent,
    prefix_of,
)
from overlay.core.types import Address, IceCredentials, PathKind
from overlay.core.wire.dial_tokens import Claim

Pair = tuple[Address, Address | None]
"""A remote address, and the local address that it talks to (None where nobody says)."""

PAIRS_MAX = 4
"""Addresses from which one dialler may check at once; the one unheard longest goes. guess"""
NOMINATION_TIMEOUT = 3.0
"""A dialler that has not nominated by then is none: it asks after an old association. guess"""
WORN_MAX = 1024
"""Dials of which we know that they are over; the one unheard longest is forgotten. guess"""
MOVE_TIMEOUT = 10.0
"""A record from a new address moves the path only so soon after a check from there. guess"""
LOST_TIMEOUT = 60.0
"""paper: DESIGN.md, liveness"""
FREEZE = 1.0
"""A timer this late means that our process stood still, not that the peer was silent."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How soon the silence of a dialler means something, in seconds."""

    suspect: float
    silent: float


NODE_PACE = Pace(3.5, 6.0)
"""paper: DESIGN.md; a node checks an idle link every 2 s"""
STOCK_PACE = Pace(7.5, 15.0)
"""measured: browsers and aiortc check every 2.5 to 6 s; `silent` is when browsers give up"""


class _State(Enum):
    UP = 0
    SUSPECT = 1
    SILENT = 2


@dataclass(slots=True, eq=False)
class Knock:
    """Somebody with a valid token has checked, and may send a ClientHello."""

    username: str
    local: IceCredentials
    claim: Claim
    knocked_at: float
    prefix: str
    nominated: bool = False
    """It has said USE-CANDIDATE: it means to send a ClientHello."""
    pairs: dict[Pair, None] = field(default_factory=dict)
    """Where it checked from, the latest last."""

    def worn(self, now: float) -> bool:
        """Whether it has checked for too long without coming in."""
        timeout = HALF_OPEN_TIMEOUT if self.nominated else NOMINATION_TIMEOUT
        return now - self.knocked_at >= timeout


class Knocks:
    """At most 256 knocks, 16 for each prefix, 10 s each; a newcomer replaces the oldest.

    Replacing, not refusing: a flood makes everybody's stay shorter (a dialler needs one round
    trip), where refusing would let 26 packets a second keep everybody out.

    A dial whose association is over, or that never came in, is *worn*: its checks are refused.
    A listener that answered them for ever would keep a dialler believing in an association that
    died with our last process.
    """

    def __init__(self) -> None:
        self._by_username: dict[str, Knock] = {}
        self._by_pair: dict[Pair, dict[str, Knock]] = {}
        self._worn: Recent[str, None] = Recent(WORN_MAX)

    def __len__(self) -> int:
        return len(self._by_username)

    def get(self, username: str, now: float) -> Knock | None:
        """The knock with this USERNAME, if it is not too old."""
        knock = self._by_username.get(username)
        if knock is not None and knock.worn(now):
            self.remove(knock)
            self.wear(username)
            return None
        return knock

    def wear(self, username: str) -> None:
        """This dial is over."""
        self._worn.put(username, None)

    def is_worn(self, username: str) -> bool:
        """Whether this dial is over, as far as we remember."""
        if username not in self._worn:
            return False
        self.wear(username)
        return True

    def at(self, pair: Pair, now: float) -> Knock | None:
        """Whose ClientHello from these addresses would be: the latest that checked from there."""
        for username in reversed(self._by_pair.get(pair, {}).copy()):
            knock = self.get(username, now)
            if knock is not None:
                return knock
        return None

    def add(self, knock: Knock) -> None:
        """Take in a newcomer; the oldest of its prefix, or of all, makes room."""
        rivals = [each for each in self._by_username.values() if each.prefix == knock.prefix]
        if knock.prefix and len(rivals) >= HALF_OPEN_PER_PREFIX:
            self.remove(rivals[0])
        elif len(self._by_username) >= HALF_OPEN_MAX:
            self.remove(next(iter(self._by_username.values())))
        self._by_username[knock.username] = knock

    def checked(self, knock: Knock, pair: Pair, nominated: bool) -> None:
        """`knock` has just checked from these addresses, with or without USE-CANDIDATE."""
        knock.nominated |= nominated
        knock.pairs.pop(pair, None)
        knock.pairs[pair] = None
        here = self._by_pair.setdefault(pair, {})
        here.pop(knock.username, None)
        here[knock.username] = knock
        if len(knock.pairs) > PAIRS_MAX:
            self._leave(knock, next(iter(knock.pairs)))

    def remove(self, knock: Knock) -> None:
        """Forget it."""
        self._by_username.pop(knock.username, None)
        for pair in list(knock.pairs):
            self._leave(knock, pair)

    def _leave(self, knock: Knock, pair: Pair) -> None:
        del knock.pairs[pair]
        here = self._by_pair[pair]
        del here[knock.username]
        if not here:
            del self._by_pair[pair]


def new_knock(username: str, local: IceCredentials, claim: Claim, host: str, now: float) -> Knock:
    """The first check of a dial."""
    return Knock(username, local, claim, now, prefix_of(host))


def answer(request: stun.Message, key: bytes, remote: Address) -> tuple[bytes, bool]:
    """The answer to an authenticated check, and whether it says success (RFC 8445 §7.3)."""
    if request.unknown_required:
        return stun.encode(stun.binding_error(request, 420), key), False
    if request.ice_controlled is not None:
        # We are lite and so never controlling: the dialler has to switch (RFC 8445 §6.1.1).
        return stun.encode(stun.binding_error(request, 487), key), False
    return stun.encode(stun.binding_success(request, remote), key), True


class LiteSession:
    """One direct dial after its cookie: answers checks, listens for silence, follows the path.

    Its methods are those of `overlay.core.ice.agent.IceAgent`.
    """

    def __init__(self, username: str, local: IceCredentials, pair: Pair, now: float) -> None:
        self.username = username
        self.local = local
        self.remote: IceCredentials | None = None
        """A listener never learns the dialler's password."""
        self.rtt: float | None = None
        self._pace = STOCK_PACE
        self._key = local.password.encode()
        self._address = pair[0]
        self._state = _State.UP
        self._heard_at = now
        self._patient_until = now
        self._checked: Recent[Address, tuple[Address | None, float]] = Recent(PAIRS_MAX)
        self._outputs: list[IceOutput] = []

    def receive(
        self, message: stun.Message, remote: Address, local: Address | None, now: float
    ) -> None:
        """Answer a check; one that is not authentic is ignored."""
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

        Neither is enough alone: a check's integrity does not cover its source address, and a
        record may be an old one on a new way.
        """
        if remote != self._address and remote in self._checked:
            local, checked_at = self._checked[remote]
            if now - checked_at < MOVE_TIMEOUT:
                self._address = remote
                # HOST: we are asked at our own address, and cannot see what the dialler's is.
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
        if self._state is _State.UP:
            self._state = _State.SUSPECT
            self._outputs.append(Suspect())
        elif self._state is _State.SUSPECT:
            self._state = _State.SILENT
            self._outputs.append(Silent())
        else:
            self._outputs.append(Failed("silent"))

    def next_deadline(self) -> float:
        """When the silence next means something."""
        match self._state:
            case _State.UP:
                timeout = self._pace.suspect
            case _State.SUSPECT:
                timeout = self._pace.silent
            case _State.SILENT:
                timeout = LOST_TIMEOUT
        return max(self._heard_at + timeout, self._patient_until)

    def take(self) -> list[IceOutput]:
        """Drain the outputs."""
        outputs, self._outputs = self._outputs, []
        return outputs

    def _hear(self, now: float) -> None:
        self._heard_at = now
        if self._state is not _State.UP:
            self._state = _State.UP
            self._outputs.append(Alive())
