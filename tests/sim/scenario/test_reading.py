"""Scenarios in TOML: every mistake is one line that names file, key and what is allowed."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from overlay.errors import ConfigError
from overlay.sim.scenario import reading
from overlay.sim.scenario.profiles import PAPER, chosen, config_diff
from overlay.sim.scenario.reading import assignments, load, read
from overlay.sim.scenario.scenario import Fault, Scenario
from overlay.tables import keys, tables

ROOT = Path(__file__).resolve().parents[3]
PUBLISH = {"start": 10.0, "stop": 20.0}


def of(**changes: Any) -> Scenario:
    return read({"nodes": 10, "duration": 60.0, **changes}, "file.toml")


def figures(**changes: Any) -> dict[str, Any]:
    """One table ``[[published]]``."""
    return {"name": "p", "source": "s", "measures": ["degree"], "values": [4.7], **changes}


def wrong(**changes: Any) -> str:
    """What is said of a scenario with these keys: one line."""
    with pytest.raises(ConfigError) as caught:
        of(**changes)
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize(
    "path", sorted((ROOT / "simulations").glob("*.toml")), ids=lambda p: p.stem
)
def test_every_scenario_that_ships_can_be_read_and_says_what_it_is_about(path: Path) -> None:
    scenario = load(path)
    assert scenario.about
    assert scenario.bands, "nothing that could be missed"


def test_the_scenario_of_the_documentation_can_be_read() -> None:
    page = (ROOT / "docs" / "simulation.md").read_text()
    block, told, _ = re.findall(r"^```toml\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert len(read(tomllib.loads(told), "told.toml").published) == 2
    scenario = read(tomllib.loads(block), "half.toml")
    assert scenario.faults == (Fault(at=40.0, do="crash", share=0.5),)


def test_every_key_says_what_it_is_for_and_what_is_allowed() -> None:
    rows = [key for _, table in tables(Scenario) for key in keys(table)]
    assert len(rows) > 30
    for row in rows:
        assert row.about.endswith("."), row
        assert row.allowed, row
        assert row.written, row


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"nods": 3}, ["nods", "no such key", "did you mean nodes"]),
        ({"zzz": 3}, ["zzz", "no such key", "there are about, source, nodes"]),
        ({"nodes": 0}, ["nodes", "a whole number from 1", "not 0"]),
        ({"nodes": "many"}, ["nodes", "a whole number", 'not "many"']),
        ({"duration": float("nan")}, ["duration", "a number", "not nan"]),
        ({"duration": float("inf")}, ["duration", "a number", "not inf"]),
        ({"seed": -1}, ["seed", "from 0", "not -1"]),
        ({"profile": "fast"}, ["profile", "product or paper", 'not "fast"']),
        ({"network": {"loss": -0.1}}, ["network.loss", "from 0 to 0.9", "not -0.1"]),
        ({"network": {"latency": [2.0, 1.0]}}, ["network.latency", "the lower one first"]),
        ({"network": {"latency": [1.0]}}, ["network.latency", "the lower one first"]),
        ({"network": 3}, ["network", "write [network]"]),
        ({"faults": 3}, ["faults", "write [[faults]]"]),
        ({"faults": [3]}, ["faults.0", "is a table"]),
        ({"publish": PUBLISH}, ["publish", "write [[publish]]"]),
        ({"publish": [{**PUBLISH, "rate": -1.0}]}, ["publish.0.rate", "above 0", "not -1"]),
        ({"publish": [{**PUBLISH, "rat": 1.0}]}, ["publish.0.rat", "did you mean rate"]),
        ({"publish": [{**PUBLISH, "name": "A b"}]}, ["publish.0.name", "small letters"]),
        ({"publish": [{"start": 1.0}]}, ["publish.0.stop", "is missing", "a number"]),
        ({"requests": [{**PUBLISH, "kind": "x"}]}, ["requests.0.kind", "trace or connect"]),
        ({"join": {"how": "all"}}, ["join.how", "one-at-a-time or burst"]),
        ({"bands": {"joined": [1.0]}}, ["bands", "two numbers"]),
    ],
)
def test_what_is_no_value_is_named_with_what_is_allowed(
    changes: dict[str, Any], said: list[str]
) -> None:
    text = wrong(**changes)
    assert text.startswith("file.toml: ")
    for part in said:
        assert part in text


@pytest.mark.parametrize(
    ("faults", "said"),
    [
        ([("thaw", 5.0, {}), ("freeze", 9.0, {"count": 1})], ["faults.0.at", "needs a freeze"]),
        ([("restart", 5.0, {})], ["faults.0.at", "a restart at 5 s needs a crash before it"]),
        ([("heal", 5.0, {})], ["faults.0.at", "needs a partition"]),
        ([("partition", 5.0, {}), ("partition", 9.0, {})], ["faults.1.at", "needs a heal"]),
        ([("crash", 60.0, {"share": 0.5})], ["faults.0.at", "less than the duration, 60"]),
        ([("crash", 9.0, {})], ["faults.0.share", "is missing"]),
        ([("crash", 9.0, {"share": 0.5, "count": 1})], ["faults.0.count", "not both"]),
        ([("crash", 9.0, {"share": 1.5})], ["faults.0.share", "at most 1", "not 1.5"]),
        ([("crash", 9.0, {"count": 11})], ["faults.0.count", "at most 10", "not 11"]),
        ([("crash", 9.0, {"count": 1, "by": 2.0})], ["faults.0.by", "takes only at, do, share"]),
        ([("heal", 9.0, {"share": 0.5})], ["faults.0.share", "takes only at, do"]),
        ([("partition", 9.0, {"parts": [0.5, 0.6]})], ["faults.0.parts", "add up to 1"]),
        ([("partition", 9.0, {"parts": [1.0]})], ["faults.0.parts", "2 to 16"]),
        ([("clock", 9.0, {})], ["faults.0.by", "is missing"]),
        ([("explode", 9.0, {})], ["faults.0.do", "crash, leave, freeze"]),
    ],
)
def test_a_timeline_that_cannot_be_is_named_with_the_reason(
    faults: list[tuple[str, float, dict[str, Any]]], said: list[str]
) -> None:
    text = wrong(faults=[{"do": do, "at": at, **more} for do, at, more in faults])
    for part in said:
        assert part in text


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"publish": [{"start": 20.0, "stop": 10.0}]}, ["publish.0.stop", "more than start"]),
        ({"publish": [{"start": 10.0, "stop": 55.0}]}, ["publish.0.stop", "after the end"]),
        (
            {"publish": [{**PUBLISH, "name": "x"}, {**PUBLISH, "name": "x"}]},
            ["publish.1.name", "another publish of this name"],
        ),
        ({"join": {"every": 10.0}}, ["join.every", "at 90 s, after the end"]),
        ({"join": {"how": "burst", "within": 70.0}}, ["join.within", "after the end"]),
        ({"bands": {"reliability": [0.0, 1.0]}}, ["bands.reliability", "no such measure"]),
        ({"bands": {"degre": [0.0, 1.0]}}, ["bands.degre", "did you mean degree"]),
        ({"bands": {"degree": [5.0, 4.0]}}, ["bands.degree", "the lower one first"]),
        ({"published": [figures(measures=["degre"])]}, ["published.0.measures", "mean degree"]),
        ({"published": [figures(values=[4.7, 4.8])]}, ["published.0.measures", "expected 2"]),
        ({"published": [figures(x=[1.0, 2.0])]}, ["published.0.x", "expected 1 numbers"]),
        ({"published": [figures(along="nodes")]}, ["published.0.x", "expected 1 numbers"]),
        ({"published": [figures(along="nods", x=[1.0])]}, ["published.0.along", "no such key"]),
        ({"published": [figures(along="about", x=[1.0])]}, ["published.0.along", "are numbers"]),
        ({"published": [figures(source="")]}, ["published.0.source", "a text of 1 to 200"]),
    ],
)
def test_what_cannot_happen_or_be_measured_is_named(
    changes: dict[str, Any], said: list[str]
) -> None:
    text = wrong(**changes)
    for part in said:
        assert part in text


def test_published_figures_are_of_measures_or_of_one_along_a_key() -> None:
    curve = figures(along="nodes", x=[10.0, 20.0], values=[4.0, 5.0])
    scenario = of(published=[figures(), curve])
    assert [each.along for each in scenario.published] == ["", "nodes"]


def test_what_is_undone_may_be_done_again() -> None:
    order = ("partition", "heal", "partition", "heal")
    faults = [{"do": do, "at": 10.0 * number} for number, do in enumerate(order)]
    assert [fault.do for fault in of(faults=faults).faults] == list(order)


def test_a_file_that_is_not_there_or_no_toml_is_one_line(tmp_path: Path) -> None:
    for name, content in {"no.toml": b"nodes = = 1", "bytes.toml": b"\xff\xfe"}.items():
        (tmp_path / name).write_bytes(content)
    for name, said in {
        "none.toml": "cannot be read",
        "no.toml": "is not valid TOML",
        "bytes.toml": "is not a TOML file",
    }.items():
        with pytest.raises(ConfigError, match=f"{name}: {said}"):
            load(tmp_path / name)


# --- set otherwise -------------------------------------------------------------------------------


def test_set_reaches_every_table_and_the_option_is_named_when_it_is_wrong() -> None:
    path = ROOT / "simulations" / "first-mesh.toml"
    texts = ["network.loss=0.3", "faults.0.share=0.5", "profile=paper", "links.auto=false"]
    scenario = load(path, assignments(texts))
    assert scenario.network.loss == 0.3
    assert scenario.faults[0].share == 0.5
    assert scenario.profile == "paper"
    assert scenario.links.auto is False
    for text, said in {
        "network.loss=2": "--set: network.loss: expected a number from 0 to 0.9, not 2",
        "network.los=2": "--set: network.los: no such key (did you mean loss?)",
        "faults.9.share=2": "--set: faults.9.share: there is no 9 in it",
        "faults.share=2": "--set: faults.share: number the table that is meant, from 0",
        "nodes.x=2": "--set: nodes.x: number the table",
        "loss": "--set loss: write it as KEY=VALUE",
        "network.loss=0.1\nx = 1": "--set: network.loss: expected a number",
    }.items():
        with pytest.raises(ConfigError, match=re.escape(said)):
            load(path, assignments([text]))


def test_a_profile_and_the_scenario_decide_what_nodes_are_set_to() -> None:
    assert chosen(of()) == {}
    assert config_diff(of()) == {}
    paper = of(profile="paper", links={"active": 4})
    assert chosen(paper) == {**PAPER, "active_size": 4}
    said = config_diff(paper)
    assert (said["links.full_mesh"], said["links.active"], said["ring_side"]) == (0, 4, 0)
    assert "links.passive" not in said, "the paper's is ours"
    papers = of(dissemination="flood", cycle=60.0)
    assert config_diff(papers) == {
        "flood": True,
        "shuffle_interval": 60.0,
        "exchange_interval": 60.0,
    }


# --- where scenarios are -------------------------------------------------------------------------


def test_scenarios_go_by_the_name_of_their_file_and_paths_stay_paths() -> None:
    assert reading.find("first-mesh") == ROOT / "simulations" / "first-mesh.toml"
    assert reading.find("some/where.toml") == Path("some/where.toml")


def test_scenarios_are_found_in_an_installed_package_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "installed").mkdir()
    (tmp_path / "installed" / "mine.toml").touch()
    places = (tmp_path / "nothing", tmp_path / "installed", *reading.PLACES)
    monkeypatch.setattr(reading, "PLACES", places)
    assert reading.scenarios() == {"mine": tmp_path / "installed" / "mine.toml"}


def test_the_wheel_takes_the_scenarios_to_where_they_are_looked_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    build = project["tool"]["hatch"]["build"]["targets"]
    assert build["wheel"]["force-include"] == {"simulations": "overlay/simulations"}
    assert reading.PLACES[0] == ROOT / "overlay" / "simulations"
    assert "simulations" in build["sdist"]["include"]
