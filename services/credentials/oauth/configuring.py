"""Saying how people connect to a server, for the API and the pages alike."""

import msgspec

from libs.common.control.entries import Server, User
from libs.common.control.owner import Receipt
from libs.common.errors import Conflict
from services.credentials.dependencies import Parts
from services.credentials.domain import Owner, Provider
from services.credentials.layout import BEARER_TOKEN, Layout, encode
from services.credentials.oauth.provider import (
    OAuthSettings,
    ProviderSecrets,
    check_layout,
    secrets_of,
    settings_of,
)


async def set_provider(
    work: Parts,
    admin: User,
    server: Server,
    settings: OAuthSettings,
    layout: Layout,
    *,
    client_secret: str | None,
) -> Receipt:
    """Say how people connect to `server`. `client_secret` None keeps the one that is there for the same
    client. Raises `BadRequest`, `Conflict`."""
    if server.auth != "oauth":
        raise Conflict(f"{server.slug} is not connected by OAuth: set its authentication first.")
    settings.check(client_secret or "")
    check_layout(layout, server)

    def write() -> tuple[Provider | None, Provider | None, list[Owner]]:
        stored = work.store.providers.open(server.slug)
        secrets = _secrets(stored, settings, client_secret)
        return work.store.providers.put(
            server.slug,
            "oauth",
            admin.email,
            layout="" if layout == BEARER_TOKEN else encode(layout),
            settings=msgspec.json.encode(settings).decode(),
            secret=msgspec.json.encode(secrets),
        )

    return (await work.changes.provide(admin, server.slug, write))[1]


async def reset_provider(work: Parts, admin: User, server: Server) -> Receipt:
    """Forget what was set, and the client that Lockgate registered."""

    def write() -> tuple[Provider | None, Provider | None, list[Owner]]:
        found = work.store.providers.find(server.slug)
        if found is None or found.kind != "oauth":
            return None, None, []
        gone, owners = work.store.providers.delete(server.slug)
        return gone, None, owners

    return (await work.changes.provide(admin, server.slug, write))[1]


def _secrets(
    stored: tuple[Provider, bytes] | None, settings: OAuthSettings, entered: str | None
) -> ProviderSecrets:
    """A secret is kept only for the client and the server that it was entered for: else whoever may change
    where it is sent could read it."""
    if stored is None or stored[0].kind != "oauth":
        return ProviderSecrets(client_secret=entered or "")
    before, secrets = settings_of(stored[0]), secrets_of(stored[1])
    where = (settings.client_id, settings.issuer, settings.token_endpoint)
    same = where == (before.client_id, before.issuer, before.token_endpoint)
    kept = secrets.client_secret if same else ""
    first = secrets.first if same else ""
    return msgspec.structs.replace(secrets, client_secret=kept if entered is None else entered, first=first)
