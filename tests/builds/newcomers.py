"""Newcomers that all enter one network at the same moment, as library nodes of one process.

``python -m tests.builds.newcomers DIRECTORY COUNT`` reads an invite link from stdin, opens COUNT
nodes, prints ``{"event": "prepared"}`` and waits for a second line. Then all join at once; for each
a line says how long that took from its call, in seconds: ``{"event": "joined", "seconds"}``, or why
it failed: ``{"event": "failed", "text"}``. Lives until it is killed.
"""

import json
import sys
from pathlib import Path
from typing import Any

import trio

import overlay
from overlay.errors import OverlayError
from overlay.node.node import Node


def say(event: dict[str, Any]) -> None:
    """One line of JSON on stdout."""
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()


async def live(directory: Path, link: str, begin: trio.Event, *, task_status: Any) -> None:
    """One newcomer, for ever: open at once, it joins when told to."""
    async with overlay.open_node(data_dir=directory, listen="127.0.0.1:0") as node:
        assert isinstance(node, Node)
        task_status.started()
        await begin.wait()
        called_at = trio.current_time()
        try:
            await node.join(link)
        except OverlayError as error:
            say({"event": "failed", "text": str(error)})
        else:
            say({"event": "joined", "seconds": trio.current_time() - called_at})
        await trio.sleep_forever()


async def main(directory: Path, count: int) -> None:
    """All at once, when told to."""
    link, begin = sys.stdin.readline().strip(), trio.Event()
    async with trio.open_nursery() as nursery:
        for number in range(count):
            await nursery.start(live, directory / f"newcomer{number}", link, begin)
        say({"event": "prepared"})
        await trio.to_thread.run_sync(sys.stdin.readline)
        begin.set()


if __name__ == "__main__":
    trio.run(main, Path(sys.argv[1]), int(sys.argv[2]))
