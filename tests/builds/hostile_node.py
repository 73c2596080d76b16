"""A node that joins like any other and then, on order, attacks a peer over its own link.

It keeps what it really sends (STUN, DTLS, SCTP), and floods the peer with changed copies from the
very socket that carries the link; changed SCTP packets go inside the live association. While the
flood lasts, changed copies also run ahead of some genuine datagrams, so that new handshakes are
met in every state. Orders are one line of JSON in the FIFO that ``HOSTILE_ORDERS`` names:
``{"target": "IP:PORT", "count": N, "seed": S}``; what was sent is reported as a line on stdout.
"""

import json
import os
import sys
import threading
import time
from collections import deque
from random import Random
from typing import Any

import trio

from overlay.core.ice import stun
from overlay.core.types import Address
from overlay.transport.dtls.association import Dtls
from overlay.transport.udp.sockets import UdpSocket
from tests.builds import run_overlay
from tests.builds.mutation import mutate_dtls, mutate_sctp, mutate_stun
from tests.lab.backlog import Pace

KEPT = 200
"""Packets of each kind that are kept to be changed; the oldest make room."""
BATCH = 50
WEIGHTS = {"stun": 200, "dtls": 200, "sctp": 1}
"""How often each kind is sent; every second changed SCTP packet costs a link and a new dial."""
AHEAD = 0.05
"""How often a changed copy runs ahead of a genuine datagram; most handshakes have to succeed."""
PATIENCE = 240.0
"""Seconds after which the flood ends however much has been sent."""

_send, _encode, _encrypt, _read = UdpSocket.send, stun.encode, Dtls.send, UdpSocket.read


class Attack:
    """What was kept, what was sent, and whom it is meant for."""

    def __init__(self) -> None:
        self.keys: dict[bytes, bytes | None] = {}
        self.stun: deque[bytes] = deque(maxlen=KEPT)
        self.dtls: deque[bytes] = deque(maxlen=KEPT)
        self.sctp: deque[bytes] = deque(maxlen=KEPT)
        self.link: Dtls | None = None
        self.socket: UdpSocket | None = None
        self.token: trio.lowlevel.TrioToken | None = None
        self.target: Address | None = None
        self.active = False
        self.random = Random(0)
        self.sent = {"stun": 0, "dtls": 0, "sctp": 0}

    # --- keeping what is genuine -----------------------------------------------------------------

    def keep_key(self, data: bytes, key: bytes | None) -> None:
        """Remember with which key a STUN message was signed."""
        self.keys[data] = key
        if len(self.keys) > 4 * KEPT:
            self.keys.pop(next(iter(self.keys)))

    def on_datagram(self, socket: UdpSocket, data: bytes, remote: Address) -> None:
        """A genuine datagram is about to leave."""
        self.socket = socket
        if self.target is not None and remote != self.target:
            return
        (self.stun if data[0] < 4 else self.dtls).append(data)
        if self.active and self.random.random() < AHEAD:
            self.send_changed("stun" if data[0] < 4 else "dtls", data)

    def on_plaintext(self, link: Dtls, packet: bytes) -> None:
        """A genuine SCTP packet is about to be encrypted."""
        remote = link._transmit.__self__.remote  # type: ignore[attr-defined]
        if self.target is None or remote == self.target:
            if link is not self.link:
                self.sctp.clear()  # another association: the old tag is of no use
            self.link = link
            self.sctp.append(packet)

    # --- attacking -------------------------------------------------------------------------------

    def send_changed(self, kind: str, data: bytes) -> None:
        """Send one changed copy."""
        if kind == "sctp":
            assert self.link is not None
            _encrypt(self.link, mutate_sctp(data, self.random))
        else:
            assert self.socket is not None
            assert self.target is not None
            if kind == "stun":
                changed = mutate_stun(data, self.keys.get(data), self.random)
            else:
                changed = mutate_dtls(data, self.random)
            _send(self.socket, changed, self.target, None)
        self.sent[kind] += 1

    @property
    def is_linked(self) -> bool:
        """Whether the link to the target stands."""
        return self.link is not None and self.link.state == "connected"

    def burst(self) -> None:
        """A batch of changed copies, on the node's own loop; nothing while there is no link."""
        if not self.is_linked:
            return
        for _ in range(BATCH):
            kind = self.random.choices(tuple(WEIGHTS), tuple(WEIGHTS.values()))[0]
            kept: deque[bytes] = getattr(self, kind)
            if kept and self.is_linked:
                self.send_changed(kind, self.random.choice(kept))

    def carry_out(self, orders: dict[str, Any]) -> None:
        """Flood until the count is reached, no faster than the target reads."""
        host, port = orders["target"].rsplit(":", 1)
        self.target = Address(host, int(port))
        self.random = Random(orders["seed"])
        pace = Pace(int(port))
        deadline = time.monotonic() + PATIENCE
        self.active = True
        while sum(self.sent.values()) < orders["count"] and time.monotonic() < deadline:
            before = sum(self.sent.values())
            trio.from_thread.run_sync(self.burst, trio_token=self.token)
            pace.wait()
            if sum(self.sent.values()) == before:
                time.sleep(0.01)  # no link: somebody will connect us again
        self.active = False

    def obey(self, path: str) -> None:
        """Wait for orders, carry them out, report."""
        with open(path) as orders:
            order = json.loads(orders.readline())
        checks = [data.hex() for data in list(self.stun) if data[:2] == b"\0\1"]
        say({"event": "storm_begins", "checks": checks})
        self.carry_out(order)
        say({"event": "storm", "sent": self.sent})


def say(event: dict[str, Any]) -> None:
    """A line among those of ``up --json``."""
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()


ATTACK = Attack()


def encode(message: stun.Message, key: bytes | None, fingerprint: bool = True) -> bytes:
    """As the codec; remembers the key."""
    data = _encode(message, key, fingerprint)
    ATTACK.keep_key(data, key)
    return data


def send(
    socket: UdpSocket, data: bytes, remote: Address, local: Address | None, **more: bool
) -> None:
    """As the socket; keeps the datagram."""
    ATTACK.on_datagram(socket, data, remote)
    _send(socket, data, remote, local, **more)


def encrypt(link: Dtls, packet: bytes) -> None:
    """As DTLS; keeps the packet."""
    ATTACK.on_plaintext(link, packet)
    _encrypt(link, packet)


async def read(socket: UdpSocket, *args: Any) -> None:
    """As the socket; shows us the loop."""
    ATTACK.token = trio.lowlevel.current_trio_token()
    await _read(socket, *args)


if __name__ == "__main__":
    stun.encode = encode
    UdpSocket.send, UdpSocket.read = send, read  # type: ignore[method-assign,assignment]
    Dtls.send = encrypt  # type: ignore[method-assign,assignment]
    threading.Thread(target=ATTACK.obey, args=(os.environ["HOSTILE_ORDERS"],), daemon=True).start()
    run_overlay()
