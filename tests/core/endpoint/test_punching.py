"""The sockets of a technique: which are open, which stays, and that none is left behind."""

from collections import Counter
from random import Random
from types import SimpleNamespace
from typing import Any, cast

from overlay.core.endpoint.outputs import CloseSockets, OpenSockets, Send
from overlay.core.endpoint.punching import KEPT_MAX, Punching
from overlay.core.events import Punch, PunchOver
from overlay.core.punch.birthday import SECONDS, SOCKETS
from overlay.core.types import Address, LinkId, PunchEnd, PunchRole, Technique

LINK, OTHER = LinkId(1), LinkId(2)
PEER = Address("11.1.0.10", 40_000)
OWN = Address("192.168.1.10", 4000)


def sockets(count: int = SOCKETS, first: int = 50_000) -> tuple[Address, ...]:
    return tuple(Address(OWN.host, first + number) for number in range(count))


class Restarting:
    """The association of a link, of which ICE is being restarted."""

    def __init__(self, link: LinkId = LINK) -> None:
        self.link, self.pairs = link, dict[Any, None]()
        self.agent = SimpleNamespace(
            local=SimpleNamespace(ufrag="u"),
            controlling=True,
            stray_check=lambda: b"check",
            has_valid_pair=False,
            go_beyond=lambda _: None,
        )
        self.restarting = SimpleNamespace(agent=self.agent)


class Port:
    """What the techniques of a port say."""

    def __init__(self) -> None:
        self.counters = Counter[str]()
        self.said = list[Any]()
        self.punching = Punching(Random(1), self.counters, self.said.append)

    def begin(self, one: Restarting, role: PunchRole = PunchRole.OPENS) -> None:
        punch = Punch(one.link, "u", Technique.BIRTHDAY, role, PEER, OWN.host)
        self.punching.perform(punch, cast("Any", one), 0.0)

    def opened(self, link: LinkId = LINK, of: tuple[Address, ...] = ()) -> tuple[Address, ...]:
        mine = of or sockets()
        self.punching.opened(link, mine, 0.0)
        return mine

    def take(self, *kinds: type) -> list[Any]:
        taken = [each for each in self.said if isinstance(each, kinds)]
        self.said.clear()
        return taken


def test_it_wants_sockets_uses_them_and_closes_all_in_the_end() -> None:
    port, one = Port(), Restarting()
    port.begin(one)
    assert port.take(OpenSockets) == [OpenSockets(LINK, OWN.host, SOCKETS)]
    mine = port.opened()
    (opener,) = port.take(Send)
    assert (opener.data, opener.remote, opener.local) == (b"check", PEER, mine[0])
    port.punching.handle_timeout(SECONDS)
    assert port.take(CloseSockets, PunchOver) == [
        CloseSockets(mine),
        PunchOver(LINK, PunchEnd.UNANSWERED),
    ]
    assert port.punching.next_deadline() is None


def test_time_that_is_over_does_not_take_a_socket_from_a_path_that_is_about_to_be() -> None:
    """A pair works already: its nomination takes a round trip more."""
    port, one = Port(), Restarting()
    port.begin(one)
    mine = port.opened()
    one.agent.has_valid_pair = True
    port.punching.handle_timeout(SECONDS)
    assert port.take(CloseSockets, PunchOver) == []
    assert port.punching.next_deadline() is None
    port.punching.on_restarted(LINK, mine[7])
    assert port.take(CloseSockets) == [CloseSockets((*mine[:7], *mine[8:]))]


def test_the_one_that_won_stays_until_its_link_has_another_path_or_is_gone() -> None:
    port, one = Port(), Restarting()
    port.begin(one)
    mine = port.opened()
    port.take()
    port.punching.on_restarted(LINK, mine[3])
    assert port.take(CloseSockets) == [CloseSockets((*mine[:3], *mine[4:]))]
    port.begin(one)
    later = port.opened(of=sockets(first=60_000))
    port.take()
    port.punching.on_restarted(LINK, later[0])
    assert port.take(CloseSockets) == [CloseSockets(later[1:]), CloseSockets((mine[3],))]
    port.punching.exchange(LINK, OTHER)
    port.punching.forget(LINK)
    assert port.take() == []
    port.punching.forget(OTHER)
    assert port.said == [CloseSockets((later[0],))]


def test_a_path_from_the_nodes_own_socket_leaves_none_of_them_open() -> None:
    port, one = Port(), Restarting()
    port.begin(one)
    mine = port.opened()
    port.take()
    port.punching.on_restarted(LINK, OWN)
    assert port.said == [CloseSockets(mine)]


def test_sockets_that_come_when_it_is_over_are_closed() -> None:
    port, one = Port(), Restarting()
    port.begin(one)
    port.punching.stop(LINK)
    mine = port.opened()
    assert port.take(CloseSockets, Send) == [CloseSockets(mine)]


def test_a_second_one_at_a_time_and_too_many_kept_are_refused() -> None:
    port, one, other = Port(), Restarting(), Restarting(OTHER)
    port.begin(one)
    port.take()
    port.begin(other)
    assert port.said == []
    assert port.counters["punch_crowded"] == 1
    port.punching.stop(LINK)
    for number in range(KEPT_MAX):
        another = Restarting(LinkId(10 + number))
        port.begin(another)
        port.punching.on_restarted(another.link, port.opened(another.link)[number])
    port.take()
    port.begin(one)
    assert port.said == []


def test_a_restart_that_is_another_by_now_is_not_helped() -> None:
    port, one = Port(), Restarting()
    one.agent.local.ufrag = "another"
    port.begin(one)
    assert port.said == []
