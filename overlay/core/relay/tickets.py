"""Tickets: what each end of a circuit signs, so that no relay can be had without both."""

from enum import StrEnum

from overlay.core.context import Context
from overlay.core.link.hello import MAX_CLOCK_SKEW
from overlay.core.types import PeerId
from overlay.core.wire import dial_tokens as dial
from overlay.core.wire import signing
from overlay.core.wire.documents import Ticket, TokenEntry

TICKET_LIFE = 60
"""Seconds that a ticket is valid (guess): offer and answer, and a dial to the relay."""

TOKEN_LIFE = 14 * 86_400
"""Seconds for which a circuit can be dialled again by the token of its ticket: as long as with one
from a record (guess)."""


class CircuitCode(StrEnum):
    """Why there is no circuit, or no more."""

    OFF = "off"  # the relay serves nobody (`relay.serve`)
    FULL = "full"  # so many circuits stand already
    SPENT = "spent"  # the relay has carried what it may in a day (`relay.bytes_per_day`)
    UNLINKED = "unlinked"  # the relay has no link, or none of its own path, to one of the two
    TICKET = "ticket"  # a ticket does not hold, or has been shown before
    DECLINED = "declined"  # the other end takes no circuit now
    TIMEOUT = "timeout"  # the other end has not answered
    UNNEEDED = "unneeded"  # an end has a better path
    IDLE = "idle"  # nothing has come over it for long


def make_ticket(context: Context, relay: PeerId, peer: PeerId, now: float) -> bytes:
    """Our consent that `relay` passes datagrams between us and `peer`."""
    nonce = context.crypto.token(8)
    expires_at = int(context.wall(now)) + TICKET_LIFE
    hidden = context.settings.relay_only
    body = Ticket(
        network=context.settings.network,
        relay=relay,
        holder=context.peer_id,
        peer=peer,
        nonce=nonce,
        expires_at=expires_at,
        token=_token(context, nonce, expires_at + TOKEN_LIFE) if hidden else None,
    )
    return signing.pack(signing.sign(body, context.crypto))


def _token(context: Context, token_id: bytes, expires_at: int) -> TokenEntry:
    """What a dial over the circuit needs, from who has no token in its record (decision 0038)."""
    token = dial.make_token(context.settings.dial_key, dial.CIRCUIT, token_id, expires_at)
    return TokenEntry(dial.CIRCUIT, token_id, expires_at, token)


def read_ticket(
    context: Context, data: bytes, *, relay: PeerId, holder: PeerId, peer: PeerId, now: float
) -> Ticket | None:
    """The ticket if it is `holder`'s, for this relay and this peer, and has not expired."""
    body = signing.opened(data, Ticket, context.crypto)
    if isinstance(body, str) or body.network != context.settings.network:
        return None
    if (body.relay, body.holder, body.peer) != (relay, holder, peer):
        return None
    left = body.expires_at - context.wall(now)
    return body if -MAX_CLOCK_SKEW < left < TICKET_LIFE + MAX_CLOCK_SKEW else None
