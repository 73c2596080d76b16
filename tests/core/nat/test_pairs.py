"""Which pairs of NATs ICE can join, as measured with plain aiortc on real ones."""

import itertools

import pytest

from overlay.core.nat.pairs import cause, direct, minds_early_packets

KINDS = {
    "public": ("independent", "independent"),
    "full cone": ("independent", "independent"),
    "address-restricted": ("independent", "address"),
    "port-restricted": ("independent", "address-port"),
    "address-mapped": ("address", "address-port"),
    "symmetric": ("address-port", "address-port"),
}
NEVER = [
    {"port-restricted", "symmetric"},
    {"symmetric"},
    {"port-restricted", "address-mapped"},
    {"address-mapped", "symmetric"},
    {"address-mapped"},
]


@pytest.mark.parametrize("pair", [*itertools.combinations_with_replacement(KINDS, 2)])
def test_pairs(pair: tuple[str, str]) -> None:
    one, other = (KINDS[name] for name in pair)
    assert direct(one, other) is direct(other, one) is (set(pair) not in NEVER)
    assert bool(cause(one, other)) is (set(pair) in NEVER)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_not_known_is_not_ruled_out(kind: str) -> None:
    known = KINDS[kind]
    expected = True if known[1] in ("independent", "address") else None
    for nothing in ((), ("unknown", "unknown"), ("unknown", "unknown", "random")):
        assert direct(known, nothing) is direct(nothing, known) is expected
        assert cause(known, nothing) == ""


def test_it_is_enough_to_know_that_a_mapping_depends_on_something() -> None:
    assert direct(("dependent", "address-port"), KINDS["port-restricted"]) is False
    assert direct(("dependent", "address-port"), KINDS["address-restricted"]) is True
    assert direct(("dependent", "unknown"), KINDS["port-restricted"]) is None


def test_both_nats_are_named() -> None:
    text = cause(KINDS["port-restricted"], KINDS["symmetric"])
    assert text.startswith("both NATs are the cause: ours ")
    assert "the peer's" in text
    assert "mapping address-port" in text
    assert "mapping independent" in text


@pytest.mark.parametrize("theirs", [*KINDS.values(), (), ("unknown", "unknown", "unknown")])
def test_where_an_early_packet_may_be_remembered(theirs: tuple[str, ...]) -> None:
    """Behind an open INPUT chain all looks port-restricted: such a pair is neither hopeless nor
    beyond harm."""
    restricted = KINDS["port-restricted"]
    assert direct(restricted, restricted) is True
    strict = "independent" not in theirs[1:]
    assert minds_early_packets(restricted, theirs) is strict
    assert minds_early_packets((), theirs) is strict
    assert not minds_early_packets(KINDS["full cone"], theirs), (
        "whoever sends from anywhere gets in"
    )
    for mapped in ("symmetric", "address-mapped"):
        assert not minds_early_packets(KINDS[mapped], theirs), "they remember another address"
    assert not minds_early_packets(("dependent", "address-port"), theirs)
