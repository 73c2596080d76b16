"""Keys for tests: real ones from fixed seeds, and a certificate that is made once a run."""

import functools
import hashlib

from overlay.identity import Identity, Keys, MemoryPrekeys

NETWORK = bytes(range(32))
WALL = 1_800_000_000.0
"""The instant at which most tests take place, Unix seconds."""


@functools.cache
def _certificate() -> bytes:
    return Identity.generate().certificate


def seeded(name: str) -> bytes:
    """32 bytes that are the same in every run."""
    return hashlib.sha256(b"overlay test " + name.encode()).digest()


def keys_of(name: str) -> Keys:
    """The keys of the node with this name; every call makes fresh prekeys."""
    identity = Identity(seeded(name), _certificate(), seeded(name + " dial key"))
    return Keys(identity, MemoryPrekeys())
