"""A conversation with somebody else's agent: aioice, unmodified, over loopback."""

import asyncio
from collections.abc import Callable
from random import Random
from typing import Any

import aioice
import pytest

from overlay.core.addresses import candidate_priority
from overlay.core.ice import outputs as ice
from overlay.core.ice import stun
from overlay.core.ice.agent import IceAgent
from overlay.core.types import Address, Candidate, IceCredentials

SPEED = 4.0
"""Our agent's clock runs ahead of the wall's, so that its idle checks come soon."""
PATIENCE = 30.0
"""Seconds; a condition comes true long before, or never."""
OURS = IceCredentials("ours", "0123456789abcdefghijkl")


class Shell(asyncio.DatagramProtocol):
    """One UDP socket and one agent: all that a sans-IO agent needs around it."""

    def __init__(self, *, controlling: bool, timeout: float = 100.0) -> None:
        self.controlling = controlling
        self.timeout = timeout
        self.facts: list[ice.IceOutput] = []
        self.data: list[bytes] = []
        self.answered = 0
        self.served = 0
        self.timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.address = Address(*transport.get_extra_info("sockname")[:2])
        self.candidates = [Candidate("host", self.address, candidate_priority("host"))]
        self.agent = IceAgent(
            controlling=self.controlling,
            local=OURS,
            candidates=self.candidates,
            random=Random(1),
            now=self.now,
            timeout=self.timeout,
        )

    @property
    def now(self) -> float:
        return asyncio.get_running_loop().time() * SPEED

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        remote = Address(addr[0], addr[1])
        if not stun.is_stun(data):
            self.data.append(data)
            self.agent.acknowledged(self.now)
        else:
            message = stun.parse(data)
            assert isinstance(message, stun.Message), message
            self.served += message.message_class is stun.MessageClass.REQUEST
            ours = message.transaction_id in self.agent._transactions
            self.agent.receive(message, remote, self.address, self.now)
            self.answered += ours and message.transaction_id not in self.agent._transactions
        self.perform()

    def perform(self) -> None:
        for output in self.agent.take():
            if isinstance(output, ice.SendStun):
                self.transport.sendto(output.data, output.remote)
            else:
                self.facts.append(output)
        self.stop()
        deadline = self.agent.next_deadline()
        if deadline is not None:
            loop = asyncio.get_running_loop()
            self.timer = loop.call_at(deadline / SPEED, self.on_timeout)

    def on_timeout(self) -> None:
        self.agent.handle_timeout(self.now)
        self.perform()

    def stop(self) -> None:
        if self.timer is not None:
            self.timer.cancel()

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not condition():  # noqa: ASYNC110
                await asyncio.sleep(0.005)

    @property
    def selected(self) -> list[ice.Selected]:
        return [fact for fact in self.facts if isinstance(fact, ice.Selected)]


async def converse(
    connection: aioice.Connection,
    shell: Shell,
    deed: Callable[[aioice.Connection, Shell], Any],
    *,
    host: str,
    password: str | None = None,
) -> None:
    """Introduce the two to each other, then do `deed`."""
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(lambda: shell, local_addr=(host, 0))
    try:
        await connection.gather_candidates()
        for mine in shell.candidates:
            line = f"1 1 udp {mine.priority} {mine.address.host} {mine.address.port} typ host"
            await connection.add_remote_candidate(aioice.Candidate.from_sdp(line))
        await connection.add_remote_candidate(None)
        connection.remote_username, connection.remote_password = OURS.ufrag, OURS.password
        theirs = [
            Candidate(each.type, Address(each.host, each.port), each.priority)
            for each in connection.local_candidates
        ]
        remote = IceCredentials(connection.local_username, password or connection.local_password)
        shell.agent.start(remote, theirs, shell.now)
        shell.perform()
        await deed(connection, shell)
    finally:
        shell.stop()
        transport.close()
        await connection.close()


def run(monkeypatch: pytest.MonkeyPatch, host: str, conversation: Any) -> None:
    """Run a conversation; aioice gathers this one address (it leaves loopback out by itself)."""
    monkeypatch.setattr(aioice.ice, "get_host_addresses", lambda **_: [host])
    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        runner.run(conversation())


async def connect_and_talk(connection: aioice.Connection, shell: Shell) -> None:
    await asyncio.wait_for(connection.connect(), PATIENCE)
    await shell.until(lambda: shell.selected)
    (route,) = shell.selected
    assert route.path == "host"
    assert route.local == shell.address
    shell.transport.sendto(b"\x17to aioice", route.remote)
    assert await asyncio.wait_for(connection.recv(), PATIENCE) == b"\x17to aioice"
    await connection.send(b"\x17from aioice")
    await shell.until(lambda: shell.data)
    assert shell.data == [b"\x17from aioice"]
    assert ice.Mapped(shell.address) in shell.facts
    # What keeps the path alive is understood there too.
    before = shell.answered
    await shell.until(lambda: shell.answered >= before + 3)
    assert ice.Silent() not in shell.facts


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("controlling", [True, False])
def test_a_path_to_an_aioice_agent_stands_and_stays(
    monkeypatch: pytest.MonkeyPatch, host: str, controlling: bool
) -> None:
    async def conversation() -> None:
        theirs = aioice.Connection(ice_controlling=not controlling)
        await converse(theirs, Shell(controlling=controlling), connect_and_talk, host=host)

    run(monkeypatch, host, conversation)


@pytest.mark.parametrize("both", [True, False])
def test_a_role_conflict_with_an_aioice_agent_is_settled(
    monkeypatch: pytest.MonkeyPatch, both: bool
) -> None:
    async def settle(connection: aioice.Connection, shell: Shell) -> None:
        await connect_and_talk(connection, shell)
        assert connection.ice_controlling is not shell.agent.controlling

    async def conversation() -> None:
        theirs = aioice.Connection(ice_controlling=both)
        await converse(theirs, Shell(controlling=both), settle, host="127.0.0.1")

    run(monkeypatch, "127.0.0.1", conversation)


def test_an_aioice_agent_with_another_password_is_never_reached(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def fail(connection: aioice.Connection, shell: Shell) -> None:
        trying = asyncio.ensure_future(connection.connect())
        await shell.until(lambda: ice.Failed(ice.Failure.TIMEOUT) in shell.facts)
        assert not shell.selected
        assert shell.served, "it did ask us"
        trying.cancel()
        await asyncio.gather(trying, return_exceptions=True)

    async def conversation() -> None:
        theirs = aioice.Connection(ice_controlling=True)
        shell = Shell(controlling=False, timeout=4.0)
        await converse(theirs, shell, fail, host="127.0.0.1", password="x" * 24)

    run(monkeypatch, "127.0.0.1", conversation)
