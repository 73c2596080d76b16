"""The attempts of one node towards all its peers: what all the ways to a peer share.

Also how long each peer rests after rounds in vain, and who may be tried sooner again.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from overlay.core.addresses import is_global_ipv6
from overlay.core.connect.attempts import Attempts, Due
from overlay.core.connect.history import History, Outcome, Rung
from overlay.core.connect.low_ttl import Signalling
from overlay.core.context import Context
from overlay.core.events import Hangup
from overlay.core.link.links import Links
from overlay.core.membership.records import RecordBook
from overlay.core.nat.pairs import direct
from overlay.core.nat.reflexive import Reflexive
from overlay.core.routing.routing import Routing
from overlay.core.timers import Timers
from overlay.core.types import EndReason, LinkId, PathKind, PeerId
from overlay.core.wire.documents import CandidateEntry

PEERS_MAX = 1024
"""Peers of whose attempts we know; beyond it one that nothing is under way to is forgotten."""
COMMAND_RETRY = 2.0
"""Seconds (guess) of rest at most while a command waits."""
BACKOFF_FIRST, BACKOFF_MAX = 2.0, 300.0
"""Seconds (guess) of rest after the first round in vain, twice as many after each other one, at
most: who has died draws ten rounds from a node in its first ten minutes, whoever wants it."""
DOUBLINGS_MAX = 8
CUT_OFF_MAX = 15.0
"""The longest rest (guess) while more peers cannot be reached than are linked: then it is likelier
that we are cut off than that they are dead, and one of them is enough to find all others again."""
FORGIVE_AFTER = 3
"""Rounds in vain after which word from a peer means that a partition is over (guess)."""
FORGIVE_INTERVAL = 60.0
"""Seconds (guess) between two times that everybody's rest ends early for that."""
ATTEMPT_FAILED = "attempt_failed"
"""The report on each round that came to nothing; programs hear of it, too."""


class Failed(NamedTuple):
    """One way to a peer has come to nothing, for this reason."""

    attempts: Attempts
    rung: Rung
    code: str
    text: str


@dataclass(slots=True)
class Table:
    """Every peer towards whom something is under way, is waited for, or has been in vain."""

    context: Context
    links: Links
    routing: Routing
    book: RecordBook
    reflexive: Reflexive
    nat: Callable[[], list[str]]
    """What is known of our NAT, in the words of offers; empty: nothing."""
    by_peer: dict[PeerId, Attempts] = field(default_factory=dict)
    by_request: dict[bytes, PeerId] = field(default_factory=dict)
    """To whom each offer of ours is on its way."""
    history: History = field(default_factory=History)
    """What has been tried lately, for who asks why."""
    signalling: Signalling = field(default_factory=Signalling)
    """How long answers took, and what may have been too early for them."""
    timers: Timers[tuple[Due, PeerId]] = field(init=False)
    _forgiven_at: float = float("-inf")

    def __post_init__(self) -> None:
        self.timers = Timers(self.context.agenda)

    def of(self, peer: PeerId) -> Attempts:
        """The peer's attempts, new or old; of too many, the longest idle are forgotten."""
        known = self.by_peer.get(peer)
        if known is None:
            if len(self.by_peer) >= PEERS_MAX:
                idle = [each for each, a in self.by_peer.items() if not a.busy and not a.waiting]
                if idle:
                    self.discard(idle[0])
            known = self.by_peer[peer] = Attempts(peer)
        return known

    def discard(self, peer: PeerId) -> None:
        """Nothing is left to be known of it."""
        self.by_peer.pop(peer, None)
        for due in Due:
            self.timers.stop((due, peer))

    def hangup(self, link: LinkId, reason: EndReason) -> None:
        """End an attempt."""
        self.links.forget(link)
        self.context.emit(Hangup(link, reason))

    def abandon(self, attempts: Attempts) -> None:
        """Call off our own offer."""
        offering = attempts.offering
        if offering is not None:
            self.by_request.pop(offering.request, None)
            self.routing.call_off(offering.request)
            attempts.offering = None
            if offering.known:
                self.hangup(offering.link, EndReason.CANCELLED)

    def of_request(self, request: bytes) -> Attempts | None:
        """The attempts that an offer of ours by this name is the current one of."""
        peer = self.by_request.get(request)
        attempts = self.by_peer.get(peer) if peer is not None else None
        if attempts is None or attempts.offering is None:
            return None
        return attempts if attempts.offering.request == request else None

    def is_relayed(self, peer: PeerId) -> bool:
        """Whether there is a link to it that runs over a circuit."""
        link = self.links.by_peer.get(peer)
        return link is not None and link.facts.path is PathKind.RELAYED

    # --- the history -----------------------------------------------------------------------------

    def over(self, attempts: Attempts, rung: Rung, outcome: Outcome, why: str, now: float) -> None:
        """A way that was taken has come to this; else it is no news."""
        since = attempts.since.pop(rung, None)
        if since is not None:
            technique = attempts.technique if rung is Rung.OFFER else None
            self.history.note(attempts.peer, rung, outcome, now - since, why, technique)

    def skipped(self, attempts: Attempts, rung: Rung, why: str) -> None:
        """A way was not worth taking, or could not be, in this round."""
        self.history.note(attempts.peer, rung, Outcome.SKIPPED, 0.0, why)

    def learn_nat(self, peer: PeerId, words: list[str], candidates: list[CandidateEntry]) -> None:
        """An offer or an answer says what is known of the peer's NAT.

        It is of no use where the two may meet beside their NATs: on a network behind one of them,
        or over IPv6.
        """
        before, own = self.history.nat_of(peer), self.reflexive.candidates()
        mapped = {each.address.host for each in own if each.kind == "srflx"}
        ours = any(is_global_ipv6(each.host) for each in self.reflexive.listening)
        beside = any(
            each.host in mapped or (ours and is_global_ipv6(each.host)) for each in candidates
        )
        if beside:
            self.history.on_moved(peer)
        else:
            self.history.nat(peer, words)
        if peer in self.by_peer and self.history.nat_of(peer) != before:
            self.by_peer[peer].on_moved()

    def is_hopeless(self, peer: PeerId) -> bool:
        """Whether what is known of both NATs leaves no direct path."""
        return direct(self.nat(), self.history.nat_of(peer)) is False

    def is_hidden(self, peer: PeerId) -> bool:
        """Whether one of the two shows its addresses to nobody: only circuits lead there.

        Such a peer has no token in its record, so that nobody can dial it (decision 0038).
        """
        record = self.book.get(peer)
        return self.context.settings.relay_only or (record is not None and record.token is None)

    # --- rests -----------------------------------------------------------------------------------

    def rest(self, attempts: Attempts, now: float) -> None:
        """A round has come to nothing: rest longer than after the last one."""
        code, text = attempts.last
        if attempts.peer not in self.links.by_peer:  # Else the fate of its link says more.
            self.context.report("debug", ATTEMPT_FAILED, peer=attempts.peer, code=code, text=text)
        # Who is forgotten is not missing.
        failing = sum(
            1 for peer, each in self.by_peer.items() if each.failures and peer in self.book
        )
        longest = CUT_OFF_MAX if failing > len(self.links.alive()) else BACKOFF_MAX
        delay = min(longest, BACKOFF_FIRST * 2**attempts.failures)
        delay *= self.context.random.uniform(0.75, 1.25)
        attempts.failures = min(attempts.failures + 1, DOUBLINGS_MAX)
        poisoned_until = self.signalling.poisoned_until(attempts.peer)
        attempts.retry_at, attempts.undeliverable = max(now + delay, poisoned_until), False
        if attempts.waiting:
            self.timers.set((Due.RETRY, attempts.peer), now + min(delay, COMMAND_RETRY))

    def forgive(self, peer: PeerId, now: float) -> None:
        """Word of a peer has come from itself: it need not rest; maybe a partition is over."""
        attempts = self.by_peer.get(peer)
        if attempts is None:
            return
        if attempts.failures >= FORGIVE_AFTER and now >= self._forgiven_at + FORGIVE_INTERVAL:
            self.forgive_all(now)
        attempts.failures, attempts.retry_at = 0, 0.0

    def forgive_all(self, now: float) -> None:
        """Our surroundings have changed, or a partition is over: nobody need rest any longer."""
        self._forgiven_at = now
        for attempts in self.by_peer.values():
            attempts.retry_at = 0.0
