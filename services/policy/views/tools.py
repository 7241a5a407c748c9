"""Tools and their definitions."""

from typing import Self

from pydantic import BaseModel, Field

from libs.common.control.entries import Held
from services.policy.differences import Difference, differences, readable
from services.policy.pins import Pin, State
from services.policy.store.pins import Defined, Waiting
from services.policy.views.base import Body


class ApprovalBody(Body):
    """`digest` is that of the definition that was looked at."""

    digest: str


class ApprovalsBody(Body):
    """The digests of the definitions that were looked at, by tool."""

    tools: dict[str, str] = Field(min_length=1, max_length=2000)


class ToolView(BaseModel):
    """`digest` is that of the approved definition, empty while there is none: nobody has seen it yet
    (`unseen`), or it is `new` and waits. `offered` is that of the one that waits since `since`. A tool that
    is `changed` or `new` cannot be used; `rejected`: somebody has decided that it stays so."""

    name: str
    state: State
    digest: str
    offered: str
    since: str
    rejected: bool

    @classmethod
    def of(cls, name: str, pin: Pin, **more: object) -> Self:
        values: dict[str, object] = {
            "name": name,
            "state": pin.state,
            "digest": pin.digest,
            "offered": pin.offered,
            "since": pin.since,
            "rejected": pin.rejected,
        }
        return cls.model_validate(values | more)


class ToolPage(BaseModel):
    """`next` is the value of `?after=` for the following page; null on the last one."""

    items: list[ToolView]
    next: str | None


class DifferenceView(BaseModel):
    """A place (RFC 6901) at which two definitions differ; null where there is nothing. `lines`, of a text:
    what went ("- "), came ("+ ") and stayed ("  "). Characters that cannot be seen are written as escapes."""

    path: str
    before: str | None
    after: str | None
    lines: list[str]

    @classmethod
    def of(cls, difference: Difference) -> Self:
        return cls(**difference._asdict())


class DefinedTool(ToolView):
    """The definitions as JSON for people; null where there is none, or it was too long to be kept. Then
    `changes` is null too."""

    approved_definition: str | None
    offered_definition: str | None
    changes: list[DifferenceView] | None

    @classmethod
    def about(cls, name: str, defined: Defined) -> Self:
        pin, approved, offered = defined
        comparable = bool(offered) and bool(approved or not pin.digest)
        changes = [DifferenceView.of(each) for each in differences(approved, offered)] if comparable else None
        return cls.of(
            name,
            pin,
            approved_definition=readable(approved) or None,
            offered_definition=readable(offered) or None,
            changes=changes,
        )


class WaitingTool(BaseModel):
    """A tool that waits for an administrator since `since` (ISO 8601)."""

    server: str
    tool: str
    state: Held
    offered: str
    since: str

    @classmethod
    def of(cls, waiting: Waiting) -> Self:
        server, tool, pin = waiting
        assert pin.held
        return cls(server=server, tool=tool, state=pin.held, offered=pin.offered, since=pin.since)


class WaitingPage(BaseModel):
    """`next` is the value of `?after=` for the following page; null on the last one."""

    items: list[WaitingTool]
    next: str | None
