"""The hard cases, a few of each sort, between real nodes; `make bench-nat` tries them all."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.lab.nat.hard import CASES, LEVELS, Group, Trial, missed
from tests.lab.nat.laboratory import Laboratory
from tests.lab.nat.mesh import Mesh
from tests.lab.nodes import Crew

pytestmark = [pytest.mark.netns, pytest.mark.slow, pytest.mark.needs("ip", "nft")]
TryAll = Callable[..., None]


@pytest.fixture
def try_all(laboratory: Laboratory, tmp_path: Path) -> Iterator[TryAll]:
    """Tries the cases of these names, with two public nodes beside them; all come out as told."""
    with Crew(tmp_path) as crew:

        def tried(*names: str) -> None:
            mesh = Mesh(laboratory, crew)
            mesh.public(ipv6=True)
            mesh.public(ipv6=True)
            cases = [case for case in CASES if case.name in names]
            assert len(cases) == len(names)
            outcomes = Trial(laboratory, mesh, cases).run()
            for case, outcome in zip(cases, outcomes, strict=True):
                assert not missed(case, outcome), outcome

        yield tried


def test_each_case_has_a_name_of_its_own() -> None:
    assert len({case.name for case in CASES}) == len(CASES)
    assert {case.group for case in CASES} == set(Group)
    assert len(LEVELS) == 8


def test_hosts_with_8_16_and_32_addresses_and_uplinks_of_either_family_and_both(
    try_all: TryAll,
) -> None:
    try_all(
        "8 interfaces that lead nowhere: both ends",
        "16 addresses on its LAN: both ends",
        "32 addresses, half of them of IPv6: both ends",
        "IPv4 to IPv6",
        "IPv6 to both",
        "both to IPv4",
    )


def test_a_link_and_its_stream_outlive_an_outage_and_a_degradation_of_one_end(
    try_all: TryAll,
) -> None:
    try_all("3 s, the cable", "bad Wi-Fi: who asks")
