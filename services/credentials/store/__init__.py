"""Every query of the vault. Synchronous: call it from a thread.

database.py   transactions, and how an envelope stands in a row
accounts.py   the credentials of people and of the organization
rows.py       their rows
providers.py  how the credentials of each server work
keys.py       master keys: unlocking, and wrapping records with another one
legacy.py     takes over what version 0.1 stored
"""

from sqlalchemy import Engine

from services.credentials.store.accounts import Accounts
from services.credentials.store.database import Database
from services.credentials.store.keys import MasterKeys
from services.credentials.store.providers import Providers
from services.credentials.vault import Vault

KINDS = ("credential",)


class CredentialStore:
    """All that one vault holds."""

    def __init__(self, engine: Engine, vault: Vault) -> None:
        self.database = Database(engine, vault)
        self.accounts = Accounts(self.database)
        self.providers = Providers(self.database)
        self.master_keys = MasterKeys(self.database)
