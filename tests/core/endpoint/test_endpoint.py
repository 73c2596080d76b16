"""One idea: the endpoint between honest peers: every way in ends in a link, and in one only."""

import pytest

from overlay.core.endpoint.outputs import Move, Record, Secure
from overlay.core.events import Dial, DialFailed, Mapped, Prepare
from overlay.core.types import Address, IceCredentials, LinkId, PathKind
from overlay.core.wire import dial_tokens as dial
from tests.core.endpoint.world import (
    LATENCY,
    WALL,
    Shell,
    World,
    candidates_of,
    make_claim,
    make_dial,
    negotiate,
)

A, B = Address("8.8.8.1", 1111), Address("9.9.9.2", 2222)
LOW, HIGH = bytes(16), b"\xff" * 16


@pytest.fixture
def world() -> World:
    return World()


def pair_of(world: World) -> tuple[Shell, Shell]:
    return Shell(world, A, seed=1), Shell(world, B, seed=2)


def linked(world: World) -> tuple[Shell, Shell]:
    """A has dialled B: link 0 there, link 1 here."""
    a, b = pair_of(world)
    a.dial(0, b, LOW)
    world.run(1.0)
    assert (a.up(), b.up()) == ([0], [1])
    return a, b


def talks(world: World, a: Shell, a_link: int, b: Shell, b_link: int) -> bool:
    """Whether application data passes both ways within 100 ms."""
    text = f"at {world.now}".encode()
    a.write(LinkId(a_link), text)
    world.run(0.05)
    b.write(LinkId(b_link), text)
    world.run(0.05)
    return text in b.read[LinkId(b_link)] and text in a.read[LinkId(a_link)]


# --- direct dials -------------------------------------------------------------------------------


def test_a_dial_with_a_valid_token_becomes_a_link(world: World) -> None:
    a, b = linked(world)
    assert talks(world, a, 0, b, 1)


@pytest.mark.parametrize("latency", [0.6, 0.95])
def test_a_handshake_has_its_time_where_each_of_its_round_trips_takes_a_second(
    world: World, latency: float
) -> None:
    """It is longer under way than a dial has on an ordinary path; the check was sent repeatedly."""
    world.latency = latency
    a, b = pair_of(world)
    a.dial(0, b, LOW)
    world.run(30.0)
    assert (a.up(), b.up()) == ([0], [1])
    assert a.lost() == {}


def test_who_answers_slowly_on_purpose_holds_an_attempt_for_half_a_minute_at_most(
    world: World,
) -> None:
    """It answers checks late, and nothing else."""
    world.latency = 2.0
    world.filter = lambda data, *_: data[0] < 4
    a, b = pair_of(world)
    a.dial(0, b, LOW)
    world.run(30.0)
    assert a.lost() == {LinkId(0): "timeout"}


def test_both_ends_learn_what_kind_of_link_it_is(world: World) -> None:
    a, b = linked(world)
    assert a.secured() == [
        Secure(
            link=LinkId(0),
            inbound=False,
            dtls_role="client",
            remote=B,
            local=A,
            path=PathKind.HOST,
            attempt=LOW,
            fingerprint=bytes(32),
            claim=None,
            cookie_exchanged=False,
            deadline=5.0,
        )
    ]
    (secure,) = b.secured()
    assert secure == Secure(
        link=LinkId(1),
        inbound=True,
        dtls_role="server",
        remote=A,
        local=B,
        path=PathKind.HOST,
        attempt=LOW,
        fingerprint=None,
        claim=make_claim(LOW),
        cookie_exchanged=True,
        deadline=secure.deadline,
    )
    assert secure.deadline == pytest.approx(5 * LATENCY + 10.0)


def test_links_that_come_in_have_odd_ids(world: World) -> None:
    b = Shell(world, B, seed=2)
    for number in range(3):
        Shell(world, Address("8.8.8.1", 1000 + number), seed=10 + number).dial(
            0, b, bytes([number]) * 16
        )
    world.run(1.0)
    assert b.up() == [1, 3, 5]


@pytest.mark.parametrize("seconds", [-3600, 0])
def test_an_expired_token_opens_nothing(world: World, seconds: int) -> None:
    a, b = pair_of(world)
    a.dial(0, b, LOW, expires_at=WALL + seconds)
    world.run(6.0)
    assert a.lost() == {0: "timeout"}
    assert b.outputs == []
    assert b.endpoint.counters["refused_token"] > 0


def test_a_token_of_another_node_opens_nothing(world: World) -> None:
    a, b = pair_of(world)
    other = Shell(world, Address("7.7.7.3", 3333), seed=3)
    a.dial(0, other, LOW, address=B)
    world.run(6.0)
    assert a.lost() == {0: "timeout"}
    assert b.outputs == []
    assert b.endpoint.counters["refused_token"] > 0


def test_no_token_opens_an_endpoint_that_does_not_know_the_time(world: World) -> None:
    a, b = pair_of(world)
    b.endpoint._strangers.wall_offset = None
    a.dial(0, b, LOW)
    world.run(1.0)
    assert b.outputs == []
    b.endpoint.set_wall(WALL)
    world.run(3.0)
    assert b.up() == [1], "the dialler keeps asking"


def test_a_dial_that_nobody_answers_is_lost_in_time(world: World) -> None:
    a = Shell(world, A, seed=1)
    claim = make_claim(LOW)
    a.endpoint.perform(
        Dial(
            LinkId(0),
            (B,),
            bytes(32),
            dial.listener_credentials(bytes(16), claim),
            IceCredentials("ours", "password of the dialler"),
            LOW,
            2.0,
        ),
        world.now,
    )
    a.flush()
    world.run(1.9)
    assert a.lost() == {}
    world.run(0.2)
    assert a.lost() == {0: "timeout"}


def test_a_handshake_that_stops_halfway_is_lost_at_both_ends(world: World) -> None:
    a, b = pair_of(world)
    world.filter = lambda data, source, target: not (source == A and len(data) > 400)
    a.dial(0, b, LOW)
    world.run(11.0)
    assert (a.up(), b.up()) == ([], [])
    assert (a.lost(), b.lost()) == ({0: "timeout"}, {1: "timeout"})
    assert len(b.endpoint._half_open) == 0


def test_of_two_dials_to_one_address_at_once_the_first_stands(world: World) -> None:
    a, b = pair_of(world)
    a.dial(0, b, HIGH)
    a.dial(2, b, LOW)
    world.run(1.0)
    assert a.lost() == {2: "glare"}
    assert (a.up(), b.up()) == ([0], [1])
    a.dial(4, b, LOW)
    world.run(1.0)
    assert a.up() == [0, 4], "once it stands, another may be opened beside it"
    assert talks(world, a, 4, b, 3)
    assert talks(world, a, 0, b, 1)


def test_a_dialler_reached_at_two_of_our_addresses_is_two_links(world: World) -> None:
    """The same remote address, but another pair: their records must not mix."""
    a = Shell(world, A, seed=1)
    b = Shell(world, B, Address("9.9.9.3", 2222), seed=2)
    a.dial(0, b, LOW)
    a.dial(2, b, HIGH, address=b.addresses[1])
    world.run(1.0)
    assert (a.up(), b.up()) == ([0, 2], [1, 3])
    by_attempt = {each.attempt: each for each in b.secured()}
    assert talks(world, a, 0, b, by_attempt[LOW].link)
    assert talks(world, a, 2, b, by_attempt[HIGH].link)
    assert by_attempt[HIGH].local == b.addresses[1]


# --- negotiated links ---------------------------------------------------------------------------


@pytest.mark.parametrize("prepare", [True, False])
def test_a_negotiated_link_comes_up_at_both_ends(world: World, prepare: bool) -> None:
    a, b = pair_of(world)
    negotiate(a, b, 4, LOW, prepare=prepare)
    world.run(1.0)
    (ours,), (theirs,) = a.secured(), b.secured()
    assert (ours.inbound, ours.dtls_role, ours.cookie_exchanged) == (False, "client", False)
    assert (theirs.inbound, theirs.dtls_role, theirs.cookie_exchanged) == (True, "server", False)
    assert ours.attempt == theirs.attempt == LOW
    assert talks(world, a, 4, b, 4)


def test_a_client_hello_that_overtakes_the_last_check_is_kept(world: World) -> None:
    """Without that the client would repeat it only after a second."""
    a, b = pair_of(world)
    delayed: list[bytes] = []

    def hold_answers(data: bytes, source: Address, target: Address) -> bool:
        answer = data[:2] == b"\x01\x01" and source == A
        delayed.extend([data] * answer)
        return not answer

    world.filter = hold_answers
    negotiate(a, b, 4, LOW)
    world.run(0.1)
    assert a.secured()
    assert not b.secured(), "its check is not answered yet"
    world.filter = lambda *_: True
    for data in delayed:
        world.send(data, A, B)
    world.run(0.1)
    assert (a.up(), b.up()) == ([4], [4])


def test_a_prepared_link_answers_checks_and_can_be_closed(world: World) -> None:
    a = Shell(world, A, seed=1)
    ours = IceCredentials("ours", "password of the offerer")
    a.endpoint.perform(Prepare(LinkId(0), ours, LOW, candidates_of(a)), world.now)
    assert a.endpoint.description(LinkId(0)) == (ours, None, candidates_of(a), ())
    assert LinkId(0) not in a.routes
    a.endpoint.close(LinkId(0))
    assert a.endpoint.description(LinkId(0)) is None
    assert a.take() == []
    assert a.endpoint.next_deadline() is None


# --- glare --------------------------------------------------------------------------------------


@pytest.mark.parametrize("later", [0.0, 0.004, 0.006, 0.011, 0.016, 0.021, 0.026])
@pytest.mark.parametrize(("first", "second"), [(LOW, HIGH), (HIGH, LOW)])
def test_of_two_nodes_that_dial_each_other_one_link_survives(
    world: World, first: bytes, second: bytes, later: float
) -> None:
    """However far the first has come: the lower attempt wins unless the other already stands."""
    a, b = pair_of(world)
    a.dial(0, b, first)
    world.run(later)
    b.dial(2, a, second)
    world.run(8.0)
    a_up = {each.attempt: each.link for each in a.secured() if each.link in a.up()}
    b_up = {each.attempt: each.link for each in b.secured() if each.link in b.up()}
    both = a_up.keys() & b_up.keys()
    assert both
    for attempt in both:
        assert talks(world, a, a_up[attempt], b, b_up[attempt])
    if len(both) == 1:
        assert both == {LOW} or first in both, "the higher wins only by standing already"
    assert {*a.lost().values(), *b.lost().values()} <= {"glare", "timeout"}


def test_at_the_same_instant_the_lower_attempt_wins(world: World) -> None:
    a, b = pair_of(world)
    a.dial(0, b, HIGH)
    b.dial(2, a, LOW)
    world.run(1.0)
    assert a.lost() == {0: "glare"}
    assert (a.up(), b.up()) == ([1], [2])
    assert talks(world, a, 1, b, 2)


@pytest.mark.parametrize(("dialled", "negotiated"), [(LOW, HIGH), (HIGH, LOW)])
def test_a_dial_and_a_negotiation_at_once_leave_one_link(
    world: World, dialled: bytes, negotiated: bytes
) -> None:
    a, b = pair_of(world)
    b.dial(2, a, dialled)
    negotiate(a, b, 4, negotiated)
    world.run(8.0)
    a_up = {each.attempt: each.link for each in a.secured() if each.link in a.up()}
    b_up = {each.attempt: each.link for each in b.secured() if each.link in b.up()}
    both = a_up.keys() & b_up.keys()
    assert both, "one may stand at one end only when the other ends it: the hello clears that up"
    for attempt in both:
        assert talks(world, a, a_up[attempt], b, b_up[attempt])


# --- restarts -----------------------------------------------------------------------------------


def test_a_restarted_dialler_comes_in_beside_its_old_self(world: World) -> None:
    a, b = linked(world)
    reborn = Shell(world, A, seed=11)
    reborn.dial(0, b, HIGH)
    world.run(1.0)
    assert (reborn.up(), b.up()) == ([0], [1, 3])
    assert talks(world, reborn, 0, b, 3)
    assert b.lost() == {}, "only a hello may displace the old one"
    b.endpoint.receive(b"\x17\xfe\xfd\x00\x01" + bytes(20), A, B, world.now)
    (record,) = b.take()
    assert isinstance(record, Record)
    assert record.links == (3, 1), "who was heard last is asked first"
    world.run(70.0)
    assert b.lost() == {1: "broken"}
    assert talks(world, reborn, 0, b, 3)
    assert a.dtls


def test_a_restarted_dialler_may_come_back_time_and_again(world: World) -> None:
    _, b = linked(world)
    for life in range(1, 6):
        reborn = Shell(world, A, seed=11 + life)
        reborn.dial(0, b, bytes([life]) * 16)
        world.run(1.0)
        assert talks(world, reborn, 0, b, 1 + 2 * life)


def test_a_restart_in_the_middle_of_a_handshake_does_not_wait_for_its_end(world: World) -> None:
    a, b = pair_of(world)
    world.filter = lambda data, source, target: not (source == A and len(data) > 400)
    a.dial(0, b, LOW)
    world.run(0.1)
    assert [each.link for each in b.secured()] == [1]
    world.filter = lambda *_: True
    reborn = Shell(world, A, seed=11)
    reborn.dial(0, b, HIGH)
    world.run(1.0)
    assert b.lost() == {1: "glare"}
    assert talks(world, reborn, 0, b, 3)


def test_a_restarted_listener_is_dialled_beside_its_old_self(world: World) -> None:
    a, b = linked(world)
    reborn = Shell(world, B, seed=2)
    a.dial(2, reborn, HIGH)
    world.run(1.0)
    assert talks(world, a, 2, reborn, 1)
    assert b.dtls


def test_a_listener_does_not_keep_links_alive_that_died_with_its_last_process(
    world: World,
) -> None:
    """Its token is still good, but its association is gone: the dialler must find out."""
    a, _ = linked(world)
    Shell(world, B, seed=2)  # the same keys, the same port, no memory
    world.run(12.0)
    assert a.said_kinds() == ["LinkSilent"]
    world.run(60.0)
    assert a.lost() == {0: "broken"}


def test_a_dialler_whose_link_was_closed_is_not_answered_any_more(world: World) -> None:
    a, b = linked(world)
    b.endpoint.close(LinkId(1))
    world.run(9.0)
    assert a.said_kinds() == ["LinkSilent"]
    assert b.endpoint.counters["refused_token"] > 0


# --- paths --------------------------------------------------------------------------------------


def test_a_path_follows_a_silent_dialler_whose_nat_maps_it_anew(world: World) -> None:
    """It sends nothing but its checks; its answer to our HEARTBEAT is what moves the path."""
    a, b = linked(world)
    moved = Address("8.8.4.4", 9999)
    world.nat[A] = moved
    world.run(3.0)
    assert b.routes[LinkId(1)] == (moved, B)
    assert b.outputs[-1] == Move(LinkId(1), moved, B, PathKind.HOST)
    assert talks(world, a, 0, b, 1)


def test_neither_checks_nor_records_from_a_new_address_move_a_path(world: World) -> None:
    """The counter-test: with a dialler that does not return our nonce."""
    a, b = linked(world)
    a.mute = True
    moved = Address("8.8.4.4", 9999)
    world.nat[A] = moved
    a.write(LinkId(0), b"too early")
    world.run(0.1)
    assert b"too early" not in b.read[LinkId(1)], "no check has come from there"
    for _ in range(8):
        world.run(1.0)
        a.write(LinkId(0), b"here I am")
    assert b"here I am" in b.read[LinkId(1)]
    assert b.routes[LinkId(1)] == (A, B)
    assert b.said_kinds() == ["LinkSilent"], "what it says does not show that it hears us"
    a.mute = False
    world.run(2.5)
    assert b.routes[LinkId(1)] == (moved, B)
    assert talks(world, a, 0, b, 1)


@pytest.mark.parametrize("mover", ["offerer", "answerer"])
def test_a_negotiated_path_follows_either_end(world: World, mover: str) -> None:
    a, b = pair_of(world)
    negotiate(a, b, 4, LOW)
    world.run(1.0)
    walker, other = (a, b) if mover == "offerer" else (b, a)
    moved = Address("8.8.4.4", 9999)
    world.nat[walker.address] = moved
    for _ in range(20):
        world.run(0.5)
        walker.write(LinkId(4), b"here I am")
    world.run(0.5)
    assert other.routes[LinkId(4)] == (moved, other.address)
    assert talks(world, walker, 4, other, 4)


# --- what the shell asks ------------------------------------------------------------------------


def test_the_fast_path_names_the_only_link_of_an_encrypted_record(world: World) -> None:
    a, b = linked(world)
    encrypted = b"\x17\xfe\xfd\x00\x01" + bytes(20)
    plain = b"\x16\xfe\xfd\x00\x00" + bytes(20)
    assert b.endpoint.association_of(encrypted, A, B) == 1
    assert a.endpoint.association_of(encrypted, B, A) == 0
    for data, remote, local in [
        (plain, A, B),
        (encrypted, B, B),
        (encrypted, A, A),
        (encrypted[:12], A, B),
        (b"", A, B),
        (b"\x01\x01\x00\x01\x01" + bytes(20), A, B),
    ]:
        assert b.endpoint.association_of(data, remote, local) is None
    Shell(world, A, seed=11).dial(0, b, HIGH)
    world.run(1.0)
    assert b.endpoint.association_of(encrypted, A, B) is None, "two links: only trying tells"


def test_routes_round_trips_and_descriptions_are_known_of_every_link(world: World) -> None:
    a, b = linked(world)
    assert a.routes[LinkId(0)] == (B, A)
    assert a.endpoint.rtt(LinkId(0), world.now) == pytest.approx(2 * LATENCY)
    assert b.endpoint.rtt(LinkId(1), world.now) is None, "it has not asked yet"
    world.run(3.0)
    assert b.endpoint.rtt(LinkId(1), world.now) == pytest.approx(2 * LATENCY)
    assert b.endpoint.rtt(LinkId(1), world.now + 31.0) is None, "that was long ago"
    dialled, opened = a.endpoint.description(LinkId(0)), b.endpoint.description(LinkId(1))
    assert dialled is not None
    assert opened is not None
    assert dialled[1] == opened[0], "the listener's credentials, fabricated by the dialler"
    assert opened[1] is None
    assert [each.address for each in opened[2]] == [B]
    assert [each.address for each in opened[3]] == [A]
    assert a.endpoint.rtt(LinkId(99), world.now) is None
    assert a.endpoint.description(LinkId(99)) is None


def test_the_dialler_is_told_how_the_listener_sees_it(world: World) -> None:
    outside = Address("6.6.6.6", 60_000)
    world.nat[A] = outside
    a, _ = linked(world)
    assert a.said(Mapped) == [Mapped(LinkId(0), outside)]


def test_nothing_is_said_of_a_closed_link(world: World) -> None:
    a, b = pair_of(world)
    a.endpoint.perform(make_dial(0, b, LOW), world.now)
    a.endpoint.handle_timeout(10.0)
    a.endpoint.close(LinkId(0))
    a.endpoint.close(LinkId(0))
    assert not [each for each in a.take() if isinstance(each, DialFailed)]
    a.endpoint.established(LinkId(0), 10.0)
    a.endpoint.decrypted(LinkId(0), B, 10.0)
    a.endpoint.acknowledged(LinkId(0), 10.0)
    a.endpoint.confirmed(LinkId(0), bytes(8), B, A, 10.0)
    assert a.take() == []
    assert a.endpoint.next_deadline() is None
