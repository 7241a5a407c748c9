"""The parts of the service that have to do with OAuth, wired together once."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, FastAPI, Request

from libs.common.bus import Bus
from libs.common.control.follower import Follower
from libs.common.control.owner import Owner
from libs.common.journal import Journal
from libs.common.lifecycle import Part
from services.credentials.changes import Changes
from services.credentials.oauth.bus import RefreshServer
from services.credentials.oauth.connecting import Connecting
from services.credentials.oauth.leases import Leases
from services.credentials.oauth.pending import Pendings
from services.credentials.oauth.refreshing import Refreshing
from services.credentials.oauth.renewal import Renewal
from services.credentials.oauth.revoking import Revoking
from services.credentials.oauth.telling import Telling
from services.credentials.oauth.web import Web
from services.credentials.settings import CredentialsSettings
from services.credentials.store import CredentialStore


@dataclass(frozen=True, slots=True)
class OAuth:
    """What the routes and the bus work with; `parts` are started after the journal, in order."""

    connecting: Connecting
    refreshing: Refreshing
    parts: tuple[Part, ...]


def wire(
    settings: CredentialsSettings,
    store: CredentialStore,
    bus: Bus,
    *,
    follower: Follower,
    owner: Owner,
    journal: Journal,
    changes: Changes,
) -> OAuth:
    """Build them all."""
    web = Web(private=settings.credentials_private_providers)
    telling = Telling(owner, follower, journal)
    leases = Leases(store.database, journal.replica)
    renewal = Renewal(store.database, web, telling)
    refreshing = Refreshing(store.accounts, leases, renewal, telling)
    revoking = Revoking(store.accounts, leases, renewal, telling)
    pendings = Pendings(store.database)
    connecting = Connecting(store.providers, pendings, web, changes, settings.public_url)
    parts = (telling, refreshing, revoking, RefreshServer(bus, refreshing))
    return OAuth(connecting, refreshing, parts)


def install(app: FastAPI, oauth: OAuth) -> None:
    """Make it known to the routes."""
    app.state.oauth = oauth


async def _connecting(request: Request) -> Connecting:
    oauth: OAuth = request.app.state.oauth
    return oauth.connecting


Connect = Annotated[Connecting, Depends(_connecting)]
