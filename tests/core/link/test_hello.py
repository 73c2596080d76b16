"""The hello holds between two honest ends of one session, and nowhere else."""

import random
from dataclasses import replace

import msgspec
import pytest

from overlay.core.context import Context, Settings
from overlay.core.link.hello import MAX_CLOCK_SKEW, Accepted, HelloExchange
from overlay.core.types import Address, LinkFacts, Negotiated, PathKind, PeerId, Refusal
from overlay.core.wire import dial_tokens as dial
from overlay.core.wire import invite
from overlay.core.wire.documents import Grant, InviteBody
from overlay.core.wire.messages import Proof
from overlay.sim.crypto import Ledger, StandInCrypto

NOW = 100.0
WALL = 1_800_000_000.0
NETWORK = bytes(32)


class Party:
    """One node's side of a hello."""

    def __init__(self, ledger: Ledger, seed: int, network: bytes = NETWORK) -> None:
        self.crypto = StandInCrypto(ledger, random.Random(seed))
        settings = Settings(network, "n", f"node{seed}", 1, dial_key=bytes(32))
        self.context = Context(settings, self.crypto, random.Random(seed))
        self.context.set_wall(WALL, NOW)

    def facts(self, other: "Party", *, dialler: bool, exporter: bytes = b"e" * 32) -> LinkFacts:
        """What this end's transport says of a session with the other."""
        kind = None if dialler else dial.MEMBER
        return LinkFacts(
            remote=Address("192.0.2.2", 2),
            local=Address("192.0.2.1", 1),
            path=PathKind.HOST,
            dtls_role="client" if dialler else "server",
            remote_fingerprint=other.crypto.fingerprint,
            exporter=exporter,
            attempt=b"a" * 16,
            token_kind=kind,
        )

    def dials(self, other: "Party", **changes: object) -> HelloExchange:
        """The dialler's hello towards the other end."""
        facts = replace(self.facts(other, dialler=True), **changes)  # type: ignore[arg-type]
        return HelloExchange(
            self.context,
            facts,
            dialler=True,
            expected=other.crypto.peer_id,
            negotiated=Negotiated.DIRECT,
        )

    def listens(self, other: "Party", **changes: object) -> HelloExchange:
        """The listener's hello; it expects nobody in particular."""
        facts = replace(self.facts(other, dialler=False), **changes)  # type: ignore[arg-type]
        return HelloExchange(self.context, facts, dialler=False, expected=None, negotiated=None)


@pytest.fixture
def ends() -> tuple[Party, Party]:
    ledger = Ledger()
    return Party(ledger, 1), Party(ledger, 2)


def meet(dialler: HelloExchange, listener: HelloExchange) -> Refusal | None:
    """Exchange hellos; what the listener says to the dialler's."""
    refusal = dialler.on_hello(listener.hello(NOW), NOW)
    return refusal or listener.on_hello(dialler.hello(NOW), NOW)


def outcome(dialler: HelloExchange, listener: HelloExchange) -> tuple[object, object]:
    """What the listener says of the dialler's proof, and the dialler of the listener's."""
    assert meet(dialler, listener) is None
    of_dialler = listener.on_proof(dialler.proof(b""), NOW)
    if isinstance(of_dialler, Refusal):
        return of_dialler, None
    return of_dialler, dialler.on_proof(listener.proof(b""), NOW)


def test_two_honest_ends_accept_each_other(ends: tuple[Party, Party]) -> None:
    one, two = ends
    of_dialler, of_listener = outcome(one.dials(two), two.listens(one))
    assert isinstance(of_dialler, Accepted)
    assert isinstance(of_listener, Accepted)
    assert (of_dialler.peer, of_listener.peer) == (one.crypto.peer_id, two.crypto.peer_id)
    assert of_dialler.negotiated is of_listener.negotiated is Negotiated.DIRECT


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("exporter", b"x" * 32),
        ("attempt", b"b" * 16),
        ("remote_fingerprint", b"f" * 32),
        ("dtls_role", "client"),
    ],
)
def test_what_differs_between_the_ends_breaks_the_proof(
    ends: tuple[Party, Party], field: str, value: object
) -> None:
    one, two = ends
    of_dialler, _ = outcome(one.dials(two), two.listens(one, **{field: value}))
    assert isinstance(of_dialler, Refusal)
    assert of_dialler.code == "refused"


def test_a_man_in_the_middle_with_his_own_certificates_is_refused(
    ends: tuple[Party, Party],
) -> None:
    """He passes every message on unchanged between two DTLS sessions of his own."""
    one, two = ends
    middle = Party(Ledger(), 3)
    dialler = one.dials(middle, exporter=b"1" * 32)
    dialler._expected = two.crypto.peer_id
    listener = two.listens(middle, exporter=b"2" * 32)
    of_dialler, _ = outcome(dialler, listener)
    assert isinstance(of_dialler, Refusal)


def test_a_replayed_proof_is_refused(ends: tuple[Party, Party]) -> None:
    one, two = ends
    first, second = one.dials(two), two.listens(one)
    assert meet(first, second) is None
    proof = first.proof(b"")
    assert isinstance(second.on_proof(proof, NOW), Accepted)
    replayed = two.listens(one)
    assert meet(one.dials(two), replayed) is None
    assert isinstance(replayed.on_proof(proof, NOW), Refusal)


def test_the_listener_says_nothing_of_itself_before_the_dialler_has_proven_itself(
    ends: tuple[Party, Party],
) -> None:
    one, two = ends
    hello = two.listens(one).hello(NOW)
    assert bytes(two.crypto.peer_id) not in msgspec.msgpack.encode(hello)
    assert NETWORK not in msgspec.msgpack.encode(hello)


def test_a_dialler_refuses_another_peer_than_the_one_it_dialled(ends: tuple[Party, Party]) -> None:
    one, two = ends
    dialler, listener = one.dials(two), two.listens(one)
    assert meet(dialler, listener) is None
    other = PeerId(b"o" * 32)
    proof = msgspec.structs.replace(listener_proof(dialler, listener), peer_id=other)
    refusal = dialler.on_proof(proof, NOW)
    assert isinstance(refusal, Refusal)
    assert refusal.code == "refused"


def listener_proof(dialler: HelloExchange, listener: HelloExchange) -> Proof:
    """The listener's proof, after the dialler's was accepted."""
    assert isinstance(listener.on_proof(dialler.proof(b""), NOW), Accepted)
    return listener.proof(b"")


def test_another_network_is_refused_by_name(ends: tuple[Party, Party]) -> None:
    one, _ = ends
    stranger = Party(one.crypto._ledger, 4, network=b"\1" * 32)
    of_dialler, _ = outcome(one.dials(stranger), stranger.listens(one))
    assert isinstance(of_dialler, Refusal)
    assert of_dialler.code == "network"


def speaking(end: Party, oldest: int, newest: int) -> Party:
    """The same end, of other wire versions."""
    end.context.settings = replace(end.context.settings, wire=(oldest, newest))
    return end


@pytest.mark.parametrize(
    ("ours", "theirs", "common"),
    [((1, 2), (1, 1), 1), ((1, 1), (1, 2), 1), ((1, 3), (2, 5), 3), ((2, 2), (1, 4), 2)],
)
def test_the_highest_common_version_is_spoken(
    ends: tuple[Party, Party], ours: tuple[int, int], theirs: tuple[int, int], common: int
) -> None:
    one, two = speaking(ends[0], *ours), speaking(ends[1], *theirs)
    for accepted in outcome(one.dials(two), two.listens(one)):
        assert isinstance(accepted, Accepted)
        assert accepted.wire == common


@pytest.mark.parametrize(("ours", "theirs"), [((2, 2), (1, 1)), ((1, 1), (2, 3)), ((1, 2), (3, 1))])
def test_both_ends_name_both_ranges_when_no_version_is_common(
    ends: tuple[Party, Party], ours: tuple[int, int], theirs: tuple[int, int]
) -> None:
    one, two = speaking(ends[0], *ours), speaking(ends[1], *theirs)
    dialler, listener = one.dials(two), two.listens(one)
    for here, there in ((dialler, listener), (listener, dialler)):
        refusal = here.on_hello(there.hello(NOW), NOW)
        assert isinstance(refusal, Refusal)
        assert refusal.code == "version"
        for each in (ours, theirs):
            assert str(list(each)) in refusal.text


def test_versions_without_overlap_are_refused_naming_both(ends: tuple[Party, Party]) -> None:
    one, two = ends
    newer = msgspec.structs.replace(one.dials(two).hello(NOW), wire_min=2, wire_max=3)
    refusal = two.listens(one).on_hello(newer, NOW)
    assert isinstance(refusal, Refusal)
    assert (refusal.code, "[1, 1]" in refusal.text, "[2, 3]" in refusal.text) == (
        "version",
        True,
        True,
    )


@pytest.mark.parametrize(("skew", "refused"), [(0, False), (299, False), (301, True), (-301, True)])
def test_clocks_far_apart_are_refused(ends: tuple[Party, Party], skew: int, refused: bool) -> None:
    assert MAX_CLOCK_SKEW == 300.0
    one, two = ends
    hello = one.dials(two).hello(NOW)
    refusal = two.listens(one).on_hello(
        msgspec.structs.replace(hello, clock=hello.clock + skew), NOW
    )
    assert (refusal is not None) == refused


def test_messages_out_of_order_are_refused(ends: tuple[Party, Party]) -> None:
    one, two = ends
    dialler, listener = one.dials(two), two.listens(one)
    hello = dialler.hello(NOW)
    other = two.listens(one)
    assert other.on_hello(hello, NOW) is None
    again = other.on_hello(hello, NOW)
    assert isinstance(again, Refusal)
    assert meet(dialler, two.listens(one)) is None
    early = listener.on_proof(dialler.proof(b""), NOW)
    assert isinstance(early, Refusal)
    assert again.code == early.code == "protocol"


def invited(host: Party, *, expires_in: int = 1000) -> InviteBody:
    """An invite of this end."""
    seed = b"s" * 32
    grant = Grant(
        network=NETWORK,
        invite_id=b"i" * 8,
        invite_key=host.crypto.public_of(seed),
        issuer=host.crypto.peer_id,
        role="member",
        uses=0,
        expires_at=int(WALL) + expires_in,
    )
    return InviteBody(invite.make_grant(grant, host.crypto), seed, [], "n")


def by_invite(
    one: Party, two: Party, body: InviteBody | None, token_id: bytes = b"i" * 8
) -> object:
    """What a listener says to a dialler that came in by the token of an invite."""
    dialler = HelloExchange(
        one.context,
        one.facts(two, dialler=True),
        dialler=True,
        expected=two.crypto.peer_id,
        negotiated=Negotiated.INVITE,
        invite_body=body,
    )
    listener = two.listens(one, token_kind=dial.INVITE, token_id=token_id)
    return outcome(dialler, listener)[0]


def test_an_invite_lets_in_and_only_while_it_lasts(ends: tuple[Party, Party]) -> None:
    one, two = ends
    assert isinstance(by_invite(one, two, invited(two)), Accepted)
    late = by_invite(one, two, invited(two, expires_in=-1))
    assert isinstance(late, Refusal)
    assert late.code == "expired"


def test_an_invite_token_without_its_invite_does_not_let_in(ends: tuple[Party, Party]) -> None:
    one, two = ends
    assert isinstance(by_invite(one, two, None), Refusal)
    assert isinstance(by_invite(one, two, invited(two), token_id=b"x" * 8), Refusal)
    wrong_seed = msgspec.structs.replace(invited(two), seed=b"w" * 32)
    assert isinstance(by_invite(one, two, wrong_seed), Refusal)


def test_who_knows_the_listener_by_its_certificate_alone_is_let_in_and_told_the_id(
    ends: tuple[Party, Party],
) -> None:
    one, two = ends
    dialler = HelloExchange(
        one.context,
        one.facts(two, dialler=True),
        dialler=True,
        expected=None,
        negotiated=Negotiated.INVITE,
        invite_body=invited(two),
    )
    listener = two.listens(one, token_kind=dial.INVITE, token_id=b"i" * 8)
    of_dialler, of_listener = outcome(dialler, listener)
    assert isinstance(of_dialler, Accepted)
    assert isinstance(of_listener, Accepted)
    assert of_listener.peer == two.crypto.peer_id


def test_a_member_dials_nobody_in_particular(ends: tuple[Party, Party]) -> None:
    """Only an invite may leave the listener's id out of what is signed."""
    one, two = ends
    dialler = HelloExchange(
        one.context,
        one.facts(two, dialler=True),
        dialler=True,
        expected=None,
        negotiated=Negotiated.DIRECT,
    )
    refused, _ = outcome(dialler, two.listens(one))
    assert isinstance(refused, Refusal)


def by_hand(one: Party, two: Party, shown: InviteBody | None, offered: InviteBody | None) -> object:
    """What the maker of an offer says to who has answered it, and shows an admission."""
    dialler = HelloExchange(
        one.context,
        one.facts(two, dialler=True),
        dialler=True,
        expected=two.crypto.peer_id,
        negotiated=Negotiated.MANUAL,
        invite_body=shown,
    )
    listener = HelloExchange(
        two.context,
        replace(two.facts(one, dialler=False), token_kind=None),
        dialler=False,
        expected=one.crypto.peer_id,
        negotiated=Negotiated.MANUAL,
        invite_body=offered,
    )
    return outcome(dialler, listener)[0]


def test_who_answers_an_offer_by_hand_shows_it(ends: tuple[Party, Party]) -> None:
    one, two = ends
    offer = invited(two)
    assert isinstance(by_hand(one, two, offer, offer), Accepted)
    for shown, offered in ((None, offer), (offer, None), (invited(two, expires_in=-1), offer)):
        assert isinstance(by_hand(one, two, shown, offered), Refusal)


def test_a_member_token_does_not_pass_for_a_negotiation_through_the_mesh(
    ends: tuple[Party, Party],
) -> None:
    one, two = ends
    dialler = HelloExchange(
        one.context,
        one.facts(two, dialler=True),
        dialler=True,
        expected=two.crypto.peer_id,
        negotiated=Negotiated.MESH,
    )
    of_dialler, _ = outcome(dialler, two.listens(one))
    assert isinstance(of_dialler, Refusal)
    assert of_dialler.code == "protocol"


@pytest.mark.parametrize("path", [PathKind.RELAYED, PathKind.HOST, PathKind.REFLEXIVE])
def test_the_token_of_a_ticket_is_good_over_circuits_alone(
    ends: tuple[Party, Party], path: PathKind
) -> None:
    one, two = ends
    dialler = one.dials(two, path=path)
    if path is PathKind.RELAYED:
        dialler._negotiated = Negotiated.MESH
    listener = two.listens(one, path=path, token_kind=dial.CIRCUIT)
    listener.on_hello(dialler.hello(NOW), NOW)
    dialler.on_hello(listener.hello(NOW), NOW)
    result = listener.on_proof(dialler.proof(b"record"), NOW)
    assert isinstance(result, Refusal) == (path is not PathKind.RELAYED)
