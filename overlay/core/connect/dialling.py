"""Direct dials: by a peer's record, by an invite, over a circuit. Nothing is signalled.

The listener's side of ICE is written by the dialler, from what it knows of it beforehand.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from overlay.core.addresses import circuit_address, is_private
from overlay.core.connect.attempts import Attempts, Detour
from overlay.core.connect.history import Rung
from overlay.core.connect.offers import new_credentials
from overlay.core.connect.table import PEERS_MAX, Table
from overlay.core.context import Context
from overlay.core.events import Dial
from overlay.core.limits import BoundedDict
from overlay.core.link.links import Expected
from overlay.core.nat.reflexive import Reflexive
from overlay.core.relay.circuits import Circuits
from overlay.core.types import Address, LinkId, Negotiated, PathKind, PeerId
from overlay.core.wire import dial_tokens as dial
from overlay.core.wire.documents import InviteBody

DIAL_TIMEOUT = 5.0
"""Seconds (guess) that a dial gets, whichever of its addresses answers."""
ADDRESSES_MAX = 8
"""Addresses that one dial goes to: as many as an offer has candidates."""
RELAY_HOPS = 2
"""Links from end to end of a circuit: to the relay and on from it."""


@dataclass(slots=True)
class Dialling:
    """The dials of one node."""

    context: Context
    table: Table
    reflexive: Reflexive
    circuits: Circuits
    # Peers whom an invite or the cache named, by their ids and by their certificates' fingerprints:
    # they may be dialled even if others may not.
    _met: BoundedDict[bytes, None] = field(default_factory=lambda: BoundedDict(PEERS_MAX))

    def on_met(self, names: Iterable[bytes]) -> None:
        """An invite or the cache has named these."""
        for name in names:
            self._met.put(name, None)

    def record(self, attempts: Attempts, now: float, *, claimed: bool) -> bool:
        """Dial a peer where its record says; returns whether there was anything to dial.

        `claimed`: even where nobody has seen it.
        """
        peer = attempts.peer
        record = self.table.book.get(peer)
        if record is None or record.token is None:
            return False
        met = peer in self._met or record.fingerprint in self._met
        if not (met or self.context.settings.direct):
            return False
        standing = self.table.links.by_peer.get(peer)
        # Whom we are linked to by a path of its own has been at these addresses lately.
        linked = standing is not None and standing.facts.path is not PathKind.RELAYED
        hidden = self.context.settings.relay_only
        # Whom nobody can pass an offer on for has no other way than one that may spoil it.
        mapped = not hidden and (linked or not self.table.routing.neighbours)
        everything = not hidden and (claimed or met or mapped)
        dialable = self.reflexive.dialable(record.addresses, claimed=everything, mapped=mapped)
        if hidden:  # A private address may be somebody else's, on the network where we are.
            dialable = [each for each in dialable if not is_private(each.host)] or dialable
        addresses = [address for address in dialable if address not in attempts.tried]
        if not addresses:
            return False
        attempts.tried += tuple(addresses)
        token = record.token
        claim = (token.kind, token.token_id, token.expires_at)
        expected = Expected(peer, Negotiated.CACHE if met else Negotiated.DIRECT, inbound=False)
        link = self._dial(addresses, record.fingerprint, token.token, claim, expected)
        attempts.dials[link] = None
        attempts.since[Rung.DIAL] = now
        return True

    def over_circuit(self, attempts: Attempts) -> bool:
        """Dial over the first circuit that this round has not tried; whether there was one."""
        record = self.table.book.get(attempts.peer)
        link = self.table.links.by_peer.get(attempts.peer)
        if record is None:
            return False
        for circuit in self.circuits.to(attempts.peer):
            address = circuit_address(circuit)
            if address in attempts.tried or (link is not None and link.facts.remote == address):
                continue
            attempts.tried += (address,)
            token = self.circuits.token_of(circuit) or record.token
            if token is None:
                continue
            claim = (token.kind, token.token_id, token.expires_at)
            relay = self.circuits.relay_of(address)
            expected = Expected(
                attempts.peer, Negotiated.MESH, inbound=False, via=relay, hops=RELAY_HOPS
            )
            dial = self._dial([address], record.fingerprint, token.token, claim, expected)
            attempts.dials[dial] = circuit
            attempts.detour = Detour.DIALLING
            return True
        return False

    def invite(self, body: InviteBody, grant: tuple[bytes, int]) -> dict[LinkId, PeerId | None]:
        """Dial every member that an invite names at all its addresses, all at once."""
        invite_id, expires_at = grant
        links: dict[LinkId, PeerId | None] = {}
        for member in body.members:
            peer = PeerId(member.peer_id) if member.peer_id else None
            addresses = [Address(entry.host, entry.port) for entry in member.addresses]
            if not addresses:
                continue
            expected = Expected(peer, Negotiated.INVITE, inbound=False, invite=body)
            claim = (dial.INVITE, invite_id, expires_at)
            link = self._dial(addresses, member.fingerprint, member.token, claim, expected)
            if peer is not None:
                self.table.of(peer).dials[link] = None
            links[link] = peer
        return links

    def _dial(
        self,
        addresses: list[Address],
        fingerprint: bytes,
        token: bytes,
        claim: tuple[int, bytes, int],
        expected: Expected,
    ) -> LinkId:
        attempt = self.context.crypto.token(16)
        remote = dial.listener_credentials(token, dial.Claim(*claim, attempt))
        local = new_credentials(self.context)
        link = self.table.links.new_id()
        self.table.links.expect(link, expected)
        targets = tuple(addresses[:ADDRESSES_MAX])
        self.context.emit(Dial(link, targets, fingerprint, remote, local, attempt, DIAL_TIMEOUT))
        return link
