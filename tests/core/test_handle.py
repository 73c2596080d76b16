"""`Overlay.handle` against everything that a peer, linked or not, can send: it never raises.

A small world is brought to the point where a hostile peer is linked to its victim; then the
hostile peer sends whatever Hypothesis thinks of, mixed with messages that the victim itself has
seen. Whatever comes out must be encodable, and state must stay bounded.
"""

import dataclasses
from typing import Any

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from overlay.core.connect.table import PEERS_MAX
from overlay.core.events import (
    DialFailed,
    Event,
    Hangup,
    LinkAlive,
    LinkLost,
    LinkOpened,
    LinkSilent,
    LinkSuspect,
    Malformed,
    Mapped,
    PathMoved,
    Received,
    Transmit,
    Wakeup,
)
from overlay.core.overlay import Overlay
from overlay.core.routing.routing import REQUESTS_MAX
from overlay.core.types import Address, EndReason, LinkFacts, LinkId, PathKind
from overlay.core.wire import codec
from overlay.core.wire.messages import Message, Offer, Records
from overlay.sim.node import SimNode
from overlay.sim.world import World
from tests.core.strategies import messages_within_bounds
from tests.core.worlds import chain

LINKS = st.integers(0, 12).map(LinkId)
ADDRESSES = st.builds(Address, st.ip_addresses(v=4).map(str), st.integers(1, 65535))
FACTS = st.builds(
    LinkFacts,
    remote=ADDRESSES,
    local=ADDRESSES,
    path=st.sampled_from(PathKind),
    dtls_role=st.sampled_from(["client", "server"]),
    remote_fingerprint=st.binary(min_size=32, max_size=32),
    exporter=st.binary(min_size=32, max_size=32),
    attempt=st.binary(min_size=16, max_size=16),
    token_kind=st.none() | st.integers(0, 3),
    token_id=st.binary(min_size=8, max_size=8),
)
REASONS = st.sampled_from(EndReason)
EVENTS = st.one_of(
    st.builds(Received, LINKS, messages_within_bounds()),
    st.builds(Malformed, LINKS, st.text(max_size=20)),
    st.builds(LinkOpened, LINKS, st.booleans(), FACTS),
    st.builds(DialFailed, LINKS, REASONS),
    st.builds(LinkLost, LINKS, REASONS),
    st.builds(LinkSuspect, LINKS),
    st.builds(LinkAlive, LINKS),
    st.builds(LinkSilent, LINKS),
    st.builds(PathMoved, LINKS, FACTS),
    st.builds(Mapped, LINKS, ADDRESSES),
    st.just(Wakeup()),
)
MANY = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def handle(core: Overlay, event: Event, now: float) -> None:
    """Feed the core and check what every effect has to satisfy."""
    for effect in core.handle(event, now):
        if isinstance(effect, Transmit):
            codec.encode(effect.message)  # raises when no peer would accept it
    deadline = core.next_deadline()
    if deadline is not None:
        core.handle(Wakeup(), deadline)
        later = core.next_deadline()
        assert later is None or later > deadline, "a due timer stays due"


def linked() -> tuple[World, SimNode, LinkId, list[Message]]:
    """A victim with two links, one of them to the hostile peer; and all that crossed the mesh."""
    world = World(7)
    seen: list[Message] = []
    perform = world.network.perform

    def record(node: SimNode, effect: Any) -> None:
        if isinstance(effect, Transmit):
            seen.append(effect.message)
        perform(node, effect)

    world.network.perform = record  # type: ignore[method-assign]
    victim, hostile, _ = chain(world, 3)
    world.run_for(5.0)
    world.publish(victim, b"x")
    world.run_for(1.0)
    view = next(view for view in victim.core.peers() if view.peer == hostile.peer_id)
    return world, victim, view.link, seen


@MANY
@given(st.data())
def test_no_message_of_a_linked_peer_makes_the_core_raise(data: st.DataObject) -> None:
    world, victim, link, seen = linked()
    replayed = st.sampled_from(seen)
    others = len(victim.core.peers()) - 1
    for message in data.draw(st.lists(messages_within_bounds() | replayed, max_size=12)):
        handle(victim.core, Received(link, message), world.now)
    remaining = [view for view in victim.core.peers() if view.link != link]
    assert len(remaining) == others, "an innocent peer lost its link"


@MANY
@given(st.lists(EVENTS, max_size=30), st.lists(st.floats(0.0, 30.0), min_size=30, max_size=30))
def test_no_order_of_events_makes_the_core_raise(events: list[Event], gaps: list[float]) -> None:
    world, victim, _, _ = linked()
    now = world.now
    for event, gap in zip(events, gaps, strict=False):
        now += gap
        handle(victim.core, event, now)


def test_a_link_that_is_relayed_and_in_doubt_leaves_no_due_timer() -> None:
    """What the offer beside it makes due at once is done in the same instant."""
    world, victim, link, _ = linked()
    (facts,) = [view.facts for view in victim.core.peers() if view.link == link]
    moved = dataclasses.replace(facts, path=PathKind.RELAYED)
    handle(victim.core, PathMoved(link, moved), world.now)
    handle(victim.core, LinkSuspect(link), world.now)


@MANY
@given(st.data())
def test_changed_copies_of_real_messages_do_no_harm(data: st.DataObject) -> None:
    """Valid but for one field: the mutations that get furthest."""
    world, victim, link, seen = linked()
    for _ in range(8):
        message = data.draw(st.sampled_from(seen))
        other = data.draw(st.sampled_from(seen))
        names = [name for name in message.__struct_fields__ if hasattr(other, name)]
        if names:
            name = data.draw(st.sampled_from(names))
            message = msgspec.structs.replace(message, **{name: getattr(other, name)})
        handle(victim.core, Received(link, message), world.now)


def test_an_attempt_called_off_as_it_opens_is_hung_up() -> None:
    """The transport's `LinkOpened` may cross our `Hangup`."""
    world, victim, link, seen = linked()
    facts = next(view.facts for view in victim.core.peers() if view.link == link)
    late = LinkId(1_000)
    opened = LinkOpened(late, inbound=False, facts=facts)
    assert victim.core.handle(opened, world.now) == [Hangup(late, EndReason.CANCELLED)]
    for message in seen:
        assert victim.core.handle(Received(late, message), world.now) == []


def test_floods_of_every_kind_leave_state_bounded() -> None:
    world, victim, link, _ = linked()
    core = victim.core
    for index in range(5_000):
        target, request = index.to_bytes(32, "big"), index.to_bytes(16, "big")
        handle(core, Received(link, Offer(target, request, 8, 1, b"")), world.now)
        if index % 100 == 0:
            handle(core, Received(link, Records([request] * 16)), world.now)
        handle(core, Mapped(link, Address("192.0.2.1", 1 + index)), world.now)
    assert len(core._routing._requests) <= REQUESTS_MAX
    assert len(core._connecting.table.by_peer) <= PEERS_MAX
    assert len(core._reflexive.observers._said) <= 64
    assert core.status().signalling.dropped > 4_000, "the token bucket let everything through"
