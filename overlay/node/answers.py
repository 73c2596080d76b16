"""What the control API says of a node: its values as JSON objects, stable for scripts.

It stands apart from the control API because a node writes some of them without an HTTP server.
"""

import base64
from dataclasses import asdict, fields
from typing import Any

from overlay.api import Link, Message, Peer
from overlay.core.types import Candidate, IceCredentials
from overlay.core.wire import dial_tokens as dial
from overlay.core.wire import sdp
from overlay.transport.interface import LinkDescription

NO_LINK: dict[str, Any] = {
    **dict.fromkeys(each.name for each in fields(Link)),
    "bytes_in": 0,
    "bytes_out": 0,
    "state": "known",
}
"""A row for a member without a link."""


def peer_row(peer: Peer) -> dict[str, Any]:
    """What `overlay peers` prints of a peer."""
    link = NO_LINK if peer.link is None else asdict(peer.link)
    return {"peer_id": peer.peer_id, "name": peer.name, **link}


def message_row(message: Message) -> dict[str, Any]:
    """What `overlay subscribe` prints of a published message."""
    data = (
        {"data": message.text}
        if message.is_text
        else {"data_b64": base64.b64encode(message.data).decode()}
    )
    received_at = message.received_at
    return {"topic": message.topic, "from": message.origin, **data, "received_at": received_at}


def sdp_of(link: LinkDescription) -> tuple[str, str]:
    """Our side of a link and the peer's, as session descriptions."""
    setups = ("active", "passive")
    ours, theirs = setups if link.dtls_role == "client" else setups[::-1]
    return (
        _side(link.local, link.local_fingerprint, ours, link.local_candidates),
        _side(link.remote, link.remote_fingerprint, theirs, link.remote_candidates),
    )


def _side(
    credentials: IceCredentials | None,
    fingerprint: bytes,
    setup: str,
    candidates: tuple[Candidate, ...],
) -> str:
    # The listener of a direct dial is ICE-lite; the dialler chose its user fragment.
    lite = credentials is not None and dial.parse_ufrag(credentials.ufrag) is not None
    return sdp.describe(sdp.Description(credentials, fingerprint, setup, candidates, lite=lite))
