"""A feed is bounded in items and in bytes: who reads too slowly is told, after all that fitted."""

import pytest

from overlay.errors import CommandFailed
from overlay.node import feed as feeds
from overlay.node.feed import Feed


async def test_large_items_fill_a_feed_sooner_than_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeds, "MAX_WAITING_BYTES", 100)
    closed: list[bool] = []
    feed: Feed[bytes] = Feed(lambda: closed.append(True), len)
    for size in (60, 40, 1):
        feed.put(bytes(size))
    assert closed == [True]
    assert [len(await feed.get()) for _ in range(2)] == [60, 40]
    with pytest.raises(CommandFailed, match="more came than was read"):
        await feed.get()


async def test_what_was_read_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeds, "MAX_WAITING_BYTES", 100)
    feed: Feed[bytes] = Feed(size_of=len)
    for _ in range(50):
        feed.put(bytes(60))
        assert len(await feed.get()) == 60
        feed.put(bytes(70))
        assert feed.drain() == [bytes(70)]
    assert not feed.overflowed
