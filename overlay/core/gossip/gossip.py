"""Publications of one node: what they say for themselves, and the tree they travel along."""

from dataclasses import dataclass, field

from overlay.core.context import Context
from overlay.core.events import Publish
from overlay.core.gossip.plumtree import Plumtree
from overlay.core.gossip.publications import IN_VAIN, Dissemination
from overlay.core.types import PeerId
from overlay.core.wire import messages as m


@dataclass(slots=True)
class Gossiping:
    """Composes the machine that checks publications with the one that carries them."""

    context: Context
    dissemination: Dissemination = field(init=False)
    tree: Plumtree = field(init=False)

    def __post_init__(self) -> None:
        self.dissemination = Dissemination(self.context)
        self.tree = Plumtree(self.context)

    def publish(self, command: Publish, now: float) -> None:
        """Sign a message of our own and send it along the tree."""
        self._broadcast(self.dissemination.publish(command, now), now)

    def on_published(self, peer: PeerId, message: m.Published, now: float) -> str | None:
        """A neighbour hands us a publication; what is wrong with it, if anything."""
        if not self.tree.is_news(message.message_id):
            self.tree.on_duplicate(peer, message)
            return None
        why = self.dissemination.receive(message, now, peer)
        if why is None:
            self.tree.on_news(peer, message, now)
        elif why == IN_VAIN:
            self.tree.pass_over(message.message_id)
            return None
        return why

    def on_message(self, peer: PeerId, message: m.TreeMessage, now: float) -> None:
        """Plumtree's own messages."""
        match message:
            case m.IHave():
                self.tree.on_announcements(peer, message, now)
            case m.Graft():
                self.tree.on_graft(peer, message)
            case m.Prune():
                self.tree.on_prune(peer)

    def on_time(self, now: float) -> None:
        """Announce, graft, send what waits its turn."""
        self.tree.on_time(now)
        self._broadcast(self.dissemination.on_time(now), now)

    def _broadcast(self, messages: list[m.Published], now: float) -> None:
        for message in messages:
            self.tree.broadcast(message, now)
