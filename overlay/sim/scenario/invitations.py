"""How newcomers of a scenario get in: somebody inside makes them an invite, as shipped."""

from collections.abc import Callable
from functools import partial

from overlay.core.events import MakeInvite, Rejected, Resolved
from overlay.core.types import RequestId
from overlay.core.wire.documents import InviteBody
from overlay.sim.node import SimNode
from overlay.sim.world import World

MARGIN = 3600.0
"""Seconds that an invite outlives the run."""
MEMBERS = 4
"""Members that an invite names, as shipped (``invite.members``): its author may be firewalled."""
ASK_AGAIN = 8.0
"""Seconds after which a newcomer that is still outside asks somebody else for an invite: those
that its invite named have had their 5 s."""


class Invitations:
    """Gets newcomers of one world in."""

    def __init__(
        self,
        world: World,
        life: float,
        shared: bool,
        contact: Callable[[], SimNode | None],
        is_in: Callable[[SimNode], bool],
    ) -> None:
        """`shared`: an invite is made once by each contact, and everybody has the link."""
        self._world = world
        self._life = life + MARGIN
        self._shared = shared
        self._contact = contact
        self._is_in = is_in
        self._made: dict[SimNode, InviteBody] = {}
        self._making: dict[RequestId, tuple[SimNode, SimNode]] = {}
        """By whom, and for which newcomer."""

    def bring_in(self, node: SimNode, contact: SimNode) -> None:
        """Have a newcomer join by an invite of this contact, and by another's if that fails."""
        self._world.after(ASK_AGAIN, partial(self._ask_again, node))
        if contact in self._made:
            self._world.join(node, self._made[contact])
            return
        request = self._world.request(contact, lambda r: MakeInvite(r, self._life, MEMBERS))
        self._making[request] = contact, node
        if request in contact.results:
            self.take(contact.results[request])

    def take(self, result: Resolved | Rejected) -> bool:
        """What came of a command; whether it was an invite for somebody."""
        if result.request not in self._making:
            return False
        contact, node = self._making.pop(result.request)
        assert isinstance(result, Resolved), result
        if self._shared:
            self._made[contact] = result.value
        self._world.after(0.0, partial(self._world.join, node, result.value))
        return True

    def _ask_again(self, node: SimNode) -> None:
        if node.alive and not self._is_in(node):
            contact = self._contact()
            if contact is not None:
                self.bring_in(node, contact)
