"""What the API tells: everything but secrets."""

from datetime import UTC, datetime
from typing import Any, Self

from pydantic import BaseModel

from libs.common.clock import iso
from libs.common.control.entries import AuthType
from libs.common.control.owner import Receipt
from services.credentials.domain import Account, Kind
from services.credentials.layout import Field, Layout, Placement
from services.credentials.standing import Standing, Use
from services.credentials.store.keys import RotationState


class AccountView(BaseModel):
    """What may be told about a credential. `user` is `organization` for everybody's. It is given to `origin`
    only, an address or (`stdio:` and a digest) a command; when its server is another now, calls are refused
    until it is stored again. Of several of one user the `chosen` one is used."""

    id: str
    slug: str
    user: str
    kind: Kind
    label: str
    origin: str
    version: int
    state: str
    reason: str
    chosen: bool
    expires_at: str | None
    created_at: str
    created_by: str
    changed_at: str
    changed_by: str

    @classmethod
    def of(cls, account: Account, **more: object) -> Self:
        values = {
            "slug": account.owner.slug,
            "user": account.owner.user,
            "expires_at": moment(account.expires_at),
        }
        same = [name for name in AccountView.model_fields if name not in values]
        return cls.model_validate({name: getattr(account, name) for name in same} | values | more)


class AccountChanged(AccountView):
    receipt: Receipt


class Deleted(BaseModel):
    receipt: Receipt


class AccountPage(BaseModel):
    """`next` is the value of `?after=` for the following page; null on the last one."""

    items: list[AccountView]
    next: str | None


class LayoutView(BaseModel):
    """The fields of a server's credential and where they go. `configured`: an administrator said so."""

    fields: list[Field]
    placements: list[Placement]
    configured: bool

    @classmethod
    def of(cls, layout: Layout, configured: bool) -> Self:
        return cls(fields=list(layout.fields), placements=list(layout.placements), configured=configured)


class LayoutChanged(LayoutView):
    receipt: Receipt


class ServerView(BaseModel):
    """How a server stands for the signed-in person. `uses`: the credential with which their calls go there
    (`""`: none, so they are refused). `fields` are what to enter, empty where it is connected in a browser at
    `connect_url`."""

    slug: str
    name: str
    auth: AuthType
    uses: Use
    attention: str
    accounts: list[AccountView]
    fields: list[Field]
    connect_url: str

    @classmethod
    def of(cls, standing: Standing, layout: Layout, connect_url: str) -> Self:
        server = standing.server
        return cls(
            slug=server.slug,
            name=server.name,
            auth=server.auth,
            uses=standing.uses,
            attention=standing.attention,
            accounts=[AccountView.of(account) for account in standing.accounts],
            fields=list(layout.fields) if server.auth == "api_key" else [],
            connect_url=connect_url,
        )


class ServerList(BaseModel):
    items: list[ServerView]


class RotationView(BaseModel):
    """How many of the vault's records (`done` of `total`) are wrapped by the master key `key`. `others` still
    wrap something. `known` are the keys of the replica that answers."""

    key: str
    since: str
    done: int
    total: int
    others: list[str]
    complete: bool
    known: list[str]

    @classmethod
    def of(cls, state: RotationState, known: list[str]) -> Self:
        return cls(
            key=state.key_id,
            since=state.since,
            done=state.done,
            total=state.total,
            others=list(state.others),
            complete=state.complete,
            known=known,
        )


def answers(model: type[BaseModel]) -> dict[str, Any]:
    """What OpenAPI says about a change that answers with `model`."""
    return {"response_model": model, "responses": {202: {"model": model}}}


def moment(unix: float) -> str | None:
    """Unix seconds as ISO 8601; None for 0, never."""
    return iso(datetime.fromtimestamp(unix, UTC)) if unix else None
