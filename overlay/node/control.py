"""The control API: HTTP and JSON on a Unix socket that only this user can open.

Answers are objects; ``/subscribe`` streams one a line. An error is ``{"error": {"code", "text"}}``
with status 400 when the request was wrong and 502 when the mesh could not do it.
"""

import base64
import contextlib
import logging
import socket
from collections.abc import Awaitable, Callable
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

from overlay.errors import CommandFailed, UsageError
from overlay.node.driver import Subscription
from overlay.node.node import Node
from overlay.transport.port import Starting

MAX_BODY = 1 << 20
"""Bytes of a request (guess); more than any command needs."""
USAGE = frozenset({"ambiguous", "self", "too_large", "unknown_peer", "usage"})
"""Codes that mean that the request was wrong: status 400, exit 2."""
GRACE = 1.0
"""Seconds that answers under way get at the end (guess)."""

log = logging.getLogger("overlay.control")

Answer = Callable[[Node, Any], Awaitable[Any]]


class InviteRequest(msgspec.Struct, forbid_unknown_fields=True):
    """``POST /invite``; what is left out is as configured."""

    expires: float | None = None
    members: int | None = None


class PeerRequest(msgspec.Struct, forbid_unknown_fields=True):
    """``POST /connect``, ``/ping``, ``/descriptions``."""

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
    return {"peers": node.peers()}


async def _everybody(node: Node, _: Nothing) -> Any:
    return {"peers": node.peers(everybody=True)}


async def _descriptions(node: Node, request: PeerRequest) -> Any:
    return node.descriptions(node.resolve(request.peer))


async def _invite(node: Node, request: InviteRequest) -> Any:
    return await node.invite(request.expires, request.members)


async def _connect(node: Node, request: PeerRequest) -> Any:
    return await node.connect(node.resolve(request.peer))


async def _ping(node: Node, request: PeerRequest) -> Any:
    return await node.ping(node.resolve(request.peer))


async def _wait(node: Node, request: WaitRequest) -> Any:
    return await node.wait(request.peers, request.timeout)


async def _publish(node: Node, request: PublishRequest) -> Any:
    if (request.data is None) == (request.data_b64 is None):
        raise UsageError("publish takes either data or data_b64")
    if request.data is not None:
        return await node.publish(request.topic, request.data.encode(), text=True)
    try:
        data = base64.b64decode(request.data_b64 or "", validate=True)
    except ValueError:
        raise UsageError("data_b64 is not base64") from None
    return await node.publish(request.topic, data, text=False)


async def _leave(node: Node, _: Nothing) -> Any:
    node.leaving.set()
    return {"leaving": True}


class Stream:
    """The response to ``GET /subscribe?topic=``: subscribed before its head is sent."""

    def __init__(self, node: Node, topic: str) -> None:
        self._node = node
        self._topic = topic

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        """Send a line for each message until the reader or the node goes."""
        with self._node.driver.subscribe(self._topic) as subscription:
            headers = [(b"content-type", b"application/jsonl")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await _send_line(send, b"")  # the head goes out with the first bytes only
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_cancel_after, nursery.cancel_scope, _gone, receive)
                nursery.start_soon(_cancel_after, nursery.cancel_scope, self._node.leaving.wait)
                await self._pump(subscription, send)
                nursery.cancel_scope.cancel()
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _pump(self, subscription: Subscription, send: Send) -> None:
        try:
            while True:
                message = await subscription.get()
                await _send_line(send, msgspec.json.encode(self._node.message(message)))
        except CommandFailed as error:
            await _send_line(send, msgspec.json.encode(_error(error.code, error.text)))


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


def make_app(node: Node) -> Starlette:
    """The control API of this node as an ASGI application."""

    async def subscribe(request: Request) -> Any:
        topic = request.query_params.get("topic")
        if not topic:
            raise UsageError("which topic? /subscribe?topic=TOPIC")
        return Stream(node, topic)

    def route(method: str, path: str, kind: type[Any], answer: Answer) -> Route:
        async def endpoint(request: Request) -> Response:
            return _json(await answer(node, await _decoded(request, kind)))

        return Route(path, endpoint, methods=[method])

    async def on_bug(_: Request, error: Exception) -> Response:
        node.internal_errors += 1
        log.error("internal error in a command", exc_info=error)
        return _json(_error("internal", "the node has a bug; its log says more"), 500)

    return Starlette(
        routes=[
            Route("/subscribe", subscribe, methods=["GET"]),
            route("GET", "/status", Nothing, _status),
            route("GET", "/peers", Nothing, _peers),
            route("GET", "/peers/all", Nothing, _everybody),
            route("POST", "/descriptions", PeerRequest, _descriptions),
            route("POST", "/invite", InviteRequest, _invite),
            route("POST", "/connect", PeerRequest, _connect),
            route("POST", "/ping", PeerRequest, _ping),
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
    return _json(_error("usage", str(error)), 400)


async def _on_command_failed(_: Request, error: Exception) -> Response:
    assert isinstance(error, CommandFailed)
    status = 400 if error.code in USAGE else 502
    return _json(_error(error.code, error.text), status)


async def _on_http_exception(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _json(_error("usage", error.detail), 400)


async def serve(
    node: Node,
    listener: socket.socket,
    *,
    task_status: Starting = trio.TASK_STATUS_IGNORED,
) -> None:
    """Answer on `listener` (bound, listening; ours from now on) until the node leaves."""
    config = hypercorn.Config()
    config.bind = [f"fd://{listener.detach()}"]
    config.accesslog = None
    config.errorlog = None
    config.include_server_header = False
    config.graceful_timeout = GRACE
    await hypercorn.trio.serve(
        make_app(node),  # type: ignore[arg-type]
        config,
        shutdown_trigger=node.leaving.wait,
        task_status=task_status,
        mode="asgi",
    )
