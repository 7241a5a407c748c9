"""The database: migrations, retention, one process per directory, servers that are away."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import SecretStr

from libs.common.errors import Unavailable
from services.activity.clickhouse import ClickHouse, DatabaseInUse, QueryTooLong
from services.activity.migrate import migrate, migrations
from services.activity.settings import ActivitySettings
from services.activity.store import RecordStore
from tests.conftest import eventually, free_port
from tests.unit.activity.records_made import call, encoded


async def tables(clickhouse: ClickHouse) -> dict[str, str]:
    rows = await clickhouse.read(
        "SELECT name, create_table_query FROM system.tables WHERE database = currentDatabase()", {}
    )
    return {row["name"]: row["create_table_query"] for row in rows}


async def test_migrations_are_applied_once_and_data_survives(tmp_path: Path) -> None:
    settings = ActivitySettings(data_dir=tmp_path)
    first = ClickHouse(settings)
    await first.start()
    await RecordStore(first).insert("tool_calls", encoded([call(1)])[0])
    before = await tables(first)
    await first.stop()
    second = ClickHouse(settings)
    await second.start()
    applied = await second.read("SELECT version FROM schema_migrations ORDER BY version", {})
    assert [row["version"] for row in applied] == [migration.version for migration in migrations()]
    assert await tables(second) == before
    assert await RecordStore(second).positions("tool_calls", ["replica1"]) == {"replica1": 1}
    await second.stop()


async def test_an_interrupted_migration_can_run_again(clickhouse: ClickHouse) -> None:
    """Statements that were applied without having been noted are harmless."""

    def forget_and_migrate_again() -> list[int]:
        lane = clickhouse._writer  # the one connection that may change tables

        def work(client: object) -> list[int]:
            client.command("TRUNCATE TABLE schema_migrations")  # type: ignore[attr-defined]
            return migrate(client)  # type: ignore[arg-type]

        return lane._with_client(work)

    before = await tables(clickhouse)
    assert await asyncio.to_thread(forget_and_migrate_again) == [m.version for m in migrations()]
    assert await tables(clickhouse) == before


def test_two_migrations_with_one_number_are_refused(tmp_path: Path) -> None:
    for name in ("0001_a.sql", "0001_b.sql"):
        (tmp_path / name).write_text("SELECT 1;")
    with pytest.raises(ValueError, match="same number"):
        migrations(tmp_path)


async def test_retention_is_a_setting_that_can_change(tmp_path: Path) -> None:
    for days in (400, 30):
        clickhouse = ClickHouse(ActivitySettings(data_dir=tmp_path, activity_retention_days=days))
        await clickhouse.start()
        definitions = await tables(clickhouse)
        await clickhouse.stop()
        for name in ("tool_calls", "auth_events", "admin_events", "dead_letters", "calls_per_minute"):
            assert f"toIntervalDay({days})" in definitions[name]


async def test_the_position_is_answered_by_the_projection(clickhouse: ClickHouse) -> None:
    store = RecordStore(clickhouse)
    for seq in range(1, 4):
        await store.insert("tool_calls", encoded([call(seq)])[0])
    plan = await clickhouse.read(
        "EXPLAIN projections = 1 SELECT replica, max(seq) FROM tool_calls "
        "WHERE replica IN ('replica1') GROUP BY replica",
        {},
    )
    assert any("ReadFromMergeTree (positions)" in row["explain"] for row in plan)


async def test_a_directory_serves_one_process(clickhouse: ClickHouse, tmp_path: Path) -> None:
    script = f"""
import asyncio, pathlib
from services.activity.clickhouse import ClickHouse
from services.activity.settings import ActivitySettings
asyncio.run(ClickHouse(ActivitySettings(data_dir=pathlib.Path({str(tmp_path)!r}))).start())
"""
    command = [sys.executable, "-c", script]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True)
    assert done.returncode != 0
    assert "another process is using the database" in done.stderr
    with pytest.raises(DatabaseInUse):
        await ClickHouse(ActivitySettings(data_dir=tmp_path)).start()


async def test_reads_are_bounded_in_time_and_cannot_write(tmp_path: Path) -> None:
    clickhouse = ClickHouse(ActivitySettings(data_dir=tmp_path, activity_read_seconds=0.2))
    await clickhouse.start()
    with pytest.raises(QueryTooLong):
        await clickhouse.read("SELECT sum(sipHash64(number)) AS n FROM numbers(100000000000)", {})
    with pytest.raises(Unavailable):
        await clickhouse.read("TRUNCATE TABLE tool_calls", {})
    await clickhouse.stop()


async def test_slow_reads_do_not_hold_up_inserts(clickhouse: ClickHouse) -> None:
    slow = asyncio.create_task(clickhouse.read("SELECT sleep(1) AS s", {}))
    await asyncio.sleep(0)
    await RecordStore(clickhouse).insert("tool_calls", encoded([call(1)])[0])
    assert not slow.done()
    await slow


async def test_a_server_that_is_away_is_waited_for_and_its_password_is_not_told() -> None:
    url = f"http://lockgate:hunter2@127.0.0.1:{free_port()}"
    clickhouse = ClickHouse(ActivitySettings(activity_clickhouse_url=SecretStr(url)))
    await clickhouse.start()
    assert clickhouse.problem
    assert "hunter2" not in clickhouse.problem
    with pytest.raises(Unavailable):
        await clickhouse.read("SELECT 1", {})
    with pytest.raises(Unavailable):
        await clickhouse.insert("tool_calls", b"{}")
    await asyncio.wait_for(clickhouse.stop(), 10)


async def test_a_failure_is_a_problem_until_something_works(clickhouse: ClickHouse) -> None:
    assert clickhouse.problem is None
    with pytest.raises(Unavailable):
        await clickhouse.insert("no_such_table", b"{}")
    assert clickhouse.problem
    await clickhouse.read("SELECT 1", {})
    await eventually(lambda: clickhouse.problem is None)
