"""Access as code: plans, and what came of them."""

from dataclasses import asdict
from typing import Any, Self

from pydantic import BaseModel

from libs.common.control.owner import Receipt
from services.policy.document.effects import Effect, Later
from services.policy.document.state import What


class DifferenceView(BaseModel):
    """`key` is that of the control log: `group.`, `member.`, `rule.` or `quota.` and a name. A member is
    named by e-mail address; `before` and `after` are their groups."""

    key: str
    what: What
    before: Any
    after: Any


class EffectView(BaseModel):
    """What some people, all in one group before and in one after, gain and lose at one server. `later`: what
    becomes of tools that appear later. Rules with a condition are not in it: they depend on the call."""

    people: list[str]
    count: int
    before: str
    after: str
    server: str
    gains: list[str]
    loses: list[str]
    later: Later


class PlanView(BaseModel):
    """`etag` is that of the state on which it rests, for `If-Match`. `more_effects` are not shown."""

    etag: str
    differences: list[DifferenceView]
    effects: list[EffectView]
    more_effects: int

    @classmethod
    def of(cls, etag: str, differences: list[DifferenceView], effects: list[Effect], more: int) -> Self:
        return cls(
            etag=etag,
            differences=differences,
            effects=[EffectView(**asdict(each)) for each in effects],
            more_effects=more,
        )


class AppliedView(BaseModel):
    """`differences` were carried out."""

    etag: str
    differences: list[DifferenceView]
    receipt: Receipt
