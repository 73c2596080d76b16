"""Why a link stays: what either end counts on it for, the budget, and guests in bursts."""

import random

import pytest

from overlay.core.context import Context, Settings
from overlay.core.events import Transmit
from overlay.core.membership.link_uses import (
    GUESTS_EASY,
    GUESTS_MAX,
    STAY_LEAST,
    TOLD,
    LinkUses,
    Use,
)
from overlay.core.types import LinkId, PeerId
from overlay.core.wire.messages import LinkUse
from overlay.sim.crypto import Ledger, StandInCrypto

STAY = 30.0


def peer(number: int) -> PeerId:
    return PeerId(number.to_bytes(32, "big"))


class Host:
    """The links of one node, near to nobody unless told otherwise."""

    def __init__(self, *, links_max: int = 4, long_links: int = 2) -> None:
        crypto = StandInCrypto(Ledger(), random.Random(1))
        settings = Settings(
            bytes(32), "n", "host", 1, bytes(32), links_max=links_max, long_links=long_links
        )
        self.context = Context(settings, crypto, random.Random(1))
        self.near: dict[PeerId, None] = {}
        self.served: dict[PeerId, None] = {}
        self.uses = LinkUses(
            self.context, lambda peer: peer in self.near, lambda peer: peer in self.served
        )

    def take(self, *numbers: int, now: float = 0.0) -> None:
        for number in numbers:
            self.uses.on_linked(peer(number), LinkId(number), now)

    def told(self) -> list[tuple[int, Use]]:
        """What the other ends were told since the last look."""
        sent = [each for each in self.context.drain() if isinstance(each, Transmit)]
        return [(int(e.link), Use(e.message.uses)) for e in sent if isinstance(e.message, LinkUse)]

    def over(self, now: float) -> list[int]:
        """Whose time is up by then."""
        return [int.from_bytes(each, "big") for each in self.uses.on_time(now)]


def test_a_link_that_serves_nothing_goes_after_its_stay() -> None:
    host = Host()
    host.take(1)
    assert host.over(STAY - 0.1) == []
    assert host.over(STAY) == [1]


@pytest.mark.parametrize("use", [Use.VIEW, Use.RING, Use.LONG, Use.KEPT])
def test_a_link_that_serves_us_stays_until_it_does_no_longer(use: Use) -> None:
    host = Host()
    host.take(1)
    host.uses.hold(peer(1), use, 1.0)
    assert host.over(10 * STAY) == []
    host.uses.release(peer(1), use, 10 * STAY)
    assert host.over(11 * STAY - 0.1) == []
    assert host.over(11 * STAY) == [1]


def test_a_link_serves_while_any_of_its_uses_lasts() -> None:
    host = Host()
    host.take(1)
    host.uses.hold(peer(1), Use.VIEW, 0.0)
    host.uses.hold(peer(1), Use.RING, 0.0)
    host.uses.release(peer(1), Use.VIEW, 1.0)
    assert host.over(2 * STAY) == []


def test_the_other_end_hears_what_we_count_on_it_for_but_not_of_the_view() -> None:
    host = Host()
    host.take(7)
    host.uses.hold(peer(7), Use.VIEW, 0.0)
    assert host.told() == []
    host.uses.hold(peer(7), Use.RING, 0.0)
    host.uses.hold(peer(7), Use.RING, 0.0)
    assert host.told() == [(7, Use.RING)], "once is enough"
    host.uses.hold(peer(7), Use.KEPT, 0.0)
    host.uses.release(peer(7), Use.RING, 0.0)
    assert host.told() == [(7, Use.RING | Use.KEPT), (7, Use.KEPT)]
    host.take(7)
    assert host.told() == [(7, Use.KEPT)], "said again on the link that took the old one's place"


def test_what_the_other_end_counts_on_keeps_a_link_within_the_budget() -> None:
    host = Host(links_max=4)
    host.take(1, 2, 3, 4)
    for number in (1, 2):
        host.uses.on_link_use(peer(number), LinkUse(int(Use.LONG)), 0.0)
    assert host.over(STAY) == [3, 4]
    for number in (3, 4):
        host.uses.on_unlinked(peer(number))
    assert host.over(5 * STAY) == []
    host.take(5, 6, 7, now=5 * STAY)
    host.over(5 * STAY + 0.1)
    assert not {1, 2} & set(host.over(7 * STAY)), "two more than the budget, for others' long links"
    for number in (5, 6, 7):
        host.uses.on_unlinked(peer(number))
    host.take(5, 6, 7, 8, 9, now=7 * STAY)
    host.over(7 * STAY + 2.0)  # crowded: their wish alone keeps no link
    assert {1, 2} <= set(host.over(9 * STAY))


@pytest.mark.parametrize("use", [Use.RING, Use.RELAY])
def test_who_is_right_keeps_its_link_beyond_the_budget_and_a_liar_does_not(use: Use) -> None:
    """A ring neighbour, or whom we relay for; 2 is neither, whatever it says."""
    host = Host(links_max=1, long_links=0)
    host.take(1, 2, 3)
    right = host.near if use is Use.RING else host.served
    right[peer(1)] = None
    for number in (1, 2):
        host.uses.on_link_use(peer(number), LinkUse(int(use)), 0.0)
    assert host.over(2 * STAY) == [2, 3]


def test_nonsense_about_uses_counts_for_nothing() -> None:
    host = Host()
    host.take(1)
    host.uses.on_link_use(peer(1), LinkUse(0xFFFF & ~int(TOLD)), 0.0)
    host.uses.on_link_use(peer(9), LinkUse(int(TOLD)), 0.0)
    assert host.over(STAY) == [1]


def test_a_guest_whose_link_is_not_ended_is_asked_about_again() -> None:
    host = Host()
    host.take(1)
    assert host.over(STAY) == [1]
    assert host.over(STAY + 1.0) == []
    assert host.over(2 * STAY) == [1]


def test_the_oldest_guests_of_a_burst_make_room_early() -> None:
    host = Host(links_max=4)
    host.take(*range(GUESTS_EASY))
    assert host.over(STAY_LEAST) == [], "the counter-test: few guests stay their whole time"
    host.take(*range(100, 110), now=STAY_LEAST)
    assert host.over(STAY_LEAST) == list(range(10))
    assert host.over(STAY_LEAST + 1.0) == []


def test_nobody_is_handed_on_before_its_least_stay() -> None:
    host = Host(links_max=4)
    host.take(*range(GUESTS_EASY + 10))
    assert host.over(STAY_LEAST - 0.1) == []
    assert len(host.over(STAY_LEAST)) == 10


def test_twenty_newcomers_a_second_always_find_room() -> None:
    host, now, refused = Host(links_max=12), 0.0, 0
    for number in range(600):
        now = number / 20
        for gone in host.over(now):
            host.uses.on_unlinked(peer(gone))
        refused += not host.uses.has_room()
        host.take(number, now=now)
    assert refused == 0
    host.take(*range(1000, 1000 + GUESTS_MAX), now=now)
    assert not host.uses.has_room(), "the counter-test: too many at once"
