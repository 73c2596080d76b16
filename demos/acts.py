"""The acts of both demonstrations: a mesh settles, two strangers connect, all hear, one dies."""

import os
import time
from collections.abc import Callable, Sequence

from demos.links import Link, Pair, are_connected, full_mesh, strangers, table_of
from demos.stage import Stage, require
from tests.lab.nodes import Failed, Node, Process, heard

TOPIC = "demo"
FULL_MESH = 8
"""Up to so many nodes everybody links to everybody (``links.full_mesh``)."""
SPARSE = 0.6
"""Of the links of a full mesh, as many may be there when the demonstration goes on."""
SETTLE_TIMEOUT = 45.0
"""Seconds (guess: far above what a machine takes that has nothing else to do)."""
SUBSCRIBE_TIMEOUT = 20.0
"""Seconds until every subscription is live (guess: they are started all at once)."""
HEARING_TIMEOUT = 10.0
"""Seconds for a message to arrive everywhere (guess: far above the milliseconds it takes)."""


def settle(stage: Stage, nodes: Sequence[Node], spare: str) -> list[Link]:
    """Wait for a mesh that is connected without `spare`, and no full one unless it is small."""
    stage.step("links come and go until the mesh is sparse")
    most = full_mesh(len(nodes))
    names = [node.name for node in nodes if node.name != spare]

    def is_settled() -> bool:
        pairs = stage.pairs(nodes)
        share = len(pairs) / most
        is_sparse = share == 1 if len(nodes) <= FULL_MESH else share <= SPARSE
        return is_sparse and are_connected(names, pairs)

    until(is_settled, f"a mesh that holds together without {spare}")
    links = stage.links(nodes)
    kind = "a full mesh" if len(links) == most else f"a full mesh would have {most}"
    stage.step(f"everybody is connected by {len(links)} links: {kind}")
    return links


def until(holds: Callable[[], bool], what: str) -> None:
    """Wait for what has to come about; what does not ends the demonstration."""
    deadline = time.monotonic() + SETTLE_TIMEOUT
    while not holds():
        require(time.monotonic() < deadline, f"not within {SETTLE_TIMEOUT:g} s: {what}")
        time.sleep(0.2)


def connect_strangers(stage: Stage, names: Sequence[str], *, stop_others: bool) -> None:
    """Two without a link trace the way to each other, and open a link along it."""
    for _ in range(5):
        pair = strangers(names, stage.pairs(stage.cast))
        if pair is None:
            stage.step("everybody is linked to everybody: there are no strangers to connect")
            return
        if _reach(stage, stage.node(pair[0]), stage.node(pair[1]), stop_others):
            return
    raise Failed("whoever had no link got one before it could be asked for")


def _reach(stage: Stage, a: Node, b: Node, stop_others: bool) -> bool:
    """Whether `a` had no link to `b` and has one now, which came about through the mesh."""
    traced = a.json("trace", b.peer_id)
    hops = [stage.name_of(hop) for hop in traced["hops"]]
    if len(hops) < 2:
        return False  # gossip was faster: they have just been linked
    stage.step(f"{a.name} has no link to {b.name}; trace: {' → '.join([a.name, *hops])}")
    if stop_others:
        for node in stage.cast:
            if node not in (a, b):
                node.freeze()
    link = a.json("connect", b.peer_id)
    if link["negotiated"] == "cache":
        return False  # no strangers: an invite had named one to the other
    if not a.peer(b) or not b.peer(a) or link["negotiated"] != "mesh":
        raise Failed(f"{a.name} did not connect to {b.name} through the mesh: {link}")
    via = stage.name_of(link["via"])
    stage.step(f"{a.name} connects to {b.name} through the mesh: via {via}, {link['hops']} hops")
    stage.told["trace"] = {"from": a.name, "hops": hops, "rtt": traced["rtt"]}
    told = {"from": a.name, "to": b.name, "via": via}
    stage.told["connected"] = {**told, "hops": link["hops"], "negotiated": link["negotiated"]}
    return True


def listen(stage: Stage) -> None:
    """Subscribe everywhere, and return once a first message has reached everybody."""
    stage.ears = {node.name: node.subscribe(TOPIC) for node in stage.cast}
    deadline = time.monotonic() + SUBSCRIBE_TIMEOUT
    deaf = dict(stage.ears)
    while deaf:
        require(time.monotonic() < deadline, f"never subscribed: {', '.join(deaf)}")
        text = f"is everybody there? {os.urandom(4).hex()}"
        stage.cast[0].ok("publish", TOPIC, text)
        patience = time.monotonic() + 1.0  # of all together: who is deaf now has to be asked again
        deaf = {
            name: ear
            for name, ear in deaf.items()
            if not hears(ear, text, max(0.0, patience - time.monotonic()))
        }


def announce(stage: Stage, speaker: Node, ears: Sequence[Node], key: str) -> None:
    """One message by `speaker`, which all of `ears` have to hear."""
    text = f"{key} {os.urandom(4).hex()}"
    speaker.ok("publish", TOPIC, text)
    for node in ears:
        require(
            hears(stage.ears[node.name], text, HEARING_TIMEOUT), f"{node.name} heard nothing: {key}"
        )
        stage.show(node, f"heard {speaker.name}: {text!r}")
    stage.told.setdefault("heard", []).append([node.name for node in ears])
    stage.step(f"{speaker.name} publishes {text!r}: all {len(ears)} hear it")


def hears(ear: Process, text: str, timeout: float) -> bool:
    """Whether this text arrives in time at a subscription that is still running."""
    try:
        heard(ear, text, timeout)
    except (TimeoutError, EOFError):
        return False
    return True


def lose(stage: Stage, victim: Node) -> list[Node]:
    """Kill one without a goodbye; the survivors."""
    stage.kill(victim)
    stage.step(f"{victim.name} is killed with SIGKILL")
    return [node for node in stage.cast if node is not victim]


def still_connected(stage: Stage, survivors: Sequence[Node]) -> list[Pair]:
    """Who is linked to whom among the survivors: that connects them; nobody has an error."""
    names = [node.name for node in survivors]

    until(lambda: are_connected(names, stage.pairs(survivors)), "all survivors connected")
    pairs = stage.pairs(survivors)
    told = stage.each(survivors, lambda node: node.json("status"))
    for name, status in zip(names, told, strict=True):
        require(status["links"] > 0, f"{name} says that it has no links")
        errors = status["internal_errors"]
        require(errors == 0, f"{name} counts {errors} internal errors")
    stage.step(f"the {len(survivors)} survivors are connected by {len(pairs)} links")
    return pairs


def finish(stage: Stage, before: Sequence[Link], after: Sequence[Pair]) -> None:
    """Show how the links came about, and keep all of them for ``--json``."""
    stage.told["nodes"] = [node.name for node in stage.cast]
    stage.told["links"] = [link.as_json() for link in before]
    stage.told["links_after"] = after
    stage.close(table_of(before))
