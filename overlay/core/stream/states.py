"""The states of a stream, one table for what is sent and one for what is received.

`overlay.core.stream.stream` looks up every next state here. What our own side does again is ignored
where a state has no entry for it (`Sending`); of the peer that is a breach (`Receiving`), which
ends its link. Much as RFC 9000 §3 has it for QUIC, but a stream has both parts always.
"""

from enum import StrEnum


class Sending(StrEnum):
    """What is to become of the bytes that go out."""

    OPEN = "open"
    """Our application may write."""
    ENDING = "ending"
    """It has said that there is no more: END follows what is queued."""
    STOPPING = "stopping"
    """One of both sides has given up: what was queued is gone, RESET follows."""
    ENDED = "ended"
    """Our last word has been sent."""


class SendingEvent(StrEnum):
    """What our application and our frames do to it."""

    END = "end, close"
    STOP = "reset, by either side"
    END_SENT = "END sent"
    RESET_SENT = "RESET sent"
    TAKEN_BACK = "given up before OPEN was sent"


class Receiving(StrEnum):
    """What is to become of the bytes that come in."""

    UNANSWERED = "unanswered"
    """We have opened the stream, and the peer has not said ACK: what comes is not of this one."""
    OPEN = "open"
    """The peer may send what it has credit for."""
    ENDED = "ended"
    """All has come; our application reads the rest, then the end."""
    RESET = "reset"
    """Nothing more comes, and what had not been read is gone."""


class ReceivingEvent(StrEnum):
    """The peer's frames."""

    ACK = "ACK"
    DATA = "DATA"
    END = "END"
    RESET = "RESET"
    TAKEN_BACK = "given up before OPEN was sent"


SENDING: dict[Sending, dict[SendingEvent, Sending]] = {
    Sending.OPEN: {
        SendingEvent.END: Sending.ENDING,
        SendingEvent.STOP: Sending.STOPPING,
    },
    Sending.ENDING: {
        SendingEvent.END_SENT: Sending.ENDED,
        SendingEvent.STOP: Sending.STOPPING,
        SendingEvent.TAKEN_BACK: Sending.ENDED,
    },
    Sending.STOPPING: {
        SendingEvent.RESET_SENT: Sending.ENDED,
        SendingEvent.TAKEN_BACK: Sending.ENDED,
    },
    Sending.ENDED: {},
}
RECEIVING: dict[Receiving, dict[ReceivingEvent, Receiving]] = {
    Receiving.UNANSWERED: {
        ReceivingEvent.ACK: Receiving.OPEN,
        ReceivingEvent.TAKEN_BACK: Receiving.RESET,
    },
    Receiving.OPEN: {
        ReceivingEvent.DATA: Receiving.OPEN,
        ReceivingEvent.END: Receiving.ENDED,
        ReceivingEvent.RESET: Receiving.RESET,
    },
    # The peer may still say that it reads no more (a RESET after its END).
    Receiving.ENDED: {ReceivingEvent.RESET: Receiving.ENDED},
    Receiving.RESET: {ReceivingEvent.RESET: Receiving.RESET},
}
