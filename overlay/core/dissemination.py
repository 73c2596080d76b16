"""Published messages: signed by their origin, checked and delivered once; Plumtree carries them.

Every message is signed by its origin over the network, its id, topic and data, so that nobody
speaks in another's name; what does not hold costs its bringer the link.
"""

import hashlib
from dataclasses import dataclass

import msgspec

from overlay.core import documents
from overlay.core.bounds import PUBLISHED_MAX, TOPIC_MAX, Topic
from overlay.core.context import Context
from overlay.core.events import Deliver
from overlay.core.messages import Gossip
from overlay.core.types import PeerId

LABEL = b"overlay gossip 1"


@dataclass(slots=True)
class Dissemination:
    """What publications have to say for themselves; how they travel is the tree's concern."""

    context: Context

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
            hops=0,
            signature=b"",
        )
        signature = context.crypto.sign(_signed_part(context.settings.network, message))
        context.emit(Deliver(topic, context.peer_id, data, text, 0))
        return msgspec.structs.replace(message, signature=signature)

    def receive(self, message: Gossip) -> str | None:
        """Deliver what is new to us if it holds; else what is wrong with it."""
        origin = PeerId(message.origin)
        signed = _signed_part(self.context.settings.network, message)
        if not self.context.crypto.verify(origin, signed, message.signature):
            return "a published message that its origin has not signed"
        hops = max(1, message.hops)
        self.context.emit(Deliver(message.topic, origin, message.data, message.text, hops))
        return None


def _signed_part(network: bytes, message: Gossip) -> bytes:
    digest = hashlib.sha256(message.data).digest()
    fields = [network, message.message_id, message.topic, message.text, digest]
    return documents.labelled(LABEL, msgspec.msgpack.encode(fields))
