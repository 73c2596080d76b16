"""A node within somebody's program: `overlay.open_node`."""

import logging
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager, closing
from os import PathLike
from pathlib import Path
from typing import Any

import trio

from overlay.core.events import Report
from overlay.identity import Identity, load_or_create
from overlay.node import arguments
from overlay.node.config import Config, of_settings
from overlay.node.directory import DataDirectory
from overlay.node.listening import make_transport
from overlay.node.logs import LEVELS, plain_fields
from overlay.node.node import Dependencies, Node
from overlay.node.store import Forgetful, Store

log = logging.getLogger("overlay.node")


def open_node(
    *,
    data_dir: str | PathLike[str] | None,
    listen: str | None,
    join: str | None,
    name: str | None,
    settings: Mapping[str, Any],
) -> AbstractAsyncContextManager[Node]:
    """See `overlay.open_node`."""
    given = {"listen": listen, "name": name}
    texts = {key: text for key, text in {**given, "join": join}.items() if text is not None}
    for key, text in texts.items():
        arguments.text(key, text)
    arguments.settings("settings", settings)
    if data_dir is not None:
        arguments.path("data_dir", data_dir)
    config = of_settings({**settings, **{key: texts[key] for key in given if key in texts}})
    return _opened(config, None if data_dir is None else Path(data_dir), join)


@asynccontextmanager
async def _opened(config: Config, data_dir: Path | None, join: str | None) -> AsyncIterator[Node]:
    with ExitStack() as stack:
        store: Store | None = None
        if data_dir is not None:
            directory = stack.enter_context(closing(DataDirectory.open(data_dir)))
            store = stack.enter_context(closing(Store(directory.path / "overlay.db")))
            identity = load_or_create(directory.path, has_lived=store.has_lived)
        else:
            identity = Identity.generate()
        node = _compose(config, identity, store)
        async with living(node):
            if store is not None:
                store.set_port(node.transport.listen[0].port)
            if join is not None:
                await node.join(join)
            node.recall()
            yield node


def _compose(config: Config, identity: Identity, store: Store | None) -> Node:
    transport = make_transport(config, identity, store.port() if store else 0)
    given = Dependencies(report=_report, random=random.Random())
    return Node(config, identity, store or Forgetful(), transport, given)


@asynccontextmanager
async def living(node: Node) -> AsyncIterator[None]:
    """Run a node beside the block; in the end it says goodbye.

    An exception leaves as it was raised, without the groups that trio's nurseries wrap it in.
    """
    failure: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(node.run)  # type: ignore[arg-type, unused-ignore]
            try:
                yield
            finally:
                with trio.CancelScope(shield=True):
                    await node.leave()
    except BaseExceptionGroup as group:
        failure = sole(group)
    if failure is not None:
        raise failure


def sole(error: BaseException) -> BaseException:
    """The one exception inside groups of one, which tasks wrap it in; else what was given."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def _report(report: Report) -> None:
    """Log what the core reports, in the standard library's way."""
    level = LEVELS[report.level]
    if log.isEnabledFor(level):
        log.log(level, "%s %s", report.event, dict(plain_fields(None, "", {**report.fields})))
