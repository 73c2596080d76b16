"""How long a publication takes to reach everybody in a mesh that is no full mesh."""

from contextlib import ExitStack

from benchmarks.measure import Bar, Case, Measure
from benchmarks.peer import Peer

NODE = "benchmarks.node"
NODES, PROCESSES = 50, 5
SIZE, RATE, SECONDS = 200, 20.0, 4.0
WARM_SECONDS = 1.0
"""The first publications find the tree."""

FIFTY = Measure(
    "publish-fifty",
    f"publication at all of {NODES} nodes, {RATE:g} a second, 99th percentile",
    "ms",
    Bar(250),
)


def publish_fifty() -> dict[str, float]:
    """Everybody joins by the first node's invite; the last to join publishes. All must arrive."""
    with ExitStack() as stack:
        peers = [stack.enter_context(Peer(NODE)) for _ in range(PROCESSES)]
        for number in range(NODES):
            peer, node = peers[number % PROCESSES], number // PROCESSES
            peer.ask("start")
            if number == 0:
                link = peer.ask("invite")["link"]
            else:
                peer.ask("join", node=node, link=link)
        for peer in peers:
            peer.ask("acquainted", peers=NODES - 1)
            peer.ask("subscribe")
        last = {"node": NODES // PROCESSES - 1, "size": SIZE, "rate": RATE}
        warm = peers[-1].ask("publish", seconds=WARM_SECONDS, **last)["sent"]
        count = warm + peers[-1].ask("publish", seconds=SECONDS, **last)["sent"]
        everywhere = [each for peer in peers for each in peer.ask("heard", count=count)["delays"]]
    assert len(everywhere) == NODES, "not everybody was asked"
    assert all(len(delays) == count for delays in everywhere), "not each publication once"
    delays = sorted(delay for node in everywhere for delay in node[warm:])
    return {FIFTY.name: delays[int(0.99 * len(delays))] * 1000}


CASES = (Case("publish", (FIFTY,), publish_fifty),)
