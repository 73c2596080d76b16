"""A wire with latency, jitter, loss, reordering and a rate, and a NAT in user space if asked for.

The kernels that tests run on have no netem, so a process carries the packets between two TUN
devices. With a NAT it keeps RFC 4787's rules to the letter, which connection tracking does not:
any mapping, any filter, exact lifetimes, hairpinning. It runs on its own: ``python -m
tests.lab.nat.wire NEAR FAR JSON`` with two descriptors; it obeys lines on its standard input.
"""

import fcntl
import heapq
import itertools
import json
import os
import select
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from random import Random
from typing import Any

from tests.lab.namespaces import Namespace

_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
_UDP, _TCP = 17, 6
_CHECKSUM = {_UDP: 6, _TCP: 16}
"""Where it is in the header of the transport protocol."""
_BURST = 64
"""Packets taken from one device before the other gets a turn."""
Endpoint = tuple[bytes, int]


@dataclass(frozen=True, slots=True)
class Impairment:
    """What a wire does to packets, in each direction alike; the seed decides all chance.

    Between two homes there are two wires: with `latency` 0.01 on both, the RTT is 40 ms.
    """

    latency: float = 0.0
    """Seconds, one way."""
    jitter: float = 0.0
    """Seconds more at most; packets stay in order."""
    loss: float = 0.0
    """Share of packets that never arrive."""
    reorder: float = 0.0
    """Share of packets that arrive `reorder_by` seconds late, overtaken by later ones."""
    reorder_by: float = 0.005
    rate: float = 0.0
    """Bytes a second; 0: as fast as it goes."""
    queue: int = 64_000
    """Bytes that may wait for the rate; what comes then is lost."""
    seed: int = 0


class Direction:
    """One direction of a wire: when each packet is due."""

    def __init__(self, impairment: Impairment, name: str) -> None:
        self._is = impairment
        self._rng = Random(f"{name} {impairment.seed}")
        self._free_at = 0.0
        self._last_due = 0.0

    def due(self, size: int, now: float) -> float | None:
        """When a packet of `size` bytes that enters now comes out; None: never."""
        wire, rng = self._is, self._rng
        if wire.loss and rng.random() < wire.loss:
            return None
        leaves = now
        if wire.rate:
            leaves = max(now, self._free_at)
            if (leaves - now) * wire.rate > wire.queue:
                return None
            leaves = self._free_at = leaves + size / wire.rate
        due = leaves + wire.latency
        if wire.jitter:
            due = self._last_due = max(self._last_due, due + rng.random() * wire.jitter)
        if wire.reorder and rng.random() < wire.reorder:
            due += wire.reorder_by
        return due


# --- the NAT ----------------------------------------------------------------------------------


class Mapping:
    """A port of the NAT's that stands for one of a host behind it."""

    __slots__ = ("inner", "key", "last_out", "permitted", "port")

    def __init__(self, key: object, inner: Endpoint, port: int) -> None:
        self.key, self.inner, self.port = key, inner, port
        self.last_out = 0.0
        self.permitted: dict[object, float] = {}


class Translator:
    """RFC 4787: endpoints to mappings and back. TCP is treated like UDP."""

    def __init__(
        self,
        wan: str,
        *,
        mapping: str,
        filtering: str,
        ports: str,
        hairpin: bool,
        timeout: float,
        udp: bool,
        seed: int,
    ) -> None:
        self.wan = socket.inet_aton(wan)
        self._mapping, self._filtering, self._ports = mapping, filtering, ports
        self._hairpin, self._timeout, self._udp = hairpin, timeout, udp
        self._rng = Random(f"ports {seed}")
        self._next = itertools.count(20_000)
        self._by_key: dict[object, Mapping] = {}
        self._by_port: dict[tuple[int, int], Mapping] = {}

    def forget(self, wan: str | None = None, *, move_ports: bool = False) -> None:
        """Lose all mappings; `move_ports`: none comes up with the port that it had."""
        if wan is not None:
            self.wan = socket.inet_aton(wan)
        if move_ports and self._ports == "preserved":
            self._ports = "random"
        self._by_key.clear()
        self._by_port.clear()

    def outward(self, packet: bytearray, now: float) -> bool | None:
        """Translate what a host sends: True, out with it; False, back in; None, nowhere."""
        protocol = packet[9]
        if protocol not in _CHECKSUM or (protocol == _UDP and not self._udp):
            return None
        inner, remote = _endpoints(packet)
        mapping = self._mapping_for(protocol, inner, remote, now)
        if mapping is None:
            return None
        mapping.last_out = now
        mapping.permitted[_part(self._filtering, remote)] = now
        _rewrite(packet, 12, (self.wan, mapping.port))
        if remote[0] != self.wan:
            return True
        return False if self._hairpin and self.inward(packet, now) else None

    def inward(self, packet: bytearray, now: float) -> bool:
        """Translate what comes for a mapping of ours; False: it does not get in."""
        if packet[9] not in _CHECKSUM or packet[16:20] != self.wan:
            return False
        remote, ours = _endpoints(packet)
        mapping = self._by_port.get((packet[9], ours[1]))
        if mapping is None or now - mapping.last_out > self._timeout:
            return False
        if self._filtering != "independent":
            permitted_at = mapping.permitted.get(_part(self._filtering, remote))
            if permitted_at is None or now - permitted_at > self._timeout:
                return False
        _rewrite(packet, 16, mapping.inner)
        return True

    def _mapping_for(
        self, protocol: int, inner: Endpoint, remote: Endpoint, now: float
    ) -> Mapping | None:
        key = (protocol, inner, _part(self._mapping, remote))
        mapping = self._by_key.get(key)
        if mapping is not None and now - mapping.last_out <= self._timeout:
            return mapping
        if mapping is not None:
            del self._by_port[protocol, mapping.port]
        port = self._port(protocol, inner[1], now)
        if port is None:
            return None
        mapping = self._by_key[key] = self._by_port[protocol, port] = Mapping(key, inner, port)
        return mapping

    def _port(self, protocol: int, wanted: int, now: float) -> int | None:
        """A port that no live mapping has."""
        for attempt in range(100):
            if self._ports == "preserved" and not attempt:
                port = wanted
            elif self._ports == "sequential":
                port = 20_000 + next(self._next) % 40_000
            else:
                port = self._rng.randrange(1024, 65_536)
            held = self._by_port.get((protocol, port))
            if held is None:
                return port
            if now - held.last_out > self._timeout:
                del self._by_key[held.key], self._by_port[protocol, port]
                return port
        return None


def _part(dependence: str, remote: Endpoint) -> object:
    """What of the other end's address decides."""
    if dependence == "independent":
        return None
    return remote[0] if dependence == "address" else remote


def _endpoints(packet: bytearray) -> tuple[Endpoint, Endpoint]:
    at = (packet[0] & 15) * 4
    source, destination = struct.unpack_from("!HH", packet, at)
    return (bytes(packet[12:16]), source), (bytes(packet[16:20]), destination)


def _rewrite(packet: bytearray, at: int, new: Endpoint) -> None:
    """Put `new` where the source (12) or destination (16) is, and mend the checksums (RFC 1624)."""
    transport = (packet[0] & 15) * 4
    port_at = transport + (0 if at == 12 else 2)
    addresses = _difference(packet[at : at + 4], new[0])
    number = new[1].to_bytes(2)
    ports = _difference(packet[port_at : port_at + 2], number)
    packet[at : at + 4], packet[port_at : port_at + 2] = new[0], number
    _mend(packet, 10, addresses)
    checksum_at = transport + _CHECKSUM[packet[9]]
    if packet[9] == _TCP or packet[checksum_at : checksum_at + 2] != b"\0\0":
        _mend(packet, checksum_at, addresses + ports)


def _difference(old: bytes | bytearray, new: bytes) -> int:
    words = f"!{len(new) // 2}H"
    taken: tuple[int, ...] = struct.unpack(words, old)
    put: tuple[int, ...] = struct.unpack(words, new)
    return sum(~word & 0xFFFF for word in taken) + sum(put)


def _mend(packet: bytearray, at: int, difference: int) -> None:
    total = (~int.from_bytes(packet[at : at + 2]) & 0xFFFF) + difference
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    packet[at : at + 2] = (~total & 0xFFFF).to_bytes(2)


# --- carrying ---------------------------------------------------------------------------------


class Carrying:
    """The loop of the process: two devices, and packets that are under way."""

    def __init__(self, near: int, far: int, impairment: Impairment, nat: Translator | None) -> None:
        self._near, self._far, self._nat = near, far, nat
        self._out, self._in = Direction(impairment, "out"), Direction(impairment, "in")
        self._under_way: list[tuple[float, int, int, bytearray]] = []
        self._numbers = itertools.count()

    def run(self, commands: int) -> None:
        """Say that it begins, and carry until the standard input ends."""
        os.write(sys.stdout.fileno(), b"ready\n")
        obey = self._obeying(commands)
        poll = select.poll()
        for fd in (self._near, self._far, commands):
            os.set_blocking(fd, False)
            poll.register(fd, select.POLLIN)
        while True:
            ready = poll.poll(self._wait_ms())
            now = time.monotonic()
            for fd, _ in ready:
                if fd == commands:
                    if not obey():
                        return
                else:
                    self._take(fd, now)
            self._deliver()

    def _wait_ms(self) -> float | None:
        if not self._under_way:
            return None
        return max(0.0, (self._under_way[0][0] - time.monotonic()) * 1000)

    def _obeying(self, commands: int) -> Callable[[], bool]:
        """What reads the lines that come, and says whether more may."""
        pending = bytearray()

        def obey() -> bool:
            if not (data := os.read(commands, 65536)):
                return False
            pending.extend(data)
            while (end := pending.find(b"\n")) >= 0:
                order: dict[str, Any] = json.loads(pending[:end])
                del pending[: end + 1]
                assert self._nat is not None
                self._nat.forget(order["wan"], move_ports=order["move_ports"])
                os.write(sys.stdout.fileno(), b"done\n")
            return True

        return obey

    def _take(self, fd: int, now: float) -> None:
        """Read what one device has, and put it under way."""
        for _ in range(_BURST):
            try:
                packet = bytearray(os.read(fd, 65536))
            except BlockingIOError:
                return
            if fd == self._near:
                self._from_near(packet, now)
            elif self._nat is None or (_is_ipv4(packet) and self._nat.inward(packet, now)):
                self._send(self._in, self._near, packet, now)

    def _from_near(self, packet: bytearray, now: float) -> None:
        outward: bool | None = True
        if self._nat is not None:
            outward = self._nat.outward(packet, now) if _is_ipv4(packet) else None
        if outward:
            self._send(self._out, self._far, packet, now)
        elif outward is False:
            _write(self._near, packet)

    def _send(self, direction: Direction, to: int, packet: bytearray, now: float) -> None:
        due = direction.due(len(packet), now)
        if due is None:
            return
        if due <= now:
            _write(to, packet)
        else:
            heapq.heappush(self._under_way, (due, next(self._numbers), to, packet))

    def _deliver(self) -> None:
        now = time.monotonic()
        while self._under_way and self._under_way[0][0] <= now:
            _, _, fd, packet = heapq.heappop(self._under_way)
            _write(fd, packet)


def _is_ipv4(packet: bytearray) -> bool:
    return packet[0] >> 4 == 4 and len(packet) >= 28


def _write(fd: int, packet: bytearray) -> None:
    """A device that is down takes nothing, as a broken wire would."""
    try:
        os.write(fd, packet)
    except OSError:
        pass


# --- the laboratory's side --------------------------------------------------------------------


class Wire:
    """A process that carries packets between `near` and `far`, until closed."""

    def __init__(
        self,
        near: tuple[Namespace, str],
        far: tuple[Namespace, str],
        impairment: Impairment,
        nat: dict[str, Any] | None = None,
    ) -> None:
        """`near`, `far`: a namespace and how its device is called; `nat`: a `Translator`'s."""
        # Imported here: the process itself has no use for it, and starts the sooner.
        from tests.lab.nodes import ROOT, die_with_parent, environment

        fds = [namespace.call(_tun(name)) for namespace, name in (near, far)]
        options = json.dumps({"impairment": asdict(impairment), "nat": nat})
        self._process = subprocess.Popen(
            [sys.executable, "-S", "-m", "tests.lab.nat.wire", str(fds[0]), str(fds[1]), options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env=environment(),
            pass_fds=fds,
            preexec_fn=die_with_parent,  # noqa: PLW1509 (it takes no lock)
        )
        for fd in fds:
            os.close(fd)
        self._hear(b"ready\n")

    def forget(self, wan: str | None = None, *, move_ports: bool = False) -> None:
        """As `Translator.forget`; returns once that is so."""
        assert self._process.stdin is not None
        order = json.dumps({"wan": wan, "move_ports": move_ports})
        self._process.stdin.write(order.encode() + b"\n")
        self._process.stdin.flush()
        self._hear(b"done\n")

    def _hear(self, expected: bytes) -> None:
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == expected, "the wire's process has ended"

    def end(self) -> None:
        """Tell the process to end, and wait for nothing."""
        self._process.kill()

    def close(self) -> None:
        """End the process, and wait for that."""
        self.end()
        self._process.communicate()


def _tun(name: str) -> Callable[[], int]:
    """What opens a TUN device of this name in the namespace where it is called."""

    def opened() -> int:
        fd = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
        request = struct.pack("16sH22x", name.encode(), _IFF_TUN | _IFF_NO_PI)
        fcntl.ioctl(fd, _TUNSETIFF, request)
        return fd

    return opened


def main() -> None:
    """Carry as told on the command line."""
    near, far = int(sys.argv[1]), int(sys.argv[2])
    options = json.loads(sys.argv[3])
    nat = None if options["nat"] is None else Translator(**options["nat"])
    Carrying(near, far, Impairment(**options["impairment"]), nat).run(sys.stdin.fileno())


if __name__ == "__main__":
    main()
