"""Each line becomes exactly one row: duplicates, overlaps, gaps, restarts, poison; on real NATS and chDB."""

import asyncio
import json
import subprocess
import sys

import pytest

from libs.common.bus import Bus
from libs.common.errors import Unavailable
from libs.common.records import STREAM, Table, subject_of
from services.activity import consumer as consumer_module
from services.activity.lines import Gap
from services.activity.settings import ActivitySettings
from tests.conftest import Nats, eventually
from tests.unit.activity.conftest import Pipeline, StartPipeline
from tests.unit.activity.records_made import NOON, REPLICA, Publisher, call, calls, encoded


async def landed(pipeline: Pipeline, lines: int) -> None:
    """Wait until this pipeline has landed `lines` lines."""
    await eventually(lambda: pipeline.ingest.counts.lines >= lines)


async def rows(pipeline: Pipeline, at_least: int, within: float = 30.0) -> None:
    """Wait until the table holds that many rows, whichever pipeline landed them."""
    async with asyncio.timeout(within):
        while len(await pipeline.seqs()) < at_least:
            await asyncio.sleep(0.02)


async def test_each_line_is_one_row_and_visible_within_a_second(
    pipeline: Pipeline, publisher: Publisher
) -> None:
    await eventually(lambda: pipeline.consumer.problem is None)
    await publisher.publish(calls(1, 3))
    await eventually(lambda: pipeline.ingest.counts.lines == 3, within=1.0)
    assert await pipeline.seqs() == [1, 2, 3]


async def test_waiting_messages_of_many_replicas_share_inserts(
    start_pipeline: StartPipeline, publisher: Publisher
) -> None:
    replicas = [f"r{number}" for number in range(10)]
    for first in range(1, 101, 10):
        for replica in replicas:
            await publisher.publish(calls(first, first + 9, replica), replica)
    pipeline = await start_pipeline()
    await landed(pipeline, 1000)
    assert pipeline.ingest.counts.inserts < 10
    for replica in replicas:
        assert await pipeline.seqs(replica) == list(range(1, 101))


async def test_messages_as_large_as_nats_allows_land(pipeline: Pipeline, publisher: Publisher) -> None:
    for seq in range(1, 21):  # together more than one pull request may bring
        await publisher.publish([call(seq, output="x" * 1_000_000)])
    await landed(pipeline, 20)
    assert await pipeline.seqs() == list(range(1, 21))
    assert pipeline.consumer.problem is None


async def test_lines_that_come_again_are_skipped(pipeline: Pipeline, publisher: Publisher) -> None:
    await publisher.publish(calls(1, 5))
    await publisher.publish(calls(1, 5))
    await publisher.publish(calls(2, 4))
    await publisher.publish(calls(6, 6))
    await landed(pipeline, 6)
    assert await pipeline.seqs() == [1, 2, 3, 4, 5, 6]


async def test_of_an_overlap_only_the_new_lines_land(pipeline: Pipeline, publisher: Publisher) -> None:
    await publisher.publish(calls(1, 5))
    await landed(pipeline, 5)
    await publisher.publish(calls(3, 9))
    await landed(pipeline, 9)
    assert await pipeline.seqs() == list(range(1, 10))
    assert pipeline.ingest.counts.gaps == []


async def test_a_gap_is_counted_and_what_follows_lands(pipeline: Pipeline, publisher: Publisher) -> None:
    await publisher.publish(calls(1, 2))
    await publisher.publish(calls(6, 7))
    await landed(pipeline, 4)
    assert await pipeline.seqs() == [1, 2, 6, 7]
    assert pipeline.ingest.counts.gaps == [Gap("tool_calls", REPLICA, 3, 5)]
    assert pipeline.ingest.counts.missing_lines == 3


async def test_tables_and_replicas_have_positions_of_their_own(
    pipeline: Pipeline, publisher: Publisher
) -> None:
    event = {"id": "e1", "time": call(1).time, "replica": REPLICA, "seq": 1, "event": "logged_in"}
    await publisher.publish(calls(1, 4))
    await publisher.publish(calls(1, 2, "other"), "other")
    await publisher.publish_lines([json.dumps(event).encode()], 1, table="auth_events")
    await landed(pipeline, 7)
    assert await pipeline.store.positions("tool_calls", [REPLICA, "other", "none"]) == {
        REPLICA: 4,
        "other": 2,
    }
    assert await pipeline.store.positions("auth_events", [REPLICA]) == {REPLICA: 1}


async def test_a_restart_begins_at_the_oldest_message_and_doubles_nothing(
    start_pipeline: StartPipeline, publisher: Publisher
) -> None:
    first = await start_pipeline()
    await publisher.publish(calls(1, 10))
    await landed(first, 10)
    await first.stop()
    await publisher.publish(calls(11, 20))
    second = await start_pipeline()
    await landed(second, 10)
    assert await second.seqs() == list(range(1, 21))


async def test_a_batch_that_spans_months_lands_in_order_of_its_lines(
    pipeline: Pipeline, publisher: Publisher
) -> None:
    months = ["2026-10-31T23:59:59.5Z", "2026-11-01T00:00:00.5Z", "2026-10-31T23:59:59.9Z"]
    await publisher.publish([call(seq, time=time) for seq, time in enumerate(months, 1)])
    await landed(pipeline, 3)
    assert pipeline.ingest.counts.inserts == 3  # a crash between parts can only lose the later ones
    assert await pipeline.seqs() == [1, 2, 3]


# -- what ClickHouse refuses --------------------------------------------------------------------------

POISON = [
    b'{"id":"x","time":"yesterday","seq":5,"replica":"replica1"}',
    b'{"id":"x","http_status":"many"}',
    b'{"id":"torn',
    b"not json at all",
    b"",
    b'{"id":"a","id":"b"}',
    b'{"id":"\\ud800"}',
]


@pytest.mark.parametrize("poison", POISON)
async def test_a_poison_line_goes_to_the_dead_letters_and_the_rest_lands(
    pipeline: Pipeline, publisher: Publisher, poison: bytes
) -> None:
    lines = encoded(calls(1, 20))
    lines[4] = poison
    await publisher.publish_lines(lines, 1)
    await publisher.publish(calls(21, 22))
    await landed(pipeline, 21)
    assert await pipeline.seqs() == [seq for seq in range(1, 23) if seq != 5]
    assert await pipeline.dead_letters() == [(5, poison.decode())]
    assert pipeline.ingest.counts.gaps == []


async def test_a_dead_letter_counts_towards_the_position(
    start_pipeline: StartPipeline, publisher: Publisher
) -> None:
    first = await start_pipeline()
    await publisher.publish_lines([*encoded(calls(1, 2)), b"poison"], 1)
    await eventually(lambda: first.ingest.counts.dead_letters == 1)
    await first.stop()
    second = await start_pipeline()
    await publisher.publish(calls(4, 4))
    await landed(second, 1)
    assert await second.seqs() == [1, 2, 4]
    assert await second.dead_letters() == [(3, "poison")]
    assert second.ingest.counts.gaps == []


async def test_a_message_with_a_wrong_number_of_lines_is_put_aside_whole(
    pipeline: Pipeline, publisher: Publisher
) -> None:
    await publisher.publish_lines([b"{}", b"{}"], 1, last=3)
    await publisher.publish(calls(4, 5))
    await landed(pipeline, 2)
    assert await pipeline.seqs() == [4, 5]
    assert await pipeline.dead_letters() == [(3, "{}\n{}")]


async def test_a_message_that_no_shipper_wrote_is_counted_and_left(
    pipeline: Pipeline, publisher: Publisher, bus: Bus
) -> None:
    await bus.js.publish("activity.gossip.someone", b"hello")
    await bus.js.publish(subject_of("tool_calls", "nobody"), b"{}")
    await publisher.publish(calls(1, 1))
    await landed(pipeline, 1)
    assert pipeline.consumer.not_ours == 2


# -- when the outcome is not known --------------------------------------------------------------------


@pytest.mark.parametrize("arrived", [0, 2, None], ids=["nothing arrived", "a part arrived", "all arrived"])
async def test_after_an_insert_of_unknown_outcome_the_position_is_read_again(
    pipeline: Pipeline, publisher: Publisher, monkeypatch: pytest.MonkeyPatch, arrived: int | None
) -> None:
    insert, failures = pipeline.store.insert, 1

    async def insert_and_fail(table: Table, lines: bytes) -> None:
        nonlocal failures
        if failures:
            failures -= 1
            if some := lines.split(b"\n")[:arrived]:
                await insert(table, b"\n".join(some))
            raise Unavailable("the connection broke")
        await insert(table, lines)

    monkeypatch.setattr(pipeline.store, "insert", insert_and_fail)
    await publisher.publish(calls(1, 3))
    await publisher.publish(calls(4, 6))
    await eventually(lambda: failures == 0)
    await publisher.publish(calls(7, 7))
    await rows(pipeline, 7)
    assert await pipeline.seqs() == list(range(1, 8))
    assert pipeline.ingest.counts.retries == 1


async def test_nothing_later_lands_while_an_earlier_insert_fails(
    pipeline: Pipeline, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    insert, attempts = pipeline.store.insert, 0

    async def refuse(table: Table, lines: bytes) -> None:
        nonlocal attempts
        attempts += 1
        raise Unavailable("ClickHouse is away")

    monkeypatch.setattr(pipeline.store, "insert", refuse)
    await publisher.publish(calls(1, 3))
    await publisher.publish(calls(4, 6))
    await eventually(lambda: attempts >= 3)
    assert await pipeline.seqs() == []
    monkeypatch.setattr(pipeline.store, "insert", insert)
    await landed(pipeline, 6)
    assert await pipeline.seqs() == list(range(1, 7))


async def test_the_same_insert_twice_is_one_row(pipeline: Pipeline) -> None:
    """The client library itself repeats an insert whose connection was closed."""
    for _ in range(2):
        await pipeline.store.insert("tool_calls", b"\n".join(encoded(calls(1, 2))))
    assert await pipeline.seqs() == [1, 2]
    minutes = await pipeline.clickhouse.read("SELECT sum(calls) AS calls FROM calls_per_minute", {})
    assert minutes == [{"calls": 2}]


# -- the stream ---------------------------------------------------------------------------------------


async def test_purging_keeps_the_last_message_of_each_subject(
    pipeline: Pipeline, publisher: Publisher, bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumer_module, "PURGE_EVERY", 0.05)
    for seq in range(1, 6):
        await publisher.publish(calls(seq, seq))
        await publisher.publish(calls(seq, seq, "other"), "other")
    await landed(pipeline, 10)
    last = await publisher.publish(calls(6, 6))

    async with asyncio.timeout(10):
        while (await bus.js.stream_info(STREAM)).state.messages > 2:
            await asyncio.sleep(0.02)
    assert (await bus.js.get_last_msg(STREAM, subject_of("tool_calls", REPLICA))).seq == last
    assert (await bus.js.get_last_msg(STREAM, subject_of("tool_calls", "other"))).data


async def test_goes_on_after_nats_was_away(
    pipeline: Pipeline, publisher: Publisher, bus: Bus, nats: Nats
) -> None:
    await publisher.publish(calls(1, 5))
    await landed(pipeline, 5)
    nats.stop()
    await eventually(lambda: not bus.connected)
    nats.start()
    await eventually(lambda: bus.connected)
    await publisher.publish(calls(6, 10))
    await eventually(lambda: pipeline.ingest.counts.lines == 10, within=20)
    assert await pipeline.seqs() == list(range(1, 11))
    assert pipeline.consumer.problem is None


async def test_a_lost_consumer_is_replaced(pipeline: Pipeline, publisher: Publisher, bus: Bus) -> None:
    await publisher.publish(calls(1, 5))
    await landed(pipeline, 5)
    for info in await bus.js.consumers_info(STREAM):
        await bus.js.delete_consumer(STREAM, info.name)
    await publisher.publish(calls(6, 10))
    await landed(pipeline, 10)
    assert await pipeline.seqs() == list(range(1, 11))


# -- kill -9 ------------------------------------------------------------------------------------------

# A consumer as a process, which says how many lines it has landed.
CONSUMER = """
import asyncio
from libs.common.bus import Bus
from services.activity.settings import ActivitySettings
from tests.unit.activity.conftest import Pipeline

async def main():
    settings = ActivitySettings()
    bus = Bus(settings, "victim")
    await bus.start()
    pipeline = Pipeline(bus, settings)
    await pipeline.start()
    while True:
        print("landed", pipeline.ingest.counts.lines, flush=True)
        await asyncio.sleep(0.002)

asyncio.run(main())
"""
MESSAGES, LINES = 3000, 10


def kill_when_landed(settings: ActivitySettings, lines: int) -> None:
    """Run a consumer until it has landed `lines` lines and is busy with the next; SIGKILL it there."""
    environment = {"LOCKGATE_DATA_DIR": str(settings.data_dir), "LOCKGATE_NATS_URL": settings.nats_url}
    command = [sys.executable, "-c", CONSUMER]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        for line in process.stdout:
            if line.startswith("landed ") and int(line.split()[1]) >= lines:
                process.kill()
                return
    raise AssertionError("the consumer ended by itself")


async def test_killed_in_the_middle_of_inserting_each_line_is_one_row(
    settings: ActivitySettings, publisher: Publisher, start_pipeline: StartPipeline
) -> None:
    for first in range(1, MESSAGES * LINES, LINES):
        await publisher.publish(calls(first, first + LINES - 1))
    for lines in (1, 5000, 9000):
        await asyncio.to_thread(kill_when_landed, settings, lines)
    survivor = await start_pipeline()
    before = len(await survivor.seqs())
    assert 0 < before < MESSAGES * LINES
    await publisher.publish(calls(MESSAGES * LINES + 1, MESSAGES * LINES + 1))
    await rows(survivor, MESSAGES * LINES + 1)
    assert await survivor.seqs() == list(range(1, MESSAGES * LINES + 2))
    assert survivor.ingest.counts.gaps == []


def test_the_stories_above_are_of_one_day() -> None:
    """Otherwise inserts would be counted per month."""
    assert call(1).time[:10] == NOON.date().isoformat() == call(10_000).time[:10]
