"""How fast a stream is, and what becomes of a ping while streams are full, on a lossy path."""

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec

from benchmarks.cases import rival
from benchmarks.measure import Bar, Case, Measure
from benchmarks.network import ADDRESS
from benchmarks.peer import Peer
from overlay.core.wire import invite
from overlay.core.wire.documents import AddressEntry
from overlay.identity import ephemeral

NODE = "benchmarks.node"
PROXY = "benchmarks.proxy"
PIECE = 16_384
WARM_SECONDS, SECONDS = 0.5, 1.5
STOCK_HIGH_WATER = 1 << 18
"""What a channel of the rival's is kept filled with."""
DELAY, LOSS = 0.025, 0.01
"""One way, in seconds, and in each direction."""
STREAMS = 4
BULK_SECONDS = 2.0
"""Before the pings begin, so that queues have filled."""
PINGS, STOCK_PINGS = 20, 4
INTERVAL = 0.05

ON_TRIO = Measure(
    "stream-throughput",
    "one stream, 16 KiB writes; rival under trio-asyncio",
    "MB/s",
    Bar(3, at_most=False, of_ratio=True),
)
ON_ASYNCIO = Measure(
    "stream-throughput-asyncio",
    "the same; rival on asyncio",
    "MB/s",
    Bar(1.2, at_most=False, of_ratio=True),
)
PING = Measure(
    "ping-under-bulk",
    f"ping while {STREAMS} streams carry bulk, {LOSS:.0%} loss, 25 ms one way",
    "x idle ping",
    Bar(3),
)


@contextmanager
def linked(through: bool = False) -> Iterator[tuple[Peer, Peer, str]]:
    """Who dials, who listens, and the listener's name; `through` a lossy path on request."""
    with Peer(NODE) as listener, Peer(NODE) as dialler:
        target = listener.ask("start")["peer"]
        link = listener.ask("invite")["link"]
        dialler.ask("start")
        if not through:
            dialler.ask("join", link=link)
            yield dialler, listener, target
            return
        host, port = _address_in(link)
        with _lossy(host, port) as sides:
            dialler.ask("join", link=_readdressed(link, sides["left"]))
            yield dialler, listener, target


@contextmanager
def _lossy(*peer: str) -> Iterator[dict[str, Any]]:
    """The ports of a lossy path's two sides."""
    with Peer(PROXY, str(DELAY), str(LOSS), "1", *peer) as proxy:
        yield proxy.answer()


def _address_in(link: str) -> tuple[str, str]:
    (member,) = invite.decode(link, ephemeral()).members
    (at,) = [each for each in member.addresses if each.host == ADDRESS]
    return at.host, str(at.port)


def _readdressed(link: str, port: int) -> str:
    """The invite of a node that is to be dialled at another address."""
    body = invite.decode(link, ephemeral())
    (member,) = body.members
    moved = msgspec.structs.replace(member, addresses=[AddressEntry(ADDRESS, port, proven=False)])
    return invite.encode(msgspec.structs.replace(body, members=[moved]))


def _megabytes(receiver: Peer, seconds: float = SECONDS) -> float:
    """MB/s that reach the receiving application."""
    time.sleep(WARM_SECONDS)
    first = receiver.ask("streamed")
    time.sleep(seconds)
    last = receiver.ask("streamed")
    rate: float = (last["bytes"] - first["bytes"]) / (last["at"] - first["at"]) / 1e6
    return rate


def bare(seconds: float = SECONDS) -> float:
    """MB/s of one stream between two nodes, as full as it gets, over so many seconds."""
    with linked() as (sender, receiver, target):
        sender.ask("fill", peer=target, streams=1, size=PIECE)
        return _megabytes(receiver, seconds)


def throughput() -> dict[str, float]:
    """The same for both rows."""
    rate = bare()
    return {ON_TRIO.name: rate, ON_ASYNCIO.name: rate}


def stock_throughput() -> dict[str, float]:
    """The rival's channel, on either event loop."""
    figures = {}
    for measure, module in ((ON_TRIO, rival.ON_TRIO), (ON_ASYNCIO, rival.MODULE)):
        with rival.pair(module) as (offerer, answerer):
            rival.connect(offerer, answerer)
            offerer.ask("fill", streams=1, size=PIECE, high_water=STOCK_HIGH_WATER)
            figures[measure.name] = _megabytes(answerer)
    return figures


def ping_under_bulk() -> dict[str, float]:
    """Pings before the streams are opened and while they are full."""
    with linked(through=True) as (sender, receiver, target):

        def ping() -> list[float]:
            answer = sender.ask("ping", peer=target, times=PINGS, interval=INTERVAL)
            return list(answer["seconds"])

        return _slowed(
            ping,
            lambda: sender.ask("fill", peer=target, streams=STREAMS, size=PIECE),
            receiver,
        )


def stock_ping_under_bulk() -> dict[str, float]:
    """The rival's, on channels of one connection; the few pings are as slow as they are."""
    with rival.pair() as (offerer, answerer), _lossy() as sides:
        answerer.tell("accept", through=(ADDRESS, sides["right"]))
        offerer.ask("connect", through=(ADDRESS, sides["left"]))
        answerer.answer()

        def ping() -> list[float]:
            return list(offerer.ask("ping", times=STOCK_PINGS, interval=INTERVAL)["seconds"])

        return _slowed(
            ping,
            lambda: offerer.ask("fill", streams=STREAMS, size=PIECE, high_water=STOCK_HIGH_WATER),
            answerer,
        )


def _slowed(
    ping: Callable[[], list[float]], fill: Callable[[], object], receiver: Peer
) -> dict[str, float]:
    """The median ping under bulk over the median of an idle link; the bulk must flow meanwhile."""
    idle = statistics.median(ping())
    assert idle > 2 * DELAY, "the path is shorter than it should be"
    fill()
    time.sleep(BULK_SECONDS)
    before = receiver.ask("streamed")["bytes"]
    busy = statistics.median(ping())
    assert receiver.ask("streamed")["bytes"] > before, "no bulk came"
    return {PING.name: busy / idle}


CASES = (
    Case("streams", (ON_TRIO, ON_ASYNCIO), throughput, stock_throughput),
    Case("ping", (PING,), ping_under_bulk, stock_ping_under_bulk, rival_runs=2),
)
