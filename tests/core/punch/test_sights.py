"""Where a peer is, by those whom we have asked, whatever else anybody says."""

from overlay.core.nat.knocking import Neighbour
from overlay.core.punch.sights import Sights, Witness
from overlay.core.types import Address, LinkId, PeerId
from overlay.core.wire.messages import Sight

PEER = PeerId(b"p" * 32)
HOST, VICTIM = "11.1.0.10", "11.9.0.10"


def neighbour(number: int, prefix: str = "") -> Neighbour:
    remote = Address(f"{prefix or f'5.{number}'}.0.{number}", 4000)
    local = Address("192.168.1.10", 4000)
    return Neighbour(PeerId(bytes([number]) * 32), LinkId(number), remote, local, is_public=True)


def sights(*neighbours: Neighbour, by_host: bool = True) -> Sights:
    return Sights(PEER, by_host, {each.peer: each for each in neighbours})


ONE, TWO, THREE = neighbour(1), neighbour(2), neighbour(3)


def test_two_that_agree_are_enough() -> None:
    asked = sights(ONE, TWO)
    asked.learn(ONE.peer, Sight(PEER, HOST, 4001))
    assert not asked.complete
    assert asked.verdict() is None
    asked.learn(TWO.peer, Sight(PEER, HOST, 4002))
    assert asked.verdict() == Address(HOST, 1), "the host alone counts"


def test_who_opens_needs_them_to_agree_on_the_port_too() -> None:
    for port, found in ((4001, Address(HOST, 4001)), (4002, None)):
        asked = sights(ONE, TWO, by_host=False)
        asked.learn(ONE.peer, Sight(PEER, HOST, 4001))
        asked.learn(TWO.peer, Sight(PEER, HOST, port))
        assert asked.verdict() == found


def test_a_third_party_is_aimed_at_by_nobodys_word_alone() -> None:
    """One that lies is outvoted; so are two in one prefix, who may be one person."""
    asked = sights(ONE, TWO, THREE)
    asked.learn(ONE.peer, Sight(PEER, VICTIM, 4001))
    asked.learn(TWO.peer, Sight(PEER, HOST, 4001))
    asked.learn(THREE.peer, Sight(PEER, HOST, 4001))
    verdict = asked.verdict()
    assert verdict is not None
    assert verdict.host == HOST
    near = neighbour(4, "5.50"), neighbour(5, "5.50")
    asked = sights(*near, TWO, THREE)
    for each in near:
        asked.learn(each.peer, Sight(PEER, VICTIM, 4001))
    for each in (TWO, THREE):
        asked.learn(each.peer, Sight(PEER, HOST, 4001))
    verdict = asked.verdict()
    assert verdict is not None
    assert verdict.host == HOST


def test_who_was_not_asked_or_says_more_than_once_is_not_heard() -> None:
    asked = sights(ONE)
    asked.learn(TWO.peer, Sight(PEER, HOST, 4001))
    asked.learn(ONE.peer, Sight(PEER, VICTIM, 4001))
    asked.learn(ONE.peer, Sight(PEER, HOST, 4001))
    asked.learn(ONE.peer, Sight(ONE.peer, HOST, 4001))
    assert asked.verdict() is None


def test_what_is_no_address_of_anybodys_counts_as_no_word() -> None:
    for host in ("", "nobody", "192.168.1.1", "224.0.0.1", "0.0.0.0"):
        asked = sights(ONE, TWO)
        for each in (ONE, TWO):
            asked.learn(each.peer, Sight(PEER, host, 4001))
        assert asked.complete
        assert asked.verdict() is None


def test_a_witness_answers_so_often_and_knows_only_its_own_links() -> None:
    witness = Witness({PEER: Address(HOST, 4001)}.get)
    assert witness.answer(ONE.peer, PEER, 0.0) == Sight(PEER, HOST, 4001)
    assert witness.answer(ONE.peer, TWO.peer, 0.0) == Sight(TWO.peer, "", 0)
    told = [witness.answer(ONE.peer, PEER, 0.0).host for _ in range(20)]
    assert told.count(HOST) == 8
    assert witness.answer(TWO.peer, PEER, 0.0).host == HOST
    assert witness.answer(ONE.peer, PEER, 60.0).host == HOST
