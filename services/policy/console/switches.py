"""The page /servers/switches, and the forms of all pages that switch something off and on."""

from asyncio import to_thread
from collections.abc import Mapping
from datetime import timedelta
from functools import partial
from typing import Annotated, Literal
from urllib.parse import quote

from fastapi import APIRouter, Form, Request
from pydantic import BaseModel
from starlette.responses import Response

from libs.common.clock import now
from libs.common.control.entries import Off, User
from libs.common.control.tables import Tables
from libs.common.errors import LockgateError
from libs.common.web import notices
from libs.common.web.session import Administrator
from services.policy import switches
from services.policy.changes import Done
from services.policy.console import people
from services.policy.console.forms import problem, show
from services.policy.dependencies import Known, Parts, Work
from services.policy.switches import LEVELS, Level, Switch, check_subject

router = APIRouter()

PAGE_SIZE = 100
DURATIONS: Mapping[str, timedelta] = {
    "1h": timedelta(hours=1),
    "8h": timedelta(hours=8),
    "1d": timedelta(days=1),
    "7d": timedelta(days=7),
}


class SwitchForm(BaseModel):
    """Switch `subject` off, for as long as `duration` says or until somebody ends it, or on. `back`: the page
    to return to is the thing's own, or the list of all that is off."""

    level: Level = "user"
    subject: str = ""
    enabled: bool = False
    reason: str = ""
    duration: Literal["", "1h", "8h", "1d", "7d"] = ""
    back: Literal["own", "list"] = "own"

    def off(self) -> Off:
        """What is kept of a switch that is off. Raises `BadRequest`."""
        lasting = DURATIONS.get(self.duration)
        return switches.off(self.reason, now() + lasting if lasting else None)

    def named(self, known: Tables) -> str:
        """The subject as switches are kept by it. Raises `BadRequest`, `UnknownUser`."""
        subject = self.subject.strip()
        if self.level == "user" and not (self.enabled and subject not in known.users):
            return people.find_user(known, subject).id
        return check_subject(self.level, "" if self.level == "organization" else subject)


@router.get("/servers/switches")
async def list_switches(  # noqa: PLR0917  # what the form is filled in with
    request: Request,
    _: Administrator,
    work: Work,
    known: Known,
    after: str = "",
    level: Level = "user",
    subject: str = "",
) -> Response:
    """What is off. With `level` and `subject` the form below is filled in."""
    return await _list(request, work, known, SwitchForm(level=level, subject=subject), after=after)


@router.post("/servers/switches")
async def switch(
    request: Request,
    admin: Administrator,
    work: Work,
    known: Known,
    form: Annotated[SwitchForm, Form()],
) -> Response:
    try:
        subject = form.named(known)
        done = await _turn(admin, work, form, subject)
    except LockgateError as error:
        return await _list(request, work, known, form, error=error)
    name = _name(known, form.level, subject)
    notice = notices.after(f"{name} is switched {'on' if form.enabled else 'off'}.", done.receipt)
    path = "/servers/switches" if form.back == "list" else _page(form.level, subject)
    return notices.redirect(path, notice, work.settings)


async def _turn(admin: User, work: Parts, form: SwitchForm, subject: str) -> Done[Switch]:
    if form.enabled:
        turn_on = partial(work.store.switches.turn_on, form.level, subject)
        return await work.changes.make(admin, f"{form.level}_enabled", turn_on)
    turn_off = partial(work.store.switches.turn_off, form.level, subject, form.off(), admin.id)
    return await work.changes.make(admin, f"{form.level}_disabled", turn_off)


def _page(level: Level, subject: str) -> str:
    match level:
        case "organization":
            return "/servers"
        case "server":
            return f"/servers/{subject}"
        case "tool":
            slug, _, tool = subject.partition("/")
            return f"/servers/{slug}/tool?name={quote(tool, safe='')}"
        case "group":
            return f"/groups/{subject}"
        case "user" | "client":
            return "/servers/switches"


def _name(known: Tables, level: Level, subject: str) -> str:
    """What to call it in a sentence."""
    if level == "organization":
        return "Everything"
    if level == "user" and subject in known.users:
        return known.users[subject].email
    return {"server": "The server", "tool": "The tool", "group": "The group"}.get(level, f"The {level}") + (
        f" {subject}"
    )


async def _list(
    request: Request,
    work: Parts,
    known: Tables,
    fields: SwitchForm,
    *,
    after: str = "",
    error: LockgateError | None = None,
) -> Response:
    level, _slash, subject = after.partition("/")
    found = await to_thread(work.store.switches.list, (level, subject), PAGE_SIZE + 1)
    shown = found[:PAGE_SIZE]
    ids = [each.changed_by for each in shown] + [each.subject for each in shown if each.level == "user"]
    return show(
        request,
        "switches.html",
        status=error.status if error else 200,
        notice=problem(error, "Nothing was switched"),
        switches=shown,
        pages={(each.level, each.subject): _page(each.level, each.subject) for each in shown},
        users=people.names(known.users, ids),
        next=f"{shown[-1].level}/{shown[-1].subject}" if len(found) > PAGE_SIZE else None,
        levels=LEVELS,
        fields=fields,
    )
