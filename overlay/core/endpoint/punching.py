"""One idea: techniques beyond ICE at the port, one at a time, and the sockets that they take.

A technique (`overlay.core.punch`) helps a restart of ICE on an association whose path is a relay's.
What it sends are checks of that restart's agent, from sockets of its own or to ports of the peer's
that no candidate names. Whoever hears one answers it and checks back, as RFC 8445 §7.3.1.3 has it
for an address never heard of: so nothing but a check that has come and gone makes a path.

The rules that hold whatever a peer says:

1. Who it is aimed at the core has had attested (`overlay.core.punch.sights`); here it is one host,
   and one technique at a time in the whole node.
2. When it is over all its sockets are closed, but for the one that the path runs over: that lives
   as long as its link.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import assert_never

from overlay.core.endpoint.association import Association
from overlay.core.endpoint.outputs import CloseSockets, OpenSockets, Send
from overlay.core.events import Aim, Foretold, Punch, PunchOver
from overlay.core.ice import stun
from overlay.core.ice.agent import IceAgent
from overlay.core.ice.checklist import CandidatePair
from overlay.core.ice.outputs import AddressPair
from overlay.core.punch import machine
from overlay.core.punch.birthday import Birthday
from overlay.core.punch.prediction import Prediction
from overlay.core.types import Address, LinkId, PunchRole, Random, Technique

KEPT_MAX = 64
"""Sockets that links may run over besides the node's own (guess); then no technique is begun."""

Say = Callable[[Send | OpenSockets | CloseSockets | Foretold | PunchOver], None]


@dataclass(slots=True)
class _Active:
    """The technique under way."""

    effect: Punch
    agent: IceAgent
    machine: machine.Machine
    sockets: tuple[Address, ...] = ()

    def technique(self, pair: CandidatePair) -> Technique | None:
        """Whether a path over this pair is its doing: both ends come to the same."""
        if self.machine.sockets:
            found = pair.local in self.sockets
        else:
            is_named = pair.remote_candidate.kind != "prflx"
            found = not is_named and pair.remote.host == self.effect.target.host
        return self.effect.technique if found else None


class Punching:
    """The techniques of one port. Counts in `counters` what was sent: openers, probes, sampled."""

    def __init__(self, random: Random, counters: Counter[str], say: Say) -> None:
        self._random, self._counters, self._say = random, counters, say
        self._active: _Active | None = None
        # The socket that the path of each link runs over, if it is none of the node's own.
        self._kept: dict[LinkId, Address] = {}

    # --- what the core wants ---------------------------------------------------------------------

    def perform(self, effect: Punch | Aim, association: Association | None, now: float) -> None:
        """Begin, or hear what the peer foretells."""
        match effect:
            case Punch():
                self._begin(effect, association)
            case Aim(link, number, ports):
                if self._active is not None and self._active.effect.link == link:
                    self._active.machine.aim(number, ports, now)
                    self._perform(self._active)
            case _:
                assert_never(effect)

    def _begin(self, effect: Punch, association: Association | None) -> None:
        restarting = association.restarting if association is not None else None
        if restarting is None or restarting.agent.local.ufrag != effect.ufrag:
            return  # it has come to something, or to nothing, meanwhile
        if self._active is not None or len(self._kept) >= KEPT_MAX:
            self._counters["punch_crowded"] += 1
            return
        # Of two ends that both number, the two have to send in different steps.
        stride = 2 if restarting.agent.controlling else 1
        active = _Active(effect, restarting.agent, _machine(effect, self._random, stride))
        self._active = active
        active.agent.go_beyond(active.technique)
        self._say(OpenSockets(effect.link, effect.host, active.machine.sockets))

    # --- what comes in ---------------------------------------------------------------------------

    def opened(self, link: LinkId, sockets: tuple[Address, ...], now: float) -> None:
        """An `OpenSockets` has been performed, as far as it could be."""
        active = self._active
        if active is None or active.effect.link != link or active.sockets:
            if sockets:
                self._say(CloseSockets(sockets))
            return
        active.sockets = sockets
        active.machine.begin(sockets, now)
        self._perform(active)

    def on_response(self, response: stun.Message, pair: AddressPair, now: float) -> bool:
        """A Binding response that no agent has asked for; whether it came to a socket of ours."""
        active, (remote, local) = self._active, pair
        if active is None or local not in active.sockets:
            return False
        active.machine.on_mapped(response, remote, local, now)
        self._perform(active)
        return True

    def is_quiet(self, association: Association, remote: Address) -> bool:
        """Whether a check of this association there would take a port that has been foretold."""
        active = self._active
        if active is None or not active.machine.is_quiet or active.effect.link == association.link:
            return False
        return all(pair[0] != remote for pair in association.pairs)

    # --- time ------------------------------------------------------------------------------------

    def next_deadline(self) -> float | None:
        """When `handle_timeout` wants to be called."""
        return None if self._active is None else self._active.machine.next_deadline()

    def handle_timeout(self, now: float) -> None:
        """Do what is due."""
        if self._active is not None:
            self._active.machine.handle_timeout(now)
            self._perform(self._active)

    def _perform(self, active: _Active) -> None:
        for output in active.machine.take():
            match output:
                case machine.Check(remote, local, ttl):
                    self._counters["probes" if local is None else "openers"] += 1
                    self._say(Send(active.agent.stray_check(), remote, local, ttl))
                case machine.Ask(transaction, remote, local):
                    self._counters["sampled"] += 1
                    data = stun.encode(stun.binding_request(transaction), None)
                    self._say(Send(data, remote, local))
                case machine.Foretell(number, ports):
                    self._say(Foretold(active.effect.link, number, ports))
                case machine.Over() if active.agent.has_valid_pair:
                    pass  # nothing more is sent; the restart ends well, or by its own time
                case machine.Over(end):
                    self.stop(active.effect.link)
                    self._say(PunchOver(active.effect.link, end))
                case _:
                    assert_never(output)

    # --- ends ------------------------------------------------------------------------------------

    def stop(self, link: LinkId, keep: Address | None = None) -> None:
        """The restart is over, well or not: its sockets go, but for the one to `keep`."""
        active = self._active
        if active is None or active.effect.link != link:
            return
        self._active = None
        gone = tuple(each for each in active.sockets if each != keep)
        if gone:
            self._say(CloseSockets(gone))
        if keep in active.sockets:
            self._keep(link, keep)

    def _keep(self, link: LinkId, socket: Address | None) -> None:
        before = self._kept.pop(link, None)
        if before is not None and before != socket:
            self._say(CloseSockets((before,)))
        if socket is not None:
            self._kept[link] = socket

    def on_restarted(self, link: LinkId, local: Address | None) -> None:
        """A restart has found the path of this link: from that local address."""
        self.stop(link, local)
        if self._kept.get(link) != local:
            self._keep(link, None)

    def exchange(self, one: LinkId, other: LinkId) -> None:
        """Two links have exchanged their paths."""
        mine, its = self._kept.pop(one, None), self._kept.pop(other, None)
        if its is not None:
            self._kept[one] = its
        if mine is not None:
            self._kept[other] = mine

    def forget(self, link: LinkId) -> None:
        """A link is gone."""
        self.stop(link)
        self._keep(link, None)


def _machine(effect: Punch, random: Random, stride: int) -> machine.Machine:
    if effect.technique is Technique.BIRTHDAY:
        assert effect.role is not PunchRole.BOTH
        return Birthday(effect.role, effect.target, ttl=effect.ttl, random=random)
    return Prediction(
        effect.role,
        effect.target,
        effect.observers,
        ttl=effect.ttl,
        random=random,
        fixed=effect.technique is Technique.LOW_TTL,
        stride=stride,
    )
