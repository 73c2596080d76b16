"""The table of circuits: what passes, what does not, and what is counted; whatever is sent."""

from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.core.addresses import circuit_address
from overlay.core.endpoint.circuits import RELAYED_MAX, REPORT_INTERVAL, USED_MAX, Circuits
from overlay.core.endpoint.endpoint import Endpoint
from overlay.core.endpoint.outputs import EndpointOutput, Send
from overlay.core.events import (
    CircuitCarried,
    DropCircuit,
    RelayCircuit,
    UseCircuit,
)
from overlay.core.types import Address, CircuitId, LinkId

A, B = Address("8.8.8.1", 1111), Address("9.9.9.2", 2222)
CIRCUIT = CircuitId(b"@circuit")
OVER = circuit_address(CIRCUIT)
RATE = 1e6
ONE, OTHER, THIRD = LinkId(1), LinkId(3), LinkId(5)
HERE = Address("1.1.1.1", 1)
PLACES = {ONE: (A, HERE), OTHER: (B, HERE), THIRD: (OVER, None)}


def table() -> tuple[Circuits, Counter[str], list[CircuitCarried]]:
    counters, said = Counter[str](), list[CircuitCarried]()
    return Circuits(counters, said.append), counters, said


def relaying(rate: float = RATE) -> tuple[Circuits, Counter[str], list[CircuitCarried]]:
    circuits, counters, said = table()
    circuits.perform(RelayCircuit(CIRCUIT, ONE, OTHER, rate), PLACES.get, 0.0)
    return circuits, counters, said


def test_what_comes_on_one_leg_leaves_by_the_other() -> None:
    circuits, counters, _ = relaying()
    data = CIRCUIT + b"\x17record"
    assert circuits.forward(data, A, HERE, 0.0) == (B, HERE)
    assert circuits.forward(data, B, HERE, 0.0) == (A, HERE)
    assert not counters


@pytest.mark.parametrize(
    ("remote", "local"),
    [
        (Address("8.8.8.1", 1112), HERE),  # the right host, a wrong port
        (Address("6.6.6.6", 1111), HERE),
        (A, Address("1.1.1.1", 2)),
        (A, None),
        (OVER, None),
    ],
)
def test_a_circuits_id_from_elsewhere_is_of_no_use(remote: Address, local: Address | None) -> None:
    circuits, counters, said = relaying()
    assert circuits.forward(CIRCUIT + b"\x17record", remote, local, 0.0) is None
    assert counters == {"circuit_elsewhere": 1}
    circuits.handle_timeout(REPORT_INTERVAL)
    assert not said


def test_an_end_hears_a_circuit_on_the_path_of_its_own_link_alone() -> None:
    """Not from the relay by another link of it, and not from the other end itself."""
    circuits, counters, _ = table()
    circuits.perform(UseCircuit(CIRCUIT, ONE), PLACES.get, 0.0)
    data = CIRCUIT + b"\x17record"
    assert circuits.forward(data, A, HERE, 0.0) is None
    assert circuits.arrived(data, A, HERE) == OVER
    assert not counters
    assert circuits.arrived(data, B, HERE) is None
    assert circuits.arrived(data, Address(A.host, 1), HERE) is None
    assert counters == {"circuit_elsewhere": 2}


@pytest.mark.parametrize("inner", [b"", b"@circuit", b"@circuit\x17", b"\x4f"])
def test_no_circuit_runs_within_a_circuit(inner: bytes) -> None:
    circuits, counters, _ = relaying()
    assert circuits.forward(CIRCUIT + inner, A, HERE, 0.0) is None
    assert counters == {"circuit_nested": 1}
    end, counters, _ = table()
    end.perform(UseCircuit(CIRCUIT, ONE), PLACES.get, 0.0)
    assert end.arrived(CIRCUIT + inner, A, HERE) is None
    assert counters == {"circuit_nested": 1}


@pytest.mark.parametrize(
    "effect",
    [
        UseCircuit(CIRCUIT, THIRD),
        RelayCircuit(CIRCUIT, ONE, THIRD, RATE),
        RelayCircuit(CIRCUIT, THIRD, ONE, RATE),
        RelayCircuit(CIRCUIT, ONE, ONE, RATE),
    ],
)
def test_no_circuit_runs_over_a_circuit_or_back(effect: UseCircuit | RelayCircuit) -> None:
    circuits, counters, _ = table()
    circuits.perform(effect, PLACES.get, 0.0)
    assert (len(circuits), counters) == (0, {"circuit_nested": 1})


def test_a_link_that_comes_to_run_over_a_circuit_carries_none() -> None:
    circuits, counters, _ = relaying()
    circuits.move(OTHER, (OVER, None))
    assert circuits.forward(CIRCUIT + b"\x17", A, HERE, 0.0) is None
    assert counters == {"circuit_nested": 1}
    circuits.move(OTHER, (B, HERE))
    assert circuits.forward(CIRCUIT + b"\x17", A, HERE, 0.0) == (B, HERE)
    end, _, _ = table()
    end.perform(UseCircuit(CIRCUIT, ONE), PLACES.get, 0.0)
    end.move(ONE, (OVER, None))
    assert end.way(OVER) is None


def test_a_link_takes_its_circuits_along_when_its_path_moves() -> None:
    circuits, counters, _ = relaying()
    moved = Address("8.8.4.4", 4)
    circuits.move(ONE, (moved, HERE))
    assert circuits.forward(CIRCUIT + b"\x17", moved, HERE, 0.0) == (B, HERE)
    assert circuits.forward(CIRCUIT + b"\x17", B, HERE, 0.0) == (moved, HERE)
    assert circuits.forward(CIRCUIT + b"\x17", A, HERE, 0.0) is None
    assert counters == {"circuit_elsewhere": 1}


@pytest.mark.parametrize("gone", [ONE, OTHER])
def test_a_link_that_ends_takes_its_circuits_with_it(gone: LinkId) -> None:
    circuits, counters, said = relaying()
    circuits.forward(CIRCUIT + b"\x17", A, HERE, 0.0)
    circuits.end(gone)
    assert said == [CircuitCarried(CIRCUIT, 9)]
    assert circuits.forward(CIRCUIT + b"\x17", A, HERE, 0.0) is None
    assert circuits.arrived(CIRCUIT + b"\x17", A, HERE) is None
    assert counters == {"circuit_unknown": 1}
    assert len(circuits) == 0
    circuits.handle_timeout(REPORT_INTERVAL)
    assert circuits.next_deadline() is None


def test_a_circuit_carries_its_rate_and_one_seconds_burst() -> None:
    circuits, counters, _ = relaying(rate=10_000.0)
    data = CIRCUIT + bytes([23]) * 992
    passed = [circuits.forward(data, A, HERE, 0.0) for _ in range(20)]
    assert [each is not None for each in passed] == [True] * 10 + [False] * 10
    assert counters == {"circuit_over_rate": 10}
    for back in (circuits.forward(data, B, HERE, 0.0), circuits.forward(data, B, HERE, 0.05)):
        assert back is None, "both ways together"
    assert circuits.forward(data, B, HERE, 0.11) == (A, HERE)
    assert sum(circuits.forward(data, A, HERE, 50.0) is not None for _ in range(20)) == 10


def test_what_was_carried_is_said_every_ten_seconds_and_idleness_never() -> None:
    circuits, _, said = relaying()
    for second in range(25):
        circuits.handle_timeout(float(second))
        circuits.forward(CIRCUIT + b"\x17", A, HERE, float(second))
    assert said == [CircuitCarried(CIRCUIT, 90), CircuitCarried(CIRCUIT, 90)]
    circuits.handle_timeout(30.0)
    assert len(said) == 3
    for second in range(31, 90):
        circuits.handle_timeout(float(second))
    assert len(said) == 3
    circuits.perform(DropCircuit(CIRCUIT), PLACES.get, 90.0)
    assert len(said) == 3


def test_there_are_no_more_circuits_than_there_may_be() -> None:
    circuits, counters, _ = table()
    for number in range(1000):
        circuit = CircuitId(b"@" + number.to_bytes(7, "big"))
        circuits.perform(RelayCircuit(circuit, ONE, OTHER, RATE), PLACES.get, 0.0)
        circuit = CircuitId(b"A" + number.to_bytes(7, "big"))
        circuits.perform(UseCircuit(circuit, ONE), PLACES.get, 0.0)
    assert len(circuits) == RELAYED_MAX + USED_MAX
    assert counters == {"circuit_crowded": 2000 - RELAYED_MAX - USED_MAX}


def test_one_id_is_one_circuits() -> None:
    """Whoever asks for an id that is taken cannot change where its datagrams go."""
    circuits, _, _ = relaying()
    circuits.perform(RelayCircuit(CIRCUIT, ONE, LinkId(7), RATE), {ONE: PLACES[ONE]}.get, 0.0)
    circuits.perform(UseCircuit(CIRCUIT, ONE), PLACES.get, 0.0)
    assert circuits.forward(CIRCUIT + b"\x17", A, HERE, 0.0) == (B, HERE)
    assert len(circuits) == 1


def test_a_circuit_over_a_link_that_has_ended_meanwhile_is_none() -> None:
    circuits, counters, _ = table()
    circuits.perform(UseCircuit(CIRCUIT, LinkId(9)), PLACES.get, 0.0)
    circuits.perform(RelayCircuit(CIRCUIT, ONE, LinkId(9), RATE), PLACES.get, 0.0)
    circuits.perform(DropCircuit(CIRCUIT), PLACES.get, 0.0)
    circuits.end(LinkId(9))
    assert (len(circuits), counters) == (0, {})


@given(
    st.lists(
        st.tuples(
            st.one_of(st.binary(max_size=40), st.binary(max_size=40).map(CIRCUIT.__add__)),
            st.sampled_from([(A, HERE), (B, HERE), (OVER, None), (Address("", 0), None)]),
        ),
        max_size=20,
    ),
    st.sampled_from(["relay", "end", "neither"]),
)
def test_no_datagram_makes_it_raise(
    datagrams: list[tuple[bytes, tuple[Address, Address | None]]], role: str
) -> None:
    endpoint = Endpoint(dial_key=bytes(32), cookie_key=bytes(32), random=Random(1))
    circuits = endpoint.circuits
    if role == "relay":
        circuits.perform(RelayCircuit(CIRCUIT, ONE, OTHER, 100.0), PLACES.get, 0.0)
    elif role == "end":
        circuits.perform(UseCircuit(CIRCUIT, ONE), PLACES.get, 0.0)
    for number, (data, pair) in enumerate(datagrams):
        endpoint.receive(data, *pair, number / 10)
        circuits.forward(data, *pair, number / 10)
        circuits.arrived(data, *pair)
    outputs: list[EndpointOutput] = []
    while (output := endpoint.poll()) is not None:
        outputs.append(output)
    assert all(isinstance(each, Send | CircuitCarried) for each in outputs)
    if role == "neither":
        assert not any(isinstance(each, Send) and each.remote in (A, B) for each in outputs)
