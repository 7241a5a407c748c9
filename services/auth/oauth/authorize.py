"""The authorization endpoint (RFC 6749, section 3.1): sign in, consent, back to the client.

`prompts.py` has what a client may ask about that; `login_hint` is read by the login page.

The consent form repeats the request's own query, so nothing is kept between showing and answering it, and the
answer is checked from the beginning. Consent is asked for each time: clients register freely, so that "the
same client" could be anybody with its id. For the same reason nobody is sent to a client, with an error
either, before they have signed in: with clients of anybody's making that would be an open redirector
(RFC 9700, section 4.11.2).
"""

import asyncio
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import quote

from authlib.common.urls import add_params_to_uri
from authlib.oauth2.rfc6749 import OAuth2Error
from fastapi import APIRouter, Form, Request
from starlette.responses import RedirectResponse, Response

from libs.common.errors import BadRequest, LockgateError
from libs.common.records import AuthEvent
from libs.common.web.session import refuse_cross_site
from services.auth.audit import auth_event, server_of
from services.auth.logins import Login
from services.auth.oauth import prompts, redirects
from services.auth.oauth.code_grant import CodeGrant
from services.auth.oauth.documents import BadDocument
from services.auth.oauth.errors import reason_of
from services.auth.oauth.resources import gateway_audience
from services.auth.oauth.server import OAuthRequest, Reply
from services.auth.oauth.token import settle
from services.auth.parts import AuthParts, Parts, address_of

router = APIRouter(include_in_schema=False)


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that is in order, and the person who is to answer it."""

    oauth: OAuthRequest
    login: Login
    grant: CodeGrant


@router.get("/oauth/authorize")
async def show_consent(request: Request, parts: AuthParts) -> Response:
    asked = await _examine(request, parts)
    return asked if isinstance(asked, Response) else _consent_page(request, parts, asked)


@router.post("/oauth/authorize")
async def decide(request: Request, parts: AuthParts, decision: Annotated[str, Form()] = "") -> Response:
    """The answer of the consent form, `allow` or anything else."""
    try:
        refuse_cross_site(request, parts.settings)
    except LockgateError as error:
        return _error_page(request, parts, error)
    asked = await _examine(request, parts)
    if isinstance(asked, Response):
        return asked
    oauth, allowed = asked.oauth, decision == "allow"
    reply: Reply = await asyncio.to_thread(
        parts.oauth.create_authorization_response, oauth, asked.login.user if allowed else None, asked.grant
    )
    if not allowed:
        oauth.outcome.events.append(_denied(asked))
    await settle(parts, oauth)
    return _redirect(parts, reply)


async def _examine(request: Request, parts: Parts) -> Asked | Response:
    """The request if consent can be asked for; else the answer to it."""
    oauth, login = _read(request), await parts.logins.find(request)
    client_id, prompt = oauth.payload.client_id or "", oauth.payload.data.get("prompt", "")
    silent = prompts.silent(prompt)
    if login is None and parts.documents.is_document(client_id) and not silent:
        return _sign_in(request)  # nothing is fetched for a stranger
    try:
        if login:
            await parts.documents.learn(client_id)
        grant: CodeGrant = await asyncio.to_thread(parts.oauth.get_consent_grant, oauth)
        _check_prompt(prompt, oauth, grant, login)
    except BadDocument as error:
        if login:
            parts.audit.by_anybody(_misused(oauth, login, "bad_client_document"))
        return _error_page(request, parts, error)
    except OAuth2Error as error:
        if login and reason_of(error):
            parts.audit.by_anybody(_misused(oauth, login, reason_of(error)))
        if login or not error.redirect_uri:
            return _refuse(request, parts, error)
        return await _refuse_stranger(request, parts, error, client_id) if silent else _sign_in(request)
    if login is None or "login" in prompts.prompts_of(prompt):
        return _sign_in(request)
    return Asked(oauth, login, grant)


def _check_prompt(prompt: str, oauth: OAuthRequest, grant: CodeGrant, login: Login | None) -> None:
    try:
        prompts.check(prompt, signed_in=login is not None)
    except OAuth2Error as error:
        error.redirect_uri, error.state = grant.redirect_uri, oauth.payload.state
        raise


def _read(request: Request) -> OAuthRequest:
    return OAuthRequest("GET", request.query_params.multi_items(), {}, address_of(request))


def _sign_in(request: Request) -> Response:
    """Ask for the password, and come back without a demand to ask for it. `again`: of whoever is signed in
    too; who is not, is asked anyway."""
    query = request.query_params
    if "login" not in query.get("prompt", "").split():
        return RedirectResponse(f"/login?next={quote(_here(request), safe='')}", 303)
    here = f"{request.url.path}?{prompts.without_login(query.multi_items())}"
    return RedirectResponse(f"/login?next={quote(here, safe='')}&again=true", 303)


def _here(request: Request) -> str:
    return f"{request.url.path}?{request.url.query}"


def _consent_page(request: Request, parts: Parts, asked: Asked) -> Response:
    grant = asked.grant
    client, uri = grant.request.client.client, grant.redirect_uri
    return parts.pages.render(
        request,
        "consent.html",
        form_action=f"{redirects.form_action(uri)} https:",  # what the client's own page redirects to
        client=client,
        person=asked.login.user,
        here=_here(request),
        host=redirects.host_of(uri),
        destination=redirects.destination(uri),
        audience=grant.audience,
        server=server_of(grant.audience),
        whole_gateway=grant.audience == gateway_audience(parts.settings.public_url),
        lasting="refresh_token" in client.grant_types,
    )


def _denied(asked: Asked) -> AuthEvent:
    return auth_event(
        "consented",
        refused="denied_by_user",
        user=asked.login.user,
        client=asked.oauth.client.client,
        address=asked.oauth.address,
        server=server_of(asked.grant.audience),
    )


def _misused(oauth: OAuthRequest, login: Login, reason: str) -> AuthEvent:
    """That somebody was led here by a request that no client of theirs makes."""
    client = f"asked by client {oauth.payload.client_id}"[:300]
    return auth_event("consented", refused=reason, user=login.user, address=oauth.address, detail=client)


def _refuse(request: Request, parts: Parts, error: OAuth2Error) -> Response:
    """Tell the client, if the redirect URI is certainly its own; otherwise the person."""
    if error.redirect_uri:
        return _redirect(parts, parts.oauth.handle_error_response(None, error))
    description = error.get_error_description() or error.error
    return _error_page(
        request, parts, BadRequest(f"The application sent a request that is not right: {description}")
    )


async def _refuse_stranger(request: Request, parts: Parts, error: OAuth2Error, client_id: str) -> Response:
    """Tell the client, before anybody has signed in, that nobody could be asked (`prompt=none`): if that
    leads to an application, or to the site of a client that somebody here has connected. Another site could
    be of anybody's making, and this the link with which they send people to it."""
    site = redirects.destination(error.redirect_uri) == "site"
    if site and not await asyncio.to_thread(parts.store.clients.connected, client_id):
        return _error_page(
            request, parts, BadRequest("Nobody is signed in, and the application is not known.")
        )
    return _refuse(request, parts, error)


def _error_page(request: Request, parts: Parts, error: LockgateError) -> Response:
    return parts.pages.render(request, "error.html", status=error.status, error=error)


def _redirect(parts: Parts, reply: Reply) -> Response:
    """Every answer to the client says who gives it (RFC 9207). 303: a POST is never repeated there."""
    location = add_params_to_uri(reply.headers["Location"], [("iss", parts.settings.public_url)])
    headers = {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}
    return RedirectResponse(location, 303, headers)
