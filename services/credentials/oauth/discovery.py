"""From a server's URL to its authorization server, as MCP has it (basic/authorization, 2025-11-25 and later;
RFC 9728, RFC 8414, OpenID Connect Discovery 1.0).

    server URL → its 401 → resource metadata → authorization server → its metadata

A step that the upstream leaves out is made up for by the well-known places, and at last, as of 2025-03-26, by
the server's own origin as the authorization server.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import urlsplit

import msgspec

from libs.common.control.entries import Server, origin_of
from libs.common.errors import BadRequest
from libs.common.fetching import CannotFetch
from services.credentials.oauth.domain import Found, Metadata, ProviderFailed, short
from services.credentials.oauth.web import Web, host, json_object

_HELLO = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-11-25",
        "capabilities": {},
        "clientInfo": {"name": "Lockgate", "version": "1"},
    },
}
_HEADERS = {"Accept": "application/json, text/event-stream", "Content-Type": "application/json"}
_ISSUERS = 5  # of an upstream's that are tried


async def discover(server: Server, web: Web, *, issuer: str = "", assume_pkce: bool = False) -> Found:
    """What there is to know before somebody can connect to `server`. `issuer`, if given, is taken for its
    authorization server. Raises `ProviderFailed`, which says what was looked for in vain."""
    challenge = await _challenge(server, web)
    resource = await _resource_metadata(server.url, challenge.get("resource_metadata", ""), web)
    named = [issuer] if issuer else _strings(resource.get("authorization_servers"))[:_ISSUERS]
    metadata = await _first(named or [_root(server.url)], web, assume_pkce=assume_pkce)
    identifier = resource.get("resource") if isinstance(resource.get("resource"), str) else server.url
    offered = _strings(resource.get("scopes_supported"))
    scopes = challenge.get("scope", "") or " ".join(offered)
    return Found(metadata=metadata, resource=identifier or "", scopes=_lasting(scopes, metadata))


async def read_metadata(issuer: str, web: Web, *, assume_pkce: bool = False) -> Metadata:
    """The metadata of `issuer`. Raises `ProviderFailed`."""
    return await _first([issuer], web, assume_pkce=assume_pkce)


def challenge_of(header: str) -> dict[str, str]:
    """The parameters of a `WWW-Authenticate` header (RFC 9110, section 11.6.1; RFC 9728, section 5.1)."""
    pattern = r'(?:^|[\s,])(\w+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s",]+))'
    found = {name.lower(): quoted or bare for name, quoted, bare in re.findall(pattern, header)}
    return {name: re.sub(r"\\(.)", r"\1", value) for name, value in found.items()}


async def _challenge(server: Server, web: Web) -> dict[str, str]:
    """What the upstream says to somebody without a token; nothing if it lets them in."""
    method, body = ("GET", b"") if server.transport == "sse" else ("POST", msgspec.json.encode(_HELLO))
    try:
        answer = await web.request(method, server.url, headers=_HEADERS, body=body, limit=0)
    except CannotFetch as error:
        raise ProviderFailed(f"{host(server.url)} cannot be asked how to sign in: {short(error)}") from error
    if answer.status not in {401, 403}:
        return {}
    return challenge_of(answer.headers.get("www-authenticate", ""))


async def _resource_metadata(url: str, named: str, web: Web) -> dict[str, Any]:
    """The protected resource's metadata (RFC 9728), which has to be about `url`; empty if there is none."""
    for place in ([named] if named else []) + list(_resource_places(url)):
        found = await _object(place, web)
        if not found:
            continue
        if not covers(found.get("resource"), url):
            about = short(found.get("resource"))
            raise ProviderFailed(
                f"{short(place)} is about the resource {about!r}, which {short(url)} is no part of"
            )
        return found
    return {}


def covers(resource: object, url: str) -> bool:
    """Whether `url` is that resource or a part of it, so that a token for one is meant for the other."""
    if not isinstance(resource, str) or not origin_of(url) or origin_of(resource) != origin_of(url):
        return False
    path, below = urlsplit(url).path.rstrip("/") + "/", urlsplit(resource).path.rstrip("/") + "/"
    return path.startswith(below)


async def _first(issuers: list[str], web: Web, *, assume_pkce: bool) -> Metadata:
    problems: list[str] = []
    for issuer in issuers:
        try:
            web.check("the issuer", issuer)
            return await _metadata(issuer, web, assume_pkce=assume_pkce)
        except (ProviderFailed, BadRequest) as error:
            problems.append(f"{short(issuer)}: {error.detail}")
    raise ProviderFailed("; ".join(problems))


async def _metadata(issuer: str, web: Web, *, assume_pkce: bool) -> Metadata:
    for place in _metadata_places(issuer):
        if found := await _object(place, web):
            return checked(found, issuer, web, assume_pkce=assume_pkce)
    raise ProviderFailed(
        "it has no metadata at the well-known places (RFC 8414, OpenID Discovery); "
        "enter its endpoints by hand"
    )


def checked(found: dict[str, Any], issuer: str, web: Web, *, assume_pkce: bool) -> Metadata:
    """`found` as the metadata of `issuer`. Raises `ProviderFailed`, `BadRequest`."""
    try:
        metadata = msgspec.convert({k: v for k, v in found.items() if v is not None}, Metadata)
    except msgspec.ValidationError as error:
        raise ProviderFailed(f"its metadata cannot be used: {short(error)}") from error
    if metadata.issuer.rstrip("/") != issuer.rstrip("/"):  # RFC 8414, section 3.3; a slash apart at most
        raise ProviderFailed(f"its metadata is that of {short(metadata.issuer)!r}")
    if not assume_pkce and "S256" not in metadata.code_challenge_methods_supported:
        raise ProviderFailed(
            "its metadata does not offer PKCE with S256, without which a code could be stolen. If it is "
            "known to take it all the same, say so in the provider's settings (assume_pkce)"
        )
    for name, url in msgspec.structs.asdict(metadata).items():
        if name.endswith("_endpoint") and url:
            web.check(name, url)
    return metadata


async def _object(url: str, web: Web) -> dict[str, Any]:
    """The JSON object at `url`; empty if there is none. Raises `ProviderFailed` if it cannot be asked."""
    try:
        answer = await web.request("GET", url)
    except CannotFetch as error:
        raise ProviderFailed(f"{host(url)}: {short(error)}") from error
    except BadRequest as error:
        raise ProviderFailed(f"{short(url)}: {error.detail}") from error
    if answer.status >= 500:
        raise ProviderFailed(f"{short(url)} answers with HTTP status {answer.status}")
    return json_object(answer.body) if answer.status == 200 else {}


def _root(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def _resource_places(url: str) -> Iterator[str]:
    """RFC 9728, section 3.1, then the root."""
    path = urlsplit(url).path.rstrip("/")
    well_known = f"{_root(url)}/.well-known/oauth-protected-resource"
    if path:
        yield well_known + path
    yield well_known


def _metadata_places(issuer: str) -> Iterator[str]:
    """RFC 8414, sections 3.1 and 5; Discovery 1.0, section 4."""
    root, path = _root(issuer), urlsplit(issuer).path.rstrip("/")
    yield f"{root}/.well-known/oauth-authorization-server{path}"
    yield f"{root}/.well-known/openid-configuration{path}"
    if path:
        yield f"{root}{path}/.well-known/openid-configuration"


def _strings(value: object) -> list[str]:
    return [item for item in value if isinstance(item, str)] if isinstance(value, Iterable) else []


def _lasting(scopes: str, metadata: Metadata) -> str:
    """`scopes`, with that for a refresh token where it is a scope (OpenID Connect Core, section 11)."""
    if "offline_access" in metadata.scopes_supported and "offline_access" not in scopes.split():
        return f"{scopes} offline_access".strip()
    return scopes
