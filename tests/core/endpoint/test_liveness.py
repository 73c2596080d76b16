"""What the endpoint says of silence on a link that a peer has dialled: it can only listen."""

import pytest

from overlay.core.endpoint.outputs import EndpointOutput
from overlay.core.events import LinkAlive, LinkLost, LinkSilent, LinkSuspect
from overlay.core.ice import stun
from overlay.core.types import Address, EndReason, LinkId
from overlay.core.wire import dial_tokens as dial
from tests.core.endpoint.world import Shell, World, make_claim

A, B = Address("8.8.8.1", 1111), Address("9.9.9.2", 2222)
ATTEMPT = bytes(16)
LINK = LinkId(1)


def linked(*, admitted: bool = True) -> tuple[World, Shell, Shell]:
    """A has dialled B, and the hello is done."""
    world = World()
    a, b = Shell(world, A, seed=1), Shell(world, B, seed=2)
    a.dial(0, b, ATTEMPT)
    world.run(1.0)
    assert b.up() == [LINK]
    if admitted:
        b.admit(LINK)
    b.outputs.clear()
    return world, a, b


def check(b: Shell, number: int) -> bytes:
    """A consent check of the dialler's, as a stock peer makes it."""
    claim = make_claim(ATTEMPT)
    token = dial.make_token(b.dial_key, claim.kind, claim.token_id, claim.expires_at)
    credentials = dial.listener_credentials(token, claim)
    request = stun.binding_request(
        number.to_bytes(12, "big"),
        username=f"{credentials.ufrag}:d{ATTEMPT.hex()}",
        priority=1,
        controlling=1,
    )
    return stun.encode(request, credentials.password.encode())


def said_after(world: World, shell: Shell, seconds: float) -> list[EndpointOutput]:
    shell.outputs.clear()
    world.run(seconds)
    return shell.outputs


def test_an_idle_link_of_two_nodes_is_never_suspect() -> None:
    world, a, b = linked()
    assert said_after(world, b, 300.0) == []
    assert a.said(LinkSuspect) == []


def test_a_node_is_suspect_then_silent_then_lost() -> None:
    world, a, b = linked()
    heard_at = b.endpoint._links[LINK].ice._heard_at  # type: ignore[attr-defined]
    a.frozen = True
    started = world.now
    world.run(3.5 - (started - heard_at) - 0.01)
    assert b.outputs == []
    assert said_after(world, b, 0.02) == [LinkSuspect(LINK)]
    assert said_after(world, b, 2.4) == []
    assert said_after(world, b, 0.2) == [LinkSilent(LINK)]
    assert said_after(world, b, 53.0) == []
    assert said_after(world, b, 2.0) == [LinkLost(LINK, EndReason.BROKEN)]
    assert b.endpoint.next_deadline() is None


def test_a_silent_node_that_speaks_again_is_alive() -> None:
    world, a, b = linked()
    a.frozen = True
    world.run(20.0)
    a.frozen = False
    assert said_after(world, b, 3.0) == [LinkAlive(LINK)]
    a.write(LinkId(0), b"still here")
    world.run(0.1)
    assert b.read[LINK] == [b"still here"]


def test_a_record_is_as_good_as_a_check() -> None:
    world, a, b = linked()
    world.filter = lambda data, source, target: data[0] > 3
    for _ in range(20):
        a.write(LinkId(0), b"tick")
        world.run(1.0)
    assert b.outputs == []


@pytest.mark.parametrize("interval", [2.5, 4.0, 6.0])
def test_a_stock_dialler_that_checks_every_few_seconds_is_never_suspect(interval: float) -> None:
    world, a, b = linked(admitted=False)
    a.frozen = True
    for number in range(30):
        world.send(check(b, number), A, B)
        world.run(interval)
    assert b.outputs == []


def test_a_stock_dialler_is_given_fifteen_seconds() -> None:
    world, a, b = linked(admitted=False)
    world.send(check(b, 0), A, B)
    world.run(0.1)
    a.frozen = True
    assert said_after(world, b, 7.3) == []
    assert said_after(world, b, 0.2) == [LinkSuspect(LINK)]
    assert said_after(world, b, 7.3) == []
    assert said_after(world, b, 0.2) == [LinkSilent(LINK)]
    world.send(check(b, 1), A, B)
    assert said_after(world, b, 0.1) == [LinkAlive(LINK)]


def test_being_admitted_shortens_the_patience_at_once() -> None:
    world, a, b = linked(admitted=False)
    a.frozen = True
    assert said_after(world, b, 5.0) == []
    b.admit(LINK)
    world.run(0.1)
    assert LinkSuspect(LINK) in b.outputs


@pytest.mark.parametrize("asleep", [1.5, 5.0, 20.0, 3600.0])
def test_our_own_sleep_is_not_the_peers_silence(asleep: float) -> None:
    """Whatever the peer sends meanwhile waits in the socket and is read right after."""
    world, a, b = linked()
    world.run(3.0)
    a.frozen = b.frozen = True
    world.run(asleep)
    a.frozen = b.frozen = False
    b.outputs.clear()
    world.run(30.0)
    assert not b.said(LinkSilent)
    assert not b.said(LinkLost)


def test_after_our_sleep_the_peer_has_the_rest_of_its_time() -> None:
    world, a, b = linked()
    a.frozen = b.frozen = True
    world.run(20.0)
    b.frozen = False
    world.run(1.5)
    a.frozen = False
    world.run(30.0)
    assert not b.said(LinkSilent)


def test_sleeping_pardons_nobody_who_stays_silent() -> None:
    world, a, b = linked()
    a.frozen = b.frozen = True
    world.run(20.0)
    b.frozen = False
    world.run(10.0)
    assert b.said(LinkSilent) == [LinkSilent(LINK)]


def test_nothing_is_said_of_silence_before_the_link_stands() -> None:
    world = World()
    a, b = Shell(world, A, seed=1), Shell(world, B, seed=2)
    world.filter = lambda data, source, target: not (source == A and len(data) > 400)
    a.dial(0, b, ATTEMPT)
    world.run(11.0)
    assert [type(each).__name__ for each in b.outputs] == ["Secure", "DialFailed"]
