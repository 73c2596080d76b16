"""Each technique by itself: what it sends, when, how much at most, and how it ends."""

from collections import Counter
from collections.abc import Callable
from functools import partial
from random import Random

import pytest

from overlay.core.ice import stun
from overlay.core.punch.birthday import BURST, RATE, SECONDS, SOCKETS, SOCKETS_MIN, Birthday
from overlay.core.punch.machine import Ask, Check, Foretell, Machine, Over, PunchOutput
from overlay.core.punch.prediction import (
    BOTH_PACKETS,
    REPEATS,
    ROUNDS,
    WINDOW,
    Prediction,
    foretell,
    line,
)
from overlay.core.types import Address, PunchEnd, PunchRole
from overlay.core.wire.bounds import FORETOLD_MAX

PEER = Address("11.1.0.10", 40_000)
OBSERVERS = Address("5.1.0.10", 4000), Address("5.2.0.10", 4000)


def sockets(count: int) -> tuple[Address, ...]:
    return tuple(Address("192.168.1.10", 50_000 + number) for number in range(count))


def run(
    machine: Machine, until: float, begin: int | None = None
) -> list[tuple[float, PunchOutput]]:
    """All that it does by then, and when."""
    done = list[tuple[float, PunchOutput]]()
    now = 0.0
    if begin is not None:
        machine.begin(sockets(begin), now)
    while True:
        done += [(now, output) for output in machine.take()]
        deadline = machine.next_deadline()
        if deadline is None or deadline > until:
            return done
        now = max(now, deadline)
        machine.handle_timeout(now)


def ended(done: list[tuple[float, PunchOutput]]) -> list[PunchEnd]:
    return [output.end for _, output in done if isinstance(output, Over)]


# --- birthday ------------------------------------------------------------------------------------


def test_probes_are_paced_and_end() -> None:
    machine = Birthday(PunchRole.PROBES, PEER, ttl=4, random=Random(1))
    assert machine.sockets == 0
    done = run(machine, 10.0, begin=0)
    probes = [(at, each) for at, each in done if isinstance(each, Check)]
    assert len(probes) == RATE * SECONDS
    assert len({each.remote for _, each in probes}) == len(probes), "no port twice"
    assert {each.remote.host for _, each in probes} == {PEER.host}
    assert all(each.local is None and each.ttl is None for _, each in probes)
    seconds = Counter(int(at) for at, _ in probes)
    assert max(seconds.values()) <= RATE + BURST
    assert ended(done) == [PunchEnd.UNANSWERED]
    assert SECONDS <= done[-1][0] < SECONDS + 0.1


def test_openers_are_paced_low_and_aimed_at_one_address() -> None:
    machine = Birthday(PunchRole.OPENS, PEER, ttl=4, random=Random(1))
    assert machine.sockets == SOCKETS
    done = run(machine, 10.0, begin=SOCKETS)
    openers = [(at, each) for at, each in done if isinstance(each, Check)]
    assert {each.remote for _, each in openers} == {PEER}
    assert {each.ttl for _, each in openers} == {4}
    assert Counter(each.local for _, each in openers) == dict.fromkeys(sockets(SOCKETS), 3)
    assert max(Counter(int(at) for at, _ in openers).values()) <= RATE + 1
    assert openers[SOCKETS - 1][0] < 0.6
    assert ended(done) == [PunchEnd.UNANSWERED]


@pytest.mark.parametrize(("count", "ends"), [(0, [PunchEnd.SOCKETS]), (SOCKETS_MIN, [])])
def test_with_too_few_descriptors_birthday_ends_at_once(count: int, ends: list[PunchEnd]) -> None:
    machine = Birthday(PunchRole.OPENS, PEER, ttl=4, random=Random(1))
    done = run(machine, 1.0, begin=count)
    assert ended(done) == ends
    assert bool(ends) == (not [each for _, each in done if isinstance(each, Check)])


def test_a_machine_that_is_called_late_sends_no_more_at_once() -> None:
    machine = Birthday(PunchRole.PROBES, PEER, ttl=4, random=Random(1))
    machine.begin((), 0.0)
    machine.take()
    machine.handle_timeout(3.0)
    assert len(machine.take()) <= 16


# --- prediction ----------------------------------------------------------------------------------


def answered(ask: Ask, port: int) -> stun.Message:
    request = stun.parse(stun.encode(stun.binding_request(ask.transaction), None))
    assert isinstance(request, stun.Message)
    data = stun.encode(stun.binding_success(request, Address("11.2.0.10", port)), None)
    answer = stun.parse(data)
    assert isinstance(answer, stun.Message)
    return answer


def sampled(machine: Prediction, at: float, ports: tuple[int, int]) -> list[PunchOutput]:
    """What follows when both observers have told their ports."""
    asks = [each for each in machine.take() if isinstance(each, Ask)]
    assert [each.remote for each in asks] == list(OBSERVERS)
    assert machine.is_quiet
    for ask, port in zip(asks, ports, strict=True):
        machine.on_mapped(answered(ask, port), ask.remote, ask.local, at)
    return machine.take()


def opening(role: PunchRole = PunchRole.OPENS, stride: int = 1) -> Prediction:
    machine = Prediction(role, PEER, OBSERVERS, ttl=4, random=Random(1), stride=stride)
    assert machine.sockets == ROUNDS
    machine.begin(sockets(ROUNDS), 0.0)
    return machine


def test_a_round_asks_foretells_and_opens_at_once() -> None:
    machine = opening()
    done = sampled(machine, 0.03, (20_000, 20_001))
    assert done == [
        Foretell(1, (20_002, 20_003, 20_004, 20_005, 20_006)),
        Check(PEER, sockets(1)[0], 4),
    ]
    assert not machine.is_quiet


@pytest.mark.parametrize(
    ("seen", "first"),
    [([7000, 7001], 7002), ([7001, 7000], 7002), ([7000, 7002], 7004), ([7000, 7040], 7041)],
)
def test_the_next_ports_follow_the_last(seen: list[int], first: int) -> None:
    ports = foretell(seen)
    assert ports[0] == first
    assert WINDOW <= len(ports) <= FORETOLD_MAX
    assert foretell([65_534, 65_535]), "an allocator at its end begins anew"


def test_each_round_has_a_fresh_socket_and_five_are_the_end() -> None:
    machine = opening()
    done = run(machine, 10.0)
    asks = [each for _, each in done if isinstance(each, Ask)]
    assert {each.local for each in asks} == set(sockets(ROUNDS))
    assert ended(done) == [PunchEnd.UNANSWERED]
    assert done[-1][0] < 5.0
    assert not [each for _, each in done if isinstance(each, Check)], "nobody has said where it is"


def test_one_observer_is_enough_when_the_other_is_silent() -> None:
    machine = opening()
    asks = [each for each in machine.take() if isinstance(each, Ask)]
    machine.on_mapped(answered(asks[0], 20_000), asks[0].remote, asks[0].local, 0.05)
    assert machine.take() == []
    deadline = machine.next_deadline()
    assert deadline is not None
    machine.handle_timeout(deadline)
    assert machine.take()[0] == Foretell(1, foretell([20_000]))


def test_an_answer_from_elsewhere_or_to_another_socket_tells_nothing() -> None:
    machine = opening()
    asks = [each for each in machine.take() if isinstance(each, Ask)]
    answer = answered(asks[0], 20_000)
    machine.on_mapped(answer, OBSERVERS[1], asks[0].local, 0.05)
    machine.on_mapped(answer, asks[0].remote, sockets(3)[2], 0.05)
    machine.handle_timeout(0.3)
    assert not [each for each in machine.take() if isinstance(each, Foretell)]


def test_who_probes_does_so_at_the_foretold_ports_and_so_often() -> None:
    machine = Prediction(PunchRole.PROBES, PEER, (), ttl=4, random=Random(1))
    machine.begin((), 0.0)
    ports = tuple(range(20_000, 20_000 + FORETOLD_MAX))
    machine.aim(1, ports, 0.0)
    done = run(machine, 2.0)
    probes = Counter(each.remote for _, each in done if isinstance(each, Check))
    assert probes == {Address(PEER.host, port): len(REPEATS) for port in ports}
    assert not machine.is_quiet


def test_a_peer_that_foretells_without_end_gets_five_rounds() -> None:
    machine = Prediction(PunchRole.PROBES, PEER, (), ttl=4, random=Random(1))
    machine.begin((), 0.0)
    ports = tuple(range(20_000, 20_000 + FORETOLD_MAX))
    done = list[PunchOutput]()
    for number in [*range(300), 3, 2, 1]:
        machine.aim(number, ports, 0.0)
        done += machine.take()
    done += [output for _, output in run(machine, 10.0)]
    probes = [each for each in done if isinstance(each, Check)]
    assert len(probes) <= ROUNDS * len(REPEATS) * FORETOLD_MAX
    assert isinstance(done[-1], Over)
    machine.aim(1, ports, 20.0)
    assert machine.take() == []


@pytest.mark.parametrize("stride", [1, 2])
def test_where_both_number_each_sends_to_the_others_ports_in_its_own_step(stride: int) -> None:
    """The first packets die on the way, so that neither comes too early."""
    machine = opening(PunchRole.BOTH, stride=stride)
    machine.aim(1, (30_001, 30_002, 30_003, 30_004, 30_005, 30_006), 0.01)
    told, *checks = sampled(machine, 0.03, (20_000, 20_001))
    assert told == Foretell(1, (20_002, 20_003, 20_004, 20_005, 20_006))
    ports = range(30_001, 30_001 + stride * BOTH_PACKETS, stride)
    local = sockets(1)[0]
    assert checks == [Check(Address(PEER.host, port), local, 4) for port in ports]
    again = [each for at, each in run(machine, 0.15) if isinstance(each, Check)]
    assert again == [Check(Address(PEER.host, port), local, None) for port in ports]


@pytest.mark.parametrize("step", [1, 2, 4])
@pytest.mark.parametrize("other", [1, 2])
def test_two_lines_meet_whatever_flows_have_come_between(step: int, other: int) -> None:
    """Other hosts' flows took ports of both NATs after the question; by equal steps they never do.

    What packet a of one and packet b of the other have in common is that each comes from the port
    that the other goes to.
    """
    ours = foretell([20_000, 20_000 + step])
    theirs = foretell([30_000, 30_000 + step])
    for taken in range(5):
        for taken_there in range(5):
            sent = [(ours[0] + step * (taken + n), to) for n, to in enumerate(line(theirs, 1))]
            back = [
                (theirs[0] + step * (taken_there + n), to) for n, to in enumerate(line(ours, other))
            ]
            met = {(source, to) for source, to in sent} & {(to, source) for source, to in back}
            assert bool(met) == (other == 2 or taken == taken_there == 0), (taken, taken_there)


def test_the_peers_word_may_come_later_and_who_is_a_round_behind_follows() -> None:
    """Neither end begins when the other does; two that are out of step would stay so."""
    machine = opening(PunchRole.BOTH)
    assert sampled(machine, 0.03, (20_000, 20_001)) == [Foretell(1, foretell([20_000, 20_001]))]
    assert machine.is_quiet, "nothing may take the port that has been told"
    machine.aim(1, (30_001, 30_002), 0.05)
    assert next(each.remote.port for each in machine.take() if isinstance(each, Check)) == 30_001
    machine.aim(3, (30_021, 30_022), 0.06)
    told, *checks = sampled(machine, 0.1, (20_010, 20_011))
    assert told == Foretell(3, foretell([20_010, 20_011]))
    assert [each.local for each in checks if isinstance(each, Check)] == [
        sockets(3)[2]
    ] * BOTH_PACKETS
    machine.aim(2, (30_011, 30_012), 0.2)
    assert machine.take() == []


def test_what_the_peer_has_said_before_we_begin_is_not_lost() -> None:
    machine = Prediction(PunchRole.BOTH, PEER, OBSERVERS, ttl=4, random=Random(1))
    machine.aim(1, (30_001, 30_002), 0.0)
    machine.aim(2, (30_011, 30_012), 0.0)
    machine.begin(sockets(ROUNDS), 0.5)
    told, check, *_ = sampled(machine, 0.53, (20_000, 20_001))
    assert told == Foretell(2, foretell([20_000, 20_001]))
    assert check == Check(Address(PEER.host, 30_011), sockets(2)[1], 4)
    probing = Prediction(PunchRole.PROBES, PEER, (), ttl=4, random=Random(1))
    probing.aim(1, (30_001, 30_002), 0.0)
    assert probing.take() == []
    probing.begin((), 0.5)
    assert [each.remote.port for each in probing.take() if isinstance(each, Check)] == [
        30_001,
        30_002,
    ]


class Two:
    """Two ends that both number, and what goes between them and to their observers."""

    def __init__(self, way: float) -> None:
        """`way`: seconds of a word to the other end, and of an answer of the observers."""
        self.way = way
        self.ends = [
            Prediction(PunchRole.BOTH, PEER, OBSERVERS, ttl=4, random=Random(end), stride=1 + end)
            for end in (0, 1)
        ]
        self.fired = dict[Address, float](), dict[Address, float]()
        """When each socket has sent to the peer first."""
        self.calls = list[tuple[float, int, Callable[[float], None]]]()

    def run(self, late: float) -> None:
        """Until both have ended; one begins so much later."""
        for end, begin in ((0, 0.0), (1, late)):
            self.calls.append((begin, end, partial(self.ends[end].begin, sockets(ROUNDS))))
        while True:
            due = [
                (deadline, end, machine.handle_timeout)
                for end, machine in enumerate(self.ends)
                if (deadline := machine.next_deadline()) is not None
            ]
            if not due and not self.calls:
                return
            at, end, call = chosen = min([*self.calls, *due], key=lambda each: each[:2])
            if chosen in self.calls:
                self.calls.remove(chosen)
            call(at)
            for output in self.ends[end].take():
                self._perform(end, output, at)

    def _perform(self, end: int, output: PunchOutput, now: float) -> None:
        machine, peer = self.ends[end], self.ends[1 - end]
        match output:
            case Ask(_, remote, local):
                answer = answered(output, 20_000)
                call = partial(machine.on_mapped, answer, remote, local)
                self.calls.append((now + self.way, end, call))
            case Foretell(number, ports):
                call = partial(peer.aim, number, ports)
                self.calls.append((now + self.way, 1 - end, call))
            case Check(_, local) if local is not None:
                self.fired[end].setdefault(local, now)
            case _:
                pass


@pytest.mark.parametrize("late", [0.0, 0.5, 1.0, 1.5])
@pytest.mark.parametrize("way", [0.02, 0.3, 0.6])
def test_two_that_do_not_begin_at_once_fire_in_one_round(late: float, way: float) -> None:
    two = Two(way)
    two.run(late)
    one, other = two.fired
    together = [each for each in one.keys() & other if abs(one[each] - other[each]) < 2 * way + 0.1]
    assert together, two.fired


def test_a_fresh_socket_is_where_neighbours_see_it_if_it_has_one_address() -> None:
    machine = Prediction(PunchRole.OPENS, PEER, OBSERVERS, ttl=4, random=Random(1), fixed=True)
    machine.begin(sockets(ROUNDS), 0.0)
    assert sampled(machine, 0.03, (20_000, 20_000))[0] == Foretell(1, (20_000,))
