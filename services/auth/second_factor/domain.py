"""The words of second factors and passkeys, and their errors. No I/O. Times are Unix seconds.

LockgateError
├── WrongCode        403   a code that is not right, not right any more, or was used
├── BadPasskey       400   a passkey's answer that proves nothing; also 403 where it should have let in
├── UnknownPasskey   404
├── NothingPending   404   the step was not begun in this browser, or too long ago
├── NoPassword       409   the account has none, so there is nothing for a second factor to be second to
└── FactorRequired   409   the organization wants people to have one
"""

from dataclasses import dataclass

from libs.common.errors import BadRequest, Conflict, Forbidden, NotFound

RECOVERY_CODES = 10
PASSKEYS_EACH = 20


@dataclass(frozen=True, slots=True)
class Totp:
    """A confirmed authenticator app (RFC 6238). No code of `last_step` or before it is accepted again."""

    user_id: str
    sealed_secret: str
    last_step: int
    created_at: int


@dataclass(frozen=True, slots=True)
class Passkey:
    """A WebAuthn credential; id and COSE public key in base64url."""

    id: str
    user_id: str
    public_key: str
    sign_count: int
    name: str
    created_at: int
    last_used_at: int | None = None


@dataclass(frozen=True, slots=True)
class Factors:
    """What an account has beside its password. `recovery_left` counts unused recovery codes."""

    totp: Totp | None
    passkeys: tuple[Passkey, ...]
    recovery_left: int

    @property
    def any(self) -> bool:
        return self.totp is not None or bool(self.passkeys)

    @property
    def number(self) -> int:
        return len(self.passkeys) + (self.totp is not None)


class WrongCode(Forbidden):
    type, title = "wrong-code", "The code is not right"


class BadPasskey(BadRequest):
    type, title = "bad-passkey", "The passkey’s answer cannot be used"


class UnknownPasskey(NotFound):
    type, title = "unknown-passkey", "There is no such passkey"


class NothingPending(NotFound):
    type, title = "nothing-pending", "This step has expired"

    def __init__(self) -> None:
        super().__init__("It was begun too long ago, or in another browser. Begin again.")


class NoPassword(Conflict):
    type, title = "no-password", "This account has no password"


class FactorRequired(Conflict):
    type, title = "second-factor-required", "Your organization requires a second factor"
