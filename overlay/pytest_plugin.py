"""The fixtures ``mesh`` and ``world`` for pytest: whole nodes in memory, and simulated ones.

`mesh` needs pytest-trio, `world` nothing. Installed with overlay and loaded by every pytest run, so
that it imports nothing until a test asks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from overlay.testing import Mesh, World


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Run what asks for our fixture under trio, on a MockClock unless it brings a clock."""
    for item in items:
        if _asks_for_mesh(item):
            if not config.pluginmanager.hasplugin("trio"):
                raise pytest.UsageError("the fixture `mesh` needs pytest-trio: install it")
            item.add_marker(pytest.mark.trio(run=run), append=False)


def _asks_for_mesh(item: pytest.Item) -> bool:
    """Whether the fixture is ours: a project may have one of its own by that name."""
    known: dict[str, Any] = getattr(getattr(item, "_fixtureinfo", None), "name2fixturedefs", {})
    return "mesh" in known and known["mesh"][-1].func is _mesh


def run(main: Any, *, clock: Any = None, **more: Any) -> Any:
    """`trio.run` on a clock that jumps whenever all tasks wait."""
    import trio
    import trio.testing

    return trio.run(main, clock=clock or trio.testing.MockClock(autojump_threshold=0), **more)


async def _mesh() -> AsyncIterator[Mesh]:
    """A mesh of whole nodes in memory (`overlay.testing.Mesh`), on a clock that jumps."""
    from overlay.testing import open_mesh

    async with open_mesh() as mesh:
        yield mesh


@pytest.fixture(name="world")
def _world(request: pytest.FixtureRequest) -> World:
    """A seeded world of simulated nodes (`overlay.testing.World`), every promise of theirs watched.

    The seed is 1, or what the test is parametrized with: ``parametrize("world", range(20),
    indirect=True)``.
    """
    from overlay.testing import SEED, World

    return World(getattr(request, "param", SEED), checked=True)


mesh = pytest.fixture(name="mesh")(_mesh)
