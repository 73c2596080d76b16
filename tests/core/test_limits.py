"""Who says too much is heard less, and nobody else is."""

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from overlay.core.context import Context, Settings
from overlay.core.events import Deliver, Publish, Rejected
from overlay.core.gossip.parts import Refusal
from overlay.core.gossip.publications import BURST, OWN_BURST, RATE, Dissemination
from overlay.core.limits import NAMES_MAX, TokenBuckets
from overlay.core.types import PeerId, RequestId
from overlay.core.wire.messages import Published
from overlay.sim.crypto import Ledger, StandInCrypto
from overlay.sim.node import SimNode
from overlay.sim.world import World

A, B = PeerId(b"a" * 32), PeerId(b"b" * 32)


@given(st.lists(st.tuples(st.floats(0, 10), st.floats(0, 50)), max_size=50))
def test_nobody_gets_more_than_a_burst_and_the_rate(steps: list[tuple[float, float]]) -> None:
    buckets, now, granted = TokenBuckets[PeerId](rate=5.0, burst=20.0), 0.0, 0.0
    for wait, units in steps:
        now += wait
        if buckets.spend(A, units, now) >= 0.0:
            granted += units
    assert granted <= 20.0 + 5.0 * now + 1e-6


def test_what_one_spends_is_not_taken_from_another() -> None:
    buckets = TokenBuckets[PeerId](rate=1.0, burst=10.0)
    assert buckets.spend(A, 100.0, 0.0) == -10.0
    assert buckets.left(B, 0.0) == 10.0
    assert buckets.left(A, 5.0) == -5.0


def test_names_are_bounded_and_the_spendthrift_stays_among_them() -> None:
    buckets = TokenBuckets[PeerId](rate=0.0, burst=10.0)
    for number in range(3 * NAMES_MAX):
        buckets.spend(PeerId(number.to_bytes(32, "big")), 1.0, 0.0)
        buckets.spend(A, 1.0, 0.0)
    assert len(buckets) == NAMES_MAX
    assert buckets.left(A, 0.0) == -10.0


def machine(ledger: Ledger, seed: int) -> Dissemination:
    crypto = StandInCrypto(ledger, Random(seed))
    settings = Settings(bytes(32), "net", "n", 1, bytes(32))
    return Dissemination(Context(settings, crypto, Random(seed)))


def publications(origin: Dissemination, count: int) -> list[Published]:
    """As many as asked for, from an origin that knows no limit of its own."""
    made = []
    for number in range(count):
        origin._own = type(origin._own)(1.0, 10.0)
        made += origin.publish(Publish(RequestId(number), "t", b"%d" % number, text=False), 0.0)
    return made


def test_a_flood_is_heard_in_part_and_costs_the_flooder_its_link_and_no_forwarder_his() -> None:
    ledger = Ledger()
    flooder, node = machine(ledger, 1), machine(ledger, 2)
    flood = publications(flooder, int(2 * BURST) + 10)
    said = [node.receive(each, 0.0, B) for each in flood]
    assert said.count(None) == BURST - 1
    assert set(said) == {None, Refusal.OVER_RATE}, "whoever brings it is not at fault"
    assert sum(isinstance(each, Deliver) for each in node.context.drain()) == BURST - 1
    direct = node.receive(publications(flooder, 1)[0], 0.0, flooder.context.peer_id)
    assert direct == "a flood of published messages"
    other = machine(ledger, 3)
    assert node.receive(publications(other, 1)[0], 0.0, B) is None
    later = 2 * BURST / RATE + 1.0
    assert node.receive(publications(flooder, 1)[0], later, B) is None, "it is forgiven in time"


def test_our_own_messages_stay_within_what_others_pass_on() -> None:
    origin, node = machine(ledger := Ledger(), 1), machine(ledger, 2)
    now, sent = 0.0, 0
    for number in range(5000):
        now += 0.001
        for each in origin.publish(Publish(RequestId(number), "t", b"x", text=False), now):
            sent += 1
            assert node.receive(each, now, origin.context.peer_id) is None
    refused = [each for each in origin.context.drain() if isinstance(each, Rejected)]
    assert OWN_BURST <= sent < 5000
    assert len(refused) == 5000 - sent
    assert {each.code for each in refused} == {"busy"}


def links_among(node: SimNode, others: list[SimNode]) -> dict[PeerId, float]:
    """Since when this node has been linked to each of the others."""
    ids = {each.peer_id for each in others}
    return {view.peer: view.since_wall for view in node.core.peers() if view.peer in ids}


def test_an_origin_that_floods_loses_its_links_and_the_others_keep_theirs() -> None:
    world = World(1)
    nodes = [world.spawn() for _ in range(4)]
    invite = world.invite(nodes[0])
    for node in nodes[1:]:
        world.join(node, invite)
    world.run_for(20.0)
    flooder, *others = nodes
    before = [links_among(node, others) for node in others]
    for number in range(int(4 * BURST)):
        flooder.core._gossip.dissemination._own = type(flooder.core._gossip.dissemination._own)(
            1.0, 10.0
        )
        world.publish(flooder, b"%d" % number)
        if number % 50 == 0:
            world.run_for(0.01)
    world.run_for(3.0)
    assert [links_among(node, others) for node in others] == before
    for node in others:
        assert any(report.event == "peer_misbehaved" for report in node.reports)
    assert all(len(links) == 2 for links in before)
    world.publish(others[0], b"and we?")
    world.run_for(2.0)
    assert {node.name for node in world.heard(b"and we?")} >= {node.name for node in others}
