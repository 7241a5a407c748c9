"""Every query of the auth service. Synchronous: call it in a thread.

users.py, links.py, sessions.py, clients.py, grants.py, device_codes.py, keys.py, revocations.py,
ceremonies.py, identities.py, second_factors.py
              one class per word
models.py     the tables
database.py   connection, transactions
"""

import asyncio

from services.auth.store.ceremonies import Ceremonies
from services.auth.store.clients import Clients
from services.auth.store.database import Database
from services.auth.store.device_codes import DeviceCodes
from services.auth.store.grants import Grants
from services.auth.store.identities import Identities
from services.auth.store.keys import Keys
from services.auth.store.links import Links
from services.auth.store.revocations import Revocations
from services.auth.store.second_factors import SecondFactors
from services.auth.store.sessions import Sessions
from services.auth.store.users import Users


class Store:
    """All of it, over the database at `url`."""

    def __init__(self, url: str) -> None:
        self.database = Database(url)
        self.users = Users(self.database)
        self.links = Links(self.database)
        self.sessions = Sessions(self.database)
        self.clients = Clients(self.database)
        self.grants = Grants(self.database)
        self.device_codes = DeviceCodes(self.database)
        self.keys = Keys(self.database)
        self.revocations = Revocations(self.database)
        self.ceremonies = Ceremonies(self.database)
        self.identities = Identities(self.database)
        self.second_factors = SecondFactors(self.database)

    async def start(self) -> None:
        """Open the database and bring its schema up to date."""
        await asyncio.to_thread(self.database.open)

    async def stop(self) -> None:
        await asyncio.to_thread(self.database.close)
