"""Numbered SQL files into a ClickHouse database.

ClickHouse has no transactions over DDL, so every statement can be repeated (`IF NOT EXISTS`): a migration
that was interrupted runs again from its beginning. Statements end with `;` at the end of a line.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import structlog
from clickhouse_connect.driver.client import Client

log = structlog.get_logger(__name__)

MIGRATIONS = Path(__file__).parent / "migrations"

# Tables with a time to live, and the column that it counts from.
_EXPIRING = {
    "tool_calls": "time",
    "auth_events": "time",
    "admin_events": "time",
    "dead_letters": "time",
    "calls_per_minute": "minute",
}

_DEFINITION = (
    "SELECT engine_full FROM system.tables WHERE database = currentDatabase() AND name = {table:String}"
)
_LEDGER = """
CREATE TABLE IF NOT EXISTS schema_migrations (
    version UInt32, name String, applied_at DateTime64(6, 'UTC') DEFAULT now64(6)
) ENGINE = MergeTree ORDER BY version
"""


@dataclass(frozen=True, slots=True, order=True)
class Migration:
    """`0001_name.sql`: its number, its name, its statements."""

    version: int
    name: str
    statements: tuple[str, ...]


def migrations(folder: Path = MIGRATIONS) -> list[Migration]:
    """The migrations in `folder`, in order. Raises `ValueError` when two have one number."""
    found = sorted(_parse(path) for path in folder.glob("*.sql"))
    versions = [migration.version for migration in found]
    if len(set(versions)) != len(versions):
        raise ValueError(f"two migrations have the same number: {versions}")
    return found


def _parse(path: Path) -> Migration:
    number, _, name = path.stem.partition("_")
    text = re.sub(r"^\s*--.*$", "", path.read_text(), flags=re.MULTILINE)
    statements = (statement.strip() for statement in re.split(r";\s*$", text, flags=re.MULTILINE))
    return Migration(int(number), name, tuple(filter(None, statements)))


def migrate(client: Client, folder: Path = MIGRATIONS) -> list[int]:
    """Apply what is missing to the client's database. Returns the versions that were applied now."""
    client.command(_LEDGER)
    applied = {version for (version,) in client.query("SELECT version FROM schema_migrations").result_rows}
    missing = [migration for migration in migrations(folder) if migration.version not in applied]
    for migration in missing:
        for statement in migration.statements:
            client.command(statement)
        client.insert(
            "schema_migrations", [[migration.version, migration.name]], column_names=["version", "name"]
        )
        log.info("migration_applied", version=migration.version, name=migration.name)
    return [migration.version for migration in missing]


def retain(client: Client, days: int) -> None:
    """Let rows live for `days`. Changes only tables that say otherwise."""
    for table, column in _EXPIRING.items():
        found = client.query(_DEFINITION, parameters={"table": table}).result_rows
        if not any(f"toIntervalDay({days})" in definition for (definition,) in found):
            client.command(f"ALTER TABLE {table} MODIFY TTL toDateTime({column}) + INTERVAL {days:d} DAY")
