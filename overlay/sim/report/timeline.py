"""What the plots of a report show, gathered from the lines of a trace while it is written.

Bounded whatever the run does: the time is cut into `BINS` parts, delays into steps of two per cent;
only messages and requests are kept one by one.
"""

import math
from collections import Counter
from dataclasses import dataclass, field

import msgspec

from overlay.sim.scenario.scenario import Phase, Scenario
from overlay.sim.scenario.tracing import BRANCH, Event

BINS = 240
"""Parts of the virtual time; a plot has room for no more (guess)."""
DELAY_STEP = math.log(1.02)
DELAY_MIN = 1e-6
"""Seconds: the world's own resolution."""


@dataclass(frozen=True, slots=True)
class Moment:
    """The mesh at the end of one part of the time."""

    at: float
    up: int
    """Members that are up."""
    links: float
    """Links of each of them, on average."""


@dataclass(frozen=True, slots=True)
class Judged:
    """A message or request whose time is over."""

    at: float
    """Virtual second at which it began."""
    share: float
    """The share of the nodes up throughout that it reached; of a request, 1 or 0."""


@dataclass(slots=True, eq=False)
class Lane:
    """The run, or what comes of it in one of its branches."""

    name: str
    """Of a branch, what sets it apart; of the run itself, empty."""
    begin: float
    end: float
    """Virtual seconds."""
    moments: list[Moment] = field(default_factory=list)
    messages: list[Judged] = field(default_factory=list)
    requests: list[Judged] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class _Open:
    at: float
    within: float
    node: str
    to: str | None
    came: set[str] = field(default_factory=set)


class Timeline:
    """Takes in the lines of a trace in their order."""

    def __init__(self, scenario: Scenario) -> None:
        branches = scenario.branches
        trunk = Lane("", 0.0, branches.at if branches.shares else scenario.duration)
        self.lanes = [trunk]
        """The run, then its branches."""
        self.hops: Counter[int] = Counter()
        """Deliveries by the number of links that they had passed."""
        self._scenario = scenario
        self._decode = msgspec.json.Decoder(Event).decode
        self._delays: Counter[int] = Counter()
        self._up: dict[str, float] = {}
        self._links: dict[str, int] = {}
        self._open: dict[tuple[str, str], _Open] = {}
        self._due = math.inf
        self._fork: tuple[dict[str, float], dict[str, int]] | None = None
        """Who was up, and with how many links, when the first branch began."""

    @property
    def empty(self) -> bool:
        """Whether there was no event: a control has no nodes."""
        return not self._up and self._fork is None

    def line(self, data: bytes) -> None:
        """One more line."""
        self.take(self._decode(data))

    def finish(self) -> None:
        """The trace is over."""
        self._pass_until(math.inf)
        self._judge(math.inf)

    def delays(self) -> list[tuple[float, float]]:
        """For the seconds that a delivery took, the share of deliveries that took no more."""
        total, passed, curve = self._delays.total(), 0, []
        for step, count in sorted(self._delays.items()):
            passed += count
            curve.append((math.exp(step * DELAY_STEP), passed / total))
        return curve

    def degrees(self) -> Counter[int]:
        """How many members have so many links: at the end, or where the branches begin."""
        up, links = self._fork or (self._up, self._links)
        return Counter(links.get(node, 0) for node in up)

    # --- one event -----------------------------------------------------------------------------

    def take(self, event: Event) -> None:
        """One more event."""
        if event.kind == BRANCH:
            self._branch(event)
        self._pass_until(event.t)
        if event.t > self._due:
            self._judge(event.t)
        node = event.node
        match event.kind:
            case "join":
                self._up[node] = event.t
            case "crash":
                self._up.pop(node, None)
                self._links.pop(node, None)
            case "link_up":
                self._links[node] = self._links.get(node, 0) + 1
            case "link_down":
                self._links[node] = self._links.get(node, 0) - 1
            case "publish":
                self._begin("publish", event, self._scenario.publish)
            case "request":
                self._begin("request", event, self._scenario.requests)
            case "deliver":
                self._deliver(event)
            case "answered":
                if waiting := self._open.get(("request", event.id)):
                    waiting.came.add(node)

    def _branch(self, event: Event) -> None:
        """Continue from what there was before the first branch."""
        self.finish()
        self._fork = self._fork or (dict(self._up), dict(self._links))
        self._up, self._links = dict(self._fork[0]), dict(self._fork[1])
        self._open.clear()
        self.lanes.append(Lane(event.id, self._scenario.branches.at, self._scenario.duration))

    def _begin(self, kind: str, event: Event, phases: tuple[Phase, ...]) -> None:
        within = phases[int(event.id.partition("-")[0])].within
        self._open[kind, event.id] = _Open(event.t, within, event.node, event.to)
        self._due = min(self._due, event.t + within)

    def _deliver(self, event: Event) -> None:
        waiting = self._open.get(("publish", event.id))
        if waiting is None:
            return
        waiting.came.add(event.node)
        if event.node != waiting.node:
            self.hops[event.hops or 0] += 1
            delay = max(event.t - waiting.at, DELAY_MIN)
            self._delays[round(math.log(delay) / DELAY_STEP)] += 1

    def _judge(self, now: float) -> None:
        """All whose time is over count; of messages, the nodes that were up throughout."""
        lane = self.lanes[-1]
        for key, waiting in list(self._open.items()):
            if waiting.at + waiting.within >= now:
                continue
            del self._open[key]
            if not self._stayed(waiting.node, waiting.at):
                continue
            if key[0] == "publish":
                audience = [node for node, since in self._up.items() if since <= waiting.at]
                reached = sum(node in waiting.came for node in audience)
                lane.messages.append(Judged(waiting.at, reached / len(audience)))
            elif self._stayed(waiting.to or "", waiting.at):
                lane.requests.append(Judged(waiting.at, float(waiting.node in waiting.came)))
        ends = (waiting.at + waiting.within for waiting in self._open.values())
        self._due = min(ends, default=math.inf)

    def _stayed(self, node: str, since: float) -> bool:
        return self._up.get(node, math.inf) <= since

    def _pass_until(self, now: float) -> None:
        lane = self.lanes[-1]
        step = (lane.end - lane.begin) / BINS
        while len(lane.moments) < BINS:
            end = lane.begin + step * (len(lane.moments) + 1)
            if end > now:
                break
            links = sum(self._links.get(node, 0) for node in self._up)
            lane.moments.append(Moment(end, len(self._up), links / max(len(self._up), 1)))
