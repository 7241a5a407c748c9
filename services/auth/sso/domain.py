"""The words of single sign-on and its refusals. No I/O. Times are Unix seconds.

LockgateError
├── Refused          403   the provider knows the person, and they may not come in
├── BadAnswer        400   what the browser brings back is not an answer to what it was sent with
└── ProviderFailed   502   the provider does not answer as it should
"""

from dataclasses import dataclass

from libs.common.control.entries import Role
from libs.common.errors import BadRequest, Forbidden, LockgateError


@dataclass(frozen=True, slots=True)
class Identity:
    """Who somebody is at the provider, and whose account that is. The e-mail is the one last seen there."""

    issuer: str
    subject: str
    user_id: str
    email: str
    created_at: int
    last_used_at: int


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody as the provider describes them, after the rules of `services.auth.sso.claims`.

    `role` and `groups` (most wanted first) are None where the provider does not decide them.
    """

    issuer: str
    subject: str
    email: str
    name: str
    role: Role | None = None
    groups: tuple[str, ...] | None = None


class Refused(Forbidden):
    """`reason` is for the record, the detail for the person."""

    type, title = "sign-in-refused", "You cannot sign in"

    def __init__(self, reason: str, detail: str, email: str = "") -> None:
        super().__init__(detail)
        self.reason, self.email = reason, email


class BadAnswer(BadRequest):
    """The same, of an answer that nobody may have sent."""

    type, title = "bad-sign-in-answer", "This sign-in cannot be completed"

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class ProviderFailed(LockgateError):
    """`why` is a sentence for administrators, without secrets; people are told only that it failed."""

    status, type, title = (
        502,
        "provider-failed",
        "Your organization’s sign-in service does not answer as it should",
    )

    def __init__(self, why: str, reason: str = "sso_provider_failed") -> None:
        super().__init__("Try again in a moment. If it stays like this, tell an administrator.")
        self.why, self.reason = why, reason
