"""Records after the handshake: the same bytes that OpenSSL makes and takes, each of them once."""

import time
from collections.abc import Callable
from random import Random

import pytest

from overlay.transport.dtls import association as dtls
from overlay.transport.dtls.association import Credentials, Dtls
from overlay.transport.dtls.records import (
    ALERT,
    APPLICATION_DATA,
    EPOCH,
    HEADER_BYTES,
    SUITES,
    WINDOW,
    Records,
    Secrets,
    prf,
)
from tests.transport.dtls.certificates import credentials, make_pem

GCM = "ECDHE-ECDSA-AES128-GCM-SHA256"
CBC = "ECDHE-ECDSA-AES128-SHA"


class Ends:
    """A client and a server that have finished their handshake, nothing sent yet."""

    def __init__(self, suite: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(dtls, "_CIPHERS", suite.encode())
        self.to_server: list[bytes] = []
        self.to_client: list[bytes] = []
        self.flights: list[bytes] = []
        """All that the client sent for the handshake."""
        self.client = Dtls(Credentials(make_pem()), "client", self.to_server.append)
        self.server = Dtls(Credentials(make_pem()), "server", self.to_client.append)
        self.server.start()
        self.client.start()
        while self.to_server or self.to_client:
            while self.to_server:
                self.flights.append(self.to_server.pop(0))
                self.server.receive(self.flights[-1])
            while self.to_client:
                self.client.receive(self.to_client.pop(0))
        assert (self.client.state, self.server.state) == ("connected", "connected")

    def ask(self, data: bytes) -> list[bytes] | None:
        """Client to server."""
        self.client.send(data)
        return self.server.receive(self.to_server.pop())

    def reply(self, data: bytes) -> list[bytes] | None:
        """Server to client."""
        self.server.send(data)
        return self.client.receive(self.to_client.pop())


@pytest.fixture(params=sorted(SUITES))
def ends(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Ends:
    """Both ends after one message each way: both have let OpenSSL go."""
    both = Ends(request.param, monkeypatch)
    assert both.ask(b"first") == [b"first"]
    assert both.reply(b"first") == [b"first"]
    assert not openssl_holds(both.client)
    assert not openssl_holds(both.server)
    return both


def openssl_holds(end: Dtls) -> bool:
    return hasattr(end, "_ssl")


def epoch_and_number(record: bytes) -> tuple[int, int]:
    return int.from_bytes(record[3:5], "big"), int.from_bytes(record[5:11], "big")


def pair(suite: str) -> tuple[Records, Records]:
    """A client's and a server's records right after a handshake."""
    secrets = Secrets(suite, b"m" * 48, b"c" * 32, b"s" * 32)
    finished = b"\x16\xfe\xfd\0\1" + bytes(6) + b"\0\x28" + bytes(40)
    return Records(secrets, "client", finished, finished), Records(
        secrets, "server", finished, finished
    )


def test_the_prf_is_that_of_the_published_vector() -> None:
    secret = bytes.fromhex("9bbe436ba940f017b17652849a71db35")
    seed = bytes.fromhex("a0ba9f936cda311827a6f796ffd5198c")
    output = prf(secret, b"test label", seed, 100)
    assert output[:16].hex() == "e3f229ba727be17b8d122620557cd453"
    assert output[16:32].hex() == "c2aab21d07c3d495329b52d4e61edb5a"
    assert len(output) == 100


@pytest.mark.parametrize("suite", sorted(SUITES))
@pytest.mark.parametrize("first", ["client", "server"])
def test_each_end_takes_over_when_it_first_hears_data(
    suite: str, first: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = Ends(suite, monkeypatch)
    assert openssl_holds(both.client)
    assert openssl_holds(both.server)
    talk: list[Callable[[bytes], list[bytes] | None]] = [both.ask, both.reply]
    if first == "server":
        talk.reverse()
    for number in range(6):  # the other end is OpenSSL at first, and then it is not
        word = b"message %d" % number
        assert talk[number % 2](word) == [word]
    assert not openssl_holds(both.client)
    assert not openssl_holds(both.server)


@pytest.mark.parametrize("suite", sorted(SUITES))
def test_openssl_at_the_other_end_never_notices(
    suite: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = Ends(suite, monkeypatch)
    monkeypatch.setattr(both.server, "_take_over", lambda heard: None)
    for number in range(3):
        word = b"message %d" % number
        assert both.ask(word) == [word]
        assert both.reply(word) == [word]
    assert openssl_holds(both.server)
    assert not openssl_holds(both.client)
    both.client.close()
    assert both.server.receive(both.to_server.pop()) == []
    assert both.server.state == "closed"


def test_another_suite_stays_with_openssl(monkeypatch: pytest.MonkeyPatch) -> None:
    both = Ends(CBC, monkeypatch)
    assert both.ask(b"question") == [b"question"]
    assert both.reply(b"answer") == [b"answer"]
    assert openssl_holds(both.client)
    assert openssl_holds(both.server)


def test_no_record_number_and_no_nonce_is_used_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    both = Ends(GCM, monkeypatch)
    sent: list[bytes] = [each for each in split(both.flights) if epoch_and_number(each)[0] == EPOCH]
    assert len(sent) == 1, "the Finished message"
    for data in (b"by OpenSSL", b"by OpenSSL too"):
        both.client.send(data)
    assert openssl_holds(both.client)
    both.reply(b"take over")
    for data in (b"by us", b"by us too"):
        both.client.send(data)
    sent += both.to_server
    assert [epoch_and_number(each) for each in sent] == [(EPOCH, number) for number in range(5)]
    nonces = [int.from_bytes(each[HEADER_BYTES : HEADER_BYTES + 8], "big") for each in sent]
    assert nonces == [(nonces[0] + step) & 0xFFFF_FFFF_FFFF_FFFF for step in range(5)]


def split(datagrams: list[bytes]) -> list[bytes]:
    """The records in datagrams."""
    records = []
    for datagram in datagrams:
        while datagram:
            size = HEADER_BYTES + int.from_bytes(datagram[11:13], "big")
            records.append(datagram[:size])
            datagram = datagram[size:]
    return records


def test_the_last_flight_is_sent_again_as_long_as_the_peer_may_lack_it() -> None:
    """The client loses the server's Finished: only OpenSSL, still there, can repeat it."""
    to_server: list[bytes] = []
    to_client: list[bytes] = []
    client = Dtls(credentials("alice"), "client", to_server.append)
    server = Dtls(credentials("bob"), "server", to_client.append)
    server.start()
    client.start()
    while server.state != "connected":
        server.receive(to_server.pop(0))
        if server.state != "connected":
            carry(to_client, client)
    to_client.clear()
    assert client.state == "connecting"
    while (left := client.timeout()) is not None and left > 0:
        time.sleep(left)
    client.handle_timeout()
    carry(to_server, server)
    carry(to_client, client)
    assert client.state == "connected"
    client.send(b"at last")
    assert server.receive(to_server.pop()) == [b"at last"]


def carry(datagrams: list[bytes], end: Dtls) -> None:
    while datagrams:
        end.receive(datagrams.pop(0))


def test_a_repeated_flight_is_ignored_once_data_has_come(ends: Ends) -> None:
    for datagram in ends.flights:
        assert ends.server.receive(datagram) is None
    assert ends.to_client == []
    assert ends.ask(b"and goes on") == [b"and goes on"]


def test_a_record_is_taken_once(ends: Ends) -> None:
    ends.client.send(b"once")
    record = ends.to_server.pop()
    assert ends.server.receive(record) == [b"once"]
    assert ends.server.receive(record) is None


def test_the_record_at_which_we_took_over_is_not_taken_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    both = Ends(GCM, monkeypatch)
    both.client.send(b"first")
    record = both.to_server.pop()
    assert both.server.receive(record) == [b"first"]
    assert not openssl_holds(both.server)
    assert both.server.receive(record) is None


@pytest.mark.parametrize("place", [0, 1, 3, 4, 5, 10, 11, 12, 13, 20, 21, 30, -1])
def test_an_altered_record_is_nothing_and_the_genuine_one_still_counts(
    ends: Ends, place: int
) -> None:
    ends.client.send(b"a message that is long enough")
    record = bytearray(ends.to_server.pop())
    record[place] ^= 0x40
    assert not ends.server.receive(bytes(record))
    assert ends.server.state == "connected"
    record[place] ^= 0x40
    assert ends.server.receive(bytes(record)) == [b"a message that is long enough"]


@pytest.mark.parametrize("seed", range(5))
def test_garbage_harms_nothing(ends: Ends, seed: int) -> None:
    random = Random(seed)
    ends.client.send(b"captured")
    valid = ends.to_server.pop()
    for _ in range(400):
        garbage = bytearray(random.choice((valid, random.randbytes(random.randrange(1, 80)))))
        for _ in range(random.randrange(1, 5)):
            garbage[random.randrange(len(garbage))] = random.randrange(256)
        if bytes(garbage) != valid:
            assert not ends.server.receive(bytes(garbage))
    assert ends.server.receive(valid) == [b"captured"]
    assert ends.ask(b"still here") == [b"still here"]


@pytest.mark.parametrize("cut", [0, 1, 12, 13, 14, 20, 28, 30])
def test_a_cut_record_is_nothing(ends: Ends, cut: int) -> None:
    ends.client.send(b"whole")
    assert ends.server.receive(ends.to_server.pop()[:cut]) is None


def test_a_datagram_may_hold_several_records_and_garbage_after_them(ends: Ends) -> None:
    for word in (b"one", b"two"):
        ends.client.send(word)
    together = b"".join(ends.to_server)
    assert ends.server.receive(together + b"\x17garbage") == [b"one", b"two"]


def test_an_alert_that_is_not_encrypted_ends_nothing(ends: Ends) -> None:
    forged = b"\x15\xfe\xfd" + bytes(8) + b"\0\2" + b"\2\x28"
    assert ends.server.receive(forged) is None
    assert ends.server.state == "connected"


def test_close_is_heard_and_nothing_after_it(ends: Ends) -> None:
    ends.client.send(b"too late")
    late = ends.to_server.pop()
    ends.client.close()
    assert ends.server.receive(ends.to_server.pop()) == []
    assert ends.server.state == "closed"
    assert ends.server.receive(late) is None
    ends.client.send(b"nobody listens")
    assert ends.to_server == []


def test_a_fatal_alert_is_a_failure(ends: Ends) -> None:
    assert ends.client._records is not None
    record = ends.client._records.seal(ALERT, b"\2\x50")
    assert ends.server.receive(record) == []
    assert (ends.server.state, ends.server.failure) == ("failed", "protocol")


def test_a_warning_is_not(ends: Ends) -> None:
    assert ends.client._records is not None
    record = ends.client._records.seal(ALERT, b"\1\x5a")
    assert ends.server.receive(record) == []
    assert ends.server.state == "connected"


@pytest.mark.parametrize("suite", sorted(SUITES))
def test_records_out_of_order_are_taken_within_the_window_only(suite: str) -> None:
    client, server = pair(suite)
    records = [client.seal(APPLICATION_DATA, b"%d" % number) for number in range(WINDOW + 2)]
    assert server.open(records[-1]) == b"%d" % (WINDOW + 1)
    assert server.open(records[1]) is None, "as old as the window is wide"
    assert server.open(records[2]) == b"2"
    assert server.open(records[2]) is None
    middle = records[3:-1]
    assert all(server.open(record) is not None for record in reversed(middle))
    assert not any(server.open(record) for record in records)


def test_a_far_jump_ahead_leaves_nothing_marked_behind() -> None:
    client, server = pair(GCM)
    records = [client.seal(APPLICATION_DATA, b"%d" % number) for number in range(3 * WINDOW)]
    assert server.open(records[0]) == b"0"
    assert server.open(records[2 * WINDOW]) is not None
    assert server.open(records[2 * WINDOW - 1]) is not None
    assert server.open(records[2 * WINDOW]) is None


def test_each_direction_has_its_own_keys() -> None:
    client, server = pair(GCM)
    record = client.seal(APPLICATION_DATA, b"mine")
    assert client.open(record) is None
    assert server.open(record) == b"mine"


def test_a_forged_record_does_not_move_the_window() -> None:
    client, server = pair(GCM)
    record = client.seal(APPLICATION_DATA, b"genuine")
    ahead = record[:5] + b"\xff" * 6 + record[11:]
    assert server.open(ahead) is None
    assert server.open(record) == b"genuine"


@pytest.mark.parametrize("suite", sorted(SUITES))
def test_an_empty_record_is_genuine_and_taken_once(suite: str) -> None:
    client, server = pair(suite)
    record = client.seal(APPLICATION_DATA, b"")
    assert server.open(record) == b""
    assert server.open(record) is None
    assert server.open(record[:-1]) is None
