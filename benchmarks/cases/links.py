"""How fast links come up: by an invite, and negotiated through one hop."""

import statistics

from benchmarks.cases import rival
from benchmarks.measure import Bar, Case, Measure
from benchmarks.peer import Peer

NODE = "benchmarks.node"
TIMES = 5
"""Measured dials in a run, after one that warms up."""

DIAL = Measure("invite-dial", "invite dial to authenticated link", "ms", Bar(0.25, of_ratio=True))
NEGOTIATED = Measure(
    "mesh-negotiation", "link negotiated through one hop", "ms", Bar(0.5, of_ratio=True)
)
THROUGH_THE_MESH = {"auto": False, "direct": False}


def invite_dial() -> dict[str, float]:
    """New nodes join one listener, one after the other."""
    taken = []
    with Peer(NODE) as listener, Peer(NODE) as dialler:
        listener.ask("start")
        link = listener.ask("invite")["link"]
        for node in range(TIMES + 1):
            dialler.ask("start")
            taken.append(dialler.ask("join", node=node, link=link)["seconds"])
            dialler.ask("leave", node=node)
            listener.ask("wait", links=0)
    return {DIAL.name: statistics.median(taken[1:]) * 1000}


def negotiated() -> dict[str, float]:
    """New nodes, linked to the node in the middle alone, connect to the one on its other side."""
    taken = []
    with Peer(NODE) as near, Peer(NODE) as middle, Peer(NODE) as far:
        middle.ask("start", **THROUGH_THE_MESH)
        link = middle.ask("invite")["link"]
        target = far.ask("start", **THROUGH_THE_MESH)["peer"]
        far.ask("join", link=link)
        for node in range(TIMES + 1):
            near.ask("start", **THROUGH_THE_MESH)
            near.ask("join", node=node, link=link)
            near.ask("knows", node=node, peer=target)
            answer = near.ask("connect", node=node, peer=target)
            assert answer["negotiated"] == "mesh", answer
            taken.append(answer["seconds"])
            near.ask("leave", node=node)
            far.ask("wait", links=1)
            middle.ask("wait", links=1)
    return {NEGOTIATED.name: statistics.median(taken[1:]) * 1000}


def stock(name: str) -> dict[str, float]:
    """The rival's connections, from offer to open channel."""
    return {name: rival.connect_milliseconds(TIMES)}


CASES = (
    Case("dial", (DIAL,), invite_dial, lambda: stock(DIAL.name)),
    Case("negotiate", (NEGOTIATED,), negotiated, lambda: stock(NEGOTIATED.name)),
)
