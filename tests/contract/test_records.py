"""One golden line per kind of record: what publishers write, what travels, and what ClickHouse holds.

A change of these files is a change of the contract between services that may run in different versions.
"""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from libs.common.clock import iso
from libs.common.records import TABLES, AdminEvent, AnyRecord, AuthEvent, CallRecord, Table, table_of
from tests.conftest import eventually
from tests.unit.activity.conftest import Pipeline
from tests.unit.activity.records_made import Publisher

GOLDEN = Path(__file__).parent / "golden"
TYPES: dict[Table, type[AnyRecord]] = {
    "tool_calls": CallRecord,
    "auth_events": AuthEvent,
    "admin_events": AdminEvent,
}


def golden(table: Table) -> bytes:
    return (GOLDEN / f"{table}.json").read_bytes().rstrip(b"\n")


async def through(pipeline: Pipeline, publisher: Publisher, table: Table, line: bytes) -> dict[str, Any]:
    """The row that `line` becomes on its way through stream and consumer."""
    record = json.loads(line)
    await publisher.publish_lines([line], record["seq"], record["replica"], table)
    await eventually(lambda: pipeline.ingest.counts.lines + pipeline.ingest.counts.dead_letters > 0)
    rows = await pipeline.clickhouse.read(f"SELECT * FROM {table}", {})
    assert len(rows) == 1
    return {**rows[0], "time": iso(rows[0]["time"])}


@pytest.mark.parametrize("table", TABLES)
def test_a_publisher_writes_the_golden_line(table: Table) -> None:
    record = msgspec.json.decode(golden(table), type=TYPES[table])
    assert table_of(record) == table
    assert msgspec.json.encode(record) == golden(table)


@pytest.mark.parametrize("table", TABLES)
def test_the_golden_line_has_every_field_with_a_value_of_its_own(table: Table) -> None:
    line = json.loads(golden(table))
    assert list(line) == list(TYPES[table].__struct_fields__)
    assert all(line.values())


@pytest.mark.parametrize("table", TABLES)
async def test_the_row_holds_what_the_line_says(
    pipeline: Pipeline, publisher: Publisher, table: Table
) -> None:
    assert await through(pipeline, publisher, table, golden(table)) == json.loads(golden(table))


@pytest.mark.parametrize("table", TABLES)
async def test_a_field_of_a_later_version_is_ignored(
    pipeline: Pipeline, publisher: Publisher, table: Table
) -> None:
    later = json.dumps({**json.loads(golden(table)), "colour": {"deep": [1, "x"]}}).encode()
    assert await through(pipeline, publisher, table, later) == json.loads(golden(table))


@pytest.mark.parametrize("table", TABLES)
async def test_a_field_that_an_earlier_version_does_not_write_has_its_default(
    pipeline: Pipeline, publisher: Publisher, table: Table
) -> None:
    earlier = {**json.loads(golden(table))}
    del earlier["detail"]
    row = await through(pipeline, publisher, table, json.dumps(earlier).encode())
    assert row == {**earlier, "detail": ""}
