"""Two links back to back over a `Wire`, in virtual time: no tasks, no sockets."""

from collections.abc import Callable

from overlay.core.endpoint.outputs import Secure
from overlay.core.events import Event, Received
from overlay.core.limits import BoundedDict
from overlay.core.types import Address, LinkId, PathKind
from overlay.core.wire.codec import encode
from overlay.core.wire.messages import Ping, Pong
from overlay.transport.alarms import Alarm
from overlay.transport.streams import MeshStream, OnStream
from overlay.transport.udp.link import GATHER_INTERVAL, Link
from tests.transport.dtls.certificates import credentials
from tests.transport.sctp.wire import Wire

HERE, THERE = Address("192.0.2.1", 1), Address("192.0.2.2", 2)
RECEIVE_WINDOW = 1 << 20


class Host:
    """One end: what the transport is to a link, and a core that answers pings."""

    def __init__(self, wire: Wire, name: str, role: str) -> None:
        self.wire = wire
        self.credentials = credentials(name)
        self.internal_errors = 0
        self.on_stream: OnStream | None = self._on_stream
        self.path_sizes: BoundedDict[str, int] = BoundedDict(8)
        self.receive_window = RECEIVE_WINDOW
        self.streams: list[MeshStream] = []
        self.pongs: dict[int, float] = {}
        """When each pong came."""
        self.other: Host | None = None
        self.heard_from = THERE  # where all datagrams come from
        self.is_lost_on_the_way = False  # whether nothing that is sent arrives
        self.sent_to: list[Address] = []
        self.acknowledged_at: list[float] = []
        self.unacknowledged_at: list[float] = []
        self.confirmations: list[tuple[bytes, Address, Address | None]] = []
        secure = Secure(
            link=LinkId(0),
            inbound=role == "server",
            dtls_role=role,
            remote=THERE,
            local=HERE,
            path=PathKind.HOST,
            attempt=bytes(16),
            fingerprint=None,
            claim=None,
            cookie_exchanged=False,
            deadline=60.0,
        )
        self.link = Link(secure, self, HERE)

    def _on_stream(self, link: LinkId, protocol: str, stream: MeshStream) -> None:
        self.streams.append(stream)

    def now(self) -> float:
        return self.wire.time

    def call_later(self, delay: float, ring: Callable[[], None]) -> Alarm:
        return self.wire.call_later(delay, ring)

    def send_datagram(self, data: bytes, remote: Address, local: Address | None) -> None:
        assert self.other is not None
        self.sent_to.append(remote)
        if self.is_lost_on_the_way:
            return
        self.wire.carry(self.other.receive, data)

    def send_probe(self, data: bytes, remote: Address, local: Address | None) -> None:
        self.send_datagram(data, remote, local)

    def send_in_fragments(self, data: bytes, remote: Address, local: Address | None) -> None:
        assert self.other is not None
        self.wire.carry(self.other.receive, data, may_be_cut=True)

    def receive(self, data: bytes) -> None:
        self.link.receive(data, self.heard_from, self.link.local)

    def acknowledged(self, link: Link) -> None:
        self.acknowledged_at.append(self.wire.time)

    def unacknowledged(self, link: Link) -> None:
        self.unacknowledged_at.append(self.wire.time)

    def confirmed(self, link: Link, nonce: bytes, remote: Address, local: Address | None) -> None:
        self.confirmations.append((nonce, remote, local))

    def emit(self, event: Event) -> None:
        match event:
            case Received(message=Ping(token=token)):
                self.link.transmit(encode(Pong(token)))
            case Received(message=Pong(token=token)):
                self.pongs[token] = self.wire.time
            case _:
                pass

    def flush_soon(self, link: Link) -> None:
        self.wire.call_later(0, link.flush)

    def gather(self, link: Link) -> None:
        self.wire.call_later(GATHER_INTERVAL, link.gathered)

    def link_opened(self, link: Link) -> None:
        pass

    def link_closed(self, link: Link) -> None:
        pass


def linked_hosts(wire: Wire) -> tuple[Host, Host]:
    """A client and a server with an admitted link."""
    client, server = Host(wire, "alice", "client"), Host(wire, "bob", "server")
    client.other, server.other = server, client
    server.link.start()
    client.link.start()
    assert wire.run(lambda: client.link.is_open and server.link.is_open)
    client.link.admit()
    server.link.admit()
    return client, server
