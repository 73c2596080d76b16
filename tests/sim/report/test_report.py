"""Reports: what the plots show is what was measured, and the page stands alone."""

import dataclasses
import functools
import re
import sys
from typing import Any

import pytest

from overlay.errors import UsageError
from overlay.sim.report import page, plots
from overlay.sim.report.plots import Picture
from overlay.sim.report.report import Report
from overlay.sim.report.timeline import BINS, Timeline
from overlay.sim.scenario.reading import read
from overlay.sim.scenario.running import Outcome, run
from overlay.sim.scenario.scenario import Scenario
from overlay.sim.scenario.tracing import Event

CURVE = {
    "name": "a curve",
    "source": "Somebody 2007, figure 2",
    "measures": ["degree_min", "degree_max"],
    "x": [1.0, 2.0],
    "values": [3.0, 5.0],
    "label": "rank",
}
ALONG = {
    "name": "flooding",
    "source": "Somebody 2008",
    "measures": ["request_hops"],
    "along": "nodes",
    "x": [12.0, 100.0],
    "values": [2.0, 4.0],
}
PLAIN = {"name": "one", "source": "Somebody 2009", "measures": ["hops_max"], "values": [9.0]}
BUSY: dict[str, Any] = {
    "about": "<b>twelve</b> nodes",
    "source": "Nobody 2026",
    "nodes": 12,
    "duration": 50.0,
    "liveness": 0.0,
    "join": {"every": 0.3},
    "network": {"loss": 0.1},
    "faults": [{"at": 20.0, "do": "crash", "count": 3}, {"at": 30.0, "do": "restart"}],
    "publish": [{"start": 10.0, "stop": 25.0, "rate": 2.0}],
    "requests": [{"start": 10.0, "stop": 35.0, "rate": 2.0}],
    "published": [CURVE, ALONG, PLAIN],
    "bands": {"reliability": [0.5, 1.0], "degree": [20.0, 21.0], "joined": [1.0, 1.0]},
}


@functools.cache
def busy() -> tuple[Report, Timeline]:
    """One run that several tests look at."""
    return told(read(BUSY, "busy.toml"))


def told(scenario: Scenario) -> tuple[Report, Timeline]:
    timeline = Timeline(scenario)
    outcome = run(scenario, write=timeline.line)
    timeline.finish()
    return Report("busy", scenario, scenario.nodes, outcome, 1.0, 1), timeline


@functools.cache
def drawn() -> tuple[Picture, ...]:
    return tuple(plots.of_run(*busy()))


# --- what the plots show -------------------------------------------------------------------------


def test_the_plots_show_what_is_measured() -> None:
    report, timeline = busy()
    measures = report.outcome.measures
    shares = [judged.share for judged in timeline.lanes[0].messages]
    assert sum(shares) / len(shares) == pytest.approx(measures["reliability"])
    assert min(shares) == measures["reliability_min"]
    answered = [judged.share for judged in timeline.lanes[0].requests]
    assert sum(answered) / len(answered) == pytest.approx(measures["success"])
    assert timeline.lanes[0].moments[-1].up == 12
    assert min(moment.up for moment in timeline.lanes[0].moments[BINS // 2 :]) < 12, (
        "the crashes are seen"
    )


def test_deliveries_are_all_on_the_curve() -> None:
    timeline = busy()[1]
    delays = timeline.delays()
    assert delays[-1][1] == 1.0
    assert delays == sorted(delays)
    assert timeline.hops.total() > 200


def test_time_passes_where_nothing_happens() -> None:
    timeline = Timeline(read({"nodes": 3, "duration": 100.0}, "quiet.toml"))
    timeline.take(Event(0.0, "join", "n0", ""))
    timeline.take(Event(90.0, "join", "n1", ""))
    timeline.take(Event(91.0, "link_up", "n1", "n0"))
    timeline.finish()
    assert len(timeline.lanes[0].moments) == BINS
    assert [moment.up for moment in timeline.lanes[0].moments][:: BINS // 2] == [1, 1]
    assert (timeline.lanes[0].moments[-1].up, timeline.lanes[0].moments[-1].links) == (2, 0.5)
    assert timeline.degrees() == {0: 1, 1: 1}
    assert timeline.delays() == []


def test_who_is_up_from_beginning_to_end_counts_and_nobody_else() -> None:
    content = {"nodes": 3, "duration": 60.0, "publish": [{"start": 1.0, "stop": 20.0}]}
    timeline = Timeline(read(content, "three.toml"))
    for event in (
        *(Event(0.0, "join", name, "") for name in ("n0", "n1", "n2")),
        Event(1.0, "publish", "n0", "0-0"),
        Event(1.0, "deliver", "n0", "0-0", hops=0),
        Event(2.0, "crash", "n2", ""),
        Event(3.0, "deliver", "n1", "0-0", hops=1),
        Event(4.0, "publish", "n0", "0-1"),
        Event(4.0, "deliver", "n0", "0-1", hops=0),
        Event(15.0, "deliver", "n1", "0-1", hops=1),
    ):
        timeline.take(event)
    timeline.finish()
    assert [judged.share for judged in timeline.lanes[0].messages] == [1.0, 0.5], (
        "one came too late"
    )


def test_branches_go_on_from_where_the_first_began_each_in_a_lane_of_its_own() -> None:
    content = {
        "nodes": 10,
        "duration": 60.0,
        "liveness": 0.0,
        "join": {"every": 0.3},
        "branches": {"at": 20.0, "shares": [0.2, 0.5]},
        "faults": [{"at": 21.0, "do": "crash", "share": 0.1}],
        "publish": [{"start": 35.0, "stop": 45.0}],
    }
    report, timeline = told(read(content, "branches.toml"))
    measures = report.outcome.measures
    assert [lane.name for lane in timeline.lanes] == ["", "20", "50"]
    assert [lane.moments[-1].up for lane in timeline.lanes] == [10, 8, 5]
    assert [len(lane.moments) for lane in timeline.lanes] == [BINS] * 3
    for lane in timeline.lanes[1:]:
        shares = [judged.share for judged in lane.messages]
        assert len(shares) == 10
        assert sum(shares) / 10 == pytest.approx(measures[f"reliability_{lane.name}"])
    assert timeline.degrees().total() == 10
    assert "timeline" in [picture.name for picture in plots.of_run(report, timeline)]


def test_a_run_without_a_trace_has_no_plots_of_one() -> None:
    report = busy()[0]
    timeline = Timeline(report.scenario)
    timeline.finish()
    drawn = [picture.name for picture in plots.of_run(report, timeline)]
    assert drawn == ["bands", "published-1", "published-2"]


# --- beside what others have published -----------------------------------------------------------


def test_a_run_is_held_against_the_figures_that_are_for_it() -> None:
    report = busy()[0]
    measures = report.outcome.measures
    rows = [(row.measure, row.x, row.published, row.measured) for row in report.published()]
    assert rows == [
        ("degree_min", 1.0, 3.0, measures["degree_min"]),
        ("degree_max", 2.0, 5.0, measures["degree_max"]),
        ("request_hops", 12.0, 2.0, measures["request_hops"]),
        ("hops_max", None, 9.0, measures["hops_max"]),
    ]


def test_a_figure_along_a_key_is_for_no_other_value_of_it() -> None:
    report = busy()[0]
    other = dataclasses.replace(report, scenario=read({**BUSY, "nodes": 13}, "busy.toml"))
    assert "request_hops" not in [row.measure for row in other.published()]


# --- the page ------------------------------------------------------------------------------------


def test_every_plot_is_a_png_with_the_same_bytes_each_time() -> None:
    names = ["bands", "published-1", "published-2", "timeline", "delivery", "links"]
    assert [picture.name for picture in drawn()] == names
    assert all(picture.png.startswith(b"\x89PNG") for picture in drawn())
    assert plots.of_run(*busy()) == list(drawn())


def test_what_is_not_there_is_not_drawn() -> None:
    quiet = {"nodes": 2, "duration": 5.0, "liveness": 0.0}
    pictures = plots.of_run(*told(read(quiet, "quiet.toml")))
    assert [picture.name for picture in pictures] == ["timeline", "links"]


def test_the_page_holds_everything_and_loads_nothing() -> None:
    text = page.of_run(busy()[0], drawn(), "overlay sim run busy.toml --seed 1")
    assert text.count("<img ") == len(drawn())
    for source in re.findall(r"(?:src|href|url)\s*[=(]\s*[\"']?([^\"')\s>]+)", text):
        assert source.startswith("data:image/png;base64,"), source
    assert "<script" not in text
    for said in ("reliability", "0.5 to 1", "a curve", "Somebody 2008", "Nobody 2026", "--seed 1"):
        assert said in text
    assert "degree is" in text, "the missed band"
    assert "outside its band 20 to 21" in text


def test_a_report_has_units_and_nothing_empty() -> None:
    text = page.of_run(busy()[0], (), "")
    for name, unit in (("reliability", "share"), ("delay", "s"), ("hops", "links")):
        assert re.search(rf"<td>{name}</td><td class=\"number\">[^<]*</td><td>{unit}</td>", text)
    assert "<th>band</th>" in text
    quiet = page.of_run(told(read({"nodes": 2, "duration": 5.0}, "quiet.toml"))[0], (), "")
    assert "<th>unit</th>" in quiet
    assert "<th>band</th>" not in quiet, "a column without a word"
    assert "Unlike the shipped" not in quiet
    assert page.table(("one", "two"), []) == ""


def test_what_a_file_says_is_text_on_the_page() -> None:
    text = page.of_run(busy()[0], (), "")
    assert "<b>" not in text
    assert "&lt;b&gt;twelve&lt;/b&gt; nodes" in text


def test_a_run_that_holds_says_so() -> None:
    report = busy()[0]
    scenario = read({**BUSY, "bands": {"joined": [1.0, 1.0]}}, "busy.toml")
    held = dataclasses.replace(report, scenario=scenario)
    assert "every promise held" in page.of_run(held, (), "")
    assert "every promise held" not in page.of_run(report, (), "")


def test_without_matplotlib_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    plots.require()
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(UsageError, match=r"extra `sim`: install overlay-mesh\[sim\]"):
        plots.require()


def test_a_measure_far_out_is_drawn_at_the_edge() -> None:
    report = busy()[0]
    outcome: Outcome = dataclasses.replace(report.outcome, measures={"joined": 1e9})
    far = dataclasses.replace(report, outcome=outcome, scenario=_bare(report.scenario))
    assert next(picture.name for picture in plots.of_run(far, busy()[1])) == "bands"


def _bare(scenario: Scenario) -> Scenario:
    return read({**BUSY, "bands": {"joined": [1.0, 1.0]}, "published": []}, "busy.toml")
