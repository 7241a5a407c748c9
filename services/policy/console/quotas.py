"""The pages /groups/quotas and /groups/quotas/{id}."""

from asyncio import to_thread
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Form, Request
from pydantic import BaseModel
from starlette.responses import Response

from libs.common.control.entries import Quota, QuotaOf, User
from libs.common.control.tables import Tables
from libs.common.errors import BadRequest, LockgateError
from libs.common.web import notices
from libs.common.web.session import Administrator
from services.policy.console import people
from services.policy.console.forms import VersionForm, id_of, problem, show, unless_changed, words
from services.policy.dependencies import Known, Parts, Work
from services.policy.domain import Precondition
from services.policy.views.rules import QuotaBody

router = APIRouter()

ALL = 1000
NEW = "_new"  # no id begins so


class QuotaForm(BaseModel):
    """The fields of a quota as they were typed; a user is named by e-mail address. There is no `version`
    before it is saved."""

    id: str = ""
    name: str = ""
    of: QuotaOf = "user"
    subject: str = ""
    servers: str = ""
    per_minute: str = ""
    per_day: str = ""
    version: str = ""

    @classmethod
    def of_quota(cls, quota: Quota, known: Tables) -> "QuotaForm":
        """The fields as they are filled in before anybody types."""
        return cls(
            id=quota.id,
            name=quota.name,
            of=quota.of,
            subject=_subject(known, quota),
            servers=" ".join(quota.servers),
            per_minute="" if quota.per_minute is None else str(quota.per_minute),
            per_day="" if quota.per_day is None else str(quota.per_day),
            version=str(quota.version),
        )

    def body(self, known: Tables) -> QuotaBody:
        """Raises `BadRequest`, `UnknownUser`."""
        subject = self.subject.strip()
        return QuotaBody(
            name=self.name.strip(),
            of=self.of,
            subject=people.find_user(known, subject).id if self.of == "user" and subject else subject,
            servers=words(self.servers),
            per_minute=_calls("in a minute", self.per_minute),
            per_day=_calls("in a day", self.per_day),
        )


@router.get("/groups/quotas")
async def list_quotas(request: Request, _: Administrator, work: Work, known: Known) -> Response:
    quotas = await to_thread(work.store.quotas.list, "", ALL)
    subjects = {quota.id: _subject(known, quota) for quota in quotas}
    return show(request, "quotas.html", quotas=quotas, subjects=subjects)


@router.get("/groups/quotas/{id}")
async def show_quota(request: Request, _: Administrator, id: str, work: Work, known: Known) -> Response:
    if id == NEW:
        return _editor(request, QuotaForm())
    quota = await to_thread(work.store.quotas.get, id)
    return _editor(request, QuotaForm.of_quota(quota, known), id)


@router.post("/groups/quotas")
async def add_quota(
    request: Request, admin: Administrator, work: Work, known: Known, form: Annotated[QuotaForm, Form()]
) -> Response:
    return await _save(request, admin, work, known, form, "")


@router.post("/groups/quotas/{id}")
async def edit_quota(  # noqa: PLR0917  # what a form needs
    request: Request,
    admin: Administrator,
    id: str,
    work: Work,
    known: Known,
    form: Annotated[QuotaForm, Form()],
) -> Response:
    return await _save(request, admin, work, known, form, id)


@router.post("/groups/quotas/{id}/delete")
async def delete_quota(
    admin: Administrator, id: str, work: Work, form: Annotated[VersionForm, Form()]
) -> Response:
    quota = await to_thread(work.store.quotas.get, id)
    write = partial(work.store.quotas.delete, id, unless_changed(form.version))
    done = await work.changes.make(admin, "quota_deleted", write)
    notice = notices.after(f"The quota {quota.name} is deleted.", done.receipt)
    return notices.redirect("/groups/quotas", notice, work.settings)


async def _save(  # noqa: PLR0917  # what a form needs
    request: Request, admin: User, work: Parts, known: Tables, form: QuotaForm, id: str
) -> Response:
    """`id` is empty for one that is new."""
    try:
        quota = form.body(known).quota(id or id_of(form.id, form.name))
        precondition = unless_changed(form.version) if id else Precondition(absent=True)
        write = partial(work.store.quotas.put, quota, precondition)
        done = await work.changes.make(admin, "quota_saved", write)
    except LockgateError as error:
        return _editor(request, form, id, error=error)
    notice = notices.after(f"The quota {quota.name} is saved.", done.receipt)
    return notices.redirect("/groups/quotas", notice, work.settings)


def _editor(
    request: Request, fields: QuotaForm, id: str = "", *, error: LockgateError | None = None
) -> Response:
    status = error.status if error else 200
    return show(request, "quota.html", status=status, notice=problem(error), id=id, fields=fields)


def _calls(what: str, text: str) -> int | None:
    """No number is no limit. Raises `BadRequest`."""
    if not text.strip():
        return None
    try:
        return int(text)
    except ValueError:
        raise BadRequest(f"the calls {what} must be a whole number, or nothing for no limit") from None


def _subject(known: Tables, quota: Quota) -> str:
    """Which one it is about, as the form names it."""
    if quota.of == "user" and quota.subject:
        return people.names(known.users, [quota.subject])[quota.subject]
    return quota.subject
