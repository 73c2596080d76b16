"""DTLS: who is accepted, what garbage does, and the handshake after a cookie exchange."""

import time
from random import Random

import pytest

from overlay.core.endpoint.dtls_cookie import attempt_name, parse_client_hello
from overlay.errors import ConfigError
from overlay.transport.dtls.association import (
    AEAD_BYTES,
    LEAST_DATAGRAM_BYTES,
    MAX_DATAGRAM_BYTES,
    Credentials,
    Dtls,
)
from tests.transport.dtls.certificates import credentials, make_pem


class Ends:
    """Client and server whose datagrams are kept until they are carried."""

    def __init__(self, *, expected: bytes | None = None, cookie_exchanged: bool = False) -> None:
        self.to_server: list[bytes] = []
        self.to_client: list[bytes] = []
        self.client = Dtls(credentials("alice"), "client", self.to_server.append, expected=expected)
        self.server = Dtls(
            credentials("bob"),
            "server",
            self.to_client.append,
            cookie_exchanged=cookie_exchanged,
        )
        self.server.start()
        self.client.start()

    def carry(self) -> None:
        """Carry datagrams both ways until none is left."""
        for _ in range(20):
            self.carry_once()

    def carry_once(self) -> None:
        to_server, self.to_server[:] = list(self.to_server), []
        to_client, self.to_client[:] = list(self.to_client), []
        for datagram in to_server:
            self.server.receive(datagram)
        for datagram in to_client:
            self.client.receive(datagram)

    @property
    def states(self) -> tuple[str, str]:
        return self.client.state, self.server.state


def test_both_ends_learn_each_others_fingerprint_and_share_the_exporter() -> None:
    ends = Ends(expected=credentials("bob").fingerprint)
    ends.carry()
    assert ends.states == ("connected", "connected")
    assert ends.client.fingerprint == credentials("bob").fingerprint
    assert ends.server.fingerprint == credentials("alice").fingerprint
    assert ends.client.exporter == ends.server.exporter
    assert len(ends.client.exporter) == 32


@pytest.mark.parametrize("name", [b"", attempt_name(b"a" * 16)])
def test_a_clients_first_message_says_which_attempt_it_belongs_to(name: bytes) -> None:
    sent: list[bytes] = []
    Dtls(credentials("alice"), "client", sent.append, name=name).start()
    hello = parse_client_hello(sent[0])
    assert hello is not None
    assert hello.name == name


def test_each_session_exports_other_keying_material() -> None:
    first, second = Ends(), Ends()
    first.carry()
    second.carry()
    assert first.client.exporter != second.client.exporter


def test_a_handshake_gets_over_a_path_that_drops_large_datagrams() -> None:
    """After two time-outs (1 s and 2 s; OpenSSL's clock is the real one) flights are small."""
    ends = Ends(cookie_exchanged=True)
    ends.client.receive(with_cookie(ends.to_server.pop(), b"c" * 20))
    dropped = 0
    while ends.states != ("connected", "connected"):
        ends.client.handle_timeout()
        ends.server.handle_timeout()
        for datagrams in (ends.to_server, ends.to_client):
            fit = [each for each in datagrams if len(each) <= LEAST_DATAGRAM_BYTES]
            dropped += len(datagrams) - len(fit)
            datagrams[:] = fit
        ends.carry_once()
        time.sleep(0.01)
    assert dropped == 2, "counter-test: flights were too large, and the third was not"
    assert ends.client.is_small
    assert ends.server.is_small


def test_a_handshake_without_losses_stays_large() -> None:
    ends = Ends()
    ends.carry()
    assert not ends.client.is_small
    assert not ends.server.is_small


def test_the_overhead_of_a_record_is_known() -> None:
    ends = Ends()
    ends.carry()
    for _ in range(2):
        ends.client.send(bytes(100))
        assert len(ends.to_server[-1]) == 100 + AEAD_BYTES == 100 + ends.client.overhead
        ends.carry()
        ends.server.send(b"x")  # from now on without OpenSSL
        ends.carry()


def test_a_certificate_that_was_not_expected_is_refused_and_the_peer_hears_of_it() -> None:
    ends = Ends(expected=credentials("mallory").fingerprint)
    ends.carry()
    assert ends.client.state == "failed"
    assert ends.client.failure == "certificate"
    assert ends.server.state == "closed"


def test_plaintexts_cross_both_ways_and_close_is_heard() -> None:
    ends = Ends()
    ends.carry()
    ends.client.send(b"question")
    assert ends.server.receive(ends.to_server.pop()) == [b"question"]
    ends.server.send(b"answer")
    assert ends.client.receive(ends.to_client.pop()) == [b"answer"]
    ends.server.close()
    assert ends.client.receive(ends.to_client.pop()) == []
    assert ends.states == ("closed", "closed")
    ends.client.send(b"nobody listens")
    assert ends.to_server == []


def test_several_records_in_one_datagram_are_all_read() -> None:
    ends = Ends()
    ends.carry()
    for word in (b"one", b"two", b"three"):
        ends.client.send(word)
    together = b"".join(ends.to_server)
    assert ends.server.receive(together) == [b"one", b"two", b"three"]


def test_a_replayed_or_altered_record_yields_nothing_and_harms_nothing() -> None:
    ends = Ends()
    ends.carry()
    ends.client.send(b"once")
    record = ends.to_server.pop()
    altered = record[:-1] + bytes([record[-1] ^ 1])
    assert ends.server.receive(altered) is None
    assert ends.server.receive(record) == [b"once"]
    assert ends.server.receive(record) is None
    ends.client.send(b"again")
    assert ends.server.receive(ends.to_server.pop()) == [b"again"]


@pytest.mark.parametrize("seed", range(5))
def test_garbage_into_an_established_association_harms_nothing(seed: int) -> None:
    random = Random(seed)
    ends = Ends()
    ends.carry()
    ends.client.send(b"captured")
    valid = ends.to_server.pop()
    for _ in range(400):
        garbage = bytearray(random.choice((valid, random.randbytes(random.randrange(1, 80)))))
        for _ in range(random.randrange(1, 5)):
            garbage[random.randrange(len(garbage))] = random.randrange(256)
        if bytes(garbage) != valid:
            assert not ends.server.receive(bytes(garbage))
    ends.client.send(b"still here")
    assert ends.server.receive(ends.to_server.pop()) == [b"still here"]


def with_cookie(client_hello: bytes, cookie: bytes) -> bytes:
    """The HelloVerifyRequest that asks for `cookie` (RFC 6347 §4.2.1)."""
    body = b"\xfe\xff" + bytes([len(cookie)]) + cookie
    length = len(body).to_bytes(3, "big")
    message = b"\x03" + length + b"\0\0" + b"\0\0\0" + length + body
    return b"\x16\xfe\xff" + client_hello[3:11] + len(message).to_bytes(2, "big") + message


def test_the_server_takes_up_a_handshake_after_the_endpoints_cookie_exchange() -> None:
    ends = Ends(cookie_exchanged=True)
    first = ends.to_server.pop()
    ends.client.receive(with_cookie(first, b"c" * 20))
    second = ends.to_server.pop()
    assert second[17:19] == b"\0\1", "the ClientHello with the cookie has message_seq 1"
    assert ends.server.receive(second) is not None
    ends.carry()
    assert ends.states == ("connected", "connected")


def test_without_the_cookie_exchange_the_second_client_hello_would_not_do() -> None:
    """The counter-test: this is why the server has to be told."""
    ends = Ends(cookie_exchanged=False)
    first = ends.to_server.pop()
    ends.client.receive(with_cookie(first, b"c" * 20))
    assert ends.server.receive(ends.to_server.pop()) is None
    assert ends.to_client == []


@pytest.mark.parametrize("noise", [b"\x16", b"\x16\xfe\xfd" + bytes(40), b"\x17" * 30])
def test_noise_before_the_client_hello_is_ignored_and_not_answered(noise: bytes) -> None:
    ends = Ends(cookie_exchanged=True)
    first = ends.to_server.pop()
    assert ends.server.receive(noise) is None
    assert ends.server.receive(first) is None, (
        "a ClientHello without a cookie is the endpoint's business"
    )
    assert ends.to_client == []
    ends.client.receive(with_cookie(first, b"c" * 20))
    ends.carry()
    assert ends.states == ("connected", "connected")


def test_a_lost_flight_is_sent_again_when_its_timer_has_run_out() -> None:
    ends = Ends()
    ends.to_server.clear()
    timeout = ends.client.timeout()
    assert timeout is not None
    assert 0 < timeout <= 1
    while not ends.to_server:
        ends.client.handle_timeout()  # OpenSSL's clock is the real one: at most a second
    ends.carry()
    assert ends.states == ("connected", "connected")
    assert ends.client.timeout() is None


def test_no_flight_exceeds_a_datagram_and_records_stay_whole() -> None:
    ends = Ends()
    datagrams: list[bytes] = []
    for _ in range(10):
        datagrams += ends.to_server + ends.to_client
        ends.carry_once()
    assert ends.states == ("connected", "connected")
    for datagram in datagrams:
        assert len(datagram) <= MAX_DATAGRAM_BYTES
        while datagram:
            length = 13 + int.from_bytes(datagram[11:13], "big")
            assert len(datagram) >= length
            datagram = datagram[length:]


def test_a_broken_certificate_file_is_one_line_that_says_what_to_do() -> None:
    for pem in (b"", b"nonsense", make_pem().split(b"-----BEGIN PRIVATE KEY")[0]):
        with pytest.raises(ConfigError, match="certificate"):
            Credentials(pem)


def test_data_that_overtakes_the_last_flight_is_read_right_after_it() -> None:
    ends = Ends()
    while ends.server.state != "connected":
        for datagram in ends.to_server:
            ends.server.receive(datagram)
        ends.to_server.clear()
        if ends.server.state != "connected":
            for datagram in ends.to_client:
                ends.client.receive(datagram)
            ends.to_client.clear()
    last_flight = list(ends.to_client)
    ends.to_client.clear()
    ends.server.send(b"quick")
    assert ends.client.receive(ends.to_client.pop()) is None, "no keys to read it with"
    read = [ends.client.receive(datagram) for datagram in last_flight]
    assert ends.client.state == "connected"
    assert read == [[b"quick"]]
    ends.server.send(b"next")
    assert ends.client.receive(ends.to_client.pop()) == [b"next"]


@pytest.mark.parametrize("lost", range(6))
def test_any_datagram_of_the_handshake_may_get_lost_and_its_flight_is_repeated(lost: int) -> None:
    """Long before OpenSSL's own timer: nobody looks at that here."""
    ends = Ends()
    count = 0
    for _ in range(8):
        for way in (ends.to_server, ends.to_client):
            count += len(way)
            if lost in range(count - len(way), count):
                del way[lost - count + len(way)]
        ends.carry_once()
    assert (ends.states == ("connected", "connected")) == (lost >= count)
    for _ in range(4):
        ends.client.repeat()
        ends.server.repeat()
        ends.carry()
    assert ends.states == ("connected", "connected")
    ends.server.send(b"heard")
    assert ends.client.receive(ends.to_client.pop()) == [b"heard"]


def test_an_answered_flight_is_not_repeated() -> None:
    ends = Ends()
    ends.carry()
    assert not ends.client.repeat()
    assert ends.server.repeat(), "the client's data has not come yet"
    ends.to_client.clear()
    ends.client.send(b"data")
    ends.carry_once()
    assert not ends.server.repeat()
    assert ends.to_client == []
