"""One refresh of one account, by whoever holds its lease.

A provider that rotates refresh tokens takes each only once, so:

- what the new tokens are sealed with is ready before the provider is asked;
- the old refresh token stays until the new one is committed, and an answer is committed whatever it takes;
- an answer counts only if what it renews is still there, whoever comes first;
- a replica that is killed leaves the old one, which the next tries again. Where the provider had answered
  already, that works if it allows for a repetition (RFC 9700, section 4.14.2); else the owner connects again.
"""

import asyncio
import contextlib
import time

import msgspec
import structlog
from sqlalchemy.exc import SQLAlchemyError

from libs.common.errors import Unavailable
from services.credentials.domain import Account, Change
from services.credentials.oauth import endpoints
from services.credentials.oauth.domain import Connection, ProviderFailed, ProviderRefused
from services.credentials.oauth.leases import refresh_at
from services.credentials.oauth.provider import ProviderSecrets, secrets_of, settings_of
from services.credentials.oauth.telling import Telling
from services.credentials.oauth.web import Web
from services.credentials.store.accounts import Accounts
from services.credentials.store.database import Database, KeyRetired
from services.credentials.store.providers import Providers
from services.credentials.store.rows import name_of
from services.credentials.vault import DataKey

log = structlog.get_logger(__name__)

STORED_WITHIN = 120.0  # seconds for which an answer is tried to be stored


class Renewal:
    """Renews accounts. `web` is the network."""

    def __init__(self, database: Database, web: Web, telling: Telling) -> None:
        self._database, self._web, self._telling = database, web, telling
        self._accounts, self._providers = Accounts(database), Providers(database)

    async def renew(self, seen: Account, asker: str) -> None:
        """Renew what `seen` holds, unless that was done since. That the provider refuses is no error, but the
        account's new state. Raises `ProviderFailed`, and as `Vault.open`."""
        account, secret = await asyncio.to_thread(self._accounts.open, seen.id)
        if account.sealed_version != seen.sealed_version or account.state != "connected":
            return
        connection, web = await self.current(account, Connection.decode(secret))
        if not connection.refresh_token:
            await self._give_up(account, "The provider gave nothing to renew it with.", asker)
            return
        data_key = await asyncio.to_thread(self._database.new_data_key, name_of(account.id))
        try:
            answer = await endpoints.refresh(web, connection)
        except ProviderRefused as error:
            if not _is_final(error, connection):
                raise ProviderFailed(error.detail) from error
            await self._give_up(account, f"The provider refuses to renew it: {error.detail}.", asker)
            return
        if change := await self._store(account, data_key, connection.renewed(answer)):
            await self._telling.tell("credential_refreshed", change, asker)

    async def current(self, account: Account, connection: Connection) -> tuple[Connection, Web]:
        """The connection, with the client's secret as it is entered now, and the network to ask in."""
        stored = await asyncio.to_thread(self._providers.open, account.owner.slug)
        settings = settings_of(stored[0] if stored else None)
        client, secrets = connection.client, secrets_of(stored[1]) if stored else ProviderSecrets()
        same = settings.client_id == client.client_id and not client.registered_for
        # One that was entered for another provider since is not for this one to see.
        if same and settings.serves(connection.issuer, connection.token_endpoint, first=secrets.first):
            secret = secrets.client_secret
            method = client.auth_method if secret else "none"
            client = msgspec.structs.replace(client, client_secret=secret, auth_method=method)
        web = self._web.trusting(account.origin, *settings.urls)
        return msgspec.structs.replace(connection, client=client), web

    async def _store(self, account: Account, data_key: DataKey, connection: Connection) -> Change | None:
        """Commit the new tokens. The provider may take none but these, so a database that is locked or away
        for a moment is waited for."""
        deadline = time.monotonic() + STORED_WITHIN
        while True:
            try:
                return await asyncio.to_thread(
                    self._accounts.renew,
                    account.id,
                    account.sealed_version,
                    data_key,
                    connection.encode(),
                    expires_at=connection.expires_at,
                    refresh_at=refresh_at(connection),
                )
            except (SQLAlchemyError, KeyRetired) as error:
                log.error("tokens_not_stored_yet", credential=account.owner.key, error=type(error).__name__)
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.1)
                data_key = await self._present(account, data_key)

    async def _present(self, account: Account, data_key: DataKey) -> DataKey:
        """`data_key`, or one for the account that the present master key wraps, if that is another by now and
        can be used."""
        with contextlib.suppress(SQLAlchemyError, Unavailable):
            if await asyncio.to_thread(self._database.key_id) != data_key.key_id:
                return await asyncio.to_thread(self._database.new_data_key, name_of(account.id))
        return data_key

    async def _give_up(self, account: Account, reason: str, asker: str) -> None:
        """Only its owner can help now."""
        change = await asyncio.to_thread(
            self._accounts.need_attention, account.id, account.sealed_version, reason
        )
        if change:
            await self._telling.tell("credential_needs_attention", change, asker, reason)


def _is_final(error: ProviderRefused, connection: Connection) -> bool:
    """Whether connecting again is all that helps. A client that an administrator entered can be put right by
    them; one that registered by itself is gone, and its tokens with it."""
    if error.code == "invalid_grant":
        return True
    return error.code in {"invalid_client", "unauthorized_client"} and bool(connection.client.registered_for)
