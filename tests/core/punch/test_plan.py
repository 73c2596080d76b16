"""Both ends come to the same plan, and what physics forbids is in none."""

from itertools import product

import pytest

from overlay.core.punch.plan import plan
from overlay.core.types import PunchRole, Technique

BOTH = ["prediction", "birthday"]
HOME = ("independent", "address-port", "preserved")
HASHED = ("independent", "address-port", "random")
OPEN = ("independent", "independent", "preserved")
NUMBERS = ("address-port", "address-port", "sequential")
DRAWS = ("address-port", "address-port", "random")
BY_HOST = ("address", "address-port", "random")
UNCLEAR = ("dependent", "unknown", "random")
NOBODY = ()
ALL = (HOME, HASHED, OPEN, NUMBERS, DRAWS, BY_HOST, UNCLEAR, NOBODY)
OTHER = {
    PunchRole.OPENS: PunchRole.PROBES,
    PunchRole.PROBES: PunchRole.OPENS,
    PunchRole.BOTH: PunchRole.BOTH,
}


@pytest.mark.parametrize(("one", "other"), list(product(ALL, ALL)))
def test_both_ends_have_the_same_plan(one: tuple[str, ...], other: tuple[str, ...]) -> None:
    ours, theirs = plan(one, other, BOTH), plan(other, one, BOTH)
    if ours is None or theirs is None:
        assert ours is theirs is None
        return
    assert (ours.technique, ours.ice_first) == (theirs.technique, theirs.ice_first)
    assert ours.role is OTHER[theirs.role]


@pytest.mark.parametrize(
    ("one", "other", "technique", "role"),
    [
        (NUMBERS, HOME, Technique.PREDICTION, PunchRole.OPENS),
        (NUMBERS, NUMBERS, Technique.PREDICTION, PunchRole.BOTH),
        (HASHED, NUMBERS, Technique.PREDICTION, PunchRole.PROBES),
        (DRAWS, HOME, Technique.BIRTHDAY, PunchRole.OPENS),
        (BY_HOST, HASHED, Technique.BIRTHDAY, PunchRole.OPENS),
        (HASHED, DRAWS, Technique.BIRTHDAY, PunchRole.PROBES),
    ],
)
def test_what_is_to_be_done(
    one: tuple[str, ...], other: tuple[str, ...], technique: Technique, role: PunchRole
) -> None:
    found = plan(one, other, BOTH)
    assert found is not None
    assert (found.technique, found.role, found.ice_first) == (technique, role, False)


@pytest.mark.parametrize(
    ("one", "other"), [(DRAWS, DRAWS), (NUMBERS, DRAWS), (BY_HOST, NUMBERS), (BY_HOST, DRAWS)]
)
def test_what_physics_forbids_is_not_tried(one: tuple[str, ...], other: tuple[str, ...]) -> None:
    assert plan(one, other, BOTH) is None


@pytest.mark.parametrize("other", [OPEN, HOME])
def test_what_ice_does_needs_nothing_else(other: tuple[str, ...]) -> None:
    assert plan(HOME, other, BOTH) is None
    assert plan(DRAWS, OPEN, BOTH) is None


def test_where_ice_may_do_it_has_a_moment() -> None:
    found = plan(UNCLEAR, ("independent", "unknown", "preserved"), BOTH)
    assert found is not None
    assert found.ice_first


@pytest.mark.parametrize(("one", "able"), [(NUMBERS, ["birthday"]), (DRAWS, ["prediction"])])
def test_what_one_end_cannot_do_is_not_planned(one: tuple[str, ...], able: list[str]) -> None:
    assert plan(one, HOME, able) is None


@pytest.mark.parametrize("other", [HOME, HASHED, OPEN])
def test_whoever_offers_opens_a_fresh_socket_where_ice_ought_to_have_done(
    other: tuple[str, ...],
) -> None:
    able = [*BOTH, "low-ttl"]
    ours, theirs = plan(HOME, other, able, offers=True), plan(other, HOME, able)
    assert ours is not None
    assert theirs is not None
    assert (ours.technique, ours.role) == (Technique.LOW_TTL, PunchRole.OPENS)
    assert (theirs.technique, theirs.role) == (Technique.LOW_TTL, PunchRole.PROBES)
    numbers = plan(NUMBERS, HOME, able, offers=True)
    assert numbers is not None
    assert numbers.technique is Technique.PREDICTION
