"""The vault's schema on every database it may be kept in, and what becomes of earlier rows."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine, LargeBinary, bindparam, create_engine, text

from libs.common.sql import alembic_config, migrate, sqlite_url
from services.credentials.app import MIGRATIONS
from services.credentials.domain import Credential, Owner, Placement, Secret
from services.credentials.store import CredentialStore
from services.credentials.tables import Row
from services.credentials.vault import Vault

WIKI = Owner("wiki", "organization")
TOOLS = Owner("tools", "organization")
OLD = Credential(
    owner=WIKI,
    placement=Placement("X-Api-Key", "{key}"),
    origin="https://wiki.example.com:443",
    version=3,
    changed_at="2026-11-03T10:11:12.000000Z",
    changed_by="ada@example.com",
)
OLD_ROW = (
    "INSERT INTO credentials VALUES ('wiki', 'organization', 'X-Api-Key', '{key}', "
    "'https://wiki.example.com:443', :envelope, 3, '2026-11-03T10:11:12.000000Z', 'ada@example.com')"
)


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    """An empty database."""
    sqlite = request.param == "sqlite"
    url = sqlite_url(tmp_path / "vault.db") if sqlite else request.getfixturevalue("postgres")
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    yield engine
    with engine.begin() as connection:
        command.downgrade(alembic_config(MIGRATIONS, connection), "base")
    engine.dispose()


@pytest.fixture
def vault() -> Vault:
    return Vault(bytes(32))


def test_the_migrations_make_the_schema_that_the_code_expects(engine: Engine) -> None:
    migrate(engine, MIGRATIONS)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Row.metadata) == []


def test_a_key_that_an_earlier_version_stored_opens(engine: Engine, vault: Vault) -> None:
    with engine.begin() as connection:
        command.upgrade(alembic_config(MIGRATIONS, connection), "0001")
        insert = text(OLD_ROW).bindparams(bindparam("envelope", type_=LargeBinary))
        connection.execute(insert, {"envelope": vault.seal("s3cret", OLD)})
    migrate(engine, MIGRATIONS)
    assert CredentialStore(engine, vault).open(WIKI) == (OLD, Secret(OLD.placement, "s3cret"))


def test_going_back_forgets_what_the_earlier_version_cannot_use_and_keeps_the_rest(
    engine: Engine, vault: Vault
) -> None:
    migrate(engine, MIGRATIONS)
    store = CredentialStore(engine, vault)
    header, variable = Placement("X-Api-Key", "{key}"), Placement("", "{key}", "API_KEY")
    store.put(WIKI, Secret(header, "one"), "https://wiki.example.com:443", "ada@example.com")
    store.put(TOOLS, Secret(variable, "two"), "stdio:1234", "ada@example.com")
    with engine.begin() as connection:
        command.downgrade(alembic_config(MIGRATIONS, connection), "0001")
        assert connection.execute(text("SELECT slug FROM credentials")).scalars().all() == ["wiki"]
    migrate(engine, MIGRATIONS)
    assert store.open(WIKI)[1].key == "one"
