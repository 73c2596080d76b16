"""The states of an ICE agent, of its candidate pairs, and what it thinks of the peer: as tables.

The agent, the check list, the path and ICE-lite look up every next state here. An
agent's or a pair's event that has no entry for the state is a bug of ours and raises; a verdict on
the peer that has none is no news.
"""

from enum import StrEnum


class AgentState(StrEnum):
    """Where an attempt stands."""

    NEW = "new"
    """The peer's candidates are not known yet; its checks are kept."""
    CHECKING = "checking"
    """All pairs are tried, and none is the path yet."""
    SELECTED = "selected"
    """The path stands and is watched."""
    FAILED = "failed"
    """The end: nothing is sent or answered any more."""

    @property
    def is_checking(self) -> bool:
        """Whether pairs are tried."""
        return self is AgentState.CHECKING

    @property
    def is_failed(self) -> bool:
        """Whether this was the end."""
        return self is AgentState.FAILED


class AgentEvent(StrEnum):
    """What moves it."""

    START = "start"
    SELECT = "a pair is nominated, or the path moves"
    FAIL = "no pair in time, silent for 60 s, or a conflict of roles"


AGENT: dict[AgentState, dict[AgentEvent, AgentState]] = {
    AgentState.NEW: {
        AgentEvent.START: AgentState.CHECKING,
        AgentEvent.FAIL: AgentState.FAILED,
    },
    AgentState.CHECKING: {
        AgentEvent.SELECT: AgentState.SELECTED,
        AgentEvent.FAIL: AgentState.FAILED,
    },
    AgentState.SELECTED: {
        AgentEvent.SELECT: AgentState.SELECTED,
        AgentEvent.FAIL: AgentState.FAILED,
    },
    AgentState.FAILED: {},
}


class PairState(StrEnum):
    """Of a candidate pair (RFC 8445 §6.1.2.6).

    Deviation: no Frozen. With one component the timer would thaw pair after pair anyhow, and
    all that freezing saves is what pacing already bounds.
    """

    WAITING = "waiting"
    """Not checked yet; its turn comes by priority."""
    IN_PROGRESS = "in progress"
    """A check is under way."""
    SUCCEEDED = "succeeded"
    """A check was answered: the pair works both ways."""
    FAILED = "failed"
    """A check was not answered, or with an error; the peer's own check starts another."""


class PairEvent(StrEnum):
    """What becomes of its checks."""

    CHECKED = "check sent"
    ANSWERED = "answer"
    UNANSWERED = "error, or no answer"


PAIR: dict[PairState, dict[PairEvent, PairState]] = {
    PairState.WAITING: {PairEvent.CHECKED: PairState.IN_PROGRESS},
    PairState.IN_PROGRESS: {
        PairEvent.CHECKED: PairState.IN_PROGRESS,
        PairEvent.ANSWERED: PairState.SUCCEEDED,
        PairEvent.UNANSWERED: PairState.FAILED,
    },
    # Checked again to nominate it, or to see whether the peer is still there.
    PairState.SUCCEEDED: {
        PairEvent.CHECKED: PairState.SUCCEEDED,
        PairEvent.ANSWERED: PairState.SUCCEEDED,
        PairEvent.UNANSWERED: PairState.FAILED,
    },
    # Several checks may be under way on one pair: a late answer makes good for a lost one.
    PairState.FAILED: {
        PairEvent.CHECKED: PairState.IN_PROGRESS,
        PairEvent.ANSWERED: PairState.SUCCEEDED,
        PairEvent.UNANSWERED: PairState.FAILED,
    },
}


class Liveliness(StrEnum):
    """What we think of the peer at the other end of the path, from good to bad."""

    ALIVE = "alive"
    """It has answered lately, or no question is unanswered for long."""
    SUSPECT = "suspect"
    """A question has gone unanswered for 1.5 s, or two hasty ones; it is asked twice a second."""
    SILENT = "silent"
    """No answer for 6 s; it is asked every 2 s, and the path is kept."""
    DEAD = "dead"
    """No answer for a minute: the end."""


class Sign(StrEnum):
    """Of life, or of none."""

    ANSWER = "an answer to a check, or an acknowledgement"
    UNANSWERED = "a question 1.5 s without an answer, or two in haste"
    QUIET = "6 s without an answer"
    LONG_QUIET = "60 s without an answer"


LIVELINESS: dict[Liveliness, dict[Sign, Liveliness]] = {
    Liveliness.ALIVE: {
        Sign.UNANSWERED: Liveliness.SUSPECT,
        Sign.QUIET: Liveliness.SILENT,
        Sign.LONG_QUIET: Liveliness.DEAD,
    },
    Liveliness.SUSPECT: {
        Sign.ANSWER: Liveliness.ALIVE,
        Sign.QUIET: Liveliness.SILENT,
        Sign.LONG_QUIET: Liveliness.DEAD,
    },
    Liveliness.SILENT: {
        Sign.ANSWER: Liveliness.ALIVE,
        Sign.LONG_QUIET: Liveliness.DEAD,
    },
    Liveliness.DEAD: {},
}
