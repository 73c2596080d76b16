"""What `make bench-nat` makes of the hard cases' tries; the tries are the laboratory's."""

from dataclasses import replace
from typing import Any

from benchmarks.nat import hard
from tests.lab.nat.hard import BEYOND, CASES, DIRECT, RELAYED, Case, Group, Tried, missed


def good(case: Case) -> Tried:
    outage = case.outage
    return Tried(
        case.name,
        case.group.value,
        0.1,
        way=case.outcome,
        direct_s=0.2 if case.outcome == DIRECT else None,
        technique="ice" if case.outcome == DIRECT else None,
        back_s=0.5 if outage else None,
        same_link=not outage or outage.seconds <= BEYOND,
    )


def test_every_case_is_tried_once_and_only_with_its_like() -> None:
    parts = list(hard.chunks(CASES))
    assert [case for part in parts for case in part] == list(CASES)
    assert all(len({case.group for case in part}) == 1 for part in parts)
    assert max(map(len, parts)) <= hard.TOGETHER


def test_what_comes_out_as_it_must_is_missed_by_nobody_and_all_else_is() -> None:
    case = next(case for case in CASES if case.outage is not None)
    assert [missed(each, good(each)) for each in CASES] == [[]] * len(CASES)
    wrongs: list[dict[str, Any]] = [
        {"way": RELAYED},
        {"way": ""},
        {"seconds": case.within + 0.1},
        {"direct_s": None},
        {"whole": False},
        {"same_link": False},
        {"back_s": None},
        {"back_s": case.back_within + 0.1},
    ]
    for wrong in wrongs:
        (why,) = missed(case, replace(good(case), **wrong))
        assert why.startswith(case.name)


def test_the_page_tells_each_case_and_what_was_amiss() -> None:
    rows = [hard.row_of(case, [good(case)] * 3) for case in CASES]
    bad = Tried(CASES[0].name, Group.ADDRESSES.value, 9.0, way=RELAYED)
    rows[0] = hard.row_of(CASES[0], [good(CASES[0]), bad])
    text = hard.page({"tries": 3, "date": "2026-01-01", "commit": "abc", "rows": hard.told(rows)})
    assert all(f"| {case.name} |" in text for case in CASES)
    assert "**direct 1 of 2** + **relayed 1 of 2**" in text
    assert "2026-01-01" in text
    assert "500 ms, up to 100 ms more, 12 % lost, 12 % overtaken" in text
    assert rows[0].missed
    assert hard.page({}).startswith("|")
