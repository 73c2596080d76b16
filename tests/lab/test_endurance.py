"""What half an hour of faults is judged by: alone, because it needs none of that half hour."""

from collections import Counter

from tests.lab.endurance import Outcome


def test_what_was_lost_and_what_came_twice_are_named_by_node() -> None:
    outcome = Outcome(
        sent=["1", "2"],
        heard={"a": Counter({"1": 1, "2": 1}), "b": Counter({"1": 2}), "deaf": Counter()},
    )
    assert outcome.lost() == {"b": ["2"], "deaf": ["1", "2"]}
    assert outcome.doubled() == {"b": ["1"]}
