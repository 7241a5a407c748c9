"""Signing in by the organization's provider: `/login/sso` leads there, `/login/sso/callback` is where it
leads back to. Only the browser that was sent there can come back, once, and to the same provider (RFC 9700,
section 4.4).
"""

from typing import Annotated

import structlog
from fastapi import APIRouter, Depends, Request
from starlette.responses import RedirectResponse, Response

from libs.common.errors import LockgateError, NotFound, Unavailable
from libs.common.ids import new_secret
from services.auth.audit import AuthEventName, auth_event
from services.auth.domain import Ceremony, TooManyAttempts
from services.auth.login import admit, target_of
from services.auth.parts import AuthParts, Parts, address_of
from services.auth.sso.claims import person_of
from services.auth.sso.domain import BadAnswer, ProviderFailed, Refused
from services.auth.sso.provider import Provider

log = structlog.get_logger(__name__)

router = APIRouter(prefix="/login/sso", include_in_schema=False)

SIGNED_IN: AuthEventName = "signed_in"


def configured(parts: AuthParts) -> Provider:
    """Raises `NotFound` where there is no provider."""
    if parts.provider is None:
        raise NotFound("Single sign-on is not set up here.")
    return parts.provider


TheProvider = Annotated[Provider, Depends(configured)]


@router.get("")
async def begin(
    request: Request, parts: AuthParts, provider: TheProvider, next: str = "/", again: bool = False
) -> Response:
    """Send the browser to the provider; `again`: the person has to prove there that they are still the
    same."""
    target = target_of(next)
    state, nonce, verifier = new_secret(), new_secret(), new_secret(48)
    extra = {"prompt": "login"} if again else {}
    try:
        url = await provider.authorization_url(state=state, nonce=nonce, verifier=verifier, **extra)
        data = {"next": target, "nonce": nonce, "verifier": verifier}
        secret = await parts.ceremonies.begin(request, "sso", data, label=state)
    except (ProviderFailed, TooManyAttempts) as error:
        return _problem(request, parts, error, target)
    response = RedirectResponse(url, 303, {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"})
    parts.ceremonies.set_cookie(response, "sso", secret)
    return response


@router.get("/callback")
async def come_back(request: Request, parts: AuthParts, provider: TheProvider) -> Response:
    ceremony = await parts.ceremonies.take(request, "sso", _one(request, "state"))
    target = ceremony.data["next"] if ceremony else "/"
    try:
        code = await _code(request, provider, ceremony)
        assert ceremony
        claims = await provider.redeem(code, verifier=ceremony.data["verifier"], nonce=ceremony.data["nonce"])
        person = person_of(claims, parts.settings)
        user = await parts.accounts.of(person, address_of(request))
        entered = await admit(request, parts, user, target, f"single sign-on by {person.issuer}")
        if entered is None:
            raise Refused(
                "inactive",
                "Your account here is deactivated. An administrator can activate it.",
                person.email,
            )
        return entered
    except (Refused, BadAnswer, ProviderFailed, Unavailable) as error:
        return _problem(request, parts, error, target)


async def _code(request: Request, provider: Provider, ceremony: Ceremony | None) -> str:
    """The authorization code in an answer to this browser's own request. Raises `BadAnswer`."""
    if ceremony is None:
        raise BadAnswer(
            "sso_unknown_state",
            "It was begun in another browser, was completed before, or took longer than ten minutes.",
        )
    metadata = await provider.metadata()
    issuer = _one(request, "iss")
    if (issuer or metadata.authorization_response_iss_parameter_supported) and issuer != metadata.issuer:
        raise BadAnswer(
            "sso_wrong_issuer", "The answer does not come from your organization’s sign-in service."
        )
    if error := _one(request, "error"):
        raise BadAnswer("sso_denied", _said(error))
    code = _one(request, "code")
    if not code:
        raise BadAnswer("sso_no_code", "Your organization’s sign-in service sent an answer without a code.")
    return code


def _one(request: Request, name: str) -> str:
    """A parameter of the query; empty when it is missing, or there twice (RFC 6749, section 3.1)."""
    values = request.query_params.getlist(name)
    return values[0] if len(values) == 1 else ""


def _said(error: str) -> str:
    """An error of the provider in words. Its own description is not shown: anybody could have written it."""
    if error == "access_denied":
        return "Your organization’s sign-in service did not let you in, or you cancelled there."
    code = "".join(c for c in error if c.isalnum() or c in "_-")[:60]
    return (
        f"Your organization’s sign-in service answers “{code}”. Tell an administrator if it stays like this."
    )


def _problem(request: Request, parts: Parts, error: LockgateError, target: str) -> Response:
    """Record what went wrong and say it."""
    reason = str(getattr(error, "reason", error.type.replace("-", "_")))
    why = error.why if isinstance(error, ProviderFailed) else ""
    if why:
        log.warning("sso_provider_failed", issuer=parts.settings.auth_oidc_issuer, error=why)
    parts.audit.by_anybody(
        auth_event(
            SIGNED_IN,
            refused=reason,
            email=error.email if isinstance(error, Refused) else "",
            address=address_of(request),
            detail=f"single sign-on by {parts.settings.auth_oidc_issuer}{': ' if why else ''}{why}",
        )
    )
    return parts.pages.render(request, "sso_problem.html", status=error.status, error=error, next=target)
