"""The records of this service: who signed in and who was granted what, and what administrators changed."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import msgspec

from libs.common.clock import iso, now
from libs.common.control.changes import Told
from libs.common.control.entries import User as UserEntry
from libs.common.ids import new_id
from libs.common.journal import Journal
from libs.common.records import AuthEvent
from libs.common.throttle import EventBudget, source_of
from services.auth.control import revoked_key, user_key
from services.auth.domain import Client, Grant, User, email_key
from services.auth.throttle import LoginThrottle

# Records per address and minute of each kind that anybody can cause. Nobody without an account may fill the
# journal.
EVENTS_PER_MINUTE = 30

# What happened, and whether it was let happen.
AuthEventName = Literal[
    "signed_in",
    "signed_out",
    "signed_out_everywhere",
    "joined",
    "identity_linked",
    "second_factor_added",
    "second_factor_failed",
    "second_factor_removed",
    "recovery_codes_made",
    "recovery_code_used",
    "passkey_added",
    "passkey_removed",
    "password_changed",
    "password_reset",
    "client_registered",
    "consented",
    "granted",
    "code_reused",
    "refreshed",
    "refresh_reused",
    "revoked",
]


def auth_event(
    event: AuthEventName,
    *,
    refused: str = "",
    user: User | UserEntry | None = None,
    email: str = "",
    grant: Grant | None = None,
    client: Client | None = None,
    address: str = "",
    server: str = "",
    detail: str = "",
) -> AuthEvent:
    """`refused` is the reason when it was refused."""
    return AuthEvent(
        id=new_id(),
        time=iso(now()),
        event=event,
        outcome="refused" if refused else "ok",
        reason=refused,
        user=user.id if user else grant.user_id if grant else "",
        email=user.email if user else email,
        grant=grant.id if grant else "",
        client_id=client.id if client else grant.client_id if grant else "",
        client_name=client.name if client else grant.client_name if grant else "",
        address=address,
        server=server or (server_of(grant.audience) if grant else ""),
        detail=detail,
    )


def server_of(audience: str) -> str:
    """The slug in an audience `…/mcp/<slug>`; empty for the gateway as a whole and for the APIs."""
    return audience.partition("/mcp/")[2]


@dataclass(frozen=True, slots=True)
class Audit:
    journal: Journal
    _budget: EventBudget = field(default_factory=lambda: EventBudget(EVENTS_PER_MINUTE, name="auth_events"))
    _throttled: EventBudget = field(default_factory=lambda: EventBudget(1, LoginThrottle.WINDOW))

    def by_anybody(self, event: AuthEvent) -> None:
        """Record what it takes no account to bring about: only so many of a kind per address and minute."""
        if self._budget.spend(f"{event.event} {source_of(event.address)}"):
            self.journal.append(event)

    def throttled(self, event: AuthEvent) -> None:
        """Record that logins to an account are throttled at an address, once per window of the throttle."""
        if self._throttled.spend(f"{email_key(event.email)} {source_of(event.address)}"):
            self.by_anybody(event)


def told_of_user(before: User | None, after: User | None, ended: Sequence[str] = ()) -> Told:
    """What the record says of an administrator's change of an account, and where it stands in the control
    log; `ended` are the grants and sessions that ended with it."""
    user = after or before
    assert user
    keys = [user_key(user.id), *map(revoked_key, ended)]
    return Told(keys, _public(before) if before else "", _public(after) if after else "")


def _public(user: User) -> str:
    return msgspec.json.encode(
        {"email": user.email, "name": user.name, "role": user.role, "active": user.active}
    ).decode()
