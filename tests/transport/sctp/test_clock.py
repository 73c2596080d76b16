"""The clock of an association is handed in: a step of the wall clock touches nothing."""

import pytest

from tests.transport.sctp.test_association import heard, say, up
from tests.transport.sctp.wire import Wire

Measured = tuple[float | None, float | None, float]


class Wall:
    """A wall clock that somebody sets while data is in flight."""

    def __init__(self, wire: Wire) -> None:
        self.ahead = 1.8e9
        self.reads = 0
        self._wire = wire

    def read(self) -> float:
        self.reads += 1
        return self.ahead + self._wire.time


def talk(monkeypatch: pytest.MonkeyPatch, loss: float, step: float) -> tuple[list[Measured], Wall]:
    """SRTT, RTTVAR and RTO after each message; the wall clock steps under every fifth."""
    wire, alice, bob = up()
    wall = Wall(wire)
    monkeypatch.setattr("time.time", wall.read)
    wire.loss, wire.jitter = loss, 0.03
    measured: list[Measured] = []
    for count in range(60):
        say(alice, bytes(3000))
        wire.run(lambda: False, 0.001)
        if count % 5 == 4:
            wall.ahead += step
        wire.run(lambda: alice.association.idle, 1.3)
        association = alice.association
        measured.append((association._srtt, association._rttvar, association._rto))
    assert wire.run(lambda: len(heard(bob)) == 60)
    return measured, wall


@pytest.mark.parametrize("loss", [0.0, 0.1])
@pytest.mark.parametrize("step", [3600.0, -3600.0, 20.0, -0.01])
async def test_a_step_of_the_wall_clock_does_not_touch_a_round_trip_time(
    loop: None, monkeypatch: pytest.MonkeyPatch, step: float, loss: float
) -> None:
    stepped, wall = talk(monkeypatch, loss, step)
    steady, _ = talk(monkeypatch, loss, 0.0)
    assert stepped == steady
    assert wall.reads == 0, "an association has no business with the wall clock"
    assert steady[-1][0] is not None
    assert 0.01 < steady[-1][0] < 0.15, "counter-test: the path was measured"
