"""An examination: what our NAT does with strangers' packets, found out with the help of neighbours.

A socket of its own is examined, because the node's has sent to all whom it could ask. Its first
packet goes to the helper, a neighbour that strangers reach. The helper knocks from another port
and has a stranger knock; what comes in is proof, whoever says otherwise. Then the two ports of the
helper and a second neighbour say where they see the socket, a packet goes to our own mapped
address, and at last the helper knocks at the node's own port, for a record claims only what
somebody has tried.

Stages follow each other: one time-out or answer ends each. How long an idle mapping lives is
measured later, by `overlay.core.nat.measuring`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import assert_never

from overlay.core.context import Context
from overlay.core.events import Await, OpenPort, Resolved, SendFrom
from overlay.core.ice import stun
from overlay.core.limits import BoundedDict
from overlay.core.nat.behaviour import Behaviour, Dependence, Findings, behaviour, is_open
from overlay.core.nat.knocking import Neighbour
from overlay.core.nat.measuring import (
    KNOCK_TIMEOUT,
    OPENING_TIMEOUT,
    RESEND,
    RESENDS,
    Measuring,
)
from overlay.core.nat.reflexive import Reflexive
from overlay.core.timers import Timers
from overlay.core.types import Address, PeerId, PortId, RequestId
from overlay.core.wire.messages import KnockAsk, Knocked, KnockMessage, KnockRefuse

FIRST_AFTER = 1.0
"""Seconds (guess) from the first word of an observer: more of them come at once."""
INTERVAL = 600.0
"""Seconds (guess) between two examinations, and the longest until a poor one is repeated."""
RETRY_FIRST = 5.0
"""Seconds (guess) after an examination that has not shown all, twice as many after each other."""
WAIT_FOR_HELPER = 10.0
"""Seconds (guess) until the next look for a neighbour that strangers reach, which costs nothing."""
PORT_LIFE = 12.0
"""Seconds for which our further socket stays open: longer than all stages together."""
PROBE_TIMEOUT = 1.0
"""Seconds (guess) for the answers of the helper's other port, and for a packet to ourselves."""
FRESH = 60.0
"""Seconds (guess) for which a user who asks is told what the last examination has shown."""
FINDINGS_MAX = 4
"""The last examinations, which count together (guess)."""
HELPERS_MAX = 64


class Stage(StrEnum):
    """What an examination waits for."""

    KNOCKS = "knocks"
    """The helper's and the stranger's, at the further socket."""
    PROBES = "probes"
    """Where the helper's other port and another host see that socket, and whether we reach
    ourselves."""
    MAIN = "main"
    """The helper's knock at the node's own port."""


class Due(StrEnum):
    """What falls due."""

    START = "start"
    RESEND = "resend"
    STAGE = "stage"  # the stage has lasted long enough


@dataclass(slots=True)
class _Examination:
    """The one under way."""

    helper: Neighbour
    port: PortId
    request: bytes
    """Of the knocks at the further socket."""
    main: bytes
    """Of the knock at our own."""
    hairpin: bytes
    probe: bytes
    elsewhere: bytes
    found: Findings
    stage: Stage = Stage.KNOCKS
    local: Address | None = None
    """Of the further socket, once it is open."""
    theirs: Address | None = None
    """The helper's other port."""
    second: Address | None = None
    """A neighbour on another host, which is asked where it sees the further socket."""
    sends: int = 0
    waits: bool = False
    """The stranger says that it has knocked."""
    knocked: bool = False
    """The helper says that it has knocked at our own port."""


@dataclass(slots=True)
class Examining:
    """Has the node's NAT examined, and knows what that has shown.

    Methods return whether the addresses in our record have to change.
    """

    context: Context
    reflexive: Reflexive
    neighbours: Callable[[], list[Neighbour]]
    tell: Callable[[PeerId, KnockMessage], None]
    """Sends a message to a neighbour, if it is one still."""
    findings: list[Findings] = field(default_factory=list)
    measuring: Measuring = field(init=False)
    _current: _Examination | None = None
    _ended_at: float = float("-inf")
    _poor: int = 0  # examinations, one after the other, that have not shown all
    _waiting: list[RequestId] = field(default_factory=list)
    # How often each neighbour has helped.
    _helped: BoundedDict[PeerId, int] = field(default_factory=lambda: BoundedDict(HELPERS_MAX))
    _timers: Timers[Due] = field(init=False)
    _next_port: int = 2
    """Even; the ports that we knock from are odd."""

    def __post_init__(self) -> None:
        self._timers = Timers(self.context.agenda)
        self.measuring = Measuring(
            self.context,
            self.neighbours,
            self.tell,
            self._new_port,
            is_busy=lambda: self._current is not None,
        )

    def behaviour(self) -> Behaviour:
        """A snapshot of what is known."""
        known = behaviour(self.reflexive, self.findings, self.measuring.lifetime.seconds)
        if known.mapping is not Dependence.INDEPENDENT and self._is_doubtful():
            return replace(known, mapping=Dependence.UNKNOWN, differs=False)
        return known

    def _seems_dependent(self) -> bool:
        """Whether a helper alone has shown us at two addresses, and no other host was asked."""
        seems = any(each.same_port is False for each in self.findings)
        return seems and all(each.elsewhere is None for each in self.findings)

    def _is_doubtful(self) -> bool:
        """Whether another host could say more of a mapping that seems to depend on the peer.

        Only one to which nobody has sent yet can: an open router gives ports away to early packets,
        the helper's knocks among them.
        """
        if not self._seems_dependent():
            return False
        helpers = [each for each in self.neighbours() if each.is_public]
        return any(self._second(each) is not None for each in helpers)

    # --- when --------------------------------------------------------------------------------

    def consider(self, now: float) -> None:
        """Somebody sees us from outside, or has become able to help: examine soon, if need be."""
        idle = self._current is None and self.context.settings.examine
        if idle and not self._is_proven() and self.reflexive.observers.outside(self.reflexive.own):
            due = self._timers.deadlines.get(Due.START)
            if due is None or (due > now + FIRST_AFTER and self._shows_another_family()):
                self._timers.set(Due.START, now + FIRST_AFTER)

    def _shows_another_family(self) -> bool:
        """Whether somebody new can help over the family that is told of, and that nobody has."""
        examined = {each.ipv6 for each in self.findings}
        ours = {":" in each.host for each in self.reflexive.listening}
        if not examined or not ours - examined:
            return False
        new = [each for each in self.neighbours() if each.peer not in self._helped]
        able = any(each.is_public and (":" in each.remote.host) not in examined for each in new)
        return able and self.behaviour().filtering is Dependence.UNKNOWN

    def on_moved(self, now: float) -> None:
        """We are elsewhere: what was found there says nothing here."""
        self.findings, self._poor, self._ended_at = [], 0, float("-inf")
        self.measuring.on_moved()
        if self._current is not None:
            self._drop()
        self._timers.stop(Due.START)
        self.consider(now)

    def ask(self, request: RequestId, now: float) -> None:
        """A user wants to know: resolves when as much is known as can be."""
        lately = now < self._ended_at + (RETRY_FIRST if self._poor else FRESH)
        if self._current is None and (self._is_proven() or lately):
            self.context.emit(Resolved(request, None))
            return
        self._waiting.append(request)
        if self._current is None:
            self._start(now)

    def _is_proven(self) -> bool:
        """Whether strangers dial us wherever we are seen, so that no NAT is in the way."""
        said = self.reflexive.observers.outside(self.reflexive.own)
        families = {each.realm[0] for each in said} or {False}
        dialled = [self.reflexive.is_dialled(ipv6=ipv6) for ipv6 in sorted(families)]
        return all(dialled)

    def _start(self, now: float) -> None:
        helpers = [each for each in self.neighbours() if each.is_public]
        if not helpers or self._is_proven() or not self.context.settings.examine:
            self._resolve()
            self._timers.set(Due.START, now + (INTERVAL if helpers else WAIT_FOR_HELPER))
            return
        helper = min(helpers, key=self._need_of)
        self._helped.put(helper.peer, self._helped.get(helper.peer, 0) + 1)
        token = self.context.crypto.token
        self._current = _Examination(
            helper, self._new_port(), token(12), token(12), token(12), token(12), token(12),
            Findings(ipv6=":" in helper.remote.host, helper=helper.peer),
        )  # fmt: skip
        self._timers.stop(Due.START)
        self._timers.set(Due.STAGE, now + OPENING_TIMEOUT)
        self.context.emit(OpenPort(self._current.port, helper.local.host, PORT_LIFE))

    def _need_of(self, helper: Neighbour) -> tuple[bool, int]:
        """The less, the sooner it is asked: over a family that nobody has examined, by turns."""
        ipv6 = ":" in helper.remote.host
        examined = any(each.ipv6 == ipv6 for each in self.findings)
        return examined, self._helped.get(helper.peer, 0)

    def _new_port(self) -> PortId:
        self._next_port += 2
        return PortId(self._next_port)

    def _rest(self) -> float:
        return min(INTERVAL, RETRY_FIRST * 2**self._poor) if self._poor else INTERVAL

    # --- what comes in -----------------------------------------------------------------------

    def on_port_opened(self, port: PortId, local: Address, now: float) -> None:
        """Ask the helper to knock there, and let it see where that is."""
        current = self._current
        if current is not None and current.port == port:
            current.local = local
            self.tell(current.helper.peer, KnockAsk(current.request, own=False))
            self._resend(current, now)
        else:
            self.measuring.on_port_opened(port, now)

    def on_port_heard(self, port: PortId, data: bytes, remote: Address, now: float) -> bool:
        """A datagram at a further socket of ours."""
        message = stun.parse(data)
        current = self._current
        if isinstance(message, stun.ParseError):
            return False
        self.measuring.on_port_heard(port, message, remote, now)
        if current is None or current.port != port or current.local is None:
            return False
        if message.message_class is stun.MessageClass.SUCCESS:
            self._on_mapped(current, message, remote)
        elif message.transaction_id == current.request:
            self._on_knock(current, remote)
        return self._look(current, now)

    def _on_mapped(self, current: _Examination, message: stun.Message, remote: Address) -> None:
        mapped, found = message.mapped_address, current.found
        if mapped is None or current.local is None:
            return
        if message.transaction_id == current.request and remote == current.helper.remote:
            current.found = replace(found, fresh=(current.local, mapped))
        elif message.transaction_id == current.probe and remote == current.theirs and found.fresh:
            current.found = replace(found, other=mapped)
        elif message.transaction_id == current.elsewhere and remote == current.second:
            current.found = replace(found, elsewhere=mapped)

    def _on_knock(self, current: _Examination, remote: Address) -> None:
        """It has come in: that is proof of what its source is to the socket."""
        if current.second is not None and remote.host == current.second.host:
            return  # We have sent there meanwhile.
        if remote.host != current.helper.remote.host:
            current.found = replace(current.found, near=True, strange=True)
        elif remote != current.helper.remote:
            current.found = replace(current.found, near=True)

    def on_seen(self, transaction: bytes, now: float) -> bool:
        """A knock, or our own packet, has come in at the node's own port."""
        current = self._current
        if current is None:
            return False
        if transaction == current.main:
            current.found = replace(current.found, main=True)
        elif transaction == current.hairpin:
            current.found = replace(current.found, hairpin=True)
        return self._look(current, now)

    def on_knocked(self, peer: PeerId, message: Knocked, now: float) -> bool:
        """The helper has knocked, or a stranger has."""
        self.measuring.on_knocked(message.request, now)
        current = self._current
        if current is None or peer != current.helper.peer:
            return False
        found = current.found
        if message.request == current.main and current.stage is Stage.MAIN:
            current.knocked = True
            self._timers.set(Due.STAGE, now + KNOCK_TIMEOUT)
        elif message.request == current.request and current.stage is Stage.KNOCKS:
            if message.stranger:
                current.waits = True
            elif message.port:
                current.theirs = Address(current.helper.remote.host, message.port)
                current.found = replace(found, near=bool(found.near))
            self._timers.set(Due.STAGE, now + KNOCK_TIMEOUT)
        return self._look(current, now)

    def on_refused(self, peer: PeerId, message: KnockRefuse, now: float) -> bool:
        """The helper will not."""
        current = self._current
        self.measuring.on_refused(message.request, now)
        ours = current is not None and message.request in (current.request, current.main)
        if current is None or not ours or peer != current.helper.peer:
            return False
        return self._conclude(current, now)

    # --- stages ------------------------------------------------------------------------------

    def _look(self, current: _Examination, now: float) -> bool:
        """Go on at once when there is nothing left that this stage could show."""
        found = current.found
        match current.stage:
            case Stage.KNOCKS:
                done = found.strange and current.theirs is not None and found.fresh is not None
            case Stage.PROBES:
                hairpin = found.hairpin or self._outer() is None
                elsewhere = found.elsewhere is not None or current.second is None
                done = found.same_port is not None and hairpin and elsewhere
            case Stage.MAIN:
                done = found.main
            case _:
                assert_never(current.stage)
        return self._next(current, now) if done else False

    def _next(self, current: _Examination, now: float) -> bool:
        """The next stage: this one is over."""
        found = current.found
        current.sends = 0
        match current.stage:
            case Stage.KNOCKS:
                if current.waits and not found.strange:
                    current.found = replace(found, strange=False)
                if current.theirs is None or found.fresh is None:
                    return self._conclude(current, now)
                current.stage = Stage.PROBES
                current.second = self._second(current.helper)
                self.context.emit(Await(current.hairpin))
                self._timers.set(Due.STAGE, now + PROBE_TIMEOUT)
                self._resend(current, now)
            case Stage.PROBES:
                if self._outer() is not None:
                    current.found = replace(found, hairpin=bool(found.hairpin))
                current.stage = Stage.MAIN
                self._timers.stop(Due.RESEND)
                self.context.emit(Await(current.main))
                ask = KnockAsk(current.main, own=True)
                self.tell(current.helper.peer, ask)
                self._timers.set(Due.STAGE, now + OPENING_TIMEOUT)
            case Stage.MAIN:
                if current.knocked:
                    current.found = replace(found, main=bool(found.main))
                return self._conclude(current, now)
            case _:
                assert_never(current.stage)
        return False

    def _second(self, helper: Neighbour) -> Address | None:
        """A neighbour that strangers reach, on another host than the helper, if there is one."""
        hosts = helper.remote.host, helper.local.host
        others = [each for each in self.neighbours() if each.is_public]
        found = (each.remote for each in others if each.local.host == hosts[1])
        return next((each for each in found if each.host not in hosts), None)

    def _outer(self) -> Address | None:
        """Our mapped address, if there is one that others see."""
        agreed = self.reflexive.agreed()
        return agreed[0] if agreed else None

    def _resend(self, current: _Examination, now: float) -> None:
        """What has not been answered yet, once more."""
        found, port, helper = current.found, current.port, current.helper.remote
        wanted: list[tuple[bytes, Address]] = []
        if current.stage is Stage.KNOCKS and (found.fresh is None or current.theirs is None):
            wanted.append((current.request, helper))
        if current.stage is Stage.PROBES:
            if found.same_port is None and current.theirs is not None:
                wanted.append((current.probe, current.theirs))
            if found.elsewhere is None and current.second is not None:
                wanted.append((current.elsewhere, current.second))
            if not found.hairpin and (outer := self._outer()) is not None:
                wanted.append((current.hairpin, outer))
        for transaction, remote in wanted:
            data = stun.encode(stun.binding_request(transaction), None)
            self.context.emit(SendFrom(port, data, remote))
        current.sends += 1
        if wanted and current.sends < RESENDS:
            self._timers.set(Due.RESEND, now + RESEND)

    def _conclude(self, current: _Examination, now: float) -> bool:
        """Keep what was found, and plan the next one."""
        found, helper = current.found, current.helper
        self._drop()
        if found.near is not None:  # else nobody has knocked, and it says nothing
            self.findings = [*self.findings, found][-FINDINGS_MAX:]
        self._ended_at = now
        known = self.behaviour()
        address = is_open(self.reflexive, found, self.findings)
        is_whole = "unknown" not in (known.mapping, known.filtering) and found.main is not None
        # What one helper alone says of a port that seems to be open wants another's word.
        is_whole = is_whole and bool(found.main) == (address is not None or bool(found.near))
        # What two hosts say of a fresh socket no early packet has spoilt.
        asked = any(each.elsewhere is not None for each in self.findings)
        alone = self._second(helper) is None and not self._seems_dependent()
        is_whole = is_whole and (asked or alone)
        self._poor = 0 if is_whole else self._poor + 1
        self._timers.set(Due.START, now + self._rest())
        self._resolve()
        nothing_between = found.near and found.fresh and found.fresh[0] == found.fresh[1]
        if found.fresh and not nothing_between:
            self.measuring.begin(now)
        if address is not None:
            return self.reflexive.knocked(address, now)
        # A knock that got lost ends no claim; two examinations in a row do.
        lately = [each.main for each in self.findings if each.main is not None][-2:]
        return lately == [False, False] and self.reflexive.close()

    def _drop(self) -> None:
        self._current = None
        self._timers.stop(Due.STAGE)
        self._timers.stop(Due.RESEND)

    def _resolve(self) -> None:
        waiting, self._waiting = self._waiting, []
        for request in waiting:
            self.context.emit(Resolved(request, None))

    # --- time --------------------------------------------------------------------------------

    def on_time(self, now: float) -> bool:
        """Do what is due; whether the addresses in our record have to change."""
        changed = False
        for due in self._timers.pop_due(now):
            match due:
                case Due.START:
                    changed |= self.reflexive.unknocked(now)
                    if self._current is None:
                        self._start(now)
                case Due.RESEND:
                    if self._current is not None:
                        self._resend(self._current, now)
                case Due.STAGE:
                    if self._current is not None:
                        changed |= self._next(self._current, now)
                case _:
                    assert_never(due)
        self.measuring.on_time(now)
        return changed
