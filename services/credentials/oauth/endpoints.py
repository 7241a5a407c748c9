"""Requests to an authorization server: code for tokens, refresh, revocation, who somebody is."""

import base64
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote_plus

from libs.common.errors import BadRequest
from libs.common.fetching import CannotFetch
from services.credentials.oauth.domain import (
    Client,
    Connection,
    ProviderFailed,
    ProviderRefused,
    TokenAnswer,
    short,
    token_answer,
)
from services.credentials.oauth.web import FORM, JSON, Web, host, json_object

# Answers that say "later" rather than "no", whatever their body says.
_LATER = {408, 425, 429}
_NAMES = ("email", "preferred_username", "login", "name", "sub")


async def redeem(
    web: Web, url: str, client: Client, form: Mapping[str, str], lifetime: int = 0
) -> TokenAnswer:
    """Ask the token endpoint at `url`. Raises `ProviderRefused`, `ProviderFailed`."""
    asked_at = time.time()
    found = await _post(web, url, client, form)
    return token_answer(found, asked_at, lifetime)


async def refresh(web: Web, connection: Connection) -> TokenAnswer:
    """RFC 6749, section 6. Raises `ProviderRefused`, `ProviderFailed`."""
    form = {"grant_type": "refresh_token", "refresh_token": connection.refresh_token}
    if connection.resource:
        form["resource"] = connection.resource
    form |= connection.token_parameters
    return await redeem(web, connection.token_endpoint, connection.client, form, connection.lifetime)


async def revoke(web: Web, connection: Connection) -> bool:
    """Tell the provider that the tokens are not needed any more (RFC 7009). Returns whether it offers that
    and has confirmed it."""
    url = connection.revocation_endpoint
    if not url:
        return False
    tokens = {"refresh_token": connection.refresh_token, "access_token": connection.access_token}
    for hint, token in tokens.items():
        if not token:
            continue
        form, headers = authenticated(connection.client, {"token": token, "token_type_hint": hint})
        try:
            status, _ = await web.post_form(url, form, headers)
        except (ProviderFailed, BadRequest):
            return False
        if status != 200:
            return False
    return True


async def identify(web: Web, url: str, answer: TokenAnswer, field: str = "") -> str:
    """As whom somebody is connected, for people to read: from the ID token, else from the JSON at `url` (the
    userinfo endpoint, or what an administrator entered); empty if neither says."""
    names = (field, *_NAMES) if field else _NAMES
    if name := _name(_claims(answer.id_token), names):
        return name
    if not url:
        return ""
    headers = JSON | {"Authorization": f"Bearer {answer.access_token}"}
    try:
        found = await web.request("GET", url, headers=headers)
    except (CannotFetch, BadRequest):
        return ""
    return _name(json_object(found.body), names) if found.status == 200 else ""


def authenticated(client: Client, form: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """The form and the headers with which `client` says who it is (RFC 6749, section 2.3.1)."""
    if client.auth_method == "client_secret_basic":
        pair = f"{quote_plus(client.client_id)}:{quote_plus(client.client_secret)}"
        basic = base64.b64encode(pair.encode()).decode()
        return dict(form), FORM | {"Authorization": f"Basic {basic}"}
    more = {"client_id": client.client_id}
    if client.auth_method == "client_secret_post":
        more["client_secret"] = client.client_secret
    return dict(form) | more, dict(FORM)


async def _post(web: Web, url: str, client: Client, form: Mapping[str, str]) -> dict[str, Any]:
    """The token endpoint's JSON object. An error may come with any status, 200 included."""
    filled, headers = authenticated(client, form)
    status, found = await web.post_form(url, filled, headers)
    code = found.get("error")
    if status >= 500 or status in _LATER:
        raise ProviderFailed(f"{host(url)} answers with HTTP status {status}")
    if code:
        sent = _secrets(client, form, headers)
        detail = _told(found.get("error_description") or "", sent)
        told = f"{host(url)} says {_told(code, sent)}" + (f": {detail}" if detail else "")
        raise ProviderRefused(short(code), told)
    if status != 200 or not found:
        raise ProviderFailed(f"{host(url)} answers with HTTP status {status} and no tokens")
    return found


def _secrets(client: Client, form: Mapping[str, str], headers: Mapping[str, str]) -> list[str]:
    """What was sent and must not be told, as it is and as it stood in the request."""
    names = ("code", "code_verifier", "refresh_token")
    basic = headers.get("Authorization", "").removeprefix("Basic ")
    found = [client.client_secret, basic, *(form.get(name, "") for name in names)]
    return [text for secret in found if secret for text in (secret, quote_plus(secret))]


def _told(text: object, secrets: list[str]) -> str:
    """What a provider said, which may repeat what it was sent. They are taken out before it is cut: of a long
    one the beginning would stay."""
    told = str(text)
    for secret in secrets:
        told = told.replace(secret, "…")
    return short(told)


def _claims(id_token: str) -> dict[str, Any]:
    """What an ID token says, unverified: it comes straight from the token endpoint, over TLS, and is only
    shown (OpenID Connect Core, section 3.1.3.7, point 6)."""
    payload = id_token.split(".")[1] if id_token.count(".") == 2 else ""
    try:
        return json_object(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except ValueError:
        return {}


def _name(found: Mapping[str, Any], names: tuple[str, ...]) -> str:
    given = (found.get(name) for name in names)
    return next((short(name) for name in given if isinstance(name, str | int) and str(name).strip()), "")
