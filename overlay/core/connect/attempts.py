"""What is under way towards one peer: its steps, and which of them follows which."""

from dataclasses import dataclass, field
from enum import StrEnum

from overlay.core.connect.history import Rung
from overlay.core.types import (
    Address,
    Candidate,
    CircuitId,
    IceCredentials,
    LinkId,
    PeerId,
    RequestId,
    Technique,
)
from overlay.core.wire.documents import RelayEntry
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
    """Addresses that the peer's record merely claims, too, unless they may be a NAT's."""


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


class Detour(StrEnum):
    """How far the third way has come, which goes on beside the steps: over a circuit."""

    OFF = "off"
    """It is not tried in this round, or has failed."""
    SOON = "soon"
    """It begins in a moment, if nothing else has worked by then."""
    ASKING = "asking"
    """Relays have been asked."""
    DIALLING = "dialling"
    """A circuit stands, and the peer is dialled over it."""


class Due(StrEnum):
    """What falls due towards a peer."""

    GIVE_UP = "give up"  # a command has waited long enough
    BESIDE = "beside"  # the dial has not been answered in a moment
    CIRCUIT = "circuit"  # neither dial nor offer has made a link in a moment
    MEET = "meet"  # the same, where the peer has named relays of its own
    UPGRADE = "upgrade"  # a relayed link looks for a path of its own again
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
    sent_at: float
    nat: list[str]
    """What it says of our NAT."""
    techniques: list[str]
    """What it says that we can do beyond ICE."""
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
    dials: dict[LinkId, CircuitId | None] = field(default_factory=dict)
    """And over which circuit each goes, if it goes over one."""
    detour: Detour = Detour.OFF
    relays: list[RelayEntry] = field(default_factory=list)
    """Such as the peer has named."""
    answering: LinkId | None = None
    """ICE started as the answerer of the peer's offer."""
    offering: Offering | None = None
    answered: bool = False
    """In this round, the peer has answered our offer."""
    reasons: dict[Rung, str] = field(default_factory=dict)
    """Why each way has come to nothing in this round."""
    before: dict[Rung, str] = field(default_factory=dict)
    """The same of the round before."""
    since: dict[Rung, float] = field(default_factory=dict)
    """When each way that is under way was taken."""
    technique: Technique | None = None
    """By what the latest offer and answer look for a path; None: nobody has answered yet."""
    beyond: bool = False
    """The link is relayed, and ICE for another is worth less than what restarts ICE on it."""
    tried: tuple[Address, ...] = ()
    """Where this round has dialled."""
    failures: int = 0
    """Rounds that came to nothing, one after the other."""
    searches: int = 0
    """Searches for a path of a relayed link's own that came to nothing, since a network changed."""
    asked: bool = False
    """Since then an offer of ours has named a technique that may help beyond ICE."""
    postponed: bool = False
    """Our latest offer has come to nothing without a try: the peer was busy, or too few neighbours
    said in time where they see it."""
    retry_at: float = 0.0
    """Before this nobody but a command begins another."""
    undeliverable: bool = False
    """In this round, nobody could pass our offer on."""
    last: tuple[str, str] = (Failure.UNREACHABLE, "no way to this peer is known")
    """The code and the text of the latest failure."""
    step: Step = Step.REST

    def on_moved(self) -> None:
        """One of the two networks is another one: what was in vain may work now."""
        self.searches, self.asked = 0, False

    @property
    def busy(self) -> bool:
        """Whether anything is under way."""
        waits = self.detour in (Detour.SOON, Detour.ASKING)
        return waits or self.is_direct_busy or bool(self.dials)

    @property
    def is_direct_busy(self) -> bool:
        """Whether a path without a relay is being looked for."""
        direct = any(circuit is None for circuit in self.dials.values())
        return direct or self.offering is not None or self.answering is not None
