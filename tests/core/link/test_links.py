"""What a dialler makes of a listener's proof where it has more than one link to that peer."""

from dataclasses import replace

import pytest

from overlay.core.events import Effect, LinkOpened, LinkSuspect, Report, Transmit
from overlay.core.link.hello import HelloExchange
from overlay.core.link.links import AttemptFailed, Expected, Link, LinkFact, Links, PeerUp
from overlay.core.types import EndReason, LinkId, Negotiated, PathKind
from overlay.core.wire.messages import Hello, Proof
from overlay.sim.crypto import Ledger
from overlay.sim.network.conditions import Conditions
from overlay.sim.pairs.pair import Options, PairWorld, Path
from tests.core.link.test_hello import NOW, Party


class Dialler:
    """Dials one peer again and again."""

    def __init__(self) -> None:
        ledger = Ledger()
        self.me, self.peer = Party(ledger, 1), Party(ledger, 2)
        self.links = Links(self.me.context)

    def open(self, number: int, path: PathKind = PathKind.HOST) -> tuple[Link, HelloExchange]:
        """A link on which both have said hello, and we have shown our proof; its other end."""
        attempt = bytes([number]) * 16
        facts = replace(self.me.facts(self.peer, dialler=True), attempt=attempt, path=path)
        listener = self.peer.listens(self.me, attempt=attempt)
        link = LinkId(number)
        expected = Expected(self.peer.crypto.peer_id, Negotiated.DIRECT, inbound=False)
        self.links.expect(link, expected)
        self.links.on_opened(LinkOpened(link, inbound=False, facts=facts), NOW)
        self.links.on_hello(self.links.by_id[link], listener.hello(NOW), b"", NOW + 0.1)
        for effect in self.me.context.drain():
            if isinstance(effect, Transmit) and isinstance(effect.message, Hello):
                assert listener.on_hello(effect.message, NOW) is None
            elif isinstance(effect, Transmit) and isinstance(effect.message, Proof):
                listener.on_proof(effect.message, NOW)
        return self.links.by_id[link], listener

    def prove(self, link: Link, listener: HelloExchange, resumes: bytes = b"") -> list[LinkFact]:
        """The listener's proof comes."""
        return self.links.on_proof(link, listener.proof(b"", resumes), b"", NOW)


def test_a_link_lost_meanwhile_does_not_go_on_and_neither_does_the_path_meant_for_it() -> None:
    """The listener counts on the one that is lost: it takes nothing on the other."""
    dialler = Dialler()
    old, other_end = dialler.open(2)
    (up,) = dialler.prove(old, other_end)
    assert isinstance(up, PeerUp)
    dialler.links.on_liveness(LinkSuspect(old.id))
    path, other_end = dialler.open(4)
    dialler.links.on_lost(old.id, EndReason.BROKEN)
    (failed,) = dialler.prove(path, other_end, resumes=old.facts.attempt)
    assert isinstance(failed, AttemptFailed)
    assert not dialler.links.by_peer
    assert not dialler.links.by_id


def test_a_link_that_came_meanwhile_is_not_displaced_by_a_path_for_one_that_is_lost() -> None:
    dialler = Dialler()
    old, other_end = dialler.open(2)
    dialler.prove(old, other_end)
    dialler.links.on_liveness(LinkSuspect(old.id))
    path, end_of_path = dialler.open(4)
    newer, end_of_newer = dialler.open(6)
    dialler.links.on_lost(old.id, EndReason.BROKEN)
    newer.opened_at -= 60.0  # as a link that has stood for long, so that a later one displaces it
    dialler.prove(newer, end_of_newer)
    (failed,) = dialler.prove(path, end_of_path, resumes=old.facts.attempt)
    assert isinstance(failed, AttemptFailed)
    assert list(dialler.links.by_peer.values()) == [newer]


# --- a direct link and a relayed one at once -----------------------------------------------------


def test_a_dialler_takes_the_relayed_link_that_its_listener_has_taken() -> None:
    """The listener has decided, and refuses the direct one: else there would be none."""
    dialler = Dialler()
    direct, _ = dialler.open(2)
    relayed, other_end = dialler.open(4, PathKind.RELAYED)
    (up,) = dialler.prove(relayed, other_end)
    assert isinstance(up, PeerUp)
    assert list(dialler.links.by_peer.values()) == [relayed]
    assert direct.id in dialler.links.by_id, "it is the listener's to end"


CROSSING = Conditions(latency=(0.005, 0.03))


@pytest.mark.parametrize("seed", [12, 51, 89, 194])
def test_of_two_links_that_come_up_at_once_one_stays(seed: int) -> None:
    """In worlds in which the proofs of both crossed, so that each end dropped another one."""
    options = Options(acquainted=8.0, conditions=CROSSING)
    pair = PairWorld("port_restricted", "port_restricted", seed, options)
    assert pair.gather() is None
    ended = list[Effect]()
    pair.world.observe(lambda _, effect: ended.append(effect) if is_down(effect) else None)
    assert pair.connect().path is Path.DIRECT
    assert not ended
    assert pair.b.peer_id in pair.a.neighbours()
    assert pair.a.peer_id in pair.b.neighbours()


def is_down(effect: Effect) -> bool:
    return isinstance(effect, Report) and effect.event == "peer_down"
