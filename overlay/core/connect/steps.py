"""The ladder towards a peer as a table: which step follows when one has failed.

`overlay.core.connect.climbing` looks up every next step here. A step that cannot be taken (nothing
to dial, no key to seal an offer to) counts as failed, for the reason that the last one failed for.
A link to the peer ends the climb, whichever step it is at.
"""

from enum import StrEnum


class Step(StrEnum):
    """What is being tried."""

    REST = "rest"
    """Nothing; a command that waits, or the need for neighbours, begins anew after a while."""
    DIAL = "dial"
    """The addresses in the peer's record that somebody has seen to be its own."""
    OFFER = "offer"
    """An offer through the mesh, and the checks of both ends that its answer begins."""
    LAST_RESORT = "last resort"
    """Even the addresses that the peer's record merely claims."""


class Outcome(StrEnum):
    """What came of it."""

    BEGIN = "begin, after an even number of failures"
    BEGIN_BY_OFFER = "begin, after an odd number"
    UNREACHABLE = "unreachable"
    FAILED = "failed otherwise"


STEPS: dict[Step, dict[Outcome, Step]] = {
    Step.REST: {
        Outcome.BEGIN: Step.DIAL,
        Outcome.BEGIN_BY_OFFER: Step.OFFER,
        # An attempt of the peer's own, or by an invite, has come to nothing.
        Outcome.UNREACHABLE: Step.LAST_RESORT,
        Outcome.FAILED: Step.REST,
    },
    Step.DIAL: {
        Outcome.UNREACHABLE: Step.OFFER,
        Outcome.FAILED: Step.OFFER,
    },
    Step.OFFER: {
        Outcome.UNREACHABLE: Step.LAST_RESORT,
        Outcome.FAILED: Step.REST,
    },
    Step.LAST_RESORT: {
        Outcome.UNREACHABLE: Step.REST,
        Outcome.FAILED: Step.REST,
    },
}
