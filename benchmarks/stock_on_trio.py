"""The rival where a trio program would have it, on trio-asyncio's loop: it runs alone."""

import sys

import trio
import trio_asyncio  # type: ignore[import-untyped]

from benchmarks.stock import serve


async def _serve() -> None:
    async with trio_asyncio.open_loop() as loop:
        # aiortc leaves a task or two to fail when the other end goes.
        loop.set_exception_handler(lambda *_: None)
        await trio_asyncio.aio_as_trio(serve)(int(sys.argv[1]), int(sys.argv[2]))


if __name__ == "__main__":
    trio.run(_serve)
