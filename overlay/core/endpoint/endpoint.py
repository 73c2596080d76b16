"""One idea: who a datagram at the node's one UDP port is for, and what strangers may cost.

Told apart by first byte (RFC 7983), then STUN by USERNAME and transaction id, DTLS by its pair of
addresses. Three kinds of talk share the port: full ICE (our own dials, and what offers and answers
negotiate), direct dials that come in (ICE-lite, opened by a token), and plain STUN. The rules that
hold whatever anybody sends:

1. A check, spoofed or replayed, never redirects an association, and neither does a copied record:
   its records go on to where they went until a nonce has come back from a freshly checked address
   that was sent there encrypted.
2. Nothing but bounded table lines is kept for who has not proven that it receives at its address;
   it gets no more than three times the bytes that it sent.
3. A circuit is a path like another, and never an address that a datagram could claim: what comes
   over one comes from the verified path of the link that leads to its relay (`circuits`).
4. Nothing established is displaced here: a new association on the same addresses stands beside it
   until the hello decides.

Residual: who holds a valid dial token *and* spoofs the very address of another dialler during its
round trip can have that one attempt fail (never taken over: its hello signs the attempt).
"""

from collections import Counter, deque
from collections.abc import Sequence
from typing import assert_never

from overlay.core.addresses import CIRCUIT_BYTES, is_circuit
from overlay.core.endpoint import association as associations
from overlay.core.endpoint.association import Association
from overlay.core.endpoint.circuits import FIRST, PAST, CircuitEffect, Circuits
from overlay.core.endpoint.dtls_cookie import (
    ClientHello,
    attempt_name,
    is_alert,
    is_plain,
    is_record,
    parse_client_hello,
)
from overlay.core.endpoint.outputs import (
    CloseSockets,
    Confirm,
    Description,
    EndpointOutput,
    Move,
    Record,
    Send,
)
from overlay.core.endpoint.punching import Punching
from overlay.core.endpoint.redials import Redials
from overlay.core.endpoint.refusals import Refusals
from overlay.core.endpoint.routes import Route, Routes
from overlay.core.endpoint.strangers import Strangers
from overlay.core.events import (
    Adopt,
    Aim,
    CircuitCarried,
    Dial,
    DialFailed,
    DropCircuit,
    LinkAlive,
    LinkLost,
    LinkSilent,
    LinkSuspect,
    Mapped,
    Negotiate,
    Prepare,
    Punch,
    RelayCircuit,
    Restart,
    Seen,
    UseCircuit,
)
from overlay.core.ice import outputs as ice
from overlay.core.ice import stun
from overlay.core.ice.agent import IceAgent
from overlay.core.ice.lite import (
    GENERATIONS,
    HalfOpenCheck,
    LiteSession,
)
from overlay.core.ice.outputs import AddressPair
from overlay.core.limits import BoundedDict, HalfOpen
from overlay.core.timers import Timers
from overlay.core.types import Address, Candidate, EndReason, LinkId, PathKind, Random

TRANSACTIONS_MAX = 4096
"""Checks of ours whose answer we can route, and of others that we know when replayed (guess)."""
INBOUND_MAX = 1024
"""Associations that direct dials may make (guess)."""
PAIR_MAX = 8
"""Associations at one pair of addresses: each garbage record there is tried on all (guess)."""
HEARD_INTERVAL = 0.1
"""Seconds: at most this often is it noted who is heard where a link's datagrams go (guess)."""
HEARTBEAT_BYTES = 128
"""What an encrypted HEARTBEAT with its nonce takes at most, for what an address may be sent."""

_OF_NO_LINK = Send | Record | Seen | CircuitCarried | CloseSockets
"""Outputs that stay when a link is closed."""
_REQUEST = b"\x00\x01"
_SUCCESS = b"\x01\x01"  # first bytes of a Binding request and of its success response (RFC 8489 §5)


class Endpoint:
    """The port. `random` draws transaction ids and must be unpredictable where it matters."""

    def __init__(self, *, dial_key: bytes, cookie_key: bytes, random: Random) -> None:
        # By kind: stun_served, refused_token, refused_cookie, rate_limited, replayed, malformed,
        # unknown (for nobody here), unverified (more than three times its bytes), plain_alert,
        # glare, crowded (handshakes beyond the limits); and those of `Circuits`.
        self.counters: Counter[str] = Counter()
        self._random = random
        self._links: dict[LinkId, Association] = {}
        self._prepared: dict[LinkId, IceAgent] = {}  # agents that wait for `Negotiate`
        self._names: dict[str, LinkId] = {}
        self._routes = Routes()
        self._half_open = HalfOpen()
        self._refusals = Refusals()
        self._judged_at = 0.0  # when silence was last judged
        self._asked: BoundedDict[bytes, tuple[LinkId, Address]] = BoundedDict(TRANSACTIONS_MAX)
        self._answered: BoundedDict[bytes, AddressPair] = BoundedDict(TRANSACTIONS_MAX)
        self._redials = Redials()
        self._timers: Timers[LinkId] = Timers()
        self._next_link = 1
        self._hosts: tuple[Candidate, ...] = ()
        self._outputs: deque[EndpointOutput] = deque()
        self._strangers = Strangers(dial_key, cookie_key, self.counters, self._outputs.append)
        self.wait_for = self._strangers.wait_for
        self._punching = Punching(random, self.counters, self._outputs.append)
        self.opened = self._punching.opened
        # The shell asks it where datagrams of circuits go (`forward`, `arrived`, `way`).
        self.circuits = Circuits(self.counters, self._outputs.append)

    # --- what the shell knows ---------------------------------------------------------------------

    def set_wall(self, offset: float) -> None:
        """Wall time (Unix seconds) is `now` + `offset`; before this no token is valid."""
        self._strangers.wall_offset = offset

    def set_local(self, addresses: Sequence[Address]) -> None:
        """Our addresses; they only describe us (`description`)."""
        self._hosts = associations.host_candidates(tuple(addresses))

    # --- what the core wants ----------------------------------------------------------------------

    def perform(
        self,
        effect: Dial | Prepare | Negotiate | Restart | Punch | Aim | Adopt | CircuitEffect,
        now: float,
    ) -> None:
        """Begin an attempt, or go on with it: `Secure` or `DialFailed` follows in time.

        A link is hung up by the shell, which calls `close` when nothing is left to be sent on it.
        """
        match effect:
            case Dial():
                self._dial(effect, now)
            case Prepare():
                agent, association = associations.begin_prepare(effect, self._random, now)
                self._prepared[effect.link] = agent
                self._add(association)
            case Negotiate():
                self._negotiate(effect, now)
            case Restart():
                self._restart(effect, now)
            case Punch() | Aim():
                self._punching.perform(effect, self._links.get(effect.link), now)
            case Adopt():
                self._adopt(effect)
            case UseCircuit() | RelayCircuit() | DropCircuit():
                self.circuits.perform(effect, self._standing, now)
            case _:
                assert_never(effect)

    def _standing(self, link: LinkId) -> AddressPair | None:
        """Where the path of an established link runs; None: it has ended meanwhile."""
        association = self._links.get(link)
        return association.pair if association is not None and association.established else None

    def _dial(self, effect: Dial, now: float) -> None:
        # One dial to one address at a time: a ClientHello does not say which dial it belongs to.
        busy = [address for each in self._links.values() for address in each.dialling]
        if any(address in busy for address in effect.addresses):
            self._outputs.append(DialFailed(effect.link, EndReason.GLARE))
            return
        association = associations.begin_dial(effect, self._hosts, self._random, now)
        self._add(association)
        self._settle(association)

    def _negotiate(self, effect: Negotiate, now: float) -> None:
        agent = self._prepared.pop(effect.link, None)
        if agent is None:
            agent, association = associations.begin_negotiate(effect, self._random, now)
            self._add(association)
        association = self._links[effect.link]
        associations.start(association, agent, effect, now)
        self._settle(association)

    def _restart(self, effect: Restart, now: float) -> None:
        """Check anew beside the path, which stays until the restart has found another."""
        association = self._links.get(effect.link)
        if association is None or not association.established:
            return
        self._call_off(association)
        associations.begin_restart(association, effect, self._random, now)
        self._names[effect.local.ufrag] = association.link
        self._settle(association)

    def _call_off(self, association: Association) -> None:
        """A restart has failed, or another begins: the association stays as it is."""
        if association.restarting is not None:
            self._names.pop(association.restarting.agent.local.ufrag, None)
            association.restarting = None
            self._punching.stop(association.link)

    def _take_over(self, association: Association) -> None:
        """From now on the association is what its restarted agent says."""
        self._rename(association, associations.take_over(association))

    def _rename(self, association: Association, names: tuple[str, ...]) -> None:
        """Checks for these names are its own from now on, and for its older ones no more."""
        for name in association.names:
            if name not in names:
                self._names.pop(name, None)
                if ":" in name:
                    # A direct dial's: refused, so that its dialler learns that this is over.
                    self._strangers.checks.expire(name)
        association.names = names
        for name in names:
            self._names[name] = association.link

    def _adopt(self, effect: Adopt) -> None:
        """The two exchange their ICE sessions; records of both may come in where the heir's runs.

        The donor has its path until it is hung up: what is under way on its channel arrives.
        """
        heir, donor = self._links.get(effect.link), self._links.get(effect.path)
        if heir is None or donor is None or donor.pair is None or not heir.established:
            return
        for pair in list(donor.pairs):
            self._routes.join(heir, pair)
        if effect.asked:
            return
        self._call_off(donor)
        if not is_circuit(donor.pair[0]):
            self._call_off(heir)  # Else what it looks for is better than what it gets.
        associations.exchange_ice(heir, donor)
        self._punching.exchange(heir.link, donor.link)
        for association in (heir, donor):
            for name in association.names:
                self._names[name] = association.link
        self._asked.update(
            {
                transaction: (heir.link, remote)
                for transaction, (link, remote) in self._asked.items()
                if link == donor.link
            }
        )
        self._follow(heir, donor.pair)
        self._outputs.append(Move(heir.link, *donor.pair, heir.path, heir.technique))
        heir.doubtful = False
        self._refusals.on_heard(heir.link)
        self._outputs.append(LinkAlive(heir.link))
        if heir.mapped is not None:
            self._outputs.append(Mapped(heir.link, heir.mapped))
        self._settle(heir)
        self._settle(donor)

    # --- what the shell has done ------------------------------------------------------------------

    def decrypted(self, link: LinkId, remote: Address, now: float) -> None:
        """A record from `remote` has decrypted to something on this link.

        It shows that we hear the peer, and neither that the peer hears us nor where it is.
        """
        association = self._links.get(link)
        if association is None or association.pair is None:
            return
        if now < association.quiet_until and remote == association.pair[0]:
            return
        association.quiet_until = now + HEARD_INTERVAL
        self._routes.prefer(association, association.pair)

    def acknowledged(self, link: LinkId, now: float) -> None:
        """An encrypted packet has acknowledged something of ours: a SACK, a HEARTBEAT ACK.

        The shell says so every 0.1 s at most, which is as fine as liveness needs it.
        """
        association = self._links.get(link)
        if association is not None:
            association.ice.acknowledged(now)
            self._settle(association)

    def unacknowledged(self, link: LinkId, now: float) -> None:
        """Data has been under way on this link for longer than an acknowledgement takes.

        The shell says so after half a second and twice the round trip. A relayed path is asked at
        once, since another may be at hand; a direct one is asked in its time.
        """
        association = self._links.get(link)
        if association is not None and association.path is PathKind.RELAYED:
            association.ice.unacknowledged(now)
            self._settle(association)

    def confirmed(
        self, link: LinkId, nonce: bytes, remote: Address, local: Address | None, now: float
    ) -> None:
        """The nonce of a `Confirm` has come back, encrypted, in a datagram between these two."""
        association = self._links.get(link)
        if association is not None:
            check = self._redials.answered(nonce)
            association.ice.acknowledged(now)
            if association.ice.confirmed(nonce, remote, local, now) and check is not None:
                self._on_restarted(association, check)
            self._settle(association)

    def established(self, link: LinkId, now: float) -> None:
        """DTLS and SCTP stand: no longer half-open; `LinkSuspect` and its like may follow."""
        association = self._links.get(link)
        if association is None or association.pair is None:
            return
        association.established = True
        association.deadline = None
        self._half_open.release(link)
        self._routes.arrange(association)
        if association.mapped is not None:
            self._outputs.append(Mapped(link, association.mapped))
        association.ice.acknowledged(now)
        self._settle(association)

    def refused(self, remote: Address, now: float) -> None:
        """The host at `remote` has said that nobody listens at that port (RFC 1122 §3.2.2.1)."""
        for link in self._refusals.on_refused(remote, now):
            if self._links[link].restarting is None:
                self._lose(self._links[link], EndReason.GONE)

    def close(self, link: LinkId) -> None:
        """Forget it, known or not; nothing more is said of it (a `Record` may still name it)."""
        association = self._links.get(link)
        if association is not None:
            self._forget(association)
        kept = [
            output
            for output in self._outputs
            if isinstance(output, _OF_NO_LINK) or output.link != link
        ]
        self._outputs.clear()
        self._outputs.extend(kept)

    # --- what the shell asks ----------------------------------------------------------------------

    def association_of(self, data: bytes, remote: Address, local: Address | None) -> LinkId | None:
        """The fast path: whose encrypted record this is, when only one link can read it.

        Feed it to that link and, if it decrypted, call `decrypted`. None: call `receive`.
        """
        route = self._routes.get((remote, local))
        if route is None or route.only is None or not is_record(data) or is_plain(data):
            return None
        return route.only

    def rtt(self, link: LinkId, now: float) -> float | None:
        """The round trip in seconds that questions have measured; None: not lately."""
        association = self._links.get(link)
        return None if association is None else association.ice.round_trip.fresh(now)

    def description(self, link: LinkId) -> Description | None:
        """Both sides' credentials (a listener never learns the dialler's) and candidates.

        A circuit is none: nobody else could use it.
        """
        association = self._links.get(link)
        if association is None:
            return None
        agent = association.ice
        theirs = association.remote_candidates
        named = tuple(each for each in theirs if not is_circuit(each.address))
        return agent.local, agent.remote, association.candidates, named

    def next_deadline(self) -> float | None:
        """When `handle_timeout` wants to be called."""
        others = self.circuits.next_deadline(), self._punching.next_deadline()
        deadlines = (self._timers.next_deadline(), *others)
        return min((each for each in deadlines if each is not None), default=None)

    def poll(self) -> EndpointOutput | None:
        """The next output; after every other call, perform all until there is None.

        One at a time, so that `close` takes back what has not been performed.
        """
        return self._outputs.popleft() if self._outputs else None

    # --- what comes in ----------------------------------------------------------------------------

    def handle_timeout(self, now: float) -> None:
        """Do what is due at `now`."""
        self._judged_at = now
        self.circuits.handle_timeout(now)
        self._punching.handle_timeout(now)
        for link in self._timers.pop_due(now):
            association = self._links.get(link)
            if association is None:
                continue  # lost to another that was due
            association.due = None
            if association.deadline is not None and now >= association.deadline:
                self._lose(association, EndReason.TIMEOUT)
            else:
                for agent in association.agents:
                    agent.handle_timeout(now)
                self._settle(association)

    def receive(self, data: bytes, remote: Address, local: Address | None, now: float) -> None:
        """A datagram from anybody. Never raises, whatever it says (RFC 7983 §7)."""
        pair = (remote, local)
        # RFC 7983 §7: 20 to 63 is DTLS, 0 to 3 is STUN, 64 to 79 a circuit's, and nothing else
        # shares this port.
        if is_record(data):
            self._on_record(data, pair, now)
        elif data and data[0] < 4:
            self._on_stun(data, pair, now)
        elif data and FIRST <= data[0] < PAST:
            self._on_circuit(data, pair, now)
        else:
            self.counters["unknown"] += 1

    def _on_circuit(self, data: bytes, pair: AddressPair, now: float) -> None:
        """What the shell's fast paths do, for a shell that has none."""
        onward = self.circuits.forward(data, *pair, now)
        if onward is not None:
            self._outputs.append(Send(data, *onward))
            return
        address = self.circuits.arrived(data, *pair)
        if address is not None:
            self.receive(data[CIRCUIT_BYTES:], address, None, now)

    def _on_stun(self, data: bytes, pair: AddressPair, now: float) -> None:
        # Who has an association, or answers us, is not charged: a flood with a peer's address must
        # not drain the bucket that the peer's own checks would need.
        expected = data[8:20] in self._asked or self._routes.get(pair) is not None
        if not expected and not self._strangers.admits(pair[0], now):
            return
        message = stun.parse(data)
        if isinstance(message, stun.ParseError) or message.method != stun.BINDING:
            self.counters["malformed"] += 1
        elif message.message_class is stun.MessageClass.REQUEST:
            self._strangers.allowance.earn(pair[0], len(data))
            self._on_request(message, pair, now)
        elif message.message_class is not stun.MessageClass.INDICATION:
            self._on_response(message, pair, now)
        else:
            self._strangers.look_out(message, pair[0])  # a knock, if it is anything to us

    def _on_request(self, request: stun.Message, pair: AddressPair, now: float) -> None:
        # USERNAME is our user fragment, a colon, the peer's (RFC 8445 §7.2.2). A direct dial that
        # came in goes by both: its dialler chose both.
        username = request.username or ""
        link = self._names.get(username)
        if link is None:
            link = self._names.get(username.partition(":")[0])
        if link is not None:
            self._on_check(self._links[link], request, pair, now)
        elif self._routes.get(pair) is not None and not self._strangers.admits(pair[0], now):
            pass  # not charged on receipt; but whom this does not concern is a stranger after all
        elif request.username is None:
            # Plain STUN (RFC 8489 §6.3.1): whoever asks is told its address.
            self._emit(self._strangers.serve(request, pair[0]), *pair)
            self._strangers.look_out(request, pair[0])
        else:
            self._emit(self._strangers.answer_check(request, username, pair, now), *pair)
            self._look_for_restart(username, pair, now)

    def _look_for_restart(self, username: str, pair: AddressPair, now: float) -> None:
        """A dial that we do not know may be one that we do, with ICE restarted (RFC 8445 §9)."""
        check = self._strangers.checks.get(username, now)
        if check is not None and pair in check.pairs:
            asked = self._redials.ask(check, self._links.values(), pair, now)
            if asked is not None:
                self._settle(asked)

    def _on_restarted(self, association: Association, check: HalfOpenCheck) -> None:
        """It is the association's own dialler that has checked with these credentials."""
        if isinstance(association.ice, LiteSession) and check.username not in self._names:
            pairs = list(check.pairs)
            self._strangers.checks.remove(check)
            association.ice.restart(check.local)
            for each in pairs:
                self._routes.join(association, each)
            names = (check.username, *association.names)
            self._rename(association, names[:GENERATIONS])

    def _on_check(
        self, association: Association, request: stun.Message, pair: AddressPair, now: float
    ) -> None:
        """A check that names this association, genuine or not."""
        seen_at = self._answered.get(request.transaction_id, pair)
        if pair not in (seen_at, association.pair):
            # RFC 8445 §19.2: a check's integrity does not cover the address that it came from, so
            # whoever has seen one could repeat it from anywhere. Where the path runs it is answered
            # all the same: a copy that overtakes must not silence the peer's own.
            self.counters["replayed"] += 1
            return
        association.agent_of(request.username or "").receive(request, *pair, now)
        self._settle(association, pair)

    def _on_response(self, response: stun.Message, pair: AddressPair, now: float) -> None:
        link, asked = self._asked.get(response.transaction_id, (None, None))
        association = None if link is None else self._links.get(link)
        # RFC 8445 §7.2.5.2.1: an answer comes from where the check went.
        if association is None or pair[0] != asked:
            taken = self._punching.on_response(response, pair, now)
            if not taken and not self._strangers.take_answer(response, pair):
                self.counters["unknown"] += 1
            return
        association.validate(asked)  # only who received our check knows its transaction id
        self._routes.join(association, pair)
        for agent in association.agents:
            if isinstance(agent, IceAgent):  # who did not ask knows no such transaction
                agent.receive(response, *pair, now)
        self._settle(association, pair)

    def _on_record(self, data: bytes, pair: AddressPair, now: float) -> None:
        """Encrypted records: established associations first. Plain ones: handshakes alone."""
        route = self._routes.get(pair)
        if not is_plain(data):
            # No connection id (RFC 9146): of several associations at one pair, trying tells whose.
            self._record(self._readers(route, pair, now), data, pair)
        elif is_alert(data):
            # Deviation: RFC 5246 §7.2.2 ends a handshake upon a fatal alert. Before keys stand
            # anybody can write one, so none is heard (RFC 6347 §4.1.2.7); a timeout ends it.
            self.counters["plain_alert"] += 1
        else:
            hello = parse_client_hello(data)
            if hello is not None and self._on_client_hello(hello, data, pair, now):
                return
            name = hello.name if hello is not None else b""
            if route is None or not route.keep(data, name):
                self._record(route.plain(data, name) if route else (), data, pair)

    def _readers(self, route: Route | None, pair: AddressPair, now: float) -> tuple[LinkId, ...]:
        """Who may be able to read an encrypted record from there."""
        sealed = route.sealed if route else ()
        check = self._strangers.checks.at(pair, now)
        if check is None or check.restarts is None or check.restarts in sealed:
            return sealed
        if check.restarts in self._links and self._redials.may_try(check.restarts, now):
            return (*sealed, check.restarts)
        return sealed

    def _on_client_hello(
        self, hello: ClientHello, data: bytes, pair: AddressPair, now: float
    ) -> bool:
        """Take a ClientHello for a direct dial; False when an association that we have wants it."""
        checks = self._strangers.checks.all_at(pair, now)
        if hello.name:
            checks = [each for each in checks if attempt_name(each.claim.attempt) == hello.name]
        check = checks[0] if checks else None
        members = [each for each in self._routes.members(pair) if not each.established]
        # RFC 6347 §4.2.1: a client repeats its ClientHello with the same random.
        if check is None or any(each.hello_random == hello.random for each in members):
            return False
        rivals = [each for each in members if not isinstance(each.ice, LiteSession)]
        # A negotiated handshake that waits for a ClientHello here, and would win against this dial.
        if not hello.name and any(
            each.dtls_role == "server" and each.attempt <= check.claim.attempt for each in rivals
        ):
            return False
        if not self._strangers.admits(pair[0], now):
            return True
        self._strangers.allowance.earn(pair[0], len(data))
        verify = self._strangers.greet(hello, pair[0], now)
        if verify is not None:
            self._emit(verify, *pair)
        elif self._wins(check.claim.attempt, pair, "server", hello):
            self._open(check, hello, data, pair, now)
        return True

    # --- what becomes of it -----------------------------------------------------------------------

    def _open(
        self, check: HalfOpenCheck, hello: ClientHello, data: bytes, pair: AddressPair, now: float
    ) -> None:
        """A direct dial has proven its address: from here on it may cost us a handshake."""
        link = LinkId(self._next_link)
        inbound = sum(isinstance(each.ice, LiteSession) for each in self._links.values())
        crowded = inbound >= INBOUND_MAX or len(self._routes.members(pair)) >= PAIR_MAX
        if crowded or not self._half_open.admit(link, pair[0].host):
            self.counters["crowded"] += 1
            return
        self._next_link += 2
        checked = list(check.pairs)
        self._strangers.checks.remove(check)
        association = associations.accept(
            link, check, hello.random, pair, self._hosts, self._random, now
        )
        self._add(association)
        for each in checked:
            self._routes.join(association, each)
        self._secure(association, pair)
        self._record((link,), data, pair)
        self._settle(association)

    def _wins(
        self, attempt: bytes, pair: AddressPair, role: str, hello: ClientHello | None = None
    ) -> bool:
        """Glare: whether this attempt goes on, of the handshakes under way on a pair of addresses.

        Of two that the two ends have begun, the lower attempt: both hold the same attempts and so
        decide alike. Of two that one end has begun, the first whose path that end has found: the
        other end knows it by the ClientHello (`hello`, of a direct dial), which names its attempt.
        Of two direct dials that come in, the newer, for its dialler has dropped the older.
        """
        rivals = self._routes.opening_at(pair)
        for rival in rivals:
            older_dial = hello is not None and isinstance(rival.ice, LiteSession)
            if rival.dtls_role == role and (hello is None or hello.name):
                stands = hello is None
            else:
                stands = not older_dial and rival.attempt <= attempt
            if stands:
                self.counters["glare"] += 1
                return False
        for rival in rivals:
            self.counters["glare"] += 1
            self._lose(rival, EndReason.GLARE)
        return True

    def _secure(self, association: Association, pair: AddressPair) -> None:
        """The path stands: hand it over, with what came early."""
        assert association.deadline is not None
        association.secured = True
        self._follow(association, pair)
        self._outputs.append(association.secure())
        early, association.early = association.early, []
        for data in early:
            self._record((association.link,), data, pair)

    def _begin(self, association: Association, found: ice.Nominated | ice.Selected) -> None:
        """The agent has found a path: begin the handshake there, unless it loses to another."""
        pair = (found.remote, found.local)
        association.path, association.technique = found.path, found.technique
        if self._wins(association.attempt, pair, association.dtls_role):
            self._secure(association, pair)
        else:
            self._lose(association, EndReason.GLARE)

    def _move(self, association: Association, found: ice.Selected) -> None:
        """The agent follows the path to other addresses."""
        pair = (found.remote, found.local)
        if association.established or pair != association.pair:
            association.path, association.technique = found.path, found.technique
            self._follow(association, pair)
            self._outputs.append(Move(association.link, *pair, found.path, found.technique))
            self._revive(association)

    def _follow(self, association: Association, pair: AddressPair) -> None:
        """Its records go between these addresses from now on."""
        association.pair = pair
        association.validate(pair[0])
        self.circuits.move(association.link, pair)
        self._routes.join(association, pair)
        self._routes.arrange(association)

    def _settle(self, association: Association, pair: AddressPair | None = None) -> None:
        """Do what its agents want, after a datagram from `pair` or without one; set its timer."""
        for agent in association.agents:
            for output in agent.take():
                restarts = agent is not association.ice
                if restarts and isinstance(output, ice.Failed):
                    self._call_off(association)
                    continue
                if restarts and isinstance(output, ice.Selected):
                    self._take_over(association)
                    self._punching.on_restarted(association.link, output.local)
                self._on_output(association, output, pair)
                if association.link not in self._links:
                    return
        due = association.next_deadline()
        if due is not None and due != association.due:
            association.due = due
            self._timers.set(association.link, due)

    def _on_output(
        self, association: Association, output: ice.IceOutput, pair: AddressPair | None
    ) -> None:
        match output:
            case ice.SendStun():
                self._send(association, output, pair)
            case ice.Nominated() | ice.Selected() if not association.secured:
                self._begin(association, output)
            case ice.Selected():
                self._move(association, output)
            case ice.Failed(reason):
                if association.restarting is None:
                    self._lose(association, associations.FAILURES[reason])
                else:
                    self._take_over(association)  # and live or die by what it finds
            case ice.Mapped(address):
                association.mapped = address
                if association.established:
                    self._outputs.append(Mapped(association.link, address))
            case ice.Nominated():
                pass  # a restart's, or another: the handshake goes on where it has begun
            case _ if not association.established:
                pass  # before there is a link nothing is said of liveness, or asked by SCTP
            case ice.Confirm():
                self._confirm(association, output)
            case ice.Alive():
                self._revive(association)
            case ice.Suspect():
                association.doubtful = True
                self._outputs.append(LinkSuspect(association.link))
            case ice.Silent():
                self._on_silent(association)
            case _:
                assert_never(output)

    def _revive(self, association: Association) -> None:
        """It is heard again, or has been given another path."""
        self._refusals.on_heard(association.link)
        if association.doubtful:
            association.doubtful = False
            self._outputs.append(LinkAlive(association.link))

    def _on_silent(self, association: Association) -> None:
        assert association.pair is not None
        refused = self._refusals.on_silent(association.link, association.pair[0], self._judged_at)
        if refused and association.restarting is None:
            self._lose(association, EndReason.GONE)
        else:
            association.doubtful = True
            self._outputs.append(LinkSilent(association.link))

    def _send(
        self, association: Association, output: ice.SendStun, pair: AddressPair | None
    ) -> None:
        """A check or an answer of an agent."""
        data, remote = output.data, output.remote
        transaction_id = data[8:20]
        if pair is not None and remote == pair[0] and data[:2] == _SUCCESS:
            # It found the check from there authentic: a record may come from there too.
            self._answered.put(transaction_id, pair)
            self._routes.join(association, pair)
        if data[:2] == _REQUEST:
            if self._punching.is_quiet(association, remote):
                return  # as if it were lost: it is sent again
            self._asked.put(transaction_id, (association.link, remote))
        if remote in association.targets:
            self._outputs.append(Send(data, remote, output.local, output.ttl))
        else:
            self._emit(data, remote, output.local, output.ttl)

    def _confirm(self, association: Association, question: ice.Confirm) -> None:
        """A question of an agent that only the association can carry."""
        remote = question.remote
        if remote in association.targets or self._strangers.allowance.spend(
            remote, HEARTBEAT_BYTES
        ):
            self._outputs.append(Confirm(association.link, question.nonce, remote, question.local))
        else:
            self.counters["unverified"] += 1

    def _emit(
        self, data: bytes, remote: Address, local: Address | None, ttl: int | None = None
    ) -> None:
        """Send; to an address not validated, three times what it sent at most (RFC 9000 §8.1)."""
        if self._strangers.allowance.spend(remote, len(data)):
            self._outputs.append(Send(data, remote, local, ttl))
        else:
            self.counters["unverified"] += 1

    def _record(self, links: tuple[LinkId, ...], data: bytes, pair: AddressPair) -> None:
        if links:
            self._outputs.append(Record(links, data, *pair))
        else:
            self.counters["unknown"] += 1

    def _add(self, association: Association) -> None:
        assert association.link not in self._links, "begun twice"
        assert not self._names.keys() & set(association.names), "credentials are for one attempt"
        self._links[association.link] = association
        self._rename(association, association.names)

    def _lose(self, association: Association, reason: EndReason) -> None:
        """The association has ended; `reason` is of an attempt, a link is broken if not gone."""
        self._forget(association)
        if association.established:
            why = EndReason.GONE if reason is EndReason.GONE else EndReason.BROKEN
            self._outputs.append(LinkLost(association.link, why))
        else:
            self._outputs.append(DialFailed(association.link, reason))

    def _forget(self, association: Association) -> None:
        del self._links[association.link]
        self._call_off(association)
        self._rename(association, ())
        self._prepared.pop(association.link, None)
        self._timers.stop(association.link)
        self._refusals.on_heard(association.link)
        self._punching.forget(association.link)
        self._half_open.release(association.link)
        self._routes.leave_all(association)
        self.circuits.end(association.link)
