"""The page /credentials: for each server that needs one, the organization's credential."""

from asyncio import to_thread
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Form, Request
from pydantic import BaseModel, SecretStr
from starlette.responses import Response

from libs.common.control.entries import ORGANIZATION
from libs.common.errors import LockgateError
from libs.common.web import notices
from libs.common.web.frame import Pages
from libs.common.web.notices import Notice
from libs.common.web.session import Administrator
from services.credentials.api import require_server
from services.credentials.dependencies import Parts, Work
from services.credentials.domain import Credential, Owner, Placement, Secret

router = APIRouter(include_in_schema=False)
pages = Pages(Path(__file__).parent / "pages")


class CredentialForm(BaseModel):
    """What was typed. The key is not shown again, not even when the form comes back with an error."""

    header: str = ""
    template: str = ""
    key: SecretStr = SecretStr("")

    def secret(self) -> Secret:
        """Raises `BadRequest`."""
        placement = Placement(self.header.strip(), self.template.strip())
        return Secret(placement, self.key.get_secret_value().strip())


@dataclass(frozen=True, slots=True)
class Line:
    """A server on the page, and its credential if it has one."""

    slug: str
    name: str
    url: str
    credential: Credential | None
    fields: CredentialForm
    entered: bool


@router.get("/credentials")
async def list_credentials(request: Request, _: Administrator, work: Work) -> Response:
    return await _page(request, work)


@router.post("/credentials/{slug}/organization")
async def store_credential(
    request: Request, admin: Administrator, slug: str, work: Work, form: Annotated[CredentialForm, Form()]
) -> Response:
    owner = Owner(slug, ORGANIZATION)
    try:
        secret = form.secret()
        await require_server(work, slug)
        write = partial(work.store.put, owner, secret, admin.email)
        done = await work.changes.make(admin, "credential_stored", owner, write)
    except LockgateError as error:
        return await _page(request, work, entered={slug: form}, error=error)
    notice = notices.after(f"The credential for {slug} is stored.", done.receipt)
    return notices.redirect("/credentials", notice, work.settings)


@router.post("/credentials/{slug}/organization/delete")
async def delete_credential(admin: Administrator, slug: str, work: Work) -> Response:
    owner = Owner(slug, ORGANIZATION)
    write = partial(work.store.delete, owner)
    done = await work.changes.make(admin, "credential_deleted", owner, write)
    notice = notices.after(f"The credential for {slug} is deleted.", done.receipt)
    return notices.redirect("/credentials", notice, work.settings)


async def _page(
    request: Request,
    work: Parts,
    *,
    entered: dict[str, CredentialForm] | None = None,
    error: LockgateError | None = None,
) -> Response:
    stored = await to_thread(work.store.credentials)
    of_organization = {item.owner.slug: item for item in stored if item.owner.user == ORGANIZATION}
    servers = sorted(work.follower.tables.servers.values(), key=lambda server: server.slug)
    needing = [server for server in servers if server.auth == "api_key"]
    lines = []
    for server in needing:
        credential, typed = of_organization.pop(server.slug, None), (entered or {}).get(server.slug)
        fields = typed or _fields(credential)
        lines.append(Line(server.slug, server.name, server.url, credential, fields, typed is not None))
    problem = Notice(f"Not stored: {error.title}. {error.detail}".rstrip(), "bad") if error else None
    response = pages.render(
        request,
        "credentials.html",
        status=error.status if error else 200,
        notice=problem or notices.waiting(request),
        lines=lines,
        unused=list(of_organization.values()),
    )
    return notices.shown(response, request)


def _fields(credential: Credential | None) -> CredentialForm:
    if credential is None:
        return CredentialForm(header="Authorization", template="Bearer {key}")
    return CredentialForm(header=credential.placement.header, template=credential.placement.template)
