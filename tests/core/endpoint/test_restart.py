"""ICE restarts (RFC 8445 §9) of living associations: their records go on, on whatever path."""

import pytest

from overlay.core.events import LinkLost, LinkSilent, LinkSuspect, Restart
from overlay.core.ice import stun
from overlay.core.ice.agent import IceAgent
from overlay.core.types import Address, EndReason, IceCredentials, LinkId
from overlay.core.wire import dial_tokens as dial
from tests.core.endpoint import attacks
from tests.core.endpoint.attacks import HIGH, LOW, A, B, M, assert_bounded, talks
from tests.core.endpoint.world import Shell, World, candidates_of, make_claim

A2, B2 = Address("8.8.8.77", 1111), Address("9.9.9.77", 2222)


# --- restarts that both sides have agreed upon ---------------------------------------------------


def restarts(
    a: Shell,
    b: Shell,
    b_link: int,
    name: str = "again",
    *,
    sides: str = "ab",
    a_controls: bool = True,
    timeout: float = 10.0,
) -> None:
    """Both learn each other's fresh credentials and all addresses that they have now."""
    ours = IceCredentials("a" + name, f"password of a, {name}")
    theirs = IceCredentials("b" + name, f"password of b, {name}")
    for shell, link, controlling, local, remote, other in (
        (a, 0, a_controls, ours, theirs, b),
        (b, b_link, not a_controls, theirs, ours, a),
    ):
        if ("a" if shell is a else "b") in sides:
            effect = Restart(
                LinkId(link),
                controlling,
                local,
                remote,
                candidates_of(shell),
                candidates_of(other),
                timeout,
            )
            shell.endpoint.perform(effect, shell.world.now)
            shell.flush()


def readdress(world: World, shell: Shell, address: Address) -> None:
    """The host has this address, and has lost those that it had."""
    for old in shell.addresses:
        del world.shells[old]
    shell.addresses = (address,)
    world.shells[address] = shell


@pytest.mark.parametrize("a_controls", [True, False])
@pytest.mark.parametrize("kind", ["dialled", "negotiated"])
def test_a_restart_finds_another_path_for_dialler_and_dialled(kind: str, a_controls: bool) -> None:
    """Both addresses are others: nothing would pass without it."""
    world, a, b, b_link = attacks.linked(kind)
    readdress(world, a, A2)
    readdress(world, b, B2)
    world.run(20.0)
    assert a.said_kinds() == b.said_kinds() == ["LinkSilent"]
    restarts(a, b, b_link, a_controls=a_controls)
    world.run(1.0)
    for shell, link, remote, local in ((a, 0, B2, A2), (b, b_link, A2, B2)):
        assert shell.routes[LinkId(link)] == (remote, local)
        assert shell.said_kinds() == ["LinkSilent", "LinkAlive"]
        assert isinstance(shell.endpoint._links[LinkId(link)].ice, IceAgent)
    assert talks(world, a, b, b_link)
    assert len(a.secured()) == len(b.secured()) == 1, "the associations are the same"
    world.run(70.0)
    assert a.said_kinds() == b.said_kinds() == ["LinkSilent", "LinkAlive"]
    assert talks(world, a, b, b_link)


def test_without_a_restart_a_link_whose_ends_have_both_moved_is_lost() -> None:
    """The counter-test."""
    world, a, b, _ = attacks.linked()
    readdress(world, a, A2)
    readdress(world, b, B2)
    world.run(70.0)
    assert (a.lost(), b.lost()) == ({0: "broken"}, {1: "broken"})


@pytest.mark.parametrize("kind", ["dialled", "negotiated"])
def test_a_restart_leaves_a_path_that_works_in_use_meanwhile(kind: str) -> None:
    world, a, b, b_link = attacks.linked(kind)
    world.filter = lambda data, source, target: data[0] > 3  # no checks at all
    restarts(a, b, b_link)
    for _ in range(8):
        assert talks(world, a, b, b_link)
        world.run(1.0)
    world.filter = lambda *_: True
    assert a.lost() == b.lost() == {}


@pytest.mark.parametrize("sides", ["a", "b"])
@pytest.mark.parametrize("kind", ["dialled", "negotiated"])
def test_a_restart_that_fails_has_changed_nothing(kind: str, sides: str) -> None:
    """The other side has never heard of it: its checks are refused."""
    world, a, b, b_link = attacks.linked(kind)
    a.outputs.clear()
    b.outputs.clear()
    before = [
        shell.endpoint._links[link].ice for shell, link in ((a, LinkId(0)), (b, LinkId(b_link)))
    ]
    restarts(a, b, b_link, sides=sides)
    world.run(30.0)
    after = [
        shell.endpoint._links[link].ice for shell, link in ((a, LinkId(0)), (b, LinkId(b_link)))
    ]
    assert before == after
    assert a.outputs == b.outputs == []
    assert talks(world, a, b, b_link)
    for shell in (a, b):
        assert len(shell.endpoint._names) == 1


def test_a_restart_outlives_the_path_that_it_replaces() -> None:
    """That dies 60 s after it fell silent, and would take the association with it."""
    world, a, b, b_link = attacks.linked()
    readdress(world, a, A2)
    readdress(world, b, B2)
    world.run(55.0)
    restarts(a, b, b_link, timeout=20.0, sides="a")
    restarts(a, b, b_link, timeout=20.0, sides="b")
    world.filter = lambda *_: False
    world.run(10.0)
    assert a.lost() == b.lost() == {}
    world.filter = lambda *_: True
    world.run(2.0)
    assert talks(world, a, b, b_link)
    assert a.said_kinds() == b.said_kinds() == ["LinkSilent", "LinkAlive"]


def test_a_restart_that_fails_after_the_path_has_died_is_the_end() -> None:
    world, a, b, b_link = attacks.linked()
    readdress(world, b, B2)
    world.filter = lambda *_: False
    world.run(55.0)
    restarts(a, b, b_link, timeout=20.0)
    world.run(18.0)
    assert a.lost() == b.lost() == {}
    world.run(4.0)
    assert (a.lost(), b.lost()) == ({0: EndReason.BROKEN}, {b_link: EndReason.BROKEN})
    for shell in (a, b):
        assert not shell.endpoint._names
        assert shell.endpoint.next_deadline() is None


def test_of_two_restarts_the_later_counts_and_each_may_follow_another() -> None:
    world, a, b, b_link = attacks.linked()
    restarts(a, b, b_link, "first", sides="a")
    restarts(a, b, b_link, "second")
    world.run(1.0)
    assert b.endpoint._links[LinkId(b_link)].ice.local.ufrag == "bsecond"
    readdress(world, a, A2)
    restarts(a, b, b_link, "third", a_controls=False)
    world.run(1.0)
    assert b.routes[LinkId(b_link)] == (A2, B)
    assert talks(world, a, b, b_link)
    for shell in (a, b):
        assert len(shell.endpoint._names) == 1


def test_a_restart_of_a_link_that_is_gone_or_not_open_yet_is_ignored() -> None:
    world = World()
    a, b = Shell(world, A, seed=1), Shell(world, B, seed=2)
    a.dial(0, b, LOW)
    restarts(a, b, 1)
    b.endpoint.close(LinkId(1))
    restarts(a, b, 1)
    assert b.take() == []
    world.run(1.0)
    assert talks(world, a, b, 1)


def test_a_restarted_path_follows_its_peer_by_the_same_rule() -> None:
    world, a, b, b_link = attacks.linked()
    restarts(a, b, b_link)
    world.run(1.0)
    moved = Address("8.8.4.4", 9999)
    world.nat[A] = moved
    world.run(4.0)
    assert b.routes[LinkId(b_link)] == (moved, B)
    assert talks(world, a, b, b_link)


# --- restarts of a dialler by itself -------------------------------------------------------------


def check_of(b: Shell, attempt: bytes, dialler: str, number: int) -> bytes:
    """A check of a dial to b, which a dialler makes up by itself, token in hand."""
    claim = make_claim(attempt)
    token = dial.make_token(b.dial_key, claim.kind, claim.token_id, claim.expires_at)
    ours = dial.listener_credentials(token, claim)
    request = stun.binding_request(
        number.to_bytes(12, "big"),
        username=f"{ours.ufrag}:{dialler}",
        priority=1,
        controlling=1,
        use_candidate=True,
    )
    return stun.encode(request, ours.password.encode())


class Restarted:
    """A has dialled B as a stock peer does; then it restarts ICE and goes on from elsewhere."""

    def __init__(self, attempt: bytes = LOW, *, source: Address = A2) -> None:
        self.world, self.a, self.b, self.link = attacks.linked()
        self.a.stock = True  # its old agent is gone; the test checks for it
        if source != A:
            self.world.nat[A] = source
        self.attempt, self.source, self.number = attempt, source, 0
        self.b.outputs.clear()

    def check(self, seconds: float = 0.5) -> None:
        """The new agent checks twice a second."""
        self.number += 1
        data = check_of(self.b, self.attempt, "fresh", self.number)
        self.world.send(data, self.source, B)
        self.world.run(seconds)

    @property
    def route(self) -> tuple[Address, Address | None]:
        return self.b.routes[LinkId(self.link)]

    def talks(self) -> bool:
        return talks(self.world, self.a, self.b, self.link)


@pytest.mark.parametrize("silent", [False, True])
@pytest.mark.parametrize("attempt", [LOW, HIGH], ids=["same answer", "fresh answer"])
@pytest.mark.parametrize("source", [A, A2], ids=["same place", "elsewhere"])
def test_a_dialler_may_restart_its_ice_and_go_on_without_a_handshake(
    source: Address, attempt: bytes, silent: bool
) -> None:
    """Whether it has something to say or not: the listener asks it by HEARTBEAT."""
    life = Restarted(attempt, source=source)
    for _ in range(4):
        life.check()
        if not silent:
            life.a.write(LinkId(0), b"I am still the same")
    assert life.route == (source, B)
    assert life.talks()
    assert len(life.b.endpoint._links) == 1
    assert len(life.b.endpoint._strangers.checks) == 0
    for _ in range(60):
        life.check(1.0)  # far longer than a half-open check is answered
    assert life.talks()
    assert not life.b.said(LinkSilent)
    assert not life.b.said(LinkLost)
    assert life.b.endpoint.counters["refused_token"] == 0


def test_a_dialler_that_restarts_time_and_again_is_known_by_its_last_names() -> None:
    life = Restarted()
    for generation in range(6):
        attempt = bytes([generation]) * 16
        for number in range(4):
            data = check_of(life.b, attempt, f"fresh{generation}", 100 * generation + number)
            life.world.send(data, A2, B)
            life.world.run(0.5)
        assert life.talks()
        assert len(life.b.endpoint._names) <= 2
    assert_bounded(life.b.endpoint)
    life.b.endpoint.close(LinkId(life.link))
    assert not life.b.endpoint._names


def test_a_restarted_dialler_is_lost_without_the_nonce() -> None:
    """The counter-test: neither its checks nor its records are enough."""
    life = Restarted()
    life.a.mute = True
    for _ in range(8):
        life.check()
        life.a.write(LinkId(0), b"I am still the same")
    assert life.route == (A, B)
    assert b"I am still the same" in life.b.read[LinkId(life.link)]


def test_of_many_associations_of_one_token_the_one_of_the_attempt_is_asked() -> None:
    """Members dial with one token: the user fragment says which of them it is."""
    life = Restarted()
    others = [Shell(life.world, Address("8.8.9.1", 1000 + n), seed=50 + n) for n in range(8)]
    for number, other in enumerate(others, 1):
        other.dial(0, life.b, bytes([number]) * 16)
    life.world.run(1.0)
    before = dict(life.b.routes)
    life.check()
    assert life.route == (A2, B)
    assert life.talks()
    del before[LinkId(life.link)]
    assert before.items() <= life.b.routes.items()


def test_of_many_associations_of_one_token_a_fresh_answer_goes_on_with_the_one_in_doubt() -> None:
    life = Restarted(HIGH)
    others = [Shell(life.world, Address("8.8.9.1", 1000 + n), seed=50 + n) for n in range(8)]
    for number, other in enumerate(others, 1):
        other.dial(0, life.b, bytes([number]) * 16)
    life.world.run(10.0)
    assert life.b.said(LinkSuspect)
    for _ in range(4):
        life.check()
    assert life.route == (A2, B)
    assert life.talks()


def test_ten_records_a_second_of_a_restart_are_tried_on_one_association_and_no_more() -> None:
    """Somebody with a token who floods; the association that he names has the work."""
    life = Restarted()
    other = Shell(life.world, Address("8.8.9.1", 1000), seed=50)
    other.dial(0, life.b, HIGH)
    life.world.run(1.0)
    tried: list[LinkId] = []
    feed = life.b._feed

    def note(
        links: tuple[LinkId, ...], data: bytes, remote: Address, local: Address | None
    ) -> None:
        if remote == M:
            tried.extend(links)
        feed(links, data, remote, local)

    life.b._feed = note  # type: ignore[method-assign]
    garbage = b"\x17\xfe\xfd\x00\x01" + bytes(60)
    for number in range(2000):
        if number % 200 == 0:
            life.world.send(check_of(life.b, LOW, "flood", 10_000 + number), M, B)
        life.world.send(garbage, M, B)
        life.world.run(0.005)
    assert 80 <= len(tried) <= 111
    assert set(tried) == {life.link}
    assert life.route == (A, B)
    assert talks(life.world, other, life.b, 3)


def test_a_newcomer_with_the_same_token_is_not_taken_for_a_restart() -> None:
    """It sends its ClientHello in time, and gets an association of its own."""
    world, a, b, link = attacks.linked()
    sent: list[bytes] = []
    newcomer = Shell(world, A2, seed=9)

    def note(data: bytes, source: Address, target: Address) -> bool:
        if target == A2 and data[0] == 23 and not newcomer.up():
            sent.append(data)
        return True

    world.filter = note
    newcomer.dial(0, b, HIGH)
    world.run(1.0)
    assert newcomer.up() == [0]
    assert sent == []
    assert talks(world, newcomer, b, 3)
    assert talks(world, a, b, link)
