"""One idea: a scenario as TOML writes it, each key of each table with its limits and its meaning.

The structs below are the only place where a key, its default, its limits and its meaning are
written; `overlay.sim.scenario.reading` holds a file against them, the documentation is made from
them.
"""

from typing import Annotated

import msgspec
from msgspec import Meta

from overlay.tables import Table

DAY = 86_400
"""Seconds: no scenario is longer."""
LATENCY = (0.005, 0.050)
BASE = 0.005
"""Seconds."""
NAME = "^([a-z][a-z0-9_]*)?$"


class Links(Table, frozen=True, kw_only=True):
    """What every node is set to, on top of the profile; the keys are those of a node's `links`."""

    auto: (
        Annotated[
            bool,
            Meta(
                description="Whether links open that no command asked for. Off: nobody grows a "
                "view, nothing is repaired.",
                extra={"default": "the profile's"},
            ),
        ]
        | None
    ) = None
    direct: (
        Annotated[
            bool,
            Meta(
                description="Whether members known by gossip may be dialled. Off: links to them "
                "are negotiated through the mesh.",
                extra={"default": "the profile's"},
            ),
        ]
        | None
    ) = None
    full_mesh: (
        Annotated[
            int,
            Meta(
                ge=0,
                le=64,
                description="Up to this many nodes the mesh is full; 0 for never.",
                extra={"default": "the profile's"},
            ),
        ]
        | None
    ) = None
    active: (
        Annotated[
            int,
            Meta(
                ge=1,
                le=64,
                description="Neighbours for gossip in a larger mesh: HyParView's active view.",
                extra={"default": "the profile's"},
            ),
        ]
        | None
    ) = None
    passive: (
        Annotated[
            int,
            Meta(
                ge=0,
                le=1024,
                description="Members kept in mind to replace neighbours: HyParView's passive view.",
                extra={"default": "the profile's"},
            ),
        ]
        | None
    ) = None
    max: (
        Annotated[
            int,
            Meta(
                ge=2,
                le=128,
                description="Links beyond this are guests, handed on within 30 s.",
                extra={"default": "the profile's"},
            ),
        ]
        | None
    ) = None


class Network(Table, frozen=True, kw_only=True):
    """What the network does to packets."""

    latency: Annotated[
        tuple[float, float],
        Meta(
            description="Seconds one way, least and most; each link draws its own (with fidelity "
            "`ice` each pair of nodes).",
            extra={"allowed": "two numbers from 0 to 10, the lower one first"},
        ),
    ] = LATENCY
    coordinates: (
        Annotated[
            float,
            Meta(
                gt=0,
                le=10,
                description="In place of `latency`: nodes have places in a square with a side of "
                "so many seconds, drawn from the seed, and a packet takes `base` and as long as "
                "the way is straight.",
                extra={"default": "none"},
            ),
        ]
        | None
    ) = None
    base: (
        Annotated[
            float,
            Meta(
                ge=0,
                le=10,
                description="With `coordinates`: seconds that every way takes besides.",
                extra={"default": f"{BASE}"},
            ),
        ]
        | None
    ) = None
    matrix: (
        Annotated[
            str | tuple[tuple[float, ...], ...],
            Meta(
                description="In place of `latency`: seconds one way, a row for each sender and a "
                "column for each receiver; node i has row and column i modulo their number. A CSV "
                "file (its path relative to this file's), or the rows.",
                extra={
                    "allowed": "the path of a CSV file with 1 to 2048 rows of as many numbers "
                    "from 0 to 10, or these rows",
                    "default": "none",
                },
            ),
        ]
        | None
    ) = None
    jitter: Annotated[
        float,
        Meta(
            ge=0,
            le=10,
            description="Seconds by which a message comes later at most, drawn for each.",
        ),
    ] = 0.002
    loss: Annotated[
        float,
        Meta(
            ge=0,
            le=0.9,
            description="The share of packets lost. Control messages are sent again and come "
            "later, in order; what a handshake loses, it sends again too.",
        ),
    ] = 0.0
    reordering: Annotated[
        float,
        Meta(
            ge=0,
            le=1,
            description="The share of packets held up on the way, by as much as four times the "
            "link's latency: what travels on other links overtakes them.",
        ),
    ] = 0.0
    bandwidth: Annotated[
        float,
        Meta(
            ge=0,
            le=10**12,
            description="Bytes a second that a link carries each way; 0 for no limit.",
        ),
    ] = 0.0


class Join(Table, frozen=True, kw_only=True):
    """How the nodes come in."""

    how: Annotated[
        str,
        Meta(
            pattern="^(one-at-a-time|burst)$",
            description="`one-at-a-time`: one every `every` seconds. `burst`: all at instants "
            "drawn from the first `within` seconds.",
        ),
    ] = "one-at-a-time"
    every: Annotated[
        float,
        Meta(
            ge=0.001,
            le=DAY,
            description="Seconds from one newcomer to the next.",
        ),
    ] = 0.5
    within: Annotated[
        float,
        Meta(
            ge=0.001,
            le=DAY,
            description="Seconds in which the whole burst comes.",
        ),
    ] = 10.0
    through: Annotated[
        str,
        Meta(
            pattern="^(first|random)$",
            description="Whose invite newcomers use: that of the `first` node (of the next one "
            "once that is down), or of a `random` one that is up.",
        ),
    ] = "first"
    firewalled: Annotated[
        float,
        Meta(
            ge=0,
            le=1,
            description="The share of newcomers whom nobody can dial: links to them are "
            "negotiated through the mesh. The first node is none of them.",
        ),
    ] = 0.0
    advertised: Annotated[
        bool,
        Meta(
            description="Whether all give their addresses as ones that everybody can dial (as "
            "with `overlay up --advertise`). Else an address proves itself when it is dialled.",
        ),
    ] = False


class Fault(Table, frozen=True, kw_only=True):
    """One line of the timeline: at this instant, do this to so many nodes."""

    at: Annotated[
        float,
        Meta(
            ge=0,
            le=DAY,
            description="Virtual seconds since the beginning.",
        ),
    ]
    do: Annotated[
        str,
        Meta(
            pattern="^(crash|leave|freeze|thaw|restart|partition|heal|clock)$",
            description="`crash`: gone without a word. `leave`: gone with a goodbye. `restart`: "
            "crashed nodes come back with their keys and their cache. `freeze`: stopped without "
            "dying. `thaw`: frozen nodes go on. `partition`: no packet passes between the "
            "`parts`. `heal`: all pass again. `clock`: wall clocks jump by `by`.",
        ),
    ]
    share: (
        Annotated[
            float,
            Meta(
                gt=0,
                le=1,
                description="How many of the nodes that it can happen to, as a share, rounded. "
                "For `thaw` and `restart` all of them unless it is given.",
                extra={"default": "none"},
            ),
        ]
        | None
    ) = None
    count: (
        Annotated[
            int,
            Meta(
                ge=1,
                le=1_000_000,
                description="The same as a number of nodes.",
                extra={"default": "none"},
            ),
        ]
        | None
    ) = None
    parts: (
        Annotated[
            tuple[float, ...],
            Meta(
                min_length=2,
                max_length=16,
                description="Of a `partition`: the share of the nodes in each part.",
                extra={
                    "allowed": "2 to 16 numbers above 0 that add up to 1",
                    "default": "two halves",
                },
            ),
        ]
        | None
    ) = None
    times: Annotated[
        int,
        Meta(
            ge=1,
            le=100_000,
            description="How often it happens.",
        ),
    ] = 1
    every: Annotated[
        float,
        Meta(
            ge=0.001,
            le=DAY,
            description="Seconds from one time to the next.",
        ),
    ] = 1.0
    by: (
        Annotated[
            float,
            Meta(
                ge=-10 * 365 * DAY,
                le=10 * 365 * DAY,
                description="Of a `clock`: seconds by which the wall clocks jump.",
                extra={"allowed": "a number of seconds, at most ten years", "default": "none"},
            ),
        ]
        | None
    ) = None


class Churn(Table, frozen=True, kw_only=True):
    """Nodes that come and go: each stays for a session and crashes, and a newcomer takes its place.

    Sessions are drawn from a Weibull distribution, for those that are there from `start` on.
    """

    start: Annotated[
        float,
        Meta(
            ge=0,
            le=DAY,
            description="Virtual seconds at which the sessions of those that are there begin.",
        ),
    ] = 0.0
    stop: Annotated[
        float,
        Meta(
            ge=0,
            le=DAY,
            description="Virtual seconds from which on nobody crashes; 0 for no churn at all.",
            extra={"also": "after `start`"},
        ),
    ] = 0.0
    median: Annotated[
        float,
        Meta(
            ge=1,
            le=DAY,
            description="Seconds of which half of the sessions are shorter.",
        ),
    ] = 300.0
    shape: Annotated[
        float,
        Meta(
            ge=0.1,
            le=10,
            description="Of the distribution: below 1, who has stayed long stays longer.",
        ),
    ] = 0.5


BEHAVIOURS = {
    "flood": "pushes views full of adversaries, `factor` times as often as others exchange theirs, "
    "and answers with such views",
    "drop": "passes no publication on",
    "lie": "names members at random as its neighbours",
    "replay": "says again on all links what it once heard on one",
    "forge": "spreads records and publications that it altered",
    "swallow": "acknowledges the requests of others, and passes none on",
}


class Adversary(Table, frozen=True, kw_only=True):
    """So many of the nodes, the first one never, behave in these ways from the beginning."""

    share: Annotated[
        float,
        Meta(
            gt=0,
            lt=1,
            description="Of all nodes, rounded. Who it is, is drawn from the seed.",
        ),
    ]
    do: Annotated[
        tuple[Annotated[str, Meta(pattern=f"^({'|'.join(BEHAVIOURS)})$")], ...],
        Meta(
            min_length=1,
            max_length=len(BEHAVIOURS),
            description="; ".join(f"`{name}`: {what}" for name, what in BEHAVIOURS.items()) + ".",
            extra={"allowed": f"a list of {', '.join(BEHAVIOURS)}"},
        ),
    ]
    factor: Annotated[
        float,
        Meta(
            gt=0,
            le=1000,
            description="Of a `flood`: pushes for each exchange of an honest node.",
        ),
    ] = 10.0


class Branches(Table, frozen=True, kw_only=True):
    """From an instant on, a world for each of several shares: what came before is the same.

    Measures of what happens from then on are told apart by the share in percent
    (`reliability_50`); the others are taken at that instant.
    """

    at: Annotated[
        float,
        Meta(
            ge=0,
            le=DAY,
            description="Virtual seconds since the beginning; faults and workload come later than "
            "this.",
            extra={"also": "less than the duration"},
        ),
    ] = 0.0
    shares: Annotated[
        tuple[float, ...],
        Meta(
            max_length=99,
            description="The shares of nodes that the first fault hits, a world for each.",
            extra={
                "allowed": "at most 99 different whole percentages, such as 0.1 and 0.25",
                "default": "none, there is one world",
            },
        ),
    ] = ()


class Phase(Table, frozen=True, kw_only=True):
    """A part of the workload: from when to when, how often, and how it is told from others."""

    start: Annotated[
        float,
        Meta(
            ge=0,
            le=DAY,
            description="Virtual seconds at which the first one is due.",
        ),
    ]
    stop: Annotated[
        float,
        Meta(
            ge=0,
            le=DAY,
            description="Virtual seconds at which no more are due; `within` later has to be "
            "within the `duration`.",
            extra={"also": "after `start`"},
        ),
    ]
    rate: Annotated[
        float,
        Meta(
            gt=0,
            le=10_000,
            description="How many a second, evenly spaced.",
        ),
    ] = 1.0
    within: Annotated[
        float,
        Meta(
            gt=0,
            le=DAY,
            description="Seconds that each one has until it is judged. Who goes down in that time "
            "does not count.",
        ),
    ] = 10.0
    name: Annotated[
        str,
        Meta(
            pattern=NAME,
            max_length=32,
            description="With a name the phase has measures of its own: `reliability_NAME` or "
            "`success_NAME`.",
            extra={"allowed": "small letters, digits and _, a letter first", "default": "none"},
        ),
    ] = ""


class Publish(Phase, frozen=True, kw_only=True):
    """Messages published to all."""

    senders: Annotated[
        int,
        Meta(
            ge=0,
            le=1_000_000,
            description="How many nodes take turns; 0 for a fresh one drawn each time.",
        ),
    ] = 0
    size: Annotated[
        int,
        Meta(
            ge=1,
            le=1 << 20,
            description="Bytes of a message (some 20 at least, for its id).",
        ),
    ] = 100


class Requests(Phase, frozen=True, kw_only=True):
    """Requests from one node to another, the pairs drawn among those that are up."""

    kind: Annotated[
        str,
        Meta(
            pattern="^(trace|connect)$",
            description="`trace`: sent through the mesh the way an offer would go, and back. "
            "`connect`: a link is opened, by a dial or by an offer through the mesh.",
        ),
    ] = "trace"
    after_join: Annotated[
        float,
        Meta(
            ge=0,
            le=DAY,
            description="Each newcomer is asked for once, so many seconds after its first link, if "
            "that is before `stop`; then there is no `rate`. 0: requests come at the rate.",
        ),
    ] = 0.0


class Published(Table, frozen=True, kw_only=True):
    """Figures that somebody has published, to be shown beside what is measured here."""

    name: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=80,
            description="What they are called in a report.",
        ),
    ]
    source: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=200,
            description="Who published them, and where.",
        ),
    ]
    measures: Annotated[
        tuple[str, ...],
        Meta(
            min_length=1,
            max_length=1000,
            description="The measures that the figures are for, one each; with `along`, one "
            "measure for all.",
            extra={"allowed": "names of measures of this scenario"},
        ),
    ]
    values: Annotated[
        tuple[float, ...],
        Meta(
            min_length=1,
            max_length=1000,
            description="The figures.",
            extra={"allowed": "as many numbers as `measures`, or as `x`"},
        ),
    ]
    x: Annotated[
        tuple[float, ...],
        Meta(
            max_length=1000,
            description="Where the figures lie on a curve; without it they are only told.",
            extra={"allowed": "as many numbers as `values`", "default": "no curve"},
        ),
    ] = ()
    label: Annotated[
        str,
        Meta(
            max_length=80,
            description="What `x` is, for people.",
            extra={"default": "that of `along`"},
        ),
    ] = ""
    along: Annotated[
        str,
        Meta(
            max_length=80,
            description="The key whose values `x` are, such as `nodes`: each run has one point of "
            "the curve, and a sweep along the key all of it.",
            extra={"allowed": "a key as `--set` has it", "default": "none"},
        ),
    ] = ""


class Scenario(Table, frozen=True, kw_only=True):
    """A world, what happens to it, what it is asked to do, and what has to come of it."""

    about: Annotated[
        str,
        Meta(
            max_length=200,
            description="One line for `overlay sim list`.",
            extra={"default": "none"},
        ),
    ] = ""
    source: Annotated[
        str,
        Meta(
            max_length=200,
            description="Where what it reproduces was published; another line of the list.",
            extra={"default": "none"},
        ),
    ] = ""
    nodes: Annotated[
        int,
        Meta(
            ge=1,
            le=1_000_000,
            description="How many nodes there are: the full size, at which the bands hold.",
        ),
    ]
    duration: Annotated[
        float,
        Meta(
            ge=1,
            le=DAY,
            description="Virtual seconds until everything is measured.",
        ),
    ]
    seed: Annotated[
        int,
        Meta(
            ge=0,
            le=2**63 - 1,
            description="Everything that chance decides is drawn from it.",
        ),
    ] = 1
    profile: Annotated[
        str,
        Meta(
            pattern="^(product|paper)$",
            description="`product`: the defaults that ship. `paper`: HyParView's own: no full "
            "mesh at any size, an active view of 5, links by dialling alone, no ring, nobody "
            "known but by walks and shuffles.",
        ),
    ] = "product"
    protocol: Annotated[
        str,
        Meta(
            pattern="^(overlay|cyclon)$",
            description="`overlay`: the composed core. `cyclon`: a control beside it, Cyclon with "
            "a view of 35, shuffles of 14 and gossip to 4 random peers, to see that the measuring "
            "is right.",
        ),
    ] = "overlay"
    dissemination: Annotated[
        str,
        Meta(
            pattern="^(plumtree|flood)$",
            description="`plumtree`: the tree that ships. `flood`: every message goes to every "
            "neighbour, as in the HyParView paper.",
        ),
    ] = "plumtree"
    fidelity: Annotated[
        str,
        Meta(
            pattern="^(links|ice)$",
            description="`links`: a link opens after the time of a few packets, and its silence "
            "is noticed when checks would have noticed it. `ice`: every check is a datagram from "
            "one port that ships to another, and firewalled nodes are behind firewalls; it takes "
            "several times as long.",
        ),
    ] = "links"
    cycle: (
        Annotated[
            float,
            Meta(
                ge=0.1,
                le=DAY,
                description="Seconds from one shuffle of a node to its next: the papers' cycle.",
                extra={"default": "10"},
            ),
        ]
        | None
    ) = None
    liveness: Annotated[
        float,
        Meta(
            ge=0,
            le=DAY,
            description="After the measuring, what is frozen thaws and what is divided heals, and "
            "the world has so many virtual seconds to be one mesh of symmetric views; then a "
            "message has to reach everybody and random pairs have to link. 0 leaves that out.",
        ),
    ] = 180.0
    links: Links = Links()
    network: Network = Network()
    join: Join = Join()
    churn: Churn = Churn()
    faults: tuple[Fault, ...] = ()
    adversaries: tuple[Adversary, ...] = ()
    branches: Branches = Branches()
    publish: tuple[Publish, ...] = ()
    requests: tuple[Requests, ...] = ()
    published: tuple[Published, ...] = ()
    bands: Annotated[
        dict[str, tuple[float, float]],
        Meta(
            description="For a measure, the least and the greatest value that is right.",
            extra={"allowed": "two numbers, the lower one first", "default": "none"},
        ),
    ] = msgspec.field(default_factory=dict)
