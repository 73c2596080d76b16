"""The tables of states are the mechanism: another table, another behaviour."""

from enum import StrEnum

import pytest

from overlay.core.events import LinkAlive, LinkSilent, LinkSuspect
from overlay.core.links import TRANSITIONS as LINK
from overlay.core.links import LinkEvent, LinkState
from overlay.core.stream_states import (
    RECEIVING,
    SENDING,
    Receiving,
    ReceivingEvent,
    Sending,
    SendingEvent,
)
from tests.core.stream_pair import Pair
from tests.core.test_handle import linked

Table = dict[StrEnum, dict[StrEnum, StrEnum]]
TABLES = {"sending": SENDING, "receiving": RECEIVING, "link": LINK}


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_a_table_has_a_row_for_each_state_and_each_can_be_reached(table: Table) -> None:
    first = next(iter(table))
    assert list(table) == list(type(first))
    seen: list[StrEnum] = []
    fresh = [first]
    while fresh:
        state = fresh.pop()
        if state not in seen:
            seen.append(state)
            fresh += table[state].values()
    assert sorted(seen) == sorted(table)
    events = type(next(iter(table[first])))
    assert {event for row in table.values() for event in row} == set(events), "one of no effect"


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


def states_after(*events: type[LinkSuspect | LinkAlive | LinkSilent]) -> list[str]:
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
