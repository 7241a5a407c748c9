"""Rules and quotas."""

from typing import Self

import msgspec
from pydantic import BaseModel, Field

from libs.common.control import entries
from libs.common.control.entries import Effect, QuotaOf, RuleScope
from libs.common.control.owner import Receipt
from services.policy.rules import check_quota, check_rule
from services.policy.views.base import Body, Versioned


class RuleBody(Body):
    """`deny` or `allow` (which exempts from denials of lower priority, and opens nothing) what users of the
    scope do at `servers` with `tools`, empty for all, while `condition` holds: CEL, empty for always.
    `scope_id` names the group or user; `message` is shown to those whose calls are refused."""

    name: str
    effect: Effect = "deny"
    priority: int = 0
    scope: RuleScope = "organization"
    scope_id: str = ""
    servers: list[str] = Field(default_factory=list)
    tools: list[str] = Field(default_factory=list)
    condition: str = ""
    message: str = ""
    enabled: bool = True

    def rule(self, id: str) -> entries.Rule:
        """Raises `BadRequest`."""
        return check_rule(entries.Rule(version=0, id=id, **self.model_dump(exclude={"id"})))


class RuleView(Versioned):
    id: str
    name: str
    effect: Effect
    priority: int
    scope: RuleScope
    scope_id: str
    servers: list[str]
    tools: list[str]
    condition: str
    message: str
    enabled: bool

    @classmethod
    def of(cls, rule: entries.Rule, **more: object) -> Self:
        return cls.model_validate(msgspec.structs.asdict(rule) | more)


class RuleChanged(RuleView):
    receipt: Receipt


class RulePage(BaseModel):
    """`next` is the value of `?after=` for the following page; null on the last one."""

    items: list[RuleView]
    next: str | None


class QuotaBody(Body):
    """How many calls of tools may be made in a minute and in a day (UTC), together by `of`: each user, the
    members of each group, at each server, of each tool. `subject` names one of them, a tool as
    `<slug>/<tool>`; empty: each has the limit for itself. `servers` narrows what counts; empty for all."""

    name: str
    of: QuotaOf
    subject: str = ""
    servers: list[str] = Field(default_factory=list)
    per_minute: int | None = None
    per_day: int | None = None

    def quota(self, id: str) -> entries.Quota:
        """Raises `BadRequest`."""
        return check_quota(entries.Quota(version=0, id=id, **self.model_dump()))


class QuotaView(Versioned):
    id: str
    name: str
    of: QuotaOf
    subject: str
    servers: list[str]
    per_minute: int | None
    per_day: int | None

    @classmethod
    def of_quota(cls, quota: entries.Quota, **more: object) -> Self:
        return cls.model_validate(msgspec.structs.asdict(quota) | more)


class QuotaChanged(QuotaView):
    receipt: Receipt


class QuotaPage(BaseModel):
    """`next` is the value of `?after=` for the following page; null on the last one."""

    items: list[QuotaView]
    next: str | None
