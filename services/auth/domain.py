"""The words of the auth service, its rules and its errors. No I/O. Times are Unix seconds.

LockgateError
├── UnknownUser, UnknownGrant   404
├── EmailTaken                  409
├── LastAdministrator           409
├── BadEmail, WeakPassword      400
├── WrongPassword               403   of someone signed in, who changes it
└── TooManyAttempts             429
"""

import re
import secrets
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args
from urllib.parse import urlsplit

from libs.common.control.entries import Role
from libs.common.errors import BadRequest, Conflict, Forbidden, LockgateError, NotFound
from libs.common.tokens import LEEWAY

ACCESS_LIFETIME = 3600
REFRESH_LIFETIME = 180 * 24 * 3600
CODE_LIFETIME = 60
CONSOLE_LIFETIME = 15 * 60
# A client that lost the answer, or runs in two processes, may repeat a refresh for this long.
REPEAT_WINDOW = 30
# A revocation stays in the control log until the newest token it can concern is certainly expired.
REVOCATION_KEPT = ACCESS_LIFETIME + LEEWAY + 60

PASSWORD_LENGTH = range(12, 1025)
_EMAIL = re.compile(r"[^@\s]{1,64}@[^@\s]{1,189}")
_READABLE = "abcdefghjkmnpqrstvwxyz23456789"


# How a client may prove itself at the token endpoint (RFC 7591, section 2), and the grants there are.
AuthMethod: TypeAlias = Literal["none", "client_secret_basic", "client_secret_post"]
AUTH_METHODS: list[AuthMethod] = list(get_args(AuthMethod))
DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"
GRANT_TYPES = ("authorization_code", "refresh_token", DEVICE_GRANT)
USUAL_GRANT_TYPES = GRANT_TYPES[:2]  # of clients that name none


@dataclass(frozen=True, slots=True)
class User:
    """A person with an account. `version` grows with every change of what the control log says."""

    id: str
    email: str
    name: str
    role: Role
    active: bool
    tokens_valid_from: int
    version: int
    created_at: int

    def issue_time(self, now: int) -> int:
        """The `iat` of a token issued now. Tokens of the second in which the user was signed out everywhere
        are void, so one that is issued afterwards in that same second is dated to the next."""
        return max(now, self.tokens_valid_from)


@dataclass(frozen=True, slots=True)
class Session:
    """One login in one browser. Its id is the `grant` of the console tokens issued under it."""

    id: str
    user_id: str
    created_at: int
    expires_at: int


@dataclass(frozen=True, slots=True)
class Client:
    """An OAuth client, registered (RFC 7591) or known by the document at the URL that is its id.

    `secret_hash` is empty for a public one."""

    id: str
    name: str
    redirect_uris: tuple[str, ...]
    grant_types: tuple[str, ...]
    auth_method: str
    secret_hash: str
    created_at: int
    fresh_until: int | None = None  # of a client that is known by its metadata document

    @property
    def document_host(self) -> str:
        """The host that vouches for its document; empty for a client that registered itself."""
        return urlsplit(self.id).hostname or "" if self.fresh_until is not None else ""

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


@dataclass(frozen=True, slots=True)
class Grant:
    """One user's consent to one client."""

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


class UnknownUser(NotFound):
    type, title = "unknown-user", "There is no such user"


class UnknownGrant(NotFound):
    type, title = "unknown-grant", "There is no such connected client"


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


def normal_email(text: str) -> str:
    """`text` as it is stored. Raises `ValueError` when it is no e-mail address."""
    email = text.strip()
    if not _EMAIL.fullmatch(email) or not email.isprintable():
        raise ValueError("must be an e-mail address such as ada@example.com")
    return email


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
