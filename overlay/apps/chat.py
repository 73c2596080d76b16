"""Chat on a topic: who is there, by name, and what they say.

What is said is published as text, so that `overlay publish` and `overlay subscribe` take part.
Presence is published as bytes on the same topic: a small JSON object that says ``here`` when
somebody enters and every 15 s, and ``gone`` when they leave. Who has said neither for 40 s has
gone, too. A name is what somebody calls themself; the peer id beside it is proven.
"""

import json
import math
import random
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import trio

from overlay.api import Message, Node
from overlay.errors import CommandFailed
from overlay.names import told

HERE_INTERVAL = 15.0
QUIET_AFTER = 40.0
"""Seconds: two lost ``here`` do not make anybody go (guess)."""
GREETING_DELAY = 1.0
"""A newcomer is told who is here within this many seconds, not by all at once (guess)."""
GREETING_ROOM = 16
"""In larger rooms a newcomer waits for everybody's next ``here`` (guess)."""
PRESENT_MAX = 1024
"""Beyond it nobody more is shown as present (guess)."""
NOTICE_MAX = 1024
"""Bytes."""
FAREWELL_TIMEOUT = 1.0

Row = dict[str, Any]
"""``{"event": "entered" | "said" | "here" | "gone", "peer_id", "name", …}``; "said" has "text" and
"at", "gone" says "why": "left" or "quiet"."""


@dataclass(frozen=True, slots=True)
class Notice:
    """What a presence message says: a session of somebody is here, or gone."""

    session: str
    here: bool
    name: str = ""
    is_new: bool = False
    """Whether it has just entered and wants to know who is here."""


def encode(notice: Notice) -> bytes:
    """A notice as it is published."""
    told = {"chat": 1, "session": notice.session, "here": notice.here}
    return json.dumps(told | {"name": notice.name, "new": notice.is_new}).encode()


def decode(data: bytes) -> Notice | None:
    """None for bytes that are no notice."""
    if len(data) > NOTICE_MAX:
        return None
    try:
        said = json.loads(data)
    except (ValueError, RecursionError):
        return None
    match said:
        case {"chat": 1, "session": str(session), "here": bool(here)} if 0 < len(session) <= 32:
            name, is_new = said.get("name"), said.get("new") is True
            return Notice(session, here, told(name) if isinstance(name, str) else "", is_new)
        case _:
            return None


@dataclass(slots=True)
class Presence:
    """Who is there: every session of every peer, with the moment when it was last heard."""

    heard: dict[str, dict[str, float]] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)

    def hear(self, peer: str, notice: Notice, now: float) -> Row | None:
        """Take in a notice; a row if it brings or takes somebody."""
        if not notice.here:
            return self._end(peer, notice.session, "left")
        is_new = peer not in self.heard
        if is_new and len(self.heard) >= PRESENT_MAX:
            return None
        sessions = self.heard.setdefault(peer, {})
        sessions[notice.session] = now
        while len(sessions) > GREETING_ROOM:  # somebody plays tricks
            del sessions[next(iter(sessions))]
        self.names[peer] = notice.name
        return {"event": "here", "peer_id": peer, "name": notice.name} if is_new else None

    def sweep(self, now: float) -> list[Row]:
        """Whoever has gone without saying so."""
        quiet = [
            (peer, session)
            for peer, sessions in self.heard.items()
            for session, at in sessions.items()
            if at + QUIET_AFTER <= now
        ]
        ended = [self._end(peer, session, "quiet") for peer, session in quiet]
        return [row for row in ended if row is not None]

    def next_sweep(self) -> float:
        """When `sweep` next has something to find."""
        instants = [at for sessions in self.heard.values() for at in sessions.values()]
        return min(instants, default=math.inf) + QUIET_AFTER

    def _end(self, peer: str, session: str, why: str) -> Row | None:
        sessions = self.heard.get(peer, {})
        if sessions.pop(session, None) is None or sessions:
            return None
        del self.heard[peer]
        return {"event": "gone", "peer_id": peer, "name": self.names.pop(peer, ""), "why": why}


class Room:
    """One node's place in a chat, from `enter` to `leave`; keep reading it to stay present."""

    def __init__(self, node: Node, topic: str) -> None:
        self._node = node
        self._topic = topic
        self._session = secrets.token_hex(8)
        self._messages = node.subscribe(topic)
        self._presence = Presence()
        self._here_at = math.inf  # when to say again that we are here
        self._rows: list[Row] = []

    async def enter(self) -> None:
        """Say that we are here, and ask who else is."""
        await self._announce(here=True, is_new=True)
        told = {"topic": self._topic, "peer_id": self._node.peer_id, "name": self._node.name}
        self._rows.append({"event": "entered", **told})

    async def say(self, text: str) -> None:
        """Tell everybody."""
        await self._node.publish(self._topic, text)

    async def leave(self) -> None:
        """Say that we are gone, if the node still lives."""
        self._messages.close()
        with trio.move_on_after(FAREWELL_TIMEOUT) as scope, suppress(CommandFailed):
            scope.shield = True
            await self._announce(here=False)

    def __aiter__(self) -> AsyncIterator[Row]:
        return self

    async def __anext__(self) -> Row:
        while not self._rows:
            with trio.move_on_at(min(self._here_at, self._presence.next_sweep())):
                message = await anext(self._messages)
                self._rows += self._on_message(message)
            now = trio.current_time()
            self._rows += self._presence.sweep(now)
            if self._here_at <= now:
                await self._announce(here=True)
        return self._rows.pop(0)

    def _on_message(self, message: Message) -> list[Row]:
        peer = message.origin
        if message.is_text:
            told = {"peer_id": peer, "name": self._name_of(peer), "text": message.text}
            return [{"event": "said", **told, "at": message.received_at}]
        notice = decode(message.data)
        if notice is None or peer == self._node.peer_id:
            return []
        if notice.is_new and len(self._presence.heard) < GREETING_ROOM:
            delay = random.uniform(0, GREETING_DELAY)  # not all at once
            self._here_at = min(self._here_at, trio.current_time() + delay)
        row = self._presence.hear(peer, notice, trio.current_time())
        return [] if row is None else [row]

    def _name_of(self, peer: str) -> str:
        if peer == self._node.peer_id:
            return self._node.name
        if name := self._presence.names.get(peer):
            return name
        return {each.peer_id: each.name for each in self._node.peers(everybody=True)}.get(peer, "")

    async def _announce(self, *, here: bool, is_new: bool = False) -> None:
        self._here_at = trio.current_time() + HERE_INTERVAL if here else math.inf
        notice = Notice(self._session, here, self._node.name, is_new)
        await self._node.publish(self._topic, encode(notice))


@asynccontextmanager
async def rows(node: Node, topic: str) -> AsyncIterator[AsyncIterator[Row]]:
    """Be in the room of a topic for as long as the context is open; what happens there."""
    room = Room(node, topic)
    try:
        await room.enter()
        yield room
    finally:
        await room.leave()
