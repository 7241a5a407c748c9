"""Background work ends when it is told to, also when the first cancellation is lost.

`asyncio.wait_for` of Python 3.11, in our NATS client, can swallow one that comes with what it waits for.
"""

import asyncio
from pathlib import Path

import pytest
from nats.aio.msg import Msg

from libs.common.bus import Bus
from services.activity.clickhouse import ClickHouse
from services.activity.consumer import Consumer
from services.activity.feed import Feed
from services.activity.ingest import Ingest
from services.activity.settings import ActivitySettings
from services.activity.store import RecordStore


class LossyFeed(Feed):
    """A feed without messages that swallows the first cancellation."""

    lost = False

    async def open(self) -> None:
        pass

    async def close(self) -> None:
        pass

    async def batch(self) -> list[Msg]:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if self.lost:
                raise
            self.lost = True
        return []


@pytest.fixture
def settings(tmp_path: Path) -> ActivitySettings:
    return ActivitySettings(data_dir=tmp_path)


async def test_the_consumer_stops_though_a_cancellation_was_lost(settings: ActivitySettings) -> None:
    feed = LossyFeed(Bus(settings, "test"), settings)
    consumer = Consumer(feed, Ingest(RecordStore(ClickHouse(settings))))
    await consumer.start()
    await asyncio.sleep(0)
    # Not asyncio.timeout: it would cancel once more, and so mend what is tested.
    stopped, _ = await asyncio.wait({asyncio.create_task(consumer.stop())}, timeout=5)
    assert feed.lost
    assert stopped
