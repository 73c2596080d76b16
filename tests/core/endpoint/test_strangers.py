"""The endpoint against strangers: theft, floods, and meddling with others' handshakes."""

from random import Random

import pytest

from overlay.core.endpoint.dtls_cookie import make_cookie
from overlay.core.events import LinkSuspect
from overlay.core.ice import stun
from overlay.core.limits import HALF_OPEN_MAX
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
    somewhere,
    state_of,
    talks,
)
from tests.core.endpoint.world import LATENCY, Shell, World, negotiate

# --- theft --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["dialled", "negotiated"])
def test_a_replayed_check_from_anywhere_moves_nothing(kind: str) -> None:
    """The naive listener is stolen by five of these a second."""
    world, a, b, link = linked(kind)
    captured: list[bytes] = []

    def capture(data: bytes, source: Address, target: Address) -> bool:
        captured.extend([data] * (data[0] == 0 and source == A))
        return True

    world.filter = capture
    random = Random(5)
    for _ in range(20):
        world.run(2.5)  # idle enough for a check
        for data in captured[-2:]:
            for _ in range(20):
                world.send(data, somewhere(random), B)
        assert talks(world, a, b, link)
    assert captured
    assert b.routes[LinkId(link)] == (A, B)
    assert len(b.secured()) == 1
    assert b.lost() == a.lost() == {}
    assert b.endpoint.counters["replayed"] > 100
    assert_bounded(b.endpoint)


@pytest.mark.parametrize("kind", ["dialled", "negotiated"])
@pytest.mark.parametrize("copies", [False, True], ids=["no records", "copied records"])
@pytest.mark.parametrize("checks", ["no checks", "overtaking checks", "spoofed checks"])
def test_spoofed_and_copied_checks_and_records_draw_one_heartbeat_a_check_and_nothing_else(
    kind: str, checks: str, copies: bool
) -> None:
    """Somebody between two peers copies what it sees, faster than it travels, or makes it up."""
    world, a, b, link = linked(kind)
    astray: list[bytes] = []
    asked = 0

    def meddle(data: bytes, source: Address, target: Address) -> bool:
        nonlocal asked
        if target == M:
            astray.append(data)
        copied = (copies and data[0] == 23) or (
            checks == "overtaking checks" and data[:2] == b"\0\1"
        )
        if copied and source == A:
            asked += data[0] == 0
            world.send(data, M, B)  # and it is there first
        return True

    world.filter = meddle
    a.outputs.clear()
    b.outputs.clear()
    for number in range(200):
        if checks == "spoofed checks" and kind == "dialled":
            asked += 1
            world.send(forged_check(b, LOW, number), M, B)
        if number % 4 == 0:
            a.write(LinkId(0), b"news")
        if number % 60 == 59:
            world.run(5.0)  # idle enough for questions of both
        world.run(0.2)
    heartbeats = [data for data in astray if data[0] == 23]
    answers = [data for data in astray if data[:2] == b"\1\1"]
    assert len(heartbeats) == len(answers) == asked
    assert len(astray) == 2 * asked
    assert asked or checks == "no checks" or kind == "negotiated"
    assert b.routes[LinkId(link)] == (A, B)
    assert a.outputs == b.outputs == []
    world.filter = lambda *_: True
    assert talks(world, a, b, link)


def test_the_answer_of_the_peer_counts_from_where_it_was_asked() -> None:
    """A nonce for a wrong place that somebody passes on to the peer comes back from the peer."""
    world, a, b, link = linked()

    def pass_on(data: bytes, source: Address, target: Address) -> bool:
        if target == M and data[0] == 23:
            world.send(data, B, A)
        return True

    world.filter = pass_on
    for number in range(50):
        world.send(forged_check(b, LOW, number), M, B)
        world.run(0.2)
    assert b.routes[LinkId(link)] == (A, B)
    assert talks(world, a, b, link)


def test_checks_spoofed_with_the_address_of_a_linked_peer_move_nothing() -> None:
    """By somebody with a token of its own: fresh, authentic, ten thousand of them."""
    world, a, b, link = linked()
    for number in range(10_000):
        world.send(forged_check(b, number.to_bytes(16, "big"), number), A, B)
        if number % 500 == 0:
            assert talks(world, a, b, link)
    world.run(10.0)
    assert talks(world, a, b, link)
    assert b.routes[LinkId(link)] == (A, B)
    assert (len(b.secured()), b.lost(), a.lost()) == (1, {}, {})
    assert not b.said_kinds()
    assert_bounded(b.endpoint)


def test_fresh_checks_for_the_very_session_from_anywhere_move_nothing() -> None:
    """By a member who has seen the user fragments on the wire, and so can make the password."""
    world, a, b, link = linked()
    random = Random(3)
    for number in range(2000):
        world.send(forged_check(b, LOW, number), somewhere(random), B)
        if number % 100 == 0:
            assert talks(world, a, b, link)
    assert b.routes[LinkId(link)] == (A, B)
    assert state_of(b.endpoint)["routes"] == 5, "its own addresses and the last four"
    assert (b.secured()[1:], b.lost(), a.lost()) == ([], {}, {})


def test_a_spoofer_of_the_linked_peers_address_drains_no_bucket_that_the_link_needs() -> None:
    world, a, b, link = linked()
    for number in range(6000):
        world.send(b"\0\1\0\0\x21\x12\xa4\x42" + number.to_bytes(12, "big"), A, B)
        world.run(0.004)
    assert b.endpoint.counters["rate_limited"] > 4000
    assert not b.said(LinkSuspect)
    assert not a.said(LinkSuspect)
    assert talks(world, a, b, link)


def test_an_answer_from_another_address_than_was_asked_is_none() -> None:
    world = World()
    a, b = Shell(world, A, seed=1), Shell(world, B, seed=2)
    answers: list[bytes] = []

    def capture(data: bytes, source: Address, target: Address) -> bool:
        answers.extend([data] * (target == A))
        return target != A

    world.filter = capture
    a.dial(0, b, LOW)
    world.run(0.1)
    a.endpoint.receive(answers[0], M, A, world.now)
    assert state_of(a.endpoint)["routes"] == 0
    assert a.endpoint.counters["unknown"] == 1
    a.endpoint.receive(answers[0], B, A, world.now)
    assert [type(each).__name__ for each in a.take()] == ["Secure"]


def test_a_repeated_client_hello_stays_with_its_handshake_when_another_dials_meanwhile() -> None:
    world = World()
    a, b = Shell(world, A, seed=1), Shell(world, B, seed=2)
    hellos: list[bytes] = []

    def capture(data: bytes, source: Address, target: Address) -> bool:
        flight = source == A and data[0] == 22
        hellos.extend([data] * (flight and data[13] == 1))
        return not flight or data[13] == 1

    world.filter = capture
    a.dial(0, b, HIGH)
    world.run(0.1)
    assert len(b.secured()) == 1
    world.send(forged_check(b, LOW, 1), A, B)
    world.send(hellos[-1], A, B)
    world.run(0.1)
    assert b.lost() == {}
    assert len(b.secured()) == 1
    world.send(client_hello(cookie=make_cookie(b.cookie_key, A, world.now)), A, B)
    world.run(0.1)
    assert b.lost() == {1: "glare"}, "a fresh one is another client's"


def test_a_handshake_is_not_ended_by_alerts_that_anybody_can_write() -> None:
    world = World()
    a, b = Shell(world, A, seed=1), Shell(world, B, seed=2)
    fatal = b"\x15\xfe\xfd\x00\x00\x00\x00\x00\x00\x00\x09\x00\x02\x02\x28"

    def inject(data: bytes, source: Address, target: Address) -> bool:
        if data[0] != 0x15:
            world.send(fatal, source, target)
        return True

    world.filter = inject
    a.dial(0, b, LOW)
    world.run(1.0)
    assert talks(world, a, b, 1)
    assert a.endpoint.counters["plain_alert"] > 0
    assert b.endpoint.counters["plain_alert"] > 0


def test_stale_records_of_another_handshake_do_not_reach_a_client_before_its_server_spoke() -> None:
    world = World()
    a, b = Shell(world, A, seed=1), Shell(world, B, seed=2)
    stale = b"\x16\xfe\xfd\x00\x00\x00\x00\x00\x00\x00\x09\x00\x0c\x0b" + bytes(11)
    a.dial(0, b, LOW)
    world.run(2 * LATENCY)
    assert a.secured()
    world.send(stale, B, A)
    world.run(1.0)
    assert talks(world, a, b, 1)


# --- floods -------------------------------------------------------------------------------------


def test_ten_thousand_strangers_with_tokens_leave_a_bounded_trace() -> None:
    world = World()
    b = Shell(world, B, seed=2)
    random = Random(7)
    for number in range(10_000):
        world.send(forged_check(b, number.to_bytes(16, "big"), number), somewhere(random), B)
        if number % 1000 == 0:
            world.run(0.1)
    world.run(0.1)
    assert state_of(b.endpoint)["half-open checks"] == 256
    assert state_of(b.endpoint)["links"] == state_of(b.endpoint)["half-open"] == 0
    assert b.outputs == []
    assert_bounded(b.endpoint)


def test_ten_thousand_strangers_without_tokens_leave_only_what_they_may_be_sent() -> None:
    world = World()
    b = Shell(world, B, seed=2)
    random = Random(7)
    request = stun.binding_request(bytes(12), username="some:body", priority=1, controlling=1)
    data = stun.encode(request, b"a password of 22 letters")
    for _ in range(10_000):
        world.send(data, somewhere(random), B)
    world.run(0.1)
    state = state_of(b.endpoint)
    assert (state.pop("buckets"), state.pop("allowance")) == (4096, 4096)
    assert set(state.values()) == {0}
    assert b.endpoint.counters["refused_token"] == 10_000


def test_an_honest_dialler_gets_in_during_a_flood_of_checks() -> None:
    world = World()
    a, b = Shell(world, A, seed=1), Shell(world, B, seed=2)
    random = Random(9)
    for number in range(2000):
        world.send(forged_check(b, number.to_bytes(16, "big"), number), somewhere(random), B)
        if number % 10 == 0:
            world.run(0.001)
        if number == 1000:
            a.dial(0, b, HIGH)
    world.run(1.0)
    assert talks(world, a, b, 1)


def test_a_source_that_sends_too_much_is_not_listened_to_and_others_are() -> None:
    world = World()
    a, b = Shell(world, A, seed=1), Shell(world, B, seed=2)
    for number in range(1000):
        world.send(b"\0\1\0\0\x21\x12\xa4\x42" + number.to_bytes(12, "big"), M, B)
    world.run(0.1)
    assert b.endpoint.counters["stun_served"] <= 110
    assert b.endpoint.counters["rate_limited"] >= 890
    a.dial(0, b, LOW)
    world.run(1.0)
    assert talks(world, a, b, 1)


def half_opened(world: World, b: Shell, addresses: list[Address]) -> int:
    """How many of these diallers, who answer the cookie and then fall silent, cost a handshake."""
    for number, address in enumerate(addresses):
        attempt = f"{world.now:16.6f}".encode()[:16]
        world.send(forged_check(b, attempt, number), address, B)
        world.run(2 * LATENCY)
        hello = client_hello(cookie=make_cookie(b.cookie_key, address, world.now))
        world.send(hello, address, B)
        world.run(2 * LATENCY)
    return len(b.secured())


@pytest.mark.parametrize(
    ("hosts", "expected"),
    [
        ([f"8.8.8.{n}" for n in range(1, 31)], 16),
        ([f"8.8.{n}.8" for n in range(1, 31)], 30),
        ([f"2600:1:2:{n}::1" for n in range(1, 31)], 16),
        ([f"2600:1:{n}::1" for n in range(1, 31)], 30),
        (["127.0.0.1"] * 30, 30),
        (["192.168.1.7"] * 30, 16),
        ([f"192.168.1.{n}" for n in range(1, 31)], 30),
    ],
    ids=["one /24", "many /24", "one /48", "many /48", "loopback", "a LAN host", "a LAN"],
)
def test_handshakes_at_once_are_limited_by_prefix(hosts: list[str], expected: int) -> None:
    world = World()
    b = Shell(world, B, seed=2)
    half = [Address(f"10.0.0.{number}", 4000) for number in range(HALF_OPEN_MAX // 2)]
    assert half_opened(world, b, half) == len(half)
    addresses = [Address(host, 4000 + number) for number, host in enumerate(hosts)]
    assert half_opened(world, b, addresses) == len(half) + expected
    assert b.endpoint.counters["crowded"] == len(hosts) - expected
    world.run(11.0)
    assert set(b.lost().values()) == {"timeout"}
    assert len(b.endpoint._half_open) == 0


def test_forty_newcomers_behind_one_address_are_let_in_at_once() -> None:
    world = World()
    b = Shell(world, B, seed=2)
    addresses = [Address("8.8.8.8", 4000 + number) for number in range(40)]
    assert half_opened(world, b, addresses) == 40
    b.outputs.clear()
    assert half_opened(world, b, addresses[:1]) == 1, "there is room again"


def test_handshakes_at_once_are_limited_in_all() -> None:
    world = World()
    b = Shell(world, B, seed=2)
    addresses = [Address(f"8.{n // 250}.{n % 250}.8", 4000) for n in range(300)]
    assert half_opened(world, b, addresses) == 256
    a = Shell(world, A, seed=1)
    a.dial(0, b, LOW)
    world.run(0.1)
    assert a.up() == []
    world.run(12.0)
    assert_bounded(b.endpoint)


def test_established_links_leave_room_for_more_of_their_prefix() -> None:
    world = World()
    b = Shell(world, B, seed=2)
    for number in range(1, 31):
        a = Shell(world, Address(f"8.8.8.{number}", 1111), seed=10 + number)
        a.dial(0, b, number.to_bytes(16, "big"))
        world.run(0.1)
        assert a.up() == [0]
    assert len(b.up()) == 30


# --- handshakes of others ------------------------------------------------------------------------


def test_a_half_open_check_does_not_take_the_client_hello_of_a_lower_negotiated_attempt() -> None:
    """Somebody with a token spoofs the address of a peer whose offer we have just answered."""
    world = World()
    a, b = Shell(world, A, seed=1), Shell(world, B, seed=2)
    world.send(forged_check(b, HIGH, 1), A, B)
    negotiate(a, b, 0, LOW)
    world.run(1.0)
    assert talks(world, a, b, 0)
    assert len(b.secured()) == 1


def test_records_that_come_early_are_kept_up_to_a_bound() -> None:
    world = World()
    a, b = Shell(world, A, seed=1), Shell(world, B, seed=2)
    world.filter = lambda data, source, target: data[:2] != b"\x01\x01" or source == B
    negotiate(a, b, 0, LOW)
    world.run(0.05)
    stray = b"\x16\xfe\xfd\x00\x00\x00\x00\x00\x00\x00\x09\x00\x0c\x0b" + bytes(11)
    for _ in range(100):
        b.endpoint.receive(stray, A, B, world.now)
    (association,) = b.endpoint._links.values()
    assert len(association.early) == 4
