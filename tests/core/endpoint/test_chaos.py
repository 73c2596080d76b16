"""The endpoint among nodes that dial, negotiate, move, restart and hang up in any order."""

import itertools
from random import Random

import pytest

from overlay.core.events import Restart
from overlay.core.types import Address, IceCredentials, LinkId
from tests.core.endpoint.world import Shell, World, candidates_of, negotiate

HOSTS = [Address(f"8.8.{number}.1", 1111) for number in range(4)]


class Chaos:
    """One seed's worth of events among four nodes."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.world = World(filter=self.arrives)
        self.shells = [Shell(self.world, host, seed=seed + n) for n, host in enumerate(HOSTS)]
        self.links = 0

    def arrives(self, data: bytes, source: Address, target: Address) -> bool:
        """Lose a tenth, deliver a tenth twice, let anybody else say a tenth again."""
        fate = self.random.randrange(10)
        if fate == 1:
            self.world.send(data, source, target)
        elif fate == 2:
            self.world.send(data, self.random.choice(HOSTS), target)
        return fate != 0

    def step(self) -> None:
        """Let one thing happen, and some time pass."""
        a, b = self.random.sample(self.shells, 2)
        attempt = self.random.randbytes(16)
        link, self.links = self.links, self.links + 2
        match self.random.randrange(8):
            case 0 | 1:
                a.dial(link, b, attempt)
            case 2:
                negotiate(a, b, link, attempt, prepare=self.random.random() < 0.5)
            case 3:
                for each in list(a.dtls)[:1]:
                    a.endpoint.close(each)
                    del a.dtls[each]
            case 4:
                moved = Address(f"7.7.7.{self.random.randrange(1, 250)}", 1111)
                self.world.nat = {a.address: moved}
            case 5:
                a.frozen = not a.frozen
            case 6:
                for each, other in itertools.product(a.up(), b.up()):
                    if a.attempts()[each] == b.attempts().get(other):
                        self.restart(a, each, b, other)
            case _:
                for each in a.up():
                    a.write(each, b"tick")
        self.world.run(self.random.choice([0.001, 0.01, 0.1, 1.0, 5.0, 30.0]))

    def restart(self, a: Shell, link: LinkId, b: Shell, other: LinkId) -> None:
        """One of the ends, or both, restart ICE."""
        ours, theirs = (
            IceCredentials(name + self.random.randbytes(8).hex(), "a password of 22 letters")
            for name in "ab"
        )
        for shell, far, which, local, remote in (
            (a, b, link, ours, theirs),
            (b, a, other, theirs, ours),
        ):
            mine, others = candidates_of(shell), candidates_of(far)
            if self.random.random() < 0.8:
                effect = Restart(which, shell is a, local, remote, mine, others, 10.0)
                shell.endpoint.perform(effect, self.world.now)
                shell.flush()


@pytest.mark.parametrize("seed", range(30))
def test_whatever_happens_in_whatever_order_the_books_are_right(seed: int) -> None:
    """Nothing raises; a link ends by `DialFailed`, `LinkLost` or `close`, and nothing is kept."""
    chaos = Chaos(seed)
    for _ in range(40):
        chaos.step()
    for shell in chaos.shells:
        known = set(shell.endpoint._links)
        assert known >= set(shell.dtls)
        assert not known & set(shell.lost())
        for route in shell.endpoint._routes._routes.values():
            assert route.members
            assert {member.link for member in route.members} <= known
        for link in sorted(known):
            shell.endpoint.close(LinkId(link))
        assert (
            len(shell.endpoint._links)
            == len(shell.endpoint._routes)
            == len(shell.endpoint._half_open)
            == 0
        )
        assert not shell.endpoint._names
        assert not shell.endpoint._prepared
        assert shell.endpoint.next_deadline() is None


def test_chaos_lets_links_come_up_move_and_end() -> None:
    """So that the books above have something in them."""
    said = set[str]()
    for seed in range(30):
        chaos = Chaos(seed)
        for _ in range(40):
            chaos.step()
        said |= {type(each).__name__ for shell in chaos.shells for each in shell.outputs}
        said |= {reason for shell in chaos.shells for reason in shell.lost().values()}
        said |= {"up" for shell in chaos.shells if shell.up()}
    assert said >= {"up", "Secure", "Move", "LinkSuspect", "LinkSilent", "LinkAlive"}
    assert said >= {"DialFailed", "LinkLost", "timeout", "broken", "glare"}
