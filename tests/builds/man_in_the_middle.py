"""Stands between a joiner and a member, with its own certificates on both sides.

It reads an invite link, prints one that names itself as that member, and passes every message on
unchanged in both directions. It has all that the link gives: the dial token and the invite's
seed; it even dials with the joiner's own attempt. What it cannot have is one DTLS session.
"""

import sys
import time
from functools import partial
from random import Random

import msgspec
import trio

from overlay.core.events import Dial, Event, Hangup, LinkLost, LinkOpened, Received, Transmit
from overlay.core.types import Address, EndReason, IceCredentials, LinkId
from overlay.core.wire import dial_tokens as dial
from overlay.core.wire import invite
from overlay.core.wire.documents import AddressEntry, InviteBody, InviteMember
from overlay.core.wire.messages import Message
from overlay.identity import Identity, ephemeral
from overlay.transport.udp.transport import UdpTransport


class Middle:
    """Two transports: joiners come in at the front, the member is dialled at the back."""

    def __init__(self, body: InviteBody) -> None:
        self.body = body
        self.identity = Identity.generate()
        self.front, self.back = (
            UdpTransport(
                Address("127.0.0.1", 0),
                dial_key=self.identity.dial_key,
                certificate=self.identity.certificate,
                random=Random(side),
            )
            for side in (1, 2)
        )
        self._behind: dict[LinkId, LinkId] = {}
        self._before: dict[LinkId, LinkId] = {}
        self._early: dict[LinkId, list[Message]] = {}
        self._open: set[LinkId] = set()

    def link(self) -> str:
        """The invite, naming us where the member was."""
        grant, member = invite.grant_of(self.body), self.body.members[0]
        token = dial.make_token(
            self.identity.dial_key, dial.INVITE, grant.invite_id, grant.expires_at
        )
        here = AddressEntry(*self.front.listen[0], proven=False)
        us = InviteMember(member.peer_id, self.identity.fingerprint, token, [here])
        return invite.encode(msgspec.structs.replace(self.body, members=[us]))

    def on_front(self, event: Event) -> None:
        """A joiner has come in, said something, or gone."""
        if isinstance(event, LinkOpened):
            behind = LinkId(2 * len(self._behind))
            self._behind[event.link], self._before[behind] = behind, event.link
            self._early[behind] = []
            self._dial(behind, event.facts.attempt)
        elif isinstance(event, Received):
            behind = self._behind[event.link]
            if behind in self._open:
                self.back.perform(Transmit(behind, event.message))
            else:
                self._early[behind].append(event.message)
        elif isinstance(event, LinkLost):
            self.back.perform(Hangup(self._behind[event.link], EndReason.CLOSED))

    def on_back(self, event: Event) -> None:
        """The member has answered, said something, or gone."""
        if isinstance(event, LinkOpened):
            self._open.add(event.link)
            for message in self._early.pop(event.link):
                self.back.perform(Transmit(event.link, message))
        elif isinstance(event, Received):
            self.front.perform(Transmit(self._before[event.link], event.message))
        elif isinstance(event, LinkLost):
            self.front.perform(Hangup(self._before[event.link], EndReason.CLOSED))

    def _dial(self, link: LinkId, attempt: bytes) -> None:
        grant, member = invite.grant_of(self.body), self.body.members[0]
        claim = dial.Claim(dial.INVITE, grant.invite_id, grant.expires_at, attempt)
        self.back.perform(
            Dial(
                link=link,
                addresses=(Address(member.addresses[0].host, member.addresses[0].port),),
                fingerprint=member.fingerprint,
                remote=dial.listener_credentials(member.token, claim),
                local=IceCredentials("middle", "m" * 24),
                attempt=attempt,
                timeout=5.0,
            )
        )

    async def run(self) -> None:
        """Stand there until killed."""
        async with trio.open_nursery() as nursery:
            await nursery.start(partial(self.front.run, self.on_front))
            await nursery.start(partial(self.back.run, self.on_back))
            for side in (self.front, self.back):
                side.clock_set(time.time())
            print(self.link(), flush=True)


if __name__ == "__main__":
    trio.run(Middle(invite.decode(sys.stdin.readline(), ephemeral())).run)
