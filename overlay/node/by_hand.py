"""A node's offers and answers as text: sealed, armoured, read, and what they do to the node.

An answer moves a node that has never met anybody into the offerer's network. One that has met
others stays where it is, and says so.
"""

from dataclasses import dataclass
from typing import Protocol

import trio

from overlay.core.events import AcceptAnswer, AnswerOffer, MakeOffer
from overlay.core.types import PeerId
from overlay.core.wire import by_hand, invite
from overlay.core.wire.documents import InviteBody
from overlay.errors import CommandFailed, Failure, InviteError, UsageError
from overlay.identity import Identity, Keys, parse_peer_id
from overlay.node.config import MAX_DURATION
from overlay.node.driver import Driver
from overlay.rendezvous import seals

PEER_ID = "12D3KooW"
"""How the text of every peer id begins."""


@dataclass(frozen=True, slots=True)
class Made:
    """An offer or an answer to be carried."""

    text: str
    expires_at: int


class Meeting(Protocol):
    """What a node lets first contacts do with it."""

    driver: Driver

    def keys(self) -> Keys:
        """What it signs with."""
        ...

    def wall(self) -> float:
        """Unix seconds."""
        ...

    def settle(self) -> None:
        """Others may know it as a member of its network from now on."""
        ...

    def enter_as_stranger(self, network: bytes, name: str) -> None:
        """Become a node of another network, if it has never met anybody. InviteError."""
        ...


class ByHand:
    """First contact by hand, for one node."""

    def __init__(self, node: Meeting, identity: Identity) -> None:
        self._node, self._identity = node, identity

    async def offer(self, expires: float, seal: str | None) -> Made:
        """An offer; CommandFailed ``no_address``: nobody elsewhere could meet this node."""
        if not 0 < expires <= MAX_DURATION:
            raise CommandFailed(Failure.USAGE, "an offer lasts more than 0 s and at most 365 days")
        check_seal(seal)
        self._node.settle()
        body: InviteBody = await self._node.driver.call(lambda request: MakeOffer(request, expires))
        payload = await self._sealed(by_hand.write_offer(body), seal)
        return Made(by_hand.text_of(payload), invite.grant_of(body).expires_at)

    async def answer(self, text: str, seal: str | None) -> Made:
        """The answer to an offer, and the search for its maker. InviteError: it cannot be."""
        payload = await self._carried(text, seal, by_hand.Kind.OFFER)
        keys = self._node.keys()
        body = by_hand.read_offer(payload, keys)
        grant = invite.check(body, self._node.wall(), keys, "offer")
        self._node.enter_as_stranger(grant.network, body.network_name)
        answer: bytes = await self._node.driver.call(lambda request: AnswerOffer(request, body))
        return Made(by_hand.text_of(await self._sealed(answer, seal)), grant.expires_at)

    async def accept(self, text: str, seal: str | None, timeout: float) -> PeerId:
        """The peer whose answer it is, once the link to it is up."""
        payload = await self._carried(text, seal, by_hand.Kind.ANSWER)
        answer = by_hand.read_answer(payload)
        peer: PeerId = await self._node.driver.call(
            lambda request: AcceptAnswer(request, answer, timeout), timeout + 10.0
        )
        return peer

    async def _carried(self, text: str, seal: str | None, kind: by_hand.Kind) -> bytes:
        """Of what is in the text, that of the kind which is wanted. InviteError."""
        check_seal(seal)
        what, errors = kind.name.lower(), list[InviteError]()
        other = b""
        for payload in by_hand.payloads_of(text, what):
            try:
                opened = await self._opened(payload, seal, what)
            except InviteError as error:
                errors.append(error)
                continue
            if by_hand.kind_of(opened) is kind:
                return opened
            other = opened
        if errors:
            raise errors[0]
        return other

    async def _sealed(self, payload: bytes, seal: str | None) -> bytes:
        if seal is None:
            return payload
        if seal.startswith(PEER_ID):
            return seals.seal_to(parse_peer_id(seal), payload)
        return await trio.to_thread.run_sync(seals.seal_with, seal, payload)

    async def _opened(self, payload: bytes, seal: str | None, what: str) -> bytes:
        passphrase = None if seal is None or seal.startswith(PEER_ID) else seal
        seed = self._identity.seed
        try:
            return await trio.to_thread.run_sync(seals.opened, payload, seed, passphrase)
        except InviteError as error:
            raise InviteError(f"the {what} cannot be opened: {error}") from None


def check_seal(seal: str | None) -> None:
    """A peer id, or a passphrase that is worth the name. UsageError."""
    if seal is None:
        return
    if seal.startswith(PEER_ID):
        parse_peer_id(seal)
    elif len(seal) < seals.PASSPHRASE_MIN:
        raise UsageError(
            f"the passphrase is too short: it has {len(seal)} characters, and fewer than "
            f"{seals.PASSPHRASE_MIN} are guessed in no time"
        )
