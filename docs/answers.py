"""Answers of nodes in networks that no page can bring along: `python -m docs.answers NAME`.

They are those of real nodes in the NAT laboratory, with ids that belong to nobody. What prints them
is what prints them for everybody, so a page shows them as a terminal would.
"""

import sys
from collections.abc import Mapping
from typing import Any

from overlay.cli import tables
from overlay.cli.main import complain
from overlay.node import doctor

BOB = "12D3KooWFZ4qxSagbw5Z2DQdjWwH8VDe4ZaA5YdAmvMJW6up4wjx"
RELAY = "12D3KooWGm7JyKHvKnM3bGSWN1xm8jX8xE2GiBYMR8jFXwNCSYp4"
NO_DIAL = {
    "rung": "dial",
    "outcome": "skipped",
    "seconds": 0.0,
    "technique": None,
    "why": "no address of the peer is proven to be reachable",
}
NO_TWO_ALIKE = (
    "the NAT gives this node another address for everybody it talks to (symmetric): peers "
    "behind strict NATs are reached by prediction or by the birthday technique, those behind "
    "another such NAT mostly through a relay only; a port forwarded to this node, or IPv6, "
    "makes them direct"
)
SYMMETRIC = {
    "udp": True,
    "addresses": ["192.168.3.10:37494"],
    "mapping": "address-port",
    "filtering": "address-port",
    "ports": "random",
    "lifetime": None,
    "hairpin": None,
    "ipv6": "none",
    "reachable": False,
    "observers": [
        {
            "mapped": "11.3.0.10:15580",
            "peer_id": "12D3KooWE8w4GveLb4DWaqUAUQkWKsSSPnL4XhGiKrKTLR2VGUcA",
        },
        {
            "mapped": "11.3.0.10:37908",
            "peer_id": "12D3KooWRLoHzBSCdmKxoUGVBF1HqRtxUrcWkfCZQPUoPGrtJ4Ux",
        },
        {
            "mapped": "11.3.0.10:35753",
            "peer_id": "12D3KooWFndh1MAdN5vKP1cvHqMHzWRAjGTsE9JzREY9qPgHPeyh",
        },
    ],
    "advice": [NO_TWO_ALIKE],
}


def rung(rung: str, outcome: str, seconds: float, why: str, technique: str | None = None) -> Any:
    """One of the ways that were tried."""
    return {
        "rung": rung,
        "outcome": outcome,
        "seconds": seconds,
        "why": why,
        "technique": technique,
    }


def relayed(*rungs: Any) -> Mapping[str, Any]:
    """What `overlay doctor bob` is told where bob is reached over a relay."""
    return {"peer_id": BOB, "path": "relayed", "relay": RELAY, "rungs": [NO_DIAL, *rungs]}


BOTH_STRICT = (
    "there is no direct path between the two NATs; both NATs are the cause: ours gives it another "
    "address for everybody that it sends to and lets in only the very addresses that it has sent "
    "to (mapping address-port, filtering address-port); the peer's gives it one address for "
    "everybody and lets in only the very addresses that it has sent to (mapping independent, "
    "filtering address-port)"
)
TOO_EARLY = (
    "no path between the two worked; its answer came so late that a router may have got a packet "
    "too early: a wait of 35 s before the next offer has it forgotten"
)
HIDDEN = "one of the two names no address (links.relay_only), and no relay has led there in time"
ANSWERS: Mapping[str, Mapping[str, Any]] = {
    "doctor-symmetric": SYMMETRIC,
    "doctor-both-strict": relayed(
        rung("offer", "failed", 0.01, BOTH_STRICT), rung("circuit", "linked", 0.18, "")
    ),
    "doctor-too-early": relayed(
        rung("circuit", "linked", 0.11, ""), rung("offer", "failed", 5.59, TOO_EARLY, "low-ttl")
    ),
    "doctor-one-carrier": relayed(
        rung("circuit", "linked", 0.06, ""),
        rung("offer", "failed", 5.52, "no path between the two worked"),
    ),
    "doctor-hidden": relayed(
        rung("circuit", "linked", 0.03, ""),
        rung(
            "offer",
            "failed",
            5.51,
            HIDDEN,
        ),
    ),
}
NO_UDP = (
    "none of the invite's 1 address answered within 30 s: is a node up there that is not too busy, "
    f"and does its firewall let UDP in on that port? ({doctor.NO_UDP})"
)
COMMANDS = {
    **{
        name: "overlay doctor bob" if "rungs" in answer else "overlay doctor"
        for name, answer in ANSWERS.items()
    },
    "no-udp": "overlay join -",
}
"""What is typed for each."""


def main(name: str) -> None:
    """Print one as the command does."""
    if name == "no-udp":
        complain(NO_UDP, 0)
        return
    answer: Any = ANSWERS[name]
    if "rungs" in answer:
        tables.print_doctor_of("bob", answer)
    else:
        tables.print_doctor(answer)


if __name__ == "__main__":
    main(sys.argv[1])
