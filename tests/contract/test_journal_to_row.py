"""The whole way of a record, with the real journal and shipper at its beginning."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from libs.common.bus import Bus
from libs.common.journal import Journal
from libs.common.lifecycle import running
from libs.common.records import STREAM, subject_of
from libs.common.shipper import Shipper
from services.activity import consumer as consumer_module
from services.activity.settings import ActivitySettings
from tests.conftest import eventually
from tests.unit.activity.conftest import Pipeline
from tests.unit.activity.records_made import call


@asynccontextmanager
async def gateway(bus: Bus, settings: ActivitySettings, directory: Path) -> AsyncIterator[Journal]:
    """What a gateway has of the pipeline: a journal in `directory` and its shipper."""
    journal = Journal(directory)
    async with running(journal, Shipper(bus, journal, settings)):
        yield journal


async def test_records_of_restarting_gateways_are_one_row_each_after_purges(
    pipeline: Pipeline,
    bus: Bus,
    settings: ActivitySettings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(consumer_module, "PURGE_EVERY", 0.0)
    for life in range(1, 4):
        async with gateway(bus, settings, tmp_path / "journal") as journal:
            for _ in range(10):
                journal.append(call(0))
            await eventually(lambda life=life: pipeline.ingest.counts.lines == life * 10)  # type: ignore[misc]
    assert await pipeline.seqs(journal.replica) == list(range(1, 31))
    assert pipeline.ingest.counts.gaps == []
    kept = await bus.js.stream_info(STREAM, subjects_filter=">")
    assert kept.state.subjects == {subject_of("tool_calls", journal.replica): 1}
