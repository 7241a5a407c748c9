"""The collaborators that handlers use, built once by the factory."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from fastapi import Depends
from starlette.requests import Request

from libs.common.control.changes import Changes
from libs.common.control.owner import Owner
from libs.common.journal import Journal
from libs.common.web.frame import Pages
from services.auth.audit import Audit
from services.auth.ceremonies import Ceremonies
from services.auth.devices import Devices
from services.auth.keys import SigningKeys
from services.auth.links import Links
from services.auth.logins import Logins
from services.auth.oauth.documents import Documents
from services.auth.oauth.server import Server
from services.auth.passwords import Passwords
from services.auth.people import People
from services.auth.second_factor.factors import SecondFactors
from services.auth.second_factor.passkeys import Passkeys
from services.auth.second_factor.sealing import Sealing
from services.auth.services import Services
from services.auth.settings import AuthSettings
from services.auth.sso.accounts import Accounts
from services.auth.sso.provider import Provider
from services.auth.store import Store
from services.auth.throttle import LoginThrottle, Throttle
from services.auth.tokens import Mint


@dataclass(frozen=True, slots=True)
class Parts:
    settings: AuthSettings
    store: Store
    keys: SigningKeys
    mint: Mint
    passwords: Passwords
    owner: Owner
    journal: Journal
    audit: Audit
    changes: Changes
    people: People
    links: Links
    services: Services
    logins: Logins
    devices: Devices
    ceremonies: Ceremonies
    sealing: Sealing
    second_factors: SecondFactors
    passkeys: Passkeys
    provider: Provider | None  # None without single sign-on
    accounts: Accounts
    oauth: Server
    documents: Documents
    login_throttle: LoginThrottle
    device_throttle: Throttle  # of guesses at user codes, by person
    registration_throttle: Throttle
    pages: Pages


def parts_of(request: Request) -> Parts:
    parts: Parts = request.app.state.parts
    return parts


AuthParts = Annotated[Parts, Depends(parts_of)]

PAGES = Path(__file__).parent / "pages"


def address_of(request: Request) -> str:
    """Where a request comes from. Behind a trusted proxy (`LOCKGATE_TRUSTED_PROXIES`), uvicorn has put the
    client's address there from X-Forwarded-For."""
    return request.client.host if request.client else ""


def agent_of(request: Request) -> str:
    """What the browser calls itself, cut to a bearable length."""
    return request.headers.get("user-agent", "")[:300]
