"""All rows, in the order of the table: alone, or each case would import the others."""

from benchmarks.cases import (
    files,
    forwarding,
    links,
    messages,
    publishing,
    relaying,
    start,
    streams,
    upkeep,
    world,
)

CASES = (
    *links.CASES,
    *upkeep.CASES,
    *messages.CASES,
    *start.CASES,
    *streams.CASES,
    *files.CASES,
    *relaying.CASES,
    *publishing.CASES,
    *forwarding.CASES,
)
MEASURES = (*(measure for case in CASES for measure in case.measures), *world.MEASURES)
