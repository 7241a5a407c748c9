"""OAuth clients: registered ones, and those known by their metadata documents."""

from services.auth.domain import Client
from services.auth.store.database import Database, read_as
from services.auth.store.models import ClientRow


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
        with self._database.transaction() as session:
            row = session.get(ClientRow, client_id)
            return read_as(Client, row) if row else None
