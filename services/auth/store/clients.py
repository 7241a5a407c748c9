"""OAuth clients: registered ones, those known by their metadata documents, and administrators' own."""

from sqlalchemy import bindparam, delete
from sqlmodel import col, select

from services.auth.domain import UNUSED_CLIENT_KEPT, Client, UnknownClient
from services.auth.store.database import Database, one_row, read_as, unix_now
from services.auth.store.models import ClientRow, CodeRow, DeviceCodeRow, GrantRow

_CLIENTS = ClientRow.metadata.tables["clients"]
_FIND = select(*_CLIENTS.c).where(_CLIENTS.c.id == bindparam("id"))  # built once: asked all the time


class Clients:
    def __init__(self, database: Database) -> None:
        self._database = database

    def put(self, client: Client) -> None:
        """Add a client, or replace what is known of it."""
        values = {name: getattr(client, name) for name in client.__slots__}
        lists = {name: list(value) for name, value in values.items() if isinstance(value, tuple)}
        with self._database.transaction() as session:
            session.merge(ClientRow(**(values | lists)))

    def get(self, client_id: str) -> Client | None:
        with self._database.engine.connect() as connection:
            row = connection.execute(_FIND, {"id": client_id}).first()
            return read_as(Client, row) if row else None

    def connected(self, client_id: str) -> bool:
        """Whether anybody has consented to the client, lately enough to be remembered."""
        with self._database.transaction() as session:
            query = select(GrantRow.id).where(GrantRow.client_id == client_id).limit(1)
            return session.exec(query).first() is not None

    def services(self, after: str, limit: int) -> list[Client]:
        """Administrators' clients, oldest first."""
        query = (
            select(ClientRow)
            .where(col(ClientRow.rights) != "", ClientRow.id > after)
            .order_by(ClientRow.id)
            .limit(limit)
        )
        with self._database.transaction() as session:
            return [read_as(Client, row) for row in session.exec(query)]

    def delete_service(self, client_id: str) -> Client:
        """Raises `UnknownClient`."""
        with self._database.transaction() as session:
            row = session.exec(
                select(ClientRow).where(col(ClientRow.rights) != "", ClientRow.id == client_id)
            ).first()
            if row is None or not one_row(session, delete(ClientRow).where(col(ClientRow.id) == client_id)):
                raise UnknownClient
            return read_as(Client, row)

    def sweep(self) -> None:
        """Forget clients, but for administrators' own, that have no grant and are not about to get one.
        Grants are remembered for `GRANT_KEPT` after their end."""
        used = [select(table.client_id) for table in (GrantRow, CodeRow, DeviceCodeRow)]
        unused = delete(ClientRow).where(
            col(ClientRow.created_at) < unix_now() - UNUSED_CLIENT_KEPT,
            col(ClientRow.rights) == "",
            *(col(ClientRow.id).not_in(ids) for ids in used),
        )
        with self._database.transaction() as session:
            session.execute(unused)
