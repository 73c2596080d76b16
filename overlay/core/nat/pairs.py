"""What of two NATs decides whether their hosts can reach each other directly, and how to say so.

Each end sends checks to the address at which observers see the other (RFC 8445). One of the two
has to get in: past a filter that lets in everybody; or one that lets in whom was sent to before,
at a mapping that is the same for all, from an address that was known beforehand.
"""

from collections.abc import Sequence

UNKNOWN = "unknown"
INDEPENDENT = "independent"
ADDRESS = "address"
DEPENDENT = "dependent"
"""In an offer: the mapping differs from observer to observer; what it depends on is not known."""

_MAPPING = {
    INDEPENDENT: "gives it one address for everybody",
    ADDRESS: "gives it another address for every host that it sends to",
    "address-port": "gives it another address for everybody that it sends to",
    DEPENDENT: "gives it different addresses for different hosts",
}
_FILTERING = {
    INDEPENDENT: "lets everybody in",
    ADDRESS: "lets in only hosts that it has sent to",
    "address-port": "lets in only the very addresses that it has sent to",
}


def direct(ours: Sequence[str], theirs: Sequence[str]) -> bool | None:
    """Whether ICE alone finds a direct path between two NATs; None: too little is known.

    Each is mapping and filtering, and perhaps more, in the words of offers and answers.

    >>> port_restricted, symmetric = ("independent", "address-port"), ("address-port",) * 2
    >>> direct(port_restricted, port_restricted), direct(port_restricted, symmetric)
    (True, False)
    """
    either = (_gets_in(ours, theirs), _gets_in(theirs, ours))
    if True in either:
        return True
    return None if None in either else False


def minds_early_packets(ours: Sequence[str], theirs: Sequence[str]) -> bool:
    """Whether a check of ours that reaches their NAT before theirs has left could do harm.

    Some routers remember it: an INPUT chain that is open takes the packet as its own, and the port
    that their host needs towards us is in use. Behind such a one filtering looks like any other
    that depends on address and port, so all that may be are meant. It is of no matter where a
    filter lets in everybody, nor where we send from an address that theirs do not go to.
    """
    filters = [each[1] if len(each) > 1 else UNKNOWN for each in (ours, theirs)]
    mapping = ours[0] if ours else UNKNOWN
    return INDEPENDENT not in filters and mapping in (INDEPENDENT, UNKNOWN)


def _gets_in(receiver: Sequence[str], sender: Sequence[str]) -> bool | None:
    """Whether the first check of one reaches the other where observers see that."""
    mapping, filtering = [*receiver, UNKNOWN, UNKNOWN][:2]
    if filtering == INDEPENDENT:
        return True
    if mapping not in (INDEPENDENT, UNKNOWN):
        return None if filtering == UNKNOWN else False
    if UNKNOWN in (mapping, filtering):
        return None
    if filtering == ADDRESS:
        return True
    known = sender[0] if sender else UNKNOWN
    return None if known == UNKNOWN else known == INDEPENDENT


def cause(ours: Sequence[str], theirs: Sequence[str]) -> str:
    """Why the two NATs leave no direct path; empty: they do, or it is not known."""
    if direct(ours, theirs) is not False:
        return ""
    return f"both NATs are the cause: ours {_told(ours)}; the peer's {_told(theirs)}"


def _told(nat: Sequence[str]) -> str:
    mapping = _MAPPING.get(nat[0], "is not known")
    filtering = _FILTERING.get(nat[1], "may let in anybody or nobody")
    return f"{mapping} and {filtering} (mapping {nat[0]}, filtering {nat[1]})"
