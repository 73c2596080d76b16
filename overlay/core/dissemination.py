"""Published messages, flooded to every neighbour and delivered once (first cut; Plumtree follows).

Every message is signed by its origin over the network, its id, topic and data, so that nobody
speaks in another's name; what does not hold costs its bringer the link.
"""

import hashlib
from dataclasses import dataclass, field

import msgspec

from overlay.core import documents
from overlay.core.bounds import PUBLISHED_MAX, TOPIC_MAX, Topic
from overlay.core.context import Context
from overlay.core.events import Deliver
from overlay.core.messages import Gossip
from overlay.core.types import PeerId

LABEL = b"overlay gossip 1"
SEEN_MAX = 8192
"""Message ids remembered; the oldest goes when full."""
HOPS_MAX = 64


@dataclass(slots=True)
class Dissemination:
    """De-duplicating flood."""

    context: Context
    _seen: dict[bytes, None] = field(default_factory=dict)

    def publish(self, topic: str, data: bytes, *, text: bool) -> Gossip | str:
        """A message of our own, signed and delivered here, for all neighbours; or what is wrong."""
        if len(data) > PUBLISHED_MAX or not Topic().holds(topic):
            return (
                f"a message has at most {PUBLISHED_MAX} bytes, and its topic 1 to {TOPIC_MAX}, "
                "all of them printable: send less, or name the topic otherwise"
            )
        context = self.context
        message = Gossip(
            message_id=context.crypto.token(16),
            origin=context.peer_id,
            topic=topic,
            data=data,
            text=text,
            hops=1,
            signature=b"",
        )
        signature = context.crypto.sign(_signed_part(context.settings.network, message))
        self._first_time(message.message_id)
        context.emit(Deliver(topic, context.peer_id, data, text, 0))
        return msgspec.structs.replace(message, signature=signature)

    def on_gossip(self, message: Gossip) -> Gossip | str | None:
        """Deliver what is new and return it for the other neighbours; or what is wrong."""
        if message.message_id in self._seen:
            return None
        origin = PeerId(message.origin)
        signed = _signed_part(self.context.settings.network, message)
        if not self.context.crypto.verify(origin, signed, message.signature):
            return "a published message that its origin has not signed"
        self._first_time(message.message_id)
        hops = max(1, message.hops)
        self.context.emit(Deliver(message.topic, origin, message.data, message.text, hops))
        if hops >= HOPS_MAX:
            return None
        return msgspec.structs.replace(message, hops=hops + 1)

    def _first_time(self, message_id: bytes) -> None:
        if len(self._seen) >= SEEN_MAX:
            del self._seen[next(iter(self._seen))]
        self._seen[message_id] = None


def _signed_part(network: bytes, message: Gossip) -> bytes:
    digest = hashlib.sha256(message.data).digest()
    fields = [network, message.message_id, message.topic, message.text, digest]
    return documents.labelled(LABEL, msgspec.msgpack.encode(fields))
