"""What an ICE agent makes of strangers, liars and floods: nothing, or very little."""

from collections import Counter
from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from overlay.core.ice import outputs as ice
from overlay.core.ice import stun
from overlay.core.ice.agent import IceAgent
from overlay.core.ice.checks import TA
from overlay.core.types import Address, Candidate
from tests.core.ice.by_hand import a_key, answers, b_key, check, give, started
from tests.core.ice.world import World, connected, credentials, host_candidates, make_agent, meet


def test_a_check_with_a_wrong_password_costs_nothing_and_gets_a_401() -> None:
    world, stranger = World(17), Address("203.0.113.66", 6666)
    a = started(world, Address("10.0.0.2", 5000))
    assert a.agent is not None
    before = len(a.agent._check_list)
    asked = 0
    for username in ("ufraga:ufragb", "ufraga:other", "ufragb:ufraga", "", ":"):
        for key in (b"guess", None):
            data = check(username=username, key=key or a_key())
            if key is None and username == "ufraga:ufragb":
                data = stun.encode(stun.binding_request(bytes(12), username=username), None)
            asked += len(data)
            give(world, a, data, stranger)
    assert [answer.error_code for answer in answers(a)] == [401] * 10
    assert not any(answer.integrity_at for answer in answers(a))
    assert sum(len(datagram.data) for _, datagram in a.sent) <= asked
    assert len(a.agent._check_list) == before
    assert {datagram.target for _, datagram in a.sent} == {stranger}


def test_with_wrong_passwords_two_agents_never_connect() -> None:
    world = World(18)
    a, b = world.host("a", "10.0.0.1"), world.host("b", "10.0.0.2")
    make_agent(a, controlling=True, candidates=host_candidates(a))
    make_agent(b, controlling=False, candidates=host_candidates(b))
    wrong = credentials("b")
    wrong = type(wrong)(wrong.ufrag, "x" * 24)
    assert a.agent is not None
    assert b.agent is not None
    a.agent.start(wrong, host_candidates(b), 0.0)
    b.agent.start(credentials("a"), host_candidates(a), 0.0)
    world.run_until(15.0)
    assert not connected(a)
    assert not connected(b)
    assert a.said(ice.Failed) == b.said(ice.Failed) == [ice.Failed(ice.Failure.TIMEOUT)]


def test_attributes_that_we_do_not_know_get_a_signed_420() -> None:
    world, remote = World(19), Address("10.0.0.2", 5000)
    a = started(world, remote)
    give(world, a, check(unknown=True), remote)
    (answer,) = answers(a)
    assert (answer.error_code, answer.unknown_attributes) == (420, (0x7FFF,))
    assert answer.integrity_ok(a_key())


def test_a_check_without_priority_gets_a_signed_400() -> None:
    world, remote = World(20), Address("10.0.0.2", 5000)
    a = started(world, remote)
    give(world, a, check(priority=None), remote)
    (answer,) = answers(a)
    assert answer.error_code == 400
    assert answer.integrity_ok(a_key())


def test_an_answer_from_elsewhere_or_with_a_wrong_key_counts_for_nothing() -> None:
    world, remote = World(21), Address("10.0.0.2", 5000)
    a = world.host("a", "10.0.0.1")
    agent = make_agent(a, controlling=True, candidates=host_candidates(a))
    agent.start(credentials("b"), [Candidate("host", remote, 1)], world.now)
    a.perform()
    request = stun.parse(a.sent[0][1].data)
    assert isinstance(request, stun.Message)
    assert request.transaction_id in agent._transactions
    assert bytes(12) not in agent._transactions
    reply = stun.binding_success(request, a.addresses[0])
    give(world, a, stun.encode(reply, b"guess"), remote)
    give(world, a, stun.encode(reply, None), remote)
    give(world, a, stun.encode(reply, b_key()), Address("10.0.0.3", 5000))
    reply.mapped_address = None
    give(world, a, stun.encode(reply, b_key()), remote)
    assert not a.said(ice.Mapped)
    reply.mapped_address = a.addresses[0]
    give(world, a, stun.encode(reply, b_key()), remote)
    assert a.said(ice.Mapped)


def test_a_flood_of_genuine_checks_from_everywhere_stays_bounded() -> None:
    """The peer itself, or whoever replays its checks from spoofed addresses."""
    world, remote = World(22), Address("10.0.0.2", 5000)
    a = started(world, remote)
    assert a.agent is not None
    random = Random(22)
    asked: Counter[Address] = Counter()
    for n in range(3000):
        source = Address(f"203.0.{n % 200}.{n % 13}", 1000 + n)
        data = check(random=random, priority=random.getrandbits(32))
        asked[source] += len(data)
        give(world, a, data, source)
        world.run_until(world.now + 0.001)
    got: Counter[Address] = Counter()
    for _, datagram in a.sent:
        got[datagram.target] += len(datagram.data)
    assert all(got[source] <= 3 * size for source, size in asked.items())
    assert len(a.agent._check_list) <= 100
    assert len(a.agent._transactions) <= 128
    world.run_until(11.0)
    assert a.said(ice.Failed) == [ice.Failed(ice.Failure.TIMEOUT)]


def test_checks_that_come_before_the_answer_are_kept_in_bounds() -> None:
    world = World(23)
    a = world.host("a", "10.0.0.1")
    agent = make_agent(a, controlling=False, candidates=host_candidates(a))
    random = Random(23)
    for n in range(100):
        give(world, a, check(random=random), Address("10.0.0.2", 1000 + n))
    assert len(answers(a)) == 100, "each is answered"
    assert len(agent._early) == 16, "but few are remembered"
    a.sent.clear()
    agent.start(credentials("b"), [], world.now)
    a.perform()
    targets = {datagram.target for _, datagram in a.sent}
    assert targets == {Address("10.0.0.2", 1000 + n) for n in range(16)}


def test_two_agents_do_not_excite_each_other() -> None:
    """Many checks at once trigger one; a little later there may be another."""
    world, remote = World(26), Address("10.0.0.3", 5000)
    a = started(world, Address("10.0.0.2", 5000))
    random = Random(26)

    def triggered() -> int:
        return len(a.sent) - len(answers(a))

    for _ in range(10):
        give(world, a, check(random=random), remote)
    assert (len(answers(a)), triggered()) == (10, 1)
    world.run_until(TA)
    give(world, a, check(random=random), remote)
    assert triggered() == 2


def test_a_peer_that_changes_roles_without_end_is_given_up() -> None:
    world, remote = World(24), Address("10.0.0.2", 5000)
    a = started(world, remote)
    for _ in range(10):
        assert a.agent is not None
        if a.agent.controlling:
            give(world, a, check(controlling=2**64 - 1), remote)
        else:
            give(world, a, check(controlling=None, controlled=0), remote)
    assert a.said(ice.Failed) == [ice.Failed(ice.Failure.CONFLICT)]


def test_an_established_path_outlives_a_quarrel_about_roles() -> None:
    world = World(25)
    a, b = world.host("a", "10.0.0.1"), world.host("b", "10.0.0.2")
    meet(a, b)
    assert world.run_until(5.0, lambda: connected(a, b))
    for _ in range(20):
        assert a.agent is not None
        if a.agent.controlling:
            give(world, a, check(controlling=2**64 - 1), b.addresses[0])
        else:
            give(world, a, check(controlling=None, controlled=0), b.addresses[0])
        world.run_until(world.now + 0.5)
    assert not a.said(ice.Failed)
    world.run_until(world.now + 20.0)
    assert not a.said(ice.Silent)
    assert not b.said(ice.Silent)


# --- any message at any time ---------------------------------------------------------------------

ADDRESSES = [Address("10.0.0.2", 5000), Address("10.0.0.3", 1), Address("2001:db8::2", 5000)]
numbers = st.none() | st.integers(0, 2**32 - 1)
tie_breakers = st.none() | st.integers(0, 2**64 - 1)


@st.composite
def deeds(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    """Something that happens to an agent: a genuine or false message, a packet, time, a command."""
    kind = draw(st.sampled_from(["request", "answer", "packet", "wait", "candidate", "start"]))
    return kind, {
        "method": draw(st.sampled_from([stun.BINDING] * 5 + [3])),
        "message_class": draw(st.sampled_from(stun.MessageClass)),
        "username": draw(st.sampled_from(["ufraga:ufragb", "ufraga:ufragb", "x", None])),
        "key": draw(st.sampled_from([a_key(), b_key(), b_key(), b"x", None])),
        "priority": draw(numbers),
        "use_candidate": draw(st.booleans()),
        "ice_controlling": draw(tie_breakers),
        "ice_controlled": draw(tie_breakers),
        "mapped_address": draw(st.none() | st.sampled_from(ADDRESSES)),
        "error_code": draw(st.sampled_from([None, None, None, 487, 401, 420, 699])),
        "remote": draw(st.sampled_from(ADDRESSES)),
        "local": draw(st.sampled_from([None, Address("10.0.0.1", 5000), ADDRESSES[1]])),
        "seconds": draw(st.sampled_from([0.0, 0.001, 0.02, 0.3, 2.0, 7.0, 70.0])),
        "host": draw(st.sampled_from(["10.0.0.4", "evil", "::1", "224.0.0.1"])),
    }


class Ordeal:
    """One agent, and a peer that knows the password and does whatever it likes."""

    def __init__(self, *, controlling: bool, lite: bool) -> None:
        self.now = 0.0
        candidates = [Candidate("host", Address("10.0.0.1", 5000), 9)]
        self.agent = IceAgent(
            controlling=controlling,
            local=credentials("a"),
            candidates=candidates,
            random=Random(1),
            now=0.0,
        )
        self.lite = lite
        self.asked: list[stun.Message] = []
        self.nonces = [bytes(8)]

    def start(self) -> None:
        self.agent.start(
            credentials("b"),
            [Candidate("host", each, 7) for each in ADDRESSES],
            self.now,
            remote_lite=self.lite,
        )

    def suffer(self, kind: str, how: dict[str, Any]) -> None:
        agent, now = self.agent, self.now
        match kind:
            case "request" | "answer":
                agent.receive(self.message(kind, how), how["remote"], how["local"], now)
            case "packet":
                agent.acknowledged(now)
                agent.confirmed(self.nonces[-1], how["remote"], how["local"], now)
            case "wait":
                self.now += how["seconds"]
                agent.handle_timeout(self.now)
            case "candidate":
                found = Candidate("srflx", Address(how["host"], 5000), how["priority"] or -1)
                agent.add_remote_candidate(found, now)
            case _ if agent.remote is None:
                self.start()
        self.check_bounds()

    def message(self, kind: str, how: dict[str, Any]) -> stun.Message:
        """As it comes off the wire; an answer is one to a check that the agent really sent."""
        question = self.asked[-1].transaction_id if self.asked else bytes(12)
        fields = ("username", "priority", "use_candidate", "ice_controlling", "ice_controlled")
        message = stun.Message(
            how["method"],
            stun.MessageClass.REQUEST if kind == "request" else how["message_class"],
            question if kind == "answer" else bytes(12),
            mapped_address=how["mapped_address"],
            error_code=how["error_code"],
            **{name: how[name] for name in fields},
        )
        parsed = stun.parse(stun.encode(message, how["key"]))
        assert isinstance(parsed, stun.Message)
        return parsed

    def check_bounds(self) -> None:
        """State is bounded, outputs are well-formed, and time goes forward."""
        agent = self.agent
        for output in agent.take():
            if isinstance(output, ice.Confirm):
                self.nonces.append(output.nonce)
            if isinstance(output, ice.SendStun):
                sent = stun.parse(output.data)
                assert isinstance(sent, stun.Message)
                if sent.message_class is stun.MessageClass.REQUEST:
                    self.asked.append(sent)
        assert len(agent._check_list) <= 100
        assert len(agent._transactions) <= 128
        assert len(agent._early) <= 16
        assert len(agent._confirmations) <= 32
        for _ in range(100):
            deadline = agent.next_deadline()
            if deadline is None or deadline > self.now:
                return
            agent.handle_timeout(self.now)
            agent.take()
        raise AssertionError("a deadline that never passes")


@settings(max_examples=300)
@given(st.booleans(), st.booleans(), st.booleans(), st.lists(deeds(), max_size=40))
def test_nothing_that_a_peer_can_send_makes_the_agent_raise_or_grow(
    controlling: bool, lite: bool, begin: bool, life: list[tuple[str, dict[str, Any]]]
) -> None:
    ordeal = Ordeal(controlling=controlling, lite=lite)
    if begin:
        ordeal.start()
    for kind, how in life:
        ordeal.suffer(kind, how)
