"""The hello: two strangers on a fresh DTLS link prove who they are to each other.

Both ends send `Hello` at once. The dialler then sends its `Proof`: a signature over everything
that makes this link unlike any other (both fingerprints, both nonces, the attempt, the DTLS
exporter of RFC 5705, …). Only when that holds, and the dialler may come in, does the listener send
its own: a stranger learns nothing of it but a certificate. Replays, relays and men in the middle
fail, because the exporter and fingerprints differ on any other DTLS session.
"""

import hashlib
from dataclasses import dataclass

import msgspec

from overlay.core.context import Context
from overlay.core.types import (
    GoodbyeCode,
    LinkFacts,
    Negotiated,
    PathKind,
    PeerId,
    Refusal,
)
from overlay.core.wire import dial_tokens as dial
from overlay.core.wire import invite
from overlay.core.wire import signing as documents
from overlay.core.wire.documents import InviteBody
from overlay.core.wire.messages import Hello, Proof

LABEL = b"overlay hello 1"
NOBODY = PeerId(b"")
"""In place of the id of a listener whom the dialler knows by its fingerprint alone."""
MAX_CLOCK_SKEW = 300.0
"""Seconds (guess): signed expiries mean nothing between clocks further apart."""


SECOND_HELLO = Refusal(GoodbyeCode.PROTOCOL, "a second hello on one link")


@dataclass(frozen=True, slots=True)
class Accepted:
    """The peer has proven itself."""

    peer: PeerId
    boot: int
    negotiated: Negotiated
    record: bytes
    wire: int
    resumes: bytes
    """The attempt of the link that is to go on over this path, as the peer says."""


class HelloExchange:
    """The hello of one link, as one end sees it.

    The dialler knows which peer it expects, unless an invite names but its certificate; the
    listener of a direct dial does not.
    """

    def __init__(
        self,
        context: Context,
        facts: LinkFacts,
        *,
        dialler: bool,
        expected: PeerId | None,
        negotiated: Negotiated | None,
        invite_body: InviteBody | None = None,
    ) -> None:
        self._context = context
        self._facts = facts
        self._dialler = dialler
        self._expected = expected
        self._negotiated = negotiated
        self._invite = invite_body
        self._nonce = context.crypto.token(16)
        self._remote: Hello | None = None
        self._wire = 0  # the version that both speak; known once the peer's hello has come
        self._admission = b""

    def hello(self, now: float) -> Hello:
        """Ours, sent as soon as the channel is open."""
        clock = int(self._context.wall(now))
        return Hello(*self._context.settings.wire, self._nonce, clock)

    def on_hello(self, hello: Hello, now: float) -> Refusal | None:
        """Check what can be checked of a stranger: versions and clock."""
        if self._remote is not None:
            return SECOND_HELLO
        oldest, newest = self._context.settings.wire
        self._wire = min(newest, hello.wire_max)
        if self._wire < max(oldest, hello.wire_min):
            return Refusal(
                GoodbyeCode.VERSION,
                f"we speak wire version [{oldest}, {newest}] and the peer "
                f"[{hello.wire_min}, {hello.wire_max}]: update the older of the two",
            )
        skew = hello.clock - self._context.wall(now)
        if abs(skew) > MAX_CLOCK_SKEW:
            ahead = "ahead of" if skew > 0 else "behind"
            return Refusal(
                GoodbyeCode.CLOCK,
                f"the peer's clock is {abs(skew):.0f} s {ahead} ours: set the wrong one right",
            )
        self._remote = hello
        return None

    def proof(self, record: bytes, resumes: bytes = b"") -> Proof:
        """Ours; the dialler sends it after both hellos, the listener after the dialler's proof.

        `resumes`: the attempt of another link to the peer, which is to go on over this path.
        """
        if self._dialler and self._invite is not None:
            grant, seed = self._invite.grant, self._invite.seed
            crypto = self._context.crypto
            self._admission = invite.make_admission(grant, seed, self._session(), crypto)
        context = self._context
        assert self._negotiated is not None
        unsigned = Proof(
            peer_id=context.peer_id,
            boot=context.settings.boot,
            network=context.settings.network,
            negotiated=self._negotiated.value,
            admission=self._admission if self._dialler else b"",
            signature=b"",
            record=record,
            resumes=resumes,
        )
        me = context.peer_id
        signed = self._transcript(unsigned, by_dialler=self._dialler, me=me)
        return msgspec.structs.replace(unsigned, signature=context.crypto.sign(signed))

    def on_proof(self, proof: Proof, now: float) -> Accepted | Refusal:
        """Check the peer's; its signature last, since that costs most."""
        if self._remote is None:
            return Refusal(GoodbyeCode.PROTOCOL, "a proof before the hello")
        if proof.network != self._context.settings.network:
            return Refusal(GoodbyeCode.NETWORK, "this node belongs to another network")
        peer = PeerId(proof.peer_id)
        if peer == self._context.peer_id:
            return Refusal(GoodbyeCode.SELF, "this is the node itself: its link leads back to it")
        if self._expected is not None and peer != self._expected:
            return Refusal(
                GoodbyeCode.REFUSED, "another peer than the one that was dialled answered"
            )
        negotiated = _parse_negotiated(proof.negotiated)
        if negotiated is None or self._negotiated not in (None, negotiated):
            return Refusal(GoodbyeCode.PROTOCOL, "the two ends disagree on how the link came about")
        self._expected, self._negotiated = peer, negotiated
        if not self._dialler:
            refusal = self._admit(proof, now)
            if refusal is not None:
                return refusal
        if not self._is_signed(proof, peer):
            return Refusal(GoodbyeCode.REFUSED, "the proof of identity does not hold on this link")
        return Accepted(peer, proof.boot, negotiated, proof.record, self._wire, proof.resumes)

    def _is_signed(self, proof: Proof, peer: PeerId) -> bool:
        """Whether the peer has signed this very link.

        Who dials by an invite may know nothing of us but our certificate, and then signs no id of
        ours beside its fingerprint; we answer with it, so that both ends are proven in the end.
        """
        verify = self._context.crypto.verify
        names = [self._context.peer_id]
        if not self._dialler and self._negotiated is Negotiated.INVITE:
            names.append(NOBODY)
        by_dialler = not self._dialler
        signed = (self._transcript(proof, by_dialler=by_dialler, me=name) for name in names)
        return any(verify(peer, each, proof.signature) for each in signed)

    def _admit(self, proof: Proof, now: float) -> Refusal | None:
        """Whether the dialler may come in the way that it claims, by the token that it used.

        A dial by an invite's token needs the invite, and so does who has answered an offer by hand;
        one by a member's token is a member's, as is an offer through the mesh.
        (docs/decisions/0004-dial-tokens.md)
        """
        self._admission = proof.admission
        kind = self._facts.token_kind
        claimed = Negotiated(proof.negotiated)
        if kind is None:
            allowed: tuple[Negotiated, ...] = (Negotiated.MESH, Negotiated.MANUAL)
        elif kind == dial.INVITE:
            allowed = (Negotiated.INVITE,)
        elif self._facts.path is PathKind.RELAYED:
            allowed = (Negotiated.MESH,)  # It dialled over a circuit, agreed through a neighbour.
        elif kind == dial.CIRCUIT:
            allowed = ()
        else:
            allowed = (Negotiated.DIRECT, Negotiated.CACHE)
        if claimed not in allowed:
            return Refusal(
                GoodbyeCode.PROTOCOL, "the link did not come about the way that is claimed"
            )
        if kind != dial.INVITE and claimed is not Negotiated.MANUAL:
            return None
        settings = self._context.settings
        grant = invite.check_admission(
            proof.admission,
            self._session(),
            PeerId(proof.peer_id),
            settings.network,
            self._context.wall(now),
            self._context.crypto,
        )
        if isinstance(grant, Refusal):
            return grant
        if grant.invite_id != self._meant():
            return Refusal(
                GoodbyeCode.REFUSED, "the invite and the dial token do not belong together"
            )
        return None

    def _meant(self) -> bytes:
        """The id of the invite by whose dial token, or of the offer by which, the peer comes in."""
        if self._facts.token_kind == dial.INVITE:
            return self._facts.token_id
        return b"" if self._invite is None else invite.grant_of(self._invite).invite_id

    def _nonces(self) -> tuple[bytes, bytes]:
        """The dialler's and the listener's."""
        assert self._remote is not None
        ours, theirs = self._nonce, self._remote.nonce
        return (ours, theirs) if self._dialler else (theirs, ours)

    def _session(self) -> bytes:
        """What makes this session unlike any other; the invite key signs it."""
        return hashlib.sha256(b"".join([self._facts.exporter, *self._nonces()])).digest()

    def _transcript(self, proof: Proof, *, by_dialler: bool, me: PeerId) -> bytes:
        """What is signed: equal at both ends of one link, unlike on any other."""
        facts = self._facts
        ours = (me, self._context.crypto.fingerprint, facts.dtls_role)
        their_role = "server" if facts.dtls_role == "client" else "client"
        theirs = (self._expected or NOBODY, facts.remote_fingerprint, their_role)
        dialler, listener = (ours, theirs) if self._dialler else (theirs, ours)
        fields = [
            by_dialler,
            self._wire,
            proof.network,
            dialler,
            listener,
            self._nonces(),
            facts.attempt,
            proof.boot,
            proof.negotiated,
            hashlib.sha256(self._admission).digest(),
            facts.exporter,
        ]
        return documents.labelled(LABEL, msgspec.msgpack.encode(fields))


def _parse_negotiated(text: str) -> Negotiated | None:
    try:
        return Negotiated(text)
    except ValueError:
        return None
