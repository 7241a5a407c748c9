"""The activity service on real NATS and the real in-process engine."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from libs.common.bus import Bus
from libs.common.shipper import ensure_stream
from services.activity.clickhouse import ClickHouse
from services.activity.consumer import Consumer
from services.activity.feed import Feed
from services.activity.ingest import Ingest
from services.activity.settings import ActivitySettings
from services.activity.store import RecordStore
from tests.conftest import Nats
from tests.unit.activity.records_made import REPLICA, Publisher


@pytest.fixture
def settings(nats: Nats, tmp_path: Path) -> ActivitySettings:
    return ActivitySettings(data_dir=tmp_path, nats_url=nats.url)


@pytest.fixture
async def bus(settings: ActivitySettings) -> AsyncIterator[Bus]:
    bus = Bus(settings, "test")
    await bus.start()
    await ensure_stream(bus, settings)
    yield bus
    await bus.stop()


@pytest.fixture
def publisher(bus: Bus) -> Publisher:
    return Publisher(bus)


@pytest.fixture
async def clickhouse(tmp_path: Path) -> AsyncIterator[ClickHouse]:
    """The database alone, without NATS."""
    clickhouse = ClickHouse(ActivitySettings(data_dir=tmp_path))
    await clickhouse.start()
    yield clickhouse
    await clickhouse.stop()


class Pipeline:
    """The consuming half of the service, with questions that tests ask of its database."""

    def __init__(self, bus: Bus, settings: ActivitySettings) -> None:
        self.clickhouse = ClickHouse(settings)
        self.store = RecordStore(self.clickhouse)
        self.ingest = Ingest(self.store)
        self.feed = Feed(bus, settings)
        self.consumer = Consumer(self.feed, self.ingest)

    async def start(self) -> None:
        await self.clickhouse.start()
        await self.consumer.start()

    async def stop(self) -> None:
        await self.consumer.stop()
        await self.clickhouse.stop()

    async def seqs(self, replica: str = REPLICA) -> list[int]:
        """The `seq` of every row of `replica`, sorted: shows what is there twice, and what is not there."""
        rows = await self.clickhouse.read(
            "SELECT seq FROM tool_calls WHERE replica = {replica:String} ORDER BY seq", {"replica": replica}
        )
        return [row["seq"] for row in rows]

    async def dead_letters(self) -> list[tuple[int, str]]:
        rows = await self.clickhouse.read("SELECT seq, line FROM dead_letters ORDER BY seq", {})
        return [(row["seq"], row["line"]) for row in rows]


StartPipeline = Callable[[], Awaitable[Pipeline]]


@pytest.fixture
async def start_pipeline(bus: Bus, settings: ActivitySettings) -> AsyncIterator[StartPipeline]:
    """Starts a pipeline; again after the former one was stopped. Stopped at the end."""
    async with AsyncExitStack() as stack:

        async def start() -> Pipeline:
            pipeline = Pipeline(bus, settings)
            stack.push_async_callback(pipeline.stop)
            await pipeline.start()
            return pipeline

        yield start


@pytest.fixture
async def pipeline(start_pipeline: StartPipeline) -> Pipeline:
    return await start_pipeline()
