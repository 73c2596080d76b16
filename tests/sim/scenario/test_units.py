"""Every measure has a unit, and every key that counts something."""

import pytest

from overlay.sim.scenario import measures, units
from overlay.sim.scenario.scenario import Scenario
from overlay.tables import keys, meta_of, tables


def test_every_measure_has_one_unit() -> None:
    told = [name for _, names in measures.KINDS for name in names]
    assert sorted(told) == sorted(name for names in units.MEASURES.values() for name in names)


def test_a_measure_of_a_phase_or_a_branch_has_the_unit_of_its_measure() -> None:
    assert units.of_measure("reliability_min_after") == "share"
    assert units.of_measure("last_hop_many") == "links"
    assert units.of_measure("cycles_to_heal_50") == "cycles"
    assert units.of_measure("rmr_settled_one") == "messages"
    with pytest.raises(KeyError):
        units.of_measure("nothing_of_the_kind")


def test_every_key_in_seconds_or_bytes_has_that_unit() -> None:
    """By its description, which is what the documentation shows."""
    for name, table in tables(Scenario):
        for key in keys(table):
            about = meta_of(key.kind).description.lower()
            path = ".".join(part for part in (name.strip("[]"), key.name) if part)
            if about.startswith(("seconds", "virtual seconds")):
                assert units.of_key(path) == "s", path
            if about.startswith("bytes"):
                assert units.of_key(path).startswith("B"), path
    assert units.of_key("network.loss") == "share"
    assert units.of_key("faults.0.every") == "s"
    assert units.of_key("nodes") == ""
