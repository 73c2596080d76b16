"""Two muxes back to back: each stream id keeps its order, different ids overtake each other."""

from collections import deque
from random import Random

from overlay.core.stream.frames import FrameType
from overlay.core.stream.mux import PIECE, Changed, Opened, Over, StreamMux, Violation
from overlay.core.stream.stream import Stream


class Side:
    """A mux, and an application that notes everything."""

    def __init__(self, *, client: bool) -> None:
        self.mux = StreamMux(client=client)
        self.opened: list[Stream] = []
        self.announced: list[Stream] = []
        """Ours whose OPEN is on its way."""
        self.changed: list[Stream] = []
        self.violations: list[str] = []
        self.over: list[Stream] = []
        self.wire: dict[int, deque[bytes]] = {}
        """Frames on their way to the other side."""

    def note(self) -> None:
        for output in self.mux.take():
            match output:
                case Opened():
                    self.opened.append(output.stream)
                case Violation():
                    self.violations.append(output.why)
                case Over():
                    self.over.append(output.stream)
                case Changed():
                    self.changed.append(output.stream)

    def flush(self, limit: int = PIECE) -> None:
        """Put every frame that may be sent on the wire."""
        while self.mux.ready:
            stream_id, frame = self.mux.pop(limit)
            if frame[0] == FrameType.OPEN:
                self.announced.append(self.mux._streams[stream_id])
            self.wire.setdefault(stream_id, deque()).append(frame)
        self.note()

    def all_of(self, stream: Stream) -> bytes:
        """Read a stream empty."""
        data = bytearray()
        while piece := self.mux.read(stream, 1 << 20):
            data += piece
        return bytes(data)


class Pair:
    """The client and the server of one link."""

    def __init__(self, seed: int = 1, *, admitted: bool = True) -> None:
        self.random = Random(seed)
        self.now = 0.0
        self.client, self.server = Side(client=True), Side(client=False)
        if admitted:
            self.client.mux.admit()
            self.server.mux.admit()
            self.settle()

    def sides(self) -> tuple[tuple[Side, Side], tuple[Side, Side]]:
        return (self.client, self.server), (self.server, self.client)

    def deliver_one(self) -> bool:
        """Let one frame arrive: the first of a random id; whether there was one."""
        waiting = [
            (side, other, stream_id)
            for side, other in self.sides()
            for stream_id, frames in side.wire.items()
            if frames
        ]
        if not waiting:
            return False
        side, other, stream_id = self.random.choice(waiting)
        other.mux.receive(stream_id, side.wire[stream_id].popleft(), self.now)
        other.note()
        return True

    def settle(self) -> None:
        """Let everything arrive that can, and its answers."""
        while True:
            for side, _ in self.sides():
                side.flush()
            if not self.deliver_one():
                return

    def open(self, protocol: str = "test", priority: int = 0) -> tuple[Stream, Stream]:
        """A stream from the client to the server: both ends."""
        ours = self.client.mux.open(protocol, priority, self.now)
        assert ours is not None
        self.settle()
        return ours, self.server.opened[-1]
