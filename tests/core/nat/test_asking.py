"""A node whose links run over IPv6 hears where its NAT shows it over IPv4, and bothers nobody."""

import random
from typing import Any

from overlay.core.context import Context, Settings
from overlay.core.events import Await, Effect, Seen, SendFrom
from overlay.core.ice import stun
from overlay.core.nat.asking import INTERVAL, RESEND, REST, SENDS, Asking
from overlay.core.nat.knocking import Neighbour
from overlay.core.nat.reflexive import Reflexive
from overlay.core.types import MAIN, Address, LinkId, PeerId
from overlay.sim.crypto import Ledger, StandInCrypto

OWN6, OWN = Address("2a00:9::10", 4000), Address("192.168.1.10", 4000)
OUTER = Address("11.9.0.10", 61_000)


class Asker:
    """A node of both families, the neighbours that it has, and whom it asks."""

    def __init__(self, *listening: Address, **reflexive: Any) -> None:
        crypto = StandInCrypto(Ledger(), random.Random(0))
        settings = Settings(bytes(32), "n", boot=1, name="asker", dial_key=bytes(32))
        self.context = Context(settings, crypto, random.Random(1))
        self.reflexive = Reflexive(**reflexive)
        self.reflexive.listen(listening or (OWN6, OWN), ())
        self.neighbours: list[Neighbour] = []
        self.asking = Asking(self.context, self.reflexive, lambda: self.neighbours)

    def neighbour(self, number: int, *, ipv6: bool = True, named: bool = True) -> Neighbour:
        at = Address(f"5.{number}.0.10", 4000)
        remote = Address(f"2a01:{number}::10", 4000) if ipv6 else at
        peer = PeerId(number.to_bytes(32, "big"))
        made = Neighbour(
            peer,
            LinkId(number),
            remote,
            OWN6 if ipv6 else OWN,
            is_public=True,
            over_ipv4=(at,) if named else (),
        )
        self.neighbours.append(made)
        return made

    def asked(self, now: float) -> list[tuple[Address, bytes]]:
        """Whom it asks at this moment, and by which transaction."""
        self.asking.on_time(now)
        effects: list[Effect] = self.context.drain()
        awaited = [each.transaction for each in effects if isinstance(each, Await)]
        found = []
        for each in effects:
            if isinstance(each, SendFrom):
                assert each.port == MAIN
                message = stun.parse(each.data)
                assert isinstance(message, stun.Message)
                found.append((each.remote, message.transaction_id))
        assert [transaction for _, transaction in found] == awaited
        return found

    def answer(self, asked: tuple[Address, bytes], now: float, mapped: Address = OUTER) -> bool:
        remote, transaction = asked
        return self.asking.on_seen(Seen(transaction, remote, mapped, OWN), now)


def test_two_neighbours_are_asked_and_asked_again_and_make_a_candidate() -> None:
    asker = Asker()
    for number in (1, 2, 3):
        asker.neighbour(number)
    assert OUTER not in [each.address for each in asker.reflexive.candidates()]
    asker.asking.consider(0.0)
    first = asker.asked(0.0)
    assert [remote.host for remote, _ in first] == ["5.1.0.10", "5.2.0.10"]
    assert not asker.answer(first[0], 0.1), "one voice stands for nothing"
    assert asker.answer(first[1], 0.1)
    (mapped,) = [each for each in asker.reflexive.candidates() if each.kind == "srflx"]
    assert (mapped.address, mapped.base) == (OUTER, OWN)
    assert asker.asked(INTERVAL) == []
    assert [remote for remote, _ in asker.asked(INTERVAL + 0.2)] == [to for to, _ in first]


def test_who_does_not_answer_is_asked_a_few_times_and_another_in_its_place() -> None:
    asker = Asker()
    for number in (1, 2, 3):
        asker.neighbour(number)
    asker.asking.consider(0.0)
    silent, other = asker.asked(0.0)
    asker.answer(other, 0.0)
    sent = [each for step in range(1, 40) for each in asker.asked(step * RESEND)]
    hosts = [remote.host for remote, _ in sent]
    assert hosts.count("5.1.0.10") == SENDS - 1
    assert hosts[SENDS - 1 :] == ["5.3.0.10"] * SENDS
    assert not asker.answer(silent, 20.0), "it comes too late"
    later = [remote.host for remote, _ in asker.asked(REST + 2 * SENDS * RESEND)]
    assert "5.1.0.10" in later


def test_nobody_is_asked_without_need() -> None:
    for asker, neighbours in (
        (Asker(), [{"ipv6": False}] * 2 + [{}]),  # links over IPv4 tell it
        (Asker(OWN6), [{}]),  # there is no IPv4
        (Asker(OWN6, Address("11.1.0.1", 4000)), [{}]),  # no NAT
        (Asker(OWN6, Address("127.0.0.1", 4000)), [{}]),
        (Asker(hidden=True), [{}]),
        (Asker(), [{"named": False}]),
    ):
        for number, told in enumerate(neighbours):
            asker.neighbour(number, **told)
        asker.asking.consider(0.0)
        assert asker.asked(0.0) == []
    one = Asker()
    one.neighbour(1, ipv6=False)
    one.neighbour(2)
    one.neighbour(3)
    one.asking.consider(0.0)
    assert len(one.asked(0.0)) == 1


def test_what_was_said_is_forgotten_with_the_neighbour_and_with_the_network() -> None:
    asker = Asker()
    asker.neighbour(1)
    asker.neighbour(2)
    asker.asking.consider(0.0)
    for each in asker.asked(0.0):
        asker.answer(each, 0.0)
    assert asker.reflexive.agreed() == [OUTER]
    asker.neighbours.pop()
    asker.asking.consider(1.0)
    assert asker.reflexive.agreed() == []
    assert asker.reflexive.observers.mapped([]) == [OUTER]
    asker.asking.on_moved((OWN6, OWN), 2.0)
    assert asker.reflexive.observers.mapped([]) == []
    assert len(asker.asked(2.0)) == 1, "it is asked anew at once"


def test_an_answer_counts_once_and_from_where_it_was_asked() -> None:
    asker = Asker()
    asker.neighbour(1)
    asker.asking.consider(0.0)
    (asked,) = asker.asked(0.0)
    elsewhere = (Address("5.66.0.1", 4000), asked[1])
    for wrong in (elsewhere, (asked[0], bytes(12))):
        asker.answer(wrong, 0.0)
        assert asker.reflexive.observers.mapped([]) == []
    asker.answer(asked, 0.0)
    asker.answer(asked, 0.0, Address("11.66.0.1", 1))
    assert asker.reflexive.observers.mapped([]) == [OUTER]
