"""What a world leaves out changes nothing: the codec, real keys, the checks of idle links."""

import hashlib
from collections.abc import Callable
from typing import Any

import nacl.exceptions
import nacl.signing
import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from overlay.core.events import Effect, Resolved
from overlay.core.types import IDENTITY, PeerId
from overlay.sim.crypto import StandInCrypto
from overlay.sim.node import SimNode
from overlay.sim.world import World

SUITE = hpke.Suite(hpke.KEM.X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_128_GCM)
SIZES = [40, pytest.param(200, marks=(pytest.mark.soak, pytest.mark.timeout(600)))]


class RealKeys(StandInCrypto):
    """Ed25519 and HPKE under the names that the stand-in gives to the same secrets."""

    def sign(self, data: bytes) -> bytes:
        return bytes(nacl.signing.SigningKey(self._secret).sign(data).signature)

    def sign_with(self, seed: bytes, data: bytes) -> bytes:
        self._ledger.enrol(seed)
        return bytes(nacl.signing.SigningKey(seed).sign(data).signature)

    def verify(self, signer: PeerId, data: bytes, signature: bytes) -> bool:
        secret = self._ledger.secrets.get(signer)
        try:
            if secret is not None:
                nacl.signing.SigningKey(secret).verify_key.verify(data, signature)
        except (nacl.exceptions.CryptoError, ValueError):
            return False
        return secret is not None

    def seal(self, public: bytes, info: bytes, plaintext: bytes) -> bytes:
        key = X25519PrivateKey.from_private_bytes(self._ledger.secrets[public]).public_key()
        return SUITE.encrypt(plaintext, key, info=info)

    def open(self, prekey_id: int, info: bytes, sealed: bytes) -> bytes | None:
        held = self._prekeys.get(prekey_id)
        secret = self._secret if prekey_id == IDENTITY else held[0] if held else None
        try:
            key = X25519PrivateKey.from_private_bytes(secret) if secret is not None else None
            return SUITE.decrypt(sealed, key, info=info) if key is not None else None
        except (InvalidTag, ValueError):
            return None


def trace(
    size: int, seed: int = 1, change: Callable[[World], None] | None = None, **fidelity: Any
) -> str:
    """The hash of all that nodes do in a world of joins, a crash, broadcasts and requests."""
    world = World(seed, **fidelity)
    digest = hashlib.sha256()

    def note(node: SimNode, effect: Effect) -> None:
        peer = getattr(effect, "fields", {}).get("peer", b"")
        digest.update(
            f"{world.clock.now_us} {node.name} {type(effect).__name__}".encode() + (peer or b"")
        )

    world.observe(note)
    if change is not None:
        change(world)
    nodes = grown(world, size)
    for number, node in enumerate(nodes[::10]):
        world.crash(node)
        world.publish(nodes[-1], b"%d" % number)
        world.connect(nodes[-1], nodes[number + 1])
    world.run_for(10.0)
    return digest.hexdigest()


def grown(world: World, size: int) -> list[SimNode]:
    """A mesh that has grown through one contact, some of it reachable by negotiation only."""
    first = world.spawn()
    nodes = [first, *world.burst(size - 1, first, size / 10, firewalled=0.3)]
    world.run_for(size / 10 + 15.0)
    return nodes


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
def test_a_world_with_codec_and_real_keys_does_exactly_the_same(size: int) -> None:
    assert trace(size) == trace(size, codec=True, crypto=RealKeys)


def test_a_key_that_signs_wrongly_is_not_the_same_world() -> None:
    """The counter-test: the hash sees whether signatures hold."""

    class Forger(RealKeys):
        def sign(self, data: bytes) -> bytes:
            return bytes(64)

    assert trace(12) != trace(12, crypto=Forger)


def test_a_message_more_is_not_the_same_world() -> None:
    def lossy(world: World) -> None:
        world.at(1.0, world.rng.random)

    assert trace(12) != trace(12, change=lossy)


def measures(size: int, **fidelity: Any) -> dict[str, float]:
    """What a mesh comes to that loses a fifth of its nodes, and is cut in two for a while."""
    world = World(3, **fidelity)
    nodes = grown(world, size)
    for node in nodes[::5]:
        world.crash(node)
    world.run_for(25.0)
    survivors = world.up()
    world.publish(survivors[0], b"after the crash")
    asked = [(node, world.trace(node, survivors[-1])) for node in survivors[:20]]
    world.run_for(10.0)
    world.partition([survivors[: len(survivors) // 2]])
    world.run_for(10.0)
    world.heal()
    world.run_for(40.0)
    world.publish(survivors[0], b"after the cut")
    world.run_for(10.0)
    answers = [node.results.get(request) for node, request in asked]
    return {
        "crash": len(world.heard(b"after the crash")) / len(survivors),
        "cut": len(world.heard(b"after the cut")) / len(survivors),
        "answered": sum(isinstance(each, Resolved) for each in answers) / len(asked),
        "lonely": sum(not node.active_view() for node in survivors),
    }


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
def test_simulated_keepalives_change_no_measure(size: int) -> None:
    elided = measures(size)
    assert elided == measures(size, keepalives=True)
    assert elided == {"crash": 1.0, "cut": 1.0, "answered": 1.0, "lonely": 0}


def test_without_any_detection_the_measures_differ() -> None:
    """The counter-test: a world in which nobody notices a death is another one."""
    world = World(3)
    world.network.silence.look = lambda *_, **__: None  # type: ignore[method-assign]
    nodes = grown(world, 40)
    for node in nodes[::5]:
        world.crash(node)
    world.run_for(25.0)
    dead = {node.peer_id for node in nodes if not node.alive}
    assert any(dead & node.neighbours() for node in world.up())
