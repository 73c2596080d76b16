"""The endpoint against bytes: wrong cookies, plain questions, and any datagram at all."""

from collections import defaultdict

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from overlay.core.endpoint.dtls_cookie import make_cookie, parse_client_hello
from overlay.core.endpoint.outputs import Secure, Send
from overlay.core.events import Seen
from overlay.core.ice import stun
from overlay.core.types import Address, LinkId
from tests.core.endpoint.attacks import (
    HIGH,
    LOW,
    A,
    B,
    M,
    assert_bounded,
    client_hello,
    forged_check,
    linked,
    state_of,
    talks,
)
from tests.core.endpoint.world import Shell, World, make_dial, negotiate

# --- cookies ------------------------------------------------------------------------------------


def hello_answers(world: World, b: Shell, data: bytes, source: Address) -> list[bytes]:
    b.endpoint.receive(data, source, B, world.now)
    return [each.data for each in b.take() if isinstance(each, Send)]


def test_a_client_hello_from_nowhere_gets_nothing() -> None:
    world = World()
    b = Shell(world, B, seed=2)
    assert hello_answers(world, b, client_hello(), A) == []
    assert b.endpoint.counters["unknown"] == 1


def test_a_client_hello_after_a_check_gets_a_cookie_and_no_handshake() -> None:
    world = World()
    b = Shell(world, B, seed=2)
    b.endpoint.receive(forged_check(b, LOW, 1), A, B, world.now)
    b.take()
    data = client_hello()
    (answer,) = hello_answers(world, b, data, A)
    assert len(answer) < len(data)
    assert answer[13] == 3, "a HelloVerifyRequest"
    assert hello_answers(world, b, data, Address("8.8.8.1", 1112)) == [], "never checked there"


@pytest.mark.parametrize("wrong", ["of another address", "old", "made up"])
def test_a_wrong_cookie_opens_nothing(wrong: str) -> None:
    world = World(now=1000.0)
    b = Shell(world, B, seed=2)
    cookie = {
        "of another address": make_cookie(b.cookie_key, M, 1000.0),
        "old": make_cookie(b.cookie_key, A, 900.0),
        "made up": bytes(16),
    }[wrong]
    b.endpoint.receive(forged_check(b, LOW, 1), A, B, world.now)
    b.take()
    (answer,) = hello_answers(world, b, client_hello(cookie=cookie), A)
    assert answer[13] == 3
    assert b.endpoint.counters["refused_cookie"] == 1
    assert state_of(b.endpoint)["links"] == 0
    right = make_cookie(b.cookie_key, A, 1000.0)
    b.endpoint.receive(client_hello(cookie=right), A, B, world.now)
    assert [type(each).__name__ for each in b.take()] == ["Secure", "Record"]


def test_a_flood_of_client_hellos_is_not_answered_for_long() -> None:
    world = World()
    b = Shell(world, B, seed=2)
    b.endpoint.receive(forged_check(b, LOW, 1), A, B, world.now)
    b.take()
    data = client_hello()
    answers = [hello_answers(world, b, data, A) for _ in range(300)]
    assert 50 < sum(map(len, answers)) <= 100
    assert state_of(b.endpoint)["links"] == 0


def test_plain_stun_is_served_and_unknown_attributes_are_named() -> None:
    world = World()
    b = Shell(world, B, seed=2)
    bare = stun.encode(stun.binding_request(bytes(12)), None, fingerprint=False)
    b.endpoint.receive(bare, A, B, world.now)
    odd = bare[:2] + b"\0\4" + bare[4:] + b"\x77\x77\0\0"
    b.endpoint.receive(odd, A, B, world.now)
    b.endpoint.receive(b"\0\x11" + bare[2:], A, B, world.now)  # an indication wants no answer
    answers = [stun.parse(each.data) for each in b.take() if isinstance(each, Send)]
    assert [getattr(each, "mapped_address", None) for each in answers] == [A, None]
    assert [getattr(each, "unknown_attributes", None) for each in answers] == [(), (0x7777,)]
    assert b.endpoint.counters["stun_served"] == 1


def test_the_answer_to_a_plain_question_of_the_core_is_told_once() -> None:
    world = World()
    b = Shell(world, B, seed=2)
    b.endpoint.wait_for(bytes(12))
    request = stun.binding_request(bytes(12))
    other = stun.binding_request(b"other" + bytes(7))
    for asked in (other, request, request):
        data = stun.encode(stun.binding_success(asked, Address("7.7.7.7", 7)), None)
        b.endpoint.receive(data, A, B, world.now)
    b.endpoint.receive(stun.encode(stun.binding_error(request, 400), None), A, B, world.now)
    assert b.take() == [Seen(bytes(12), A, Address("7.7.7.7", 7), B)]
    assert b.endpoint.counters["unknown"] == 3


def test_a_half_open_check_that_claims_our_role_is_told_to_switch_and_not_let_in() -> None:
    world = World()
    b = Shell(world, B, seed=2)
    dialled = make_dial(0, b, LOW)
    request = stun.binding_request(
        bytes(12), username=f"{dialled.remote.ufrag}:x", priority=1, controlled=1
    )
    key = dialled.remote.password.encode()
    b.endpoint.receive(stun.encode(request, key), A, B, world.now)
    (send,) = b.take()
    assert isinstance(send, Send)
    answer = stun.parse(send.data)
    assert isinstance(answer, stun.Message)
    assert (answer.error_code, answer.integrity_ok(key)) == (487, True)
    assert state_of(b.endpoint)["half-open checks"] == 0


# --- any bytes ----------------------------------------------------------------------------------


def captured_traffic() -> list[tuple[bytes, bool]]:
    """Real datagrams of links that open and talk, and whether they went to B."""
    seen: list[tuple[bytes, bool]] = []

    def capture(data: bytes, source: Address, target: Address) -> bool:
        seen.append((data, target == B))
        return True

    world = World(filter=capture)
    a, b = Shell(world, A, seed=1), Shell(world, B, seed=2)
    a.dial(0, b, LOW)
    negotiate(a, b, 2, HIGH)
    world.run(1.0)
    a.write(LinkId(0), b"hello")
    world.run(5.0)
    return seen


TRAFFIC = captured_traffic()
MUTATED = st.builds(
    lambda chosen, at, new, cut: (chosen[0][:at] + new + chosen[0][at + len(new) :])[
        : len(chosen[0]) - cut
    ],
    st.sampled_from(TRAFFIC),
    st.integers(0, 600),
    st.binary(max_size=4),
    st.integers(0, 3) | st.integers(0, 600),
)
FIRST = st.sampled_from([0, 1, 3, 20, 21, 22, 23, 63, 64, 128]).map(lambda byte: bytes([byte]))
GARBAGE = st.builds(lambda first, rest: first + rest, FIRST, st.binary(max_size=80))
SOURCES = st.sampled_from([A, M, Address("2600::1", 5), Address("127.0.0.1", 9)])


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(MUTATED | GARBAGE | st.binary(max_size=40), SOURCES), max_size=30))
def test_no_datagram_from_anybody_is_too_much(datagrams: list[tuple[bytes, Address]]) -> None:
    """Nothing raises, the linked peer stays linked, nobody is sent more than thrice its bytes."""
    world, a, b, link = linked()
    received: dict[Address, int] = defaultdict(int)
    sent: dict[Address, int] = defaultdict(int)
    for data, source in datagrams:
        received[source] += len(data)
        b.endpoint.receive(data, source, B, world.now)
        for output in b.take():
            assert not isinstance(output, Secure)
            if isinstance(output, Send):
                sent[output.remote] += len(output.data)
    for source in (M, Address("2600::1", 5), Address("127.0.0.1", 9)):
        assert sent[source] <= 3 * received[source]
    assert_bounded(b.endpoint)
    assert talks(world, a, b, link)


def test_the_mutations_reach_the_rules_that_they_are_meant_for() -> None:
    """The captured traffic has every kind of datagram in it."""
    kinds = {data[0] for data, _ in TRAFFIC}
    assert kinds >= {0, 1, 22, 23}
    assert any(parse_client_hello(data) for data, _ in TRAFFIC)


def test_an_unverified_address_is_sent_at_most_three_times_its_bytes_by_an_agent() -> None:
    """A replayed first check makes a full agent answer, and ask, an address of anybody's choice."""
    world = World()
    a, b = Shell(world, A, seed=1), Shell(world, B, seed=2)
    first: list[bytes] = []

    def capture(data: bytes, source: Address, target: Address) -> bool:
        keep = data[0] == 0 and source == A
        first.extend([data] * keep)
        return not keep

    world.filter = capture
    negotiate(a, b, 0, LOW)
    world.filter = lambda *_: True
    world.send(first[0], M, B)
    world.run(9.0)
    assert 0 < world.sent[M] <= 3 * len(first[0])
    assert b.endpoint.counters["unverified"] > 0
