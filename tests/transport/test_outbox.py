"""The queues of a link, the timers of a transport, and the sockets' one-line errors."""

import socket

import pytest

from overlay.core.types import Address
from overlay.errors import ConfigError
from overlay.transport.alarms import Alarm, Alarms
from overlay.transport.outbox import (
    CONTROL,
    DATAGRAMS,
    MAX_DATAGRAM_LANE_BYTES,
    MAX_QUEUED_BYTES,
    Outbox,
)
from overlay.transport.udp.sockets import UdpSocket, open_sockets


def test_control_goes_before_datagrams_and_each_lane_in_order() -> None:
    outbox = Outbox()
    outbox.push_datagram(53, b"d1")
    outbox.push_control(53, b"c1")
    outbox.push_datagram(53, b"d2")
    outbox.push_control(53, b"c2")
    assert outbox.size == 8
    popped = [outbox.pop(0) for _ in range(5)]
    assert popped == [
        (CONTROL, 53, b"c1"),
        (CONTROL, 53, b"c2"),
        (DATAGRAMS, 53, b"d1"),
        (DATAGRAMS, 53, b"d2"),
        None,
    ]
    assert outbox.size == 0


def test_a_full_outbox_refuses_control_and_drops_the_oldest_datagrams() -> None:
    outbox = Outbox()
    for number in range(100):
        outbox.push_datagram(53, bytes([number]) * 1024)
    assert outbox.size == MAX_DATAGRAM_LANE_BYTES
    assert outbox.push_control(53, bytes(MAX_QUEUED_BYTES - MAX_DATAGRAM_LANE_BYTES))
    assert not outbox.push_control(53, b"!")
    outbox.pop(0)
    oldest = outbox.pop(0)
    assert oldest is not None
    assert oldest[2][0] == 36, "64 KiB of 100: the first 36 are gone"


class Endless:
    """Streams that always have something."""

    ready = True
    queued = 2 * MAX_QUEUED_BYTES

    def pop(self, limit: int) -> tuple[int, bytes]:
        return 4, bytes(limit)


def test_streams_go_last_in_pieces_of_the_size_asked_for_and_never_fill_the_outbox() -> None:
    outbox = Outbox()
    outbox.add_streams(Endless())
    assert outbox.size == 2 * MAX_QUEUED_BYTES
    assert outbox.push_control(53, b"control")
    outbox.push_datagram(53, b"datagram")
    popped = [outbox.pop(100) for _ in range(3)]
    assert [message[2] for message in popped if message] == [b"control", b"datagram", bytes(100)]
    assert outbox.pop(0) is None
    assert outbox.ready


def test_alarms_ring_in_order_once_and_not_when_cancelled() -> None:
    now, rung = 10.0, list[str]()
    alarms = Alarms(lambda: now)
    alarms.call_later(2, lambda: rung.append("late"))
    alarms.call_later(1, lambda: rung.append("first"))
    alarms.call_later(1, lambda: rung.append("second"))
    cancelled = alarms.call_later(0.5, lambda: rung.append("never"))
    cancelled.cancel()
    assert alarms.next_deadline() == 11.0
    alarms.run_due(11.0)
    alarms.run_due(11.0)
    assert rung == ["first", "second"]
    alarms.run_due(99.0)
    assert rung == ["first", "second", "late"]
    assert alarms.next_deadline() is None


def test_an_alarm_can_cancel_one_that_is_due_at_the_same_time() -> None:
    rung = list[str]()
    alarms = Alarms(lambda: 0.0)
    pending = list[Alarm]()

    def cancel_the_other() -> None:
        pending[0].cancel()

    alarms.call_later(1, cancel_the_other)
    pending.append(alarms.call_later(1, lambda: rung.append("second")))
    alarms.run_due(1.0)
    assert rung == []


def test_a_port_in_use_is_one_line_that_says_what_to_do() -> None:
    taken = UdpSocket(Address("127.0.0.1", 0))
    try:
        with pytest.raises(ConfigError, match=r"the port is in use; .*--listen"):
            UdpSocket(taken.address)
    finally:
        taken.close()


def test_a_foreign_address_is_one_line_that_says_what_to_do() -> None:
    with pytest.raises(ConfigError, match="no such address"):
        UdpSocket(Address("192.0.2.1", 0))


def test_the_ipv6_wildcard_takes_both_families_or_none() -> None:
    sockets = open_sockets(Address("::", 0))
    port = sockets[0].address.port
    for each in sockets:
        each.close()
    assert [each.address.port for each in sockets] == [port, port]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("0.0.0.0", port))
        with pytest.raises(ConfigError, match="in use"):
            open_sockets(Address("::", port))
        again = UdpSocket(Address("::", port))  # the first socket was closed again
        again.close()
