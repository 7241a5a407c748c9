"""The words of the auth service, its rules and its errors. No I/O. Times are Unix seconds.

LockgateError
├── UnknownUser, UnknownGrant, UnknownSession, UnknownClient   404
├── BadLink                      404   whatever is wrong with it
├── EmailTaken                   409
├── LastAdministrator            409
├── AlreadyJoined, NotJoined     409
├── Deactivated                  409
├── BadEmail, WeakPassword       400
├── WrongPassword                403   of someone signed in, who changes it
└── TooManyAttempts              429
"""

import re
import secrets
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args
from urllib.parse import urlsplit

from libs.common.control.entries import Role
from libs.common.errors import BadRequest, Conflict, Forbidden, LockgateError, NotFound
from libs.common.tokens import LEEWAY

ACCESS_LIFETIME = 3600  # of access tokens, at most; the setting may make it shorter
REFRESH_LIFETIME = 180 * 24 * 3600
CODE_LIFETIME = 60
CONSOLE_LIFETIME = 15 * 60
# A client that lost the answer, or runs in two processes, may repeat a refresh for this long.
REPEAT_WINDOW = 30
# A revocation stays in the control log until the newest token it can concern is certainly expired.
REVOCATION_KEPT = ACCESS_LIFETIME + LEEWAY + 60
INVITATION_LIFETIME = 7 * 24 * 3600
RESET_LIFETIME = 24 * 3600
# A grant that has ended is remembered for so long, and with the last one of a client the client.
GRANT_KEPT = 180 * 24 * 3600
UNUSED_CLIENT_KEPT = 30 * 24 * 3600
# A signing key is public for so long before it signs: until then everybody who verifies has seen it.
KEY_AHEAD = 3600
# It verifies for so long after its successor took over: until the last token that it signed has expired. A
# replica may notice the successor late, and clocks differ.
KEY_KEPT = ACCESS_LIFETIME + 1800

PASSWORD_LENGTH = range(12, 1025)
_EMAIL = re.compile(r"[^@\s]{1,64}@[^@\s]{1,189}")
_READABLE = "abcdefghjkmnpqrstvwxyz23456789"


# How a client may prove itself at the token endpoint (RFC 7591, section 2), and the grants there are.
AuthMethod: TypeAlias = Literal["none", "client_secret_basic", "client_secret_post"]
AUTH_METHODS: list[AuthMethod] = list(get_args(AuthMethod))
DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"
GRANT_TYPES = ("authorization_code", "refresh_token", DEVICE_GRANT)
USUAL_GRANT_TYPES = GRANT_TYPES[:2]  # of clients that name none


ROLES: tuple[Role, ...] = ("member", "auditor", "admin")  # in the order in which people are offered them
# What an administrator's client for one of the organization's own services may do.
Right: TypeAlias = Literal["introspect"]
LinkPurpose: TypeAlias = Literal["invitation", "reset"]


@dataclass(frozen=True, slots=True)
class User:
    """A person with an account. `version` grows with every change of what the control log says.

    `joined_at` is None of somebody who is invited and has not signed in yet."""

    id: str
    email: str
    name: str
    role: Role
    active: bool
    tokens_valid_from: int
    version: int
    created_at: int
    joined_at: int | None = None

    def issue_time(self, now: int) -> int:
        """The `iat` of a token issued now. Tokens of the second in which the user was signed out everywhere
        are void, so one that is issued afterwards in that same second is dated to the next."""
        return max(now, self.tokens_valid_from)


@dataclass(frozen=True, slots=True)
class Session:
    """One login in one browser. Its id is the `grant` of the console tokens issued under it. `address` and
    `agent` (the User-Agent header) are those of the browser when it signed in."""

    id: str
    user_id: str
    created_at: int
    expires_at: int
    address: str = ""
    agent: str = ""


@dataclass(frozen=True, slots=True)
class Link:
    """A link that an administrator hands to a person, with which they set their password, once."""

    hash: str
    purpose: LinkPurpose
    user_id: str
    created_at: int
    expires_at: int


@dataclass(frozen=True, slots=True)
class Client:
    """An OAuth client: registered (RFC 7591), known by the document at the URL that is its id, or made by an
    administrator for a service of the organization, which then has `rights` and no grants.

    `secret_hash` is empty for a public one."""

    id: str
    name: str
    redirect_uris: tuple[str, ...]
    grant_types: tuple[str, ...]
    auth_method: str
    secret_hash: str
    created_at: int
    fresh_until: int | None = None  # of a client that is known by its metadata document
    rights: str = ""  # separated by spaces

    @property
    def document_host(self) -> str:
        """The host that vouches for its document; empty for a client that registered itself."""
        return document_host(self.id)

    @property
    def public(self) -> bool:
        return self.auth_method == "none"


@dataclass(frozen=True, slots=True)
class Code:
    """An authorization code: what was consented to, until the client fetches its tokens."""

    hash: str
    grant_id: str
    user_id: str
    client_id: str
    client_name: str
    redirect_uri: str  # as sent in the authorization request; empty when it was left out there
    redirect_host: str
    audience: str
    scope: str
    code_challenge: str
    expires_at: int
    used_at: int | None = None


@dataclass(frozen=True, slots=True)
class DeviceCode:
    """A request of a client that cannot open a browser (RFC 8628), and what the person said."""

    hash: str  # of the device code
    user_code: str
    client_id: str
    client_name: str
    audience: str
    scope: str
    expires_at: int
    polled_at: int
    interval: int  # seconds between two polls
    decision: str  # empty, `allowed` or `denied`


@dataclass(frozen=True, slots=True)
class Polled:
    """A device code as its client finds it."""

    code: DeviceCode
    too_early: bool


# The step of signing in that a browser is at: at the organization's provider, between the two factors, at a
# passkey; or of someone signed in, who adds an authenticator app or a passkey.
CeremonyKind: TypeAlias = Literal["sso", "second_factor", "passkey", "new_totp", "new_passkey"]


@dataclass(frozen=True, slots=True)
class Ceremony:
    """A step of signing in that one browser has begun. `user_id` is empty while nobody knows whose it is."""

    hash: str
    kind: CeremonyKind
    user_id: str
    data: dict[str, str]
    attempts: int
    created_at: int
    expires_at: int


@dataclass(frozen=True, slots=True)
class Grant:
    """One user's consent to one client. `last_used_at` is when the client last fetched a token with it: at
    most an access token's lifetime before its last call. `revoked_at` is when it ended, in whatever way."""

    id: str
    user_id: str
    client_id: str
    client_name: str
    redirect_host: str
    audience: str
    scope: str
    created_at: int
    last_used_at: int
    revoked_at: int | None = None

    @property
    def document_host(self) -> str:
        """The host that vouches for the client; empty for one that registered itself."""
        return document_host(self.client_id)

    @property
    def origin(self) -> str:
        """Where the client is, as people are told."""
        return self.document_host or self.redirect_host or "device code"


@dataclass(frozen=True, slots=True)
class RefreshToken:
    """A refresh token by its hash, and the grant it belongs to."""

    hash: str
    grant: Grant
    expires_at: int
    replaced_at: int | None


@dataclass(frozen=True, slots=True)
class Issue:
    """Permission to sign an access token: who, under which grant, dated when."""

    user: User
    grant: Grant
    issued_at: int


@dataclass(frozen=True, slots=True)
class SigningKey:
    """The `number`th key pair, as a private JWK (RFC 7517). `published_at` is since when everybody who
    verifies tokens knows it; None while that is not certain."""

    kid: str
    number: int
    jwk: dict[str, str]
    created_at: int
    published_at: int | None

    def signs(self, now: int) -> bool:
        """Whether it has been public for long enough to sign."""
        return self.published_at is not None and self.published_at + KEY_AHEAD <= now


class UnknownUser(NotFound):
    type, title = "unknown-user", "There is no such user"


class UnknownGrant(NotFound):
    type, title = "unknown-grant", "There is no such connected client"


class UnknownSession(NotFound):
    type, title = "unknown-session", "There is no such login"


class UnknownClient(NotFound):
    type, title = "unknown-client", "There is no such client of an administrator's making"


class BadLink(NotFound):
    """Unknown, used, replaced, expired, or of somebody who is gone: nobody is told which."""

    type, title = "bad-link", "This link is not valid any more"


class AlreadyJoined(Conflict):
    type, title = "already-joined", "This person has joined already"


class NotJoined(Conflict):
    type, title = "not-joined", "This person has not joined yet"


class Deactivated(Conflict):
    type, title = "deactivated", "This account is deactivated"


class EmailTaken(Conflict):
    type, title = "email-taken", "Somebody with this e-mail address exists already"


class LastAdministrator(Conflict):
    type, title = "last-administrator", "This is the last active administrator"


class BadEmail(BadRequest):
    type, title = "bad-email", "This is not an e-mail address"


class WeakPassword(BadRequest):
    type, title = "weak-password", "This password is too weak"


class WrongPassword(Forbidden):
    type, title = "wrong-password", "The present password is not right"


class TooManyAttempts(LockgateError):
    """`after` is the number of seconds until the next attempt is looked at."""

    status, type, title = 429, "too-many-attempts", "Too many attempts"

    def __init__(self, after: int) -> None:
        minutes = -(-after // 60)
        detail = f"Try again in {minutes} minute{'s' if minutes > 1 else ''}."
        super().__init__(detail, headers={"Retry-After": str(after)})


def document_host(client_id: str) -> str:
    """The host of the document that a client id leads to; empty when it is not the URL of one."""
    return urlsplit(client_id).hostname or "" if "://" in client_id else ""


def normal_email(text: str) -> str:
    """`text` as it is stored. Raises `ValueError` when it is no e-mail address."""
    email = text.strip()
    if not _EMAIL.fullmatch(email) or not email.isprintable():
        raise ValueError("must be an e-mail address such as ada@example.com")
    return email


def checked_email(text: str) -> str:
    """As `normal_email`, for callers of the API. Raises `BadEmail`."""
    try:
        return normal_email(text)
    except ValueError as error:
        raise BadEmail(f"The e-mail {error}.") from error


def email_key(email: str) -> str:
    """Equal for two spellings of an address that mean the same person."""
    return email.strip().casefold()


def check_password(password: str) -> None:
    """Raises `ValueError` for a password that may not be set (NIST SP 800-63B: length is what counts)."""
    if len(password) not in PASSWORD_LENGTH:
        raise ValueError(f"must have at least {PASSWORD_LENGTH.start} characters")
    if len(set(password)) < 5:
        raise ValueError("must have at least five different characters")


def generate_password() -> str:
    """A password of 78 random bits that can be read out on the telephone."""
    letters = "".join(secrets.choice(_READABLE) for _ in range(16))
    return "-".join(letters[i : i + 4] for i in range(0, 16, 4))
