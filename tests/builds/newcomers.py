"""Newcomers by the dozen, in one process: library nodes that all join at once.

``python -m tests.builds.newcomers COUNT``: the first line of stdin is the invite link; prints
``{"event": "ready"}`` once COUNT nodes listen. A second line on stdin has all of them join; prints
``{"event": "joined", "name", "seconds"}`` for each, counted from its join call, or ``failed`` with
the text of the error. Ends, with goodbyes, when stdin is closed.
"""

import json
import sys
from contextlib import AsyncExitStack
from typing import Any

import trio

import overlay
from overlay import api
from overlay.errors import OverlayError


def say(event: dict[str, Any]) -> None:
    """One line of JSON on stdout."""
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()


async def join(node: api.Node, link: str) -> None:
    """One join, timed."""
    began = trio.current_time()
    try:
        await node.join(link)
    except OverlayError as error:
        say({"event": "failed", "name": node.name, "text": str(error)})
    else:
        seconds = trio.current_time() - began
        say({"event": "joined", "name": node.name, "seconds": seconds})


async def main(count: int) -> None:
    """Open them one after the other, join by all at once, and stay until nobody listens."""
    link = sys.stdin.readline().strip()
    async with AsyncExitStack() as stack:
        nodes = [
            await stack.enter_async_context(
                overlay.open_node(listen="127.0.0.1:0", name=f"newcomer{number}")
            )
            for number in range(count)
        ]
        say({"event": "ready"})
        await trio.to_thread.run_sync(sys.stdin.readline)
        async with trio.open_nursery() as nursery:
            for node in nodes:
                nursery.start_soon(join, node, link)
        await trio.to_thread.run_sync(sys.stdin.read)


if __name__ == "__main__":
    trio.run(main, int(sys.argv[1]))
