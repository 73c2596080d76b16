"""The units of measures and of a scenario's keys, for whoever reads a report.

It stands alone because what draws, what prints and what documents asks it, and none of the others.
"""

from functools import cache

import msgspec

from overlay.sim.scenario.scenario import Scenario
from overlay.tables import meta_of, table_of

SHARE = "share"
"""Of one: 0.5 is a half."""
MEASURES = {
    SHARE: (
        *("joined", "degree_full", "connected", "clustering"),
        *("reliability", "reliability_min", "reliability_median"),
        *("success", "success_first", "success_retry", "announcements_ratio"),
        *("byzantine_view", "byzantine_samples", "byzantine_neighbours", "byzantine_control"),
    ),
    "s": ("join_time", "integrate_time", "alone", "delay", "delay_max"),
    "links": ("links_max", "hops", "hops_max", "last_hop", "path", "path_max", "request_hops"),
    "peers": ("degree", "degree_min", "degree_max"),
    "nodes": ("isolated",),
    "copies": ("payloads",),
    "copies a node": ("rmr",),
    "announcements": ("announcements",),
    "messages": ("rmr_settled",),
    "messages a link": ("messages_per_link",),
    "cycles": ("cycles_to_heal",),
}
KEYS = {
    "Seconds": "s",
    "Virtual seconds": "s",
    "In place of `latency`: seconds": "s",
    "With `coordinates`: seconds": "s",
    "Of a `clock`: seconds": "s",
    "Bytes a second": "B/s",
    "Bytes": "B",
    "The share": SHARE,
    "The shares": SHARE,
}
"""By how a key's description begins."""
_OF_MEASURE = {name: unit for unit, names in MEASURES.items() for name in names}


def of_measure(name: str) -> str:
    """The unit of a measure: of ``reliability_min_after`` that of ``reliability_min``.

    KeyError where there is no such measure.
    """
    while name not in _OF_MEASURE:
        name, underscore, _ = name.rpartition("_")
        if not underscore:
            raise KeyError(name)
    return _OF_MEASURE[name]


@cache
def of_key(key: str) -> str:
    """The unit of a scenario's key as ``--set`` has it (``network.loss``); "" without one."""
    table: type[msgspec.Struct] = Scenario
    for part in key.split("."):
        field = next((each for each in msgspec.structs.fields(table) if each.name == part), None)
        if field is None:  # the number of a table, of which there are several
            continue
        inner = table_of(field.type)
        if inner is None:
            about = meta_of(field.type).description
            return next((unit for words, unit in KEYS.items() if about.startswith(words)), "")
        table = inner
    return ""


def titled(name: str, unit: str) -> str:
    """A name with its unit, as a table or an axis has it."""
    return f"{name} ({unit})" if unit else name
