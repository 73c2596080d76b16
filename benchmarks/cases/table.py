"""All rows, in the order of the table."""

from benchmarks.cases import links, messages, start, upkeep

CASES = (*links.CASES, *upkeep.CASES, *messages.CASES, *start.CASES)
MEASURES = tuple(measure for case in CASES for measure in case.measures)
