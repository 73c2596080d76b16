"""Runs of the rival: two stock peers that share two pipes for their session descriptions."""

import os
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.peer import Peer, descriptors, resident_bytes

MODULE = "benchmarks.stock"
ON_TRIO = "benchmarks.stock_on_trio"
"""The same under trio-asyncio."""


@contextmanager
def pair(module: str = MODULE) -> Iterator[tuple[Peer, Peer]]:
    """The offerer and the answerer, started."""
    to_answerer, from_offerer = os.pipe()
    to_offerer, from_answerer = os.pipe()
    ends = (to_answerer, from_offerer, to_offerer, from_answerer)
    try:
        with (
            Peer(module, str(to_offerer), str(from_offerer), pass_fds=ends) as offerer,
            Peer(module, str(to_answerer), str(from_answerer), pass_fds=ends) as answerer,
        ):
            yield offerer, answerer
    finally:
        for end in ends:
            os.close(end)


def connect(offerer: Peer, answerer: Peer) -> float:
    """Open one more connection; seconds from createOffer to the open channel."""
    answerer.tell("accept")
    seconds = float(offerer.ask("connect")["seconds"])
    answerer.answer()
    return seconds


def connect_milliseconds(times: int) -> float:
    """The median of `times` connections, each closed before the next; one before them warms up."""
    taken = []
    with pair() as (offerer, answerer):
        for _ in range(times + 1):
            taken.append(connect(offerer, answerer))
            offerer.ask("close")
            answerer.ask("close")
    return statistics.median(taken[1:]) * 1000


def footprint(few: int, many: int) -> tuple[float, float]:
    """KiB and file descriptors a connection at the answerer: the slope from `few` to `many`."""
    with pair() as (offerer, answerer):
        seen = []
        held = 0
        for target in (few, many):
            while held < target:
                connect(offerer, answerer)
                held += 1
            answerer.ask("settle")
            seen.append((resident_bytes(answerer.pid), descriptors(answerer.pid)))
    links = many - few
    (bytes_few, files_few), (bytes_many, files_many) = seen
    return (bytes_many - bytes_few) / links / 1024, (files_many - files_few) / links


def small_messages(size: int, seconds: float) -> dict[str, float]:
    """What arrives at the receiving application when the sender sends all it can."""
    with pair() as (offerer, answerer):
        connect(offerer, answerer)
        sent = offerer.ask("send", size=size, seconds=seconds)["sent"]
        return all_arrived(answerer, sent)


def all_arrived(receiver: Peer, sent: int) -> dict[str, float]:
    """The receiver's figures once everything sent is there."""
    for _ in range(600):
        figures: dict[str, float] = receiver.ask("arrived")
        if figures["count"] >= sent:
            return figures
        time.sleep(0.05)
    raise RuntimeError(f"{figures['count']:.0f} of {sent} messages arrived")
