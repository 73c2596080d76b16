"""DTLS against OpenSSL at the other end, and what our own end must not do on its way from it."""

import time
from contextlib import suppress

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL import SSL

from overlay.transport.dtls import association as dtls
from overlay.transport.dtls.association import Credentials, Dtls
from overlay.transport.dtls.records import ALERT, SUITES, Secrets
from tests.transport.dtls.certificates import credentials, make_pem, pem

DTLS_1_0, DTLS_1_2 = 0xFEFF, 0xFEFD
NO_EXTENDED_MASTER_SECRET = 1
"""SSL_OP_NO_EXTENDED_MASTER_SECRET, which pyOpenSSL does not name."""
CBC = "ECDHE-ECDSA-AES128-SHA"


class Ends:
    """An end of ours, in this role, and OpenSSL as its peer."""

    def __init__(self, role: str, ciphers: str, version: int = DTLS_1_2, options: int = 0) -> None:
        context = SSL.Context(SSL.DTLS_METHOD)
        context.set_min_proto_version(version)
        context.set_max_proto_version(version)
        context.set_options(options)
        context.set_cipher_list(ciphers.encode() + b":@SECLEVEL=0")
        context.set_verify(SSL.VERIFY_PEER, lambda *_: True)
        context.use_certificate(x509.load_pem_x509_certificate(pem("mallory")))
        key = serialization.load_pem_private_key(pem("mallory"), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        context.use_privatekey(key)
        context.set_tlsext_use_srtp(b"SRTP_AES128_CM_SHA1_80")
        self.peer = SSL.Connection(context)
        self.peer.set_ciphertext_mtu(1200)
        self.sent: list[bytes] = []
        """By our end."""
        # Fresh credentials: the test may have changed what a context is made with.
        self.ours = Dtls(Credentials(make_pem()), role, self.sent.append)
        if role == "client":
            self.peer.set_accept_state()
        else:
            self.peer.set_connect_state()
        self.ours.start()
        self.peer_is_done = False
        for _ in range(12):
            self._carry()

    def _carry(self) -> None:
        while self.sent:
            self.peer.bio_write(self.sent.pop(0))
        try:
            self.peer.do_handshake()
            self.peer_is_done = True
        except SSL.WantReadError:
            pass
        except SSL.Error:
            self.peer_is_done = False
        if flight := self.written():
            self.ours.receive(flight)

    @property
    def connected(self) -> bool:
        return self.peer_is_done and self.ours.state == "connected"

    def written(self) -> bytes:
        """What the peer has to send."""
        try:
            return self.peer.bio_read(65_536)
        except SSL.WantReadError:
            return b""

    def say(self, data: bytes) -> bytes:
        """A record of the peer's."""
        self.peer.send(data)
        return self.written()

    def hear(self) -> bytes:
        """The peer reads the oldest record of ours."""
        self.peer.bio_write(self.sent.pop(0))
        return self.peer.recv(4096)

    @property
    def took_over(self) -> bool:
        """Whether our end has let its own OpenSSL go."""
        return not hasattr(self.ours, "_ssl")


ROLES = pytest.mark.parametrize("role", ["client", "server"])


@ROLES
@pytest.mark.parametrize("suite", sorted(SUITES))
@pytest.mark.parametrize("options", [0, NO_EXTENDED_MASTER_SECRET])
def test_openssl_and_our_records_understand_each_other(role: str, suite: str, options: int) -> None:
    ends = Ends(role, suite, options=options)
    assert ends.connected
    for number in range(3):
        word = b"message %d" % number
        assert ends.ours.receive(ends.say(word)) == [word]
        assert ends.took_over
        ends.ours.send(word)
        assert ends.hear() == word
    ends.peer.shutdown()
    assert ends.ours.receive(ends.written()) == []
    assert ends.ours.state == "closed"


@ROLES
@pytest.mark.parametrize(
    "suite",
    [
        "ECDHE-ECDSA-AES256-GCM-SHA384",  # its PRF is another
        "ECDHE-ECDSA-NULL-SHA",
        "AECDH-AES128-SHA",
        "ECDHE-RSA-AES128-GCM-SHA256",
        "DHE-RSA-AES128-GCM-SHA256",
        "AES128-GCM-SHA256",
        "PSK-AES128-GCM-SHA256",
    ],
)
def test_a_suite_that_is_not_ours_makes_no_association(role: str, suite: str) -> None:
    ends = Ends(role, suite)
    assert not ends.connected
    assert ends.ours.state != "connected"


@ROLES
@pytest.mark.parametrize(("version", "connected"), [(DTLS_1_0, False), (DTLS_1_2, True)])
def test_an_older_dtls_is_refused_whatever_openssl_thinks_of_it(
    role: str, version: int, connected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenSSL refuses DTLS 1.0 only above security level 0: here our end has that level too."""
    monkeypatch.setattr(dtls, "_CIPHERS", f"{CBC}:@SECLEVEL=0".encode())
    assert Ends(role, CBC, version).connected is connected


@ROLES
@pytest.mark.parametrize("later", [False, True])
def test_a_peer_that_wants_to_renegotiate_gets_nowhere(role: str, later: bool) -> None:
    ends = Ends(role, "ECDHE-ECDSA-AES128-GCM-SHA256")
    if later:
        ends.ours.receive(ends.say(b"take over"))
    genuine = ends.say(b"said before")
    ends.peer.renegotiate()
    with suppress(SSL.WantReadError):
        ends.peer.do_handshake()
    assert not ends.ours.receive(ends.written())
    assert all(record[0] == ALERT for record in ends.sent), "at most a word that we do not"
    assert ends.ours.state == "connected"
    assert ends.ours.receive(genuine) == [b"said before"]


def test_what_openssl_has_read_is_not_read_again_after_it_is_gone() -> None:
    """A datagram of two records leaves OpenSSL in place; one that comes late does not reopen it."""
    ends = Ends("server", "ECDHE-ECDSA-AES128-GCM-SHA256")
    first, second, third = (ends.say(word) for word in (b"one", b"two", b"three"))
    assert ends.ours.receive(second + third) == [b"two", b"three"]
    assert ends.ours.receive(first) == [b"one"], "late, but genuine"
    for replayed in (first, second, third, second + third):
        assert not ends.ours.receive(replayed)
    assert ends.ours.receive(ends.say(b"four")) == [b"four"]
    assert ends.took_over
    for replayed in (first, second, third):
        assert not ends.ours.receive(replayed)


def test_a_forged_record_number_keeps_openssl_and_harms_nothing() -> None:
    """The price of the rule above: a number forged in time costs us memory, not the link."""
    ends = Ends("server", "ECDHE-ECDSA-AES128-GCM-SHA256")
    record = ends.say(b"one")
    forged = record[:5] + b"\xff" * 6 + record[11:]
    assert not ends.ours.receive(forged)
    assert ends.ours.receive(record) == [b"one"]
    assert not ends.took_over
    ends.ours.send(b"answer")
    assert ends.hear() == b"answer"
    assert ends.ours.receive(ends.say(b"two")) == [b"two"]
    assert not ends.ours.receive(record)


def test_an_empty_record_says_nothing() -> None:
    """RFC 5246 §6.2.1 allows it; only the record layer is to notice."""
    ends = Ends("client", "ECDHE-ECDSA-AES128-GCM-SHA256")
    ends.ours.receive(ends.say(b"take over"))
    assert ends.took_over
    ends.ours.send(b"")
    with pytest.raises(SSL.WantReadError):
        ends.hear()
    ends.ours.send(b"after it")
    assert ends.hear() == b"after it"


class Lossy:
    """Both ends ours, with some datagrams of the handshake lost, and data sent at once."""

    def __init__(self, lost: frozenset[int]) -> None:
        self._lost = lost
        self._number = 0
        self._wire: list[tuple[str, bytes]] = []
        self.heard: dict[str, list[bytes]] = {"client": [], "server": []}
        self._ends = {
            "client": Dtls(credentials("alice"), "client", lambda data: self._send("server", data)),
            "server": Dtls(credentials("bob"), "server", lambda data: self._send("client", data)),
        }
        self._ends["server"].start()
        self._ends["client"].start()

    def _send(self, to: str, data: bytes) -> None:
        if self._number not in self._lost:
            self._wire.append((to, data))
        self._number += 1

    def step(self) -> None:
        """Carry everything, let due timers ring, say something again."""
        while self._wire:
            name, datagram = self._wire.pop(0)
            self.heard[name] += self._ends[name].receive(datagram) or []
        for name, end in self._ends.items():
            if (left := end.timeout()) is not None and left <= 0:
                end.handle_timeout()
            end.send(f"from the {name}".encode())

    @property
    def is_done(self) -> bool:
        return all(self.heard.values())


def test_whatever_is_lost_of_the_handshake_it_is_completed() -> None:
    """Each datagram, each pair of neighbours: whose end lets OpenSSL go, has nothing to repeat.

    Both ends send data as soon as they may, so the first data races with the last flight.
    """
    losses = [frozenset({n}) for n in range(10)] + [frozenset({n, n + 1}) for n in range(9)]
    links = [Lossy(lost) for lost in losses]
    for _ in range(1000):
        for link in links:
            link.step()
        if all(link.is_done for link in links):
            break
        time.sleep(0.02)  # OpenSSL's timers are real
    unfinished = [set(lost) for lost, link in zip(losses, links, strict=True) if not link.is_done]
    assert not unfinished


def test_the_secrets_of_a_link_are_not_shown() -> None:
    secrets = Secrets("ECDHE-ECDSA-AES128-GCM-SHA256", b"master secret" * 3, b"c" * 32, b"s" * 32)
    assert "master secret" not in repr(secrets)
