"""A peer-to-peer mesh that needs no server: join by a link, negotiate through each other.

Programs begin with `open_node`; the rest of the public interface is in `overlay.api`. The command
imports this before it can take a signal: so it imports next to nothing.
"""

from overlay.version import __version__ as __version__

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractAsyncContextManager
    from os import PathLike
    from typing import Any

    from overlay.api import Node


def open_node(
    *,
    data_dir: "str | PathLike[str] | None" = None,
    listen: str | None = None,
    join: str | None = None,
    name: str | None = None,
    settings: "Mapping[str, Any] | None" = None,
) -> "AbstractAsyncContextManager[Node]":
    """A node for as long as the ``async with`` block lasts; on leaving it says goodbye.

    `data_dir` keeps its keys, its network and the peers it has met, and is locked meanwhile;
    without one, all of it is forgotten in the end. `join` is an invite link. `settings` maps the
    keys of the configuration file to their values, as in ``{"links.auto": False}``.

    Raises UsageError (ConfigError, InviteError) when it cannot start as asked, TypeError or
    ValueError for what is none of its arguments. Runs under trio.
    """
    from overlay.node.library import open_node as opened

    chosen = {} if settings is None else settings
    return opened(data_dir=data_dir, listen=listen, join=join, name=name, settings=chosen)
