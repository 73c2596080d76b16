"""The storm's own instruments: forged packets arrive, and an amplifier would be noticed."""

import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from tests.lab.backlog import backlog
from tests.lab.storm import Address, Strangers, client_hello, may_forge, udp_packet

Answer = Callable[[bytes], bytes]


class Victim:
    """A listener that answers every datagram by a rule, until closed."""

    def __init__(self, answer: Answer) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.address: Address = self.socket.getsockname()
        self.sources: set[str] = set()
        self._answer = answer
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while (data := self.socket.recvfrom(4096))[0] != b"stop":
            self.sources.add(data[1][0])
            if answer := self._answer(data[0]):
                self.socket.sendto(answer, data[1])

    def close(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.sendto(b"stop", self.address)
        self._thread.join()
        self.socket.close()


@pytest.fixture
def strangers() -> Iterator[Callable[[Victim], Strangers]]:
    if not may_forge():
        pytest.skip("needs CAP_NET_RAW to forge source addresses: run as root")
    made: list[tuple[Strangers, Victim]] = []

    def at(victim: Victim) -> Strangers:
        made.append((Strangers(victim.address, [("127.0.0.9", 555)], seed=1), victim))
        return made[-1][0]

    yield at
    for storm, victim in made:
        storm.close()
        victim.close()


def settled(storm: Strangers, victim: Victim) -> None:
    """Wait until the listener has read and answered all."""
    while backlog(victim.address[1])[0]:
        pass
    storm.listen()


def test_a_listener_that_answers_small_is_no_amplifier(
    strangers: Callable[[Victim], Strangers],
) -> None:
    victim = Victim(lambda data: data[:20])
    storm = strangers(victim)
    storm.send(2000)
    settled(storm, victim)
    assert 0.0 < storm.worst_amplification() <= 1.0
    assert {"127.0.0.1", "127.0.0.9", "127.0.0.21"} <= victim.sources, "forged sources arrive"


def test_an_amplifier_is_noticed(strangers: Callable[[Victim], Strangers]) -> None:
    """The counter-test: as the naive listener did, fourteen times a ClientHello."""
    victim = Victim(lambda data: (14 * data)[:4000] if data[:1] == b"\x16" else b"")
    storm = strangers(victim)
    storm.send(2000)
    settled(storm, victim)
    assert storm.worst_amplification() > 1.0


def test_a_first_client_hello_has_no_cookie() -> None:
    hello = client_hello()
    assert hello[0] == 22
    assert hello[13] == 1
    session_id_at = 13 + 12 + 2 + 32
    assert hello[session_id_at] == 0
    assert hello[session_id_at + 1] == 0, "the length of its cookie"


def test_what_nobody_reads_shows_as_backlog() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as reader:
        reader.bind(("127.0.0.1", 0))
        assert backlog(reader.getsockname()[1]) == (0, 0)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(bytes(1000), reader.getsockname())
        assert backlog(reader.getsockname()[1])[0] >= 1000


def test_a_forged_packet_is_well_formed() -> None:
    packet = udp_packet(("10.0.0.1", 5), ("10.0.0.2", 6), b"data")
    assert packet[0] == 0x45
    assert len(packet) == 32
    assert packet[-4:] == b"data"
