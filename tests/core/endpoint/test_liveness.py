"""What the endpoint says of silence on a link that a peer has dialled: it asks by HEARTBEAT."""

import pytest

from overlay.core.endpoint.outputs import EndpointOutput
from overlay.core.events import LinkAlive, LinkLost, LinkSilent, LinkSuspect
from overlay.core.ice import stun
from overlay.core.types import Address, EndReason, LinkId
from overlay.core.wire import dial_tokens as dial
from tests.core.endpoint import attacks
from tests.core.endpoint.world import LATENCY, Shell, World, make_claim

A, B = Address("8.8.8.1", 1111), Address("9.9.9.2", 2222)
ATTEMPT = bytes(16)
LINK = LinkId(1)


def linked() -> tuple[World, Shell, Shell]:
    """A has dialled B."""
    world = World()
    a, b = Shell(world, A, seed=1), Shell(world, B, seed=2)
    a.dial(0, b, ATTEMPT)
    world.run(1.0)
    assert b.up() == [LINK]
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


def test_what_does_not_answer_is_suspect_then_silent_then_lost() -> None:
    world, a, b = linked()
    a.frozen = True
    opened_at = 6 * LATENCY  # the last that was acknowledged: the end of the handshake
    world.run(opened_at + 4.5 - world.now - 0.03)
    assert b.outputs == []
    assert said_after(world, b, 0.06) == [LinkSuspect(LINK)]
    assert said_after(world, b, 1.4) == []
    assert said_after(world, b, 0.1) == [LinkSilent(LINK)]
    assert said_after(world, b, 53.9) == []
    assert said_after(world, b, 0.2) == [LinkLost(LINK, EndReason.BROKEN)]
    assert b.endpoint.next_deadline() is None


@pytest.mark.parametrize("deaf", [A, B])
@pytest.mark.parametrize("talks", [False, True])
@pytest.mark.parametrize("kind", ["dialled", "negotiated"])
def test_one_way_loss_is_silence_at_both_ends(kind: str, deaf: Address, talks: bool) -> None:
    """Both may still ask and send as much as they like: who is not answered is not heard."""
    world, a, b, b_link = attacks.linked(kind)
    world.filter = lambda data, source, target: target != deaf
    a.outputs.clear()
    b.outputs.clear()
    for _ in range(8):
        if talks:
            a.write(LinkId(0), b"tick")
            b.write(LinkId(b_link), b"tock")
        world.run(1.0)
    assert a.outputs == [LinkSuspect(LinkId(0)), LinkSilent(LinkId(0))]
    assert b.outputs == [LinkSuspect(LinkId(b_link)), LinkSilent(LinkId(b_link))]
    world.run(32.0)
    assert (len(a.outputs), len(b.outputs)) == (2, 2)
    world.filter = lambda *_: True
    world.run(2.5)
    assert a.outputs[2:] == [LinkAlive(LinkId(0))]
    assert b.outputs[2:] == [LinkAlive(LinkId(b_link))]


def test_a_silent_node_that_speaks_again_is_alive() -> None:
    world, a, b = linked()
    a.frozen = True
    world.run(20.0)
    a.frozen = False
    assert said_after(world, b, 3.0) == [LinkAlive(LINK)]
    a.write(LinkId(0), b"still here")
    world.run(0.1)
    assert b.read[LINK] == [b"still here"]


def test_an_acknowledgement_is_as_good_as_an_answer() -> None:
    """A link in use is not asked, and its peer is not suspected."""
    world, a, b = linked()
    world.filter = lambda data, source, target: data[0] > 3
    asked = len(a.read[LinkId(0)])
    for _ in range(20):
        b.write(LINK, b"tick")
        world.run(1.0)
    assert b.outputs == []
    assert len(a.read[LinkId(0)]) == asked + 20
    world.run(4.6)
    assert b.outputs == [], "the HEARTBEAT of an idle link is answered too"


@pytest.mark.parametrize("interval", [2.5, 4.0, 6.0, 30.0])
def test_a_stock_dialler_that_checks_rarely_is_never_suspect(interval: float) -> None:
    """RFC 7675 §5.1: at its own pace. Its stack answers our HEARTBEATs all the same."""
    world, a, b = linked()
    a.stock = True
    for number in range(30):
        world.send(check(b, number), A, B)
        world.run(interval)
    assert b.outputs == []


def test_a_stock_dialler_that_does_not_answer_is_noticed_as_soon_as_any() -> None:
    """The counter-test: whatever it says itself."""
    world, a, b = linked()
    a.stock = a.mute = True
    for number in range(8):
        world.send(check(b, number), A, B)
        world.run(1.0)
    assert b.outputs == [LinkSuspect(LINK), LinkSilent(LINK)]


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
