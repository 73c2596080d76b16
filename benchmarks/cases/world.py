"""What the simulator has to reach: alone, since `benchmarks.world_cost` measures it, for hours."""

from benchmarks.measure import Bar, Measure

EVENTS = Measure(
    "sim-events", "events a second in a world of 10,000 nodes", "/s", Bar(40_000, at_most=False)
)
SECONDS = Measure("sim-hundred-thousand-time", "a world of 100,000 nodes", "s", Bar(1800))
MEMORY = Measure("sim-hundred-thousand-memory", "the same: memory at most", "MiB", Bar(8192))
MEASURES = (EVENTS, SECONDS, MEMORY)
