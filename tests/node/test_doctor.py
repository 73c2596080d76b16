"""What the doctor says, as values and as text: plain words, 80 columns, no advice without need."""

from typing import Any

import pytest

from overlay.cli import tables
from overlay.core.connect.history import Outcome, Rung, Tried
from overlay.core.nat.behaviour import Behaviour, Dependence, Ipv6, Ports
from overlay.core.nat.observers import Observation
from overlay.core.types import Address, PeerId, Technique
from overlay.identity import peer_id_text
from overlay.node import doctor

KEYS = [
    "addresses", "mapping", "filtering", "ports", "lifetime", "hairpin", "ipv6", "udp",
    "reachable", "observers", "advice",
]  # fmt: skip
PEER = PeerId(bytes(range(32)))
OBSERVERS = tuple(
    Observation(PEER, Address("11.9.0.10", 61_000), Address(f"11.{n}.0.10", 4000)) for n in (1, 2)
)
RESTRICTED = Behaviour(
    Dependence.INDEPENDENT, Dependence.ADDRESS_PORT, Ports.RANDOM, 25.0, hairpin=False,
    observers=OBSERVERS,
)  # fmt: skip
SYMMETRIC = Behaviour(
    Dependence.ADDRESS_PORT, Dependence.ADDRESS_PORT, Ports.SEQUENTIAL, differs=True,
    observers=OBSERVERS,
)  # fmt: skip
PUBLIC = Behaviour(
    Dependence.INDEPENDENT, Dependence.INDEPENDENT, Ports.PRESERVED, reachable=True,
    observers=OBSERVERS,
)  # fmt: skip


def told(known: Behaviour, *, udp: bool | None = True) -> dict[str, Any]:
    return doctor.network(known, ["192.168.1.5:4000"], udp=udp)


def test_of_a_hidden_node_it_says_why_nothing_is_known() -> None:
    answer = doctor.network(Behaviour(observers=OBSERVERS[:1]), [], udp=True, hidden=True)
    (line,) = answer["advice"]
    assert "links.relay_only" in line


def test_with_too_few_descriptors_it_says_that_birthday_is_left_out() -> None:
    few = doctor.network(PUBLIC, [], udp=True, few_descriptors=True)
    (line,) = few["advice"]
    assert "birthday" in line
    assert "ulimit" in line
    assert not doctor.network(PUBLIC, [], udp=True)["advice"]


def test_the_object_says_what_it_has_always_said_and_in_that_order() -> None:
    answer = told(RESTRICTED)
    assert list(answer) == KEYS
    assert answer["observers"][0] == {
        "peer_id": peer_id_text(PEER), "mapped": "11.9.0.10:61000",
    }  # fmt: skip
    words = [answer[key] for key in ("mapping", "filtering", "ports", "lifetime", "hairpin")]
    assert words == ["independent", "address-port", "random", 25.0, False]


@pytest.mark.parametrize(
    ("known", "udp", "words"),
    [
        (PUBLIC, True, []),
        (Behaviour(), None, ["two are needed"]),
        (Behaviour(observers=OBSERVERS[:1]), True, ["two are needed"]),
        (Behaviour(), False, ["no_udp"]),
        (RESTRICTED, True, ["forward its UDP port"]),
        (SYMMETRIC, True, ["symmetric", "relay"]),
        (Behaviour(Dependence.INDEPENDENT, observers=OBSERVERS), True, ["nobody has been able"]),
    ],
)
def test_advice_is_for_what_is_wrong(known: Behaviour, udp: bool | None, words: list[str]) -> None:
    advice = told(known, udp=udp)["advice"]
    assert len(advice) == bool(words)
    assert all(word in advice[0] for word in words)


def test_a_closed_ipv6_and_a_short_life_have_advice_of_their_own() -> None:
    closed = Behaviour(
        Dependence.INDEPENDENT, Dependence.INDEPENDENT, Ports.PRESERVED, 2.0, ipv6=Ipv6.FIREWALLED,
        reachable=True, observers=OBSERVERS,
    )  # fmt: skip
    assert ["IPv6" in each or "idle mapping" in each for each in told(closed)["advice"]] == [
        True,
        True,
    ]


@pytest.mark.parametrize("known", [PUBLIC, RESTRICTED, SYMMETRIC, Behaviour()])
@pytest.mark.parametrize("udp", [True, False, None])
def test_the_text_fits_a_terminal(
    known: Behaviour, udp: bool | None, capsys: pytest.CaptureFixture[str]
) -> None:
    tables.print_doctor(told(known, udp=udp))
    lines = capsys.readouterr().out.splitlines()
    assert all(len(line) <= 80 for line in lines)
    assert lines[0] == "This network"
    assert "What to do" in lines


# --- a peer --------------------------------------------------------------------------------------

ICE = Tried(Rung.OFFER, Outcome.FAILED, 6.0, "no path between the two worked", Technique.LOW_TTL)
DIAL = Tried(Rung.DIAL, Outcome.CANCELLED, 0.31, "another way was faster")
CIRCUIT = Tried(Rung.CIRCUIT, Outcome.LINKED, 0.2, "")


def test_both_nats_are_named_where_they_are_the_cause() -> None:
    theirs = ("independent", "address-port", "preserved")
    answer = doctor.peer("relayed", "12D3KooW", [DIAL, ICE, CIRCUIT], SYMMETRIC.words, theirs)
    assert list(answer) == ["path", "relay", "rungs"]
    dial, offer, circuit = answer["rungs"]
    assert list(offer) == ["rung", "outcome", "seconds", "why", "technique"]
    assert (offer["technique"], dial["technique"]) == ("low-ttl", None)
    assert offer["why"].startswith("no path between the two worked; both NATs are the cause: ours")
    assert "the peer's" in offer["why"]
    assert dial["why"] == DIAL.why
    assert circuit == {
        "rung": "circuit",
        "outcome": "linked",
        "seconds": 0.2,
        "why": "",
        "technique": None,
    }


def test_no_nat_is_blamed_for_what_it_has_not_done() -> None:
    for theirs in ((), ("independent", "address", "random"), ("unknown",) * 3):
        answer = doctor.peer(None, None, [ICE], SYMMETRIC.words, theirs)
        assert answer["rungs"][0]["why"] == ICE.why


@pytest.mark.parametrize(
    ("path", "relay", "says"),
    [
        ("host", None, "directly"),
        ("reflexive", None, "directly"),
        ("relayed", "12D3KooWrelay", "through the relay relay"),
        ("relayed", None, "through a relay"),
        (None, None, "cannot be reached"),
    ],
)
def test_the_text_on_a_peer(
    path: str | None, relay: str | None, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs = ("independent", "address-port", "preserved")
    answer = doctor.peer(path, relay, [DIAL, ICE], SYMMETRIC.words, theirs)
    tables.print_doctor_of("bob", answer)
    text = capsys.readouterr().out
    assert says in " ".join(text.split())
    assert "low-ttl: no path between the two worked; both NATs are" in " ".join(text.split())
    assert all(len(line) <= 80 for line in text.splitlines())
    tables.print_doctor_of("bob", doctor.peer(path, relay, [], [], []))
    assert "Nothing has been tried lately." in capsys.readouterr().out


def test_a_ping_shows_its_path(capsys: pytest.CaptureFixture[str]) -> None:
    for answer, end in (
        ({"path": "host", "relay": None}, "(host)"),
        ({"path": "relayed", "relay": "12D3"}, "(relayed via 12D3)"),
        ({}, "12.0 ms"),
    ):
        tables.print_ping({"peer_id": "12D3KooW", "rtt": 0.012, **answer})
        assert capsys.readouterr().out.rstrip().endswith(end)
