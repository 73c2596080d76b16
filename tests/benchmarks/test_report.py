"""What programs and people get to read."""

import json
from pathlib import Path

import pytest

from benchmarks.__main__ import PAGE, RESULTS
from benchmarks.cases.table import CASES, MEASURES
from benchmarks.measure import Bar, Measure, Result
from benchmarks.report import BEGIN, END, merge, read_results, table, write_results, write_table

DIAL = Measure("dial", "a dial", "ms", Bar(0.25, of_ratio=True))
FILES = Measure("files", "descriptors a link", "", Bar(0))


def result(name: str, value: float | None, ok: bool = True) -> Result:
    return Result(name, value, "ms", 20.0, None if value is None else value / 20, "<= 0.25", ok)


def test_results_keep_exactly_the_promised_keys(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    write_results(path, [result("dial", 4.0)])
    (entry,) = json.loads(path.read_text())
    assert list(entry) == ["name", "value", "unit", "baseline", "ratio", "bar", "ok"]
    assert read_results(path) == [result("dial", 4.0)]


def test_a_run_of_one_row_keeps_the_others() -> None:
    old = [result("dial", 4.0), result("files", 0.0), result("gone", 1.0)]
    merged = merge(old, [result("dial", 5.0)], ["dial", "files"])
    assert [(each.name, each.value) for each in merged] == [("dial", 5.0), ("files", 0.0)]


def test_the_table_names_a_miss() -> None:
    text = table([result("dial", 9.0, ok=False), result("files", None, ok=False)], [DIAL, FILES])
    assert text.count("**no**") == 2
    assert "9 ms" in text
    assert "0.45" in text


def test_the_table_replaces_only_what_is_between_its_marks(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"above\n{BEGIN}\nold\n{END}\nbelow\n")
    write_table(page, "new")
    write_table(page, "newer")
    assert page.read_text() == f"above\n{BEGIN}\nnewer\n{END}\nbelow\n"


@pytest.mark.parametrize("text", ["no marks", f"only {BEGIN}", f"only {END}"])
def test_a_page_without_its_marks_is_refused(tmp_path: Path, text: str) -> None:
    page = tmp_path / "page.md"
    page.write_text(text)
    with pytest.raises(ValueError, match="no place for the table"):
        write_table(page, "new")
    assert page.read_text() == text


def test_the_page_shows_the_results_that_lie_beside_it() -> None:
    recorded = read_results(RESULTS)
    names = [each.name for each in recorded]
    assert names == [measure.name for measure in MEASURES if measure.name in names]
    assert {each.name for case in CASES for each in case.measures} <= set(names)
    assert f"{BEGIN}\n{table(recorded, MEASURES)}\n{END}" in PAGE.read_text()
