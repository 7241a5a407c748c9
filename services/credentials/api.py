"""JSON under `/api/credentials` for administrators. A secret goes in and never comes out."""

from asyncio import to_thread
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, SecretStr
from starlette.responses import JSONResponse, Response

from libs.common.control.entries import ORGANIZATION
from libs.common.errors import BadRequest
from libs.common.web.session import Administrator
from services.credentials.dependencies import Work
from services.credentials.domain import NoCredential, Owner
from services.credentials.layout import (
    Field,
    Layout,
    Placement,
    default_template,
    one_key,
)
from services.credentials.storing import (
    layout_for,
    require_account,
    require_server,
    reset_layout,
    set_layout,
    store_values,
)
from services.credentials.views import (
    AccountChanged,
    AccountPage,
    AccountView,
    Deleted,
    LayoutChanged,
    LayoutView,
    RotationView,
    answers,
)

router = APIRouter(prefix="/api/credentials", tags=["credentials"])


class CredentialBody(BaseModel):
    """Either `values`, by the names of the server's fields. Or, where it has but one, `key` and where that
    goes: the header, or for a stdio server the environment variable. `{key}` stands for the key in the
    template, which is by default `Bearer {key}` for Authorization and `{key}` for others; it then holds for
    everybody's keys for this server."""

    model_config = ConfigDict(extra="forbid")

    header: str = ""
    environment: str = ""
    template: str | None = None
    key: SecretStr = SecretStr("")
    values: dict[str, SecretStr] | None = None
    label: str = ""

    def layout(self) -> Layout | None:
        """Where the key goes, if the body says so. Raises `BadRequest`."""
        if self.values is not None:
            if self.header or self.environment or self.template or self.key:
                raise BadRequest("give either values, or a key and where it goes")
            return None
        if bool(self.header) == bool(self.environment):
            raise BadRequest(
                "a key goes either into a header or into an environment variable: name one of them"
            )
        template = default_template(self.header) if self.template is None else self.template
        if self.environment:
            return one_key("environment", self.environment, template)
        return one_key("header", self.header, template)

    def entered(self) -> dict[str, str]:
        """What goes into the fields, by name."""
        values = {"key": self.key} if self.values is None else self.values
        return {name: value.get_secret_value() for name, value in values.items()}


class LayoutBody(BaseModel):
    """The fields of the server's credentials, and where they go. Templates have `{field}` for the value of a
    field, and `{base64:user:password}` for the Base64 of several, joined by colons."""

    model_config = ConfigDict(extra="forbid")

    fields: list[Field]
    placements: list[Placement]


class RotationBody(BaseModel):
    """The id of the master key that is to wrap everything."""

    model_config = ConfigDict(extra="forbid")

    key: str


@router.get("")
async def list_credentials(
    admin: Administrator, work: Work, after: str = "", limit: Annotated[int, Query(ge=1, le=500)] = 100
) -> AccountPage:
    slug, user, account = [*after.split("/", 2), "", ""][:3]
    found = await to_thread(work.store.accounts.all, (slug, user, account), limit + 1)
    items = [AccountView.of(account) for account in found[:limit]]
    following = f"{items[-1].slug}/{items[-1].user}/{items[-1].id}" if len(found) > limit else None
    return AccountPage(items=items, next=following)


@router.put("/{slug}/organization", **answers(AccountChanged))
async def put_credential(admin: Administrator, slug: str, body: CredentialBody, work: Work) -> Response:
    layout, values = body.layout(), body.entered()
    server = await require_server(work, slug)
    if layout:
        layout.check_fits(server)
        layout.check(values)
        await set_layout(work, admin, server, layout)
    done = await store_values(work, admin, Owner(slug, ORGANIZATION), server, values=values, label=body.label)
    assert done.after
    view = AccountChanged.of(done.after, receipt=done.receipt)
    return JSONResponse(view.model_dump(mode="json"), done.receipt.status)


@router.delete("/{slug}/organization", **answers(Deleted))
async def delete_credential(admin: Administrator, slug: str, work: Work) -> Response:
    owner = Owner(slug, ORGANIZATION)
    write = partial(work.store.accounts.remove_all, owner)
    receipt = await work.changes.make_all(admin, "credential_deleted", owner, write)
    return JSONResponse(Deleted(receipt=receipt).model_dump(mode="json"), receipt.status)


@router.delete("/accounts/{account}", **answers(Deleted))
async def delete_account(admin: Administrator, account: str, work: Work) -> Response:
    found = await require_account(work, account)
    write = partial(work.store.accounts.remove, found.id)
    done = await work.changes.make(admin, "credential_deleted", write)
    return JSONResponse(Deleted(receipt=done.receipt).model_dump(mode="json"), done.receipt.status)


@router.put("/accounts/{account}/chosen", **answers(AccountChanged))
async def choose_account(admin: Administrator, account: str, work: Work) -> Response:
    """Of the organization's accounts for a server; people choose among theirs themselves."""
    found = await require_account(work, account, ORGANIZATION)
    done = await work.changes.make(admin, "credential_chosen", partial(work.store.accounts.choose, found.id))
    if done.after is None:
        raise NoCredential
    view = AccountChanged.of(done.after, receipt=done.receipt)
    return JSONResponse(view.model_dump(mode="json"), done.receipt.status)


@router.get("/servers/{slug}/fields")
async def get_fields(admin: Administrator, slug: str, work: Work) -> LayoutView:
    server = await require_server(work, slug)
    return LayoutView.of(*await layout_for(work, server))


@router.put("/servers/{slug}/fields", **answers(LayoutChanged))
async def put_fields(admin: Administrator, slug: str, body: LayoutBody, work: Work) -> Response:
    layout = Layout(tuple(body.fields), tuple(body.placements))
    server = await require_server(work, slug)
    receipt = await set_layout(work, admin, server, layout) or await work.changes.nothing()
    found, configured = await layout_for(work, server)
    view = LayoutChanged(**LayoutView.of(found, configured).model_dump(), receipt=receipt)
    return JSONResponse(view.model_dump(mode="json"), receipt.status)


@router.delete("/servers/{slug}/fields", **answers(Deleted))
async def delete_fields(admin: Administrator, slug: str, work: Work) -> Response:
    server = await require_server(work, slug)
    receipt = await reset_layout(work, admin, server) or await work.changes.nothing()
    return JSONResponse(Deleted(receipt=receipt).model_dump(mode="json"), receipt.status)


@router.get("/rotation")
async def get_rotation(admin: Administrator, work: Work) -> RotationView:
    return RotationView.of(await work.rotation.state(), work.rotation.known)


@router.put("/rotation")
async def put_rotation(admin: Administrator, body: RotationBody, work: Work) -> RotationView:
    """Wrap every record with another master key, which each replica must have been given before. It goes on
    in the background."""
    return RotationView.of(await work.rotation.begin(admin, body.key), work.rotation.known)
