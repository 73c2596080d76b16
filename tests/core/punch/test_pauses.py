"""When a technique is tried again: seldom while both networks are what they were, soon when not."""

from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace
from typing import Any, cast

import pytest

from overlay.core.events import Effect, Punch, Restart, Transmit
from overlay.core.types import PeerId
from overlay.core.wire.messages import Offer
from overlay.sim.node import SimNode
from overlay.sim.pairs.pair import PairWorld, Path
from tests.core.punch.test_pair_worlds import deaf, gathered

ENDS = [("port_restricted", "symmetric_random"), ("symmetric_sequential", "port_restricted")]
MINUTE = 60.0


def seen(pair: PairWorld, node: SimNode) -> list[tuple[float, Effect]]:
    """All effects of a node from now on, and when they are performed."""
    effects = list[tuple[float, Effect]]()
    world, perform = pair.world, pair.world.network.perform

    def performs(one: SimNode, effect: Effect) -> None:
        if one is node:
            effects.append((world.now, effect))
        perform(one, effect)

    world.network.perform = performs  # type: ignore[method-assign, assignment]
    return effects


def begun(effects: list[tuple[float, Effect]]) -> list[float]:
    return [at for at, effect in effects if isinstance(effect, Punch)]


def offers(effects: list[tuple[float, Effect]]) -> int:
    messages = [effect.message for _, effect in effects if isinstance(effect, Transmit)]
    return len({each.request for each in messages if isinstance(each, Offer)})


@pytest.mark.parametrize("ends", ENDS)
@pytest.mark.parametrize("asker", [0, 1])
def test_what_was_in_vain_is_tried_ever_more_seldom(ends: tuple[str, str], asker: int) -> None:
    """Whichever end offers, and whatever it hears meanwhile that is no news."""
    pair = gathered(*(ends if asker == 0 else ends[::-1]))
    deaf(pair, pair.b, (Punch, Restart))
    effects = seen(pair, pair.a)
    assert pair.connect().path is Path.RELAYED
    pair.world.run_for(10 * MINUTE)
    at = begun(effects)
    pauses = [later - earlier for earlier, later in pairwise(at)]
    assert 3 <= len(at) <= 5, pauses
    assert pauses[0] >= MINUTE
    assert all(2 * one * 0.9 <= two for one, two in pairwise(pauses)), pauses
    assert offers(effects) <= len(at) + 2


@pytest.mark.parametrize("end", [0, 1])
@pytest.mark.parametrize("ends", ENDS)
def test_it_is_tried_at_once_when_either_network_is_another_one(
    ends: tuple[str, str], end: int
) -> None:
    """Here the NAT of one of the two has another address, long after two attempts in vain."""
    pair = gathered(*ends)
    deaf(pair, pair.b, (Punch, Restart))
    effects = seen(pair, pair.a)
    assert pair.connect().path is Path.RELAYED
    pair.world.run_for(2 * MINUTE)
    before = len(begun(effects))
    pair.at[end].move()
    pair.world.run_for(MINUTE / 2)
    assert len(begun(effects)) > before


def busy(node: SimNode) -> None:
    """It is at a technique with somebody else, for ever."""
    other = cast("Any", SimpleNamespace(peer=PeerId(b"o" * 32), link=-1))
    node.core._connecting._punching._current = other


def unable(node: SimNode) -> None:
    """It does nothing beyond ICE."""
    context = node.core._context
    context.settings = replace(context.settings, birthday=False, prediction=False)


@pytest.mark.parametrize("decline", [busy, unable])
@pytest.mark.parametrize("ends", ENDS)
def test_who_declines_is_not_asked_again_at_once(ends: tuple[str, str], decline: Any) -> None:
    pair = gathered(*ends)
    decline(pair.b)
    effects = seen(pair, pair.a)
    assert pair.connect().path is Path.RELAYED
    pair.world.run_for(MINUTE)
    assert not begun(effects)
    assert offers(effects) <= 6


def test_who_is_busy_itself_asks_nobody_and_then_does() -> None:
    pair = gathered(*ENDS[0])
    busy(pair.a)
    effects = seen(pair, pair.a)
    assert pair.connect().path is Path.RELAYED
    before = offers(effects)
    pair.world.run_for(MINUTE / 2)
    assert offers(effects) == before
    pair.a.core._connecting._punching._current = None
    pair.world.run_for(10.0)
    assert pair.is_direct()
