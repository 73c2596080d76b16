"""One idea: a scenario is run: a world, its newcomers, faults and workload, drawn from one seed.

What the scenario decides by chance (who crashes, who publishes) comes from a source of its own, so
that the same nodes are hit whatever the network does.
"""

import dataclasses
import gc
import hashlib
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import msgspec

from overlay.core.events import Deliver, Effect, Rejected, Report, Resolved, Traced
from overlay.core.types import PeerId, RequestId
from overlay.sim.checks.invariants import Violated
from overlay.sim.node import SimNode
from overlay.sim.scenario import forking, liveness
from overlay.sim.scenario.adversaries import Adversaries
from overlay.sim.scenario.controls import cyclon
from overlay.sim.scenario.controls.naive import byzantine_share
from overlay.sim.scenario.faults import Faults
from overlay.sim.scenario.invitations import Invitations
from overlay.sim.scenario.measures import (
    Tally,
    Traffic,
    branch_name,
    branching,
    flooding,
    is_spaced,
    names_for,
)
from overlay.sim.scenario.profiles import chosen, conditions_of
from overlay.sim.scenario.scenario import DAY, Branches, Publish, Requests, Scenario
from overlay.sim.scenario.tracing import BRANCH, Event, Line, Tracer
from overlay.sim.world import World

STEP = 1.0
"""Virtual seconds between two looks at the progress."""
Progress = Callable[[float], None]
"""Told the virtual time now and then."""


def _silent(_: float) -> None:
    """For whoever does not watch the progress."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a run."""

    measures: dict[str, float | None]
    violation: Violated | None
    at: float
    """Virtual seconds at which it ended."""
    events: int
    """Messages delivered to nodes."""
    trace_hash: str


def run(
    scenario: Scenario,
    *,
    replay: str = "",
    write: Line | None = None,
    progress: Progress | None = None,
) -> Outcome:
    """Run a scenario to its end, or to the first invariant that breaks.

    `replay`: the command that does the same again; `write` gets every line of the trace,
    `progress` the virtual time now and then.
    """
    tell = progress or _silent
    if scenario.protocol == "cyclon":
        measures, messages = cyclon.measure(scenario, tell)
        digest = hashlib.sha256(msgspec.json.encode(measures)).hexdigest()
        return Outcome(measures, None, scenario.duration, messages, digest)
    return _Run(scenario, replay, write).to_the_end(tell)


def beginning(scenario: Scenario) -> Scenario:
    """A scenario without its words and whatever is done to its mesh: several may begin alike."""
    return msgspec.structs.replace(
        scenario,
        about="",
        source="",
        duration=DAY,
        liveness=0.0,
        bands={},
        branches=Branches(),
        faults=(),
        publish=(),
        requests=(),
        published=(),
    )


def _untouched(scenario: Scenario) -> float:
    """Virtual seconds until the first thing is done to its mesh."""
    work = [phase.start for phase in (*scenario.publish, *scenario.requests)]
    at = scenario.branches.at if scenario.branches.shares else scenario.duration
    return min(at, *work, *(fault.at for fault in scenario.faults))


class Grown:
    """The mesh of scenarios that begin alike, at the instant before anything is done to it."""

    def __init__(self, scenarios: Sequence[Scenario], progress: Progress = _silent) -> None:
        """Raises Violated when an invariant breaks on the way."""
        first, *others = map(beginning, scenarios)
        assert all(other == first for other in others)
        self._run = _Run(first, "", None)
        violation = self._run.run_to(min(map(_untouched, scenarios)) - STEP, progress)
        if violation is not None:
            raise violation

    def run(self, scenario: Scenario, progress: Progress = _silent) -> Outcome:
        """One of the scenarios, as `run` would; the mesh is another then, so do it in a copy."""
        self._run.turn_to(scenario)
        return self._run.to_the_end(progress)


@dataclass(slots=True)
class _Workload:
    """A phase under way."""

    phase: int
    number: int = 0
    senders: list[SimNode] = field(default_factory=list)


class _Branch(msgspec.Struct, frozen=True):
    """What came of a branch, as the copy of the process tells it."""

    lines: list[bytes]
    measures: dict[str, float | None]
    violation: tuple[int, float, str, str] | None
    at: float
    events: int


class _Run:
    """One world and all that is done to it."""

    def __init__(self, scenario: Scenario, replay: str, write: Line | None) -> None:
        self.scenario = scenario
        self.world = World(
            scenario.seed,
            conditions_of(scenario),
            checked=True,
            replay=replay,
            fidelity=scenario.fidelity,
        )
        self.world.observe(self._on_effect)
        self._rng = random.Random(f"scenario {scenario.seed}")
        self._adversaries = Adversaries(self.world, scenario.adversaries, scenario.nodes)
        self._tally = Tally(scenario)
        self._tracer: Tracer | None = Tracer(self._tally.take, write)
        self._names: dict[PeerId, str] = {}
        self._members: dict[SimNode, None] = {}
        """Nodes that have had a link since they started."""
        self._links: dict[SimNode, dict[PeerId, None]] = {}
        self._invitations = Invitations(
            self.world,
            scenario.duration,
            scenario.join.through == "first",
            self._contact,
            self._members.__contains__,
        )
        self._requests: dict[RequestId, tuple[str, PeerId]] = {}
        self._looked_for: list[tuple[Requests, _Workload]] = []
        self._schedule()

    def _schedule(self) -> None:
        self._schedule_joins()
        self._faults = Faults(self.world, self._rng, self._gone)
        if self.scenario.churn.stop:
            self.world.at(self.scenario.churn.start, self._begin_churn)
        self._schedule_work()

    def _schedule_work(self) -> None:
        numbered = enumerate(self.scenario.faults)
        for number, fault in sorted(numbered, key=lambda each: each[1].at):
            for time in range(fault.times):
                self.world.at(fault.at + time * fault.every, partial(self._strike, number))
        for number, publish in enumerate(self.scenario.publish):
            self._publish_at(publish.start, publish, _Workload(number))
        for number, requests in enumerate(self.scenario.requests):
            self._request_at(requests.start, requests, _Workload(number))

    def to_the_end(self, progress: Progress) -> Outcome:
        """Let the time pass, measure, and see that the mesh heals."""
        branches = self.scenario.branches
        if branches.shares:
            violation = self.run_to(branches.at, progress)
            return self._outcome(violation) if violation else self._branched(progress)
        violation = self.run_to(self.scenario.duration, progress)
        outcome, self._tracer = self._outcome(violation), None
        return outcome if violation else self._healed(outcome)

    def turn_to(self, scenario: Scenario) -> None:
        """From now on it is this one, which has the same beginning."""
        self.scenario = scenario
        self._tally.turn_to(scenario)
        self._schedule_work()

    def run_to(self, end: float, progress: Progress) -> Violated | None:
        """Let the time pass until then, or until an invariant breaks."""
        try:
            while self.world.now < end:
                self.world.run_for(min(STEP, end - self.world.now))
                progress(self.world.now)
        except Violated as violation:
            return violation
        return None

    def _healed(self, outcome: Outcome) -> Outcome:
        world = self.world
        try:
            self._demand_liveness()
        except Violated as violation:
            outcome = dataclasses.replace(outcome, violation=violation, at=world.now)
        return dataclasses.replace(outcome, events=world.events)

    def _demand_liveness(self) -> None:
        if self.scenario.liveness:
            liveness.calm(self.world)
            liveness.demand(self.world, within=self.scenario.liveness)

    def _outcome(self, violation: Violated | None) -> Outcome:
        assert self._tracer is not None
        measures = self._tally.measures(self.world.up())
        if self.scenario.adversaries:
            measures |= self._adversaries.measures() | self._control()
        names = dict.fromkeys(names_for(self.scenario))
        told = {name: measures.get(name) for name in names}
        world = self.world
        return Outcome(told, violation, world.now, world.events, self._tracer.digest)

    # --- branches ----------------------------------------------------------------------------

    def _branched(self, progress: Progress) -> Outcome:
        """A world for each share, all of them from here on; the first violation ends it."""
        assert self._tracer is not None
        branches, left = self.scenario.branches, self.scenario.duration - self.scenario.branches.at
        outcome = self._outcome(None)
        gc.freeze()  # what is not touched is not copied
        for number, share in enumerate(branches.shares, 1):
            copied = forking.forked(partial(self._branch, share))
            branch = msgspec.msgpack.decode(copied, type=_Branch)
            self._tracer.lines(branch.lines)
            outcome.measures.update(branch.measures)
            violation = Violated(*branch.violation) if branch.violation else None
            events = outcome.events + branch.events
            outcome = dataclasses.replace(outcome, events=events, violation=violation, at=branch.at)
            if violation is not None:
                break
            progress(branches.at + left * number / len(branches.shares))
        gc.unfreeze()
        return dataclasses.replace(outcome, trace_hash=self._tracer.digest)

    def _branch(self, share: float) -> bytes:
        """The rest of the run with this share; only ever in a copy of the process."""
        assert self._tracer is not None
        scenario, events, lines = self.scenario, self.world.events, self._tracer.aside()
        self._event(BRANCH, "", f"{share * 100:g}")
        first = msgspec.structs.replace(scenario.faults[0], share=share, count=None)
        self.scenario = msgspec.structs.replace(
            scenario, faults=(first, *scenario.faults[1:]), branches=Branches()
        )
        outcome = self.to_the_end(_silent)
        violation = outcome.violation
        told = _Branch(
            lines,
            {branch_name(name, share): outcome.measures[name] for name in branching(scenario)},
            (violation.seed, violation.at, violation.what, violation.replay) if violation else None,
            outcome.at,
            outcome.events - events,
        )
        return msgspec.msgpack.encode(told)

    def _control(self) -> dict[str, float | None]:
        """What the same flood makes of views in which anybody named replaces anybody."""
        scenario, flood = self.scenario, flooding(self.scenario)
        if flood is None:
            return {}
        settings = self.world.nodes[0].settings
        share = byzantine_share(
            nodes=scenario.nodes,
            byzantine=len(self._adversaries.members),
            view=settings.passive_size,
            factor=flood.factor,
            rounds=int(scenario.duration / settings.exchange_interval),
            rng=random.Random(f"control {scenario.seed}"),
        )
        return {"byzantine_control": share}

    # --- newcomers ---------------------------------------------------------------------------

    def _schedule_joins(self) -> None:
        join = self.scenario.join
        self._settings = chosen(self.scenario)
        others = self.scenario.nodes - 1
        self._start_first()
        if join.how == "burst":
            instants = sorted(self._rng.uniform(0.0, join.within) for _ in range(others))
        else:
            instants = [join.every * number for number in range(1, others + 1)]
        for instant in instants:
            self.world.at(instant, self._start_another)

    def _start_first(self) -> None:
        advertised = self.scenario.join.advertised
        core = self._adversaries.next_core()
        first = self.world.spawn(core=core, advertised=advertised, **self._settings)
        self._adversaries.enlist(first)
        self._names[first.peer_id] = first.name
        self._members[first] = None
        self._event("join", first.name, "")

    def _start_another(self) -> None:
        join = self.scenario.join
        firewalled = self._rng.random() < join.firewalled
        contact = self._contact()
        node = self.world.spawn(
            core=self._adversaries.next_core(),
            firewalled=firewalled,
            advertised=join.advertised,
            group=contact.group if contact else 0,
            **self._settings,
        )
        self._adversaries.enlist(node)
        self._names[node.peer_id] = node.name
        self._tally.started(node.name, self.world.now)
        if contact is not None:
            self._invitations.bring_in(node, contact)

    def _begin_churn(self) -> None:
        for node in list(self._members):
            self._begin_session(node)

    def _begin_session(self, node: SimNode) -> None:
        """How long this one stays (D. Stutzbach, R. Rejaie, IMC 2006: Weibull)."""
        churn = self.scenario.churn
        scale = churn.median / math.log(2.0) ** (1.0 / churn.shape)
        end = self.world.now + self._rng.weibullvariate(scale, churn.shape)
        if end < churn.stop:
            self.world.at(end, partial(self._end_session, node))

    def _end_session(self, node: SimNode) -> None:
        if node not in self._members:
            return
        self._start_another()
        self.world.crash(node)
        self._gone(node)

    def _contact(self) -> SimNode | None:
        if self.scenario.join.through == "first":
            return next((node for node in self._members if not node.frozen), None)
        members = self._up()
        return self._rng.choice(members) if members else None

    def _up(self) -> list[SimNode]:
        """Honest members that are up, in the order in which they came."""
        byzantine = self._adversaries.members
        return [node for node in self._members if not node.frozen and node not in byzantine]

    # --- workload ----------------------------------------------------------------------------

    def _publish_at(self, when: float, phase: Publish, work: _Workload) -> None:
        if when < phase.stop:
            self.world.at(when, lambda: self._publish(phase, work))

    def _publish(self, phase: Publish, work: _Workload) -> None:
        up = self._up()
        name = f"{work.phase}-{work.number}"
        if up:
            node = self._sender(phase, work, up)
            self._event("publish", node.name, name)
            if is_spaced(phase):
                spent = partial(self._count, work.phase, name, self._sent(), self._graph())
                self.world.after(phase.within, spent)
            self.world.publish(node, name.encode().ljust(phase.size))
        work.number += 1
        self._publish_at(phase.start + work.number / phase.rate, phase, work)

    def _sent(self) -> tuple[int, int]:
        """Copies and announcements that the trees of all nodes have sent so far."""
        sent = [node.core.status() for node in self.world.nodes]
        return sum(each.payloads for each in sent), sum(each.announcements for each in sent)

    def _graph(self) -> tuple[int, int]:
        """Nodes that are up, and links of their views."""
        degrees = [len(node.core.active_view()) for node in self.world.up()]
        return len(degrees), sum(degrees) // 2

    def _count(
        self, phase: int, name: str, before: tuple[int, int], graph: tuple[int, int]
    ) -> None:
        """The time of a message is over: what it has cost."""
        payloads, announcements = self._sent()
        heard = self._tally.heard(phase, name)
        traffic = Traffic(payloads - before[0], announcements - before[1], heard, *graph)
        self._tally.cost(phase, traffic)

    def _sender(self, phase: Publish, work: _Workload, up: list[SimNode]) -> SimNode:
        """The next in turn, of those that are still up; else somebody new."""
        if not phase.senders:
            return self._rng.choice(up)
        if not work.senders:
            work.senders = self._rng.sample(up, min(phase.senders, len(up)))
        turn = work.number % len(work.senders)
        if not self._is_up(work.senders[turn]):
            work.senders[turn] = self._rng.choice(up)
        return work.senders[turn]

    def _is_up(self, node: SimNode) -> bool:
        return node in self._members and not node.frozen

    def _request_at(self, when: float, phase: Requests, work: _Workload) -> None:
        if when < phase.stop and not phase.after_join:
            self.world.at(when, lambda: self._request(phase, work))
        elif when < phase.stop and not work.number:
            self._looked_for.append((phase, work))

    def _request(self, phase: Requests, work: _Workload, to: SimNode | None = None) -> None:
        up = [each for each in self._up() if each is not to]
        name = f"{work.phase}-{work.number}"
        if len(up) > 1 and (to is None or self._is_up(to)):
            node, peer = (self._rng.choice(up), to) if to else self._rng.sample(up, 2)
            self._event("request", node.name, name, to=peer.name)
            ask = self.world.trace if phase.kind == "trace" else self.world.connect
            request = ask(node, peer)
            self._requests[request] = name, peer.peer_id
            if request in node.results:
                self._on_result(node, node.results[request])
        work.number += 1
        self._request_at(phase.start + work.number / phase.rate, phase, work)

    # --- what happens ------------------------------------------------------------------------

    def _event(self, kind: str, node: str, name: str, **more: Any) -> None:
        if self._tracer is not None:
            self._tracer.event(Event(self.world.now, kind, node, name, **more))

    def _on_effect(self, node: SimNode, effect: Effect) -> None:
        if self._tracer is None:
            return
        match effect:
            case Deliver(data=data, hops=hops):
                self._event("deliver", node.name, data.decode().rstrip(), hops=hops)
            case Resolved() | Rejected():
                self._on_result(node, effect)
            case Report(event="peer_up", fields=fields):
                self._on_link_up(node, fields["peer"])
            case Report(event="peer_down" | "peer_silent", fields=fields):
                self._on_link_down(node, fields["peer"])

    def _on_result(self, node: SimNode, result: Resolved | Rejected) -> None:
        if self._invitations.take(result):
            return
        asked = self._requests.pop(result.request, None)
        if asked is None or isinstance(result, Rejected):
            return
        (name, peer), found = asked, result.value
        if isinstance(found, Traced):
            self._event("answered", node.name, name, hops=len(found.hops), attempt=found.attempt)
        else:
            cost = node.cost_of(peer, node.wall(self.world.now))
            self._event("answered", node.name, name, messages=cost)

    def _on_link_up(self, node: SimNode, peer: PeerId) -> None:
        if node not in self._members:
            self._members[node] = None
            self._event("join", node.name, "")
            for phase, work in self._looked_for:
                if self.world.now + phase.after_join < phase.stop:
                    self.world.after(phase.after_join, partial(self._request, phase, work, node))
            if self.scenario.churn.start <= self.world.now < self.scenario.churn.stop:
                self._begin_session(node)
        links = self._links.setdefault(node, {})
        if peer not in links:
            links[peer] = None
            self._event("link_up", node.name, self._names[peer])

    def _on_link_down(self, node: SimNode, peer: PeerId) -> None:
        if peer in self._links.get(node, {}):
            del self._links[node][peer]
            self._event("link_down", node.name, self._names[peer])

    def _strike(self, number: int) -> None:
        self._faults.strike(self.scenario.faults[number])

    def _gone(self, node: SimNode) -> None:
        """A node has crashed or left."""
        self._members.pop(node, None)
        self._links.pop(node, None)
        self._event("crash", node.name, "")
