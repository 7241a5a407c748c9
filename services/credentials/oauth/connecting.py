"""Sending somebody to a provider, and what they bring back: the authorization code flow with PKCE (RFC 6749,
RFC 7636, RFC 8707, RFC 9207, RFC 9700)."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec
from authlib.common.security import generate_token
from authlib.common.urls import add_params_to_uri
from authlib.oauth2.rfc7636 import create_s256_code_challenge

from libs.common.control.entries import Server, destination_of
from libs.common.errors import BadRequest, Conflict
from services.credentials.changes import LOCKGATE, Changes
from services.credentials.domain import LABEL_LENGTH, Draft, Owner, Provider
from services.credentials.oauth import endpoints
from services.credentials.oauth.discovery import discover, read_metadata
from services.credentials.oauth.domain import Client, Connection, Found, Metadata, ProviderRefused, short
from services.credentials.oauth.leases import refresh_at
from services.credentials.oauth.pending import Pending, Pendings
from services.credentials.oauth.provider import OAuthSettings, ProviderSecrets, secrets_of, settings_of
from services.credentials.oauth.registration import register
from services.credentials.oauth.web import Web, host
from services.credentials.store.providers import Providers

CALLBACK = "/credentials/callback"


class ConnectionRefused(BadRequest):
    type, title = "connection-refused", "The provider did not connect you"


@dataclass(frozen=True, slots=True)
class Departure:
    """Where to send a browser. `receiver`, if not empty, is another host that gets what is allowed there, as
    the upstream says. People have to see that first: it might want what an honest provider lets Lockgate do
    (mix-up attack; RFC 9700, section 4.4)."""

    url: str
    receiver: str


@dataclass(frozen=True, slots=True)
class Connected:
    """What somebody came back with, to be stored for `owner`, in the place of `account_id` if given."""

    owner: Owner
    draft: Draft
    account_id: str


class Connecting:
    """`web` is the network; `public_url` is where browsers find us."""

    def __init__(
        self, providers: Providers, pendings: Pendings, web: Web, changes: Changes, public_url: str
    ) -> None:
        self._providers, self._pendings, self._web, self._changes = providers, pendings, web, changes
        self.redirect_uri = public_url + CALLBACK

    async def begin(
        self, server: Server, owner: Owner, user: str, *, session: str, account_id: str = ""
    ) -> Departure:
        """Where to send the browser of `user`. Raises `ProviderFailed`, `BadRequest`."""
        stored = await asyncio.to_thread(self._providers.open, server.slug)
        settings = settings_of(stored[0] if stored else None)
        secrets = secrets_of(stored[1]) if stored and stored[0].kind == "oauth" else ProviderSecrets()
        web = self._trusted(server, settings)
        found = await _found(server, settings, web)
        client = await self._client(server.slug, settings, secrets, found, web)
        pending = Pending(
            slug=server.slug,
            owner=owner.user,
            account_id=account_id,
            origin=destination_of(server),
            verifier=generate_token(64),
            metadata=found.metadata,
            client=client,
            settings=settings,
            resource=found.resource,
            scopes=found.scopes,
        )
        state = await asyncio.to_thread(self._pendings.put, pending, user, session)
        url = self._authorization_url(pending, state, settings)
        receiver = host(found.metadata.token_endpoint)
        is_known = settings.issuer or settings.entered or receiver == host(url)
        return Departure(url, "" if is_known else receiver)

    async def complete(
        self, answer: Mapping[str, str], servers: Mapping[str, Server], user: str, session: str
    ) -> Connected:
        """What the browser of `user` brought back, the query of the callback. Raises `UnknownState`,
        `ConnectionRefused`, `ProviderFailed`, `Conflict`."""
        pending = await asyncio.to_thread(self._pendings.take, answer.get("state", ""), user, session)
        _check_issuer(answer.get("iss"), pending)
        if error := answer.get("error"):
            raise ConnectionRefused(_why(error, answer.get("error_description", "")))
        server = servers.get(pending.slug)
        if server is None or destination_of(server) != pending.origin:
            raise Conflict("The server was moved or deleted in the meantime. Connect again.")
        web = self._trusted(server, pending.settings)
        connection, label = await self._redeem(web, pending, answer.get("code", ""))
        draft = Draft(
            kind="oauth",
            secret=connection.encode(),
            origin=pending.origin,
            label=label[:LABEL_LENGTH],
            expires_at=connection.expires_at,
            refresh_at=refresh_at(connection),
        )
        return Connected(Owner(pending.slug, pending.owner), draft, pending.account_id)

    async def _redeem(self, web: Web, pending: Pending, code: str) -> tuple[Connection, str]:
        """The tokens for `code`, and as whom somebody is connected."""
        metadata, client, settings = pending.metadata, pending.client, pending.settings
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self.redirect_uri,
            "code_verifier": pending.verifier,
            **({"resource": pending.resource} if pending.resource else {}),
            **settings.token_parameters,
        }
        try:
            given = await endpoints.redeem(web, metadata.token_endpoint, client, form, settings.lifetime)
        except ProviderRefused as error:
            if error.code == "invalid_client":
                await self._forget(pending.slug, client)
            raise ConnectionRefused(error.detail) from error
        who = settings.identity_endpoint or metadata.userinfo_endpoint
        label = await endpoints.identify(web, who, given, settings.identity_field)
        connection = Connection(
            issuer=metadata.issuer,
            token_endpoint=metadata.token_endpoint,
            revocation_endpoint=metadata.revocation_endpoint,
            client=client,
            resource=pending.resource,
            token_parameters=settings.token_parameters,
            lifetime=settings.lifetime,
            access_token=given.access_token,
            refresh_token=given.refresh_token,
            scope=given.scope or pending.scopes,
            obtained_at=given.obtained_at,
            expires_at=given.expires_at,
        )
        return connection, label

    async def _client(
        self, slug: str, settings: OAuthSettings, secrets: ProviderSecrets, found: Found, web: Web
    ) -> Client:
        """The client that was entered, else the one that we registered, else a new one."""
        if settings.client_id:
            if secrets.client_secret:
                await self._bind(slug, settings, secrets, found.metadata)
            return settings.client(secrets.client_secret, found.metadata)
        known = secrets.registered
        if known and known.serves(found.metadata.issuer, self.redirect_uri):
            return known
        client = await register(found, self.redirect_uri, web)
        await self._keep(slug, client)
        return client

    async def _bind(
        self, slug: str, settings: OAuthSettings, secrets: ProviderSecrets, metadata: Metadata
    ) -> None:
        """See to it that the client's secret goes to one authorization server only. Raises `Conflict`."""
        if settings.serves(metadata.issuer, metadata.token_endpoint, first=secrets.first):
            return
        if secrets.first:
            raise Conflict(
                f"{slug} names {short(metadata.issuer)} as its authorization server now, and the client's "
                f"secret is for {short(secrets.first)}. If that is right, an administrator has to enter the "
                "issuer and its client in the provider's settings."
            )
        await self._change_secrets(slug, first=metadata.issuer)

    async def _change_secrets(self, slug: str, **changed: object) -> bool:
        """False if no provider is stored."""
        stored = await asyncio.to_thread(self._providers.open, slug)
        if stored is None or stored[0].kind != "oauth":
            return False
        secrets = msgspec.structs.replace(secrets_of(stored[1]), **changed)
        await asyncio.to_thread(self._providers.reseal, stored[0], msgspec.json.encode(secrets))
        return True

    async def _keep(self, slug: str, client: Client | None) -> None:
        """Remember our registration at the server's provider. One that another replica makes at the same time
        is as good: whoever was sent there with it comes back with it."""

        def write() -> tuple[Provider | None, Provider | None, list[Owner]]:
            secret = msgspec.json.encode(ProviderSecrets(registered=client))
            return self._providers.put(slug, "oauth", LOCKGATE.id, secret=secret)

        if not await self._change_secrets(slug, registered=client) and client:
            await self._changes.provide(LOCKGATE, slug, write)

    async def _forget(self, slug: str, client: Client) -> None:
        """The provider does not know our registration any more: the next time we make a new one."""
        if client.registered_for:
            await self._keep(slug, None)

    def _authorization_url(self, pending: Pending, state: str, settings: OAuthSettings) -> str:
        asked = {
            "response_type": "code",
            "client_id": pending.client.client_id,
            "redirect_uri": self.redirect_uri,
            "state": state,
            "scope": pending.scopes,
            "resource": pending.resource,
            "code_challenge": create_s256_code_challenge(pending.verifier),
            "code_challenge_method": "S256",
            **settings.authorize_parameters,
        }
        given = [(name, value) for name, value in asked.items() if value]
        return str(add_params_to_uri(pending.metadata.authorization_endpoint, given))

    def _trusted(self, server: Server, settings: OAuthSettings) -> Web:
        return self._web.trusting(server.url, *settings.urls)


async def _found(server: Server, settings: OAuthSettings, web: Web) -> Found:
    """What is to be known of the authorization server: entered, or what the upstream says."""
    if settings.entered:
        found = Found(metadata=settings.metadata(), resource=server.url)
    elif not server.url:
        if not settings.issuer:
            raise BadRequest(
                f"{server.slug} is a command, which cannot be asked for its provider: an administrator has "
                "to enter the issuer or the endpoints in the provider's settings"
            )
        metadata = await read_metadata(settings.issuer, web, assume_pkce=settings.assume_pkce)
        found = Found(metadata=metadata)
    else:
        found = await discover(server, web, issuer=settings.issuer, assume_pkce=settings.assume_pkce)
    resource = (settings.resource or found.resource) if settings.send_resource else ""
    return msgspec.structs.replace(found, resource=resource, scopes=settings.scopes or found.scopes)


def _check_issuer(given: str | None, pending: Pending) -> None:
    """RFC 9207, section 2.4: an answer of another authorization server is no answer (mix-up attack)."""
    metadata = pending.metadata
    expected = metadata.authorization_response_iss_parameter_supported
    if (given is None and expected) or (given is not None and metadata.issuer and given != metadata.issuer):
        raise ConnectionRefused("The answer did not come from the provider to which you were sent.")


def _why(error: str, description: str) -> str:
    if error == "access_denied":
        return "It was not allowed there. Connect again if that was a mistake."
    return f"It says {short(error)}" + (f": {short(description)}" if description else ".")
