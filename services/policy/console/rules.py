"""The pages /groups/rules and /groups/rules/{id}; a rule can be tried before it is saved."""

from asyncio import to_thread
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Form, Request
from pydantic import BaseModel
from starlette.responses import Response

from libs.common.control.entries import Effect, Rule, RuleScope, User
from libs.common.control.tables import Tables
from libs.common.decision.conditions import VARIABLES, InvalidCondition
from libs.common.decision.rules import in_order
from libs.common.errors import BadRequest, LockgateError
from libs.common.web import notices
from libs.common.web.notices import Notice
from libs.common.web.session import Administrator
from services.policy.api import decisions
from services.policy.console import people
from services.policy.console.forms import (
    Action,
    Days,
    id_of,
    problem,
    show,
    unless_changed,
    words,
)
from services.policy.dependencies import Known, Parts, Work
from services.policy.domain import Precondition
from services.policy.views.decisions import ProposedRule, ReplayBody, ReplayView
from services.policy.views.rules import RuleBody

router = APIRouter()

ALL = 1000
GROUPS = 1000
NEW = "_new"  # no id begins so


class RuleForm(BaseModel):
    """The fields of a rule as they were typed. `group` and `user` count where they are its scope; a user is
    named by e-mail address. There is no `version` before it is saved."""

    id: str = ""
    name: str = ""
    effect: Effect = "deny"
    priority: str = "0"
    scope: RuleScope = "organization"
    group: str = ""
    user: str = ""
    servers: list[str] = []
    tools: str = ""
    condition: str = ""
    message: str = ""
    enabled: bool = False
    version: str = ""
    action: Action = "save"
    days: Days = "7"

    @classmethod
    def of(cls, rule: Rule, known: Tables) -> "RuleForm":
        """The fields as they are filled in before anybody types."""
        user = people.names(known.users, [rule.scope_id])[rule.scope_id]
        return cls(
            id=rule.id,
            name=rule.name,
            effect=rule.effect,
            priority=str(rule.priority),
            scope=rule.scope,
            group=rule.scope_id if rule.scope == "group" else "",
            user=user if rule.scope == "user" else "",
            servers=rule.servers,
            tools="\n".join(rule.tools),
            condition=rule.condition,
            message=rule.message,
            enabled=rule.enabled,
            version=str(rule.version),
        )

    def body(self, known: Tables) -> RuleBody:
        """Raises `BadRequest`, `UnknownUser`."""
        scope_id = self.group if self.scope == "group" else ""
        if self.scope == "user":
            scope_id = people.find_user(known, self.user).id
        return RuleBody(
            name=self.name.strip(),
            effect=self.effect,
            priority=_priority(self.priority),
            scope=self.scope,
            scope_id=scope_id,
            servers=self.servers,
            tools=words(self.tools),
            condition=self.condition.replace("\r\n", "\n").rstrip(),
            message=self.message.strip(),
            enabled=self.enabled,
        )


class RemovalForm(BaseModel):
    version: str
    action: Action = "save"
    days: Days = "7"


@router.get("/groups/rules")
async def list_rules(request: Request, _: Administrator, work: Work, known: Known) -> Response:
    """In the order in which they are looked at."""
    rules = in_order(await to_thread(work.store.rules.list, "", ALL))
    return show(request, "rules.html", rules=rules, scopes={rule.id: _scope(known, rule) for rule in rules})


@router.get("/groups/rules/{id}")
async def show_rule(request: Request, _: Administrator, id: str, work: Work, known: Known) -> Response:
    if id == NEW:
        return await _editor(request, work, known, RuleForm(enabled=True))
    rule = await to_thread(work.store.rules.get, id)
    return await _editor(request, work, known, RuleForm.of(rule, known), id)


@router.post("/groups/rules")
async def add_rule(
    request: Request, admin: Administrator, work: Work, known: Known, form: Annotated[RuleForm, Form()]
) -> Response:
    return await _take(request, admin, work, known, form, "")


@router.post("/groups/rules/{id}")
async def edit_rule(  # noqa: PLR0917  # what a form needs
    request: Request,
    admin: Administrator,
    id: str,
    work: Work,
    known: Known,
    form: Annotated[RuleForm, Form()],
) -> Response:
    return await _take(request, admin, work, known, form, id)


@router.post("/groups/rules/{id}/delete")
async def delete_rule(  # noqa: PLR0917  # what a form needs
    request: Request,
    admin: Administrator,
    id: str,
    work: Work,
    known: Known,
    form: Annotated[RemovalForm, Form()],
) -> Response:
    rule = await to_thread(work.store.rules.get, id)
    if form.action == "save":
        write = partial(work.store.rules.delete, id, unless_changed(form.version))
        done = await work.changes.make(admin, "rule_deleted", write)
        notice = notices.after(f"The rule {rule.name} is deleted.", done.receipt)
        return notices.redirect("/groups/rules", notice, work.settings)
    fields = RuleForm.of(rule, known).model_copy(update={"days": form.days})
    try:
        asked = ReplayBody(days=float(form.days), removed_rules=[id])
        outcome = await decisions.replay(admin, work, asked)
    except LockgateError as error:
        return await _editor(request, work, known, fields, id, error=error)
    return await _editor(request, work, known, fields, id, outcome=outcome, tried="Without this rule")


async def _take(  # noqa: PLR0917  # what a form needs
    request: Request, admin: User, work: Parts, known: Tables, form: RuleForm, id: str
) -> Response:
    """Save the rule, or try it. `id` is empty for one that is new."""
    try:
        body = form.body(known)
        wanted = body.rule(id or id_of(form.id, form.name))
        if form.action == "try":
            proposed = ProposedRule(id=wanted.id, **body.model_dump())
            asked = ReplayBody(days=float(form.days), rules=[proposed])
            outcome = await decisions.replay(admin, work, asked)
            return await _editor(request, work, known, form, id, outcome=outcome, tried="With this rule")
        precondition = unless_changed(form.version) if id else Precondition(absent=True)
        write = partial(work.store.rules.put, wanted, precondition)
        done = await work.changes.make(admin, "rule_saved", write)
    except LockgateError as error:
        return await _editor(request, work, known, form, id, error=error)
    notice = notices.after(f"The rule {wanted.name} is saved.", done.receipt)
    return notices.redirect("/groups/rules", notice, work.settings)


async def _editor(
    request: Request,
    work: Parts,
    known: Tables,
    fields: RuleForm,
    id: str = "",
    *,
    error: LockgateError | None = None,
    outcome: ReplayView | None = None,
    tried: str = "",
) -> Response:
    slugs = {server.slug: server.name for server in known.servers.values()}
    return show(
        request,
        "rule.html",
        status=error.status if error else 200,
        notice=_problem(fields, error),
        id=id,
        fields=fields,
        mistake=_mistake(fields, error),
        variables=VARIABLES,
        servers=dict(sorted((slugs | {slug: slug for slug in fields.servers if slug not in slugs}).items())),
        groups=await to_thread(work.store.groups.list, "", GROUPS),
        outcome=outcome,
        tried=tried,
    )


def _problem(fields: RuleForm, error: LockgateError | None) -> Notice | None:
    return problem(error, "Not saved" if fields.action == "save" else "It could not be tried")


def _mistake(fields: RuleForm, error: LockgateError | None) -> str:
    """The line of the condition that cannot be used, and an arrow below the place; empty for none."""
    if not isinstance(error, InvalidCondition):
        return ""
    line, column = (int(str(error.extra[name])) for name in ("line", "column"))
    lines = fields.condition.replace("\r\n", "\n").split("\n")
    text = lines[line - 1] if line <= len(lines) else ""
    return f"{text}\n{' ' * (column - 1)}↑"


def _priority(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise BadRequest("the priority must be a whole number") from None


def _scope(known: Tables, rule: Rule) -> str:
    """Whom the rule is about."""
    match rule.scope:
        case "group":
            group = known.groups.get(rule.scope_id)
            return f"Group {group.name if group else rule.scope_id}"
        case "user":
            return people.names(known.users, [rule.scope_id])[rule.scope_id]
        case _:
            return "Everybody"
