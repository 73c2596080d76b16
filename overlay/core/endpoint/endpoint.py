"""The node's one UDP port as a state machine: who a datagram is for, and what strangers may cost.

Told apart by first byte (RFC 7983), then STUN by USERNAME and transaction id, DTLS by its pair of
addresses. Three kinds of talk share the port: full ICE (our own dials, and what offers and answers
negotiate), direct dials that come in (ICE-lite, opened by a token), and plain STUN. The rules that
hold whatever anybody sends:

1. A check, spoofed or replayed, never redirects an association: its records go on to where they
   went until a record from a freshly checked address has decrypted.
2. Nothing but bounded table lines is kept for who has not proven that it receives at its address;
   it gets no more than three times the bytes that it sent.
3. Nothing established is displaced here: a new association on the same addresses stands beside it
   until the hello decides.

Residual: who holds a valid dial token *and* spoofs the very address of another dialler during its
round trip can have that one attempt fail (never taken over: its hello signs the attempt).
"""

from collections import Counter
from collections.abc import Sequence
from typing import assert_never

from overlay.core.endpoint.association import (
    HOST_PRIORITY,
    accept,
    begin_dial,
    begin_negotiate,
    begin_prepare,
    secure,
    start,
)
from overlay.core.endpoint.dtls_cookie import (
    ClientHello,
    is_alert,
    is_plain,
    is_record,
    parse_client_hello,
)
from overlay.core.endpoint.outputs import (
    Alive,
    Description,
    DoorOutput,
    Lost,
    Observed,
    Record,
    Secure,
    Selected,
    Send,
    Silent,
    Suspect,
)
from overlay.core.endpoint.routes import Association, Routes
from overlay.core.endpoint.strangers import Strangers
from overlay.core.events import Dial, Negotiate, Prepare
from overlay.core.ice import agent as ice
from overlay.core.ice import stun
from overlay.core.ice.lite import Knock, LiteSession, Pair
from overlay.core.limits import HalfOpen, Recent
from overlay.core.timers import Timers
from overlay.core.types import Address, Candidate, LinkId, Random

__all__ = [
    "Alive",
    "Door",
    "DoorOutput",
    "Lost",
    "Observed",
    "Record",
    "Secure",
    "Selected",
    "Send",
    "Silent",
    "Suspect",
]

TRANSACTIONS_MAX = 4096
"""Checks of ours whose answer we can route, and of others that we know when replayed. guess"""
INBOUND_MAX = 1024
"""Associations that direct dials may make. guess"""
PAIR_MAX = 8
"""Associations at one pair of addresses: each garbage record there is tried on all. guess"""
HEARD_INTERVAL = 0.1
"""An agent is told at most this often that a link is heard: liveness needs no finer grain. guess"""

_REQUEST = b"\x00\x01"
_SUCCESS = b"\x01\x01"
"""First bytes of a Binding request and of its success response (RFC 8489 §5)."""


class Door:
    """The port. `random` draws transaction ids and must be unpredictable where it matters."""

    def __init__(self, *, dial_key: bytes, cookie_key: bytes, random: Random) -> None:
        self.counters: Counter[str] = Counter()
        """By kind: stun_served, refused_token, refused_cookie, rate_limited, replayed, malformed,
        unknown (for nobody here), unverified (more than three times its bytes), plain_alert, glare,
        crowded (handshakes beyond the limits)."""
        self._random = random
        self._strangers = Strangers(dial_key, cookie_key, self.counters)
        self._links: dict[LinkId, Association] = {}
        self._prepared: dict[LinkId, ice.IceAgent] = {}
        """Agents that wait for `negotiate`."""
        self._names: dict[str, LinkId] = {}
        self._routes = Routes()
        self._half_open = HalfOpen()
        self._asked: Recent[bytes, tuple[LinkId, Address]] = Recent(TRANSACTIONS_MAX)
        self._answered: Recent[bytes, Pair] = Recent(TRANSACTIONS_MAX)
        self._timers: Timers[LinkId] = Timers()
        self._next_link = 1
        self._hosts: tuple[Candidate, ...] = ()
        self._outputs: list[DoorOutput] = []

    # --- what the shell knows ---------------------------------------------------------------------

    def set_wall(self, offset: float) -> None:
        """Wall time (Unix seconds) is `now` + `offset`; before this no token is valid."""
        self._strangers.wall_offset = offset

    def set_local(self, addresses: Sequence[Address]) -> None:
        """Our addresses; they only describe us (`description`)."""
        self._hosts = tuple(
            Candidate("host", address, HOST_PRIORITY - (index << 8))
            for index, address in enumerate(addresses)
        )

    # --- what the core wants ----------------------------------------------------------------------

    def dial(self, effect: Dial, now: float) -> None:
        """Dial a listener; `Secure` or `Lost` follows.

        One dial to one address at a time: a ClientHello does not say which dial it belongs to.
        """
        busy = [address for each in self._links.values() for address in each.dialling]
        if any(address in busy for address in effect.addresses):
            self._outputs.append(Lost(effect.link, "glare"))
            return
        association = begin_dial(effect, self._hosts, self._random, now)
        self._add(association)
        self._settle(association)

    def prepare(self, effect: Prepare, now: float) -> None:
        """Answer the checks of a peer whose answer has not reached us yet."""
        agent, association = begin_prepare(effect, self._random, now)
        self._prepared[effect.link] = agent
        self._add(association)

    def negotiate(self, effect: Negotiate, now: float) -> None:
        """Start full ICE, prepared or not; `Secure` or `Lost` follows."""
        agent = self._prepared.pop(effect.link, None)
        if agent is None:
            agent, association = begin_negotiate(effect, self._random, now)
            self._add(association)
        association = self._links[effect.link]
        start(association, agent, effect, now)
        self._settle(association)

    # --- what the shell has done ------------------------------------------------------------------

    def decrypted(self, link: LinkId, remote: Address, now: float) -> None:
        """A record from `remote` has decrypted to something on this link."""
        association = self._links.get(link)
        if association is None or association.pair is None:
            return
        if now < association.quiet_until and remote == association.pair[0]:
            return
        association.quiet_until = now + HEARD_INTERVAL
        self._routes.prefer(association, association.pair)
        association.ice.heard(remote, now)
        self._settle(association)

    def established(self, link: LinkId, now: float) -> None:
        """DTLS and SCTP stand: no longer half-open; `Suspect` and its like may follow."""
        association = self._links.get(link)
        if association is None or association.pair is None:
            return
        association.established = True
        association.deadline = None
        self._half_open.release(link)
        self._routes.arrange(association)
        if association.observed is not None:
            self._outputs.append(Observed(link, association.observed))
        association.ice.heard(association.pair[0], now)
        self._settle(association)

    def admitted(self, link: LinkId, now: float) -> None:
        """The hello has shown an overlay node: it checks every 2 s, so 6 s of silence mean down."""
        association = self._links.get(link)
        if association is not None and isinstance(association.ice, LiteSession):
            association.ice.admit(now)
            self._settle(association)

    def close(self, link: LinkId, now: float) -> None:  # noqa: ARG002 - one shape for all calls
        """Forget it, known or not; nothing more is said of it (a `Record` may still name it)."""
        association = self._links.get(link)
        if association is not None:
            self._forget(association)
        self._outputs = [
            output
            for output in self._outputs
            if isinstance(output, Send | Record) or output.link != link
        ]

    # --- what the shell asks ----------------------------------------------------------------------

    def association_of(self, data: bytes, remote: Address, local: Address | None) -> LinkId | None:
        """The fast path: whose encrypted record this is, when only one link can read it.

        Feed it to that link and, if it decrypted, call `decrypted`. None: call `receive`.
        """
        route = self._routes.get((remote, local))
        if route is None or route.only is None or not is_record(data) or is_plain(data):
            return None
        return route.only

    def route(self, link: LinkId) -> Pair | None:
        """Where the link's datagrams go, and which local address they leave from."""
        association = self._links.get(link)
        return None if association is None else association.pair

    def rtt(self, link: LinkId) -> float | None:
        """The round trip in seconds that checks have measured; a listener measures none."""
        association = self._links.get(link)
        return None if association is None else association.ice.rtt

    def description(self, link: LinkId) -> Description | None:
        """Both sides' credentials (a listener never learns the dialler's) and candidates."""
        association = self._links.get(link)
        if association is None:
            return None
        agent = association.ice
        return agent.local, agent.remote, association.candidates, association.remote_candidates

    def next_deadline(self) -> float | None:
        """When `handle_timeout` wants to be called."""
        return self._timers.next_deadline()

    def take(self) -> list[DoorOutput]:
        """Drain the outputs; call it after every other call."""
        outputs, self._outputs = self._outputs, []
        return outputs

    # --- what comes in ----------------------------------------------------------------------------

    def handle_timeout(self, now: float) -> None:
        """Do what is due at `now`."""
        for link in self._timers.pop_due(now):
            association = self._links.get(link)
            if association is None:
                continue  # lost to another that was due
            association.due = None
            if association.deadline is not None and now >= association.deadline:
                self._lose(association, "timeout")
            else:
                association.ice.handle_timeout(now)
                self._settle(association)

    def receive(self, data: bytes, remote: Address, local: Address | None, now: float) -> None:
        """A datagram from anybody. Never raises, whatever it says (RFC 7983 §7)."""
        pair = (remote, local)
        if is_record(data):
            self._on_record(data, pair, now)
        elif data and data[0] < 4:
            self._on_stun(data, pair, now)
        else:
            self.counters["unknown"] += 1

    def _on_stun(self, data: bytes, pair: Pair, now: float) -> None:
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

    def _on_request(self, request: stun.Message, pair: Pair, now: float) -> None:
        username = request.username or ""
        link = self._names.get(username)
        if link is None:
            link = self._names.get(username.partition(":")[0])
        if link is not None:
            self._on_check(self._links[link], request, pair, now)
        elif self._routes.get(pair) is not None and not self._strangers.admits(pair[0], now):
            pass  # addresses of associations are not charged on receipt: here they are strangers
        elif request.username is None:
            self._emit(self._strangers.serve(request, pair[0]), *pair)
        else:
            self._emit(self._strangers.knock(request, username, pair, now), *pair)

    def _on_check(
        self, association: Association, request: stun.Message, pair: Pair, now: float
    ) -> None:
        """A check that names this association, genuine or not."""
        if self._answered.get(request.transaction_id, pair) != pair:
            self.counters["replayed"] += 1  # a check's integrity does not cover where it came from
            return
        association.ice.receive(request, *pair, now)
        self._settle(association, pair)

    def _on_response(self, response: stun.Message, pair: Pair, now: float) -> None:
        link, asked = self._asked.get(response.transaction_id, (None, None))
        association = None if link is None else self._links.get(link)
        if association is None or pair[0] != asked:
            self.counters["unknown"] += 1
            return
        association.vouch(asked)  # nobody else knows the transaction id
        self._routes.join(association, pair)
        association.ice.receive(response, *pair, now)
        self._settle(association, pair)

    def _on_record(self, data: bytes, pair: Pair, now: float) -> None:
        """Established associations first, then half-open ones; plain records the other way."""
        route = self._routes.get(pair)
        if not is_plain(data):
            self._record(route.sealed if route else (), data, pair)
        elif is_alert(data):
            # Anybody can write one, and a fatal one would end a handshake (RFC 6347 §4.1.2.7).
            self.counters["plain_alert"] += 1
        else:
            hello = parse_client_hello(data)
            if hello is not None and self._on_client_hello(hello, data, pair, now):
                return
            if route is None or not route.keep(data):
                self._record(route.plain(data) if route else (), data, pair)

    def _on_client_hello(self, hello: ClientHello, data: bytes, pair: Pair, now: float) -> bool:
        """Take a ClientHello for a direct dial; False when an association that we have wants it."""
        knock = self._strangers.knocks.at(pair, now)
        members = [each for each in self._routes.members(pair) if not each.established]
        if knock is None or any(each.hello_random == hello.random for each in members):
            return False
        rivals = [each for each in members if not isinstance(each.ice, LiteSession)]
        if any(
            each.dtls_role == "server" and each.attempt <= knock.claim.attempt for each in rivals
        ):
            return False
        if not self._strangers.admits(pair[0], now):
            return True
        self._strangers.allowance.earn(pair[0], len(data))
        verify = self._strangers.greet(hello, pair[0], now)
        if verify is not None:
            self._emit(verify, *pair)
        elif self._wins(knock.claim.attempt, pair, inbound=True):
            self._open(knock, hello, data, pair, now)
        return True

    # --- what becomes of it -----------------------------------------------------------------------

    def _open(self, knock: Knock, hello: ClientHello, data: bytes, pair: Pair, now: float) -> None:
        """A direct dial has proven its address: from here on it may cost us a handshake."""
        link = LinkId(self._next_link)
        inbound = sum(isinstance(each.ice, LiteSession) for each in self._links.values())
        crowded = inbound >= INBOUND_MAX or len(self._routes.members(pair)) >= PAIR_MAX
        if crowded or not self._half_open.admit(link, pair[0].host):
            self.counters["crowded"] += 1
            return
        self._next_link += 2
        checked = list(knock.pairs)
        self._strangers.knocks.remove(knock)
        association = accept(link, knock, hello.random, pair, self._hosts, now)
        self._add(association)
        for each in checked:
            self._routes.join(association, each)
        self._secure(association, pair)
        self._record((link,), data, pair)
        self._settle(association)

    def _wins(self, attempt: bytes, pair: Pair, *, inbound: bool) -> bool:
        """Glare (DESIGN.md): of the handshakes on one pair of addresses the lower attempt wins.

        Both ends hold the same attempts and so decide alike. Between two direct dials that come
        in, the newer wins: its dialler has sent a fresh ClientHello and so dropped the older.
        """
        rivals = self._routes.opening_at(pair)
        for rival in rivals:
            older_dial = inbound and isinstance(rival.ice, LiteSession)
            if not older_dial and rival.attempt <= attempt:
                self.counters["glare"] += 1
                return False
        for rival in rivals:
            self.counters["glare"] += 1
            self._lose(rival, "glare")
        return True

    def _secure(self, association: Association, pair: Pair) -> None:
        """The path stands: hand it over, with what came early."""
        assert association.deadline is not None
        association.secured = True
        association.pair = pair
        association.vouch(pair[0])
        self._routes.join(association, pair)
        self._routes.arrange(association)
        self._outputs.append(secure(association))
        early, association.early = association.early, []
        for data in early:
            self._record((association.link,), data, pair)

    def _on_selected(self, association: Association, selected: ice.Selected) -> None:
        """The agent has found a path, or follows it to other addresses."""
        pair = (selected.remote, selected.local)
        association.path = selected.path
        if association.secured:
            association.pair = pair
            association.vouch(pair[0])
            self._routes.join(association, pair)
            self._routes.arrange(association)
            self._outputs.append(Selected(association.link, *pair, selected.path))
        elif self._wins(association.attempt, pair, inbound=False):
            self._secure(association, pair)
        else:
            self._lose(association, "glare")

    def _settle(self, association: Association, pair: Pair | None = None) -> None:
        """Do what its agent wants, after a datagram from `pair` or without one; set its timer."""
        for output in association.ice.take():
            match output:
                case ice.SendStun():
                    self._send(association, output, pair)
                case ice.Selected():
                    self._on_selected(association, output)
                case ice.Failed(reason):
                    self._lose(association, reason)
                case ice.Observed(address):
                    association.observed = address
                    if association.established:
                        self._outputs.append(Observed(association.link, address))
                case _ if not association.established:
                    pass  # liveness says nothing before there is a link
                case ice.Suspect():
                    self._outputs.append(Suspect(association.link))
                case ice.Alive():
                    self._outputs.append(Alive(association.link))
                case ice.Silent():
                    self._outputs.append(Silent(association.link))
                case _:
                    assert_never(output)
            if association.link not in self._links:
                return
        due = association.next_deadline()
        if due is not None and due != association.due:
            association.due = due
            self._timers.set(association.link, due)

    def _send(self, association: Association, output: ice.SendStun, pair: Pair | None) -> None:
        """A check or an answer of an agent."""
        data, remote = output.data, output.remote
        transaction_id = data[8:20]
        if pair is not None and remote == pair[0] and data[:2] == _SUCCESS:
            # It found the check from there authentic.
            self._answered.put(transaction_id, pair)
            self._routes.join(association, pair)
        if data[:2] == _REQUEST:
            self._asked.put(transaction_id, (association.link, remote))
        self._emit(data, remote, output.local, vouched=remote in association.targets)

    def _emit(
        self, data: bytes, remote: Address, local: Address | None, *, vouched: bool = False
    ) -> None:
        """Send; without anybody's word for the address, at most three times what it sent."""
        if vouched or self._strangers.allowance.spend(remote, len(data)):
            self._outputs.append(Send(data, remote, local))
        else:
            self.counters["unverified"] += 1

    def _record(self, links: tuple[LinkId, ...], data: bytes, pair: Pair) -> None:
        if links:
            self._outputs.append(Record(links, data, *pair))
        else:
            self.counters["unknown"] += 1

    def _add(self, association: Association) -> None:
        assert association.link not in self._links, "begun twice"
        assert association.name not in self._names, "credentials are for one attempt"
        self._links[association.link] = association
        self._names[association.name] = association.link

    def _lose(self, association: Association, reason: str) -> None:
        self._forget(association)
        self._outputs.append(Lost(association.link, reason))

    def _forget(self, association: Association) -> None:
        del self._links[association.link]
        del self._names[association.name]
        self._prepared.pop(association.link, None)
        self._timers.stop(association.link)
        self._half_open.release(association.link)
        self._routes.leave_all(association)
        if isinstance(association.ice, LiteSession):
            self._strangers.knocks.wear(association.name)
