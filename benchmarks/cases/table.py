"""All rows, in the order of the table."""

from benchmarks.cases import (
    forwarding,
    links,
    messages,
    publishing,
    start,
    streams,
    upkeep,
)

CASES = (
    *links.CASES,
    *upkeep.CASES,
    *messages.CASES,
    *start.CASES,
    *streams.CASES,
    *publishing.CASES,
    *forwarding.CASES,
)
MEASURES = tuple(measure for case in CASES for measure in case.measures)
