"""A node that joins like any other and then misbehaves towards the member that let it in.

``python -m tests.builds.misbehaving FAULT DIRECTORY``, with the invite on stdin. FAULT is one of

``floods_pings``, ``floods_records``, ``floods_gossip``: control messages, each valid by itself, as
fast as the link takes them; the records are those of members that do not exist.
``opens_streams``: ten thousand streams that nobody serves, over one link after another.
``half_message``: the first part of a publication, the first fragment of a control message and of
stream frames; never the rest.
``deaf``: reads its socket no more, acknowledges nothing, but goes on sending.

Prints ``{"event": "ready"}``, then ``{"event": "done", "count"}`` when it has had its time. A lost
link it opens again, as long as it is let.
"""

import json
import sys
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import trio

import overlay
from overlay import api
from overlay.core.context import Context
from overlay.core.events import Publish, Transmit
from overlay.core.gossip.publications import Dissemination
from overlay.core.membership.records import make_record
from overlay.core.types import LinkId, PeerId, RequestId
from overlay.core.wire import invite
from overlay.core.wire.messages import Message, Ping, Records
from overlay.errors import CommandFailed
from overlay.identity import Identity, Keys, MemoryPrekeys, ephemeral, peer_id_text
from overlay.node.node import Node
from overlay.transport.outbox import CONTROL
from overlay.transport.sctp.association import BINARY
from overlay.transport.sctp.packets import FIRST_FRAGMENT, OutboundData
from overlay.transport.udp.sockets import UdpSocket

FLOOD_SECONDS = 4.0
AHEAD = 1 << 18
"""Bytes that a flood keeps waiting at our end of the link."""
PUBLICATIONS = 3_000
HALF_PUBLISHED = 100_000
STREAMS = 10_000
AT_ONCE = 200
FRAGMENT = bytes(1000)

_read = UdpSocket.read
deaf = trio.Event()


def say(event: dict[str, Any]) -> None:
    """One line of JSON on stdout."""
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()


async def read(socket: UdpSocket, *args: Any) -> None:
    """As the socket, until we go deaf."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_read, socket, *args)
        await deaf.wait()
        nursery.cancel_scope.cancel()
    await trio.sleep_forever()


class Misbehaviour:
    """One node and whom it means to harm."""

    def __init__(self, node: Node, target: PeerId) -> None:
        self.node, self.target = node, target
        self.name = peer_id_text(target)
        self.keys = Keys(node._identity, MemoryPrekeys())

    async def link(self) -> LinkId:
        """A link to the target, again if need be."""
        while True:
            try:
                await self.node.connect(self.name)
                return self.node.link_to(self.target)
            except CommandFailed:
                await trio.sleep(0.2)

    async def flood(self, make: Callable[[int], Message]) -> int:
        """Send what `make` makes until the time is over; how many."""
        sent, over_at = 0, trio.current_time() + FLOOD_SECONDS
        while trio.current_time() < over_at:
            link = await self.link()
            seen = self.node.transport.statistics(link)
            for _ in range(50 if seen is not None and seen.queued < AHEAD else 0):
                self.node.transport.perform(Transmit(link, make(sent)))
                sent += 1
            await trio.sleep(0.001)
        return sent

    async def floods_pings(self) -> int:
        return await self.flood(Ping)

    async def floods_gossip(self) -> int:
        flood = [self.publication(b"%d" % number * 100) for number in range(PUBLICATIONS)]
        return await self.flood(lambda number: flood[number % PUBLICATIONS])

    def publication(self, data: bytes) -> Message:
        """A message that nobody has counted; of a larger one the first part."""
        context = Context(self.node.settings, self.keys, Random(1))
        command = Publish(RequestId(1), "flood", data, text=True)
        return Dissemination(context).publish(command, 0.0)[0]

    async def floods_records(self) -> int:
        (record,) = (each for each in self.node.core.known() if each.peer_id == self.target)

        def records(_: int) -> Message:
            nobody = Keys(Identity.generate(), MemoryPrekeys())
            made = msgspec.structs.replace(record, peer_id=nobody.peer_id)
            return Records([make_record(made, nobody)])

        return await self.flood(records)

    async def opens_streams(self) -> int:
        opened = count()

        async def some() -> None:
            while next(opened) < STREAMS:
                try:
                    stream = await self.node.open_stream(self.name, "nobody serves this")
                except CommandFailed:
                    await trio.sleep(0.2)
                else:
                    await refused(stream)

        with trio.move_on_after(8 * FLOOD_SECONDS):
            async with trio.open_nursery() as nursery:
                for _ in range(AT_ONCE):
                    nursery.start_soon(some)
        return next(opened)

    async def half_message(self) -> int:
        linked = await self.link()
        self.node.transport.perform(Transmit(linked, self.publication(bytes(HALF_PUBLISHED))))
        await trio.sleep(0.5)
        link = self.node.transport._links[linked]  # type: ignore[attr-defined]
        for stream_id in (CONTROL.stream_id, 2, 3):
            sctp = link._sctp
            sequence = sctp._outbound_stream_seq.get(stream_id, 0)
            chunk = OutboundData(
                FIRST_FRAGMENT, sctp._local_tsn, stream_id, sequence, BINARY, FRAGMENT
            )
            sctp._local_tsn = (sctp._local_tsn + 1) % 2**32
            sctp._outbound_queue.append(chunk)
            sctp.unsent += len(FRAGMENT)
            sctp.flush()
        await trio.sleep(FLOOD_SECONDS)
        return 4

    async def deaf(self) -> int:
        link = await self.link()
        deaf.set()
        for number in range(100):
            self.node.transport.perform(Transmit(link, Ping(number)))
            await trio.sleep(0.1)
        return 100


async def refused(stream: api.Stream) -> None:
    """Open it for all to see, and hear that nobody serves it."""
    with suppress(trio.BrokenResourceError):
        await stream.send_all(b"x")
        await stream.receive_some()
    stream.reset()


async def main(fault: str, directory: Path, link: str) -> None:
    """Join, misbehave, wait for the end."""
    target = PeerId(invite.decode(link, ephemeral()).members[0].peer_id)
    async with overlay.open_node(
        data_dir=directory, listen="127.0.0.1:0", join=link, name="bad", settings={}
    ) as node:
        assert isinstance(node, Node)
        say({"event": "ready", "peer_id": node.peer_id})
        sent: int = await getattr(Misbehaviour(node, target), fault)()
        say({"event": "done", "count": sent})
        await trio.sleep_forever()


if __name__ == "__main__":
    UdpSocket.read = read  # type: ignore[method-assign,assignment]
    trio.run(main, sys.argv[1], Path(sys.argv[2]), sys.stdin.readline().strip())
