"""The schema on every database it may be kept in, and what becomes of rows that an earlier version wrote."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine, create_engine, text

from libs.common.control.entries import Off, ServerAccess
from libs.common.sql import alembic_config, migrate, sqlite_url
from services.policy.app import MIGRATIONS
from services.policy.definition import Definition
from services.policy.features import Feature, Features
from services.policy.store import PolicyStore
from services.policy.tables import Row

# A database as version 0001 left it: one server, which the default group may use but for one tool.
OLD_ROWS = (
    "INSERT INTO organization VALUES (1, true, '', 1)",
    "INSERT INTO groups VALUES ('default', 'Everyone', 1)",
    "INSERT INTO servers VALUES ('wiki', 'Wiki', 'https://wiki.example.com/mcp', 'streamable_http', 'none', "
    """true, '', '[{"name": "read", "description": "Reads."}]', 5, 120, 1)""",
    """INSERT INTO access VALUES ('default', 'wiki', 'allow', '{"write": "deny"}')""",
)
# Rows of version 0002: the organization and one of two servers are off.
_SERVER = "'https://x.example.com/mcp', 'streamable_http', 'none'"
_REST = "'[]', 5, 120, 8, 'auto', 60, '[]', '{}', 'shared', 600, '[]', '[]'"
SWITCHED_OFF = (
    "INSERT INTO organization VALUES (1, false, 'outage', 7)",
    f"INSERT INTO servers VALUES ('wiki', 'Wiki', {_SERVER}, false, 'audit', {_REST})",
    f"INSERT INTO servers VALUES ('docs', 'Docs', {_SERVER}, true, '', {_REST})",
)
STDIO = Definition(name="Tools", transport="stdio", command=("npx", "-y", "tools"), environment={"A": "b"})


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    """An empty database."""
    sqlite = request.param == "sqlite"
    url = sqlite_url(tmp_path / "policy.db") if sqlite else request.getfixturevalue("postgres")
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    yield engine
    with engine.begin() as connection:
        command.downgrade(alembic_config(MIGRATIONS, connection), "base")
    engine.dispose()


def _to(engine: Engine, revision: str) -> None:
    """Bring an empty database up to `revision`, or another one down."""
    with engine.begin() as connection:
        config = alembic_config(MIGRATIONS, connection)
        present = MigrationContext.configure(connection).get_current_revision()
        (command.downgrade if present else command.upgrade)(config, revision)


def test_the_migrations_make_the_schema_that_the_code_expects(engine: Engine) -> None:
    migrate(engine, MIGRATIONS)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Row.metadata) == []


def test_what_an_earlier_version_wrote_stays_as_it_was(engine: Engine) -> None:
    _to(engine, "0001")
    with engine.begin() as connection:
        for row in OLD_ROWS:
            connection.execute(text(row))
    migrate(engine, MIGRATIONS)
    store = PolicyStore(engine)
    server = store.servers.get("wiki")
    assert server.definition == Definition(name="Wiki", url="https://wiki.example.com/mcp")
    assert server.features == Features(tools=(Feature("read", "Reads."),))
    assert store.groups.get("default").servers == {"wiki": ServerAccess(tools={"write": "deny"})}


def test_a_stdio_server_comes_out_as_it_went_in(engine: Engine) -> None:
    migrate(engine, MIGRATIONS)
    store = PolicyStore(engine)
    store.initialize(None)
    store.servers.put("tools", STDIO)
    features = Features((Feature("run"),), (Feature("ask", "Asks."),), (Feature("file:///*"),))
    store.servers.set_features("tools", features)
    assert (store.servers.get("tools").definition, store.servers.get("tools").features) == (STDIO, features)


def test_going_back_forgets_what_the_earlier_version_cannot_reach_and_keeps_the_rest(engine: Engine) -> None:
    migrate(engine, MIGRATIONS)
    store = PolicyStore(engine)
    store.initialize(None)
    store.servers.put("tools", STDIO, "allow")
    store.servers.put("wiki", Definition(name="Wiki", url="https://wiki.example.com/mcp"), "deny")
    _to(engine, "0001")
    with engine.connect() as connection:
        assert connection.execute(text("SELECT slug FROM servers")).scalars().all() == ["wiki"]
        assert connection.execute(text("SELECT server_slug FROM access")).scalars().all() == ["wiki"]
    migrate(engine, MIGRATIONS)
    assert store.groups.get("default").servers == {"wiki": ServerAccess(default="deny")}


def test_what_was_switched_off_stays_off_in_both_directions(engine: Engine) -> None:
    _to(engine, "0002")
    with engine.begin() as connection:
        for row in SWITCHED_OFF:
            connection.execute(text(row))
    migrate(engine, MIGRATIONS)
    store = PolicyStore(engine)
    assert store.organization.get().off == Off(reason="outage")
    assert store.servers.get("wiki").off == Off(reason="audit")
    assert store.servers.get("docs").enabled
    assert [switch.version for switch in store.switches.list()] == [7, 8]
    store.switches.turn_off("server", "docs", Off(reason="leak", until="2999-01-01T00:00:00.000000Z"), "ada")
    store.switches.turn_off("tool", "wiki/read", Off(), "ada")
    store.organization.switch(None, "ada")
    _to(engine, "0002")
    with engine.connect() as connection:
        servers = connection.execute(text("SELECT slug, enabled, reason FROM servers ORDER BY slug")).all()
        assert [tuple(row) for row in servers] == [("docs", False, "leak"), ("wiki", False, "audit")]
        organization = connection.execute(text("SELECT enabled, reason FROM organization")).all()
        assert [tuple(row) for row in organization] == [(True, "")]
