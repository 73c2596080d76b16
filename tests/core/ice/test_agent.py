"""Establishing a path: two agents in a seeded world of loss, firewalls and NATs."""

from collections import Counter

import pytest

from overlay.core.addresses import candidate_priority
from overlay.core.ice import outputs as ice
from overlay.core.ice import stun
from overlay.core.ice.agent import IceAgent
from overlay.core.ice.checklist import CheckList
from overlay.core.ice.checks import (
    TA,
    UNVERIFIED_BURST,
    UNVERIFIED_RATE,
    Transaction,
    Transactions,
)
from overlay.core.types import Address, Candidate, PathKind
from tests.core.ice.by_hand import answer_by_hand, b_key, check, give
from tests.core.ice.world import (
    Datagram,
    Firewall,
    Gateway,
    Host,
    Nat,
    World,
    connected,
    credentials,
    host_candidates,
    make_agent,
    meet,
)


def srflx(nat: Nat, host: Host, port: int) -> list[Candidate]:
    """Host candidates and the mapped address that neighbours have told us."""
    base = host.addresses[0]
    nat.mappings[base, None] = Address(nat.host, port)
    mapped = Candidate("srflx", Address(nat.host, port), candidate_priority("srflx"), "s", base)
    return [*host_candidates(host), mapped]


def assert_mirrored(a: Host, b: Host) -> None:
    """Both ends speak of one path: what one sends to is where the other sends from."""
    assert a.route is not None
    assert b.route is not None
    through_a = a.gateway.mappings.values() if isinstance(a.gateway, Nat) else a.addresses
    through_b = b.gateway.mappings.values() if isinstance(b.gateway, Nat) else b.addresses
    assert a.route.remote in through_b
    assert b.route.remote in through_a
    assert a.route.local in a.addresses
    assert b.route.local in b.addresses
    if a.route.remote in b.addresses and b.route.remote in a.addresses:
        assert (a.route.remote, a.route.local) == (b.route.local, b.route.remote)


# --- paths are found -----------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(40))
def test_open_hosts_with_several_addresses_connect_through_loss(seed: int) -> None:
    world = World(seed, latency=0.001 + seed * 0.005, loss=0.01 * (seed % 30))
    a = world.host("a", "10.0.0.1", "192.168.7.1", "2001:db8::1")
    b = world.host("b", "10.0.0.2", "2001:db8::2")
    meet(a, b, signalling=world.random.choice([0.0, 0.05, 2.0]))
    assert world.run_until(12.0, lambda: connected(a, b))
    assert_mirrored(a, b)
    assert {a.route.path, b.route.path} == {PathKind.HOST}  # type: ignore[union-attr]


@pytest.mark.parametrize("seed", range(40))
def test_firewalls_that_let_in_only_answers_are_passed(seed: int) -> None:
    world = World(seed, latency=0.01, loss=0.01 * (seed % 20))
    a, b = world.host("a", "10.0.0.1"), world.host("b", "10.0.0.2")
    a.gateway = Firewall()
    b.gateway = Firewall() if seed % 2 else Gateway()
    meet(a, b, signalling=0.3 * (seed % 4))
    assert world.run_until(11.0, lambda: connected(a, b))
    assert_mirrored(a, b)


@pytest.mark.parametrize("seed", range(40))
def test_two_nats_with_steady_mappings_are_passed(seed: int) -> None:
    world = World(seed, latency=0.02, loss=0.01 * (seed % 10))
    a, b = world.host("a", "192.168.0.2"), world.host("b", "192.168.1.2")
    a.gateway, b.gateway = Nat("198.51.100.1"), Nat("203.0.113.1")
    meet(a, b, srflx(a.gateway, a, 40_001), srflx(b.gateway, b, 40_002), signalling=0.1)
    assert world.run_until(12.0, lambda: connected(a, b))
    assert_mirrored(a, b)
    assert {a.route.path, b.route.path} == {PathKind.REFLEXIVE}  # type: ignore[union-attr]


def offer_of_many(nat: Nat, host: Host, port: int) -> list[Candidate]:
    """As a node makes it: the mapped address is among the first eight, however many there are."""
    *hosts, mapped = srflx(nat, host, port)
    return [*hosts[:7], mapped, *hosts[7:]]


@pytest.mark.parametrize("many", [(8, 1), (1, 8), (8, 8), (16, 16), (32, 1), (32, 32)])
@pytest.mark.parametrize("loss", [0.0, 0.2])
def test_many_addresses_do_not_put_the_way_through_two_nats_off(
    many: tuple[int, int], loss: float
) -> None:
    """All of them are on the homes' own networks, and most lead nowhere."""
    world = World(sum(many), latency=0.02, loss=loss)
    a = world.host("a", *(f"192.168.0.{n}" for n in range(2, 2 + many[0])))
    b = world.host("b", *(f"192.168.1.{n}" for n in range(2, 2 + many[1])))
    a.gateway, b.gateway = Nat("198.51.100.1"), Nat("203.0.113.1")
    offers = offer_of_many(a.gateway, a, 40_001), offer_of_many(b.gateway, b, 40_002)
    meet(a, b, *offers, signalling=0.1)
    assert world.run_until(8.0, lambda: connected(a, b))
    assert world.now < (0.5 if not loss else 5.0)
    assert {a.route.local, b.route.local} == {a.addresses[0], b.addresses[0]}  # type: ignore[union-attr]


def test_the_way_from_the_last_of_many_addresses_is_found() -> None:
    """It is the only one that leads to the peer, and too far down to be named in an offer."""
    world = World(0, latency=0.02)
    a = world.host("a", *(f"10.{n}.0.2" for n in range(16)))
    b = world.host("b", "10.15.0.9")
    world.lost = lambda datagram: (
        datagram.source in a.addresses[:-1] or (datagram.target in a.addresses[:-1])
    )
    meet(a, b, b_offers=host_candidates(b))
    assert world.run_until(8.0, lambda: connected(a, b))


@pytest.mark.parametrize("seed", range(40))
def test_a_symmetric_nat_is_met_by_peer_reflexive_candidates(seed: int) -> None:
    """The open side learns an address that nobody signalled, from the check itself."""
    world = World(seed, latency=0.02, loss=0.01 * (seed % 10))
    hidden, seen = world.host("a", "192.168.0.2"), world.host("b", "203.0.113.9")
    hidden.gateway = Nat("198.51.100.1", symmetric=True)
    first, second = (hidden, seen) if seed % 2 else (seen, hidden)
    meet(first, second, signalling=0.1)
    assert world.run_until(12.0, lambda: connected(hidden, seen))
    assert_mirrored(hidden, seen)
    assert seen.route is not None
    assert seen.route.remote.host == "198.51.100.1"
    assert seen.route.path is PathKind.REFLEXIVE
    assert [fact.address.host for fact in hidden.said(ice.Mapped)] == ["198.51.100.1"]


@pytest.mark.parametrize("controlling", [True, False])
def test_a_side_that_knows_no_candidate_learns_them_all_from_checks(controlling: bool) -> None:
    world = World(1)
    a, b = world.host("a", "10.0.0.1"), world.host("b", "10.0.0.2")
    make_agent(a, controlling=controlling, candidates=host_candidates(a))
    make_agent(b, controlling=not controlling, candidates=host_candidates(b))
    assert a.agent is not None
    assert b.agent is not None
    a.agent.start(credentials("b"), [], world.now)
    b.agent.start(credentials("a"), host_candidates(a), world.now)
    assert world.run_until(5.0, lambda: connected(a, b))
    assert_mirrored(a, b)


def test_symmetric_against_filtering_nat_fails_within_ten_seconds() -> None:
    """The counter-test of the NATs: this pair needs what ICE alone does not have."""
    world = World(1)
    a, b = world.host("a", "192.168.0.2"), world.host("b", "192.168.1.2")
    a.gateway, b.gateway = Nat("198.51.100.1", symmetric=True), Nat("203.0.113.1")
    meet(a, b, host_candidates(a), srflx(b.gateway, b, 40_002))
    world.run_until(30.0)
    assert a.said(ice.Failed) == b.said(ice.Failed) == [ice.Failed(ice.Failure.TIMEOUT)]
    assert max(a.when(ice.Failed) + b.when(ice.Failed)) <= 10.0 + 1e-9
    assert not connected(a)
    assert not connected(b)


def test_a_wildcard_candidate_lets_the_routing_table_choose_the_source() -> None:
    world = World(2)
    a, b = world.host("a", "10.0.0.1", "2001:db8::1"), world.host("b", "10.0.0.2")
    anywhere = [Candidate("host", Address("0.0.0.0", 5000), candidate_priority("host"))]
    meet(a, b, anywhere, host_candidates(b))
    assert world.run_until(5.0, lambda: connected(a, b))
    assert a.route is not None
    assert a.route.local == Address("10.0.0.1", 5000)


def test_a_remote_without_candidates_of_our_family_is_not_bothered() -> None:
    world = World(3)
    a, b = world.host("a", "10.0.0.1"), world.host("b", "2001:db8::2")
    meet(a, b)
    world.run_until(11.0)
    assert not a.sent
    assert not b.sent
    assert a.said(ice.Failed) == [ice.Failed(ice.Failure.TIMEOUT)]


def test_candidates_that_are_no_unicast_addresses_are_not_checked() -> None:
    world = World(4)
    a = world.host("a", "10.0.0.1", "2001:db8::1")
    bad = ["example.org", "224.0.0.1", "0.0.0.0", "255.255.255.255", "::", "ff02::1", "fe80::1%0"]
    offers = [Candidate("host", Address(host, 5000), 1) for host in bad]
    offers += [Candidate("host", Address("10.0.0.2", port), 1) for port in (0, -1, 65_536)]
    agent = make_agent(a, controlling=True, candidates=host_candidates(a))
    agent.start(credentials("b"), offers, 0.0)
    world.run_until(2.0)
    assert not a.sent
    agent.add_remote_candidate(Candidate("host", Address("10.0.0.2", 5000), 1), world.now)
    a.perform()
    assert [datagram.target for _, datagram in a.sent] == [Address("10.0.0.2", 5000)]


# --- checks: when, how many -----------------------------------------------------------------------


def test_the_first_check_leaves_at_once_and_the_others_at_the_pace() -> None:
    world = World(5)
    a = world.host("a", "10.0.0.1")
    agent = make_agent(a, controlling=True, candidates=host_candidates(a))
    offers = [Candidate("host", Address("10.0.1.1", 7000 + n), 100 - n) for n in range(5)]
    agent.start(credentials("b"), offers, 0.0)
    a.perform()
    assert [at for at, _ in a.sent] == [0.0]
    world.run_until(0.2)
    assert [datagram.target for _, datagram in a.sent] == [each.address for each in offers]
    assert [at for at, _ in a.sent] == pytest.approx([n * TA for n in range(5)])


def test_addresses_that_never_answer_get_few_checks() -> None:
    """A peer may name victims: at most eight, and no more than ten packets a second in all."""
    world = World(6)
    a = world.host("a", "10.0.0.1", "10.0.0.9")
    agent = make_agent(a, controlling=True, candidates=host_candidates(a))
    offers = [Candidate("host", Address("10.0.1.1", 7000 + n), 100 - n) for n in range(30)]
    agent.start(credentials("b"), offers, 0.0)
    world.run_until(20.0)
    targets = Counter(datagram.target for _, datagram in a.sent)
    assert list(targets) == [each.address for each in offers[:8]]
    assert len(a.sent) <= UNVERIFIED_BURST + 10 * UNVERIFIED_RATE
    assert min(targets.values()) >= 3, "every candidate gets its chances"


def test_a_check_that_is_lost_is_sent_again() -> None:
    world = World(7)
    a, b = world.host("a", "10.0.0.1"), world.host("b", "10.0.0.2")
    world.dark = True
    meet(a, b)
    world.run_until(3.0)
    assert not connected(a)
    world.dark = False
    assert world.run_until(5.0, lambda: connected(a, b))


def seconds_until_punched(monkeypatch: pytest.MonkeyPatch, *, triggered: bool) -> float:
    """A filters; its first check dies at B's firewall, B's check then reaches A."""
    world = World(8, latency=0.02)
    a, b = world.host("a", "10.0.0.1"), world.host("b", "10.0.0.2")
    a.gateway, b.gateway = Firewall(), Firewall()
    if not triggered:
        waits = IceAgent._trigger

        def only_idle(self: IceAgent, pair: object, now: float) -> None:
            if pair.state.value != "in progress":  # type: ignore[attr-defined]
                waits(self, pair, now)  # type: ignore[arg-type]

        monkeypatch.setattr(IceAgent, "_trigger", only_idle)
    meet(a, b, signalling=0.03)
    assert world.run_until(11.0, lambda: connected(a, b))
    return world.now


def test_a_check_is_triggered_while_another_is_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three round trips do; without the triggered check a retransmission has to come first."""
    assert seconds_until_punched(monkeypatch, triggered=True) < 0.03 + 3 * 0.05
    assert seconds_until_punched(monkeypatch, triggered=False) > 0.25


def test_checks_that_come_before_the_answer_are_answered_and_kept() -> None:
    world = World(9)
    a, b = world.host("a", "10.0.0.1"), world.host("b", "10.0.0.2")
    meet(a, b, signalling=1.0)
    world.run_until(0.9)
    assert len(b.said(ice.Mapped)) == 1, "A has answered"
    assert not a.said(ice.Mapped), "but does not know whom to ask"
    started = world.now
    assert world.run_until(5.0, lambda: connected(a, b))
    assert world.now - started < 0.1 + 5 * 0.02


# --- nomination ---------------------------------------------------------------------------------


def test_the_best_pair_is_nominated_without_waiting() -> None:
    world = World(10, latency=0.05)
    a, b = world.host("a", "10.0.0.1"), world.host("b", "10.0.0.2", "10.0.0.3")
    meet(a, b)
    assert world.run_until(5.0, lambda: connected(a, b))
    assert world.now < 4.9 * 0.05, "two round trips, and no grace"
    assert a.route is not None
    assert a.route.remote == b.addresses[0]


@pytest.mark.parametrize(
    ("heard", "delay", "chosen"), [(True, 0.06, 0), (False, 0.06, 1), (True, 0.3, 1)]
)
def test_a_better_pair_is_awaited_for_a_round_trip_from_its_last_check(
    heard: bool, delay: float, chosen: int
) -> None:
    """B's second address answers after 50 ms; had the first been as quick, so had it by then.

    Unless its own check has just come: that opened the way, and the one that it triggers may take
    as long again.
    """
    world = World(11)
    a = world.host("a", "10.0.0.1")
    remotes = [Address("10.0.0.2", 5000), Address("10.0.0.3", 5000)]
    agent = make_agent(a, controlling=True, candidates=host_candidates(a))
    offers = [Candidate("host", each, 1000 - n) for n, each in enumerate(remotes)]
    agent.start(credentials("b"), offers, 0.0)
    a.perform()
    if heard:
        checked = check(controlling=None, controlled=1)
        world.at(0.04, lambda: give(world, a, checked, remotes[0]))
    answer_by_hand(world, a, {remotes[0]: delay, remotes[1]: 0.03})
    assert world.run_until(3.0, lambda: connected(a))
    assert a.route is not None
    assert a.route.remote == remotes[chosen]


def test_the_handshake_need_not_wait_for_the_answer_to_the_nomination() -> None:
    """A valid pair may carry data (RFC 8445 §12.1)."""
    world = World(11)
    a, remote = world.host("a", "10.0.0.1"), Address("10.0.0.2", 5000)
    agent = make_agent(a, controlling=True, candidates=host_candidates(a))
    agent.start(credentials("b"), [Candidate("host", remote, 1000)], 0.0)
    a.perform()
    requests = answer_by_hand(world, a, {remote: 0.1})
    world.run_until(0.15)
    assert [each.use_candidate for each in requests] == [False]
    assert [each.remote for each in a.said(ice.Nominated)] == [remote]
    assert not connected(a)
    assert world.run_until(0.25, lambda: connected(a))
    assert [each.use_candidate for each in requests] == [False, True]


def test_a_nomination_that_is_never_answered_gives_the_next_pair_its_turn() -> None:
    world = World(12)
    a = world.host("a", "10.0.0.1")
    good, bad = Address("10.0.0.3", 5000), Address("10.0.0.2", 5000)
    agent = make_agent(a, controlling=True, candidates=host_candidates(a))
    offers = [Candidate("host", bad, 1000), Candidate("host", good, 500)]
    agent.start(credentials("b"), offers, 0.0)
    a.perform()
    seen: set[bytes] = set()

    def tick() -> None:
        for _, datagram in list(a.sent):
            request = stun.parse(datagram.data)
            assert isinstance(request, stun.Message)
            if request.transaction_id in seen or (datagram.target == bad and request.use_candidate):
                continue
            seen.add(request.transaction_id)
            reply = stun.binding_success(request, datagram.source)
            give(world, a, stun.encode(reply, b_key()), datagram.target)
        world.at(world.now + 0.01, tick)

    tick()
    assert world.run_until(9.0, lambda: connected(a))
    assert a.route is not None
    assert a.route.remote == good


def test_the_only_way_is_tried_again_when_its_nomination_gets_lost() -> None:
    """As long as one takes to be given up, every packet that nominates is lost."""
    world = World(12)
    a, b = world.host("a", "10.0.0.1"), world.host("b", "10.0.0.2")

    def is_lost(datagram: Datagram) -> bool:
        request = stun.parse(datagram.data)
        return isinstance(request, stun.Message) and request.use_candidate and world.now < 6.0

    world.lost = is_lost
    meet(a, b)
    assert world.run_until(9.5, lambda: connected(a, b))
    assert world.now > 6.0


def test_what_is_due_where_the_peer_has_been_heard_is_sent_again_first() -> None:
    transactions = Transactions()
    remotes = [Address("10.0.0.2", port) for port in (1, 2)]
    check_list = CheckList(controlling=True, candidates=[])
    for number, remote in enumerate(remotes):
        pair = check_list.learn(None, remote, 9)
        assert pair is not None
        pair.heard = remote == remotes[1]
        transactions.add(
            Transaction(
                bytes([number]), pair, b"", b"", controlling=True, nominate=False, rescue=False,
                sends_left=3, sent_at=0.0, rto=0.1 * (1 + number),
            ),
            0.0,
        )  # fmt: skip
    due = transactions.next_due(1.0)
    assert due is not None
    assert due.pair.remote == remotes[1], "though the other has waited longer"


def test_against_a_lite_listener_the_first_check_nominates() -> None:
    world = World(13)
    a = world.host("a", "10.0.0.1")
    listener = Address("203.0.113.5", 443)
    agent = make_agent(a, controlling=True, candidates=[])
    agent.start(credentials("b"), [Candidate("host", listener, 1)], 0.0, remote_lite=True)
    a.perform()
    requests = answer_by_hand(world, a, {listener: 0.02})
    assert world.run_until(1.0, lambda: connected(a))
    assert len(a.sent) == 1
    assert requests[0].use_candidate
    assert requests[0].ice_controlling is not None
    world.run_until(3.0)
    assert not requests[-1].use_candidate, "the checks that keep it alive nominate nothing"
    assert requests[-1] is not requests[0]


def test_a_controlled_agent_waits_for_the_nomination() -> None:
    """Valid pairs are not enough (RFC 8445 §8.1.1)."""
    world = World(14)
    a = world.host("a", "10.0.0.1")
    remote = Address("10.0.0.2", 5000)
    agent = make_agent(a, controlling=False, candidates=host_candidates(a))
    agent.start(credentials("b"), [Candidate("host", remote, 1)], 0.0)
    a.perform()
    answer_by_hand(world, a, {remote: 0.01})
    world.run_until(2.0)
    assert not connected(a)
    give(world, a, check(use_candidate=True), remote)
    assert connected(a)


# --- roles --------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("both", [True, False])
def test_two_that_claim_one_role_agree_on_one_each(seed: int, both: bool) -> None:
    world = World(seed, loss=0.01 * (seed % 10))
    a, b = world.host("a", "10.0.0.1"), world.host("b", "10.0.0.2")
    for host, other in ((a, b), (b, a)):
        agent = make_agent(host, controlling=both, candidates=host_candidates(host))
        agent.start(credentials(other.name), host_candidates(other), world.now)
    assert world.run_until(11.0, lambda: connected(a, b))
    assert a.agent is not None
    assert b.agent is not None
    assert a.agent.controlling is not b.agent.controlling
    assert_mirrored(a, b)


def test_a_peer_that_refuses_every_role_is_given_up() -> None:
    world = World(15)
    a = world.host("a", "10.0.0.1")
    remote = Address("10.0.0.2", 5000)
    agent = make_agent(a, controlling=True, candidates=host_candidates(a))
    agent.start(credentials("b"), [Candidate("host", remote, 1)], 0.0)
    a.perform()
    for at in range(20):
        _, datagram = a.sent[-1]
        request = stun.parse(datagram.data)
        assert isinstance(request, stun.Message)
        give(world, a, stun.encode(stun.binding_error(request, 487), b_key()), remote)
        world.run_until(0.1 * at)
    assert a.said(ice.Failed) == [ice.Failed(ice.Failure.CONFLICT)]
    assert len(a.sent) < 10


def test_an_unsigned_role_conflict_moves_nobody() -> None:
    world = World(16)
    a = world.host("a", "10.0.0.1")
    remote = Address("10.0.0.2", 5000)
    agent = make_agent(a, controlling=True, candidates=host_candidates(a))
    agent.start(credentials("b"), [Candidate("host", remote, 1)], 0.0)
    a.perform()
    request = stun.parse(a.sent[0][1].data)
    assert isinstance(request, stun.Message)
    for key in (None, b"guess"):
        give(world, a, stun.encode(stun.binding_error(request, 487), key), remote)
    assert agent.controlling
    give(world, a, stun.encode(stun.binding_error(request, 487), b_key()), remote)
    assert not agent.controlling
