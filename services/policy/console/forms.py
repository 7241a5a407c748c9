"""What the pages' forms send, and how every page is shown."""

import re
from pathlib import Path
from typing import Any, Literal, TypeAlias

from fastapi import Request
from pydantic import BaseModel
from starlette.responses import Response

from libs.common.control.entries import ServerAccess
from libs.common.errors import BadRequest, LockgateError
from libs.common.web import notices
from libs.common.web.frame import Pages
from libs.common.web.notices import Notice
from services.policy.console.texts import (
    command_of,
    environment_of,
    text_of_command,
    text_of_environment,
)
from services.policy.definition import Definition, InitialAccess
from services.policy.domain import Precondition, Server
from services.policy.features import KINDS, Choice, Kind, check_names, chosen

# Whether to do it, or to see what it would have done in the last days.
Action: TypeAlias = Literal["save", "try"]
Days: TypeAlias = Literal["1", "7", "30"]

pages = Pages(Path(__file__).parent.parent / "pages")


def show(
    request: Request, template: str, *, status: int = 200, notice: Notice | None = None, **values: object
) -> Response:
    """`template` with `notice`, or with the one that waits to be shown."""
    notice = notice or notices.waiting(request)
    response = pages.render(request, template, status=status, notice=notice, **values)  # type: ignore[arg-type]
    return notices.shown(response, request)


# What the form asks in one question: `pinning` and `new_tools` -> the tools that wait for approval.
_HELD_TOOLS = {("enforce", "allow"): "changed", ("enforce", "review"): "new", ("off", "allow"): "none"}


class ServerForm(BaseModel):
    """The fields of a server as they were typed; `version` is that of the page on which they were. Those that
    are not of its transport do not count."""

    name: str = ""
    transport: str = "streamable_http"
    url: str = ""
    bridge: str = "auto"
    auth: str = "none"
    connect_timeout: str = "5"
    response_timeout: str = "120"
    idle_timeout: str = "60"
    command: str = ""
    environment: str = ""
    processes: str = "shared"
    idle_stop: str = "600"
    held_tools: str = "changed"
    version: str = ""

    @classmethod
    def of(cls, server: Server) -> "ServerForm":
        """The fields as they are filled in before anybody types."""
        definition = server.definition
        return cls(
            name=definition.name,
            transport=definition.transport,
            url=definition.url,
            bridge=definition.bridge,
            auth=definition.auth,
            connect_timeout=f"{definition.connect_timeout:g}",
            response_timeout=f"{definition.response_timeout:g}",
            idle_timeout=f"{definition.idle_timeout:g}",
            command=text_of_command(definition.command),
            environment=text_of_environment(definition.environment),
            processes=definition.processes,
            idle_stop=f"{definition.idle_stop:g}",
            held_tools=_HELD_TOOLS[definition.pinning, definition.new_tools],
        )

    def definition(self) -> Definition:
        """The server that the fields describe. Raises `BadRequest`."""
        numbers = ("connect_timeout", "response_timeout", "idle_timeout")
        values: dict[str, Any] = {
            "name": self.name.strip(),
            "transport": self.transport,
            "auth": self.auth,
            **self._pins(),
            **{name: _number(name, getattr(self, name)) for name in numbers},
        }
        return Definition(**values, **(self._process() if self.transport == "stdio" else self._address()))

    def _pins(self) -> dict[str, Any]:
        for (pinning, new_tools), held in _HELD_TOOLS.items():
            if held == self.held_tools:
                return {"pinning": pinning, "new_tools": new_tools}
        raise BadRequest("choose which tools wait for approval")

    def _address(self) -> dict[str, Any]:
        bridge = self.bridge if self.transport == "streamable_http" else "auto"
        return {"url": self.url.strip(), "bridge": bridge}

    def _process(self) -> dict[str, Any]:
        return {
            "command": command_of(self.command),
            "environment": environment_of(self.environment),
            "processes": self.processes,
            "idle_stop": _number("idle_stop", self.idle_stop),
        }


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


class NamesForm(BaseModel):
    """Names of what a server offers, one on each line."""

    tools: str = ""
    prompts: str = ""
    resources: str = ""

    def names(self) -> dict[Kind, list[str]]:
        return {kind: _names(getattr(self, kind)) for kind in KINDS}


class GroupForm(BaseModel):
    """`id` is asked for when it is created; then there is no `version`."""

    name: str = ""
    id: str = ""
    version: str = ""


class VersionForm(BaseModel):
    """A button."""

    version: str


class AccessForm(BaseModel):
    """What a group may use of a server: nothing, all but what is unticked, or only what is ticked. `known_*`
    is what the form showed, one on each line, `back` the page that it was on."""

    mode: Literal["none", "allow", "deny"]
    version: str
    back: Literal["group", "server"] = "group"
    action: Action = "save"
    days: Days = "7"
    known_tools: str = ""
    known_prompts: str = ""
    known_resources: str = ""
    tools: list[str] = []
    prompts: list[str] = []
    resources: list[str] = []

    def access(self, present: ServerAccess | None) -> ServerAccess | None:
        """What it may use then; what was not shown as it is at `present`. Raises `BadRequest`."""
        if self.mode == "none":
            return None
        return chosen(self.mode, {kind: self._choice(kind) for kind in KINDS}, present)

    def _choice(self, kind: Kind) -> Choice:
        return Choice(check_names(kind, _names(getattr(self, f"known_{kind}"))), getattr(self, kind))


def problem(error: LockgateError | None, what: str = "Not saved") -> Notice | None:
    """What to say above a form that was not taken."""
    if error is None:
        return None
    return Notice(f"{what}: {error.title}. {error.detail}".rstrip(), "bad")


def id_of(id: str, name: str) -> str:
    """The id that was typed, or else one that is like the name."""
    return id.strip() or re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:63].rstrip("-")


def unless_changed(version: str) -> Precondition:
    """Only if the thing is as it was when the form was made. Raises `BadRequest`."""
    if not version.isdecimal() or len(version) > 18:
        raise BadRequest("the form's version field is no number")
    return Precondition(version=int(version))


def words(text: str) -> list[str]:
    """Names that stand in a line or in several, with commas or without."""
    return text.replace(",", " ").split()


def _names(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise BadRequest(f"{name} must be a number of seconds") from None
