"""Transactions of policy's database."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Engine, update
from sqlmodel import Session, col

from services.policy.tables import Counter


class Database:
    """Reads and writes. A write takes the next version first, which also makes the writers of all replicas
    queue up: each sees what the one before it left, and SQLite never has to turn a reader into a writer."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @contextmanager
    def read(self) -> Iterator[Session]:
        with Session(self._engine) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[tuple[Session, int]]:
        """One transaction and the version for the rows that it changes."""
        with Session(self._engine) as session, session.begin():
            taken = update(Counter).values(value=Counter.value + 1).returning(col(Counter.value))
            yield session, session.execute(taken).scalar_one()
