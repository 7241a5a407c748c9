"""SQL databases: one per service, SQLite by default, brought up to date by Alembic when it starts."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine import Connection, ExceptionContext
from sqlalchemy.exc import DataError

from libs.common.errors import BadRequest

# One migration at a time across the replicas of a service (PostgreSQL advisory lock; any number will do).
_MIGRATION_LOCK = 0x10C6A7E


def sqlite_url(path: Path) -> str:
    """The URL of a SQLite database file."""
    return f"sqlite:///{path}"


def open_database(url: str, migrations: Path) -> Engine:
    """Open the database at `url` and apply the Alembic scripts in `migrations`.

    A value that the database cannot hold, such as a text with NUL in PostgreSQL, raises `BadRequest`: it came
    with a request."""
    if url.startswith("postgresql://"):
        url = url.replace("postgresql://", "postgresql+psycopg://", 1)
    # Errors are logged, and the values with which they came may be secret.
    engine = create_engine(url, pool_pre_ping=not url.startswith("sqlite"), hide_parameters=True)
    event.listen(engine, "handle_error", _refuse_unfit_values)
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _set_pragmas)
    migrate(engine, migrations)
    return engine


def migrate(engine: Engine, migrations: Path) -> None:
    """Bring the schema up to date in one transaction. `migrations/env.py` runs on our connection."""
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_MIGRATION_LOCK})")
        command.upgrade(alembic_config(migrations, connection), "head")


def alembic_config(migrations: Path, connection: Connection) -> Config:
    """What `env.py` needs to run the scripts on `connection`."""
    config = Config()
    config.set_main_option("script_location", str(migrations))
    config.attributes["connection"] = connection
    return config


def _refuse_unfit_values(context: ExceptionContext) -> None:
    if isinstance(context.sqlalchemy_exception, DataError):
        raise BadRequest("A value has characters or a size that cannot be stored.")


def _set_pragmas(connection: object, _: object) -> None:
    cursor = connection.cursor()  # type: ignore[attr-defined]
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA synchronous = FULL")  # what an administrator was told is done survives a power cut
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.execute("PRAGMA busy_timeout = 5000")
    cursor.close()
