"""What attackers of an endpoint have in hand: forged checks, real ClientHellos, its own sizes."""

from random import Random

from overlay.core.endpoint.dtls_cookie import hello_verify_request, parse_client_hello
from overlay.core.endpoint.endpoint import Endpoint
from overlay.core.ice import stun
from overlay.core.types import Address, LinkId
from tests.core.endpoint.world import Dtls, Shell, World, make_dial, negotiate

A, B, M = Address("8.8.8.1", 1111), Address("9.9.9.2", 2222), Address("6.6.6.6", 6666)
LOW, HIGH = bytes(16), b"\xff" * 16


def linked(kind: str = "dialled") -> tuple[World, Shell, Shell, int]:
    """A linked to B, as link 0 at A; also what the link is called at B."""
    world = World()
    a, b = Shell(world, A, seed=1), Shell(world, B, seed=2)
    if kind == "dialled":
        a.dial(0, b, LOW)
    else:
        negotiate(a, b, 0, LOW)
    world.run(1.0)
    (link,) = b.up()
    return world, a, b, link


def talks(world: World, a: Shell, b: Shell, b_link: int) -> bool:
    text = f"at {world.now}".encode()
    a.write(LinkId(0), text)
    world.run(0.05)
    b.write(LinkId(b_link), text)
    world.run(0.05)
    return text in b.read[LinkId(b_link)] and text in a.read[LinkId(0)]


def forged_check(b: Shell, attempt: bytes, number: int) -> bytes:
    """A check by somebody who holds a valid token of B's."""
    dialled = make_dial(0, b, attempt)
    request = stun.binding_request(
        number.to_bytes(12, "big"),
        username=f"{dialled.remote.ufrag}:{dialled.local.ufrag}",
        priority=1,
        controlling=1,
        use_candidate=True,
    )
    return stun.encode(request, dialled.remote.password.encode())


def somewhere(random: Random) -> Address:
    return Address(
        f"{random.randrange(1, 120)}.{random.randrange(1, 250)}.7.8",
        1024 + random.randrange(60_000),
    )


def state_of(endpoint: Endpoint) -> dict[str, int]:
    """The size of everything that an endpoint keeps."""
    strangers = endpoint._strangers
    return {
        "links": len(endpoint._links),
        "routes": len(endpoint._routes),
        "half-open": len(endpoint._half_open),
        "asked": len(endpoint._asked),
        "answered": len(endpoint._answered),
        "half-open checks": len(strangers.checks),
        "addresses of half-open checks": len(strangers.checks._by_pair),
        "expired": len(strangers.checks._expired),
        "buckets": len(strangers.buckets),
        "allowance": len(strangers.allowance),
        "timers": len(endpoint._timers),
        "restarts": len(endpoint._redials._asked),
        "tries": len(endpoint._redials._tries),
    }


BOUNDS = {
    "half-open": 256,
    "asked": 4096,
    "answered": 4096,
    "half-open checks": 256,
    "addresses of half-open checks": 4 * 256,
    "expired": 1024,
    "buckets": 4096,
    "allowance": 4096,
    "restarts": 256,
}


def assert_bounded(endpoint: Endpoint) -> None:
    for name, size in state_of(endpoint).items():
        assert size <= BOUNDS.get(name, 64), name


def client_hello(cookie: bytes | None = None) -> bytes:
    """A ClientHello of OpenSSL's, with this cookie."""
    client = Dtls("client")
    client.shake()
    (data,) = client.outgoing()
    if cookie is not None:
        hello = parse_client_hello(data)
        assert hello is not None
        client.feed(hello_verify_request(hello, cookie))
        (data,) = client.outgoing()
    return data
