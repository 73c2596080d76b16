"""Links of shipped endpoints that run over a circuit, through a third one."""

from random import Random

import pytest

from overlay.core.addresses import circuit_address
from overlay.core.endpoint.outputs import Move
from overlay.core.events import (
    Adopt,
    DropCircuit,
    LinkAlive,
    LinkLost,
    LinkSilent,
    LinkSuspect,
    Mapped,
    RelayCircuit,
    UseCircuit,
)
from overlay.core.ice import stun
from overlay.core.ice.checklist import CheckList
from overlay.core.ice.liveness import HASTY_PATIENCE
from overlay.core.types import Address, Candidate, CircuitId, LinkId, PathKind
from overlay.core.wire.bounds import Host
from tests.core.endpoint.world import LATENCY, Shell, World, negotiate

A, B, R = Address("8.8.8.1", 1111), Address("9.9.9.2", 2222), Address("7.7.7.3", 3333)
CIRCUIT = CircuitId(b"@circuit")
OVER = circuit_address(CIRCUIT)
RATE = 1e6
ONE, OTHER = LinkId(1), LinkId(3)
"""The links of R: to A, and to B."""


def neighbours() -> tuple[World, Shell, Shell, Shell]:
    """A and B are linked to R, who relays between them; no other packet passes between the two."""
    world = World()
    a, b, r = (Shell(world, each, seed=seed) for seed, each in enumerate((A, B, R), 1))
    a.dial(0, r, b"a" * 16)
    world.run(0.5)
    b.dial(0, r, b"b" * 16)
    world.run(0.5)
    assert r.up() == [ONE, OTHER]
    world.filter = lambda _, source, target: {source, target} != {A, B}
    begin(a, b, r, CIRCUIT)
    return world, a, b, r


def begin(a: Shell, b: Shell, r: Shell, circuit: CircuitId, rate: float = RATE) -> None:
    r.endpoint.perform(RelayCircuit(circuit, ONE, OTHER, rate), r.world.now)
    for end in (a, b):
        end.endpoint.perform(UseCircuit(circuit, LinkId(0)), end.world.now)


def relayed() -> tuple[World, Shell, Shell, Shell]:
    """A has dialled B over the circuit: link 2 of A, link 1 of B."""
    world, a, b, r = neighbours()
    a.dial(2, b, b"c" * 16, address=OVER)
    world.run(1.0)
    assert (a.up(), b.up()) == ([0, 2], [0, 1])
    return world, a, b, r


def test_a_dial_over_a_circuit_makes_a_relayed_link_at_both_ends() -> None:
    world, a, b, r = relayed()
    for shell in (a, b):
        (secure,) = [each for each in shell.secured() if each.remote == OVER]
        assert (secure.local, secure.path) == (None, PathKind.RELAYED)
    a.write(LinkId(2), b"hello")
    b.write(LinkId(1), b"hello yourself")
    world.run(0.1)
    assert (a.read[LinkId(2)], b.read[LinkId(1)]) == ([b"hello yourself"], [b"hello"])
    assert not [each for each in r.read.values() if each], "the relay reads nothing"
    for shell in (a, b, r):
        assert not [kind for kind in shell.endpoint.counters if kind.startswith("circuit")]


def test_without_the_relay_there_is_no_such_link() -> None:
    world, a, b, r = neighbours()
    r.endpoint.perform(DropCircuit(CIRCUIT), world.now)
    a.dial(2, b, b"c" * 16, address=OVER)
    world.run(10.0)
    assert 2 in a.lost()
    assert r.endpoint.counters["circuit_unknown"] > 2


def test_over_a_circuit_nobody_learns_an_address() -> None:
    _, a, b, _ = relayed()
    mapped = [each for shell in (a, b) for each in shell.said(Mapped)]
    assert {(each.link, each.address) for each in mapped if isinstance(each, Mapped)} == {
        (LinkId(0), A),
        (LinkId(0), B),
    }


def test_an_answer_over_a_circuit_names_no_address() -> None:
    world, _, _, _ = relayed()
    named: list[Address | None] = []

    def listen(data: bytes, source: Address, target: Address) -> bool:
        if data.startswith(CIRCUIT + b"\1\1"):
            answer = stun.parse(data[8:])
            assert isinstance(answer, stun.Message)
            named.append(answer.mapped_address)
        return True

    world.filter = listen
    world.run(10.0)
    assert set(named) == {Address("0.0.0.0", 0)}


def test_a_peers_candidate_cannot_be_a_circuit() -> None:
    """Only a dial of our own core leads over one."""
    checks = CheckList(controlling=True, candidates=())
    for kind in ("host", "srflx", "prflx"):
        checks.add_remote(Candidate(kind, OVER, 1))
    assert not list(checks)
    assert not Host().holds(OVER.host)


def test_a_relayed_link_that_is_idle_stays_up() -> None:
    world, a, b, _ = relayed()
    world.run(120.0)
    for shell in (a, b):
        assert not [each for each in shell.outputs if isinstance(each, LinkSuspect | LinkLost)]


def test_two_ends_that_dial_at_once_over_one_circuit_get_one_link() -> None:
    world, a, b, _ = neighbours()
    a.dial(2, b, b"c" * 16, address=OVER)
    b.dial(2, a, b"d" * 16, address=OVER)
    world.run(3.0)
    assert set(a.attempts().values()) & set(b.attempts().values()) >= {b"c" * 16}
    assert (LinkId(2) in a.up(), LinkId(1) in b.up()) == (True, True)


def test_a_relayed_link_follows_when_an_end_of_its_relays_link_moves() -> None:
    """A's NAT maps it anew: R follows A's link, and the circuit with it."""
    world, a, b, r = relayed()
    world.nat[A] = Address("8.8.8.1", 9999)
    world.run(3.0)
    assert [each for each in r.outputs if isinstance(each, Move)]
    a.write(LinkId(2), b"from elsewhere")
    b.write(LinkId(1), b"to there")
    world.run(0.1)
    assert (a.read[LinkId(2)], b.read[LinkId(1)]) == ([b"to there"], [b"from elsewhere"])


def test_a_circuits_datagrams_from_elsewhere_are_dropped_at_all_three() -> None:
    world, a, b, r = relayed()
    heard: list[tuple[bytes, Address]] = []

    def listen(data: bytes, source: Address, target: Address) -> bool:
        if data.startswith(CIRCUIT) and source == A:
            heard.append((data, target))
        return {source, target} != {A, B}

    world.filter = listen
    a.write(LinkId(2), b"once")
    world.run(0.1)
    data = heard[0][0]
    before = dict(world.sent)
    for shell in (a, b, r):
        for source in (Address("6.6.6.6", 6), Address(R.host, 1), Address(A.host, 1), OVER):
            shell.receive(data, source, shell.address)
        assert shell.endpoint.counters["circuit_elsewhere"] == 4
    b.receive(data, A, B)  # the other end itself, past the relay
    assert b.endpoint.counters["circuit_elsewhere"] == 5
    assert dict(world.sent) == before, "nothing was sent on, or answered"
    assert b.read[LinkId(1)] == [b"once"]


def test_a_relay_that_doubles_drops_delays_or_alters_does_no_harm() -> None:
    world, a, b, _ = relayed()
    random = Random(3)

    def meddle(data: bytes, source: Address, target: Address) -> bool:
        if data.startswith(CIRCUIT) and source == R:
            chance = random.random()
            if chance < 0.3:
                altered = bytearray(data)
                altered[random.randrange(8, len(data))] ^= 1 << random.randrange(8)
                world.filter = lambda *_: True
                world.send(bytes(altered), source, target)
                world.send(data[: random.randrange(9, len(data) + 1)], source, target)
                world.filter = meddle
            elif chance < 0.4:
                return False
            elif chance < 0.7:
                world.filter = lambda *_: True
                world.send(data, source, target)
                world.filter = meddle
        return {source, target} != {A, B}

    world.filter = meddle
    sent = [b"%d" % number for number in range(100)]
    for each in sent:
        a.write(LinkId(2), each)
        world.run(0.05)
    got = b.read[LinkId(1)]
    assert set(got) <= set(sent)
    assert len(got) == len(set(got)), "none twice"
    assert 60 < len(got) < 100
    assert 2 in a.up()
    assert 1 in b.up()


def test_a_circuit_of_two_links_that_end_is_silent_and_not_closed() -> None:
    """The association waits: another circuit, or a direct path, may carry it on."""
    world, a, b, _ = relayed()
    a.endpoint.close(LinkId(0))
    world.run(8.0)
    assert LinkSilent(LinkId(2)) in a.outputs
    assert LinkSilent(LinkId(1)) in b.outputs
    assert not a.lost()


def test_a_second_circuit_takes_the_silent_link_over() -> None:
    """Fail-over: a dial over another circuit completes, and hands its path over."""
    world, a, b, r = relayed()
    second = CircuitId(b"Bcircuit")
    begin(a, b, r, second)
    r.endpoint.perform(DropCircuit(CIRCUIT), world.now)
    world.run(7.0)
    assert LinkSilent(LinkId(2)) in a.outputs
    a.dial(4, b, b"e" * 16, address=circuit_address(second))
    world.run(0.5)
    b.endpoint.perform(Adopt(LinkId(1), LinkId(3)), world.now)
    b.flush()
    a.endpoint.perform(Adopt(LinkId(2), LinkId(4)), world.now)
    a.flush()
    for shell, link in ((a, 2), (b, 1)):
        assert LinkAlive(LinkId(link)) in shell.outputs
        moves = [each for each in shell.said(Move) if isinstance(each, Move) and each.link == link]
        assert moves[-1].remote == circuit_address(second)
        assert moves[-1].path is PathKind.RELAYED
    a.write(LinkId(2), b"on we go")
    b.write(LinkId(1), b"and back")
    world.run(0.2)
    assert (a.read[LinkId(2)], b.read[LinkId(1)]) == ([b"and back"], [b"on we go"])


def test_a_negotiated_link_takes_a_relayed_one_over() -> None:
    """Upgrade: the direct path that a negotiation has found carries the older association."""
    world, a, b, _ = relayed()
    world.filter = lambda *_: True
    negotiate(a, b, 6, b"f" * 16)
    world.run(1.0)
    assert 6 in a.up()
    b.endpoint.perform(Adopt(LinkId(1), LinkId(6)), world.now)
    b.flush()
    a.endpoint.perform(Adopt(LinkId(2), LinkId(6)), world.now)
    a.flush()
    for shell, link in ((a, 2), (b, 1)):
        moves = [each for each in shell.said(Move) if isinstance(each, Move) and each.link == link]
        assert moves[-1].path is PathKind.HOST
    world.filter = lambda data, *_: not data.startswith(CIRCUIT)
    a.write(LinkId(2), b"directly")
    world.run(0.2)
    assert b.read[LinkId(1)] == [b"directly"]


# --- liveness ---------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["dialler", "listener"])
def test_a_dead_relay_is_suspect_soon_while_data_is_not_acknowledged(end: str) -> None:
    world, a, b, _ = relayed()
    shell, link = (a, LinkId(2)) if end == "dialler" else (b, LinkId(1))
    shell.outputs.clear()
    world.filter = lambda data, *_: not data.startswith(CIRCUIT)
    shell.endpoint.unacknowledged(link, world.now)
    shell.flush()
    world.run(2 * HASTY_PATIENCE - 0.01)
    assert not shell.outputs
    world.run(0.02)
    assert shell.outputs == [LinkSuspect(link)]


@pytest.mark.parametrize("end", ["dialler", "listener"])
def test_a_relay_that_lives_is_asked_and_not_accused(end: str) -> None:
    world, a, b, _ = relayed()
    shell, link = (a, LinkId(2)) if end == "dialler" else (b, LinkId(1))
    shell.outputs.clear()
    for _ in range(20):
        shell.endpoint.unacknowledged(link, world.now)
        shell.flush()
        world.run(0.5)
    assert not shell.outputs


def test_one_question_that_is_lost_accuses_no_relay() -> None:
    world, a, _, _ = relayed()
    a.outputs.clear()
    world.filter = lambda data, *_: not data.startswith(CIRCUIT)
    a.endpoint.unacknowledged(LinkId(2), world.now)
    a.flush()
    world.run(LATENCY)
    world.filter = lambda *_: True
    world.run(3.0)
    assert not a.outputs


def test_a_direct_path_is_asked_in_its_time() -> None:
    world, a, _, _ = relayed()
    a.outputs.clear()
    world.filter = lambda *_: False
    a.endpoint.unacknowledged(LinkId(0), world.now)
    a.flush()
    world.run(1.4)
    assert not a.outputs
