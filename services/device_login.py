"""`lockgate login URL`: an access token for a client that wants one pasted, by the device flow (RFC 8628).

It finds its way as any client does: challenge, resource metadata (RFC 9728), server metadata (RFC 8414),
registration (RFC 7591).
"""

import platform
import re
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import httpx2

DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"
SLOWER = 5  # seconds more between two questions when asked to slow down (section 3.5)
_RESOURCE_METADATA = re.compile(r'resource_metadata="([^"]+)"')


class LoginFailed(Exception):
    """There is no token to be had; the message says why in one sentence."""


def login(
    url: str,
    show: Callable[[str, str], None],
    http: httpx2.Client,
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, Any]:
    """The token response (RFC 6749, section 5.1) for the MCP server at `url`.

    `show(page, code)` tells the person where to type which code. Raises `LoginFailed`.
    """
    return _login(url, lambda: _discover(url, http), show, http, sleep)


def login_to_api(
    origin: str,
    show: Callable[[str, str], None],
    http: httpx2.Client,
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, Any]:
    """The same for the HTTP APIs of the Lockgate at `origin`."""

    def discover() -> tuple[str, dict[str, Any]]:
        server = _metadata(origin, http)
        return f"{server['issuer']}/api", server

    return _login(origin, discover, show, http, sleep)


def _login(
    url: str,
    discover: Callable[[], tuple[str, dict[str, Any]]],
    show: Callable[[str, str], None],
    http: httpx2.Client,
    sleep: Callable[[float], None],
) -> dict[str, Any]:
    try:
        resource, server = discover()
        client = _register(server, http)
        begun = _post(http, server["device_authorization_endpoint"], client_id=client, resource=resource)
        show(begun["verification_uri_complete"], begun["user_code"])
        return _wait(server["token_endpoint"], client, begun, http, sleep)
    except httpx2.HTTPError as error:
        raise LoginFailed(f"The connection failed: {error or type(error).__name__}.") from error
    except KeyError as error:
        raise LoginFailed(f"What is at {url} offers no login by code: {error} is missing.") from error
    except ValueError as error:
        raise LoginFailed(
            f"What is at {url} does not answer as an MCP server behind Lockgate does."
        ) from error


def _discover(url: str, http: httpx2.Client) -> tuple[str, dict[str, Any]]:
    """The resource to ask a token for, and the metadata of the authorization server."""
    answer = http.get(url, headers={"accept": "text/event-stream"})
    found = _RESOURCE_METADATA.search(answer.headers.get("www-authenticate", ""))
    if answer.status_code != 401 or not found:
        raise LoginFailed(
            f"{url} does not ask for a login (HTTP status {answer.status_code}): give the URL of a server, "
            "…/mcp/NAME, or …/mcp for all of them."
        )
    resource = http.get(found[1]).raise_for_status().json()
    return resource["resource"], _metadata(resource["authorization_servers"][0], http)


def _metadata(issuer: str, http: httpx2.Client) -> dict[str, Any]:
    """What the authorization server `issuer` says of itself."""
    parts = urlsplit(issuer)
    path = f"/.well-known/oauth-authorization-server{parts.path.rstrip('/')}"
    server: dict[str, Any] = http.get(f"{parts.scheme}://{parts.netloc}{path}").raise_for_status().json()
    if server["issuer"] != issuer:
        raise LoginFailed(f"{issuer} says that it is {server['issuer']}.")
    return server


def _register(server: dict[str, Any], http: httpx2.Client) -> str:
    asked = {
        "client_name": f"lockgate login on {platform.node()}"[:200],
        "grant_types": [DEVICE_GRANT, "refresh_token"],
        "response_types": [],
        "redirect_uris": [],
        "token_endpoint_auth_method": "none",
    }
    answer = http.post(server["registration_endpoint"], json=asked)
    if answer.status_code != 201:
        raise LoginFailed(f"The registration was refused: {_reason(answer)}.")
    client: str = answer.json()["client_id"]
    return client


def _wait(
    endpoint: str, client: str, begun: dict[str, Any], http: httpx2.Client, sleep: Callable[[float], None]
) -> dict[str, Any]:
    """Ask until the person has answered."""
    interval, deadline = float(begun.get("interval", 5)), time.monotonic() + begun["expires_in"]
    while time.monotonic() < deadline:
        sleep(interval)
        form = {"grant_type": DEVICE_GRANT, "device_code": begun["device_code"], "client_id": client}
        answer = http.post(endpoint, data=form)
        tokens: dict[str, Any] = answer.json()
        if answer.status_code == 200:
            return tokens
        match tokens.get("error"):
            case "authorization_pending":
                pass
            case "slow_down":
                interval += SLOWER
            case "access_denied":
                raise LoginFailed("It was not allowed.")
            case _:
                raise LoginFailed(f"There is no token: {_reason(answer)}.")
    raise LoginFailed("Nobody answered in time.")


def _post(http: httpx2.Client, url: str, **form: str) -> dict[str, Any]:
    answer = http.post(url, data=form)
    if answer.status_code != 200:
        raise LoginFailed(f"The login was refused: {_reason(answer)}.")
    body: dict[str, Any] = answer.json()
    return body


def _reason(answer: httpx2.Response) -> str:
    body = answer.json()
    return str(body.get("error_description") or body.get("error") or f"HTTP status {answer.status_code}")
