"""An association: one link or attempt on the port, and how each kind of it begins.

It begins by one of the core's three effects (`Dial`, `Prepare`, `Negotiate`), or by a direct dial
of a peer's that has shown a valid token and a valid cookie (`accept`).
"""

from dataclasses import dataclass, field
from typing import Protocol

from overlay.core.addresses import candidate_priority, is_circuit
from overlay.core.endpoint.dtls_cookie import (
    ONLY_OF_CLIENTS,
    ONLY_OF_SERVERS,
    SERVER_GREETINGS,
    attempt_name,
    handshake_type,
)
from overlay.core.endpoint.outputs import Secure
from overlay.core.events import Dial, Negotiate, Prepare, Restart
from overlay.core.ice import stun
from overlay.core.ice.agent import IceAgent
from overlay.core.ice.lite import HalfOpenCheck, LiteSession, kind_from
from overlay.core.ice.outputs import AddressPair, Failure, IceOutput
from overlay.core.ice.path import RoundTrip
from overlay.core.limits import HALF_OPEN_TIMEOUT, BoundedDict
from overlay.core.types import (
    Address,
    Candidate,
    EndReason,
    IceCredentials,
    LinkId,
    PathKind,
    Random,
    Technique,
)
from overlay.core.wire.dial_tokens import Claim

TARGETS_MAX = 24
"""Addresses of one link, signalled or validated; the one validated longest ago goes (guess)."""

FAILURES = {
    Failure.TIMEOUT: EndReason.TIMEOUT,
    Failure.SILENT: EndReason.TIMEOUT,
    Failure.CONFLICT: EndReason.PROTOCOL,
}
"""Why an attempt ends when its agent has given up."""


class Ice(Protocol):
    """What the endpoint needs of an ICE agent; `IceAgent` and `LiteSession` have it."""

    @property
    def local(self) -> IceCredentials: ...

    @property
    def remote(self) -> IceCredentials | None: ...

    @property
    def round_trip(self) -> RoundTrip: ...

    def receive(
        self, message: stun.Message, remote: Address, local: Address | None, now: float
    ) -> None: ...

    def acknowledged(self, now: float) -> None: ...

    def unacknowledged(self, now: float) -> None: ...

    def confirmed(
        self, nonce: bytes, remote: Address, local: Address | None, now: float
    ) -> bool: ...

    def handle_timeout(self, now: float) -> None: ...

    def next_deadline(self) -> float | None: ...

    def take(self) -> list[IceOutput]: ...


HANDSHAKE_ROUND_TRIPS, ORDINARY_ROUND_TRIP = 10, 0.3
"""Of so many round trips each may take as many seconds before the attempt gets more time (guess): a
handshake takes six if nothing is lost, one of them for a cookie."""
LONGER_MAX = 20.0
"""Seconds that it gets at most beside: who answers slowly on purpose holds little (guess)."""


@dataclass(slots=True, eq=False)
class Association:
    """One link or attempt on the port, from its first check to its end."""

    link: LinkId
    ice: Ice
    attempt: bytes
    inbound: bool
    dtls_role: str
    fingerprint: bytes | None
    deadline: float | None
    """When the attempt has failed; None while it is only prepared, and once established."""
    direct: bool = False
    """A direct dial, ours or a peer's; else negotiated."""
    claim: Claim | None = None
    """Of an inbound direct dial."""
    candidates: tuple[Candidate, ...] = ()
    remote_candidates: tuple[Candidate, ...] = ()
    started: bool = True
    """False while only prepared."""
    names: tuple[str, ...] = ()
    """What checks call it: the whole USERNAME of a direct dial that comes in, else our fragment."""
    restarting: "Restarting | None" = None
    """A restart of ICE that looks for another path."""
    due: float | None = None
    """The deadline that is set for it."""
    pair: AddressPair | None = None
    """Where its datagrams go; None before the path stands."""
    path: PathKind = PathKind.HOST
    technique: Technique | None = None
    """How offer and answer have found the path, if they have."""
    secured: bool = False
    established: bool = False
    doubtful: bool = False
    """Said to be suspect or silent, and not to be alive again."""
    mapped: Address | None = None
    """Our address as the peer sees it, told once the link is established."""
    hello_random: bytes = b""
    """Of the ClientHello that opened it."""
    pairs: dict[AddressPair, None] = field(default_factory=dict)
    """Where authenticated checks came from, and `pair`: where it may be heard."""
    targets: BoundedDict[Address, None] = field(default_factory=lambda: BoundedDict(TARGETS_MAX))
    """Where its checks may go unasked: what was signalled, and what has answered us since."""
    greeted: bool = False
    """As client: the server's hello has come."""
    early: list[bytes] = field(default_factory=list)
    """Records that came before our side of the path stood."""
    quiet_until: float = float("-inf")
    """Until then another record from where its datagrams go tells nothing new."""

    def may_be_restarted_by(self, check: HalfOpenCheck) -> bool:
        """Whether it was opened with the same dial token, and its dialler checks as a dialler."""
        mine, its = self.claim, check.claim
        if mine is None or not self.established or not isinstance(self.ice, LiteSession):
            return False
        return (mine.kind, mine.token_id) == (its.kind, its.token_id)

    def likeness(self, check: HalfOpenCheck, pair: AddressPair) -> tuple[bool, bool, bool, LinkId]:
        """Which of several it is, most likely: the largest.

        The same attempt says all. Else one that is in doubt: why should another restart? Else one
        from the same host, and the last that came in.
        """
        assert self.claim is not None
        assert self.pair is not None
        same_host = self.pair[0].host == pair[0].host
        return self.claim.attempt == check.claim.attempt, self.doubtful, same_host, self.link

    @property
    def dialling(self) -> tuple[Address, ...]:
        """Where this direct dial of ours is looking for its listener, if it is one."""
        if not self.direct or self.inbound or self.established:
            return ()
        return tuple(candidate.address for candidate in self.remote_candidates)

    def goes_by(self, name: bytes) -> bool:
        """Whether a ClientHello of this name may be for it; empty: it does not say whose it is."""
        return not name or attempt_name(self.attempt) == name

    def takes(self, data: bytes) -> bool:
        """Whether this plain record can belong to its handshake.

        On a pair where another handshake has just lost, records of that one still come in, and a
        message out of turn ends a handshake for good (RFC 5246 §7.4: a fatal alert).
        """
        kind = handshake_type(data)
        if self.dtls_role == "server":
            return kind not in ONLY_OF_SERVERS
        self.greeted |= kind in SERVER_GREETINGS
        return self.greeted and kind not in ONLY_OF_CLIENTS

    def next_deadline(self) -> float | None:
        """When it wants to be looked at."""
        deadlines = (self.deadline, *(agent.next_deadline() for agent in self.agents))
        return min((each for each in deadlines if each is not None), default=None)

    @property
    def agents(self) -> "tuple[Ice, ...]":
        """Whoever answers checks for it: the agent of its path, and one that restarts."""
        return (self.ice,) if self.restarting is None else (self.ice, self.restarting.agent)

    def agent_of(self, username: str) -> Ice:
        """Whom a check with this USERNAME is for."""
        restarting = self.restarting
        if restarting is None or username.partition(":")[0] != restarting.agent.local.ufrag:
            return self.ice
        return restarting.agent

    def validate(self, remote: Address) -> None:
        """`remote` was signalled, or has proven that it receives what we send there."""
        self.targets.put(remote, None)

    def secure(self) -> Secure:
        """What the shell has to know to make the DTLS association, now that the path stands.

        Where a round trip takes a second, so does each of the handshake's: it has their time.
        """
        assert self.deadline is not None
        longer = max(0.0, self.ice.round_trip.usual - ORDINARY_ROUND_TRIP)
        self.deadline += min(LONGER_MAX, HANDSHAKE_ROUND_TRIPS * longer)
        assert self.pair is not None
        return Secure(
            link=self.link,
            inbound=self.inbound,
            dtls_role=self.dtls_role,
            remote=self.pair[0],
            local=self.pair[1],
            path=self.path,
            attempt=self.attempt,
            fingerprint=self.fingerprint,
            claim=self.claim,
            cookie_exchanged=self.claim is not None and not is_circuit(self.pair[0]),
            deadline=self.deadline,
            technique=self.technique,
        )


def host_candidates(addresses: tuple[Address, ...]) -> tuple[Candidate, ...]:
    """A host candidate at each address, best first."""
    return tuple(
        Candidate("host", address, candidate_priority("host", rank))
        for rank, address in enumerate(addresses)
    )


def _targets(addresses: tuple[Address, ...]) -> tuple[Candidate, ...]:
    """Where a direct dial looks for its listener: at a host's addresses, or over circuits."""
    return tuple(
        Candidate(kind, address, candidate_priority(kind, rank))
        for rank, address in enumerate(addresses)
        for kind in ("relay" if is_circuit(address) else "host",)
    )


def begin_dial(
    effect: Dial, hosts: tuple[Candidate, ...], random: Random, now: float
) -> Association:
    """Our side of a direct dial: a full agent towards one listener.

    It pins no local address: the routing table knows the way to each target.
    """
    agent = IceAgent(
        controlling=True,
        local=effect.local,
        candidates=(),
        random=random,
        now=now,
        timeout=effect.timeout,
    )
    targets = _targets(effect.addresses)
    agent.start(effect.remote, targets, now, remote_lite=True)
    association = Association(
        link=effect.link,
        ice=agent,
        attempt=effect.attempt,
        inbound=False,
        dtls_role="client",
        fingerprint=effect.fingerprint,
        deadline=now + effect.timeout,
        direct=True,
        candidates=hosts,
        remote_candidates=targets,
        names=(effect.local.ufrag,),
    )
    for address in effect.addresses:
        association.validate(address)
    return association


def begin_prepare(effect: Prepare, random: Random, now: float) -> tuple[IceAgent, Association]:
    """The offerer's side before the answer: it only answers checks, until its core says more."""
    agent = IceAgent(
        controlling=True,
        local=effect.local,
        candidates=effect.candidates,
        random=random,
        now=now,
    )
    association = Association(
        link=effect.link,
        ice=agent,
        attempt=effect.attempt,
        inbound=False,
        dtls_role="client",
        fingerprint=None,
        deadline=None,
        candidates=effect.candidates,
        started=False,
        names=(effect.local.ufrag,),
    )
    return agent, association


def begin_negotiate(effect: Negotiate, random: Random, now: float) -> tuple[IceAgent, Association]:
    """A side of a negotiated link that was not prepared: the answerer's."""
    agent = IceAgent(
        controlling=effect.controlling,
        local=effect.local,
        candidates=effect.candidates,
        random=random,
        now=now,
        timeout=effect.timeout,
    )
    association = Association(
        link=effect.link,
        ice=agent,
        attempt=effect.attempt,
        inbound=not effect.controlling,
        dtls_role="client" if effect.controlling else "server",
        fingerprint=effect.fingerprint,
        deadline=None,
        candidates=effect.candidates,
        names=(effect.local.ufrag,),
    )
    return agent, association


def start(association: Association, agent: IceAgent, effect: Negotiate, now: float) -> None:
    """Offer and answer are both known: check."""
    association.started = True
    association.fingerprint = effect.fingerprint
    association.deadline = now + effect.timeout
    association.remote_candidates = effect.remote_candidates
    for candidate in effect.remote_candidates:
        association.validate(candidate.address)
    agent.start(effect.remote, effect.remote_candidates, now, low_ttl=effect.low_ttl)


@dataclass(frozen=True, slots=True)
class Restarting:
    """A restart under way: a second agent beside that of the path."""

    agent: IceAgent
    effect: Restart


def begin_restart(association: Association, effect: Restart, random: Random, now: float) -> None:
    """Let a full agent look for a path with fresh credentials (RFC 8445 §9).

    That of the path goes on as before, whatever kind it is of: so a restart that fails has changed
    nothing, and a LiteSession, which cannot check, needs no other treatment.
    """
    agent = IceAgent(
        controlling=effect.controlling,
        local=effect.local,
        candidates=effect.candidates,
        random=random,
        now=now,
        timeout=effect.timeout,
        secured=True,
    )
    association.restarting = Restarting(agent, effect)
    for candidate in effect.remote_candidates:
        association.validate(candidate.address)
    agent.start(effect.remote, effect.remote_candidates, now, low_ttl=effect.low_ttl)


def take_over(association: Association) -> tuple[str, ...]:
    """Replace the agent of the path by the one that restarts; returns what checks call it now."""
    assert association.restarting is not None
    agent, effect = association.restarting.agent, association.restarting.effect
    association.restarting = None
    association.ice = agent
    association.candidates = effect.candidates
    association.remote_candidates = effect.remote_candidates
    return (effect.local.ufrag,)


def exchange_ice(one: Association, other: Association) -> None:
    """Each gets the other's agent, with what belongs to it: name, candidates, targets, mapping."""
    one.ice, other.ice = other.ice, one.ice
    one.names, other.names = other.names, one.names
    one.candidates, other.candidates = other.candidates, one.candidates
    one.remote_candidates, other.remote_candidates = other.remote_candidates, one.remote_candidates
    one.targets, other.targets = other.targets, one.targets
    one.mapped, other.mapped = other.mapped, one.mapped
    one.path, other.path = other.path, one.path
    one.technique, other.technique = other.technique, one.technique


def accept(
    link: LinkId,
    check: HalfOpenCheck,
    hello_random: bytes,
    pair: AddressPair,
    hosts: tuple[Candidate, ...],
    random: Random,
    now: float,
) -> Association:
    """The listener's side of a direct dial whose cookie was valid."""
    # For people who ask for the link's description only: a lite agent checks nothing, so nothing
    # goes by this priority.
    dialler = Candidate("prflx", pair[0], candidate_priority("host"))
    return Association(
        link=link,
        ice=LiteSession(check.local, pair, random, now),
        attempt=check.claim.attempt,
        inbound=True,
        dtls_role="server",
        fingerprint=None,
        deadline=now + HALF_OPEN_TIMEOUT,
        direct=True,
        path=kind_from(pair[0]),
        claim=check.claim,
        candidates=hosts,
        remote_candidates=(dialler,),
        names=(check.username,),
        hello_random=hello_random,
    )
