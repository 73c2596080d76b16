"""Run the benchmarks, write the results and the table; exit 1 when a bar is missed."""

import argparse
import sys
import traceback
from pathlib import Path

from benchmarks import network, report
from benchmarks.cases import table
from benchmarks.measure import Case, Result, Runs, in_turn, results

RESULTS = Path(__file__).with_name("results.json")
PAGE = Path(__file__).resolve().parent.parent / "docs" / "benchmarks.md"
DEFAULT_RUNS = 5


def main(arguments: list[str]) -> int:
    """0 when every bar is met, 1 when one is missed, 2 when the benchmarks cannot run here."""
    options = _parse(arguments)
    if options.list:
        for measure in table.MEASURES:
            print(f"{measure.name:22} {measure.bar!s:16} {measure.title}")
        return 0
    cases = _chosen(options.only)
    if not cases:
        print(f"benchmarks: no row is named {', '.join(options.only)}; --list names them all")
        return 2
    if not network.inside():
        try:
            return network.rerun(arguments)
        except RuntimeError as error:
            print(f"benchmarks: {error}")
            return 2
    fresh = [result for case in cases for result in _run(case, options.runs)]
    outcome = report.merge(
        report.read_results(RESULTS), fresh, [measure.name for measure in table.MEASURES]
    )
    if not options.dry:
        report.write_results(RESULTS, outcome)
        report.write_table(PAGE, report.table(outcome, table.MEASURES))
    print(report.table(fresh, table.MEASURES))
    return 0 if all(result.ok for result in fresh) else 1


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="only this row")
    parser.add_argument("--runs", type=int, default=DEFAULT_RUNS, help="runs of each row (5)")
    parser.add_argument("--list", action="store_true", help="name the rows and their bars")
    parser.add_argument("--dry", action="store_true", help="print, but write no file")
    options = parser.parse_args(arguments)
    if options.runs < 1:
        parser.error("--runs must be at least 1")
    return options


def _chosen(names: list[str]) -> list[Case]:
    if not names:
        return list(table.CASES)
    wanted = set(names)
    return [c for c in table.CASES if wanted & {c.name, *(measure.name for measure in c.measures)}]


def _run(case: Case, runs: int) -> list[Result]:
    """The case's results; a case that breaks misses its bars, and the others still run."""
    try:
        done = in_turn(case, runs, lambda line: print(line, flush=True))
    except Exception:  # noqa: BLE001 (whatever it was, it is printed and counts as a miss)
        traceback.print_exc()
        done = Runs()
    return results(case, done)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
