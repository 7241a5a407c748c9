"""`/account/security`: one's own second factors and passkeys. Whoever changes them gives their password, or a
code, so that a browser left open is not enough."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Form, Request
from starlette.responses import RedirectResponse, Response

from libs.common.control.entries import User as UserEntry
from libs.common.errors import LockgateError
from libs.common.web import notices
from libs.common.web.notices import Notice
from libs.common.web.session import Member
from services.auth.domain import Ceremony, CeremonyKind
from services.auth.parts import AuthParts, Parts, address_of
from services.auth.second_factor import totp
from services.auth.second_factor.domain import BadPasskey, NothingPending, UnknownPasskey
from services.auth.second_factor.passkeys import clean_name, new_challenge

router = APIRouter(prefix="/account/security", include_in_schema=False)

PAGE = "/account/security"

Proof = Annotated[str, Form(max_length=4096)]
Code = Annotated[str, Form(max_length=100)]
Name = Annotated[str, Form(max_length=200)]
Credential = Annotated[str, Form(max_length=32_768)]


@router.get("")
async def show(request: Request, member: Member, parts: AuthParts) -> Response:
    return await _page(request, parts, member)


# -- authenticator app ------------------------------------------------------------------------------


@router.post("/app")
async def begin_app(request: Request, member: Member, parts: AuthParts, proof: Proof = "") -> Response:
    try:
        await parts.second_factors.prove(member, proof, address_of(request))
    except LockgateError as error:
        return await _page(request, parts, member, error)
    data = {"secret": parts.second_factors.new_secret(member)}
    return await _begin(request, parts, member, "new_totp", data=data, place="/app")


@router.get("/app")
async def show_app(request: Request, member: Member, parts: AuthParts) -> Response:
    try:
        begun = await _begun(request, parts, member, "new_totp")
    except NothingPending as error:
        return _done(parts, error.detail, "warn")
    return _app_page(request, parts, member, begun)


@router.post("/app/confirm")
async def confirm_app(request: Request, member: Member, parts: AuthParts, code: Code = "") -> Response:
    try:
        begun = await _begun(request, parts, member, "new_totp", attempt=True)
    except NothingPending as error:
        return _done(parts, error.detail, "warn")
    try:
        codes = await parts.second_factors.add_totp(member, begun.data["secret"], code, address_of(request))
    except LockgateError as error:
        return _app_page(request, parts, member, begun, error)
    await parts.ceremonies.take(request, "new_totp")
    return _added(request, parts, codes, "Your authenticator app is set up.")


@router.post("/app/remove")
async def remove_app(request: Request, member: Member, parts: AuthParts, proof: Proof = "") -> Response:
    try:
        await parts.second_factors.prove(member, proof, address_of(request))
        await parts.second_factors.remove_totp(member, address_of(request))
    except LockgateError as error:
        return await _page(request, parts, member, error)
    return _done(parts, "The authenticator app is removed.")


@router.post("/recovery-codes")
async def renew_recovery_codes(
    request: Request, member: Member, parts: AuthParts, proof: Proof = ""
) -> Response:
    try:
        await parts.second_factors.prove(member, proof, address_of(request))
        codes = await parts.second_factors.new_recovery_codes(member, address_of(request))
    except LockgateError as error:
        return await _page(request, parts, member, error)
    return parts.pages.render(request, "recovery_codes.html", codes=codes, next=PAGE)


# -- passkeys ---------------------------------------------------------------------------------------


@router.post("/passkeys")
async def begin_passkey(
    request: Request, member: Member, parts: AuthParts, proof: Proof = "", name: Name = ""
) -> Response:
    try:
        if not parts.passkeys.possible:
            raise BadPasskey("Passkeys need Lockgate at a name and by https.")
        await parts.second_factors.prove(member, proof, address_of(request))
    except LockgateError as error:
        return await _page(request, parts, member, error)
    data = {"challenge": new_challenge(), "name": clean_name(name)}
    return await _begin(request, parts, member, "new_passkey", data=data, place="/passkeys/new")


@router.get("/passkeys/new")
async def show_passkey(request: Request, member: Member, parts: AuthParts) -> Response:
    try:
        begun = await _begun(request, parts, member, "new_passkey")
    except NothingPending as error:
        return _done(parts, error.detail, "warn")
    present = (await parts.second_factors.of(member.id)).passkeys
    options = parts.passkeys.creation_options(member, present, begun.data["challenge"])
    return parts.pages.render(request, "new_passkey.html", options=options, name=begun.data["name"])


@router.post("/passkeys/new")
async def add_passkey(
    request: Request, member: Member, parts: AuthParts, credential: Credential = ""
) -> Response:
    address = address_of(request)
    try:
        begun = await _begun(request, parts, member, "new_passkey")
        await parts.ceremonies.take(request, "new_passkey")
        passkey = await parts.passkeys.add(
            member, credential, begun.data["challenge"], begun.data["name"], address
        )
    except LockgateError as error:
        return await _page(request, parts, member, error)
    codes = await parts.second_factors.first_recovery_codes(member, address)
    return _added(request, parts, codes, f"The passkey “{passkey.name}” is added.")


@router.post("/passkeys/{passkey_id}/remove")
async def remove_passkey(
    request: Request, member: Member, parts: AuthParts, passkey_id: str, proof: Proof = ""
) -> Response:
    address = address_of(request)
    try:
        mine = {passkey.id: passkey for passkey in (await parts.second_factors.of(member.id)).passkeys}
        if passkey_id not in mine:
            raise UnknownPasskey
        await parts.second_factors.prove(member, proof, address)
        await parts.second_factors.remove_passkey(member, passkey_id, mine[passkey_id].name, address)
    except LockgateError as error:
        return await _page(request, parts, member, error)
    return _done(parts, f"The passkey “{mine[passkey_id].name}” is removed. Delete it on your device too.")


# -- parts of them ----------------------------------------------------------------------------------


async def _begin(
    request: Request,
    parts: Parts,
    member: UserEntry,
    kind: CeremonyKind,
    *,
    data: dict[str, str],
    place: str,
) -> Response:
    secret = await parts.ceremonies.begin(request, kind, data, user_id=member.id)
    response = RedirectResponse(PAGE + place, 303)
    parts.ceremonies.set_cookie(response, kind, secret)
    return response


async def _begun(
    request: Request, parts: Parts, member: UserEntry, kind: CeremonyKind, *, attempt: bool = False
) -> Ceremony:
    """What this person has begun in this browser. Raises `NothingPending`."""
    look = parts.ceremonies.attempt if attempt else parts.ceremonies.find
    begun = await look(request, kind)
    if begun is None or begun.user_id != member.id:
        raise NothingPending
    return begun


def _done(parts: Parts, said: str, mood: notices.Mood = "good") -> Response:
    return notices.redirect(PAGE, Notice(said, mood), parts.settings)


def _added(request: Request, parts: Parts, codes: list[str], said: str) -> Response:
    """Not a redirect when there are new codes: they exist in this answer only."""
    if codes:
        return parts.pages.render(request, "recovery_codes.html", codes=codes, next=PAGE)
    return _done(parts, said)


def _app_page(
    request: Request, parts: Parts, member: UserEntry, begun: Ceremony, error: LockgateError | None = None
) -> Response:
    secret = parts.sealing.open(begun.data["secret"], member.id)
    return parts.pages.render(
        request,
        "second_factor_app.html",
        status=error.status if error else 200,
        person=member,
        problem=f"{error.title}. {error.detail}" if error else "",
        secret=totp.readable(secret),
        qr=totp.qr_svg(totp.app_uri(secret, member.email, parts.passkeys.host)),
        action=f"{PAGE}/app/confirm",
    )


async def _page(
    request: Request, parts: Parts, member: UserEntry, error: LockgateError | None = None
) -> Response:
    response = parts.pages.render(
        request,
        "security.html",
        status=error.status if error else 200,
        factors=await parts.second_factors.of(member.id),
        identities=await asyncio.to_thread(parts.store.identities.of, member.id),
        has_password=bool(await asyncio.to_thread(parts.store.second_factors.password_hash, member.id))
        and parts.settings.admits_password_of(member.email),
        passkeys_possible=parts.passkeys.possible,
        public_url=parts.settings.public_url,
        required=parts.second_factors.required(member),
        notice=notices.waiting(request),
        problem=f"{error.title}. {error.detail}" if error else "",
    )
    return notices.shown(response, request)
