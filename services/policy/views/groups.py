"""Groups and what they may use."""

from typing import Self

import msgspec
from pydantic import BaseModel, Field

from libs.common.control.entries import Access, ServerAccess
from libs.common.control.owner import Receipt
from services.policy.domain import Group
from services.policy.features import KINDS, check_names
from services.policy.views.base import Body, Switched


class AccessBody(Body):
    """`default` is for whatever is not named. Resources are named by URI, or by the beginning of one with `*`
    behind it; the longest that fits counts."""

    default: Access = "allow"
    tools: dict[str, Access] = Field(default_factory=dict)
    prompts: dict[str, Access] = Field(default_factory=dict)
    resources: dict[str, Access] = Field(default_factory=dict)

    def access(self) -> ServerAccess:
        """Raises `BadRequest`."""
        for kind in KINDS:
            check_names(kind, getattr(self, kind))
        return ServerAccess(**self.model_dump())


class GroupBody(Body):
    name: str


class AccessView(BaseModel):
    default: Access
    tools: dict[str, Access]
    prompts: dict[str, Access]
    resources: dict[str, Access]


class GroupView(Switched):
    """A group and what it may use, by slug of the server; what is not named it may not use."""

    id: str
    name: str
    servers: dict[str, AccessView]

    @classmethod
    def of(cls, group: Group, **more: object) -> Self:
        servers = {slug: msgspec.structs.asdict(access) for slug, access in group.servers.items()}
        values: dict[str, object] = {"id": group.id, "name": group.name} | group.switched()
        return cls.model_validate(values | {"servers": servers} | more)


class GroupChanged(GroupView):
    receipt: Receipt


class GroupPage(BaseModel):
    """`next` is the value of `?after=` for the following page; null on the last one."""

    items: list[GroupView]
    next: str | None
