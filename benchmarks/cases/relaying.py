"""What a relay passes on, what that does to its own pings, and how fast a relayed stream is."""

import secrets
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from benchmarks.measure import Bar, Case, Measure
from benchmarks.network import ADDRESS
from benchmarks.peer import Peer

BARE = "benchmarks.bare"
SIZE = 1200
RATES = (25e6, 30e6, 35e6, 40e6, 50e6, 60e6)
"""Bytes a second that are offered, one after the other while next to nothing is lost."""
LOSS_MAX = 0.01
SECONDS, SETTLE_SECONDS = 2.0, 0.3
GRANTED, OFFERED = 25e6, 50e6
"""Bytes a second that the relay grants while its own pings are measured, and what is offered."""
PINGS, INTERVAL = 60, 0.02
PIECE = 16_384
WARM_SECONDS, STREAM_SECONDS = 0.5, 2.0
UNLIMITED = 1e12

FORWARDING = Measure(
    "relay-forwarding",
    f"datagrams of {SIZE:,} bytes through a relay, the most with {LOSS_MAX:.0%} loss",
    "MB/s",
    Bar(25, at_most=False),
)
PING = Measure(
    "relay-ping",
    f"a relay's own ping while it forwards the {GRANTED / 1e6:g} MB/s that it grants",
    "x idle ping",
    Bar(3),
)
STREAM = Measure(
    "relay-stream",
    "one relayed stream, 16 KiB writes; relay and both ends on the same cores",
    "x direct stream",
    Bar(0.5, at_most=False),
)


class Three:
    """A relay and the two ends of its circuits, each in a process of its own."""

    def __init__(self, relay: Peer, one: Peer, other: Peer) -> None:
        self.relay, self.one, self.other = relay, one, other
        at = relay.ask("start")
        self.listener = {end: end.ask("start") for end in (one, other)}
        self.link = {end: _dial(end, at, ADDRESS, at["port"]) for end in (one, other)}
        self.links = relay.ask("links", count=2)["links"]

    def circuit(self, rate: float) -> str:
        """A circuit between the two ends, of so many bytes a second."""
        circuit = (b"@" + secrets.token_bytes(7)).hex()
        one, other = self.links
        self.relay.ask("relay", circuit=circuit, one=one, other=other, rate=rate)
        for end in (self.one, self.other):
            end.ask("use", circuit=circuit, link=self.link[end])
        return circuit

    def dial(self, host: str, port: int) -> int:
        """A link from the one end to the other."""
        return _dial(self.one, self.listener[self.other], host, port)


def _dial(dialler: Peer, listener: dict[str, Any], host: str, port: int) -> int:
    known = {key: listener[key] for key in ("key", "fingerprint")}
    return int(dialler.ask("dial", host=host, port=port, **known)["link"])


@contextmanager
def neighbours() -> Iterator[Three]:
    """Three processes that are linked."""
    with Peer(BARE) as relay, Peer(BARE) as one, Peer(BARE) as other:
        yield Three(relay, one, other)


def forwarding() -> dict[str, float]:
    """Megabytes a second at the far end, at the highest rate that comes through."""
    best = 0.0
    with neighbours() as three:
        circuit = three.circuit(UNLIMITED)
        for rate in RATES:
            before = three.other.ask("sunk")["count"]
            sent = three.one.ask("flood", circuit=circuit, size=SIZE, rate=rate, seconds=SECONDS)
            time.sleep(SETTLE_SECONDS)
            count = three.other.ask("sunk")["count"] - before
            if count < (1 - LOSS_MAX) * sent["sent"]:
                break
            best = max(best, count * SIZE / SECONDS / 1e6)
    return {FORWARDING.name: best}


def ping() -> dict[str, float]:
    """Medians of the relay's pings, idle and while more is offered than it grants."""
    with neighbours() as three:
        circuit = three.circuit(GRANTED)
        link = three.links[1]

        def median() -> float:
            answer = three.relay.ask("ping", link=link, times=PINGS, interval=INTERVAL)
            return float(statistics.median(answer["seconds"]))

        idle = median()
        three.one.tell("flood", circuit=circuit, size=SIZE, rate=OFFERED, seconds=4.0)
        time.sleep(1.0)
        before = three.other.ask("sunk")["count"]
        busy = median()
        assert three.other.ask("sunk")["count"] > before, "nothing was forwarded meanwhile"
        three.one.answer()
    return {PING.name: busy / idle}


def stream() -> dict[str, float]:
    """A stream over the circuit, and one beside the relay, one after the other."""
    rates = []
    for relayed in (False, True):
        with neighbours() as three:
            if relayed:
                link = three.dial(three.circuit(UNLIMITED), 0)
            else:
                link = three.dial(ADDRESS, three.listener[three.other]["port"])
            three.one.ask("fill", link=link, size=PIECE)
            time.sleep(WARM_SECONDS)
            first = three.other.ask("streamed")
            time.sleep(STREAM_SECONDS)
            last = three.other.ask("streamed")
            rates.append((last["bytes"] - first["bytes"]) / (last["at"] - first["at"]))
    return {STREAM.name: rates[1] / rates[0]}


CASES = (
    Case("relay-forwarding", (FORWARDING,), forwarding),
    Case("relay-ping", (PING,), ping),
    Case("relay-stream", (STREAM,), stream),
)
