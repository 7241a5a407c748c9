"""How somebody signs in, for administrators: `/users/{id}/security`, and the same as JSON. They can take away
what the person has lost, and add nothing."""

import asyncio
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Path, Request, Response
from pydantic import BaseModel, Field

from libs.common.clock import iso
from libs.common.control.changes import Told
from libs.common.control.entries import User as UserEntry
from libs.common.control.owner import Receipt
from libs.common.web import notices
from libs.common.web.session import Administrator
from services.auth.control import user_key
from services.auth.parts import AuthParts, Parts
from services.auth.second_factor.domain import Factors
from services.auth.sso.domain import Identity

router = APIRouter()

UserId = Annotated[str, Path(max_length=64)]


class PasskeyOut(BaseModel):
    id: str
    name: str
    created_at: str
    last_used_at: str | None


class IdentityOut(BaseModel):
    issuer: str
    subject: str
    email: str = Field(description="The address that the provider told at the last sign-in.")
    created_at: str
    last_used_at: str


class SecurityOut(BaseModel):
    """How somebody can sign in."""

    password: bool
    authenticator_app: bool
    recovery_codes_left: int
    passkeys: list[PasskeyOut]
    identities: list[IdentityOut]


class SecurityChanged(SecurityOut):
    receipt: Receipt


# -- the page ---------------------------------------------------------------------------------------


@router.get("/users/{user_id}/security", include_in_schema=False)
async def show(request: Request, admin: Administrator, parts: AuthParts, user_id: UserId) -> Response:
    response = parts.pages.render(
        request,
        "user_security.html",
        person=await asyncio.to_thread(parts.store.users.get, user_id),
        factors=await parts.second_factors.of(user_id),
        identities=await asyncio.to_thread(parts.store.identities.of, user_id),
        has_password=await _has_password(parts, user_id),
        notice=notices.waiting(request),
    )
    return notices.shown(response, request)


@router.post("/users/{user_id}/security/remove", include_in_schema=False)
async def remove(admin: Administrator, parts: AuthParts, user_id: UserId) -> Response:
    receipt = await parts.second_factors.remove_all(admin, user_id)
    said = "Their authenticator app, passkeys and recovery codes are removed."
    return notices.redirect(f"/users/{user_id}/security", notices.after(said, receipt), parts.settings)


@router.post("/users/{user_id}/security/unlink", include_in_schema=False)
async def unlink(admin: Administrator, parts: AuthParts, user_id: UserId) -> Response:
    receipt = await _unlink(parts, admin, user_id)
    said = "The account is nobody’s at the provider now; the next sign-in there with its address takes it."
    return notices.redirect(f"/users/{user_id}/security", notices.after(said, receipt), parts.settings)


# -- JSON -------------------------------------------------------------------------------------------


@router.get("/api/auth/users/{user_id}/security")
async def get_security(admin: Administrator, parts: AuthParts, user_id: UserId) -> SecurityOut:
    return SecurityOut(**await _security(parts, user_id))


@router.delete("/api/auth/users/{user_id}/second-factor")
async def remove_second_factor(
    admin: Administrator, parts: AuthParts, user_id: UserId, response: Response
) -> SecurityChanged:
    """Remove somebody's authenticator app, passkeys and recovery codes. Their logins stay."""
    receipt = await parts.second_factors.remove_all(admin, user_id)
    response.status_code = receipt.status
    return SecurityChanged(**await _security(parts, user_id), receipt=receipt)


@router.delete("/api/auth/users/{user_id}/identities")
async def remove_identities(
    admin: Administrator, parts: AuthParts, user_id: UserId, response: Response
) -> SecurityChanged:
    """Forget who somebody is at the OpenID provider. The next sign-in there with their address connects
    anew."""
    receipt = await _unlink(parts, admin, user_id)
    response.status_code = receipt.status
    return SecurityChanged(**await _security(parts, user_id), receipt=receipt)


async def _unlink(parts: Parts, admin: UserEntry, user_id: str) -> Receipt:
    """Raises `UnknownUser`."""
    await asyncio.to_thread(parts.store.users.get, user_id)

    def told(forgotten: list[Identity]) -> Told:
        names = " ".join(f"{identity.subject} at {identity.issuer}" for identity in forgotten)
        return Told([user_key(user_id)], names, "", bool(forgotten))

    forget = parts.store.identities.unlink
    _, receipt = await parts.changes.make(admin, "identity_unlinked", lambda: forget(user_id), told)
    return receipt


async def _security(parts: Parts, user_id: str) -> dict[str, object]:
    await asyncio.to_thread(parts.store.users.get, user_id)
    factors = await parts.second_factors.of(user_id)
    identities = await asyncio.to_thread(parts.store.identities.of, user_id)
    return {
        "password": await _has_password(parts, user_id),
        "authenticator_app": factors.totp is not None,
        "recovery_codes_left": factors.recovery_left,
        "passkeys": _passkeys(factors),
        "identities": [_identity(identity) for identity in identities],
    }


async def _has_password(parts: Parts, user_id: str) -> bool:
    return bool(await asyncio.to_thread(parts.store.second_factors.password_hash, user_id))


def _passkeys(factors: Factors) -> list[PasskeyOut]:
    return [
        PasskeyOut(
            id=passkey.id,
            name=passkey.name,
            created_at=_time(passkey.created_at),
            last_used_at=_time(passkey.last_used_at) if passkey.last_used_at else None,
        )
        for passkey in factors.passkeys
    ]


def _identity(identity: Identity) -> IdentityOut:
    return IdentityOut(
        issuer=identity.issuer,
        subject=identity.subject,
        email=identity.email,
        created_at=_time(identity.created_at),
        last_used_at=_time(identity.last_used_at),
    )


def _time(seconds: int) -> str:
    return iso(datetime.fromtimestamp(seconds, UTC))
