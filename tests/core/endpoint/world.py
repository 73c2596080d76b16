"""Endpoints in a world of their own: a network of virtual time, and shells that speak real DTLS."""

import datetime as dt
import heapq
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from random import Random

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from msgspec.structs import replace
from OpenSSL import SSL

from overlay.core.endpoint.endpoint import Endpoint
from overlay.core.endpoint.outputs import Confirm, EndpointOutput, Move, Record, Secure, Send
from overlay.core.events import Dial, DialFailed, LinkLost, Negotiate, Prepare
from overlay.core.types import Address, Candidate, IceCredentials, LinkId
from overlay.core.wire import dial_tokens as dial

LATENCY = 0.005
WALL = 1_700_000_000.0
"""Wall time when the world's clock reads 0."""
HEARTBEAT, HEARTBEAT_ACK, SACK = b"\4heartbeat", b"\5heartbeat ack", b"\3sack"
"""What stands for SCTP's chunks, encrypted like all else."""


@cache
def dtls_context() -> SSL.Context:
    """A DTLS context with a certificate, which takes any certificate and any cookie."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "endpoint")])
    start = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(start)
        .not_valid_after(start + dt.timedelta(days=36_500))
        .sign(key, hashes.SHA256())
    )
    context = SSL.Context(SSL.DTLS_METHOD)
    context.use_certificate(certificate)
    context.use_privatekey(key)
    context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, lambda *_: True)
    context.set_cookie_generate_callback(lambda _: b"unused")
    context.set_cookie_verify_callback(lambda *_: True)
    return context


class Dtls:
    """One DTLS association over a memory BIO."""

    def __init__(self, role: str, *, listen: bool = False) -> None:
        self.connection = SSL.Connection(dtls_context())
        self.connection.set_ciphertext_mtu(1200)
        self.listen = listen
        self.done = False
        if role == "client":
            self.connection.set_connect_state()
        else:
            self.connection.set_accept_state()

    def feed(self, data: bytes) -> bytes | None:
        """What a datagram decrypts to; empty: the handshake goes on; None: nothing."""
        self.connection.bio_write(data)
        if self.listen:
            self.connection.DTLSv1_listen()
            self.listen = False
        if not self.done:
            self.shake()
            return b""
        try:
            return self.connection.recv(2048)
        except SSL.Error:
            return None

    def shake(self) -> None:
        """Go on with the handshake."""
        try:
            self.connection.do_handshake()
        except SSL.Error:
            return  # it wants more, or is broken: then the attempt runs into its deadline
        self.done = True

    def outgoing(self) -> list[bytes]:
        """Datagrams to send."""
        found = []
        while True:
            try:
                found.append(self.connection.bio_read(2048))
            except SSL.WantReadError:
                return found


class Shell:
    """A node: an endpoint, and DTLS associations as the endpoint asks for them."""

    def __init__(self, world: "World", *addresses: Address, seed: int = 1) -> None:
        self.world = world
        self.addresses = addresses
        self.dial_key = Random(seed).randbytes(32)
        self.cookie_key = Random(1000 + seed).randbytes(32)
        self.endpoint = Endpoint(
            dial_key=self.dial_key, cookie_key=self.cookie_key, random=Random(2000 + seed)
        )
        self.endpoint.set_wall(WALL)
        self.endpoint.set_local(addresses)
        self.dtls: dict[LinkId, Dtls] = {}
        self.routes: dict[LinkId, tuple[Address, Address | None]] = {}
        """Where each link's datagrams go, and from where, as the endpoint has said."""
        self.outputs: list[EndpointOutput] = []
        self.read: dict[LinkId, list[bytes]] = defaultdict(list)
        self.frozen = False
        self.stock = False
        """Checks only when the test does it for it, and answers as ever."""
        self.mute = False
        """Does not answer HEARTBEATs."""
        for address in addresses:
            world.shells[address] = self

    @property
    def address(self) -> Address:
        return self.addresses[0]

    def said(self, kind: type[EndpointOutput]) -> list[EndpointOutput]:
        """All outputs of one kind so far."""
        return [each for each in self.outputs if isinstance(each, kind)]

    def secured(self) -> list[Secure]:
        return [each for each in self.outputs if isinstance(each, Secure)]

    def lost(self) -> dict[LinkId, str]:
        ends = [each for each in self.outputs if isinstance(each, DialFailed | LinkLost)]
        return {each.link: each.reason for each in ends}

    def said_kinds(self) -> list[str]:
        """What was said of the liveness of links, in order, without `LinkSuspect`."""
        kinds = [type(each).__name__ for each in self.outputs]
        return [kind for kind in kinds if kind in {"LinkAlive", "LinkSilent"}]

    def attempts(self) -> dict[LinkId, bytes]:
        """The attempt of every link."""
        return {each.link: each.attempt for each in self.secured()}

    def up(self) -> list[LinkId]:
        """Links whose handshake is complete."""
        return [link for link, dtls in self.dtls.items() if dtls.done]

    def dial(
        self,
        link: int,
        to: "Shell",
        attempt: bytes,
        *,
        expires_at: float = WALL + 3600,
        address: Address | None = None,
    ) -> None:
        """Dial another node with a token of its own making."""
        effect = make_dial(link, to, attempt, expires_at=expires_at, address=address)
        self.endpoint.perform(effect, self.world.now)
        self.flush()

    def take(self) -> list[EndpointOutput]:
        """What the endpoint wants, instead of doing it."""
        taken = []
        while (output := self.endpoint.poll()) is not None:
            taken.append(output)
        return taken

    def write(self, link: LinkId, data: bytes) -> None:
        """Send application data on a link."""
        self.dtls[link].connection.send(data)
        self._send_dtls(link)

    def receive(self, data: bytes, remote: Address, local: Address) -> None:
        link = self.endpoint.association_of(data, remote, local)
        if link is not None:
            self._feed((link,), data, remote, local)
        else:
            self.endpoint.receive(data, remote, local, self.world.now)
        self.flush()

    def flush(self) -> None:
        """Do what the endpoint wants."""
        while (output := self.endpoint.poll()) is not None:
            if not isinstance(output, Record | Send | Confirm):
                self.outputs.append(output)
            match output:
                case Send(data, remote, local):
                    self._send(data, remote, local)
                case Confirm(link, nonce, remote, local):
                    self.dtls[link].connection.send(HEARTBEAT + nonce)
                    for data in self.dtls[link].outgoing():
                        self._send(data, remote, local)
                case Move(link, remote, local):
                    self.routes[link] = (remote, local)
                case Secure():
                    self.routes[output.link] = (output.remote, output.local)
                    self.dtls[output.link] = Dtls(output.dtls_role, listen=output.cookie_exchanged)
                    if output.dtls_role == "client":
                        self.dtls[output.link].shake()
                        self._send_dtls(output.link)
                case Record(links, data, remote, local):
                    self._feed(links, data, remote, local)
                case DialFailed(link) | LinkLost(link):
                    self.dtls.pop(link, None)
                    self.routes.pop(link, None)
                case _:
                    pass

    def _feed(
        self, links: tuple[LinkId, ...], data: bytes, remote: Address, local: Address | None
    ) -> None:
        for link in links:
            dtls = self.dtls.get(link)
            if dtls is None:
                continue
            was_done = dtls.done
            made = dtls.feed(data)
            if made is None:
                continue
            if dtls.done:
                self.endpoint.decrypted(link, remote, self.world.now)
                if not was_done:
                    self.endpoint.established(link, self.world.now)
                if made:
                    self._on_plaintext(link, made, remote, local)
            self._send_dtls(link)
            return

    def _on_plaintext(
        self, link: LinkId, data: bytes, remote: Address, local: Address | None
    ) -> None:
        """What SCTP does: it acknowledges, and says what was acknowledged."""
        now, connection = self.world.now, self.dtls[link].connection
        if data.startswith(HEARTBEAT):
            if not self.mute:
                connection.send(HEARTBEAT_ACK + data.removeprefix(HEARTBEAT))
        elif data.startswith(HEARTBEAT_ACK):
            nonce = data.removeprefix(HEARTBEAT_ACK)
            self.endpoint.confirmed(link, nonce, remote, local, now)
        elif data == SACK:
            self.endpoint.acknowledged(link, now)
        else:
            self.read[link].append(data)
            connection.send(SACK)

    def _send_dtls(self, link: LinkId) -> None:
        for data in self.dtls[link].outgoing():
            self._send(data, *self.routes[link])

    def _send(self, data: bytes, remote: Address, local: Address | None) -> None:
        """A datagram leaves; one to a circuit's address by the link to its relay."""
        if not remote.port:
            way = self.endpoint.circuits.way(remote)
            if way is None:
                return
            prefix, remote, local = way
            data = prefix + data
        self.world.send(data, local or self.address, remote)


@dataclass
class World:
    """Virtual time, and datagrams under way."""

    now: float = 0.0
    latency: float = LATENCY
    """Seconds, one way."""
    shells: dict[Address, Shell] = field(default_factory=dict)
    nat: dict[Address, Address] = field(default_factory=dict)
    """A shell's address as others see it."""
    filter: Callable[[bytes, Address, Address], bool] = lambda *_: True
    sent: dict[Address, int] = field(default_factory=lambda: defaultdict(int))
    """Bytes by their target."""
    _queue: list[tuple[float, int, bytes, Address, Address]] = field(default_factory=list)
    _count: int = 0

    def send(self, data: bytes, source: Address, target: Address) -> None:
        """Let a datagram arrive a little later, with any source anybody claims."""
        self.sent[target] += len(data)
        source = self.nat.get(source, source)
        self._count += 1
        if self.filter(data, source, target):
            heapq.heappush(
                self._queue, (self.now + self.latency, self._count, data, source, target)
            )

    def run(self, seconds: float) -> None:
        """Let time pass: datagrams arrive, timers ring."""
        end = self.now + seconds
        inside = {outside: inner for inner, outside in self.nat.items()}
        for _ in range(100_000):
            at, shell = min(
                (
                    (deadline, address)
                    for address, shell in self.shells.items()
                    if not (shell.frozen or shell.stock)
                    and (deadline := shell.endpoint.next_deadline()) is not None
                ),
                default=(end, None),
            )
            if self._queue and self._queue[0][0] <= min(at, end):
                self.now, _, data, source, target = heapq.heappop(self._queue)
                reached = target not in self.nat  # whoever has moved is not at home any more
                target = inside.get(target, target)
                if reached and target in self.shells and not self.shells[target].frozen:
                    self.shells[target].receive(data, source, target)
            elif shell is not None and at <= end:
                self.now = max(self.now, at)
                self.shells[shell].endpoint.handle_timeout(self.now)
                self.shells[shell].flush()
            else:
                self.now = end
                return
        raise AssertionError("the world does not come to rest")


def make_claim(attempt: bytes, *, expires_at: float = WALL + 3600) -> dial.Claim:
    """The claim of a dial with a member's token."""
    return dial.Claim(dial.MEMBER, b"token id", int(expires_at), attempt)


def make_dial(
    link: int,
    to: Shell,
    attempt: bytes,
    *,
    expires_at: float = WALL + 3600,
    timeout: float = 5.0,
    address: Address | None = None,
) -> Dial:
    """A dial of `to`."""
    claim = make_claim(attempt, expires_at=expires_at)
    token = dial.make_token(to.dial_key, claim.kind, claim.token_id, claim.expires_at)
    local = IceCredentials("d" + attempt.hex(), "password of the dialler")
    return Dial(
        link=LinkId(link),
        addresses=(address or to.address,),
        fingerprint=bytes(32),
        remote=dial.listener_credentials(token, claim),
        local=local,
        attempt=attempt,
        timeout=timeout,
    )


def candidates_of(shell: Shell) -> tuple[Candidate, ...]:
    """Host candidates."""
    return tuple(Candidate("host", each, 126 << 24 | 255) for each in shell.addresses)


def negotiate(
    offerer: Shell, answerer: Shell, link: int, attempt: bytes, *, prepare: bool = True
) -> None:
    """Full ICE between two nodes, as after an offer and its answer."""
    ours = IceCredentials("offer" + attempt.hex(), "password of the offerer")
    theirs = IceCredentials("answer" + attempt.hex(), "password of the answerer")
    mine, others = candidates_of(offerer), candidates_of(answerer)
    now = offerer.world.now
    if prepare:
        offerer.endpoint.perform(Prepare(LinkId(link), ours, attempt, mine), now)
    answer = Negotiate(
        link=LinkId(link),
        controlling=False,
        local=theirs,
        remote=ours,
        fingerprint=bytes(32),
        attempt=attempt,
        candidates=others,
        remote_candidates=mine,
        timeout=10.0,
    )
    answerer.endpoint.perform(answer, now)
    answerer.flush()
    offerer.world.run(0.02)
    start = replace(
        answer,
        controlling=True,
        local=ours,
        remote=theirs,
        candidates=mine,
        remote_candidates=others,
    )
    offerer.endpoint.perform(start, offerer.world.now)
    offerer.flush()
