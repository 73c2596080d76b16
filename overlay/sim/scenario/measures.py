"""What a run comes to, in numbers: from the events of its trace, and the views at its end.

Whoever has the trace gets the same numbers for all but the views and the traffic. A publication
or request is judged when its time (`within`) is over, by the nodes that were up from its beginning
until then.
"""

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from statistics import fmean, median
from typing import Protocol

from overlay.core.types import PeerId
from overlay.sim.scenario import graphs
from overlay.sim.scenario.adversaries import MEASURES as BYZANTINE
from overlay.sim.scenario.profiles import setting
from overlay.sim.scenario.scenario import Adversary, Phase, Requests, Scenario
from overlay.sim.scenario.tracing import Event

ALWAYS = {
    "joined": "the share of nodes that came to have a link, those that churn brought too",
    "join_time": "seconds that the slowest of them took",
    "integrate_time": "seconds from setting out that the slowest took to have five links",
    "links_max": "links that one node had at once, guests too, at most",
    **graphs.VIEWS,
}
PUBLISHING = {
    "reliability": "the share of nodes that deliver a message in time, on average",
    "reliability_min": "that share for the worst message",
    "reliability_median": "that share for the median message: of many senders, most are in the "
    "largest component",
    "hops": "links that a message had passed when it was delivered, on average",
    "hops_max": "links that it had passed at most",
    "last_hop": "links that a message passed on its longest way, on average over messages",
    "delay": "seconds until it was delivered, on average",
    "delay_max": "seconds until it was delivered, at most",
}
TRAFFIC = {
    "payloads": "copies of a message that nodes sent, for the median message",
    "rmr": "copies for each node that delivers it but the first, less one: relative message "
    "redundancy (Plumtree §4.2)",
    "announcements": "announcements of a message that nodes sent, for the median message",
    "announcements_ratio": "the same, as a share of two for every link of the views that is not "
    "on the tree",
}
SETTLING = {
    "rmr_settled": "messages after which rmr stays at 0.01 or below: the tree has grown",
}
SETTLED = 0.01
BRANCHING = ("reliability", "last_hop", "cycles_to_heal", "success", "request_hops")
"""Of the workload, what each branch tells; and of the views, degree and connectedness."""
CONTROLLED = ("reliability", "reliability_min")
"""All that is asked of a control protocol."""
HEALING = {
    "cycles_to_heal": "cycles from the first fault until every message reaches 99 % of the nodes",
}
HEALED = 0.99
INTEGRATED = 5
"""Links (BENCHMARKS, join-burst)."""
CHURNING = {
    "alone": "seconds that a node which had a link was without any, at most",
}
REQUESTING = {
    "success": "the share of requests answered in time",
    "request_hops": "links that a trace passed one way, on average",
}
TRYING = {
    "success_first": "the share of traces answered in time at the first try",
    "success_retry": "that share at the first try or the second, over another first link",
}
CONNECTING = {
    "messages_per_link": "offers and answers put on links for each link that was negotiated "
    "because a request asked for it, on average; what was tried in vain not counted",
}
CONTROL = {
    "byzantine_control": "what `byzantine_view` comes to where anybody named replaces anybody",
}
KINDS = (
    ("always", ALWAYS),
    ("with `[churn]`", CHURNING),
    ("with `[[publish]]`", PUBLISHING),
    ("with `[[publish]]` and `[[faults]]`", HEALING),
    ("with messages so rare that each one's time is over before the next", {**TRAFFIC, **SETTLING}),
    ("with `[[requests]]`", REQUESTING),
    ("with traces among them", TRYING),
    ("with links asked for among them", CONNECTING),
    ("with `[[adversaries]]`", BYZANTINE),
    ("with adversaries that flood", CONTROL),
)
"""Every measure with what it is, by what a scenario must have for it."""


def names_for(scenario: Scenario) -> list[str]:
    """The measures that a run of this scenario has."""
    if scenario.protocol != "overlay":
        shares = scenario.branches.shares
        return [branch_name(name, share) for name in CONTROLLED for share in shares]
    if not scenario.branches.shares:
        return [*ALWAYS, *_names_of_work(scenario)]
    shares, names = scenario.branches.shares, branching(scenario)
    return [*ALWAYS, *(branch_name(name, share) for name in names for share in shares)]


def branching(scenario: Scenario) -> list[str]:
    """The measures that each branch of a scenario has of its own."""
    names = [name for name in _names_of_work(scenario) if name.startswith(BRANCHING)]
    return [*names, "degree", "connected"]


def _names_of_work(scenario: Scenario) -> list[str]:
    names: list[str] = [*CHURNING] if scenario.churn.stop else []
    if scenario.publish:
        names += [*PUBLISHING, *(HEALING if scenario.faults else ())]
        names += _named(("reliability", "reliability_median", "last_hop"), scenario.publish)
    spaced = [phase for phase in scenario.publish if is_spaced(phase)]
    if spaced:
        names += [*TRAFFIC, *SETTLING, *_named((*TRAFFIC, *SETTLING), spaced)]
    if scenario.requests:
        names += [*REQUESTING, *_named(("success",), scenario.requests)]
        kinds = [phase.kind for phase in scenario.requests]
        names += TRYING if "trace" in kinds else ()
        names += CONNECTING if "connect" in kinds else ()
    if scenario.adversaries:
        names += [*BYZANTINE, *(CONTROL if flooding(scenario) else ())]
    return names


def flooding(scenario: Scenario) -> Adversary | None:
    """The first of the adversaries that flood."""
    return next((each for each in scenario.adversaries if "flood" in each.do), None)


def _named(measures: Iterable[str], phases: Sequence[Phase]) -> Iterator[str]:
    return (f"{each}_{phase.name}" for each in measures for phase in phases if phase.name)


def is_spaced(phase: Phase) -> bool:
    """Whether the time of each message is over before the next: its traffic can be told."""
    return phase.rate * phase.within < 1.0


def branch_name(measure: str, share: float) -> str:
    """What a measure is called in the branch of this share."""
    return f"{measure}_{share * 100:g}"


class Viewing(Protocol):
    """A node, as far as it is measured at the end."""

    @property
    def peer_id(self) -> PeerId:
        """Its id."""
        ...

    def active_view(self) -> list[PeerId]:
        """Its neighbours for gossip."""
        ...


@dataclass(slots=True, eq=False)
class _Open:
    """A publication or request that is not judged yet."""

    at: float
    node: str
    to: str | None
    came: dict[str, Event] = field(default_factory=dict)
    """What was delivered in time, by node; of a request: its answer."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """What one message cost: copies and announcements sent, among so many nodes and links."""

    payloads: int
    announcements: int
    heard: int
    """Nodes that delivered it, its origin and newcomers too."""
    nodes: int
    links: int

    def measures(self) -> dict[str, float]:
        """As `TRAFFIC` has them."""
        others = max(1, self.nodes - 1)
        off_tree = 2 * (self.links - others)
        return {
            "payloads": self.payloads,
            "rmr": self.payloads / max(1, self.heard - 1) - 1,
            "announcements": self.announcements,
            "announcements_ratio": self.announcements / off_tree if off_tree > 0 else 1.0,
        }


@dataclass(slots=True, eq=False)
class _Judged:
    """A phase of the workload: what is open, and how the others ended."""

    phase: Phase
    open: dict[str, _Open] = field(default_factory=dict)
    order: deque[str] = field(default_factory=deque)
    shares: list[float] = field(default_factory=list)
    """Of a publication: the share of nodes that delivered it; of a request: 1 or 0."""
    last_hops: list[int] = field(default_factory=list)
    traffic: list[Traffic] = field(default_factory=list)

    def deadline(self) -> float:
        """When the oldest of what is open has to be judged."""
        return self.open[self.order[0]].at + self.phase.within if self.order else math.inf

    def due(self, now: float) -> Iterator[_Open]:
        """Take out what has to be judged before `now`."""
        while self.deadline() < now:
            yield self.open.pop(self.order.popleft())


class Tally:
    """Takes in the events of a trace in their order; `measures` when it is over."""

    def __init__(self, scenario: Scenario) -> None:
        self.turn_to(scenario)
        self._up: dict[str, float] = {}
        self._links: dict[str, dict[str, None]] = {}
        self._next = math.inf
        self._started: dict[str, float] = {}
        self._join_times: dict[str, float] = {}
        self._integrate_times: dict[str, float] = {}
        self._links_max = 0
        self._alone: dict[str, float] = {}
        """Who has no link any more, and since when."""
        self._alone_at_most = 0.0
        self._last = 0.0
        self._last_bad = 0.0
        self._hops: list[int] = []
        self._delays: list[float] = []
        self._request_hops: list[int] = []
        self._tries: list[int | None] = []
        """Which try was answered, of each trace that was judged."""
        self._messages: list[int] = []

    def turn_to(self, scenario: Scenario) -> None:
        """Measure what this scenario asks for; nothing has been published or requested so far."""
        self._scenario = scenario
        self._published = [_Judged(phase) for phase in scenario.publish]
        self._requested = [_Judged(phase) for phase in scenario.requests]

    def started(self, node: str, at: float) -> None:
        """A newcomer sets out to join."""
        self._started[node] = at

    def take(self, event: Event) -> None:
        """One more event."""
        if event.t > self._next:
            self._judge_until(event.t)
        node, self._last = event.node, event.t
        match event.kind:
            case "join":
                self._up[node] = event.t
                self._join_times.setdefault(node, event.t - self._started.get(node, event.t))
            case "crash":
                self._up.pop(node, None)
                self._links.pop(node, None)
                self._not_alone(node, event.t)
            case "link_up":
                self._not_alone(node, event.t)
                links = self._links.setdefault(node, {})
                links[event.id] = None
                self._links_max = max(self._links_max, len(links))
                if len(links) >= INTEGRATED and node in self._started:
                    self._integrate_times.setdefault(node, event.t - self._started[node])
            case "link_down":
                self._links.get(node, {}).pop(event.id, None)
                if not self._links.get(node):
                    self._alone[node] = event.t
            case "publish":
                self._open(self._published, event)
            case "request":
                self._open(self._requested, event)
            case "deliver":
                self._came(self._published, event)
            case "answered":
                self._came(self._requested, event)

    def _not_alone(self, node: str, now: float) -> None:
        since = self._alone.pop(node, now)
        self._alone_at_most = max(self._alone_at_most, now - since)

    def _open(self, phases: list[_Judged], event: Event) -> None:
        judged = phases[phase_of(event.id)]
        judged.open[event.id] = _Open(event.t, event.node, event.to)
        judged.order.append(event.id)
        self._next = min(self._next, judged.deadline())

    def _came(self, phases: list[_Judged], event: Event) -> None:
        waiting = phases[phase_of(event.id)].open.get(event.id)
        if waiting is not None:
            waiting.came.setdefault(event.node, event)

    def _judge_until(self, now: float) -> None:
        for judged in self._published:
            for waiting in judged.due(now):
                self._judge_publication(judged, waiting)
        for judged in self._requested:
            for waiting in judged.due(now):
                self._judge_request(judged, waiting)
        deadlines = [judged.deadline() for judged in (*self._published, *self._requested)]
        self._next = min(deadlines, default=math.inf)

    def _stayed(self, node: str | None, since: float) -> bool:
        return node is not None and self._up.get(node, math.inf) <= since

    def _judge_publication(self, judged: _Judged, waiting: _Open) -> None:
        if not self._stayed(waiting.node, waiting.at):
            return
        audience = [node for node, since in self._up.items() if since <= waiting.at]
        came = [waiting.came[node] for node in audience if node in waiting.came]
        share = len(came) / len(audience)
        judged.shares.append(share)
        judged.last_hops.append(max((event.hops or 0 for event in came), default=0))
        if share < HEALED:
            self._last_bad = max(self._last_bad, waiting.at)
        for event in came:
            if event.node != waiting.node:
                self._hops.append(event.hops or 0)
                self._delays.append(event.t - waiting.at)

    def _judge_request(self, judged: _Judged, waiting: _Open) -> None:
        if not self._stayed(waiting.node, waiting.at) or not self._stayed(waiting.to, waiting.at):
            return
        answer = waiting.came.get(waiting.node)
        judged.shares.append(float(answer is not None))
        if isinstance(judged.phase, Requests) and judged.phase.kind == "trace":
            self._tries.append(answer.attempt if answer is not None else None)
        if answer is not None and answer.hops is not None:
            self._request_hops.append(answer.hops)
        if answer is not None and answer.messages:
            self._messages.append(answer.messages)

    def heard(self, phase: int, name: str) -> int:
        """How many nodes have delivered a publication that is not judged yet."""
        waiting = self._published[phase].open.get(name)
        return len(waiting.came) if waiting is not None else 0

    def cost(self, phase: int, traffic: Traffic) -> None:
        """What a message of this phase has cost."""
        self._published[phase].traffic.append(traffic)

    # --- the end -----------------------------------------------------------------------------

    def measures(self, nodes: Sequence[Viewing]) -> dict[str, float | None]:
        """Every measure of the scenario, None where nothing could be measured.

        `nodes`: those that are up at the end.
        """
        self._judge_until(math.inf)
        views = {node.peer_id: node.active_view() for node in nodes}
        for node in [*self._alone]:
            self._not_alone(node, self._last)
        values: dict[str, float | None] = {
            "joined": len(self._join_times) / max(self._scenario.nodes, len(self._started) + 1),
            "join_time": max(self._join_times.values(), default=None),
            "integrate_time": self._integrate_time(),
            "links_max": self._links_max,
            "alone": self._alone_at_most,
            **graphs.measures(views, setting(self._scenario, "active_size")),
            **_of_phases("reliability", self._published),
            **_of_phases("reliability_median", self._published, median),
            **_of_traffic(self._published),
            "last_hop": _mean([hop for judged in self._published for hop in judged.last_hops]),
            **{f"last_hop_{j.phase.name}": _mean(j.last_hops) for j in self._published},
            "cycles_to_heal": self._cycles_to_heal(),
            "reliability_min": min(_shares(self._published), default=None),
            "hops": _mean(self._hops),
            "hops_max": max(self._hops, default=None),
            "delay": _mean(self._delays),
            "delay_max": max(self._delays, default=None),
            **_of_phases("success", self._requested),
            "success_first": _mean([attempt == 0 for attempt in self._tries]),
            "success_retry": _mean([attempt in {0, 1} for attempt in self._tries]),
            "request_hops": _mean(self._request_hops),
            "messages_per_link": _mean(self._messages),
        }
        names = (*ALWAYS, *_names_of_work(self._scenario))
        return {name: values[name] for name in names if name in values}

    def _integrate_time(self) -> float | None:
        """Who is up and still has too few counts with the time that it has had."""
        waiting = [
            self._last - since
            for node, since in self._started.items()
            if node in self._up and node not in self._integrate_times
        ]
        return max([*self._integrate_times.values(), *waiting], default=None)

    def _cycles_to_heal(self) -> float | None:
        faults = self._scenario.faults
        if not faults or not _shares(self._published):
            return None
        cycle: float = setting(self._scenario, "shuffle_interval")
        return math.ceil(max(0.0, self._last_bad - min(fault.at for fault in faults)) / cycle)


def phase_of(name: str) -> int:
    """Ids are ``PHASE-NUMBER``, both counted from 0."""
    return int(name.partition("-")[0])


def _mean(values: Sequence[float]) -> float | None:
    return fmean(values) if values else None


def _shares(phases: Sequence[_Judged]) -> list[float]:
    return [share for judged in phases for share in judged.shares]


def _of_phases(
    measure: str,
    phases: Sequence[_Judged],
    reduce: Callable[[Sequence[float]], float] = fmean,
) -> dict[str, float | None]:
    named = {f"{measure}_{judged.phase.name}": judged.shares for judged in phases}
    every = {**named, measure: _shares(phases)}
    return {name: reduce(shares) if shares else None for name, shares in every.items()}


def _of_traffic(phases: Sequence[_Judged]) -> dict[str, float | None]:
    everything = [each for judged in phases for each in judged.traffic]
    named = {f"_{judged.phase.name}": judged.traffic for judged in phases if judged.phase.name}
    values: dict[str, float | None] = {}
    for suffix, costs in {**named, "": everything}.items():
        told = [each.measures() for each in costs]
        for name in TRAFFIC:
            values[name + suffix] = median(each[name] for each in told) if told else None
        wasteful = [number for number, each in enumerate(told, 1) if each["rmr"] > SETTLED]
        values[f"rmr_settled{suffix}"] = max(wasteful, default=0) if told else None
    return values
