"""The store on every database it may be kept in: one suite for SQLite and PostgreSQL."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import delete, inspect
from sqlmodel import col

from libs.common.ids import new_id
from libs.common.sql import alembic_config
from services.auth.domain import (
    CODE_LIFETIME,
    BadLink,
    Code,
    EmailTaken,
    LastAdministrator,
    Link,
    Session,
    User,
)
from services.auth.people import joined, new_user
from services.auth.store import Store
from services.auth.store.database import MIGRATIONS, unix_now
from services.auth.store.models import Base, UserRow


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    sqlite = request.param == "sqlite"
    url = f"sqlite:///{tmp_path}/auth.db" if sqlite else request.getfixturevalue("postgres")
    store = Store(url)
    store.database.open()
    yield store
    with store.database.engine.begin() as connection:
        command.downgrade(alembic_config(MIGRATIONS, connection), "base")
    store.database.close()


def add_user(store: Store, email: str = "ada@example.com", role: str = "member") -> User:
    user = joined(new_user(email, "Ada", role))  # type: ignore[arg-type]
    store.users.add(user, "a hash")
    return user


def add_code(store: Store, user: User) -> Code:
    code = Code(
        hash=new_id(),
        grant_id=new_id(),
        user_id=user.id,
        client_id="client",
        client_name="Client",
        redirect_uri="https://app.example/cb",
        redirect_host="app.example",
        audience="https://gate.example/mcp",
        scope="mcp",
        code_challenge="x" * 43,
        expires_at=unix_now() + CODE_LIFETIME,
    )
    store.grants.add_code(code)
    return code


def test_the_migrations_make_what_the_models_say(store: Store) -> None:
    with store.database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []


def test_the_migrations_go_down_and_up_again(store: Store) -> None:
    with store.database.engine.begin() as connection:
        command.downgrade(alembic_config(MIGRATIONS, connection), "base")
    assert set(inspect(store.database.engine).get_table_names()) <= {"alembic_version"}
    with store.database.engine.begin() as connection:
        command.upgrade(alembic_config(MIGRATIONS, connection), "head")
    assert set(inspect(store.database.engine).get_table_names()) == {
        *Base.metadata.tables,
        "alembic_version",
    }


def test_users_come_back_as_they_were_written(store: Store) -> None:
    user = add_user(store, "Ada@Example.com")
    assert store.users.get(user.id) == user
    assert store.users.by_email("ada@EXAMPLE.com") == (user, "a hash")
    with pytest.raises(EmailTaken):
        add_user(store, "ADA@example.com")


def test_a_change_raises_the_version(store: Store) -> None:
    add_user(store, "root@example.com", "admin")
    user = add_user(store)
    before, after, ended = store.users.change(user.id, name="Ada L.", role=None, active=None)
    assert (before, after, ended) == (user, replace(user, name="Ada L.", version=2), [])
    assert store.users.sign_out_everywhere(user.id)[0].version == 3


def test_two_administrators_cannot_demote_each_other_at_once(store: Store) -> None:
    for attempt in range(5):
        admins = [add_user(store, f"{n}-{attempt}@example.com", "admin") for n in range(2)]
        with ThreadPoolExecutor(2) as threads:
            demoted = list(threads.map(lambda user: _demote(store, user), admins))
        assert sorted(demoted) == [False, True]
        # Make room for the next attempt.
        survivor, heir = admins[demoted.index(False)], add_user(store, f"heir-{attempt}@example.com", "admin")
        assert _demote(store, survivor)
        with store.database.transaction() as session:
            session.execute(delete(UserRow).where(col(UserRow.id) == heir.id))


def _demote(store: Store, user: User) -> bool:
    try:
        store.users.change(user.id, name=None, role="member", active=None)
    except LastAdministrator:
        return False
    return True


def test_a_code_is_redeemed_once_however_many_try(store: Store) -> None:
    code = add_code(store, add_user(store))
    with ThreadPoolExecutor(8) as threads:
        issues = list(threads.map(lambda n: store.grants.redeem(code, f"refresh {n}"), range(8)))
    assert sum(issue is not None for issue in issues) == 1


def test_many_refreshes_at_once_have_one_successor(store: Store) -> None:
    code = add_code(store, add_user(store))
    store.grants.redeem(code, "first")
    token = store.grants.find_refresh_token("first")
    assert token
    with ThreadPoolExecutor(8) as threads:
        issues = list(threads.map(lambda _: store.grants.rotate(token, "second"), range(50)))
    assert all(issues)
    assert store.grants.find_refresh_token("second")


def test_a_link_is_used_once_however_many_try(store: Store) -> None:
    user = add_user(store)
    store.links.replace(Link("a link", "reset", user.id, unix_now(), unix_now() + 60))
    with ThreadPoolExecutor(8) as threads:
        used = list(threads.map(lambda n: _use(store, f"hash {n}"), range(8)))
    assert sum(used) == 1
    found = store.users.by_email(user.email)
    assert found
    assert found[1] == f"hash {used.index(True)}"


def _use(store: Store, password_hash: str) -> bool:
    try:
        store.links.use("reset", "a link", password_hash)
    except BadLink:
        return False
    return True


def test_deleting_a_user_leaves_nothing_of_theirs(store: Store) -> None:
    add_user(store, "root@example.com", "admin")
    user, now = add_user(store), unix_now()
    code = add_code(store, user)
    store.grants.redeem(code, "refresh")
    store.sessions.add(Session(new_id(), user.id, now, now + 60), "cookie")
    store.links.replace(Link("link", "reset", user.id, now, now + 60))
    deleted, ended = store.users.delete(user.id)
    assert (deleted.id, len(ended)) == (user.id, 2)
    assert set(store.revocations.recent(None)) == set(ended)
    with store.database.engine.connect() as connection:
        for table in Base.metadata.sorted_tables:
            if "user_id" in table.c or table.name == "refresh_tokens":
                assert connection.execute(table.select()).all() == [], table.name
    assert store.grants.find_refresh_token("refresh") is None
    assert add_user(store).id != user.id


def test_what_the_first_version_kept_survives_the_way_up_and_down(store: Store) -> None:
    def to(revision: str) -> None:
        with store.database.engine.begin() as connection:
            step = command.downgrade if revision == "0003" else command.upgrade
            step(alembic_config(MIGRATIONS, connection), revision)

    user, now = add_user(store), unix_now()
    store.sessions.add(Session(new_id(), user.id, now, now + 60), "cookie")
    for number, kid in enumerate(("b", "a", "c"), 1):
        store.keys.add(number, kid, {"kid": kid})
    to("0003")
    to("head")
    assert store.users.get(user.id) == user
    assert store.sessions.find("cookie")
    keys = store.keys.live()
    assert [key.number for key in keys] == [1, 2, 3]
    assert {key.kid for key in keys} == {"a", "b", "c"}
    assert all(key.published_at for key in keys), "they have been public for long"


def test_a_key_is_made_by_one_replica(store: Store) -> None:
    with ThreadPoolExecutor(8) as threads:
        made = list(threads.map(lambda n: store.keys.add(1, f"key {n}", {"d": "x"}), range(8)))
    assert sum(made) == 1
    assert [key.number for key in store.keys.live()] == [1]
    version = store.keys.version()
    store.keys.retire(store.keys.live()[0].kid)
    assert store.keys.live() == []
    assert store.keys.version() > version


def test_nothing_is_issued_for_somebody_who_was_signed_out(store: Store) -> None:
    user = add_user(store)
    store.grants.redeem(add_code(store, user), "first")
    token = store.grants.find_refresh_token("first")
    assert token
    _, ended = store.users.sign_out_everywhere(user.id)
    assert ended == [token.grant.id]
    assert store.grants.rotate(token, "second") is None
    assert set(store.revocations.recent(None)) == set(ended)


def test_what_is_issued_after_a_sign_out_everywhere_is_valid(store: Store) -> None:
    user = add_user(store)
    for n in range(3):
        issue = store.grants.redeem(add_code(store, user), f"refresh {n}")
        assert issue
        after, _ = store.users.sign_out_everywhere(user.id)
        assert issue.issued_at < after.tokens_valid_from


def test_sessions_end_one_by_one_or_all_but_one(store: Store) -> None:
    user, now = add_user(store), unix_now()
    ids = [new_id() for _ in range(3)]
    for session in ids:
        store.sessions.add(Session(session, user.id, now, now + 60), f"hash of {session}")
    assert store.sessions.end(user.id, ids[0]) == [ids[0]]
    assert store.sessions.end(user.id, ids[0]) == []
    assert store.sessions.find(f"hash of {ids[0]}") is None
    assert store.users.change_password(user.id, "another hash", ids[1]) == [ids[2]]
    assert store.users.by_email(user.email) == (user, "another hash")
    found = store.sessions.find(f"hash of {ids[1]}")
    assert found
    assert found[1] == user


def test_the_sweep_takes_what_is_over_and_leaves_the_rest(store: Store) -> None:
    user = add_user(store)
    kept, revoked = add_code(store, user), add_code(store, user)
    store.grants.redeem(kept, "kept")
    store.grants.redeem(revoked, "gone")
    store.grants.revoke(revoked.grant_id)
    store.revocations.sweep()
    assert store.grants.find_refresh_token("kept")
    assert store.grants.find_refresh_token("gone") is None
    assert store.grants.find_code(kept.hash)
    assert store.revocations.recent(None)


def test_replicas_share_their_secret(store: Store) -> None:
    assert store.keys.shared_secret("name", "mine") == "mine"
    assert store.keys.shared_secret("name", "another") == "mine"
