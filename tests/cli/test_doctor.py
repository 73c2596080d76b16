"""`overlay doctor` and the paths that `ping` and `peers` show, asked of real processes."""

import pytest

from tests.cli.complaints import complaint
from tests.lab.nodes import Crew, Node

pytestmark = pytest.mark.slow


def test_doctor_is_one_object_and_text_for_people(pair: list[Node]) -> None:
    a, _ = pair
    answer = a.json("doctor")
    assert set(answer) == {
        "addresses", "mapping", "filtering", "ports", "lifetime", "hairpin", "ipv6", "udp",
        "reachable", "observers", "advice",
    }  # fmt: skip
    assert [answer[key] for key in ("mapping", "filtering", "ports")] == ["unknown"] * 3
    assert len(a.ok("doctor", "--json").splitlines()) == 1
    text = a.ok("doctor")
    assert text.startswith("This network\n")
    assert all(len(line) <= 80 for line in text.splitlines())


def test_doctor_of_a_peer_says_over_what_it_is_reached(pair: list[Node]) -> None:
    a, b = pair
    answer = a.json("doctor", "b")
    assert (answer["path"], answer["relay"]) == ("host", None)
    assert a.run("doctor", b.peer_id).returncode == 0
    assert "directly" in a.ok("doctor", "b")
    complaint(a.run("doctor", "nobody"), code=2)
    complaint(a.run("doctor", a.peer_id), code=2)


def test_paths_are_shown_where_peers_are(pair: list[Node]) -> None:
    a, _ = pair
    (row,) = a.peers()
    assert (row["path"], row["relay"]) == ("host", None)
    answer = a.json("ping", "b", "--until-direct")
    assert (answer["path"], answer["relay"]) == ("host", None)
    assert "(host)" in a.ok("ping", "b")


def test_without_a_node_doctor_says_so(crew: Crew) -> None:
    node = crew.node("alone")
    complaint(node.run("doctor"), code=3)
    complaint(node.run("doctor", "b"), code=3)


@pytest.mark.parametrize("advertised", [[], ["--advertise", "198.51.100.77:9"]])
def test_a_join_that_nothing_ever_answers_names_no_udp(crew: Crew, advertised: list[str]) -> None:
    """The counter-test: that nobody on this very machine answers says nothing of the network.

    Bound to loopback, nothing leaves this machine.
    """
    issuer = crew.node("issuer").up(*advertised)
    invite = issuer.invite()
    issuer.kill()
    options = ("--listen", "127.0.0.1:0", "--timeout", "1", "--json")
    text = complaint(crew.node("b").run("join", invite, *options))
    assert "answered within" in text
    assert ("no_udp" in text) is bool(advertised)
