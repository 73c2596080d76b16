"""The listener's half of a direct dial by itself: checks, answers, paths."""

from random import Random

import pytest

from overlay.core.ice import outputs as ice
from overlay.core.ice import stun
from overlay.core.ice.confirming import ANSWER_TIMEOUT, UNPROVEN_RATE
from overlay.core.ice.lite import (
    EXPIRED_MAX,
    NOMINATION_TIMEOUT,
    PAIRS_MAX,
    HalfOpenCheck,
    HalfOpenChecks,
    LiteSession,
    new_check,
)
from overlay.core.limits import HALF_OPEN_MAX, HALF_OPEN_PER_PREFIX, HALF_OPEN_TIMEOUT
from overlay.core.types import Address, IceCredentials, PathKind
from overlay.core.wire.dial_tokens import Claim

A, B, C = Address("8.8.8.1", 1111), Address("9.9.9.2", 2222), Address("7.7.7.3", 3333)
LOCAL = IceCredentials("o1listener", "password of the listener")
KEY = LOCAL.password.encode()
CLAIM = Claim(2, b"token id", 2_000_000_000, bytes(16))


def half_open(name: str, host: str = "8.8.8.1", now: float = 0.0) -> HalfOpenCheck:
    return new_check(name, LOCAL, CLAIM, host, now)


def check(number: int = 1, *, key: bytes = KEY, controlled: int | None = None) -> stun.Message:
    request = stun.binding_request(
        number.to_bytes(12, "big"),
        username=f"{LOCAL.ufrag}:dialler",
        priority=1,
        controlling=None if controlled else 1,
        controlled=controlled,
    )
    message = stun.parse(stun.encode(request, key))
    assert isinstance(message, stun.Message)
    return message


def session() -> LiteSession:
    return LiteSession(LOCAL, (A, B), Random(1), 0.0)


def answer_of(outputs: list[ice.IceOutput]) -> stun.Message:
    output, *_ = outputs
    assert isinstance(output, ice.SendStun)
    message = stun.parse(output.data)
    assert isinstance(message, stun.Message)
    assert message.integrity_ok(KEY)
    return message


# --- half-open checks ---------------------------------------------------------------------------


def test_a_client_hello_is_whose_check_came_last_from_there() -> None:
    checks = HalfOpenChecks()
    first, second = half_open("first"), half_open("second")
    for each in (first, second):
        checks.add(each)
        checks.checked(each, (A, B), nominated=True)
    assert checks.at((A, B), 1.0) is second
    checks.checked(first, (A, B), nominated=True)
    assert checks.at((A, B), 1.0) is first
    checks.remove(first)
    assert checks.at((A, B), 1.0) is second
    assert checks.at((C, B), 1.0) is None


@pytest.mark.parametrize(
    ("nominated", "timeout"), [(True, HALF_OPEN_TIMEOUT), (False, NOMINATION_TIMEOUT)]
)
def test_a_half_open_check_that_does_not_come_in_expires(nominated: bool, timeout: float) -> None:
    checks = HalfOpenChecks()
    only = half_open("only")
    checks.add(only)
    checks.checked(only, (A, B), nominated)
    assert checks.at((A, B), timeout - 0.1) is only
    assert not checks.is_expired("only")
    assert checks.at((A, B), timeout) is None
    assert checks.is_expired("only")
    assert len(checks) == 0
    assert not checks._by_pair


def test_an_expired_check_does_not_hide_one_that_is_not() -> None:
    checks = HalfOpenChecks()
    fresh, old = half_open("fresh", now=5.0), half_open("old", now=0.0)
    for each in (fresh, old):
        checks.add(each)
        checks.checked(each, (A, B), nominated=True)
    assert checks.at((A, B), HALF_OPEN_TIMEOUT + 1.0) is fresh


def test_a_newcomer_replaces_the_oldest_of_its_prefix_or_of_all() -> None:
    checks = HalfOpenChecks()
    for number in range(HALF_OPEN_MAX // 2 + 3):
        checks.add(half_open(f"near {number}", "8.8.8.1"))
    assert len(checks) == HALF_OPEN_MAX // 2, "one prefix takes half of all places"
    assert checks.get("near 2", 0.0) is None
    assert checks.get("near 3", 0.0) is not None
    for number in range(HALF_OPEN_PER_PREFIX + 3):
        checks.add(half_open(f"other {number}", "9.9.9.1"))
    assert len(checks) == HALF_OPEN_MAX // 2 + HALF_OPEN_PER_PREFIX
    assert checks.get("other 2", 0.0) is None
    assert checks.get("near 3", 0.0) is not None, "each replaces its own"
    for number in range(HALF_OPEN_MAX + 1):
        checks.add(half_open(f"far {number}", "127.0.0.1"))
    assert len(checks) == HALF_OPEN_MAX
    assert checks.get("far 0", 0.0) is None
    assert checks.get("far 1", 0.0) is not None
    assert not checks.is_expired("far 0"), "crowded out is not expired"


def test_a_check_that_was_crowded_out_and_came_again_leaves_nothing_behind() -> None:
    """What is known of the first is taken back when the second is there."""
    checks = HalfOpenChecks()
    first, again = half_open("same"), half_open("same")
    checks.add(first)
    checks.checked(first, (A, B), nominated=True)
    checks.remove(first)
    checks.add(again)
    checks.checked(again, (C, B), nominated=True)
    checks.remove(first)
    assert len(checks) == 0
    assert not checks._by_pair


def test_one_dialler_checks_from_four_addresses_at_most() -> None:
    checks = HalfOpenChecks()
    only = half_open("only")
    checks.add(only)
    places = [(Address("8.8.8.1", port), B) for port in range(PAIRS_MAX + 2)]
    for place in places:
        checks.checked(only, place, nominated=True)
    assert [place for place in places if checks.at(place, 1.0)] == places[-PAIRS_MAX:]


def test_expired_dials_are_remembered_as_long_as_they_ask() -> None:
    checks = HalfOpenChecks()
    checks.expire("asking")
    for number in range(EXPIRED_MAX):
        checks.expire(str(number))
        assert checks.is_expired("asking")
    assert not checks.is_expired("0")


# --- sessions -----------------------------------------------------------------------------------


def test_a_check_is_answered_with_the_address_it_came_from() -> None:
    lite = session()
    lite.receive(check(), C, B, 1.0)
    message = answer_of(lite.take())
    assert message.message_class is stun.MessageClass.SUCCESS
    assert message.mapped_address == C


def test_a_check_with_another_password_is_not_answered() -> None:
    lite = session()
    lite.receive(check(key=b"another password of 22"), A, B, 1.0)
    assert lite.take() == []
    lite.handle_timeout(3.0)
    lite.take()
    lite.handle_timeout(4.5)
    assert ice.Suspect() in lite.take(), "and is no sign of life"


def test_a_dialler_that_claims_our_role_has_to_switch() -> None:
    lite = session()
    lite.receive(check(controlled=1), A, B, 1.0)
    message = answer_of(lite.take())
    assert (message.message_class, message.error_code) == (stun.MessageClass.ERROR, 487)


def test_attributes_that_must_be_understood_and_are_not_are_named() -> None:
    request = check()
    request.unknown_required = (0x7777,)
    lite = session()
    lite.receive(request, A, B, 1.0)
    message = answer_of(lite.take())
    assert (message.error_code, message.unknown_attributes) == (420, (0x7777,))


def questions(lite: LiteSession) -> list[ice.Confirm]:
    return [output for output in lite.take() if isinstance(output, ice.Confirm)]


def test_it_asks_by_heartbeat_where_the_path_runs() -> None:
    lite = session()
    lite.handle_timeout(2.9)
    assert lite.take() == []
    lite.handle_timeout(3.0)
    (question,) = questions(lite)
    assert (question.remote, question.local, len(question.nonce)) == (A, B, 8)
    lite.confirmed(question.nonce, A, B, 3.25)
    assert lite.take() == []
    assert lite.round_trip.seconds == 0.25
    lite.handle_timeout(6.2)
    assert questions(lite) == []
    lite.handle_timeout(6.25)
    assert len(questions(lite)) == 1


def test_the_diallers_own_checks_do_not_show_that_it_hears_us() -> None:
    lite, said = session(), list[ice.IceOutput]()
    for tenth in range(80):
        now = tenth / 10
        if tenth % 10 == 0:
            lite.receive(check(tenth + 1), A, B, now)
        if now >= lite.next_deadline():
            lite.handle_timeout(now)
        said += [each for each in lite.take() if not isinstance(each, ice.SendStun | ice.Confirm)]
    assert said == [ice.Suspect(), ice.Silent()]
    lite.acknowledged(8.0)
    assert lite.take() == [ice.Alive()]


def test_a_check_from_elsewhere_draws_a_nonce_and_its_return_moves_the_path() -> None:
    lite = session()
    lite.receive(check(), C, B, 1.0)
    answered, question = lite.take()
    assert isinstance(answered, ice.SendStun)
    assert isinstance(question, ice.Confirm)
    assert (question.remote, question.local) == (C, B)
    for nonce, remote in ((question.nonce[::-1], C), (question.nonce, A)):
        lite.confirmed(nonce, remote, B, 1.1)
        assert lite.take() == []
    lite.receive(check(2), C, B, 1.2)
    (question,) = questions(lite)
    lite.confirmed(question.nonce, C, B, 1.3)
    assert lite.take() == [ice.Selected(C, B, PathKind.HOST)]


def test_a_dialler_that_comes_to_another_of_our_addresses_is_followed_there() -> None:
    lite = session()
    lite.receive(check(), A, C, 1.0)
    (question,) = questions(lite)
    lite.confirmed(question.nonce, A, C, 1.1)
    assert lite.take() == [ice.Selected(A, C, PathKind.HOST)]


def test_who_claims_restarts_without_end_keeps_up_no_path_that_moves() -> None:
    lite = session()
    asked = [lite.ask_restarted((C, B), 1.0) for _ in range(40)]
    assert len([nonce for nonce in asked if nonce is not None]) == UNPROVEN_RATE
    lite.take()
    lite.receive(check(), C, B, 1.0)
    (question,) = questions(lite)
    lite.confirmed(question.nonce, C, B, 1.1)
    assert lite.take() == [ice.Selected(C, B, PathKind.HOST)]


def test_a_nonce_that_comes_back_too_late_moves_nothing() -> None:
    lite = session()
    lite.receive(check(), C, B, 1.0)
    (question,) = questions(lite)
    lite.confirmed(question.nonce, C, B, 1.0 + ANSWER_TIMEOUT + 0.1)
    assert lite.take() == []


def test_it_is_not_judged_before_its_time() -> None:
    lite, said = session(), list[tuple[float, ice.IceOutput]]()
    while not any(isinstance(each, ice.Failed) for _, each in said):
        now = lite.next_deadline()
        lite.handle_timeout(now)
        said += [(now, each) for each in lite.take() if not isinstance(each, ice.Confirm)]
    assert said == [
        (4.5, ice.Suspect()),
        (6.0, ice.Silent()),
        (60.0, ice.Failed(ice.Failure.SILENT)),
    ]
