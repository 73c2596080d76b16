"""How an association begins: by one of the core's three effects, or by a direct dial coming in."""

from overlay.core.endpoint.outputs import Secure
from overlay.core.endpoint.routes import Association
from overlay.core.events import Dial, Negotiate, Prepare
from overlay.core.ice import agent as ice
from overlay.core.ice.lite import Knock, LiteSession, Pair
from overlay.core.limits import HALF_OPEN_TIMEOUT
from overlay.core.types import Candidate, LinkId, Random

HOST_PRIORITY = 126 << 24 | 65_535 << 8 | 255
"""RFC 8445 §5.1.2.1, of the best host candidate."""


def begin_dial(
    effect: Dial, hosts: tuple[Candidate, ...], random: Random, now: float
) -> Association:
    """Our side of a direct dial: a full agent towards one listener.

    It pins no local address: the routing table knows the way to each target.
    """
    agent = ice.IceAgent(
        controlling=True,
        local=effect.local,
        candidates=(),
        random=random,
        now=now,
        timeout=effect.timeout,
    )
    targets = tuple(
        Candidate("host", address, HOST_PRIORITY - (rank << 8))
        for rank, address in enumerate(effect.addresses)
    )
    agent.start(effect.remote, targets, now, remote_lite=True)
    return Association(
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
        targets=dict.fromkeys(effect.addresses),
        name=effect.local.ufrag,
    )


def begin_prepare(effect: Prepare, random: Random, now: float) -> tuple[ice.IceAgent, Association]:
    """The offerer's side before the answer: it only answers checks, until its core says more."""
    agent = ice.IceAgent(
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
        name=effect.local.ufrag,
    )
    return agent, association


def begin_negotiate(
    effect: Negotiate, random: Random, now: float
) -> tuple[ice.IceAgent, Association]:
    """A side of a negotiated link that was not prepared: the answerer's."""
    agent = ice.IceAgent(
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
        name=effect.local.ufrag,
    )
    return agent, association


def start(association: Association, agent: ice.IceAgent, effect: Negotiate, now: float) -> None:
    """Offer and answer are both known: check."""
    association.started = True
    association.fingerprint = effect.fingerprint
    association.deadline = now + effect.timeout
    association.remote_candidates = effect.remote_candidates
    for candidate in effect.remote_candidates:
        association.vouch(candidate.address)
    agent.start(effect.remote, effect.remote_candidates, now)


def accept(
    link: LinkId,
    knock: Knock,
    hello_random: bytes,
    pair: Pair,
    hosts: tuple[Candidate, ...],
    now: float,
) -> Association:
    """The listener's side of a direct dial whose cookie was valid."""
    return Association(
        link=link,
        ice=LiteSession(knock.username, knock.local, pair, now),
        attempt=knock.claim.attempt,
        inbound=True,
        dtls_role="server",
        fingerprint=None,
        deadline=now + HALF_OPEN_TIMEOUT,
        direct=True,
        claim=knock.claim,
        candidates=hosts,
        remote_candidates=(Candidate("prflx", pair[0], HOST_PRIORITY),),
        name=knock.username,
        hello_random=hello_random,
    )


def secure(association: Association) -> Secure:
    """What the shell has to know to make the DTLS association, now that the path stands."""
    assert association.deadline is not None
    assert association.pair is not None
    return Secure(
        link=association.link,
        inbound=association.inbound,
        dtls_role=association.dtls_role,
        remote=association.pair[0],
        local=association.pair[1],
        path=association.path,
        attempt=association.attempt,
        fingerprint=association.fingerprint,
        claim=association.claim,
        cookie_exchanged=association.claim is not None,
        deadline=association.deadline,
    )
