"""The peer "b" of one agent "a", played by hand: checks and answers as a test wants them."""

import hmac
from random import Random

from overlay.core.ice import stun
from overlay.core.types import Address, Candidate
from tests.core.ice.world import Host, World, credentials, host_candidates, make_agent


def answer_by_hand(world: World, a: Host, delays: dict[Address, float]) -> list[stun.Message]:
    """Answer A's checks as a correct peer "b" would, each address after its delay."""
    a.pokes = False
    answered: set[bytes] = set()
    requests: list[stun.Message] = []

    def tick() -> None:
        for at, datagram in list(a.sent):
            request = stun.parse(datagram.data)
            assert isinstance(request, stun.Message)
            ready = at + delays.get(datagram.target, 1e9)
            if request.transaction_id in answered or world.now < ready:
                continue
            answered.add(request.transaction_id)
            requests.append(request)
            reply = stun.binding_success(request, datagram.source)
            give(world, a, stun.encode(reply, b_key()), datagram.target)
        world.at(world.now + 0.005, tick)

    tick()
    return requests


def b_key() -> bytes:
    return credentials("b").password.encode()


def a_key() -> bytes:
    return credentials("a").password.encode()


def give(
    world: World, a: Host, data: bytes, source: Address, *, own: Address | None = None
) -> None:
    """Let A's agent receive a STUN message now, at its first address or its `own`."""
    message = stun.parse(data)
    assert isinstance(message, stun.Message)
    assert a.agent is not None
    a.agent.receive(message, source, own or a.addresses[0], world.now)
    a.perform()


def check(
    *,
    username: str = "ufraga:ufragb",
    key: bytes | None = None,
    priority: int | None = 1234,
    controlling: int | None = 1,
    controlled: int | None = None,
    use_candidate: bool = False,
    unknown: bool = False,
    random: Random | None = None,
) -> bytes:
    """A check from "b" for "a"."""
    request = stun.binding_request(
        (random or Random(0)).randbytes(12),
        username=username,
        priority=priority,
        controlling=controlling,
        controlled=controlled,
        use_candidate=use_candidate,
    )
    data = stun.encode(request, None, fingerprint=False)
    if unknown:
        data = data[:2] + (len(data) - 16).to_bytes(2, "big") + data[4:] + b"\x7f\xff\0\0"
    return sign(data, a_key() if key is None else key)


def sign(data: bytes, key: bytes) -> bytes:
    """Add the integrity to hand-made bytes."""
    data = data[:2] + (len(data) - 20 + 24).to_bytes(2, "big") + data[4:]
    return data + b"\0\x08\0\x14" + hmac.digest(key, data, "sha1")


def started(world: World, remote: Address) -> Host:
    """A host whose agent awaits the checks of "b"."""
    a = world.host("a", "10.0.0.1")
    agent = make_agent(a, controlling=False, candidates=host_candidates(a))
    agent.start(credentials("b"), [Candidate("host", remote, 1)], world.now)
    a.perform()
    a.sent.clear()
    return a


def answers(a: Host) -> list[stun.Message]:
    found = [stun.parse(datagram.data) for _, datagram in a.sent]
    return [m for m in found if isinstance(m, stun.Message) and m.message_class >= 2]
