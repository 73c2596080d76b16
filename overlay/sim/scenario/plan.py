"""The tables of a scenario that say what happens to its world, and when."""

from typing import Annotated

from msgspec import Meta

from overlay.tables import Table

DAY = 86_400


class Fault(Table, frozen=True, kw_only=True):
    """One line of the timeline: at this instant, do this to so many nodes."""

    at: Annotated[
        float,
        Meta(
            ge=0,
            le=DAY,
            description="Virtual seconds since the beginning.",
            extra={"allowed": f"a number from 0 to {DAY}"},
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
            extra={
                "allowed": "crash, leave, freeze, thaw, restart, partition, heal or clock",
            },
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
                extra={"allowed": "a number above 0, at most 1", "default": "none"},
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
                extra={"allowed": "a whole number from 1", "default": "none"},
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
            extra={"allowed": "a whole number from 1 to 100000"},
        ),
    ] = 1
    every: Annotated[
        float,
        Meta(
            ge=0.001,
            le=DAY,
            description="Seconds from one time to the next.",
            extra={"allowed": f"a number from 0.001 to {DAY}"},
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
            extra={"allowed": f"a number from 0 to {DAY}"},
        ),
    ] = 0.0
    stop: Annotated[
        float,
        Meta(
            ge=0,
            le=DAY,
            description="Virtual seconds from which on nobody crashes; 0 for no churn at all.",
            extra={"allowed": f"a number from 0 to {DAY}, after `start`"},
        ),
    ] = 0.0
    median: Annotated[
        float,
        Meta(
            ge=1,
            le=DAY,
            description="Seconds of which half of the sessions are shorter.",
            extra={"allowed": f"a number from 1 to {DAY}"},
        ),
    ] = 300.0
    shape: Annotated[
        float,
        Meta(
            ge=0.1,
            le=10,
            description="Of the distribution: below 1, who has stayed long stays longer.",
            extra={"allowed": "a number from 0.1 to 10"},
        ),
    ] = 0.5


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
            extra={"allowed": f"a number from 0 to {DAY}, less than the duration"},
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
