"""How large a packet may be on a path, and whether any data goes through (RFC 8899), without I/O.

Routers that drop what is too large often drop the ICMP that would say so, too: then small packets
pass, checks are answered, and no large packet ever arrives. Only what the peer acknowledges tells.

A path is believed to carry `most` until a retransmission timer runs out on data that fills more
than a least packet. Then two probes go out together, as large as packets are and as small as they
get: if only the small one comes back, twice, packets fall to the least size (§4.3), what is in
flight is repeated at once, and larger sizes are searched for one probe at a time (§5.3). Probes
cost a lossy path little, and no path pays anything before it has lost data.

Four time-outs in a row without a word of progress: then packets fall whatever the probes say, and
four seconds later the path is given up as stalled. Nothing is concluded from a path on which the
peer is not heard at all: that is for whoever watches that.

Sizes are bytes of SCTP packets, before DTLS, UDP and IP add theirs, and multiples of 4.
"""

from enum import StrEnum
from struct import Struct
from typing import assert_never

from overlay.core.limits import BoundedDict
from overlay.core.types import Address

PROBE_TIMEOUT = 1.0
"""Seconds without an answer after which a probe counts as lost. Deviation: RFC 8899 §5.1.1 allows
no less, but wants more than 15 as a rule; a HEARTBEAT is answered in a round trip (guess)."""
PROBES_MAX = 3
"""Probes of one size before it counts as too large. RFC 8899 §5.1.2"""
RAISE_INTERVAL = 60.0
"""Seconds until a path that carries less than `most` is asked anew. Deviation: RFC 8899 §5.1.1
says 600; a path that was cut down by a passing detour is used in full again sooner (guess)."""
GRANULARITY = 32
"""Bytes that are not worth a further probe (guess)."""
VERDICT_DELAY = 0.1
"""Seconds that the large one of two probes may arrive after the small one (guess)."""
VERDICTS = 2
"""Pairs of probes of which only the small one comes back before packets fall (guess): on a path
that loses one packet in ten, one pair would accuse the size after every sixth time-out."""
TIMEOUTS_MAX = 4
"""Retransmission time-outs in a row, without progress, that put the path in question (guess)."""
HELP_TIMEOUT = 4.0
"""Seconds in which the least size has to help before the path is given up (guess)."""
PATHS_MAX = 8
"""Paths whose size is remembered when a link moves (guess)."""
_NONCE = Struct("!LL")


class Search(StrEnum):
    """Where the search for the size stands (RFC 8899 §5.2)."""

    COMPLETE = "complete"
    """Packets of `size` are believed to arrive."""
    DOUBTED = "doubted"
    """Data went unacknowledged: two probes ask whether its size is to blame."""
    BASE = "base"
    """Packets are as small as they get, on suspicion: the next progress says that it helps."""
    SEARCHING = "searching"
    """Packets of `size` arrive, and a larger size is being asked about."""


class PathMtu:
    """One path at a time. After each call: send `take()`, look at `size` and `is_stalled`."""

    def __init__(self, least: int, most: int, *, path: Address) -> None:
        """`least` fits any path of this kind, `most` is what is sent if nothing is in the way."""
        self.size = most
        self.state = Search.COMPLETE
        self.is_stalled = False
        self._least, self._most = min(least, most), most
        self._path = path
        self._sizes: BoundedDict[Address, int] = BoundedDict(PATHS_MAX)
        self._probes: list[tuple[bytes, int]] = []
        self._count = self._valid_from = 0
        self._before_doubt = Search.COMPLETE
        self._is_small_back = False
        self._verdicts = 0
        self._asked = self._ceiling = most  # the size asked about; what is too large, or most + 4
        self._tries = 0
        self._timeouts = 0
        self._fell_at: float | None = None
        self._due: float | None = None
        self._give_up_at: float | None = None
        self._is_held = False

    def take(self) -> list[tuple[bytes, int]]:
        """Drain the probes to send, never in fragments: nonce (8 bytes) and size of each."""
        probes, self._probes = self._probes, []
        return probes

    # --- what happens to data ----------------------------------------------------------------

    def on_timeout(self, waiting: int, now: float) -> None:
        """The retransmission timer has run out while the peer's window was open.

        `waiting`: bytes of a packet of all that is not acknowledged.
        """
        if self._is_held:
            return
        self._timeouts += 1
        if self._timeouts >= TIMEOUTS_MAX:
            if self.size > self._least:
                self._fall(now)
                self.state, self._due = Search.BASE, None
            if self._give_up_at is None:
                begun = now if self._fell_at is None else self._fell_at
                self._give_up_at = max(now, begun + HELP_TIMEOUT)
        elif self.size > self._least and waiting > self._least:
            self._doubt(now)

    def on_progress(self, now: float) -> None:
        """The peer has acknowledged data, all up to a later point than before."""
        self._timeouts = 0
        self._give_up_at = None
        if self.state is Search.BASE:
            self._search(now)

    def forgive(self) -> None:
        """The peer's window is closed: that nothing gets on is its wish."""
        self._timeouts = 0
        self._give_up_at = None

    # --- what happens to the path ------------------------------------------------------------

    def begin_small(self, now: float) -> None:
        """The handshake has shown that large packets get lost."""
        self.size = self._least
        self._search(now)

    def move(self, path: Address, least: int, now: float) -> None:
        """Packets go another way: start at the smaller size of the two."""
        self._sizes.put(self._path, self.size)
        self._path, self._least = path, min(least, self._most)
        self.size = max(self._least, min(self.size, self._sizes.get(path, self._most)))
        self._valid_from = self._count
        self._fell_at = None
        self.forgive()
        self._go_on(now)

    def hold(self) -> None:
        """The peer does not answer at all: conclude nothing until it is heard again."""
        self._is_held = True
        self.forgive()
        self._due = None

    def release(self, now: float) -> None:
        """The peer is heard again."""
        if self._is_held:
            self._is_held = False
            self._go_on(now)

    def _go_on(self, now: float) -> None:
        if self.size < self._most:
            self._search(now)
        else:
            self.state, self._due = Search.COMPLETE, None

    # --- probes ------------------------------------------------------------------------------

    def on_answer(self, nonce: bytes, now: float) -> None:
        """A probe has arrived there, and its answer here."""
        number, size = _NONCE.unpack(nonce)
        if not self._valid_from <= number < self._count or size > self._most or size % 4:
            return  # of another path, or made up
        if self.state is Search.DOUBTED:
            if size >= self.size:
                self._settle_doubt(now)
            elif not self._is_small_back:
                self._is_small_back = True
                self._due = now + VERDICT_DELAY
        elif size > self.size:
            self.size = size
            self._search_on(now)

    def _doubt(self, now: float) -> None:
        """Ask by a large packet and a small one, in this order."""
        if self.state is not Search.DOUBTED:
            self._before_doubt = self.state
            self.state = Search.DOUBTED
            self._verdicts = 0
            self._ask_both(now)
        elif not self._is_small_back:
            self._ask_both(now)

    def _ask_both(self, now: float) -> None:
        self._is_small_back = False
        self._probe(self.size)
        self._probe(self._least)
        self._due = now + PROBE_TIMEOUT

    def _judge(self, now: float) -> None:
        """Only the small one came back: by chance, perhaps, the first time."""
        self._verdicts += 1
        if self._verdicts < VERDICTS:
            self._ask_both(now)
        else:
            self._fall(now)
            self._search(now)

    def _settle_doubt(self, now: float) -> None:
        """The size is not to blame, or nothing came back: go on where we were."""
        self.state = self._before_doubt
        if self.state is Search.SEARCHING:
            self._ask(now)
        else:
            self._complete(now)

    def _fall(self, now: float) -> None:
        self.size = self._least
        self._fell_at = now

    def _search(self, now: float) -> None:
        """Ask about everything above `size`, the whole first: the loss may have been a chance."""
        self.state = Search.SEARCHING
        self._ceiling = self._most + 4
        self._search_on(now)

    def _search_on(self, now: float) -> None:
        if self.size >= self._most or self._ceiling - self.size <= GRANULARITY:
            self._complete(now)
            return
        self.state = Search.SEARCHING
        whole = self._ceiling > self._most
        self._asked = self._most if whole else (self.size + self._ceiling) // 8 * 4
        self._tries = 0
        self._ask(now)

    def _ask(self, now: float) -> None:
        self._tries += 1
        self._probe(self._asked)
        self._due = now + PROBE_TIMEOUT

    def _complete(self, now: float) -> None:
        self.state = Search.COMPLETE
        self._due = now + RAISE_INTERVAL if self.size < self._most else None

    def _probe(self, size: int) -> None:
        self._probes.append((_NONCE.pack(self._count, size), size))
        self._count += 1

    # --- time --------------------------------------------------------------------------------

    def next_deadline(self) -> float | None:
        """When `handle_timeout` wants to be called."""
        return min((at for at in (self._due, self._give_up_at) if at is not None), default=None)

    def handle_timeout(self, now: float) -> None:
        """Do what is due at `now`."""
        if self._give_up_at is not None and now >= self._give_up_at:
            self.is_stalled = True
            self._due = self._give_up_at = None
        elif self._due is not None and now >= self._due:
            self._due = None
            self._on_due(now)

    def _on_due(self, now: float) -> None:
        match self.state:
            case Search.COMPLETE:
                self._search(now)
            case Search.DOUBTED if self._is_small_back:
                self._judge(now)
            case Search.DOUBTED:
                self._settle_doubt(now)
            case Search.SEARCHING if self._tries < PROBES_MAX:
                self._ask(now)
            case Search.SEARCHING:
                self._ceiling = self._asked
                self._search_on(now)
            case Search.BASE:
                pass  # which waits for progress or for the end
            case _:
                assert_never(self.state)
