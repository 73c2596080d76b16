"""Sizes of every container inside a core, and what each may grow to.

The core is walked as it stands: a container without a limit of its own falls under a general one,
so that nothing escapes.
"""

from collections import deque
from collections.abc import Iterator

from overlay.core.connect import offers
from overlay.core.connect import table as attempts_table
from overlay.core.gossip import plumtree
from overlay.core.link import links
from overlay.core.membership import basalt, hyparview, link_uses, records, shuffles
from overlay.core.nat import observers
from overlay.core.overlay import Overlay
from overlay.core.routing import lookups as tracing
from overlay.core.routing import routing
from overlay.core.routing import seek as seeking
from overlay.core.timers import Timers

GENERAL_MAX = 1_024
"""For containers that have no limit of their own."""
RECORDS_KEPT = 1 << 19
"""Records that all nodes of a world share; the oldest give way."""
LIMITS = {
    "Agenda._heap": 16 * GENERAL_MAX,
    "HyParView.known": hyparview.KNOWN_MAX + link_uses.GUESTS_MAX,
    "Basalt._asked": basalt.ASKED_MAX,
    "Basalt._competed": basalt.COMPETED_MAX,
    "Basalt._resting": basalt.RESTING_MAX,
    "ShuffledView._walks": shuffles.WALKS_MAX,
    "ShuffledView.peers": shuffles.ShuffleParameters().size,
    "Inviting._granted": link_uses.GUESTS_MAX + 64,
    "Table.by_peer": attempts_table.PEERS_MAX,
    "Links._pings": links.PINGS_MAX,
    "Plumtree._missing": plumtree.MISSING_MAX,
    "Plumtree._seen": plumtree.SEEN_MAX,
    "Plumtree._cache": plumtree.SEEN_MAX,
    "Seeking._seeks": seeking.SEEKS_MAX,
    "LinkUses.links": link_uses.GUESTS_MAX + 64,
    "RecordBook._records": records.BOOK_MAX,
    "RecordReader._read": RECORDS_KEPT,
    "Observers._said": observers.OBSERVERS_MAX,
    "OfferReader._seen": offers.SEEN_MAX,
    "Routing._requests": routing.REQUESTS_MAX,
    "Tracing._waiting": tracing.TRACES_MAX,
}

Container = tuple[object, str, str, int]
"""Whose attribute it is, its name, what to call it, and its limit."""


def containers(core: Overlay) -> Iterator[Container]:
    """Every dict, list and set of timers that the machines of a core hold."""
    met: dict[int, None] = {}
    machines: list[object] = [core]
    while machines:
        machine = machines.pop()
        for name in _attributes(machine):
            value = getattr(machine, name)
            if isinstance(value, dict | list | deque | set | Timers):
                label = f"{type(machine).__name__}.{name}"
                yield machine, name, label, LIMITS.get(label, GENERAL_MAX)
            elif type(value).__module__.startswith("overlay.core") and id(value) not in met:
                met[id(value)] = None
                machines.append(value)


def oversized(core: Overlay) -> str | None:
    """What in this core has outgrown its limit."""
    for machine, name, label, limit in containers(core):
        size = len(getattr(machine, name))
        if size > limit:
            return f"holds {size} items in {label}, at most {limit}"
    return None


def _attributes(machine: object) -> list[str]:
    slots = [name for each in type(machine).__mro__ for name in getattr(each, "__slots__", ())]
    return [name for name in (*slots, *getattr(machine, "__dict__", ())) if hasattr(machine, name)]
