"""How many small messages a link carries, and how evenly."""

from benchmarks.cases import rival
from benchmarks.measure import Bar, Case, Measure
from benchmarks.peer import Peer

NODE = "benchmarks.node"
SIZE = 100
SECONDS = 3.0

RATE = Measure(
    "small-messages",
    f"messages of {SIZE} bytes on a link",
    "/s",
    Bar(1, at_most=False, of_ratio=True),
)
GAP = Measure("small-messages-gap", "longest gap between two of them", "ms", Bar(200), worst=True)


def small_messages() -> dict[str, float]:
    """One node sends all that the link takes; the other's application counts."""
    with Peer(NODE) as receiver, Peer(NODE) as sender:
        target = receiver.ask("start")["peer"]
        sender.ask("start")
        sender.ask("join", link=receiver.ask("invite")["link"])
        sent = sender.ask("send", peer=target, size=SIZE, seconds=SECONDS)["sent"]
        return _figures(rival.all_arrived(receiver, sent))


def stock() -> dict[str, float]:
    """The rival's sender and receiver."""
    return _figures(rival.small_messages(SIZE, SECONDS))


def _figures(arrived: dict[str, float]) -> dict[str, float]:
    assert arrived["bytes"] == SIZE * arrived["count"], "not the messages that were sent"
    return {RATE.name: arrived["rate"], GAP.name: arrived["gap"] * 1000}


CASES = (Case("messages", (RATE, GAP), small_messages, stock),)
