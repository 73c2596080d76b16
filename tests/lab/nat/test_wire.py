"""What a wire does to packets, on a clock of the test's; the real one is in `test_laboratory.py`.

It stands alone because it needs no namespace.
"""

from tests.lab.nat.wire import Direction, Impairment


def dues(impairment: Impairment, count: int = 2000, size: int = 1000) -> list[float | None]:
    """When packets are due that enter a wire one millisecond apart."""
    direction = Direction(impairment, "out")
    return [direction.due(size, number / 1000) for number in range(count)]


def delays(impairment: Impairment) -> list[float]:
    return [due - n / 1000 for n, due in enumerate(dues(impairment)) if due is not None]


def test_latency_is_exact_and_jitter_keeps_the_order() -> None:
    assert {round(delay, 9) for delay in delays(Impairment(latency=0.02))} == {0.02}
    shaken = Impairment(latency=0.02, jitter=0.01)
    arrivals = [due for due in dues(shaken) if due is not None]
    assert arrivals == sorted(arrivals)
    assert 0.02 <= min(delays(shaken)) < 0.022
    assert 0.028 < max(delays(shaken)) <= 0.03


def test_the_seed_decides_what_is_lost() -> None:
    lossy = Impairment(loss=0.1)
    lost = dues(lossy).count(None)
    assert 150 < lost < 250
    assert dues(lossy) == dues(lossy)
    assert dues(lossy) != dues(Impairment(loss=0.1, seed=1))


def test_reordered_packets_are_overtaken() -> None:
    arrivals = dues(Impairment(reorder=0.05, reorder_by=0.005))
    late = sum(due is not None and due > n / 1000 + 0.001 for n, due in enumerate(arrivals))
    assert 60 < late < 140


def test_a_rate_makes_a_queue_and_a_full_queue_drops() -> None:
    """A megabyte a second is offered, half of it is carried."""
    slow = Impairment(rate=500_000, queue=50_000)
    arrivals = dues(slow)
    carried = len(arrivals) - arrivals.count(None)
    assert 1000 <= carried <= 1060, "what was under way when the offer ended was carried too"
    assert 0.1 < max(delays(slow)) <= 0.103, "the queue, and the packet itself"
