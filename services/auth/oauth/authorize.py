"""The authorization endpoint (RFC 6749, section 3.1): sign in, consent, back to the client.

The consent form repeats the request's own query, so nothing is kept between showing and answering it, and the
answer is checked from the beginning. Consent is asked for each time: clients register freely, so that "the
same client" could be anybody with its id. For the same reason nobody is sent to a client, with an error
either, before they have signed in: with clients of anybody's making that would be an open redirector
(RFC 9700, section 4.11.2).
"""

import asyncio
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
from services.auth.oauth import redirects
from services.auth.oauth.code_grant import CodeGrant
from services.auth.oauth.documents import BadDocument
from services.auth.oauth.resources import gateway_audience
from services.auth.oauth.server import OAuthRequest, Reply
from services.auth.oauth.token import settle
from services.auth.parts import AuthParts, Parts, address_of

router = APIRouter(include_in_schema=False)


@router.get("/oauth/authorize")
async def show_consent(request: Request, parts: AuthParts) -> Response:
    oauth = _read(request)
    login = await parts.logins.find(request)
    if login is None and parts.documents.is_document(oauth.payload.client_id or ""):
        return _sign_in(request)  # nothing is fetched for a stranger
    try:
        await parts.documents.learn(oauth.payload.client_id or "")
        grant: CodeGrant = await asyncio.to_thread(parts.oauth.get_consent_grant, oauth)
    except BadDocument as error:
        return _error_page(request, parts, error)
    except OAuth2Error as error:
        if login is None and error.redirect_uri:
            return _sign_in(request)
        return _refuse(request, parts, error)
    if login is None:
        return _sign_in(request)
    return _consent_page(request, parts, login, grant)


@router.post("/oauth/authorize")
async def decide(request: Request, parts: AuthParts, decision: Annotated[str, Form()] = "") -> Response:
    """The answer of the consent form, `allow` or anything else."""
    try:
        refuse_cross_site(request, parts.settings)
    except LockgateError as error:
        return _error_page(request, parts, error)
    oauth = _read(request)
    login = await parts.logins.find(request)
    if login is None:
        return _sign_in(request)
    try:
        await parts.documents.learn(oauth.payload.client_id or "")
        grant: CodeGrant = await asyncio.to_thread(parts.oauth.get_consent_grant, oauth)
    except BadDocument as error:
        return _error_page(request, parts, error)
    except OAuth2Error as error:
        return _refuse(request, parts, error)
    allowed = decision == "allow"
    reply: Reply = await asyncio.to_thread(
        parts.oauth.create_authorization_response, oauth, login.user if allowed else None, grant
    )
    if not allowed:
        oauth.outcome.events.append(_denied(oauth, login, grant))
    await settle(parts, oauth)
    return _redirect(parts, reply)


def _read(request: Request) -> OAuthRequest:
    return OAuthRequest("GET", request.query_params.multi_items(), {}, address_of(request))


def _sign_in(request: Request) -> Response:
    return RedirectResponse(f"/login?next={quote(_here(request), safe='')}", 303)


def _here(request: Request) -> str:
    return f"{request.url.path}?{request.url.query}"


def _consent_page(request: Request, parts: Parts, login: Login, grant: CodeGrant) -> Response:
    client = grant.request.client.client
    uri = grant.redirect_uri
    return parts.pages.render(
        request,
        "consent.html",
        form_action=f"{redirects.form_action(uri)} https:",  # what the client's own page redirects to
        client=client,
        person=login.user,
        here=_here(request),
        host=redirects.host_of(uri),
        destination=redirects.destination(uri),
        audience=grant.audience,
        server=server_of(grant.audience),
        whole_gateway=grant.audience == gateway_audience(parts.settings.public_url),
        lasting="refresh_token" in client.grant_types,
    )


def _denied(oauth: OAuthRequest, login: Login, grant: CodeGrant) -> AuthEvent:
    return auth_event(
        "consented",
        refused="denied_by_user",
        user=login.user,
        client=oauth.client.client,
        address=oauth.address,
        server=server_of(grant.audience),
    )


def _refuse(request: Request, parts: Parts, error: OAuth2Error) -> Response:
    """Tell the client, if the redirect URI is certainly its own; otherwise the person."""
    if error.redirect_uri:
        return _redirect(parts, parts.oauth.handle_error_response(None, error))
    description = error.get_error_description() or error.error
    return _error_page(
        request, parts, BadRequest(f"The application sent a request that is not right: {description}")
    )


def _error_page(request: Request, parts: Parts, error: LockgateError) -> Response:
    return parts.pages.render(request, "error.html", status=error.status, error=error)


def _redirect(parts: Parts, reply: Reply) -> Response:
    """Every answer to the client says who gives it (RFC 9207). 303: a POST is never repeated there."""
    location = add_params_to_uri(reply.headers["Location"], [("iss", parts.settings.public_url)])
    headers = {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}
    return RedirectResponse(location, 303, headers)
