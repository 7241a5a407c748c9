"""What is asked for after the password: a second factor, or to set one up.

Between the two nobody is signed in. The browser holds the cookie of a ceremony (`services.auth.ceremonies`),
which lets it do one thing: show the second factor of this account, for ten minutes and five times at most.
"""

import asyncio
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from services.auth.domain import Ceremony, UnknownUser, User
from services.auth.keys import hash_of
from services.auth.parts import Parts
from services.auth.second_factor.domain import NothingPending
from services.auth.second_factor.passkeys import new_challenge

PLACE = "/login/second-factor"


@dataclass(frozen=True, slots=True)
class Asked:
    """Somebody who has given their password. `new_app` is the sealed secret of the authenticator app that
    they have to set up, if they have no second factor yet."""

    user: User
    next: str
    challenge: str  # for a passkey
    new_app: str


async def ask(request: Request, parts: Parts, user: User, target: str) -> Response | None:
    """A redirect to where `user`, who has given their password, does the rest; None when that was all."""
    factors = await parts.second_factors.of(user.id)
    if not factors.any and not parts.second_factors.required(user):
        return None
    data = {
        "next": target,
        "password": await _password(parts, user.id),
        "challenge": new_challenge(),
        "new_app": "" if factors.any else parts.second_factors.new_secret(user),
    }
    secret = await parts.ceremonies.begin(request, "second_factor", data, user_id=user.id)
    response = RedirectResponse(PLACE, 303)
    parts.ceremonies.set_cookie(response, "second_factor", secret)
    return response


async def asked(request: Request, parts: Parts, *, attempt: bool = False) -> Asked:
    """Whoever is being asked in this browser; `attempt` counts. Raises `NothingPending`, also when the
    account was deactivated, signed out everywhere or given another password meanwhile."""
    look = parts.ceremonies.attempt if attempt else parts.ceremonies.find
    ceremony = await look(request, "second_factor")
    if ceremony is None:
        raise NothingPending
    return await _still(parts, ceremony)


async def answered(request: Request, parts: Parts) -> None:
    """The question is answered, and cannot be again. Raises `NothingPending`."""
    if await parts.ceremonies.take(request, "second_factor") is None:
        raise NothingPending


async def _still(parts: Parts, ceremony: Ceremony) -> Asked:
    data = ceremony.data
    try:
        user = await asyncio.to_thread(parts.store.users.get, ceremony.user_id)
    except UnknownUser as error:
        raise NothingPending from error
    signed_out = ceremony.created_at < user.tokens_valid_from
    if not user.active or signed_out or data["password"] != await _password(parts, user.id):
        raise NothingPending
    if not parts.settings.admits_password_of(user.email):
        raise NothingPending
    return Asked(user, data["next"], data["challenge"], data["new_app"])


async def _password(parts: Parts, user_id: str) -> str:
    """Stands for the password that was given: another one, and so another hash, makes another value."""
    return hash_of(await asyncio.to_thread(parts.store.second_factors.password_hash, user_id))
