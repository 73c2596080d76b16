"""What the contact of many newcomers tells them: each record once, newer ones of members rarely."""

from collections import Counter
from collections.abc import Callable
from functools import partial

import pytest

from overlay.core.events import Listening, Received
from overlay.core.link.links import Link
from overlay.core.membership import membership
from overlay.core.membership.membership import RENEWED_INTERVAL
from overlay.core.types import Address, PeerId
from overlay.core.wire.messages import Message, Records
from overlay.sim.node import SimNode
from overlay.sim.world import World

COUNT = 20


def listen_to(node: SimNode, take: Callable[[Message], object]) -> None:
    """From now on `take` sees each message that a node gets."""
    handle = node.core.handle

    def heard(event: object, now: float) -> list[object]:
        if isinstance(event, Received):
            take(event.message)
        return handle(event, now)  # type: ignore[arg-type,return-value]

    node.core.handle = heard  # type: ignore[method-assign,assignment]


def records_sent(seed: int) -> tuple[World, list[SimNode], Counter[str]]:
    """Newcomers who join at once and open no links but to their contact; what it sends them."""
    world, sent = World(seed), Counter[str]()

    def take(message: Message) -> None:
        if isinstance(message, Records):
            sent["records"] += len(message.records)
            sent["messages"] += 1

    hub = world.spawn(auto=False)
    world.run_for(1.0)
    newcomers = world.burst(COUNT, hub, 0.3, auto=False)
    for node in newcomers:
        listen_to(node, take)
    world.run_for(5.0)
    return world, newcomers, sent


def knows_all(nodes: list[SimNode]) -> bool:
    return all(len(node.core.known()) == COUNT for node in nodes)


def test_each_newcomer_is_told_of_each_other_once() -> None:
    _, newcomers, sent = records_sent(1)
    assert knows_all(newcomers)
    own = COUNT  # The contact has signed anew as well, once it was dialled.
    assert COUNT * (COUNT - 1) <= sent["records"] <= COUNT * (COUNT - 1) + own


def test_who_has_been_welcomed_is_told_twice_if_nobody_notes_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Link, "on_welcomed", lambda *_: None)
    _, newcomers, sent = records_sent(1)
    assert knows_all(newcomers)
    assert sent["records"] > 1.2 * COUNT * (COUNT - 1)


def renewed_by_all() -> tuple[float, Counter[str]]:
    """Each signs anew three times within four seconds; when all know the last, and the cost."""
    world, newcomers, sent = records_sent(2)
    world.run_for(RENEWED_INTERVAL)
    before = sent["messages"], sent["records"]
    begin = world.now
    for turn in range(3):
        for index, node in enumerate(newcomers):
            address = Address(f"10.9.{turn}.{index}", 4000)
            delay = 1.5 * turn + index / COUNT
            world.after(delay, partial(world.feed, node, Listening((address,), ())))
    world.run_for(4.0)
    newest = {node.peer_id: node.core._membership.sequences[-1] for node in newcomers}

    def all_know() -> bool:
        return all(
            record.sequence == newest.get(PeerId(record.peer_id), record.sequence)
            for node in newcomers
            for record in node.core.known()
        )

    world.run_until(all_know, within=2 * RENEWED_INTERVAL)
    cost = Counter(messages=sent["messages"] - before[0], records=sent["records"] - before[1])
    return world.now - begin, cost


def test_newer_records_of_members_are_passed_on_together() -> None:
    seconds, cost = renewed_by_all()
    assert seconds <= 4.0 + RENEWED_INTERVAL
    assert cost["records"] <= 2 * COUNT * COUNT


def test_they_cost_more_each_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(membership, "RENEWED_INTERVAL", membership.TELL_INTERVAL)
    _, cost = renewed_by_all()
    assert cost["records"] > 2.5 * COUNT * COUNT


def test_a_lone_change_is_passed_on_at_once() -> None:
    world, newcomers, _ = records_sent(3)
    world.run_for(RENEWED_INTERVAL)
    moved, other = newcomers[:2]
    address = Address("10.9.9.9", 4000)
    world.feed(moved, Listening((address,), ()))

    def is_known() -> bool:
        record = other.core._membership.book.get(moved.peer_id)
        return record is not None and record.addresses[0].host == address.host

    world.run_until(is_known, within=1.5)
