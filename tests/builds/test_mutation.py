"""Changed packets are changed, and many of them still get past the first check."""

from random import Random

from overlay.core.ice import stun
from tests.builds.mutation import mutate, mutate_dtls, mutate_sctp, mutate_stun, sign_stun

KEY = b"a password of two dozen ch"
DATAGRAM = b"\x17\xfe\xfd" + bytes(8) + (40).to_bytes(2) + bytes(range(40))


def test_mutation_is_decided_by_its_seed_and_changes_something() -> None:
    first = [mutate(DATAGRAM, random) for random in [Random(1)] for _ in range(200)]
    again = [mutate(DATAGRAM, random) for random in [Random(1)] for _ in range(200)]
    assert first == again
    assert sum(changed != DATAGRAM for changed in first) > 190


def test_nothing_mutates_to_nothing_without_harm() -> None:
    assert mutate(b"", Random(1)) == b""


def check() -> bytes:
    """A genuine check, signed."""
    body = b"\x00\x06\x00\x04a:bc" + b"\x00\x24\x00\x04" + bytes(4)
    head = b"\x00\x01" + (0x2112A442).to_bytes(4) + bytes(range(12))
    return sign_stun(head, body, KEY)


def test_a_signed_message_reads_and_verifies() -> None:
    message = stun.parse(check())
    assert isinstance(message, stun.Message)
    assert message.integrity_ok(KEY)


def test_many_changed_checks_still_carry_a_right_signature() -> None:
    """Otherwise only the first line of the parser would be tried."""
    random = Random(1)
    changed = [mutate_stun(check(), KEY, random) for _ in range(500)]
    read = [message for data in changed if isinstance(message := stun.parse(data), stun.Message)]
    signed = [message for message in read if message.integrity_ok(KEY)]
    assert len(signed) > 50
    assert len(read) < 500, "and some are beyond reading"


def test_dtls_and_sctp_keep_their_frames_half_the_time() -> None:
    random = Random(1)
    records = [mutate_dtls(DATAGRAM, random) for _ in range(300)]
    assert sum(data[:11] == DATAGRAM[:11] for data in records) > 150
    packet = b"\x13\x88\x13\x88" + bytes(8) + b"\x03\x00\x00\x10" + bytes(12)
    packets = [mutate_sctp(packet, random) for _ in range(300)]
    assert all(data[:8] == packet[:8] for data in packets)
