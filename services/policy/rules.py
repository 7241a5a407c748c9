"""Rules and quotas as administrators define them, and what they may say.

Both are kept as the control log says them (libs.common.control.entries): there is nothing about them that
gateways need not know.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Generic, TypeVar

from msgspec import to_builtins

from libs.common.control import entries
from libs.common.decision.conditions import condition
from libs.common.errors import BadRequest, Conflict, NotFound
from services.policy.features import check_names, check_tool
from services.policy.names import check_id, check_name, check_slug

PRIORITY = 1000  # at most, above and below zero
MESSAGE_LENGTH = 500
NAMES = 500  # servers or tools that one of them names
CALLS = 1_000_000_000
MOST = 1000  # rules, and quotas: gateways hold all of them against calls

E = TypeVar("E", entries.Rule, entries.Quota)


class UnknownRule(NotFound):
    type, title = "unknown-rule", "There is no such rule"


class RuleExists(Conflict):
    type, title = "rule-exists", "There is a rule with this id already"


class UnknownQuota(NotFound):
    type, title = "unknown-quota", "There is no such quota"


class QuotaExists(Conflict):
    type, title = "quota-exists", "There is a quota with this id already"


@dataclass(frozen=True, slots=True)
class Kept(Generic[E]):
    """A rule or quota of the database."""

    entry: E

    def record(self) -> dict[str, object]:
        record: dict[str, object] = to_builtins(self.entry)
        return record


def check_rule(rule: entries.Rule) -> entries.Rule:
    """`rule` if it can be one, whatever else there is. Raises `BadRequest`; of its condition, with the place
    of the mistake (`InvalidCondition`)."""
    check_id(rule.id, "rule")
    check_name(rule.name)
    if not -PRIORITY <= rule.priority <= PRIORITY:
        raise BadRequest(f"a priority is between {-PRIORITY} and {PRIORITY}")
    if (rule.scope == "organization") is bool(rule.scope_id):
        raise BadRequest("scope_id names the group or user of the scope; the organization has none")
    if len(rule.message) > MESSAGE_LENGTH or not rule.message.isprintable():
        raise BadRequest(f"a message has at most {MESSAGE_LENGTH} printable characters")
    _check_servers(rule.servers)
    _check_count(rule.tools, "tools")
    check_names("tools", rule.tools)
    if rule.condition:
        condition(rule.condition)
    return rule


def check_quota(quota: entries.Quota) -> entries.Quota:
    """`quota` if it can be one, whatever else there is. Raises `BadRequest`."""
    check_id(quota.id, "quota")
    check_name(quota.name)
    limits = [limit for limit in (quota.per_minute, quota.per_day) if limit is not None]
    if not limits:
        raise BadRequest("a quota says how many calls may be made: per_minute, per_day, or both")
    if not all(0 <= limit <= CALLS for limit in limits):
        raise BadRequest(f"per_minute and per_day are between 0 and {CALLS:,} calls")
    _check_servers(quota.servers)
    if quota.of == "tool" and quota.subject:
        check_tool(quota.subject)
    return quota


def servers_of(entry: entries.Rule | entries.Quota) -> set[str]:
    """The servers that it names."""
    named = set(entry.servers)
    if isinstance(entry, entries.Quota) and entry.subject and entry.of in {"server", "tool"}:
        named.add(entry.subject.partition("/")[0])
    return named


def group_of(entry: entries.Rule | entries.Quota) -> str:
    """The group that it names; empty for none."""
    if isinstance(entry, entries.Rule):
        return entry.scope_id if entry.scope == "group" else ""
    return entry.subject if entry.of == "group" else ""


def user_of(entry: entries.Rule | entries.Quota) -> str:
    """The user that it names; empty for none."""
    if isinstance(entry, entries.Rule):
        return entry.scope_id if entry.scope == "user" else ""
    return entry.subject if entry.of == "user" else ""


def _check_servers(servers: Collection[str]) -> None:
    _check_count(servers, "servers")
    for slug in servers:
        check_slug(slug)


def _check_count(names: Collection[str], what: str) -> None:
    if len(names) > NAMES:
        raise BadRequest(f"it names at most {NAMES} {what}; with none it is for all of them")
