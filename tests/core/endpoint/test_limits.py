"""The limits of the endpoint, one by one."""

import pytest

from overlay.core.limits import (
    BURST,
    HALF_OPEN_MAX,
    HALF_OPEN_PER_PREFIX,
    RATE,
    SOURCES_MAX,
    Allowance,
    BoundedDict,
    HalfOpen,
    TokenBuckets,
    group_of,
    source_of,
)
from overlay.core.types import Address, LinkId

A, B = Address("8.8.8.1", 1111), Address("9.9.9.2", 2222)


@pytest.mark.parametrize(
    ("host", "prefix"),
    [
        ("8.8.8.1", "8.8.8.0/24"),
        ("2600:1:2:3::4", "2600:1:2::/48"),
        ("::ffff:8.8.8.1", "8.8.8.0/24"),
        ("127.0.0.1", ""),
        ("127.3.2.1", ""),
        ("::1", ""),
        ("::ffff:127.0.0.1", ""),
        ("10.1.2.3", "10.1.2.3"),
        ("192.168.1.9", "192.168.1.9"),
        ("100.64.3.4", "100.64.3.4"),
        ("169.254.1.1", "169.254.1.1"),
        ("fd00::1", "fd00::1"),
        ("fe80::1", "fe80::1"),
        ("no address", "no address"),
    ],
)
def test_public_addresses_count_by_prefix_and_near_ones_alone(host: str, prefix: str) -> None:
    assert group_of(host) == prefix


def test_a_source_is_a_public_prefix_or_one_local_socket() -> None:
    assert source_of(A) == source_of(Address("8.8.8.77", 5)) != source_of(B)
    assert source_of(Address("127.0.0.1", 1)) != source_of(Address("127.0.0.1", 2))
    assert source_of(Address("10.0.0.1", 1)) != source_of(Address("10.0.0.1", 2))


def test_a_bucket_empties_and_fills() -> None:
    buckets = TokenBuckets[str](rate=10.0, burst=5.0)
    assert [buckets.take("a", 0.0) for _ in range(7)] == [True] * 5 + [False] * 2
    assert buckets.take("b", 0.0)
    assert not buckets.take("a", 0.05)
    assert buckets.take("a", 0.15)
    assert not buckets.take("a", 0.15)
    assert [buckets.take("a", 1e6) for _ in range(7)] == [True] * 5 + [False] * 2


def test_a_clock_that_stands_still_fills_no_bucket() -> None:
    buckets = TokenBuckets[str](rate=10.0, burst=1.0)
    assert buckets.take("a", 5.0)
    assert not buckets.take("a", 4.0)


def test_buckets_and_allowances_are_bounded() -> None:
    buckets, allowance = TokenBuckets[str](RATE, BURST, SOURCES_MAX), Allowance()
    for number in range(SOURCES_MAX + 100):
        buckets.take(str(number), 0.0)
        allowance.earn(Address("8.8.8.8", number), 1)
    assert len(buckets) == len(allowance) == SOURCES_MAX
    assert not allowance.spend(Address("8.8.8.8", 0), 1), "forgotten, and so owed nothing"


def test_nobody_is_owed_more_than_three_times_what_it_sent() -> None:
    allowance = Allowance()
    assert not allowance.spend(A, 1)
    allowance.earn(A, 100)
    assert not allowance.spend(A, 301)
    assert allowance.spend(A, 200)
    assert allowance.spend(A, 100)
    assert not allowance.spend(A, 1)
    assert not allowance.spend(B, 1)
    allowance.earn(A, 1)
    assert allowance.spend(A, 3)


def test_half_open_handshakes_are_counted_until_released() -> None:
    half_open, half = HalfOpen(), HALF_OPEN_MAX // 2
    for number in range(half):
        assert half_open.admit(LinkId(number), f"8.8.8.{number}")
    assert not half_open.admit(LinkId(1000), "8.8.8.200")
    assert half_open.admit(LinkId(1001), "8.8.9.200")
    for number in range(2 * HALF_OPEN_PER_PREFIX):
        half_open.release(LinkId(number))
        half_open.release(LinkId(number))
    assert half_open.admit(LinkId(1002), "8.8.8.200")
    assert len(half_open) == half - 2 * HALF_OPEN_PER_PREFIX + 2


def test_each_prefix_has_its_places_however_many_another_has_taken() -> None:
    """Forty newcomers of one office stand behind one address, and all may come in at once."""
    half_open = HalfOpen()
    for number in range(HALF_OPEN_MAX // 2):
        assert half_open.admit(LinkId(number), "8.8.8.8")
    for number in range(HALF_OPEN_PER_PREFIX):
        assert half_open.admit(LinkId(1000 + number), "9.9.9.9")
    assert not half_open.admit(LinkId(2000), "9.9.9.9")


def test_exempt_from_the_prefix_is_not_exempt_from_the_total() -> None:
    half_open = HalfOpen()
    for number in range(HALF_OPEN_MAX):
        assert half_open.admit(LinkId(number), "127.0.0.1")
    assert not half_open.admit(LinkId(HALF_OPEN_MAX), "127.0.0.1")
    assert not half_open.admit(LinkId(HALF_OPEN_MAX), "9.9.9.2")


def test_a_bounded_dict_forgets_what_was_put_in_longest_ago() -> None:
    bounded: BoundedDict[str, int] = BoundedDict(2)
    bounded.put("a", 1)
    bounded.put("b", 2)
    bounded.put("a", 3)
    bounded.put("c", 4)
    assert dict(bounded) == {"a": 3, "c": 4}
