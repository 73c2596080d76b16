"""What `overlay doctor` says: what this network is, why a peer is direct or relayed, what helps."""

from collections.abc import Iterator, Sequence
from typing import Any

from overlay.core.connect.history import Outcome, Rung, Tried
from overlay.core.nat.behaviour import Behaviour, Dependence, Ipv6
from overlay.core.nat.observers import VOICES_NEEDED
from overlay.core.nat.pairs import cause
from overlay.identity import peer_id_text

SHORT_LIFETIME = 20.0
"""Seconds: below it other programs that keep quiet for long lose their connections, too (guess)."""


def network(
    known: Behaviour,
    addresses: Sequence[str],
    *,
    udp: bool | None,
    hidden: bool = False,
    few_descriptors: bool = False,
) -> dict[str, Any]:
    """The network that this node is in.

    `udp`: whether packets come in at all; None: nobody has tried. `hidden`: it shows itself to its
    relays alone, so that nobody is asked. `few_descriptors`: too few for the birthday technique.
    """
    return {
        "addresses": list(addresses),
        "mapping": known.mapping.value,
        "filtering": known.filtering.value,
        "ports": known.ports.value,
        "lifetime": known.lifetime,
        "hairpin": known.hairpin,
        "ipv6": known.ipv6.value,
        "udp": udp,
        "reachable": known.reachable,
        "observers": [
            {"peer_id": peer_id_text(each.peer), "mapped": str(each.mapped)}
            for each in known.observers
        ],
        "advice": [
            *advice(known, udp=udp, hidden=hidden),
            *([FEW_DESCRIPTORS] if few_descriptors else []),
        ],
    }


def advice(known: Behaviour, *, udp: bool | None, hidden: bool = False) -> Iterator[str]:
    """What to do about it, most helpful first; nothing where nothing need be done."""
    if udp is False:
        yield NO_UDP
        return
    if hidden:
        yield HIDDEN
        return
    if len(known.observers) < VOICES_NEEDED and not known.reachable:
        yield (
            "too few members see this node from outside its own network to tell what its NAT does "
            "(two are needed, at different addresses): link to more, or ask again later"
        )
        return
    yield from _about_reach(known)
    if known.ipv6 is Ipv6.FIREWALLED:
        yield "let UDP for this node's port in over IPv6 in the router's firewall"
    if known.lifetime is not None and known.lifetime < SHORT_LIFETIME:
        yield (
            f"the NAT forgets an idle mapping within {known.lifetime:.0f} s or little more: this "
            "node asks its neighbours often enough, other programs may not"
        )


def _about_reach(known: Behaviour) -> Iterator[str]:
    if known.reachable:
        return
    dependent = known.differs or known.mapping in (Dependence.ADDRESS, Dependence.ADDRESS_PORT)
    if dependent:
        yield (
            "the NAT gives this node another address for everybody it talks to (symmetric): "
            "peers behind strict NATs are reached by prediction or by the birthday technique, "
            "those behind another such NAT mostly through a relay only; a port forwarded to this "
            "node, or IPv6, makes them direct"
        )
    elif known.filtering is Dependence.UNKNOWN:
        yield (
            "nobody has been able to try whose packets get in: that takes two members that "
            "strangers can reach"
        )
    else:
        yield (
            "strangers cannot reach this node; peers find a direct path unless their NAT is "
            "symmetric; forward its UDP port (see `listen` and `advertise`) to help those, too"
        )


FEW_DESCRIPTORS = (
    "birthday is left out: this process may open too few files for its 256 sockets; allow it 384 "
    "(`ulimit -n`, or LimitNOFILE of systemd), or switch it off (nat.birthday)"
)
HIDDEN = (
    "links.relay_only is on: peers are reached through relays only, and nobody is asked what the "
    "network's NAT does; without it they could be direct"
)
NO_UDP = (
    "no_udp: nothing has ever come back over UDP from another machine, so this network or a "
    "firewall seems to block it: let UDP out and its answers in, or use another network"
)


def peer(
    path: str | None,
    relay: str | None,
    tried: Sequence[Tried],
    ours: Sequence[str],
    theirs: Sequence[str],
) -> dict[str, Any]:
    """How a peer is reached, and what has been tried; `ours` and `theirs` are NATs in words."""
    why = cause(ours, theirs)
    return {"path": path, "relay": relay, "rungs": [_rung(each, why) for each in tried]}


def _rung(tried: Tried, both: str) -> dict[str, Any]:
    blamed = tried.rung is Rung.OFFER and tried.outcome in (Outcome.FAILED, Outcome.SKIPPED)
    reasons = [tried.why, both] if blamed else [tried.why]
    return {
        "rung": tried.rung.value,
        "outcome": tried.outcome.value,
        "seconds": round(tried.seconds, 3),
        "why": "; ".join(filter(None, reasons)),
        "technique": tried.technique and tried.technique.value,
    }
