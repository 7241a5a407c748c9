"""What the provider of the tests has given out: clients, codes, tokens and their families."""

import hashlib
import secrets
import time
from base64 import urlsafe_b64encode
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Knobs:
    """How the provider behaves. A test changes them while it runs (`PUT /control/knobs`)."""

    lifetime: int = 3600  # seconds of an access token
    say_lifetime: bool = True
    rotate: bool = True  # a refresh gives a new refresh token and ends the old one
    grace: float = 0.0  # seconds for which the old one still gives the same successor
    empty_refresh_token: bool = False  # in the answer to a refresh
    status: int = 0  # every token request is answered with it
    slow: float = 0.0  # seconds before a token request is answered
    hold: str = ""  # "before" or "after" a refresh is done: do not go on until released
    account: str = "ada@example.com"  # who is signed in at the provider
    deny: bool = False  # that person does not allow anything
    registration: bool = True
    pkce_advertised: bool = True
    iss: str = ""  # another issuer in the authorization response
    say_iss: bool = True
    require_resource: bool = True


class Refusal(Exception):
    """An error of RFC 6749, section 5.2."""

    def __init__(self, code: str, status: int = 400) -> None:
        super().__init__(code)
        self.code, self.status = code, status


@dataclass
class Code:
    client_id: str
    redirect_uri: str
    challenge: str
    resource: str
    scope: str
    account: str


@dataclass
class Family:
    """The tokens that came of one consent. It ends as a whole."""

    client_id: str
    account: str
    scope: str
    resource: str
    revoked: bool = False


@dataclass
class Token:
    family: Family
    expires_at: float = 0.0  # of an access token
    used_at: float = 0.0  # of a refresh token that was rotated away
    successor: dict[str, Any] | None = None


@dataclass
class Book:
    knobs: Knobs = field(default_factory=Knobs)
    clients: dict[str, dict[str, Any]] = field(default_factory=dict)
    codes: dict[str, Code] = field(default_factory=dict)
    access: dict[str, Token] = field(default_factory=dict)
    refresh: dict[str, Token] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    verifiers: list[str] = field(default_factory=list)  # RFC 7636, of codes that were redeemed

    def count(self, what: str) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1

    def register(self, asked: dict[str, Any]) -> dict[str, Any]:
        method = asked.get("token_endpoint_auth_method", "client_secret_basic")
        client = {
            **asked,
            "client_id": f"client-{secrets.token_hex(8)}",
            "token_endpoint_auth_method": method,
            **({} if method == "none" else {"client_secret": f"cs-{secrets.token_urlsafe(24)}"}),
        }
        self.clients[client["client_id"]] = client
        return client

    def authenticate(self, client_id: str, secret: str) -> None:
        client = self.clients.get(client_id)
        if client is None or client.get("client_secret", "") != secret:
            raise Refusal("invalid_client", 401)

    def redeem(self, form: dict[str, str]) -> dict[str, Any]:
        code = self.codes.pop(form.get("code", ""), None)
        if code is None or code.client_id != form["client_id"] or code.redirect_uri != form["redirect_uri"]:
            raise Refusal("invalid_grant")
        digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        if urlsafe_b64encode(digest).rstrip(b"=").decode() != code.challenge:
            raise Refusal("invalid_grant")
        if self.knobs.require_resource and form.get("resource") != code.resource:
            raise Refusal("invalid_target")
        self.verifiers.append(form["code_verifier"])
        return self.give(Family(code.client_id, code.account, code.scope, code.resource))

    def renew(self, form: dict[str, str]) -> dict[str, Any]:
        """As RFC 9700, section 4.14.2 has it: a refresh token that comes back late ends its family."""
        token = self.refresh.get(form.get("refresh_token", ""))
        if token is None or token.family.revoked or token.family.client_id != form["client_id"]:
            raise Refusal("invalid_grant")
        if token.successor:
            if time.time() - token.used_at > self.knobs.grace:
                token.family.revoked = True
                self.count("reuses")
                raise Refusal("invalid_grant")
            return token.successor
        self.count("refreshes")
        answer = self.give(token.family, refresh=self.knobs.rotate)
        if self.knobs.rotate:
            token.used_at, token.successor = time.time(), answer
        if self.knobs.empty_refresh_token:
            answer = answer | {"refresh_token": ""}
        return answer

    def give(self, family: Family, *, refresh: bool = True) -> dict[str, Any]:
        access = f"at-{secrets.token_urlsafe(24)}"
        self.access[access] = Token(family, time.time() + self.knobs.lifetime)
        answer: dict[str, Any] = {"access_token": access, "token_type": "Bearer", "scope": family.scope}
        if self.knobs.say_lifetime:
            answer["expires_in"] = self.knobs.lifetime
        if refresh:
            answer["refresh_token"] = f"rt-{secrets.token_urlsafe(24)}"
            self.refresh[answer["refresh_token"]] = Token(family)
        return answer

    def introspect(self, access: str) -> dict[str, Any]:
        token = self.access.get(access)
        if token is None or token.family.revoked or token.expires_at <= time.time():
            return {"active": False}
        family = token.family
        told = {"active": True, "sub": family.account, "scope": family.scope, "aud": family.resource}
        return told | {"client_id": family.client_id, "exp": int(token.expires_at)}

    def revoke(self, token: str) -> None:
        for tokens in (self.refresh, self.access):
            if token in tokens:
                tokens[token].family.revoked = True
                self.count("revocations")

    def revoke_everything(self) -> None:
        for token in self.refresh.values():
            token.family.revoked = True

    def expire_everything(self) -> None:
        for token in self.access.values():
            token.expires_at = 0.0

    def honoured(self) -> list[str]:
        """The refresh tokens that would be taken now."""
        return [
            name for name, token in self.refresh.items() if not token.family.revoked and not token.used_at
        ]
