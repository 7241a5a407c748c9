"""The page /credentials: for each server that needs one, the organization's credential."""

import shlex
from asyncio import to_thread
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Form, Request
from pydantic import BaseModel, SecretStr
from starlette.responses import Response

from libs.common.control.entries import ORGANIZATION, Server, destination_of
from libs.common.errors import Conflict, LockgateError
from libs.common.web import notices
from libs.common.web.frame import Pages
from libs.common.web.notices import Notice
from libs.common.web.session import Administrator
from services.credentials.api import require_server
from services.credentials.dependencies import Parts, Work
from services.credentials.domain import (
    PLACEHOLDER,
    Credential,
    Owner,
    Placement,
    Secret,
    default_template,
    place,
)

router = APIRouter(include_in_schema=False)
pages = Pages(Path(__file__).parent / "pages")


class CredentialForm(BaseModel):
    """What was typed. The key is not shown again, not even when the form comes back with an error. `origin`
    is the server's as it was when the page was shown: whoever typed the key meant it for that one."""

    header: str = ""
    environment: str = ""
    template: str = ""
    origin: str = ""
    key: SecretStr = SecretStr("")

    def secret(self) -> Secret:
        """Raises `BadRequest`."""
        placement = Placement(self.header.strip(), self.template.strip(), self.environment.strip())
        return Secret(placement, self.key.get_secret_value().strip())

    def origin_at(self, server: Server) -> str:
        """The origin that the key is for. Raises `Conflict` when `server` has moved since."""
        if self.origin != destination_of(server):
            raise Conflict(
                "The server's address or command has changed in the meantime. Look at it, then enter the key."
            )
        return self.origin


@dataclass(frozen=True, slots=True)
class Line:
    """A server on the page, and its credential if it has one. `usable`: that one may be sent to the server
    where it is now."""

    server: Server
    origin: str
    credential: Credential | None
    usable: bool
    fields: CredentialForm
    entered: bool

    @property
    def stdio(self) -> bool:
        return self.server.transport == "stdio"

    @property
    def command(self) -> str:
        """The command as a shell would take it."""
        return shlex.join(self.server.command)


@router.get("/credentials")
async def list_credentials(request: Request, _: Administrator, work: Work) -> Response:
    return await _page(request, work)


@router.post("/credentials/{slug}/organization")
async def store_credential(
    request: Request, admin: Administrator, slug: str, work: Work, form: Annotated[CredentialForm, Form()]
) -> Response:
    owner = Owner(slug, ORGANIZATION)
    try:
        secret, server = form.secret(), await require_server(work, slug)
        origin = form.origin_at(server)
        secret.placement.check_fits(server)
        write = partial(work.store.put, owner, secret, origin, admin.email)
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
    lines = [
        _line(server, of_organization.pop(server.slug, None), (entered or {}).get(server.slug))
        for server in servers
        if server.auth == "api_key"
    ]
    problem = Notice(f"Not stored: {error.title}. {error.detail}".rstrip(), "bad") if error else None
    response = pages.render(
        request,
        "credentials.html",
        status=error.status if error else 200,
        notice=problem or notices.waiting(request),
        lines=lines,
        place=place,
        unused=list(of_organization.values()),
    )
    return notices.shown(response, request)


def _line(server: Server, credential: Credential | None, typed: CredentialForm | None) -> Line:
    usable = credential is not None and credential.entry().is_for(server)
    fields = typed or _fields(server, credential)
    return Line(server, destination_of(server), credential, usable, fields, typed is not None)


def _fields(server: Server, credential: Credential | None) -> CredentialForm:
    """The fields as they are filled in before anybody types."""
    if credential and bool(credential.placement.environment) == (server.transport == "stdio"):
        return CredentialForm(**asdict(credential.placement))
    if server.transport == "stdio":
        return CredentialForm(template=PLACEHOLDER)
    return CredentialForm(header="Authorization", template=default_template("Authorization"))
