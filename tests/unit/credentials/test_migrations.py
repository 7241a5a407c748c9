"""The vault's schema on every database it may be kept in, and what becomes of earlier rows."""

import secrets
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from sqlalchemy import Engine, LargeBinary, bindparam, create_engine, text

from libs.common.settings import BadSettings
from libs.common.sql import alembic_config, migrate, sqlite_url
from services.credentials.app import MIGRATIONS
from services.credentials.domain import Account, Draft, Owner, encode_values
from services.credentials.layout import BEARER, Layout, layout_of, one_key
from services.credentials.masterkey.local import LocalKey
from services.credentials.store import CredentialStore
from services.credentials.store.keys import unlock, was_sealed
from services.credentials.tables import Row

KEY = LocalKey(bytes(32))
WIKI = Owner("wiki", "organization")
TOOLS = Owner("tools", "organization")
HEADER = one_key("header", "X-Api-Key", "{key}")
VARIABLE = one_key("environment", "API_KEY", "{key}")


def _sealed(plaintext: bytes, identity: bytes) -> bytes:
    """An envelope as version 0.1 made it: `nonce ‖ wrapped data key ‖ nonce ‖ ciphertext`."""
    data_key, outer, inner = secrets.token_bytes(32), secrets.token_bytes(12), secrets.token_bytes(12)
    wrapped = AESGCM(bytes(32)).encrypt(outer, data_key, identity)
    return outer + wrapped + inner + AESGCM(data_key).encrypt(inner, plaintext, identity)


def _earlier(engine: Engine, revision: str, owner: Owner, into: str, name: str, template: str) -> None:
    """Store `s3cret` as version 0.1 did, at version 3."""
    header, variable = (name, "") if into == "header" else ("", name)
    origin = "https://wiki.example.com:443"
    parts = ["lockgate credential", owner.slug, owner.user, header, template, origin, 3]
    identity = msgspec.json.encode([*parts, *([variable] if variable else [])])
    check = b"lockgate vault check value"
    values = {
        "slug": owner.slug, "user_id": owner.user, "header": header, "template": template, "origin": origin,
        "envelope": _sealed(b"s3cret", identity), "version": 3,
        "changed_at": "2026-11-03T10:11:12.000000Z", "changed_by": "ada@example.com",
        **({"environment": variable} if revision != "0001" else {}),
    }  # fmt: skip
    names = ", ".join(values)
    insert = f"INSERT INTO credentials ({names}) VALUES ({', '.join(f':{name}' for name in values)})"
    with engine.begin() as connection:
        connection.execute(text(insert).bindparams(bindparam("envelope", type_=LargeBinary)), values)
        sealed = text("UPDATE vault SET last_version = 3, check_value = :check")
        connection.execute(
            sealed.bindparams(bindparam("check", type_=LargeBinary)), {"check": _sealed(check, check)}
        )


def _layout(store: CredentialStore, slug: str) -> Layout:
    found = store.providers.open(slug)
    return layout_of(found[0] if found else None, "api_key")


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


def test_the_migrations_make_the_schema_that_the_code_expects(engine: Engine) -> None:
    migrate(engine, MIGRATIONS)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Row.metadata) == []


@pytest.mark.parametrize(
    ("revision", "layout"),
    [("0001", HEADER), ("0001", BEARER), ("0002", HEADER), ("0002", VARIABLE)],
)
def test_a_key_that_an_earlier_version_stored_becomes_an_account(
    engine: Engine, revision: str, layout: Layout
) -> None:
    (item,) = layout.placements
    with engine.begin() as connection:
        command.upgrade(alembic_config(MIGRATIONS, connection), revision)
    _earlier(engine, revision, WIKI, item.into, item.name, item.template)
    migrate(engine, MIGRATIONS)
    assert was_sealed(engine)
    for _ in range(2):  # the second start finds nothing left to do
        store = CredentialStore(engine, unlock(engine, [KEY]))
        account, secret = store.accounts.open_chosen(WIKI)
        assert (account.version, account.origin) == (3, "https://wiki.example.com:443")
        assert secret == encode_values({"key": "s3cret"})
        assert _layout(store, "wiki") == layout
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM credentials")).scalar() == 0


def test_an_earlier_vault_does_not_open_with_another_key(engine: Engine) -> None:
    with engine.begin() as connection:
        command.upgrade(alembic_config(MIGRATIONS, connection), "0002")
    _earlier(engine, "0002", WIKI, "header", "X-Api-Key", "{key}")
    migrate(engine, MIGRATIONS)
    with pytest.raises(BadSettings, match="not the master key"):
        unlock(engine, [LocalKey(b"x" * 32)])
    CredentialStore(engine, unlock(engine, [LocalKey(b"x" * 32), KEY])).accounts.open_chosen(WIKI)


def test_an_earlier_key_that_was_tampered_with_is_left_behind(engine: Engine) -> None:
    with engine.begin() as connection:
        command.upgrade(alembic_config(MIGRATIONS, connection), "0002")
    _earlier(engine, "0002", WIKI, "header", "X-Api-Key", "{key}")
    with engine.begin() as connection:
        connection.execute(text("UPDATE credentials SET header = 'X-Echo'"))
    migrate(engine, MIGRATIONS)
    assert CredentialStore(engine, unlock(engine, [KEY])).accounts.all() == []


def test_going_back_forgets_what_the_earlier_version_cannot_open(engine: Engine) -> None:
    migrate(engine, MIGRATIONS)
    store = CredentialStore(engine, unlock(engine, [KEY]))
    draft = Draft(kind="api_key", secret=encode_values({"key": "one"}), origin="https://wiki.example.com:443")
    store.accounts.put(WIKI, draft, "ada@example.com")
    with engine.begin() as connection:
        command.downgrade(alembic_config(MIGRATIONS, connection), "0002")
        assert connection.execute(text("SELECT count(*) FROM credentials")).scalar() == 0
        assert connection.execute(text("SELECT check_value FROM vault")).scalar() is None
    migrate(engine, MIGRATIONS)
    store = CredentialStore(engine, unlock(engine, [KEY]))
    assert store.accounts.all() == []
    after: Account | None = store.accounts.put(TOOLS, draft, "ada@example.com").after
    assert after and after.version > 1  # versions never repeat
