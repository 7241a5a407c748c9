"""Storing credentials and saying where they go, for the API and the pages alike."""

from asyncio import to_thread
from collections.abc import Mapping
from functools import partial

from libs.common.control.entries import Server, User, destination_of
from libs.common.control.owner import Receipt
from libs.common.errors import Conflict, NotFound, Unavailable
from services.credentials.changes import Done
from services.credentials.dependencies import Parts
from services.credentials.domain import Account, Draft, NoCredential, Owner, Provider, encode_values
from services.credentials.layout import BEARER, Layout, encode, layout_of
from services.credentials.standing import usable_servers

# A server that was added a moment ago may not have reached us yet: seconds to wait for it.
SERVER_ARRIVES = 0.5


class UnknownServer(NotFound):
    type, title = "unknown-server", "There is no such server"


async def require_server(work: Parts, slug: str) -> Server:
    """The server as the control log knows it, now or soon. Raises `UnknownServer`."""
    tables = work.follower.tables
    try:
        await work.follower.wait_for(lambda: slug in tables.servers, SERVER_ARRIVES)
    except Unavailable:
        raise UnknownServer(f"No server is called {slug[:80]!r}.") from None
    return tables.servers[slug]


async def require_usable(work: Parts, user: User, slug: str) -> Server:
    """The same for a server that `user` may use. Whether there is another is not theirs to know."""
    tables = work.follower.tables
    found: list[Server] = []

    def arrived() -> bool:
        found[:] = [server for server in usable_servers(tables, user) if server.slug == slug]
        return bool(found)

    try:
        await work.follower.wait_for(arrived, SERVER_ARRIVES)
    except Unavailable:
        raise UnknownServer(f"You may use no server that is called {slug[:80]!r}.") from None
    return found[0]


async def require_account(work: Parts, account_id: str, user: str | None = None) -> Account:
    """The account, if it is that of `user`, or anybody's for None. Raises `NoCredential`."""
    account = await to_thread(work.store.accounts.account, account_id)
    if user not in {None, account.owner.user}:
        raise NoCredential("There is no such account.")
    return account


async def layout_for(work: Parts, server: Server) -> tuple[Layout, bool]:
    """The layout of a server's credentials, and whether an administrator chose it."""
    provider = await to_thread(work.store.providers.find, server.slug)
    configured = provider is not None and provider.kind == server.auth and bool(provider.layout)
    return layout_of(provider, "oauth" if server.auth == "oauth" else "api_key"), configured


async def store_values(
    work: Parts, by: User, owner: Owner, server: Server, *, values: Mapping[str, str], label: str = ""
) -> Done:
    """Store what somebody entered, for where `server` is. Raises `BadRequest`, `Conflict`."""
    if server.auth == "oauth":
        raise Conflict(f"{server.slug} is connected in a browser; there is nothing to enter.")
    provider = await to_thread(work.store.providers.find, server.slug)
    layout = layout_of(provider, "api_key")
    layout.check_fits(server)
    layout.check(values)
    draft = Draft(
        kind="api_key", secret=encode_values(dict(values)), origin=destination_of(server), label=label
    )
    write = partial(work.store.accounts.put, owner, draft, by.email)
    return await work.changes.make(by, "credential_stored", write)


async def set_layout(work: Parts, admin: User, server: Server, layout: Layout) -> Receipt | None:
    """Say how the keys of `server` are placed. None if they are placed like that already. Where its fields
    get other names, what is stored needs attention. Raises `BadRequest`, `Conflict`."""
    if server.auth == "oauth":
        raise Conflict(f"{server.slug} is connected by OAuth; its settings say where its token goes.")
    layout.check_fits(server)

    def write() -> tuple[Provider | None, Provider | None, list[Owner]]:
        providers = work.store.providers
        before = layout_of(providers.find(server.slug), "api_key")
        renews = before.names != layout.names
        return providers.put(server.slug, "api_key", admin.email, layout=encode(layout), renews=renews)

    if layout == layout_of(await to_thread(work.store.providers.find, server.slug), "api_key"):
        return None
    return (await work.changes.provide(admin, server.slug, write))[1]


async def reset_layout(work: Parts, admin: User, server: Server) -> Receipt | None:
    """Place the keys of `server` as usual again. None if they are already."""

    def write() -> tuple[Provider | None, Provider | None, list[Owner]]:
        before = layout_of(work.store.providers.find(server.slug), "api_key")
        gone, owners = work.store.providers.delete(server.slug, renews=before.names != BEARER.names)
        return gone, None, owners

    provider = await to_thread(work.store.providers.find, server.slug)
    if provider is None or provider.kind != "api_key":
        return None
    return (await work.changes.provide(admin, server.slug, write))[1]
