"""Decisions explained, and decided again."""

from typing import Self

import msgspec
from pydantic import BaseModel, Field

from libs.common.clock import iso
from libs.common.control.entries import Effect
from libs.common.decision.ladder import Reason, Refusal, Step
from libs.common.decision.rules import Outcome
from libs.common.decision.subjects import Kind
from libs.common.errors import BadRequest
from libs.common.requests import QuotaWindow
from services.policy import replay
from services.policy.explain import Explanation, Revisions
from services.policy.replay import Example, Proposal, Unfit
from services.policy.views.base import Body
from services.policy.views.groups import AccessBody
from services.policy.views.rules import RuleBody

DAYS = 90.0
CALLS = 50_000
PROPOSED = 100  # of a kind in one proposal


class RungView(BaseModel):
    """One rung. `reason` is empty where it holds, `rule` what it holds or fails by, as a key of the control
    log; `revisions` when the entries that it read were written."""

    rung: str
    holds: bool
    reason: Reason | None
    rule: str
    detail: str
    revisions: dict[str, int]

    @classmethod
    def of(cls, step: Step, revisions: Revisions) -> Self:
        return cls(
            rung=step.rung,
            holds=step.refusal is None,
            reason=step.refusal.reason if step.refusal else None,
            rule=step.rule,
            detail=step.refusal.detail if step.refusal else "",
            revisions=dict(revisions),
        )


class RuleOutcome(BaseModel):
    """A rule that was looked at for a tool, prompt or resource. `failure` says why its condition could not be
    evaluated, which denies."""

    id: str
    name: str
    effect: Effect
    priority: int
    kind: Kind
    subject: str
    holds: bool
    failure: str

    @classmethod
    def of(cls, outcome: Outcome) -> Self:
        rule, subject = outcome.rule, outcome.subject
        return cls(
            id=rule.id,
            name=rule.name,
            effect=rule.effect,
            priority=rule.priority,
            kind=subject.kind,
            subject=subject.name,
            holds=outcome.holds,
            failure=outcome.failure,
        )


class QuotaStandingView(BaseModel):
    """`used` of `limit` calls in the window that ends at `resets`; at the limit calls are refused."""

    quota: str
    window: QuotaWindow
    limit: int
    used: int
    resets: str


class ExplanationView(BaseModel):
    """Whether the call would be allowed, by the control log as of `revision`, and why. `user` and `group` are
    ids, empty where there is none. `quotas` is null where nothing would be counted or nobody can tell."""

    allowed: bool
    reason: Reason
    rule: str
    detail: str
    revision: int
    user: str
    email: str
    group: str
    server: str
    client: str
    at: str
    rungs: list[RungView]
    rules: list[RuleOutcome]
    quotas: list[QuotaStandingView] | None

    @classmethod
    def of(cls, explained: Explanation) -> Self:
        climb, last = explained.climb, explained.steps[-1]
        quotas = explained.quotas
        return cls(
            allowed=last.refusal is None,
            reason=last.refusal.reason if last.refusal else "allowed",
            rule=last.rule,
            detail=last.refusal.detail if last.refusal else "",
            revision=explained.revision,
            user=climb.user.id if climb.user else "",
            email=climb.user.email if climb.user else "",
            group=climb.group.id if climb.group else "",
            server=climb.call.server,
            client=climb.claims.client_id,
            at=iso(climb.at) if climb.at else "",
            rungs=[RungView.of(*step) for step in zip(explained.steps, explained.read, strict=True)],
            rules=[RuleOutcome.of(outcome) for outcome in explained.rules],
            quotas=None
            if quotas is None
            else [QuotaStandingView(**msgspec.structs.asdict(standing)) for standing in quotas],
        )


class ProposedRule(RuleBody):
    """A rule to be, instead of the one with its id if there is one."""

    id: str


class ProposedAccess(Body):
    """What the group might use of the server; null: nothing."""

    group: str
    server: str
    access: AccessBody | None


class ReplayBody(Body):
    """What would be changed, and over which calls that is tried: the newest `calls` of the last `days`."""

    days: float = Field(default=7.0, gt=0, le=DAYS)
    calls: int = Field(default=10_000, ge=1, le=CALLS)
    rules: list[ProposedRule] = Field(default_factory=list, max_length=PROPOSED)
    removed_rules: list[str] = Field(default_factory=list, max_length=PROPOSED)
    access: list[ProposedAccess] = Field(default_factory=list, max_length=PROPOSED)

    def proposal(self) -> Proposal:
        """Raises `BadRequest`."""
        if not (self.rules or self.removed_rules or self.access):
            raise BadRequest("say what would be changed: rules, removed_rules, access, or several of them")
        return Proposal(
            rules=tuple(body.rule(body.id) for body in self.rules),
            removed_rules=tuple(self.removed_rules),
            access={
                (body.group, body.server): body.access.access() if body.access else None
                for body in self.access
            },
        )


class VerdictView(BaseModel):
    """`reason` is `allowed`, or why not; then `rule` is what decides, as a key of the control log."""

    reason: Reason
    rule: str
    detail: str

    @classmethod
    def of(cls, refusal: Refusal | None) -> Self:
        if refusal is None:
            return cls(reason="allowed", rule="", detail="")
        return cls(**refusal._asdict())


class ExampleView(BaseModel):
    """A call that would be decided otherwise: `call` is its id in the records."""

    call: str
    time: str
    user: str
    email: str
    client_name: str
    server: str
    method: str
    tool: str
    present: VerdictView
    proposed: VerdictView

    @classmethod
    def of(cls, example: Example) -> Self:
        call = example.call
        return cls(
            call=call.id,
            time=call.time,
            user=call.user,
            email=call.email,
            client_name=call.client_name,
            server=call.server,
            method=call.method,
            tool=call.tool,
            present=VerdictView.of(example.present),
            proposed=VerdictView.of(example.proposed),
        )


class ReplayView(BaseModel):
    """Of `calls` that were decided again, by the control log as of `revision`, so many would be denied that
    are allowed by what holds now, and allowed that are denied. `failed` of the newly denied are so because a
    condition could not be evaluated. `unfit` could not be decided again, and why. `complete`: these are all
    calls since `since` that the proposal may concern."""

    revision: int
    since: str
    complete: bool
    calls: int
    unfit: dict[Unfit, int]
    newly_denied: int
    newly_allowed: int
    failed: int
    users: int
    denied: list[ExampleView]
    allowed: list[ExampleView]

    @classmethod
    def of(cls, outcome: replay.Outcome) -> Self:
        return cls(
            revision=outcome.revision,
            since=iso(outcome.since),
            complete=outcome.complete,
            calls=outcome.calls,
            unfit=outcome.unfit,
            newly_denied=outcome.newly_denied,
            newly_allowed=outcome.newly_allowed,
            failed=outcome.failed,
            users=len(outcome.users),
            denied=[ExampleView.of(example) for example in outcome.denied],
            allowed=[ExampleView.of(example) for example in outcome.allowed],
        )
