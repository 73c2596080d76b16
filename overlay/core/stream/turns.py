"""Whose bytes go next: deficit round robin (Shreedhar and Varghese, SIGCOMM 1995) among streams.

Deviation: a turn may be overdrawn by one piece, and the next turns pay it back, so that pieces
fill whole packets instead of ending where a turn does.
"""

from collections import deque

from overlay.core.stream.stream import Stream

QUANTUM = 16_384
"""Bytes of a turn at priority 0; each step up doubles it, each step down halves it (guess)."""


class Turns:
    """The streams that have bytes and credit; the first of them has its turn."""

    def __init__(self) -> None:
        self._round: deque[Stream] = deque()

    def __len__(self) -> int:
        return len(self._round)

    def join(self, stream: Stream) -> None:
        """The stream can send: it waits for its turn, if it does not yet."""
        if not stream.in_round:
            stream.in_round = True
            self._round.append(stream)

    def leave(self, stream: Stream) -> None:
        """The stream cannot send any more: what is left of its turn is lost, a debt stays."""
        if stream.in_round:
            stream.in_round = False
            stream.debt = max(stream.debt, 0)
            self._round.remove(stream)

    def take(self, limit: int) -> tuple[Stream, bytes]:
        """The next piece, of at most `limit` bytes, and its stream. Only if there is one."""
        stream = self._round[0]
        while stream.debt >= 0:
            stream.debt -= _turn_of(stream)
            if stream.debt >= 0:
                self._round.rotate(-1)
                stream = self._round[0]
        piece = stream.take(limit)
        stream.debt += len(piece)
        if stream.debt >= 0:
            self._round.rotate(-1)
        if not stream.sendable:
            self.leave(stream)
        return stream, piece


def _turn_of(stream: Stream) -> int:
    if stream.priority >= 0:
        return QUANTUM << stream.priority
    return QUANTUM >> -stream.priority
