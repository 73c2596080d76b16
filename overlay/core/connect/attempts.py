"""What is under way towards one peer: its steps, and which of them follows which."""

from dataclasses import dataclass, field
from enum import StrEnum

from overlay.core.types import Address, Candidate, IceCredentials, LinkId, PeerId, RequestId
from overlay.errors import Failure


class Step(StrEnum):
    """What is being tried."""

    REST = "rest"
    """Nothing; a command that waits, or the need for neighbours, begins anew after a while."""
    DIAL = "dial"
    """The addresses in the peer's record that somebody has seen to be its own."""
    OFFER = "offer"
    """An offer through the mesh, and the checks of both ends that its answer begins; perhaps the
    dial goes on beside it."""
    LAST_RESORT = "last resort"
    """Even the addresses that the peer's record merely claims."""


class StepEvent(StrEnum):
    """What leads from one step to the next."""

    BEGIN = "begin"
    SLOW = "no answer in a moment"
    UNREACHABLE = "unreachable"
    FAILED = "failed otherwise"


STEPS: dict[Step, dict[StepEvent, Step]] = {
    Step.REST: {
        StepEvent.BEGIN: Step.DIAL,
        # An attempt of the peer's own, or by an invite, has come to nothing.
        StepEvent.UNREACHABLE: Step.LAST_RESORT,
        StepEvent.FAILED: Step.REST,
    },
    Step.DIAL: {
        StepEvent.SLOW: Step.OFFER,
        StepEvent.UNREACHABLE: Step.OFFER,
        StepEvent.FAILED: Step.OFFER,
    },
    Step.OFFER: {
        StepEvent.UNREACHABLE: Step.LAST_RESORT,
        StepEvent.FAILED: Step.REST,
    },
    Step.LAST_RESORT: {
        StepEvent.UNREACHABLE: Step.REST,
        StepEvent.FAILED: Step.REST,
    },
}


class Due(StrEnum):
    """What falls due towards a peer."""

    GIVE_UP = "give up"  # a command has waited long enough
    BESIDE = "beside"  # the dial has not been answered in a moment
    CLIMB = "climb"  # the dialler of a link has had its moment to find another path
    OFFER = "offer"  # our offer should have been answered, or have become a link
    RETRY = "retry"  # the rest is over


@dataclass(slots=True)
class Offering:
    """An offer of ours that waits for its answer, or for its link to open."""

    link: LinkId
    request: bytes
    attempt: bytes
    local: IceCredentials
    candidates: tuple[Candidate, ...]
    digest: bytes
    restarts: bytes = b""
    """The attempt of the association on which ICE is to be restarted, if there is one."""
    known: bool = True
    """The transport knows of this link, and has to be told when it is called off."""
    answered: bool = False


@dataclass(slots=True)
class Attempts:
    """All that is under way towards one peer."""

    peer: PeerId
    waiting: list[tuple[RequestId, float]] = field(default_factory=list)
    """Commands and when each gives up."""
    dials: dict[LinkId, None] = field(default_factory=dict)
    answering: LinkId | None = None
    """ICE started as the answerer of the peer's offer."""
    offering: Offering | None = None
    tried: tuple[Address, ...] = ()
    """Where this round has dialled."""
    failures: int = 0
    """Rounds that came to nothing, one after the other."""
    retry_at: float = 0.0
    """Before this nobody but a command begins another."""
    undeliverable: bool = False
    """In this round, nobody could pass our offer on."""
    last: tuple[str, str] = (Failure.UNREACHABLE, "no way to this peer is known")
    """The code and the text of the latest failure."""
    step: Step = Step.REST

    @property
    def busy(self) -> bool:
        """Whether anything is under way."""
        return bool(self.dials) or self.offering is not None or self.answering is not None
