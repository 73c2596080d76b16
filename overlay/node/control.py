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
from typing import Any, Protocol

import hypercorn
import msgspec
import trio
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState
from hypercorn.utils import wrap_app
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from overlay import api
from overlay.errors import CommandFailed, Failure, UsageError
from overlay.identity import peer_id_text
from overlay.node.answers import message_row, peer_row
from overlay.node.connections import Connection, Connections
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
BODY_TIMEOUT = 10.0
"""Seconds for the body of a request to come (guess)."""
SIGN_INTERVAL = 1.0
"""Seconds between the empty lines by which a response that goes on shows that we live (guess)."""
CONNECTION = "connection"
"""Where the state of a request names its connection."""

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


class OfferRequest(msgspec.Struct, forbid_unknown_fields=True):
    """``POST /offer``; `seal`: a passphrase or a peer id."""

    expires: float = 3600.0
    seal: str | None = None


class CarriedRequest(msgspec.Struct, forbid_unknown_fields=True):
    """``POST /answer``, ``/accept``: what was carried here."""

    text: str
    seal: str | None = None
    timeout: float = 30.0


class PublishRequest(msgspec.Struct, forbid_unknown_fields=True):
    """``POST /publish``: text, or bytes in base64; `timeout`: seconds to wait for a first link."""

    topic: str
    data: str | None = None
    data_b64: str | None = None
    timeout: float | None = None


class SendRequest(msgspec.Struct, forbid_unknown_fields=True):
    """``POST /send``: absolute paths."""

    peer: str
    files: list[str]


class ReceiveRequest(msgspec.Struct, forbid_unknown_fields=True):
    """``POST /receive``: into an absolute path; whether a user answers what is asked."""

    directory: str
    senders: list[str] = []
    asks: bool = False


class ConsentRequest(msgspec.Struct, forbid_unknown_fields=True):
    """``POST /receive/answer``: what the user says to a question of ``/receive``."""

    question: str
    accept: bool


class Files(Protocol):
    """Sending and receiving of files, told row by row for as long as the context is open."""

    def send(
        self, node: api.Node, peer: str, paths: list[str], /
    ) -> AbstractAsyncContextManager[Rows]: ...
    def receive(
        self, node: api.Node, directory: str, senders: list[str], /, *, asks: bool
    ) -> AbstractAsyncContextManager[Rows]: ...
    def answer(self, question: str, /, *, accept: bool) -> None: ...


class Nothing(msgspec.Struct, forbid_unknown_fields=True):
    """A request that says nothing more."""


async def _status(node: Node, _: Nothing) -> Any:
    return node.status()


async def _peers(node: Node, _: Nothing) -> Any:
    return _listing(node, node.peers())


async def _everybody(node: Node, _: Nothing) -> Any:
    return _listing(node, node.peers(everybody=True))


def _listing(node: Node, peers: list[api.Peer]) -> Any:
    own = {"peer_id": node.peer_id, "name": node.name}
    return {"peers": [peer_row(peer) for peer in peers], "self": own}


async def _descriptions(node: Node, request: PeerRequest) -> Any:
    return node.descriptions(request.peer)


async def _invite(node: Node, request: InviteRequest) -> Any:
    made = await node.invite(expires=request.expires, members=request.members)
    return {"link": made.link, "expires_at": made.expires_at}


async def _offer(node: Node, request: OfferRequest) -> Any:
    made = await node.by_hand.offer(request.expires, request.seal)
    return {"offer": made.text, "expires_at": made.expires_at}


async def _answer(node: Node, request: CarriedRequest) -> Any:
    made = await node.by_hand.answer(request.text, request.seal)
    return {"answer": made.text, "expires_at": made.expires_at, "network": node.network}


async def _accept(node: Node, request: CarriedRequest) -> Any:
    peer = await node.by_hand.accept(request.text, request.seal, request.timeout)
    for each in node.peers():
        if each.peer_id == peer_id_text(peer):
            return peer_row(each)
    raise CommandFailed(Failure.CLOSED, "the link was opened and has already ended")


async def _connect(node: Node, request: PeerRequest) -> Any:
    return peer_row(await node.connect(request.peer))


async def _ping(node: Node, request: PeerRequest) -> Any:
    peer = peer_id_text(node.resolve(request.peer))
    rtt = await node.ping(peer)
    link = next((each.link for each in node.peers() if each.peer_id == peer), None)
    path = {key: link and getattr(link, key) for key in ("path", "relay", "state")}
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
    data: str | bytes = request.data or ""
    if request.data_b64 is not None:
        try:
            data = base64.b64decode(request.data_b64, validate=True)
        except ValueError:
            raise UsageError("data_b64 is not base64") from None
    if request.timeout is not None:
        await _await_link(node, request.topic, request.timeout)
    return {"message_id": await node.publish(request.topic, data)}


async def _await_link(node: Node, topic: str, timeout: float) -> None:
    """Wait until somebody could hear a publication; CommandFailed ``not_linked``: nobody could."""
    node.subscribe(topic).close()  # a topic that is none is said at once
    try:
        await node.wait(1, timeout)
    except CommandFailed:
        raise CommandFailed(
            Failure.NOT_LINKED,
            f"nothing is published, for no peer has been linked within {timeout:g} s: let somebody "
            "join (`overlay invite`), or wait for longer with --timeout",
        ) from None


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
                nursery.start_soon(_give_signs, send)
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


async def _give_signs(send: Send) -> None:
    while True:
        await trio.sleep(SIGN_INTERVAL)
        await _send_line(send, b"")


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _cancel_after(
    scope: trio.CancelScope, wait: Callable[..., Awaitable[None]], *args: Any
) -> None:
    await wait(*args)
    scope.cancel()


def _file_routes(node: Node, files: Files) -> list[Route]:
    """What `overlay send` and `overlay receive` ask for."""

    async def send(request: Request) -> Any:
        asked = await _decoded(request, SendRequest)
        peer = peer_id_text(node.resolve(asked.peer))
        return Stream(node, files.send(node, peer, asked.files))

    async def receive(request: Request) -> Any:
        asked = await _decoded(request, ReceiveRequest)
        senders = [peer_id_text(node.resolve(each)) for each in asked.senders]
        return Stream(node, files.receive(node, asked.directory, senders, asks=asked.asks))

    async def answer(request: Request) -> Response:
        asked = await _decoded(request, ConsentRequest)
        files.answer(asked.question, accept=asked.accept)
        return _json({"accept": asked.accept})

    answering = {"/send": send, "/receive": receive, "/receive/answer": answer}
    return [Route(path, endpoint, methods=["POST"]) for path, endpoint in answering.items()]


def make_app(node: Node, apps: Mapping[str, App], files: Files | None = None) -> Starlette:
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
            *(_file_routes(node, files) if files is not None else ()),
            streaming("/subscribe", _messages),
            route("GET", "/status", Nothing, _status),
            route("GET", "/peers", Nothing, _peers),
            route("GET", "/peers/all", Nothing, _everybody),
            route("POST", "/descriptions", PeerRequest, _descriptions),
            route("POST", "/invite", InviteRequest, _invite),
            route("POST", "/offer", OfferRequest, _offer),
            route("POST", "/answer", CarriedRequest, _answer),
            route("POST", "/accept", CarriedRequest, _accept),
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
    body = None
    with trio.move_on_after(BODY_TIMEOUT):
        body = await _body(request)
    if body is None:
        raise UsageError(f"the request has not come whole within {BODY_TIMEOUT:g} s")
    try:
        return msgspec.json.decode(body or b"{}", type=kind)
    except msgspec.DecodeError as error:
        raise UsageError(f"the request is not understood: {error}") from None


async def _body(request: Request) -> bytearray:
    body = bytearray()
    async with contextlib.aclosing(request.stream()) as chunks:
        async for chunk in chunks:
            body += chunk
            if len(body) > MAX_BODY:
                raise UsageError(f"the request is longer than {MAX_BODY} bytes")
    return body


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


class Attended:
    """An application whose requests are known to `connections` while they are worked on."""

    def __init__(self, app: ASGIApp, connections: Connections) -> None:
        self._app = app
        self._connections = connections

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        connection = scope["state"][CONNECTION]

        async def begin(message: Message) -> None:
            self._connections.answer(connection)
            await send(message)

        self._connections.begin(connection)
        try:
            await self._app(scope, receive, begin)
        finally:
            self._connections.finish(connection)


async def answer(
    node: Node,
    connections: Connections,
    apps: Mapping[str, App],
    files: Files | None = None,
    *,
    task_status: Starting = trio.TASK_STATUS_IGNORED,
) -> None:
    """Answer what comes over `connections` until the node leaves.

    Each of `apps` has a path of its name, and streams its rows there.
    """
    config = hypercorn.Config()
    config.accesslog = None
    config.errorlog = None
    config.include_server_header = False
    attended: Any = Attended(make_app(node, apps, files), connections)
    app = wrap_app(attended, config.wsgi_max_body_size, "asgi")
    context = WorkerContext(None)

    async def serve_one(connection: Connection) -> None:
        state = ConnectionState({CONNECTION: connection})
        stream: Any = connection.stream  # it is said to be TLS, and need not be
        await TCPServer(app, config, context, state, stream)

    connections.serve(serve_one)
    task_status.started()
    await node.leaving.wait()
    await context.terminated.set()
    await connections.close(GRACE)


async def serve(
    node: Node,
    listener: socket.socket,
    apps: Mapping[str, App],
    files: Files | None = None,
    *,
    task_status: Starting = trio.TASK_STATUS_IGNORED,
) -> None:
    """The same on a socket (bound, listening; ours from now on)."""
    connections = Connections(listener)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(connections.run)
        await answer(node, connections, apps, files, task_status=task_status)
        nursery.cancel_scope.cancel()
