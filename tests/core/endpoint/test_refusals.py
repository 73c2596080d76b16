"""ICMP says that nobody is at a port: who is silent is gone, and nothing else is believed of it."""

from overlay.core.endpoint.refusals import REFUSAL_TIMEOUT, REFUSALS_MAX, Refusals
from overlay.core.events import Adopt, LinkAlive, LinkLost, LinkSilent
from overlay.core.types import Address, EndReason, LinkId
from tests.core.endpoint.test_liveness import LINK, A, linked
from tests.core.endpoint.world import Shell, World

OURS = LinkId(0)


def refuse(world: World, shell: Shell, remote: Address) -> None:
    shell.endpoint.refused(remote, world.now)
    shell.flush()


def silence(world: World, a: Shell, b: Shell, refused: Address | None) -> None:
    """A falls silent for good, and what B sends it is refused."""
    a.frozen = True
    for _ in range(80):
        world.run(0.1)
        if refused is not None:
            refuse(world, b, refused)


def test_who_is_silent_and_refused_is_gone() -> None:
    world, a, b = linked()
    silence(world, a, b, A)
    assert b.said(LinkLost) == [LinkLost(LINK, EndReason.GONE)]
    assert not b.said(LinkSilent)


def test_who_is_only_silent_is_waited_for() -> None:
    """The counter-test; and a refusal by somebody else is no refusal."""
    for refused in (None, Address("8.8.8.1", 1112), Address("8.8.8.2", 1111)):
        world, a, b = linked()
        silence(world, a, b, refused)
        assert b.said(LinkSilent) == [LinkSilent(LINK)]
        a.frozen = False
        world.run(5.0)
        assert b.said(LinkAlive) == [LinkAlive(LINK)]
        assert not b.said(LinkLost)


def test_who_is_refused_after_it_fell_silent_is_gone() -> None:
    world, a, b = linked()
    silence(world, a, b, None)
    assert b.said(LinkSilent)
    refuse(world, b, A)
    assert b.said(LinkLost) == [LinkLost(LINK, EndReason.GONE)]


def test_a_refusal_of_who_is_heard_is_not_believed() -> None:
    """Anybody can forge one."""
    world, a, b = linked()
    for _ in range(600):
        refuse(world, b, A)
        refuse(world, a, b.address)
        world.run(0.1)
    assert not a.lost()
    assert not b.lost()


def test_a_refusal_from_before_it_was_last_heard_is_forgotten() -> None:
    world, a, b = linked()
    refuse(world, b, A)
    world.run(REFUSAL_TIMEOUT + 1.0)
    silence(world, a, b, None)
    assert b.said(LinkSilent) == [LinkSilent(LINK)]
    assert not b.said(LinkLost)


def test_who_came_back_is_gone_only_if_it_falls_silent_again() -> None:
    world, a, b = linked()
    silence(world, a, b, None)
    a.frozen = False
    world.run(5.0)
    refuse(world, b, A)
    world.run(5.0)
    assert not b.said(LinkLost)


def test_what_is_remembered_of_refusals_is_bounded() -> None:
    refusals = Refusals()
    for port in range(10 * REFUSALS_MAX):
        refusals.on_refused(Address("192.0.2.1", port), 0.0)
    assert len(refusals._refused) == REFUSALS_MAX


def test_a_link_that_goes_on_over_another_path_is_not_refused_at_the_old_one() -> None:
    """It was silent there; it is heard again elsewhere, so a refusal from there ends nothing."""
    world, a, b = linked()
    a.stock = True  # its old agent is not heard any more
    silence(world, a, b, None)
    assert b.said(LinkSilent)
    a.frozen = False
    elsewhere = Address("8.8.8.77", 1111)
    world.shells[elsewhere], a.addresses = a, (elsewhere,)
    a.dial(2, b, b"\x01" * 16)
    world.run(1.0)
    other = LinkId(3)
    assert b.up() == [LINK, other]
    b.endpoint.perform(Adopt(LINK, other), world.now)
    b.flush()
    assert b.said(LinkAlive) == [LinkAlive(LINK)]
    refuse(world, b, A)
    assert not b.said(LinkLost)
