"""The tables of states are the mechanism: another table, another behaviour."""

from enum import StrEnum
from typing import Any

import pytest

from overlay.core.connect.attempts import STEPS, Step, StepEvent
from overlay.core.events import LinkAlive, LinkSilent, LinkSuspect, Rejected, Resolved
from overlay.core.ice import outputs as ice
from overlay.core.ice.states import (
    AGENT,
    LIVELINESS,
    PAIR,
    AgentEvent,
    AgentState,
    Liveliness,
    PairEvent,
    PairState,
    Sign,
)
from overlay.core.link.links import TRANSITIONS as LINK
from overlay.core.link.links import LinkEvent, LinkState
from overlay.core.stream.states import (
    RECEIVING,
    SENDING,
    Receiving,
    ReceivingEvent,
    Sending,
    SendingEvent,
)
from overlay.sim.world import World
from tests.core.ice import world as ice_world
from tests.core.stream.pair import Pair
from tests.core.test_handle import linked
from tests.core.worlds import line

Table = dict[Any, dict[Any, Any]]
TABLES: dict[str, Table] = {
    "sending": SENDING,
    "receiving": RECEIVING,
    "link": LINK,
    "connect": STEPS,
    "agent": AGENT,
    "pair": PAIR,
    "liveliness": LIVELINESS,
}


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_a_table_has_a_row_for_each_state_and_each_can_be_reached(table: Table) -> None:
    first = next(iter(table))
    states: type[StrEnum] = type(first)
    assert list(table) == list(states)
    seen: list[StrEnum] = []
    fresh = [first]
    while fresh:
        state = fresh.pop()
        if state not in seen:
            seen.append(state)
            fresh += table[state].values()
    assert sorted(seen) == sorted(table)
    events: type[StrEnum] = type(next(iter(table[first])))
    assert {event for row in table.values() for event in row} == {*events}, "one of no effect"


# --- streams -------------------------------------------------------------------------------------


def test_a_stream_runs_through_its_states() -> None:
    pair = Pair()
    ours, theirs = pair.open()
    seen = [(ours.sending, theirs.receiving)]
    pair.client.mux.write(ours, b"data")
    pair.client.mux.end(ours)
    seen.append((ours.sending, theirs.receiving))
    pair.settle()
    seen.append((ours.sending, theirs.receiving))
    assert seen == [
        (Sending.OPEN, Receiving.OPEN),
        (Sending.ENDING, Receiving.OPEN),
        (Sending.ENDED, Receiving.ENDED),
    ]
    pair.server.mux.reset(theirs)
    seen = [(theirs.sending, ours.receiving)]
    pair.settle()
    seen.append((theirs.sending, ours.receiving))
    assert seen == [(Sending.STOPPING, Receiving.OPEN), (Sending.ENDED, Receiving.RESET)]


def test_without_its_entry_a_half_close_is_never_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(SENDING[Sending.OPEN], SendingEvent.END)
    pair = Pair()
    ours, theirs = pair.open()
    pair.client.mux.end(ours)
    pair.settle()
    assert not theirs.at_eof


def test_with_one_more_entry_a_stream_may_end_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    def violations() -> list[str]:
        pair = Pair()
        ours, _ = pair.open()
        for _ in range(2):
            pair.server.mux.receive(ours.id, b"\x05", 0.0)
            pair.server.note()
        return pair.server.violations

    assert violations() == ["a stream ended twice"]
    monkeypatch.setitem(RECEIVING[Receiving.ENDED], ReceivingEvent.END, Receiving.ENDED)
    assert violations() == []


# --- links ---------------------------------------------------------------------------------------


def states_after(*events: type[LinkSuspect | LinkAlive | LinkSilent]) -> list[LinkState]:
    """What a node says of a link to which these things happen."""
    world, node, link, _ = linked()
    said = []
    for event in events:
        node.core.handle(event(link), world.now)
        said += [view.state for view in node.core.peers() if view.link == link]
    return said


def test_a_link_runs_through_its_states() -> None:
    assert states_after(LinkSuspect, LinkSilent, LinkSuspect, LinkAlive, LinkAlive) == [
        LinkState.SUSPECT,
        LinkState.SILENT,
        LinkState.SILENT,
        LinkState.UP,
        LinkState.UP,
    ]


def test_without_its_entry_silence_is_no_news(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(LINK[LinkState.UP], LinkEvent.FELL_SILENT)
    assert states_after(LinkSilent, LinkSuspect) == [LinkState.UP, LinkState.SUSPECT]


# --- connecting ----------------------------------------------------------------------------------


def connecting_through_the_middle() -> Any:
    """What becomes of a connection between two that cannot dial each other."""
    world = World(5)
    a, _, c = line(world, circuits=False)
    request = world.connect(a, c)
    world.run_until(lambda: request in a.results, within=30.0)
    return a.results[request]


def test_a_dial_that_cannot_be_made_is_followed_by_an_offer() -> None:
    assert isinstance(connecting_through_the_middle(), Resolved)


def test_without_its_entry_no_offer_follows(monkeypatch: pytest.MonkeyPatch) -> None:
    for outcome in (StepEvent.UNREACHABLE, StepEvent.FAILED):
        monkeypatch.setitem(STEPS[Step.DIAL], outcome, Step.REST)
    assert isinstance(connecting_through_the_middle(), Rejected)


# --- ICE -----------------------------------------------------------------------------------------


def test_an_attempt_runs_through_its_states() -> None:
    world, a, b = ice_world.linked(1)
    assert a.agent is not None
    assert b.agent is not None
    assert (a.agent._state, b.agent._state) == (AgentState.SELECTED, AgentState.SELECTED)
    world.dark = True
    world.run_until(world.now + 70.0)
    assert a.agent._state is AgentState.FAILED


def test_without_its_entry_no_pair_is_ever_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(AGENT[AgentState.CHECKING], AgentEvent.SELECT)
    with pytest.raises(KeyError):
        ice_world.linked(1)


def test_a_pair_works_when_the_table_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    for state in (PairState.IN_PROGRESS, PairState.FAILED):
        monkeypatch.setitem(PAIR[state], PairEvent.ANSWERED, PairState.FAILED)
    with pytest.raises(AssertionError):
        ice_world.linked(1)


@pytest.mark.parametrize(
    ("state", "sign", "after", "noticed"),
    [
        (Liveliness.ALIVE, Sign.UNANSWERED, Liveliness.SUSPECT, [ice.Suspect(), ice.Silent()]),
        (Liveliness.ALIVE, Sign.UNANSWERED, Liveliness.SILENT, [ice.Silent()]),
        (
            Liveliness.SUSPECT,
            Sign.QUIET,
            Liveliness.DEAD,
            [ice.Suspect(), ice.Failed(ice.Failure.SILENT)],
        ),
    ],
)
def test_what_is_thought_of_a_peer_is_what_the_table_says(
    state: Liveliness,
    sign: Sign,
    after: Liveliness,
    noticed: list[ice.IceOutput],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(LIVELINESS[state], sign, after)
    world, a, _ = ice_world.linked(4)
    world.dark = True
    world.run_until(world.now + 9.0)
    assert ice_world.worries(a) == noticed
