"""What tests of the transport share."""

from collections.abc import AsyncGenerator

import pytest
import trio_asyncio  # type: ignore[import-untyped]


@pytest.fixture
async def loop() -> AsyncGenerator[None, None]:
    """An asyncio loop to be found by aiortc's constructors."""
    async with trio_asyncio.open_loop():
        yield
