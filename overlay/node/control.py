"""The control API: HTTP and JSON on a Unix socket that only this user can open.

Answers are objects; ``/subscribe`` streams one a line. An error is ``{"error": {"code", "text"}}``
with status 400 when the request was wrong and 502 when the mesh could not do it.
"""

import base64
import contextlib
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any

import hypercorn
import hypercorn.trio
import msgspec
import trio
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from overlay import api
from overlay.errors import CommandFailed, Failure, UsageError
from overlay.identity import peer_id_text
from overlay.node.answers import message_row, peer_row
from overlay.node.node import Node
from overlay.transport.interface import Starting

MAX_BODY = 8 << 20
"""Bytes of a request: the largest publication, whose every byte JSON may write as six."""
USAGE = frozenset(
    (Failure.AMBIGUOUS, Failure.SELF, Failure.TOO_LARGE, Failure.UNKNOWN_PEER, Failure.USAGE)
)
"""Codes that mean that the request was wrong: status 400, exit 2."""
GRACE = 1.0
"""Seconds that answers under way get at the end (guess)."""

log = logging.getLogger("overlay.control")

Answer = Callable[[Node, Any], Awaitable[Any]]
Rows = AsyncIterator[dict[str, Any]]
App = Callable[[api.Node, str], AbstractAsyncContextManager[Rows]]
"""Something that goes on about a topic for as long as its context is open, told row by row."""


class InviteRequest(msgspec.Struct, forbid_unknown_fields=True):
    """``POST /invite``; what is left out is as configured."""

    expires: float | None = None
    members: int | None = None


class PeerRequest(msgspec.Struct, forbid_unknown_fields=True):
    """``POST /connect``, ``/ping``, ``/trace``, ``/descriptions``."""

    peer: str


class WaitRequest(msgspec.Struct, forbid_unknown_fields=True):
    """``POST /wait``."""

    peers: int = 1
    timeout: float | None = None


class PublishRequest(msgspec.Struct, forbid_unknown_fields=True):
    """``POST /publish``: text, or bytes in base64."""

    topic: str
    data: str | None = None
    data_b64: str | None = None


class Nothing(msgspec.Struct, forbid_unknown_fields=True):
    """A request that says nothing more."""


async def _status(node: Node, _: Nothing) -> Any:
    return node.status()


async def _peers(node: Node, _: Nothing) -> Any:
    return {"peers": [peer_row(peer) for peer in node.peers()]}


async def _everybody(node: Node, _: Nothing) -> Any:
    return {"peers": [peer_row(peer) for peer in node.peers(everybody=True)]}


async def _descriptions(node: Node, request: PeerRequest) -> Any:
    return node.descriptions(request.peer)


async def _invite(node: Node, request: InviteRequest) -> Any:
    made = await node.invite(expires=request.expires, members=request.members)
    return {"link": made.link, "expires_at": made.expires_at}


async def _connect(node: Node, request: PeerRequest) -> Any:
    return peer_row(await node.connect(request.peer))


async def _ping(node: Node, request: PeerRequest) -> Any:
    peer = peer_id_text(node.resolve(request.peer))
    rtt = await node.ping(peer)
    link = next((each.link for each in node.peers() if each.peer_id == peer), None)
    path = {"path": link and link.path, "relay": link and link.relay}
    return {"peer_id": peer, "rtt": rtt, **path}


async def _doctor(node: Node, _: Nothing) -> Any:
    return await node.doctor()


async def _doctor_of(node: Node, request: PeerRequest) -> Any:
    return await node.doctor_of(request.peer)


async def _trace(node: Node, request: PeerRequest) -> Any:
    traced = await node.trace(request.peer)
    return {"hops": list(traced.hops), "rtt": traced.rtt}


async def _wait(node: Node, request: WaitRequest) -> Any:
    await node.wait(request.peers, request.timeout)
    return {"links": node.links()}


async def _publish(node: Node, request: PublishRequest) -> Any:
    if (request.data is None) == (request.data_b64 is None):
        raise UsageError("publish takes either data or data_b64")
    if request.data is not None:
        return {"message_id": await node.publish(request.topic, request.data)}
    try:
        data = base64.b64decode(request.data_b64 or "", validate=True)
    except ValueError:
        raise UsageError("data_b64 is not base64") from None
    return {"message_id": await node.publish(request.topic, data)}


async def _leave(node: Node, _: Nothing) -> Any:
    node.leaving.set()
    return {"leaving": True}


class Stream:
    """A response that goes on: it stands before its head is sent, then a line for each row."""

    def __init__(self, node: Node, opened: AbstractAsyncContextManager[Rows]) -> None:
        self._node = node
        self._opened = opened

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        """Send a line for each row until the reader or the node goes."""
        async with self._opened as rows:
            headers = [(b"content-type", b"application/jsonl")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await _send_line(send, b"")  # the head goes out with the first bytes only
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_cancel_after, nursery.cancel_scope, _gone, receive)
                nursery.start_soon(_cancel_after, nursery.cancel_scope, self._node.leaving.wait)
                await self._pump(rows, send)
                nursery.cancel_scope.cancel()
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _pump(self, rows: Rows, send: Send) -> None:
        try:
            async for row in rows:
                await _send_line(send, msgspec.json.encode(row))
        except CommandFailed as error:
            await _send_line(send, msgspec.json.encode(_error(error.code, error.text)))


@contextlib.asynccontextmanager
async def _messages(node: api.Node, topic: str) -> AsyncIterator[Rows]:
    """What is published on a topic, for `overlay subscribe`."""
    async with node.subscribe(topic) as messages:
        rows = (message_row(message) async for message in messages)
        async with contextlib.aclosing(rows):
            yield rows


async def _send_line(send: Send, line: bytes) -> None:
    await send({"type": "http.response.body", "body": line + b"\n", "more_body": True})


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _cancel_after(
    scope: trio.CancelScope, wait: Callable[..., Awaitable[None]], *args: Any
) -> None:
    await wait(*args)
    scope.cancel()


def make_app(node: Node, apps: Mapping[str, App]) -> Starlette:
    """The control API of this node as an ASGI application."""

    def streaming(path: str, app: App) -> Route:
        async def endpoint(request: Request) -> Any:
            topic = request.query_params.get("topic")
            if topic is None:
                raise UsageError(f"which topic? {path}?topic=TOPIC")
            return Stream(node, app(node, topic))

        return Route(path, endpoint, methods=["GET"])

    def route(method: str, path: str, kind: type[Any], answer: Answer) -> Route:
        async def endpoint(request: Request) -> Response:
            return _json(await answer(node, await _decoded(request, kind)))

        return Route(path, endpoint, methods=[method])

    async def on_bug(_: Request, error: Exception) -> Response:
        node.internal_errors += 1
        log.error("internal error in a command", exc_info=error)
        return _json(_error(Failure.INTERNAL, "the node has a bug; its log says more"), 500)

    return Starlette(
        routes=[
            *(streaming(f"/{name}", app) for name, app in apps.items()),
            streaming("/subscribe", _messages),
            route("GET", "/status", Nothing, _status),
            route("GET", "/peers", Nothing, _peers),
            route("GET", "/peers/all", Nothing, _everybody),
            route("POST", "/descriptions", PeerRequest, _descriptions),
            route("POST", "/invite", InviteRequest, _invite),
            route("POST", "/connect", PeerRequest, _connect),
            route("POST", "/ping", PeerRequest, _ping),
            route("POST", "/trace", PeerRequest, _trace),
            route("GET", "/doctor", Nothing, _doctor),
            route("POST", "/doctor", PeerRequest, _doctor_of),
            route("POST", "/wait", WaitRequest, _wait),
            route("POST", "/publish", PublishRequest, _publish),
            route("POST", "/leave", Nothing, _leave),
        ],
        exception_handlers={
            UsageError: _on_usage_error,
            CommandFailed: _on_command_failed,
            HTTPException: _on_http_exception,
            Exception: on_bug,
        },
    )


async def _decoded(request: Request, kind: type[Any]) -> Any:
    body = bytearray()
    async with contextlib.aclosing(request.stream()) as chunks:
        async for chunk in chunks:
            body += chunk
            if len(body) > MAX_BODY:
                raise UsageError(f"the request is longer than {MAX_BODY} bytes")
    try:
        return msgspec.json.decode(body or b"{}", type=kind)
    except msgspec.DecodeError as error:
        raise UsageError(f"the request is not understood: {error}") from None


def _json(value: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status, media_type="application/json")


def _error(code: str, text: str) -> dict[str, Any]:
    return {"error": {"code": code, "text": text}}


async def _on_usage_error(_: Request, error: Exception) -> Response:
    return _json(_error(Failure.USAGE, str(error)), 400)


async def _on_command_failed(_: Request, error: Exception) -> Response:
    assert isinstance(error, CommandFailed)
    status = 400 if error.code in USAGE else 502
    return _json(_error(error.code, error.text), status)


async def _on_http_exception(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        text = "the running node knows no such request: it is of another version, so restart it"
        return _json(_error(Failure.USAGE, text), 400)
    return _json(_error(Failure.USAGE, error.detail), 400)


async def serve(
    node: Node,
    listener: socket.socket,
    apps: Mapping[str, App],
    *,
    task_status: Starting = trio.TASK_STATUS_IGNORED,
) -> None:
    """Answer on `listener` (bound, listening; ours from now on) until the node leaves.

    Each of `apps` has a path of its name, and streams its rows there.
    """
    config = hypercorn.Config()
    config.bind = [f"fd://{listener.detach()}"]
    config.accesslog = None
    config.errorlog = None
    config.include_server_header = False
    config.graceful_timeout = GRACE
    await hypercorn.trio.serve(
        make_app(node, apps),  # type: ignore[arg-type]
        config,
        shutdown_trigger=node.leaving.wait,
        task_status=task_status,
        mode="asgi",
    )
