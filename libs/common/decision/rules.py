"""Rules: conditions in CEL on who calls what, with which arguments, and when.

They narrow what a group may use. Of the enabled rules whose scope holds the caller and whose servers and
tools the use is among, the one of the highest priority whose condition holds decides; of equal ones deny wins.
An `allow` exempts from the denials of lower priority, and opens nothing that the group may not use. A condition
that cannot be evaluated, or is neither true nor false, denies.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import cel

from libs.common.control.entries import Rule
from libs.common.decision.subjects import Subject

if TYPE_CHECKING:
    from libs.common.decision.ladder import Climb


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the rule with that key of the control log says. `failed`: its condition could not be evaluated."""

    allows: bool
    key: str
    detail: str = ""
    failed: bool = False


def verdict(climb: "Climb") -> Verdict | None:
    """What the rules say of the climb's call: the first denial of its subjects; None if no rule holds."""
    found: Verdict | None = None
    for subject in climb.call.subjects:
        said = _of_subject(climb, subject)
        if said and not said.allows:
            return said
        found = found or said
    return found


def _of_subject(climb: "Climb", subject: Subject) -> Verdict | None:
    rules = [rule for rule in climb.tables.rules.values() if _applies(rule, climb, subject)]
    context = _context(climb, subject)
    for rule in sorted(rules, key=lambda rule: (-rule.priority, rule.effect == "allow", rule.id)):
        key = f"rule.{rule.id}"
        try:
            holds = _holds(rule.condition, context)
        except Exception:  # whatever CEL raises: fail closed
            return Verdict(False, key, rule.message or f"the rule {rule.name!r} cannot be evaluated", True)
        if holds:
            return Verdict(rule.effect == "allow", key, rule.message or f"the rule {rule.name!r} forbids it")
    return None


def _applies(rule: Rule, climb: "Climb", subject: Subject) -> bool:
    assert climb.user and climb.server
    scope = {
        "organization": "",
        "group": climb.group.id if climb.group else None,
        "user": climb.user.id,
    }[rule.scope]
    return (
        rule.enabled
        and rule.scope_id == scope
        and (not rule.servers or climb.server.slug in rule.servers)
        and (not rule.tools or (subject.kind == "tool" and subject.name in rule.tools))
    )


def _holds(condition: str, context: dict[str, Any]) -> bool:
    if not condition:
        return True
    value = _program(condition).execute(context)
    if not isinstance(value, bool):
        raise TypeError("a condition is true or false")
    return value


@lru_cache(4096)
def _program(condition: str) -> Any:
    return cel.compile(condition)


def _context(climb: "Climb", subject: Subject) -> dict[str, Any]:
    user, group, server = climb.user, climb.group, climb.server
    assert user and server
    return {
        "user": {"id": user.id, "email": user.email, "name": user.name, "role": user.role},
        "group": {"id": group.id, "name": group.name} if group else {"id": "", "name": ""},
        "client": {"id": climb.claims.client_id, "name": climb.claims.client_name},
        "server": {"slug": server.slug, "name": server.name},
        "method": climb.call.method,
        "kind": subject.kind,
        "name": subject.name,
        "tool": subject.name if subject.kind == "tool" else "",
        "arguments": dict(climb.call.arguments),
        "now": climb.at or datetime.now(UTC),
    }
