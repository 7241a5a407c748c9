"""Switches: what is off, at which level, and until when."""

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, TypeAlias, get_args

from libs.common.clock import iso, now
from libs.common.control.entries import Off, client_key
from libs.common.errors import BadRequest, Conflict, NotFound
from services.policy.features import check_tool
from services.policy.names import check_group, check_reason, check_slug

Level: TypeAlias = Literal["organization", "server", "tool", "group", "user", "client"]
LEVELS: tuple[Level, ...] = get_args(Level)
USER = re.compile(r"[A-Za-z0-9_-]{1,100}")  # a user's id can be part of a key of the control log
CLIENT_LENGTH = 2000
# The server's entry names each; that has to fit into one message of the bus.
TOOLS_OFF_PER_SERVER = 200


class NotOff(NotFound):
    type, title = "not-switched-off", "This is not switched off"


class OffAlready(Conflict):
    type, title = "switched-off-already", "This is switched off already"


@dataclass(frozen=True, slots=True, kw_only=True)
class Switch:
    """Something that is off: since when, and who said so last. `version` never repeats.

    `subject` is empty for the organization, `<slug>/<tool>` for a tool, a client id for a client, and else
    the id of what the level says.
    """

    level: Level
    subject: str
    off: Off
    since: str
    changed_by: str
    version: int

    def record(self) -> dict[str, object]:
        """What the record of a change says of it."""
        return {
            "level": self.level,
            "subject": self.subject,
            "reason": self.off.reason,
            "until": self.off.until,
            "since": self.since,
        }


def check_subject(level: Level, subject: str) -> str:
    """`subject` if something at that level can be called so. Raises `BadRequest`."""
    if level == "server":
        return check_slug(subject)
    if level == "group":
        return check_group(subject)
    if level == "tool":
        return check_tool(subject)
    if level == "user" and not USER.fullmatch(subject):
        raise BadRequest(f"{subject[:80]!r} is no user's id")
    if level == "client" and not (0 < len(subject) <= CLIENT_LENGTH and subject.isprintable()):
        raise BadRequest(f"a client id has 1 to {CLIENT_LENGTH} printable characters")
    if level == "organization" and subject:
        raise BadRequest("the organization is one: its switch has no subject")
    return subject


def entry_key(level: Level, subject: str) -> str:
    """The key of the control log whose entry says whether that is off."""
    if level == "organization":
        return "org"
    kind, name = {
        "server": ("server", subject),
        "tool": ("server", server_of_tool(subject)),
        "group": ("group", subject),
        "user": ("member", subject),
        "client": ("client", client_key(subject)),
    }[level]
    return f"{kind}.{name}"


def server_of_tool(subject: str) -> str:
    """The slug in `<slug>/<tool>`."""
    return subject.partition("/")[0]


def off(reason: str, until: datetime | None = None) -> Off:
    """What is kept of a switch that is being turned off until then. Raises `BadRequest`."""
    if until is not None and until <= now():
        raise BadRequest("until must be in the future; leave it out if somebody will end it")
    return Off(reason=check_reason(reason.strip()), until=iso(until) if until else "")
