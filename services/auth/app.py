"""The auth service: who people are, and what they let clients do in their name."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

from fastapi import FastAPI
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import BaseRoute, Route

from libs.common import health
from libs.common.bus import Bus
from libs.common.control.changes import Changes
from libs.common.control.follower import Follower
from libs.common.control.owner import Owner
from libs.common.journal import Journal
from libs.common.lifecycle import Part, running
from libs.common.shipper import Shipper
from libs.common.web.console import install_console
from libs.common.web.frame import Pages
from services.auth import account, api, joining, login, user, users
from services.auth.audit import Audit
from services.auth.browsers import browser_of
from services.auth.ceremonies import Ceremonies
from services.auth.control import KINDS, Entries
from services.auth.devices import Devices
from services.auth.housekeeping import Housekeeping
from services.auth.keys import SigningKeys
from services.auth.links import Links
from services.auth.logins import Logins
from services.auth.oauth import authorize, device, metadata, registration, token
from services.auth.oauth.code_grant import CodeGrant, RequiredChallenge
from services.auth.oauth.device_grant import DeviceAuthorization, DeviceGrant
from services.auth.oauth.documents import Documents
from services.auth.oauth.introspection import Introspection
from services.auth.oauth.refresh_grant import RefreshGrant
from services.auth.oauth.resources import reach_of
from services.auth.oauth.revocation import Revocation
from services.auth.oauth.server import Server
from services.auth.parts import PAGES, Parts
from services.auth.passwords import Passwords
from services.auth.people import Founding, People
from services.auth.rotation import Rotation
from services.auth.second_factor import administration, security, signing_in
from services.auth.second_factor.factors import SecondFactors
from services.auth.second_factor.passkeys import Passkeys
from services.auth.second_factor.sealing import Sealing
from services.auth.services import Services
from services.auth.settings import AuthSettings
from services.auth.sso import routes as sso
from services.auth.sso.accounts import Accounts
from services.auth.sso.provider import Provider
from services.auth.store import Store
from services.auth.throttle import LoginThrottle, Throttle
from services.auth.tokens import Mint

BODY_LIMIT = 64 * 1024  # bytes; nothing that is sent here is larger
HOUR = 3600.0


def create_app(settings: AuthSettings) -> FastAPI:
    """The service, not yet running. After its start `app.state.first_administrator` holds the account that
    this start created, if any (`people.FirstAdministrator`)."""
    bus = Bus(settings, "auth")
    follower = Follower(bus, settings)
    journal = Journal(settings.data_dir / "auth-journal")
    store = Store(settings.database_url)
    keys = SigningKeys(store)
    passwords = Passwords()
    devices = Devices(store, settings)
    sealing = Sealing(store)
    founding = Founding(store, passwords, settings)
    owner = Owner(bus, follower, settings, KINDS, Entries(store, keys, settings.public_url).desired)
    rotation = Rotation(store, keys, owner, settings.auth_key_lifetime)
    housekeeping = Housekeeping(store, rotation)
    lifetime: list[Part] = [
        *(store, keys, devices, sealing, passwords, founding),
        *(bus, follower, owner, journal, Shipper(bus, journal, settings), housekeeping),
    ]

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with running(*lifetime):
            app.state.first_administrator = founding.administrator
            yield

    app = FastAPI(
        title="Lockgate auth",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url="/api/auth/openapi.json",
    )
    app.state.parts = _parts(
        settings,
        store,
        keys,
        passwords,
        devices,
        sealing=sealing,
        bus=bus,
        owner=owner,
        journal=journal,
        follower=follower,
    )
    app.state.journal, app.state.follower, app.state.first_administrator = journal, follower, None
    install_console(app, settings, follower.tables, body_limit=BODY_LIMIT)
    # First, since routes are tried in turn and clients ask these most.
    app.router.routes.extend([*_protocol_routes(), *health.routes(health.checks(bus, follower, journal))])
    for part in (sso, signing_in, security, administration):  # before the links to join, of any name
        app.include_router(part.router)
    for part in (login, joining, authorize, device, account, users, user, api):
        app.include_router(part.router)
    return app


def _parts(
    settings: AuthSettings,
    store: Store,
    keys: SigningKeys,
    passwords: Passwords,
    devices: Devices,
    *,
    sealing: Sealing,
    bus: Bus,
    owner: Owner,
    journal: Journal,
    follower: Follower,
) -> Parts:
    mint = Mint(keys, settings.public_url, settings.auth_access_lifetime)
    audit, changes = Audit(journal), Changes(owner, journal)
    return Parts(
        settings=settings,
        store=store,
        keys=keys,
        mint=mint,
        passwords=passwords,
        owner=owner,
        journal=journal,
        audit=audit,
        changes=changes,
        people=People(store, passwords, owner, audit, changes),
        links=Links(store, passwords, owner, audit, changes, settings.public_url),
        services=Services(store, journal),
        logins=Logins(store, mint, settings, follower),
        devices=devices,
        ceremonies=Ceremonies(store, settings),
        sealing=sealing,
        second_factors=SecondFactors(store, settings, passwords, sealing, journal, changes),
        passkeys=Passkeys(store, settings, journal),
        provider=Provider(settings) if settings.auth_oidc_issuer else None,
        accounts=Accounts(store, settings, bus, follower, owner, journal),
        oauth=_oauth_server(store, keys, mint, settings.public_url),
        documents=Documents(
            store.clients,
            private=settings.auth_private_client_documents,
            enabled=settings.auth_client_documents == "on",
        ),
        login_throttle=LoginThrottle(),
        device_throttle=Throttle(20, HOUR),
        registration_throttle=Throttle(settings.auth_registrations_per_hour, HOUR),
        pages=_pages(),
    )


def _oauth_server(store: Store, keys: SigningKeys, mint: Mint, public_url: str) -> Server:
    server = Server(store, keys, mint, public_url)
    server.register_grant(CodeGrant, [RequiredChallenge()])
    server.register_grant(RefreshGrant)
    server.register_grant(DeviceGrant)
    server.register_endpoint(DeviceAuthorization)
    server.register_endpoint(Revocation)
    server.register_endpoint(Introspection)
    return server


def _pages() -> Pages:
    pages = Pages(PAGES)
    pages.filters["moment"] = lambda seconds: datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M")
    pages.filters["reach"] = reach_of
    pages.filters["browser"] = browser_of
    return pages


def _protocol_routes() -> list[BaseRoute]:
    """The endpoints that programs use, among them clients that run in a browser on other origins. No cookie
    plays a part at any of them."""
    cors = Middleware(
        CORSMiddleware,
        allow_origins=["*"],
        allow_methods=["GET", "POST"],
        allow_headers=["Authorization", "Content-Type", "MCP-Protocol-Version"],
    )
    reads = metadata.ROUTES
    writes = {
        "/oauth/register": registration.register,
        "/oauth/token": token.token,
        "/oauth/device_authorization": token.authorize_device,
        "/oauth/revoke": token.revoke,
        "/oauth/introspect": token.introspect,
    }
    return [
        *(
            Route(path, handle, methods=["GET", "OPTIONS"], middleware=[cors])
            for path, handle in reads.items()
        ),
        *(
            Route(path, handle, methods=["POST", "OPTIONS"], middleware=[cors])
            for path, handle in writes.items()
        ),
    ]
