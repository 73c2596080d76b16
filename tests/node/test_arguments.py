"""Every public method looks at what it is handed, and a node lives through all of it.

The methods are found by looking at the interface, so that one without checks is found out.
"""

import inspect
import math
import types
import typing
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from os import PathLike
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

import overlay
from overlay import api, testing
from overlay.errors import CommandFailed, OverlayError, WrongArgument
from overlay.node.node import Node
from overlay.node.streaming import PeerStream
from overlay.testing import Mesh, open_mesh

Call = Callable[..., Any]


async def echo(_: str, data: bytes) -> bytes:
    return data


FITTING: dict[str, Any] = {
    "data": b"x",
    "count": 1,
    "expires": 60.0,
    "everybody": False,
    "handler": echo,
    "latency": 0.01,
    "link": "overlay:nothing",
    "members": 1,
    "name": "ada",
    "peer": "n2",
    "peers": 0,
    "priority": 0,
    "protocol": "p",
    "seed": 1,
    "timeout": 1.0,
    "topic": "t",
}
"""A value for each argument that a method asks for: a new one has its place here."""
ANYTHING: tuple[Any, ...] = (
    None,
    True,
    7,
    1.5,
    "x",
    b"x",
    bytearray(b"x"),
    object(),
    [],
    (),
    {},
    {1: 2},
    math.nan,
)
PATIENCE = 30.0
MINE = {"task_status", "self"}
"""Trio's, and Python's."""


def methods(kind: type) -> dict[str, Any]:
    """The public methods of a class by their names; what is abstract in trio as well."""
    found = inspect.getmembers(kind, inspect.isfunction)
    return {name: method for name, method in found if not name.startswith("_")}


def fits(value: Any, hint: Any) -> bool:
    """Whether the interface allows this value here, as far as its type says."""
    if hint is Any:
        return True
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        return any(fits(value, each) for each in typing.get_args(hint))
    kind = typing.get_origin(hint) or hint
    if kind is Mapping:
        return isinstance(value, Mapping) and all(isinstance(key, str) for key in value)
    if kind is PathLike:
        return hasattr(value, "__fspath__")
    if kind is api.Node:
        return isinstance(value, Node)
    if kind in (int, float) and isinstance(value, bool):
        return False
    return isinstance(value, (int, float) if kind is float else kind)


async def outcome(call: Call, args: list[Any], named: dict[str, Any]) -> BaseException | None:
    """What a call raises, if anything; what it hands out is closed."""
    try:
        with trio.move_on_after(5.0):
            made = call(*args, **named)
            if inspect.isawaitable(made):
                made = await made
            if isinstance(made, api.Stream):
                made.reset()
            elif hasattr(made, "close"):
                made.close()
    except Exception as error:  # noqa: BLE001 (it is looked at)
        return error
    return None


async def slips(call: Call, owner: Any = None, node: api.Node | None = None) -> list[str]:
    """Each wrong type that a method takes, or that ends in something else than a TypeError.

    Its types are those of `owner`, if it is given; `node` stands where another node is asked for.
    """
    signature, hints = inspect.signature(call), typing.get_type_hints(owner or call)
    nodes = {name: node for name in signature.parameters if hints.get(name) is api.Node}
    found = []
    for name in signature.parameters:
        for wrong in ANYTHING:
            if name in MINE or fits(wrong, hints[name]):
                continue
            args, named = _arguments(signature, {**nodes, name: wrong})
            error = await outcome(call, args, named)
            if not isinstance(error, TypeError):
                found.append(f"{call.__name__}({name}={wrong!r}): {error!r}")
    return found


def _arguments(
    signature: inspect.Signature, given: Mapping[str, Any]
) -> tuple[list[Any], dict[str, Any]]:
    args, named = [], {}
    for name, parameter in signature.parameters.items():
        if name in MINE or (name not in given and parameter.default is not parameter.empty):
            continue
        if parameter.kind is parameter.VAR_POSITIONAL:
            args.append(given.get(name, FITTING.get(name)))
        else:
            named[name] = given[name] if name in given else FITTING[name]
    return args, named


async def until_lives(mesh: Mesh, node: api.Node) -> None:
    assert node.status()["internal_errors"] == 0
    assert await node.ping("n2") < PATIENCE
    mesh.check()


# --- types ---------------------------------------------------------------------------------------


async def test_a_node_takes_no_wrong_type_and_lives(mesh: Mesh) -> None:
    node, _ = await mesh.nodes(2)
    assert {"publish", "subscribe", "serve", "invite", "open_stream"} <= methods(api.Node).keys()
    for name, method in methods(api.Node).items():
        assert await slips(getattr(node, name), method) == []
    await until_lives(mesh, node)


async def test_what_killed_a_node_is_a_type_error(mesh: Mesh) -> None:
    node, _ = await mesh.nodes(2)
    with pytest.raises(TypeError, match="data is bytes or a str, not NoneType"):
        await node.publish("t", None)  # type: ignore[arg-type]
    await until_lives(mesh, node)


async def test_a_stream_takes_no_wrong_type_and_breaks_by_none(mesh: Mesh) -> None:
    node, other = await mesh.nodes(2)
    async with other.accept_streams("p") as arrivals:
        stream = await node.open_stream("n2", "p")
        theirs = await anext(arrivals)
        for name, method in methods(PeerStream).items():
            if name not in methods(trio.abc.AsyncResource):  # it has no arguments
                assert await slips(getattr(stream, name), method) == []
        await stream.send_all(memoryview(b"\1\0\2\0").cast("H"))
        assert await theirs.receive_some() == b"\1\0\2\0"
        for bad in (memoryview(b"abcdef")[::2],):
            with pytest.raises(ValueError, match="in one piece"):
                await stream.send_all(bad)
        for most in (0, -1, 1 << 80):
            with pytest.raises(ValueError, match="max_bytes"):
                await stream.receive_some(most)
        for code in (-1, 1 << 31):
            with pytest.raises(ValueError, match="code"):
                stream.reset(code)
        await stream.send_all(b"still here")
        assert await theirs.receive_some() == b"still here"
        for each in (stream, theirs):
            await each.aclose()
    await until_lives(mesh, node)


async def test_a_mesh_in_memory_takes_no_wrong_type(mesh: Mesh) -> None:
    node, _ = await mesh.nodes(2)
    for name in methods(Mesh):
        assert await slips(getattr(mesh, name), node=node) == []
    async with open_mesh() as elsewhere:
        stranger = await elsewhere.node()
        with pytest.raises(WrongArgument, match="another mesh"):
            mesh.unplug(stranger)


NAMED = {
    "AbstractAsyncContextManager": AbstractAsyncContextManager,
    "Any": Any,
    "Mapping": Mapping,
    "Node": api.Node,
    "PathLike": PathLike,
}
"""What signatures name and modules import for the type checker alone."""


async def test_what_opens_nodes_takes_no_wrong_type() -> None:
    openers: tuple[Call, ...] = (overlay.open_node, open_mesh)
    for call in openers:
        hints = {**typing.get_type_hints(call, localns=NAMED)}
        signature = inspect.signature(call)
        for name in signature.parameters:
            for wrong in ANYTHING:
                if not fits(wrong, hints[name]):
                    with pytest.raises(TypeError):
                        call(**{name: wrong})
    for latency in (-1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="latency"):
            testing.open_mesh(latency=latency)
    with pytest.raises(ValueError, match="data_dir"):
        overlay.open_node(data_dir="a\0b")


def test_a_feed_takes_nothing() -> None:
    for name, method in methods(api.Feed).items():
        assert not set(inspect.signature(method).parameters) - MINE, name


async def test_a_method_that_does_not_look_is_found_out() -> None:
    async def careless(topic: str, data: bytes | str) -> int:
        return len(topic) + len(data)

    def careful(topic: str) -> None:
        if not isinstance(topic, str):
            raise TypeError

    assert await slips(careless)
    assert not await slips(careful)


# --- bounds --------------------------------------------------------------------------------------

PEERS = st.sampled_from(["n1", "n2", "n", "12D3", ""])
TEXTS = st.text(max_size=300) | st.text(st.characters(categories=["Cs", "Cc"]), max_size=4) | PEERS
NUMBERS: dict[Any, st.SearchStrategy[Any]] = {
    bool: st.booleans(),
    bytes: st.binary(max_size=2000) | st.just(bytes(1 << 21)),
    float: st.floats() | st.integers() | st.sampled_from([0, -1, 1e308, 10**400]),
    int: st.integers() | st.integers(-10, 10) | st.just(10**400),
    str: TEXTS,
    types.NoneType: st.none(),
}


def values(hint: Any) -> st.SearchStrategy[Any]:
    """Values of the right type, most of them absurd."""
    if isinstance(hint, types.UnionType):
        return st.one_of(*map(values, typing.get_args(hint)))
    return NUMBERS.get(hint, st.just(echo))


@st.composite
def calls(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    """One method of a node with values of the right types."""
    found = {name: each for name, each in methods(api.Node).items() if name != "leave"}
    name = draw(st.sampled_from(sorted(found)))
    hints = typing.get_type_hints(found[name])
    names = [each for each in inspect.signature(found[name]).parameters if each not in MINE]
    return name, {each: draw(values(hints[each])) for each in names}


@asynccontextmanager
async def two() -> AsyncIterator[tuple[Mesh, api.Node]]:
    async with open_mesh() as mesh:
        node, _ = await mesh.nodes(2)
        yield mesh, node


@settings(max_examples=12, deadline=None)
@given(st.lists(calls(), min_size=8, max_size=24))
def test_no_value_of_the_right_type_harms_a_node(
    asked: list[tuple[str, dict[str, Any]]],
) -> None:
    async def main() -> None:
        async with two() as (mesh, node):
            for name, named in asked:
                error = await outcome(getattr(node, name), [], named)
                allowed = error is None or isinstance(error, ValueError | OverlayError)
                assert allowed, (name, named, error)
            await until_lives(mesh, node)

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


@pytest.mark.parametrize(
    ("name", "named"),
    [
        ("publish", {"topic": "", "data": b""}),
        ("publish", {"topic": "a\nb", "data": b""}),
        ("publish", {"topic": "\ud800", "data": b""}),
        ("publish", {"topic": "t", "data": "half \ud800"}),
        ("subscribe", {"topic": 300 * "x"}),
        ("invite", {"expires": math.nan}),
        ("invite", {"expires": 0}),
        ("invite", {"expires": 10**400}),
        ("invite", {"members": 0}),
        ("join", {"link": "x", "timeout": math.nan}),
        ("join", {"link": "x", "timeout": -1}),
        ("wait", {"peers": -1}),
        ("wait", {"peers": 1, "timeout": math.inf}),
        ("ping", {"peer": "\udcff"}),
        ("open_stream", {"peer": "n2", "protocol": ""}),
        ("open_stream", {"peer": "n2", "protocol": "p", "priority": 5}),
        ("accept_streams", {"protocol": 65 * "p"}),
        ("request", {"peer": "n2", "protocol": "\x1b", "data": b""}),
        ("request", {"peer": "n2", "protocol": "p", "data": b"", "timeout": -0.5}),
    ],
)
async def test_what_is_out_of_bounds_is_said_so(
    mesh: Mesh, name: str, named: dict[str, Any]
) -> None:
    node = await mesh.node()
    error = await outcome(getattr(node, name), [], named)
    assert isinstance(error, WrongArgument), error
    assert isinstance(error, ValueError)
    assert isinstance(error, CommandFailed)
    assert error.code == "usage"
    assert error.text.isprintable()


# --- handlers ------------------------------------------------------------------------------------


async def nonsense(_: str, data: bytes) -> bytes:
    raise CommandFailed(5, None)  # type: ignore[arg-type]


async def wordy(_: str, data: bytes) -> str:
    return data.decode()


async def broken(_: str, data: bytes) -> bytes:
    raise KeyError(data)


@pytest.mark.parametrize(
    ("handler", "code", "comes_out"),
    [
        (nonsense, "5", None),
        (wordy, "failed", TypeError),
        (broken, "failed", KeyError),
        (lambda peer, data: data, "failed", TypeError),  # awaits nothing
        (lambda: None, "failed", TypeError),
    ],
)
async def test_a_handler_that_raises_fails_its_request_and_no_node(
    mesh: Mesh, handler: Any, code: str, comes_out: type[Exception] | None
) -> None:
    node, other = await mesh.nodes(2)
    ended: list[BaseException] = []

    async def serve(task_status: Any) -> None:
        try:
            await node.serve("p", handler, task_status=task_status)
        except BaseExceptionGroup as group:
            ended.extend(group.exceptions)

    async with trio.open_nursery() as nursery:
        await nursery.start(serve)
        with pytest.raises(CommandFailed) as caught:
            await other.request(node.peer_id, "p", b"x")
        assert caught.value.code == code
        await trio.sleep(1.0)
        assert [type(error) for error in ended] == ([comes_out] if comes_out else [])
        nursery.cancel_scope.cancel()
    await until_lives(mesh, node)
