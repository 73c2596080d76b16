"""One idea: M7 as its user sees it: whatever physics allows is direct, by whatever technique.

Real nodes in the NAT laboratory, asked by the command line and JSON. What is direct the laboratory
decides, by its counters; by which technique, and what was tried, the nodes say, both ends alike.
"""

import json
import re
import sys

import pytest

from tests.acceptance.black_box import sh, suite
from tests.acceptance.in_laboratory import Carrying, demonstration, doctor, doctor_of, pair_in
from tests.lab.namespaces import why_unavailable
from tests.lab.nat.laboratory import Laboratory
from tests.lab.nat.mesh import ASKED, MATRIX, PAIRS, SIZE, Mesh, connect, expected, needs_low_ttl
from tests.lab.nodes import ROOT, Crew, Json, Node, wait_for

pytestmark = [pytest.mark.netns, pytest.mark.slow, pytest.mark.needs("ip", "nft")]

TECHNIQUES = ("ice", "low-ttl", "prediction", "birthday")
BY_PREDICTION = "symmetric_sequential", "port_restricted"
BY_BIRTHDAY = "symmetric_random", "port_restricted"
FAMILIES = "IPv4", "IPv6", "both"
SOON = 5.0
"""Seconds within which prediction and birthday have made the path a direct one."""


@pytest.fixture(autouse=True)
def _can_make_namespaces() -> None:
    if why := why_unavailable():
        pytest.skip(why)


def mesh_with(laboratory: Laboratory, crew: Crew, *settings: str) -> Mesh:
    """Two public nodes, and nobody else yet; all nodes are told this."""
    mesh = Mesh(laboratory, crew, settings=tuple(part for s in settings for part in ("--set", s)))
    mesh.public()
    mesh.public()
    return mesh


@pytest.fixture
def mesh(laboratory: Laboratory, crew: Crew) -> Mesh:
    """Two public nodes, and nobody else yet."""
    return mesh_with(laboratory, crew)


def techniques(a: Node, b: Node) -> set[str | None]:
    """What both ends say of their link in `overlay peers --json`."""
    told = a.peer(b), b.peer(a)
    return {each["technique"] for each in told if each is not None}


def linked_by(mesh: Mesh, kinds: tuple[str, str], technique: str) -> None:
    """A pair that comes to be direct soon, by this technique, and says so at both ends.

    A stream begins at once, over the relay meanwhile; it is the same link, and none of the stream's
    bytes is lost or out of order.
    """
    a, b = pair_in(mesh, kinds)
    for node in (a, b):
        doctor(node, lambda told: "unknown" not in (told["mapping"], told["filtering"]))
    connect(a, b)
    since = a.peer(b)
    stream = Carrying(a, b, 64 * SIZE)
    wait_for(lambda: techniques(a, b) == {technique}, SOON, f"a path by {technique}")
    done = stream.end()
    assert done["whole"], done
    now = a.peer(b)
    assert since is not None
    assert now is not None
    assert now["since"] == since["since"], "it is the same link"
    mesh.laboratory.reset_counters()
    tried = mesh.attempt(a, b)
    assert tried.way == "direct", tried


def stays_relayed(mesh: Mesh, kinds: tuple[str, str]) -> None:
    """This pair has no direct path, however long one waits for it."""
    a, b = pair_in(mesh, kinds)
    tried = mesh.attempt(a, b, patience=SOON)
    assert tried.way == "relayed", tried
    assert techniques(a, b) == {None}


# --- 1. the same kinds in the simulator ----------------------------------------------------------


def test_1_the_laboratory_and_twenty_pair_worlds_agree_on_each_pair_of_kinds() -> None:
    """Four of the twenty in every run, all of them in `make soak`."""
    suite("tests/sim/pairs", "twenty_worlds and agree_with_the_laboratory")


def test_1_thousands_of_pair_worlds_run_in_a_minute() -> None:
    """A few run here, with what a user types; how fast thousands are, the bench has measured."""
    argv = ["-m", "benchmarks.nat", "--parts", "mix", "--pairs", "40", "--dry"]
    done = sh(sys.executable, *argv, timeout=60)
    told = json.loads(done.stdout.splitlines()[1])
    for name in ("ours", "control"):
        assert told[name]["pairs"] == told["pairs"] == 40
        assert told[name]["unreachable"] == 0
    assert told["ours"]["direct"] >= told["control"]["direct"]
    assert json.loads((ROOT / "benchmarks" / "nat-mix.json").read_text())["worlds_a_minute"] >= 2000


# --- 2. punching ---------------------------------------------------------------------------------


def test_2_low_ttl_opens_the_own_nat_and_reaches_no_other() -> None:
    """With one router a side 4 gets through and 5 does not; both ends, one end, early and late."""
    suite("tests/lab/nat", "one_router_a_side and ttl")
    suite("tests/lab/nat", "open_input_chain_are_passed")
    suite("tests/lab/nat", "too_high_a_ttl")
    for words in ("remember_an_early_packet", "first_low_checks", "burst_is_bounded"):
        suite("tests/core/ice", words)
    suite("tests/transport/udp", "low_ttl_is_one_datagrams_alone")


def test_2_a_poisoned_pair_waits() -> None:
    suite("tests/core/connect", "poisoned")


def test_2_a_poisoned_pair_recovers_by_a_fresh_socket() -> None:
    suite("tests/lab/nat", "poisoned and fresh_socket")


# --- 3. the hard cases ---------------------------------------------------------------------------


def test_3_hosts_with_many_addresses() -> None:
    suite("tests/lab/nat", "8_16_and_32_addresses")
    suite("tests/core/ice", "many_addresses")


def test_3_uplinks_of_either_family_and_both() -> None:
    suite("tests/lab/nat", "uplinks")
    suite("tests/core/nat", "two_neighbours_are_asked")


def test_3_outage_and_degradation() -> None:
    suite("tests/lab/nat", "outage")
    suite("tests/lab/nat", "degradation")
    suite("tests/core/endpoint", "handshake_has_its_time")
    suite("tests/core/ice", "answers_take_long")


MISSED = pytest.mark.xfail(strict=True, reason="one of 162 tries is amiss (docs/nat.md)")


@pytest.mark.parametrize(
    "group",
    [
        "addresses",
        "uplinks",
        "outages",
        pytest.param("degradations", marks=MISSED),
    ],
)
def test_3_all_hard_cases_come_out_as_they_must(group: str) -> None:
    """Each is tried thrice; the page is made from this file."""
    page = (ROOT / "docs" / "nat.md").read_text()
    rows = json.loads((ROOT / "benchmarks" / "nat-hard.json").read_text())["rows"]
    found = {row["name"]: row for row in rows if row["group"] == group}
    for name, row in found.items():
        assert row["tries"] >= 3, row
        assert row["ways"] == {row["outcome"]: row["tries"]}, row
        assert not row["missed"], row
        assert f"| {name} |" in page
    named = {
        "addresses": {f"{n} addresses on its LAN: both ends" for n in (8, 16, 32)},
        "uplinks": {f"{a} to {b}" for a in FAMILIES for b in FAMILIES},
        "outages": {"10 s, the cable", "10 s, beyond the router"},
        "degradations": set(),
    }
    assert named[group] <= found.keys()
    if group == "degradations":
        assert len({name.partition(":")[0] for name in found}) == 8


def test_3_what_needs_a_network_that_moves_is_named_for_later() -> None:
    assert "What needs a network that moves" in (ROOT / "docs" / "nat.md").read_text()


# --- 4. what is told -----------------------------------------------------------------------------


def test_4_low_ttl_passes_an_open_input_chain_and_peers_and_doctor_tell_of_it(mesh: Mesh) -> None:
    """Direct by a technique (plain ICE never joins these), relayed after one came to nothing, and
    dialled: which, how long and why it ended."""
    a, b = pair_in(mesh, ("open_input", "port_restricted"))
    without = *ASKED, "--set", "nat.birthday=false"
    other = mesh.members([mesh.laboratory.standing("symmetric_random")], *without)[0]
    tried = mesh.attempt(a, b)
    assert (tried.first_path, tried.way) == ("reflexive", "direct"), tried
    assert techniques(a, b) == {"low-ttl"}
    (rung,) = [each for each in doctor_of(a, b)["rungs"] if each["technique"]]
    assert (rung["rung"], rung["outcome"], rung["technique"]) == ("offer", "linked", "low-ttl")
    assert 0.0 < rung["seconds"] < SOON
    assert "low-ttl" in a.run("doctor", b.peer_id).stdout
    connect(a, other)
    if techniques(a, other) == {None}:
        wait_for(lambda: bool(ended(a, other)), 20.0, "the end of an offer")
        last = ended(a, other)[-1]
        assert last["technique"] in (None, *TECHNIQUES)
        assert last["why"]
    public = mesh.publics[0]
    assert a.peer(public) is not None
    assert techniques(a, public) <= {None, *TECHNIQUES}


def ended(a: Node, b: Node) -> list[Json]:
    """Offers that have come to nothing."""
    rungs = doctor_of(a, b)["rungs"]
    return [each for each in rungs if each["rung"] == "offer" and each["outcome"] != "linked"]


# --- must reach ----------------------------------------------------------------------------------


def test_reach_the_matrix_is_direct_wherever_a_technique_helps() -> None:
    """Five tries a pair, ten where one failed; the page is made from this file."""
    rows = json.loads((ROOT / "benchmarks" / "nat.json").read_text())
    by_pair = {(row["a"], row["b"]): row for row in rows}
    for pair in PAIRS:
        row = by_pair[pair]
        assert row["connected"] == row["tries"] >= 5
        assert row["paths"] == {expected(*pair): row["tries"]}
        assert row["max_s"] <= SOON
    assert expected(*BY_PREDICTION) == expected(*BY_BIRTHDAY) == "direct"


def test_reach_counter_without_low_ttl_exactly_the_open_input_pairs_stay_relayed(
    laboratory: Laboratory, crew: Crew
) -> None:
    """The end behind such a router offers; else it is a race."""
    mesh = mesh_with(laboratory, crew, "nat.low_ttl=0")
    kinds = "open_input", "open_input", "port_restricted", "full_cone"
    homes = [laboratory.standing(kind, nth % 2) for nth, kind in enumerate(kinds)]
    nodes = mesh.members(homes, *ASKED)
    pairs = [(0, 1), (0, 2), (0, 3), (2, 3)]
    ways = {}
    for one, other in pairs:
        tried = mesh.attempt(nodes[one], nodes[other], patience=3.0)
        ways[kinds[one], kinds[other]] = tried.way
    assert ways == {
        pair: "relayed" if needs_low_ttl(*pair) else "direct"
        for pair in ((kinds[one], kinds[other]) for one, other in pairs)
    }
    assert "low-ttl" not in {
        each["technique"] for node in nodes for each in node.peers() if each["technique"]
    }


def test_2_birthday_joins_a_random_one_and_without_prediction_sequential_ones_stay_relayed(
    laboratory: Laboratory, crew: Crew
) -> None:
    """The upgrade loses no byte, and the counter-test: see `linked_by`."""
    mesh = mesh_with(laboratory, crew, "nat.prediction=false")
    stays_relayed(mesh, BY_PREDICTION)
    linked_by(mesh, BY_BIRTHDAY, "birthday")


def test_2_prediction_joins_a_sequential_one_and_without_birthday_random_ones_stay_relayed(
    laboratory: Laboratory, crew: Crew
) -> None:
    """The upgrade loses no byte, and the counter-test: see `linked_by`."""
    mesh = mesh_with(laboratory, crew, "nat.birthday=false")
    stays_relayed(mesh, BY_BIRTHDAY)
    linked_by(mesh, BY_PREDICTION, "prediction")


def test_reach_the_fields_mix() -> None:
    """Five thousand pair worlds, and as many without any technique."""
    rows = json.loads((ROOT / "benchmarks" / "nat-mix.json").read_text())
    ours, control = rows["ours"], rows["control"]
    assert ours["pairs"] == control["pairs"] >= 5000
    assert ours["direct"] / ours["pairs"] >= 0.92
    assert 0.80 <= control["direct"] / control["pairs"] <= 0.86
    assert ours["unreachable"] == 0
    assert ours["no_udp"] > 0
    page = (ROOT / "docs" / "nat.md").read_text()
    for word in ("DCUtR", "70 ±", "iroh", "Tailscale", "90 %"):
        assert word in page, word


def test_reach_an_attempt_keeps_to_the_rules_of_the_endpoint() -> None:
    """Counted in the laboratory: packets at whoever is aimed at, a second and in all."""
    suite("tests/lab/nat", "attempt and rules")


# --- faults and abuse ----------------------------------------------------------------------------


@pytest.mark.parametrize("words", ["lies_about_its_nat", "towards_a_third_party", "never_answers"])
def test_abuse_no_more_packets_arrive_than_are_allowed(words: str) -> None:
    suite("tests/core/punch", words)


def test_faults_with_64_descriptors_birthday_is_left_out_and_says_so() -> None:
    suite("tests/lab/nat", "descriptor and birthday")


def test_faults_both_begin_at_once_and_signalling_is_slow() -> None:
    suite("tests/lab/nat", "both_begin_at_once")
    suite("tests/lab/nat", "open_input_chain_are_passed")


def test_faults_an_address_changes_in_the_middle_of_an_attempt() -> None:
    suite("tests/lab/nat", "address_that_changes and attempt")


# --- done when -----------------------------------------------------------------------------------


def test_done_the_page_has_matrix_mix_and_counter_tests_with_date_and_commit() -> None:
    assert re.search(r"^ *make bench-nat ", sh("make", "help").stdout, re.MULTILINE)
    page = (ROOT / "docs" / "nat.md").read_text()
    for kind in MATRIX:
        assert kind.replace("_", " ") in page
    for heading in ("mix", "counter-tests"):
        assert re.search(rf"^## .*{heading}", page, re.MULTILINE | re.IGNORECASE), heading
    for section in re.split(r"^## ", page, flags=re.MULTILINE):
        if re.match("overlay|Counter-tests|In the field's mix", section):
            assert re.search(r"20\d\d-\d\d-\d\d, commit [0-9a-f]{7,}\b", section), section
    rows = json.loads((ROOT / "benchmarks" / "nat-counter.json").read_text())["rows"]
    assert [row["without"] for row in rows] == ["low TTL", "prediction", "birthday"]
    for row in rows:
        assert row["relayed"]
        assert not row["missed"], row["missed"]


@pytest.mark.timeout(150)
def test_done_demo_nat_ends_with_a_table_of_techniques(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    told = demonstration(tmp_path_factory)
    assert set(told["techniques"]) >= {"ice", "low-ttl"}
    assert set(told["techniques"]) <= {*TECHNIQUES, "relayed", "dialled"}


def test_done_each_technique_has_a_witness_in_every_test_run() -> None:
    """`make test` runs this page, and none of these is awaited or left out."""
    for words in ("low_ttl_passes", "prediction_joins", "birthday_joins"):
        suite("tests/acceptance/test_m7.py", words)
