"""The network of a simulated world at fidelity ``links``: dials, negotiations, ordered channels.

A dial reaches whoever listens at its address, and checks fingerprint and dial token as an endpoint
does; a firewalled node is reached only by a negotiation, in which both ends take part. Keepalives
are not simulated one by one: `overlay.sim.network.silence` says when they would have noticed that
nothing comes in any more.
"""

import hmac
from collections import defaultdict
from dataclasses import replace

from overlay.core.events import (
    Admit,
    Adopt,
    Aim,
    Await,
    Dial,
    DialFailed,
    DropCircuit,
    Effect,
    Hangup,
    LinkLost,
    LinkOpened,
    Mapped,
    Negotiate,
    OpenPort,
    PathMoved,
    Prepare,
    Punch,
    Received,
    RelayCircuit,
    Restart,
    SendFrom,
    Transmit,
    UseCircuit,
)
from overlay.core.types import (
    Address,
    EndReason,
    LinkFacts,
    LinkId,
    PathKind,
    Technique,
)
from overlay.core.wire import codec
from overlay.core.wire import dial_tokens as dial
from overlay.core.wire.messages import Message
from overlay.sim.clock import MICROSECOND
from overlay.sim.network.circuits import CircuitEffect, Circuits, Over
from overlay.sim.network.conditions import Conditions
from overlay.sim.network.ends import Attempt, LinkEnd, Via, part
from overlay.sim.network.silence import CHECK_INTERVAL, Silence
from overlay.sim.node import Environment, SimNode

HANDSHAKE_PACKETS = 6
"""ICE, DTLS with its cookie, SCTP: measured on real links as about three round trips."""
RETRANSMISSION = 0.3
"""Seconds that one lost packet costs a reliable message."""
CHECK_AGAIN = 0.5
"""Seconds between the checks of an attempt that nobody answers."""


class Network:
    """All links of a world."""

    def __init__(
        self,
        environment: Environment,
        conditions: Conditions,
        *,
        codec: bool = False,
        silence: type[Silence] = Silence,
    ) -> None:
        """`codec`: every message is encoded and decoded; `silence`: who notices it."""
        self.conditions = conditions
        """May be replaced while the world runs."""
        self.ends: defaultdict[SimNode, dict[LinkId, LinkEnd]] = defaultdict(dict)
        """Each node's ends of its open links."""
        self.feed = environment.feed
        self.silence = silence(environment, self.lose, self.release)
        self._clock = environment.clock
        self._rng = environment.rng
        self._nodes = environment.nodes
        self._by_address = environment.by_address
        self._codec = codec
        self._circuits = Circuits(self.ends)
        self._attempts: defaultdict[SimNode, dict[LinkId, Attempt]] = defaultdict(dict)
        """Each node's dials and negotiations under way."""
        self._negotiating: dict[str, Attempt] = {}
        """By the user fragment that its node chose."""

    def perform(self, node: SimNode, effect: Effect) -> None:
        """What the transport does with the core's effects."""
        match effect:
            case Transmit():
                end = self.ends[node].get(effect.link)
                if end is not None:
                    self._send(end, effect.message)
            case Dial():
                self._dial(node, effect)
            case Negotiate():
                self._negotiate(node, effect)
            case Hangup(link):
                self._hang_up(node, link)
            case Prepare(link):
                self._attempts[node][link] = Attempt(node, effect, 0.0)
            case Restart():
                self._restart(node, effect)
            case Adopt():
                self._adopt(node, effect)
            case UseCircuit() | RelayCircuit() | DropCircuit():
                self._on_circuit(node, effect)
            case Admit() | OpenPort() | SendFrom() | Await() | Punch() | Aim():
                pass  # there are no datagrams
            case _:
                raise AssertionError(effect)

    # --- opening -----------------------------------------------------------------------------

    def _dial(self, node: SimNode, effect: Dial) -> None:
        attempt = self._begin(node, effect, effect.timeout)
        self._clock.schedule_in(self._handshake(attempt.latency), self._check, attempt)

    def _negotiate(self, node: SimNode, effect: Negotiate) -> None:
        """Both ends must have started, each with the other's credentials."""
        attempt = self._begin(node, effect, effect.timeout)
        self._negotiating[effect.local.ufrag] = attempt
        if self._counterpart(effect) is not None:
            self._clock.schedule_in(self._handshake(attempt.latency), self._meet, attempt)

    def _begin(self, node: SimNode, effect: Dial | Negotiate, timeout: float) -> Attempt:
        if self.conditions.between is None:
            latency = self._rng.uniform(*self.conditions.latency)
        else:
            latency = self._distance(node, effect)
        if isinstance(effect, Dial) and not effect.addresses[0].port:
            latency = self._circuits.latency(node, effect.addresses[0]) or latency
        attempt = self._attempts[node][effect.link] = Attempt(node, effect, latency)
        self._clock.schedule_in(timeout, self._time_out, attempt)
        return attempt

    def _distance(self, node: SimNode, effect: Dial | Negotiate) -> float:
        """Seconds to the peer: the first address at which there is a node says which it is."""
        if isinstance(effect, Dial):
            addresses = effect.addresses
        else:
            addresses = tuple(candidate.address for candidate in effect.remote_candidates)
        found = map(self._by_address.get, addresses)
        peer = next((peer for peer in found if peer is not None), node)
        return self.latency(node, peer)

    def latency(self, one: SimNode, other: SimNode) -> float:
        """Seconds from one node to another, where the conditions say it for each pair."""
        assert self.conditions.between is not None
        return self.conditions.between.between(one.index, other.index)

    def _check(self, attempt: Attempt, _: None) -> None:
        """A dial sends checks to all its addresses; the first node that answers gets the link."""
        effect = attempt.effect
        if not self._is_current(attempt) or not isinstance(effect, Dial):
            return
        for address in effect.addresses:
            listener, over = self._listener(attempt.node, address)
            if listener is None:
                continue
            claim = dial.parse_ufrag(effect.remote.ufrag)
            if claim is None or not self._token_holds(listener, effect, claim):
                continue
            if listener.crypto.fingerprint != effect.fingerprint:
                self._fail(attempt, EndReason.CERTIFICATE)
                return
            self._open(attempt, listener, listener.new_inbound_link(), claim, address, over)
            return
        self._clock.schedule_in(CHECK_AGAIN, self._check, attempt)

    def _listener(self, node: SimNode, address: Address) -> tuple[SimNode | None, Over | None]:
        """Whom checks to this address reach, and over what if not directly."""
        listener = self._by_address.get(address)
        if listener is not None:
            reached = not listener.firewalled and _meets(node, listener)
            return (listener if reached else None), None
        found = self._circuits.path(node, address)
        if found is None or not _lives(found[0]):
            return None, None
        return found

    def _token_holds(self, listener: SimNode, effect: Dial, claim: dial.Claim) -> bool:
        key = listener.settings.dial_key
        token = dial.make_token(key, claim.kind, claim.token_id, claim.expires_at)
        password = dial.listener_password(token, effect.remote.ufrag)
        fresh = claim.expires_at > listener.wall(self._clock.now)
        return fresh and hmac.compare_digest(password, effect.remote.password)

    def _counterpart(self, effect: Negotiate) -> Attempt | None:
        other = self._negotiating.get(effect.remote.ufrag)
        theirs = other.effect if other else None
        if not isinstance(theirs, Negotiate):
            return None
        agreed = theirs.remote == effect.local and theirs.local == effect.remote
        return other if agreed else None

    def _meet(self, attempt: Attempt, _: None) -> None:
        effect = attempt.effect
        if not self._is_current(attempt) or not isinstance(effect, Negotiate):
            return
        other = self._counterpart(effect)
        if other is None or not _meets(attempt.node, other.node):
            self._clock.schedule_in(CHECK_AGAIN, self._meet, attempt)
            return
        self._forget(attempt)
        self._forget(other)
        ours, theirs = (attempt, other) if effect.controlling else (other, attempt)
        self._open(ours, theirs.node, theirs.effect.link, None)

    def _open(
        self,
        attempt: Attempt,
        listener: SimNode,
        link: LinkId,
        claim: dial.Claim | None,
        address: Address | None = None,
        over: Over | None = None,
    ) -> None:
        """The listener's end opens now, the dialler's when the last packet has come back."""
        clock, dialler = self._clock, attempt.node
        self._forget(attempt)
        exporter = self._rng.randbytes(32)
        negotiated = isinstance(attempt.effect, Negotiate) and over is None
        technique = Technique.ICE if negotiated else None
        there = back = attempt.latency
        if self.conditions.between is not None and over is None:
            there, back = self.latency(dialler, listener), self.latency(listener, dialler)
        ends = LinkEnd(dialler, attempt.effect.link, there), LinkEnd(listener, link, back)
        ends[0].other, ends[1].other = ends[1], ends[0]
        answered = clock.now_us + round(self._travel(back) * MICROSECOND)
        for end, inbound, opens in ((ends[1], True, clock.now_us), (ends[0], False, answered)):
            self.ends[end.node][end.link] = end
            self.silence.begin(end)
            end.arrives = opens
            facts = end.facts = LinkFacts(
                remote=address if over and address else end.other.node.address,
                local=end.node.address,
                path=PathKind.RELAYED if over else PathKind.HOST,
                dtls_role="server" if inbound else "client",
                remote_fingerprint=end.other.node.crypto.fingerprint,
                exporter=exporter,
                attempt=attempt.effect.attempt,
                token_kind=claim.kind if claim and inbound else None,
                token_id=claim.token_id if claim and inbound else b"",
                technique=technique,
            )
            if over is not None:
                end.via = over
                self._circuits.runs_over(end)
            clock.schedule(opens, self._opened, end, LinkOpened(end.link, inbound, facts))

    def _opened(self, end: LinkEnd, event: LinkOpened) -> None:
        if not end.gone:
            self.feed(end.node, event)
        if not end.gone and end.via is None:
            self.feed(end.node, Mapped(end.link, end.node.address))

    def _time_out(self, attempt: Attempt, _: None) -> None:
        if self._is_current(attempt):
            self._fail(attempt, EndReason.TIMEOUT)

    def _fail(self, attempt: Attempt, reason: EndReason) -> None:
        self._forget(attempt)
        self.feed(attempt.node, DialFailed(attempt.effect.link, reason))

    def _is_current(self, attempt: Attempt) -> bool:
        return self._attempts[attempt.node].get(attempt.effect.link) is attempt

    def _forget(self, attempt: Attempt) -> None:
        self._attempts[attempt.node].pop(attempt.effect.link, None)
        if isinstance(attempt.effect, Negotiate):
            self._negotiating.pop(attempt.effect.local.ufrag, None)

    def _look_again(self, node: SimNode, link: LinkId) -> None:
        """Checks go out anew. A node has one address here: they help if its path is back."""
        end = self.ends[node].get(link)
        if end is not None:
            self.silence.look(end)
            self.silence.look(end.other)

    # --- paths -------------------------------------------------------------------------------

    def _on_circuit(self, node: SimNode, effect: CircuitEffect) -> None:
        self._circuits.perform(node, effect)
        self._look_over_circuits()

    def _look_over_circuits(self) -> None:
        """A relay, or a link to one, is not what it was."""
        if self._circuits.over:
            for end in self._circuits.standing():
                self.silence.look(end)

    def _restart(self, node: SimNode, effect: Restart) -> None:
        """ICE restarts on a link: one over a circuit goes directly once both ends have begun."""
        end = self.ends[node].get(effect.link)
        if end is None:
            return
        if end.via is not None:
            end.restart = effect
            theirs = end.other.restart
            agreed = theirs is not None and (theirs.local, theirs.remote) == (
                effect.remote,
                effect.local,
            )
            if agreed and _meets(node, end.other.node):
                for each in (end, end.other):
                    self._move(each, each.other.node.address, None, self._direct_latency(each))
        self._look_again(node, effect.link)

    def _direct_latency(self, end: LinkEnd) -> float:
        if self.conditions.between is not None:
            return self.latency(end.node, end.other.node)
        return self._rng.uniform(*self.conditions.latency)

    def _adopt(self, node: SimNode, effect: Adopt) -> None:
        """An end takes the path of another link over. Most have the same: one between two hosts."""
        heir, donor = self.ends[node].get(effect.link), self.ends[node].get(effect.path)
        if heir is not None and donor is not None and not effect.asked and heir.via != donor.via:
            assert donor.facts is not None
            self._move(heir, donor.facts.remote, donor.via, donor.latency)
        self._look_again(node, effect.link)

    def _move(self, end: LinkEnd, remote: Address, via: Via | None, latency: float) -> None:
        """Packets of this end go another way from now on."""
        end.via, end.latency, end.restart = via, latency, None
        if via is not None:
            self._circuits.runs_over(end)
        assert end.facts is not None
        path = PathKind.HOST if via is None else PathKind.RELAYED
        end.facts = replace(end.facts, remote=remote, path=path)
        self.feed(end.node, PathMoved(end.link, end.facts))

    # --- packets -----------------------------------------------------------------------------

    def _travel(self, latency: float) -> float:
        """Seconds that a packet takes, were it not lost."""
        rng, conditions = self._rng, self.conditions
        delay = latency + rng.random() * conditions.jitter
        if conditions.reordering and rng.random() < conditions.reordering:
            delay += rng.random() * 4 * latency
        return delay

    def _handshake(self, latency: float) -> float:
        delay = 0.0
        for _ in range(HANDSHAKE_PACKETS):
            delay += self._travel(latency)
            while self.conditions.loss and self._rng.random() < self.conditions.loss:
                delay += CHECK_AGAIN
        return delay

    def _send(self, end: LinkEnd, message: Message | None) -> None:
        """In order, after all that was sent before; None says that this end has hung up."""
        rng, conditions, far = self._rng, self.conditions, end.other
        delay = self._travel(end.latency)
        while conditions.loss and rng.random() < conditions.loss:
            delay += RETRANSMISSION
        if self._codec and message is not None:
            message = self._over_the_wire(message)
        leaves = self._clock.now_us
        if conditions.bandwidth:
            size = len(codec.encode(message)) if message is not None else 0
            leaves = max(leaves, end.sent) + round(size / conditions.bandwidth * MICROSECOND)
            end.sent = leaves
        arrival = leaves + round(delay * MICROSECOND)
        if arrival < far.arrives:
            arrival = far.arrives
        far.arrives = arrival
        self._clock.schedule(arrival, self._arrive, far, message)

    @staticmethod
    def _over_the_wire(message: Message) -> Message:
        read = codec.decode(codec.encode(message))
        assert not isinstance(read, codec.Unknown | codec.Broken), read
        return read

    def _arrive(self, end: LinkEnd, message: Message | None) -> None:
        if end.gone:
            return
        sender = end.other
        passes = end.node.gets_from(sender.node) if sender.via is None else sender.reaches()
        if end.held or not passes:
            end.held.append(message)
        elif message is None:
            self.lose(end, EndReason.CLOSED)
        else:
            self.feed(end.node, Received(end.link, message))

    def release(self, end: LinkEnd) -> None:
        """The path is back: what waited for it arrives."""
        held, end.held = end.held, []
        for message in held:
            self._arrive(end, message)

    # --- ends --------------------------------------------------------------------------------

    def _hang_up(self, node: SimNode, link: LinkId) -> None:
        """The other end sees the link closed once all that was sent before has arrived."""
        attempt = self._attempts[node].get(link)
        if attempt is not None:
            self._forget(attempt)
        end = self.ends[node].pop(link, None)
        if end is None:
            return
        end.gone = True
        if end.other.gone:
            part(end)
        elif end.reaches():
            self._send(end, None)
        else:
            self.silence.look(end.other)
        self._look_over_circuits()

    def lose(self, end: LinkEnd, reason: EndReason) -> None:
        """A link has ended as this end sees it."""
        end.gone = True
        self.ends[end.node].pop(end.link, None)
        self.feed(end.node, LinkLost(end.link, reason))
        self.silence.look(end.other)
        part(end)
        self._look_over_circuits()

    # --- faults ------------------------------------------------------------------------------

    def on_crash(self, node: SimNode) -> None:
        """The node's own ends are gone; the others notice by its silence."""
        for attempt in list(self._attempts[node].values()):
            self._forget(attempt)
        for end in self.ends.pop(node, {}).values():
            end.gone = True
            self.silence.look(end.other)
            part(end)
        self._look_over_circuits()

    def on_freeze(self, node: SimNode) -> None:
        """To the others a frozen node looks like a dead one."""
        for end in self.ends[node].values():
            end.epoch += 1  # it takes no notice of anything
            self.silence.look(end.other)
        self._look_over_circuits()

    def on_thaw(self, node: SimNode) -> None:
        """The next checks are answered again."""
        for end in list(self.ends[node].values()):
            self.silence.look(end, anew=True)
            self.silence.look(end.other)
        self._look_over_circuits()

    def on_partition(self) -> None:
        """Other packets pass than before: some paths fall silent, others come back."""
        for node in self._nodes:
            for end in self.ends[node].values():
                self.silence.look(end, within=CHECK_INTERVAL)


def _meets(one: SimNode, other: SimNode) -> bool:
    """Whether packets pass between two nodes and both answer them."""
    if not (_lives(one) and _lives(other)):
        return False
    return one.gets_from(other) and other.gets_from(one)


def _lives(node: SimNode) -> bool:
    return node.alive and not node.frozen
