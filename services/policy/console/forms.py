"""What the pages' forms send, and how every page is shown."""

from pathlib import Path
from typing import Literal

from fastapi import Request
from pydantic import BaseModel
from starlette.responses import Response

from libs.common.control.entries import ServerAccess
from libs.common.errors import BadRequest
from libs.common.web import notices
from libs.common.web.frame import Pages
from libs.common.web.notices import Notice
from services.policy.domain import (
    Definition,
    InitialAccess,
    Precondition,
    Server,
    check_reason,
    check_tools,
    chosen,
)

pages = Pages(Path(__file__).parent.parent / "pages")


def show(
    request: Request, template: str, *, status: int = 200, notice: Notice | None = None, **values: object
) -> Response:
    """`template` with `notice`, or with the one that waits to be shown."""
    notice = notice or notices.waiting(request)
    response = pages.render(request, template, status=status, notice=notice, **values)  # type: ignore[arg-type]
    return notices.shown(response, request)


class ServerForm(BaseModel):
    """The fields of a server as they were typed; `version` is that of the page on which they were."""

    name: str = ""
    url: str = ""
    auth: str = "none"
    connect_timeout: str = "5"
    response_timeout: str = "120"
    version: str = ""

    @classmethod
    def of(cls, server: Server) -> "ServerForm":
        """The fields as they are filled in before anybody types."""
        definition = server.definition
        return cls(
            name=definition.name,
            url=definition.url,
            auth=definition.auth,
            connect_timeout=f"{definition.connect_timeout:g}",
            response_timeout=f"{definition.response_timeout:g}",
        )

    def definition(self) -> Definition:
        """The server that the fields describe. Raises `BadRequest`."""
        return Definition(
            name=self.name.strip(),
            url=self.url.strip(),
            auth=self.auth,  # type: ignore[arg-type]  # Definition checks it
            connect_timeout=_number("connect_timeout", self.connect_timeout),
            response_timeout=_number("response_timeout", self.response_timeout),
        )


class NewServerForm(ServerForm):
    """`default_access` says what the default group may use of it."""

    slug: str = ""
    default_access: str = "none"

    def access(self) -> InitialAccess:
        """Raises `BadRequest`."""
        match self.default_access:
            case "none" | "allow" | "deny" as access:
                return access
            case _:
                raise BadRequest("choose what the default group may use")


class SwitchForm(BaseModel):
    enabled: bool
    reason: str = ""

    def checked_reason(self) -> str:
        """The reason to keep: none for what is switched on. Raises `BadRequest`."""
        return "" if self.enabled else check_reason(self.reason.strip())


class ToolNamesForm(BaseModel):
    """Names of tools, one on each line."""

    names: str = ""

    def tools(self) -> list[str]:
        """Raises `BadRequest`."""
        return check_tools([line.strip() for line in self.names.splitlines() if line.strip()])


class GroupForm(BaseModel):
    name: str
    version: str


class AccessForm(BaseModel):
    """What a group may use of a server: nothing, all but the unticked tools, or only the ticked ones. `known`
    are the tools that the form showed, `back` is the page that it was on."""

    mode: Literal["none", "allow", "deny"]
    version: str
    back: Literal["group", "server"] = "group"
    known: list[str] = []
    ticked: list[str] = []

    def access(self) -> ServerAccess | None:
        """Raises `BadRequest`."""
        known = check_tools(self.known)
        return None if self.mode == "none" else chosen(self.mode, self.ticked, known)


def unless_changed(version: str) -> Precondition:
    """Only if the thing is as it was when the form was made. Raises `BadRequest`."""
    if not version.isdecimal() or len(version) > 18:
        raise BadRequest("the form's version field is no number")
    return Precondition(version=int(version))


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise BadRequest(f"{name} must be a number of seconds") from None
