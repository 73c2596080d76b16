"""Deadlines fall due in order, once, and move when they are set again."""

from hypothesis import given
from hypothesis import strategies as st

from overlay.core.timers import NEVER, Agenda, Timers

NAMES = st.sampled_from("abcdef")
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("set"), NAMES, st.integers(0, 50)),
        st.tuples(st.just("stop"), NAMES, st.just(0)),
        st.tuples(st.just("pop"), st.just(""), st.integers(0, 50)),
    )
)


@given(STEPS)
def test_timers_agree_with_a_plain_table(steps: list[tuple[str, str, int]]) -> None:
    timers: Timers[str] = Timers()
    table: dict[str, float] = {}
    for what, name, at in steps:
        if what == "set":
            timers.set(name, at)
            table[name] = at
        elif what == "stop":
            timers.stop(name)
            table.pop(name, None)
        else:
            popped = timers.pop_due(at)
            assert sorted(popped) == sorted(n for n, t in table.items() if t <= at)
            assert [table[n] for n in popped] == sorted(table[n] for n in popped)
            table = {n: t for n, t in table.items() if t > at}
        assert len(timers) == len(table)
        assert timers.next_deadline() == (min(table.values()) if table else None)
        assert all(n in timers for n in table)


def test_setting_one_name_for_ever_keeps_no_history() -> None:
    timers: Timers[str] = Timers()
    for at in range(10_000):
        timers.set("a", float(at))
    assert len(timers._agenda._heap) < 200


@given(
    st.lists(
        st.tuples(
            st.integers(0, 1), st.sampled_from(["set", "stop", "pop"]), NAMES, st.integers(0, 50)
        )
    )
)
def test_an_agenda_is_never_late_and_right_once_settled(
    steps: list[tuple[int, str, str, int]],
) -> None:
    agenda = Agenda()
    both: tuple[Timers[str], Timers[str]] = (Timers(agenda), Timers(agenda))
    for which, what, name, at in steps:
        timers = both[which]
        if what == "set":
            timers.set(name, at)
        elif what == "stop":
            timers.stop(name)
        else:
            due = {name for name, when in timers.deadlines.items() if when <= at}
            assert set(timers.pop_due(at)) == due
            for each in both:
                each.pop_due(at)
        deadlines = [when for each in both for when in each.deadlines.values()]
        earliest = min(deadlines, default=NEVER)
        assert agenda.earliest <= earliest
        assert agenda.settle() == agenda.earliest == earliest


def test_what_is_set_in_a_turn_for_an_instant_that_has_come_is_due_in_the_next_one() -> None:
    """Not handed to one whose turn is over, which nobody would ask again for a long time."""
    agenda = Agenda()
    one: Timers[str] = Timers(agenda)
    other: Timers[str] = Timers(agenda)
    one.set("a", 1.0)
    other.set("b", 1.0)
    agenda.begin_turn(1.0)
    assert one.pop_due(1.0) == ["a"]
    one.set("again", 1.0)
    other.set("late", 0.5)
    assert other.pop_due(1.0) == ["b"]
    assert agenda.settle() == agenda.earliest == 0.5
    agenda.begin_turn(1.0)
    assert (one.pop_due(1.0), other.pop_due(1.0)) == (["again"], ["late"])
    assert agenda.settle() == NEVER
