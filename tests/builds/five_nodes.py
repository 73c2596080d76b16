"""Several whole nodes in one process, as a program would hold them: `overlay.open_node` each.

``python -m tests.builds.five_nodes DIRECTORY NAME… [--join] [--topic TOPIC] [--settings JSON]``:
a node a name, its data directory ``DIRECTORY/NAME``, where the `overlay` command finds it. With
``--join`` the invite link is read from stdin. Prints a line of JSON when a node is ready, and one
for each message on TOPIC: ``{"event": "heard", "name", "data"}``. Lives until it is killed.
"""

import argparse
import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import trio

import overlay
from overlay import api
from overlay.node.control import serve
from overlay.node.directory import DataDirectory
from overlay.node.node import Node
from overlay.transport.interface import Starting


def say(event: dict[str, Any]) -> None:
    """One line of JSON on stdout."""
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()


async def hear(node: api.Node, topic: str, *, task_status: Starting) -> None:
    """Print what is published on the topic."""
    async with node.subscribe(topic) as messages:
        task_status.started()
        async for message in messages:
            say({"event": "heard", "name": node.name, "data": message.text})


async def live(
    options: argparse.Namespace, name: str, join: str | None, *, task_status: Any
) -> None:
    """One node, for ever; starts with its invite."""
    directory = options.directory / name
    async with (
        overlay.open_node(
            data_dir=directory,
            listen="127.0.0.1:0",
            join=join,
            name=name,
            settings=options.settings,
        ) as node,
        trio.open_nursery() as nursery,
    ):
        assert isinstance(node, Node)
        await nursery.start(partial(hear, node, options.topic))
        control = DataDirectory(directory, lock=-1).listen()  # locked by the node itself
        nursery.start_soon(serve, node, control, {})
        invite = await node.invite(members=1)
        ready = {"event": "ready", "name": node.name, "peer_id": node.peer_id}
        say({**ready, "listen": list(node.addresses), "invite": invite.link})
        task_status.started(invite.link)


async def main(options: argparse.Namespace) -> None:
    """One after the other; without an invite the first one founds the network."""
    join = sys.stdin.readline().strip() if options.join else None
    async with trio.open_nursery() as nursery:
        for name in options.names:
            invite = await nursery.start(partial(live, options, name, join))
            join = join or invite


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("directory", type=Path)
    parser.add_argument("names", nargs="+")
    parser.add_argument("--join", action="store_true")
    parser.add_argument("--topic", default="news")
    parser.add_argument("--settings", type=json.loads, default={})
    trio.run(main, parser.parse_args())
