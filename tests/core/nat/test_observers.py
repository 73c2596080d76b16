"""The mapped address stays right while fewer than half of the observers, or one prefix, lie."""

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from overlay.core.nat.observers import OBSERVERS_MAX, Observers
from overlay.core.types import Address, PeerId

LAN = Address("192.168.1.5", 4000)
RIGHT = Address("11.7.0.10", 61000)
WRONG = Address("11.66.6.6", 6666)


def peer(index: int) -> PeerId:
    return PeerId(index.to_bytes(32, "big"))


def said(*voices: tuple[str, Address]) -> Observers:
    """Each observer's own address, and where it says that it sees us."""
    observers = Observers()
    for index, (host, mapped) in enumerate(voices):
        assert observers.say(peer(index), mapped, Address(host, 4000), LAN)
    return observers


def agreed(*voices: tuple[str, Address]) -> list[Address]:
    return said(*voices).agreed([LAN])


def test_two_that_agree_are_enough_and_one_is_not() -> None:
    assert agreed(("20.1.0.1", RIGHT)) == []
    assert agreed(("20.1.0.1", RIGHT), ("20.2.0.1", RIGHT)) == [RIGHT]


def test_all_of_one_prefix_together_have_one_vote() -> None:
    honest = [("20.1.0.1", RIGHT), ("20.2.0.1", RIGHT)]
    liars = [(f"66.6.{index}.1", WRONG) for index in range(20)]
    assert agreed(*honest, *liars) == [RIGHT]
    spread = [(f"66.{index}.0.1", WRONG) for index in range(20)]
    assert agreed(*honest, *spread) == [WRONG], "liars in many prefixes, and most of all"


def test_with_two_prefixes_the_observers_decide() -> None:
    honest = [(f"20.1.0.{index}", RIGHT) for index in range(3)]
    assert agreed(*honest, ("66.6.0.1", WRONG), ("66.6.0.2", WRONG)) == [RIGHT]


@given(
    st.lists(st.integers(0, 250), min_size=2, max_size=12),
    st.lists(st.tuples(st.integers(0, 250), st.integers(1, 5)), max_size=11),
    st.randoms(use_true_random=False),
)
def test_fewer_than_half_never_move_it(
    honest: list[int], liars: list[tuple[int, int]], random: Random
) -> None:
    """Honest observers and liars in prefixes of their own, in whatever order they speak."""
    honest_voices = [(f"20.{index}.0.1", RIGHT) for index in dict.fromkeys(honest)]
    lies = {prefix: (f"66.{prefix}.0.1", Address("11.66.6.6", lie)) for prefix, lie in liars}
    voices = honest_voices + list(lies.values())[: max(0, len(honest_voices) - 1)]
    random.shuffle(voices)
    stands = agreed(*voices)
    assert stands == ([RIGHT] if len(honest_voices) > 1 else [])


@given(st.integers(2, 6), st.integers(0, 40), st.booleans())
def test_one_prefix_never_moves_it(honest: int, lying: int, first: bool) -> None:
    truth = [(f"20.{index}.0.1", RIGHT) for index in range(honest)]
    lies = [(f"66.6.0.{index}", WRONG) for index in range(lying)]
    assert agreed(*(lies + truth if first else truth + lies)) == [RIGHT]


def test_a_symmetric_nat_has_no_address_that_stands() -> None:
    assert agreed(*((f"20.{n}.0.1", Address("11.7.0.10", 40_000 + n)) for n in range(5))) == []


def test_who_is_on_our_own_network_says_nothing() -> None:
    observers = said(("192.168.1.7", LAN), ("192.168.1.8", LAN), ("20.1.0.1", RIGHT))
    assert [each.mapped for each in observers.outside([LAN])] == [RIGHT]
    public = Address("11.7.1.10", 4000)
    observers = said(("20.1.0.1", public), ("20.2.0.1", public))
    assert len(observers.outside([public])) == 2, "there is no NAT, as two say from beyond it"


def test_a_carriers_network_is_another_realm() -> None:
    inner = Address("100.64.7.10", 61000)
    near = [("100.64.8.10", inner), ("100.64.9.10", inner)]
    assert agreed(*near, ("20.1.0.1", RIGHT), ("20.2.0.1", RIGHT)) == [RIGHT, inner]


def test_what_is_kept_is_bounded() -> None:
    observers = said(*((f"20.{n % 250}.0.1", RIGHT) for n in range(3 * OBSERVERS_MAX)))
    assert len(observers.outside([LAN])) == OBSERVERS_MAX


def test_the_word_of_a_silent_neighbour_counts_for_nothing_against_others() -> None:
    """It may be of before the router was switched off and on."""
    observers = said(("20.1.0.1", RIGHT), ("20.2.0.1", WRONG))
    assert {each.mapped for each in observers.outside([LAN])} == {RIGHT, WRONG}
    observers.silent(peer(1))
    assert [each.mapped for each in observers.outside([LAN])] == [RIGHT]
    assert observers.mapped([LAN]) == [RIGHT]
    observers.heard(peer(1))
    assert len(observers.outside([LAN])) == 2


def test_the_word_of_a_silent_neighbour_counts_where_nothing_else_is_known() -> None:
    """Beside one that says the same, and where all are silent: then it is we who are cut off."""
    observers = said(("20.1.0.1", RIGHT), ("20.2.0.1", RIGHT))
    observers.silent(peer(1))
    assert observers.agreed([LAN]) == [RIGHT]
    observers.silent(peer(0))
    assert observers.agreed([LAN]) == [RIGHT]
    observers.forget(peer(0))
    assert observers.mapped([LAN]) == [RIGHT]
