"""Transports without cores, in a process: circuits and their relay are made by command.

So what is measured is the relay's own work, and no choice of a relay or a path.
"""

import random
import time
from functools import partial
from typing import Any

import trio

from benchmarks.node import LISTEN, serve
from benchmarks.traffic import Streams
from overlay.core.addresses import circuit_address
from overlay.core.events import (
    Admit,
    Dial,
    Event,
    LinkOpened,
    Received,
    RelayCircuit,
    Transmit,
    UseCircuit,
)
from overlay.core.types import Address, CircuitId, IceCredentials, LinkId, PeerId
from overlay.core.wire import dial_tokens as dial
from overlay.core.wire.messages import Ping, Pong
from overlay.identity import Identity
from overlay.transport.udp.transport import UdpTransport

RECORD = 23
"""First byte of a DTLS record with data (RFC 7983)."""
TICK = 0.001
"""Seconds between two batches of a flood."""
PASSWORD = "p" * 24


class Commands:
    """What the parent can ask of its one transport."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._identity = Identity.generate()
        self._transport = UdpTransport(
            LISTEN,
            dial_key=self._identity.dial_key,
            certificate=self._identity.certificate,
            random=random.Random(1),
        )
        self._streams = Streams(self._transport)
        self._streams.nursery = nursery
        self._opened: list[LinkId] = []
        self._pongs: list[int] = []
        self._changed = trio.Event()
        self._next_link = 0

    async def start(self) -> dict[str, Any]:
        """Start it; what others need to dial it."""
        run = partial(self._transport.run, self._on_event, on_stream=self._streams.on_stream)
        await self._nursery.start(run)
        self._transport.clock_set(time.time())
        return {
            "port": self._transport.listen[0].port,
            "key": self._identity.dial_key.hex(),
            "fingerprint": self._transport.credentials.fingerprint.hex(),
        }

    def _on_event(self, event: Event) -> None:
        match event:
            case LinkOpened(link):
                self._transport.perform(Admit(link, PeerId(bytes(32))))
                self._opened.append(link)
            case Received(link, Ping(token)):
                self._transport.perform(Transmit(link, Pong(token)))
            case Received(_, Pong(token)):
                self._pongs.append(token)
        self._changed.set()
        self._changed = trio.Event()

    async def dial(self, key: str, fingerprint: str, host: str, port: int) -> dict[str, Any]:
        """Dial another one, at an address or over a circuit (port 0: `host` is its id)."""
        link = LinkId(self._next_link)
        self._next_link += 2
        attempt = random.randbytes(16)
        claim = dial.Claim(dial.MEMBER, b"bench", int(time.time()) + 3600, attempt)
        token = dial.make_token(bytes.fromhex(key), claim.kind, claim.token_id, claim.expires_at)
        circuit = CircuitId(bytes.fromhex(host)) if not port else None
        at = circuit_address(circuit) if circuit is not None else Address(host, port)
        self._transport.perform(
            Dial(
                link=link,
                addresses=(at,),
                fingerprint=bytes.fromhex(fingerprint),
                remote=dial.listener_credentials(token, claim),
                local=IceCredentials(attempt.hex(), PASSWORD),
                attempt=attempt,
                timeout=10.0,
            )
        )
        while link not in self._opened:
            await self._changed.wait()
        return {"link": link}

    async def links(self, count: int) -> dict[str, Any]:
        """The ids of the links, in the order in which they opened, once there are so many."""
        while len(self._opened) < count:
            await self._changed.wait()
        return {"links": self._opened}

    async def use(self, circuit: str, link: int) -> dict[str, Any]:
        """Be an end of a circuit."""
        self._transport.perform(UseCircuit(CircuitId(bytes.fromhex(circuit)), LinkId(link)))
        return {}

    async def relay(self, circuit: str, one: int, other: int, rate: float) -> dict[str, Any]:
        """Relay a circuit."""
        links = LinkId(one), LinkId(other)
        self._transport.perform(RelayCircuit(CircuitId(bytes.fromhex(circuit)), *links, rate))
        return {}

    async def flood(self, circuit: str, size: int, rate: float, seconds: float) -> dict[str, Any]:
        """Send datagrams of `size` bytes over a circuit, `rate` bytes a second; how many."""
        address = circuit_address(CircuitId(bytes.fromhex(circuit)))
        data = bytes([RECORD]) + bytes(size - len(bytes.fromhex(circuit)) - 1)
        started, sent = time.monotonic(), 0
        while (passed := time.monotonic() - started) < seconds:
            for _ in range(int(passed * rate / size) - sent):
                self._transport.send_datagram(data, address, None)
                sent += 1
            await trio.sleep(TICK)
        return {"sent": sent}

    async def sunk(self) -> dict[str, Any]:
        """How many such datagrams have come: an end can read none of them, and counts them."""
        return {"count": self._transport.refused["unknown"]}

    async def fill(self, link: int, size: int) -> dict[str, Any]:
        """Fill a stream from now on."""
        await self._streams.fill(LinkId(link), 1, size)
        return {}

    async def streamed(self) -> dict[str, Any]:
        """How many bytes have come over streams, and when that was."""
        return {"bytes": self._streams.bytes, "at": time.monotonic()}

    async def ping(self, link: int, times: int, interval: float) -> dict[str, Any]:
        """Round trips on a link, one after the other."""
        taken = []
        for number in range(len(self._pongs), len(self._pongs) + times):
            sent_at = time.monotonic()
            self._transport.perform(Transmit(LinkId(link), Ping(number)))
            while number not in self._pongs:
                await self._changed.wait()
            taken.append(time.monotonic() - sent_at)
            await trio.sleep(interval)
        return {"seconds": taken}


if __name__ == "__main__":
    trio.run(serve, Commands)
