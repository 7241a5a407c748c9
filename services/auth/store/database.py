"""The connection to the database, and the two things every part of the store does with it."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar, cast

from sqlalchemy import Connection, CursorResult, Delete, Engine, Row, Update, bindparam, select, update
from sqlmodel import Session, SQLModel, col

from libs.common.clock import now
from libs.common.sql import open_database
from services.auth.domain import User
from services.auth.store.models import RevocationRow, UserRow

MIGRATIONS = Path(__file__).parent.parent / "migrations"
SQLITE = "sqlite:///"

T = TypeVar("T")


class Database:
    """Opened by `open`, which migrates it. A SQLite file is readable by its owner only."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._engine: Engine | None = None
        self._in_line = threading.Lock()

    def open(self) -> None:
        if self._url.startswith(SQLITE):
            _create_private(Path(self._url.removeprefix(SQLITE)))
        self._engine = open_database(self._url, MIGRATIONS)

    def close(self) -> None:
        if self._engine:
            self._engine.dispose()
            self._engine = None

    @property
    def engine(self) -> Engine:
        assert self._engine, "the database is not open"
        return self._engine

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction that writes, without the ORM: for what has to be fast. What it reads before it writes
        does not change under it once the user is held (`hold_user`); on SQLite, from the beginning."""
        sqlite = self.engine.dialect.name == "sqlite"
        # In line: SQLite's writers wait for each other by sleeping, longer each time, and are overtaken.
        with self._in_line if sqlite else nullcontext(), self.engine.begin() as connection:
            if sqlite:
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            yield connection

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """A session that commits at the end. What reads before it writes starts with a lock (`lock_user`, or
        a conditional UPDATE): SQLite begins its transaction with the first write."""
        with Session(self.engine, expire_on_commit=False) as session, session.begin():
            yield session


def _create_private(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))


def read_as(cls: type[T], row: SQLModel | Row[Any], **values: object) -> T:
    """`row` as the domain's dataclass; `values` for what the row has no column for."""
    names = [field.name for field in fields(cls)]  # type: ignore[arg-type]
    found = {name: getattr(row, name) for name in names if name not in values}
    lists = {name: tuple(value) for name, value in found.items() if isinstance(value, list)}
    return cls(**{**found, **lists, **values})


def lock_user(session: Session, user_id: str) -> UserRow | None:
    """The user, held until the end of the transaction: issuing a token and ending everything of a user do not
    overlap, so that no token escapes the latter."""
    # An UPDATE rather than SELECT FOR UPDATE, which SQLite does not have.
    session.execute(update(UserRow).where(col(UserRow.id) == user_id).values(version=UserRow.version))
    return session.get(UserRow, user_id, populate_existing=True)


def hold_user(connection: Connection, user_id: str) -> User | None:
    """The user, whom nobody changes until the end of the transaction. Unlike with `lock_user` others may hold
    the same one: a person's clients do not wait for each other."""
    row = connection.execute(_HOLD_USER, {"id": user_id}).first()
    return read_as(User, row) if row else None


_USERS = UserRow.metadata.tables["users"]
_HOLD_USER = select(*_USERS.c).where(_USERS.c.id == bindparam("id")).with_for_update(read=True)


def one_row(session: Session, statement: Update | Delete) -> bool:
    """Whether `statement` found what it was for."""
    return cast(CursorResult[object], session.execute(statement)).rowcount == 1


def unix_now() -> int:
    return int(now().timestamp())


def add_revocations(session: Session, ids: list[str], at: int) -> None:
    """Note that everything issued under `ids`, which were alive until now, is void."""
    session.add_all(RevocationRow(id=ended, at=at) for ended in ids)
