"""The door against strangers: theft, floods, reflection, and any bytes at all."""

from collections import defaultdict
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from overlay.core import stun
from overlay.core.door import Door, Secure, Send, Suspect
from overlay.core.dtls_cookie import hello_verify_request, make_cookie, parse_client_hello
from overlay.core.types import Address, LinkId
from tests.core.door_world import LATENCY, Dtls, Shell, World, make_dial, negotiate

A, B, M = Address("8.8.8.1", 1111), Address("9.9.9.2", 2222), Address("6.6.6.6", 6666)
LOW, HIGH = bytes(16), b"\xff" * 16


def linked(kind: str = "dialled") -> tuple[World, Shell, Shell, int]:
    """A linked to B, as link 0 at A; also what the link is called at B."""
    world = World()
    a, b = Shell(world, A, seed=1), Shell(world, B, seed=2)
    if kind == "dialled":
        a.dial(0, b, LOW)
    else:
        negotiate(a, b, 0, LOW)
    world.run(1.0)
    (link,) = b.up()
    return world, a, b, link


def talks(world: World, a: Shell, b: Shell, b_link: int) -> bool:
    text = f"at {world.now}".encode()
    a.write(LinkId(0), text)
    world.run(0.05)
    b.write(LinkId(b_link), text)
    world.run(0.05)
    return text in b.read[LinkId(b_link)] and text in a.read[LinkId(0)]


def forged_check(b: Shell, attempt: bytes, number: int) -> bytes:
    """A check by somebody who holds a valid token of B's."""
    dialled = make_dial(0, b, attempt)
    request = stun.binding_request(
        number.to_bytes(12, "big"),
        username=f"{dialled.remote.ufrag}:{dialled.local.ufrag}",
        priority=1,
        controlling=1,
        use_candidate=True,
    )
    return stun.encode(request, dialled.remote.password.encode())


def somewhere(random: Random) -> Address:
    return Address(
        f"{random.randrange(1, 120)}.{random.randrange(1, 250)}.7.8",
        1024 + random.randrange(60_000),
    )


def state_of(door: Door) -> dict[str, int]:
    """The size of everything that a door keeps."""
    strangers = door._strangers
    return {
        "links": len(door._links),
        "routes": len(door._routes),
        "half-open": len(door._half_open),
        "asked": len(door._asked),
        "answered": len(door._answered),
        "knocks": len(strangers.knocks),
        "knock pairs": len(strangers.knocks._by_pair),
        "worn": len(strangers.knocks._worn),
        "buckets": len(strangers.buckets),
        "allowance": len(strangers.allowance),
        "timers": len(door._timers),
    }


BOUNDS = {
    "half-open": 256,
    "asked": 4096,
    "answered": 4096,
    "knocks": 256,
    "knock pairs": 4 * 256,
    "worn": 1024,
    "buckets": 4096,
    "allowance": 4096,
}


def assert_bounded(door: Door) -> None:
    for name, size in state_of(door).items():
        assert size <= BOUNDS.get(name, 64), name


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
    assert b.door.route(LinkId(link)) == (A, B)
    assert len(b.secured()) == 1
    assert b.lost() == a.lost() == {}
    assert b.door.counters["replayed"] > 100
    assert_bounded(b.door)


def test_checks_spoofed_with_the_address_of_a_linked_peer_move_nothing() -> None:
    """By somebody with a token of its own: fresh, authentic, ten thousand of them."""
    world, a, b, link = linked()
    for number in range(10_000):
        world.send(forged_check(b, number.to_bytes(16, "big"), number), A, B)
        if number % 500 == 0:
            assert talks(world, a, b, link)
    world.run(10.0)
    assert talks(world, a, b, link)
    assert b.door.route(LinkId(link)) == (A, B)
    assert (len(b.secured()), b.lost(), a.lost()) == (1, {}, {})
    assert not b.said_kinds()
    assert_bounded(b.door)


def test_fresh_checks_for_the_very_session_from_anywhere_move_nothing() -> None:
    """By a member who has seen the user fragments on the wire, and so can make the password."""
    world, a, b, link = linked()
    random = Random(3)
    for number in range(2000):
        world.send(forged_check(b, LOW, number), somewhere(random), B)
        if number % 100 == 0:
            assert talks(world, a, b, link)
    assert b.door.route(LinkId(link)) == (A, B)
    assert state_of(b.door)["routes"] == 5, "its own addresses and the last four"
    assert (b.secured()[1:], b.lost(), a.lost()) == ([], {}, {})


def test_a_spoofer_of_the_linked_peers_address_drains_no_bucket_that_the_link_needs() -> None:
    world, a, b, link = linked()
    b.door.admitted(LinkId(link), world.now)
    for number in range(6000):
        world.send(b"\0\1\0\0\x21\x12\xa4\x42" + number.to_bytes(12, "big"), A, B)
        world.run(0.004)
    assert b.door.counters["rate_limited"] > 4000
    assert not b.said(Suspect)
    assert not a.said(Suspect)
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
    a.door.receive(answers[0], M, A, world.now)
    assert state_of(a.door)["routes"] == 0
    assert a.door.counters["unknown"] == 1
    a.door.receive(answers[0], B, A, world.now)
    assert [type(each).__name__ for each in a.door.take()] == ["Secure"]


def test_a_repeated_client_hello_stays_with_its_handshake_when_another_knocks_meanwhile() -> None:
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
    assert a.door.counters["plain_alert"] > 0
    assert b.door.counters["plain_alert"] > 0


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
    assert state_of(b.door)["knocks"] == 256
    assert state_of(b.door)["links"] == state_of(b.door)["half-open"] == 0
    assert b.outputs == []
    assert_bounded(b.door)


def test_ten_thousand_strangers_without_tokens_leave_only_what_they_may_be_sent() -> None:
    world = World()
    b = Shell(world, B, seed=2)
    random = Random(7)
    request = stun.binding_request(bytes(12), username="some:body", priority=1, controlling=1)
    data = stun.encode(request, b"a password of 22 letters")
    for _ in range(10_000):
        world.send(data, somewhere(random), B)
    world.run(0.1)
    state = state_of(b.door)
    assert (state.pop("buckets"), state.pop("allowance")) == (4096, 4096)
    assert set(state.values()) == {0}
    assert b.door.counters["refused_token"] == 10_000


def test_an_honest_dialler_gets_in_during_a_flood_of_knocks() -> None:
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
    assert b.door.counters["stun_served"] <= 110
    assert b.door.counters["rate_limited"] >= 890
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


def client_hello(cookie: bytes | None = None) -> bytes:
    """A ClientHello of OpenSSL's, with this cookie."""
    client = Dtls("client")
    client.shake()
    (data,) = client.outgoing()
    if cookie is not None:
        hello = parse_client_hello(data)
        assert hello is not None
        client.feed(hello_verify_request(hello, cookie))
        (data,) = client.outgoing()
    return data


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
    addresses = [Address(host, 4000 + number) for number, host in enumerate(hosts)]
    assert half_opened(world, b, addresses) == expected
    assert b.door.counters["crowded"] == len(hosts) - expected
    world.run(11.0)
    assert set(b.lost().values()) == {"timeout"}
    assert len(b.door._half_open) == 0
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
    assert_bounded(b.door)


def test_established_links_leave_room_for_more_of_their_prefix() -> None:
    world = World()
    b = Shell(world, B, seed=2)
    for number in range(1, 31):
        a = Shell(world, Address(f"8.8.8.{number}", 1111), seed=10 + number)
        a.dial(0, b, number.to_bytes(16, "big"))
        world.run(0.1)
        assert a.up() == [0]
    assert len(b.up()) == 30


# --- cookies ------------------------------------------------------------------------------------


def hello_answers(world: World, b: Shell, data: bytes, source: Address) -> list[bytes]:
    b.door.receive(data, source, B, world.now)
    return [each.data for each in b.door.take() if isinstance(each, Send)]


def test_a_client_hello_from_nowhere_gets_nothing() -> None:
    world = World()
    b = Shell(world, B, seed=2)
    assert hello_answers(world, b, client_hello(), A) == []
    assert b.door.counters["unknown"] == 1


def test_a_client_hello_after_a_check_gets_a_cookie_and_no_handshake() -> None:
    world = World()
    b = Shell(world, B, seed=2)
    b.door.receive(forged_check(b, LOW, 1), A, B, world.now)
    b.door.take()
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
    b.door.receive(forged_check(b, LOW, 1), A, B, world.now)
    b.door.take()
    (answer,) = hello_answers(world, b, client_hello(cookie=cookie), A)
    assert answer[13] == 3
    assert b.door.counters["refused_cookie"] == 1
    assert state_of(b.door)["links"] == 0
    right = make_cookie(b.cookie_key, A, 1000.0)
    b.door.receive(client_hello(cookie=right), A, B, world.now)
    assert [type(each).__name__ for each in b.door.take()] == ["Secure", "Record"]


def test_a_flood_of_client_hellos_is_not_answered_for_long() -> None:
    world = World()
    b = Shell(world, B, seed=2)
    b.door.receive(forged_check(b, LOW, 1), A, B, world.now)
    b.door.take()
    data = client_hello()
    answers = [hello_answers(world, b, data, A) for _ in range(300)]
    assert 50 < sum(map(len, answers)) <= 100
    assert state_of(b.door)["links"] == 0


def test_a_knock_does_not_take_the_client_hello_of_a_lower_negotiated_attempt() -> None:
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
        b.door.receive(stray, A, B, world.now)
    (association,) = b.door._links.values()
    assert len(association.early) == 4


def test_plain_stun_is_served_and_unknown_attributes_are_named() -> None:
    world = World()
    b = Shell(world, B, seed=2)
    bare = stun.encode(stun.binding_request(bytes(12)), None, fingerprint=False)
    b.door.receive(bare, A, B, world.now)
    odd = bare[:2] + b"\0\4" + bare[4:] + b"\x77\x77\0\0"
    b.door.receive(odd, A, B, world.now)
    b.door.receive(b"\0\x11" + bare[2:], A, B, world.now)  # an indication wants no answer
    answers = [stun.parse(each.data) for each in b.door.take() if isinstance(each, Send)]
    assert [getattr(each, "mapped_address", None) for each in answers] == [A, None]
    assert [getattr(each, "unknown_attributes", None) for each in answers] == [(), (0x7777,)]
    assert b.door.counters["stun_served"] == 1


def test_a_knock_that_claims_our_role_is_told_to_switch_and_not_let_in() -> None:
    world = World()
    b = Shell(world, B, seed=2)
    dialled = make_dial(0, b, LOW)
    request = stun.binding_request(
        bytes(12), username=f"{dialled.remote.ufrag}:x", priority=1, controlled=1
    )
    key = dialled.remote.password.encode()
    b.door.receive(stun.encode(request, key), A, B, world.now)
    (send,) = b.door.take()
    assert isinstance(send, Send)
    answer = stun.parse(send.data)
    assert isinstance(answer, stun.Message)
    assert (answer.error_code, answer.integrity_ok(key)) == (487, True)
    assert state_of(b.door)["knocks"] == 0


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
        b.door.receive(data, source, B, world.now)
        for output in b.door.take():
            assert not isinstance(output, Secure)
            if isinstance(output, Send):
                sent[output.remote] += len(output.data)
    for source in (M, Address("2600::1", 5), Address("127.0.0.1", 9)):
        assert sent[source] <= 3 * received[source]
    assert_bounded(b.door)
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
    assert b.door.counters["unverified"] > 0
