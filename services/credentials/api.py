"""JSON under `/api/credentials`, for administrators. A key goes in and never comes out."""

from asyncio import to_thread
from functools import partial
from typing import Annotated, Any, Self

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, SecretStr
from starlette.responses import JSONResponse, Response

from libs.common.control.entries import ORGANIZATION, Server, destination_of
from libs.common.control.owner import Receipt
from libs.common.errors import NotFound, Unavailable
from libs.common.web.session import Administrator
from services.credentials.dependencies import Parts, Work
from services.credentials.domain import Credential, Owner, Placement, Secret, default_template

router = APIRouter(prefix="/api/credentials", tags=["credentials"])

# A server that was added a moment ago may not have reached us yet: seconds to wait for it.
SERVER_ARRIVES = 2.0


class UnknownServer(NotFound):
    type, title = "unknown-server", "There is no such server"


class CredentialBody(BaseModel):
    """The header, or for a stdio server the environment variable; what goes into it; and the key. `{key}`
    stands for the key in the template, which is by default `Bearer {key}` for Authorization and `{key}` for
    others."""

    model_config = ConfigDict(extra="forbid")

    header: str = ""
    environment: str = ""
    template: str | None = None
    key: SecretStr

    def secret(self) -> Secret:
        """Raises `BadRequest`."""
        template = default_template(self.header) if self.template is None else self.template
        return Secret(Placement(self.header, template, self.environment), self.key.get_secret_value())


class CredentialView(BaseModel):
    """What may be told about a credential. `user` is `organization` for everybody's; of `header` and
    `environment` one is empty. It is given to `origin` only, an address or (`stdio:` and a digest) a command;
    when its server is another now, calls are refused until it is stored again."""

    slug: str
    user: str
    header: str
    environment: str
    template: str
    origin: str
    version: int
    changed_at: str
    changed_by: str

    @classmethod
    def of(cls, credential: Credential, **more: object) -> Self:
        values: dict[str, object] = {
            "slug": credential.owner.slug,
            "user": credential.owner.user,
            "header": credential.placement.header,
            "environment": credential.placement.environment,
            "template": credential.placement.template,
            "origin": credential.origin,
            "version": credential.version,
            "changed_at": credential.changed_at,
            "changed_by": credential.changed_by,
        }
        return cls.model_validate(values | more)


class CredentialChanged(CredentialView):
    receipt: Receipt


class Deleted(BaseModel):
    receipt: Receipt


class CredentialPage(BaseModel):
    """`next` is the value of `?after=` for the following page, `<slug>/<user>`; null on the last one."""

    items: list[CredentialView]
    next: str | None


def _answers(model: type[BaseModel]) -> dict[str, Any]:
    return {"response_model": model, "responses": {202: {"model": model}}}


@router.get("")
async def list_credentials(
    admin: Administrator, work: Work, after: str = "", limit: Annotated[int, Query(ge=1, le=500)] = 100
) -> CredentialPage:
    slug, _, user = after.partition("/")
    found = await to_thread(work.store.credentials, Owner(slug, user), limit + 1)
    items = [CredentialView.of(credential) for credential in found[:limit]]
    following = f"{items[-1].slug}/{items[-1].user}" if len(found) > limit else None
    return CredentialPage(items=items, next=following)


@router.put("/{slug}/organization", **_answers(CredentialChanged))
async def put_credential(admin: Administrator, slug: str, body: CredentialBody, work: Work) -> Response:
    secret = body.secret()
    server = await require_server(work, slug)
    secret.placement.check_fits(server)
    origin = destination_of(server)
    owner = Owner(slug, ORGANIZATION)
    write = partial(work.store.put, owner, secret, origin, admin.email)
    done = await work.changes.make(admin, "credential_stored", owner, write)
    assert done.after
    view = CredentialChanged.of(done.after, receipt=done.receipt)
    return JSONResponse(view.model_dump(mode="json"), done.receipt.status)


@router.delete("/{slug}/organization", **_answers(Deleted))
async def delete_credential(admin: Administrator, slug: str, work: Work) -> Response:
    owner = Owner(slug, ORGANIZATION)
    write = partial(work.store.delete, owner)
    done = await work.changes.make(admin, "credential_deleted", owner, write)
    return JSONResponse(Deleted(receipt=done.receipt).model_dump(mode="json"), done.receipt.status)


async def require_server(work: Parts, slug: str) -> Server:
    """The server as the control log knows it, now or soon. Raises `UnknownServer`."""
    tables = work.follower.tables
    try:
        await work.follower.wait_for(lambda: slug in tables.servers, SERVER_ARRIVES)
    except Unavailable:
        raise UnknownServer(f"No server is called {slug[:80]!r}.") from None
    return tables.servers[slug]
